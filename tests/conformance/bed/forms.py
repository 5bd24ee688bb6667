"""The result's exact form in each version (CNI specification, section 5, of that version)."""

from collections.abc import Mapping
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

from .kinds import Json

_DNS = {"nameservers": list, "domain": str, "search": list, "options": list}
_ROUTE = {"dst": str, "gw": str}
_ROUTE_1_1 = {**_ROUTE, "mtu": int, "advmss": int, "priority": int, "table": int, "scope": int}
_INTERFACE = {"name": str, "mac": str, "sandbox": str}
_INTERFACE_1_1 = {**_INTERFACE, "mtu": int, "socketPath": str, "pciID": str}
_IP = {"address": str, "gateway": str, "interface": int}
_FAMILY = {"ip": str, "gateway": str, "routes": list}

OLD = ("0.1.0", "0.2.0")
WITH_FAMILY = ("0.3.0", "0.3.1", "0.4.0")


def require_form(result: dict[str, Any], version: str) -> None:
    """Assert that the result has the keys of its version, of the right types, and nothing beside them."""
    assert result["cniVersion"] == version
    _require_something(result)
    if version in OLD:
        _require_old(result)
        return
    interfaces = result.get("interfaces", [])
    _require_keys(result, {"cniVersion": str, "interfaces": list, "ips": list, "routes": list, "dns": dict})
    for interface in interfaces:
        _require_keys(interface, _INTERFACE_1_1 if version == "1.1.0" else _INTERFACE, "name")
    for entry in result.get("ips", []):
        _require_ip(entry, version, len(interfaces))
    for route in result.get("routes", []):
        _require_route(route, _ROUTE_1_1 if version == "1.1.0" else _ROUTE)
    _require_keys(result.get("dns", {}), _DNS)


def _require_old(result: dict[str, Any]) -> None:
    _require_keys(result, {"cniVersion": str, "ip4": dict, "ip6": dict, "dns": dict})
    families = {4: result.get("ip4"), 6: result.get("ip6")}
    assert any(families.values())
    for version, family in families.items():
        if family is None:
            continue
        _require_keys(family, _FAMILY, "ip")
        assert "/" in family["ip"]
        assert ip_interface(family["ip"]).version == version
        if "gateway" in family:
            assert ip_address(family["gateway"]).version == version
        for route in family.get("routes", []):
            _require_route(route, _ROUTE)
            assert ip_network(route["dst"]).version == version
    _require_keys(result.get("dns", {}), _DNS)


def _require_ip(entry: dict[str, Any], version: str, interfaces: int) -> None:
    keys = {"version": str, **_IP} if version in WITH_FAMILY else _IP
    required = ("version", "address") if version in WITH_FAMILY else ("address",)
    _require_keys(entry, keys, *required)
    assert "/" in entry["address"]
    address = ip_interface(entry["address"])
    assert entry.get("version", str(address.version)) == str(address.version)
    if "gateway" in entry:
        assert ip_address(entry["gateway"]).version == address.version
    assert 0 <= entry.get("interface", 0) < max(interfaces, 1)
    assert "interface" not in entry or interfaces


def _require_route(route: dict[str, Any], keys: Mapping[str, type]) -> None:
    _require_keys(route, keys, "dst")
    assert "/" in route["dst"]
    ip_network(route["dst"])


def _require_keys(value: dict[str, Any], keys: Mapping[str, type], *required: str) -> None:
    assert set(value) <= set(keys), f"{sorted(set(value) - set(keys))} in {value}"
    assert set(required) <= set(value), value
    for key, item in value.items():
        assert type(item) is keys[key], f"{key}: {item!r}"


def _require_something(value: Json) -> None:
    """No null, and no empty text that stands for an absent one."""
    assert value is not None
    assert value != ""
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _require_something(item)
