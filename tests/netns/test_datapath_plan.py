"""What an interface should become, decided without a kernel; and the requests for kinds this kernel may lack."""

import struct
from dataclasses import replace
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni_underlay.datapath import hardware, host_link, messages
from cni_underlay.datapath.facts import Link
from cni_underlay.datapath.netlink import attributes
from cni_underlay.datapath.plan import PodPlan, node_routes, plan_of
from cni_underlay.errors import InvalidConfigError
from cni_underlay.records import DatapathKind, Route

from . import values

MASTER = Link(
    index=2,
    name="eth0",
    kind="",
    mac=bytes.fromhex("525400aabbcc"),
    mtu=1500,
    alias="",
    up=True,
    carrier=True,
    operstate="up",
    loopback=False,
    parent=0,
    port_of="",
    mode=0,
    unfinished=False,
)
V4_DEFAULT, V6_DEFAULT = Route(dst=ip_network("0.0.0.0/0")), Route(dst=ip_network("::/0"))
HOP = IPv6Address("fe80::875:1")
NODE = (ip_address("10.9.0.2"), ip_address("172.30.0.2"), ip_address("2001:db8:9::2"))


def planned(kind: DatapathKind, **changes: Any) -> PodPlan:
    return plan_of(values.wiring(20, kind=kind, **changes), MASTER)


def targets(plan: PodPlan) -> list[tuple[str, str]]:
    return [(str(route.dst), str(route.gw)) for route in plan.routes]


@pytest.mark.parametrize(
    ("routes", "versions", "installed"),
    [
        ((), (4,), [("0.0.0.0/0", "169.254.1.1")]),
        ((), (4, 6), [("0.0.0.0/0", "169.254.1.1"), ("::/0", "fe80::1")]),
        ((V4_DEFAULT,), (4,), [("0.0.0.0/0", "169.254.1.1")]),
        ((V4_DEFAULT,), (4, 6), [("0.0.0.0/0", "169.254.1.1"), ("2001:db8:9::/64", "fe80::1")]),
        (
            (Route(dst=ip_network("10.0.0.0/8"), gw=ip_address("10.9.0.254")),),
            (4,),
            [("10.0.0.0/8", "169.254.1.1"), ("10.9.0.0/24", "169.254.1.1")],
        ),
        ((Route(dst=ip_network("10.9.0.0/24")),), (4,), [("10.9.0.0/24", "169.254.1.1")]),
    ],
)
def test_a_veth_pods_routes_all_go_by_the_node(
    routes: tuple[Route, ...], versions: tuple[int, ...], installed: list[tuple[str, str]]
) -> None:
    assert targets(planned(DatapathKind.VETH, routes=routes, versions=versions)) == installed


def test_a_macvlan_pods_routes_go_by_their_own_gateway_or_the_addresses() -> None:
    other = Route(dst=ip_network("10.60.0.0/16"), gw=ip_address("10.9.0.254"))
    plan = planned(DatapathKind.MACVLAN, routes=(V4_DEFAULT, other, V6_DEFAULT))
    assert targets(plan) == [
        ("0.0.0.0/0", "10.9.0.1"),
        ("10.60.0.0/16", "10.9.0.254"),
        ("::/0", "2001:db8:9::1"),
    ]


def test_without_a_gateway_a_macvlan_pods_route_stays_on_the_link() -> None:
    wiring = values.wiring(20, kind=DatapathKind.MACVLAN, versions=(4,), routes=(V4_DEFAULT,))
    bare = replace(wiring, addresses=tuple(replace(address, gateway=None) for address in wiring.addresses))
    plan = plan_of(bare, MASTER)
    assert targets(plan) == [("0.0.0.0/0", "None")]
    request = messages.new_route(7, plan.routes[0])
    assert messages.ROUTE_HEADER.unpack_from(request.payload)[6] == messages.SCOPE_LINK


@pytest.mark.parametrize(("mode", "gateway"), [("l2", "10.9.0.1"), ("l3", "None"), ("l3s", "None")])
def test_an_ipvlan_pod_has_a_gateway_only_where_it_has_layer_2(mode: str, gateway: str) -> None:
    plan = planned(DatapathKind.IPVLAN, mode=mode, versions=(4,), routes=(V4_DEFAULT,))
    assert targets(plan) == [("0.0.0.0/0", gateway)]
    assert str(plan.endpoints[0].gateway) == gateway
    assert plan.mac == b""


@pytest.mark.parametrize(
    ("kind", "mode", "proxied", "on_segment"),
    [
        (DatapathKind.VETH, "", True, False),
        (DatapathKind.MACVLAN, "bridge", False, True),
        (DatapathKind.IPVLAN, "l2", False, True),
        (DatapathKind.IPVLAN, "l3", False, False),
        (DatapathKind.IPVLAN, "l3s", True, False),
    ],
)
def test_who_answers_for_the_pod_on_the_segment(kind: DatapathKind, mode: str, proxied: bool, on_segment: bool) -> None:
    plan = planned(kind, mode=mode)
    assert (plan.proxied, plan.on_segment) == (proxied, on_segment)


@pytest.mark.parametrize("versions", [(4,), (4, 6)])
def test_a_pod_reaches_its_node_by_the_nodes_own_link_in_each_family_it_has(versions: tuple[int, ...]) -> None:
    routes = node_routes(planned(DatapathKind.MACVLAN, versions=versions), NODE, HOP)
    assert [str(route.dst) for route in routes] == [
        "10.9.0.2/32",
        "172.30.0.2/32",
        *(["2001:db8:9::2/128"] if 6 in versions else []),
    ]
    assert {route.gw for route in routes} == {HOP}


def test_without_ipv6_a_pod_finds_its_node_by_arp() -> None:
    routes = node_routes(planned(DatapathKind.MACVLAN, versions=(4,)), NODE, None)
    assert [(str(route.dst), route.gw) for route in routes] == [("172.30.0.2/32", None)]


def test_a_pod_without_layer_2_reaches_its_node_without_a_hop() -> None:
    routes = node_routes(planned(DatapathKind.IPVLAN, mode="l3"), NODE, HOP)
    assert {route.gw for route in routes} == {None}


def test_an_ipv4_route_by_an_ipv6_hop_is_packed_as_the_kernel_wants_it() -> None:
    request = messages.new_route(7, Route(dst=ip_network("10.9.0.2/32"), gw=HOP))
    found = attributes(request.payload, 12)
    assert messages.RTA_GATEWAY not in found
    assert found[messages.RTA_VIA] == struct.pack("=H", messages.AF_INET6) + HOP.packed


def test_a_table_above_255_is_told_by_attribute() -> None:
    request = messages.new_route(7, Route(dst=ip_network("10.9.0.0/24"), table=8500))
    assert messages.ROUTE_HEADER.unpack_from(request.payload)[4] == 0
    assert attributes(request.payload, 12)[messages.RTA_TABLE] == struct.pack("=I", 8500)


@pytest.mark.parametrize(
    ("kind", "mode", "served"),
    [
        (DatapathKind.MACVLAN, "bridge", True),
        (DatapathKind.MACVLAN, "private", False),
        (DatapathKind.MACVLAN, "vepa", False),
        (DatapathKind.MACVLAN, "passthru", False),
        (DatapathKind.IPVLAN, "l2", True),
        (DatapathKind.IPVLAN, "l3", True),
        (DatapathKind.IPVLAN, "l3s", True),
    ],
)
def test_the_node_has_a_link_of_its_own_where_it_can_reach_pods_by_it(
    kind: DatapathKind, mode: str, served: bool
) -> None:
    assert host_link.serves(planned(kind, mode=mode)) is served


@pytest.mark.parametrize(
    ("kind", "changes", "words"),
    [
        (DatapathKind.MACVLAN, {"mtu": 1501}, "mtu 1501 is larger than 1500"),
        (DatapathKind.IPVLAN, {"mtu": 1501}, "mtu 1501 is larger than 1500"),
        (DatapathKind.VETH, {"mtu": 1279}, "IPv6 needs at least 1280"),
        (DatapathKind.VETH, {"mtu": 67, "versions": (4,)}, "IPv4 needs at least 68"),
        (DatapathKind.IPVLAN, {"mode": "l4"}, "knows l2, l3, l3s"),
        (DatapathKind.IPVLAN, {"mac": "02:00:00:00:00:01"}, "has its master's MAC"),
        (DatapathKind.VETH, {"mac": "03:00:00:00:00:01"}, "group address"),
        (DatapathKind.VETH, {"mac": "2:0:0:0:0:1"}, "not a MAC address"),
        (DatapathKind.VETH, {"ifname": "default"}, "meaning of its own"),
        (DatapathKind.VETH, {"versions": (4,), "routes": (V6_DEFAULT,)}, "no IPv6 address"),
    ],
)
def test_what_cannot_work_is_refused_in_words(kind: DatapathKind, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidConfigError, match=words):
        planned(kind, **changes)


def test_the_masters_own_mac_may_be_asked_for_with_ipvlan() -> None:
    assert planned(DatapathKind.IPVLAN, mac="52:54:00:AA:BB:CC").mac == b""


@given(st.ip_addresses(), st.ip_addresses())
def test_different_addresses_have_different_unicast_macs(first: Any, second: Any) -> None:
    macs = hardware.mac_of_address(first), hardware.mac_of_address(second)
    assert (macs[0] == macs[1]) == (first == second)
    assert all(len(mac) == 6 and mac[0] & 3 == 2 for mac in macs)


def test_the_link_local_address_is_what_the_kernel_would_make() -> None:
    assert str(hardware.link_local_of_mac(bytes.fromhex("525400aabbcc"))) == "fe80::5054:ff:feaa:bbcc/64"


@given(st.binary(min_size=6, max_size=6).filter(lambda mac: any(mac) and not mac[0] & 1))
def test_a_mac_is_read_as_it_is_written(mac: bytes) -> None:
    assert hardware.mac_bytes(hardware.mac_text(mac)) == mac
    assert hardware.mac_bytes(mac.hex("-").upper()) == mac
