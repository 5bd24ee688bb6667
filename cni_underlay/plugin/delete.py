"""DEL: afterwards nothing of the attachment is left, whatever was left before. Everything else is success."""

from contextlib import suppress

from cni_underlay.cni.environment import Verb
from cni_underlay.cni.netconf import DelegateConf
from cni_underlay.datapath.netns import inode, is_netns, is_own
from cni_underlay.errors import UnderlayError
from cni_underlay.plugin import delegate
from cni_underlay.plugin.services import Request, Services, retire_master
from cni_underlay.records import Lease


def delete(services: Services, request: Request) -> bytes:
    """Remove the interface, then end the lease: its address goes to rest only when nothing carries it any more.

    A failing delegate does not keep the interface, nor the other way round; the first failure is raised at the end.
    A link that the kernel refuses to remove keeps its lease, because it keeps the address.
    """
    failures: list[UnderlayError] = []
    with services.locks.hold(request.attachment):
        lease = services.store.find(request.attachment)
        try:
            with request.steps.step("unwire"):
                _unwire(services, request, lease)
            if lease is not None:
                with request.steps.step("release"):
                    services.store.release([lease.generation], "DEL", services.clock())
                retire_master(services, lease)
        except UnderlayError as error:
            failures.append(error)
    if isinstance(request.conf.ipam, DelegateConf):
        try:
            with request.steps.step("delegate"):
                delegate.execute(request, request.conf.ipam, Verb.DEL)
        except UnderlayError as error:
            failures.append(error)
    if failures:
        raise failures[0]
    return b""


def delete_addresses(services: Services, request: Request) -> bytes:
    """DEL as a delegated IPAM plugin."""
    with services.locks.hold(request.attachment), request.steps.step("release"):
        lease = services.store.find(request.attachment)
        if lease is not None:
            services.store.release([lease.generation], "DEL", services.clock())
    return b""


def _unwire(services: Services, request: Request, lease: Lease | None) -> None:
    netns = usable_netns(request)
    if lease is None:
        services.datapath.delete_unknown(request.attachment, netns)
        return
    # A late DEL may come with the namespace of a newer life of the same container: only the lease's own is entered.
    same = netns is not None and (not lease.claim.netns_inode or inode(netns) == lease.claim.netns_inode)
    services.datapath.delete(lease, netns if same else None)


def usable_netns(request: Request) -> int | None:
    """The descriptor of CNI_NETNS where it is a namespace and not the node's own (a left-over plain file is neither)."""
    if request.netns is not None:
        with suppress(UnderlayError, OSError):
            if is_netns(request.netns) and not is_own(request.netns):
                return request.netns
    return None
