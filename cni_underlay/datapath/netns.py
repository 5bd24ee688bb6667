"""Network namespaces by open descriptors: what a descriptor is, and running a little inside one.

setns(2) moves the calling thread only. A thread enters, opens a socket or writes a sysctl, and is back after two system
calls (1.5 µs together) without a new thread or process; sockets stay in the namespace they were opened in.
"""

import ctypes
import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from cni_underlay.datapath.netlink import RequestSocket
from cni_underlay.datapath.refusal import kernel, reason
from cni_underlay.errors import InvalidNamespaceError

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000
_NS_GET_NSTYPE = 0xB703  # linux/nsfs.h


def _setns_of_libc() -> Callable[[int, int], None]:
    """os.setns for Python 3.11. PyDLL keeps the interpreter lock: the call is shorter than giving the lock away."""
    libc = ctypes.PyDLL(None, use_errno=True)

    def setns(descriptor: int, kind: int) -> None:
        if libc.setns(descriptor, kind) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    return setns


_setns: Callable[[int, int], None] = getattr(os, "setns", None) or _setns_of_libc()


class _Home:
    """The namespace this process works in, opened once; a forked child may move, and opens its own."""

    def __init__(self) -> None:
        self._descriptor = -1
        os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self._descriptor = -1

    def descriptor(self) -> int:
        if self._descriptor < 0:
            self._descriptor = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        return self._descriptor


_home = _Home()


class _Place(threading.local):
    """Where a thread is: a descriptor, or None at home."""

    descriptor: int | None = None


_place = _Place()


def inside(descriptor: int, act: Callable[[], T]) -> T:
    """Run `act` with the calling thread in the namespace; it must be short and must not start threads or processes."""
    before = _place.descriptor
    back = _home.descriptor() if before is None else before
    _setns(descriptor, _CLONE_NEWNET)
    _place.descriptor = descriptor
    try:
        return act()
    finally:
        _return(back)
        _place.descriptor = before


def _return(back: int) -> None:
    try:
        _setns(back, _CLONE_NEWNET)
    except OSError as error:
        # This thread would go on to change links and routes of a pod's namespace while it believes itself on the node.
        # An exception is not enough: a worker survives it. The agent is started again and recovers from its ledger.
        os.write(2, f"cni-underlay: cannot leave a pod's network namespace ({error}); aborting\n".encode())
        os.abort()


def identity(descriptor: int) -> tuple[int, int]:
    """Device and inode of a network namespace. Raises `InvalidNamespaceError` for a descriptor of anything else."""
    try:
        found = os.fstat(descriptor)
        kind = fcntl.ioctl(descriptor, _NS_GET_NSTYPE)
    except OSError as error:
        raise InvalidNamespaceError("CNI_NETNS is not a namespace", reason(error)) from error
    if kind != _CLONE_NEWNET:
        raise InvalidNamespaceError("CNI_NETNS is a namespace of another kind than network")
    return found.st_dev, found.st_ino


def inode(descriptor: int) -> int:
    """The namespace's inode, which no other namespace has while this one lives."""
    return identity(descriptor)[1]


def is_netns(descriptor: int) -> bool:
    try:
        identity(descriptor)
    except InvalidNamespaceError:
        return False
    return True


def is_own(descriptor: int) -> bool:
    """Whether it is the namespace this process works in."""
    return identity(descriptor) == identity(_home.descriptor())


def require_foreign(descriptor: int, path: str, *, overridden: bool) -> None:
    """Raise `InvalidNamespaceError` unless it is a network namespace and, but for `overridden`, not ours."""
    try:
        own = is_own(descriptor)
    except InvalidNamespaceError as error:
        raise InvalidNamespaceError(f"CNI_NETNS {path!r} is not a network namespace", error.details) from error
    if own and not overridden:
        raise InvalidNamespaceError(f"CNI_NETNS {path!r} is the node's own network namespace")


class Node:
    """The namespace a datapath serves from: the process's own, or (in tests) any other by descriptor.

    Keeps request sockets open between calls, one for each thread that is busy at the same time.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        self._descriptor = os.dup(_home.descriptor() if descriptor is None else descriptor)
        self._identity = identity(self._descriptor)
        self._away = self._identity != identity(_home.descriptor())
        self._idle: list[RequestSocket] = []

    @property
    def descriptor(self) -> int:
        return self._descriptor

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()
        os.close(self._descriptor)

    def run(self, act: Callable[[], T]) -> T:
        """Run `act` in the node's namespace: /proc/sys/net shows the settings of the calling thread's namespace."""
        return inside(self._descriptor, act) if self._away else act()

    @contextmanager
    def requests(self) -> Iterator[RequestSocket]:
        """A request socket of the node's namespace, for the calling thread alone."""
        try:
            socket = self._idle.pop()
        except IndexError:
            socket = self.run(RequestSocket)
        try:
            yield socket
        finally:
            self._idle.append(socket)

    def is_foreign(self, descriptor: int | None) -> bool:
        """Whether a DEL may look into the namespace: given, a network namespace, and not the node's own."""
        return descriptor is not None and is_netns(descriptor) and identity(descriptor) != self._identity


@contextmanager
def requests_in(descriptor: int) -> Iterator[RequestSocket]:
    """A request socket inside a pod's namespace, closed at the end: open, it would keep the namespace alive."""
    with kernel("enter the pod's network namespace"):
        socket = inside(descriptor, RequestSocket)
    with socket:
        yield socket
