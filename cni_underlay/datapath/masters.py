"""The node's own interface that pods are put on: finding it, judging it, and the settings it needs to carry pods."""

from ipaddress import IPv4Address, IPv6Address

from cni_underlay.datapath import facts, messages
from cni_underlay.datapath.facts import Link
from cni_underlay.datapath.netlink import RequestSocket
from cni_underlay.errors import DatapathError, InvalidConfigError
from cni_underlay.records import IPAddress

# A port's frames belong to its bridge or bond: addresses and macvlan links have to stand on that one instead.
_PORTS = frozenset({"bridge", "bond", "team", "openvswitch"})
# Of the blocks reserved for documentation (RFC 5737, RFC 3849, RFC 9637), which are seldom routed by themselves.
_NOBODYS: tuple[tuple[IPAddress, ...], ...] = (
    (IPv4Address("203.0.113.1"), IPv4Address("198.51.100.1"), IPv4Address("192.0.2.1")),
    (IPv6Address("2001:db8:ffff:ffff::1"), IPv6Address("3fff:fff::1")),
)
_LIVE = frozenset({"up", "unknown"})  # RFC 2863 states; "unknown" is what drivers without carrier report


def require(requests: RequestSocket, name: str) -> Link:
    """The master, able to carry pods. Raises `DatapathError` naming it and what is wrong."""
    link = facts.link_named(requests, name)
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
    """The interface of the default route in force (IPv4, else IPv6). Raises `InvalidConfigError` when there is none."""
    for nobodys in _NOBODYS:
        index = _default_index(requests, nobodys)
        if index and (link := facts.link_numbered(requests, index)):
            return link.name
    raise InvalidConfigError("no `master` is configured and the node has no default route to tell one")


def _default_index(requests: RequestSocket, nobodys: tuple[IPAddress, ...]) -> int:
    """By the route to an address that is nobody's: a dump would read the routes to all pods, on every ADD. 0: none."""
    for address in nobodys:
        route = facts.route_to(requests, address)
        if route is None or route.prefixlen == 0:
            return route.index if route else 0
    # Somebody does route all of these blocks.
    size = len(nobodys[0].packed)
    found = [route for route in facts.routes(requests) if route.prefixlen == 0 and len(route.packed) == size]
    own = [route for route in found if route.table == messages.RT_TABLE_MAIN]
    return min(own, key=lambda route: route.priority).index if own else 0


def own_addresses(requests: RequestSocket, master: Link) -> tuple[IPAddress, ...]:
    """The node's addresses on the master that others can use."""
    return tuple(
        address.ip for address in facts.addresses(requests, master.index) if address.scope == messages.SCOPE_GLOBAL
    )
