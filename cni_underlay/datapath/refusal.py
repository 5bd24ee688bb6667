"""The one place where an errno becomes an error of this project: `with kernel("what was tried")`."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from cni_underlay.datapath.netlink import RefusedError
from cni_underlay.errors import DatapathError

# What a deletion may answer when there is nothing to delete (any more): entry, route, link or its whole namespace.
GONE = frozenset({errno.ENOENT, errno.ESRCH, errno.ENODEV, errno.ENXIO, errno.EADDRNOTAVAIL})

# What a look-up answers when no route leads there, or one of type unreachable, prohibit or blackhole.
UNREACHABLE = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL, errno.EAFNOSUPPORT})


@contextmanager
def kernel(step: str) -> Iterator[None]:
    """Raise `DatapathError` for any OSError inside; `step` completes the sentence "the kernel refused to"."""
    try:
        yield
    except OSError as error:
        raise refused(step, error) from error


def refused(step: str, error: OSError) -> DatapathError:
    return DatapathError(f"the kernel refused to {step}", f"{step}: {reason(error)}")


def reason(error: OSError) -> str:
    """The errno's name with the kernel's own words, where it sent any.

    Never strerror(3): a runtime takes a DEL's error as success when it reads "no such file or directory" in it.
    """
    name = errno.errorcode.get(error.errno or 0, str(error.errno))
    if isinstance(error, RefusedError) and error.words:
        return f"{name} ({error.words})"
    return f"{name} on {error.filename}" if error.filename else name
