"""The socket's workers. Each waits in accept(2) itself, so that a request costs no hand-over between threads.

No peer and no delegate can use the workers up: a connection whose request is not whole within `PATIENCE` moves to the
lobby, and a worker that waits for somebody else steps aside (`aside`), so that another takes its place.
"""

import select
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial

from cni_underlay.agent.handler import Handler, Reply
from cni_underlay.agent.lobby import Lobby
from cni_underlay.agent.log import LOGGER
from cni_underlay.agent.protocol import Frame, Incoming, SilentPeerError, answer
from cni_underlay.errors import DecodingError, TryAgainLaterError

IDLE_WORKERS = 8
MAX_WORKERS = 64  # at work at the same time; more would only take the interpreter from each other
MAX_ASIDE = 256  # waiting for a delegate, each with a process of its own, or for another request of their attachment
PATIENCE = 0.02  # seconds; a client's request is there when its connection is
SEND_SECONDS = 10.0
_WAKING_SECONDS = 1.0
_CREDENTIALS = struct.Struct("3i")  # struct ucred, unix(7)


class Server:
    """Accepts from the moment `serve` is called, and not before. Takes the listener over."""

    def __init__(self, listener: socket.socket, handler: Handler) -> None:
        self._listener = listener
        self._handler = handler
        self._lobby = Lobby(self._enter)
        self._changed = threading.Condition()
        self._workers = 0
        self._idle = 0
        self._aside = 0
        self._stopping = False

    def serve(self) -> None:
        """Start the workers and return."""
        for _ in range(IDLE_WORKERS):
            self._hire()

    def stop(self, seconds: float) -> bool:
        """Accept nothing more, and wait for the requests under way; true when all of them ended in time."""
        with self._changed:
            self._stopping = True
            idle = self._idle
        # Empty connections wake the workers. Shutting the socket down would wake them too, and would spoil it for the
        # next agent, which inherits it with its backlog from the service manager.
        for _ in range(idle):
            self._wake_one()
        with self._changed:
            # Nobody can wake them where the socket's file is gone; but then nobody can send them anything either.
            return self._changed.wait_for(lambda: self._workers == 0, timeout=_WAKING_SECONDS) or (
                self._changed.wait_for(lambda: self._workers == self._idle, timeout=seconds)
            )

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Wrap what waits for somebody else; raises `TryAgainLaterError` when too many wait already."""
        with self._changed:
            if self._aside >= MAX_ASIDE:
                raise TryAgainLaterError(f"{MAX_ASIDE} requests are waiting for delegated plugins or for each other")
            self._aside += 1
            alone = self._idle == 0
        if alone:
            self._hire()
        try:
            yield
        finally:
            with self._changed:
                self._aside -= 1

    def _hire(self) -> None:
        with self._changed:
            if self._stopping or self._workers - self._aside >= MAX_WORKERS:
                return
            self._workers += 1
            self._idle += 1
        threading.Thread(target=self._work, name="worker", daemon=True).start()

    def _work(self) -> None:
        """A worker's life; it begins idle."""
        try:
            while (connection := self._accept()) is not None:
                self._converse(Incoming(connection))
                if not self._rest():
                    break
        finally:
            self._leave()

    def _accept(self) -> socket.socket | None:
        """The next connection; None when this worker, idle no more, should end."""
        connection = None
        while connection is None and not self._stopping:
            try:
                connection, _ = self._listener.accept()
            except OSError as error:
                LOGGER.error("accept failed", extra={"error": str(error)})
                time.sleep(0.1)  # out of descriptors: let the others finish first
        with self._changed:
            self._idle -= 1
            alone = self._idle == 0
        if alone:
            self._hire()
        return connection

    def _rest(self) -> bool:
        """Become idle again; false when there are enough idle ones."""
        with self._changed:
            if self._stopping or self._idle >= IDLE_WORKERS:
                return False
            self._idle += 1
            return True

    def _leave(self) -> None:
        with self._changed:
            self._workers -= 1
            self._changed.notify_all()

    def _wake_one(self) -> None:
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as waker:
            waker.setblocking(False)  # noqa: FBT003  # the method's own form
            waker.connect(self._listener.getsockname())

    def _converse(self, incoming: Incoming) -> None:
        if not _is_root(incoming.connection):
            incoming.close()
            return
        try:
            frame = _receive(incoming)
        except SilentPeerError:
            incoming.close()
        except (DecodingError, OSError) as error:
            LOGGER.warning("request unreadable", extra={"error": str(error)})
            incoming.close()
        else:
            if frame is None:
                self._lobby.keep(incoming)
            else:
                self._serve(incoming, frame)

    def _enter(self, incoming: Incoming, frame: Frame) -> None:
        """Serve a request that the lobby has seen whole, beside the workers: they may all be busy."""
        with self._changed:
            self._workers += 1
        threading.Thread(target=self._serve_late, args=(incoming, frame), name="late", daemon=True).start()

    def _serve_late(self, incoming: Incoming, frame: Frame) -> None:
        try:
            self._serve(incoming, frame)
        finally:
            self._leave()

    def _serve(self, incoming: Incoming, frame: Frame) -> None:
        try:
            if not _hung_up(incoming.connection):  # whoever gave up while it stood in the backlog will call again
                reply = self._handler.handle(frame, partial(_hung_up, incoming.connection))
                self._reply(incoming.connection, reply)
        finally:
            incoming.close()
            frame.close()

    def _reply(self, connection: socket.socket, reply: Reply) -> None:
        try:
            _send(connection, answer(reply.answer))
        except OSError as error:
            LOGGER.warning("an answer reached nobody", extra={"error": str(error)})
            self._handler.undelivered(reply)
        else:
            self._handler.delivered(reply)


def _receive(incoming: Incoming) -> Frame | None:
    """The request; None when it takes its time."""
    frame = incoming.advance()
    if frame is not None:
        return frame
    deadline = time.monotonic() + PATIENCE
    poll = select.poll()
    poll.register(incoming.connection, select.POLLIN)
    while frame is None and (left := deadline - time.monotonic()) > 0 and poll.poll(left * 1000):
        frame = incoming.advance()
    return frame


def _send(connection: socket.socket, content: bytes) -> None:
    sent = connection.send(content, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)  # nearly always all of it
    if sent < len(content):
        connection.settimeout(SEND_SECONDS)
        connection.sendall(memoryview(content)[sent:])


def _is_root(connection: socket.socket) -> bool:
    pid, uid, _gid = _CREDENTIALS.unpack(
        connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    )
    if uid != 0:
        LOGGER.warning("a peer that is not root was turned away", extra={"uid": uid, "pid": pid})
    return bool(uid == 0)


def _hung_up(connection: socket.socket) -> bool:
    poll = select.poll()
    poll.register(connection, select.POLLHUP)
    return any(event & select.POLLHUP for _, event in poll.poll(0))
