"""How the network of a lab is made: sysctls of each namespace, and the lines that `ip -batch` gets. Pure."""

from collections.abc import Iterator
from pathlib import Path

from cni_underlay.lab.topology import HostSpec, Topology, VmKind, VmSpec
from cni_underlay.records import IPAddress

# Addresses are the topology's: nobody has to wait the second that DAD takes, or listen to router advertisements.
_STATIC = {
    "ipv6/conf/all/accept_dad": "0",
    "ipv6/conf/default/accept_dad": "0",
    "ipv6/conf/all/accept_ra": "0",
    "ipv6/conf/default/accept_ra": "0",
}
_FORWARDING = {
    **_STATIC,
    "ipv4/ip_forward": "1",
    "ipv6/conf/all/forwarding": "1",
    "ipv6/conf/default/forwarding": "1",
    # What systemd's 50-default.conf sets on the nodes that are out there: loose.
    "ipv4/conf/all/rp_filter": "2",
    "ipv4/conf/default/rp_filter": "2",
}
# A bridge port must not speak for itself.
SWITCH = {"ipv6/conf/all/disable_ipv6": "1", "ipv6/conf/default/disable_ipv6": "1"}


def sysctls(spec: HostSpec) -> dict[str, str]:
    """What a host's namespace has below /proc/sys/net before its first interface: nodes and routers forward."""
    return _STATIC if isinstance(spec, VmSpec) else _FORWARDING


def port_name(host: str, index: int) -> str:
    """The switch's end of a host's uplink. No segment's name holds a dot, so it is never a bridge's name."""
    return f"{host}.{index}"


def is_guest(spec: HostSpec) -> bool:
    """Whether the host is a QEMU guest, on a tap instead of a veth."""
    return isinstance(spec, VmSpec) and spec.kind is VmKind.QEMU


def switch(topology: Topology, namespaces: Path) -> Iterator[str]:
    """Bridges, and one port for every uplink of every host; its other end appears in the host's namespace."""
    for segment in topology.segments:
        # mcast_snooping without a querier forgets who listens to neighbour solicitations.
        yield f"link add {segment.name} type bridge stp_state 0 forward_delay 0 mcast_snooping 0"
        yield f"link set {segment.name} mtu {segment.mtu} up"
    for host in topology.hosts:
        for index, uplink in enumerate(host.uplinks):
            port = port_name(host.name, index)
            if is_guest(host):
                yield f"tuntap add dev {port} mode tap"
            else:
                end = f"name {uplink.ifname} mtu {uplink.segment.mtu} netns {namespaces / host.name}"
                yield f"link add {port} type veth peer {end}"
            yield f"link set {port} mtu {uplink.segment.mtu} master {uplink.segment.name} up"


def host(spec: HostSpec) -> Iterator[str]:
    """Addresses and default routes of a host in a namespace."""
    for uplink in spec.uplinks:
        for address in uplink.addresses:
            yield f"address add {address} dev {uplink.ifname}{_broadcast(address)}"
        yield f"link set {uplink.ifname} up"
    for gateway in spec.gateways:
        yield f"route add default via {gateway}"


def _broadcast(address: IPAddress) -> str:
    return " broadcast +" if address.version == 4 else " nodad"  # noqa: PLR2004  # IPv4
