"""Announcements on the segment: what is said, when, and when no more."""

import time

import pytest

from cni_underlay.records import DatapathKind

from . import values
from .segment import Machine, Node, Segment, until
from .traffic import Listen, Seen

MACVLAN, VETH = DatapathKind.MACVLAN, DatapathKind.VETH
BOTH = pytest.mark.parametrize("kind", [VETH, MACVLAN])
ANNOUNCED = "arp or icmp6"


def times(lines: list[str]) -> list[float]:
    return [float(line.split()[0]) for line in lines]


def arps(seen: Seen) -> list[str]:
    return seen.matching("who-has 10.9.0.20 tell 10.9.0.20,")


def advertisements(seen: Seen) -> list[str]:
    return seen.matching("tgt is 2001:db8:9::14")


@BOTH
def test_both_families_are_announced_at_once_after_one_and_after_three_seconds(
    segment: Segment, node: Node, vm: Machine, listen: Listen, kind: DatapathKind
) -> None:
    pod = segment.pod()
    seen = listen(vm, "eth0", ANNOUNCED)
    start = time.time()
    node.datapath.create(values.wiring(20, kind=kind), pod.descriptor)
    until(lambda: len(advertisements(seen)) >= 3, 6.0)
    mac = pod.mac() if kind is MACVLAN else node.mac()
    assert all(mac in line for line in arps(seen) + advertisements(seen))
    said = [round(at - start) for at in times(advertisements(seen))]
    assert said == [0, 1, 3]
    # A macvlan pod's kernel announces its IPv4 address by itself when the interface comes up.
    heard = [round(at - start) for at in times(arps(seen))]
    assert heard == ([0, 0, 1, 3] if kind is MACVLAN else [0, 1, 3])


@BOTH
def test_a_machine_that_knew_an_earlier_owner_learns_the_new_mac_at_once(
    segment: Segment, node: Node, vm: Machine, kind: DatapathKind
) -> None:
    vm.sysctl("ipv4/neigh/eth0/locktime", "0")
    vm.ip("neigh", "add", "10.9.0.20", "lladdr", "02:de:ad:00:00:01", "dev", "eth0", "nud", "stale")
    vm.ip("neigh", "add", "2001:db8:9::14", "lladdr", "02:de:ad:00:00:01", "dev", "eth0", "nud", "stale")
    pod = segment.pod()
    node.datapath.create(values.wiring(20, kind=kind), pod.descriptor)
    mac = pod.mac() if kind is MACVLAN else node.mac()
    until(lambda: vm.ip("neigh").count(mac) == 2)


def test_the_node_and_its_other_pods_learn_a_macvlan_pods_new_mac(segment: Segment, node: Node) -> None:
    """The kernel of the pod tells them: what leaves by the master reaches nobody on the same master."""
    first, second, third = segment.pod(), segment.pod(), segment.pod()
    wiring = values.wiring(20, kind=MACVLAN, mac="02:00:00:00:00:01")
    node.datapath.create(wiring, first.descriptor)
    node.datapath.create(values.wiring(21, kind=MACVLAN), third.descriptor)
    third.ping("10.9.0.20")
    node.ping("10.9.0.20")
    third.sysctl("ipv4/neigh/eth0/locktime", "0")
    node.datapath.delete(values.lease(wiring), first.descriptor)
    node.datapath.create(values.wiring(20, kind=MACVLAN, mac="02:00:00:00:00:02"), second.descriptor)
    assert third.ping("10.9.0.20") < 200
    assert node.ping("10.9.0.20") < 200


@BOTH
def test_nothing_is_said_of_a_removed_pod(
    segment: Segment, node: Node, vm: Machine, listen: Listen, kind: DatapathKind
) -> None:
    pod, other = segment.pod(), segment.pod()
    seen = listen(vm, "eth0", ANNOUNCED)
    wiring = values.wiring(20, kind=kind)
    node.datapath.create(wiring, pod.descriptor)
    node.datapath.delete(values.lease(wiring), pod.descriptor)
    ended = time.time()
    node.datapath.create(values.wiring(21, kind=kind), other.descriptor)
    until(lambda: len(seen.matching("tgt is 2001:db8:9::15")) >= 3, 6.0)
    assert [at for at in times(arps(seen) + advertisements(seen)) if at > ended + 0.05] == []


@BOTH
def test_it_survives_a_master_that_vanishes_and_ends_at_once_when_closed(
    segment: Segment, node: Node, kind: DatapathKind
) -> None:
    segment.plug(node, 102, "eth1")
    node.datapath.create(values.wiring(20, kind=kind, master="eth1"), segment.pod().descriptor)
    node.ip("link", "del", "eth1")
    announcer = node.datapath._shared.announcer
    until(lambda: not announcer._standing, 6.0)
    assert announcer._thread.is_alive()
    assert not announcer._due
    start = time.monotonic()
    announcer.close()
    assert time.monotonic() - start < 0.5
    assert not announcer._thread.is_alive()


def test_a_pods_namespace_is_not_kept_alive(segment: Segment, node: Node) -> None:
    """A namespace ends with its last user, and then its veth goes: also while announcements are still due."""
    pod = segment.pod()
    wiring = values.wiring(20)
    node.datapath.create(wiring, pod.descriptor)
    segment.forget(pod)
    until(lambda: wiring.host_ifname not in node.ip("link"), 2.0)
