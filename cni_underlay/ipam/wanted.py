"""Requested addresses: which set gives each of them, or why none can."""

from collections.abc import Sequence

from cni_underlay.errors import InvalidConfigError
from cni_underlay.ipam.keys import key_of, words
from cni_underlay.ipam.span import Span, unusable
from cni_underlay.records import AddressRange, IPAddress, Pool


def assign(pool: Pool, spans: Sequence[Span], wanted: Sequence[IPAddress]) -> dict[int, IPAddress]:
    """The wanted address of each set that has one. The same address asked for twice counts once.

    Raises `InvalidConfigError` where an address fits no set, or its set has one already.
    """
    assigned: dict[int, IPAddress] = {}
    for address in dict.fromkeys(wanted):
        key = key_of(address)
        slots = [slot for slot, span in enumerate(spans) if span.find(key) is not None]
        if not slots:
            raise InvalidConfigError(f"requested address {address} {_why_not(pool, address)}")
        slot = next((slot for slot in slots if slot not in assigned), None)
        if slot is None:
            taken = assigned[slots[0]]
            raise InvalidConfigError(
                f"requested addresses {taken} and {address} are of one set of pool {pool.name}, which gives one address"
            )
        assigned[slot] = address
    return assigned


def _why_not(pool: Pool, address: IPAddress) -> str:
    ranges = [each for ranges in pool.sets for each in ranges]
    if any(address == each.gateway for each in ranges):
        return f"is the gateway in pool {pool.name}"
    home = [each for each in ranges if each.subnet.version == address.version and address in each.subnet]
    if not home:
        return f"is in no subnet of pool {pool.name}"
    return next(filter(None, (_flaw(each, address) for each in home)), f"is outside the ranges of pool {pool.name}")


def _flaw(source: AddressRange, address: IPAddress) -> str:
    if address == source.subnet.network_address:
        return f"is the network address of {source.subnet}"
    if address in unusable(source):
        return f"is the broadcast address of {source.subnet}"
    for first, last in source.excludes:
        if key_of(first) <= key_of(address) <= key_of(last):
            return f"is excluded ({words(key_of(first), key_of(last))})"
    return ""
