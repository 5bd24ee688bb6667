"""The fixtures in a test suite of somebody else, run as pytest runs it."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

Traces = Callable[[], list[str]]

CHECKOUT = Path(__file__).resolve().parents[2]

SUITE = """
import pytest

def topology(name, agent):
    return {{
        "name": name,
        "segments": {{"s": {{"subnets": ["10.1.0.0/24"]}}}},
        "nodes": {{"n": {{"segment": "s", "addresses": ["10.1.0.2"], "agent": agent}}}},
    }}

@pytest.fixture(scope="module")
def shared(make_shared_lab):
    return make_shared_lab(topology("{name}", {{}}))

def test_first(shared):
    shared.marked = shared.id

def test_second(shared, make_lab):
    assert make_lab(topology("{name}", False)).id != shared.marked

def test_failing(shared):
    assert shared.id == 7

def test_waiting(make_lab):
    make_lab(topology("{name}", False)).node("n").run(["sleep", "1000"], timeout=1000)
"""


@pytest.fixture
def suite(lab_name: str, tmp_path: Path) -> Path:
    path = tmp_path / "test_suite.py"
    path.write_text(SUITE.format(name=lab_name))
    return path


def pytest_command(suite: Path, expression: str) -> list[str]:
    return [sys.executable, "-m", "pytest", "-p", "cni_underlay.lab.fixtures", "-k", expression, str(suite)]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(CHECKOUT)}


def test_labs_are_shared_or_not_and_logs_stand_in_failed_reports(suite: Path, traces: Traces) -> None:
    command = pytest_command(suite, "first or second or failing")
    done = subprocess.run(command, cwd=suite.parent, env=environment(), capture_output=True, text=True, check=False)
    assert "1 failed, 2 passed" in done.stdout
    assert "agent of n" in done.stdout
    assert '"msg":"serving"' in done.stdout
    assert traces() == []


def test_a_killed_test_run_is_cleaned_up_by_the_next(suite: Path, traces: Traces) -> None:
    with subprocess.Popen(
        pytest_command(suite, "waiting"), cwd=suite.parent, env=environment(), stdout=subprocess.DEVNULL
    ) as killed:
        deadline = time.monotonic() + 30
        while not any("@switch" in trace for trace in traces()):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        killed.kill()
    assert traces() != []
    command = pytest_command(suite, "first or second")
    done = subprocess.run(command, cwd=suite.parent, env=environment(), capture_output=True, text=True, check=False)
    assert "2 passed" in done.stdout
    assert traces() == []
