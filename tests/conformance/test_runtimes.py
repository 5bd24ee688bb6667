"""SPEC 15 and 16: sequences of calls that libcni and the container runtimes really make."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from .bed.chain import Chain
from .bed.netns import Pod
from .bed.network import Network, hosts, inline, network_conf, range4
from .bed.node import GATEWAY4, Node
from .bed.stub import Stub

spec = pytest.mark.spec

ARGS = "K8S_POD_INFRA_CONTAINER_ID={id};K8S_POD_UID=uid-1;IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0"


@spec("T-1", "A-2")
def test_a_pod_that_fails_to_start_for_ever_costs_no_address(
    network: Callable[..., Network], node: Node, pods: Callable[[], Pod], stub: Stub
) -> None:
    """The kubelet retries with a new container id each time, and its DEL may be lost."""
    own = network(ipam=inline([{"subnet": "10.89.3.0/29", "gateway": "10.89.3.1"}]))
    for attempt in range(12):
        pod = pods()
        pod.configure("link add eth0 type bridge")
        assert own.add(pod, args=ARGS.format(id=pod.container)).status != 0
        if attempt % 2:
            own.delete(pod, args=ARGS.format(id=pod.container)).succeed()
        pod.remove()
    assert node.changes() == {}
    for _ in range(5):
        own.add(pods()).succeed()


@spec("T-1", "H-4")
def test_a_chain_that_fails_to_start_for_ever_costs_no_address(
    chain: Callable[..., Chain], node: Node, pods: Callable[[], Pod], stub: Stub
) -> None:
    stub.fails("ADD")
    own = chain({"type": stub.name}, ipam=inline([{"subnet": "10.89.3.8/29", "gateway": "10.89.3.9"}]))
    for _ in range(8):
        pod = pods()
        own.try_add(pod).refuse(77)
        own.delete(pod)
        pod.remove()
    assert node.changes() == {}


@spec("T-2", "D-2", "D-3")
def test_a_sandbox_may_be_stopped_again_and_again(
    network: Callable[..., Network], node: Node, pod: Pod, datapath: str
) -> None:
    own = network(version="1.0.0", datapath=datapath)
    args = ARGS.format(id=pod.container)
    own.add(pod, args=args).succeed()
    own.delete(pod, args=args).succeed()
    own.delete(pod, args=args).succeed()
    pod.remove()
    for netns in ("", pod.path, ""):
        own.delete(pod, netns=netns, args=args).succeed()
        own.delete(pod, netns=netns, previous=None).succeed()
    assert node.changes() == {}


@spec("T-3", "D-3", "G-6", "S-3")
def test_after_a_reboot_old_sandboxes_hold_no_address(
    own_node: Node, pods: Callable[[], Pod], networks: Callable[..., Network], tmp_path: Path, datapath: str
) -> None:
    own = networks(own_node, datapath=datapath, ipam=inline([{"subnet": "10.89.4.0/29", "gateway": "10.89.4.1"}]))
    old = [pods() for _ in range(5)]
    for pod in old:
        own.add(pod).succeed()
    _reboot(own_node, old, tmp_path)
    assert own.leases() == []
    new = [pods() for _ in range(5)]
    for pod in new:
        own.add(pod).succeed()
    for pod in old:
        own.delete(pod).succeed()
    assert len(own.leases()) == len(new)
    for pod in new:
        own.check(pod).succeed()


@spec("T-3", "G-6")
@pytest.mark.parametrize("verb", ["DEL", "GC"])
def test_after_a_reboot_del_and_gc_succeed(
    own_node: Node, pod: Pod, networks: Callable[..., Network], tmp_path: Path, verb: str
) -> None:
    own = networks(own_node)
    own.add(pod).succeed()
    _reboot(own_node, [pod], tmp_path)
    if verb == "GC":
        own.collect().succeed()
    else:
        own.delete(pod).succeed()
    assert own_node.changes() == {}


def _reboot(node: Node, pods: list[Pod], tmp_path: Path) -> None:
    """The power is cut: namespaces and /run are gone, the disk stays, and the kernel has another boot id."""
    boot_id = tmp_path / "boot_id"
    boot_id.write_text("11111111-2222-3333-4444-555555555555\n")
    node.kill_agent()
    for namespace in (*pods, node.switch, node.host, node.machine):
        namespace.remove()
    for path in (node.socket, *(node.spool.iterdir() if node.spool.exists() else ())):
        path.unlink(missing_ok=True)
    script = f'/bin/mount --bind {boot_id} /proc/sys/kernel/random/boot_id && exec "$@"'
    node.launcher = ("/usr/bin/unshare", "--mount", "/bin/sh", "-c", script, "sh")
    node.wire()
    node.start_agent()
    node.clean = node.state() | {"leases": []}


@spec("T-4", "D-4")
def test_an_agent_restarted_between_add_and_del_knows_what_it_made(
    own_node: Node, pods: Callable[[], Pod], networks: Callable[..., Network], datapath: str
) -> None:
    own = networks(own_node, datapath=datapath)
    pod, other = pods(), pods()
    first = own.add(pod).result
    for stop in (own_node.stop_agent, own_node.kill_agent):
        stop()
        own_node.start_agent()
        own.check(pod).succeed()
        assert pod.reaches(GATEWAY4)
    own.add(other).succeed()
    assert not set(hosts(own.result(other))) & set(hosts(first))
    own.delete(pod, extra={"ipam": inline([range4(200, 210)])}).succeed()
    own.delete(other).succeed()


@spec("T-5", "D-3", "D-4")
def test_a_stopped_agent_keeps_no_pod_from_going_away(
    own_node: Node, pods: Callable[[], Pod], networks: Callable[..., Network], datapath: str
) -> None:
    own = networks(own_node, datapath=datapath)
    with_namespace, without = pods(), pods()
    own.add(with_namespace).succeed()
    own.add(without).succeed()
    before = with_namespace.links() - {"eth0"}
    own_node.kill_agent()
    own.delete(with_namespace).succeed()
    without.remove()
    own.delete(without, netns="").succeed()
    own.add(with_namespace).refuse(11)
    own_node.start_agent()
    assert own.leases() == []
    assert with_namespace.links() == before
    assert own_node.changes() == {}


@spec("T-6", "D-7")
def test_a_pod_of_the_hosts_network_is_never_touched(own_node: Node) -> None:
    conf = network_conf("hostnetwork", datapath="veth", version="1.0.0", ipam=inline())
    for netns in (own_node.host.path, "/proc/self/ns/net"):
        own_node.cni("DEL", conf, container="hostnet", netns=netns, ifname="eth0").succeed()
    assert own_node.changes() == {}


@spec("C-9", "C-3", "T-1")
@pytest.mark.parametrize("version", ["0.4.0", "1.0.0", "1.1.0"])
def test_crio_checks_right_after_add_with_what_its_library_kept(
    network: Callable[..., Network], pod: Pod, datapath: str, version: str
) -> None:
    own = network(version=version, datapath=datapath)
    result = own.add(pod).result
    kept = json.loads(json.dumps(result, sort_keys=True))
    own.check(pod, previous=kept).succeed()
    own.check(pod, previous=kept | {"cniVersion": version}).succeed()


@spec("A-4", "C-3")
def test_an_answer_that_a_restart_swallowed_is_given_again(
    own_node: Node, pod: Pod, networks: Callable[..., Network], datapath: str
) -> None:
    own = networks(own_node, datapath=datapath)
    first = own.add(pod).result
    own_node.kill_agent()
    own_node.start_agent()
    again = own.add(pod)
    if again.status == 0:
        assert again.result == first
    assert len(own.leases()) == 1
    own.check(pod, previous=first).succeed()
    own.delete(pod).succeed()


@spec("V-1", "V-2")
@pytest.mark.parametrize("version", ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"])
def test_every_configurations_version_is_listed_when_crio_loads_it(node: Node, version: str) -> None:
    env: dict[str, str | bytes | None] = dict.fromkeys(("CNI_NETNS", "CNI_IFNAME", "CNI_PATH"), "dummy")
    answer = node.cni("VERSION", {"cniVersion": version}, env=env).result
    assert version in answer["supportedVersions"]
