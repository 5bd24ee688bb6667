"""SPEC 9: GC removes what the runtime no longer lists."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from .bed.calls import Outcome
from .bed.kinds import Json, Option
from .bed.netns import Pod
from .bed.network import Network, inline
from .bed.node import Node
from .bed.stub import Stub

spec = pytest.mark.spec

KEY, OLD_KEY = "cni.dev/valid-attachments", "cni.dev/attachments"


def _listed(*pods: Pod, ifname: str = "eth0") -> list[dict[str, str]]:
    return [{"containerID": pod.container, "ifname": ifname} for pod in pods]


def _collect(own: Network, **lists: Option) -> Outcome:
    return own.call("GC", None, ifname="", extra=lists)


def _containers(own: Network) -> set[str]:
    return {lease["container_id"] for lease in own.leases()}


@spec("G-1")
@pytest.mark.parametrize("version", ["0.1.0", "0.3.1", "0.4.0", "1.0.0"])
def test_gc_needs_a_version_that_has_it(network: Callable[..., Network], pod: Pod, version: str) -> None:
    own = network(version=version)
    own.add(pod).succeed()
    error = _collect(own, **{KEY: []}).refuse(1)
    assert error["msg"] == "config version does not allow GC"
    assert len(own.leases()) == 1


@spec("G-2", "G-8")
@pytest.mark.parametrize("key", [KEY, OLD_KEY])
def test_both_names_of_the_list_are_understood(
    network: Callable[..., Network], pods: Callable[[], Pod], datapath: str, key: str
) -> None:
    own = network(datapath=datapath)
    stays, goes = pods(), pods()
    own.add(stays).succeed()
    own.add(goes).succeed()
    _collect(own, **{key: _listed(stays)}).succeed()
    assert _containers(own) == {stays.container}
    assert goes.links() == {"lo"}
    own.check(stays).succeed()


@spec("G-2")
def test_of_both_lists_the_valid_attachments_count(network: Callable[..., Network], pods: Callable[[], Pod]) -> None:
    own = network()
    one, other = pods(), pods()
    own.add(one).succeed()
    own.add(other).succeed()
    _collect(own, **{KEY: _listed(one), OLD_KEY: _listed(other)}).succeed()
    assert _containers(own) == {one.container}


@spec("G-3", "G-7")
@pytest.mark.parametrize("nothing", [None, []], ids=["null", "empty"])
def test_a_list_of_nothing_removes_everything(
    network: Callable[..., Network], node: Node, pods: Callable[[], Pod], datapath: str, nothing: Json
) -> None:
    own = network(datapath=datapath)
    for pod in (pods(), pods()):
        own.add(pod).succeed()
    _collect(own, **{KEY: nothing}).succeed()
    assert node.changes() == {}


@spec("G-3")
def test_without_a_list_nothing_is_removed(network: Callable[..., Network], pod: Pod) -> None:
    own = network()
    own.add(pod).succeed()
    error = _collect(own).refuse(7)
    assert KEY in error["msg"]
    own.check(pod).succeed()


MALFORMED: dict[str, Any] = {
    "a text": "abc",
    "an object": {"containerID": "abc", "ifname": "eth0"},
    "a number": 1,
    "entries of text": ["abc"],
    "an entry of null": [None],
    "without container": [{"ifname": "eth0"}],
    "without interface": [{"containerID": "abc"}],
    "an empty container": [{"containerID": "", "ifname": "eth0"}],
    "a number for a container": [{"containerID": 5, "ifname": "eth0"}],
    "the last one": [{"containerID": "abc", "ifname": "eth0"}, {}],
}


@spec("G-4")
@pytest.mark.parametrize("value", MALFORMED.values(), ids=MALFORMED)
@pytest.mark.parametrize("key", [KEY, OLD_KEY])
def test_a_malformed_list_removes_nothing(network: Callable[..., Network], pod: Pod, key: str, value: Json) -> None:
    own = network()
    own.add(pod).succeed()
    _collect(own, **{key: value}).refuse(6, 7)
    own.check(pod).succeed()


@spec("G-4", "A-8")
def test_entries_are_compared_whole(network: Callable[..., Network], pods: Callable[[], Pod]) -> None:
    own = network()
    one, other = pods(), pods()
    own.add(one, container="abc", ifname="eth1").succeed()
    own.add(other, container="abc", ifname="eth10").succeed()
    _collect(own, **{KEY: [{"containerID": "abc", "ifname": "eth10"}, {"containerID": "ab", "ifname": "eth1"}]})
    assert [(lease["container_id"], lease["ifname"]) for lease in own.leases()] == [("abc", "eth10")]
    assert one.links() == {"lo"}


@spec("G-5", "A-6")
def test_other_networks_are_not_touched(network: Callable[..., Network], pod: Pod, datapath: str) -> None:
    own, other = network(datapath=datapath), network(datapath=datapath)
    own.add(pod).succeed()
    other.add(pod, ifname="eth1").succeed()
    own.collect().succeed()
    assert pod.links() == {"lo", "eth1"}
    other.check(pod, ifname="eth1").succeed()


@spec("G-6")
def test_gc_may_be_repeated_and_needs_nothing_to_remove(network: Callable[..., Network], node: Node, pod: Pod) -> None:
    own = network()
    own.collect().succeed()
    own.add(pod).succeed()
    own.collect().succeed()
    own.collect().succeed()
    assert node.changes() == {}


@spec("G-6")
def test_a_long_list_is_read_in_bounded_time(network: Callable[..., Network], pods: Callable[[], Pod]) -> None:
    own = network()
    stays, goes = pods(), pods()
    own.add(stays).succeed()
    own.add(goes).succeed()
    others = [{"containerID": f"{number:064x}", "ifname": "eth0"} for number in range(20_000)]
    start = time.monotonic()
    _collect(own, **{KEY: others + _listed(stays)}).succeed()
    assert time.monotonic() - start < 3
    assert _containers(own) == {stays.container}


@spec("G-7")
@pytest.mark.parametrize("left", ["namespace gone", "link gone", "host side gone", "master gone"])
def test_whatever_is_left_of_a_stale_attachment_is_collected(
    network: Callable[..., Network], node: Node, pod: Pod, datapath: str, left: str, spare_master: str
) -> None:
    own = network(datapath=datapath, master=spare_master if left == "master gone" else "eth0")
    own.add(pod).succeed()
    (lease,) = own.leases()
    if left == "namespace gone":
        pod.remove()
    elif left == "link gone":
        pod.configure("link delete eth0")
    elif left == "master gone":
        node.host.configure(f"link delete {spare_master}")
    elif lease["host_ifname"]:
        node.host.configure(f"link delete {lease['host_ifname']}")
    own.collect().succeed()
    assert own.leases() == []
    if left != "namespace gone":
        assert pod.links() == {"lo"}


@spec("G-7", "G-10")
def test_an_add_at_work_beside_gc_either_completes_or_is_gone(
    network: Callable[..., Network], node: Node, pods: Callable[[], Pod], stub: Stub
) -> None:
    own = network(version="1.1.0", ipam={"type": stub.name})
    stub.says("ADD", {"cniVersion": "1.1.0", "ips": [{"address": "10.89.0.205/24"}]})
    pod = pods()
    with ThreadPoolExecutor(2) as pool:
        stub.hold("ADD")
        adding = pool.submit(own.add, pod)
        stub.arrived("ADD")
        collecting = pool.submit(own.collect)
        time.sleep(0.05)  # so that GC reads the ledger while the ADD stands at the gate
        stub.release("ADD")
        added, collected = adding.result(), collecting.result()
    collected.succeed()
    if added.status == 0 and own.leases():
        own.check(pod).succeed()
    else:
        assert own.leases() == []
        assert pod.links() == {"lo"}
        assert node.changes() == {}


@spec("G-10", "N-1")
def test_adds_beside_gc_keep_what_they_answered_or_lose_it_whole(
    network: Callable[..., Network], pods: Callable[[], Pod]
) -> None:
    own = network(ipam=inline())
    several = [pods() for _ in range(12)]
    with ThreadPoolExecutor(6) as pool:
        added = [pool.submit(own.add, pod) for pod in several]
        collected = [pool.submit(own.collect, *((pod, "eth0") for pod in several)) for _ in range(6)]
        outcomes = [future.result() for future in added]
        assert all(future.result().status == 0 for future in collected)
    assert all(outcome.status == 0 for outcome in outcomes)
    assert _containers(own) == {pod.container for pod in several}
    for pod in several:
        own.check(pod).succeed()


@spec("G-9", "P-7", "P-2")
def test_a_delegate_collects_too_and_its_failure_is_told(network: Callable[..., Network], pod: Pod, stub: Stub) -> None:
    own = network(ipam={"type": stub.name})
    stub.says("ADD", {"cniVersion": "1.1.0", "ips": [{"address": "10.89.0.206/24"}]})
    own.add(pod).succeed()
    stub.forget()
    stub.fails("GC", 66, "the stub collects nothing")
    assert own.collect().refuse(66)["msg"] == "the stub collects nothing"
    assert stub.calls == ["GC"]
    assert own.leases() == []
    assert KEY.encode() in stub.stdin("GC")
    stub.says("GC")
    own.collect().succeed()


@spec("G-11", "D-2")
def test_del_after_gc_succeeds(network: Callable[..., Network], node: Node, pod: Pod, datapath: str) -> None:
    own = network(datapath=datapath)
    own.add(pod).succeed()
    own.collect().succeed()
    own.delete(pod).succeed()
    assert node.changes() == {}
