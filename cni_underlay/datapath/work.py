"""One ADD on its way through a datapath: what is wanted, what it may use, and what would undo it."""

import errno
import logging
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from cni_underlay.datapath import facts, hardware, links, messages
from cni_underlay.datapath.announce import Announcer, announcement
from cni_underlay.datapath.facts import Link as KernelLink
from cni_underlay.datapath.forwarding import Forwarding
from cni_underlay.datapath.host_link import HostLinks
from cni_underlay.datapath.links import Indexes
from cni_underlay.datapath.netlink import Message, RefusedError, RequestSocket
from cni_underlay.datapath.netns import Node, requests_in
from cni_underlay.datapath.plan import PodPlan
from cni_underlay.datapath.port import Link, Wired, Wiring
from cni_underlay.datapath.refusal import kernel, refused
from cni_underlay.errors import DatapathError, InvalidConfigError, UnderlayError
from cni_underlay.records import Route


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What all ADDs of a node have in common."""

    node: Node
    forwarding: Forwarding
    host_links: HostLinks
    indexes: Indexes
    announcer: Announcer
    log: logging.Logger


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """`requests` is a socket of the node's namespace; whatever is made is followed at once by its undo."""

    shared: Shared
    requests: RequestSocket
    wiring: Wiring
    plan: PodPlan
    master: KernelLink
    netns: int
    undo: ExitStack

    def make(self, request: Callable[[int], Message], undo: Callable[[int], None]) -> int:
        """Make the pod's link; returns its index. `undo` gets that index, should anything fail later."""
        try:
            index = links.make(self.requests, self.shared.indexes, request)
        except RefusedError as refusal:
            raise self._not_made(refusal) from refusal
        self.undo.callback(self._undo, undo, index)
        return index

    def _undo(self, act: Callable[[int], None], index: int) -> None:
        """The failure that made this necessary is the one to report; this one goes to the log."""
        try:
            act(index)
        except (UnderlayError, OSError) as error:
            self.shared.log.warning("could not remove %s again: %s", self.plan.ifname, error)

    def add_host_routes(self, index: int, routes: list[Route]) -> None:
        """Lead the pod's addresses to link `index`. Raises `DatapathError` where one leads elsewhere already."""
        refusals = self.requests.attempt([messages.new_route(index, route) for route in routes])
        not_made = {refusal.position for refusal in refusals}
        made = [route for place, route in enumerate(routes) if place not in not_made]
        self.undo.callback(lambda: self.requests.attempt([messages.delete_route(index, route) for route in made]))
        for refusal in refusals:
            route = routes[refusal.position]
            error = refused(f"add the node's route to {route.dst}", refusal)
            if refusal.errno == errno.EEXIST:
                message = f"the node has a route to {route.dst} already: another attachment or network has this address"
                raise DatapathError(message, error.details) from refusal
            raise error from refusal

    def announce(self, mac: bytes) -> None:
        frames = announcement(self.wiring.attachment, self.master.name, mac, self.plan.ips)
        self.shared.announcer.announce(frames)

    def answer(self, *links: Link, mac: bytes, routes: tuple[Route, ...]) -> Wired:
        """What was made; `links` are the node's."""
        plan = self.plan
        own = Link(name=plan.ifname, mac=hardware.mac_text(mac), mtu=plan.mtu, sandboxed=True)
        return Wired(links=(*links, own), addresses=plan.endpoints, routes=routes)

    def _not_made(self, refusal: RefusedError) -> UnderlayError:
        plan = self.plan
        error = refused(f"make {plan.ifname}", refusal)
        if refusal.errno == errno.EEXIST:
            with requests_in(self.netns) as inner, kernel(f"look up {plan.ifname}"):
                if facts.link_named(inner, plan.ifname):
                    return InvalidConfigError(f"the container has an interface {plan.ifname} already", error.details)
            return DatapathError(f"the node has an interface {self.wiring.host_ifname} already", error.details)
        return links.unfit(self.master.name, plan, refusal) or error
