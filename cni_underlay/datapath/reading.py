"""Comparing what the kernel has with what it should have: an attachment's two sides, in words that say what differs."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_address

from cni_underlay.datapath import facts, hardware, host_link, messages
from cni_underlay.datapath.facts import Address, KernelRoute, Link
from cni_underlay.datapath.netlink import RequestSocket
from cni_underlay.datapath.plan import PodPlan
from cni_underlay.datapath.port import Expected, Wiring
from cni_underlay.records import DatapathKind, IPAddress, Route

_LOCAL_TABLE = 255
# What the kernel writes where a route was added without a metric.
_NO_METRIC = {4: 0, 6: 1024}


@dataclass(frozen=True, slots=True, kw_only=True)
class PodState:
    """The pod's interface, and all routes of its namespace."""

    link: Link
    addresses: list[Address]
    routes: list[KernelRoute]


def read_pod(requests: RequestSocket, ifname: str) -> PodState | None:
    """None when no interface of that name exists."""
    link = facts.link_named(requests, ifname)
    if link is None:
        return None
    routes = [route for route in facts.routes(requests) if route.table != _LOCAL_TABLE]
    return PodState(link=link, addresses=facts.addresses(requests, link.index), routes=routes)


def link_differences(state: PodState, plan: PodPlan) -> Iterator[str]:
    link = state.link
    if link.kind != plan.kind:
        yield f"{plan.ifname} is of kind {link.kind or 'device'} instead of {plan.kind}"
    elif link.alias != plan.alias:
        yield f"{plan.ifname} is not the interface that ADD made"
    if not link.up:
        yield f"{plan.ifname} is down"


def expectation_differences(state: PodState, expected: Expected, mtu: int) -> Iterator[str]:
    """Against a CHECK's prevResult; what it does not mention is no matter. `mtu` is the configuration's, or 0."""
    link = state.link
    if expected.mac and hardware.mac_bytes(expected.mac) != link.mac:
        yield f"{link.name} has MAC {hardware.mac_text(link.mac)} instead of {expected.mac}"
    wanted_mtu = expected.mtu or mtu
    if wanted_mtu and wanted_mtu != link.mtu:
        yield f"{link.name} has MTU {link.mtu} instead of {wanted_mtu}"
    found = {(address.packed, address.prefixlen): address for address in state.addresses}
    for interface in expected.addresses:
        address = found.get((interface.packed, interface.network.prefixlen))
        if address is None:
            yield f"{link.name} lacks the address {interface}"
        elif address.failed:
            yield f"{link.name} has {interface}, but another machine uses it (duplicate address detection)"
    for route in expected.routes:
        if difference := _route_difference(state, route, expected.gateways):
            yield difference


def _route_difference(state: PodState, route: Route, gateways: tuple[IPAddress, ...]) -> str:
    """Empty when the route is there.

    A route without a gateway of its own goes by one of the addresses' gateways, where there are any. One by a gateway
    that is none of those, through another interface, was another plugin's to make and is fine.
    """
    ours = {gateway.packed for gateway in gateways if gateway.version == route.dst.version}
    allowed = {route.gw.packed} if route.gw else ours or {b""}
    same = [found for found in state.routes if _same_target(found, route)]
    matching = [found for found in same if found.gateway in allowed]
    if any(found.index == state.link.index for found in matching):
        return ""
    if matching and route.gw and route.gw.packed not in ours:
        return ""
    own = [found for found in same if found.index == state.link.index]
    if own:
        return f"the route to {route.dst} goes by {_gateway(own[0])} instead of {route.gw or 'its gateway'}"
    return f"the route to {route.dst} leaves by another interface" if same else f"the route to {route.dst} is missing"


def _same_target(found: KernelRoute, route: Route) -> bool:
    return (
        found.prefixlen == route.dst.prefixlen
        and found.packed == route.dst.network_address.packed
        and (route.table is None or found.table == route.table)
        and (route.priority is None or found.priority == route.priority)
    )


def _gateway(found: KernelRoute) -> str:
    return str(ip_address(found.gateway)) if found.gateway else "no gateway"


def installed_routes(state: PodState, plan: PodPlan) -> tuple[Route, ...] | None:
    """The plan's routes as they stand on its link, metrics included; None when one is missing."""
    installed = []
    for route in plan.routes:
        gateway = route.gw.packed if route.gw else b""
        target = replace(route, priority=None)
        same = (found for found in state.routes if found.index == state.link.index and _same_target(found, target))
        found = next((found for found in same if found.gateway == gateway), None)
        if found is None:
            return None
        unsaid = route.priority is None and found.priority == _NO_METRIC[route.dst.version]
        installed.append(target if unsaid else replace(target, priority=found.priority))
    return tuple(installed)


def has_addresses(state: PodState, plan: PodPlan) -> bool:
    found = {(address.packed, address.prefixlen) for address in state.addresses if not address.failed}
    wanted = {(endpoint.interface.packed, endpoint.interface.network.prefixlen) for endpoint in plan.endpoints}
    return wanted <= found


def node_differences(requests: RequestSocket, wiring: Wiring, plan: PodPlan, master: Link) -> Iterator[str]:
    """The node's side: the link that leads to the pod, the routes by it, the answers for the pod on the master."""
    if plan.kind is DatapathKind.VETH:
        yield from _toward_pod(requests, plan, wiring.host_ifname, plan.alias)
    elif host_link.serves(plan):
        yield from _toward_pod(requests, plan, host_link.name_of(master.index), "")
    if plan.proxied:
        for ip in plan.ips:
            if not facts.has_proxy(requests, master.index, ip):
                yield f"nobody answers for {ip} on {master.name}"


def _toward_pod(requests: RequestSocket, plan: PodPlan, name: str, alias: str) -> Iterator[str]:
    link = facts.link_named(requests, name)
    if link is None:
        yield f"the node's interface {name} is missing"
        return
    if alias and link.alias != alias:
        yield f"the node's interface {name} is not the one that ADD made"
    if not link.up:
        yield f"the node's interface {name} is down"
    routes = {
        (route.packed, route.prefixlen)
        for route in facts.routes(requests, index=link.index, protocol=messages.RTPROT_UNDERLAY)
    }
    for ip in plan.ips:
        if (ip.packed, ip.max_prefixlen) not in routes:
            yield f"the node's route to {ip} by {name} is missing"
