"""The datapath on a Linux kernel: what the port promises, each verb in its own module."""

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from cni_underlay.datapath import check, facts, masters, removal, segment, sweep, veth
from cni_underlay.datapath.announce import Announcer
from cni_underlay.datapath.forwarding import Forwarding
from cni_underlay.datapath.host_link import HostLinks
from cni_underlay.datapath.links import Indexes
from cni_underlay.datapath.netlink import RequestSocket
from cni_underlay.datapath.netns import Node, identity
from cni_underlay.datapath.plan import plan_of
from cni_underlay.datapath.port import Expected, Wired, Wiring
from cni_underlay.datapath.refusal import kernel
from cni_underlay.datapath.work import Shared, Work
from cni_underlay.records import Attachment, DatapathKind, Lease

_WIRE: dict[DatapathKind, Callable[[Work], Wired]] = {
    DatapathKind.VETH: veth.wire,
    DatapathKind.MACVLAN: segment.wire,
    DatapathKind.IPVLAN: segment.wire,
}


class KernelDatapath:
    """Implements `port.Datapath`. All verbs may be called from any thread.

    `netns` is a descriptor of the namespace to serve from, which is duplicated; without it, the process's own.
    """

    def __init__(self, log: logging.Logger, netns: int | None = None) -> None:
        self._node = Node(netns)
        forwarding, indexes = Forwarding(self._node, log), Indexes()
        self._shared = Shared(
            node=self._node,
            forwarding=forwarding,
            host_links=HostLinks(self._node, forwarding, indexes, log),
            indexes=indexes,
            announcer=Announcer(self._node),
            log=log,
        )

    def close(self) -> None:
        """Stop announcing and close every descriptor. Interfaces stay as they are."""
        self._shared.announcer.close()
        self._node.close()

    def default_master(self) -> str:
        with self._requests("read the default route") as requests:
            return masters.default(requests)

    def master_exists(self, master: str) -> bool:
        with self._requests(f"look up master {master}") as requests:
            return facts.link_named(requests, master) is not None

    def require_master(self, master: str) -> None:
        with self._requests(f"look up master {master}") as requests:
            masters.require(requests, master)

    def create(self, wiring: Wiring, netns: int) -> Wired:
        return self._make(wiring, netns, _WIRE[wiring.kind])

    def complete(self, wiring: Wiring, netns: int) -> Wired:
        return self._make(wiring, netns, segment.complete)

    def _make(self, wiring: Wiring, netns: int, wire: Callable[[Work], Wired]) -> Wired:
        identity(netns)
        with self._requests(f"make {wiring.attachment.ifname}") as requests, ExitStack() as undo:
            master = masters.require(requests, wiring.master)
            plan = plan_of(wiring, master)
            self._shared.forwarding.ensure(master, plan)
            work = Work(
                shared=self._shared, requests=requests, wiring=wiring, plan=plan, master=master, netns=netns, undo=undo
            )
            wired = wire(work)
            undo.pop_all()
            return wired

    def wired(self, wiring: Wiring, netns: int) -> Wired | None:
        with self._requests(f"read {wiring.attachment.ifname} back") as requests:
            return check.wired(requests, wiring, netns)

    def check(self, wiring: Wiring, netns: int, expected: Expected) -> None:
        with self._requests(f"read {wiring.attachment.ifname} back") as requests:
            check.check(requests, wiring, netns, expected)

    def delete(self, lease: Lease, netns: int | None) -> None:
        with self._requests(f"remove {lease.claim.attachment.ifname}") as requests:
            removal.delete(self._shared, requests, lease, netns)

    def delete_unknown(self, attachment: Attachment, netns: int | None) -> None:
        with self._requests(f"remove {attachment.ifname}") as requests:
            removal.delete_unknown(self._shared, requests, attachment, netns)

    def retire(self, master: str, unused: Callable[[], bool]) -> None:
        with self._requests(f"remove the node's own link on {master}") as requests:
            if link := facts.link_named(requests, master):
                self._shared.host_links.retire(requests, link, unused)

    def sweep(self, leases: tuple[Lease, ...]) -> tuple[str, ...]:
        with self._requests("sweep what belongs to no lease") as requests:
            return sweep.sweep(requests, leases)

    @contextmanager
    def _requests(self, step: str) -> Iterator[RequestSocket]:
        """A socket of the node's namespace; what the kernel refuses, and nobody inside names better, is `step`."""
        with kernel(step), self._node.requests() as requests:
            yield requests
