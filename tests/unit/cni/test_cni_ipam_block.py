from collections.abc import Callable
from ipaddress import ip_address, ip_network

import pytest

from cni_underlay.cni.ipamconf import DelegateConf, IpamConf, RangeConf
from cni_underlay.cni.netconf import NetConf
from cni_underlay.errors import DecodingError, InvalidConfigError, UnsupportedFieldError
from cni_underlay.records import Route

Conf = Callable[..., NetConf]
Ipam = Callable[..., IpamConf]

V4 = {"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.10", "rangeEnd": "10.1.0.99", "gateway": "10.1.0.1"}
V6 = {"subnet": "fd00::/64"}
RANGE_V4 = RangeConf(subnet="10.1.0.0/24", range_start="10.1.0.10", range_end="10.1.0.99", gateway="10.1.0.1")
RANGE_V6 = RangeConf(subnet="fd00::/64")


@pytest.fixture
def ipam(conf: Conf) -> Ipam:
    """The decoded `ipam` block of our own type with these keys."""
    return lambda block, **changes: conf({"ipam": {"type": "underlay-ipam", **block}, **changes}).ipam


def test_pools_keep_their_order_and_each_counts_once(ipam: Ipam) -> None:
    assert ipam({"pools": ["b", "a", "b"]}).pools == ("b", "a")


def test_ranges_are_sets_of_ranges(ipam: Ipam) -> None:
    assert ipam({"ranges": [[V4, {"subnet": "10.2.0.0/24"}], [V6]]}).ranges == (
        (RANGE_V4, RangeConf(subnet="10.2.0.0/24")),
        (RANGE_V6,),
    )


def test_the_old_subnet_form_is_one_set_of_one_range_ahead_of_the_others(ipam: Ipam) -> None:
    assert ipam(V4).ranges == ((RANGE_V4,),)
    assert ipam({**V4, "ranges": [[V6]]}).ranges == ((RANGE_V4,), (RANGE_V6,))


def test_ranges_of_the_runtime_come_first(ipam: Ipam) -> None:
    runtime = {"ipRanges": [[{"subnet": "10.9.0.0/24"}]]}
    assert [ranges[0].subnet for ranges in ipam({**V4, "ranges": [[V6]]}, runtimeConfig=runtime).ranges] == [
        "10.9.0.0/24",
        "10.1.0.0/24",
        "fd00::/64",
    ]


@pytest.mark.parametrize("key", ["ipRanges", "IPRanges", "ipranges"])
def test_a_flat_list_of_ranges_gives_one_address_of_each_family(ipam: Ipam, key: str) -> None:
    flat = [{"Subnet": "10.1.0.0/24", "RangeStart": "10.1.0.10", "RangeEnd": "10.1.0.99", "Gateway": "10.1.0.1"}, V6]
    found = ipam({}, runtimeConfig={key: [*flat, {"subnet": "10.2.0.0/24"}]})
    assert found.ranges == ((RANGE_V4, RangeConf(subnet="10.2.0.0/24")), (RANGE_V6,))


def test_routes_become_records(ipam: Ipam) -> None:
    routes = [
        {"dst": "0.0.0.0/0"},
        {"dst": "10.9.0.7/16", "gw": "10.1.0.254"},
        {"dst": "fd01::/48", "gw": "fd00::1", "mtu": 1400, "advmss": 1300, "priority": 9, "table": 100, "scope": 0},
        {"dst": "10.8.0.0/16", "mtu": 0, "priority": 0, "gw": ""},
    ]
    assert ipam({**V4, "routes": routes}).routes == (
        Route(dst=ip_network("0.0.0.0/0")),
        Route(dst=ip_network("10.9.0.0/16"), gw=ip_address("10.1.0.254")),
        Route(
            dst=ip_network("fd01::/48"), gw=ip_address("fd00::1"), mtu=1400, advmss=1300, priority=9, table=100, scope=0
        ),
        Route(dst=ip_network("10.8.0.0/16")),
    )


def test_a_configuration_of_host_local_works_under_our_type_name(conf: Conf) -> None:
    block = {
        "type": "underlay-ipam",
        "dataDir": "/run/x",
        "resolvConf": "/etc/resolv.conf",
        "ranges": [[V4]],
        "routes": [],
    }
    found = conf({"ipam": block})
    assert found.ipam == IpamConf(type="underlay-ipam", ranges=((RANGE_V4,),), resolv_conf="/etc/resolv.conf")
    assert found.ignored == ("ipam.dataDir '/run/x' is ignored: the agent keeps its own ledger",)


def test_what_host_local_ignores_is_ignored_and_said(conf: Conf) -> None:
    found = conf({"ipam": {"type": "underlay-ipam", "ranges": [[V4]], "gateway": "10.1.0.1"}})
    assert found.ipam == IpamConf(type="underlay-ipam", ranges=((RANGE_V4,),))
    assert "without ipam.subnet" in found.ignored[0]


@pytest.mark.parametrize(
    ("block", "where", "field", "value"),
    [
        ({"pools": ["a"], "pool": "app"}, "ipam: ", '"pool"', '"app"'),
        ({"subnet": "10.1.0.0/24", "exclude": ["10.1.0.5"]}, "ipam: ", '"exclude"', '["10.1.0.5"]'),
        ({"ranges": [[V4], [{"subnet": "fd00::/64", "step": 2}]]}, "ipam.ranges[1][0]: ", '"step"', "2"),
        ({**V4, "routes": [{"dst": "0.0.0.0/0", "via": "10.1.0.1"}]}, "ipam.routes[0]: ", '"via"', '"10.1.0.1"'),
        ({"pools": ["a"], "x": {"deep": [1, {"y": True}]}}, "ipam: ", '"x"', '{"deep":[1,{"y":true}]}'),
    ],
)
@pytest.mark.parametrize("verb", ["ADD", "CHECK", "STATUS"])
def test_an_unknown_field_of_our_own_block_is_refused_with_key_and_value(
    conf: Conf, verb: str, block: dict[str, object], where: str, field: str, value: str
) -> None:
    with pytest.raises(UnsupportedFieldError) as caught:
        conf({"ipam": {"type": "underlay-ipam", **block}}, verb)
    assert caught.value.code == 2
    assert str(caught.value) == f"{where}unsupported field {field} with value {value}"


@pytest.mark.parametrize("key", ["args", "runtimeConfig", "capabilities", "prevResult", "cniVersions", "cni.dev/hint"])
def test_fields_that_nobody_may_refuse_pass_in_our_block_too(ipam: Ipam, key: str) -> None:
    assert ipam({"pools": ["app"], key: {"x": 1}}).pools == ("app",)


@pytest.mark.parametrize(
    ("block", "words"),
    [
        ({"pools": ["app"], "subnet": "10.1.0.0/24"}, "exclude each other"),
        ({"pools": ["app"], "ranges": [[V4]]}, "exclude each other"),
        ({}, r'ipam: write "pools": \["name"\]'),
        ({"pools": [], "ranges": []}, "ipam: write"),
        ({"ranges": [[]]}, r"ipam.ranges\[0\]: the set of ranges is empty"),
        ({"ranges": [[V4], [{"gateway": "10.1.0.1"}]]}, r"ipam.ranges\[1\]: a range has no subnet"),
        ({"pools": ["../app"]}, "ipam.pools: '../app'"),
        ({"pools": [""]}, "ipam.pools: ''"),
        ({**V4, "routes": [{"gw": "10.1.0.1"}]}, r"ipam.routes\[0\]: '' has no prefix length"),
        ({**V4, "routes": [{"dst": "10.0.0.1"}]}, "has no prefix length"),
        ({**V4, "routes": [{"dst": "10.0.0.0/33"}]}, r"ipam.routes\[0\]"),
        ({**V4, "routes": [{"dst": "0.0.0.0/0", "gw": "fd00::1"}]}, "another family"),
        ({**V4, "routes": [{"dst": "fe80::%1/64"}]}, "is no IP address"),
        ({**V4, "routes": [{"dst": "0.0.0.0/0", "priority": -1}]}, "priority -1 is out of range"),
        ({**V4, "routes": [{"dst": "0.0.0.0/0", "table": 2**32}]}, "table 4294967296 is out of range"),
    ],
)
def test_a_block_that_is_well_formed_and_wrong_is_an_invalid_configuration(
    ipam: Ipam, block: dict[str, object], words: str
) -> None:
    with pytest.raises(InvalidConfigError, match=words):
        ipam(block)


@pytest.mark.parametrize(
    "block",
    [
        {"pools": "app"},
        {"pools": [1]},
        {"ranges": V4},
        {"ranges": [V4]},
        {"ranges": 5},
        {"subnet": 10},
        {"routes": {"dst": "x"}},
        {**V4, "routes": [1]},
        {**V4, "routes": [{"dst": 1}]},
        {**V4, "resolvConf": True},
        {**V4, "routes": [{"dst": "x", "mtu": "1"}]},
    ],
)
def test_wrong_types_in_our_block_cannot_be_decoded(ipam: Ipam, block: dict[str, object]) -> None:
    with pytest.raises(DecodingError, match=r"^ipam: "):
        ipam(block)


@pytest.mark.parametrize("value", [[[]], [[{}]], [{}], [{"gateway": "10.1.0.1"}]])
def test_a_range_of_the_runtime_needs_a_subnet(ipam: Ipam, value: object) -> None:
    with pytest.raises(InvalidConfigError, match=r"^runtimeConfig.ipRanges\[0\]: "):
        ipam(V4, runtimeConfig={"ipRanges": value})


@pytest.mark.parametrize("value", [5, "10.1.0.0/24", [5], [[5]], [[V4], V6], [[{"subnet": 5}]]])
def test_ranges_of_the_runtime_of_a_wrong_type_cannot_be_decoded(ipam: Ipam, value: object) -> None:
    with pytest.raises(DecodingError, match=r"^runtimeConfig"):
        ipam(V4, runtimeConfig={"ipRanges": value})


def test_unknown_fields_in_ranges_of_the_runtime_are_not_our_business(ipam: Ipam) -> None:
    assert ipam({}, runtimeConfig={"ipRanges": [[{**V4, "x": 1}]]}).ranges == ((RANGE_V4,),)


def test_pools_and_ranges_of_the_runtime_exclude_each_other_too(ipam: Ipam) -> None:
    with pytest.raises(InvalidConfigError, match="exclude each other"):
        ipam({"pools": ["app"]}, runtimeConfig={"ipRanges": [[V4]]})


def test_status_accepts_a_block_whose_ranges_only_a_runtime_knows(conf: Conf) -> None:
    assert conf({"ipam": {"type": "underlay-ipam"}}, "STATUS").ipam == IpamConf(type="underlay-ipam")


@pytest.mark.parametrize(
    "block", [{"type": "host-local"}, {"type": "dhcp", "x": 1}, {"Type": "static", "addresses": [{}]}]
)
def test_of_another_plugins_block_only_the_type_counts(conf: Conf, block: dict[str, object]) -> None:
    assert conf({"ipam": block}).ipam == DelegateConf(type=next(iter(block.values())))


@pytest.mark.parametrize("name", ["../../bin/sh", "/bin/sh", "a/b", "..", ".", "a\0b"])
@pytest.mark.parametrize("verb", ["ADD", "DEL", "CHECK", "GC", "STATUS"])
def test_a_type_that_is_a_path_is_refused_for_every_verb(conf: Conf, verb: str, name: str) -> None:
    with pytest.raises(InvalidConfigError, match=r"ipam.type: .* is no plain file name"):
        conf({"ipam": {"type": name}, "cni.dev/valid-attachments": []}, verb)


def test_a_block_without_type_says_what_to_write(conf: Conf) -> None:
    with pytest.raises(InvalidConfigError, match=r'ipam\.type: missing; write "type": "underlay-ipam"'):
        conf({"ipam": {"pools": ["app"]}})
