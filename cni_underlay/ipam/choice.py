"""Which addresses an attachment gets: round robin through each set, past everything that is held, or a clear refusal.

Searching upward from the last lease, and not from the bottom, keeps a crash-looping pod from getting its old address
back while peers still hold it in their neighbour and connection tables.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface
from math import ceil

from cni_underlay.errors import AddressInUseError, InvalidConfigError, PoolExhaustedError, UnderlayError
from cni_underlay.ipam.book import Book
from cni_underlay.ipam.keys import IPV6, key_of
from cni_underlay.ipam.shelf import Shelf
from cni_underlay.ipam.span import Span
from cni_underlay.ipam.wanted import assign
from cni_underlay.records import AddressRange, AddressState, IPAddress, LeasedAddress, Pool


@dataclass(frozen=True, slots=True, kw_only=True)
class Pick:
    """One address to lease; `reason` says what is unusual about it, for the history.

    `since` is set where its quarantine is not over: the uptime of its release.
    """

    key: int
    address: LeasedAddress
    reason: str = ""
    since: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What a lease got, and the pool that gave it; `pool` is None where none was asked."""

    pool: Pool | None = None
    picks: tuple[Pick, ...] = ()

    @property
    def addresses(self) -> tuple[LeasedAddress, ...]:
        return tuple(pick.address for pick in self.picks)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """One set of a pool, with what is held of it."""

    pool: Pool
    slot: int
    span: Span
    shelf: Shelf

    def pick(self, key: int, source: AddressRange, reason: str = "", since: float | None = None) -> Pick:
        kind = IPv6Interface if key & IPV6 else IPv4Interface
        interface = kind((key & ~IPV6, source.subnet.prefixlen))
        address = LeasedAddress(pool=self.pool.name, slot=self.slot, interface=interface, gateway=source.gateway)
        return Pick(key=key, address=address, reason=reason, since=since)


def lease(book: Book, pools: Sequence[Pool], wanted: Sequence[IPAddress], uptime: float) -> Choice:
    """Lease one address of each set of the first pool that can give them all, the wanted ones among them.

    Raises, with the book as it was: `AddressInUseError` where a wanted address is held or rests, `PoolExhaustedError`
    where a set has nothing left, `InvalidConfigError` where no pool can ever give what is wanted. Where several pools
    refuse, a refusal that may pass counts more than one that cannot.
    """
    refusals: list[UnderlayError] = []
    for pool in pools:
        try:
            with book.attempt():
                return Choice(pool=pool, picks=_lease_from(book, pool, wanted, uptime))
        except (AddressInUseError, PoolExhaustedError, InvalidConfigError) as refusal:
            refusals.append(refusal)
    for kind in (AddressInUseError, PoolExhaustedError, InvalidConfigError):
        if alike := [refusal for refusal in refusals if isinstance(refusal, kind)]:
            raise kind("; ".join(map(str, alike))) from alike[0]
    return Choice()


def has_room(book: Book, pool: Pool, uptime: float) -> bool:
    """Whether each set of the pool could give an address now; leases nothing."""
    try:
        for place in _places(book, pool, uptime):
            _next(book, place, uptime)
    except PoolExhaustedError:
        return False
    return True


def _places(book: Book, pool: Pool, uptime: float) -> tuple[_Place, ...]:
    shelf = book.shelf(pool.name)
    book.settle(shelf, uptime, pool.quarantine)
    return tuple(_Place(pool=pool, slot=slot, span=span, shelf=shelf) for slot, span in enumerate(shelf.spans(pool)))


def _lease_from(book: Book, pool: Pool, wanted: Sequence[IPAddress], uptime: float) -> tuple[Pick, ...]:
    places = _places(book, pool, uptime)
    assigned = assign(pool, [place.span for place in places], wanted) if wanted else {}
    picks = []
    for slot, place in enumerate(places):
        pick = _exactly(place, assigned[slot], uptime) if slot in assigned else _next(book, place, uptime)
        book.lease(pool.name, slot, pick.key)
        picks.append(pick)
    return tuple(picks)


def _exactly(place: _Place, address: IPAddress, uptime: float) -> Pick:
    key = key_of(address)
    segment = place.span.find(key)
    state = place.shelf.state(key)
    if segment is not None and state is None:
        return place.pick(key, segment.source, "requested")
    if state is AddressState.QUARANTINED:
        wait = _seconds(place.pool.quarantine - (uptime - place.shelf.rest.resting[key]))
        raise AddressInUseError(f"requested address {address} rests after its last owner; it is usable in {wait}")
    raise AddressInUseError(f"requested address {address} of pool {place.pool.name} is {state} already")


def _next(book: Book, place: _Place, uptime: float) -> Pick:
    cursor = place.shelf.cursors.get(place.slot)
    # Two networks may name the same subnet, and both must work; but while there are addresses that no other pool of
    # this node holds, those come first: the two may be one segment.
    for closed in (book.everywhere, place.shelf.closed):
        for low, high, source in place.span.windows(cursor):
            key = closed.next_free(low, high)
            if key is not None:
                return place.pick(key, source)
    return _longest_rested(place, uptime)


def _longest_rested(place: _Place, uptime: float) -> Pick:
    for key, since in place.shelf.rest.resting.items():
        segment = place.span.find(key)
        rest = uptime - since
        if segment is not None and rest >= place.pool.floor:
            reason = f"rested {rest:.0f} s of {place.pool.quarantine:.0f} s, and nothing else was left"
            return place.pick(key, segment.source, reason, since)
        if rest < place.pool.floor:  # and so is everyone's behind it
            break
    raise _exhausted(place, uptime)


def _exhausted(place: _Place, uptime: float) -> PoolExhaustedError:
    """Says how full the set is and when that changes; counts by walking, as this is off the fast path."""
    pool, shelf, size = place.pool, place.shelf, place.span.size
    rests = [since for key, since in shelf.rest.resting.items() if place.span.find(key)]
    aside = sum(1 for key in shelf.aside if place.span.find(key))
    hope = f"the next one is usable in {_seconds(pool.floor - (uptime - rests[0]))}" if rests else "none of them rests"
    return PoolExhaustedError(
        f"pool {pool.name} has no free address: of {size} in {place.span}, {size - len(rests) - aside} are leased, "
        f"{len(rests)} quarantined, {aside} reserved or foreign; {hope}"
    )


def _seconds(wait: float) -> str:
    return f"{max(1, ceil(wait))} s"
