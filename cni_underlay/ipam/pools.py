"""Pools from what people write: the `pools` of agent.yaml and pools.d, and host-local's inline ranges.

A pool is taken whole or refused with the place, the value, and what to write instead; nothing is guessed::

    pools:
      - name: app
        ranges:
          - subnet: 10.7.0.0/24
            range: 10.7.0.32-10.7.0.250     # also a CIDR, one address, or a list of them; default: the whole subnet
            gateway: 10.7.0.1               # default: the subnet's first address, as host-local; `none` for no gateway
            exclude: [10.7.0.40-10.7.0.49, 10.7.0.64/28, 10.7.0.99]
          - subnet: fd00:7::/64
        routes: [{dst: 0.0.0.0/0}]          # default: the default route of each family that has a gateway
        dns: {nameservers: [10.7.0.2], search: [example.org], domain: example.org, options: [ndots:2]}
        quarantine: 120s
        floor: 30s

A pod gets one address of each family the pool has.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import ip_network

from cni_underlay.errors import InvalidConfigError
from cni_underlay.ipam import geometry
from cni_underlay.ipam.duration import parse_duration
from cni_underlay.ipam.inline import RangeText, inline_pool
from cni_underlay.ipam.keys import key_of
from cni_underlay.ipam.options import dns_of, routes_of
from cni_underlay.ipam.span import span_of
from cni_underlay.ipam.spot import Spot
from cni_underlay.records import AddressRange, Dns, IPAddress, IPNetwork, Pool, Route

__all__ = ["RangeText", "inline_pool", "parse_duration", "pool_from_mapping", "pools_from_documents"]

_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?", re.ASCII)
_POOL_KEYS = ("name", "ranges", "routes", "dns", "quarantine", "floor")
_RANGE_KEYS = ("subnet", "range", "gateway", "exclude")
_DEFAULT_ROUTES = (ip_network("0.0.0.0/0"), ip_network("::/0"))


def pools_from_documents(
    sources: Iterable[tuple[str, object]], *, quarantine: float = 120.0, floor: float = 30.0
) -> Mapping[str, Pool]:
    """The pools of several documents by name; each document is a mapping with the one key `pools`.

    `sources` are (file name, document), `quarantine` and `floor` the seconds of pools that set none. Raises
    `InvalidConfigError` where any pool is wrong, has another's name, or shares an address with another.
    """
    placed: dict[str, tuple[Spot, Pool]] = {}
    for source, document in sources:
        for spot, entry in _entries(Spot(source), document):
            pool = pool_from_mapping(entry, spot, quarantine=quarantine, floor=floor)
            named = Spot(": ".join(filter(None, (source, f"pool {pool.name}"))))
            if pool.name in placed:
                raise (named / "name").refuse(pool.name, f"is the name of {placed[pool.name][0]} too; choose another")
            placed[pool.name] = (named, pool)
    _require_separate(placed.values())
    return {name: pool for name, (_, pool) in placed.items()}


def pool_from_mapping(
    mapping: object, spot: Spot | None = None, *, quarantine: float = 120.0, floor: float = 30.0
) -> Pool:
    """One pool. Refusals start with the spot, and with the pool's name as soon as that is known."""
    spot = spot or Spot("")
    fields = spot.mapping(mapping, _POOL_KEYS)
    name = _name(spot / "name", fields.get("name"))
    spot = Spot(": ".join(filter(None, (spot.owner, f"pool {name}"))))
    placed = list(_ranges(spot / "ranges", fields.get("ranges")))
    geometry.require_apart(placed)
    sets = _by_family(each for _, each in placed)
    geometry.require_some(spot / "ranges", sets)
    rest, least = _times(spot, fields, quarantine, floor)
    return Pool(
        name=name,
        sets=sets,
        routes=routes_of(spot / "routes", fields["routes"]) if "routes" in fields else _default_routes(sets),
        dns=dns_of(spot / "dns", fields["dns"]) if "dns" in fields else Dns(),
        quarantine=rest,
        floor=least,
    )


def _entries(spot: Spot, document: object) -> Iterator[tuple[Spot, object]]:
    fields = spot.mapping(document, ("pools",))
    place = spot / "pools"
    for index, entry in enumerate(place.sequence(fields.get("pools", []))):
        yield place / index, entry


def _name(spot: Spot, value: object) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise spot.refuse(value, "is no name; write up to 63 lower-case letters, digits, dots and hyphens")
    return value


def _times(spot: Spot, fields: Mapping[str, object], quarantine: float, floor: float) -> tuple[float, float]:
    rest = parse_duration(fields.get("quarantine", quarantine), str(spot / "quarantine"))
    least = parse_duration(fields.get("floor", min(floor, rest)), str(spot / "floor"))
    if least > rest:
        raise (spot / "floor").refuse(fields["floor"], f"is longer than the quarantine of {rest:g} s; write less")
    return rest, least


def _ranges(spot: Spot, value: object) -> Iterator[tuple[Spot, AddressRange]]:
    entries = spot.sequence(value) if value is not None else ()
    if not entries:
        raise InvalidConfigError(f"{spot}: a pool needs at least one range; write - subnet: 10.7.0.0/24")
    for index, entry in enumerate(entries):
        yield from _range(spot / index, entry)


def _range(spot: Spot, entry: object) -> Iterator[tuple[Spot, AddressRange]]:
    """One record for each interval of the entry."""
    fields = spot.mapping(entry, _RANGE_KEYS)
    place = spot / "subnet"
    home = geometry.subnet(place, place.text(fields.get("subnet")))
    gateway = _gateway(spot / "gateway", fields.get("gateway", str(home[1])), home)
    excludes = tuple(bounds for _, bounds in _intervals(spot / "exclude", fields.get("exclude", ()), home))
    given = _intervals(spot / "range", fields["range"], home) if "range" in fields else [(spot, geometry.whole(home))]
    for where, (first, last) in given:
        yield where, AddressRange(subnet=home, first=first, last=last, gateway=gateway, excludes=excludes)


def _gateway(spot: Spot, value: object, home: IPNetwork) -> IPAddress | None:
    text = spot.text(value)
    if text == "none":
        return None
    gateway = geometry.address(spot, text)
    if not geometry.within(gateway, home):
        raise spot.refuse(text, f"is outside subnet {home}; write an address of it, `none`, or leave the key out")
    geometry.require_host(spot, gateway, home)
    return gateway


def _intervals(spot: Spot, value: object, home: IPNetwork) -> Iterator[tuple[Spot, geometry.Interval]]:
    if isinstance(value, str):
        yield spot, geometry.interval(spot, value, home)
        return
    for index, entry in enumerate(spot.sequence(value)):
        place = spot / index
        yield place, geometry.interval(place, place.text(entry), home)


def _by_family(ranges: Iterable[AddressRange]) -> tuple[tuple[AddressRange, ...], ...]:
    families: dict[int, list[AddressRange]] = {}
    for each in ranges:
        families.setdefault(each.subnet.version, []).append(each)
    return tuple(map(tuple, families.values()))


def _default_routes(sets: Sequence[Sequence[AddressRange]]) -> tuple[Route, ...]:
    routed = {each.gateway.version for ranges in sets for each in ranges if each.gateway is not None}
    return tuple(Route(dst=dst) for dst in _DEFAULT_ROUTES if dst.version in routed)


def _require_separate(placed: Iterable[tuple[Spot, Pool]]) -> None:
    """Nothing of one pool may be another's: neither an address, nor a gateway among those to give away."""
    pools = list(placed)
    geometry.require_apart((spot, each) for spot, pool in pools for ranges in pool.sets for each in ranges)
    spans = [(spot, span_of(pool.sets, slot)) for spot, pool in pools for slot in range(len(pool.sets))]
    gateways = {each.gateway: spot for spot, pool in pools for ranges in pool.sets for each in ranges if each.gateway}
    for gateway, owner in gateways.items():
        for spot, span in spans:
            if span.find(key_of(gateway)) is not None:
                raise spot.refuse(str(gateway), f"is the gateway of {owner}; put it under `exclude`")
