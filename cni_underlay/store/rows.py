"""Records as rows and rows as records: the only module that knows the order of columns."""

import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from itertools import groupby
from operator import itemgetter
from typing import Any

from cni_underlay.errors import InvalidConfigError
from cni_underlay.ipam.keys import IPV6
from cni_underlay.records import (
    Attachment,
    Claim,
    DatapathKind,
    Event,
    Instant,
    IPAddress,
    Lease,
    LeasedAddress,
    Pod,
    PoolUsage,
)
from cni_underlay.store import terms
from cni_underlay.store.text import restored, stored

Row = tuple[Any, ...]
_IPV4_BYTES = 4
_INT64 = 1 << 63

_CLAIM = (
    "network, container_id, ifname, pod_namespace, pod_name, pod_uid, datapath, mode, master, mtu, mac, host_ifname, "
    "netns_path, netns_inode"
)
_LEASES = f"""
    SELECT lease.generation, {_CLAIM}, terms.body, lease.wall, lease.uptime, boot.boot_id, attached,
        pool.name, address.slot, address.address, address.prefix, address.gateway
    FROM lease
    JOIN terms ON terms.id = lease.terms
    JOIN boot ON boot.id = lease.boot
    LEFT JOIN address ON address.generation = lease.generation
    LEFT JOIN pool ON pool.id = address.pool
"""  # noqa: S608  # constants of this module only
_FIRST_OF_ADDRESS = 20
_ORDER = " ORDER BY lease.generation, address.pool, address.slot"
INSERT_LEASE = f"INSERT INTO lease ({_CLAIM}, terms, wall, uptime, boot) VALUES ({', '.join('?' * 18)})"  # noqa: S608


def packed(key: int) -> bytes:
    """A key of the book as the ledger has it."""
    return (key ^ IPV6).to_bytes(16) if key & IPV6 else key.to_bytes(4)


def key_from(blob: bytes) -> int:
    value = int.from_bytes(blob)
    return value if len(blob) == _IPV4_BYTES else value | IPV6


def address_from(blob: bytes) -> IPAddress:
    return IPv4Address(blob) if len(blob) == _IPV4_BYTES else IPv6Address(blob)


def attachment_row(attachment: Attachment) -> Row:
    return (stored(attachment.network), stored(attachment.container_id), stored(attachment.ifname))


def require_storable(claim: Claim) -> None:
    """Raise `InvalidConfigError` where a number does not fit a column."""
    for name, number in (("mtu", claim.mtu), ("netns inode", claim.netns_inode)):
        if not -_INT64 <= number < _INT64:
            raise InvalidConfigError(f"{name}: {number} is no number of 64 bits")


def claim_row(claim: Claim) -> Row:
    return (
        *attachment_row(claim.attachment),
        stored(claim.pod.namespace),
        stored(claim.pod.name),
        stored(claim.pod.uid),
        claim.datapath.value,
        stored(claim.mode),
        stored(claim.master),
        claim.mtu,
        stored(claim.mac),
        stored(claim.host_ifname),
        stored(claim.netns_path),
        claim.netns_inode,
    )


def all_leases(connection: sqlite3.Connection) -> Iterator[Lease]:
    """Oldest first."""
    return _leases(connection.execute(_LEASES + _ORDER))


def lease_of(connection: sqlite3.Connection, generation: int) -> Lease | None:
    return next(_leases(connection.execute(_LEASES + "WHERE lease.generation = ?" + _ORDER, (generation,))), None)


def lease_at(connection: sqlite3.Connection, attachment: Attachment) -> Lease | None:
    where = "WHERE network = ? AND container_id = ? AND ifname = ?"
    return next(_leases(connection.execute(_LEASES + where + _ORDER, attachment_row(attachment))), None)


def lease_holding(connection: sqlite3.Connection, address: IPAddress) -> Lease | None:
    # Pools are few, so one look into the primary key for each of them beats an index that every ADD would pay for.
    found = connection.execute(
        "SELECT min(generation) FROM pool JOIN address ON address.pool = pool.id AND address.address = ?",
        (address.packed,),
    ).fetchone()[0]
    return None if found is None else lease_of(connection, found)


def users(connection: sqlite3.Connection, master: str) -> int:
    return int(connection.execute("SELECT count(*) FROM lease WHERE master = ?", (stored(master),)).fetchone()[0])


def usage(connection: sqlite3.Connection) -> tuple[PoolUsage, ...]:
    """By name; pools that were used before and hold nothing are there, too."""
    rows = connection.execute(
        """
        SELECT name, total(state = 'leased'), total(state = 'quarantined'), total(state = 'reserved'),
            total(state = 'foreign')
        FROM pool LEFT JOIN address ON address.pool = pool.id GROUP BY pool.id ORDER BY name
        """
    )
    return tuple(
        PoolUsage(
            pool=restored(name),
            leased=int(leased),
            quarantined=int(quarantined),
            reserved=int(reserved),
            foreign=int(foreign),
        )
        for name, leased, quarantined, reserved, foreign in rows
    )


def history(connection: sqlite3.Connection, address: IPAddress) -> tuple[Event, ...]:
    """Oldest first."""
    rows = connection.execute(
        """
        SELECT wall, what, pool.name, address, generation, network, container_id, ifname, pod_namespace, pod_name,
            pod_uid, mac, reason
        FROM history JOIN pool ON pool.id = history.pool WHERE address = ? ORDER BY history.id
        """,
        (address.packed,),
    )
    return tuple(map(_event, rows))


def with_mark(lease: Lease) -> Lease:
    """The lease of an attachment whose interface is complete."""
    return lease if lease.attached else replace(lease, attached=True)


def _leases(rows: Iterable[Row]) -> Iterator[Lease]:
    for _, group in groupby(rows, key=itemgetter(0)):
        yield _lease(list(group))


def _lease(rows: list[Row]) -> Lease:
    (generation, network, container_id, ifname, namespace, name, uid, datapath, mode, master, mtu, mac, host_ifname,
     netns_path, netns_inode, body, wall, uptime, boot_id, attached) = rows[0][:_FIRST_OF_ADDRESS]  # fmt: skip
    routes, dns = terms.read(body)
    claim = Claim(
        attachment=Attachment(network=restored(network), container_id=restored(container_id), ifname=restored(ifname)),
        pod=Pod(namespace=restored(namespace), name=restored(name), uid=restored(uid)),
        datapath=DatapathKind(datapath),
        mode=restored(mode),
        master=restored(master),
        mtu=mtu,
        mac=restored(mac),
        host_ifname=restored(host_ifname),
        netns_path=restored(netns_path),
        netns_inode=netns_inode,
    )
    return Lease(
        generation=generation,
        claim=claim,
        addresses=tuple(_address(row[_FIRST_OF_ADDRESS:]) for row in rows if row[_FIRST_OF_ADDRESS] is not None),
        routes=routes,
        dns=dns,
        leased_at=Instant(wall=wall, uptime=uptime, boot_id=boot_id),
        attached=bool(attached),
    )


def _address(row: Row) -> LeasedAddress:
    pool, slot, blob, prefix, gateway = row
    kind = IPv4Interface if len(blob) == _IPV4_BYTES else IPv6Interface
    return LeasedAddress(
        pool=restored(pool),
        slot=slot,
        interface=kind((int.from_bytes(blob), prefix)),
        gateway=_gateway(gateway),
    )


@lru_cache(maxsize=64)  # one for each subnet
def _gateway(blob: bytes | None) -> IPAddress | None:
    return None if blob is None else address_from(blob)


def _event(row: Row) -> Event:
    (wall, what, pool, blob, generation, network, container_id, ifname, namespace, name, uid, mac, reason) = row
    attachment = Attachment(network=restored(network), container_id=restored(container_id), ifname=restored(ifname))
    return Event(
        at=wall,
        what=what,
        pool=restored(pool),
        address=address_from(blob),
        generation=generation,
        attachment=attachment if generation else None,
        pod=Pod(namespace=restored(namespace), name=restored(name), uid=restored(uid)),
        mac=restored(mac),
        reason=restored(reason),
    )
