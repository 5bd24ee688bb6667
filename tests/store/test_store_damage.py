import random
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cni_underlay.records import Claim, Pool
from cni_underlay.store.sqlite import SQLiteStore

MakeClaim = Callable[..., Claim]
MakePool = Callable[..., Pool]
OpenStore = Callable[..., SQLiteStore]
Clock = Any


@pytest.fixture
def pool(make_pool: MakePool) -> Pool:
    return make_pool("10.7.0.0/22")


@pytest.fixture
def full_ledger(open_store: OpenStore, ledger_path: Path, clock: Clock, make_claim: MakeClaim, pool: Pool) -> Path:
    """A closed ledger of 300 leases, without the free pages that it starts with."""
    store = open_store()
    for _ in range(300):
        store.acquire(make_claim(), [pool], [], clock())
    store.close()
    with closing(sqlite3.connect(ledger_path)) as connection:
        connection.execute("VACUUM")
    return ledger_path


def overwrite(path: Path, offset: int, size: int) -> None:
    with path.open("r+b") as stream:
        stream.seek(offset)
        stream.write(random.Random(offset).randbytes(size))


def header(path: Path) -> None:
    overwrite(path, 0, 100)


def first_page(path: Path) -> None:
    overwrite(path, 100, 3900)


def middle(path: Path) -> None:
    overwrite(path, path.stat().st_size // 2 // 4096 * 4096, 3 * 4096)


def cut(path: Path) -> None:
    with path.open("r+b") as stream:
        stream.truncate(path.stat().st_size // 2 // 4096 * 4096)


def cut_within_a_page(path: Path) -> None:
    with path.open("r+b") as stream:
        stream.truncate(5000)


def another_program(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE songs (title TEXT)")


def a_table_gone(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE cursor")


def text(path: Path) -> None:
    path.write_text("this is no ledger\n" * 100)


@pytest.mark.parametrize(
    "harm", [header, first_page, middle, cut, cut_within_a_page, another_program, a_table_gone, text]
)
def test_a_damaged_ledger_is_put_aside_and_reported_and_a_fresh_one_works(
    full_ledger: Path,
    open_store: OpenStore,
    clock: Clock,
    make_claim: MakeClaim,
    pool: Pool,
    harm: Callable[[Path], None],
) -> None:
    harm(full_ledger)
    remains = full_ledger.read_bytes()
    store = open_store()
    assert store.damage is not None
    assert store.damage.reason
    assert store.damage.aside.read_bytes() == remains
    assert store.damage.aside.name == "ledger.damaged-20231114T221320Z.db"
    assert store.leases() == ()
    lease = store.acquire(make_claim(), [pool], [], clock())
    store.close()
    again = open_store()
    assert again.damage is None
    assert again.leases() == (lease,)


def test_a_second_damage_in_the_same_second_keeps_the_first(full_ledger: Path, open_store: OpenStore) -> None:
    names = []
    for _ in range(3):
        header(full_ledger)
        store = open_store()
        assert store.damage is not None
        names.append(store.damage.aside.name)
        store.close()
    assert len(set(names)) == 3


def test_an_emptied_ledger_beside_a_log_is_damage_and_the_log_is_kept(
    open_store: OpenStore, ledger_path: Path, tmp_path: Path, clock: Clock, make_claim: MakeClaim, pool: Pool
) -> None:
    store = open_store()
    store.acquire(make_claim(), [pool], [], clock())
    remains = tmp_path / "remains"
    shutil.copytree(ledger_path.parent, remains)
    (remains / "ledger.db").write_bytes(b"")
    log = (remains / "ledger.db-wal").read_bytes()
    found = open_store(remains / "ledger.db")
    assert found.damage is not None
    assert "empty beside a log" in found.damage.reason
    assert Path(f"{found.damage.aside}-wal").read_bytes() == log


def test_a_damaged_ledger_and_its_log_are_kept_apart_as_they_were_found(
    full_ledger: Path, open_store: OpenStore, tmp_path: Path, clock: Clock, make_claim: MakeClaim, pool: Pool
) -> None:
    open_store().acquire(make_claim(), [pool], [], clock())
    remains = tmp_path / "remains"
    shutil.copytree(full_ledger.parent, remains)
    (remains / "ledger.db-shm").unlink()
    overwrite(remains / "ledger.db", 10 * 4096, 3 * 4096)  # behind the first pages, before the free ones
    before = [(remains / name).read_bytes() for name in ("ledger.db", "ledger.db-wal")]
    damage = open_store(remains / "ledger.db").damage
    assert damage is not None
    assert [damage.aside.read_bytes(), Path(f"{damage.aside}-wal").read_bytes()] == before


def test_a_torn_log_loses_the_torn_commit_only(
    open_store: OpenStore, ledger_path: Path, tmp_path: Path, clock: Clock, make_claim: MakeClaim, pool: Pool
) -> None:
    store = open_store()
    held = [store.acquire(make_claim(), [pool], [], clock()) for _ in range(3)]
    log = ledger_path.with_name("ledger.db-wal")
    before = log.read_bytes()
    store.acquire(make_claim(), [pool], [], clock())
    after = log.read_bytes()
    changed = next(index for index, (one, other) in enumerate(zip(before, after, strict=False)) if one != other)
    remains = tmp_path / "remains"
    shutil.copytree(ledger_path.parent, remains)
    torn = bytearray(after)
    torn[changed + 6000 : changed + 6100] = random.Random(1).randbytes(100)
    (remains / "ledger.db-wal").write_bytes(torn)
    (remains / "ledger.db-shm").unlink()
    found = open_store(remains / "ledger.db")
    assert found.damage is None
    assert found.leases() == tuple(held)


def test_a_file_made_and_never_filled_is_an_empty_ledger(ledger_path: Path, open_store: OpenStore) -> None:
    ledger_path.parent.mkdir(0o700)
    ledger_path.touch()
    store = open_store()
    assert store.damage is None
    assert store.leases() == ()


@pytest.mark.parametrize("seed", range(12))
def test_no_random_damage_goes_unnoticed_and_breaks_things(
    full_ledger: Path, open_store: OpenStore, clock: Clock, make_claim: MakeClaim, pool: Pool, seed: int
) -> None:
    generator = random.Random(seed)
    pages = full_ledger.stat().st_size // 4096
    overwrite(full_ledger, generator.randrange(pages) * 4096 + generator.randrange(8), generator.randrange(64, 4096))
    store = open_store()
    held = store.leases()
    lease = store.acquire(make_claim(), [pool], [], clock())
    assert lease.addresses[0].interface.ip not in {each.interface.ip for old in held for each in old.addresses}
    assert store.damage is not None or len(held) == 300
