import threading
from collections.abc import Sequence

import pytest

from cni_underlay.errors import PoolExhaustedError, StoreUnavailableError
from cni_underlay.store.commits import GroupCommit, Operation

SECONDS = 10.0


class Disk:
    """Commits one batch at a time, and may be held up in the middle of one."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.threads: list[int] = []
        self.busy = threading.Lock()
        self.entered = threading.Semaphore(0)
        self.let_go = threading.Event()
        self.let_go.set()

    def commit(self, operations: Sequence[Operation[object]]) -> None:
        assert self.busy.acquire(blocking=False), "two commits at once"
        try:
            self.entered.release()
            assert self.let_go.wait(SECONDS)
            self.batches.append(len(operations))
            self.threads.append(threading.get_ident())
            for operation in operations:
                operation.perform()
        finally:
            self.busy.release()


def start(group: GroupCommit, operation: Operation[int], results: list[object]) -> threading.Thread:
    def work() -> None:
        try:
            results.append(group.run(operation))
        except (PoolExhaustedError, StoreUnavailableError, ZeroDivisionError) as error:
            results.append(type(error))

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def queued(group: GroupCommit, number: int) -> None:
    """Wait until so many operations stand in the queue."""
    deadline = threading.Event()
    for _ in range(int(SECONDS * 1000)):
        if len(group._queue) >= number:
            return
        deadline.wait(0.001)
    raise AssertionError("the operations were never queued")


def test_a_caller_alone_commits_in_its_own_thread() -> None:
    disk = Disk()
    group = GroupCommit(disk.commit)
    assert [group.run(Operation(lambda: 7)), group.run(Operation(lambda: 8))] == [7, 8]
    assert disk.batches == [1, 1]
    assert set(disk.threads) == {threading.get_ident()}


def test_those_who_come_during_a_commit_share_the_next() -> None:
    disk = Disk()
    group = GroupCommit(disk.commit)
    disk.let_go.clear()
    results: list[object] = []
    threads = [start(group, Operation(lambda: 0), results)]
    assert disk.entered.acquire(timeout=SECONDS)
    threads += [start(group, Operation(lambda number=number: number), results) for number in range(1, 9)]
    queued(group, 8)
    disk.let_go.set()
    for thread in threads:
        thread.join(SECONDS)
    assert disk.batches == [1, 8]
    assert sorted(map(str, results)) == [str(number) for number in range(9)]


def test_a_refusal_is_for_its_own_caller_only() -> None:
    disk = Disk()
    group = GroupCommit(disk.commit)
    disk.let_go.clear()

    def refuse() -> int:
        raise PoolExhaustedError("full")

    results: list[object] = []
    threads = [start(group, Operation(lambda: 1), results)]
    assert disk.entered.acquire(timeout=SECONDS)
    threads += [start(group, Operation(work), results) for work in (refuse, lambda: 2)]
    queued(group, 2)
    disk.let_go.set()
    for thread in threads:
        thread.join(SECONDS)
    assert sorted(map(str, results)) == sorted(map(str, [1, 2, PoolExhaustedError]))


def test_a_commit_torn_out_of_its_work_leaves_nobody_waiting() -> None:
    disk = Disk()
    group = GroupCommit(disk.commit)
    disk.let_go.clear()
    results: list[object] = []
    threads = [start(group, Operation(lambda: 1), results)]
    assert disk.entered.acquire(timeout=SECONDS)
    threads += [start(group, Operation(lambda: 1 // 0), results)]
    queued(group, 1)
    threads += [start(group, Operation(lambda: 2), results)]
    queued(group, 2)
    disk.let_go.set()
    for thread in threads:
        thread.join(SECONDS)
    assert not any(thread.is_alive() for thread in threads)
    assert results.count(ZeroDivisionError) == 1
    assert results.count(StoreUnavailableError) == 1
    assert group.run(Operation(lambda: 3)) == 3


def test_an_operation_that_is_repeated_answers_for_its_last_time() -> None:
    outcomes = iter([1, 2])
    operation = Operation(lambda: next(outcomes))
    operation.perform()
    operation.fail(StoreUnavailableError("no"))
    with pytest.raises(StoreUnavailableError):
        operation.result()
    operation.perform()
    assert operation.result() == 2


def test_a_storm_of_callers_all_get_their_own_answer() -> None:
    disk = Disk()
    group = GroupCommit(disk.commit)
    results: list[object] = []
    threads = [start(group, Operation(lambda number=number: number), results) for number in range(200)]
    for thread in threads:
        thread.join(SECONDS)
    assert sorted(map(int, map(str, results))) == list(range(200))
    assert sum(disk.batches) == 200
