"""What a lab is for: hosts of every kind reach each other, over the segment and across the router."""

from ipaddress import ip_address
from typing import Any

import pytest

from cni_underlay.lab.errors import LabError
from cni_underlay.lab.fixtures import MakeLab
from cni_underlay.lab.guest_vm import GuestVm
from cni_underlay.lab.host import NamespaceHost
from cni_underlay.lab.lab import Lab

TOPOLOGY: dict[str, Any] = {
    "segments": {
        "near": {"subnets": ["10.1.0.0/24", "fd00:1::/64"], "gateways": ["10.1.0.1", "fd00:1::1"]},
        "far": {"subnets": ["10.2.0.0/24", "fd00:2::/64"], "gateways": ["10.2.0.1", "fd00:2::1"], "mtu": 9000},
    },
    "routers": {"r": {"interfaces": {"near": ["10.1.0.1", "fd00:1::1"], "far": ["10.2.0.1", "fd00:2::1"]}}},
    "nodes": {"n": {"segment": "near", "addresses": ["10.1.0.2", "fd00:1::2"], "agent": False}},
    "vms": {
        "v": {"segment": "near", "addresses": ["10.1.0.3", "fd00:1::3"]},
        "g": {"segment": "near", "kind": "qemu", "addresses": ["10.1.0.4", "fd00:1::4"]},
        "w": {"segment": "far", "addresses": ["10.2.0.3", "fd00:2::3"]},
        "x": {"segment": "far", "addresses": ["10.2.0.4"], "http": False, "gateways": []},
    },
}
PATHS = [
    ("v", "n", "over the segment"),
    ("n", "v", "over the segment"),
    ("v", "g", "to the guest"),
    ("g", "v", "from the guest"),
    ("g", "n", "from the guest to a node"),
    ("v", "w", "across the router"),
    ("w", "g", "across the router to the guest"),
    ("g", "w", "across the router from the guest"),
    ("r", "g", "from the router"),
]


@pytest.fixture(scope="module")
def lab(make_shared_lab: MakeLab) -> Lab:
    return make_shared_lab(TOPOLOGY)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(("source", "target"), [path[:2] for path in PATHS], ids=[" ".join(path) for path in PATHS])
def test_a_host_pings_another(lab: Lab, source: str, target: str, version: int) -> None:
    address = next(a for a in lab.host(target).addresses if a.version == version)
    assert lab.host(source).reaches(address)


@pytest.mark.parametrize(
    ("source", "address", "name"),
    [
        ("v", "10.1.0.4", "g"),
        ("v", "fd00:1::4", "g"),
        ("g", "10.1.0.3", "v"),
        ("g", "fd00:1::3", "v"),
        ("g", "10.2.0.3", "w"),
        ("w", "fd00:1::4", "g"),
        ("n", "10.2.0.3", "w"),
    ],
)
def test_a_vm_serves_its_name_over_http(lab: Lab, source: str, address: str, name: str) -> None:
    assert lab.host(source).fetch(address) == f"{name}\n"


def test_a_vm_without_http_serves_nothing(lab: Lab) -> None:
    with pytest.raises(LabError, match="refused"):
        lab.host("r").fetch("10.2.0.4")


def test_a_vm_without_gateway_stays_on_its_segment(lab: Lab) -> None:
    assert lab.vm("x").reaches("10.2.0.3")
    assert not lab.vm("x").reaches("10.1.0.3")


def test_a_node_forwards_and_a_vm_does_not(lab: Lab) -> None:
    assert lab.node("n").output(["sysctl", "-n", "net.ipv4.ip_forward", "net.ipv6.conf.eth0.forwarding"]) == "1\n1\n"
    assert lab.vm("v").output(["sysctl", "-n", "net.ipv4.ip_forward", "net.ipv6.conf.eth0.forwarding"]) == "0\n0\n"


def test_large_frames_pass_where_the_segment_allows_them(lab: Lab) -> None:
    assert lab.vm("w").reaches("10.2.0.1", payload=8972)  # 9000 less the headers of IPv4 and ICMP
    assert "mtu 1500" in lab.vm("v").output(["ip", "link", "show", "eth0"])


def test_two_segments_share_no_broadcasts(lab: Lab) -> None:
    assert lab.in_switch("ip", "-brief", "link", "show", "master", "far").count("@") == 3  # r, w, x
    probe = ["busybox", "arping", "-c", "1", "-w", "1", "-I", "eth0", "10.1.0.3"]
    assert lab.vm("w").run(probe).returncode != 0
    assert lab.node("n").run(probe).returncode == 0


def test_a_cut_link_is_cut_and_can_be_mended(lab: Lab) -> None:
    lab.in_switch("ip", "link", "set", "g.0", "nomaster")
    assert not lab.vm("v").reaches("10.1.0.4")
    lab.in_switch("ip", "link", "set", "g.0", "master", "near")
    lab.vm("v").wait_until_reaches("10.1.0.4")


def test_the_guest_has_debians_kernel(lab: Lab) -> None:
    own = lab.vm("v").output(["uname", "-r"])
    assert lab.vm("g").output(["uname", "-r"]) != own
    assert "Debian" in lab.vm("g").output(["uname", "-v"])
    assert lab.vm("g").output(["hostname"]) == "g\n"


@pytest.mark.parametrize(
    "kind", [("dummy",), ("vlan", "id", "7"), ("macvlan", "mode", "bridge"), ("ipvlan", "mode", "l3"), ("bridge",)]
)
def test_the_guest_makes_links_that_need_a_module(lab: Lab, kind: tuple[str, ...]) -> None:
    parent = ["link", "eth0"] if kind[0] in ("vlan", "macvlan", "ipvlan") else []
    try:
        lab.vm("g").output(["ip", "link", "add", *parent, "name", "test0", "type", *kind])
        assert "test0" in lab.vm("g").output(["ip", "link", "show"])
    finally:
        lab.vm("g").run(["ip", "link", "del", "test0"])


def test_addresses_are_usable_at_once(lab: Lab) -> None:
    for name in ("n", "v", "w"):
        assert "tentative" not in lab.host(name).output(["ip", "-6", "address"])


def test_hosts_are_found_by_what_they_are(lab: Lab) -> None:
    assert lab.vm("v").address == ip_address("10.1.0.3")
    assert isinstance(lab.vm("g"), GuestVm)
    assert isinstance(lab.router("r"), NamespaceHost)
    for find, name, message in (
        (lab.node, "v", "v is no node"),
        (lab.vm, "n", "n is no VM"),
        (lab.router, "v", "v is no router"),
        (lab.vm, "nobody", "has no host 'nobody'; it has r, n, v, g, w, x"),
    ):
        with pytest.raises(LabError, match=message):
            find(name)
