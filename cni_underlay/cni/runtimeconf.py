"""What the runtime adds for one pod: `runtimeConfig` (capabilities) and `args.cni` (CONVENTIONS.md)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from cni_underlay.cni import document
from cni_underlay.cni.document import Spellings
from cni_underlay.cni.ipamconf import RangeConf, range_sets
from cni_underlay.records import Dns


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeConf:
    """`runtimeConfig`. Addresses and MAC are as written: they are read only where nothing stronger replaces them.

    `unsupported` names capabilities that were declared for this plugin and asked for, and that it has not: a plugin
    must act on them or fail. Mere information (cgroupPath, pod annotations) is not among them.
    """

    ips: tuple[str, ...] = ()
    mac: str = ""
    ip_ranges: tuple[tuple[RangeConf, ...], ...] = ()
    dns: Dns = field(default_factory=Dns)
    unsupported: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ArgsConf:
    """`args.cni`: requests for this attachment, weaker than runtimeConfig and stronger than CNI_ARGS."""

    ips: tuple[str, ...] = ()
    mac: str = ""


class _RuntimeDns(msgspec.Struct, frozen=True):
    """Not the `dns` of a configuration: these are the keys of the capability."""

    servers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    def record(self) -> Dns:
        return Dns(nameservers=self.servers, search=self.searches, options=self.options)


class _Runtime(msgspec.Struct, frozen=True, rename="camel"):
    ips: tuple[str, ...] = ()
    mac: str = ""
    ip_ranges: tuple[Any, ...] = ()
    dns: _RuntimeDns = _RuntimeDns()


class _Rates(msgspec.Struct, frozen=True, rename="camel"):
    ingress_rate: float = 0
    egress_rate: float = 0


class _Requests(msgspec.Struct, frozen=True):
    ips: tuple[str, ...] = ()
    mac: str = ""


class _Args(msgspec.Struct, frozen=True):
    cni: _Requests = _Requests()


_RUNTIME: Final = Spellings.of(_Runtime, _RuntimeDns)
_RATES: Final = Spellings.of(_Rates)
_ARGS: Final = Spellings.of(_Args, _Requests)
_UNSUPPORTED: Final = Spellings.naming("portMappings", "bandwidth", "infinibandGUID", "deviceID", "aliases")


def decode_runtime(value: object) -> RuntimeConf:
    """`runtimeConfig`; raises `DecodingError`. Absent and null are the same as empty."""
    if value is None:
        return RuntimeConf()
    shape = document.read(value, _Runtime, _RUNTIME, "runtimeConfig")
    return RuntimeConf(
        ips=shape.ips,
        mac=shape.mac,
        ip_ranges=range_sets(shape.ip_ranges),
        dns=shape.dns.record(),
        unsupported=tuple(key for key, item in document.known(value, _UNSUPPORTED).items() if _asked(key, item)),
    )


def decode_args(value: object) -> ArgsConf:
    """`args`, of which only `cni` is ours; raises `DecodingError`."""
    if value is None:
        return ArgsConf()
    requests = document.read(value, _Args, _ARGS, "args").cni
    return ArgsConf(ips=requests.ips, mac=requests.mac)


def _asked(key: str, value: object) -> bool:
    """Whether a capability's value asks for anything: runtimes also send empty lists, and bursts without rates."""
    if key == "bandwidth" and isinstance(value, Mapping):
        rates = document.read(value, _Rates, _RATES, "runtimeConfig.bandwidth")
        return bool(rates.ingress_rate or rates.egress_rate)
    return bool(value)
