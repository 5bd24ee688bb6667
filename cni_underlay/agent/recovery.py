"""What an agent does before it serves anything: bring ledger and kernel into agreement after whatever stopped it.

Leases of another boot end (their namespaces died with it). A lease whose ADD may have been cut short is either complete
in the kernel, and stands, or is taken away with all its parts. Links, routes and neighbours of no lease are removed.
"""

import os
from dataclasses import dataclass

from cni_underlay.agent.log import LOGGER
from cni_underlay.errors import UnderlayError
from cni_underlay.plugin.add import wiring_of
from cni_underlay.plugin.gc import end, open_netns
from cni_underlay.plugin.services import Services
from cni_underlay.records import DatapathKind, Lease


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """Counts for the log: leases standing, ended with their boot, found complete, taken away; and things swept."""

    leases: int
    other_boot: int
    completed: int
    undone: int
    swept: tuple[str, ...]


def recover(services: Services) -> Recovered:
    """Run once, before the first request."""
    now = services.clock()
    leases = services.store.leases()
    old = [lease.generation for lease in leases if lease.leased_at.boot_id != now.boot_id]
    services.store.release(old, "another boot", now)
    standing = [lease for lease in leases if lease.leased_at.boot_id == now.boot_id]
    doubtful = [lease for lease in standing if not lease.attached and lease.claim.datapath is not DatapathKind.NONE]
    undone = [lease for lease in doubtful if not _complete(services, lease)]
    for lease in undone:
        _take_away(services, lease)
    swept = services.datapath.sweep(services.store.leases())
    return Recovered(
        leases=len(standing) - len(undone),
        other_boot=len(old),
        completed=len(doubtful) - len(undone),
        undone=len(undone),
        swept=swept,
    )


def _complete(services: Services, lease: Lease) -> bool:
    """Whether the kernel has every part of the lease's interface; it is confirmed then."""
    netns = open_netns(lease)
    if netns is None:
        return False
    try:
        if services.datapath.wired(wiring_of(lease, lease.routes), netns) is None:
            return False
    finally:
        os.close(netns)
    services.store.confirm(lease.generation)
    return True


def _take_away(services: Services, lease: Lease) -> None:
    """One lease that resists must not keep the node from serving; it stays, and the log says so."""
    try:
        end(services, lease, "ADD was cut short")
    except UnderlayError as error:
        attachment = lease.claim.attachment
        LOGGER.error(  # noqa: TRY400  # an expected kind of failure, told in words
            "an unfinished attachment could not be removed",
            extra={"container": attachment.container_id, "ifname": attachment.ifname, "error": str(error)},
        )
