"""ipvlan on a kernel that has it: the master's MAC for all, and in l3 and l3s no layer 2 at all."""

from ipaddress import ip_address, ip_network

import pytest

from cni_underlay.datapath.port import Wiring
from cni_underlay.errors import InvalidConfigError
from cni_underlay.records import DatapathKind, Route

from . import values
from .segment import Machine, Node, Segment
from .traffic import Listen

pytestmark = pytest.mark.kind("ipvlan")

FAST = 300.0
IPVLAN, MACVLAN, VETH = DatapathKind.IPVLAN, DatapathKind.MACVLAN, DatapathKind.VETH
MODES = pytest.mark.parametrize("mode", ["l2", "l3", "l3s"])
ANSWERED = pytest.mark.parametrize("mode", ["l2", "l3s"])  # in l3 nobody can answer ARP for the pod
DEFAULTS = (Route(dst=ip_network("0.0.0.0/0")), Route(dst=ip_network("::/0")))


def ipvlan(number: int, mode: str, ifname: str = "eth0") -> Wiring:
    return values.wiring(number, kind=IPVLAN, mode=mode, routes=DEFAULTS, ifname=ifname)


@ANSWERED
def test_a_machine_and_a_pod_reach_each_other_at_once(segment: Segment, node: Node, vm: Machine, mode: str) -> None:
    pod = segment.pod()
    node.datapath.create(ipvlan(20, mode), pod.descriptor)
    assert vm.ping("10.9.0.20") < FAST
    assert vm.ping("2001:db8:9::14") < FAST
    assert pod.ping("10.9.0.9") < FAST
    assert pod.ping("2001:db8:9::9") < FAST


def test_in_l3_a_machine_needs_a_route_by_the_node(segment: Segment, node: Node, vm: Machine) -> None:
    pod = segment.pod()
    node.datapath.create(ipvlan(20, "l3"), pod.descriptor)
    assert not vm.hears("10.9.0.20")
    vm.ip("route", "add", "10.9.0.20/32", "via", node.address4)
    vm.ip("route", "add", "2001:db8:9::14/128", "via", node.address6)
    assert vm.ping("10.9.0.20") < FAST
    assert vm.ping("2001:db8:9::14") < FAST
    assert pod.ping("10.9.0.9") < FAST


@MODES
def test_the_node_and_its_pod_reach_each_other_at_once(segment: Segment, node: Node, mode: str) -> None:
    pod = segment.pod()
    node.datapath.create(ipvlan(20, mode), pod.descriptor)
    assert node.ping("10.9.0.20") < FAST
    assert node.ping("2001:db8:9::14") < FAST
    assert pod.ping(node.address4) < FAST
    assert pod.ping(node.address6) < FAST


@MODES
def test_node_and_pod_reach_each_other_under_strict_settings(segment: Segment, node: Node, mode: str) -> None:
    for name in ("all", "default", "eth0"):
        node.sysctl(f"ipv4/conf/{name}/rp_filter", "1")
        node.sysctl(f"ipv4/conf/{name}/arp_ignore", "1")
    pod = segment.pod()
    node.datapath.create(ipvlan(20, mode), pod.descriptor)
    assert pod.ping(node.address4) < FAST
    assert node.ping("10.9.0.20") < FAST


@ANSWERED
def test_pods_of_one_and_of_two_nodes_reach_each_other(segment: Segment, node: Node, mode: str) -> None:
    other = segment.node(3)
    first, second, third = segment.pod(), segment.pod(), segment.pod()
    node.datapath.create(ipvlan(20, mode), first.descriptor)
    node.datapath.create(ipvlan(21, mode), second.descriptor)
    other.datapath.create(ipvlan(22, mode), third.descriptor)
    assert first.ping("10.9.0.21") < FAST
    assert first.ping("10.9.0.22") < FAST
    assert third.ping("2001:db8:9::14") < FAST


@pytest.mark.parametrize("kinds", [(VETH, IPVLAN), (IPVLAN, VETH)])
def test_in_l2_a_veth_pod_of_the_same_node_is_reached_both_ways(
    segment: Segment, node: Node, kinds: tuple[DatapathKind, DatapathKind]
) -> None:
    first, second = segment.pod(), segment.pod()
    node.datapath.create(values.wiring(20, kind=kinds[0]), first.descriptor)
    node.datapath.create(values.wiring(21, kind=kinds[1]), second.descriptor)
    assert first.ping("10.9.0.21") < FAST
    assert second.ping("10.9.0.20") < FAST
    assert first.ping("2001:db8:9::15") < FAST
    assert second.ping("2001:db8:9::14") < FAST


@MODES
def test_the_answer_is_what_the_kernel_has(segment: Segment, node: Node, mode: str) -> None:
    pod, wiring = segment.pod(), ipvlan(20, mode)
    wired = node.datapath.create(wiring, pod.descriptor)
    (own,) = wired.links
    assert (own.mac, own.mtu) == (node.mac(), 1500) == (pod.mac(), 1500)
    gateways = [ip_address("10.9.0.1"), ip_address("2001:db8:9::1")] if mode == "l2" else [None, None]
    assert [endpoint.gateway for endpoint in wired.addresses] == gateways
    assert [route.gw for route in wired.routes] == gateways
    assert node.datapath.wired(wiring, pod.descriptor) == wired
    node.datapath.check(wiring, pod.descriptor, values.expected(wired))


@MODES
def test_nothing_is_left_after_del_with_and_without_the_namespace(segment: Segment, node: Node, mode: str) -> None:
    pod, other, wiring = segment.pod(), segment.pod(), ipvlan(20, mode)
    node.datapath.create(ipvlan(30, mode), other.descriptor)
    before = pod.dump(), node.dump()
    node.datapath.create(wiring, pod.descriptor)
    node.datapath.delete(values.lease(wiring), pod.descriptor)
    assert (pod.dump(), node.dump()) == before
    node.datapath.create(wiring, pod.descriptor)
    node.datapath.delete(values.lease(wiring), None)
    assert node.dump() == before[1]
    node.datapath.delete_unknown(wiring.attachment, pod.descriptor)
    assert (pod.dump(), node.dump()) == before


def test_a_machine_outside_hears_the_nodes_address_from_one_mac_only(
    segment: Segment, node: Node, vm: Machine, listen: Listen
) -> None:
    node.datapath.create(ipvlan(20, "l2"), segment.pod().descriptor)
    seen = listen(vm, "eth0", "arp")
    vm.ping(node.address4)
    seen("Reply")
    node.ping("10.9.0.20")
    assert {line.split(" is-at ")[1].split(",")[0] for line in seen.lines if " is-at " in line} == {node.mac()}


def test_a_mac_is_refused_as_all_have_the_masters(segment: Segment, node: Node) -> None:
    wiring = values.wiring(20, kind=IPVLAN, mac="02:00:00:00:00:01")
    with pytest.raises(InvalidConfigError, match="has its master's MAC"):
        node.datapath.create(wiring, segment.pod().descriptor)


def test_a_second_mode_on_one_master_is_refused_and_the_first_works_on(segment: Segment, node: Node) -> None:
    """The kernel would silently turn all interfaces of the master to the newer mode."""
    first, second = segment.pod(), segment.pod()
    node.datapath.create(ipvlan(20, "l2"), first.descriptor)
    with pytest.raises(InvalidConfigError, match="another mode or kind"):
        node.datapath.create(ipvlan(21, "l3"), second.descriptor)
    assert node.ping("10.9.0.20") < FAST


@pytest.mark.parametrize("kinds", [(MACVLAN, IPVLAN), (IPVLAN, MACVLAN)])
def test_macvlan_and_ipvlan_on_one_master_are_refused_in_words(
    segment: Segment, node: Node, kinds: tuple[DatapathKind, DatapathKind]
) -> None:
    node.datapath.create(values.wiring(20, kind=kinds[0]), segment.pod().descriptor)
    pod = segment.pod()
    before = pod.dump(), node.dump()
    with pytest.raises(InvalidConfigError, match="one of them at a time"):
        node.datapath.create(values.wiring(21, kind=kinds[1]), pod.descriptor)
    assert (pod.dump(), node.dump()) == before


def test_a_master_that_others_use_for_another_kind_is_refused_in_words(segment: Segment, node: Node) -> None:
    node.ip("link", "add", "foreign0", "link", "eth0", "type", "macvlan", "mode", "bridge")
    with pytest.raises(InvalidConfigError, match="cannot carry ipvlan"):
        node.datapath.create(values.wiring(20, kind=IPVLAN), segment.pod().descriptor)


@pytest.mark.parametrize("kinds", [(MACVLAN, IPVLAN), (IPVLAN, MACVLAN)])
def test_a_master_whose_last_pod_of_one_kind_left_takes_another_kind(
    segment: Segment, node: Node, kinds: tuple[DatapathKind, DatapathKind]
) -> None:
    first, second = segment.pod(), segment.pod()
    wiring = values.wiring(20, kind=kinds[0])
    node.datapath.create(wiring, first.descriptor)
    node.datapath.delete(values.lease(wiring), first.descriptor)
    node.datapath.create(values.wiring(21, kind=kinds[1]), second.descriptor)
    assert node.ping("10.9.0.21") < FAST
