"""What the client says when there is no answer: the codes, the words, the limits of its patience."""

import json
import os
import socket
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from . import peer
from .peer import Peer, Request
from .runner import Runner

CODES = [("ADD", 11), ("CHECK", 11), ("GC", 11), ("nonsense", 11), ("STATUS", 50)]
GARBAGE = {
    "another magic": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "a status above 255": b"UNL1" + (256).to_bytes(4, "big") + bytes(8),
    "more than 8 MiB of output": b"UNL1" + bytes(4) + ((8 << 20) + 1).to_bytes(4, "big") + bytes(4),
    "4 GiB of log": b"UNL1" + bytes(8) + b"\xff" * 4,
}


@pytest.mark.parametrize(("command", "code"), CODES)
def test_without_an_agent_the_failure_says_where_it_should_be(call: Runner, command: str, code: int) -> None:
    error = call.failure(command)
    assert error["code"] == code
    assert error["msg"] == f"underlayd is not reachable at {call.socket}: is it running?"
    assert error["details"] == "connect: ENOENT"


def test_without_a_setting_the_socket_is_the_default_one(client: Path) -> None:
    if Path("/run/cni-underlay/agent.sock").exists():
        pytest.skip("an agent serves this machine")
    env = {"CNI_COMMAND": "ADD", "UNDERLAY_SOCKET": ""}
    done = subprocess.run([client], env=env, input=b"{}", capture_output=True, check=False)
    assert "not reachable at /run/cni-underlay/agent.sock:" in json.loads(done.stdout)["msg"]


def test_an_agent_that_left_its_socket_behind_refuses(call: Runner, agent: Peer) -> None:
    agent.listen()
    agent.stop()
    assert call.failure("ADD")["details"] == "connect: ECONNREFUSED"


def test_a_path_that_is_no_socket_is_refused(call: Runner) -> None:
    error = call.failure("STATUS", env={"UNDERLAY_SOCKET": "/etc/passwd"})
    assert (error["code"], error["details"]) == (50, "connect: ECONNREFUSED")


@pytest.mark.parametrize("command", ["ADD", "DEL", "STATUS"])
def test_a_socket_path_that_no_socket_can_have_is_the_settings_fault(call: Runner, command: str) -> None:
    error = call.failure(command, env={"UNDERLAY_SOCKET": "/" + "x" * 107})
    assert error["code"] == 4
    assert "at most 107 bytes" in error["msg"]
    assert call.failure("ADD", env={"UNDERLAY_SOCKET": "/" + "x" * 106})["code"] == 11


@pytest.mark.parametrize("timeout", ["0", "-1", "nan", "inf", "1e9", "5s", "x", " ", "0x"])
def test_a_time_that_is_none_is_the_settings_fault(call: Runner, timeout: str) -> None:
    error = call.failure("ADD", env={"UNDERLAY_TIMEOUT": timeout})
    assert (error["code"], error["details"]) == (4, timeout)
    assert "UNDERLAY_TIMEOUT" in error["msg"]


@pytest.mark.parametrize(("command", "code"), CODES)
def test_a_connection_that_ends_is_tried_once_more_and_reported(
    call: Runner, agent: Peer, command: str, code: int
) -> None:
    agent.start(peer.drop)
    error = call.failure(command)
    assert error["code"] == code
    assert error["msg"] == f"underlayd at {call.socket} closed the connection before it had answered: see its log"
    assert len(agent.requests) == 2


def test_an_agent_that_replaced_another_gets_the_same_request_again(call: Runner, agent: Peer) -> None:
    agent.start(peer.drop, peer.answer(0, b"{}"))
    done = call("ADD", os.urandom(1 << 20), {"CNI_NETNS": "/proc/self/ns/net"})
    assert (done.returncode, done.stdout) == (0, b"{}")
    first, second = agent.requests
    assert first.frame == second.frame
    assert first.netns_inode == second.netns_inode is not None


def test_requests_in_the_backlog_of_an_agent_that_dies_reach_the_next(call: Runner, agent: Peer) -> None:
    agent.listen()
    with call.start("ADD", {"UNDERLAY_TIMEOUT": "20"}) as process:
        assert process.stdin
        process.stdin.write(b"{}")
        process.stdin.close()
        _await_connections(agent.path, 1)
        with ExitStack() as cleanup:
            # As a restart does it: the successor takes the name over, then the old socket ends with its backlog.
            successor = Peer(agent.path.with_name("next.sock"))
            cleanup.callback(successor.close)
            successor.start(peer.answer(0, b'{"by": "the next"}'))
            successor.path.rename(agent.path)
            agent.stop()
            assert process.wait(timeout=20) == 0
        assert process.stdout
        assert process.stdout.read() == b'{"by": "the next"}'


def test_an_answer_that_breaks_off_is_not_printed_and_not_asked_for_again(call: Runner, agent: Peer) -> None:
    agent.start(peer.send(peer.frame(0, b"x" * 100_000)[:-1]))
    assert call.failure("ADD")["code"] == 11
    assert len(agent.requests) == 1


def test_a_header_that_breaks_off_is_no_answer(call: Runner, agent: Peer) -> None:
    agent.start(peer.send(b"UNL1\0\0\0"))
    assert call.failure("STATUS")["code"] == 50
    assert len(agent.requests) == 1


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE.keys())
def test_what_is_no_answer_of_ours_is_not_believed(call: Runner, agent: Peer, garbage: bytes) -> None:
    agent.start(peer.send(garbage))
    error = call.failure("ADD")
    assert error["code"] == 11
    assert "not one of underlayd's" in error["msg"]


def test_every_exit_status_passes(call: Runner, agent: Peer) -> None:
    agent.start(*(peer.answer(status) for status in (0, 1, 125, 255)))
    assert [call("GC").returncode for _ in range(4)] == [0, 1, 125, 255]


@pytest.mark.parametrize("leaves", ["stays", "goes"])
def test_an_answer_to_a_request_that_was_not_read_is_printed(call: Runner, agent: Peer, leaves: str) -> None:
    """An agent that refuses a frame by its header need not read the other 8 MiB."""
    agent.listen()
    with call.start("ADD", {"UNDERLAY_TIMEOUT": "20"}) as process, ExitStack() as cleanup:
        assert process.stdin
        process.stdin.write(bytes(8 << 20))
        process.stdin.close()
        connection = cleanup.enter_context(agent.accept())
        assert connection.recv(20)
        connection.sendall(peer.frame(1, b'{"code": 7}'))
        if leaves == "goes":
            connection.close()
        assert process.wait(timeout=20) == 1
        assert process.stdout
        assert process.stdout.read() == b'{"code": 7}'


@pytest.mark.parametrize(("command", "code"), CODES)
def test_an_agent_that_never_answers_is_waited_for_no_longer_than_set(
    call: Runner, agent: Peer, command: str, code: int
) -> None:
    agent.start(peer.wait)
    start = time.monotonic()
    error = call.failure(command, env={"UNDERLAY_TIMEOUT": "0.3"})
    assert 0.3 <= time.monotonic() - start < 10
    assert error["code"] == code
    assert error["msg"] == f"underlayd at {call.socket} did not answer within 0.3 s: see its log"
    assert error["details"] == "receive"
    assert len(agent.requests) == 1


def test_an_answer_that_trickles_does_not_prolong_the_wait(call: Runner, agent: Peer) -> None:
    def trickle(connection: socket.socket, _request: Request) -> None:
        connection.sendall(peer.frame(0, b"x" * 1000)[:-1000])
        while True:
            connection.sendall(b"x")
            time.sleep(0.05)  # the behaviour that is tested, not a wait for something

    agent.start(trickle)
    start = time.monotonic()
    assert "did not answer within 0.3 s" in call.failure("ADD", env={"UNDERLAY_TIMEOUT": "0.3"})["msg"]
    assert time.monotonic() - start < 10


def test_a_request_that_nobody_reads_ends_in_time(call: Runner, agent: Peer) -> None:
    agent.listen()
    error = call.failure("ADD", bytes(8 << 20), {"UNDERLAY_TIMEOUT": "0.3"})
    assert (error["code"], error["details"]) == (11, "send")


def test_a_full_backlog_ends_in_time(call: Runner, agent: Peer) -> None:
    agent.listen(backlog=0)
    with socket.socket(socket.AF_UNIX) as first:
        first.connect(str(agent.path))  # a backlog of 0 has room for one
        error = call.failure("ADD", env={"UNDERLAY_TIMEOUT": "0.3"})
    assert (error["code"], error["details"]) == (11, "connect: EAGAIN")
    assert "did not answer within 0.3 s" in error["msg"]


def test_a_caller_that_never_closes_standard_input_is_left_in_time(call: Runner) -> None:
    with call.start("ADD", {"UNDERLAY_TIMEOUT": "0.3"}) as process:
        assert process.stdout
        assert process.wait(timeout=20) == 1
        error = json.loads(process.stdout.read())
    assert error["code"] == 5
    assert error["msg"] == "standard input was not closed within 0.3 s"


@pytest.mark.parametrize("command", ["ADD", "DEL"])
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(b'"quoted\\', id="quotes"),
        pytest.param(b"line\nbreak\t\x01\x1f\x7f", id="control"),
        pytest.param(b"\xff\xfe\x80", id="no UTF-8"),
        pytest.param(b"\xc0\xaf\xe0\x80\xaf\xf0\x80\x80\xaf", id="longer than needed"),
        pytest.param(b"\xed\xa0\x80\xf4\x90\x80\x80\xf8\x88\x80\x80\x80", id="surrogate and beyond"),
        pytest.param(b"\xe4\xbd", id="cut"),
        pytest.param("größe-你-😀".encode(), id="other scripts"),
        pytest.param(b"not found not found", id="word of success"),
        pytest.param(b"Not Found", id="word in capitals"),
        pytest.param(b"no such file or directory", id="words of success"),
        pytest.param(b"%s%n%d", id="format"),
    ],
)
def test_whatever_the_socket_is_called_the_error_is_json(
    call: Runner, tmp_path: Path, name: bytes, command: str
) -> None:
    (tmp_path / "file").touch()
    # A DEL cannot be spooled below a plain file, so that it fails as well.
    path = os.fsencode(tmp_path) + (b"/file/" if command == "DEL" else b"/") + name
    error = call.failure(command, env={"UNDERLAY_SOCKET": os.fsdecode(path)})
    assert error["code"] == 11
    shown = (
        path.decode("utf-8", "replace")
        .replace("not found", "not_found")
        .replace("Not Found", "Not_Found")
        .replace("no such file", "no_such file")
    )
    if "�" in shown:
        assert "�" in error["msg"]
    else:
        assert shown in error["msg"]


def test_texts_of_any_length_stay_within_the_error(call: Runner) -> None:
    error = call.failure("ADD", env={"UNDERLAY_TIMEOUT": "\x01" * 100_000})
    assert error["code"] == 4
    assert set(error["details"]) == {"\x01"}


def _await_connections(path: Path, count: int) -> None:
    """Until that many connections are established to the socket, accepted or not (/proc/net/unix, state 03 is one)."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        lines = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()]
        if sum(line[-1] == str(path) and line[5] != "01" for line in lines) >= count:
            return
        time.sleep(0.01)
    pytest.fail(f"no connection arrived at {path}")
