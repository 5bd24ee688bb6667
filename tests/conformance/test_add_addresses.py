"""SPEC 6: which addresses and which MAC an ADD gives."""

import time
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

import pytest

from .bed.kinds import Option
from .bed.netns import Pod
from .bed.network import Network, hosts, inline, network_conf, own_interface, range4
from .bed.node import GATEWAY4, GATEWAY6, Node

spec = pytest.mark.spec

# Few addresses, for counting. Each test has its own: what rests in another network's pool is the last to be given.
SMALL = [f"10.89.1.{8 * number}" for number in range(4)]


def _small(number: int) -> tuple[dict[str, str], list[str]]:
    """A /29 whose gateway is its first address, and the five that are left."""
    base, _, low = SMALL[number].rpartition(".")
    usable = [f"{base}.{int(low) + host}" for host in range(2, 7)]
    return {"subnet": f"{SMALL[number]}/29", "gateway": f"{base}.{int(low) + 1}"}, usable


def _conf(datapath: str = "veth", **more: Option) -> dict[str, Any]:
    return network_conf("add", datapath=datapath, version="1.1.0", ipam=inline(), **more)


@spec("A-11", "D-2", "S-5")
def test_an_exhausted_range_is_told_and_one_del_frees_one_address(
    network: Callable[..., Network], pods: Callable[[], Pod]
) -> None:
    subnet, usable = _small(0)
    own = network(ipam=inline([subnet]))
    holders = [pods() for _ in usable]
    assert sorted(hosts(own.add(holder).result)[0] for holder in holders) == usable
    late = pods()
    before = late.state()
    error = own.add(late).refuse(11)
    assert "no free address" in error["msg"]
    assert own.name in error["msg"]
    own.delete(late).succeed()
    assert late.state() == before
    assert len(own.leases()) == len(usable)
    freed = hosts(own.result(holders[2]))
    own.delete(holders[2]).succeed()
    assert hosts(own.add(late).result) == freed
    own.add(holders[2]).refuse(11)


@spec("A-12")
def test_no_address_that_is_anybody_elses_is_handed_out(
    network: Callable[..., Network], pods: Callable[[], Pod]
) -> None:
    first, usable = _small(1)
    second = {"subnet": "10.89.1.128/29", "rangeStart": "10.89.1.132", "gateway": usable[1]}
    own = network(ipam=inline([first, second]))
    given = []
    while (outcome := own.add(pods())).status == 0:
        given += hosts(outcome.result)
    usable.remove(usable[1])
    assert sorted(given) == sorted([*usable, "10.89.1.132", "10.89.1.133", "10.89.1.134"])


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
    subnet, usable = _small(2)
    own = network(ipam=inline([subnet]))
    given = []
    for _ in range(2 * len(usable)):
        given += hosts(own.add(pod).result)
        own.delete(pod).succeed()
    assert given == usable * 2


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
def test_an_address_that_cannot_be_given_is_refused(node: Node, pod: Pod, wanted: list[str], source: str) -> None:
    conf, args = _conf(), ""
    if source == "runtimeConfig":
        conf["runtimeConfig"] = {"ips": wanted}
    elif source == "args":
        conf["args"] = {"cni": {"ips": wanted}}
    elif wanted == [""]:
        pytest.skip("an empty IP in CNI_ARGS asks for nothing")
    else:
        args = f"IP={','.join(wanted)}"
    node.call(pod, "ADD", conf, args=args).refuse(4, 7)


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
def test_a_mac_of_a_living_neighbour_is_refused(network: Callable[..., Network], pods: Callable[[], Pod]) -> None:
    own = network(datapath="macvlan", runtimeConfig={"mac": "02:11:22:33:44:66"})
    first, second = pods(), pods()
    clean = second.state()
    own.add(first).succeed()
    assert "02:11:22:33:44:66" in own.add(second).refuse(11)["msg"]
    assert second.state() == clean
    assert len(own.leases()) == 1
    own.check(first).succeed()


@spec("A-15", "T-1")
def test_a_mac_can_be_had_again_once_its_namespace_is_gone(
    network: Callable[..., Network], pods: Callable[[], Pod]
) -> None:
    """The kernel takes a namespace down in the background; until then its interfaces hold their MACs."""
    own = network(datapath="macvlan", runtimeConfig={"mac": "02:11:22:33:44:67"})
    first, second = pods(), pods()
    own.add(first).succeed()
    first.remove()
    own.delete(first, netns="").succeed()
    deadline = time.monotonic() + 5
    while (outcome := own.add(second)).status != 0:
        outcome.refuse(11)
        assert time.monotonic() < deadline
    own.check(second).succeed()


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
def test_an_impossible_mac_is_refused(node: Node, pod: Pod, mac: str, source: str) -> None:
    more: dict[str, Any] = {
        "runtimeConfig": {"runtimeConfig": {"mac": mac}},
        "args": {"args": {"cni": {"mac": mac}}},
        "CNI_ARGS": {},
        "configuration": {"mac": mac},
    }[source]
    args = f"MAC={mac}" if source == "CNI_ARGS" else ""
    node.call(pod, "ADD", _conf(**more), args=args).refuse(4, 7)


@spec("A-12", "A-13")
def test_a_new_lease_never_is_one_that_is_held(network: Callable[..., Network], pods: Callable[[], Pod]) -> None:
    own = network(ipam=inline([range4(16, 40)]))
    held = {}
    for _ in range(12):
        pod = pods()
        held[pod.container] = hosts(own.add(pod).result)[0]
    assert len(set(held.values())) == len(held)
    assert all(16 <= int(ip_address(address)) & 255 <= 40 for address in held.values())
