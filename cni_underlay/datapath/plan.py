"""What an interface should become, decided from values alone: link, addresses, routes. No kernel here."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from ipaddress import IPv6Interface, ip_interface, ip_network

from cni_underlay.datapath import hardware, messages
from cni_underlay.datapath.facts import Link
from cni_underlay.datapath.messages import IPV4
from cni_underlay.datapath.port import Endpoint, Wiring
from cni_underlay.errors import InvalidConfigError
from cni_underlay.records import Attachment, DatapathKind, IPAddress, IPNetwork, LeasedAddress, Route

MARK = "cni-underlay:"
HOST_MARK = "cni-underlay:host:"

_DEFAULTS = {4: ip_network("0.0.0.0/0"), 6: ip_network("::/0")}
_HOPS: dict[int, IPAddress] = {4: hardware.HOP4, 6: hardware.HOP6}
# Below these the kernel silently takes the protocol off the interface (RFC 791; RFC 8200, section 5).
_MINIMUM_MTU = {4: 68, 6: 1280}
_MODES = {DatapathKind.MACVLAN: messages.MACVLAN_MODES, DatapathKind.IPVLAN: messages.IPVLAN_MODES}
# Directories of /proc/sys/net/*/conf: a setting meant for one interface would be everybody's.
_RESERVED_NAMES = frozenset({"all", "default", "lo"})


@dataclass(frozen=True, slots=True, kw_only=True)
class PodPlan:
    """The pod's interface.

    `mac` is empty where the kernel gives it (the master's), `versions` are the IP versions of `ips`. `on_segment`
    interfaces hear the segment's broadcasts: they announce themselves, and must not take addresses from router
    advertisements, which the ledger does not know of.
    """

    ifname: str
    alias: str
    kind: DatapathKind
    mode: str
    mac: bytes
    mtu: int
    link_local: IPv6Interface
    endpoints: tuple[Endpoint, ...]
    routes: tuple[Route, ...]
    on_segment: bool
    ips: tuple[IPAddress, ...]
    versions: frozenset[int]

    @property
    def proxied(self) -> bool:
        """Whether the node answers ARP and ND for the pod, because the pod cannot.

        In ipvlan `l3` nobody can: the kernel hands all requests to the pod, which has no ARP (ipvlan_handle_mode_l3()).
        """
        return self.kind is DatapathKind.VETH or self.mode == "l3s"

    @property
    def layer3(self) -> bool:
        """Whether the pod's own interface knows neither ARP nor ND."""
        return self.mode in {"l3", "l3s"}


def mark(attachment: Attachment) -> str:
    """The ifalias by which DEL, CHECK and sweep know an attachment's links, even when the ledger is lost."""
    return MARK + attachment.digest


def plan_of(wiring: Wiring, master: Link) -> PodPlan:
    """Decide the whole interface. Raises `InvalidConfigError` for what cannot work."""
    ifname = wiring.attachment.ifname
    if ifname in _RESERVED_NAMES or "%" in ifname:
        raise InvalidConfigError(f"interface name {ifname!r} has a meaning of its own in the kernel")
    versions = {address.interface.version for address in wiring.addresses}
    for route in wiring.routes:
        if route.dst.version not in versions:
            raise InvalidConfigError(f"route {route.dst}: the interface has no IPv{route.dst.version} address")
    return _PLANS[wiring.kind](wiring, master)


def _routed(wiring: Wiring, master: Link) -> PodPlan:
    """For veth: single addresses, and everything by way of the node.

    A route's own gateway is not taken: nobody but the node is on the pod's wire. The answer tells the hop that is used.
    """
    mac = _mac(wiring)
    ips = tuple(address.interface.ip for address in wiring.addresses)
    return PodPlan(
        ifname=wiring.attachment.ifname,
        alias=mark(wiring.attachment),
        kind=wiring.kind,
        mode="",
        mac=mac,
        mtu=_mtu(wiring, master),
        link_local=hardware.link_local_of_mac(mac),
        endpoints=tuple(Endpoint(interface=ip_interface(ip), gateway=_HOPS[ip.version]) for ip in ips),
        routes=_routes_by_node(wiring),
        on_segment=False,
        ips=ips,
        versions=frozenset(ip.version for ip in ips),
    )


def _routes_by_node(wiring: Wiring) -> tuple[Route, ...]:
    """The routes asked for; without any, a default for each family; without a default among them, also the subnet."""
    wanted = [replace(route, gw=_HOPS[route.dst.version]) for route in wiring.routes]
    known = {route.dst for route in wanted}
    for address in wiring.addresses:
        version = address.interface.version
        if _DEFAULTS[version] in known:
            continue
        missing: IPNetwork = address.interface.network if wiring.routes else _DEFAULTS[version]
        if missing not in known:
            known.add(missing)
            wanted.append(Route(dst=missing, gw=_HOPS[version]))
    return tuple(wanted)


def _bridged(wiring: Wiring, master: Link) -> PodPlan:
    """For macvlan and ipvlan: on the segment itself with the subnet's prefix; routes as asked, none added."""
    mode = _mode(wiring)
    _require_master_mtu(wiring, master)
    own_mac = wiring.kind is DatapathKind.MACVLAN and mode != "passthru"
    if wiring.mac and not own_mac and hardware.mac_bytes(wiring.mac) != master.mac:
        raise InvalidConfigError(f"mac {wiring.mac}: {wiring.kind} {mode} has its master's MAC and cannot have another")
    mac = _mac(wiring) if own_mac else b""
    layer3 = mode in {"l3", "l3s"}
    gateways = {} if layer3 else _gateways(wiring.addresses)
    alias = mark(wiring.attachment)
    ips = tuple(address.interface.ip for address in wiring.addresses)
    return PodPlan(
        ifname=wiring.attachment.ifname,
        alias=alias,
        kind=wiring.kind,
        mode=mode,
        mac=mac,
        mtu=_mtu(wiring, master),
        link_local=hardware.link_local_of_mac(mac) if mac else hardware.link_local_of_name(alias),
        endpoints=tuple(
            Endpoint(interface=address.interface, gateway=None if layer3 else address.gateway)
            for address in wiring.addresses
        ),
        routes=tuple(
            route if route.gw is not None else replace(route, gw=gateways.get(route.dst.version))
            for route in wiring.routes
        ),
        on_segment=not layer3,
        ips=ips,
        versions=frozenset(ip.version for ip in ips),
    )


_PLANS = {DatapathKind.VETH: _routed, DatapathKind.MACVLAN: _bridged, DatapathKind.IPVLAN: _bridged}


def node_routes(plan: PodPlan, node: Iterable[IPAddress], hop: IPAddress | None) -> tuple[Route, ...]:
    """Routes by which a pod on the segment reaches its own node, which the segment itself cannot give it.

    `hop` is the link-local IPv6 address of the node's own link there, for both families (RFC 5549): unlike the node's
    addresses it can be resolved nowhere but on that link. None where IPv6 is off: IPv4 is then left to ARP.
    """
    subnets = [endpoint.interface.network for endpoint in plan.endpoints]
    routes = []
    for address in node:
        on_link = any(address in subnet for subnet in subnets)
        if address.version not in plan.versions or (hop is None and (on_link or address.version != IPV4)):
            continue
        routes.append(Route(dst=ip_network(address), gw=None if plan.layer3 else hop))
    return tuple(routes)


def _gateways(addresses: tuple[LeasedAddress, ...]) -> dict[int, IPAddress]:
    """The first gateway of each family."""
    found: dict[int, IPAddress] = {}
    for address in addresses:
        if address.gateway is not None:
            found.setdefault(address.gateway.version, address.gateway)
    return found


def _mode(wiring: Wiring) -> str:
    modes = _MODES[wiring.kind]
    mode = wiring.mode or ("bridge" if wiring.kind is DatapathKind.MACVLAN else "l2")
    if mode not in modes:
        raise InvalidConfigError(f"mode {mode!r}: {wiring.kind} knows {', '.join(modes)}")
    return mode


def _mac(wiring: Wiring) -> bytes:
    if wiring.mac:
        return hardware.mac_bytes(wiring.mac)
    if wiring.addresses:
        return hardware.mac_of_address(wiring.addresses[0].interface.ip)
    return hardware.mac_of_name(mark(wiring.attachment))


def _mtu(wiring: Wiring, master: Link) -> int:
    mtu = wiring.mtu or master.mtu
    for address in wiring.addresses:
        version = address.interface.version
        if mtu < _MINIMUM_MTU[version]:
            raise InvalidConfigError(f"mtu {mtu}: IPv{version} needs at least {_MINIMUM_MTU[version]}")
    return mtu


def _require_master_mtu(wiring: Wiring, master: Link) -> None:
    if wiring.mtu > master.mtu:
        raise InvalidConfigError(f"mtu {wiring.mtu} is larger than {master.mtu}, the MTU of master {master.name}")
