"""Requests that wait for somebody else: delegates that hang, locks that are held. The rest is served meanwhile."""

import time
from contextlib import ExitStack

from .bed.agent import Agent, await_true
from .bed.calls import Runtime, finish, hanging
from .bed.node import Node, Pod

WORKERS = 64
DELEGATED = {"cniVersion": "1.0.0", "ipam": {"type": "hang"}}


def begun(node: Node) -> int:
    path = node.directory / "hang.begun"
    return len(path.read_text().splitlines()) if path.exists() else 0


def test_more_hanging_delegates_than_workers_leave_status_and_other_pods_served(
    node: Node, agent: Agent, runtime: Runtime, pod: Pod
) -> None:
    gate = hanging(node)
    pods = [node.make_pod() for _ in range(WORKERS + 6)]
    with ExitStack() as stack:
        calls = [runtime.start("ADD", each, **DELEGATED) for each in pods]
        for call in calls:
            stack.callback(finish, call)
        stack.callback(gate.touch)
        await_true(lambda: begun(node) == len(pods), "all the delegates run", 60)
        start = time.monotonic()
        assert runtime("STATUS").status == 0
        assert time.monotonic() - start < 1
        assert runtime.add(pod).status == 0
        assert runtime.delete(pod).status == 0


def test_requests_for_one_attachment_follow_each_other(node: Node, agent: Agent, runtime: Runtime, pod: Pod) -> None:
    gate = hanging(node)
    first = runtime.start("ADD", pod, **DELEGATED)
    await_true(lambda: begun(node) == 1, "the delegate runs")
    second = runtime.start("DEL", pod, **DELEGATED)
    other = node.make_pod()
    assert runtime.add(other).status == 0
    assert second.poll() is None
    gate.touch()
    assert finish(first).address == "10.78.0.9"
    assert finish(second).status == 0
    assert pod.addresses() == set()
    assert [lease["container_id"] for lease in agent.leases()] == [other.container]


def test_a_gc_neither_waits_for_an_add_at_work_nor_takes_its_attachment(
    node: Node, agent: Agent, runtime: Runtime, pod: Pod
) -> None:
    gate = hanging(node)
    stale = node.make_pod()
    runtime.add(stale).succeed()
    call = runtime.start("ADD", pod, **DELEGATED)
    await_true(lambda: begun(node) == 1, "the delegate runs")
    start = time.monotonic()
    runtime("GC", **{"cni.dev/valid-attachments": []}).succeed()
    assert time.monotonic() - start < 5
    gate.touch()
    assert finish(call).address == "10.78.0.9"
    assert pod.addresses() == {"10.78.0.9"}
    assert [lease["container_id"] for lease in agent.leases()] == [pod.container]


def test_a_delegate_that_never_ends_is_killed_with_its_children(node: Node, agent: Agent, runtime: Runtime) -> None:
    node.write_plugin("sleeper", [f"sleep 300 & echo $! > {node.directory}/child", "wait"])
    start = time.monotonic()
    outcome = runtime("STATUS", cniVersion="1.1.0", ipam={"type": "sleeper"})
    assert outcome.code == 11
    assert "sleeper" in outcome.error["msg"]
    assert time.monotonic() - start < 10
    child = int((node.directory / "child").read_text())
    await_true(lambda: not _runs(child), "the delegate's child is gone")


def _runs(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as stat:  # noqa: PTH123
            return stat.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_a_burst_larger_than_the_workers_is_served_whole(node: Node, agent: Agent, runtime: Runtime) -> None:
    calls = [runtime.start("STATUS") for _ in range(3 * WORKERS)]
    assert {finish(call).status for call in calls} == {0}
