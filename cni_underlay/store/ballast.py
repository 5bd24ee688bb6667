"""Disk space kept back for the one moment when there is none: a DEL has to be recorded on a full disk, too.

(CNI takes a failing DEL for a pod that cannot be deleted, and repeats it for ever.)
"""

import os
from contextlib import suppress
from pathlib import Path

from cni_underlay.store.private import open_file


class Ballast:
    """A file of `size` bytes that is thrown away in need and laid up again when there is room."""

    def __init__(self, path: Path, size: int) -> None:
        self._path = path
        self._size = size

    @property
    def laid_up(self) -> bool:
        with suppress(OSError):
            return self._path.stat().st_size >= self._size
        return False

    def lay_up(self) -> bool:
        """Whether the space is there now."""
        try:
            descriptor = open_file(self._path)
        except OSError:
            return False
        try:
            os.posix_fallocate(descriptor, 0, self._size)
        except OSError:
            os.ftruncate(descriptor, 0)  # a partial one would eat the last of a disk that is short of it
            return False
        finally:
            os.close(descriptor)
        return True

    def throw(self) -> bool:
        """Whether that made any space."""
        with suppress(OSError):
            had = self._path.stat().st_blocks > 0
            os.truncate(self._path, 0)
            return had
        return False
