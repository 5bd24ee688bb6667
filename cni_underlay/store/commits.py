"""Group commit: callers that arrive while a commit is under way share the next one.

Whoever finds nobody at work leads: it commits everything queued at that moment, its own operation among them, wakes
those who waited, and hands the lead to the first of those who came since. A caller alone hands nothing to anybody.
"""

import threading
from collections.abc import Callable, Sequence
from enum import Enum, auto
from typing import Generic, TypeVar

from cni_underlay.errors import StoreUnavailableError, UnderlayError

_Result = TypeVar("_Result")


class Weight(Enum):
    """What an operation asks of its commit.

    `LIGHT` may be lost with the power, though not with the process; `DURABLE` may not. `DEFERRED` may until its owner
    has it flushed. `ESSENTIAL` is durable and may use the last reserve of disk space: a DEL has to succeed on a full
    disk.
    """

    LIGHT = auto()
    DEFERRED = auto()
    DURABLE = auto()
    ESSENTIAL = auto()


class Operation(Generic[_Result]):
    """One caller's part of a commit.

    `work` runs inside the transaction, and again where that has to be repeated. It either changes nothing and raises
    `UnderlayError`, or succeeds.
    """

    def __init__(self, work: Callable[[], _Result], weight: Weight = Weight.DURABLE) -> None:
        self.weight = weight
        self._work = work
        self._result: list[_Result] = []
        self._error: UnderlayError | None = None
        self._gate = threading.Lock()
        self._gate.acquire()

    @property
    def ended(self) -> bool:
        return bool(self._result) or self._error is not None

    def perform(self) -> None:
        self._result.clear()
        self._error = None
        try:
            self._result.append(self._work())
        except UnderlayError as refusal:
            self._error = refusal

    def fail(self, error: UnderlayError) -> None:
        """What the caller gets, whatever the operation came to."""
        self._result.clear()
        self._error = error

    def wake(self) -> None:
        self._gate.release()

    def wait(self) -> None:
        self._gate.acquire()

    def result(self) -> _Result:
        if self._error is not None:
            raise self._error
        return self._result[0]


class GroupCommit:
    """`commit` gets the operations of one transaction, never two at a time, and has to perform or fail each of them."""

    def __init__(self, commit: Callable[[Sequence[Operation[object]]], None]) -> None:
        self._commit = commit
        self._mutex = threading.Lock()
        self._queue: list[Operation[object]] = []
        self._led = False

    def run(self, operation: Operation[_Result]) -> _Result:
        """The operation's result once it is committed; raises what it refused, or what the commit failed with."""
        with self._mutex:
            self._queue.append(operation)  # type: ignore[arg-type]  # only its owner reads the result
            follows, self._led = self._led, True
        if follows:
            operation.wait()
        if not operation.ended:
            self._lead(operation)
        return operation.result()

    def _lead(self, own: Operation[_Result]) -> None:
        with self._mutex:
            batch, self._queue = self._queue, []
        try:
            self._commit(batch)
        finally:
            with self._mutex:
                heir = self._queue[0] if self._queue else None
                self._led = heir is not None
            if heir is not None:
                heir.wake()
            for operation in batch:
                if not operation.ended:  # `commit` was torn out of its work; nobody may wait for ever
                    operation.fail(StoreUnavailableError("the commit was interrupted"))
                if operation is not own:
                    operation.wake()
