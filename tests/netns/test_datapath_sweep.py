"""The sweep: what belongs to no lease goes, everything else stays."""

import os
import time
from dataclasses import replace

import pytest

from cni_underlay.datapath import messages, netns
from cni_underlay.datapath.facts import host_route
from cni_underlay.datapath.netlink import number32
from cni_underlay.datapath.port import Wiring
from cni_underlay.lab.guest import IN_GUEST
from cni_underlay.records import DatapathKind

from . import values
from .segment import Node, Segment

MACVLAN, VETH = DatapathKind.MACVLAN, DatapathKind.VETH


@pytest.fixture
def three(segment: Segment, node: Node) -> list[Wiring]:
    """Three attachments: two veth, one macvlan; with the node as it was before them."""
    wirings = [values.wiring(20), values.wiring(21), values.wiring(22, kind=MACVLAN)]
    for wiring in wirings:
        node.datapath.create(wiring, segment.pod().descriptor)
    return wirings


def test_what_leases_stand_for_stays(node: Node, three: list[Wiring]) -> None:
    before = node.dump()
    assert node.datapath.sweep(tuple(values.lease(wiring) for wiring in three)) == ()
    assert node.dump() == before


def test_a_veth_without_lease_goes_with_route_and_answers(node: Node, three: list[Wiring]) -> None:
    removed = node.datapath.sweep((values.lease(three[0]), values.lease(three[2])))
    assert f"interface {three[1].host_ifname}" in removed
    assert "proxy neighbour 10.9.0.21" in removed
    assert "proxy neighbour 2001:db8:9::15" in removed
    left = node.dump()
    assert "10.9.0.21" not in left
    assert "2001:db8:9::15" not in left
    assert node.hears("10.9.0.20")
    assert node.hears("10.9.0.22")


def test_a_macvlan_without_lease_goes_with_its_route(node: Node, three: list[Wiring]) -> None:
    removed = node.datapath.sweep((values.lease(three[0]), values.lease(three[1])))
    assert set(removed) == {"route to 10.9.0.22/32", "route to 2001:db8:9::16/128"}
    assert "10.9.0.22" not in node.dump()
    assert node.hears("10.9.0.20")


def test_the_nodes_own_link_stays_while_a_lease_uses_its_master(
    segment: Segment, node: Node, three: list[Wiring]
) -> None:
    node.datapath.create(values.wiring(23, kind=MACVLAN), segment.pod().descriptor)
    removed = node.datapath.sweep(tuple(values.lease(wiring) for wiring in three))
    assert set(removed) == {"route to 10.9.0.23/32", "route to 2001:db8:9::17/128"}
    assert node.hears("10.9.0.22")


def test_without_any_lease_nothing_of_ours_is_left_and_nothing_of_others_goes(segment: Segment, node: Node) -> None:
    node.ip("link", "add", "other0", "type", "veth", "peer", "name", "other1")
    node.ip("link", "set", "other0", "up", "alias", "somebody else's")
    node.ip("route", "add", "10.77.0.1/32", "dev", "other0")
    node.ip("neigh", "add", "proxy", "10.77.0.2", "dev", "eth0")
    before = node.dump()
    node.datapath.create(values.wiring(20), segment.pod().descriptor)
    node.datapath.create(values.wiring(21, kind=MACVLAN), segment.pod().descriptor)
    node.datapath.sweep(())
    assert node.dump() == before


def test_a_link_that_an_agent_was_killed_over_before_it_could_mark_it_goes(segment: Segment, node: Node) -> None:
    pod = segment.pod()
    before = node.dump(), pod.dump()
    with netns.requests_in(node.descriptor) as requests:
        requests.change(
            messages.new_link(
                9000,
                "eth0",
                number32(messages.IFLA_NET_NS_FD, pod.descriptor),
                messages.kind("veth", messages.veth_peer(9001, "und01234567890")),
            )
        )
    assert node.datapath.sweep(()) == ("unfinished interface und01234567890",)
    assert (node.dump(), pod.dump()) == before


def test_ten_thousand_leases_are_swept_in_half_a_second(node: Node) -> None:
    """All of them with a route and a proxy neighbour on the node, and as many stale ones beside them."""
    kept = [values.wiring(number, versions=(4,)) for number in range(20, 250)]
    leases = [values.lease(wiring) for wiring in kept]
    address = kept[0].addresses[0]
    first = int(address.interface.ip) + (1 << 16)
    many = [type(address.interface.ip)(first + number) for number in range(20_000)]
    more = [
        replace(
            leases[0],
            addresses=(replace(address, interface=type(address.interface)((ip, 24))),),
            claim=replace(leases[0].claim, attachment=replace(leases[0].claim.attachment, container_id=str(ip))),
        )
        for ip in many[:10_000]
    ]
    index = node.json("link", "show", "dev", "eth0")[0]["ifindex"]
    with netns.requests_in(node.descriptor) as requests:
        assert requests.attempt([messages.new_route(index, host_route(ip)) for ip in many]) == []
        assert requests.attempt([messages.new_proxy(index, ip) for ip in many]) == []
    node.datapath.sweep(tuple(more))  # removes the stale half
    start = time.process_time()  # the kernel's share included, others' processes not
    assert node.datapath.sweep(tuple(more)) == ()
    spent = time.process_time() - start
    assert len(node.ip("neigh", "show", "proxy").splitlines()) == 10_000
    assert len(node.ip("route", "show", "proto", "85").splitlines()) == 10_000
    assert spent < (5.0 if IN_GUEST in os.environ else 0.5)  # a guest's processor is emulated
