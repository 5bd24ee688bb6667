"""One agent for each ledger: an advisory lock that the kernel lets go with the process, however that ends."""

import fcntl
import os
from contextlib import suppress
from pathlib import Path

from cni_underlay.errors import StoreUnavailableError
from cni_underlay.store.private import open_file


class LedgerLock:
    """Held from construction until `release`. Raises `StoreUnavailableError` naming the other process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # Close-on-exec: a delegate or a mount helper must not keep the lock of a dead agent.
        self._descriptor = open_file(path)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.pread(self._descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self._descriptor)
            raise StoreUnavailableError(
                f"the ledger is in use by process {owner} ({path}): one agent works on a ledger; stop that one first"
            ) from error
        with suppress(OSError):  # a full disk: the number is for people only
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def stands(self) -> bool:
        """Whether the file under the path is still the locked one: a lock on a removed file keeps nobody out."""
        try:
            return self._path.stat().st_ino == os.fstat(self._descriptor).st_ino
        except FileNotFoundError:
            return False

    def release(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
