"""SPEC 6: ADD makes an interface with addresses, or nothing."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .bed.kinds import Option
from .bed.netns import Pod
from .bed.network import Network, addresses, hosts, inline, network_conf, range4, range6
from .bed.node import GATEWAY4, GATEWAY6, MACHINE4, MACHINE6, NODE4, Node

spec = pytest.mark.spec


def _conf(datapath: str = "veth", **more: Option) -> dict[str, Any]:
    return network_conf("add", datapath=datapath, version="1.1.0", ipam=inline(), **more)


@spec("A-1", "A-16")
def test_the_container_reaches_gateway_machine_and_node_both_ways(
    network: Callable[..., Network], node: Node, pod: Pod, datapath: str
) -> None:
    result = network(datapath=datapath).add(pod).result
    for address in (GATEWAY4, GATEWAY6, MACHINE4, MACHINE6, NODE4):
        assert pod.reaches(address), address
    for address in hosts(result):
        assert node.machine.reaches(address), address
        assert node.host.reaches(address), address


@spec("A-1", "A-2")
@pytest.mark.parametrize("kind", ["bridge", "veth"])
def test_an_existing_interface_of_that_name_is_left_alone(node: Node, pod: Pod, datapath: str, kind: str) -> None:
    peer = " peer name other" if kind == "veth" else ""
    pod.configure(f"link add eth0 type {kind}{peer}", "addr add 192.0.2.1/24 dev eth0", "link set eth0 up")
    before = node.state(), pod.state()
    node.call(pod, "ADD", _conf(datapath)).refuse(102, 103, 7, 100, 999)
    assert (node.state(), pod.state()) == before


@spec("A-3")
@pytest.mark.parametrize("kind", ["bridge", "veth"])
def test_a_del_after_a_refused_add_removes_nothing_of_others(node: Node, pod: Pod, datapath: str, kind: str) -> None:
    peer = " peer name other" if kind == "veth" else ""
    pod.configure(f"link add eth0 type {kind}{peer}", "addr add 192.0.2.1/24 dev eth0", "link set eth0 up")
    before = node.state(), pod.state()
    assert node.call(pod, "ADD", _conf(datapath)).status != 0
    node.call(pod, "DEL", _conf(datapath)).succeed()
    assert (node.state(), pod.state()) == before


@spec("A-4")
@pytest.mark.parametrize("netns", ["same", "another"])
def test_a_second_add_gets_the_same_answer_or_is_refused(
    network: Callable[..., Network], pods: Callable[[], Pod], datapath: str, netns: str
) -> None:
    own = network(datapath=datapath)
    pod = pods()
    first = own.add(pod).result
    again = own.add(pod, netns=pod.path if netns == "same" else pods().path)
    if again.status == 0:
        assert netns == "same"
        assert again.result == first
    assert [entry["address"] for entry in own.leases()[0]["addresses"]] == hosts(first)
    assert len(own.leases()) == 1
    own.check(pod, previous=first).succeed()
    assert pod.reaches(GATEWAY4)
    own.delete(pod).succeed()


@spec("A-4")
def test_a_second_add_of_a_delegated_address_is_answered_alike_or_refused(
    network: Callable[..., Network], pod: Pod, tmp_path: Path
) -> None:
    ipam = {"type": "host-local", "dataDir": str(tmp_path), "ranges": [[range4()]], "routes": [{"dst": "0.0.0.0/0"}]}
    own = network(version="1.0.0", ipam=ipam)
    first = own.add(pod).result
    again = own.add(pod)
    if again.status == 0:
        assert again.result == first
    assert {path.name for path in (tmp_path / own.name).glob("10.*")} == set(hosts(first))
    own.check(pod, previous=first).succeed()
    assert pod.reaches(GATEWAY4)
    own.delete(pod).succeed()
    assert {path.name for path in (tmp_path / own.name).glob("10.*")} == set()


@spec("A-5", "D-6")
def test_a_container_may_have_two_interfaces_in_one_network(
    network: Callable[..., Network], pod: Pod, datapath: str
) -> None:
    own = network(datapath=datapath)
    first, second = own.add(pod).result, own.add(pod, ifname="eth1").result
    assert not set(addresses(first)) & set(addresses(second))
    own.check(pod).succeed()
    own.check(pod, ifname="eth1").succeed()
    own.delete(pod, ifname="eth1").succeed()
    assert pod.links() == {"lo", "eth0"}
    own.check(pod).succeed()
    assert pod.reaches(GATEWAY4)
    own.delete(pod).succeed()


@spec("A-6", "N-2", "N-4")
def test_a_container_may_be_in_two_networks_of_one_subnet(
    network: Callable[..., Network], pod: Pod, datapath: str
) -> None:
    one, two = network(datapath=datapath), network(datapath=datapath)
    first, second = one.add(pod).result, two.add(pod, ifname="net1").result
    assert set(addresses(first)) == pod.addresses("eth0")
    assert set(addresses(second)) == pod.addresses("net1")
    two.delete(pod, ifname="net1").succeed()
    assert [len(one.leases()), len(two.leases())] == [1, 0]
    one.check(pod).succeed()
    one.delete(pod).succeed()


@spec("A-7")
def test_an_attachment_can_be_made_again_two_hundred_times(
    network: Callable[..., Network], node: Node, pod: Pod
) -> None:
    own = network(ipam=inline([range4(16, 31)]))
    before = pod.state()
    node.call(pod, "ADD", own.conf).succeed()
    node.call(pod, "DEL", own.conf).succeed()
    descriptors = node.descriptors()
    for _ in range(200):
        node.call(pod, "ADD", own.conf).succeed()
        node.call(pod, "DEL", own.conf).succeed()
    assert pod.state() == before
    assert own.leases() == []
    assert node.descriptors() <= descriptors + 2


@spec("A-8")
@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("abc", "eth0"), ("abcd", "eth0")),
        (("abc", "eth1"), ("abc", "eth10")),
        (("a-b", "c"), ("a", "b-c")),
        (("A", "eth0"), ("a", "eth0")),
        (("a.b", "eth0"), ("a_b", "eth0")),
    ],
    ids=str,
)
def test_attachments_are_told_apart_by_all_of_their_key(
    network: Callable[..., Network], pods: Callable[[], Pod], one: tuple[str, str], other: tuple[str, str]
) -> None:
    own = network()
    first, second = pods(), pods()
    own.add(first, container=one[0], ifname=one[1]).succeed()
    own.add(second, container=other[0], ifname=other[1]).succeed()
    own.delete(first, container=one[0], ifname=one[1]).succeed()
    assert [(lease["container_id"], lease["ifname"]) for lease in own.leases()] == [other]
    own.check(second, container=other[0], ifname=other[1]).succeed()


@spec("A-9")
def test_the_rest_of_the_container_is_untouched(network: Callable[..., Network], pod: Pod, datapath: str) -> None:
    pod.configure(
        "link add other type bridge",
        "addr add 192.0.2.1/24 dev other",
        "addr add 2001:db8::1/64 dev other nodad",
        "link set other up",
        "route add 198.51.100.0/24 via 192.0.2.9",
        "rule add from 192.0.2.1 lookup 77",
        "neigh add 192.0.2.7 lladdr 02:00:00:00:00:07 dev other",
    )
    before, settings = pod.state(), _settings(pod)
    own = network(datapath=datapath)
    own.add(pod).succeed()
    with_eth0 = pod.state()
    for part, entries in before.items():
        assert [entry for entry in entries if entry not in with_eth0[part]] == [], part
    assert _settings(pod) == settings
    own.delete(pod).succeed()
    assert pod.state() == before
    assert _settings(pod) == settings


def _settings(pod: Pod) -> list[str]:
    """The sysctls of everything but the interface of the test."""
    lines = pod.run("sysctl", "-a", "--pattern", r"^net\.ipv[46]\.").stdout.splitlines()
    counting = (".eth0.", "mtu_expires", "stable_secret", "inet_peer", "tcp_mem", "udp_mem")
    return [line for line in lines if not any(word in line for word in counting)]


@spec("A-10", "H-2")
def test_a_previous_result_is_kept_and_ours_appended(network: Callable[..., Network], pod: Pod, datapath: str) -> None:
    before = {
        "cniVersion": "1.1.0",
        "interfaces": [
            {"name": "br9", "mac": "02:00:00:00:00:09", "mtu": 1500},
            {"name": "net9", "mac": "02:00:00:00:00:0a", "sandbox": pod.path},
        ],
        "ips": [{"address": "192.0.2.9/24", "gateway": "192.0.2.1", "interface": 1}],
        "routes": [{"dst": "198.51.100.0/24", "gw": "192.0.2.1"}],
        "dns": {"nameservers": ["192.0.2.53"]},
    }
    result = network(datapath=datapath, prevResult=before).add(pod).result
    assert result["interfaces"][:2] == before["interfaces"]
    assert result["ips"][0] == before["ips"][0]
    assert result["routes"][0] == before["routes"][0]
    assert result["dns"] == before["dns"]
    assert {result["interfaces"][entry["interface"]]["name"] for entry in result["ips"][1:]} == {"eth0"}
    assert {entry["address"] for entry in result["ips"][1:]} == pod.addresses("eth0")


@spec("A-16")
@pytest.mark.parametrize("family", [4, 6])
def test_the_gateway_answers_the_first_packet(
    network: Callable[..., Network], pod: Pod, datapath: str, family: int
) -> None:
    ranges, gateway = ([range4()], GATEWAY4) if family == 4 else ([range6()], GATEWAY6)
    network(datapath=datapath, ipam=inline(ranges)).add(pod).succeed()
    start = time.monotonic()
    assert pod.reaches(gateway)
    assert time.monotonic() - start < 0.5


@spec("A-17")
@pytest.mark.parametrize("way", ["with a namespace", "without a namespace", "collected"])
def test_nothing_is_masqueraded_and_nothing_of_it_stays(
    network: Callable[..., Network], node: Node, pod: Pod, way: str
) -> None:
    own = network(ipMasq=True)
    outcome = own.add(pod).succeed()
    assert b"ipMasq" in outcome.stderr
    assert "masquerade" not in node.host.run("nft", "list", "ruleset").stdout
    if way == "collected":
        own.collect().succeed()
    else:
        own.delete(pod, netns=pod.path if way == "with a namespace" else "").succeed()
    assert node.changes() == {}


@spec("A-2")
@pytest.mark.parametrize(
    "change",
    [
        {"master": "nowhere0"},
        {"master": "lo"},
        {"mtu": 1200},
        {"runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}},
        {"ipam": inline(routes=[{"dst": "10.99.0.0/16", "gw": "203.0.113.1"}])},
        {"vlan": 5, "master": "nowhere0"},
    ],
    ids=str,
)
@pytest.mark.usefixtures("unchanged")
def test_an_add_that_fails_half_way_leaves_nothing(node: Node, pod: Pod, datapath: str, change: dict[str, Any]) -> None:
    outcome = node.call(pod, "ADD", _conf(datapath) | change)
    if outcome.status == 0:  # veth routes everything through its own next hop, so some of these can be done there
        assert datapath == "veth"
        node.call(pod, "DEL", _conf(datapath) | change).succeed()
    else:
        assert outcome.code not in (3, 5, 999)
