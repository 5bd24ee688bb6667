"""veth and macvlan pods on one master of one node: both orders, both directions, both families."""

import pytest

from cni_underlay.records import DatapathKind

from . import values
from .segment import Machine, Node, Segment

FAST = 200.0
MACVLAN, VETH = DatapathKind.MACVLAN, DatapathKind.VETH


@pytest.mark.parametrize("kinds", [(VETH, MACVLAN), (MACVLAN, VETH)])
def test_pods_of_both_kinds_reach_each_other_in_whatever_order_they_came(
    segment: Segment, node: Node, kinds: tuple[DatapathKind, DatapathKind]
) -> None:
    first, second = segment.pod(), segment.pod()
    node.datapath.create(values.wiring(20, kind=kinds[0]), first.descriptor)
    node.datapath.create(values.wiring(21, kind=kinds[1]), second.descriptor)
    assert first.ping("10.9.0.21") < FAST
    assert second.ping("10.9.0.20") < FAST
    assert first.ping("2001:db8:9::15") < FAST
    assert second.ping("2001:db8:9::14") < FAST


def test_a_machine_reaches_both(segment: Segment, node: Node, vm: Machine) -> None:
    first, second = segment.pod(), segment.pod()
    node.datapath.create(values.wiring(20, kind=MACVLAN), first.descriptor)
    node.datapath.create(values.wiring(21, kind=VETH), second.descriptor)
    for address in ("10.9.0.20", "10.9.0.21", "2001:db8:9::14", "2001:db8:9::15"):
        assert vm.ping(address) < FAST


def test_a_pod_of_one_kind_reaches_one_of_the_other_kind_on_another_node(segment: Segment, node: Node) -> None:
    other = segment.node(3)
    first, second = segment.pod(), segment.pod()
    node.datapath.create(values.wiring(20, kind=MACVLAN), first.descriptor)
    other.datapath.create(values.wiring(21, kind=VETH), second.descriptor)
    assert first.ping("10.9.0.21") < FAST
    assert second.ping("2001:db8:9::14") < FAST


def test_a_removed_veth_pod_is_answered_for_nowhere(segment: Segment, node: Node) -> None:
    first, second = segment.pod(), segment.pod()
    node.datapath.create(values.wiring(20, kind=MACVLAN), first.descriptor)
    before = node.dump()
    wiring = values.wiring(21, kind=VETH)
    node.datapath.create(wiring, second.descriptor)
    assert "10.9.0.21" in node.ip("neigh", "show", "proxy")
    node.datapath.delete(values.lease(wiring), second.descriptor)
    assert node.dump() == before


def test_a_second_interface_of_another_kind_leaves_the_first_working(segment: Segment, node: Node, vm: Machine) -> None:
    pod = segment.pod()
    node.datapath.create(values.wiring(20, kind=VETH), pod.descriptor)
    node.datapath.create(values.wiring(21, kind=MACVLAN, ifname="net1"), pod.descriptor)
    assert vm.ping("10.9.0.20") < FAST
    assert vm.ping("10.9.0.21") < FAST
