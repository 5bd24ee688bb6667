"""A set of integers that finds its next gap at one cost, whether it holds none, a million, or all but a few.

A radix tree of bit words, 1024 children a node. A bit at level 0 says that the integer is taken; a bit above says that
the whole node below is full. Levels and nodes exist only where something is full, so the number line has no end, and a
dense million costs about 170 kB.
"""

_BITS = 10
_FANOUT = 1 << _BITS
_SLOT = _FANOUT - 1
_FULL = (1 << _FANOUT) - 1


class Space:
    """Which integers from 0 up are taken. `taken` counts them."""

    __slots__ = ("_levels", "taken")

    def __init__(self) -> None:
        self._levels: list[dict[int, int]] = [{}]
        self.taken = 0

    def is_taken(self, offset: int) -> bool:
        return self._levels[0].get(offset >> _BITS, 0) >> (offset & _SLOT) & 1 == 1

    def take(self, offset: int) -> None:
        """Mark as taken; no effect where it is."""
        if self.is_taken(offset):
            return
        self.taken += 1
        for level in self._levels:
            node, slot = offset >> _BITS, offset & _SLOT
            level[node] = word = level.get(node, 0) | 1 << slot
            if word != _FULL:
                return
            offset = node
        self._levels.append({offset >> _BITS: 1 << (offset & _SLOT)})

    def give(self, offset: int) -> None:
        """Mark as free; no effect where it is."""
        if not self.is_taken(offset):
            return
        self.taken -= 1
        for level in self._levels:
            node, slot = offset >> _BITS, offset & _SLOT
            word = level.pop(node)
            if rest := word ^ 1 << slot:
                level[node] = rest
            if word != _FULL:
                return
            offset = node

    def next_free(self, low: int, high: int) -> int | None:
        """The lowest free integer of `low` to `high`, both included."""
        depth, index = 0, low
        while depth < len(self._levels):
            node, slot = index >> _BITS, index & _SLOT
            gap = slot + _lowest_zero(self._levels[depth].get(node, 0) >> slot)
            if gap < _FANOUT:
                index = node << _BITS | gap
                break
            depth, index = depth + 1, node + 1
        for level in reversed(self._levels[:depth]):
            index = index << _BITS | _lowest_zero(level.get(index, 0))
        return index if index <= high else None


def _lowest_zero(word: int) -> int:
    return (~word & (word + 1)).bit_length() - 1
