"""Disks that refuse: full, read-only, not there. Real ones, mounted for the test and taken away after it."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from cni_underlay.errors import StoreUnavailableError
from cni_underlay.records import Claim, Lease, Pool
from cni_underlay.store import reader
from cni_underlay.store.sqlite import SQLiteStore

MakeClaim = Callable[..., Claim]
MakePool = Callable[..., Pool]
Clock = Any


@pytest.fixture
def pool(make_pool: MakePool) -> Pool:
    return make_pool("10.7.0.0/22", quarantine=10, floor=0)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


@pytest.fixture
def store(small_disk: Path, clock: Clock) -> Iterator[SQLiteStore]:
    opened = SQLiteStore(small_disk / "ledger.db", clock(), reserve=256 << 10)
    try:
        yield opened
    finally:
        opened.close()


def fill(place: Path) -> Path:
    """Take every byte that is left."""
    filler = place / "filler"
    with filler.open("ab", buffering=0) as stream, suppress(OSError):
        while stream.write(b"x" * 4096):
            pass
    return filler


def acquired_until_full(store: SQLiteStore, make_claim: MakeClaim, pool: Pool, clock: Clock) -> list[Lease]:
    """The log may have room for a few more after the disk has none."""
    made = []
    for _ in range(500):
        try:
            made.append(store.acquire(make_claim(), [pool], [], clock()))
        except StoreUnavailableError:
            return made
    raise AssertionError("the disk never filled up")


def test_on_a_full_disk_an_add_is_refused_and_a_del_is_not(
    store: SQLiteStore, small_disk: Path, make_claim: MakeClaim, pool: Pool, clock: Clock
) -> None:
    held = [store.acquire(make_claim(), [pool], [], clock()) for _ in range(5)]
    store.require_writable()
    filler = fill(small_disk)
    held += acquired_until_full(store, make_claim, pool, clock)
    with pytest.raises(StoreUnavailableError):
        store.require_writable()
    loser = make_claim()
    with pytest.raises(StoreUnavailableError, match="disk is full"):
        store.acquire(loser, [pool], [], clock())
    assert store.find(loser.attachment) is None
    assert store.leases() == tuple(held)
    for lease in held[:5]:
        assert store.release([lease.generation], "DEL", clock()) == 1
    with pytest.raises(StoreUnavailableError, match="make room"):
        store.acquire(make_claim(), [pool], [], clock())
    assert store.leases() == tuple(held[5:])
    filler.unlink()
    store.tidy(clock.advance(6))
    store.require_writable()
    assert store.acquire(loser, [pool], [], clock()) in store.leases()


def test_adds_that_failed_on_a_full_disk_left_no_trace_in_memory(
    store: SQLiteStore, small_disk: Path, make_claim: MakeClaim, make_pool: MakePool, pool: Pool, clock: Clock
) -> None:
    tiny = make_pool("10.9.0.0/29", name="first-used-on-the-full-disk")
    filler = fill(small_disk)
    acquired_until_full(store, make_claim, pool, clock)
    for _ in range(10):
        with pytest.raises(StoreUnavailableError):
            store.acquire(make_claim(), [tiny], [], clock())
    assert store.has_room(tiny, clock())
    filler.unlink()
    store.tidy(clock.advance(6))
    found = [store.acquire(make_claim(), [tiny], [], clock()).addresses[0].interface.ip for _ in range(5)]
    assert [str(ip) for ip in found] == [f"10.9.0.{host}" for host in range(2, 7)]
    assert store.counters.reloads == 0


def test_what_was_committed_to_a_full_disk_is_there_after_a_restart(
    store: SQLiteStore, small_disk: Path, make_claim: MakeClaim, pool: Pool, clock: Clock
) -> None:
    held = [store.acquire(make_claim(), [pool], [], clock()) for _ in range(5)]
    fill(small_disk)
    held += acquired_until_full(store, make_claim, pool, clock)
    store.release([held[0].generation], "DEL", clock())
    store.close()
    again = SQLiteStore(small_disk / "ledger.db", clock(), reserve=256 << 10)
    try:
        assert again.damage is None
        assert again.leases() == tuple(held[1:])
        assert again.release([held[1].generation], "DEL", clock()) == 1
    finally:
        again.close()


def test_an_agent_starts_on_a_full_disk_after_a_reboot_and_takes_dels(
    store: SQLiteStore, small_disk: Path, make_claim: MakeClaim, pool: Pool, clock: Clock
) -> None:
    held = [store.acquire(make_claim(), [pool], [], clock()) for _ in range(5)]
    store.release([held[0].generation], "DEL", clock())
    store.close()
    fill(small_disk)
    again = SQLiteStore(small_disk / "ledger.db", clock.reboot(), reserve=256 << 10)
    try:
        assert again.leases() == tuple(held[1:])
        assert again.release([lease.generation for lease in held[1:]], "another boot", clock()) == 4
        with pytest.raises(StoreUnavailableError):
            again.require_writable()
    finally:
        again.close()


def test_tidying_on_a_full_disk_loses_no_mark(
    store: SQLiteStore, small_disk: Path, make_claim: MakeClaim, pool: Pool, clock: Clock
) -> None:
    lease = store.acquire(make_claim(), [pool], [], clock())
    filler = fill(small_disk)
    acquired_until_full(store, make_claim, pool, clock)
    store.confirm(lease.generation)
    store.tidy(clock())
    filler.unlink()
    store.tidy(clock.advance(6))
    assert next(iter(reader.read_leases(small_disk / "ledger.db"))).attached


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Callable[[Path], Path]]:
    """Shows a directory at another place, where nothing can be written."""
    mounted: list[Path] = []

    def shown(directory: Path) -> Path:
        place = tmp_path / f"read-only-{len(mounted)}"
        place.mkdir()
        subprocess.run(["mount", "--bind", directory, place], check=True)
        mounted.append(place)
        subprocess.run(["mount", "-o", "remount,bind,ro", place], check=True)
        return place

    try:
        yield shown
    finally:
        for place in mounted:
            subprocess.run(["umount", "--lazy", place], check=True)


def test_a_read_only_ledger_is_refused_with_its_path(
    open_store: Callable[..., SQLiteStore], read_only: Callable[[Path], Path], ledger_path: Path, clock: Clock
) -> None:
    open_store().close()
    place = read_only(ledger_path.parent) / "ledger.db"
    with pytest.raises(StoreUnavailableError, match=f"{place} cannot be opened: .*[Rr]ead-only"):
        SQLiteStore(place, clock())


def test_a_read_only_directory_without_a_ledger_is_refused_with_its_path(
    read_only: Callable[[Path], Path], tmp_path: Path, clock: Clock
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    place = read_only(empty) / "state" / "ledger.db"
    with pytest.raises(StoreUnavailableError, match=f"{place} cannot be opened"):
        SQLiteStore(place, clock())


def test_a_directory_in_the_ledgers_place_is_refused(ledger_path: Path, clock: Clock) -> None:
    ledger_path.mkdir(parents=True)
    with pytest.raises(StoreUnavailableError, match="cannot be opened"):
        SQLiteStore(ledger_path, clock())


def test_a_file_in_the_directorys_place_is_refused(ledger_path: Path, clock: Clock) -> None:
    ledger_path.parent.touch()
    with pytest.raises(StoreUnavailableError, match="cannot be opened"):
        SQLiteStore(ledger_path, clock())


def test_a_read_only_file_system_shows_in_the_status(
    open_store: Callable[..., SQLiteStore], read_only: Callable[[Path], Path], ledger_path: Path
) -> None:
    store = open_store()
    store._ledger.path = read_only(ledger_path.parent) / "ledger.db"
    with pytest.raises(StoreUnavailableError, match="read-only file system"):
        store.require_writable()


def test_people_read_beside_a_working_agent(
    open_store: Callable[..., SQLiteStore], ledger_path: Path, make_claim: MakeClaim, pool: Pool, clock: Clock
) -> None:
    store = open_store()
    lease = store.acquire(make_claim(), [pool], [], clock())
    assert reader.read_leases(ledger_path) == (lease,)
    assert reader.read_usage(ledger_path) == store.usage()
    address = lease.addresses[0].interface.ip
    assert reader.read_history(ledger_path, address) == store.history(address)
    more = store.acquire(make_claim(), [pool], [], clock())
    assert reader.read_leases(ledger_path) == (lease, more)


def test_people_read_after_the_agent_and_change_nothing(
    open_store: Callable[..., SQLiteStore], ledger_path: Path, make_claim: MakeClaim, pool: Pool, clock: Clock
) -> None:
    store = open_store()
    lease = store.acquire(make_claim(), [pool], [], clock())
    store.close()
    before = ledger_path.read_bytes()
    assert reader.read_leases(ledger_path) == (lease,)
    assert ledger_path.read_bytes() == before
    assert open_store().leases() == (lease,)


@pytest.mark.parametrize("left", ["closed", "killed"])
def test_people_read_where_nothing_can_be_written(
    open_store: Callable[..., SQLiteStore],
    read_only: Callable[[Path], Path],
    ledger_path: Path,
    tmp_path: Path,
    make_claim: MakeClaim,
    pool: Pool,
    clock: Clock,
    left: str,
) -> None:
    store = open_store()
    lease = store.acquire(make_claim(), [pool], [], clock())
    remains = tmp_path / "remains"
    if left == "closed":
        store.close()
        shutil.copytree(ledger_path.parent, remains)
    else:  # what a killed agent leaves: the log with the lease in it, and no index
        shutil.copytree(ledger_path.parent, remains, ignore=shutil.ignore_patterns("*-shm"))
        assert (remains / "ledger.db-wal").stat().st_size > 0
    place = read_only(remains)
    assert reader.read_leases(place / "ledger.db") == (lease,)
    assert reader.read_usage(place / "ledger.db")[0].leased == 1


def test_reading_what_is_not_there_is_a_clear_refusal(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailableError, match="does not exist"):
        reader.read_leases(tmp_path / "ledger.db")
    (tmp_path / "ledger.db").write_bytes(os.urandom(8192))
    with pytest.raises(StoreUnavailableError, match="cannot be read"):
        reader.read_leases(tmp_path / "ledger.db")
    assert [each.name for each in tmp_path.iterdir()] == ["ledger.db"]
