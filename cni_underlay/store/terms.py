"""Routes and DNS of a lease as one JSON text, and back."""

import json
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import Any

from cni_underlay.records import Dns, Route

_NUMBERS = ("mtu", "advmss", "priority", "table", "scope")


@lru_cache(maxsize=64)
def written(routes: tuple[Route, ...], dns: Dns) -> str:
    return json.dumps({"routes": [_document(route) for route in routes], "dns": _dns_document(dns)})


@lru_cache(maxsize=64)  # the leases of one network share their terms: ten thousand leases read them once
def read(body: str) -> tuple[tuple[Route, ...], Dns]:
    document = json.loads(body)
    dns = document["dns"]
    return tuple(map(_route, document["routes"])), Dns(
        nameservers=tuple(dns["nameservers"]),
        domain=dns["domain"],
        search=tuple(dns["search"]),
        options=tuple(dns["options"]),
    )


def _document(route: Route) -> dict[str, Any]:
    numbers = {key: getattr(route, key) for key in _NUMBERS if getattr(route, key) is not None}
    return {"dst": str(route.dst), "gw": str(route.gw) if route.gw else None, **numbers}


def _dns_document(dns: Dns) -> dict[str, Any]:
    return {"nameservers": dns.nameservers, "domain": dns.domain, "search": dns.search, "options": dns.options}


def _route(document: dict[str, Any]) -> Route:
    gw = document["gw"]
    return Route(
        dst=ip_network(document["dst"]),
        gw=ip_address(gw) if gw else None,
        **{key: document[key] for key in _NUMBERS if key in document},
    )
