"""The network configuration on standard input: what each verb needs of it, checked once, in our words.

A DEL or GC reads only whose network it is and who gave the addresses: a configuration that went wrong since the ADD
must not keep an attachment alive.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import Any, Final

import msgspec

from cni_underlay.cni import document, grammar, ipamconf, runtimeconf, versions
from cni_underlay.cni.document import Spellings
from cni_underlay.cni.environment import Call, Verb
from cni_underlay.cni.ipamconf import OWN_TYPE, DelegateConf, IpamConf, RangeConf
from cni_underlay.cni.received import decode_result
from cni_underlay.cni.result import Result
from cni_underlay.cni.runtimeconf import ArgsConf, RuntimeConf
from cni_underlay.cni.shapes import DnsShape
from cni_underlay.errors import DecodingError, InvalidConfigError
from cni_underlay.records import DatapathKind, Dns

__all__ = [
    "ArgsConf",
    "DelegateConf",
    "IpamConf",
    "NetConf",
    "RangeConf",
    "Role",
    "RuntimeConf",
    "decode",
    "role",
    "version_of",
]


class Role(StrEnum):
    """What a call wants of this executable: an interface, or, as another plugin's delegate, addresses only."""

    MAIN = "main"
    IPAM = "ipam"


@dataclass(frozen=True, slots=True, kw_only=True)
class NetConf:
    """A configuration. Below `ipam` all fields have their defaults where the verb or the role does not need them.

    `master` '' means the interface of the default route, `mtu` 0 the master's. `valid_attachments` holds
    (container id, interface) for a GC and is None for every other verb. `ignored` says in words what has no effect.
    `raw` is standard input as it came, for delegates.
    """

    cni_version: str
    name: str
    type: str
    ipam: IpamConf | DelegateConf | None
    datapath: DatapathKind = DatapathKind.NONE
    master: str = ""
    mode: str = ""
    mtu: int = 0
    mac: str = ""
    dns: Dns = field(default_factory=Dns)
    prev_result: Result | None = None
    runtime: RuntimeConf = field(default_factory=RuntimeConf)
    args: ArgsConf = field(default_factory=ArgsConf)
    valid_attachments: frozenset[tuple[str, str]] | None = None
    ignored: tuple[str, ...] = ()
    raw: bytes = field(default=b"", repr=False)


class _Head(msgspec.Struct, frozen=True, rename="camel"):
    cni_version: str = ""
    name: str = ""


class _Link(msgspec.Struct, frozen=True, rename="camel"):
    datapath: str = ""
    master: str = ""
    mode: str = ""
    mtu: int = 0
    vlan: int = 0
    mac: str = ""
    dns: DnsShape = DnsShape()


class _Outer(msgspec.Struct, frozen=True, rename="camel"):
    """What is read apart."""

    type: Any = None
    ipam: Any = None
    prev_result: Any = None
    runtime_config: Any = None
    args: Any = None
    ip_masq: Any = None
    link_in_container: Any = None


class _Attachment(msgspec.Struct, frozen=True):
    container_id: str = msgspec.field(name="containerID", default="")
    ifname: str = ""


_OUTER: Final = Spellings.of(_Head, _Link, _Outer)
_LINK: Final = Spellings.of(_Link, DnsShape)
_ATTACHMENT: Final = Spellings.of(_Attachment)
# The released text of 1.1.0 has the second name, everything since the first (containernetworking/cni 6a68851).
_VALID_ATTACHMENTS: Final = ("cni.dev/valid-attachments", "cni.dev/attachments")

_MODES: Final[Mapping[DatapathKind, tuple[str, ...]]] = {  # the first is the default
    DatapathKind.VETH: ("",),
    DatapathKind.MACVLAN: ("bridge", "private", "vepa", "passthru"),
    DatapathKind.IPVLAN: ("l2", "l3", "l3s"),
}
_MTU: Final = range(68, 65536)  # RFC 791; IPv6 needs 1280, which only shows with the addresses
_VLANS: Final = range(4095)

# Keys of the reference plugins whose absence here somebody would notice.
_WITHOUT_EFFECT: Final[Mapping[str, str]] = {
    "ipMasq": "ipMasq is ignored: pods are reached at their own addresses, nothing is translated",
    "linkInContainer": "linkInContainer is ignored: the master is always the node's",
}


def decode(stdin: bytes, call: Call) -> NetConf:
    """The configuration as `call` needs it.

    Raises `DecodingError`, `IncompatibleVersionError` (also for a verb that its version does not have),
    `UnsupportedFieldError`, `InvalidConfigError`.
    """
    whole = document.parse(stdin)
    outer = document.known(whole, _OUTER)
    head = document.convert(outer, _Head, "configuration")
    _require_name(head.name)
    version = head.cni_version or versions.OLDEST
    versions.require(version, call.verb)
    main = outer.get("type", "")
    conf = partial(NetConf, cni_version=version, name=head.name, type=main if isinstance(main, str) else "", raw=stdin)
    if call.verb is Verb.DEL:
        return conf(ipam=_giver(outer, call))
    if call.verb is Verb.GC:
        return conf(ipam=_giver(outer, call), valid_attachments=_valid_attachments(whole))
    _require_type(main)
    part = _role(call.plugin, main, ipamconf.type_of(outer.get("ipam")))
    runtime = runtimeconf.decode_runtime(outer.get("runtimeConfig"))
    ipam, ignored = _ipam(outer, part, runtime, call)
    conf = partial(conf, ipam=ipam, runtime=runtime, args=runtimeconf.decode_args(outer.get("args")))
    if part is Role.IPAM:
        # `mode`, `mtu`, `mac` and the like are the main plugin's, in its own words; prevResult concerns a CHECK alone.
        previous = _prev_result(outer, version) if call.verb is Verb.CHECK else None
        return conf(prev_result=previous, ignored=ignored)
    link = document.read(outer, _Link, _LINK, "configuration")
    kind = _datapath(link.datapath)
    _require_vlan(link.vlan)
    return conf(
        datapath=kind,
        master=_master(link.master),
        mode=_mode(kind, link.mode),
        mtu=_mtu(link.mtu),
        mac=_mac(link.mac),
        dns=link.dns.record(),
        prev_result=_prev_result(outer, version),
        ignored=ignored + tuple(words for key, words in _WITHOUT_EFFECT.items() if outer.get(key)),
    )


def role(call: Call, conf: NetConf) -> Role:
    """IPAM under the IPAM plugin's name, or where another `type` names this executable as its `ipam.type`."""
    return _role(call.plugin, conf.type, conf.ipam.type if conf.ipam else "")


def version_of(stdin: bytes) -> str:
    """The version to answer in when nothing else is known of the input: the configuration's, else the newest."""
    try:
        stated = document.known(document.parse(stdin), _OUTER).get("cniVersion", "")
    except DecodingError:
        return versions.NEWEST
    if stated == "":
        return versions.OLDEST
    return stated if stated in versions.SUPPORTED else versions.NEWEST


def _role(plugin: str, main: object, ipam: str) -> Role:
    return Role.IPAM if plugin == OWN_TYPE or (main != plugin and ipam == plugin) else Role.MAIN


def _require_name(name: str) -> None:
    if not name:
        raise InvalidConfigError("missing network name")
    if not grammar.is_identifier(name):
        raise InvalidConfigError("name: invalid characters found in network name", grammar.clip(name))


def _require_type(main: object) -> None:
    if not isinstance(main, str):
        raise DecodingError(f"type: expected text, got {document.shown(main)}")
    if main and not grammar.is_file_name(main):
        raise InvalidConfigError(f"type: {grammar.clip(main)!r} is no plain file name")


def _giver(outer: Mapping[str, Any], call: Call) -> IpamConf | DelegateConf | None:
    """Who gave the addresses, and nothing else of the `ipam` block."""
    name = ipamconf.type_of(outer.get("ipam"))
    if not name:
        return None
    own = name in {OWN_TYPE, call.plugin} or _role(call.plugin, outer.get("type"), name) is Role.IPAM
    return IpamConf(type=name) if own else DelegateConf(type=name)


def _ipam(
    outer: Mapping[str, Any], part: Role, runtime: RuntimeConf, call: Call
) -> tuple[IpamConf | DelegateConf | None, tuple[str, ...]]:
    block = outer.get("ipam")
    if part is Role.MAIN and block in (None, {}):
        return None, ()
    name = ipamconf.type_of(block)
    if part is Role.MAIN and name not in {OWN_TYPE, call.plugin}:
        if not isinstance(block, dict):
            raise DecodingError(f"ipam: expected an object, got {document.shown(block)}")
        if not name:
            raise InvalidConfigError(
                f'ipam.type: missing; write "type": "{OWN_TYPE}" or the name of another IPAM plugin'
            )
        return DelegateConf(type=name), ()
    conf, ignored = ipamconf.decode(block or {}, runtime.ip_ranges)
    if call.verb is not Verb.STATUS:  # which gets no runtimeConfig, where all the ranges may be
        ipamconf.require_source(conf)
    return conf, ignored


def _prev_result(outer: Mapping[str, Any], version: str) -> Result | None:
    value = outer.get("prevResult")
    return None if value in (None, {}) else decode_result(value, version, "prevResult")


def _valid_attachments(whole: Mapping[str, Any]) -> frozenset[tuple[str, str]]:
    """Whom a GC must leave alone. Null is an empty list (Go's nil slice); no list at all removes nothing."""
    anyhow = {key.lower(): value for key, value in whole.items()}
    anyhow.update(whole)
    for key in _VALID_ATTACHMENTS:
        if key in anyhow:
            return frozenset(_attachments(anyhow[key], key))
    raise InvalidConfigError(
        f"{_VALID_ATTACHMENTS[0]}: the key is missing, so nothing is removed; write null or [] to remove all"
    )


def _attachments(value: object, key: str) -> Iterator[tuple[str, str]]:
    if value is not None and not isinstance(value, list):
        raise DecodingError(f"{key}: expected a list, got {document.shown(value)}; nothing is removed")
    for index, entry in enumerate(value or ()):
        shape = document.read(entry, _Attachment, _ATTACHMENT, f"{key}[{index}]")
        if not shape.container_id or not shape.ifname:
            raise InvalidConfigError(f"{key}[{index}]: containerID or ifname is missing; nothing is removed")
        yield shape.container_id, shape.ifname


def _datapath(name: str) -> DatapathKind:
    for kind in _MODES:
        if kind.value == (name or DatapathKind.VETH):
            return kind
    raise InvalidConfigError(f"datapath: {grammar.clip(name)!r} is none of {', '.join(_MODES)}")


def _mode(kind: DatapathKind, mode: str) -> str:
    modes = _MODES[kind]
    if not mode or mode in modes:
        return mode or modes[0]
    fitting = [other.value for other, theirs in _MODES.items() if mode in theirs]
    hint = f'; it is one of "datapath": "{fitting[0]}"' if fitting else ""
    raise InvalidConfigError(
        f"mode: datapath {kind} has {', '.join(filter(None, modes)) or 'no modes'}, not {grammar.clip(mode)!r}{hint}"
    )


def _mtu(mtu: int) -> int:
    if mtu and mtu not in _MTU:
        raise InvalidConfigError(
            f"mtu: {grammar.clip(str(mtu))} is not 0 (the master's) or {_MTU.start} to {_MTU.stop - 1}"
        )
    return mtu


def _require_vlan(vlan: int) -> None:
    if vlan not in _VLANS:
        raise InvalidConfigError(f"vlan: {grammar.clip(str(vlan))} is not 0 (none) or 1 to {_VLANS.stop - 1}")
    if vlan:
        raise InvalidConfigError(f"vlan {vlan}: VLAN masters are not supported yet")


def _mac(text: str) -> str:
    try:
        return grammar.mac(text) if text else ""
    except ValueError as error:
        raise InvalidConfigError(f"mac: {error}") from error


def _master(name: str) -> str:
    fault = (grammar.name_fault(name) or grammar.trap(name)) if name else ""
    if fault:
        raise InvalidConfigError(f"master: {grammar.clip(name)!r} {fault}")
    return name
