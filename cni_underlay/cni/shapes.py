"""Objects that stand in configurations and in results alike: routes and DNS, from JSON to records and back."""

from typing import Any, Final

import msgspec

from cni_underlay.cni import grammar
from cni_underlay.records import Dns, Route

_UINT32: Final = 2**32


class RouteShape(msgspec.Struct, frozen=True, rename="camel"):
    """A route; its attributes beside `dst` and `gw` are of 1.1.0. libcni writes an unset number as 0 or not at all."""

    dst: str = ""
    gw: str = ""
    mtu: int = 0
    advmss: int = 0
    priority: int = 0
    table: int | None = None
    scope: int | None = None

    def record(self) -> Route:
        """The route; raises `ValueError`."""
        for key in ("mtu", "advmss", "priority", "table", "scope"):
            number = getattr(self, key)
            if number is not None and not 0 <= number < _UINT32:
                raise ValueError(f"{key} {number} is out of range")
        dst = grammar.network(self.dst)
        gw = grammar.address(self.gw) if self.gw else None
        if gw is not None and gw.version != dst.version:
            raise ValueError(f"gw {gw} is of another family than dst {dst}")
        return Route(
            dst=dst,
            gw=gw,
            mtu=self.mtu or None,
            advmss=self.advmss or None,
            priority=self.priority or None,
            table=self.table,
            scope=self.scope,
        )


class DnsShape(msgspec.Struct, frozen=True, rename="camel"):
    nameservers: tuple[str, ...] = ()
    domain: str = ""
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    def record(self) -> Dns:
        return Dns(nameservers=self.nameservers, domain=self.domain, search=self.search, options=self.options)


def plain_route(route: Route) -> dict[str, Any]:
    """The route as all versions below 1.1.0 have it."""
    shape: dict[str, Any] = {"dst": str(route.dst)}
    if route.gw is not None:
        shape["gw"] = str(route.gw)
    return shape


def full_route(route: Route) -> dict[str, Any]:
    """The route with the attributes of 1.1.0."""
    shape = plain_route(route)
    for key in ("mtu", "advmss", "priority", "table", "scope"):
        number = getattr(route, key)
        if number is not None:
            shape[key] = number
    return shape


def plain_dns(dns: Dns) -> dict[str, Any]:
    """The `dns` object, empty when nothing is set."""
    shape = {"nameservers": dns.nameservers, "domain": dns.domain, "search": dns.search, "options": dns.options}
    return {key: value for key, value in shape.items() if value}
