"""/healthz and /readyz over HTTP, in the node's own namespace."""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from .bed.agent import Agent, await_true
from .bed.calls import Runtime, finish, hanging
from .bed.node import Node, Pod

PORT = 9177  # in a namespace of its own nobody else has it


@pytest.fixture
def agent(idle_agent: Agent) -> Agent:
    """An agent that serves HTTP at the default address, here written out."""
    idle_agent.configure(http=f"127.0.0.1:{PORT}")
    idle_agent.start()
    return idle_agent


@contextmanager
def connected(node: Node, address: tuple[str, int] = ("127.0.0.1", PORT)) -> Iterator[socket.socket]:
    with node.inside(lambda: socket.create_connection(address, 20)) as connection:
        yield connection


def exchange(node: Node, request: bytes, address: tuple[str, int] = ("127.0.0.1", PORT)) -> bytes:
    """Everything that is answered to the request."""
    with connected(node, address) as connection:
        connection.sendall(request)
        answer = b""
        while part := connection.recv(4096):
            answer += part
    return answer


def get(node: Node, path: str, **options: object) -> tuple[int, str]:
    """Status and body."""
    head, _, body = exchange(node, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode(), **options).partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert "Content-Type: text/plain; charset=utf-8" in lines
    assert f"Content-Length: {len(body)}" in lines
    return int(lines[0].split()[1]), body.decode()


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/readyz?verbose"])
def test_an_agent_that_serves_is_healthy_and_ready(node: Node, agent: Agent, path: str) -> None:
    assert get(node, path) == (200, "ok\n")


def test_it_listens_on_the_loopback_address_alone(node: Node, agent: Agent) -> None:
    with pytest.raises(ConnectionRefusedError), connected(node, ("10.77.0.2", PORT)):
        pass


def test_an_agent_that_is_stopping_is_healthy_and_not_ready(
    node: Node, agent: Agent, runtime: Runtime, pod: Pod
) -> None:
    gate = hanging(node)
    call = runtime.start("ADD", pod, cniVersion="1.0.0", ipam={"type": "hang"})
    await_true(lambda: (node.directory / "hang.begun").exists(), "the delegate runs")
    agent.process.terminate()
    agent.await_log("stopping")
    assert get(node, "/readyz") == (503, "the agent is stopping\n")
    assert get(node, "/healthz")[0] == 200
    gate.touch()
    assert finish(call).status == 0


def test_an_agent_that_is_recovering_is_not_ready(node: Node, idle_agent: Agent, runtime: Runtime, pod: Pod) -> None:
    begun = node.directory / "begun"
    node.write_plugin("stuck", [f"touch {begun}", "exec sleep 300"])
    delegated = Runtime(node=node, conf={"cniVersion": "1.0.0", "ipam": {"type": "stuck"}})
    assert delegated.delete(pod).status == 0
    idle_agent.configure(http=f"127.0.0.1:{PORT}")
    idle_agent.launch()
    await_true(begun.exists, "the spooled DEL is being replayed")
    assert get(node, "/readyz") == (503, "the agent is recovering\n")
    assert get(node, "/healthz")[0] == 200


def test_a_ledger_that_cannot_be_written_is_not_ready(node: Node, idle_agent: Agent) -> None:
    idle_agent.configure(http=f"127.0.0.1:{PORT}")
    state = node.directory / "state"
    state.mkdir()
    small = 'mount -t tmpfs -o size=8m none "$1"; shift; exec "$@"'
    idle_agent.start("unshare", "-m", "sh", "-ec", small, "mount", str(state))
    assert get(node, "/readyz")[0] == 200
    inside = f"/proc/{idle_agent.pid}/root{state}"
    with open(f"{inside}/ballast", "wb") as ballast:  # noqa: PTH123  # not a path of ours
        with pytest.raises(OSError, match="No space left"):
            while True:
                ballast.write(b"x" * 65536)
                ballast.flush()
        status, words = get(node, "/readyz")
        assert status == 503
        assert "ledger" in words
    os.unlink(f"{inside}/ballast")  # noqa: PTH108
    await_true(lambda: get(node, "/readyz")[0] == 200, "it is ready again")


def test_false_serves_nothing(node: Node, idle_agent: Agent) -> None:
    idle_agent.configure(http=False)
    idle_agent.start()
    with pytest.raises(ConnectionRefusedError), connected(node):
        pass


def test_an_address_that_is_taken_is_logged_and_stops_nothing(
    node: Node, idle_agent: Agent, runtime: Runtime, pod: Pod
) -> None:
    with node.inside(lambda: socket.create_server(("127.0.0.1", PORT))):
        idle_agent.configure(http=f"127.0.0.1:{PORT}")
        idle_agent.start()
        assert runtime.add(pod).status == 0
    (line,) = idle_agent.log("HTTP is not served")
    assert line["http"] == f"127.0.0.1:{PORT}"


def test_an_ipv6_address_is_served_too(node: Node, idle_agent: Agent) -> None:
    idle_agent.configure(http=f"[::1]:{PORT}")
    idle_agent.start()
    assert get(node, "/healthz", address=("::1", PORT)) == (200, "ok\n")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /nowhere HTTP/1.1\r\n\r\n", b"404"),
        (b"POST /readyz HTTP/1.1\r\n\r\n", b"405"),
        (b"GET /readyz\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\r\n\r\n", b"400"),
        (b"GET /readyz HTTP/1.1\r\nX: " + b"x" * 9000, b"431"),
    ],
    ids=["not found", "method", "old form", "TLS", "endless head"],
)
def test_what_is_no_such_question_has_its_status(node: Node, agent: Agent, request_: bytes, status: bytes) -> None:
    assert exchange(node, request_).split()[1] == status
    assert get(node, "/readyz")[0] == 200


def test_head_has_the_headers_alone(node: Node, agent: Agent) -> None:
    answer = exchange(node, b"HEAD /healthz HTTP/1.1\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"\r\n\r\n")


def test_slow_and_silent_connections_keep_nobody_waiting(node: Node, agent: Agent) -> None:
    with ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(connected(node)).sendall(b"GET /rea")
        start = time.monotonic()
        assert get(node, "/readyz")[0] == 200
        assert time.monotonic() - start < 2


def test_an_agent_that_ended_frees_its_address_at_once(node: Node, agent: Agent) -> None:
    assert get(node, "/healthz")[0] == 200
    agent.stop()
    agent.start()
    assert get(node, "/healthz")[0] == 200
    assert not agent.log("HTTP is not served")
