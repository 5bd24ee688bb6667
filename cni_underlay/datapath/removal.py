"""Taking an attachment away: both sides, by its marks, going on past every step that fails."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from cni_underlay.datapath import facts, host_link, links, messages
from cni_underlay.datapath.facts import Link, host_route
from cni_underlay.datapath.netlink import Message, RequestSocket
from cni_underlay.datapath.netns import requests_in
from cni_underlay.datapath.plan import mark
from cni_underlay.datapath.refusal import GONE, reason
from cni_underlay.datapath.work import Shared
from cni_underlay.errors import DatapathError
from cni_underlay.records import Attachment, DatapathKind, IPAddress, Lease


class Failures:
    """What could not be removed, told at the end."""

    def __init__(self) -> None:
        self._told: list[str] = []

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        try:
            yield
        except DatapathError as error:
            self._told.append(error.details)
        except OSError as error:
            self._told.append(f"{name}: {reason(error)}")

    def attempt(self, requests: RequestSocket, batch: list[Message], name: str) -> None:
        """Deletions: what is gone already is no failure."""
        with self.step(name):
            for refusal in requests.attempt(batch):
                if refusal.errno not in GONE:
                    self._told.append(f"{name}: {reason(refusal)}")

    def raise_any(self, what: str) -> None:
        if self._told:
            raise DatapathError(f"{what} could not be removed completely", "; ".join(self._told))


def delete(shared: Shared, requests: RequestSocket, lease: Lease, netns: int | None) -> None:
    """See `port.Datapath.delete`. What leads to the address goes first, the interface that has it last."""
    claim, failures = lease.claim, Failures()
    shared.announcer.cancel(claim.attachment)
    with failures.step(f"look up master {claim.master}"):
        # Without the master its proxy neighbours, macvlan and ipvlan links are gone too, and the routes through those.
        if master := facts.link_named(requests, claim.master):
            ips = [address.interface.ip for address in lease.addresses]
            _stop_leading(requests, failures, master.index, ips)
    # The pod's end first: with a veth the node's goes too, and the kernel's slow end of it is waited for by nobody.
    if DatapathKind.VETH not in _delete_in_pod(shared, failures, claim.attachment, netns):
        with failures.step("read the node's interfaces"):
            _delete_links(requests, failures, _on_node(requests, lease))
    failures.raise_any(_what(claim.attachment))


def delete_unknown(shared: Shared, requests: RequestSocket, attachment: Attachment, netns: int | None) -> None:
    """See `port.Datapath.delete_unknown`: the links say by their marks whose they are, and lead to the addresses."""
    failures = Failures()
    shared.announcer.cancel(attachment)
    with failures.step("read the node's interfaces"):
        for host_end in facts.links_marked(requests, mark(attachment)):
            _delete_proxies(requests, failures, host_end)
            _delete_links(requests, failures, [host_end])
    with failures.step("read the container's interfaces"):
        for master, ips in _on_segments(shared, attachment, netns):
            _stop_leading(requests, failures, master, ips)
    _delete_in_pod(shared, failures, attachment, netns)
    failures.raise_any(_what(attachment))


def _what(attachment: Attachment) -> str:
    return f"{attachment.ifname} of container {attachment.container_id}"


def _delete_links(requests: RequestSocket, failures: Failures, found: Iterable[Link]) -> None:
    for link in found:
        with failures.step(f"remove {link.name}"):
            links.delete(requests, link.index)


def _on_node(requests: RequestSocket, lease: Lease) -> list[Link]:
    """The attachment's links in the node's namespace: a veth's host end; anything else only where a pod shares it.

    One that an agent was killed over right after making it says by its name alone whose it is.
    """
    claim = lease.claim
    alias = mark(claim.attachment)
    named = (facts.link_named(requests, name) for name in (claim.host_ifname, claim.attachment.ifname) if name)
    found = [link for link in named if link and (link.alias == alias or link.unfinished)]
    if not found and claim.datapath is DatapathKind.VETH:
        return facts.links_marked(requests, alias)  # renamed, or gone
    return found


def _on_segments(shared: Shared, attachment: Attachment, netns: int | None) -> list[tuple[int, list[IPAddress]]]:
    """The masters' indexes and the addresses of an attachment's macvlan and ipvlan links."""
    if netns is None or not shared.node.is_foreign(netns):
        return []
    with requests_in(netns) as inner:
        return [
            (link.parent, [address.ip for address in facts.addresses(inner, link.index)])
            for link in facts.links_marked(inner, mark(attachment))
            if link.kind != DatapathKind.VETH
        ]


def _delete_in_pod(shared: Shared, failures: Failures, attachment: Attachment, netns: int | None) -> set[str]:
    """Whatever the container calls it by now; never an interface that only has the name. Returns the kinds removed."""
    if netns is None or not shared.node.is_foreign(netns):
        return set()
    found: list[Link] = []
    removed = set()
    with failures.step("read the container's interfaces"), requests_in(netns) as inner:
        found = facts.links_marked(inner, mark(attachment))
        named = facts.link_named(inner, attachment.ifname)
        if named is not None and named.unfinished:
            found.append(named)
    for link in found:
        with failures.step(f"remove {link.name}"), requests_in(netns) as inner:
            links.see_off(inner, link.index)
            removed.add(link.kind)
    return removed


def _stop_leading(requests: RequestSocket, failures: Failures, master: int, ips: Iterable[IPAddress]) -> None:
    """Neither answer for the addresses on the master, nor lead to them by the node's own link there."""
    own = facts.link_named(requests, host_link.name_of(master))
    batch = []
    for ip in ips:
        batch.append(messages.delete_proxy(master, ip))
        if own is not None:
            batch.append(messages.delete_proxy(own.index, ip))
            batch.append(messages.delete_route(own.index, host_route(ip)))
            # The next owner may have another MAC, and the node would send to this one for some seconds.
            batch.append(messages.delete_neighbour(own.index, ip))
    failures.attempt(requests, batch, "stop leading to the addresses")


def _delete_proxies(requests: RequestSocket, failures: Failures, host_end: Link) -> None:
    """Stop answering for the addresses that a veth's host end leads to."""
    led = {route.packed for route in facts.routes(requests, index=host_end.index, protocol=messages.RTPROT_UNDERLAY)}
    ours = [proxy for proxy in facts.proxies(requests) if proxy.packed in led]
    batch = [messages.delete_proxy(proxy.index, proxy.ip) for proxy in ours]
    failures.attempt(requests, batch, "stop answering for the addresses")
