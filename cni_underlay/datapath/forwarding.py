"""The sysctls without which the node does not answer or forward for its pods, each written only where it differs."""

import logging
import time
from collections.abc import Callable, Iterator

from cni_underlay.datapath import facts, messages, sysctl
from cni_underlay.datapath.facts import Link
from cni_underlay.datapath.messages import IPV4, IPV6
from cni_underlay.datapath.netns import Node
from cni_underlay.datapath.plan import PodPlan
from cni_underlay.datapath.refusal import kernel
from cni_underlay.errors import DatapathError
from cni_underlay.records import DatapathKind

# Settings are looked at again after this long: packages and admins run `sysctl --system`, which resets them.
_TRUSTED_SECONDS = 30.0

_STRICT, _LOOSE = "1", "2"


class Forwarding:
    """Readies masters, and remembers for a while which are; by index too, as a new interface starts from defaults."""

    def __init__(self, node: Node, log: logging.Logger) -> None:
        self._node = node
        self._log = log
        self._ready: dict[tuple[str, int, Callable[[str], None]], float] = {}
        self._host_ends_listen = True
        self._looked_at_defaults = 0.0

    def ensure(self, master: Link, plan: PodPlan) -> None:
        """Ready the master for this pod. Raises `DatapathError`."""
        for work in self._works(plan):
            key = (master.name, master.index, work)
            now = time.monotonic()
            if self._ready.get(key, 0.0) < now:
                self._node.run(lambda work=work: work(master.name))  # type: ignore[misc]  # bound at once
                self._ready[key] = now + _TRUSTED_SECONDS

    def _works(self, plan: PodPlan) -> Iterator[Callable[[str], None]]:
        if plan.proxied:
            if IPV4 in plan.versions:
                yield self._forward4
            if IPV6 in plan.versions:
                yield self._forward6
        elif plan.kind is DatapathKind.IPVLAN:
            yield self._accept_from_pods

    def _put(self, name: str, value: str) -> None:
        """Write one setting where it differs, and say so. To be called in the node's namespace."""
        old = sysctl.ensure(name, value)
        if old is not None:
            self._log.info("set %s to %s, was %s", f"net.{name.replace('/', '.')}", value, old)

    def _forward4(self, master: str) -> None:
        # Only where it is 0: writing ip_forward resets the other settings of every interface to their defaults.
        if sysctl.read("ipv4/ip_forward") == "0":
            self._put("ipv4/ip_forward", "1")
        self._put(f"ipv4/conf/{master}/forwarding", "1")
        # A proxied answer waits a random time up to proxy_delay (0.8 s) before it is sent: 409 ms seen on a first ping.
        self._put(f"ipv4/neigh/{master}/proxy_delay", "0")

    def _forward6(self, master: str) -> None:
        if sysctl.read(f"ipv6/conf/{master}/disable_ipv6") != "0":
            raise DatapathError(f"the pod has IPv6 addresses, but IPv6 is switched off on master {master!r}")
        if sysctl.read("ipv6/conf/all/forwarding") == "0":
            # A forwarding node stops listening to router advertisements where accept_ra is 1, and drops the default
            # routes it has learned from them: so this comes first. (Documentation/networking/ip-sysctl: accept_ra.)
            for name in {master, *self._listening_to_routers()}:
                if sysctl.read(f"ipv6/conf/{name}/accept_ra") == "1":
                    self._put(f"ipv6/conf/{name}/accept_ra", "2")
            self._put("ipv6/conf/all/forwarding", "1")
        self._put(f"ipv6/conf/{master}/forwarding", "1")
        self._put(f"ipv6/conf/{master}/proxy_ndp", "1")
        self._put(f"ipv6/neigh/{master}/proxy_delay", "0")

    def _listening_to_routers(self) -> set[str]:
        """The interfaces that live on router advertisements. Not all that could: a container could send some too."""
        with self._node.requests() as requests, kernel("read what came by router advertisements"):
            indexes = {route.index for route in facts.routes(requests, protocol=messages.RTPROT_RA)}
            indexes |= facts.links_with_passing_addresses(requests)
            found = (facts.link_numbered(requests, index) for index in indexes)
            return {link.name for link in found if link}

    def _accept_from_pods(self, master: str) -> None:
        """Let the node take in what its ipvlan pods send to it.

        Such a packet comes in by the master, while the route back leads through the node's ipvlan link. Of the values
        for `all` and for the interface the larger counts: strict (1) becomes loose (2), off (0) stays off.
        """
        values = [sysctl.read(f"ipv4/conf/{name}/rp_filter") for name in ("all", master)]
        if _STRICT in values and _LOOSE not in values:
            self._put(f"ipv4/conf/{master}/rp_filter", _LOOSE)

    def ensure_host_end(self, name: str) -> None:
        """Keep a pod from telling its node, by router advertisements, where to send everything (CVE-2020-10749).

        Nothing to do where new interfaces ignore them anyway; the write to a new interface's setting costs 40 µs.
        """
        now = time.monotonic()
        if self._looked_at_defaults < now:
            self._host_ends_listen = self._node.run(_new_interfaces_listen)
            self._looked_at_defaults = now + _TRUSTED_SECONDS
        if self._host_ends_listen:
            self._node.run(lambda: sysctl.write(f"ipv6/conf/{name}/accept_ra", "0"))

    def ready_host_link(self, name: str) -> None:
        """The settings of the node's own link on a segment that netlink cannot carry; those that exist."""
        for setting, value in (
            (f"ipv4/neigh/{name}/proxy_delay", "0"),
            (f"ipv6/neigh/{name}/proxy_delay", "0"),
            (f"ipv6/conf/{name}/accept_ra", "0"),
            (f"ipv6/conf/{name}/forwarding", "1"),
            (f"ipv6/conf/{name}/proxy_ndp", "1"),
        ):
            sysctl.ensure(setting, value)


def _new_interfaces_listen() -> bool:
    """Whether an interface made next would take in router advertisements: 0 never, 1 unless it forwards, 2 always."""
    accepts = sysctl.read("ipv6/conf/default/accept_ra")
    return accepts == "2" or (accepts == "1" and sysctl.read("ipv6/conf/default/forwarding") == "0")
