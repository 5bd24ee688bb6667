"""`guest run`: a command on Debian's kernel that sees this machine's files and cannot change them."""

import os
import subprocess
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]


def guest_run(*command: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "cni_underlay.lab.guest", "run", *options, "--", *command]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "GREETING": "hello there"}
    return subprocess.run(argv, cwd=CHECKOUT, env=environment, capture_output=True, text=True, timeout=200, check=False)


WRITTEN = CHECKOUT / f"written-in-a-guest-{uuid.uuid4().hex}"
SCRIPT = f"""
    pwd; id -u; echo "$GREETING"; echo "$UNDERLAY_GUEST"; uname -r
    touch /tmp/x /run/x /dev/shm/x
    echo here > {WRITTEN}; cat {WRITTEN}
    ip link add d0 type dummy
    ip link add link d0 name i0 type ipvlan mode l2 && echo ipvlan
    ip link add link d0 name v0 type vlan id 7 && echo vlan
    {sys.executable} -c 'import msgspec, cni_underlay; print("imported")'
    echo "to the other stream" >&2
    exit 7"""


@pytest.fixture(scope="module")
def done(lab_requirements: None) -> subprocess.CompletedProcess[str]:
    """One command that tries everything."""
    return guest_run("sh", "-c", SCRIPT)


def test_a_command_runs_in_the_same_place_as_root(done: subprocess.CompletedProcess[str]) -> None:
    assert done.stdout.splitlines()[:4] == [str(CHECKOUT), "0", "hello there", "1"]


def test_its_status_and_its_streams_come_back_apart(done: subprocess.CompletedProcess[str]) -> None:
    assert (done.returncode, done.stderr) == (7, "to the other stream\n")


def test_the_kernel_is_another_one(done: subprocess.CompletedProcess[str]) -> None:
    assert done.stdout.splitlines()[4] != os.uname().release


def test_what_it_writes_does_not_reach_this_machine(done: subprocess.CompletedProcess[str]) -> None:
    assert done.stdout.splitlines()[5] == "here"
    assert not WRITTEN.exists()


def test_links_of_kinds_in_modules_can_be_made(done: subprocess.CompletedProcess[str]) -> None:
    assert done.stdout.splitlines()[6:8] == ["ipvlan", "vlan"]


def test_this_interpreter_runs_there_with_its_packages(done: subprocess.CompletedProcess[str]) -> None:
    assert done.stdout.splitlines()[8] == "imported"


def test_a_command_that_takes_too_long_is_124() -> None:
    done = guest_run("sh", "-c", "echo started; sleep 1000", options=("--timeout", "1"))
    assert (done.returncode, done.stdout) == (124, "started\n")


def test_a_guest_that_cannot_start_says_why() -> None:
    done = guest_run("true", options=("--memory", "1"))
    assert done.returncode == 125
    assert "without the command's status" in done.stderr


def test_two_guests_run_at_once_and_large_output_arrives_whole() -> None:
    with ThreadPoolExecutor(2) as pool:
        runs = pool.map(lambda word: guest_run("sh", "-c", f"yes {word} | head -n 300000"), ("one", "two"))
    assert [done.stdout for done in runs] == ["one\n" * 300_000, "two\n" * 300_000]
