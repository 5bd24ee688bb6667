"""SPEC 7: DEL succeeds whatever is left, and afterwards nothing is."""

import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from .bed.calls import Caller
from .bed.netns import Pod, difference
from .bed.network import VERSIONS, Network, hosts, inline, network_conf, range4
from .bed.node import Node
from .bed.stub import Stub

spec = pytest.mark.spec

SOON = 5.0  # seconds; far above any DEL, far below the bound of a lock


@spec("D-1", "D-13", "O-2")
@pytest.mark.parametrize("version", VERSIONS)
def test_del_removes_everything_at_every_version(
    network: Callable[..., Network], node: Node, pod: Pod, datapath: str, version: str
) -> None:
    before = node.state(), pod.state()
    own = network(version=version, datapath=datapath)
    own.add(pod).succeed()
    assert (node.state(), pod.state()) != before
    own.delete(pod).succeed()
    assert (node.state(), pod.state()) == before


@spec("D-2", "T-2")
@pytest.mark.parametrize("version", ["0.1.0", "0.4.0", "1.1.0"])
def test_del_may_be_repeated(network: Callable[..., Network], pod: Pod, datapath: str, version: str) -> None:
    own = network(version=version, datapath=datapath)
    own.add(pod).succeed()
    own.delete(pod).succeed()
    own.delete(pod).succeed()
    own.delete(pod, netns="").succeed()
    own.delete(pod, netns="", previous=None).succeed()
    assert own.leases() == []


@spec("D-2")
@pytest.mark.usefixtures("unchanged")
def test_del_of_what_never_was_is_a_success(cni: Caller, pod: Pod, datapath: str) -> None:
    conf = network_conf("never", datapath=datapath, version="1.1.0", ipam=inline())
    cni("DEL", conf, container="never", netns=pod.path, ifname="eth0").succeed()
    cni("DEL", conf, container="never", ifname="eth0").succeed()


@spec("D-2", "G-11")
def test_del_after_gc_frees_nobody_elses_address(network: Callable[..., Network], pods: Callable[[], Pod]) -> None:
    own = network(ipam=inline([{"subnet": "10.89.0.224/30", "gateway": "10.89.0.225"}]))
    old, new = pods(), pods()
    own.add(old).succeed()
    own.collect().succeed()
    own.add(new).succeed()
    own.delete(old).succeed()
    own.delete(old, netns=new.path).succeed()
    own.delete(old, netns="").succeed()
    assert [lease["container_id"] for lease in own.leases()] == [new.container]
    own.check(new).succeed()


def _rename(own: Network, pod: Pod) -> None:
    pod.configure("link set eth0 down", "link set eth0 name renamed")


def _drop_link(own: Network, pod: Pod) -> None:
    pod.configure("link delete eth0")


def _drop_address(own: Network, pod: Pod) -> None:
    pod.configure("addr flush dev eth0", "link set eth0 down")


def _drop_host_side(own: Network, pod: Pod) -> None:
    (lease,) = own.leases()
    if lease["host_ifname"]:
        own.node.host.configure(f"link delete {lease['host_ifname']}")
    else:
        pod.configure("link delete eth0")


def _drop_routes(own: Network, pod: Pod) -> None:
    for address in hosts(own.result(pod)):
        own.node.host.run("ip", "route", "flush", "table", "all", "to", address)


DAMAGE: dict[str, Callable[[Network, Pod], None]] = {
    "link gone": _drop_link,
    "link renamed": _rename,
    "addresses gone": _drop_address,
    "host side gone": _drop_host_side,
    "host routes gone": _drop_routes,
}


@spec("D-3")
@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_del_removes_what_is_left_of_a_damaged_attachment(
    network: Callable[..., Network], node: Node, pod: Pod, datapath: str, damage: Callable[[Network, Pod], None]
) -> None:
    before = pod.state()
    own = network(datapath=datapath)
    own.add(pod).succeed()
    damage(own, pod)
    own.delete(pod).succeed()
    assert pod.state() == before
    assert node.changes() == {}


@spec("D-3", "D-4", "T-2", "T-5")
@pytest.mark.parametrize("netns", ["unset", "empty", "gone", "plain file", "directory", "mount namespace", "device"])
def test_del_needs_no_namespace(
    network: Callable[..., Network], node: Node, pod: Pod, tmp_path: Path, datapath: str, netns: str
) -> None:
    plain = tmp_path / "left-over"
    plain.touch()
    paths = {
        "unset": "",
        "empty": "",
        "gone": pod.path,
        "plain file": str(plain),
        "directory": str(tmp_path),
        "mount namespace": "/proc/self/ns/mnt",
        "device": "/dev/null",
    }
    own = network(datapath=datapath)
    own.add(pod).succeed()
    pod.remove()
    env: dict[str, str | bytes | None] = {"CNI_NETNS": None} if netns == "unset" else {}
    own.delete(pod, netns=paths[netns], env=env).succeed()
    assert node.changes() == {}


@spec("D-3")
@pytest.mark.parametrize("netns", ["", "/nowhere"])
def test_del_without_the_path_of_a_living_namespace_removes_the_interface_too(
    network: Callable[..., Network], node: Node, pod: Pod, datapath: str, netns: str
) -> None:
    own = network(datapath=datapath)
    before = pod.state()
    own.add(pod).succeed()
    own.delete(pod, netns=netns).succeed()
    assert node.changes() == {}
    assert pod.state() == before


FOREIGN = {
    "cniVersion": "1.0.0",
    "interfaces": [{"name": "eth0", "sandbox": "/run/netns/other"}],
    "ips": [{"address": "192.0.2.1/24", "interface": 0}],
}
PREVIOUS: dict[str, Any] = {
    "absent": None,
    "empty": {},
    "foreign": FOREIGN,
    "old form": {"cniVersion": "0.2.0", "ip4": {"ip": "10.89.0.16/24"}, "dns": {}},
    "unknown version": {"cniVersion": "7.0.0", "ips": []},
    "wrong shape": {"cniVersion": "1.1.0", "ips": "none", "interfaces": 7},
    "bad address": {"cniVersion": "1.1.0", "ips": [{"address": "x"}]},
    "bad index": {"cniVersion": "1.1.0", "ips": [{"address": "10.89.0.16/24", "interface": 99}]},
    "a text": "none",
    "a list": [],
    "a number": 5,
}


@spec("D-3", "D-4", "D-5", "J-9")
@pytest.mark.parametrize("previous", PREVIOUS, ids=str)
def test_del_does_not_depend_on_the_previous_result(
    network: Callable[..., Network], node: Node, pod: Pod, datapath: str, previous: str
) -> None:
    own = network(datapath=datapath)
    own.add(pod).succeed()
    own.delete(pod, previous=PREVIOUS[previous]).succeed()
    assert node.changes() == {}


@spec("D-3", "J-9")
def test_del_takes_a_previous_result_of_null(network: Callable[..., Network], pod: Pod) -> None:
    own = network()
    own.add(pod).succeed()
    own.delete(pod, previous=None, extra={"prevResult": None}).succeed()
    assert own.leases() == []


@spec("D-5")
def test_del_frees_the_attachments_address_and_not_the_previous_results(
    network: Callable[..., Network], pods: Callable[[], Pod]
) -> None:
    own = network()
    one, other = pods(), pods()
    own.add(one).succeed()
    own.add(other).succeed()
    own.delete(one, previous=own.result(other)).succeed()
    assert [lease["container_id"] for lease in own.leases()] == [other.container]
    own.check(other).succeed()


CHANGES: dict[str, dict[str, Any]] = {
    "another subnet": {"ipam": inline([{"subnet": "192.0.2.0/24"}])},
    "an invalid subnet": {"ipam": {"type": "underlay-ipam", "subnet": "ten"}},
    "an unknown pool": {"ipam": {"type": "underlay-ipam", "pools": ["gone"]}},
    "an unknown key": {"ipam": {"type": "underlay-ipam", "misspelled": 1}},
    "no ranges": {"ipam": {"type": "underlay-ipam"}},
    "no ipam": {"ipam": None},
    "another master": {"master": "nowhere"},
    "another mtu": {"mtu": 9000},
    "an impossible mtu": {"mtu": -5},
    "another mode": {"mode": "l3s"},
    "an unknown datapath": {"datapath": "bridge"},
    "an older version": {"cniVersion": "0.3.1"},
    "dns of a wrong type": {"dns": "none"},
    "runtimeConfig of a wrong type": {"runtimeConfig": "none"},
}


@spec("D-4", "T-4")
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_del_works_with_a_configuration_that_changed_since(
    network: Callable[..., Network], node: Node, pod: Pod, datapath: str, change: dict[str, Any]
) -> None:
    own = network(datapath=datapath)
    before = pod.state()
    own.add(pod).succeed()
    own.delete(pod, extra=change).succeed()
    assert node.changes() == {}
    assert pod.state() == before


@spec("D-4", "T-4")
@pytest.mark.parametrize(("before", "after"), [("veth", "macvlan"), ("macvlan", "veth")])
def test_del_works_when_the_datapath_was_changed(
    network: Callable[..., Network], node: Node, pod: Pod, before: str, after: str
) -> None:
    own = network(datapath=before)
    own.add(pod).succeed()
    own.delete(pod, extra={"datapath": after}).succeed()
    assert node.changes() == {}
    assert pod.links() == {"lo"}


@spec("D-3")
def test_del_works_when_the_master_is_gone(
    network: Callable[..., Network], pod: Pod, datapath: str, spare_master: str
) -> None:
    own = network(datapath=datapath, master=spare_master)
    own.add(pod).succeed()
    own.node.host.configure(f"link delete {spare_master}")
    own.delete(pod).succeed()
    assert own.leases() == []
    assert pod.links() == {"lo"}


@spec("D-6")
@pytest.mark.usefixtures("unchanged")
def test_del_of_a_network_never_joined_touches_nothing(
    network: Callable[..., Network], pod: Pod, datapath: str
) -> None:
    joined, other = network(datapath=datapath), network(datapath=datapath)
    joined.add(pod).succeed()
    other.delete(pod).succeed()
    joined.check(pod).succeed()
    joined.delete(pod).succeed()


@spec("D-6")
def test_del_of_an_old_sandbox_leaves_the_new_one_of_the_same_pod(
    network: Callable[..., Network], pods: Callable[[], Pod], datapath: str
) -> None:
    own = network(datapath=datapath)
    args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0;K8S_POD_UID=u"
    old, new = pods(), pods()
    own.add(old, args=args).succeed()
    own.add(new, args=args).succeed()
    own.delete(old, args=args).succeed()
    own.delete(old, args=args, netns="").succeed()
    assert [lease["container_id"] for lease in own.leases()] == [new.container]
    own.check(new, args=args).succeed()


@spec("D-7")
@pytest.mark.parametrize("ifname", ["eth0", "lo"])
def test_del_in_the_nodes_namespace_never_removes_a_link_of_the_node(
    network: Callable[..., Network], node: Node, ifname: str, datapath: str
) -> None:
    own = network(datapath=datapath)
    own.delete(None, container="hostnetwork", netns=node.host.path, ifname=ifname).succeed()
    assert node.changes() == {}


@spec("D-8", "P-7")
def test_a_failing_delegate_does_not_keep_the_interface(
    network: Callable[..., Network], node: Node, pod: Pod, datapath: str, stub: Stub
) -> None:
    own = network(datapath=datapath, version="1.0.0", ipam={"type": stub.name})
    before = pod.state()
    stub.says("ADD", {"cniVersion": "1.0.0", "ips": [{"address": "10.89.0.201/24"}]})
    own.add(pod).succeed()
    stub.fails("DEL", 99, "the stub cannot let go")
    error = own.delete(pod).refuse(99)
    assert "the stub cannot let go" in error["msg"]
    assert pod.state() == before
    assert node.changes() == {}
    stub.says("DEL")
    own.delete(pod).succeed()
    assert stub.calls == ["ADD", "DEL", "DEL"]


@spec("D-9", "N-6")
def test_del_does_not_wait_for_another_containers_add(
    network: Callable[..., Network], pods: Callable[[], Pod], stub: Stub
) -> None:
    own = network(version="1.0.0", ipam={"type": stub.name})
    quick = network()
    stub.says("ADD", {"cniVersion": "1.0.0", "ips": [{"address": "10.89.0.202/24"}]})
    slow, other = pods(), pods()
    quick.add(other).succeed()
    with ThreadPoolExecutor(1) as pool:
        stub.hold("ADD")
        stopped = pool.submit(own.add, slow)
        stub.arrived("ADD")
        start = time.monotonic()
        quick.delete(other).succeed()
        quick.status().succeed()
        assert time.monotonic() - start < SOON
        stub.release("ADD")
        stopped.result().succeed()


@spec("D-11", "H-4")
@pytest.mark.parametrize("words", ["not found", "no such file or directory"])
def test_a_real_failure_is_not_told_in_words_that_a_library_takes_for_success(
    network: Callable[..., Network], pod: Pod, stub: Stub, words: str
) -> None:
    own = network(version="1.0.0", ipam={"type": stub.name})
    stub.says("ADD", {"cniVersion": "1.0.0", "ips": [{"address": "10.89.0.203/24"}]})
    own.add(pod).succeed()
    stub.fails("DEL", 42, f"the server was {words}", f"stat: {words}")
    assert own.delete(pod).refuse(42)
    stub.says("DEL")
    own.delete(pod).succeed()


@spec("D-11", "P-1")
def test_a_missing_delegate_is_a_failure_of_del_in_other_words(node: Node, pod: Pod) -> None:
    conf = network_conf("missing", datapath="veth", version="1.0.0", ipam={"type": "nobody-has-this"})
    error = node.call(pod, "DEL", conf).error
    assert "nobody-has-this" in error["msg"]


@spec("D-12", "N-3")
def test_parallel_dels_of_one_attachment_all_succeed(
    network: Callable[..., Network], node: Node, pod: Pod, datapath: str
) -> None:
    own = network(datapath=datapath)
    own.add(pod).succeed()
    with ThreadPoolExecutor(8) as pool:
        for outcome in [pool.submit(own.delete, pod, netns=path) for path in [pod.path, ""] * 6]:
            outcome.result().succeed()
    assert node.changes() == {}


@spec("D-1")
def test_the_nodes_own_link_goes_soon_after_the_last_pod(
    own_node: Node, pod: Pod, networks: Callable[..., Network]
) -> None:
    before = own_node.host.state()
    own = networks(own_node, datapath="macvlan")
    own.add(pod).succeed()
    own.delete(pod).succeed()
    deadline = time.monotonic() + 10
    while difference(before, own_node.host.state()):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@spec("D-3")
def test_del_succeeds_when_the_state_directory_is_gone(own_node: Node, pod: Pod, datapath: str) -> None:
    conf = network_conf("lost", datapath=datapath, version="1.1.0", ipam=inline([range4()]))
    call = {"container": pod.container, "netns": pod.path, "ifname": "eth0"}
    before = pod.state()
    own_node.cni("ADD", conf, **call).succeed()
    own_node.kill_agent()
    shutil.rmtree(own_node.state_dir)
    own_node.start_agent()
    own_node.cni("DEL", conf, **call).succeed()
    assert pod.state() == before
    assert own_node.changes() == {}
