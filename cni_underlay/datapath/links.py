"""Making links: under indexes chosen here, so that everything that follows can be packed without asking the kernel."""

import errno
import itertools
import secrets
from collections.abc import Callable

from cni_underlay.datapath import messages
from cni_underlay.datapath.netlink import Message, RefusedError, RequestSocket
from cni_underlay.datapath.plan import PodPlan
from cni_underlay.datapath.refusal import GONE, refused
from cni_underlay.errors import InvalidConfigError
from cni_underlay.records import DatapathKind

# Below 2**16, as some software keeps an ifindex in 16 bits, and above what a node counts up to by itself while we take
# none of its own numbers. In steps of two, because a veth pair needs an index on either side.
_LOWEST, _PAIRS = 8192, 28672
_TRIES = 4


class Indexes:
    """Interface indexes, one pair after the other, from a random start: a number returns only after all others."""

    def __init__(self) -> None:
        self._count = itertools.count(secrets.randbelow(_PAIRS))

    def pair(self) -> int:
        """An even index; the odd one above it belongs to the same caller."""
        return _LOWEST + 2 * (next(self._count) % _PAIRS)


def make(kernel: RequestSocket, indexes: Indexes, request: Callable[[int], Message]) -> int:
    """Make a link under a free index and return it. Raises `RefusedError`.

    EEXIST and EBUSY can mean that the index is taken, but also that the name is, or the master; so a few are tried.
    """
    for attempt in itertools.count(1):
        index = indexes.pair()
        try:
            kernel.change(request(index))
        except RefusedError as refusal:
            if refusal.errno not in {errno.EEXIST, errno.EBUSY} or attempt == _TRIES:
                raise
        else:
            return index
    raise AssertionError("unreachable")


def unfit(master: str, plan: PodPlan, refusal: RefusedError) -> InvalidConfigError | None:
    """What a refusal to make a macvlan or ipvlan link means, when it is about the master."""
    if refusal.errno not in {errno.EBUSY, errno.EINVAL} or plan.kind is DatapathKind.VETH:
        return None
    return InvalidConfigError(
        f"master {master} cannot carry {plan.kind} {plan.mode}: it carries interfaces of another kind, "
        f"or belongs to one pod alone (macvlan passthru)",
        refused(f"make a {plan.kind} interface", refusal).details,
    )


def delete(kernel: RequestSocket, index: int) -> None:
    """Delete a link, which may be gone. The kernel takes 10 to 30 ms for it (RCU): hold no lock that others need."""
    try:
        kernel.change(messages.delete_link(index))
    except RefusedError as refusal:
        if refusal.errno not in GONE:
            raise


def see_off(kernel: RequestSocket, index: int) -> None:
    """As `delete`, but returns as soon as the link is out of its namespace. The socket is good for nothing then."""
    try:
        kernel.see_off(messages.delete_link(index), messages.RTM_DELLINK, index)
    except RefusedError as refusal:
        if refusal.errno not in GONE:
            raise
