"""Which network namespace a request, or a lease, speaks of."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from cni_underlay.cni.environment import Call
from cni_underlay.datapath.netns import inode, is_netns, is_own, require_foreign
from cni_underlay.errors import InvalidNamespaceError, UnderlayError
from cni_underlay.plugin.services import Request
from cni_underlay.records import Lease


def require_netns(request: Request) -> int:
    """The container's namespace; raises `InvalidNamespaceError` when it cannot be one we may work in."""
    path = request.call.netns
    if request.netns is None:
        reason = os.strerror(request.netns_errno) if request.netns_errno else "no descriptor came with the request"
        raise InvalidNamespaceError(f"CNI_NETNS {path!r} cannot be opened", reason)
    require_foreign(request.netns, path, overridden=_overridden(request.call))
    return request.netns


def usable_netns(request: Request) -> int | None:
    """The descriptor of CNI_NETNS where it is a namespace, and not the node's own; a left-over plain file is none."""
    if request.netns is not None:
        with suppress(UnderlayError, OSError):
            if is_netns(request.netns) and not is_own(request.netns):
                return request.netns
    return None


@contextmanager
def lease_netns(lease: Lease, offered: int | None) -> Iterator[int | None]:
    """The namespace that the lease's interface is in: `offered` where it is that one, else what stands at its path.

    None where it is gone. A late DEL may offer the namespace of a newer life of the same container, a spooled one
    offers none although the namespace may stand: an interface left in it would go on using an address that rests.
    """
    with ExitStack() as stack:
        if offered is not None and lease.claim.netns_inode in (0, inode(offered)):
            yield offered
            return
        found = _open(lease)
        if found is not None:
            stack.callback(os.close, found)
        yield found


def stands(lease: Lease) -> bool:
    """Whether the namespace of the lease is still at its path."""
    with lease_netns(lease, None) as found:
        return found is not None


def _open(lease: Lease) -> int | None:
    if not lease.claim.netns_inode:
        return None
    with suppress(OSError, ValueError, UnderlayError), ExitStack() as undo:
        # O_NONBLOCK: what is at the path by now may be a FIFO.
        descriptor = os.open(lease.claim.netns_path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        undo.callback(os.close, descriptor)
        if inode(descriptor) == lease.claim.netns_inode and not is_own(descriptor):
            undo.pop_all()
            return descriptor
    return None


def _overridden(call: Call) -> bool:
    """How libcni allows the plugin's own namespace (skel, CNI_NETNS_OVERRIDE)."""
    return call.environment.get("CNI_NETNS_OVERRIDE", "").lower() in ("true", "1")
