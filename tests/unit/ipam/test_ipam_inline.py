"""Inline ranges; the figures of the first table were read off the reference host-local (Debian's 1.1.1)."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from cni_underlay.cni.ipamconf import RangeConf
from cni_underlay.errors import InvalidConfigError
from cni_underlay.ipam.keys import address_of
from cni_underlay.ipam.pools import inline_pool
from cni_underlay.ipam.span import span_of

HOST_LOCAL = Path("/usr/lib/cni/host-local")

Sets = tuple[tuple[RangeConf, ...], ...]


def usable(ranges: Sets, slot: int = 0) -> list[str]:
    pool = inline_pool("net", ranges)
    return [
        str(address_of(key))
        for segment in span_of(pool.sets, slot).segments
        for key in range(segment.first, segment.last + 1)
    ]


def alone(subnet: str, start: str = "", end: str = "", gateway: str = "") -> Sets:
    return ((RangeConf(subnet=subnet, range_start=start, range_end=end, gateway=gateway),),)


SAME_AS_HOST_LOCAL = [
    alone("10.1.2.0/30"),
    alone("10.1.2.0/29"),
    alone("fd00::/126"),
    alone("fd00::/124", start="fd00::e"),
    alone("10.1.2.0/28", start="10.1.2.4", end="10.1.2.6"),
    alone("10.1.2.0/28", start="10.1.2.4", end="10.1.2.6", gateway="10.1.2.5"),
    alone("10.1.2.0/28", start="10.1.2.12", gateway="10.1.3.1"),
    ((RangeConf(subnet="10.1.2.0/29"), RangeConf(subnet="10.1.1.0/29")),),
]


def host_local(ranges: Sets, directory: Path) -> list[str]:
    """Every address the reference gives, one container after the other."""
    objects = [
        [
            {
                key: value
                for key, value in zip(
                    ("subnet", "rangeStart", "rangeEnd", "gateway"),
                    (each.subnet, each.range_start, each.range_end, each.gateway),
                    strict=True,
                )
                if value
            }
            for each in entries
        ]
        for entries in ranges
    ]
    ipam = {"type": "host-local", "dataDir": str(directory), "ranges": objects}
    stdin = json.dumps({"cniVersion": "1.0.0", "name": "net", "ipam": ipam})
    environment = {"CNI_COMMAND": "ADD", "CNI_NETNS": "/x", "CNI_IFNAME": "eth0", "CNI_PATH": str(HOST_LOCAL.parent)}
    found: list[str] = []
    while True:
        answer = subprocess.run(
            [HOST_LOCAL],
            input=stdin,
            env={**os.environ, **environment, "CNI_CONTAINERID": f"c{len(found)}"},
            capture_output=True,
            text=True,
            check=False,
        )
        if answer.returncode:
            return found
        found.append(json.loads(answer.stdout)["ips"][0]["address"].split("/")[0])


@pytest.mark.skipif(not HOST_LOCAL.exists(), reason="the reference plugins are not installed")
@pytest.mark.parametrize("ranges", SAME_AS_HOST_LOCAL, ids=str)
def test_gives_the_addresses_of_host_local_in_its_order(ranges: Sets, tmp_path: Path) -> None:
    assert usable(ranges) == host_local(ranges, tmp_path)


def test_never_gives_network_or_broadcast_where_host_local_would() -> None:
    assert usable(alone("10.1.2.0/29", start="10.1.2.0")) == [f"10.1.2.{host}" for host in range(2, 7)]
    assert usable(alone("10.1.2.0/29", start="10.1.2.6", end="10.1.2.7")) == ["10.1.2.6"]


def test_the_default_gateway_is_the_first_address_and_its_pool_the_networks_own() -> None:
    pool = inline_pool("net", alone("10.1.2.0/24"))
    assert pool.name == "network/net"
    assert str(pool.sets[0][0].gateway) == "10.1.2.1"
    assert pool.routes == ()


def test_each_set_gives_one_address_also_of_one_family() -> None:
    pool = inline_pool("net", (*alone("10.1.2.0/24"), *alone("10.1.3.0/24"), *alone("fd00::/64")))
    assert len(pool.sets) == 3


def test_the_same_text_is_read_once() -> None:
    assert inline_pool("a", alone("10.9.2.0/24")).sets is inline_pool("b", alone("10.9.2.0/24")).sets


REFUSED: dict[str, tuple[Callable[[], Sets], str]] = {
    "host bits": (lambda: alone("10.1.2.5/24"), r"ranges\[0\]\[0\]\.subnet: '10\.1\.2\.5/24' has host bits set"),
    "a /31": (lambda: alone("192.168.0.0/31"), r"Network 192\.168\.0\.0/31 too small to allocate from"),
    "a /32": (lambda: alone("192.168.0.0/32"), r"too small to allocate from"),
    "a /128": (lambda: alone("fd00::1/128"), r"too small to allocate from"),
    "nonsense": (lambda: alone("ten"), r"no CIDR"),
    "start outside": (lambda: alone("10.1.2.0/24", start="10.1.3.1"), r"rangeStart: '10\.1\.3\.1' is outside subnet"),
    "end outside": (lambda: alone("10.1.2.0/24", end="10.1.3.1"), r"rangeEnd: '10\.1\.3\.1' is outside subnet"),
    "end before start": (lambda: alone("10.1.2.0/24", start="10.1.2.9", end="10.1.2.8"), r"ends below its start"),
    "start of another family": (lambda: alone("10.1.2.0/24", start="fd00::1"), r"outside subnet"),
    "gateway of another family": (lambda: alone("10.1.2.0/24", gateway="fd00::1"), r"another family"),
    "the network as gateway": (lambda: alone("10.1.2.0/24", gateway="10.1.2.0"), r"network or broadcast"),
    "only the gateway": (lambda: alone("10.1.2.0/24", start="10.1.2.1", end="10.1.2.1"), r"no usable address"),
    "mixed families": (
        lambda: ((RangeConf(subnet="10.1.2.0/24"), RangeConf(subnet="fd00::/64")),),
        r"ranges\[0\]: '10\.1\.2\.0/24, fd00::/64' mixes address families",
    ),
    "an empty set": (lambda: ((),), r"is empty"),
    "overlap in a set": (
        lambda: ((RangeConf(subnet="10.1.2.0/24"), RangeConf(subnet="10.1.2.0/25")),),
        r"'10\.1\.2\.1-10\.1\.2\.126' is in ipam: ranges\[0\]\[",
    ),
    "overlap of sets": (
        lambda: (*alone("10.1.2.0/24"), *alone("10.1.2.0/24")),
        r"ranges\[1\]\[0\].* is in ipam: ranges\[0\]\[0\] too",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_as_a_mistake_of_the_configuration(case: str) -> None:
    build, words = REFUSED[case]
    with pytest.raises(InvalidConfigError, match=words):
        inline_pool("net", build())
