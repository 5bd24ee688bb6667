"""The store that ships: the contract's verbs on a SQLite file.

The database is the truth; the book in memory finds addresses fast and is only ever what the database says. Every change
goes through one group commit: pick from the book, write rows, commit; if the commit fails, the book is put back.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from cni_underlay.errors import AttachmentExistsError, StoreUnavailableError, TryAgainLaterError
from cni_underlay.ipam import choice
from cni_underlay.ipam.keys import key_of
from cni_underlay.ipam.mac import mac_of
from cni_underlay.records import (
    AddressState,
    Attachment,
    Claim,
    Dns,
    Event,
    Instant,
    IPAddress,
    Lease,
    LeasedAddress,
    Pool,
    PoolUsage,
    Route,
)
from cni_underlay.store import rows, terms
from cni_underlay.store.commits import GroupCommit, Operation, Weight
from cni_underlay.store.ledger import Ledger
from cni_underlay.store.opening import Damage

_T = TypeVar("_T")

RESERVE = 1 << 20  # bytes of disk space kept back for DELs: a hundred of them, on a log that starts anew now and then
HISTORY_ROWS = 500_000  # about 150 MB; a node with one ADD and one DEL a second writes that in two days
_TIDIED_AT_ONCE = 250  # rows, about 15 ms of work before the next ADD gets its turn
_PRUNED_AT_ONCE = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """Since the ledger was opened: operations over commits is how many ADDs and DELs shared a wait for the disk.

    `reloads` counts disagreements of book and ledger, `rewrites` ledgers that somebody removed while they were in use.
    """

    commits: int
    operations: int
    early_reuses: int
    reloads: int
    rewrites: int


class SQLiteStore:
    """Opening locks the ledger; a second agent is refused. See `store/port.py` for the verbs.

    `damage` says what happened to a ledger that could not be trusted: then this one started empty.
    """

    def __init__(self, path: Path, now: Instant, *, reserve: int = RESERVE, history_rows: int = HISTORY_ROWS) -> None:
        self._ledger = Ledger(path, now, reserve)
        self._commits = GroupCommit(self._ledger.commit)
        self._history_rows = history_rows
        self._tickets: dict[int, int] = {}  # of flushes that somebody will wait for, by generation

    @property
    def damage(self) -> Damage | None:
        return self._ledger.damage

    @property
    def counters(self) -> Counters:
        ledger = self._ledger
        return Counters(
            commits=ledger.commits,
            operations=ledger.operations,
            early_reuses=ledger.book.early_reuses,
            reloads=ledger.reloads,
            rewrites=ledger.rewrites,
        )

    def acquire(self, claim: Claim, pools: Sequence[Pool], wanted: Sequence[IPAddress], now: Instant) -> Lease:
        rows.require_storable(claim)  # what cannot be written is refused before anybody else's transaction sees it
        lease = self._run(partial(self._acquire, claim, pools, wanted, now), Weight.DEFERRED)
        self._tickets[lease.generation] = self._ledger.flusher.ask()
        return lease

    def settle(self, generation: int) -> None:
        ticket = self._tickets.pop(generation, 0)
        self._ledger.flusher.wait(ticket)

    def record(
        self, generation: int, addresses: Sequence[LeasedAddress], routes: Sequence[Route], dns: Dns, now: Instant
    ) -> Lease:
        return self._run(partial(self._record, generation, addresses, tuple(routes), dns, now))

    def confirm(self, generation: int) -> None:
        self._ledger.marks.add(generation)

    def flush_marks(self) -> None:
        if self._ledger.marks:
            self._run(lambda: None, Weight.LIGHT)

    def find(self, attachment: Attachment) -> Lease | None:
        marks = frozenset(self._ledger.marks)  # before the row is read: a commit may clear them in between
        with self._ledger.reading() as connection:
            return _marked(rows.lease_at(connection, attachment), marks)

    def holder(self, address: IPAddress) -> Lease | None:
        marks = frozenset(self._ledger.marks)
        with self._ledger.reading() as connection:
            return _marked(rows.lease_holding(connection, address), marks)

    def users(self, master: str) -> int:
        with self._ledger.reading() as connection:
            return rows.users(connection, master)

    def leases(self) -> tuple[Lease, ...]:
        marks = frozenset(self._ledger.marks)
        with self._ledger.browsing() as connection:
            return tuple(
                rows.with_mark(lease) if lease.generation in marks else lease for lease in rows.all_leases(connection)
            )

    def release(self, generations: Sequence[int], reason: str, now: Instant) -> int:
        for generation in generations:
            self._tickets.pop(generation, None)
        return self._run(partial(self._release, generations, reason, now), Weight.ESSENTIAL) if generations else 0

    def withdraw(self, generation: int, now: Instant) -> None:
        self._tickets.pop(generation, None)
        self._run(partial(self._withdraw, generation, now), Weight.ESSENTIAL)

    def set_aside(
        self,
        pool: str,
        addresses: Sequence[IPAddress],
        state: AddressState,
        now: Instant,
        *,
        mac: str = "",
        reason: str = "",
    ) -> None:
        self._run(partial(self._set_aside, pool, addresses, state, now, mac, reason))

    def give_back(self, pool: str, addresses: Sequence[IPAddress], now: Instant, *, reason: str = "") -> int:
        return self._run(partial(self._give_back, pool, addresses, now, reason))

    def has_room(self, pool: Pool, now: Instant) -> bool:
        with self._ledger.guard:
            return choice.has_room(self._ledger.book, pool, now.uptime)

    def require_writable(self) -> None:
        self._ledger.require_writable()

    def usage(self) -> tuple[PoolUsage, ...]:
        with self._ledger.browsing() as connection:
            return rows.usage(connection)

    def history(self, address: IPAddress) -> tuple[Event, ...]:
        with self._ledger.browsing() as connection:
            return rows.history(connection, address)

    def tidy(self, now: Instant) -> int:
        with self._ledger.guard:
            due = self._ledger.book.overdue(now.uptime)
        freed = self._run(partial(self._tidy, now), Weight.LIGHT) if due else 0
        with suppress(StoreUnavailableError):  # they wait in memory for a better moment
            self.flush_marks()
        self._ledger.maintain(now)
        return freed

    def close(self) -> None:
        self._ledger.closing = True
        with suppress(
            StoreUnavailableError
        ):  # closed already, or the last marks are lost: reading the kernel finds them
            self._run(lambda: None, Weight.LIGHT)

    def _run(self, work: Callable[[], _T], weight: Weight = Weight.DURABLE) -> _T:
        return self._commits.run(Operation(work, weight))

    def _acquire(self, claim: Claim, pools: Sequence[Pool], wanted: Sequence[IPAddress], now: Instant) -> Lease:
        book, writer = self._ledger.book, self._ledger.writer
        standing = writer.generation_of(claim.attachment)
        if standing is not None:
            raise AttachmentExistsError(
                f"{claim.attachment.ifname} of container {claim.attachment.container_id} holds lease {standing} already"
            )
        chosen = choice.lease(book, pools, wanted, now.uptime)
        claim = replace(claim, mac=mac_of(claim, chosen.addresses))
        routes, dns = (chosen.pool.routes, chosen.pool.dns) if chosen.pool else ((), Dns())
        generation = writer.insert_lease(claim, terms.written(routes, dns), now)
        self._ledger.marks.discard(generation)
        if chosen.pool:
            writer.note_quarantine(chosen.pool.name, chosen.pool.quarantine)
        for pick in chosen.picks:
            writer.lease_address(generation, pick.address, now, since=pick.since, reason=pick.reason)
        return Lease(
            generation=generation, claim=claim, addresses=chosen.addresses, routes=routes, dns=dns, leased_at=now
        )

    def _record(
        self, generation: int, addresses: Sequence[LeasedAddress], routes: tuple[Route, ...], dns: Dns, now: Instant
    ) -> Lease:
        book, writer = self._ledger.book, self._ledger.writer
        lease = rows.lease_of(writer.connection, generation)
        if lease is None:
            raise TryAgainLaterError(f"lease {generation} ended before its addresses could be recorded")
        news = [address for address in addresses if address not in lease.addresses]
        with book.attempt():
            for address in news:
                book.adopt(address.pool, key_of(address.interface))
        held = (*lease.addresses, *news)
        claim = replace(lease.claim, mac=mac_of(lease.claim, held))
        writer.complete_lease(generation, claim.mac, terms.written(routes, dns))
        for address in news:
            writer.record_address(generation, address, now)
        return replace(lease, claim=claim, addresses=held, routes=routes, dns=dns)

    def _release(self, generations: Sequence[int], reason: str, now: Instant) -> int:
        book, ended = self._ledger.book, 0
        for generation in generations:
            held = self._ledger.writer.end_lease(generation, reason, now)
            for pool, key, delegated in held or ():
                if delegated:
                    book.withdraw(pool, key, None)
                else:
                    book.release(pool, key, now.uptime)
            ended += held is not None
        return ended

    def _withdraw(self, generation: int, now: Instant) -> None:
        for pool, key, since in self._ledger.writer.withdraw_lease(generation, now):
            self._ledger.book.withdraw(pool, key, since)

    def _set_aside(
        self, pool: str, addresses: Sequence[IPAddress], state: AddressState, now: Instant, mac: str, reason: str
    ) -> None:
        keys = [key_of(address) for address in addresses]
        with self._ledger.book.attempt():
            for key in keys:
                self._ledger.book.set_aside(pool, key, state)
        for key in keys:
            self._ledger.writer.set_aside(pool, key, state, now, mac=mac, reason=reason)

    def _give_back(self, pool: str, addresses: Sequence[IPAddress], now: Instant, reason: str) -> int:
        keys = [key_of(address) for address in addresses]
        given = [(pool, key) for key in keys if self._ledger.book.give_back(pool, key) is not None]
        self._ledger.writer.free(given, reason, now)
        return len(given)

    def _tidy(self, now: Instant) -> int:
        gone = self._ledger.book.tidy(now.uptime, _TIDIED_AT_ONCE)
        self._ledger.writer.free(gone, "rested", now)
        self._ledger.writer.prune_history(self._history_rows, _PRUNED_AT_ONCE)
        return len(gone)


def _marked(lease: Lease | None, marks: frozenset[int]) -> Lease | None:
    return rows.with_mark(lease) if lease is not None and lease.generation in marks else lease
