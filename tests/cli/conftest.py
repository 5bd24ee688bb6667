"""A node with an agent and two pods, and underlayctl as a process."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ..agent.bed.agent import Agent
from ..agent.bed.calls import Runtime
from ..agent.bed.node import Node, made

Ctl = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with made(tmp_path_factory.mktemp("cli")) as node:
        yield node


@pytest.fixture(scope="module")
def agent(node: Node) -> Iterator[Agent]:
    """An agent that serves a veth pod and a macvlan pod, and has freed one address."""
    with Agent(node=node) as agent:
        agent.configure()
        agent.start()
        runtime = Runtime(node=node)
        for datapath in ("veth", "macvlan"):
            runtime.add(node.make_pod(), datapath=datapath).succeed()
        gone = node.make_pod()
        runtime.add(gone).succeed()
        runtime.delete(gone).succeed()
        yield agent


@pytest.fixture
def running(agent: Agent) -> Agent:
    """The agent, serving."""
    if agent.process is None or agent.process.poll() is not None:
        agent.start()
    return agent


@pytest.fixture
def absent(running: Agent) -> Agent:
    """The agent, stopped; its ledger is there."""
    running.stop()
    return running


def run(*arguments: str | Path, environment: dict[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
    """underlayctl from start to end; whatever happens, no trace of Python is seen."""
    variables = {key: value for key, value in os.environ.items() if key != "UNDERLAY_SOCKET"}
    done = subprocess.run(
        [sys.executable, "-m", "cni_underlay.cli", *map(str, arguments)],
        env={**variables, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture
def ctl(agent: Agent) -> Ctl:
    """underlayctl with the node's configuration."""
    return lambda *arguments, **options: run("--config", agent.config, *arguments, **options)


@pytest.fixture
def bare() -> Ctl:
    """underlayctl alone."""
    return run
