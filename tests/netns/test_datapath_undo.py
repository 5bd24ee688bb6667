"""A failing ADD leaves nothing, in neither namespace, whatever step it fails at."""

import errno
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from cni_underlay.datapath.netlink import Message, RequestSocket
from cni_underlay.datapath.port import Wiring
from cni_underlay.errors import DatapathError, InvalidConfigError, InvalidNamespaceError, UnderlayError
from cni_underlay.records import DatapathKind, Route

from . import values
from .segment import Machine, Node, Segment

MACVLAN, VETH = DatapathKind.MACVLAN, DatapathKind.VETH
BOTH = pytest.mark.parametrize("kind", [VETH, MACVLAN])


@pytest.fixture
def ready(segment: Segment, node: Node) -> Node:
    """A node that has served a pod of each kind before, so that settings and its own link are as they stay."""
    for number, kind in ((200, VETH), (201, MACVLAN)):
        pod = segment.pod()
        wiring = values.wiring(number, kind=kind)
        node.datapath.create(wiring, pod.descriptor)
        node.datapath.delete(values.lease(wiring), pod.descriptor)
    return node


def refuse(node: Node, pod: Machine, wiring: Wiring, error: type[UnderlayError], words: str) -> UnderlayError:
    """The ADD is refused in these words, and both namespaces are as before."""
    before = pod.dump(), node.dump()
    with pytest.raises(error, match=words) as caught:
        node.datapath.create(wiring, pod.descriptor)
    assert (pod.dump(), node.dump()) == before
    return caught.value


@BOTH
def test_an_interface_of_that_name_in_the_container_stays_untouched(
    segment: Segment, ready: Node, kind: DatapathKind
) -> None:
    pod = segment.pod()
    pod.ip("link", "add", "eth0", "type", "veth", "peer", "name", "other")
    pod.ip("addr", "add", "192.0.2.1/32", "dev", "eth0")
    refuse(ready, pod, values.wiring(20, kind=kind), InvalidConfigError, "has an interface eth0 already")


def test_an_interface_of_the_host_ends_name_stays_untouched(segment: Segment, ready: Node) -> None:
    pod, wiring = segment.pod(), values.wiring(20)
    ready.ip("link", "add", wiring.host_ifname, "type", "veth", "peer", "name", "other")
    error = refuse(ready, pod, wiring, DatapathError, f"the node has an interface {wiring.host_ifname} already")
    assert "EEXIST" in error.details


@BOTH
@pytest.mark.parametrize("version", [4, 6])
def test_an_address_that_the_node_routes_elsewhere_is_refused(
    segment: Segment, ready: Node, kind: DatapathKind, version: int
) -> None:
    pod = segment.pod()
    target = {4: "10.9.0.20/32", 6: "2001:db8:9::14/128"}[version]
    ready.ip("route", "add", target, "dev", "eth0")
    refuse(ready, pod, values.wiring(20, kind=kind), DatapathError, f"has a route to {target} already")


@BOTH
def test_an_address_of_another_attachment_is_refused_and_that_one_works_on(
    segment: Segment, ready: Node, vm: Machine, kind: DatapathKind
) -> None:
    first, second = segment.pod(), segment.pod()
    ready.datapath.create(values.wiring(20, kind=kind), first.descriptor)
    other = replace(values.wiring(20, kind=kind), attachment=values.wiring(21).attachment)
    if kind is VETH:
        other = replace(other, host_ifname="undother")
    refuse(ready, second, other, DatapathError, "another attachment or network has this address")
    assert vm.ping("10.9.0.20") < 1000
    assert ready.ping("2001:db8:9::14") < 1000


def test_a_gateway_outside_the_subnet_is_refused(segment: Segment, ready: Node) -> None:
    routes = (Route(dst=ip_network("0.0.0.0/0"), gw=ip_address("10.77.0.1")),)
    wiring = values.wiring(20, kind=MACVLAN, routes=routes)
    error = refuse(ready, segment.pod(), wiring, InvalidConfigError, "gateway 10.77.0.1 cannot be reached")
    assert "ENETUNREACH" in error.details


@BOTH
def test_a_route_that_the_kernel_refuses_is_named(segment: Segment, ready: Node, kind: DatapathKind) -> None:
    routes = (Route(dst=ip_network("10.50.0.0/16"), scope=255),)
    refuse(ready, segment.pod(), values.wiring(20, kind=kind, routes=routes), UnderlayError, "10.50.0.0/16")


@BOTH
def test_a_route_of_a_family_without_address_is_refused(segment: Segment, ready: Node, kind: DatapathKind) -> None:
    routes = (Route(dst=ip_network("::/0")),)
    wiring = values.wiring(20, kind=kind, versions=(4,), routes=routes)
    refuse(ready, segment.pod(), wiring, InvalidConfigError, "no IPv6 address")


@BOTH
def test_a_missing_master_is_named(segment: Segment, ready: Node, kind: DatapathKind) -> None:
    wiring = values.wiring(20, kind=kind, master="eth7")
    refuse(ready, segment.pod(), wiring, DatapathError, "master 'eth7' is missing")


@BOTH
def test_a_master_that_is_down_is_named(segment: Segment, ready: Node, kind: DatapathKind) -> None:
    ready.ip("link", "set", "eth0", "down")
    refuse(ready, segment.pod(), values.wiring(20, kind=kind), DatapathError, "master 'eth0' is down")


@BOTH
def test_an_mtu_too_small_for_ipv6_is_refused(segment: Segment, ready: Node, kind: DatapathKind) -> None:
    wiring = values.wiring(20, kind=kind, mtu=1279)
    refuse(ready, segment.pod(), wiring, InvalidConfigError, "IPv6 needs at least 1280")


@BOTH
def test_a_master_without_ipv6_carries_no_ipv6_pod(segment: Segment, node: Node, kind: DatapathKind) -> None:
    node.sysctl("ipv6/conf/eth0/disable_ipv6", "1")
    pod = segment.pod()
    if kind is VETH:
        refuse(node, pod, values.wiring(20, kind=kind), DatapathError, "IPv6 is switched off on master 'eth0'")
    else:
        node.datapath.create(values.wiring(20, kind=kind), pod.descriptor)  # the segment needs no IPv6 of the node's


@BOTH
def test_a_descriptor_that_is_no_namespace_is_refused(ready: Node, kind: DatapathKind, tmp_path: Path) -> None:
    before = ready.dump()
    with (tmp_path / "plain").open("w") as file, pytest.raises(InvalidNamespaceError):
        ready.datapath.create(values.wiring(20, kind=kind), file.fileno())
    assert ready.dump() == before


@BOTH
def test_nothing_is_left_at_whatever_exchange_with_the_kernel_an_add_fails(
    segment: Segment, ready: Node, monkeypatch: pytest.MonkeyPatch, kind: DatapathKind
) -> None:
    """Every request of an ADD fails once, for want of buffers; the undoing requests after it go through."""
    routes = (Route(dst=ip_network("0.0.0.0/0")), Route(dst=ip_network("10.50.0.0/16")))
    wiring = values.wiring(20, kind=kind, routes=routes)
    send = RequestSocket._send
    countdown = 0

    def failing(self: RequestSocket, messages: Sequence[Message], last: int) -> int:
        nonlocal countdown
        countdown -= 1
        if countdown == 0:
            raise OSError(errno.ENOBUFS, "no buffers")
        return send(self, messages, last)

    monkeypatch.setattr(RequestSocket, "_send", failing)
    pod = segment.pod()
    before = pod.dump(), ready.dump()
    failed = 0
    told = set()
    for step in range(1, 40):
        countdown = step
        try:
            ready.datapath.create(wiring, pod.descriptor)
        except DatapathError as error:
            failed += 1
            told.add("ENOBUFS" in error.details)
            assert (pod.dump(), ready.dump()) == before
        else:
            break
    assert failed >= 5
    assert told == {True}
    countdown = 0
    assert ready.datapath.wired(wiring, pod.descriptor) is not None


@BOTH
def test_an_add_works_after_a_failed_one(segment: Segment, ready: Node, vm: Machine, kind: DatapathKind) -> None:
    pod = segment.pod()
    ready.ip("route", "add", "10.9.0.20/32", "dev", "eth0")
    wiring = values.wiring(20, kind=kind)
    refuse(ready, pod, wiring, DatapathError, "already")
    ready.ip("route", "del", "10.9.0.20/32", "dev", "eth0")
    ready.datapath.create(wiring, pod.descriptor)
    assert vm.ping("10.9.0.20") < 1000
