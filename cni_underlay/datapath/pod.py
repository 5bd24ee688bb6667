"""The pod's side, the same for every datapath: enter its namespace once, then addresses, up and routes in one batch."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from cni_underlay.datapath import hardware, messages, sysctl
from cni_underlay.datapath.messages import IPV4, IPV6
from cni_underlay.datapath.netlink import Message, RefusedError, RequestSocket
from cni_underlay.datapath.netns import inside
from cni_underlay.datapath.plan import PodPlan
from cni_underlay.datapath.refusal import kernel, refused
from cni_underlay.errors import DatapathError, InvalidConfigError, TryAgainLaterError, UnderlayError
from cni_underlay.records import Route

# Where a route like ours exists already (another interface of the same container came first), ours stands behind it.
_LATER_PRIORITY = {4: 1000, 6: 1024}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """A pod's namespace, entered for one interface: `ipv6` tells whether to give it IPv6 addresses."""

    requests: RequestSocket
    ipv6: bool


@contextmanager
def entered(netns: int, plan: PodPlan) -> Iterator[Pod]:
    """A socket in the namespace, and the interface's settings that netlink cannot carry. The link must exist."""
    with kernel(f"enter the namespace of {plan.ifname}"):
        pod = inside(netns, lambda: _enter(plan))
    with pod.requests:
        yield pod


def _enter(plan: PodPlan) -> Pod:
    settings = f"ipv6/conf/{plan.ifname}/"
    if IPV6 not in plan.versions and not plan.on_segment:
        return Pod(requests=RequestSocket(), ipv6=False)  # nobody needs it there: it stays as the runtime has it
    if IPV6 in plan.versions:
        # Some runtimes make namespaces with IPv6 off. Only our own interface is changed.
        sysctl.ensure(settings + "disable_ipv6", "0")
    ipv6 = sysctl.read(settings + "disable_ipv6") == "0"
    if ipv6 and plan.on_segment:
        # A router on the segment would give the pod an address by SLAAC that no ledger knows, and that it would then
        # prefer to the leased one.
        sysctl.write(settings + "accept_ra", "0")
    if IPV6 in plan.versions and not ipv6:
        raise DatapathError(f"{plan.ifname} has IPv6 addresses, but IPv6 is switched off in this kernel")
    return Pod(requests=RequestSocket(), ipv6=ipv6)


def configure(pod: Pod, index: int, plan: PodPlan, node_routes: tuple[Route, ...]) -> tuple[Route, ...]:
    """Make the link what the plan says; returns the routes as installed, with a metric where one was chosen here.

    IPv4 addresses come before `up`, so that the kernel itself announces them from inside the namespace (arp_notify), to
    whoever has heard of an earlier owner, at no cost. IPv6 addresses do not stand on a link that is down.
    """
    first = _link(pod, index, plan)
    routes = (*plan.routes, *node_routes)
    refusals = pod.requests.attempt([*first, *(_route(index, route) for route in routes)])
    later: dict[int, Route] = {}
    for refusal in refusals:
        place = refusal.position - len(first)
        if place < 0:
            if (first[refusal.position].kind, refusal.errno) == (messages.RTM_NEWADDR, errno.EEXIST):
                continue  # the link is ours alone: it has the address since it was made (see `segment.complete`)
            raise _refused_link(plan, refusal) from refusal
        if refusal.errno != errno.EEXIST:
            raise _refused_route(routes[place], refusal) from refusal
        if place < len(plan.routes):
            later[place] = _behind(routes[place], index)
    for route in later.values():
        try:
            pod.requests.change(_route(index, route))
        except RefusedError as refusal:
            raise _refused_route(route, refusal) from refusal
    return tuple(later.get(place, route) for place, route in enumerate(plan.routes))


def _link(pod: Pod, index: int, plan: PodPlan) -> list[Message]:
    families = [messages.ipv4_settings({messages.DEVCONF_ARP_NOTIFY: 1})] if plan.on_segment else []
    if pod.ipv6:
        families.append(messages.no_link_local())
    interfaces = [endpoint.interface for endpoint in plan.endpoints]
    batch = [messages.settings(index, *families)] if families else []
    batch += (messages.new_address(index, interface) for interface in interfaces if interface.version == IPV4)
    batch.append(messages.link_up(index, plan.alias))
    if pod.ipv6:
        batch.append(messages.new_address(index, plan.link_local))
    batch += (messages.new_address(index, interface) for interface in interfaces if interface.version == IPV6)
    return batch


def _route(index: int, route: Route) -> Message:
    # The veth hop lies in no subnet of the pod's; it is on the link because we say so.
    return messages.new_route(index, route, onlink=route.gw == hardware.HOP4)


def _behind(route: Route, index: int) -> Route:
    base = _LATER_PRIORITY[route.dst.version] if route.priority is None else route.priority
    return replace(route, priority=base + index)


def _refused_link(plan: PodPlan, refusal: RefusedError) -> UnderlayError:
    error = refused(f"configure {plan.ifname}", refusal)
    if refusal.errno == errno.EADDRINUSE:  # macvlan_open()
        message = f"the MAC {hardware.mac_text(plan.mac)} is in use by another interface on the same master"
        return TryAgainLaterError(message, error.details)
    return error


def _refused_route(route: Route, refusal: RefusedError) -> UnderlayError:
    error = refused(f"add the route to {route.dst}", refusal)
    if refusal.errno in {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EINVAL} and route.gw is not None:
        message = f"route to {route.dst}: gateway {route.gw} cannot be reached from the interface's addresses"
        return InvalidConfigError(message, error.details)
    return error
