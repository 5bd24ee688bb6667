"""The frames between client and agent: one each way on a unix stream socket, integers in network byte order.

Request, with the namespace of CNI_NETNS attached as one SCM_RIGHTS descriptor to its first byte where it could be opened::

    0   4  magic b"UNL1"
    4   4  kind: 1 a CNI call, 2 an admin call
    8   4  errno of opening CNI_NETNS, 0 when it was opened, not set, or empty
    12  4  length of the environment block
    16  4  length of the body
    20     environment block: "KEY=VALUE" strings, each ended by a NUL; the first is "argv0=<name the client was started as>"
    ..     body: standard input of the CNI call, untouched; a JSON object for an admin call

Answer::

    0   4  magic b"UNL1"
    4   4  exit status for the client
    8   4  length of standard output
    12  4  length of standard error
    16     standard output, then standard error, both printed untouched

A spooled DEL is a file that holds exactly the request frame, without the descriptor.
"""

import socket
import struct
from dataclasses import dataclass

from cni_underlay.errors import DecodingError

MAGIC = b"UNL1"
KIND_CNI = 1
KIND_ADMIN = 2
MAXIMUM = 8 << 20  # bytes of an environment block, a body, an output: far above any configuration, far below the memory
_REQUEST = struct.Struct("!4sIIII")
_ANSWER = struct.Struct("!4sIII")
_DESCRIPTORS = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One request. The receiver owns `netns` and closes it."""

    kind: int
    environment: dict[str, str]
    body: bytes
    netns: int | None = None
    netns_errno: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the client prints, and its exit status."""

    status: int
    stdout: bytes = b""
    stderr: bytes = b""


def receive(connection: socket.socket) -> Frame | None:
    """The request on a fresh connection; None when the peer left without a byte. Raises `DecodingError` or `OSError`."""
    first, descriptors, _flags, _address = socket.recv_fds(connection, 65536, _DESCRIPTORS)
    if not first:
        return None
    netns = descriptors[0] if descriptors else None
    try:
        head = first if len(first) >= _REQUEST.size else first + _exactly(connection, _REQUEST.size - len(first))
        kind, errno, environment, body = _header(head)
        missing = _REQUEST.size + environment + body - len(head)
        whole = memoryview(head + _exactly(connection, missing) if missing > 0 else head)[_REQUEST.size :]
        return Frame(
            kind=kind,
            environment=_environment(bytes(whole[:environment])),
            body=bytes(whole[environment : environment + body]),
            netns=netns,
            netns_errno=errno,
        )
    except BaseException:
        if netns is not None:
            socket.close(netns)
        raise


def parse(frame: bytes) -> Frame:
    """A request frame kept in a file; raises `DecodingError` when it is torn."""
    if len(frame) < _REQUEST.size:
        raise DecodingError(f"a request frame has at least {_REQUEST.size} bytes, this one {len(frame)}")
    kind, _errno, environment, body = _header(frame)
    if len(frame) != _REQUEST.size + environment + body:
        raise DecodingError("the frame's length differs from what its header says")
    start = _REQUEST.size + environment
    return Frame(kind=kind, environment=_environment(frame[_REQUEST.size : start]), body=frame[start:])


def request(kind: int, environment: dict[str, str], body: bytes) -> bytes:
    """A request frame, as the client writes it."""
    block = b"".join(f"{key}={value}\0".encode("utf-8", "surrogateescape") for key, value in environment.items())
    return _REQUEST.pack(MAGIC, kind, 0, len(block), len(body)) + block + body


def answer(content: Answer) -> bytes:
    """An answer frame."""
    head = _ANSWER.pack(MAGIC, content.status, len(content.stdout), len(content.stderr))
    return head + content.stdout + content.stderr


def receive_answer(connection: socket.socket) -> Answer:
    """The agent's answer; raises `DecodingError` when it is torn, `OSError` when the connection fails."""
    magic, status, stdout, stderr = _ANSWER.unpack(_exactly(connection, _ANSWER.size))
    if magic != MAGIC or max(stdout, stderr) > MAXIMUM:
        raise DecodingError("what answers on the socket does not speak this protocol")
    return Answer(status=status, stdout=_exactly(connection, stdout), stderr=_exactly(connection, stderr))


def _header(frame: bytes) -> tuple[int, int, int, int]:
    magic, kind, errno, environment, body = _REQUEST.unpack_from(frame)
    if magic != MAGIC or max(environment, body) > MAXIMUM:
        raise DecodingError("the peer does not speak this protocol")
    return kind, errno, environment, body


def _environment(block: bytes) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for entry in block.split(b"\0"):
        key, equals, value = entry.decode("utf-8", "surrogateescape").partition("=")
        if equals:
            pairs.setdefault(key, value)
    return pairs


def _exactly(connection: socket.socket, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = connection.recv(min(size - len(parts), 1 << 20))
        if not part:
            raise DecodingError("the peer closed the connection in the middle of a frame")
        parts += part
    return bytes(parts)
