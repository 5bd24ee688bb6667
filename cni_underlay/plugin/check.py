"""CHECK: what the kernel has against what ADD answered; it changes nothing."""

from cni_underlay.cni.environment import Verb
from cni_underlay.cni.netconf import DelegateConf
from cni_underlay.cni.result import Interface, Result
from cni_underlay.datapath.port import Expected
from cni_underlay.errors import CheckFailedError, InvalidConfigError
from cni_underlay.plugin import delegate
from cni_underlay.plugin.add import wiring_of
from cni_underlay.plugin.namespaces import require_netns
from cni_underlay.plugin.services import Request, Services
from cni_underlay.records import Lease


def check(services: Services, request: Request) -> bytes:
    """Raise `CheckFailedError` naming the first difference; judge only the interface that this plugin made."""
    result = _prev_result(request)
    netns = require_netns(request)
    interface, index = _own_interface(request, result)
    lease = _lease(services, request)
    mine = tuple(ip for ip in result.ips if ip.interface in (index, None))
    expected = Expected(
        mac=interface.mac,
        mtu=interface.mtu,
        addresses=tuple(ip.address for ip in mine),
        gateways=tuple(ip.gateway for ip in mine if ip.gateway is not None),
        routes=result.routes,
    )
    with request.steps.step("read"):
        services.datapath.check(wiring_of(lease), netns, expected)
    if isinstance(request.conf.ipam, DelegateConf):
        with request.steps.step("delegate"):
            delegate.execute(services, request, request.conf.ipam, Verb.CHECK)
    return b""


def check_addresses(services: Services, request: Request) -> bytes:
    """CHECK as a delegated IPAM plugin: the lease stands, and prevResult has all of its addresses."""
    result = _prev_result(request)
    lease = _lease(services, request)
    listed = {ip.address.ip for ip in result.ips}
    for address in lease.addresses:
        if address.interface.ip not in listed:
            raise CheckFailedError(f"prevResult lacks {address.interface.ip}, which this attachment leases")
    return b""


def _prev_result(request: Request) -> Result:
    if request.conf.prev_result is None:
        raise InvalidConfigError("prevResult: CHECK needs the result of the ADD, and the configuration has none")
    return request.conf.prev_result


def _own_interface(request: Request, result: Result) -> tuple[Interface, int]:
    call = request.call
    for index, interface in enumerate(result.interfaces):
        if interface.name == call.ifname and interface.sandbox:
            if interface.sandbox != call.netns:
                raise CheckFailedError(
                    f"prevResult has {call.ifname} in {interface.sandbox!r}, but CNI_NETNS is {call.netns!r}"
                )
            return interface, index
    raise CheckFailedError(f"prevResult has no interface {call.ifname} in a sandbox")


def _lease(services: Services, request: Request) -> Lease:
    lease = services.store.find(request.attachment)
    if lease is None:
        raise CheckFailedError(
            f"the ledger has no lease of {request.call.ifname} for container {request.call.container_id} "
            f"in network {request.conf.name}"
        )
    return lease
