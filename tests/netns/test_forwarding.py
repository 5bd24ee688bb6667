"""The node's settings: written where they differ, nowhere else, and again when somebody resets them."""

import pytest

from cni_underlay.datapath import forwarding
from cni_underlay.records import DatapathKind

from . import values
from .segment import Machine, Node, Segment

NEEDED = {
    "ipv4/ip_forward": "1",
    "ipv4/conf/eth0/forwarding": "1",
    "ipv4/neigh/eth0/proxy_delay": "0",
    "ipv6/conf/all/forwarding": "1",
    "ipv6/conf/eth0/forwarding": "1",
    "ipv6/conf/eth0/proxy_ndp": "1",
    "ipv6/neigh/eth0/proxy_delay": "0",
}


def settings(machine: Machine) -> dict[str, str]:
    return {name: machine.sysctl(name) for name in NEEDED}


def test_a_veth_pod_gets_what_it_needs(segment: Segment, node: Node) -> None:
    assert settings(node) != NEEDED
    node.datapath.create(values.wiring(20), segment.pod().descriptor)
    assert settings(node) == NEEDED


def test_an_ipv4_pod_leaves_ipv6_as_it_is(segment: Segment, node: Node) -> None:
    before = settings(node)
    node.datapath.create(values.wiring(20, versions=(4,)), segment.pod().descriptor)
    after = settings(node)
    assert {name: value for name, value in after.items() if "ipv6" in name} == {
        name: value for name, value in before.items() if "ipv6" in name
    }


def test_a_macvlan_pod_needs_nothing_of_the_master(segment: Segment, node: Node) -> None:
    before = settings(node)
    node.datapath.create(values.wiring(20, kind=DatapathKind.MACVLAN), segment.pod().descriptor)
    assert settings(node) == before


def test_a_node_that_lives_on_router_advertisements_goes_on_doing_so(segment: Segment, node: Node) -> None:
    """Forwarding turns accept_ra=1 off, and drops the default route that came by it."""
    for number, name in enumerate(("eth1", "eth2", "eth3", "eth4")):
        segment.plug(node, 102 + number, name)
    node.sysctl("ipv6/conf/eth1/accept_ra", "0")
    node.ip("-6", "route", "add", "default", "via", "2001:db8:9::1", "dev", "eth2", "proto", "ra")
    node.ip("addr", "add", "2001:db8:77::2/64", "dev", "eth3", "valid_lft", "600", "preferred_lft", "600", "nodad")
    node.datapath.create(values.wiring(20), segment.pod().descriptor)
    told = {name: node.sysctl(f"ipv6/conf/{name}/accept_ra") for name in ("eth0", "eth1", "eth2", "eth3", "eth4")}
    assert told == {"eth0": "2", "eth1": "0", "eth2": "2", "eth3": "2", "eth4": "1"}


@pytest.mark.parametrize("accept", ["1", "2"])
@pytest.mark.parametrize("versions", [(4,), (4, 6)])
def test_a_pod_cannot_tell_its_node_where_to_route(
    segment: Segment, node: Node, accept: str, versions: tuple[int, ...]
) -> None:
    """By router advertisements on its own wire (CVE-2020-10749)."""
    node.sysctl("ipv6/conf/default/accept_ra", accept)
    wiring = values.wiring(20, versions=versions)
    node.datapath.create(wiring, segment.pod().descriptor)
    settings = f"ipv6/conf/{wiring.host_ifname}"
    accepts, forwards = node.sysctl(f"{settings}/accept_ra"), node.sysctl(f"{settings}/forwarding")
    assert accepts == "0" or (accepts, forwards) == ("1", "1")  # a forwarding interface listens at 2 only


def test_a_node_that_forwards_already_keeps_what_its_admin_set(segment: Segment, node: Node) -> None:
    """Writing ip_forward again would reset accept_redirects of every interface."""
    node.sysctl("ipv4/ip_forward", "1")
    node.sysctl("ipv6/conf/all/forwarding", "1")
    node.sysctl("ipv4/conf/eth0/accept_redirects", "1")
    node.datapath.create(values.wiring(20), segment.pod().descriptor)
    assert node.sysctl("ipv4/conf/eth0/accept_redirects") == "1"
    assert node.sysctl("ipv6/conf/eth0/accept_ra") == "1"


def test_reverse_path_filtering_stays_as_the_system_has_it(segment: Segment, node: Node) -> None:
    node.sysctl("ipv4/conf/default/rp_filter", "2")
    wiring = values.wiring(20)
    node.datapath.create(wiring, segment.pod().descriptor)
    assert node.sysctl(f"ipv4/conf/{wiring.host_ifname}/rp_filter") == "2"
    assert node.sysctl("ipv4/conf/eth0/rp_filter") == "0"


def test_settings_that_somebody_reset_are_set_again(
    segment: Segment, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.datapath.create(values.wiring(20), segment.pod().descriptor)
    node.sysctl("ipv4/ip_forward", "0")
    node.sysctl("ipv6/conf/eth0/proxy_ndp", "0")
    monkeypatch.setattr(forwarding, "_TRUSTED_SECONDS", 0.0)
    node.datapath._shared.forwarding._ready.clear()
    node.datapath.create(values.wiring(21), segment.pod().descriptor)
    assert settings(node) == NEEDED


def test_a_master_that_was_made_anew_is_readied_anew(segment: Segment, node: Node) -> None:
    segment.plug(node, 102, "eth1")
    node.datapath.create(values.wiring(20, master="eth1"), segment.pod().descriptor)
    node.ip("link", "del", "eth1")
    segment.plug(node, 102, "eth1")
    assert node.sysctl("ipv4/neigh/eth1/proxy_delay") != "0"
    node.datapath.create(values.wiring(21, master="eth1"), segment.pod().descriptor)
    assert node.sysctl("ipv4/neigh/eth1/proxy_delay") == "0"
    assert node.sysctl("ipv6/conf/eth1/proxy_ndp") == "1"


def test_a_master_with_a_dot_in_its_name_is_readied(segment: Segment, node: Node) -> None:
    segment.plug(node, 102, "eth0.120")
    node.datapath.create(values.wiring(20, master="eth0.120"), segment.pod().descriptor)
    assert node.sysctl("ipv4/neigh/eth0.120/proxy_delay") == "0"
