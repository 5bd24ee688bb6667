"""Agent and containerd may die, be late or be told something else between a pod's start and its end."""

import pytest

from cni_underlay.lab.node import Node

from .bed import evidence
from .bed.cri import CriError
from .bed.kubelet import Kubelet
from .bed.networks import NETWORKS, conflist
from .bed.whoami import visit


def test_a_pod_outlives_its_agent_and_is_stopped_by_the_next(kubelet: Kubelet, datapath: str, node: Node) -> None:
    server = kubelet.serve(kubelet.pod(datapath))
    node.kill_agent()
    assert visit(node, server.address).host == server.pod.name
    node.start_agent()
    assert visit(node, server.address).host == server.pod.name
    assert [lease["container_id"] for lease in evidence.leases(node)] == [server.sandbox]
    kubelet.remove(server)
    assert evidence.leases(node) == []


def test_a_pod_is_removed_without_the_agent_which_makes_good_for_it_later(
    kubelet: Kubelet, datapath: str, node: Node
) -> None:
    pod = kubelet.run(kubelet.pod(datapath))
    spool = node.agent.socket.parent / "spool"
    node.kill_agent()
    kubelet.remove(pod)
    assert kubelet.runtime.cri.sandboxes() == ()
    assert list(spool.glob("*.del"))
    node.start_agent()
    assert evidence.leases(node) == []
    assert list(spool.iterdir()) == []
    assert evidence.history(node, pod.address).count("quarantined") == 1


def test_without_the_agent_a_pod_is_refused_in_words_and_with_it_runs(
    kubelet: Kubelet, datapath: str, node: Node
) -> None:
    pod = kubelet.pod(datapath)
    node.stop_agent()
    with pytest.raises(CriError, match=f"underlayd is not reachable at {node.agent.socket}: is it running"):
        kubelet.run(pod)
    assert kubelet.runtime.cri.sandboxes() == ()
    node.start_agent()
    server = kubelet.serve(pod)
    assert visit(node, server.address).host == pod.name


def test_a_pod_that_finds_the_pool_exhausted_is_told_so_and_runs_when_another_has_gone(
    kubelet: Kubelet, node: Node
) -> None:
    pods = [kubelet.run(kubelet.pod("tiny")) for _ in range(2)]
    late = kubelet.pod("tiny")
    with pytest.raises(CriError, match="pool two"):
        kubelet.run(late)
    assert len(kubelet.runtime.cri.sandboxes()) == len(pods)
    assert len(evidence.leases(node)) == len(pods)
    kubelet.remove(pods[0])
    assert kubelet.run(late).address == pods[0].address


def test_a_pod_is_stopped_by_a_containerd_that_was_killed_meanwhile(
    kubelet: Kubelet, datapath: str, node: Node
) -> None:
    server = kubelet.serve(kubelet.pod(datapath))
    kubelet.runtime.crash()
    assert visit(node, server.address).host == server.pod.name
    assert kubelet.runtime.cri.sandbox_status(server.sandbox).ready
    kubelet.remove(server)
    assert evidence.leases(node) == []


def test_a_pod_is_stopped_although_its_network_was_rewritten_meanwhile(kubelet: Kubelet, node: Node) -> None:
    pod = kubelet.run(kubelet.pod())
    rewritten = conflist("veth", "macvlan", pool="two")
    try:
        kubelet.runtime.reconfigure(rewritten)
        kubelet.remove(pod)
        assert evidence.leases(node) == []
    finally:
        kubelet.runtime.reconfigure(NETWORKS["veth"])
