"""Results that others wrote: prevResult and what a delegate printed, of any version, read leniently."""

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from cni_underlay.cni import document, grammar
from cni_underlay.cni.document import Spellings
from cni_underlay.cni.result import Interface, Ip, Result
from cni_underlay.cni.shapes import DnsShape, RouteShape
from cni_underlay.cni.versions import SUPPORTED
from cni_underlay.errors import DecodingError
from cni_underlay.records import Route


class _Interface(msgspec.Struct, frozen=True, rename="camel"):
    name: str = ""
    mac: str = ""
    mtu: int = 0
    sandbox: str = ""


class _Ip(msgspec.Struct, frozen=True, rename="camel"):
    address: str = ""
    gateway: str = ""
    interface: int | None = None


class _Family(msgspec.Struct, frozen=True, rename="camel"):
    """`ip4` or `ip6` of 0.1.0 and 0.2.0."""

    ip: str = ""
    gateway: str = ""
    routes: tuple[RouteShape, ...] = ()


class _Result(msgspec.Struct, frozen=True, rename="camel"):
    cni_version: str = ""
    interfaces: tuple[Any, ...] = ()
    ips: tuple[_Ip, ...] = ()
    routes: tuple[RouteShape, ...] = ()
    dns: DnsShape = DnsShape()
    ip4: _Family | None = None
    ip6: _Family | None = None


_NAMES: Final = Spellings.of(_Result, _Ip, _Family, RouteShape, DnsShape)
_INTERFACE: Final = Spellings.of(_Interface)
_UINT32: Final = 2**32


def decode_result(value: object, version: str, where: str = "result") -> Result:
    """The result in `value`; its form tells its version, where it does not say so itself it is `version`.

    Raises `DecodingError` that begins with `where`: not an object, a version that nobody knows, wrong types, an address
    that is none, an index that points at no interface.
    """
    shape = document.read(value, _Result, _NAMES, where)
    stated = shape.cni_version or version
    if stated not in SUPPORTED:
        raise DecodingError(f"{where}: cniVersion {grammar.clip(stated)!r} is not known")
    interfaces = tuple(
        _interface(entry, f"{where}: interfaces[{index}]") for index, entry in enumerate(shape.interfaces)
    )
    try:
        ips = tuple(_ips(shape, len(interfaces)))
        routes = tuple(_routes(shape))
    except ValueError as error:
        raise DecodingError(f"{where}: {error}") from error
    return Result(interfaces=interfaces, ips=ips, routes=routes, dns=shape.dns.record())


def _interface(entry: object, where: str) -> Interface:
    own = document.fold(entry, _INTERFACE, 1)  # no deeper: what we do not know is carried as it came
    shape = document.convert(own, _Interface, where)
    if not 0 <= shape.mtu < _UINT32:
        raise DecodingError(f"{where}: mtu {shape.mtu} is out of range")
    return Interface(
        name=shape.name,
        mac=shape.mac.lower(),
        mtu=shape.mtu,
        sandbox=shape.sandbox,
        extras=tuple(_extras(own, where)),
    )


def _extras(entry: object, where: str) -> Iterable[tuple[str, msgspec.Raw]]:
    """What an interface has beside the keys we know, encoded at once: whatever it is, it can be answered later."""
    for key, item in entry.items() if isinstance(entry, dict) else ():
        if key not in _INTERFACE.exact:
            try:
                yield key, msgspec.Raw(msgspec.json.encode(item))
            except RecursionError as error:
                raise DecodingError(f"{where}: nested too deeply") from error


def _ips(shape: _Result, interfaces: int) -> Iterable[Ip]:
    for family in filter(None, (shape.ip4, shape.ip6)):
        yield Ip(
            address=grammar.interface(family.ip), gateway=grammar.address(family.gateway) if family.gateway else None
        )
    for entry in shape.ips:
        index = entry.interface if interfaces else None  # an IPAM plugin's index has nothing to point at
        if index is not None and not 0 <= index < interfaces:
            raise ValueError(f"ips: interface {index} is none of the {interfaces} interfaces")
        gateway = grammar.address(entry.gateway) if entry.gateway else None
        yield Ip(address=grammar.interface(entry.address), gateway=gateway, interface=index)


def _routes(shape: _Result) -> Iterable[Route]:
    for family in filter(None, (shape.ip4, shape.ip6)):
        yield from (route.record() for route in family.routes)
    yield from (route.record() for route in shape.routes)
