"""Quarantine of one pool: which addresses rest since when, oldest first.

An address whose rest is over is remembered for as long as nobody leases or tidies it: a reload may lengthen the
quarantine, and then it rests again. Times are seconds of uptime; they come in (nearly) rising order, so that both
queues are sorted and every step costs the same however many rest. Where two callers overtake each other by a
moment, the younger one's entry waits for the older one's: an address rests a little longer, never shorter.
"""

from collections import OrderedDict
from collections.abc import Iterator


class Rest:
    """`resting` may not be given out; `rested` may."""

    __slots__ = ("rested", "resting")

    def __init__(self) -> None:
        self.resting: OrderedDict[int, float] = OrderedDict()
        self.rested: OrderedDict[int, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self.resting) + len(self.rested)

    def begin(self, key: int, since: float) -> None:
        self.resting[key] = since

    def end(self, key: int) -> float | None:
        """Forget the key; returns since when it rested, None where it did not."""
        since = self.resting.pop(key, None)
        return self.rested.pop(key, None) if since is None else since

    def wake(self, uptime: float, quarantine: float) -> Iterator[int]:
        """Let those whose rest is over go; yields them."""
        while self.resting:
            key, since = next(iter(self.resting.items()))
            if uptime - since < quarantine:
                return
            del self.resting[key]
            self.rested[key] = since
            yield key

    def recall(self, uptime: float, quarantine: float) -> Iterator[int]:
        """Make those rest again whose rest was over under a shorter quarantine only; yields them."""
        while self.rested:
            key, since = next(reversed(self.rested.items()))
            if uptime - since >= quarantine:
                return
            del self.rested[key]
            self.resting[key] = since
            self.resting.move_to_end(key, last=False)
            yield key

    def put_back(self, key: int, since: float) -> Iterator[int]:
        """Undo `end`: all rest again, in order, until the next `wake`; yields those that did not rest a moment ago."""
        woken = [*self.rested, key]
        # Before its equals: whoever was taken for having rested longest was the first of them.
        everybody = [(key, since), *self.rested.items(), *self.resting.items()]
        self.rested.clear()
        self.resting = OrderedDict(sorted(everybody, key=lambda entry: entry[1]))
        yield from woken
