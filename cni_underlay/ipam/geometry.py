"""Subnets, ranges, gateways and excludes from text, with every check that needs one subnet only."""

from collections.abc import Iterable
from ipaddress import IPv4Network, ip_interface
from itertools import pairwise

from cni_underlay.cni import grammar
from cni_underlay.ipam.keys import key_of, words
from cni_underlay.ipam.span import Sets, span_of
from cni_underlay.ipam.spot import Spot
from cni_underlay.records import AddressRange, IPAddress, IPNetwork

Interval = tuple[IPAddress, IPAddress]
_SMALLEST = 2  # host bits: of a /31 or /127 nothing is left beside network and gateway


def subnet(spot: Spot, text: str) -> IPNetwork:
    """A subnet that has addresses to give."""
    found = block(spot, text)
    if found.max_prefixlen - found.prefixlen < _SMALLEST:
        raise spot.refuse(text, f"is too small: Network {found} too small to allocate from; write a larger one")
    return found


def block(spot: Spot, text: str) -> IPNetwork:
    """A network with no host bits set, of any size."""
    try:
        found = grammar.network(text)
        given = ip_interface(text).ip
    except ValueError as error:
        raise spot.refuse(text, f"is no CIDR ({error}); write it like 10.7.0.0/24 or fd00:7::/64") from error
    if given != found.network_address:
        raise spot.refuse(text, f"has host bits set; write {found}")
    return found


def address(spot: Spot, text: str) -> IPAddress:
    try:
        return grammar.address(text)
    except ValueError as error:
        raise spot.refuse(text, f"is no IP address ({error})") from error


def interval(spot: Spot, text: str, home: IPNetwork) -> Interval:
    """`a-b`, a CIDR, or one address, inside the subnet."""
    if "/" in text:
        written = block(spot, text.strip())
        first, last = written[0], written[-1]
    else:
        start, _, end = text.partition("-")
        first = address(spot, start.strip())
        last = address(spot, end.strip()) if end else first
    return ordered(spot, text, (first, last), home)


def ordered(spot: Spot, text: object, bounds: Interval, home: IPNetwork) -> Interval:
    """The bounds, when both are in the subnet and the first is not above the last."""
    first, last = bounds
    if not (within(first, home) and within(last, home)):
        raise spot.refuse(text, f"is outside subnet {home}; write addresses of {home}")
    if key_of(first) > key_of(last):
        raise spot.refuse(text, f"ends below its start; write {last}-{first}")
    return bounds


def within(found: IPAddress, home: IPNetwork) -> bool:
    return found.version == home.version and found in home


def whole(home: IPNetwork) -> Interval:
    """All addresses a host may have: without the network's own and, in IPv4, without broadcast."""
    return home[1], home[-2] if isinstance(home, IPv4Network) else home[-1]


def require_host(spot: Spot, gateway: IPAddress, home: IPNetwork) -> None:
    """A router cannot have an address that stands for all hosts, or for none."""
    if gateway == home.network_address or (isinstance(home, IPv4Network) and gateway == home.broadcast_address):
        raise spot.refuse(str(gateway), f"is the network or broadcast address of {home}; write the router's address")


def require_apart(ranges: Iterable[tuple[Spot, AddressRange]]) -> None:
    """No address may be in two ranges."""
    ranked = sorted(((key_of(each.first), key_of(each.last), spot) for spot, each in ranges), key=lambda each: each[:2])
    for (_, last, one), (first, end, other) in pairwise(ranked):
        if first <= last:
            shared = words(first, min(last, end))
            raise other.refuse(shared, f"is in {one} too; let only one of them have it")


def require_some(spot: Spot, sets: Sets) -> None:
    for slot, ranges in enumerate(sets):
        if span_of(sets, slot).size == 0:
            subnets = ", ".join(dict.fromkeys(str(each.subnet) for each in ranges))
            raise spot.refuse(subnets, "has no usable address left beside network, broadcast, gateways and excludes")
