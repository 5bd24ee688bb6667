"""From a path to a ledger that can be trusted: created, brought to the present schema, or put aside when damaged."""

import os
import sqlite3
import time
from contextlib import closing, suppress
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from cni_underlay.errors import StoreUnavailableError
from cni_underlay.records import Instant
from cni_underlay.store.private import make_directories, open_file

APPLICATION_ID = 0x554E444C  # "UNDL", for file(1) and for whoever finds the file alone
# Entry n brings a ledger of version n to n + 1.
MIGRATIONS = ("schema.sql",)
VERSION = len(MIGRATIONS)

# Every commit waits for the write-ahead log to reach the disk (FULL). Pages go from the log into the file by `tidy`; a
# checkpoint in mid-commit is the net below it only, because it costs an ADD 10 ms and more.
_PRAGMAS = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    "PRAGMA wal_autocheckpoint = 8000",
    "PRAGMA cache_size = -2000",
)
_BUSY_SECONDS = 5.0  # for people with a database shell open beside us


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """A ledger that could not be trusted: why, and where it was put aside."""

    reason: str
    aside: Path


def prepare(path: Path) -> None:
    """Make the empty file and the directories above it where they are missing. Raises `OSError`."""
    make_directories(path.parent)
    # Not through SQLite, which takes the umask; the files beside it (-wal, -shm) inherit this one's mode.
    os.close(open_file(path))


def connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=_BUSY_SECONDS)
    try:
        for pragma in _PRAGMAS:
            connection.execute(pragma).fetchall()
    except BaseException:
        connection.close()
        raise
    return connection


def open_trusted(path: Path, now: Instant) -> tuple[sqlite3.Connection, Damage | None]:
    """A ledger of the present version; a damaged one is put aside, and an empty one takes its place.

    Raises `StoreUnavailableError` for a ledger of a newer version, `sqlite3.Error` and `OSError` where the place
    cannot be written.
    """
    reason = flaw(path)
    if not reason:
        return _migrated(path), None
    damage = Damage(reason=reason, aside=_put_aside(path, now))
    prepare(path)
    return _migrated(path), damage


def flaw(path: Path) -> str:
    """What is wrong with the ledger, '' where nothing is (an empty file will become one)."""
    log = _beside(path, "-wal")
    if path.stat().st_size == 0:
        # SQLite would take this for a new database and delete the log, with whatever was committed to it last.
        return "the file is empty beside a log that is not" if log.exists() and log.stat().st_size else ""
    try:
        # Read-only: the last writer to close would fold the log of a damaged ledger into it, and spoil both.
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            return _structural_flaw(connection)
    except sqlite3.DatabaseError as error:
        if _is_damage(error):
            return f"{error} ({error.sqlite_errorname})"
        raise


def lay_out(connection: sqlite3.Connection, size: int) -> None:
    """Give the log its blocks on the disk now: it is used again after each checkpoint, and growing it costs.

    Measured on ext4: an ADD takes 0.3 ms where the log has its blocks, 0.5 to 0.7 where it grows. The file keeps the
    pages as free ones. Raises `sqlite3.Error` where the disk has no such room.
    """
    try:
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("CREATE TABLE IF NOT EXISTS room (filler BLOB) STRICT")
        connection.execute("INSERT INTO room VALUES (zeroblob(?))", (size,))
        connection.execute("DROP TABLE room")
        connection.execute("PRAGMA wal_checkpoint(FULL)").fetchall()
    finally:
        connection.execute("PRAGMA synchronous = FULL")


def copied(connection: sqlite3.Connection, path: Path) -> Path:
    """Everything committed through the connection, as a new file at `path`, safe on the disk."""
    path.unlink(missing_ok=True)
    prepare(path)
    with closing(sqlite3.connect(path)) as copy:
        connection.backup(copy)
    return path


def _structural_flaw(connection: sqlite3.Connection) -> str:
    found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        return str(found).replace("\n", " ")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        raise StoreUnavailableError(
            f"the ledger has schema version {version}, and this agent knows versions up to {VERSION}: "
            "install the newer cni-underlay again, or move the ledger away (and lose its leases)"
        )
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if version == 0:
        return "the file holds somebody else's tables" if tables else ""
    missing = _schema(version) - set(connection.execute("SELECT type, name, sql FROM sqlite_schema"))
    return f"the schema differs in {', '.join(sorted(name for _, name, _ in missing))}" if missing else ""


def _schema(version: int) -> set[tuple[str, str, str]]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as model:
        for script in MIGRATIONS[:version]:
            model.executescript(_script(script))
        return set(model.execute("SELECT type, name, sql FROM sqlite_schema"))


def _script(name: str) -> str:
    return files(__package__).joinpath(name).read_text("utf-8")


def _migrated(path: Path) -> sqlite3.Connection:
    connection = connect(path)
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        for number in range(version, VERSION):
            _migrate(connection, number)
    except BaseException:
        connection.close()
        raise
    return connection


def _migrate(connection: sqlite3.Connection, number: int) -> None:
    """One step in one transaction, its number with it: a kill in between leaves the version before."""
    head = f"PRAGMA application_id = {APPLICATION_ID};" if number == 0 else ""
    try:
        connection.executescript(
            f"BEGIN IMMEDIATE; {head} {_script(MIGRATIONS[number])} PRAGMA user_version = {number + 1}; COMMIT;"
        )
    except sqlite3.Error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _put_aside(path: Path, now: Instant) -> Path:
    """Rename the file and its log together, so that they can still be opened as one ledger."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now.wall))
    names = (path.with_name(f"{path.stem}.damaged-{stamp}{more}{path.suffix}") for more in _suffixes())
    aside = next(name for name in names if not name.exists())
    for suffix in ("", "-wal", "-shm"):
        with suppress(FileNotFoundError):
            _beside(path, suffix).rename(_beside(aside, suffix))
    return aside


def _suffixes() -> list[str]:
    return ["", *(f"-{number}" for number in range(2, 1000))]


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
