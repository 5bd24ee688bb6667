"""Standard descriptors that are closed, full, broken or odd, and what becomes of an ADD that cannot be printed."""

import json
import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from . import peer
from .peer import Peer, Request
from .runner import Runner


def test_a_closed_standard_input_is_an_error_and_no_call(call: Runner, agent: Peer) -> None:
    agent.start(peer.answer())
    error = call.failure("ADD", prelude="exec 0<&-")
    assert (error["code"], error["msg"]) == (5, "standard input is closed")
    assert agent.requests == []


def test_a_directory_as_standard_input_is_an_error(call: Runner, tmp_path: Path) -> None:
    error = call.failure("ADD", prelude=f"exec 0<{tmp_path}")
    assert (error["code"], error["details"]) == (5, "EISDIR")


def test_a_standard_input_that_is_open_for_writing_only_is_an_error(call: Runner, tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    with os.fdopen(read_end, "rb"), os.fdopen(write_end, "wb") as pipe:
        assert call.failure("ADD", stdin=pipe)["code"] == 5
    assert call.failure("ADD", prelude=f"exec 0>{tmp_path}/file")["code"] == 5


@pytest.mark.parametrize("command", ["ADD", "DEL", "VERSION"])
def test_with_standard_output_closed_nothing_is_done(call: Runner, agent: Peer, command: str) -> None:
    agent.start(peer.answer(0, b"{}"))
    done = call(command, prelude="exec 1>&-")
    assert done.returncode == 1
    assert done.stderr == b"standard output is closed: nothing was done\n"
    assert agent.requests == []


def test_without_standard_error_the_answer_is_printed_alone(call: Runner, agent: Peer) -> None:
    agent.start(peer.answer(0, b"{}", b"a log line\n"))
    done = call("ADD", prelude="exec 2>&-")
    assert (done.returncode, done.stdout) == (0, b"{}")


def test_with_all_of_them_closed_the_client_just_fails(call: Runner, agent: Peer) -> None:
    agent.start(peer.answer(0, b"{}"))
    assert call("ADD", prelude="exec 0<&- 1>&- 2>&-").returncode == 1
    assert agent.requests == []


def test_an_add_whose_result_cannot_be_printed_is_taken_back(call: Runner, agent: Peer, spool: Path) -> None:
    agent.start(peer.answer(0, b'{"ips": []}'), peer.answer(0))
    with Path("/dev/full").open("wb") as full:
        done = call("ADD", b'{"name": "x"}', {"CNI_NETNS": "/proc/self/ns/net"}, stdout=full)
    assert done.returncode == 1
    assert done.stderr == b"cannot write to standard output: ENOSPC\n"
    add, undo = agent.requests
    assert undo.frame == add.frame.replace(b"CNI_COMMAND=ADD\0", b"CNI_COMMAND=DEL\0")
    assert (add.command, undo.command) == (b"ADD", b"DEL")
    assert undo.netns_inode == add.netns_inode is not None
    assert not spool.exists()


def test_an_add_whose_reader_has_left_is_taken_back(call: Runner, agent: Peer) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    agent.start(peer.answer(0, b"{}"), peer.answer(0))
    with os.fdopen(write_end, "wb") as broken:
        done = call("ADD", stdout=broken)
    assert (done.returncode, done.stderr) == (1, b"cannot write to standard output: EPIPE\n")
    assert [request.command for request in agent.requests] == [b"ADD", b"DEL"]


def test_an_add_whose_reader_leaves_in_the_middle_is_taken_back(call: Runner, agent: Peer) -> None:
    agent.start(peer.answer(0, bytes(1 << 20)), peer.answer(0))
    with call.start("ADD") as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(b"{}")
        process.stdin.close()
        assert process.stdout.read(10) == bytes(10)
        process.stdout.close()
        assert process.wait(timeout=20) == 1
    assert [request.command for request in agent.requests] == [b"ADD", b"DEL"]


def test_an_add_that_nobody_can_take_back_is_spooled_as_a_del(
    call: Runner, agent: Peer, spooled: Callable[[], list[Request]]
) -> None:
    def answer_and_die(connection: socket.socket, _request: Request) -> None:
        agent.stop()
        connection.sendall(peer.frame(0, b"{}"))

    agent.start(answer_and_die)
    with Path("/dev/full").open("wb") as full:
        assert call("ADD", stdout=full).returncode == 1
    [undo] = spooled()
    assert undo.frame == agent.requests[0].frame.replace(b"CNI_COMMAND=ADD\0", b"CNI_COMMAND=DEL\0")


def test_the_outcome_of_taking_back_changes_nothing(call: Runner, agent: Peer, spool: Path) -> None:
    agent.start(peer.answer(0, b"{}"), peer.answer(1, b'{"code": 11}', b"log"))
    with Path("/dev/full").open("wb") as full:
        done = call("ADD", stdout=full)
    assert (done.returncode, done.stderr) == (1, b"cannot write to standard output: ENOSPC\n")
    assert not spool.exists()


@pytest.mark.parametrize(("command", "status"), [("ADD", 1), ("CHECK", 0), ("GC", 0), ("DEL", 0), ("ADDX", 0)])
def test_nothing_but_a_successful_add_is_taken_back(call: Runner, agent: Peer, command: str, status: int) -> None:
    agent.start(peer.answer(status, b"{}"))
    with Path("/dev/full").open("wb") as full:
        assert call(command, stdout=full).returncode == 1
    assert [request.command for request in agent.requests] == [command.encode()]


def test_an_empty_answer_needs_no_room(call: Runner, agent: Peer) -> None:
    agent.start(peer.answer(0))
    with Path("/dev/full").open("wb") as full:
        assert call("DEL", stdout=full).returncode == 0


def test_a_log_that_cannot_be_printed_does_not_matter(call: Runner, agent: Peer) -> None:
    agent.start(peer.answer(0, b"{}", b"log"))
    with Path("/dev/full").open("wb") as full:
        done = call("ADD", stderr=full)
    assert (done.returncode, done.stdout) == (0, b"{}")
    assert len(agent.requests) == 1


def test_version_tells_that_it_could_not_be_printed(call: Runner) -> None:
    with Path("/dev/full").open("wb") as full:
        assert call("VERSION", stdout=full).returncode == 1


def test_an_error_that_cannot_be_printed_is_still_a_failure(call: Runner) -> None:
    with Path("/dev/full").open("wb") as full:
        assert call("ADD", stdout=full).returncode == 1


def test_one_pipe_for_both_outputs_gets_the_answer_first(call: Runner, agent: Peer) -> None:
    agent.start(peer.answer(0, b'{"a": 1}\n', b"log\n"))
    done = call("ADD", stderr=subprocess.STDOUT)
    first, second = done.stdout.splitlines()
    assert (json.loads(first), second) == ({"a": 1}, b"log")
