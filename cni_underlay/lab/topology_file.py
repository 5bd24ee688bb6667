"""Reads a topology and refuses what cannot be built, naming the file and the key.

The shape of each object is one msgspec class; what a shape cannot say (an address outside its segment, a name used
twice) is checked while the records are made. See conf/lab/demo.yaml for a file that uses everything.
"""

import re
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Network, ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec
import yaml

from cni_underlay.lab.errors import TopologyError
from cni_underlay.lab.topology import HostSpec, NodeSpec, RouterSpec, Segment, Topology, Uplink, VmKind, VmSpec
from cni_underlay.records import IPAddress, IPInterface, IPNetwork

# IFNAMSIZ leaves 15 characters: a segment's name is its bridge's, a port is "<host>.<index>".
_SEGMENT_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,14}")
_HOST_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?")
# A unix socket's path has 107 usable bytes, and the lab's name is in it.
_LAB_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?")
_GENERATED = ("node", "socket", "state_dir")
# msgspec's " - at `$.a.b[0]`" or " - at `key` in `$.a`" at the end of a message.
_PLACE = re.compile(r"^(?P<what>.*?)(?: - at (?:`key` in )?`\$(?P<path>[^`]*)`)?$", re.DOTALL)

_Shape = TypeVar("_Shape", bound="_Object")


class _Object(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class _File(_Object, frozen=True):
    segments: dict[str, object]
    name: str = "lab"
    nodes: dict[str, object] = {}
    vms: dict[str, object] = {}
    routers: dict[str, object] = {}


class _Segment(_Object, frozen=True):
    subnets: list[str]
    gateways: list[str] = []
    # 1280 is what IPv6 needs (RFC 8200, section 5); 65535 the most that veth and tap take.
    mtu: Annotated[int, msgspec.Meta(ge=1280, le=65535)] = 1500


class _Host(_Object, frozen=True):
    segment: str
    addresses: list[str]
    gateways: list[str] | None = None


class _Node(_Host, frozen=True):
    agent: bool | dict[str, object] = True


class _Vm(_Host, frozen=True):
    kind: VmKind = VmKind.NAMESPACE
    http: bool = True
    memory: Annotated[int, msgspec.Meta(ge=192, le=4096)] = 256


class _Router(_Object, frozen=True):
    interfaces: dict[str, list[str]]
    gateways: list[str] = []


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML lets the last of two equal keys win silently: half a host would vanish."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[object, object]:  # noqa: FBT001, FBT002  # the base class's signature
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.MarkedYAMLError(problem=f"key {key!r} is there twice", problem_mark=node.start_mark)
        return super().construct_mapping(node, deep)


def load(path: Path) -> Topology:
    """The topology in a file, or `TopologyError`."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TopologyError(f"{path}: cannot be read: {error}") from error
    return parse(text, str(path))


def parse(text: str, origin: str = "topology") -> Topology:
    """The topology in a text; `origin` stands in front of every message."""
    try:
        data = yaml.load(text, _UniqueKeyLoader)  # noqa: S506  # a SafeLoader by inheritance
    except yaml.YAMLError as error:
        raise TopologyError(f"{origin}: not YAML: {' '.join(str(error).split())}") from error
    try:
        return _Reader().topology(data, text)
    except TopologyError as error:
        raise TopologyError(f"{origin}: {error}") from error


def from_mapping(data: Mapping[str, object]) -> Topology:
    """The topology in a mapping, as a test writes it."""
    return parse(yaml.safe_dump(dict(data), sort_keys=False))


def _shape(data: object, shape: type[_Shape], key: str) -> _Shape:
    try:
        return msgspec.convert(data, shape)
    except msgspec.ValidationError as error:
        match = _PLACE.match(str(error))
        what, path = (match["what"], match["path"] or "") if match else (str(error), "")
        raise TopologyError(f"{(key + path).lstrip('.') or 'top level'}: {what}") from error


def _require_name(pattern: re.Pattern[str], name: str, key: str) -> str:
    if not pattern.fullmatch(name):
        raise TopologyError(
            f"{key}: {name!r} is not a usable name (lower-case letters, digits, '-', length: {pattern.pattern})"
        )
    return name


class _Reader:
    """Makes records of one topology, remembering which names and addresses are taken."""

    def __init__(self) -> None:
        self._segments: dict[str, Segment] = {}
        self._hosts: dict[str, str] = {}
        self._addresses: dict[IPAddress, str] = {}

    def topology(self, data: object, text: str) -> Topology:
        file = _shape(data, _File, "")
        if not file.segments:
            raise TopologyError("segments: there is none")
        for name, raw in file.segments.items():
            self._segments[name] = self._segment(name, raw)
        return Topology(
            name=_require_name(_LAB_NAME, file.name, "name"),
            segments=tuple(self._segments.values()),
            routers=tuple(self._router(name, raw) for name, raw in file.routers.items()),
            nodes=tuple(self._node(name, raw) for name, raw in file.nodes.items()),
            vms=tuple(self._vm(name, raw) for name, raw in file.vms.items()),
            text=text,
        )

    def _segment(self, name: str, raw: object) -> Segment:
        key = f"segments.{_require_name(_SEGMENT_NAME, name, 'segments')}"
        shape = _shape(raw, _Segment, key)
        subnets = tuple(_network(text, f"{key}.subnets[{n}]") for n, text in enumerate(shape.subnets))
        if not subnets:
            raise TopologyError(f"{key}.subnets: there is none")
        self._require_disjoint(subnets, f"{key}.subnets")
        gateways = self._gateways(shape.gateways, subnets, f"{key}.gateways")
        return Segment(name=name, subnets=subnets, gateways=gateways, mtu=shape.mtu)

    def _require_disjoint(self, subnets: Sequence[IPNetwork], key: str) -> None:
        known = [(subnet, other.name) for other in self._segments.values() for subnet in other.subnets]
        for number, subnet in enumerate(subnets):
            for other, where in (*known, *((earlier, "this segment") for earlier in subnets[:number])):
                if subnet.version == other.version and subnet.overlaps(other):
                    raise TopologyError(f"{key}[{number}]: {subnet} overlaps {other} of {where}")

    def _node(self, name: str, raw: object) -> NodeSpec:
        key = self._claim_name(name, "nodes")
        shape = _shape(raw, _Node, key)
        host = self._host(name, shape, key)
        agent = _agent(shape.agent)
        for generated in _GENERATED:
            if generated in (agent or {}):
                raise TopologyError(f"{key}.agent.{generated}: is generated by the lab")
        return NodeSpec(name=name, uplinks=host.uplinks, gateways=host.gateways, agent=agent)

    def _vm(self, name: str, raw: object) -> VmSpec:
        key = self._claim_name(name, "vms")
        shape = _shape(raw, _Vm, key)
        host = self._host(name, shape, key)
        return VmSpec(
            name=name,
            uplinks=host.uplinks,
            gateways=host.gateways,
            kind=shape.kind,
            http=shape.http,
            memory=shape.memory,
        )

    def _router(self, name: str, raw: object) -> RouterSpec:
        key = self._claim_name(name, "routers")
        shape = _shape(raw, _Router, key)
        if not shape.interfaces:
            raise TopologyError(f"{key}.interfaces: there is none")
        uplinks = tuple(
            self._uplink(f"eth{number}", segment, addresses, f"{key}.interfaces.{segment}")
            for number, (segment, addresses) in enumerate(shape.interfaces.items())
        )
        subnets = [subnet for uplink in uplinks for subnet in uplink.segment.subnets]
        return RouterSpec(
            name=name, uplinks=uplinks, gateways=self._gateways(shape.gateways, subnets, f"{key}.gateways")
        )

    def _host(self, name: str, shape: _Host, key: str) -> HostSpec:
        segment = self._known_segment(shape.segment, f"{key}.segment")
        uplink = self._uplink("eth0", segment.name, shape.addresses, f"{key}.addresses")
        gateways = (
            segment.gateways
            if shape.gateways is None
            else self._gateways(shape.gateways, segment.subnets, f"{key}.gateways")
        )
        usable = tuple(g for g in gateways if g.version in {address.version for address in uplink.addresses})
        return HostSpec(name=name, uplinks=(uplink,), gateways=usable)

    def _uplink(self, ifname: str, segment: str, texts: Sequence[str], key: str) -> Uplink:
        known = self._known_segment(segment, key)
        if not texts:
            raise TopologyError(f"{key}: there is none")
        addresses = tuple(self._address(text, known, f"{key}[{n}]") for n, text in enumerate(texts))
        return Uplink(ifname=ifname, segment=known, addresses=addresses)

    def _address(self, text: str, segment: Segment, key: str) -> IPInterface:
        address = _address(text, key)
        subnet = _subnet_of(address, segment.subnets)
        if subnet is None:
            names = ", ".join(map(str, segment.subnets))
            raise TopologyError(f"{key}: {address} is outside the subnets of segment {segment.name} ({names})")
        if isinstance(subnet, IPv4Network) and address in (subnet.network_address, subnet.broadcast_address):
            raise TopologyError(f"{key}: {address} is the network's or the broadcast address of {subnet}")
        if address in self._addresses:
            raise TopologyError(f"{key}: {address} is used by {self._addresses[address]} already")
        self._addresses[address] = key
        return ip_interface(f"{address}/{subnet.prefixlen}")

    def _gateways(self, texts: Sequence[str], subnets: Sequence[IPNetwork], key: str) -> tuple[IPAddress, ...]:
        found: dict[int, IPAddress] = {}
        for number, text in enumerate(texts):
            address = _address(text, f"{key}[{number}]")
            if _subnet_of(address, subnets) is None:
                raise TopologyError(f"{key}[{number}]: {address} is outside {', '.join(map(str, subnets))}")
            if address.version in found:
                raise TopologyError(
                    f"{key}[{number}]: a second IPv{address.version} gateway beside {found[address.version]}"
                )
            found[address.version] = address
        return tuple(found.values())

    def _known_segment(self, name: str, key: str) -> Segment:
        if name not in self._segments:
            raise TopologyError(f"{key}: no segment {name!r}; there is {', '.join(self._segments)}")
        return self._segments[name]

    def _claim_name(self, name: str, section: str) -> str:
        key = f"{section}.{_require_name(_HOST_NAME, name, section)}"
        if name in self._hosts:
            raise TopologyError(f"{key}: the name is used by {self._hosts[name]} already")
        self._hosts[name] = key
        return key


def _agent(declared: bool | dict[str, object]) -> dict[str, object] | None:  # noqa: FBT001  # as the file has it
    if isinstance(declared, dict):
        return declared
    return {} if declared else None


def _address(text: str, key: str) -> IPAddress:
    try:
        return ip_address(text)
    except ValueError as error:
        raise TopologyError(f"{key}: {error} (no prefix length: the segment's subnet gives it)") from error


def _network(text: str, key: str) -> IPNetwork:
    try:
        return ip_network(text)
    except ValueError as error:
        raise TopologyError(f"{key}: {error}") from error


def _subnet_of(address: IPAddress, subnets: Sequence[IPNetwork]) -> IPNetwork | None:
    return next((subnet for subnet in subnets if address in subnet), None)
