"""macvlan and ipvlan: the pod on the segment itself, and the node's own link there, so that node and pod can talk.

Where that link cannot be (macvlan `private`, `vepa`, `passthru`) probes and Services of the node do not reach the pod.
In ipvlan `l3` and `l3s` the pod has no layer 2 at all. With `l3s` the node answers ARP and ND for it, as with veth;
with `l3` the kernel lets nobody answer: machines need a route to the pod by the node. In both the kernel sends what
comes from the pod by the master alone (ipvlan_process_outbound()): veth pods of the same node are out of reach.
"""

from dataclasses import replace

from cni_underlay.datapath import facts, host_link, links, messages, pod, proxy
from cni_underlay.datapath.facts import host_route
from cni_underlay.datapath.host_link import HostLink
from cni_underlay.datapath.netlink import Message, attribute, number32
from cni_underlay.datapath.netns import requests_in
from cni_underlay.datapath.plan import node_routes
from cni_underlay.datapath.port import Wired
from cni_underlay.datapath.refusal import kernel
from cni_underlay.datapath.work import Work
from cni_underlay.errors import DatapathError
from cni_underlay.records import DatapathKind


def wire(work: Work) -> Wired:
    """Make the node's link if need be, lead the node's traffic to the pod, make the pod's link.

    In this order, because a conflict of addresses then costs no link, whose removal takes the kernel 16 ms.
    """
    own = _lead(work)
    index = work.make(lambda index: _link(work, index), lambda index: _unmake(work, index))
    return _finish(work, index, own)


def complete(work: Work) -> Wired:
    """The same with the link that `wire` has made without addresses. Raises `DatapathError` where it is gone."""
    plan = work.plan
    with requests_in(work.netns) as inner, kernel(f"look up {plan.ifname}"):
        link = facts.link_named(inner, plan.ifname)
    if link is None or link.alias != plan.alias:
        raise DatapathError(f"{plan.ifname} went away while its addresses were fetched")
    return _finish(work, link.index, _lead(work))


def _lead(work: Work) -> HostLink | None:
    """Lead the node's traffic to the pod by its own link; None where the mode allows none."""
    plan = work.plan
    if not host_link.serves(plan):
        work.shared.log.info("%s %s: the node itself cannot reach %s", plan.kind, plan.mode, plan.ifname)
        return None
    own = work.shared.host_links.ensure(work.requests, work.master, plan)
    # Scope global: with scope link the kernel would take the host-side link's own address as source.
    work.add_host_routes(own.index, [replace(host_route(ip), scope=messages.SCOPE_GLOBAL) for ip in plan.ips])
    return own


def _finish(work: Work, index: int, own: HostLink | None) -> Wired:
    plan = work.plan
    with pod.entered(work.netns, plan) as inner:
        to_node = node_routes(plan, own.node, own.hop if inner.ipv6 else None) if own else ()
        routes = pod.configure(inner, index, plan, to_node)
    if plan.proxied:
        proxy.answer(work)
    mac = plan.mac or work.master.mac
    if plan.on_segment or plan.proxied:
        work.announce(mac)
    return work.answer(mac=mac, routes=routes)


def _link(work: Work, index: int) -> Message:
    plan = work.plan
    mode = messages.macvlan_mode if plan.kind is DatapathKind.MACVLAN else messages.ipvlan_mode
    parts = [
        number32(messages.IFLA_LINK, work.master.index),
        number32(messages.IFLA_NET_NS_FD, work.netns),
        number32(messages.IFLA_MTU, plan.mtu),
        messages.kind(plan.kind, mode(plan.mode)),
    ]
    if plan.mac:
        parts.append(attribute(messages.IFLA_ADDRESS, plan.mac))
    return messages.new_link(index, plan.ifname, *parts)


def _unmake(work: Work, index: int) -> None:
    with requests_in(work.netns) as inner:
        links.delete(inner, index)
