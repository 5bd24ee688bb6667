"""The contract without a disk: for tests of the layers above, and as the second opinion on what the verbs mean."""

import threading
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from cni_underlay.errors import AttachmentExistsError, TryAgainLaterError
from cni_underlay.ipam import choice
from cni_underlay.ipam.book import Book
from cni_underlay.ipam.keys import address_of, key_of
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


@dataclass(slots=True)
class _Entry:
    """A lease, which of its addresses are a delegate's, and since when those rested that the lease took early."""

    lease: Lease
    delegated: set[LeasedAddress] = field(default_factory=set)
    rested: dict[LeasedAddress, float | None] = field(default_factory=dict)


class MemoryStore:
    """See `store/port.py`. `early_reuses` counts addresses that were leased before their quarantine was over."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._book = Book()
        self._entries: dict[int, _Entry] = {}
        self._pools: set[str] = set()
        self._events: defaultdict[IPAddress, list[Event]] = defaultdict(list)
        self._generation = 0

    @property
    def early_reuses(self) -> int:
        return self._book.early_reuses

    def acquire(self, claim: Claim, pools: Sequence[Pool], wanted: Sequence[IPAddress], now: Instant) -> Lease:
        with self._lock:
            if self._at(claim.attachment) is not None:
                raise AttachmentExistsError(f"{claim.attachment} holds a lease already")
            chosen = choice.lease(self._book, pools, wanted, now.uptime)
            claim = replace(claim, mac=mac_of(claim, chosen.addresses))
            routes, dns = (chosen.pool.routes, chosen.pool.dns) if chosen.pool else ((), Dns())
            self._generation += 1
            lease = Lease(
                generation=self._generation,
                claim=claim,
                addresses=chosen.addresses,
                routes=routes,
                dns=dns,
                leased_at=now,
            )
            self._entries[lease.generation] = _Entry(lease, rested={each.address: each.since for each in chosen.picks})
            for pick in chosen.picks:
                self._note(lease, "leased", pick.address, pick.reason, now)
            return lease

    def settle(self, generation: int) -> None:
        pass

    def record(
        self, generation: int, addresses: Sequence[LeasedAddress], routes: Sequence[Route], dns: Dns, now: Instant
    ) -> Lease:
        with self._lock:
            entry = self._entries.get(generation)
            if entry is None:
                raise TryAgainLaterError(f"lease {generation} ended before its addresses could be recorded")
            news = [address for address in addresses if address not in entry.lease.addresses]
            with self._book.attempt():
                for address in news:
                    self._book.adopt(address.pool, key_of(address.interface))
            held = (*entry.lease.addresses, *news)
            claim = replace(entry.lease.claim, mac=mac_of(entry.lease.claim, held))
            entry.lease = replace(entry.lease, claim=claim, addresses=held, routes=tuple(routes), dns=dns)
            entry.delegated.update(news)
            for address in news:
                self._note(entry.lease, "leased", address, "by a delegate", now)
            return entry.lease

    def confirm(self, generation: int) -> None:
        with self._lock:
            if entry := self._entries.get(generation):
                entry.lease = replace(entry.lease, attached=True)

    def find(self, attachment: Attachment) -> Lease | None:
        with self._lock:
            return self._at(attachment)

    def holder(self, address: IPAddress) -> Lease | None:
        with self._lock:
            return next((lease for lease in self._leases() if address in _ips(lease)), None)

    def leases(self) -> tuple[Lease, ...]:
        with self._lock:
            return tuple(self._leases())

    def release(self, generations: Sequence[int], reason: str, now: Instant) -> int:
        with self._lock:
            ended = [entry for each in generations if (entry := self._entries.pop(each, None)) is not None]
            for entry in ended:
                for address in entry.lease.addresses:
                    key = key_of(address.interface)
                    if address in entry.delegated:
                        self._book.withdraw(address.pool, key, None)
                        self._note(entry.lease, "freed", address, reason, now)
                    else:
                        self._book.release(address.pool, key, now.uptime)
                        self._note(entry.lease, "quarantined", address, reason, now)
            return len(ended)

    def withdraw(self, generation: int, now: Instant) -> None:
        with self._lock:
            entry = self._entries.pop(generation, None)
            if entry is None:
                return
            for address in entry.lease.addresses:
                since = entry.rested.get(address)
                self._book.withdraw(address.pool, key_of(address.interface), since)
                self._note(entry.lease, "freed" if since is None else "quarantined", address, "never on the wire", now)

    def users(self, master: str) -> int:
        with self._lock:
            return sum(1 for lease in self._leases() if lease.claim.master == master)

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
        with self._lock:
            with self._book.attempt():
                for address in addresses:
                    self._book.set_aside(pool, key_of(address), state)
            for address in addresses:
                self._append(_event(now, state.value, pool, address, reason, mac))

    def give_back(self, pool: str, addresses: Sequence[IPAddress], now: Instant, *, reason: str = "") -> int:
        with self._lock:
            given = [each for each in addresses if self._book.give_back(pool, key_of(each)) is not None]
            for address in given:
                self._append(_event(now, "freed", pool, address, reason))
            return len(given)

    def has_room(self, pool: Pool, now: Instant) -> bool:
        with self._lock:
            return choice.has_room(self._book, pool, now.uptime)

    def require_writable(self) -> None:
        """Memory always is."""

    def usage(self) -> tuple[PoolUsage, ...]:
        with self._lock:
            return tuple(self._book.shelf(pool).usage() for pool in sorted(self._pools))

    def history(self, address: IPAddress) -> tuple[Event, ...]:
        with self._lock:
            return tuple(self._events.get(address, ()))

    def tidy(self, now: Instant) -> int:
        with self._lock:
            gone = self._book.tidy(now.uptime, 500)
            for pool, key in gone:
                self._append(_event(now, "freed", pool, address_of(key), "rested"))
            return len(gone)

    def close(self) -> None:
        """Nothing is open."""

    def _leases(self) -> list[Lease]:
        return [entry.lease for entry in self._entries.values()]

    def _at(self, attachment: Attachment) -> Lease | None:
        return next((lease for lease in self._leases() if lease.claim.attachment == attachment), None)

    def _note(self, lease: Lease, what: str, address: LeasedAddress, reason: str, now: Instant) -> None:
        claim = lease.claim
        self._append(
            Event(
                at=now.wall,
                what=what,
                pool=address.pool,
                address=address.interface.ip,
                generation=lease.generation,
                attachment=claim.attachment,
                pod=claim.pod,
                mac=claim.mac,
                reason=reason,
            )
        )

    def _append(self, event: Event) -> None:
        self._pools.add(event.pool)
        self._events[event.address].append(event)


def _ips(lease: Lease) -> set[IPAddress]:
    return {address.interface.ip for address in lease.addresses}


def _event(now: Instant, what: str, pool: str, address: IPAddress, reason: str, mac: str = "") -> Event:
    return Event(at=now.wall, what=what, pool=pool, address=address, generation=0, mac=mac, reason=reason)
