"""Labs for the tests of the lab itself, and a look at the machine that must show nothing of them afterwards."""

import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from cni_underlay.lab import registry
from cni_underlay.lab.lab import demolish

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture
def lab_name() -> Iterator[str]:
    """A name that only this test uses; labs that it leaves are taken down."""
    name = f"t{secrets.token_hex(4)}"
    try:
        yield name
    finally:
        for lab in registry.labs():
            if lab.id.startswith(f"{name}-"):
                demolish(lab)


@pytest.fixture
def traces(lab_name: str) -> Callable[[], list[str]]:
    """Tells what there is of the labs of that name: directories, mounts, and processes ("PID: COMMAND")."""

    def look() -> list[str]:
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        return [
            *(str(path) for path in Path("/run").glob(f"*/*{lab_name}*")),
            *(line for line in mounts if lab_name in line),
            *_processes(f"cni-underlay-lab/{lab_name}"),
        ]

    return look


def _processes(text: str) -> Iterator[str]:
    """Processes with the text in their command: agents, HTTP servers and QEMU name their lab's directory."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it has ended
            continue
        if text in command:
            yield f"{path.parent.name}: {command}"


@pytest.fixture
def lab_file(lab_name: str, tmp_path: Path) -> Callable[[dict[str, object]], Path]:
    """Writes a topology under the test's own name."""

    def write(topology: dict[str, object]) -> Path:
        path = tmp_path / "lab.yaml"
        path.write_text(yaml.safe_dump({**topology, "name": lab_name}))
        return path

    return write


@pytest.fixture
def lab_command() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs scripts/lab to its end."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [str(CHECKOUT / "scripts/lab"), *map(str, arguments)]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=120, check=False, stdin=subprocess.DEVNULL
        )

    return run


@pytest.fixture
def start_lab_command() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts the same without waiting; as one process, so that killing it kills all there is."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "cni_underlay.lab", *map(str, arguments)]
        environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
        started.append(
            subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True)
        )
        return started[-1]

    try:
        yield start
    finally:
        for process in started:
            process.kill()
            process.wait()
