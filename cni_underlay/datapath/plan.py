"""What an interface should become, decided from values alone: link, addresses, routes. Nothing here touches the kernel."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv6Interface, ip_interface, ip_network

from cni_underlay.datapath import hardware, messages
from cni_underlay.datapath.facts import Link
from cni_underlay.datapath.port import Endpoint, Wiring
from cni_underlay.errors import InvalidConfigError
from cni_underlay.records import Attachment, DatapathKind, IPAddress, IPNetwork, Route

MARK = "cni-underlay:"
HOST_MARK = "cni-underlay:host:"

_IPV6_MINIMUM_MTU = 1280  # RFC 8200, section 5; below it the kernel silently takes IPv6 off the link
_IPV4_MINIMUM_MTU = 68  # RFC 791; likewise for IPv4
_DEFAULTS = {4: ip_network("0.0.0.0/0"), 6: ip_network("::/0")}
_LARGEST_NAME = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class PodPlan:
    """The pod's interface. `mac` is empty where the kernel gives it (ipvlan: the master's).

    `node_routes` lead to the node itself and are no part of a result; `router_advertisements` tells whether the segment's
    routers could talk to the interface, which must not take addresses the ledger does not know of.
    """

    ifname: str
    alias: str
    kind: DatapathKind
    mode: str
    mac: bytes
    mtu: int
    link_local: IPv6Interface
    endpoints: tuple[Endpoint, ...]
    routes: tuple[Route, ...]
    router_advertisements: bool
    node_routes: tuple[Route, ...] = ()

    @property
    def ips(self) -> tuple[IPAddress, ...]:
        return tuple(endpoint.interface.ip for endpoint in self.endpoints)

    @property
    def versions(self) -> frozenset[int]:
        """The IP versions of its addresses."""
        return frozenset(endpoint.interface.version for endpoint in self.endpoints)


def mark(attachment: Attachment) -> str:
    """The ifalias by which DEL, CHECK and sweep know an attachment's links, even when the ledger is lost."""
    return MARK + attachment.digest


def plan(wiring: Wiring, master: Link) -> PodPlan:
    """Decide the whole interface. Raises `InvalidConfigError` for what cannot work on this master."""
    _require_name(wiring.ifname_checked if False else wiring.attachment.ifname)
    return _PLANS[wiring.kind](wiring, master)
