"""The rtnetlink requests this datapath sends, packed from plain values; the numbers are linux/rtnetlink.h's."""

import struct
from collections.abc import Mapping
from ipaddress import IPv4Interface

from cni_underlay.datapath import netlink
from cni_underlay.datapath.netlink import Message, attribute, nested, number8, number16, number32, text
from cni_underlay.records import IPAddress, IPInterface, Route

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK = 16, 17, 18, 19
RTM_NEWADDR, RTM_GETADDR = 20, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH = 28, 29, 30

IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK = 1, 3, 4, 5
IFLA_LINKINFO, IFLA_IFALIAS, IFLA_AF_SPEC, IFLA_GROUP, IFLA_NET_NS_FD, IFLA_EXT_MASK = 18, 20, 26, 27, 28, 29
IFLA_INFO_KIND, IFLA_INFO_DATA, IFLA_INFO_SLAVE_KIND = 1, 2, 4
IFLA_INET_CONF, IFLA_INET6_ADDR_GEN_MODE = 1, 8
IN6_ADDR_GEN_MODE_NONE = 1
VETH_INFO_PEER = 1
IFLA_MACVLAN_MODE = IFLA_IPVLAN_MODE = 1
RTEXT_FILTER_SKIP_STATS = 8
IFF_UP, IFF_LOWER_UP = 0x1, 0x10000

IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST = 1, 2, 4
IFA_F_NODAD, IFA_F_DADFAILED, IFA_F_PERMANENT = 0x02, 0x08, 0x80

RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_METRICS, RTA_MULTIPATH, RTA_TABLE, RTA_VIA = 1, 4, 5, 6, 8, 9, 15, 18
RTAX_MTU, RTAX_ADVMSS = 2, 8
RTNH_F_ONLINK = 4
RTM_F_FIB_MATCH = 0x2000
RT_TABLE_MAIN = 254
RTN_UNICAST = 1
RTPROT_RA = 9
RTPROT_UNDERLAY = 85  # ours, so that others' routes are never mistaken for ours

SCOPE_GLOBAL, SCOPE_LINK, SCOPE_HOST = 0, 253, 254

NDA_DST, NDA_PROTOCOL = 1, 12
NTF_PROXY = 0x08
NUD_PERMANENT = 0x80

AF_INET, AF_INET6 = 2, 10
IPV4, IPV6 = 4, 6  # as `version` of an address has it

# net/ip.h IPV4_DEVCONF_*: the per-interface settings that a link message can carry, sparing a write to /proc each.
DEVCONF_FORWARDING, DEVCONF_RP_FILTER, DEVCONF_ARP_FILTER, DEVCONF_ARP_ANNOUNCE, DEVCONF_ARP_NOTIFY = 1, 8, 13, 18, 22

MACVLAN_MODES = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}
IPVLAN_MODES = {"l2": 0, "l3": 1, "l3s": 2}

LINK_HEADER = struct.Struct("=BxHiII")
ADDRESS_HEADER = struct.Struct("=BBBBI")
ROUTE_HEADER = struct.Struct("=BBBBBBBBI")
NEIGHBOUR_HEADER = struct.Struct("=BxxxiHBB")

# The mark that a link has from its first moment, as the kernel takes no alias with a new one. "und1": nobody else's.
GROUP = 0x756E6431
OUR_GROUP = number32(IFLA_GROUP, GROUP)

_NO_STATISTICS = number32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS)
_MADE = netlink.NLM_F_CREATE | netlink.NLM_F_EXCL


def family(address: IPAddress | IPInterface) -> int:
    return AF_INET if address.version == IPV4 else AF_INET6


def link_header(index: int = 0, flags: int = 0, change: int = 0) -> bytes:
    return LINK_HEADER.pack(0, 0, index, flags, change)


def link_by_name(name: str) -> Message:
    return Message(RTM_GETLINK, 0, link_header() + _NO_STATISTICS + text(IFLA_IFNAME, name))


def link_by_index(index: int) -> Message:
    return Message(RTM_GETLINK, 0, link_header(index) + _NO_STATISTICS)


def all_links() -> Message:
    return Message(RTM_GETLINK, 0, link_header() + _NO_STATISTICS)


def new_link(index: int, name: str, *attributes: bytes) -> Message:
    """Make a link under an index of our choice, so that what follows can name it without asking the kernel first.

    The index has a second use: by name alone, kernels before 6.15 look for an existing link in the *sender's* namespace
    and answer EEXIST for a pod's `eth0` wherever the node has an `eth0`.
    """
    return Message(RTM_NEWLINK, _MADE, link_header(index) + text(IFLA_IFNAME, name) + OUR_GROUP + b"".join(attributes))


def kind(name: str, *data: bytes) -> bytes:
    return nested(IFLA_LINKINFO, text(IFLA_INFO_KIND, name), nested(IFLA_INFO_DATA, *data))


def veth_peer(index: int, name: str, *attributes: bytes) -> bytes:
    return nested(VETH_INFO_PEER, link_header(index), text(IFLA_IFNAME, name), OUR_GROUP, *attributes)


def macvlan_mode(mode: str) -> bytes:
    return number32(IFLA_MACVLAN_MODE, MACVLAN_MODES[mode])


def ipvlan_mode(mode: str) -> bytes:
    return number16(IFLA_IPVLAN_MODE, IPVLAN_MODES[mode])


def link_up(index: int, alias: str) -> Message:
    """Bring a link up and say whose it is: RTM_NEWLINK ignores IFLA_IFALIAS, this is the first that can carry it."""
    return Message(RTM_SETLINK, 0, link_header(index, IFF_UP, IFF_UP) + text(IFLA_IFALIAS, alias))


def settings(index: int, *families: bytes) -> Message:
    """Per-family settings, to be sent before the link is brought up: do_setlink() handles flags before IFLA_AF_SPEC."""
    return Message(RTM_SETLINK, 0, link_header(index) + nested(IFLA_AF_SPEC, *families))


def ipv4_settings(values: Mapping[int, int]) -> bytes:
    return nested(AF_INET, nested(IFLA_INET_CONF, *(number32(key, value) for key, value in values.items())))


def no_link_local() -> bytes:
    """Keep the kernel from making a link-local address of its own, which would be tentative for one to two seconds."""
    return nested(AF_INET6, number8(IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE))


def delete_link(index: int) -> Message:
    return Message(RTM_DELLINK, 0, link_header(index))


def new_address(index: int, interface: IPInterface, scope: int = SCOPE_GLOBAL) -> Message:
    """An address that is usable at once: the kernel's own duplicate detection (1-2 s) is off."""
    attributes = attribute(IFA_LOCAL, interface.packed)
    length = interface.network.prefixlen
    if isinstance(interface, IPv4Interface) and length < 31:  # noqa: PLR2004  # RFC 3021: /31 has no broadcast
        attributes += attribute(IFA_BROADCAST, interface.network.broadcast_address.packed)
    header = ADDRESS_HEADER.pack(family(interface), length, IFA_F_NODAD, scope, index)
    return Message(RTM_NEWADDR, _MADE, header + attributes)


def all_addresses(index: int) -> Message:
    return Message(RTM_GETADDR, 0, ADDRESS_HEADER.pack(0, 0, 0, 0, index))


def new_route(index: int, route: Route, *, onlink: bool = False) -> Message:
    """A route through link `index`; refused with EEXIST where one of the same destination and metric exists."""
    scope = route.scope
    if scope is None:
        scope = SCOPE_GLOBAL if route.gw is not None or route.dst.version != IPV4 else SCOPE_LINK
    table = RT_TABLE_MAIN if route.table is None else route.table
    flags = RTNH_F_ONLINK if onlink else 0
    return Message(RTM_NEWROUTE, _MADE, _route(index, route, table, scope, flags))


def _route(index: int, route: Route, table: int, scope: int, flags: int) -> bytes:
    parts = [
        ROUTE_HEADER.pack(
            AF_INET if route.dst.version == IPV4 else AF_INET6,
            route.dst.prefixlen,
            0,
            0,
            table if table < 256 else 0,  # noqa: PLR2004  # one octet; larger ones only by the attribute
            RTPROT_UNDERLAY,
            scope,
            RTN_UNICAST,
            flags,
        ),
        attribute(RTA_DST, route.dst.network_address.packed),
        number32(RTA_OIF, index),
        number32(RTA_TABLE, table),
    ]
    if route.gw is not None:
        parts.append(_gateway(route.dst.version, route.gw))
    if route.priority is not None:
        parts.append(number32(RTA_PRIORITY, route.priority))
    metrics = [number32(key, value) for key, value in ((RTAX_MTU, route.mtu), (RTAX_ADVMSS, route.advmss)) if value]
    if metrics:
        parts.append(nested(RTA_METRICS, *metrics))
    return b"".join(parts)


def _gateway(version: int, gateway: IPAddress) -> bytes:
    if gateway.version == version:
        return attribute(RTA_GATEWAY, gateway.packed)
    return attribute(RTA_VIA, struct.pack("=H", family(gateway)) + gateway.packed)  # RFC 5549: IPv4 by an IPv6 hop


def delete_route(index: int, route: Route) -> Message:
    """Remove our route to that destination through that link, whatever its scope or metric."""
    return Message(RTM_DELROUTE, 0, _route(index, route, RT_TABLE_MAIN, 255, 0))  # 255: RT_SCOPE_NOWHERE, any


def all_routes(address_family: int, *, index: int = 0, protocol: int = 0) -> Message:
    """Unicast routes of every table; the kernel itself filters by link and protocol."""
    header = ROUTE_HEADER.pack(address_family, 0, 0, 0, 0, protocol, 0, RTN_UNICAST, 0)
    return Message(RTM_GETROUTE, 0, header + (number32(RTA_OIF, index) if index else b""))


def route_to(address: IPAddress) -> Message:
    """The routing table's entry by which the address is reached, instead of the result of the look-up."""
    family_of = family(address)
    header = ROUTE_HEADER.pack(family_of, address.max_prefixlen, 0, 0, 0, 0, 0, 0, RTM_F_FIB_MATCH)
    return Message(RTM_GETROUTE, 0, header + attribute(RTA_DST, address.packed))


def new_proxy(index: int, address: IPAddress) -> Message:
    """Answer ARP or ND for the address on link `index`; an entry that is there already becomes ours."""
    header = NEIGHBOUR_HEADER.pack(family(address), index, NUD_PERMANENT, NTF_PROXY, 0)
    payload = header + attribute(NDA_DST, address.packed) + number8(NDA_PROTOCOL, RTPROT_UNDERLAY)
    return Message(RTM_NEWNEIGH, netlink.NLM_F_CREATE | netlink.NLM_F_REPLACE, payload)


def delete_proxy(index: int, address: IPAddress) -> Message:
    header = NEIGHBOUR_HEADER.pack(family(address), index, 0, NTF_PROXY, 0)
    return Message(RTM_DELNEIGH, 0, header + attribute(NDA_DST, address.packed))


def delete_neighbour(index: int, address: IPAddress) -> Message:
    header = NEIGHBOUR_HEADER.pack(family(address), index, 0, 0, 0)
    return Message(RTM_DELNEIGH, 0, header + attribute(NDA_DST, address.packed))


def one_proxy(index: int, address: IPAddress) -> Message:
    header = NEIGHBOUR_HEADER.pack(family(address), index, 0, NTF_PROXY, 0)
    return Message(RTM_GETNEIGH, 0, header + attribute(NDA_DST, address.packed))


def all_proxies() -> Message:
    return Message(RTM_GETNEIGH, 0, NEIGHBOUR_HEADER.pack(0, 0, 0, NTF_PROXY, 0))
