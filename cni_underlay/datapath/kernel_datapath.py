"""The datapath on a Linux kernel: what the port promises, each verb in its own module."""

import logging
from collections.abc import Callable
from contextlib import ExitStack

from cni_underlay.datapath import master, segment, veth
from cni_underlay.datapath.announce import Announcer
from cni_underlay.datapath.forwarding import Forwarding
from cni_underlay.datapath.host_link import HostLinks
from cni_underlay.datapath.links import Indexes
from cni_underlay.datapath.netns import Node
from cni_underlay.datapath.plan import plan_of
from cni_underlay.datapath.port import Expected, Wired, Wiring
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
            announcer=Announcer(self._node, log),
            log=log,
        )

    def close(self) -> None:
        """Stop announcing and close every descriptor. Interfaces stay as they are."""
        self._shared.announcer.close()
        self._node.close()

    def default_master(self) -> str:
        with self._node.requests() as requests:
            return master.default(requests)

    def master_exists(self, name: str) -> bool:
        with self._node.requests() as requests:
            return master.find(requests, name) is not None

    def require_master(self, name: str) -> None:
        with self._node.requests() as requests:
            master.require(requests, name)

    def create(self, wiring: Wiring, netns: int) -> Wired:
        with self._node.requests() as requests, ExitStack() as undo:
            link = master.require(requests, wiring.master)
            plan = plan_of(wiring, link)
            self._shared.forwarding.ensure(link, plan)
            work = Work(
                shared=self._shared, requests=requests, wiring=wiring, plan=plan, master=link, netns=netns, undo=undo
            )
            wired = _WIRE[wiring.kind](work)
            undo.pop_all()
            return wired
