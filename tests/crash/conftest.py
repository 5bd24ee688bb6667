"""The node, agent and runtime of tests/agent, for agents that are killed."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ..agent.bed.agent import Agent
from ..agent.bed.calls import Runtime
from ..agent.bed.node import Node, made


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with made(tmp_path) as node:
        yield node


@pytest.fixture
def agent(node: Node) -> Iterator[Agent]:
    """Configured, and not started."""
    with Agent(node=node) as agent:
        agent.configure()
        yield agent
        print(agent.log_path.read_text()[-20000:])  # noqa: T201  # pytest shows it where the test fails


@pytest.fixture
def runtime(node: Node) -> Runtime:
    return Runtime(node=node)
