"""SIGTERM: what is under way is finished, what is not goes to the next agent."""

import signal
import time

import pytest

from .bed.agent import Agent, ServiceManager, await_true
from .bed.calls import Runtime, finish, hanging
from .bed.node import Node, Pod


def test_an_add_under_way_is_finished_before_the_agent_ends(
    node: Node, agent: Agent, runtime: Runtime, pod: Pod
) -> None:
    gate = hanging(node)
    call = runtime.start("ADD", pod, cniVersion="1.0.0", ipam={"type": "hang"})
    await_true(lambda: (node.directory / "hang.begun").exists(), "the delegate runs")
    agent.process.terminate()
    agent.await_log("stopping")
    gate.touch()
    assert finish(call).address == "10.78.0.9"
    assert agent.process.wait(10) == 0
    assert agent.log()[-1]["msg"] == "stopped"
    assert pod.addresses() == {"10.78.0.9"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_agent_ends_at_once_and_with_success(agent: Agent, number: int) -> None:
    start = time.monotonic()
    agent.process.send_signal(number)
    assert agent.process.wait(10) == 0
    assert time.monotonic() - start < 2


def test_a_stop_right_after_the_start_is_heard(idle_agent: Agent, manager: ServiceManager) -> None:
    process = idle_agent.launch(environment=manager.environment)
    await_true(lambda: idle_agent.log("recovered"), "recovery is over")
    process.terminate()
    assert process.wait(10) == 0


def test_pods_stay_connected_while_no_agent_runs(node: Node, agent: Agent, runtime: Runtime, pod: Pod) -> None:
    address = runtime.add(pod).address
    before = node.kernel()
    agent.stop()
    assert pod.addresses() == {address}
    assert node.kernel() == before
    agent.start()
    assert node.kernel() == before
    assert runtime.delete(pod).status == 0


def test_a_stop_does_not_wait_for_workers_that_nobody_can_wake(node: Node, agent: Agent) -> None:
    node.socket.unlink()
    start = time.monotonic()
    assert agent.stop() == 0
    assert time.monotonic() - start < 5


def test_a_storm_of_signals_neither_kills_nor_deadlocks(agent: Agent) -> None:
    for _ in range(300):
        agent.reload()
    await_true(lambda: agent.log("reloaded"), "a reload")
    assert agent.serves()
    assert agent.stop() == 0
