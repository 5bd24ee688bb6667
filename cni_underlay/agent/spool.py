"""DELs that clients left on disk while no agent answered: replayed at start, and again before any later ADD.

One thread does it. A delegate that hangs in a spooled DEL holds up neither the agent's start nor an ADD for longer than
they are willing to wait.
"""

import os
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path

from cni_underlay.agent.log import LOGGER
from cni_underlay.agent.protocol import KIND_CNI, MAXIMUM, Answer, Frame, parse
from cni_underlay.errors import DecodingError

LOOK_SECONDS = 1.0
RETRY_SECONDS = 10.0  # after which a DEL that failed is tried again
_SUFFIX = ".del"
_UNREADABLE = ".bad"
_LARGEST = 2 * MAXIMUM + 4096
_FRESH_NS = 50_000_000  # directories are stamped by the kernel's tick (at most 10 ms): two changes may share a stamp
_UNKNOWN = -1


class Spool:
    """The directory of spooled frames. `handle` serves one frame exactly as if its client had just connected."""

    def __init__(self, directory: Path, handle: Callable[[Frame], Answer]) -> None:
        self._directory = directory
        self._handle = handle
        self._seen = _UNKNOWN
        self._retry_at = 0.0
        self._rounds = threading.Condition()
        self._poked = False
        self.replayed = 0

    def start(self) -> None:
        """Begin to replay what lies there, and then what comes; once."""
        threading.Thread(target=self._run, name="spool", daemon=True).start()

    def changed(self) -> bool:
        """Whether a client has spooled since the last replay: one stat(2), cheap enough for each ADD's path."""
        return self._stamp() != self._seen

    def settle(self, seconds: float) -> bool:
        """Wait until everything that lies there has been tried; false when that takes longer."""
        with self._rounds:
            self._poked = True
            self._rounds.notify_all()
            return self._rounds.wait_for(lambda: not self.changed(), timeout=seconds)

    def _run(self) -> None:
        while True:
            if self.changed() or (self._retry_at and time.monotonic() >= self._retry_at):
                self._replay()
            with self._rounds:
                self._rounds.notify_all()
                pause = LOOK_SECONDS if self._seen != _UNKNOWN else _FRESH_NS / 1e9
                self._rounds.wait_for(lambda: self._poked, timeout=pause)
                self._poked = False

    def _replay(self) -> None:
        """Serve what lies there, oldest first. A file whose DEL fails stays for a later replay."""
        stamp, now = self._stamp(), time.time_ns()
        served = [self._serve(path) for path in self._files()]
        self._retry_at = 0.0 if all(served) else time.monotonic() + RETRY_SECONDS
        self._seen = stamp if now - stamp > _FRESH_NS else _UNKNOWN

    def _stamp(self) -> int:
        try:
            return os.stat(self._directory).st_mtime_ns  # noqa: PTH116  # half the cost of Path.stat
        except OSError:
            return 0

    def _files(self) -> list[Path]:
        """What lies there, oldest first (names begin with the time); nothing where others could have put it."""
        try:
            status = self._directory.lstat()
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
                LOGGER.error("the spool is not a directory of root's alone", extra={"spool": str(self._directory)})
                return []
            return sorted(path for path in self._directory.iterdir() if path.suffix == _SUFFIX)
        except FileNotFoundError:
            return []
        except OSError as error:
            LOGGER.error("the spool cannot be read", extra={"error": str(error)})
            return []

    def _serve(self, path: Path) -> bool:
        """Whether nothing is left to do for the file."""
        try:
            frame = _read(path)
        except FileNotFoundError:
            return True
        except (DecodingError, OSError) as error:
            return _set_aside(path, str(error))
        answer = self._handle(frame)
        if answer.status != 0:
            words = answer.stdout.decode("utf-8", "replace")
            LOGGER.error("spooled DEL failed", extra={"file": str(path), "answer": words})
            return False
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            LOGGER.error("spooled DEL cannot be removed", extra={"file": str(path), "error": str(error)})
            return False
        self.replayed += 1
        return True


def _read(path: Path) -> Frame:
    if path.lstat().st_size > _LARGEST:
        raise DecodingError(f"the file is larger than a frame can be ({_LARGEST} bytes)")
    frame = parse(path.read_bytes())
    verb = frame.environment.get("CNI_COMMAND", "")
    if frame.kind != KIND_CNI or verb != "DEL":
        raise DecodingError(f"the frame holds no DEL, but {verb!r} of kind {frame.kind}")
    return frame


def _set_aside(path: Path, reason: str) -> bool:
    """Nobody will ever understand this file; it stays under another name for whoever wants to know why."""
    LOGGER.error("spooled DEL unreadable", extra={"file": str(path), "error": reason})
    try:
        path.replace(path.with_suffix(_UNREADABLE))
    except OSError as error:
        LOGGER.error("spooled DEL cannot be set aside", extra={"file": str(path), "error": str(error)})
        return False
    return True
