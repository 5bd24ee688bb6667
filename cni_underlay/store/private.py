"""Files and directories for root's eyes only, whatever the umask of whoever started us. What exists keeps its mode."""

import os
from pathlib import Path


def make_directories(path: Path) -> None:
    """`path` and what is missing above it, 0700."""
    missing = [directory for directory in (path, *path.parents) if not directory.exists()]
    for directory in reversed(missing):
        directory.mkdir(0o700)
        directory.chmod(0o700)


def open_file(path: Path) -> int:
    """A descriptor for reading and writing, made 0600 where it is new. Python opens close-on-exec."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return os.open(path, os.O_RDWR)
    os.fchmod(descriptor, 0o600)
    return descriptor
