"""SPEC 17: many at once, and several at the same thing."""

import json
import random
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from .bed.netns import Pod
from .bed.network import Network, hosts, inline, range4
from .bed.node import Node
from .bed.stub import Stub

spec = pytest.mark.spec

PARALLEL = 24


@spec("N-1", "A-12")
def test_many_containers_at_once_get_an_address_each(
    network: Callable[..., Network], node: Node, pods: Callable[[], Pod], datapath: str
) -> None:
    own = network(datapath=datapath)
    several = [pods() for _ in range(PARALLEL)]
    with ThreadPoolExecutor(PARALLEL) as pool:
        given = [hosts(outcome.result) for outcome in pool.map(own.add, several)]
        assert len({address for pair in given for address in pair}) == 2 * PARALLEL
        assert all(outcome.status == 0 for outcome in pool.map(own.check, several))
        assert all(outcome.status == 0 for outcome in pool.map(own.delete, several))
    assert node.changes() == {}


@spec("N-1", "A-11")
def test_the_losers_of_a_small_range_get_a_clean_error(
    network: Callable[..., Network], node: Node, pods: Callable[[], Pod]
) -> None:
    own = network(ipam=inline([{"subnet": "10.89.2.0/28", "gateway": "10.89.2.1"}]))  # 13 addresses
    several = [pods() for _ in range(PARALLEL)]
    with ThreadPoolExecutor(PARALLEL) as pool:
        outcomes = list(pool.map(own.add, several))
    winners = [pod for pod, outcome in zip(several, outcomes, strict=True) if outcome.status == 0]
    losers = [pod for pod in several if pod not in winners]
    assert len(winners) == 13
    assert len({hosts(own.result(pod))[0] for pod in winners}) == 13
    for outcome in outcomes:
        if outcome.status != 0:
            outcome.refuse(11)
    assert all(pod.links() == {"lo"} for pod in losers)
    with ThreadPoolExecutor(PARALLEL) as pool:
        assert all(outcome.status == 0 for outcome in pool.map(own.delete, several))
    assert node.changes() == {}


@spec("N-2", "A-6")
@pytest.mark.parametrize("kinds", [("veth", "veth"), ("veth", "macvlan"), ("macvlan", "macvlan")], ids=str)
def test_a_containers_interfaces_may_be_made_at_once(
    network: Callable[..., Network], node: Node, pod: Pod, kinds: tuple[str, ...]
) -> None:
    several = [(network(datapath=kind), f"eth{number}") for number, kind in enumerate(kinds * 2)]
    with ThreadPoolExecutor(len(several)) as pool:
        added = [pool.submit(own.add, pod, ifname=ifname) for own, ifname in several]
        assert len({hosts(future.result().result)[0] for future in added}) == len(several)
        checked = [pool.submit(own.check, pod, ifname=ifname) for own, ifname in several]
        for future in checked:
            future.result().succeed()
        deleted = [pool.submit(own.delete, pod, ifname=ifname) for own, ifname in several]
        for future in deleted:
            future.result().succeed()
    assert pod.links() == {"lo"}
    assert node.changes() == {}


@spec("N-3", "A-4", "D-12")
def test_the_same_attachment_twice_at_once_has_one_address(
    network: Callable[..., Network], node: Node, pod: Pod, datapath: str
) -> None:
    own = network(datapath=datapath)
    with ThreadPoolExecutor(8) as pool:
        outcomes = [future.result() for future in [pool.submit(own.add, pod) for _ in range(8)]]
    results = [outcome.result for outcome in outcomes if outcome.status == 0]
    assert results
    assert all(result == results[0] for result in results)
    assert len(own.leases()) == 1
    own.check(pod, previous=results[0]).succeed()
    own.delete(pod).succeed()
    assert pod.links() == {"lo"}
    assert node.changes() == {}


@spec("N-3")
def test_adds_and_dels_of_one_attachment_at_once_end_in_one_of_both(
    network: Callable[..., Network], node: Node, pod: Pod, datapath: str
) -> None:
    own = network(datapath=datapath)
    before = pod.state()
    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(own.add if number % 2 else own.delete, pod) for number in range(16)]
        for future in futures:
            future.result()
    assert (len(own.leases()), "eth0" in pod.links()) in ((0, False), (1, True))
    own.delete(pod).succeed()
    assert pod.state() == before
    assert node.changes() == {}


@spec("N-4", "G-5")
def test_several_networks_at_once_do_not_meet(network: Callable[..., Network], pods: Callable[[], Pod]) -> None:
    several = [network(datapath=kind) for kind in ("veth", "macvlan") * 3]
    sandboxes = [[pods() for _ in range(3)] for _ in several]
    with ThreadPoolExecutor(PARALLEL) as pool:
        added = [pool.submit(own.add, pod) for own, mine in zip(several, sandboxes, strict=True) for pod in mine]
        given = [address for future in added for address in hosts(future.result().result)]
        assert len(set(given)) == len(given)
        for future in [pool.submit(own.collect) for own in several[::2]]:
            future.result().succeed()
    for own, mine in list(zip(several, sandboxes, strict=True))[1::2]:
        for pod in mine:
            own.check(pod).succeed()
    assert [len(own.leases()) for own in several] == [0, 3] * 3


@spec("N-5", "S-4", "V-3")
def test_check_status_and_version_are_answered_while_everything_else_goes_on(
    network: Callable[..., Network], node: Node, pods: Callable[[], Pod], stub: Stub
) -> None:
    own, slow = network(), network(ipam={"type": stub.name}, version="1.0.0")
    stub.says("ADD", {"cniVersion": "1.0.0", "ips": [{"address": "10.89.0.208/24"}]})
    stub.hold("ADD")
    pod, other = pods(), pods()
    own.add(pod).succeed()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(slow.add, other)
        stub.arrived("ADD")
        start = time.monotonic()
        own.check(pod).succeed()
        own.status().succeed()
        node.cni("VERSION", {"cniVersion": "1.0.0"}).succeed()
        own.collect((pod, "eth0")).succeed()
        assert time.monotonic() - start < 2
        stub.release("ADD")
        waiting.result().succeed()
    own.check(pod).succeed()


@spec("N-6")
def test_one_attachments_verbs_wait_for_each_other(network: Callable[..., Network], pod: Pod, stub: Stub) -> None:
    own = network(ipam={"type": stub.name}, version="1.0.0")
    stub.says("ADD", {"cniVersion": "1.0.0", "ips": [{"address": "10.89.0.209/24"}]})
    stub.hold("ADD")
    with ThreadPoolExecutor(2) as pool:
        adding = pool.submit(own.add, pod)
        stub.arrived("ADD")
        deleting = pool.submit(own.delete, pod)
        time.sleep(0.1)  # a DEL that did not wait would be over by now
        assert not deleting.done()
        stub.release("ADD")
        adding.result().succeed()
        deleting.result().succeed()
    assert own.leases() == []
    assert pod.links() == {"lo"}
    assert stub.calls == ["ADD", "DEL"]


@spec("N-7", "P-2")
def test_a_delegate_runs_in_the_nodes_namespace(
    network: Callable[..., Network], node: Node, pod: Pod, stub: Stub
) -> None:
    program = stub.bin_dir / stub.name
    look = f"/usr/bin/readlink /proc/self/ns/net >> {stub.directory}/where"
    program.write_text(program.read_text().replace("#!/bin/sh", f"#!/bin/sh\n{look}", 1))
    stub.says("ADD", {"cniVersion": "1.0.0", "ips": [{"address": "10.89.0.207/24"}]})
    own = network(ipam={"type": stub.name}, version="1.0.0")
    own.add(pod).succeed()
    own.check(pod).succeed()
    own.delete(pod).succeed()
    where = node.host.run("readlink", "/proc/self/ns/net").stdout
    assert (stub.directory / "where").read_text() == where * 3


@spec("A-19", "A-2", "N-6")
def test_an_agent_that_is_killed_at_any_moment_leaves_nothing_that_a_del_does_not_remove(
    own_node: Node, pods: Callable[[], Pod], networks: Callable[..., Network]
) -> None:
    chance = random.Random(7)
    pod = pods()
    clean = pod.state()
    for kind in ("veth", "macvlan") * 3:
        own = networks(own_node, datapath=kind, ipam=inline([range4()]))
        variables = own_node.cni.variables("ADD", pod.container, pod.path, "eth0", "")
        with own_node.cni.start(variables, {"UNDERLAY_TIMEOUT": "2"}) as process:
            _communicate_and_kill(own_node, process, own, chance.uniform(0, 0.004))
        own_node.start_agent()
        own.add(pod).succeed()
        own.check(pod).succeed()
        assert len(own.leases()) == 1
        own.delete(pod).succeed()
        assert pod.state() == clean
        assert own_node.changes() == {}


def _communicate_and_kill(node: Node, process: "subprocess.Popen[bytes]", own: Network, after: float) -> None:
    assert process.stdin
    process.stdin.write(json.dumps(own.conf).encode())
    process.stdin.close()
    time.sleep(after)
    node.kill_agent()


@spec("A-19", "A-2", "G-7")
def test_a_link_that_an_agent_was_killed_right_behind_is_removed(
    own_node: Node, pod: Pod, networks: Callable[..., Network], datapath: str
) -> None:
    """The kernel takes the mark of a link only in a second step."""
    own = networks(own_node, datapath=datapath)
    clean = pod.state()
    own.add(pod).succeed()
    (lease,) = own.leases()
    own_node.kill_agent()
    pod.configure("link set eth0 down", 'link set eth0 alias ""')
    if lease["host_ifname"]:
        own_node.host.configure(f"link set {lease['host_ifname']} down", f'link set {lease["host_ifname"]} alias ""')
    own_node.start_agent()
    own.add(pod).succeed()
    own.check(pod).succeed()
    own.delete(pod).succeed()
    assert pod.state() == clean
    assert own_node.changes() == {}
