"""MAC and link-local addresses that follow from something stable, so that a reused address does not change layer 2."""

import hashlib
from ipaddress import IPv4Address, IPv6Address, IPv6Interface

from cni_underlay.errors import InvalidConfigError
from cni_underlay.records import IPAddress

# The pod's next hop in veth mode, answered by the host end of its own pair. One MAC for all host ends: each of these
# wires has two ends only.
HOP4 = IPv4Address("169.254.1.1")
HOP6 = IPv6Address("fe80::1")
HOST_END_MAC = bytes.fromhex("027500000001")

# First octets are locally administered, unicast (bits 1 and 0 of IEEE 802's first octet: 10).
_POD4 = b"\x02\x75"
_POD6 = b"\x06\x75"
_NODE = b"\x0a\x75"
_NAMED = b"\x0e\x75"

_OCTETS = 6


def mac_bytes(mac: str) -> bytes:
    """Six octets of `aa:bb:..` (or with dashes). Raises `InvalidConfigError`: malformed, group address, or all zero."""
    try:
        octets = bytes.fromhex(mac.replace("-", ":").replace(":", " "))
    except ValueError as error:
        raise InvalidConfigError(f"{mac!r} is not a MAC address") from error
    if len(octets) != _OCTETS or len(mac) != 3 * _OCTETS - 1:
        raise InvalidConfigError(f"{mac!r} is not a MAC address of six octets")
    if octets[0] & 1:
        raise InvalidConfigError(f"{mac!r} is a group address: an interface cannot have it")
    if not any(octets):
        raise InvalidConfigError(f"{mac!r} is all zero: an interface cannot have it")
    return octets


def mac_text(octets: bytes) -> str:
    return octets.hex(":")


def mac_of_address(address: IPAddress) -> bytes:
    """The MAC of a pod that asked for none: the same whenever the address is used, and unique among IPv4 ones."""
    if isinstance(address, IPv4Address):
        return _POD4 + address.packed
    return _POD6 + hashlib.sha1(address.packed, usedforsecurity=False).digest()[:4]


def mac_of_name(name: str) -> bytes:
    """The MAC of a pod without addresses."""
    return _NAMED + hashlib.sha1(name.encode(), usedforsecurity=False).digest()[:4]


def mac_of_host_link(master: bytes, index: int) -> bytes:
    """The MAC of a node's own link on a master: as unique on the segment as the master's, the same after a restart."""
    text = master + index.to_bytes(4)
    return _NODE + hashlib.sha1(text, usedforsecurity=False).digest()[:4]


def link_local_of_mac(octets: bytes) -> IPv6Interface:
    """fe80::/64 with the modified EUI-64 of the MAC (RFC 4291, appendix A): what the kernel would have made itself."""
    host = bytes((octets[0] ^ 2,)) + octets[1:3] + b"\xff\xfe" + octets[3:]
    return IPv6Interface((b"\xfe\x80" + bytes(6) + host, 64))


def link_local_of_name(name: str) -> IPv6Interface:
    """fe80::/64 with a hash: for ipvlan, where all interfaces of a master have one MAC."""
    host = hashlib.sha1(name.encode(), usedforsecurity=False).digest()[:8]
    return IPv6Interface((b"\xfe\x80" + bytes(6) + bytes((host[0] & 0xFD,)) + host[1:], 64))
