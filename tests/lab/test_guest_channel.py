"""Commands in the QEMU guest give what they would give here: output, errors, status, time."""

import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from cni_underlay.lab.errors import GuestError
from cni_underlay.lab.fixtures import MakeLab
from cni_underlay.lab.guest_vm import GuestVm
from cni_underlay.lab.host import Host

TOPOLOGY: dict[str, Any] = {
    "segments": {"s": {"subnets": ["10.1.0.0/24"]}},
    "vms": {"g": {"segment": "s", "kind": "qemu", "addresses": ["10.1.0.4"], "http": False}},
}


@pytest.fixture(scope="module")
def guest(make_shared_lab: MakeLab) -> Host:
    return make_shared_lab(TOPOLOGY).vm("g")


def test_output_errors_and_status_come_back(guest: Host) -> None:
    done = guest.run(["sh", "-c", "echo out; echo err >&2; exit 7"])
    assert (done.stdout, done.stderr, done.returncode) == ("out\n", "err\n", 7)


def test_arguments_arrive_as_they_are(guest: Host) -> None:
    argument = "a b'c\"d$e\\f\ng*ü"
    assert guest.output(["printf", "%s", argument]) == argument


def test_standard_input_arrives_and_ends(guest: Host) -> None:
    assert guest.output(["cat"], stdin="one\ntwo") == "one\ntwo"
    assert guest.output(["cat"]) == ""


def test_a_missing_command_is_status_127(guest: Host) -> None:
    assert guest.run(["no-such-command"]).returncode == 127


def test_a_megabyte_comes_back_whole(guest: Host) -> None:
    assert guest.output(["sh", "-c", "yes 0123456789abcde | head -n 65536"]) == "0123456789abcde\n" * 65536


def test_a_request_larger_than_a_pipe_arrives_whole(guest: Host) -> None:
    assert guest.output(["wc", "-c"], stdin="x" * 200_000).strip() == "200000"


def test_a_command_that_takes_too_long_is_killed_and_the_channel_goes_on(guest: Host) -> None:
    started = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired):
        guest.run(["sleep", "60"], timeout=0.5)
    assert time.monotonic() - started < 5
    # More than there are channels, so that the one with the killed command has its turn.
    for _ in range(6):
        assert guest.output(["echo", "on"]) == "on\n"


def test_more_commands_than_channels_run_side_by_side(guest: Host) -> None:
    with ThreadPoolExecutor(8) as pool:
        outputs = list(pool.map(lambda n: guest.output(["sh", "-c", f"sleep 0.2; echo {n}"]), range(8)))
    assert outputs == [f"{n}\n" for n in range(8)]


def test_a_guest_without_power_says_so_and_can_be_booted_again(guest: Host) -> None:
    assert isinstance(guest, GuestVm)
    guest.power_off()
    guest.power_off()
    assert guest.process is None
    with pytest.raises(GuestError, match="does not run"):
        guest.run(["true"])
    guest.power_on()
    assert guest.output(["hostname"]) == "g\n"
    with pytest.raises(GuestError, match="runs already"):
        guest.power_on()
