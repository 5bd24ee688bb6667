"""Removing what no lease stands for: host-side links, routes and proxy neighbours that carry our marks.

Run while no ADD is at work: an interface made after the leases were read would seem to belong to none of them.
"""

from collections.abc import Iterator

from cni_underlay.datapath import facts, links, messages
from cni_underlay.datapath.netlink import RequestSocket
from cni_underlay.datapath.plan import HOST_MARK, MARK, mark
from cni_underlay.datapath.refusal import GONE, kernel
from cni_underlay.records import DatapathKind, Lease


def sweep(requests: RequestSocket, leases: tuple[Lease, ...]) -> tuple[str, ...]:
    """Remove, and say what: links first, as most routes go with them."""
    wired = [lease for lease in leases if lease.claim.datapath is not DatapathKind.NONE]
    leased = {address.interface.ip.packed for lease in wired for address in lease.addresses}
    with kernel("sweep what belongs to no lease"):
        return (*_links(requests, wired), *_routes(requests, leased), *_proxies(requests, leased))


def _links(requests: RequestSocket, leases: list[Lease]) -> Iterator[str]:
    known = {mark(lease.claim.attachment) for lease in leases}
    known |= {HOST_MARK + lease.claim.master for lease in leases}
    for link in facts.links_marked(requests, MARK):
        if link.alias not in known:
            links.delete(requests, link.index)
            yield f"interface {link.name}"
    for link in facts.links_unfinished(requests):
        links.delete(requests, link.index)
        yield f"unfinished interface {link.name}"


def _routes(requests: RequestSocket, leased: set[bytes]) -> Iterator[str]:
    stale = [
        route
        for route in facts.routes(requests, protocol=messages.RTPROT_UNDERLAY)
        if route.packed not in leased and route.prefixlen == 8 * len(route.packed)
    ]
    for refusal in requests.attempt([messages.delete_route(route.index, route.as_route) for route in stale]):
        if refusal.errno not in GONE:
            raise refusal
    for route in stale:
        yield f"route to {route.dst}"


def _proxies(requests: RequestSocket, leased: set[bytes]) -> Iterator[str]:
    stale = [
        proxy
        for proxy in facts.proxies(requests)
        if proxy.protocol == messages.RTPROT_UNDERLAY and proxy.packed not in leased
    ]
    for refusal in requests.attempt([messages.delete_proxy(proxy.index, proxy.ip) for proxy in stale]):
        if refusal.errno not in GONE:
            raise refusal
    for proxy in stale:
        yield f"proxy neighbour {proxy.ip}"
