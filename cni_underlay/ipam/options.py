"""`routes` and `dns` of a pool from YAML."""

from collections.abc import Mapping

from cni_underlay.ipam import geometry
from cni_underlay.ipam.spot import Spot
from cni_underlay.records import Dns, Route

_NUMBERS = ("mtu", "advmss", "priority", "table", "scope")
_ROUTE_KEYS = ("dst", "gw", *_NUMBERS)
_DNS_KEYS = ("nameservers", "domain", "search", "options")
_UINT32 = 2**32  # every one of them is a __u32 to rtnetlink


def routes_of(spot: Spot, value: object) -> tuple[Route, ...]:
    return tuple(_route(spot / index, entry) for index, entry in enumerate(spot.sequence(value)))


def dns_of(spot: Spot, value: object) -> Dns:
    fields = spot.mapping(value, _DNS_KEYS)
    servers = (spot / "nameservers").texts(fields.get("nameservers", ()))
    for index, server in enumerate(servers):
        geometry.address(spot / "nameservers" / index, server)
    return Dns(
        nameservers=servers,
        domain=(spot / "domain").text(fields["domain"]) if "domain" in fields else "",
        search=(spot / "search").texts(fields.get("search", ())),
        options=(spot / "options").texts(fields.get("options", ())),
    )


def _route(spot: Spot, entry: object) -> Route:
    fields = spot.mapping(entry, _ROUTE_KEYS)
    dst = geometry.block(spot / "dst", (spot / "dst").text(fields.get("dst")))
    gw = geometry.address(spot / "gw", (spot / "gw").text(fields["gw"])) if "gw" in fields else None
    if gw is not None and gw.version != dst.version:
        raise (spot / "gw").refuse(str(gw), f"is of another family than dst {dst}")
    numbers = {key: _number(spot / key, fields) for key in _NUMBERS}
    return Route(dst=dst, gw=gw, **numbers)


def _number(spot: Spot, fields: Mapping[str, object]) -> int | None:
    value = fields.get(str(spot.path[-1]))
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < _UINT32:
        raise spot.refuse(value, "is no number from 0 to 4294967295")
    return value
