"""The agent's socket: inherited from the service manager, or bound, and never taken from an agent that is alive."""

import fcntl
import os
import socket
from contextlib import ExitStack
from pathlib import Path

from cni_underlay.agent import notify
from cni_underlay.agent.log import LOGGER
from cni_underlay.errors import InvalidConfigError

BACKLOG = 1024  # a node's 250 pods may all start at once; the kernel caps it at net.core.somaxconn
_SIOCUNIXFILE = 0x89E0  # linux/un.h: an O_PATH descriptor of the file that a unix socket is bound to


def listen(path: Path) -> socket.socket:
    """The listening socket at `path`, 0600; raises `InvalidConfigError` where that cannot be."""
    inherited = notify.inherited_listener()
    if inherited is not None:
        if _stands_at(inherited, path):
            return inherited
        LOGGER.warning("the socket of the last agent cannot be reached any more", extra={"socket": str(path)})
        inherited.close()
    return _bind(path)


def _bind(path: Path) -> socket.socket:
    with ExitStack() as undo:
        listener = undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC))
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _make_way(path)
            before = os.umask(0o177)
            undo.callback(os.umask, before)
            listener.bind(str(path))
            os.umask(before)
            listener.listen(BACKLOG)
        except OSError as error:
            raise InvalidConfigError(f"socket: cannot listen on {path}: {error.strerror or error}") from error
        undo.pop_all()
    return listener


def _make_way(path: Path) -> None:
    """Remove what a killed agent left.

    The ledger's lock keeps apart two agents of one state_dir, this keeps apart two of one socket.
    """
    if not os.path.lexists(path):
        return
    if not path.is_socket():
        raise InvalidConfigError(f"socket: {path} is there already, and is no socket; choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as visitor:
        visitor.setblocking(False)  # noqa: FBT003  # the method's own form
        try:
            visitor.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except BlockingIOError:
            pass  # its backlog is full: all the more is it served
    raise InvalidConfigError(f"socket: another process serves {path} already; give each agent a socket of its own")


def _stands_at(listener: socket.socket, path: Path) -> bool:
    """Whether the socket's file is the one at `path`: not moved by the configuration, not removed, not replaced."""
    try:
        descriptor = fcntl.ioctl(listener.fileno(), _SIOCUNIXFILE)
        try:
            return os.path.samestat(os.fstat(descriptor), path.stat())
        finally:
            os.close(descriptor)
    except OSError:
        return False
