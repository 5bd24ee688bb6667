"""What an agent does before it serves anything: bring ledger and kernel into agreement after whatever stopped it.

Leases of another boot end (their namespaces died with it). A lease whose ADD may have been cut short is either complete
in the kernel, and stands, or is taken away with all its parts. Links, routes and neighbours of no lease are removed.
"""

from collections.abc import Callable
from dataclasses import dataclass

from cni_underlay.agent.log import LOGGER
from cni_underlay.errors import UnderlayError
from cni_underlay.plugin.add import wiring_of
from cni_underlay.plugin.gc import end
from cni_underlay.plugin.namespaces import lease_netns
from cni_underlay.plugin.services import Services
from cni_underlay.records import DatapathKind, Lease

Sweep = Callable[[tuple[Lease, ...]], tuple[str, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """Counts for the log: leases standing, ended with their boot, found complete, taken away; and things swept."""

    leases: int
    other_boot: int
    completed: int
    undone: int
    swept: tuple[str, ...]


def recover(services: Services, sweep: Sweep) -> Recovered:
    """Run once, before the first request. `sweep` removes from the node what belongs to none of the given leases."""
    now = services.clock()
    leases = services.store.leases()
    standing = [lease for lease in leases if lease.leased_at.boot_id == now.boot_id]
    old = [lease.generation for lease in leases if lease.leased_at.boot_id != now.boot_id]
    if old:
        services.store.release(old, "another boot", now)
    # Who only asked for addresses has no interface here to look at: the runtime's DEL or repeated ADD will tell.
    doubtful = [lease for lease in standing if not lease.attached and lease.claim.datapath is not DatapathKind.NONE]
    ended = {lease.generation for lease in doubtful if not _complete(services, lease) and _take_away(services, lease)}
    remaining = tuple(lease for lease in standing if lease.generation not in ended)
    return Recovered(
        leases=len(remaining),
        other_boot=len(old),
        completed=len(doubtful) - len(ended),
        undone=len(ended),
        swept=sweep(remaining),
    )


def spare(_leases: tuple[Lease, ...]) -> tuple[str, ...]:
    """The sweep after the ledger was lost: what seems to belong to nobody are running pods, and stays for their DEL."""
    return ()


def _complete(services: Services, lease: Lease) -> bool:
    """Whether the kernel has every part of the lease's interface; it is confirmed then."""
    with lease_netns(lease, None) as netns:
        if netns is None or services.datapath.wired(wiring_of(lease), netns) is None:
            return False
    services.store.confirm(lease.generation)
    return True


def _take_away(services: Services, lease: Lease) -> bool:
    """False for a lease that resists: it must not keep the node from serving; it stays, and the log says so."""
    try:
        end(services, lease, "ADD was cut short")
    except UnderlayError as error:
        attachment = lease.claim.attachment
        LOGGER.error(  # an expected kind of failure, told in words
            "an unfinished attachment could not be removed",
            extra={"container": attachment.container_id, "ifname": attachment.ifname, "error": str(error)},
        )
        return False
    return True
