"""Reading an attachment back: for CHECK, and to find out whether an ADD that was cut short had been complete."""

from cni_underlay.datapath import facts, hardware, masters, reading
from cni_underlay.datapath.facts import Link
from cni_underlay.datapath.netlink import RequestSocket
from cni_underlay.datapath.netns import requests_in
from cni_underlay.datapath.plan import PodPlan, plan_of
from cni_underlay.datapath.port import Expected, Wired, Wiring
from cni_underlay.datapath.port import Link as WiredLink
from cni_underlay.datapath.refusal import kernel
from cni_underlay.errors import CheckFailedError, DatapathError, InvalidConfigError
from cni_underlay.records import DatapathKind


def check(requests: RequestSocket, wiring: Wiring, netns: int, expected: Expected) -> None:
    """Raise `CheckFailedError` with everything that differs."""
    try:
        master = masters.require(requests, wiring.master)
    except DatapathError as error:
        raise CheckFailedError(str(error), error.details) from error
    plan = plan_of(wiring, master)
    with requests_in(netns) as inner, kernel(f"read {plan.ifname} back"):
        state = reading.read_pod(inner, plan.ifname)
        if state is None:
            raise CheckFailedError(f"the container has no interface {plan.ifname}")
        differences = [
            *reading.link_differences(state, plan),
            *reading.expectation_differences(state, expected, wiring.mtu),
            *reading.node_differences(requests, wiring, plan, master),
        ]
    if differences:
        raise CheckFailedError("; ".join(differences))


def wired(requests: RequestSocket, wiring: Wiring, netns: int) -> Wired | None:
    """What the kernel has when every part is there. MAC and MTU are told as they are: a later plugin may set them."""
    master = facts.link_named(requests, wiring.master)
    if master is None:
        return None
    try:
        plan = plan_of(wiring, master)
    except InvalidConfigError:  # the master has changed since
        return None
    with requests_in(netns) as inner, kernel(f"read {plan.ifname} back"):
        state = reading.read_pod(inner, plan.ifname)
        if state is None or not _complete(requests, wiring, plan, master, state):
            return None
        routes = reading.installed_routes(state, plan)
        links = _links(requests, wiring, state.link)
    return None if routes is None else Wired(links=links, addresses=plan.endpoints, routes=routes)


def _complete(requests: RequestSocket, wiring: Wiring, plan: PodPlan, master: Link, state: reading.PodState) -> bool:
    return (
        reading.has_addresses(state, plan)
        and not any(reading.link_differences(state, plan))
        and not any(reading.node_differences(requests, wiring, plan, master))
    )


def _links(requests: RequestSocket, wiring: Wiring, own: Link) -> tuple[WiredLink, ...]:
    found = []
    if wiring.kind is DatapathKind.VETH and (host_end := facts.link_named(requests, wiring.host_ifname)):
        found.append(_told(host_end, sandboxed=False))
    return (*found, _told(own, sandboxed=True))


def _told(link: Link, *, sandboxed: bool) -> WiredLink:
    return WiredLink(name=link.name, mac=hardware.mac_text(link.mac), mtu=link.mtu, sandboxed=sandboxed)
