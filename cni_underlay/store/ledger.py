"""One SQLite file and the book of it: transactions that change both or neither, also where the disk refuses."""

import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

from cni_underlay.errors import StoreUnavailableError
from cni_underlay.records import Instant
from cni_underlay.store import opening
from cni_underlay.store.ballast import Ballast
from cni_underlay.store.commits import Operation, Weight
from cni_underlay.store.flusher import Flusher
from cni_underlay.store.loading import begin_boot, book_of
from cni_underlay.store.lock import LedgerLock
from cni_underlay.store.private import make_directories
from cni_underlay.store.writer import Writer

Operations = Sequence[Operation[object]]

_COMMITS_PER_CHECKPOINT = 100  # about 4 MB of log: ten pages of 4 kB a commit
_LAY_UP_SECONDS = 5.0  # between two tries to get the reserve of space back
_LOG = 4 << 20  # bytes
_PLENTY = 64 << 20  # below this much free space the log grows as it can
_UNHURRIED = frozenset({Weight.LIGHT, Weight.DEFERRED})
_LUXURIES = frozenset({Weight.DURABLE, Weight.DEFERRED})
_ROOM = 64 << 10  # bytes: one commit's pages in the log, and one more page of everything it touches


class Ledger:
    """Opened and locked from construction until `close`. `commit` never runs twice at a time (see `GroupCommit`)."""

    def __init__(self, path: Path, now: Instant, reserve: int) -> None:
        self.path = path
        self.guard = threading.Lock()  # over the book: held for picking and writing rows, never for a commit
        self.marks: set[int] = set()
        self.closing = False
        self._closed = False
        self._synchronous = ""
        self.commits = self.operations = self.reloads = self.rewrites = 0
        self._read_lock = threading.Lock()
        self._ballast = Ballast(path.with_suffix(".reserve"), reserve)
        self._starved = False
        self._tried_at = now.uptime
        self._checkpointed = 0
        with self._translated("opened"), ExitStack() as undo:
            opening.prepare(path)
            self._lock = LedgerLock(path.with_suffix(".lock"))
            undo.callback(self._lock.release)
            connection, self.damage = self._opened(now)
            undo.callback(connection.close)
            self.writer = Writer(connection)
            self._connect(connection)
            undo.callback(self._reader.close)
            self.book = book_of(connection)
            if _free(os.statvfs(path.parent)) >= _PLENTY:
                opening.lay_out(connection, _LOG)
            self._ballast.lay_up()
            self.flusher = Flusher(path.with_name(f"{path.name}-wal"))
            undo.callback(self.flusher.close)
            # What a killed agent had written and not yet flushed: a repeated ADD is answered from it.
            self.flusher.wait(self.flusher.ask())
            undo.pop_all()

    def commit(self, operations: Operations) -> None:
        """Perform them in one transaction, or fail each with `StoreUnavailableError` and leave everything as it was."""
        if self._closed:
            for operation in operations:
                operation.fail(StoreUnavailableError(f"the ledger {self.path} is closed"))
            return
        if self._starved:
            operations = self._without_luxury(operations)
        failure = self._attempt(operations)
        if isinstance(failure, sqlite3.IntegrityError):
            self._agree(operations)
        elif failure is not None and _says_full(failure):
            essential = [operation for operation in operations if operation.weight is Weight.ESSENTIAL]
            if essential and self._ballast.throw():
                self._starved = True
                self._attempt(essential)
        if self.closing:
            self._shut()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """The connection for short questions; it sees what is committed, and waits for no commit."""
        with self._read_lock, self._translated("read"):
            yield self._reader

    @contextmanager
    def browsing(self) -> Iterator[sqlite3.Connection]:
        """A connection of its own for long answers, so that no ADD waits behind somebody's list."""
        with self._translated("read"), closing(self._beside()) as connection:
            yield connection

    def require_writable(self) -> None:
        """Raise `StoreUnavailableError` when the next commit is bound to fail, as far as the file system tells."""
        with self._translated("written"):
            space = os.statvfs(self.path.parent)
        if space.f_flag & os.ST_RDONLY:
            raise StoreUnavailableError(f"the ledger {self.path} is on a read-only file system")
        free = _free(space)
        if free < _ROOM or self._starved:
            raise StoreUnavailableError(f"the ledger {self.path} has {free} bytes of disk space left: make room there")

    def maintain(self, now: Instant) -> None:
        """Fold the log into the file and lay up the reserve again, when it is time."""
        if self.commits - self._checkpointed >= _COMMITS_PER_CHECKPOINT:
            self._checkpointed = self.commits
            with self.browsing() as connection:
                # PASSIVE: takes what no reader needs any more, and makes no writer wait.
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        if not self._ballast.laid_up and now.uptime - self._tried_at >= _LAY_UP_SECONDS:
            self._tried_at = now.uptime
            self._starved = not self._ballast.lay_up() and self._starved

    def _opened(self, now: Instant) -> tuple[sqlite3.Connection, opening.Damage | None]:
        try:
            return self._begun(now)
        except sqlite3.Error as error:
            # The agent has to start on a full disk, too, for DELs to be taken.
            if not _says_full(error) or not self._ballast.throw():
                raise
            self._starved = True
            return self._begun(now)

    def _begun(self, now: Instant) -> tuple[sqlite3.Connection, opening.Damage | None]:
        connection, damage = opening.open_trusted(self.path, now)
        try:
            begin_boot(Writer(connection), now)
        except BaseException:
            connection.close()
            raise
        return connection, damage

    def _beside(self) -> sqlite3.Connection:
        # mode=rw: a file that somebody removed must not come back empty because we looked.
        return sqlite3.connect(
            f"{self.path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None, check_same_thread=False
        )

    def _attempt(self, operations: Operations) -> Exception | None:
        if not operations:
            return None
        try:
            self._require_place()
            self._transact(operations)
        except (sqlite3.Error, OSError, StoreUnavailableError) as error:
            for operation in operations:
                operation.fail(self._unavailable(error, "written"))
            return error
        self.commits += 1
        self.operations += len(operations)
        return None

    def _transact(self, operations: Operations) -> None:
        self._synchronise(operations)
        with ExitStack() as undo:
            undo.callback(self._roll_back)
            self._connection.execute("BEGIN IMMEDIATE")
            undo.callback(self._revert)
            with self.guard:
                self.book.begin()
                for operation in operations:
                    operation.perform()
            marks = tuple(self.marks)  # after the operations: a mark made before its lease was nobody's
            self.writer.mark_attached(marks)
            self._connection.execute("COMMIT")
            undo.pop_all()
        self.book.keep()
        self.marks.difference_update(marks)

    def _synchronise(self, operations: Operations) -> None:
        """Wait for the disk only if somebody asks for it; the rest reaches it with the next commit that does."""
        mode = "NORMAL" if all(operation.weight in _UNHURRIED for operation in operations) else "FULL"
        if mode != self._synchronous:
            self._connection.execute(f"PRAGMA synchronous = {mode}")
            self._synchronous = mode

    def _revert(self) -> None:
        with self.guard:
            self.book.revert()

    def _roll_back(self) -> None:
        self.writer.forget()
        # After some errors SQLite has rolled back by itself (https://sqlite.org/lang_transaction.html, section 2.1).
        with suppress(sqlite3.Error):
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    def _agree(self, operations: Operations) -> None:
        """The book promised what the ledger refuses: believe the ledger, and try once more, then one by one."""
        self.reloads += 1
        try:
            book = book_of(self._connection)
        except sqlite3.Error:
            return  # every operation has failed already
        with self.guard:
            book.early_reuses = self.book.early_reuses
            self.book = book
        if isinstance(self._attempt(operations), sqlite3.IntegrityError) and len(operations) > 1:
            for operation in operations:
                self._attempt([operation])

    def _without_luxury(self, operations: Operations) -> Operations:
        """What is left of the disk is for DELs."""
        for operation in operations:
            if operation.weight in _LUXURIES:
                operation.fail(StoreUnavailableError(f"the ledger {self.path} has no disk space left: make room there"))
        return [operation for operation in operations if operation.weight not in _LUXURIES]

    def _require_place(self) -> None:
        """Write the ledger anew where somebody removed it from under us: a lease in a nameless file is not durable."""
        try:
            if _identity(self.path) == self._identity:
                return
        except FileNotFoundError:
            self._rewrite()
            return
        raise sqlite3.OperationalError("another file has taken the ledger's place; restart the agent to use that")

    def _rewrite(self) -> None:
        make_directories(self.path.parent)
        if not self._lock.stands():
            lock = LedgerLock(self.path.with_suffix(".lock"))
            self._lock.release()
            self._lock = lock
        fresh = opening.copied(self._connection, self.path.with_suffix(".new"))
        with self._read_lock:
            self._disconnect()
            fresh.rename(self.path)
            self._connect(opening.connect(self.path))
        self.rewrites += 1

    def _connect(self, connection: sqlite3.Connection) -> None:
        self._connection = self.writer.connection = connection
        self._reader = self._beside()
        self._identity = _identity(self.path)
        self._synchronous = "FULL"

    def _disconnect(self) -> None:
        # The last connection to close folds the log into the file, and removes the log.
        self._reader.close()
        self._connection.close()

    def _shut(self) -> None:
        self._closed = True
        self.flusher.close()
        with self._read_lock:
            self._disconnect()
        self._lock.release()

    @contextmanager
    def _translated(self, verb: str) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise self._unavailable(error, verb) from error

    def _unavailable(self, error: Exception, verb: str) -> StoreUnavailableError:
        name = getattr(error, "sqlite_errorname", None) or type(error).__name__
        failure = StoreUnavailableError(f"the ledger {self.path} cannot be {verb}: {error}", name)
        failure.__cause__ = error
        return failure


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _free(space: os.statvfs_result) -> int:
    """Bytes, with those that are kept back for root, as the agent is."""
    return space.f_bfree * space.f_frsize


def _says_full(error: Exception) -> bool:
    return getattr(error, "sqlite_errorcode", None) in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE)
