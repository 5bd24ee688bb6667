import os
import sqlite3
import stat
import subprocess
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from cni_underlay.errors import AddressInUseError, InvalidConfigError, PoolExhaustedError, StoreUnavailableError
from cni_underlay.records import AddressState, Claim, Instant, Lease, Pool
from cni_underlay.store.sqlite import SQLiteStore

MakeClaim = Callable[..., Claim]
MakePool = Callable[..., Pool]
OpenStore = Callable[..., SQLiteStore]
Clock = Any


def ips(lease: Lease) -> list[str]:
    return [str(address.interface.ip) for address in lease.addresses]


def shell(path: Path, *statements: str) -> list[Any]:
    """What somebody with a database shell does beside us."""
    found: list[Any] = []
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            found += connection.execute(statement).fetchall()
    return found


@pytest.fixture
def pool(make_pool: MakePool) -> Pool:
    return make_pool("10.7.0.0/24", "fd00:7::/64", quarantine=120, floor=30)


def test_everything_is_there_after_a_restart(
    open_store: OpenStore, clock: Clock, make_claim: MakeClaim, pool: Pool
) -> None:
    store = open_store()
    kept, ended, confirmed = (store.acquire(make_claim(), [pool], [], clock()) for _ in range(3))
    store.release([ended.generation], "DEL", clock())
    store.confirm(confirmed.generation)
    store.set_aside("app", [ip_address("10.7.0.200")], AddressState.FOREIGN, clock())
    before = store.leases(), store.usage(), store.history(ip_address("10.7.0.3"))
    store.close()
    again = open_store()
    assert (again.leases(), again.usage(), again.history(ip_address("10.7.0.3"))) == before
    assert again.find(confirmed.claim.attachment) == replace(confirmed, attached=True)
    with pytest.raises(AddressInUseError, match="is foreign"):
        again.acquire(make_claim(), [pool], [ip_address("10.7.0.200")], clock())
    assert again.acquire(make_claim(), [pool], [], clock()).generation > confirmed.generation
    assert kept in again.leases()


def test_the_round_robin_goes_on_after_a_restart_also_when_nothing_is_held(
    open_store: OpenStore, clock: Clock, make_claim: MakeClaim, pool: Pool
) -> None:
    store = open_store()
    made = [store.acquire(make_claim(), [pool], [], clock()).generation for _ in range(3)]
    store.release(made, "DEL", clock())
    assert store.tidy(clock.advance(200)) == 6
    store.close()
    assert ips(open_store().acquire(make_claim(), [pool], [], clock())) == ["10.7.0.5", "fd00:7::5"]


def test_a_rest_goes_on_over_a_restart_in_the_same_boot(
    open_store: OpenStore, clock: Clock, make_claim: MakeClaim, make_pool: MakePool
) -> None:
    tiny = make_pool("10.7.0.0/30", quarantine=120, floor=120)
    store = open_store()
    store.release([store.acquire(make_claim(), [tiny], [], clock()).generation], "DEL", clock())
    clock.advance(60)
    store.close()
    again = open_store()
    with pytest.raises(PoolExhaustedError, match="usable in 1 s"):
        again.acquire(make_claim(), [tiny], [], clock.advance(59))
    assert ips(again.acquire(make_claim(), [tiny], [], clock.advance(1))) == ["10.7.0.2"]


def test_a_rest_begins_anew_with_another_boot_and_only_once(
    open_store: OpenStore, clock: Clock, make_claim: MakeClaim, make_pool: MakePool
) -> None:
    tiny = make_pool("10.7.0.0/30", quarantine=120, floor=120)
    store = open_store()
    store.release([store.acquire(make_claim(), [tiny], [], clock()).generation], "DEL", clock())
    store.close()
    clock.reboot(uptime=20)
    open_store().close()
    clock.advance(100)
    again = open_store()
    with pytest.raises(PoolExhaustedError, match="usable in 1 s"):
        again.acquire(make_claim(), [tiny], [], clock.advance(19))
    assert ips(again.acquire(make_claim(), [tiny], [], clock.advance(1))) == ["10.7.0.2"]


def test_no_step_of_the_wall_clock_shortens_a_rest(
    open_store: OpenStore, clock: Clock, make_claim: MakeClaim, make_pool: MakePool
) -> None:
    tiny = make_pool("10.7.0.0/30", quarantine=120, floor=120)
    store = open_store()
    store.release([store.acquire(make_claim(), [tiny], [], clock()).generation], "DEL", clock())
    for wall in (clock.wall + 1e6, clock.wall - 1e6, 0.0):
        clock.wall = wall
        with pytest.raises(PoolExhaustedError):
            store.acquire(make_claim(), [tiny], [], clock.advance(1))
        assert store.tidy(clock()) == 0


def test_leases_of_another_boot_say_so(open_store: OpenStore, clock: Clock, make_claim: MakeClaim, pool: Pool) -> None:
    store = open_store()
    old = store.acquire(make_claim(), [pool], [], clock())
    store.close()
    now = clock.reboot()
    again = open_store()
    (found,) = again.leases()
    assert found.leased_at == old.leased_at
    assert found.leased_at.boot_id != now.boot_id
    again.release([found.generation], "another boot", now)
    with pytest.raises(AddressInUseError, match="usable in 120 s"):
        again.acquire(make_claim(), [pool], [ip_address("10.7.0.2")], now)


def test_a_withdrawal_after_a_reboot_lets_the_rest_begin_anew(
    open_store: OpenStore, clock: Clock, make_claim: MakeClaim, make_pool: MakePool
) -> None:
    tiny = make_pool("10.7.0.0/30", quarantine=120, floor=30)
    store = open_store()
    store.release([store.acquire(make_claim(), [tiny], [], clock()).generation], "DEL", clock())
    early = store.acquire(make_claim(), [tiny], [], clock.advance(40))
    store.close()
    clock.reboot(uptime=20)
    again = open_store()
    again.withdraw(early.generation, clock())
    with pytest.raises(AddressInUseError, match="usable in 120 s"):
        again.acquire(make_claim(), [tiny], [ip_address("10.7.0.2")], clock())


def test_tidying_after_a_restart_knows_each_pools_quarantine(
    open_store: OpenStore, clock: Clock, make_claim: MakeClaim, make_pool: MakePool
) -> None:
    short, long = (
        make_pool("10.7.0.0/24", quarantine=10, floor=0),
        make_pool("10.8.0.0/24", name="long", quarantine=300),
    )
    store = open_store()
    made = [store.acquire(make_claim(), [each], [], clock()).generation for each in (short, long)]
    store.release(made, "DEL", clock())
    store.close()
    again = open_store()
    assert again.tidy(clock.advance(100)) == 1
    assert {each.pool: each.quarantined for each in again.usage()} == {"app": 0, "long": 1}


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777], ids=oct)
def test_nobody_else_may_read_the_ledger_whatever_the_umask(
    tmp_path: Path, clock: Clock, make_claim: MakeClaim, pool: Pool, umask: int
) -> None:
    path = tmp_path / "a" / "b" / "ledger.db"
    previous = os.umask(umask)
    try:
        store = SQLiteStore(path, clock())
        store.acquire(make_claim(), [pool], [], clock())
    finally:
        os.umask(previous)
    modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()}
    store.close()
    assert {"ledger.db", "ledger.db-wal", "ledger.db-shm", "ledger.lock", "ledger.reserve"} <= set(modes)
    assert set(modes.values()) <= {0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_an_existing_directory_keeps_its_mode(tmp_path: Path, clock: Clock) -> None:
    tmp_path.chmod(0o755)
    SQLiteStore(tmp_path / "ledger.db", clock()).close()
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


def test_a_second_agent_is_refused_with_the_firsts_process_and_may_come_after_it(
    open_store: OpenStore, clock: Clock, ledger_path: Path
) -> None:
    store = open_store()
    with pytest.raises(StoreUnavailableError, match=f"in use by process {os.getpid()} "):
        SQLiteStore(ledger_path, clock())
    store.close()
    open_store()


def test_a_child_process_does_not_inherit_the_lock(open_store: OpenStore, ledger_path: Path) -> None:
    open_store()
    shown = subprocess.run(["ls", "-l", "/proc/self/fd"], close_fds=False, capture_output=True, text=True, check=True)
    ours = [entry.resolve() for entry in Path("/proc/self/fd").iterdir()]
    assert ledger_path.with_suffix(".lock") in ours
    assert ledger_path in ours
    assert "ledger" not in shown.stdout


def test_a_newer_schema_is_refused_and_left_alone(open_store: OpenStore, ledger_path: Path, clock: Clock) -> None:
    open_store().close()
    shell(ledger_path, "PRAGMA user_version = 99")
    with pytest.raises(StoreUnavailableError, match=r"schema version 99, and this agent knows versions up to 1"):
        SQLiteStore(ledger_path, clock())
    assert shell(ledger_path, "PRAGMA user_version") == [(99,)]


def test_a_refused_opening_holds_neither_lock_nor_file(open_store: OpenStore, ledger_path: Path, clock: Clock) -> None:
    open_store().close()
    shell(ledger_path, "PRAGMA user_version = 99")
    with pytest.raises(StoreUnavailableError):
        SQLiteStore(ledger_path, clock())
    shell(ledger_path, "PRAGMA user_version = 1")
    open_store()


def test_the_schema_itself_keeps_an_address_to_one_owner(
    open_store: OpenStore, clock: Clock, make_claim: MakeClaim, pool: Pool, ledger_path: Path
) -> None:
    store = open_store()
    lease = store.acquire(make_claim(), [pool], [], clock())
    store.acquire(make_claim(), [pool], [], clock())
    columns = "pool, address, state, generation, slot, wall, uptime, boot"
    for statement, words in (
        (f"INSERT INTO address ({columns}) SELECT {columns} FROM address LIMIT 1", "UNIQUE"),
        (f"UPDATE address SET generation = {lease.generation}", "UNIQUE"),
        ("UPDATE address SET state = 'quarantined'", "CHECK"),
        ("UPDATE address SET state = 'lent'", "CHECK"),
        ("UPDATE address SET address = x'0102'", "CHECK"),
        ("UPDATE lease SET container_id = 'one'", "UNIQUE"),
        ("PRAGMA foreign_keys = ON; DELETE FROM lease", "FOREIGN KEY"),
    ):
        with pytest.raises(sqlite3.IntegrityError, match=words):
            shell(ledger_path, *statement.split("; "))


def test_callers_together_share_the_waits_for_the_disk(
    open_store: OpenStore, clock: Clock, make_claim: MakeClaim, make_pool: MakePool
) -> None:
    store, wide = open_store(), make_pool("10.7.0.0/20")
    claims = [[make_claim() for _ in range(8)] for _ in range(32)]
    start = threading.Barrier(32)

    def work(mine: list[Claim]) -> None:
        start.wait()
        for claim in mine:
            store.acquire(claim, [wide], [], clock())

    threads = [threading.Thread(target=work, args=(mine,)) for mine in claims]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.counters.operations == 256
    assert store.counters.commits < 128


def test_a_book_that_disagrees_with_the_ledger_is_read_again(
    open_store: OpenStore, clock: Clock, make_claim: MakeClaim, make_pool: MakePool, ledger_path: Path
) -> None:
    store, small = open_store(), make_pool("10.7.0.0/29")
    first = store.acquire(make_claim(), [small], [], clock())
    shell(ledger_path, "UPDATE address SET address = x'0a070003'")  # 10.7.0.2 -> 10.7.0.3, behind our back
    assert ips(store.acquire(make_claim(), [small], [], clock())) == ["10.7.0.4"]
    assert store.counters.reloads == 1
    assert store.release([first.generation], "DEL", clock()) == 1
    assert {ip for lease in store.leases() for ip in ips(lease)} == {"10.7.0.4"}


def test_one_operation_that_the_ledger_refuses_fails_alone(
    open_store: OpenStore, clock: Clock, make_claim: MakeClaim, make_pool: MakePool, ledger_path: Path
) -> None:
    store, wide = open_store(), make_pool("10.7.0.0/20")
    store.acquire(make_claim(), [wide], [], clock())
    shell(
        ledger_path,
        "CREATE TRIGGER refuse BEFORE INSERT ON lease WHEN new.container_id = 'poison' "
        "BEGIN SELECT RAISE(ABORT, 'no'); END",
    )
    outcomes: list[str] = []
    start = threading.Barrier(16)

    def work(claim: Claim) -> None:
        start.wait()
        try:
            store.acquire(claim, [wide], [], clock())
        except StoreUnavailableError:
            outcomes.append(claim.attachment.container_id)

    claims = [make_claim("poison"), *(make_claim() for _ in range(15))]
    threads = [threading.Thread(target=work, args=(claim,)) for claim in claims]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == ["poison"]
    assert len(store.leases()) == 16
    assert len({ip for lease in store.leases() for ip in ips(lease)}) == 16


def test_a_number_that_no_column_holds_is_refused_before_it_hurts_others(
    open_store: OpenStore, clock: Clock, make_claim: MakeClaim, pool: Pool
) -> None:
    store = open_store()
    with pytest.raises(InvalidConfigError, match="mtu"):
        store.acquire(make_claim(mtu=1 << 70), [pool], [], clock())
    assert store.leases() == ()


def test_marks_cost_no_commit_of_their_own_on_an_adds_path(
    open_store: OpenStore, clock: Clock, make_claim: MakeClaim, pool: Pool, ledger_path: Path
) -> None:
    store = open_store()
    first = store.acquire(make_claim(), [pool], [], clock())
    commits = store.counters.commits
    store.confirm(first.generation)
    assert store.counters.commits == commits
    store.acquire(make_claim(), [pool], [], clock())
    assert shell(ledger_path, "SELECT attached FROM lease ORDER BY generation") == [(1,), (0,)]
    assert store.counters.commits == commits + 1


def test_tidying_writes_marks_and_commits_nothing_where_there_is_nothing_to_do(
    open_store: OpenStore, clock: Clock, make_claim: MakeClaim, pool: Pool, ledger_path: Path
) -> None:
    store = open_store()
    store.confirm(store.acquire(make_claim(), [pool], [], clock()).generation)
    store.tidy(clock())
    assert shell(ledger_path, "SELECT attached FROM lease") == [(1,)]
    commits = store.counters.commits
    store.tidy(clock())
    assert store.counters.commits == commits


def test_history_is_kept_within_its_limit_the_youngest_last(
    open_store: OpenStore, clock: Clock, make_claim: MakeClaim, make_pool: MakePool, ledger_path: Path
) -> None:
    small = make_pool("10.7.0.0/29", quarantine=1, floor=0)
    store = open_store(history_rows=20)
    for _ in range(30):
        store.release([store.acquire(make_claim(), [small], [], clock()).generation], "DEL", clock())
        store.tidy(clock.advance(2))
    (count, oldest, youngest), *_ = shell(ledger_path, "SELECT count(*), min(id), max(id) FROM history")
    assert (count, youngest) == (20, 90)
    assert oldest == 71


def test_the_log_is_folded_into_the_ledger_by_tidying(
    open_store: OpenStore, clock: Clock, make_claim: MakeClaim, make_pool: MakePool, ledger_path: Path
) -> None:
    store, wide = open_store(), make_pool("10.7.0.0/20")
    for _ in range(600):
        store.acquire(make_claim(), [wide], [], clock())
        store.tidy(clock.advance(0.001))
    assert ledger_path.with_name("ledger.db-wal").stat().st_size < 16 << 20


def test_a_ledger_removed_from_under_the_agent_is_written_anew(
    open_store: OpenStore, clock: Clock, make_claim: MakeClaim, pool: Pool, ledger_path: Path
) -> None:
    store = open_store()
    held = [store.acquire(make_claim(), [pool], [], clock()) for _ in range(3)]
    store.release([held[0].generation], "DEL", clock())
    for each in ledger_path.parent.iterdir():
        each.unlink()
    ledger_path.parent.rmdir()
    more = store.acquire(make_claim(), [pool], [], clock())
    assert ips(more) == ["10.7.0.5", "fd00:7::5"]
    assert store.counters.rewrites == 1
    with pytest.raises(StoreUnavailableError, match="in use by process"):
        SQLiteStore(ledger_path, clock())
    store.close()
    again = open_store()
    assert again.leases() == (*held[1:], more)
    assert {each.pool: (each.leased, each.quarantined) for each in again.usage()} == {"app": (6, 2)}
    assert stat.S_IMODE(ledger_path.stat().st_mode) == 0o600


def test_a_del_works_after_the_state_directory_is_gone(
    open_store: OpenStore, clock: Clock, make_claim: MakeClaim, pool: Pool, ledger_path: Path
) -> None:
    store = open_store()
    lease = store.acquire(make_claim(), [pool], [], clock())
    for each in ledger_path.parent.iterdir():
        each.unlink()
    ledger_path.parent.rmdir()
    assert store.release([lease.generation], "DEL", clock()) == 1
    assert store.find(lease.claim.attachment) is None


def test_another_file_in_the_ledgers_place_stops_it(
    open_store: OpenStore, clock: Clock, make_claim: MakeClaim, pool: Pool, ledger_path: Path
) -> None:
    store = open_store()
    ledger_path.unlink()
    ledger_path.touch()
    with pytest.raises(StoreUnavailableError, match="another file has taken the ledger's place"):
        store.acquire(make_claim(), [pool], [], clock())
    assert ledger_path.stat().st_size == 0


def test_a_closed_store_refuses_and_creates_nothing(
    open_store: OpenStore, clock: Clock, make_claim: MakeClaim, pool: Pool, ledger_path: Path
) -> None:
    store = open_store()
    store.close()
    for each in ledger_path.parent.iterdir():
        each.unlink()
    for question in (
        lambda: store.acquire(make_claim(), [pool], [], clock()),
        lambda: store.find(make_claim().attachment),
        store.leases,
    ):
        with pytest.raises(StoreUnavailableError):
            question()
    store.close()
    assert list(ledger_path.parent.iterdir()) == []


def test_a_failing_commit_puts_the_book_back(
    open_store: OpenStore, clock: Clock, make_claim: MakeClaim, make_pool: MakePool, ledger_path: Path
) -> None:
    store, small = open_store(), make_pool("10.7.0.0/29")
    first = store.acquire(make_claim(), [small], [], clock())
    with closing(sqlite3.connect(ledger_path, isolation_level=None)) as other:
        store._ledger._connection.execute("PRAGMA busy_timeout = 1")
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailableError, match="locked"):
            store.acquire(make_claim(), [small], [], clock())
        with pytest.raises(StoreUnavailableError, match="locked"):
            store.release([first.generation], "DEL", clock())
        other.execute("ROLLBACK")
    assert ips(store.acquire(make_claim(), [small], [], clock())) == ["10.7.0.3"]
    assert store.release([first.generation], "DEL", clock()) == 1


def test_reading_waits_for_no_commit(
    open_store: OpenStore, clock: Clock, make_claim: MakeClaim, pool: Pool, ledger_path: Path
) -> None:
    store = open_store()
    lease = store.acquire(make_claim(), [pool], [], clock())
    with closing(sqlite3.connect(ledger_path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        writer = threading.Thread(target=store.acquire, args=(make_claim(), [pool], [], clock()))
        writer.start()
        try:
            assert store.find(lease.claim.attachment) == lease
            assert store.users("eth0") == 1
            assert store.has_room(pool, clock())
            assert len(store.leases()) == 1
        finally:
            other.execute("ROLLBACK")
            writer.join()
    assert store.users("eth0") == 2


def test_an_instant_of_another_boot_is_written_as_such(
    open_store: OpenStore, clock: Clock, make_claim: MakeClaim, pool: Pool
) -> None:
    store = open_store()
    odd = Instant(wall=1.0, uptime=2.0, boot_id="another")
    assert store.acquire(make_claim(), [pool], [], odd).leased_at == odd
    assert store.leases()[0].leased_at == odd
