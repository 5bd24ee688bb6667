import re
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cni_underlay.errors import InvalidConfigError
from cni_underlay.ipam.keys import address_of
from cni_underlay.ipam.pools import parse_duration, pool_from_mapping, pools_from_documents
from cni_underlay.ipam.span import span_of
from cni_underlay.records import Dns, Pool, Route

EXAMPLE = """
pools:
  - name: app
    ranges:
      - subnet: 10.7.0.0/24
        range: 10.7.0.32-10.7.0.250
        gateway: 10.7.0.1
        exclude: [10.7.0.40-10.7.0.49, 10.7.0.64/28, 10.7.0.99]
      - subnet: fd00:7::/64
    dns: {nameservers: [10.7.0.2], search: [example.org], domain: example.org, options: [ndots:2]}
    quarantine: 2m
    floor: 45s
"""


def usable(pool: Pool, slot: int = 0) -> list[str]:
    return [
        str(address_of(key))
        for segment in span_of(pool.sets, slot).segments
        for key in range(segment.first, segment.last + 1)
    ]


def one(**fields: object) -> Pool:
    return pool_from_mapping({"name": "app", **fields})


def ranged(**fields: object) -> Pool:
    return one(ranges=[{"subnet": "10.7.0.0/24", **fields}])


def test_the_documented_example_is_read_whole() -> None:
    pool = pools_from_documents([("agent.yaml", yaml.safe_load(EXAMPLE))])["app"]
    assert [[str(each.subnet) for each in ranges] for ranges in pool.sets] == [["10.7.0.0/24"], ["fd00:7::/64"]]
    assert pool.dns == Dns(
        nameservers=("10.7.0.2",), search=("example.org",), domain="example.org", options=("ndots:2",)
    )
    assert (pool.quarantine, pool.floor) == (120.0, 45.0)
    assert pool.routes == (Route(dst=ip_network("0.0.0.0/0")), Route(dst=ip_network("::/0")))
    given_away = usable(pool)
    assert len(given_away) == 219 - 10 - 16 - 1
    assert not {"10.7.0.40", "10.7.0.49", "10.7.0.64", "10.7.0.79", "10.7.0.99", "10.7.0.1"} & set(given_away)
    assert given_away[0] == "10.7.0.32"
    assert given_away[-1] == "10.7.0.250"


def test_a_small_subnet_gives_neither_network_nor_gateway_nor_broadcast() -> None:
    pool = one(ranges=[{"subnet": "10.1.2.0/29"}])
    assert usable(pool) == [f"10.1.2.{host}" for host in range(2, 7)]


def test_the_last_address_of_an_ipv6_subnet_is_given_and_its_first_is_not() -> None:
    pool = one(ranges=[{"subnet": "fd00::/125"}])
    assert usable(pool) == [f"fd00::{host}" for host in range(2, 8)]


def test_a_range_written_as_the_subnet_itself_loses_its_reserved_addresses() -> None:
    assert usable(ranged(range="10.7.0.0/29")) == [f"10.7.0.{host}" for host in range(2, 8)]
    assert usable(ranged(range="10.7.0.248/29"))[-1] == "10.7.0.254"


def test_a_list_of_ranges_keeps_its_order() -> None:
    pool = ranged(range=["10.7.0.200-10.7.0.201", "10.7.0.9", "10.7.0.32/31"])
    assert usable(pool) == ["10.7.0.200", "10.7.0.201", "10.7.0.9", "10.7.0.32", "10.7.0.33"]


def test_without_a_gateway_its_address_is_given_and_no_route_made() -> None:
    pool = ranged(gateway="none", range="10.7.0.1-10.7.0.2")
    assert usable(pool) == ["10.7.0.1", "10.7.0.2"]
    assert pool.routes == ()
    assert pool.sets[0][0].gateway is None


def test_the_gateway_of_any_range_is_kept_out_of_all() -> None:
    pool = one(
        ranges=[
            {"subnet": "10.7.0.0/24", "range": "10.7.0.10-10.7.0.12", "gateway": "10.7.0.21"},
            {"subnet": "10.7.0.0/24", "range": "10.7.0.20-10.7.0.22", "gateway": "10.7.0.11"},
        ]
    )
    assert usable(pool) == ["10.7.0.10", "10.7.0.12", "10.7.0.20", "10.7.0.22"]


def test_routes_are_taken_as_written() -> None:
    routes = [{"dst": "10.0.0.0/8", "gw": "10.7.0.9", "mtu": 1400, "priority": 10, "table": 100, "scope": 0}]
    (route,) = one(ranges=[{"subnet": "10.7.0.0/24"}], routes=routes).routes
    assert route == Route(
        dst=ip_network("10.0.0.0/8"), gw=ip_address("10.7.0.9"), mtu=1400, priority=10, table=100, scope=0
    )
    assert one(ranges=[{"subnet": "10.7.0.0/24"}], routes=[]).routes == ()


def test_the_agents_own_quarantine_is_the_default() -> None:
    pools = pools_from_documents(
        [("a", {"pools": [{"name": "app", "ranges": [{"subnet": "10.7.0.0/24"}]}]})], quarantine=20.0, floor=5.0
    )
    assert (pools["app"].quarantine, pools["app"].floor) == (20.0, 5.0)


def test_a_short_quarantine_shortens_the_default_floor() -> None:
    pool = one(ranges=[{"subnet": "10.7.0.0/24"}], quarantine=10)
    assert (pool.quarantine, pool.floor) == (10.0, 10.0)


REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "no mapping": (lambda: pool_from_mapping([]), r"not a mapping"),
    "no name": (lambda: pool_from_mapping({"ranges": []}), r"name: None is no name"),
    "a name in capitals": (lambda: pool_from_mapping({"name": "App"}), r"name: 'App' is no name"),
    "a name with a newline": (lambda: pool_from_mapping({"name": "app\n"}), r"is no name"),
    "a name with a slash": (lambda: pool_from_mapping({"name": "network/x"}), r"is no name"),
    "a long name": (lambda: pool_from_mapping({"name": "a" * 64}), r"is no name"),
    "an unknown key": (lambda: one(rangs=[]), r"unknown key 'rangs' with value \[\]; known here are name, ranges"),
    "an unknown key of a range": (lambda: ranged(gatway="x"), r"ranges\[0\]: unknown key 'gatway'"),
    "a key that is no text": (lambda: one(ranges=[{1: 2}]), r"unknown key 1 with value 2"),
    "no ranges": (one, r"pool app: ranges: a pool needs at least one range"),
    "empty ranges": (lambda: one(ranges=[]), r"needs at least one range"),
    "ranges as a mapping": (lambda: one(ranges={}), r"is not a list"),
    "no subnet": (lambda: one(ranges=[{}]), r"ranges\[0\]\.subnet: None"),
    "a subnet as a number": (lambda: one(ranges=[{"subnet": 10}]), r"subnet: 10 is not a text"),
    "host bits in the subnet": (
        lambda: one(ranges=[{"subnet": "10.7.0.9/24"}]),
        r"host bits set; write 10\.7\.0\.0/24",
    ),
    "a /31": (lambda: one(ranges=[{"subnet": "192.168.0.0/31"}]), r"Network 192\.168\.0\.0/31 too small to allocate"),
    "a /127": (lambda: one(ranges=[{"subnet": "fd00::/127"}]), r"too small"),
    "a subnet with a zone": (lambda: one(ranges=[{"subnet": "fe80::%eth0/64"}]), r"no CIDR"),
    "a range outside": (
        lambda: ranged(range="10.8.0.1-10.8.0.9"),
        r"range: '10\.8\.0\.1-10\.8\.0\.9' is outside subnet",
    ),
    "a range of another family": (lambda: ranged(range="fd00::1"), r"outside subnet 10\.7\.0\.0/24"),
    "a range upside down": (lambda: ranged(range="10.7.0.9-10.7.0.3"), r"ends below its start; write 10\.7\.0\.3-"),
    "a range with host bits": (lambda: ranged(range="10.7.0.9/28"), r"host bits set; write 10\.7\.0\.0/28"),
    "a range of nonsense": (lambda: ranged(range="a-b"), r"is no IP address"),
    "a range of three": (lambda: ranged(range="10.7.0.1-10.7.0.2-10.7.0.3"), r"is no IP address"),
    "a gateway outside": (lambda: ranged(gateway="10.8.0.1"), r"gateway: '10\.8\.0\.1' is outside subnet"),
    "the network as gateway": (lambda: ranged(gateway="10.7.0.0"), r"network or broadcast address"),
    "the broadcast as gateway": (lambda: ranged(gateway="10.7.0.255"), r"network or broadcast address"),
    "an empty gateway": (lambda: ranged(gateway=None), r"gateway: None"),
    "an exclude outside": (lambda: ranged(exclude=["10.7.1.0/28"]), r"exclude\[0\]: '10\.7\.1\.0/28' is outside"),
    "an exclude of a number": (lambda: ranged(exclude=[5]), r"exclude\[0\]: 5 is not a text"),
    "overlap in the pool": (lambda: ranged(range=["10.7.0.1-10.7.0.9", "10.7.0.9"]), r"range\[1\].*is in .*range\[0\]"),
    "nothing usable": (lambda: ranged(range="10.7.0.1"), r"no usable address left"),
    "everything excluded": (lambda: ranged(exclude="10.7.0.0/24"), r"no usable address left"),
    "a floor above": (
        lambda: one(ranges=[{"subnet": "10.7.0.0/24"}], quarantine=9, floor="10s"),
        r"floor: '10s' is long",
    ),
    "a quarantine of words": (lambda: one(ranges=[{"subnet": "10.7.0.0/24"}], quarantine="soon"), r"pool app: quarant"),
    "a route without dst": (lambda: one(ranges=[{"subnet": "10.7.0.0/24"}], routes=[{}]), r"routes\[0\]\.dst: None"),
    "a route with host bits": (
        lambda: one(ranges=[{"subnet": "10.7.0.0/24"}], routes=[{"dst": "10.0.0.1/8"}]),
        r"routes\[0\]\.dst: '10\.0\.0\.1/8' has host bits set",
    ),
    "a route of two families": (
        lambda: one(ranges=[{"subnet": "10.7.0.0/24"}], routes=[{"dst": "0.0.0.0/0", "gw": "fd00::1"}]),
        r"another family",
    ),
    "a route with a true mtu": (
        lambda: one(ranges=[{"subnet": "10.7.0.0/24"}], routes=[{"dst": "0.0.0.0/0", "mtu": True}]),
        r"mtu: True is no number",
    ),
    "a nameserver by name": (
        lambda: one(ranges=[{"subnet": "10.7.0.0/24"}], dns={"nameservers": ["dns.example.org"]}),
        r"dns\.nameservers\[0\]: 'dns\.example\.org' is no IP address",
    ),
    "dns as a list": (lambda: one(ranges=[{"subnet": "10.7.0.0/24"}], dns=[]), r"dns: \[\] is not a mapping"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_place_value_and_advice(case: str) -> None:
    build, words = REFUSED[case]
    with pytest.raises(InvalidConfigError, match=words):
        build()


def document(*pools: dict[str, Any]) -> dict[str, Any]:
    return {"pools": list(pools)}


def test_two_pools_of_one_name_are_refused_with_both_files() -> None:
    first = document({"name": "app", "ranges": [{"subnet": "10.7.0.0/24"}]})
    second = document({"name": "app", "ranges": [{"subnet": "10.8.0.0/24"}]})
    with pytest.raises(
        InvalidConfigError, match=r"b\.yaml: pool app: name: 'app' is the name of a\.yaml: pool app too"
    ):
        pools_from_documents([("a.yaml", first), ("b.yaml", second)])


def test_two_pools_with_a_common_address_are_refused_with_the_addresses() -> None:
    one_pool = {"name": "one", "ranges": [{"subnet": "10.7.0.0/24"}]}
    other = {"name": "other", "ranges": [{"subnet": "10.7.0.0/16", "range": "10.7.0.250-10.7.1.9"}]}
    shared = re.escape("'10.7.0.250-10.7.0.254' is in a.yaml: pool one too")
    with pytest.raises(InvalidConfigError, match=f"pool other: {shared}"):
        pools_from_documents([("a.yaml", document(one_pool, other))])


def test_two_pools_may_share_a_subnet() -> None:
    halves = [
        {"name": "one", "ranges": [{"subnet": "10.7.0.0/24", "range": "10.7.0.0/25"}]},
        {"name": "other", "ranges": [{"subnet": "10.7.0.0/24", "range": "10.7.0.128/25"}]},
    ]
    assert list(pools_from_documents([("a.yaml", document(*halves))])) == ["one", "other"]


def test_a_pool_that_would_give_away_anothers_gateway_is_refused() -> None:
    halves = [
        {"name": "one", "ranges": [{"subnet": "10.7.0.0/24", "range": "10.7.0.0/25", "gateway": "10.7.0.200"}]},
        {"name": "other", "ranges": [{"subnet": "10.7.0.0/24", "range": "10.7.0.128/25"}]},
    ]
    with pytest.raises(InvalidConfigError, match=r"pool other: '10\.7\.0\.200' is the gateway of a\.yaml: pool one"):
        pools_from_documents([("a.yaml", document(*halves))])


@pytest.mark.parametrize("wrong", [[], {"pool": []}, {"pools": {}}, {"pools": None}, "pools"])
def test_a_document_of_another_shape_is_refused_with_its_file(wrong: object) -> None:
    with pytest.raises(InvalidConfigError, match=r"^pools\.d/x\.yaml: "):
        pools_from_documents([("pools.d/x.yaml", wrong)])


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("500ms", 0.5), ("30s", 30), ("2m", 120), ("1.5h", 5400), (120, 120), (0.25, 0.25), (0, 0), ("0s", 0)],
)
def test_durations(text: object, seconds: float) -> None:
    assert parse_duration(text, "quarantine") == seconds


@pytest.mark.parametrize(
    "text",
    ["", "s", "-1s", "1 s", "1d", "1s\n", "٣s", True, None, [], -1, float("nan"), float("inf"), 10**400, "99999h"],
)
def test_no_durations(text: object) -> None:
    with pytest.raises(InvalidConfigError, match=r"^agent\.yaml: quarantine: .* is no duration"):
        parse_duration(text, "agent.yaml: quarantine")


_JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["10.7.0.0/24", "10.7.0.9"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["pools", "name", "ranges", "subnet", "range", "gateway", "exclude", "routes", "dns", "dst"]
            )
            | st.text(max_size=3),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(_JUNK)
def test_whatever_yaml_holds_is_a_pool_or_a_clear_refusal(junk: object) -> None:
    try:
        outcome: object = list(pools_from_documents([("f.yaml", {"pools": junk})]).values())
    except InvalidConfigError as refusal:
        outcome = str(refusal)
    if isinstance(outcome, str):
        assert outcome.startswith("f.yaml: ")
    else:
        assert outcome == [] or all(isinstance(pool, Pool) for pool in outcome)  # type: ignore[attr-defined]
