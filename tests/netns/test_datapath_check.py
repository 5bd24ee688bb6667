"""CHECK and the reading back of an attachment, clause by clause (SPEC section 8)."""

from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

import pytest

from cni_underlay.datapath.port import Wired
from cni_underlay.errors import CheckFailedError
from cni_underlay.records import DatapathKind, Route

from . import values
from .segment import Node, Segment

MACVLAN, VETH = DatapathKind.MACVLAN, DatapathKind.VETH
BOTH = pytest.mark.parametrize("kind", [VETH, MACVLAN])


class Attached:
    """A pod with a default route, and what CHECK would be told."""

    def __init__(self, segment: Segment, node: Node, kind: DatapathKind) -> None:
        self.node, self.pod = node, segment.pod()
        routes = tuple(Route(dst=ip_network(text)) for text in ("0.0.0.0/0", "::/0", "10.50.0.0/16"))
        self.wiring = values.wiring(20, kind=kind, routes=routes)
        self.wired = node.datapath.create(self.wiring, self.pod.descriptor)
        self.expected = values.expected(self.wired)

    @property
    def host_link(self) -> str:
        if self.wiring.kind is VETH:
            return self.wiring.host_ifname
        return f"undh{self.node.json('link', 'show', 'dev', 'eth0')[0]['ifindex']}"

    def check(self, **changes: Any) -> None:  # fields of Expected
        self.node.datapath.check(self.wiring, self.pod.descriptor, replace(self.expected, **changes))

    def fails(self, words: str, **changes: Any) -> None:  # likewise
        with pytest.raises(CheckFailedError, match=words):
            self.check(**changes)

    def read(self) -> Wired | None:
        return self.node.datapath.wired(self.wiring, self.pod.descriptor)


@pytest.fixture
def attached(segment: Segment, node: Node, kind: DatapathKind) -> Attached:
    return Attached(segment, node, kind)


@BOTH
def test_it_passes_right_after_add_and_again_and_changes_nothing(attached: Attached) -> None:
    before = attached.pod.dump(), attached.node.dump()
    attached.check()
    attached.check()
    assert attached.read() == attached.wired
    assert (attached.pod.dump(), attached.node.dump()) == before


@BOTH
def test_a_missing_interface_fails(attached: Attached) -> None:
    attached.pod.ip("link", "del", "eth0")
    attached.fails("no interface eth0")
    assert attached.read() is None


@BOTH
def test_a_renamed_interface_fails(attached: Attached) -> None:
    attached.pod.ip("link", "set", "eth0", "down")
    attached.pod.ip("link", "set", "eth0", "name", "eth9")
    attached.fails("no interface eth0")


@BOTH
def test_an_interface_of_another_kind_in_its_place_fails(attached: Attached) -> None:
    attached.pod.ip("link", "del", "eth0")
    attached.pod.ip("link", "add", "eth0", "type", "bridge")
    attached.fails("of kind bridge instead of")
    assert attached.read() is None


@BOTH
def test_another_interface_of_the_same_kind_in_its_place_fails(attached: Attached) -> None:
    attached.pod.ip("link", "set", "eth0", "alias", "somebody else's")
    attached.fails("not the interface that ADD made")
    assert attached.read() is None


@BOTH
def test_an_interface_that_is_down_fails(attached: Attached) -> None:
    attached.pod.ip("link", "set", "eth0", "down")
    attached.fails("eth0 is down")
    assert attached.read() is None


@BOTH
def test_another_mac_fails_unless_a_later_plugin_set_it(attached: Attached) -> None:
    attached.pod.ip("link", "set", "eth0", "address", "02:00:00:00:be:ef")
    attached.fails("has MAC 02:00:00:00:be:ef instead of")
    attached.check(mac="02:00:00:00:BE:EF")
    attached.check(mac="")
    assert attached.read().links[-1].mac == "02:00:00:00:be:ef"


@BOTH
def test_another_mtu_fails_unless_a_later_plugin_set_it(attached: Attached) -> None:
    attached.pod.ip("link", "set", "eth0", "mtu", "1400")
    attached.fails("has MTU 1400 instead of 1500")
    attached.check(mtu=1400)
    attached.check(mtu=0)


@BOTH
@pytest.mark.parametrize("place", [0, 1])
def test_a_missing_address_fails(attached: Attached, place: int) -> None:
    interface = attached.wired.addresses[place].interface
    attached.pod.ip("addr", "del", str(interface), "dev", "eth0")
    attached.fails(f"lacks the address {interface}")
    assert attached.read() is None


@BOTH
def test_another_prefix_length_fails(attached: Attached) -> None:
    interface = attached.wired.addresses[0].interface
    attached.pod.ip("addr", "del", str(interface), "dev", "eth0")
    attached.pod.ip("addr", "add", f"{interface.ip}/25", "dev", "eth0")
    attached.fails(f"lacks the address {interface}")


@BOTH
def test_a_missing_route_fails(attached: Attached) -> None:
    attached.pod.ip("route", "del", "10.50.0.0/16")
    attached.fails(r"the route to 10\.50\.0\.0/16 is missing")
    assert attached.read() is None


@BOTH
def test_a_route_by_another_gateway_fails(attached: Attached) -> None:
    attached.pod.ip("route", "replace", "10.50.0.0/16", "via", "10.9.0.77", "dev", "eth0", "onlink")
    attached.fails(r"goes by 10\.9\.0\.77 instead of")
    assert attached.read() is None


@BOTH
def test_a_default_route_by_another_interface_fails(attached: Attached) -> None:
    attached.pod.ip("link", "add", "other0", "type", "veth", "peer", "name", "other1")
    attached.pod.ip("link", "set", "other0", "up")
    gateway = str(attached.wired.routes[0].gw)
    attached.pod.ip("route", "del", "default")
    attached.pod.ip("route", "add", "default", "via", gateway, "dev", "other0", "onlink")
    attached.fails(r"0\.0\.0\.0/0 leaves by another interface")


@BOTH
def test_a_route_without_gateway_passes_by_the_addresses_gateway_only(attached: Attached) -> None:
    bare = tuple(replace(route, gw=None) for route in attached.expected.routes)
    attached.check(routes=bare)
    attached.fails("goes by", routes=bare, gateways=(ip_address("10.9.0.99"),))


@BOTH
def test_a_metric_counts_only_where_it_was_told(attached: Attached) -> None:
    gateway = str(attached.wired.routes[0].gw)
    attached.pod.ip("route", "del", "10.50.0.0/16")
    attached.pod.ip("route", "add", "10.50.0.0/16", "via", gateway, "dev", "eth0", "metric", "50", "onlink")
    attached.check()
    told = tuple(replace(route, priority=51) for route in attached.expected.routes)
    attached.fails(r"10\.50\.0\.0/16 is missing", routes=told)


@BOTH
def test_what_others_added_passes(attached: Attached) -> None:
    pod = attached.pod
    pod.ip("link", "add", "other0", "type", "veth", "peer", "name", "other1")
    pod.ip("addr", "add", "192.0.2.1/24", "dev", "other0")
    pod.ip("link", "set", "other0", "up")
    pod.ip("addr", "add", "10.9.0.200/32", "dev", "eth0")
    pod.ip("route", "add", "10.99.0.0/16", "via", "192.0.2.2")
    foreign = Route(dst=ip_network("10.99.0.0/16"), gw=ip_address("192.0.2.2"))
    attached.check()
    attached.check(routes=(*attached.expected.routes, foreign))
    assert attached.read() == attached.wired


@BOTH
def test_an_address_that_prevresult_adds_must_be_there(attached: Attached) -> None:
    more = (*attached.expected.addresses, ip_interface("10.9.0.222/32"))
    attached.fails("lacks the address 10.9.0.222/32", addresses=more)


@BOTH
def test_the_nodes_missing_or_downed_link_fails(attached: Attached) -> None:
    attached.node.ip("link", "set", attached.host_link, "down")
    attached.fails(f"the node's interface {attached.host_link} is down")
    assert attached.read() is None
    if attached.wiring.kind is MACVLAN:
        attached.node.ip("link", "del", attached.host_link)
        attached.fails(f"the node's interface {attached.host_link} is missing")


@BOTH
@pytest.mark.parametrize("target", ["10.9.0.20", "2001:db8:9::14"])
def test_the_nodes_missing_route_fails(attached: Attached, target: str) -> None:
    attached.node.ip("route", "del", target, "dev", attached.host_link)
    attached.fails(f"the node's route to {target} by {attached.host_link} is missing")
    assert attached.read() is None


@pytest.mark.parametrize("kind", [VETH])
@pytest.mark.parametrize("target", ["10.9.0.20", "2001:db8:9::14"])
def test_a_missing_answer_on_the_segment_fails(attached: Attached, target: str) -> None:
    attached.node.ip("neigh", "del", "proxy", target, "dev", "eth0")
    attached.fails(f"nobody answers for {target} on eth0")
    assert attached.read() is None


@BOTH
def test_a_master_that_is_down_or_gone_fails(attached: Attached) -> None:
    attached.node.ip("link", "set", "eth0", "down")
    attached.fails("master 'eth0' is down")
    attached.node.ip("link", "del", "eth0")
    attached.fails("master 'eth0' is missing")
    assert attached.read() is None


@BOTH
def test_everything_that_differs_is_told_at_once(attached: Attached) -> None:
    attached.pod.ip("route", "del", "10.50.0.0/16")
    attached.pod.ip("link", "set", "eth0", "mtu", "1400")
    attached.fails(r"MTU 1400.*; .*10\.50\.0\.0/16 is missing")


@BOTH
def test_it_fails_after_del(attached: Attached) -> None:
    attached.node.datapath.delete(values.lease(attached.wiring), attached.pod.descriptor)
    attached.fails("no interface eth0")


@BOTH
def test_a_metric_chosen_for_a_second_interface_is_told_again(segment: Segment, node: Node, kind: DatapathKind) -> None:
    pod = segment.pod()
    routes = (Route(dst=ip_network("0.0.0.0/0")), Route(dst=ip_network("::/0")))
    node.datapath.create(values.wiring(20, kind=kind, routes=routes), pod.descriptor)
    second = values.wiring(21, kind=kind, routes=routes, ifname="eth1")
    wired = node.datapath.create(second, pod.descriptor)
    assert [route.priority is not None for route in wired.routes] == [True, True]
    assert node.datapath.wired(second, pod.descriptor) == wired
    node.datapath.check(second, pod.descriptor, values.expected(wired))
