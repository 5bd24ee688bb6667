"""The service manager's side: sd_notify(3) states out, an inherited listening socket in (sd_listen_fds(3))."""

import os
import socket
import time
from contextlib import suppress

_FIRST_DESCRIPTOR = 3  # SD_LISTEN_FDS_START
_STORED_NAME = "agent"


def notify(*states: str) -> None:
    """Tell the service manager, if there is one; a dead one is no reason to fail."""
    _send("\n".join(states), ())


def ready(listener: socket.socket) -> None:
    """READY=1, and leave the listening socket with the manager: what comes during a restart waits in its backlog."""
    notify("READY=1")
    _send(f"FDSTORE=1\nFDNAME={_STORED_NAME}", (listener.fileno(),))


def reloading() -> None:
    """RELOADING=1 with the time stamp that `Type=notify-reload` asks for."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")


def inherited_listener() -> socket.socket | None:
    """The listening unix socket that the service manager passed to this very process, or None; the rest is closed."""
    mine = os.environ.pop("LISTEN_PID", "") == str(os.getpid())
    count = os.environ.pop("LISTEN_FDS", "0")
    os.environ.pop("LISTEN_FDNAMES", None)
    if not mine or not count.isdecimal():
        return None
    listener = None
    for descriptor in range(_FIRST_DESCRIPTOR, _FIRST_DESCRIPTOR + int(count)):
        if listener is None and (found := _listening(descriptor)) is not None:
            listener = found
        else:
            with suppress(OSError):
                os.close(descriptor)  # the same socket, stored by an earlier run too
    return listener


def _listening(descriptor: int) -> socket.socket | None:
    try:
        found = socket.socket(fileno=descriptor)
    except OSError:
        return None
    if found.family != socket.AF_UNIX or not found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        found.detach()
        return None
    found.set_inheritable(False)  # the method's own form
    return found


def _send(text: str, descriptors: tuple[int, ...]) -> None:
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as manager:
        manager.connect(address)
        socket.send_fds(manager, [text.encode()], descriptors)
