"""DELs that clients left on disk while no agent answered: replayed at start, and again before any later ADD."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from cni_underlay.agent.log import LOGGER
from cni_underlay.agent.protocol import Answer, Frame, parse
from cni_underlay.errors import DecodingError

_SUFFIX = ".del"


class Spool:
    """The directory of spooled frames. `handle` serves one frame exactly as if its client had just connected."""

    def __init__(self, directory: Path, handle: Callable[[Frame], Answer]) -> None:
        self._directory = directory
        self._handle = handle
        self._seen = -1

    def changed(self) -> bool:
        """Whether a client has spooled since the last replay: one stat(2), cheap enough for each ADD's path."""
        return self._stamp() != self._seen

    def replay(self) -> int:
        """Serve what lies there, oldest first; returns how many were served.

        A file whose DEL fails stays for the next replay; a torn one is set aside, since no reader will ever understand it.
        """
        self._seen = self._stamp()
        return sum(self._serve(path) for path in self._files())

    def _stamp(self) -> int:
        try:
            return os.stat(self._directory).st_mtime_ns  # noqa: PTH116  # half the cost of Path.stat
        except OSError:
            return 0

    def _files(self) -> Iterator[Path]:
        if self._directory.is_dir():
            yield from sorted(path for path in self._directory.iterdir() if path.suffix == _SUFFIX)

    def _serve(self, path: Path) -> bool:
        try:
            frame = parse(path.read_bytes())
        except FileNotFoundError:
            return False  # another thread was faster
        except (DecodingError, OSError) as error:
            LOGGER.error("spooled DEL unreadable", extra={"file": str(path), "error": str(error)})  # noqa: TRY400
            path.replace(path.with_suffix(".bad"))
            return False
        answer = self._handle(frame)
        if answer.status != 0:
            LOGGER.error(
                "spooled DEL failed", extra={"file": str(path), "answer": answer.stdout.decode("utf-8", "replace")}
            )
            return False
        path.unlink(missing_ok=True)
        return True
