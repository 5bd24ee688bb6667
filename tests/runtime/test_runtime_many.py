"""Fifty pods at once, as when a node starts; and the same with an agent that keeps dying."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from cni_underlay.lab.host import Host
from cni_underlay.lab.node import Node
from cni_underlay.lab.vm import Machine

from .bed import evidence
from .bed.cri import CriError
from .bed.kubelet import Kubelet, RunningPod
from .bed.whoami import visit

_PODS = 50
_SERVERS = 5
_AT_ONCE = 32
_KILLS = 3

_In = TypeVar("_In")
_Out = TypeVar("_Out")


def _side_by_side(function: Callable[[_In], _Out], items: Iterable[_In]) -> list[_Out]:
    with ThreadPoolExecutor(max_workers=_AT_ONCE) as threads:
        return list(threads.map(function, items))


def _all_reached(host: Host, pods: Iterable[RunningPod]) -> bool:
    return all(_side_by_side(lambda pod: host.reaches(pod.address), pods))


def test_fifty_pods_started_at_once_are_all_reached_and_leave_nothing(
    kubelet: Kubelet, datapath: str, node: Node, witness: Machine
) -> None:
    before = evidence.kernel(node)
    servers = _side_by_side(lambda _: kubelet.serve(kubelet.pod(datapath)), range(_SERVERS))
    pods = [*servers, *_side_by_side(lambda _: kubelet.run(kubelet.pod(datapath)), range(_PODS - _SERVERS))]
    assert len({address for pod in pods for address in pod.addresses}) == sum(len(pod.addresses) for pod in pods)
    held = {entry["address"] for lease in evidence.leases(node) for entry in lease["addresses"]}
    assert held == {str(address) for pod in pods for address in pod.addresses}
    assert _all_reached(witness, pods)
    assert {visit(witness, server.address).host for server in servers} == {server.pod.name for server in servers}
    _side_by_side(kubelet.remove, pods)
    assert evidence.leases(node) == []
    assert evidence.at_rest(node, before) == before
    assert kubelet.runtime.cri.sandboxes() == ()


def test_pods_that_are_tried_again_all_come_up_although_the_agent_is_killed_again_and_again(
    kubelet: Kubelet, datapath: str, node: Node, witness: Machine
) -> None:
    def run_until_it_runs(_: int) -> RunningPod:
        pod = kubelet.pod(datapath)
        for _ in range(100):
            try:
                return kubelet.run(pod)
            except CriError:
                continue
        raise AssertionError(f"{pod.name} never came up")

    with ThreadPoolExecutor(max_workers=8) as threads:
        trials = [threads.submit(run_until_it_runs, number) for number in range(24)]
        for _ in range(_KILLS):
            node.kill_agent()
            node.start_agent()
        pods = [trial.result() for trial in trials]
    assert sorted(lease["container_id"] for lease in evidence.leases(node)) == sorted(pod.sandbox for pod in pods)
    assert len({pod.address for pod in pods}) == len(pods)
    assert _all_reached(witness, pods)
