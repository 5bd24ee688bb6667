"""One thread that waits for the disk, so that an ADD makes its interface meanwhile.

The write-ahead log is written without waiting (synchronous = NORMAL) and flushed here; whoever asked is told when all
that was in the log at that moment is on the disk. Callers that ask while a flush is under way share the next one.
"""

import os
import threading
from dataclasses import dataclass, field
from pathlib import Path

from cni_underlay.errors import StoreUnavailableError

_REMEMBERED = 1000  # failed flushes: whoever asked for one waits for it within milliseconds


@dataclass(slots=True)
class _Waiter:
    ticket: int
    gate: threading.Lock = field(default_factory=threading.Lock)


class Flusher:
    """`ask` after a commit, `wait` before anything depends on it."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._mutex = threading.Lock()
        self._bell = threading.Lock()
        self._bell.acquire()
        self._asked = self._done = 0
        self._idle = self._closed = False
        self._waiters: list[_Waiter] = []
        self._failures: list[tuple[range, OSError]] = []
        self._thread = threading.Thread(target=self._run, name="flusher", daemon=True)
        self._thread.start()

    def ask(self) -> int:
        """Have everything that is in the log now flushed; returns a ticket to wait with."""
        with self._mutex:
            self._asked += 1
            self._ring()
            return self._asked

    def wait(self, ticket: int) -> None:
        """Return when it is on the disk. Raises `StoreUnavailableError` when the disk refused: it may be lost then."""
        waiter = None
        with self._mutex:
            if self._done < ticket:
                waiter = _Waiter(ticket)
                waiter.gate.acquire()
                self._waiters.append(waiter)
        if waiter is not None:
            waiter.gate.acquire()
        for tickets, error in self._failures:
            if ticket in tickets:
                raise StoreUnavailableError(f"the ledger's log {self._log} cannot be flushed: {error}") from error

    def close(self) -> None:
        """Flush what was asked for, and end the thread."""
        with self._mutex:
            self._closed = True
            self._ring()
        self._thread.join()

    def _ring(self) -> None:
        if self._idle:
            self._idle = False
            self._bell.release()

    def _run(self) -> None:
        while (target := self._next()) is not None:
            failure = self._flush()
            with self._mutex:
                if failure:
                    # A later success would not bring back what this one lost (fsync(2): pages are marked clean).
                    self._failures = [*self._failures[-_REMEMBERED:], (range(self._done + 1, target + 1), failure)]
                self._done = target
                ready = [waiter for waiter in self._waiters if waiter.ticket <= target]
                self._waiters = [waiter for waiter in self._waiters if waiter.ticket > target]
            for waiter in ready:
                waiter.gate.release()

    def _next(self) -> int | None:
        while True:
            with self._mutex:
                if self._asked > self._done:
                    return self._asked
                if self._closed:
                    return None
                self._idle = True
            self._bell.acquire()

    def _flush(self) -> OSError | None:
        try:
            descriptor = os.open(self._log, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None  # it is all in the database file, flushed: SQLite folds a log in before it removes it
        except OSError as error:
            return error
        try:
            os.fdatasync(descriptor)
        except OSError as error:
            return error
        finally:
            os.close(descriptor)
        return None
