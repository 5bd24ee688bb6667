"""What a lab consists of: segments, and the hosts on them. Pure values, made by `topology_file` and checked there."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from cni_underlay.records import IPAddress, IPInterface, IPNetwork


class VmKind(StrEnum):
    """How a VM is made: a namespace, or a QEMU guest with a kernel of its own."""

    NAMESPACE = "namespace"
    QEMU = "qemu"


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One layer 2 network: a bridge in the lab's switch. `gateways` are for hosts that name none of their own."""

    name: str
    subnets: tuple[IPNetwork, ...]
    gateways: tuple[IPAddress, ...]
    mtu: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Uplink:
    """One interface of a host, with the segment it is plugged into."""

    ifname: str
    segment: Segment
    addresses: tuple[IPInterface, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSpec:
    """What every host has."""

    name: str
    uplinks: tuple[Uplink, ...]
    gateways: tuple[IPAddress, ...]

    @property
    def addresses(self) -> tuple[IPInterface, ...]:
        """All addresses of all uplinks."""
        return tuple(address for uplink in self.uplinks for address in uplink.addresses)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSpec(HostSpec):
    """A Kubernetes node. `agent` is the part of agent.yaml that the topology gives; None means that no agent runs."""

    agent: Mapping[str, object] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class VmSpec(HostSpec):
    """A VM; both kinds serve their own name over HTTP on port 80 where `http`. `memory` (MiB) concerns QEMU only."""

    kind: VmKind
    http: bool
    memory: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterSpec(HostSpec):
    """Forwards between its segments, both families."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """A checked topology. `text` is the YAML it came from, which a running lab keeps for later commands."""

    name: str
    segments: tuple[Segment, ...]
    nodes: tuple[NodeSpec, ...]
    vms: tuple[VmSpec, ...]
    routers: tuple[RouterSpec, ...]
    text: str

    @property
    def hosts(self) -> Iterator[HostSpec]:
        """Routers first: what others reach through them is there when they start."""
        yield from self.routers
        yield from self.nodes
        yield from self.vms
