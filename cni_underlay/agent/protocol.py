"""The frames between client and agent: one each way on a unix stream socket, integers in network byte order.

Request, with the namespace of CNI_NETNS, where it could be opened, as one SCM_RIGHTS descriptor on its first byte::

    0   4  magic b"UNL1"
    4   4  kind: 1 a CNI call, 2 an admin call
    8   4  errno of opening CNI_NETNS, 0 when it was opened, not set, or empty
    12  4  length of the environment block
    16  4  length of the body
    20     environment block: "KEY=VALUE" strings, each ended by a NUL; the first is "argv0=<name of the client>"
    ..     body: standard input of the CNI call, untouched; a JSON object for an admin call

Answer::

    0   4  magic b"UNL1"
    4   4  exit status for the client
    8   4  length of standard output
    12  4  length of standard error
    16     standard output, then standard error, both printed untouched

A spooled DEL is a file that holds exactly the request frame, without the descriptor.
"""

import os
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
_LARGEST_LIST = 1 << 28  # to an admin: half a million leases
_DESCRIPTOR = struct.Struct("@i")
_FIRST = 1 << 16  # bytes of the first read: nearly every request is one of 2 to 8 KiB
_CHUNK = 1 << 18  # and of further ones: a unix socket holds 208 KiB by default (net.core.wmem_default)


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One request. The receiver owns `netns` and closes it."""

    kind: int
    environment: dict[str, str]
    body: bytes
    netns: int | None = None
    netns_errno: int = 0

    def close(self) -> None:
        """Give the descriptor back. Called once."""
        if self.netns is not None:
            os.close(self.netns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the client prints, and its exit status."""

    status: int
    stdout: bytes = b""
    stderr: bytes = b""


class SilentPeerError(DecodingError):
    """The peer left without a byte: it only wanted to wake somebody, or to know whether anybody listens."""


class Incoming:
    """A request on its way: reads what has arrived on a fresh connection, and never waits.

    Owns the connection and what came with it until the frame is whole; from then on `netns` is the frame's receiver's.
    """

    __slots__ = ("_data", "_netns", "_size", "connection")

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._data = b""
        self._size = 0  # of the whole frame; 0 while its header is missing
        self._netns: int | None = None

    def advance(self) -> Frame | None:
        """The request once it is whole, None while more is to come.

        Raises `DecodingError` when it never will be (`SilentPeerError` when nothing came at all), and `OSError`.
        """
        parts = [self._data]
        length = len(self._data)
        try:
            while not self._size or length < self._size:
                part = self._read(fresh=length == 0)
                if not part:
                    raise DecodingError("the peer left in the middle of a frame") if length else SilentPeerError("")
                parts.append(part)
                length += len(part)
                if not self._size and length >= _REQUEST.size:
                    parts = [b"".join(parts)]
                    self._size = _size(parts[0])
        except BlockingIOError:
            self._data = b"".join(parts)
            return None
        frame = parse(b"".join(parts), self._netns)
        self._netns = None
        return frame

    def close(self) -> None:
        """End the conversation, whatever has come of it."""
        if self._netns is not None:
            os.close(self._netns)
            self._netns = None
        self.connection.close()

    def _read(self, *, fresh: bool) -> bytes:
        if not fresh:
            return self.connection.recv(_CHUNK, socket.MSG_DONTWAIT)
        # Not socket.recv_fds, which takes flags and ignores them (cpython 3.11, Lib/socket.py).
        flags = socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
        data, control, _flags, _address = self.connection.recvmsg(_FIRST, socket.CMSG_LEN(_DESCRIPTOR.size), flags)
        for level, kind, content in control:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS) and len(content) == _DESCRIPTOR.size:
                (self._netns,) = _DESCRIPTOR.unpack(content)
        return data


def parse(frame: bytes, netns: int | None = None) -> Frame:
    """The request in a whole frame; raises `DecodingError` when it is torn or is none."""
    if len(frame) < _REQUEST.size:
        raise DecodingError(f"a request frame has at least {_REQUEST.size} bytes, this one {len(frame)}")
    if len(frame) != _size(frame):
        raise DecodingError("the frame's length differs from what its header says")
    _magic, kind, errno, environment, _body = _REQUEST.unpack_from(frame)
    start = _REQUEST.size + environment
    return Frame(
        kind=kind,
        environment=_environment(frame[_REQUEST.size : start]),
        body=frame[start:],
        netns=netns,
        netns_errno=errno,
    )


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
    if magic != MAGIC or max(stdout, stderr) > _LARGEST_LIST:
        raise DecodingError("what answers on the socket does not speak this protocol")
    return Answer(status=status, stdout=_exactly(connection, stdout), stderr=_exactly(connection, stderr))


def _size(frame: bytes) -> int:
    """How long the frame that begins so is."""
    magic, _kind, _errno, environment, body = _REQUEST.unpack_from(frame)
    if magic != MAGIC or max(environment, body) > MAXIMUM:
        raise DecodingError("the peer does not speak this protocol")
    return _REQUEST.size + int(environment) + int(body)


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
