"""SIGTERM, SIGINT and SIGHUP as something that the main thread can wait for."""

import select
import signal
import socket
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Self


class Signals:
    """Notes signals while its block lasts.

    The handlers set flags only, and the interpreter itself writes to a socket pair. One that took a lock, as
    `threading.Event.set` does, would wait for ever where it interrupts the thread that holds it.
    """

    def __init__(self) -> None:
        self.stop = False
        self._reload = False
        self._reader, self._writer = socket.socketpair()

    def __enter__(self) -> Self:
        for end in (self._reader, self._writer):
            end.setblocking(False)  # noqa: FBT003  # the method's own form
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self._on_stop)
        signal.signal(signal.SIGINT, self._on_stop)
        signal.signal(signal.SIGHUP, self._on_reload)
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        signal.set_wakeup_fd(-1)
        self._reader.close()
        self._writer.close()

    def wait(self, seconds: float) -> None:
        """Return at the next signal, or after that time."""
        select.select((self._reader,), (), (), seconds)
        with suppress(BlockingIOError):
            self._reader.recv(64)

    def take_reload(self) -> bool:
        """Whether SIGHUP came since the last call."""
        asked, self._reload = self._reload, False
        return asked

    def _on_stop(self, _signal: int, _frame: FrameType | None) -> None:
        self.stop = True

    def _on_reload(self, _signal: int, _frame: FrameType | None) -> None:
        self._reload = True
