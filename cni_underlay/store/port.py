"""The contract of a ledger. Every adapter passes the same suite (`tests/store`); SQLite is the one that ships.

All verbs may be called from any thread. Each either commits whole or leaves the ledger as it was, and every one of them
may raise `StoreUnavailableError` (disk full, read-only, damaged), after which nothing has changed.
"""

from collections.abc import Sequence
from typing import Protocol

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


class Store(Protocol):
    """The node's ledger: leases, the addresses' states, and the history of both."""

    def acquire(self, claim: Claim, pools: Sequence[Pool], wanted: Sequence[IPAddress], now: Instant) -> Lease:
        """Lease one address per set from the first of `pools` that can give them all.

        No kill of the process can lose the lease from here on; a loss of power can until `settle` has returned, and
        nothing may be answered before that.

        With no pools the lease has no addresses yet (a delegate will supply them, see `record`). `wanted` addresses are
        honoured exactly or refused. The lease's claim has its final MAC (`ipam/mac.py`). Raises `AttachmentExistsError`
        where the attachment holds a lease already, `PoolExhaustedError`, `AddressInUseError`, `InvalidConfigError` (a
        wanted address that no range can give).
        """

    def settle(self, generation: int) -> None:
        """Wait until the lease is on the disk. Raises `StoreUnavailableError` when the disk refuses; end it then."""

    def record(
        self, generation: int, addresses: Sequence[LeasedAddress], routes: Sequence[Route], dns: Dns, now: Instant
    ) -> Lease:
        """Durably give a lease what somebody else allocated (a delegate): addresses, and its routes and DNS with them.

        Such addresses are freed without quarantine on release: their own manager decides when they rest. Those the
        lease has already are no change. Raises `AddressInUseError` where one is held in its pool, `TryAgainLaterError`
        where the lease ended meanwhile.
        """

    def confirm(self, generation: int) -> None:
        """Note that the interface is complete; `find` and `leases` show it at once.

        Not durable by itself: lost marks are found again by reading the kernel.
        """

    def find(self, attachment: Attachment) -> Lease | None:
        """The attachment's lease, or None."""

    def holder(self, address: IPAddress) -> Lease | None:
        """The lease that holds the address in any pool, or None."""

    def leases(self) -> tuple[Lease, ...]:
        """Every lease, oldest first."""

    def release(self, generations: Sequence[int], reason: str, now: Instant) -> int:
        """Durably end leases, all in one transaction: their addresses go to quarantine.

        Unknown generations are skipped. Returns how many leases ended. Works on a full disk.
        """

    def withdraw(self, generation: int, now: Instant) -> None:
        """Durably end a lease whose addresses were never on the wire (its ADD failed): they are free at once.

        One whose rest the lease had cut short goes on resting. Without this verb a runtime that retries a failing ADD
        for ever would put a whole pool to rest. An unknown generation is no change. Works on a full disk.
        """

    def users(self, master: str) -> int:
        """How many leases have their interfaces on this master."""

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
        """Durably keep addresses from being leased: `RESERVED`, or `FOREIGN` with the MAC that answers for them.

        Ends their rest, and replaces an earlier such state. Raises `AddressInUseError`, for all of them, where one is
        leased.
        """

    def give_back(self, pool: str, addresses: Sequence[IPAddress], now: Instant, *, reason: str = "") -> int:
        """Durably free those of the addresses that were set aside; returns how many were."""

    def has_room(self, pool: Pool, now: Instant) -> bool:
        """Whether each set of the pool could give an address at this moment.

        Changes nothing, and waits for no commit.
        """

    def require_writable(self) -> None:
        """Raise `StoreUnavailableError` when the next commit is bound to fail: read-only directory, no space.

        No commit is tried.
        """

    def usage(self) -> tuple[PoolUsage, ...]:
        """Counts per pool, by name. An address counts as quarantined until it is leased again or tidied."""

    def history(self, address: IPAddress) -> tuple[Event, ...]:
        """What happened to the address, oldest first."""

    def tidy(self, now: Instant) -> int:
        """Make addresses whose quarantine is over free for good; returns how many.

        Which quarantine: that of the latest lease from their pool. Called a few times a second, never on an ADD's path;
        does the ledger's other housekeeping, too.
        """

    def close(self) -> None:
        """Flush and close. Safe to call twice."""
