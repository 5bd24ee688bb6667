"""Leases, pools and history as plain documents: the one schema that the socket, `-o json` and `-o yaml` show."""

from collections.abc import Iterable, Mapping
from typing import Any

from cni_underlay.ipam.span import span_of
from cni_underlay.records import Event, Lease, Pool, PoolUsage


def lease_document(lease: Lease) -> dict[str, Any]:
    """One lease. `leased_at` is seconds since the epoch."""
    claim = lease.claim
    return {
        "addresses": [
            {
                "address": str(address.interface.ip),
                "prefix_length": address.interface.network.prefixlen,
                "gateway": str(address.gateway) if address.gateway else "",
                "pool": address.pool,
            }
            for address in lease.addresses
        ],
        "pod": {"namespace": claim.pod.namespace, "name": claim.pod.name, "uid": claim.pod.uid},
        "network": claim.attachment.network,
        "container_id": claim.attachment.container_id,
        "ifname": claim.attachment.ifname,
        "mac": claim.mac,
        "datapath": claim.datapath.value,
        "mode": claim.mode,
        "master": claim.master,
        "host_ifname": claim.host_ifname,
        "netns": claim.netns_path,
        "netns_inode": claim.netns_inode,
        "generation": lease.generation,
        "leased_at": lease.leased_at.wall,
        "boot_id": lease.leased_at.boot_id,
    }


def usage_document(usage: Iterable[PoolUsage], pools: Mapping[str, Pool]) -> list[dict[str, Any]]:
    """Configured pools, used or not, then pools that only leases know of.

    All numbers count addresses. `size` (what the ranges can give away at all) and `free` are null where the ranges are
    unknown: those of a network's inline ranges, or of a pool that is not configured any more.
    """
    counts = {entry.pool: entry for entry in usage}
    names = sorted(pools) + sorted(name for name in counts if name not in pools)
    return [_usage_row(counts.get(name) or _unused(name), pools.get(name)) for name in names]


def event_document(event: Event) -> dict[str, Any]:
    """One row of history. `at` is seconds since the epoch."""
    attachment = event.attachment
    return {
        "at": event.at,
        "what": event.what,
        "address": str(event.address),
        "pool": event.pool,
        "pod": {"namespace": event.pod.namespace, "name": event.pod.name, "uid": event.pod.uid},
        "network": attachment.network if attachment else "",
        "container_id": attachment.container_id if attachment else "",
        "ifname": attachment.ifname if attachment else "",
        "mac": event.mac,
        "generation": event.generation,
        "reason": event.reason,
    }


def _unused(name: str) -> PoolUsage:
    return PoolUsage(pool=name, leased=0, quarantined=0, reserved=0, foreign=0)


def _usage_row(used: PoolUsage, pool: Pool | None) -> dict[str, Any]:
    size = sum(span_of(pool.sets, slot).size for slot in range(len(pool.sets))) if pool else None
    taken = used.leased + used.quarantined + used.reserved + used.foreign
    return {
        "pool": used.pool,
        "subnets": list(dict.fromkeys(str(each.subnet) for ranges in pool.sets for each in ranges)) if pool else [],
        "size": size,
        "leased": used.leased,
        "quarantined": used.quarantined,
        "reserved": used.reserved,
        "foreign": used.foreign,
        # Never below zero: a pool that was made smaller may have given away more than it has.
        "free": None if size is None else max(0, size - taken),
    }
