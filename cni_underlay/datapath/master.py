"""The node's own interface that pods are put on: finding it, judging it, and the settings it needs to carry pods."""

from cni_underlay.datapath import facts, messages
from cni_underlay.datapath.facts import KernelRoute, Link
from cni_underlay.datapath.netlink import RequestSocket
from cni_underlay.datapath.refusal import kernel
from cni_underlay.errors import DatapathError, InvalidConfigError
from cni_underlay.records import IPAddress

# A port's frames belong to its bridge or bond: addresses and macvlan links have to stand on that one instead.
_PORTS = frozenset({"bridge", "bond", "team", "openvswitch"})
_LIVE = frozenset({"up", "unknown"})  # RFC 2863 states; "unknown" is what drivers without carrier report


def find(requests: RequestSocket, name: str) -> Link | None:
    with kernel(f"look up master {name}"):
        return facts.link_named(requests, name)


def require(requests: RequestSocket, name: str) -> Link:
    """The master, able to carry pods. Raises `DatapathError` naming it and what is wrong."""
    link = find(requests, name)
    if link is None:
        raise DatapathError(f"master {name!r} is missing on this node")
    if link.loopback:
        raise DatapathError(f"master {name!r} is a loopback interface and leads to no network")
    if link.port_of in _PORTS:
        raise DatapathError(f"master {name!r} is a port of a {link.port_of}: use the {link.port_of} itself")
    if not link.up:
        raise DatapathError(f"master {name!r} is down")
    if not link.carrier or link.operstate not in _LIVE:
        raise DatapathError(f"master {name!r} has no carrier", f"operstate {link.operstate}")
    return link


def default(requests: RequestSocket) -> str:
    """The interface of the default route of the least metric (IPv4, else IPv6). Raises `InvalidConfigError`."""
    with kernel("read the default route"):
        found = [route for route in facts.routes(requests) if _is_default(route)]
        for route in sorted(found, key=lambda route: (len(route.packed), route.priority)):
            if link := facts.link_numbered(requests, route.index):
                return link.name
    raise InvalidConfigError("no `master` is configured and the node has no default route to tell one")


def _is_default(route: KernelRoute) -> bool:
    return route.prefixlen == 0 and route.index != 0 and route.table == messages.RT_TABLE_MAIN


def own_addresses(requests: RequestSocket, master: Link) -> tuple[IPAddress, ...]:
    """The node's addresses on the master that others can use."""
    return tuple(
        address.ip for address in facts.addresses(requests, master.index) if address.scope == messages.SCOPE_GLOBAL
    )
