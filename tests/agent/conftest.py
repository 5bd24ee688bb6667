"""A node, its agent, its runtime; all of it real, private, and gone after each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from .bed.agent import Agent, ServiceManager
from .bed.calls import Runtime
from .bed.node import Node, Pod, made


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with made(tmp_path) as node:
        yield node


@pytest.fixture
def idle_agent(node: Node) -> Iterator[Agent]:
    """Configured, and not started."""
    with Agent(node=node) as agent:
        agent.configure()
        yield agent
        if agent.log_path.exists():
            print(agent.log_path.read_text()[-20000:])  # noqa: T201  # pytest shows it where the test fails


@pytest.fixture
def agent(idle_agent: Agent) -> Agent:
    """An agent that serves."""
    idle_agent.start()
    return idle_agent


@pytest.fixture
def runtime(node: Node) -> Runtime:
    return Runtime(node=node)


@pytest.fixture
def pod(node: Node) -> Pod:
    return node.make_pod()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[ServiceManager]:
    with ServiceManager(tmp_path / "notify") as manager:
        yield manager
