"""Inline ranges of a network configuration: host-local's keys with host-local's defaults and refusals.

Where it would hand out the network address or broadcast (a rangeStart or rangeEnd may name them), we do not.
"""

from functools import lru_cache
from typing import Protocol

from cni_underlay.ipam import geometry
from cni_underlay.ipam.spot import Spot
from cni_underlay.records import AddressRange, Dns, IPAddress, IPNetwork, Pool, Route


class RangeText(Protocol):
    """One range object as it is written; empty strings where a key is absent."""

    @property
    def subnet(self) -> str: ...
    @property
    def range_start(self) -> str: ...
    @property
    def range_end(self) -> str: ...
    @property
    def gateway(self) -> str: ...


def inline_pool(
    network: str,
    ranges: tuple[tuple[RangeText, ...], ...],
    routes: tuple[Route, ...] = (),
    dns: Dns | None = None,
    *,
    quarantine: float = 120.0,
    floor: float = 30.0,
) -> Pool:
    """The implicit pool of a network: one address from each set of ranges. Raises `InvalidConfigError`."""
    # No pool of agent.yaml has a slash in its name, so the two kinds never share one.
    return Pool(
        name=f"network/{network}",
        sets=_sets(ranges),
        routes=routes,
        dns=dns or Dns(),
        quarantine=quarantine,
        floor=floor,
    )


@lru_cache(maxsize=256)  # every ADD of a network brings the same text, and reading it takes 30 us
def _sets(ranges: tuple[tuple[RangeText, ...], ...]) -> tuple[tuple[AddressRange, ...], ...]:
    spot = Spot("ipam") / "ranges"
    placed = [
        [(spot / index / inner, _range(spot / index / inner, each)) for inner, each in enumerate(entries)]
        for index, entries in enumerate(ranges)
    ]
    for index, entries in enumerate(placed):
        families = {each.subnet.version for _, each in entries}
        if len(families) != 1:
            subnets = ", ".join(str(each.subnet) for _, each in entries)
            raise (spot / index).refuse(subnets, "mixes address families, or is empty; write a set for each family")
    geometry.require_apart([each for entries in placed for each in entries])
    sets = tuple(tuple(each for _, each in entries) for entries in placed)
    geometry.require_some(spot, sets)
    return sets


def _range(spot: Spot, text: RangeText) -> AddressRange:
    home = geometry.subnet(spot / "subnet", text.subnet)
    first, last = geometry.whole(home)
    if text.range_start:
        first = geometry.address(spot / "rangeStart", text.range_start)
    geometry.ordered(spot / "rangeStart", text.range_start, (first, home[-1]), home)
    if text.range_end:
        last = geometry.address(spot / "rangeEnd", text.range_end)
    geometry.ordered(spot / "rangeEnd", text.range_end, (first, last), home)
    return AddressRange(subnet=home, first=first, last=last, gateway=_gateway(spot / "gateway", text.gateway, home))


def _gateway(spot: Spot, text: str, home: IPNetwork) -> IPAddress:
    if not text:
        return home[1]
    gateway = geometry.address(spot, text)
    # A gateway outside the subnet is allowed, as in host-local: ptp configurations use a link-local one.
    if gateway.version != home.version:
        raise spot.refuse(text, f"is of another family than subnet {home}")
    geometry.require_host(spot, gateway, home)
    return gateway
