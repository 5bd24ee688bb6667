"""SPEC 6: ADD makes an interface with addresses, or nothing."""

import time
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

import pytest

from .bed.calls import Caller
from .bed.network import Network, Pod, addresses, hosts, inline, network_conf, own_interface, range4, range6
from .bed.node import GATEWAY4, GATEWAY6, MACHINE4, MACHINE6, NODE4, Node

spec = pytest.mark.spec

# Ranges of few addresses, for counting: .225 to .230, without the gateway .225 that a subnet has by itself.
SMALL = {"subnet": "10.89.0.224/29", "gateway": "10.89.0.225"}
SMALL_ADDRESSES = [f"10.89.0.{last}" for last in range(226, 231)]


def _conf(datapath: str = "veth", **more: Any) -> dict[str, Any]:
    return network_conf("add", datapath=datapath, version="1.1.0", ipam=inline(), **more)


def _call(pod: Pod, **more: Any) -> dict[str, Any]:
    return {"container": pod.container, "netns": pod.path, "ifname": "eth0"} | more


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
def test_an_existing_interface_of_that_name_is_left_alone(
    cni: Caller, node: Node, pod: Pod, datapath: str, kind: str
) -> None:
    peer = " peer name other" if kind == "veth" else ""
    pod.configure(f"link add eth0 type {kind}{peer}", "addr add 192.0.2.1/24 dev eth0", "link set eth0 up")
    before = node.state(), pod.state()
    cni("ADD", _conf(datapath), **_call(pod)).refuse(102, 103, 7, 100, 999)
    assert (node.state(), pod.state()) == before


@spec("A-3")
@pytest.mark.parametrize("kind", ["bridge", "veth"])
def test_a_del_after_a_refused_add_removes_nothing_of_others(
    cni: Caller, node: Node, pod: Pod, datapath: str, kind: str
) -> None:
    peer = " peer name other" if kind == "veth" else ""
    pod.configure(f"link add eth0 type {kind}{peer}", "addr add 192.0.2.1/24 dev eth0", "link set eth0 up")
    before = node.state(), pod.state()
    assert cni("ADD", _conf(datapath), **_call(pod)).status != 0
    cni("DEL", _conf(datapath), **_call(pod)).succeed()
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
    network: Callable[..., Network], pod: Pod, tmp_path: Any
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
    node.cni("ADD", own.conf, **_call(pod)).succeed()
    node.cni("DEL", own.conf, **_call(pod)).succeed()
    descriptors = node.descriptors()
    for _ in range(200):
        node.cni("ADD", own.conf, **_call(pod)).succeed()
        node.cni("DEL", own.conf, **_call(pod)).succeed()
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


@spec("A-11", "D-2", "S-5")
def test_an_exhausted_range_is_told_and_one_del_frees_one_address(
    network: Callable[..., Network], pods: Callable[[], Pod]
) -> None:
    own = network(ipam=inline([SMALL]))
    holders = [pods() for _ in SMALL_ADDRESSES]
    assert sorted(hosts(own.add(holder).result)[0] for holder in holders) == SMALL_ADDRESSES
    late = pods()
    before = late.state()
    error = own.add(late).refuse(11)
    assert "no free address" in error["msg"]
    assert own.name in error["msg"]
    own.delete(late).succeed()
    assert late.state() == before
    assert len(own.leases()) == len(SMALL_ADDRESSES)
    freed = hosts(own.result(holders[2]))
    own.delete(holders[2]).succeed()
    assert hosts(own.add(late).result) == freed
    own.add(holders[2]).refuse(11)


@spec("A-12")
def test_no_address_that_is_anybody_elses_is_handed_out(
    network: Callable[..., Network], pods: Callable[[], Pod]
) -> None:
    second = {"subnet": "10.89.0.232/29", "rangeStart": "10.89.0.236", "gateway": "10.89.0.227"}
    own = network(ipam=inline([SMALL, second]))
    given = []
    while (outcome := own.add(pods())).status == 0:
        given += hosts(outcome.result)
    expected = [address for address in SMALL_ADDRESSES if address != "10.89.0.227"]
    assert sorted(given) == [*expected, *(f"10.89.0.{last}" for last in range(236, 239))]


@spec("A-12")
def test_an_ipv6_range_has_no_anycast_address_and_keeps_its_bounds(
    network: Callable[..., Network], pods: Callable[[], Pod]
) -> None:
    own = network(ipam=inline([{"subnet": "fd00:89::/125", "gateway": GATEWAY6}]))
    given = []
    while (outcome := own.add(pods())).status == 0:
        given += hosts(outcome.result)
    assert sorted(given) == [f"fd00:89::{last}" for last in range(2, 8)]


@spec("A-13")
def test_a_freed_address_is_not_the_next_one_given(network: Callable[..., Network], pod: Pod) -> None:
    own = network(ipam=inline([SMALL]))
    given = []
    for _ in range(2 * len(SMALL_ADDRESSES)):
        given += hosts(own.add(pod).result)
        own.delete(pod).succeed()
    assert given == SMALL_ADDRESSES * 2


@spec("A-14", "K-2")
@pytest.mark.parametrize(
    "asked",
    [
        {"extra": {"runtimeConfig": {"ips": ["10.89.0.99"]}}},
        {"extra": {"runtimeConfig": {"ips": ["10.89.0.99/24"]}}},
        {"extra": {"args": {"cni": {"ips": ["10.89.0.99"]}}}},
        {"args": "IP=10.89.0.99"},
        {"args": "IgnoreUnknown=1;IP=10.89.0.99/24"},
    ],
    ids=str,
)
def test_a_requested_address_is_given(network: Callable[..., Network], pod: Pod, asked: dict[str, Any]) -> None:
    own = network()
    assert hosts(own.add(pod, **asked).result)[0] == "10.89.0.99"
    assert "10.89.0.99" in {address.partition("/")[0] for address in pod.addresses("eth0")}


@spec("A-14", "A-2")
@pytest.mark.parametrize(
    "wanted",
    [
        ["10.89.0.1"],
        ["10.89.0.0"],
        ["10.89.0.255"],
        ["10.89.0.5"],
        ["192.0.2.9"],
        ["10.89.0.98", "10.89.0.99"],
        ["10.89.0.99", "192.0.2.9"],
        ["fd00:89::1"],
        ["fd00:89::9"],
        ["nonsense"],
        ["10.89.0.256"],
        ["10.89.0.99/40"],
        ["0.0.0.0"],
        ["10.89.0.99%eth0"],
        [""],
    ],
    ids=str,
)
@pytest.mark.parametrize("source", ["runtimeConfig", "args", "CNI_ARGS"])
@pytest.mark.usefixtures("unchanged")
def test_an_address_that_cannot_be_given_is_refused(cni: Caller, pod: Pod, wanted: list[str], source: str) -> None:
    conf, args = _conf(), ""
    if source == "runtimeConfig":
        conf["runtimeConfig"] = {"ips": wanted}
    elif source == "args":
        conf["args"] = {"cni": {"ips": wanted}}
    elif wanted == [""]:
        pytest.skip("an empty IP in CNI_ARGS asks for nothing")
    else:
        args = f"IP={','.join(wanted)}"
    cni("ADD", conf, args=args, **_call(pod)).refuse(4, 7)


@spec("A-14")
def test_a_requested_address_in_use_is_refused_and_its_owner_keeps_it(
    network: Callable[..., Network], pods: Callable[[], Pod]
) -> None:
    own = network()
    owner, other = pods(), pods()
    (taken, _) = hosts(own.add(owner).result)
    before = other.state()
    own.add(other, extra={"runtimeConfig": {"ips": [taken]}}).refuse(11)
    own.delete(other).succeed()
    assert other.state() == before
    own.check(owner).succeed()
    assert len(own.leases()) == 1


@spec("A-15", "R-5")
@pytest.mark.parametrize(
    ("asked", "mac"),
    [
        ({"extra": {"runtimeConfig": {"mac": "02:11:22:33:44:55"}}}, "02:11:22:33:44:55"),
        ({"extra": {"runtimeConfig": {"mac": "C2-11-22-33-44-AA"}}}, "c2:11:22:33:44:aa"),
        ({"extra": {"args": {"cni": {"mac": "02:11:22:33:44:56"}}}}, "02:11:22:33:44:56"),
        ({"args": "MAC=02:11:22:33:44:57"}, "02:11:22:33:44:57"),
        ({"extra": {"mac": "02:11:22:33:44:58"}}, "02:11:22:33:44:58"),
        (
            {
                "extra": {
                    "mac": "02:00:00:00:00:01",
                    "args": {"cni": {"mac": "02:00:00:00:00:02"}},
                    "runtimeConfig": {"mac": "02:00:00:00:00:03"},
                },
                "args": "MAC=02:00:00:00:00:04",
            },
            "02:00:00:00:00:03",
        ),
        (
            {"extra": {"mac": "02:00:00:00:00:01", "args": {"cni": {"mac": "02:00:00:00:00:02"}}}, "args": "MAC=junk"},
            "02:00:00:00:00:02",
        ),
    ],
)
def test_a_requested_mac_is_set_and_answered(
    network: Callable[..., Network], pod: Pod, datapath: str, asked: dict[str, Any], mac: str
) -> None:
    result = network(datapath=datapath).add(pod, **asked).result
    link = pod.link("eth0")
    assert link
    assert own_interface(result)["mac"] == link["address"] == mac
    assert pod.reaches(GATEWAY4)


@spec("A-15", "A-2")
@pytest.mark.parametrize(
    "mac",
    [
        *("junk", "02:11:22:33:44", "02:11:22:33:44:55:66", "02:11:22:33:44:5g", "01:00:5e:00:00:01"),
        *("ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00", "02:11:22:33:44:55 ", "0211.2233.4455"),
    ],
)
@pytest.mark.parametrize("source", ["runtimeConfig", "args", "CNI_ARGS", "configuration"])
@pytest.mark.usefixtures("unchanged")
def test_an_impossible_mac_is_refused(cni: Caller, pod: Pod, mac: str, source: str) -> None:
    more: dict[str, Any] = {
        "runtimeConfig": {"runtimeConfig": {"mac": mac}},
        "args": {"args": {"cni": {"mac": mac}}},
        "CNI_ARGS": {},
        "configuration": {"mac": mac},
    }[source]
    args = f"MAC={mac}" if source == "CNI_ARGS" else ""
    cni("ADD", _conf(**more), args=args, **_call(pod)).refuse(4, 7)


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
def test_an_add_that_fails_half_way_leaves_nothing(
    cni: Caller, pod: Pod, datapath: str, change: dict[str, Any]
) -> None:
    outcome = cni("ADD", _conf(datapath) | change, **_call(pod))
    if outcome.status == 0:  # veth routes everything through its own next hop, so some of these can be done there
        assert datapath == "veth"
        cni("DEL", _conf(datapath) | change, **_call(pod)).succeed()
    else:
        assert outcome.code not in (3, 5, 999)


@spec("A-12", "A-13")
def test_a_new_lease_never_is_one_that_is_held(network: Callable[..., Network], pods: Callable[[], Pod]) -> None:
    own = network(ipam=inline([range4(16, 40)]))
    held = {}
    for _ in range(12):
        pod = pods()
        held[pod.container] = hosts(own.add(pod).result)[0]
    assert len(set(held.values())) == len(held)
    assert all(16 <= int(ip_address(address)) & 255 <= 40 for address in held.values())
