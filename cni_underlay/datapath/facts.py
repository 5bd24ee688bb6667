"""What the kernel says: links, addresses, routes, proxy neighbours; small records, parsed no further than needed."""

import errno
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from cni_underlay.datapath import messages
from cni_underlay.datapath.netlink import Message, RefusedError, RequestSocket, attributes, first, string, word
from cni_underlay.datapath.refusal import GONE, UNREACHABLE
from cni_underlay.records import IPAddress, IPNetwork, Route

_OPERSTATES = ("unknown", "notpresent", "down", "lowerlayerdown", "testing", "dormant", "up")
_IFLA_MASTER, _IFLA_OPERSTATE = 10, 16
_ARPHRD_LOOPBACK = 772


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """An interface.

    `parent` is its lower device's or peer's index (in that one's namespace), `port_of` the kind of the bridge or bond
    it is a port of, `mode` the number of a macvlan's or ipvlan's mode. `unfinished`: made here, and not marked yet with
    whose it is, because the agent was killed in between.
    """

    index: int
    name: str
    kind: str
    mac: bytes
    mtu: int
    alias: str
    up: bool
    carrier: bool
    operstate: str
    loopback: bool
    parent: int
    port_of: str
    mode: int
    unfinished: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """An address on a link, as the kernel packs it."""

    packed: bytes
    prefixlen: int
    scope: int
    failed: bool

    @property
    def ip(self) -> IPAddress:
        return ip_address(self.packed)


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelRoute:
    """A unicast route; `index` 0 and empty `gateway` where it has none."""

    family: int
    packed: bytes
    prefixlen: int
    index: int
    gateway: bytes
    table: int
    protocol: int
    priority: int

    @property
    def dst(self) -> IPNetwork:
        return ip_network((self.packed, self.prefixlen))

    @property
    def as_route(self) -> Route:
        """Enough of it to delete it by."""
        return Route(dst=self.dst)


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """A proxy neighbour: link `index` answers for the address."""

    index: int
    packed: bytes
    protocol: int

    @property
    def ip(self) -> IPAddress:
        return ip_address(self.packed)


def link_named(kernel: RequestSocket, name: str) -> Link | None:
    return _link(kernel, messages.link_by_name(name))


def link_numbered(kernel: RequestSocket, index: int) -> Link | None:
    return _link(kernel, messages.link_by_index(index))


def links_marked(kernel: RequestSocket, mark: str) -> list[Link]:
    """Links whose alias starts with the mark. All others are skipped unparsed: a node has hundreds."""
    wanted = mark.encode()
    found = [parse_link(payload) for payload in kernel.dump(messages.all_links()) if wanted in payload]
    return [link for link in found if link.alias.startswith(mark)]


def links_unfinished(kernel: RequestSocket) -> list[Link]:
    found = (parse_link(payload) for payload in kernel.dump(messages.all_links()) if messages.OUR_GROUP in payload)
    return [link for link in found if link.unfinished]


def _link(kernel: RequestSocket, request: Message) -> Link | None:
    try:
        return parse_link(kernel.get(request))
    except RefusedError as refused:
        # ERANGE, EINVAL: longer than a name can be, so there is no such link.
        if refused.errno in GONE | {errno.ERANGE, errno.EINVAL}:
            return None
        raise


def operstate(kernel: RequestSocket, index: int) -> str:
    """The RFC 2863 state alone, a tenth of the cost of reading the link."""
    state = first(kernel.get(messages.link_by_index(index)), 16, _IFLA_OPERSTATE)[0]
    return _OPERSTATES[state] if state < len(_OPERSTATES) else str(state)


def parse_link(payload: bytes) -> Link:
    _, arphrd, index, flags, _ = messages.LINK_HEADER.unpack_from(payload)
    found = attributes(payload, 16)
    info = attributes(found.get(messages.IFLA_LINKINFO, b""))
    mode = attributes(info.get(messages.IFLA_INFO_DATA, b"")).get(messages.IFLA_MACVLAN_MODE, b"")
    state = (found.get(_IFLA_OPERSTATE) or b"\0")[0]
    return Link(
        index=index,
        name=string(found.get(messages.IFLA_IFNAME)),
        kind=string(info.get(messages.IFLA_INFO_KIND)),
        mac=found.get(messages.IFLA_ADDRESS, b""),
        mtu=word(found.get(messages.IFLA_MTU)),
        alias=string(found.get(messages.IFLA_IFALIAS)),
        up=bool(flags & messages.IFF_UP),
        carrier=bool(flags & messages.IFF_LOWER_UP),
        operstate=_OPERSTATES[state] if state < len(_OPERSTATES) else str(state),
        loopback=arphrd == _ARPHRD_LOOPBACK,
        parent=word(found.get(messages.IFLA_LINK)),
        port_of=string(info.get(messages.IFLA_INFO_SLAVE_KIND)) if _IFLA_MASTER in found else "",
        mode=int.from_bytes(mode, sys.byteorder) if len(mode) in {2, 4} else 0,
        unfinished=word(found.get(messages.IFLA_GROUP)) == messages.GROUP and messages.IFLA_IFALIAS not in found,
    )


def addresses(kernel: RequestSocket, index: int) -> list[Address]:
    found = []
    for payload in kernel.dump(messages.all_addresses(index)):
        _, length, flags, scope, _ = messages.ADDRESS_HEADER.unpack_from(payload)
        parts = attributes(payload, 8)
        # IFA_ADDRESS is the *peer's* where IFA_LOCAL is there too (point-to-point).
        packed = parts.get(messages.IFA_LOCAL) or parts[messages.IFA_ADDRESS]
        failed = bool(flags & messages.IFA_F_DADFAILED)
        found.append(Address(packed=packed, prefixlen=length, scope=scope, failed=failed))
    return found


def links_with_passing_addresses(kernel: RequestSocket) -> set[int]:
    """Indexes of links with an IPv6 address that ends unless it is renewed: by router advertisements, as a rule."""
    found = set()
    for payload in kernel.dump(messages.all_addresses(0)):
        family, _, flags, _, index = messages.ADDRESS_HEADER.unpack_from(payload)
        if family == messages.AF_INET6 and not flags & messages.IFA_F_PERMANENT:
            found.add(index)
    return found


def routes(kernel: RequestSocket, *, index: int = 0, protocol: int = 0) -> Iterator[KernelRoute]:
    """Unicast routes of both families and every table, of one link or protocol where given."""
    for address_family in (messages.AF_INET, messages.AF_INET6):
        for payload in kernel.dump(messages.all_routes(address_family, index=index, protocol=protocol)):
            yield parse_route(payload)


def route_to(kernel: RequestSocket, address: IPAddress) -> KernelRoute | None:
    """The entry by which the address is reached, rules and metrics considered; None when it is not."""
    try:
        return parse_route(kernel.get(messages.route_to(address)))
    except RefusedError as refused:
        if refused.errno not in UNREACHABLE:
            raise
        return None


def parse_route(payload: bytes) -> KernelRoute:
    address_family, length, _, _, table, protocol, _, _, _ = messages.ROUTE_HEADER.unpack_from(payload)
    found = attributes(payload, 12)
    index = word(found.get(messages.RTA_OIF))
    gateway = found.get(messages.RTA_GATEWAY, b"") or found.get(messages.RTA_VIA, b"")[2:]
    if not index and (paths := found.get(messages.RTA_MULTIPATH)):
        index, gateway = _first_path(paths)
    return KernelRoute(
        family=address_family,
        packed=found.get(messages.RTA_DST) or bytes(4 if address_family == messages.AF_INET else 16),
        prefixlen=length,
        index=index,
        gateway=gateway,
        table=word(found.get(messages.RTA_TABLE)) or table,
        protocol=protocol,
        priority=word(found.get(messages.RTA_PRIORITY)),
    )


def _first_path(paths: bytes) -> tuple[int, bytes]:
    """Link and gateway of a multipath route's first next hop (struct rtnexthop)."""
    length, _, _, index = struct.unpack_from("=HBBi", paths)
    return index, attributes(paths[:length], 8).get(messages.RTA_GATEWAY, b"")


def proxies(kernel: RequestSocket) -> Iterator[Proxy]:
    for payload in kernel.dump(messages.all_proxies()):
        _, index, _, _, _ = messages.NEIGHBOUR_HEADER.unpack_from(payload)
        found = attributes(payload, 12)
        protocol = (found.get(messages.NDA_PROTOCOL) or b"\0")[0]
        yield Proxy(index=index, packed=found[messages.NDA_DST], protocol=protocol)


def has_proxy(kernel: RequestSocket, index: int, address: IPAddress) -> bool:
    try:
        kernel.get(messages.one_proxy(index, address))
    except RefusedError as refused:
        if refused.errno not in GONE:
            raise
        return False
    return True


def host_route(address: IPAddress) -> Route:
    """The route to exactly this address."""
    return Route(dst=ip_network(address))
