"""The node's own macvlan or ipvlan link on a master, because node and pod cannot talk through the master itself.

One link for each master, made with its first pod on the segment. Routes to those pods go through it. Two traps:

* It must not draw the node's other traffic. A machine outside that asks for the node's address would get its answer as
  well, with another MAC: arp_filter keeps it silent unless the route back to who asks goes through it. A machine that
  overhears *its* ARP requests would learn the node's address with its MAC: arp_announce and an address of its own (of
  scope link, so that nothing else is sent from it) keep the node's address out of them.
* The pods' way to the node must not depend on ARP for the node's address either (arp_ignore, as kube-proxy's strict ARP
  sets it, silences it): `plan.node_routes` go by its link-local IPv6 address.
"""

import errno
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface

from cni_underlay.datapath import facts, hardware, links, masters, messages, sysctl
from cni_underlay.datapath.facts import Link
from cni_underlay.datapath.forwarding import Forwarding
from cni_underlay.datapath.links import Indexes, delete, make
from cni_underlay.datapath.netlink import Message, RefusedError, RequestSocket, attribute, number32
from cni_underlay.datapath.netns import Node
from cni_underlay.datapath.plan import HOST_MARK, PodPlan
from cni_underlay.datapath.refusal import kernel
from cni_underlay.errors import InvalidConfigError
from cni_underlay.records import DatapathKind, IPAddress

_PREFIX = "undh"
# A node's new address is known to pods that come later than this; until then they find it by ARP.
_KNOWN_SECONDS = 10.0
_OWN_ADDRESS = IPv4Interface((hardware.HOP4, 32))
_SETTINGS = {
    messages.DEVCONF_FORWARDING: 1,
    messages.DEVCONF_RP_FILTER: 1,
    messages.DEVCONF_ARP_FILTER: 1,
    messages.DEVCONF_ARP_ANNOUNCE: 2,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class HostLink:
    """The link as pods need to know it: `node` are the addresses to reach by way of `hop`, None where IPv6 is off."""

    index: int
    hop: IPAddress | None
    node: tuple[IPAddress, ...]


def name_of(master: int) -> str:
    """The host-side link's name, by the master's index."""
    return f"{_PREFIX}{master}"


def serves(plan: PodPlan) -> bool:
    """Whether a host-side link can reach such pods.

    Not macvlan `private` (its pods hear no sibling), `vepa` (only by a switch that sends frames back to their port) and
    `passthru` (the pod has the master to itself): with these, node and pod cannot talk.
    """
    return plan.kind is DatapathKind.IPVLAN or plan.mode == "bridge"


class HostLinks:
    """Makes, finds and removes host-side links, each under the lock of its master."""

    def __init__(self, node: Node, forwarding: Forwarding, indexes: Indexes, log: logging.Logger) -> None:
        self._node = node
        self._forwarding = forwarding
        self._indexes = indexes
        self._log = log
        self._locks: dict[int, threading.Lock] = {}
        self._known: dict[int, tuple[float, HostLink]] = {}

    def find(self, requests: RequestSocket, master: Link) -> Link | None:
        return facts.link_named(requests, name_of(master.index))

    def ensure(self, requests: RequestSocket, master: Link, plan: PodPlan) -> HostLink:
        """The master's link of the pod's kind and mode, made if need be.

        Raises `InvalidConfigError`, `DatapathError`.
        """
        with self._lock(master.index), kernel(f"make the node's own link on {master.name}"):
            link = self.find(requests, master)
            if link is not None and not _fits(link, plan):
                self._replace(requests, link, master, plan)
                link = None
            if link is None or not link.up or link.alias != HOST_MARK + master.name:
                link = self._make(requests, link, master, plan)
            return self._described(requests, link, master)

    def retire(self, requests: RequestSocket, master: Link, unused: Callable[[], bool]) -> None:
        """Remove the link unless `unused()` denies, asked under the lock under which `ensure` hands it out."""
        with self._lock(master.index), kernel(f"remove the node's own link on {master.name}"):
            link = self.find(requests, master)
            if link is not None and link.alias.startswith(HOST_MARK) and unused():
                delete(requests, link.index)
                self._log.info("removed %s, the node's own link on %s", link.name, master.name)

    def _lock(self, master: int) -> threading.Lock:
        return self._locks.setdefault(master, threading.Lock())

    def _described(self, requests: RequestSocket, link: Link, master: Link) -> HostLink:
        """Read, and its settings seen to, once in a while: on every ADD it would cost a fifth of it.

        Pods with IPv4 alone need the hop too, see above.
        """
        known_until, known = self._known.get(master.index, (0.0, None))
        now = time.monotonic()
        if known is None or known.index != link.index or known_until < now:
            self._node.run(lambda: self._forwarding.ready_host_link(link.name))
            hop = _link_local(link).ip if self._has_ipv6(link.name) else None
            known = HostLink(index=link.index, hop=hop, node=masters.own_addresses(requests, master))
            self._known[master.index] = (now + _KNOWN_SECONDS, known)
        return known

    def _has_ipv6(self, name: str) -> bool:
        return self._node.run(lambda: sysctl.read(f"ipv6/conf/{name}/disable_ipv6")) == "0"

    def _replace(self, requests: RequestSocket, link: Link, master: Link, plan: PodPlan) -> None:
        """Remove a link of another kind or ipvlan mode, if it serves no pod: the kernel allows a master one of them."""
        if any(facts.routes(requests, index=link.index, protocol=messages.RTPROT_UNDERLAY)):
            raise InvalidConfigError(
                f"master {master.name} carries {link.kind} pods in another mode or kind than {plan.kind} {plan.mode}: "
                f"the kernel allows one of them at a time"
            )
        delete(requests, link.index)

    def _make(self, requests: RequestSocket, link: Link | None, master: Link, plan: PodPlan) -> Link:
        if link is None:
            try:
                make(requests, self._indexes, lambda index: _new(index, master, plan))
            except RefusedError as refusal:
                raise links.unfit(master.name, plan, refusal) or refusal from refusal
            link = self.find(requests, master)
            if link is None:
                raise RefusedError(errno.ENODEV, "removed by somebody else", 0)
        self._node.run(lambda: self._forwarding.ready_host_link(link.name))
        for message in self._configuration(link, master):
            try:
                requests.change(message)
            except RefusedError as refusal:
                if refusal.errno != errno.EEXIST:  # an unfinished one of an earlier life is completed
                    raise
        self._share_proxies(requests, master, link)
        self._log.info("made %s, the node's own link on %s", link.name, master.name)
        return link

    def _configuration(self, link: Link, master: Link) -> list[Message]:
        ipv6 = self._has_ipv6(link.name)
        families = [messages.ipv4_settings(_SETTINGS)] + ([messages.no_link_local()] if ipv6 else [])
        return [
            messages.settings(link.index, *families),
            messages.new_address(link.index, _OWN_ADDRESS, messages.SCOPE_LINK),
            messages.link_up(link.index, HOST_MARK + master.name),
            *([messages.new_address(link.index, _link_local(link))] if ipv6 else []),
        ]

    def _share_proxies(self, requests: RequestSocket, master: Link, link: Link) -> None:
        """Answer on the new link for the veth pods too, which answers on the master do not reach from here.

        A veth pod that comes meanwhile adds itself to the master first and looks for this link second; one that goes is
        missing from the second reading. So neither is lost, and none is left.
        """
        before = _proxies(requests, master.index)
        requests.change(*(messages.new_proxy(link.index, ip) for ip in before))
        after = _proxies(requests, master.index)
        requests.attempt([messages.delete_proxy(link.index, ip) for ip in before - after])


def _proxies(requests: RequestSocket, index: int) -> set[IPAddress]:
    found = (proxy for proxy in facts.proxies(requests) if proxy.index == index)
    return {proxy.ip for proxy in found if proxy.protocol == messages.RTPROT_UNDERLAY}


def _fits(link: Link, plan: PodPlan) -> bool:
    return link.kind == plan.kind and (
        link.kind != DatapathKind.IPVLAN or link.mode == messages.IPVLAN_MODES[plan.mode]
    )


def _new(index: int, master: Link, plan: PodPlan) -> Message:
    parts = [number32(messages.IFLA_LINK, master.index)]
    if plan.kind is DatapathKind.MACVLAN:
        mac = hardware.mac_of_host_link(master.mac, master.index)
        parts.append(attribute(messages.IFLA_ADDRESS, mac))
        parts.append(messages.kind(plan.kind, messages.macvlan_mode(plan.mode)))
    else:
        parts.append(messages.kind(plan.kind, messages.ipvlan_mode(plan.mode)))
    return messages.new_link(index, name_of(master.index), *parts)


def _link_local(link: Link) -> IPv6Interface:
    if link.kind == DatapathKind.MACVLAN:
        return hardware.link_local_of_mac(link.mac)
    return hardware.link_local_of_name(f"{link.mac.hex()}{link.name}")
