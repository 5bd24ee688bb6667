"""Addresses as integers: IPv4 as it is, IPv6 with bit 128 set, so that both families live in one number line."""

from ipaddress import IPv4Address, IPv6Address

from cni_underlay.records import IPAddress

IPV6 = 1 << 128


def key_of(address: IPAddress) -> int:
    return int(address) if isinstance(address, IPv4Address) else int(address) | IPV6


def address_of(key: int) -> IPAddress:
    return IPv6Address(key ^ IPV6) if key & IPV6 else IPv4Address(key)


def words(first: int, last: int) -> str:
    """`10.7.0.4-10.7.0.9`, or the address alone where both ends are the same."""
    return str(address_of(first)) if first == last else f"{address_of(first)}-{address_of(last)}"
