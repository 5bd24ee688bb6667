"""DEL: afterwards nothing of the attachment is left, whatever was left before. Everything else is success."""

from cni_underlay.cni.environment import Verb
from cni_underlay.cni.netconf import DelegateConf
from cni_underlay.errors import UnderlayError
from cni_underlay.plugin import delegate
from cni_underlay.plugin.namespaces import lease_netns, usable_netns
from cni_underlay.plugin.services import Request, Services, retire_master
from cni_underlay.records import DatapathKind, Lease


def delete(services: Services, request: Request) -> bytes:
    """Remove the interface, then end the lease: its address goes to rest only when nothing carries it any more.

    A failing delegate does not keep the interface, nor the other way round; the first failure is raised at the end.
    A link that the kernel refuses to remove keeps its lease, because it keeps the address.
    """
    failures: list[UnderlayError] = []
    with services.exclusive(request.attachment):
        try:
            _end(services, request, services.store.find(request.attachment))
        except UnderlayError as error:
            failures.append(error)
        if isinstance(request.conf.ipam, DelegateConf):  # under the lock: a later ADD's address must not be given back
            try:
                with request.steps.step("delegate"):
                    delegate.execute(services, request, request.conf.ipam, Verb.DEL)
            except UnderlayError as error:
                failures.append(error)
    if failures:
        raise failures[0]
    return b""


def delete_addresses(services: Services, request: Request) -> bytes:
    """DEL as a delegated IPAM plugin."""
    with services.exclusive(request.attachment):
        lease = services.store.find(request.attachment)
        if lease is not None:
            _release(services, request, lease)
    return b""


def _end(services: Services, request: Request, lease: Lease | None) -> None:
    offered = usable_netns(request)
    with request.steps.step("unwire"):
        if lease is None:
            services.datapath.delete_unknown(request.attachment, offered)
            return
        if lease.claim.datapath is not DatapathKind.NONE:
            with lease_netns(lease, offered) as netns:
                services.datapath.delete(lease, netns)
    _release(services, request, lease)
    retire_master(services, lease)


def _release(services: Services, request: Request, lease: Lease) -> None:
    request.note(lease)
    with request.steps.step("release"):
        services.store.release([lease.generation], "DEL", services.clock())
