"""`guest run`: a command on Debian's kernel that sees this machine's files and cannot change them."""

import os
import subprocess
import sys
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]

GuestRun = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def guest_run(lab_requirements: None) -> GuestRun:
    def run(*command: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "cni_underlay.lab.guest", "run", *options, "--", *command]
        environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "GREETING": "hello there"}
        return subprocess.run(
            argv, cwd=CHECKOUT, env=environment, capture_output=True, text=True, timeout=120, check=False
        )

    return run


def test_a_command_runs_as_here_but_on_another_kernel(guest_run: GuestRun) -> None:
    script = """
        pwd; id -u; echo "$GREETING"; uname -v >&2
        ip link add d0 type dummy
        ip link add link d0 name i0 type ipvlan mode l2
        ip link add link d0 name v0 type vlan id 7
        ip -brief link show i0; ip -brief link show v0
        cat /proc/1/comm; touch /tmp/x /run/x /dev/shm/x; echo "$UNDERLAY_GUEST"
        exit 7"""
    done = guest_run("sh", "-c", script)
    lines = done.stdout.splitlines()
    assert done.returncode == 7
    assert lines[:3] == [str(CHECKOUT), "0", "hello there"]
    assert [line.split()[0] for line in lines[3:5]] == ["i0@d0", "v0@d0"]
    assert lines[6] == "1"
    assert "Debian" in done.stderr


def test_what_it_writes_does_not_reach_this_machine(guest_run: GuestRun) -> None:
    path = CHECKOUT / f"written-in-a-guest-{uuid.uuid4().hex}"
    done = guest_run("sh", "-c", f"echo here > {path} && cat {path}")
    assert done.stdout == "here\n"
    assert not path.exists()


def test_this_interpreter_runs_there_with_its_packages(guest_run: GuestRun) -> None:
    done = guest_run(sys.executable, "-c", "import yaml, msgspec, platform; print(platform.release())")
    assert done.stderr == ""
    assert done.stdout.strip() != os.uname().release


def test_a_command_that_takes_too_long_is_124(guest_run: GuestRun) -> None:
    done = guest_run("sh", "-c", "echo started; sleep 1000", options=("--timeout", "6"))
    assert (done.returncode, done.stdout) == (124, "started\n")


def test_a_guest_that_cannot_start_says_why(guest_run: GuestRun) -> None:
    done = guest_run("true", options=("--memory", "1"))
    assert done.returncode == 125
    assert "without the command's status" in done.stderr


def test_two_guests_run_at_once(guest_run: GuestRun) -> None:
    with ThreadPoolExecutor(2) as pool:
        outputs = [done.stdout for done in pool.map(lambda word: guest_run("echo", word), ("one", "two"))]
    assert outputs == ["one\n", "two\n"]
