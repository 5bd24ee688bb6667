"""pytest fixtures for labs: `pytest_plugins = ["cni_underlay.lab.fixtures"]` in a conftest.py.

`make_lab` gives a lab to one test, `make_shared_lab` to all tests of a module; both take what `Lab` takes. When a test
fails, the ends of the agents' logs and of the guests' consoles stand in its report.
"""

import os
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from cni_underlay.lab.guest_vm import GuestVm
from cni_underlay.lab.lab import Lab, sweep
from cni_underlay.lab.node import Node
from cni_underlay.lab.process import tail
from cni_underlay.lab.topology import Topology

MakeLab = Callable[[Topology | Mapping[str, object] | Path | str], Lab]

_running: list[Lab] = []


@pytest.fixture
def make_lab(lab_requirements: None) -> Iterator[MakeLab]:  # noqa: ARG001  # wanted for what it does
    """Brings labs up; they go down after the test."""
    with ExitStack() as stack:
        yield lambda topology: _up(stack, topology)


@pytest.fixture(scope="module")
def make_shared_lab(lab_requirements: None) -> Iterator[MakeLab]:  # noqa: ARG001  # as above
    """Brings labs up; they go down after the module's last test."""
    with ExitStack() as stack:
        yield lambda topology: _up(stack, topology)


@pytest.fixture(scope="session")
def lab_requirements() -> None:
    """Skips where no namespace can be made; takes down what killed test runs left."""
    if os.geteuid() != 0:
        pytest.skip("a lab needs root: it makes network namespaces")
    sweep()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,  # noqa: ARG001  # pytest passes by name
    call: pytest.CallInfo[None],  # noqa: ARG001
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the labs' logs to a failed test's report."""
    report = yield
    if report.failed:
        report.sections.extend(section for lab in _running for section in _logs(lab) if section[1])
    return report


def _up(stack: ExitStack, topology: Topology | Mapping[str, object] | Path | str) -> Lab:
    lab = stack.enter_context(Lab(topology))
    _running.append(lab)
    stack.callback(_running.remove, lab)
    return lab


def _logs(lab: Lab) -> Iterator[tuple[str, str]]:
    for host in lab.hosts:
        if isinstance(host, Node):
            yield f"agent of {host.name}", tail(host.agent.log)
        elif isinstance(host, GuestVm):
            yield f"console of {host.name}", host.console()
