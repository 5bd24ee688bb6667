"""The master: finding the default one, and refusing those that carry no pods."""

import pytest

from cni_underlay.errors import DatapathError, InvalidConfigError

from .segment import Node, Segment, execute


def test_the_default_master_is_the_interface_of_the_ipv4_default_route(segment: Segment, node: Node) -> None:
    segment.plug(node, 102, "eth1")
    node.ip("route", "add", "default", "via", "10.9.0.1", "dev", "eth1")
    node.ip("-6", "route", "add", "default", "via", "2001:db8:9::1", "dev", "eth0")
    assert node.datapath.default_master() == "eth1"


def test_of_several_default_routes_the_least_metric_counts(segment: Segment, node: Node) -> None:
    segment.plug(node, 102, "eth1")
    node.ip("route", "add", "default", "via", "10.9.0.1", "dev", "eth0", "metric", "200")
    node.ip("route", "add", "default", "via", "10.9.0.1", "dev", "eth1", "metric", "100")
    assert node.datapath.default_master() == "eth1"


def test_a_multipath_default_route_names_its_first_interface(segment: Segment, node: Node) -> None:
    segment.plug(node, 102, "eth1")
    first = ("nexthop", "via", "10.9.0.1", "dev", "eth1")
    node.ip("route", "add", "default", *first, "nexthop", "via", "10.9.0.1", "dev", "eth0")
    assert node.datapath.default_master() == "eth1"


def test_a_node_with_an_ipv6_default_route_only_has_that_ones(node: Node) -> None:
    node.ip("-6", "route", "add", "default", "via", "2001:db8:9::1", "dev", "eth0")
    assert node.datapath.default_master() == "eth0"


@pytest.mark.parametrize("used", [1, 3])
def test_a_node_that_uses_the_blocks_for_documentation_has_a_default_master_too(
    segment: Segment, node: Node, used: int
) -> None:
    segment.plug(node, 102, "eth1")
    node.ip("-6", "route", "add", "default", "via", "2001:db8:9::1", "dev", "eth0")
    for block in ("203.0.113.0/24", "198.51.100.0/24", "192.0.2.0/24")[:used]:
        node.ip("route", "add", block, "dev", "eth0")
    node.ip("route", "add", "default", "via", "10.9.0.1", "dev", "eth0", "metric", "200")
    node.ip("route", "add", "default", "via", "10.9.0.1", "dev", "eth1", "metric", "100")
    assert node.datapath.default_master() == "eth1"


def test_without_a_default_route_there_is_no_default_master(node: Node) -> None:
    node.ip("route", "add", "blackhole", "default")
    with pytest.raises(InvalidConfigError, match="no default route"):
        node.datapath.default_master()


def test_a_master_that_is_up_with_carrier_is_accepted(node: Node) -> None:
    node.datapath.require_master("eth0")
    assert node.datapath.master_exists("eth0")


def test_a_missing_master_is_named(node: Node) -> None:
    with pytest.raises(DatapathError, match="'eth9' is missing"):
        node.datapath.require_master("eth9")
    assert not node.datapath.master_exists("eth9")


def test_a_name_that_no_interface_can_have_is_missing(node: Node) -> None:
    with pytest.raises(DatapathError, match="is missing"):
        node.datapath.require_master("a-name-longer-than-fifteen")


def test_a_master_that_is_down_comes_back_by_itself(node: Node) -> None:
    node.ip("link", "set", "eth0", "down")
    with pytest.raises(DatapathError, match="'eth0' is down"):
        node.datapath.require_master("eth0")
    node.ip("link", "set", "eth0", "up")
    node.datapath.require_master("eth0")


def test_a_master_without_carrier_is_named(segment: Segment, node: Node) -> None:
    execute("ip", "-n", f"{segment.prefix}seg", "link", "set", "port1", "down")
    with pytest.raises(DatapathError, match="'eth0' has no carrier"):
        node.datapath.require_master("eth0")


def test_a_loopback_interface_leads_nowhere(node: Node) -> None:
    with pytest.raises(DatapathError, match="loopback"):
        node.datapath.require_master("lo")


def test_a_port_of_a_bridge_points_to_its_bridge(node: Node) -> None:
    node.ip("link", "add", "br0", "type", "bridge")
    node.ip("link", "set", "eth0", "master", "br0")
    with pytest.raises(DatapathError, match="port of a bridge"):
        node.datapath.require_master("eth0")
