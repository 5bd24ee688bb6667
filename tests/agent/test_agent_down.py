"""What the client answers while no agent does."""

import signal

import pytest

from .bed.agent import Agent
from .bed.calls import Runtime
from .bed.node import Node, Pod

CODES = {"ADD": 11, "CHECK": 11, "GC": 11, "STATUS": 50}


@pytest.fixture(params=["never started", "killed", "stopped for good", "hangs"])
def absent(request: pytest.FixtureRequest, idle_agent: Agent, runtime: Runtime) -> Agent:
    """An agent that does not answer, for each reason."""
    if request.param != "never started":
        idle_agent.start()
    if request.param == "killed":
        idle_agent.kill()
    if request.param == "stopped for good":
        idle_agent.stop()
    if request.param == "hangs":
        idle_agent.process.send_signal(signal.SIGSTOP)
        runtime.environment["UNDERLAY_TIMEOUT"] = "0.3"
    return idle_agent


@pytest.mark.parametrize("verb", CODES)
def test_each_verb_fails_with_its_code(absent: Agent, runtime: Runtime, pod: Pod, verb: str) -> None:
    outcome = runtime(verb, pod)
    assert outcome.code == CODES[verb]
    assert "underlayd" in outcome.error["msg"]


def test_version_is_answered(absent: Agent, runtime: Runtime) -> None:
    assert runtime("VERSION").result["supportedVersions"][-1] == "1.1.0"


def test_del_succeeds_and_is_kept_on_disk(absent: Agent, node: Node, runtime: Runtime, pod: Pod) -> None:
    outcome = runtime.delete(pod)
    assert (outcome.status, outcome.stdout) == (0, b"")
    (name,) = node.spooled()
    assert name.endswith(".del")


def test_what_was_left_in_the_spool_is_gone_when_the_agent_is_back(
    node: Node, agent: Agent, runtime: Runtime, pod: Pod
) -> None:
    runtime.add(pod)
    agent.kill()
    for _ in range(3):
        assert runtime.delete(pod).status == 0
    agent.start()
    assert node.spooled() == []
    assert agent.leases() == []
