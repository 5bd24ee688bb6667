"""The life of addresses, as values only: who may get which, given what is leased, rests, is reserved or foreign.

free -> leased -> quarantined -> free; reserved and foreign are set aside until they are given back. The ledger is the
truth; the book is what it says, in a shape that finds the next address at one cost however many are held. Nothing here
reads a clock: `uptime` comes in with every call, so no change of the date can shorten a rest.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice

from cni_underlay.errors import AddressInUseError
from cni_underlay.ipam.keys import address_of
from cni_underlay.ipam.shelf import Shelf
from cni_underlay.ipam.space import Space
from cni_underlay.records import AddressState


class Book:
    """Every pool's addresses. Not safe for threads by itself: its owner lets one in at a time."""

    def __init__(self) -> None:
        self._shelves: dict[str, Shelf] = {}
        self.everywhere = Space()  # the union of what all shelves hold closed; to read from
        self._undo: ExitStack | None = None
        self.early_reuses = 0

    def shelf(self, pool: str) -> Shelf:
        """To read from; only the book changes a shelf."""
        return self._shelves.get(pool) or self._shelves.setdefault(pool, Shelf(pool))

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Undo every change made inside, exactly, unless the block ends well. May be nested."""
        outer, self._undo = self._undo, ExitStack()
        try:
            with self._undo as changes:
                yield
                kept = changes.pop_all()
                if outer is not None:
                    outer.push(kept)
        finally:
            self._undo = outer

    def begin(self) -> None:
        """Start to note changes, as `attempt` does, for a transaction that ends elsewhere; then `keep` or `revert`."""
        self._undo = ExitStack()

    def keep(self) -> None:
        self._undo = None

    def revert(self) -> None:
        changes, self._undo = self._undo, None
        if changes is not None:
            changes.close()

    def overdue(self, uptime: float) -> bool:
        """Whether `tidy` has anything to do."""
        for shelf in self._shelves.values():
            self.settle(shelf, uptime, shelf.quarantine)
        return any(shelf.rest.rested for shelf in self._shelves.values())

    def settle(self, shelf: Shelf, uptime: float, quarantine: float) -> None:
        """Let those go whose rest is over at `uptime`; a longer quarantine than the last one calls some back."""
        shelf.quarantine = quarantine
        for key in shelf.rest.wake(uptime, quarantine):
            self._open(shelf, key)
        for key in shelf.rest.recall(uptime, quarantine):
            self._close(shelf, key)

    def lease(self, pool: str, slot: int, key: int) -> None:
        """Free -> leased, or quarantined -> leased (counted as early reuse). The set's next search starts behind it."""
        shelf = self.shelf(pool)
        early = 1 if key in shelf.rest.resting else 0
        cursor, since = shelf.cursors.get(slot), shelf.rest.end(key)
        self._close(shelf, key)
        shelf.cursors[slot] = key
        self.early_reuses += early
        self._on_undo(self._take_back, shelf, slot, key, cursor, since, early)

    def adopt(self, pool: str, key: int) -> None:
        """Hold an address that somebody else chose. Raises `AddressInUseError` where it is not free."""
        shelf = self.shelf(pool)
        if (state := shelf.state(key)) is not None:
            raise AddressInUseError(f"address {address_of(key)} is {state} in pool {pool}")
        since = shelf.rest.end(key)
        self._close(shelf, key)
        self._on_undo(self._abandon, shelf, key, since)

    def release(self, pool: str, key: int, uptime: float) -> None:
        """Leased -> quarantined since `uptime`."""
        shelf = self.shelf(pool)
        shelf.rest.begin(key, uptime)
        # Closing it, too: a quarantine of nothing may have let it go since, in the same transaction.
        self._on_undo(self._lease_again, shelf, key)

    def withdraw(self, pool: str, key: int, since: float | None) -> None:
        """Leased -> what it was before the lease: free, or quarantined `since` then."""
        shelf = self.shelf(pool)
        self._abandon(shelf, key, since)
        self._on_undo(self._lease_again, shelf, key)

    def set_aside(self, pool: str, key: int, state: AddressState) -> None:
        """Anything but leased -> reserved or foreign. Raises `AddressInUseError` where somebody leases it."""
        shelf = self.shelf(pool)
        if shelf.state(key) is AddressState.LEASED:
            raise AddressInUseError(f"address {address_of(key)} of pool {pool} is leased")
        before, since = shelf.aside.get(key), shelf.rest.end(key)
        shelf.aside[key] = state
        self._close(shelf, key)
        self._on_undo(self._restore, shelf, key, before, since)

    def give_back(self, pool: str, key: int) -> AddressState | None:
        """Reserved or foreign -> free; None, and no change, where it is neither."""
        shelf = self.shelf(pool)
        state = shelf.aside.pop(key, None)
        if state is not None:
            self._open(shelf, key)
            self._on_undo(self._restore, shelf, key, state, None)
        return state

    def tidy(self, uptime: float, most: int) -> tuple[tuple[str, int], ...]:
        """Forget rests that are over by the quarantine of each pool's latest lease; returns them as (pool, key)."""
        gone: list[tuple[str, int]] = []
        for shelf in self._shelves.values():
            self.settle(shelf, uptime, shelf.quarantine)
            for key in list(islice(shelf.rest.rested, most - len(gone))):
                self._on_undo(self._abandon, shelf, key, shelf.rest.end(key))
                gone.append((shelf.name, key))
        return tuple(gone)

    # What the ledger says, at start: none of these can be undone, and none checks anything.

    def load_leased(self, pool: str, keys: Iterable[int]) -> None:
        shelf = self.shelf(pool)
        for key in keys:
            self._close(shelf, key)

    def load_resting(self, pool: str, rests: Sequence[tuple[float, int]]) -> None:
        """`rests` are (uptime of the release, key), in any order."""
        shelf = self.shelf(pool)
        for since, key in sorted(rests):
            shelf.rest.begin(key, since)
            self._close(shelf, key)

    def _close(self, shelf: Shelf, key: int) -> None:
        shelf.closed.take(key)
        self.everywhere.take(key)

    def _open(self, shelf: Shelf, key: int) -> None:
        shelf.closed.give(key)
        if not any(other.closed.is_taken(key) for other in self._shelves.values()):
            self.everywhere.give(key)

    def _on_undo(self, action: Callable[..., object], *arguments: object) -> None:
        if self._undo is not None:
            self._undo.callback(action, *arguments)

    def _take_back(
        self, shelf: Shelf, slot: int, key: int, cursor: int | None, since: float | None, early: int
    ) -> None:
        self.early_reuses -= early
        if cursor is None:
            del shelf.cursors[slot]
        else:
            shelf.cursors[slot] = cursor
        self._abandon(shelf, key, since)

    def _abandon(self, shelf: Shelf, key: int, since: float | None) -> None:
        self._open(shelf, key)
        if since is not None:
            for resting in shelf.rest.put_back(key, since):
                self._close(shelf, resting)

    def _lease_again(self, shelf: Shelf, key: int) -> None:
        shelf.rest.end(key)
        self._close(shelf, key)

    def _restore(self, shelf: Shelf, key: int, state: AddressState | None, since: float | None) -> None:
        if state is None:
            del shelf.aside[key]
            self._abandon(shelf, key, since)
        else:
            shelf.aside[key] = state
            self._close(shelf, key)
