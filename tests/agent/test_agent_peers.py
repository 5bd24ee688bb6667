"""Whoever is at the other end of the socket, and however slowly or wrongly it speaks: service goes on."""

import os
import socket
import struct
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from cni_underlay.agent import protocol

from .bed.agent import Agent, await_true
from .bed.calls import Runtime
from .bed.node import Node, Pod

HEADER = struct.Struct("!4sIIII")
WHOLE = protocol.request(protocol.KIND_CNI, {"CNI_COMMAND": "VERSION"}, b"{}")
MANY = 700  # far more than workers, and than places in the lobby


def descriptors(agent: Agent) -> int:
    return len(list(Path(f"/proc/{agent.pid}/fd").iterdir()))


def threads(agent: Agent) -> int:
    return len(list(Path(f"/proc/{agent.pid}/task").iterdir()))


def test_only_root_may_open_the_socket(node: Node, agent: Agent) -> None:
    status = node.socket.stat()
    assert status.st_mode & 0o777 == 0o600
    assert status.st_uid == 0


def test_a_peer_that_is_not_root_gets_no_answer_even_where_it_can_connect(node: Node, agent: Agent) -> None:
    for directory in (node.socket.parent, *node.socket.parents):
        if directory != Path("/"):
            directory.chmod(directory.stat().st_mode | 0o011)
    node.socket.chmod(0o666)
    script = (
        "import os, socket, sys\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "peer = socket.socket(socket.AF_UNIX); peer.connect(sys.argv[1])\n"
        "sys.stdin.buffer.read(); peer.sendall(bytes.fromhex(sys.argv[2]))\n"
        "print(peer.recv(1))\n"
    )
    command = [sys.executable, "-I", "-c", script, str(node.socket), WHOLE.hex()]
    done = subprocess.run(command, input="", capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout.strip() == "b''" or "ConnectionReset" in done.stderr or "BrokenPipe" in done.stderr
    (line,) = agent.await_log("a peer that is not root was turned away")
    assert line["uid"] == 65534
    assert agent.serves()


@pytest.mark.parametrize(
    "frame",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        HEADER.pack(b"UNL9", 1, 0, 0, 0),
        HEADER.pack(b"UNL1", 1, 0, 0xFFFFFFFF, 0xFFFFFFFF),
        HEADER.pack(b"UNL1", 1, 0, 0, protocol.MAXIMUM + 1),
        WHOLE + b"and more",
        os.urandom(4096),
    ],
    ids=["another protocol", "another version", "huge lengths", "too long", "trailing bytes", "noise"],
)
def test_what_is_no_request_ends_the_connection_and_nothing_else(agent: Agent, frame: bytes) -> None:
    with agent.connect() as peer:
        peer.sendall(frame)
        with suppress(ConnectionResetError):  # what it had not read is thrown back at us
            assert peer.recv(1) == b""
    agent.await_log("request unreadable")
    assert agent.serves()


def test_an_unknown_kind_is_answered_with_an_error(agent: Agent) -> None:
    with agent.connect() as peer:
        peer.sendall(protocol.request(77, {"CNI_COMMAND": "ADD"}, b"{}"))
        answer = protocol.receive_answer(peer)
    assert answer.status == 1
    assert b"kind 77" in answer.stdout


def test_a_request_in_pieces_is_served_when_it_is_whole(agent: Agent) -> None:
    with agent.connect() as peer:
        for place in range(0, len(WHOLE), 7):
            peer.sendall(WHOLE[place : place + 7])
            time.sleep(0.03)  # longer than a worker's patience: it moves to the lobby and on from there
        answer = protocol.receive_answer(peer)
    assert answer.status == 0


def test_the_largest_request_is_served(agent: Agent) -> None:
    body = b" " * (protocol.MAXIMUM - 2) + b"{}"
    with agent.connect() as peer:
        peer.sendall(protocol.request(protocol.KIND_CNI, {"CNI_COMMAND": "VERSION"}, body))
        assert protocol.receive_answer(peer).status == 0


def test_silent_peers_by_the_hundred_do_not_keep_anybody_waiting(
    node: Node, agent: Agent, runtime: Runtime, pod: Pod
) -> None:
    with ExitStack() as stack:
        for _ in range(MANY):
            stack.enter_context(agent.connect())
        start = time.monotonic()
        assert runtime.add(pod).status == 0
        assert time.monotonic() - start < 5
        assert threads(agent) < 100
    await_true(lambda: descriptors(agent) < 60, "what they held is free again")
    assert agent.serves()


def test_half_frames_by_the_hundred_do_not_keep_anybody_waiting(agent: Agent, runtime: Runtime, pod: Pod) -> None:
    with ExitStack() as stack:
        for _ in range(MANY):
            peer = stack.enter_context(agent.connect())
            peer.sendall(HEADER.pack(b"UNL1", 1, 0, 100, 100) + b"argv0=underlay\0")
        assert runtime.add(pod).status == 0
        assert runtime("STATUS").status == 0


def test_a_peer_that_stays_silent_is_shown_the_door(agent: Agent) -> None:
    with agent.connect(seconds=20) as peer:
        peer.sendall(b"UN")
        start = time.monotonic()
        assert peer.recv(1) == b""
        assert 3 < time.monotonic() - start < 15


def test_a_peer_that_leaves_in_the_middle_costs_nothing(agent: Agent) -> None:
    before = descriptors(agent)
    for _ in range(200):
        with agent.connect() as peer:
            peer.sendall(WHOLE[:-1])
    await_true(lambda: descriptors(agent) <= before, "no descriptor is left open")


def test_a_descriptor_that_comes_with_garbage_is_closed(agent: Agent) -> None:
    reader, writer = os.pipe()
    try:
        with agent.connect() as peer:
            socket.send_fds(peer, [b"no frame at all, with a descriptor"], [writer])
        os.close(writer)
        writer = -1
        await_true(lambda: os.read(reader, 1) == b"", "nobody has the writing end any more")
    finally:
        os.close(reader)
        if writer >= 0:
            os.close(writer)


def test_many_descriptors_at_once_are_not_kept(agent: Agent) -> None:
    before = descriptors(agent)
    with (Path("/dev/null")).open("rb") as null, agent.connect() as peer:
        socket.send_fds(peer, [WHOLE], [null.fileno()] * 200)
        assert protocol.receive_answer(peer).status == 0
    await_true(lambda: descriptors(agent) <= before, "no descriptor is left open")


def test_a_peer_that_does_not_read_its_answer_blocks_nobody(agent: Agent, runtime: Runtime) -> None:
    with ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(agent.connect()).sendall(WHOLE)
        assert runtime("STATUS").status == 0


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b"\xff\xfe", b'{"command": 5}', b"[" * 100_000], ids=lambda body: repr(body[:8])
)
def test_a_malformed_admin_call_is_answered_with_one_error(agent: Agent, body: bytes) -> None:
    with agent.connect() as peer:
        peer.sendall(protocol.request(protocol.KIND_ADMIN, {}, body))
        answer = protocol.receive_answer(peer)
    assert answer.status == 1
    assert b'"code":' in answer.stdout
    assert not agent.log("internal error in an admin call")
