"""Results: what ADD answers, in each version's form (CNI specification, section 5), and how a chain joins them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import msgspec

from cni_underlay.cni import grammar
from cni_underlay.cni.environment import Verb
from cni_underlay.cni.shapes import full_route, plain_dns, plain_route
from cni_underlay.cni.versions import NEWEST, SUPPORTED
from cni_underlay.errors import InvalidConfigError, UnderlayError
from cni_underlay.records import Dns, IPAddress, IPInterface, Route


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """One entry of `interfaces`; empty or 0 where nothing is said. `extras` are another plugin's keys, only carried."""

    name: str
    mac: str = ""
    mtu: int = 0
    sandbox: str = ""
    extras: tuple[tuple[str, msgspec.Raw], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ip:
    """One entry of `ips`; `interface` is an index into the result's interfaces."""

    address: IPInterface
    gateway: IPAddress | None = None
    interface: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    interfaces: tuple[Interface, ...] = ()
    ips: tuple[Ip, ...] = ()
    routes: tuple[Route, ...] = ()
    dns: Dns = field(default_factory=Dns)


def merge(previous: Result, own: Result) -> Result:
    """A chain's result after an interface plugin that was not the first: everything kept, ours appended.

    Indexes of our addresses are shifted behind the interfaces that were there; a DNS that was set stays.
    """
    shift = len(previous.interfaces)
    moved = tuple(ip if ip.interface is None else replace(ip, interface=ip.interface + shift) for ip in own.ips)
    return Result(
        interfaces=previous.interfaces + own.interfaces,
        ips=previous.ips + moved,
        routes=previous.routes + tuple(route for route in own.routes if route not in previous.routes),
        dns=own.dns if previous.dns == Dns() else previous.dns,
    )


def encode(result: Result, version: str) -> bytes:
    """The result as `version` (a supported one) has it, with exactly its keys.

    Raises `InvalidConfigError` below 0.3.0 for what that form cannot say: two addresses of one family, or none at all.
    """
    return _json({"cniVersion": version, **_FORMS[version](result)})


def failure(version: str, error: UnderlayError, verb: Verb | None = None) -> bytes:
    """The error object for standard output; always valid UTF-8 JSON, whatever the error's texts hold.

    For a DEL, words that go-cni takes for success are put differently: it would forget a container that we have not.
    """
    code = error.code if 0 < error.code < _CODES else UnderlayError.code
    answer: dict[str, Any] = {"cniVersion": version, "code": code, "msg": str(error) or type(error).__name__}
    if error.details:
        answer["details"] = error.details
    if verb is Verb.DEL:
        answer["msg"] = _unmistakable(answer["msg"])
        if "details" in answer:
            answer["details"] = _unmistakable(answer["details"])
    return _json(answer)


def version_answer(config_version: str) -> bytes:
    """The answer to VERSION, with the caller's own version where it gave one."""
    return _json({"cniVersion": config_version or NEWEST, "supportedVersions": SUPPORTED})


def _families(result: Result) -> dict[str, Any]:
    """0.1.0 and 0.2.0: one address for each family, routes below the address of theirs."""
    form: dict[str, Any] = {}
    for ip in result.ips:
        key = f"ip{ip.address.version}"
        if key in form:
            raise InvalidConfigError(
                f"cniVersion: this old version can report only one IPv{ip.address.version} address, "
                f"and there is {ip.address} beside {form[key]['ip']}"
            )
        form[key] = {"ip": str(ip.address)}
        if ip.gateway is not None:
            form[key]["gateway"] = str(ip.gateway)
        routes = [plain_route(route) for route in result.routes if route.dst.version == ip.address.version]
        if routes:
            form[key]["routes"] = routes
    if not form:
        raise InvalidConfigError("cniVersion: this old version cannot report an interface without addresses")
    return {**form, "dns": plain_dns(result.dns)}


def _versioned(result: Result) -> dict[str, Any]:
    """0.3.0 to 0.4.0: each address says its family, and `dns` is always there (the reference's types write it so)."""
    form = _plain(result)
    if result.ips:
        form["ips"] = [{"version": str(ip.address.version), **_ip(ip)} for ip in result.ips]
    return {**form, "dns": plain_dns(result.dns)}


def _plain(result: Result) -> dict[str, Any]:
    """1.0.0."""
    return _lists(result, _plain_interface, plain_route)


def _full(result: Result) -> dict[str, Any]:
    """1.1.0."""
    return _lists(result, _full_interface, full_route)


def _lists(
    result: Result, interface: Callable[[Interface], dict[str, Any]], route: Callable[[Route], dict[str, Any]]
) -> dict[str, Any]:
    form: dict[str, Any] = {
        "interfaces": [interface(entry) for entry in result.interfaces],
        "ips": [_ip(entry) for entry in result.ips],
        "routes": [route(entry) for entry in result.routes],
        "dns": plain_dns(result.dns),
    }
    return {key: value for key, value in form.items() if value}


def _plain_interface(interface: Interface) -> dict[str, Any]:
    form = {"name": interface.name, "mac": interface.mac, "sandbox": interface.sandbox}
    extras = {key: value for key, value in interface.extras if key not in _SINCE_1_1}
    return {key: value for key, value in form.items() if value or key == "name"} | extras


def _full_interface(interface: Interface) -> dict[str, Any]:
    form = _plain_interface(interface) | dict(interface.extras)
    if interface.mtu:
        form["mtu"] = interface.mtu
    return form


def _ip(ip: Ip) -> dict[str, Any]:
    form: dict[str, Any] = {"address": str(ip.address)}
    if ip.gateway is not None:
        form["gateway"] = str(ip.gateway)
    if ip.interface is not None:
        form["interface"] = ip.interface
    return form


_SINCE_1_1: Final = frozenset({"socketPath", "pciID"})
_CODES: Final = 2**32  # libcni decodes the code into Go's uint
_FORMS: Final[Mapping[str, Callable[[Result], dict[str, Any]]]] = {
    "0.1.0": _families,
    "0.2.0": _families,
    "0.3.0": _versioned,
    "0.3.1": _versioned,
    "0.4.0": _versioned,
    "1.0.0": _plain,
    "1.1.0": _full,
}


def _unmistakable(text: str) -> str:
    """go-cni's Remove counts a failed DEL as done when its text contains either of these (containerd/go-cni cni.go)."""
    return text.replace("no such file or directory", "ENOENT").replace("not found", "missing")


def _json(value: dict[str, Any]) -> bytes:
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return msgspec.json.encode(_legible(value))


def _legible(value: object) -> object:
    if isinstance(value, str):
        return grammar.legible(value)
    if isinstance(value, Mapping):
        return {key: _legible(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_legible(item) for item in value]
    return value
