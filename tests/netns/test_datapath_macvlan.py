"""macvlan on the real kernel: the pod on the segment, the node reaching it by its own link, nobody else confused."""

import threading
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

import pytest

from cni_underlay.datapath.port import Wiring
from cni_underlay.errors import InvalidConfigError
from cni_underlay.records import DatapathKind, Route

from . import values
from .segment import Machine, Node, Segment, together
from .traffic import Listen

FAST = 200.0
MACVLAN = DatapathKind.MACVLAN


@pytest.fixture
def host_link(node: Node) -> str:
    """The name of the node's own link on its eth0."""
    return f"undh{node.json('link', 'show', 'dev', 'eth0')[0]['ifindex']}"


def neighbour(machine: Machine, address: str) -> str | None:
    """The MAC by which the machine knows an address."""
    found = [entry for entry in machine.json("neigh", "show") if entry["dst"] == address and "lladdr" in entry]
    return found[0]["lladdr"] if found else None


def test_a_machine_and_a_pod_reach_each_other_at_once(segment: Segment, node: Node, vm: Machine) -> None:
    pod = segment.pod()
    node.datapath.create(values.wiring(20, kind=MACVLAN), pod.descriptor)
    assert vm.ping("10.9.0.20") < FAST
    assert vm.ping("2001:db8:9::14") < FAST
    assert pod.ping("10.9.0.9") < FAST
    assert pod.ping("2001:db8:9::9") < FAST


def test_the_node_and_its_pod_reach_each_other_at_once(segment: Segment, node: Node) -> None:
    pod = segment.pod()
    node.datapath.create(values.wiring(20, kind=MACVLAN), pod.descriptor)
    assert pod.ping(node.address4) < FAST
    assert pod.ping(node.address6) < FAST
    assert node.ping("10.9.0.20") < FAST
    assert node.ping("2001:db8:9::14") < FAST


def test_pods_of_one_and_of_two_nodes_reach_each_other(segment: Segment, node: Node) -> None:
    other = segment.node(3)
    first, second, third = segment.pod(), segment.pod(), segment.pod()
    node.datapath.create(values.wiring(20, kind=MACVLAN), first.descriptor)
    node.datapath.create(values.wiring(21, kind=MACVLAN), second.descriptor)
    other.datapath.create(values.wiring(22, kind=MACVLAN), third.descriptor)
    assert first.ping("10.9.0.21") < FAST
    assert first.ping("10.9.0.22") < FAST
    assert third.ping("2001:db8:9::14") < FAST
    assert first.ping("10.9.0.3") < FAST


def test_the_answer_is_what_the_kernel_has(segment: Segment, node: Node) -> None:
    segment.vm(1)
    pod = segment.pod()
    routes = (Route(dst=ip_network("0.0.0.0/0")), Route(dst=ip_network("::/0")))
    wired = node.datapath.create(values.wiring(20, kind=MACVLAN, routes=routes), pod.descriptor)
    (own,) = wired.links
    assert (own.name, own.mac, own.mtu, own.sandboxed) == ("eth0", pod.mac(), 1500, True)
    assert [endpoint.interface for endpoint in wired.addresses] == [
        ip_interface("10.9.0.20/24"),
        ip_interface("2001:db8:9::14/64"),
    ]
    assert [route.gw for route in wired.routes] == [ip_address("10.9.0.1"), ip_address("2001:db8:9::1")]
    assert "default via 10.9.0.1 dev eth0" in pod.ip("route")
    assert "default via 2001:db8:9::1 dev eth0" in pod.ip("-6", "route")
    assert pod.ping("10.9.0.1") < FAST
    assert pod.ping("2001:db8:9::1") < FAST


def test_no_route_is_added_that_was_not_asked_for(segment: Segment, node: Node) -> None:
    pod = segment.pod()
    assert node.datapath.create(values.wiring(20, kind=MACVLAN), pod.descriptor).routes == ()
    assert "default" not in pod.ip("route")


@pytest.mark.parametrize("rp_filter", ["0", "2"])
def test_a_machine_outside_hears_the_nodes_address_from_one_mac_only(
    segment: Segment, node: Node, vm: Machine, host_link: str, listen: Listen, rp_filter: str
) -> None:
    """Also where reverse path filtering is loose: systemd's rules make it so on every new interface."""
    node.sysctl("ipv4/conf/all/rp_filter", rp_filter)
    pod = segment.pod()
    node.datapath.create(values.wiring(20, kind=MACVLAN), pod.descriptor)
    seen = listen(vm, "eth0", "arp")
    vm.ping(node.address4)
    vm.ip("neigh", "flush", "dev", "eth0")
    vm.ping(node.address4)
    seen("Reply", count=2)
    node.ping("10.9.0.20")
    replies = {line.split(" is-at ")[1].split(",")[0] for line in seen.lines if " is-at " in line}
    assert replies == {node.mac()}
    assert node.mac(host_link) != node.mac()


def test_a_machine_outside_does_not_learn_another_mac_from_the_nodes_questions_for_its_pods(
    segment: Segment, node: Node, vm: Machine, host_link: str, listen: Listen
) -> None:
    """The trap: an ARP request that the node's link broadcasts would tell everybody its MAC for the node's address."""
    pod = segment.pod()
    node.datapath.create(values.wiring(20, kind=MACVLAN), pod.descriptor)
    vm.sysctl("ipv4/neigh/eth0/locktime", "0")  # an entry younger than this (a second) is not overwritten
    vm.ping(node.address4)
    assert neighbour(vm, node.address4) == node.mac()
    seen = listen(vm, "eth0", "arp")
    node.ip("neigh", "flush", "dev", host_link)
    node.ping("10.9.0.20")
    seen("who-has 10.9.0.20")
    assert neighbour(vm, node.address4) == node.mac()
    assert vm.ping(node.address4) < FAST


def test_a_pod_reaches_the_node_by_the_nodes_own_link(segment: Segment, node: Node, host_link: str) -> None:
    pod = segment.pod()
    node.datapath.create(values.wiring(20, kind=MACVLAN), pod.descriptor)
    pod.ping(node.address4)
    pod.ping(node.address6)
    hop = node.json("addr", "show", "dev", host_link)[0]["addr_info"]
    link_local = next(address["local"] for address in hop if address["family"] == "inet6")
    assert neighbour(pod, link_local) == node.mac(host_link)
    assert neighbour(pod, node.address4) is None


@pytest.mark.parametrize("versions", [(4,), (4, 6)])
@pytest.mark.parametrize(("setting", "value"), [("arp_ignore", "1"), ("rp_filter", "1"), ("rp_filter", "2")])
def test_node_and_pod_reach_each_other_under_strict_settings(
    segment: Segment, node: Node, setting: str, value: str, versions: tuple[int, ...]
) -> None:
    """arp_ignore=1 is what kube-proxy's strict ARP sets: the node's own link has none of the node's addresses."""
    for name in ("all", "default", "eth0"):
        node.sysctl(f"ipv4/conf/{name}/{setting}", value)
    pod = segment.pod()
    node.datapath.create(values.wiring(20, kind=MACVLAN, versions=versions), pod.descriptor)
    assert pod.ping(node.address4) < FAST
    assert node.ping("10.9.0.20") < FAST


@pytest.mark.parametrize("versions", [(4,), (4, 6)])
def test_a_node_of_another_subnet_reaches_its_pod_and_back(
    segment: Segment, node: Node, versions: tuple[int, ...]
) -> None:
    node.ip("addr", "del", "10.9.0.2/24", "dev", "eth0")
    node.ip("addr", "add", "172.30.0.2/24", "dev", "eth0")
    pod = segment.pod()
    node.datapath.create(values.wiring(20, kind=MACVLAN, versions=versions), pod.descriptor)
    assert node.ping("10.9.0.20") < FAST
    assert pod.ping("172.30.0.2") < FAST


def test_an_ipv4_pod_without_ipv6_reaches_its_node_by_arp(segment: Segment, node: Node) -> None:
    pod = segment.pod()
    for name in ("all", "default"):
        pod.sysctl(f"ipv6/conf/{name}/disable_ipv6", "1")
    node.datapath.create(values.wiring(20, kind=MACVLAN, versions=(4,)), pod.descriptor)
    assert pod.ping(node.address4) < FAST
    assert node.ping("10.9.0.20") < FAST


def test_a_pod_takes_no_address_from_router_advertisements(segment: Segment, node: Node) -> None:
    pod = segment.pod()
    node.datapath.create(values.wiring(20, kind=MACVLAN), pod.descriptor)
    assert pod.sysctl("ipv6/conf/eth0/accept_ra") == "0"


def test_there_is_one_link_of_the_nodes_for_all_pods_of_a_master(segment: Segment, node: Node, host_link: str) -> None:
    pods = [segment.pod() for _ in range(8)]
    together(lambda i: node.datapath.create(values.wiring(100 + i, kind=MACVLAN), pods[i].descriptor), range(8))
    assert [link["ifname"] for link in node.json("link", "show", "type", "macvlan")] == [host_link]
    assert node.json("link", "show", "dev", host_link)[0]["ifalias"] == "cni-underlay:host:eth0"
    assert all(node.hears(f"10.9.0.{100 + i}") for i in range(8))


def test_an_unfinished_link_of_the_nodes_is_completed(segment: Segment, node: Node, host_link: str) -> None:
    node.ip("link", "add", host_link, "link", "eth0", "type", "macvlan", "mode", "bridge")
    pod = segment.pod()
    node.datapath.create(values.wiring(20, kind=MACVLAN), pod.descriptor)
    assert node.ping("10.9.0.20") < FAST
    assert pod.ping(node.address6) < FAST


def test_the_nodes_link_goes_with_its_last_user_and_comes_back(segment: Segment, node: Node, host_link: str) -> None:
    first, second = segment.pod(), segment.pod()
    before = node.dump()
    wiring = values.wiring(20, kind=MACVLAN)
    node.datapath.create(wiring, first.descriptor)
    node.datapath.delete(values.lease(wiring), first.descriptor)
    node.datapath.retire("eth0", lambda: False)
    assert host_link in node.ip("link")
    node.datapath.retire("eth0", lambda: True)
    assert node.dump() == before
    node.datapath.retire("eth0", lambda: True)
    node.datapath.create(wiring, second.descriptor)
    assert node.ping("10.9.0.20") < FAST


def test_a_retirement_under_way_and_an_add_end_with_a_working_link(segment: Segment, node: Node) -> None:
    """The ledger's answer is asked for under the lock: an ADD that comes during the removal makes the link anew."""
    for round_number in range(5):
        pod = segment.pod()
        wiring = values.wiring(20 + round_number, kind=MACVLAN)
        leases: list[Wiring] = []
        asked = threading.Event()

        def unused(leases: list[Wiring] = leases, asked: threading.Event = asked) -> bool:
            asked.set()
            return not leases

        retiring = threading.Thread(target=node.datapath.retire, args=("eth0", unused))
        retiring.start()
        asked.wait(0.2)
        leases.append(wiring)
        node.datapath.create(wiring, pod.descriptor)
        retiring.join()
        assert node.ping(f"10.9.0.{20 + round_number}") < FAST


@pytest.mark.parametrize("mode", ["private", "vepa"])
def test_modes_that_keep_the_node_out_still_reach_machines(
    segment: Segment, node: Node, vm: Machine, mode: str
) -> None:
    pod = segment.pod()
    node.datapath.create(values.wiring(20, kind=MACVLAN, mode=mode), pod.descriptor)
    assert vm.ping("10.9.0.20") < FAST
    assert pod.ping("2001:db8:9::9") < FAST
    assert "undh" not in node.ip("link")


def test_a_passthru_pod_has_the_master_to_itself(segment: Segment, node: Node) -> None:
    first, second = segment.pod(), segment.pod()
    wired = node.datapath.create(values.wiring(20, kind=MACVLAN, mode="passthru"), first.descriptor)
    assert wired.links[-1].mac == first.mac() == node.mac()
    before = node.dump(), second.dump()
    with pytest.raises(InvalidConfigError, match="passthru"):
        node.datapath.create(values.wiring(21, kind=MACVLAN, mode="passthru"), second.descriptor)
    assert (node.dump(), second.dump()) == before


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mtu": 9000}, "9000 is larger than 1500"),
        ({"mtu": 1000}, "IPv6 needs at least 1280"),
        ({"mode": "bridged"}, "knows private, vepa, bridge, passthru"),
        ({"mac": "01:00:5e:00:00:01"}, "group address"),
        ({"mac": "00:00:00:00:00:00"}, "all zero"),
        ({"mac": "02:00:00:00:01"}, "six octets"),
        ({"mac": "eth0"}, "not a MAC"),
        ({"mode": "passthru", "mac": "02:00:00:00:00:01"}, "master's MAC"),
    ],
)
def test_what_cannot_work_is_refused_and_touches_nothing(
    segment: Segment, node: Node, changes: dict[str, Any], words: str
) -> None:
    pod = segment.pod()
    before = pod.dump(), node.dump()
    with pytest.raises(InvalidConfigError, match=words):
        node.datapath.create(values.wiring(20, kind=MACVLAN, **changes), pod.descriptor)
    assert (pod.dump(), node.dump()) == before


def test_a_master_that_is_itself_a_macvlan_carries_pods(segment: Segment, node: Node, vm: Machine) -> None:
    node.ip("link", "add", "mv0", "link", "eth0", "type", "macvlan", "mode", "bridge")
    node.ip("link", "set", "mv0", "up")
    pod = segment.pod()
    node.datapath.create(values.wiring(20, kind=MACVLAN, master="mv0"), pod.descriptor)
    assert vm.ping("10.9.0.20") < FAST
    assert node.ping("10.9.0.20") < FAST
