"""Settings under /proc/sys/net, which are those of the calling thread's network namespace (see `netns.Node.run`)."""

import os
from contextlib import suppress

from cni_underlay.datapath.refusal import kernel

_ROOT = "/proc/sys/net/"


def read(name: str) -> str | None:
    """The setting's value; None where this kernel or this interface does not have it (IPv6 off, link gone)."""
    try:
        descriptor = os.open(_ROOT + name, os.O_RDONLY | os.O_CLOEXEC)  # a fifth of the time of a file object
    except FileNotFoundError:
        return None
    try:
        return os.read(descriptor, 64).strip().decode()
    finally:
        os.close(descriptor)


def ensure(name: str, value: str) -> str | None:
    """Set it where it is different, because some writes have side effects even then. Returns the old value if changed.

    A setting that does not exist is left alone. Raises `DatapathError` (read-only /proc/sys, for one).
    """
    old = read(name)
    if old is None or old == value:
        return None
    write(name, value)
    return old


def write(name: str, value: str) -> None:
    """Set it, where it exists. Raises `DatapathError`."""
    with kernel(f"set {name.replace('/', '.')} to {value}"), suppress(FileNotFoundError):
        descriptor = os.open(_ROOT + name, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, value.encode())
        finally:
            os.close(descriptor)
