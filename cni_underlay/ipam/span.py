"""What one set of a pool can give: its ranges without network, broadcast, gateways and excludes, as segments."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network

from cni_underlay.ipam.keys import key_of, words
from cni_underlay.records import AddressRange, IPAddress

Sets = Sequence[Sequence[AddressRange]]
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Segment:
    """Keys `first` to `last`, both included, with nothing to skip between them; `source` is the range they are of."""

    first: int
    last: int
    source: AddressRange


class Span:
    """The segments of one set, in the order its ranges are listed."""

    __slots__ = ("_places", "_starts", "segments", "size")

    def __init__(self, segments: Sequence[Segment]) -> None:
        self.segments = tuple(segments)
        self.size = sum(segment.last - segment.first + 1 for segment in segments)
        ranked = sorted((segment.first, place) for place, segment in enumerate(segments))
        self._starts = [first for first, _ in ranked]
        self._places = [place for _, place in ranked]

    def find(self, key: int) -> Segment | None:
        rank = bisect_right(self._starts, key) - 1
        segment = self.segments[self._places[rank]] if rank >= 0 else None
        return segment if segment and key <= segment.last else None

    def windows(self, cursor: int | None) -> Iterator[tuple[int, int, AddressRange]]:
        """Where to look for a free key after `cursor`: upward to the end, then from the start up to the cursor itself.

        A cursor that no segment holds any more (the pool was edited) counts as the end of the segment below it.
        """
        rank = -1 if cursor is None else bisect_right(self._starts, cursor) - 1
        if cursor is None or rank < 0:
            yield from self._bounds(0, len(self.segments))
            return
        place = self._places[rank]
        here = self.segments[place]
        if cursor < here.last:
            yield cursor + 1, here.last, here.source
        yield from self._bounds(place + 1, len(self.segments))
        yield from self._bounds(0, place)
        yield here.first, min(cursor, here.last), here.source

    def _bounds(self, start: int, stop: int) -> Iterator[tuple[int, int, AddressRange]]:
        return ((each.first, each.last, each.source) for each in self.segments[start:stop])

    def __str__(self) -> str:
        """The ranges in words, the first ones of them."""
        sources = {id(segment.source): segment.source for segment in self.segments}
        texts = [words(key_of(source.first), key_of(source.last)) for source in sources.values()]
        return ", ".join([*texts[:_SHOWN], f"{len(texts) - _SHOWN} more"] if len(texts) > _SHOWN else texts)


def span_of(sets: Sets, slot: int) -> Span:
    """The span of `sets[slot]`. Gateways of every set are kept out: a pool never gives away a router's address."""
    gateways = {each.gateway for ranges in sets for each in ranges if each.gateway is not None}
    return Span([segment for each in sets[slot] for segment in _carve(each, gateways)])


def _carve(source: AddressRange, gateways: set[IPAddress]) -> Iterator[Segment]:
    """The parts of a range that are left between its reserved addresses."""
    start, last = key_of(source.first), key_of(source.last)
    for low, high in sorted(_reserved(source, gateways)):
        if low > last:
            break
        if start < low:
            yield Segment(start, low - 1, source)
        start = max(start, high + 1)
    if start <= last:
        yield Segment(start, last, source)


def _reserved(source: AddressRange, gateways: set[IPAddress]) -> Iterator[tuple[int, int]]:
    for address in unusable(source):
        yield key_of(address), key_of(address)
    for gateway in gateways:
        yield key_of(gateway), key_of(gateway)
    for first, last in source.excludes:
        yield key_of(first), key_of(last)


def unusable(source: AddressRange) -> tuple[IPAddress, ...]:
    """The subnet's addresses that no host has: network and broadcast, or subnet-router anycast (RFC 4291, 2.6.1)."""
    subnet = source.subnet
    if isinstance(subnet, IPv4Network):
        return (subnet.network_address, subnet.broadcast_address)
    return (subnet.network_address,)
