"""What every use case works with: the ledger, the datapath, the settings in force, and the request at hand."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial

from cni_underlay.cni.environment import Call
from cni_underlay.cni.netconf import NetConf
from cni_underlay.datapath.port import Datapath
from cni_underlay.errors import TryAgainLaterError
from cni_underlay.records import Attachment, Instant, IPAddress, Lease, Pool
from cni_underlay.store.port import Store

# Wraps what waits for somebody else (a delegate, another request), so that the agent can serve others meanwhile.
Aside = Callable[[], AbstractContextManager[None]]

LOCK_SECONDS = 30.0  # a DEL of a link takes 20 ms; whoever waits this long is better off repeated by its runtime


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The part of agent.yaml that a reload may change. `quarantine` and `floor` (seconds) serve inline ranges."""

    node: str
    pools: Mapping[str, Pool] = field(default_factory=dict)
    quarantine: float = 120.0
    floor: float = 30.0
    exhausted_is_not_ready: bool = False


class Steps:
    """Milliseconds of each step of one request, for its log line."""

    def __init__(self) -> None:
        self.milliseconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Add the time of the block to the step's; a failing block counts too."""
        start = time.perf_counter_ns()
        try:
            yield
        finally:
            spent = (time.perf_counter_ns() - start) / 1e6
            self.milliseconds[name] = round(self.milliseconds.get(name, 0.0) + spent, 3)


class AttachmentLocks:
    """One lock for each attachment under work: the verbs of one interface follow each other, all else is parallel."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._locks: dict[Attachment, tuple[threading.Lock, int]] = {}

    @contextmanager
    def hold(self, attachment: Attachment, aside: Aside = nullcontext) -> Iterator[None]:
        """Hold the attachment's lock for the block; raises `TryAgainLaterError` after `LOCK_SECONDS` of waiting."""
        with self._guard:
            lock, users = self._locks.get(attachment, (threading.Lock(), 0))
            self._locks[attachment] = (lock, users + 1)
        try:
            if not lock.acquire(blocking=False):
                with aside():
                    _acquire(lock, attachment)
            try:
                yield
            finally:
                lock.release()
        finally:
            with self._guard:
                lock, users = self._locks[attachment]
                if users == 1:
                    del self._locks[attachment]
                else:
                    self._locks[attachment] = (lock, users - 1)

    def busy(self, attachment: Attachment) -> bool:
        """Whether some request works on the attachment at this moment."""
        with self._guard:
            return attachment in self._locks


def _acquire(lock: threading.Lock, attachment: Attachment) -> None:
    if not lock.acquire(timeout=LOCK_SECONDS):
        raise TryAgainLaterError(
            f"another request for {attachment.ifname} of container {attachment.container_id} is still at work"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One CNI call on its way through a use case. `netns` is an open descriptor, None where CNI_NETNS gave none.

    `warnings` go to the runtime's standard error, `addresses` were given or freed: both are for the log too.
    `abandoned` tells whether the caller is gone by now.
    """

    call: Call
    conf: NetConf
    netns: int | None
    netns_errno: int
    steps: Steps
    warnings: list[str]
    addresses: list[IPAddress] = field(default_factory=list)
    abandoned: Callable[[], bool] = lambda: False

    @property
    def attachment(self) -> Attachment:
        """The interface this call speaks of."""
        return Attachment(network=self.conf.name, container_id=self.call.container_id, ifname=self.call.ifname)

    def require_caller(self) -> None:
        """Raise `TryAgainLaterError` when nobody waits for the answer any more. Call it under the attachment's lock.

        A runtime that kills its plugin sends the DEL next, which may have overtaken this ADD on its way to the lock.
        """
        if self.abandoned():
            raise TryAgainLaterError("the caller went away before its turn came")

    def note(self, lease: Lease) -> None:
        """Remember the addresses that this call is about."""
        self.addresses[:] = [address.interface.ip for address in lease.addresses]


@dataclass(slots=True, kw_only=True)
class Services:
    """The agent's long-lived parts. `settings` is replaced whole by a reload; a request reads it once.

    `owed` holds, for each attachment whose first answer is not delivered yet, the request that is to deliver it; `idle`
    the masters whose last lease ended, with the uptime in seconds of that moment.
    """

    store: Store
    datapath: Datapath
    settings: Settings
    clock: Callable[[], Instant]
    aside: Aside = nullcontext
    locks: AttachmentLocks = field(default_factory=AttachmentLocks)
    owed: dict[Attachment, Request] = field(default_factory=dict)
    idle: dict[str, float] = field(default_factory=dict)

    def exclusive(self, attachment: Attachment) -> AbstractContextManager[None]:
        """No other request touches the attachment for the block; raises `TryAgainLaterError` where one does not end."""
        return self.locks.hold(attachment, self.aside)


def retire_master(services: Services, lease: Lease) -> None:
    """Note that the lease's master may be without leases now; call it after the release.

    Its host-side link goes with `retire_idle`, off the DEL's path: its removal costs as much as that of the
    pod's own did, and the next ADD of a node with few pods would make it again.
    """
    master = lease.claim.master
    if master and _unused(services, master):
        services.idle[master] = services.clock().uptime


def retire_idle(services: Services, seconds: float) -> None:
    """Let go of the host-side links of masters that have been without leases for so long."""
    now = services.clock().uptime
    for master, since in list(services.idle.items()):
        if now - since >= seconds:
            services.idle.pop(master, None)
            services.datapath.retire(master, partial(_unused, services, master))


def _unused(services: Services, master: str) -> bool:
    return services.store.users(master) == 0
