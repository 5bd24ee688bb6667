"""The small languages of the specification: identifiers, interface names, MAC addresses, IP addresses.

Each reader returns a value in its one normal form or raises `ValueError` saying what is wrong; its caller knows whose
mistake that is.
"""

import re
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_interface, ip_network
from typing import Final

from cni_underlay.records import IPAddress, IPInterface, IPNetwork

# fullmatch and explicit classes: `$` accepts a trailing newline, `\w` and `\d` accept all of Unicode.
_IDENTIFIER: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*")
_MAC: Final = re.compile(r"[0-9a-fA-F]{2}([:-])(?:[0-9a-fA-F]{2}\1){4}[0-9a-fA-F]{2}")

_SURROGATES: Final = re.compile("[\ud800-\udfff]")

_IFNAMSIZ: Final = 16  # linux/if.h, with the terminating NUL
_KERNEL_SPACE: Final = 0xA0  # lib/ctype.c calls this byte a space, so dev_valid_name() refuses "à" (c3 a0)

# `all` and `default` are directories of net/ipv4/conf beside those of the interfaces, `lo` is in every namespace.
_SPECIAL: Final = frozenset({"all", "default", "lo"})
_SHOWN: Final = 256


def clip(text: str) -> str:
    """`text`, short enough for a message."""
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def legible(text: str) -> str:
    """`text` with what is not UTF-8 (lone surrogates) replaced, as Go's JSON encoder does."""
    return _SURROGATES.sub("\ufffd", text)


def is_identifier(text: str) -> bool:
    """Whether it may be a container id or a network's name (SPEC.md#parameters)."""
    return _IDENTIFIER.fullmatch(text) is not None


def is_file_name(text: str) -> bool:
    """Whether it names a file in a directory, and no path: what a plugin's type has to be."""
    return text not in {"", ".", ".."} and "/" not in text and "\0" not in text


def name_fault(name: str) -> str:
    """Why the kernel (dev_valid_name) or libcni (ValidateInterfaceName) refuses `name` for an interface; else ''."""
    try:
        raw = name.encode()
    except UnicodeEncodeError:
        return "is not UTF-8"
    if not 0 < len(raw) < _IFNAMSIZ:
        return f"has {len(raw)} bytes; 1 to {_IFNAMSIZ - 1} are allowed"
    if name in {".", ".."}:
        return "is a directory"
    if "/" in name or ":" in name or "\0" in name:
        return "contains '/', ':' or NUL"
    if _KERNEL_SPACE in raw or any(character.isspace() for character in name):
        return "contains white space"
    return ""


def trap(name: str) -> str:
    """Why an allowed interface name would still not become an interface of exactly that name; else ''."""
    if name in _SPECIAL:
        return "is a name that the kernel uses itself"
    if "%" in name:
        return "contains '%', which the kernel expands as a pattern"
    if not name.isprintable():
        return "contains control characters"
    return ""


def mac(text: str) -> str:
    """A unicast MAC address of 6 octets, in lower case and with colons."""
    if _MAC.fullmatch(text) is None:
        raise ValueError(f"{clip(text)!r} is no MAC address of six octets")
    normal = text.lower().replace("-", ":")
    if normal == "00:00:00:00:00:00":
        raise ValueError(f"{text!r} is all zero")
    if int(normal[:2], 16) & 1:
        raise ValueError(f"{text!r} is a multicast address, an interface needs a unicast one")
    return normal


def address(text: str) -> IPAddress:
    """An IP address, with or without a prefix length, which is dropped: pools know the subnet's."""
    found = ip_interface(_plain(text)).ip if "/" in text else ip_address(_plain(text))
    # Go's net.ParseIP takes ::ffff:a.b.c.d for a.b.c.d, and so do all plugins beside us.
    return found.ipv4_mapped or found if isinstance(found, IPv6Address) else found


def interface(text: str) -> IPInterface:
    """An address with its prefix length, which must be there (types.IPNet)."""
    if "/" not in text:
        raise ValueError(f"{clip(text)!r} has no prefix length")
    return ip_interface(_plain(text))


@lru_cache(maxsize=256)  # the same few routes come with every ADD of a network, and parsing one takes 4 us
def network(text: str) -> IPNetwork:
    """A destination in CIDR; host bits are dropped, as Go's net.ParseCIDR does."""
    if "/" not in text:
        raise ValueError(f"{clip(text)!r} has no prefix length")
    return ip_network(_plain(text), strict=False)


def _plain(text: str) -> str:
    """`text` itself; an IPv6 zone (fe80::1%eth0) is refused, because it names an interface of some namespace."""
    if "%" in text or len(text) > _SHOWN:
        raise ValueError(f"{clip(text)!r} is no IP address")
    return text
