"""Network namespaces as files: made, entered by a thread that ends, searched for processes, removed.

They are bind mounts below the lab's own directory, not below /run/netns: one directory holds all that a lab is, and
`ip netns` of the machine's owner stays as it was.
"""

import ctypes
import fcntl
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Generic, TypeVar

_CLONE_NEWNET = 0x40000000  # linux/sched.h
_MS_BIND = 0x1000  # linux/mount.h
_MNT_DETACH = 2  # sys/mount.h
_SIOCSIFFLAGS = 0x8914  # linux/sockios.h
_IFF_UP = 1  # linux/if.h

# os.unshare and os.setns exist from Python 3.12 on; mount and umount in no version.
_libc = ctypes.CDLL(None, use_errno=True)

_T = TypeVar("_T")


def create(path: Path, sysctls: Mapping[str, str]) -> None:
    """Make a namespace that `path` keeps alive, with `sysctls` (below /proc/sys/net) set and its loopback up."""

    def make() -> None:
        _call(_libc.unshare, _CLONE_NEWNET)
        _call(_libc.mount, b"/proc/thread-self/ns/net", os.fsencode(path), b"", _MS_BIND, None)
        # /proc/sys/net shows the namespace of the thread that looks.
        for name, value in sysctls.items():
            Path("/proc/sys/net", name).write_text(value, encoding="ascii")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP))

    path.touch(exist_ok=False)
    _in_thread(make)


def inside(path: Path, function: Callable[[], _T]) -> _T:
    """What `function` returns, called inside the namespace. Processes and sockets that it makes stay there."""

    def enter() -> _T:
        enter_forever(path)
        return function()

    return _in_thread(enter)


def enter_forever(path: Path) -> None:
    """Move the calling thread into the namespace."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _call(_libc.setns, descriptor, _CLONE_NEWNET)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Let go of the namespace; nothing happens where it is gone already, or was only half made."""
    # A kill between the file's creation and the mount leaves a plain file; umount2 refuses it with EINVAL.
    while _libc.umount2(os.fsencode(path), _MNT_DETACH) == 0:
        pass
    path.unlink(missing_ok=True)


def members(paths: Iterable[Path]) -> set[int]:
    """Processes that live in one of these namespaces, except the caller itself."""
    wanted = identities(paths)
    pids = (int(entry.name) for entry in os.scandir("/proc") if entry.name.isdecimal())
    return {pid for pid in pids if pid != os.getpid() and lives_in(pid, wanted)}


def lives_in(pid: int, wanted: frozenset[tuple[int, int]]) -> bool:
    """Whether the process's main thread is in one of the namespaces given by their `identities`."""
    return _identity(Path(f"/proc/{pid}/ns/net")) in wanted


def identities(paths: Iterable[Path]) -> frozenset[tuple[int, int]]:
    """What tells namespaces apart: device and inode of each (namespaces(7)); those that are gone have none."""
    return frozenset(identity for path in paths if (identity := _identity(path)) is not None)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:  # gone, or a zombie, which has no namespace any more
        return None
    return status.st_dev, status.st_ino


def _call(function: Callable[..., int], *arguments: object) -> None:
    if function(*arguments) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


class _Outcome(Generic[_T]):
    def __init__(self, function: Callable[[], _T]) -> None:
        self._function = function
        self._error: BaseException | None = None
        self._value: list[_T] = []

    def run(self) -> None:
        try:
            self._value.append(self._function())
        except BaseException as error:  # noqa: BLE001  # handed to the thread that waits
            self._error = error

    def get(self) -> _T:
        if self._error is not None:
            raise self._error
        return self._value[0]


def _in_thread(function: Callable[[], _T]) -> _T:
    # A thread that changed its namespace must not be used again, and the process as a whole must never move.
    outcome = _Outcome(function)
    thread = threading.Thread(target=outcome.run)
    thread.start()
    thread.join()
    return outcome.get()
