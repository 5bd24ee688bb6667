"""The MAC that follows from an address: the next owner has the same one, so that no neighbour cache goes stale."""

import hashlib
from collections.abc import Sequence
from ipaddress import IPv4Address

from cni_underlay.records import Claim, DatapathKind, IPAddress, LeasedAddress

# Both are locally administered unicast (second-lowest bit of the first octet set, lowest clear; IEEE 802 section 8.4).
# Two prefixes, so that an IPv6 address never shares the MAC of an IPv4 one.
_IPV4 = 0x0275 << 32
_IPV6 = 0x0675 << 32
_LOW = (1 << 32) - 1
# ipvlan takes its master's MAC, and an interface that another plugin makes has a MAC that nobody tells us.
_OURS = (DatapathKind.VETH, DatapathKind.MACVLAN)


def mac_for(address: IPAddress) -> str:
    """`02:75:` and the four bytes of an IPv4 address; `06:75:` and four bytes that stand for an IPv6 address.

    Those four are the address's low 32 bits, mixed with a hash of the other 96: inside one /96 no two addresses share a
    MAC, and two subnets with equal host parts almost never do.
    """
    value = int(address)
    if isinstance(address, IPv4Address):
        return _text(_IPV4 | value)
    prefix = hashlib.sha256(address.packed[:12]).digest()[:4]
    return _text(_IPV6 | (value & _LOW) ^ int.from_bytes(prefix))


def mac_of(claim: Claim, addresses: Sequence[LeasedAddress]) -> str:
    """The MAC asked for, else the one that follows from the first IPv4 address, else from the first; '' if not ours."""
    if claim.mac or claim.datapath not in _OURS or not addresses:
        return claim.mac
    ranked = sorted((address.interface.ip for address in addresses), key=lambda address: address.version)
    return mac_for(ranked[0])


def _text(mac: int) -> str:
    return mac.to_bytes(6).hex(":")
