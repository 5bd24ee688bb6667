"""veth, the default: the node is the pod's only neighbour, routes to it, and answers ARP and ND for it on the master.

The switch port sees one MAC (clouds, port security); the node's own firewall, Services and probes see all the traffic.
"""

import time
from ipaddress import IPv4Interface, IPv6Interface

from cni_underlay.datapath import facts, hardware, links, messages, pod, proxy
from cni_underlay.datapath.facts import host_route
from cni_underlay.datapath.messages import IPV4, IPV6
from cni_underlay.datapath.netlink import Message, attribute, number32
from cni_underlay.datapath.port import Link, Wired
from cni_underlay.datapath.refusal import kernel
from cni_underlay.datapath.work import Work
from cni_underlay.errors import InvalidConfigError

_HOP4 = IPv4Interface((hardware.HOP4, 32))
_HOP6 = IPv6Interface((hardware.HOP6, 64))
_SETTLE_SECONDS = 0.05


def wire(work: Work) -> Wired:
    """Make the pair, the node's end, the pod's end; answer for the pod last, when there is somebody to answer for."""
    plan = work.plan
    if not work.wiring.host_ifname:
        raise InvalidConfigError("veth needs a name for the node's end")
    index = work.make(lambda index: _pair(work, index), lambda index: links.delete(work.requests, index + 1))
    work.shared.forwarding.ensure_host_end(work.wiring.host_ifname)
    with kernel(f"configure {work.wiring.host_ifname}"):
        work.requests.change(*_host_end(work, index + 1))
    work.add_host_routes(index + 1, [host_route(ip) for ip in plan.ips])
    with pod.entered(work.netns, plan) as inner:
        routes = pod.configure(inner, index, plan, ())
    _settle(work, index + 1)
    proxy.answer(work)
    proxy.answer_on_host_link(work)
    work.announce(work.master.mac)
    host_end = Link(
        name=work.wiring.host_ifname, mac=hardware.mac_text(hardware.HOST_END_MAC), mtu=plan.mtu, sandboxed=False
    )
    return work.answer(host_end, mac=plan.mac, routes=routes)


def _settle(work: Work, index: int) -> None:
    """Wait until the host end can send.

    The end that was brought up first has its carrier only since the other is up, and drops what it should send until
    the kernel's link watch has seen to it, which waits for the lock that all ADDs take: with four at once one first
    packet in ten was lost, and a second with it. Kernels since 6.9 see to it when they are asked for the link
    (rtnl_getlink()), so that this waits for nothing.
    """
    until = time.monotonic() + _SETTLE_SECONDS
    with kernel(f"read the carrier of {work.wiring.host_ifname}"):
        while facts.operstate(work.requests, index) != "up":
            if time.monotonic() > until:
                break
            time.sleep(0.0005)


def _pair(work: Work, index: int) -> Message:
    mtu = number32(messages.IFLA_MTU, work.plan.mtu)
    host_mac = attribute(messages.IFLA_ADDRESS, hardware.HOST_END_MAC)
    return messages.new_link(
        index,
        work.plan.ifname,
        number32(messages.IFLA_NET_NS_FD, work.netns),
        attribute(messages.IFLA_ADDRESS, work.plan.mac),
        mtu,
        messages.kind("veth", messages.veth_peer(index + 1, work.wiring.host_ifname, host_mac, mtu)),
    )


def _host_end(work: Work, index: int) -> list[Message]:
    """The next hop's addresses stand on every host end, not once on `lo`: so it answers under arp_ignore=1 too."""
    versions = work.plan.versions
    families = [messages.ipv4_settings({messages.DEVCONF_FORWARDING: 1})]
    batch = []
    if IPV4 in versions:
        # Scope host: the kernel never takes it as the source of what the node itself sends to its pods.
        batch.append(messages.new_address(index, _HOP4, messages.SCOPE_HOST))
    if IPV6 in versions:
        families.append(messages.no_link_local())
    batch.append(messages.link_up(index, work.plan.alias))
    if IPV6 in versions:
        batch.append(messages.new_address(index, _HOP6))
    return [messages.settings(index, *families), *batch]
