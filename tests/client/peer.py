"""A peer of the client on a real unix socket: speaks the agent's side of the protocol, well or badly, as it is told."""

import fcntl
import os
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

_HEADER = struct.Struct("!4sIIII")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request frame, whole and in parts, and what is known of the descriptor that came with it."""

    frame: bytes
    magic: bytes
    kind: int
    netns_errno: int
    entries: list[bytes]
    body: bytes
    netns_inode: int | None = None
    netns_flags: int = 0

    @property
    def environment(self) -> dict[bytes, bytes]:
        pairs = [entry.partition(b"=") for entry in self.entries]
        assert len({key for key, _, _ in pairs}) == len(pairs)
        return {key: value for key, _, value in pairs}

    @property
    def command(self) -> bytes:
        return self.environment[b"CNI_COMMAND"]


Behaviour = Callable[[socket.socket, Request], None]


def parse(frame: bytes, inode: int | None = None, flags: int = 0) -> Request:
    magic, kind, netns_errno, environment, body = _HEADER.unpack_from(frame)
    assert len(frame) == _HEADER.size + environment + body
    block = frame[_HEADER.size : _HEADER.size + environment]
    assert block.endswith(b"\0")
    return Request(
        frame=frame,
        magic=magic,
        kind=kind,
        netns_errno=netns_errno,
        entries=block[:-1].split(b"\0"),
        body=frame[_HEADER.size + environment :],
        netns_inode=inode,
        netns_flags=flags,
    )


def receive(connection: socket.socket) -> Request:
    data, descriptors, _, _ = socket.recv_fds(connection, 1 << 16, 4)
    assert len(descriptors) <= 1
    inode, flags = None, 0
    for descriptor in descriptors:
        inode, flags = os.fstat(descriptor).st_ino, fcntl.fcntl(descriptor, fcntl.F_GETFL)
        os.close(descriptor)
    while len(data) < _HEADER.size or len(data) < _HEADER.size + sum(_HEADER.unpack_from(data)[3:]):
        more = connection.recv(1 << 20)
        if not more:
            raise ConnectionResetError
        data += more
    return parse(data, inode, flags)


def frame(status: int, stdout: bytes = b"", stderr: bytes = b"") -> bytes:
    return struct.pack("!4sIII", b"UNL1", status, len(stdout), len(stderr)) + stdout + stderr


def send(data: bytes) -> Behaviour:
    return lambda connection, _request: connection.sendall(data)


def answer(status: int = 0, stdout: bytes = b"", stderr: bytes = b"") -> Behaviour:
    return send(frame(status, stdout, stderr))


def drop(_connection: socket.socket, _request: Request) -> None:
    """End the connection without a byte, as a killed agent does."""


def wait(connection: socket.socket, _request: Request) -> None:
    """Answer nothing until the client leaves."""
    connection.recv(1)


@dataclass(slots=True)
class Peer:
    """Serves each connection by the next of its behaviours, and all further ones by the last."""

    path: Path
    requests: list[Request] = field(default_factory=list)
    _behaviours: list[Behaviour] = field(default_factory=list)
    _listener: socket.socket = field(default_factory=lambda: socket.socket(socket.AF_UNIX))
    _threads: list[threading.Thread] = field(default_factory=list)
    _errors: list[Exception] = field(default_factory=list)
    _arrived: threading.Condition = field(default_factory=threading.Condition)

    def start(self, *behaviours: Behaviour) -> None:
        self._behaviours[:] = behaviours
        self.listen()
        self._run(self._accept)

    def listen(self, backlog: int = 128) -> None:
        """Let connections queue up, and accept none."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._listener.bind(str(self.path))
        self._listener.listen(backlog)

    def accept(self) -> socket.socket:
        """The next connection, by hand, after listen()."""
        self._listener.settimeout(20)
        return self._listener.accept()[0]

    def arrived(self, count: int) -> list[Request]:
        """The requests, once there are `count` of them."""
        with self._arrived:
            assert self._arrived.wait_for(lambda: len(self.requests) >= count, timeout=20)
        return self.requests

    def stop(self) -> None:
        """Refuse connections from here on; may be called twice."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def close(self) -> None:
        self.stop()
        for thread in self._threads:
            thread.join()
        assert self._errors == []

    def _run(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            behaviour = self._behaviours[0] if len(self._behaviours) == 1 else self._behaviours.pop(0)
            self._run(self._serve, connection, behaviour)

    def _serve(self, connection: socket.socket, behaviour: Behaviour) -> None:
        with connection:
            try:
                request = receive(connection)
                with self._arrived:
                    self.requests.append(request)
                    self._arrived.notify_all()
                behaviour(connection, request)
            except ConnectionError:
                pass  # the client ended first: some tests want that, the others see it by their own assertions
            except Exception as error:  # noqa: BLE001  # told to the test when its fixture ends
                self._errors.append(error)
