"""/healthz and /readyz for probes, over HTTP/1.1: one thread, a bounded number of connections, GET and HEAD only.

By hand, because http.server costs 25 ms of start and 4 MiB, and takes a thread for each connection.
"""

import select
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus

from cni_underlay.agent.log import LOGGER

SECONDS = 5.0  # for one exchange, from accepting to closing
CONNECTIONS = 64  # beyond them, who has been there longest has to go
_HEAD_BYTES = 8192
_BACKLOG = 64
_END = b"\r\n\r\n"
_LINE_PARTS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What a path answers; `text` is plain text without its final newline."""

    status: HTTPStatus
    text: str


@dataclass(slots=True, kw_only=True)
class _Exchange:
    connection: socket.socket
    deadline: float
    received: bytes = b""
    outgoing: memoryview = field(default_factory=lambda: memoryview(b""))


class HttpServer:
    """Serves `pages` from `start` to `stop`. What a page asks must not wait: all share one thread."""

    def __init__(self, address: tuple[str, int], pages: Mapping[str, Callable[[], Page]]) -> None:
        self._address = address
        self._pages = pages
        self._listener: socket.socket | None = None
        self._poll = select.epoll()
        self._exchanges: dict[int, _Exchange] = {}  # in the order of arrival

    def start(self) -> None:
        """Listen; an address that cannot be had is logged, and is no reason for pods to wait."""
        family = socket.AF_INET6 if ":" in self._address[0] else socket.AF_INET
        try:
            self._listener = socket.create_server(self._address, family=family, backlog=_BACKLOG)
        except OSError as error:
            host, port = self._address
            LOGGER.error(  # an expected kind of failure, told in words
                "HTTP is not served", extra={"http": f"{host}:{port}", "error": error.strerror or str(error)}
            )
            return
        self._listener.setblocking(False)  # noqa: FBT003  # the method's own form
        self._poll.register(self._listener, select.EPOLLIN)
        threading.Thread(target=self._run, args=(self._listener,), name="http", daemon=True).start()

    def stop(self) -> None:
        """Refuse connections from here on."""
        if self._listener is not None:
            with suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread, which closes it

    def _run(self, listener: socket.socket) -> None:
        with listener:
            while True:
                for descriptor, event in self._poll.poll(self._patience()):
                    if descriptor != listener.fileno():
                        self._go_on(descriptor)
                    elif event & select.EPOLLHUP:
                        return
                    else:
                        self._accept(listener)
                self._close_late()

    def _patience(self) -> float:
        """Until the oldest exchange is over; -1, for ever, where there is none."""
        oldest = next(iter(self._exchanges.values()), None)
        return max(0.0, oldest.deadline - time.monotonic()) if oldest else -1

    def _accept(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except OSError as error:
            LOGGER.warning("accept failed on HTTP", extra={"error": str(error)})
            time.sleep(0.1)  # out of descriptors, and epoll would say so at once again
            return
        if len(self._exchanges) >= CONNECTIONS:
            self._close(next(iter(self._exchanges)))
        connection.setblocking(False)  # noqa: FBT003
        self._exchanges[connection.fileno()] = _Exchange(connection=connection, deadline=time.monotonic() + SECONDS)
        self._poll.register(connection, select.EPOLLIN)

    def _go_on(self, descriptor: int) -> None:
        exchange = self._exchanges.get(descriptor)
        if exchange is None:
            return
        try:
            finished = self._write(exchange) if exchange.outgoing else self._read(exchange)
        except BlockingIOError:
            return
        except OSError:
            finished = True
        if finished:
            self._close(descriptor)

    def _read(self, exchange: _Exchange) -> bool:
        part = exchange.connection.recv(_HEAD_BYTES)
        exchange.received += part
        if not part:
            return True
        if _END not in exchange.received and len(exchange.received) <= _HEAD_BYTES:
            return False
        exchange.outgoing = memoryview(self._answer(exchange.received))
        self._poll.modify(exchange.connection, select.EPOLLOUT)
        return False

    def _write(self, exchange: _Exchange) -> bool:
        sent = exchange.connection.send(exchange.outgoing)
        exchange.outgoing = exchange.outgoing[sent:]
        return not exchange.outgoing

    def _answer(self, request: bytes) -> bytes:
        head, end, _ = request.partition(_END)
        parts = head.partition(b"\r\n")[0].decode("latin-1").split(" ")
        if not end:
            return _response(_plain(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE), "GET")
        if len(parts) != _LINE_PARTS or not parts[2].startswith("HTTP/1."):
            return _response(_plain(HTTPStatus.BAD_REQUEST), "GET")
        method, path = parts[0], parts[1].partition("?")[0]
        if method not in ("GET", "HEAD"):
            return _response(_plain(HTTPStatus.METHOD_NOT_ALLOWED), "GET")
        page = self._pages.get(path)
        return _response(page() if page else _plain(HTTPStatus.NOT_FOUND), method)

    def _close_late(self) -> None:
        now = time.monotonic()
        for descriptor in [key for key, exchange in self._exchanges.items() if exchange.deadline <= now]:
            self._close(descriptor)

    def _close(self, descriptor: int) -> None:
        self._exchanges.pop(descriptor).connection.close()  # which epoll notices by itself


def _plain(status: HTTPStatus) -> Page:
    return Page(status=status, text=status.phrase.lower())


def _response(page: Page, method: str) -> bytes:
    body = f"{page.text}\n".encode()
    lines = [
        f"HTTP/1.1 {page.status.value} {page.status.phrase}",
        "Content-Type: text/plain; charset=utf-8",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
        "Connection: close",
    ]
    if page.status is HTTPStatus.METHOD_NOT_ALLOWED:
        lines.append("Allow: GET, HEAD")
    head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
    return head if method == "HEAD" else head + body
