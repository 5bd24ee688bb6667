"""The statements that change the ledger, each inside a transaction that somebody else began."""

import sqlite3
from collections.abc import Iterable, Sequence

from cni_underlay.records import AddressState, Attachment, Claim, Instant, LeasedAddress
from cni_underlay.store.rows import INSERT_LEASE, Row, attachment_row, claim_row, key_from, packed
from cni_underlay.store.text import restored, stored

_LEASE_ADDRESS = """
    INSERT INTO address (pool, address, state, generation, slot, prefix, gateway, delegated, rested_since, wall, uptime,
        boot) VALUES (?, ?, 'leased', ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (pool, address) DO UPDATE SET state = 'leased', generation = excluded.generation, slot = excluded.slot,
        prefix = excluded.prefix, gateway = excluded.gateway, delegated = excluded.delegated,
        rested_since = excluded.rested_since, wall = excluded.wall, uptime = excluded.uptime, boot = excluded.boot
    WHERE state = 'quarantined'
"""
_SET_ASIDE = """
    INSERT INTO address (pool, address, state, wall, uptime, boot) VALUES (?, ?, ?, ?, ?, ?)
    ON CONFLICT (pool, address) DO UPDATE SET state = excluded.state, wall = excluded.wall, uptime = excluded.uptime,
        boot = excluded.boot
    WHERE state <> 'leased'
"""
_REST = "UPDATE address SET state = 'quarantined', generation = NULL, wall = ?, uptime = ?, boot = ?, "
_EVENT_OF_LEASE = """
    INSERT INTO history (wall, uptime, boot, what, pool, address, generation, network, container_id, ifname,
        pod_namespace, pod_name, pod_uid, mac, reason)
    SELECT ?, ?, ?, ?, ?, ?, generation, network, container_id, ifname, pod_namespace, pod_name, pod_uid, mac, ?
    FROM lease WHERE generation = ?
"""
_EVENT = """
    INSERT INTO history (wall, uptime, boot, what, pool, address, mac, reason) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""


_REMEMBERED = 1000  # row numbers of each kind; a network's leases share theirs


class Disagreement(sqlite3.IntegrityError):
    """The ledger's own constraints refuse what the book allowed: the book is not what the ledger says."""


class Writer:
    """Remembers row numbers of boots, pools and terms; `forget` them when a transaction was rolled back."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self._boots: dict[str, int] = {}
        self._pools: dict[str, int] = {}
        self._quarantines: dict[str, float] = {}
        self._terms: dict[str, int] = {}

    def forget(self) -> None:
        self._boots.clear()
        self._pools.clear()
        self._quarantines.clear()
        self._terms.clear()

    def generation_of(self, attachment: Attachment) -> int | None:
        query = "SELECT generation FROM lease WHERE network = ? AND container_id = ? AND ifname = ?"
        row = self.connection.execute(query, attachment_row(attachment)).fetchone()
        return None if row is None else int(row[0])

    def insert_lease(self, claim: Claim, body: str, now: Instant) -> int:
        """The new generation."""
        row = (*claim_row(claim), self._terms_id(body), now.wall, now.uptime, self.boot(now.boot_id))
        return self.connection.execute(INSERT_LEASE, row).lastrowid or 0

    def lease_address(
        self, generation: int, address: LeasedAddress, now: Instant, *, since: float | None, reason: str
    ) -> None:
        """An address that the book chose; `since` where that cut its rest short."""
        pool, blob = self.pool(address.pool), address.interface.packed
        self._hold(generation, address, now, since, delegated=0)
        cursor = "INSERT INTO cursor VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET address = excluded.address"
        self.connection.execute(cursor, (pool, address.slot, blob))
        self._event(generation, "leased", (pool, blob), reason, now)

    def record_address(self, generation: int, address: LeasedAddress, now: Instant) -> None:
        """An address that a delegate chose."""
        self._hold(generation, address, now, None, delegated=1)
        self._event(generation, "leased", (self.pool(address.pool), address.interface.packed), "by a delegate", now)

    def complete_lease(self, generation: int, mac: str, body: str) -> None:
        """What follows from a delegate's answer."""
        row = (stored(mac), self._terms_id(body), generation)
        self.connection.execute("UPDATE lease SET mac = ?, terms = ? WHERE generation = ?", row)

    def mark_attached(self, generations: Iterable[int]) -> None:
        self.connection.executemany(
            "UPDATE lease SET attached = 1 WHERE generation = ?", ((generation,) for generation in generations)
        )

    def end_lease(self, generation: int, reason: str, now: Instant) -> list[tuple[str, int, int]] | None:
        """Its addresses to quarantine, delegated ones free; returns (pool, key, delegated), None for no such lease."""
        held = []
        for name, pool, blob, delegated, _ in self._addresses(generation):
            self._event(generation, "freed" if delegated else "quarantined", (pool, blob), reason, now)
            if delegated:
                self._delete_address(pool, blob)
            else:
                row = (now.wall, now.uptime, self.boot(now.boot_id), pool, blob)
                self.connection.execute(_REST + "rested_since = NULL WHERE pool = ? AND address = ?", row)
            held.append((restored(name), key_from(blob), delegated))
        return held if self._delete_lease(generation) else None

    def withdraw_lease(self, generation: int, now: Instant) -> list[tuple[str, int, float | None]]:
        """Its addresses to what they were before; returns (pool, key, since when it rests again or None)."""
        held = []
        for name, pool, blob, _, rested in self._addresses(generation):
            # Uptimes of two boots cannot be compared; where in doubt the rest begins anew.
            since = rested if rested is None or self._same_boot(generation, now) else now.uptime
            what = "freed" if since is None else "quarantined"
            self._event(generation, what, (pool, blob), "never on the wire", now)
            if since is None:
                self._delete_address(pool, blob)
            else:
                row = (now.wall, since, self.boot(now.boot_id), pool, blob)
                self.connection.execute(_REST + "rested_since = NULL WHERE pool = ? AND address = ?", row)
            held.append((restored(name), key_from(blob), since))
        self._delete_lease(generation)
        return held

    def set_aside(self, pool: str, key: int, state: AddressState, now: Instant, *, mac: str, reason: str) -> None:
        place = (self.pool(pool), packed(key))
        moment = (now.wall, now.uptime, self.boot(now.boot_id))
        self._changed(self.connection.execute(_SET_ASIDE, (*place, state.value, *moment)))
        self.connection.execute(_EVENT, (*moment, state.value, *place, stored(mac), stored(reason)))

    def free(self, keys: Iterable[tuple[str, int]], reason: str, now: Instant) -> None:
        """Addresses that nobody leases: delete their rows."""
        for name, key in keys:
            pool, blob = self.pool(name), packed(key)
            self._delete_address(pool, blob)
            self.connection.execute(
                _EVENT, (now.wall, now.uptime, self.boot(now.boot_id), "freed", pool, blob, "", stored(reason))
            )

    def prune_history(self, kept: int, most: int) -> None:
        """Forget the oldest events beyond `kept`, at most so many at once."""
        query = """
            DELETE FROM history WHERE id <= (SELECT max(id) FROM history) - ?
                AND id < (SELECT min(id) FROM history) + ?
        """
        self.connection.execute(query, (kept, most))

    def note_quarantine(self, name: str, quarantine: float) -> None:
        """Keep what the latest lease says of its pool."""
        pool = self.pool(name)
        if self._quarantines.get(name) != quarantine:
            self.connection.execute("UPDATE pool SET quarantine = ? WHERE id = ?", (quarantine, pool))
            self._quarantines[name] = quarantine

    def pool(self, name: str) -> int:
        return self._number(self._pools, "pool", "name", name)

    def boot(self, boot_id: str) -> int:
        return self._number(self._boots, "boot", "boot_id", boot_id)

    def _terms_id(self, body: str) -> int:
        return self._number(self._terms, "terms", "body", body)

    def _number(self, known: dict[str, int], table: str, column: str, value: str) -> int:
        if len(known) > _REMEMBERED:
            known.clear()
        if value not in known:
            insert = f"INSERT INTO {table} ({column}) VALUES (?) ON CONFLICT DO NOTHING"  # noqa: S608  # constants
            self.connection.execute(insert, (stored(value),))
            select = f"SELECT id FROM {table} WHERE {column} = ?"  # noqa: S608
            known[value] = self.connection.execute(select, (stored(value),)).fetchone()[0]
        return known[value]

    def _hold(
        self, generation: int, address: LeasedAddress, now: Instant, since: float | None, *, delegated: int
    ) -> None:
        row = (
            self.pool(address.pool),
            address.interface.packed,
            generation,
            address.slot,
            address.interface.network.prefixlen,
            None if address.gateway is None else address.gateway.packed,
            delegated,
            since,
            now.wall,
            now.uptime,
            self.boot(now.boot_id),
        )
        self._changed(self.connection.execute(_LEASE_ADDRESS, row))

    def _addresses(self, generation: int) -> Sequence[Row]:
        query = """
            SELECT pool.name, pool.id, address, delegated, rested_since
            FROM address JOIN pool ON pool.id = address.pool WHERE generation = ?
        """
        return self.connection.execute(query, (generation,)).fetchall()

    def _same_boot(self, generation: int, now: Instant) -> bool:
        boot = self.connection.execute("SELECT boot FROM lease WHERE generation = ?", (generation,)).fetchone()
        return bool(boot[0] == self.boot(now.boot_id))

    def _event(self, generation: int, what: str, place: tuple[int, bytes], reason: str, now: Instant) -> None:
        moment = (now.wall, now.uptime, self.boot(now.boot_id))
        self.connection.execute(_EVENT_OF_LEASE, (*moment, what, *place, stored(reason), generation))

    def _delete_address(self, pool: int, blob: bytes) -> None:
        self._changed(self.connection.execute("DELETE FROM address WHERE pool = ? AND address = ?", (pool, blob)))

    def _delete_lease(self, generation: int) -> bool:
        return self.connection.execute("DELETE FROM lease WHERE generation = ?", (generation,)).rowcount == 1

    @staticmethod
    def _changed(cursor: sqlite3.Cursor) -> None:
        if cursor.rowcount != 1:
            raise Disagreement("an address is not in the state that the agent believes it in")
