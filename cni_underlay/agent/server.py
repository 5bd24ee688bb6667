"""The unix socket and its workers. Every worker waits in accept(2) itself, so a request costs no hand-over between threads."""

import os
import select
import socket
import struct
import threading
from contextlib import suppress
from pathlib import Path

from cni_underlay.agent.handler import Handler, close
from cni_underlay.agent.log import LOGGER
from cni_underlay.agent.protocol import KIND_CNI, Answer, Frame, answer, receive
from cni_underlay.errors import DecodingError, InvalidConfigError

BACKLOG = 1024  # a node's 250 pods may all start at once; the kernel caps it at net.core.somaxconn
IDLE_WORKERS = 4
MAX_WORKERS = 64  # a worker may wait 45 s for a delegate; STATUS must still find a free one
RECEIVE_SECONDS = 10.0  # a client sends its frame in one go; whoever is slower is stuck or hostile
_CREDENTIALS = struct.Struct("3i")  # struct ucred, unix(7)


def listen(path: Path) -> socket.socket:
    """Bind the socket, 0600, in a directory of root's own. The ledger's lock has shown that no other agent serves it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    before = os.umask(0o177)
    try:
        path.unlink(missing_ok=True)
        listener.bind(str(path))
    except OSError as error:
        raise InvalidConfigError(f"socket: cannot listen on {path}: {error.strerror or error}") from error
    finally:
        os.umask(before)
    listener.listen(BACKLOG)
    return listener


class Server:
    """Accepts from the moment `serve` is called, and not before."""

    def __init__(self, listener: socket.socket, handler: Handler) -> None:
        self._listener = listener
        self._handler = handler
        self._guard = threading.Lock()
        self._idle = 0
        self._workers = 0
        self._stopping = False
        self._finished = threading.Condition(self._guard)

    def serve(self) -> None:
        """Start the workers and return."""
        for _ in range(IDLE_WORKERS):
            self._start_worker()

    def stop(self, seconds: float) -> bool:
        """Accept nothing more, and wait for the requests under way; true when all of them ended in time."""
        with self._guard:
            self._stopping = True
            workers = self._workers
        # Empty connections wake the workers. Shutting the socket down would wake them too, and would spoil it for the
        # next agent, which inherits it with its backlog from the service manager.
        for _ in range(workers):
            self._wake_one()
        with self._guard:
            return self._finished.wait_for(lambda: self._workers == 0, timeout=seconds)

    def _wake_one(self) -> None:
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as waker:
            waker.setblocking(False)  # noqa: FBT003  # the method's own form
            waker.connect(self._listener.getsockname())

    def _start_worker(self) -> None:
        with self._guard:
            if self._stopping or self._workers >= MAX_WORKERS:
                return
            self._workers += 1
            self._idle += 1
            number = self._workers
        threading.Thread(target=self._work, name=f"worker-{number}", daemon=True).start()

    def _work(self) -> None:
        try:
            while self._accept_one():
                pass
        finally:
            with self._guard:
                self._workers -= 1
                self._finished.notify_all()

    def _accept_one(self) -> bool:
        """Serve one connection; false when this worker should end."""
        try:
            connection, _ = self._listener.accept()
        except OSError as error:
            if not self._stopping:
                LOGGER.error("accept failed", extra={"error": str(error)})  # noqa: TRY400
                select.select((), (), (), 0.1)  # out of descriptors: let the others finish first
            with self._guard:
                self._idle -= self._stopping
                return not self._stopping
        with self._guard:
            self._idle -= 1
            alone = self._idle == 0
        if alone:
            self._start_worker()
        with connection:
            self._converse(connection)
        with self._guard:
            if self._stopping or self._idle >= IDLE_WORKERS:
                return False
            self._idle += 1
            return True

    def _converse(self, connection: socket.socket) -> None:
        connection.settimeout(RECEIVE_SECONDS)
        try:
            frame = receive(connection) if _is_root(connection) else None
        except (DecodingError, OSError) as error:
            LOGGER.warning("request unreadable", extra={"error": str(error)})
            return
        if frame is None:
            return
        try:
            if _hung_up(connection):
                return  # its runtime gave up while it stood in the backlog: a repeated call will come
            self._reply(connection, frame, self._handler.handle(frame))
        finally:
            close(frame)

    def _reply(self, connection: socket.socket, frame: Frame, content: Answer) -> None:
        try:
            connection.sendall(answer(content))
        except OSError:
            if frame.kind == KIND_CNI and content.status == 0 and frame.environment.get("CNI_COMMAND") == "ADD":
                self._handler.undo_add(frame)


def _is_root(connection: socket.socket) -> bool:
    _pid, uid, _gid = _CREDENTIALS.unpack(
        connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    )
    if uid != 0:
        LOGGER.warning("a peer that is not root was turned away", extra={"uid": uid, "pid": _pid})
    return uid == 0


def _hung_up(connection: socket.socket) -> bool:
    poll = select.poll()
    poll.register(connection, select.POLLHUP)
    return any(event & select.POLLHUP for _, event in poll.poll(0))
