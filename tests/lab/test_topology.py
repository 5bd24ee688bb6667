"""The topology file: what it becomes, and how it is refused."""

from ipaddress import ip_address, ip_interface
from pathlib import Path

import pytest

from cni_underlay.lab.errors import TopologyError
from cni_underlay.lab.topology import Topology, VmKind
from cni_underlay.lab.topology_file import from_mapping, load, parse

DEMO = Path(__file__).resolve().parents[2] / "conf/lab/demo.yaml"


def small(**changes: object) -> dict[str, object]:
    """A topology with one of each, and changes on its top level."""
    return {
        "segments": {"s1": {"subnets": ["10.1.0.0/24", "fd00:1::/64"], "gateways": ["10.1.0.1"]}},
        "nodes": {"n": {"segment": "s1", "addresses": ["10.1.0.2"]}},
        "vms": {"v": {"segment": "s1", "addresses": ["10.1.0.3", "fd00:1::3"]}},
        "routers": {"r": {"interfaces": {"s1": ["10.1.0.1"]}}},
        **changes,
    }


def vm(**fields: object) -> dict[str, object]:
    return small(vms={"v": {"segment": "s1", "addresses": ["10.1.0.3"], **fields}})


@pytest.fixture(scope="module")
def demo() -> Topology:
    return load(DEMO)


def test_the_demo_is_what_the_issue_asks_for(demo: Topology) -> None:
    assert [node.name for node in demo.nodes] == ["a", "b"]
    assert [(v.name, v.kind) for v in demo.vms] == [
        ("db", VmKind.NAMESPACE),
        ("legacy", VmKind.QEMU),
        ("far", VmKind.NAMESPACE),
    ]
    assert [uplink.segment.name for uplink in demo.routers[0].uplinks] == ["vlan7", "vlan8"]


def test_an_address_takes_the_prefix_of_its_subnet(demo: Topology) -> None:
    assert demo.nodes[0].addresses == (ip_interface("10.7.0.11/24"), ip_interface("fd00:7::11/64"))


def test_a_host_takes_its_gateways_from_the_segment(demo: Topology) -> None:
    assert demo.vms[2].gateways == (ip_address("10.8.0.1"), ip_address("fd00:8::1"))


def test_a_host_may_have_no_gateway_at_all() -> None:
    assert from_mapping(vm(gateways=[])).vms[0].gateways == ()


def test_a_host_gets_no_gateway_of_a_family_it_has_no_address_in() -> None:
    segments = {"s1": {"subnets": ["10.1.0.0/24", "fd00:1::/64"], "gateways": ["10.1.0.1", "fd00:1::1"]}}
    assert from_mapping({**vm(), "segments": segments}).vms[0].gateways == (ip_address("10.1.0.1"),)


def test_a_node_has_an_agent_unless_the_topology_says_otherwise() -> None:
    with_agent = from_mapping(small()).nodes[0]
    without = from_mapping(small(nodes={"n": {"segment": "s1", "addresses": ["10.1.0.2"], "agent": False}})).nodes[0]
    assert (with_agent.agent, without.agent) == ({}, None)


def test_the_text_is_kept_and_means_the_same(demo: Topology) -> None:
    assert parse(demo.text) == demo


WRONG = {
    "an unknown key on top": (small(vlans={}), "top level: Object contains unknown field `vlans`"),
    "an unknown key of a VM": (vm(adresses=[]), "vms.v: Object contains unknown field `adresses`"),
    "a missing key": (small(vms={"v": {"segment": "s1"}}), "vms.v: Object missing required field `addresses`"),
    "a wrong type": (vm(addresses="10.1.0.3"), "vms.v.addresses: Expected `array`, got `str`"),
    "a wrong type in a list": (vm(addresses=[3]), "vms.v.addresses[0]: Expected `str`, got `int`"),
    "an unknown kind": (vm(kind="xen"), "vms.v.kind: Invalid enum value 'xen'"),
    "a guest without memory": (vm(memory=16), "vms.v.memory: Expected `int` >= 192"),
    "an unknown segment": (vm(segment="s2"), "vms.v.segment: no segment 's2'; there is s1"),
    "an address outside": (
        vm(addresses=["10.2.0.3"]),
        "vms.v.addresses[0]: 10.2.0.3 is outside the subnets of segment s1 (10.1.0.0/24, fd00:1::/64)",
    ),
    "an address that is none": (vm(addresses=["10.1.0.300"]), "vms.v.addresses[0]: '10.1.0.300' does not appear"),
    "an address with a prefix": (vm(addresses=["10.1.0.3/24"]), "vms.v.addresses[0]: '10.1.0.3/24' does not appear"),
    "the broadcast address": (vm(addresses=["10.1.0.255"]), "vms.v.addresses[0]: 10.1.0.255 is the network's or"),
    "no address": (vm(addresses=[]), "vms.v.addresses: there is none"),
    "an address used twice": (
        vm(addresses=["10.1.0.2"]),
        "vms.v.addresses[0]: 10.1.0.2 is used by nodes.n.addresses[0]",
    ),
    "a name used twice": (
        small(vms={"n": {"segment": "s1", "addresses": ["10.1.0.3"]}}),
        "vms.n: the name is used by nodes.n already",
    ),
    "a name too long": (small(vms={"a-name-too-long": {}}), "vms: 'a-name-too-long' is not a usable name"),
    "a name with a dot": (small(segments={"s.1": {}}), "segments: 's.1' is not a usable name"),
    "a lab's name with a slash": (small(name="../x"), "name: '../x' is not a usable name"),
    "a gateway outside": (vm(gateways=["10.2.0.1"]), "vms.v.gateways[0]: 10.2.0.1 is outside 10.1.0.0/24"),
    "two gateways of a family": (vm(gateways=["10.1.0.1", "10.1.0.9"]), "vms.v.gateways[1]: a second IPv4 gateway"),
    "no segment": (small(segments={}), "segments: there is none"),
    "a subnet with host bits": (
        small(segments={"s1": {"subnets": ["10.1.0.1/24"]}}),
        "segments.s1.subnets[0]: 10.1.0.1/24 has host bits set",
    ),
    "overlapping subnets": (
        small(segments={"s1": {"subnets": ["10.1.0.0/24"]}, "s2": {"subnets": ["10.0.0.0/8"]}}),
        "segments.s2.subnets[0]: 10.0.0.0/8 overlaps 10.1.0.0/24 of s1",
    ),
    "an MTU without IPv6": (
        small(segments={"s1": {"subnets": ["10.1.0.0/24"], "mtu": 500}}),
        "segments.s1.mtu: Expected",
    ),
    "an agent key of the lab's own": (
        small(nodes={"n": {"segment": "s1", "addresses": ["10.1.0.2"], "agent": {"socket": "/x"}}}),
        "nodes.n.agent.socket: is generated by the lab",
    ),
    "a router's unknown segment": (
        small(routers={"r": {"interfaces": {"s9": ["10.1.0.1"]}}}),
        "routers.r.interfaces.s9: no segment 's9'",
    ),
    "a router without interfaces": (small(routers={"r": {"interfaces": {}}}), "routers.r.interfaces: there is none"),
}


@pytest.mark.parametrize(("topology", "message"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_topology_is_refused_with_file_and_key(topology: dict[str, object], message: str) -> None:
    with pytest.raises(TopologyError) as refused:
        from_mapping(topology)
    assert str(refused.value).startswith(f"topology: {message}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "not YAML"),
        ("- a\n", "top level: Expected `object`, got `array`"),
        ("", "top level: Expected `object`, got `null`"),
        ("segments: {s1: {subnets: [10.1.0.0/24]}, s1: {subnets: [10.2.0.0/24]}}", "not YAML: key 's1' is there twice"),
        ("segments: {7: {subnets: [10.1.0.0/24]}}", "segments: Expected `str`, got `int`"),
    ],
)
def test_a_text_of_another_shape_is_refused(text: str, message: str) -> None:
    with pytest.raises(TopologyError) as refused:
        parse(text, "x.yaml")
    assert str(refused.value).startswith(f"x.yaml: {message}")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(TopologyError, match=r"none\.yaml: cannot be read: .*No such file"):
        load(tmp_path / "none.yaml")


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_bytes(b"\xff\xfe\0")
    with pytest.raises(TopologyError, match=r"x\.yaml: cannot be read"):
        load(tmp_path / "x.yaml")
