"""The ledger for people, without the agent: read-only, without its lock, beside it or long after it.

Each call opens and closes the file by itself. Raises `StoreUnavailableError`.
"""

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from cni_underlay.errors import StoreUnavailableError
from cni_underlay.records import Event, IPAddress, Lease, PoolUsage
from cni_underlay.store import rows


def read_leases(path: Path) -> tuple[Lease, ...]:
    """Oldest first. The last moment's `attached` marks may be missing: the agent writes them a little later."""
    with _opened(path) as connection:
        return tuple(rows.all_leases(connection))


def read_usage(path: Path) -> tuple[PoolUsage, ...]:
    with _opened(path) as connection:
        return rows.usage(connection)


def read_history(path: Path, address: IPAddress) -> tuple[Event, ...]:
    with _opened(path) as connection:
        return rows.history(connection, address)


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    try:
        with ExitStack() as stack:
            # What makes the place readable may fail and be tried in another way; what reads must not be run twice.
            yield stack.enter_context(closing(_connection(path, stack)))
    except (sqlite3.Error, OSError) as error:
        raise StoreUnavailableError(f"the ledger {path} cannot be read: {error}", type(error).__name__) from error


def _connection(path: Path, stack: ExitStack) -> sqlite3.Connection:
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    try:
        return _checked(path, "mode=ro")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
            raise
    # A write-ahead log needs an index file beside it, and here none can be made (https://sqlite.org/wal.html, section
    # 5): the directory is read-only. Then nobody writes to the ledger either, and a copy is as good.
    copies = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="underlay-ledger-")))
    for suffix in ("", "-wal"):
        original = path.with_name(path.name + suffix)
        if original.exists():
            shutil.copyfile(original, copies / original.name)
    return _checked(copies / path.name, "mode=rw")


def _checked(path: Path, mode: str) -> sqlite3.Connection:
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True, isolation_level=None)
    try:
        connection.execute("SELECT 1 FROM lease LIMIT 1").fetchall()
    except BaseException:
        connection.close()
        raise
    return connection
