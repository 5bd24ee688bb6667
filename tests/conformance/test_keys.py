"""SPEC 2: the keys of the configuration: name, version, types, spelling, values."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .bed.forms import require_form
from .bed.netns import Pod
from .bed.network import VERSIONS, Network, addresses, inline, network_conf
from .bed.node import Node

spec = pytest.mark.spec

VERBS = ("ADD", "CHECK", "DEL", "GC", "STATUS")
GOOD = network_conf("stdin", datapath="veth", version="1.1.0", ipam=inline()) | {"cni.dev/valid-attachments": []}
TEXT = json.dumps(GOOD)
PATIENCE = 5.0  # seconds: "no unbounded time"


@spec("J-5")
@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("name", [None, ""], ids=["missing", "empty"])
def test_a_network_needs_a_name(node: Node, pod: Pod, verb: str, name: str | None) -> None:
    conf = GOOD | {"name": name}
    if name is None:
        del conf["name"]
    assert "missing network name" in node.call(pod, verb, conf).refuse(7)["msg"]


@spec("J-5")
@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    "name",
    ["../../x", "/x", "..", ".", "a\0b", "a b", "-a", "_a", "a\n", "ä", "a\u0660", "a/b", "\ud800", "a:b", "a;b"],
    ids=ascii,
)
def test_a_malformed_network_name_is_refused_and_touches_no_file(node: Node, pod: Pod, verb: str, name: str) -> None:
    before = _files(node)
    error = node.call(pod, verb, GOOD | {"name": name}).refuse(6, 7)
    if error["code"] == 7:
        assert "invalid characters found in network name" in error["msg"]
        assert error["details"]
    else:
        assert name == "\ud800"  # half a surrogate pair is no text at all
    assert _files(node) == before
    assert pod.links() == {"lo"}


def _files(node: Node) -> set[str]:
    return {str(path) for root in (node.directory, Path("/tmp/x")) for path in root.rglob("*")}


@spec("J-6")
@pytest.mark.parametrize("version", [None, "", "null"], ids=["missing", "empty", "null"])
def test_no_version_means_0_1_0(network: Callable[..., Network], pod: Pod, version: str | None) -> None:
    own = network(version=None)
    if version is not None:
        own.conf["cniVersion"] = None if version == "null" else version
    result = own.add(pod).result
    require_form(result, "0.1.0")
    assert len(addresses(result)) == 2
    own.check(pod).refuse(1)
    own.delete(pod).succeed()


@spec("J-7")
@pytest.mark.parametrize("verb", ["ADD", "DEL"])
@pytest.mark.parametrize("version", ["1.0", "v1.0.0", " 1.0.0", "1.0.0 ", "1.2.0", "0.5.0", "0.3", "2.0.0", "1", "x"])
def test_a_version_is_compared_as_a_text(node: Node, pod: Pod, verb: str, version: str) -> None:
    error = node.call(pod, verb, GOOD | {"cniVersion": version}).refuse(1)
    assert error["msg"] == "incompatible CNI versions"
    assert f'config is "{version}"' in error["details"]
    assert all(known in error["details"] for known in VERSIONS)
    assert error["cniVersion"] == "1.1.0"


@spec("J-7")
@pytest.mark.parametrize(
    ("verb", "version", "code"),
    [
        *((verb, version, 6) for verb in ("CHECK", "GC", "STATUS") for version in ("v1.0.0", " 1.1.0", "x", "1.x.0")),
        *((verb, "0.3.1", 1) for verb in ("CHECK", "GC", "STATUS")),
        *((verb, "2.0.0", 1) for verb in ("CHECK", "GC", "STATUS")),
        ("GC", "1.0.0", 1),
        ("STATUS", "1.0.0", 1),
    ],
)
def test_later_verbs_read_the_version_as_numbers(node: Node, pod: Pod, verb: str, version: str, code: int) -> None:
    node.call(pod, verb, GOOD | {"cniVersion": version}).refuse(code)


@spec("J-7")
@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("version", [1, 1.1, True, [], {}, ["1.0.0"]], ids=str)
def test_a_version_that_is_no_text_cannot_be_decoded(node: Node, pod: Pod, verb: str, version: object) -> None:
    node.call(pod, verb, GOOD | {"cniVersion": version}).refuse(6)


WRONG_TYPES: dict[str, Any] = {
    "name": 1,
    "ipam": "underlay-ipam",
    "dns": [],
    "prevResult": "none",
    "master": 7,
    "mtu": "big",
    "mac": 5,
    "mode": [],
    "datapath": {},
    "runtimeConfig": [],
    "args": "A=B",
}
WRONG_IN_IPAM: dict[str, Any] = {
    "type": 1,
    "ranges": {"subnet": "10.0.0.0/8"},
    "subnet": 10,
    "rangeStart": [],
    "gateway": {},
    "routes": "0.0.0.0/0",
    "pools": "app",
    "resolvConf": 1,
}


@spec("J-8")
@pytest.mark.parametrize("key", WRONG_TYPES)
def test_a_known_key_of_a_wrong_type_is_refused(node: Node, pod: Pod, key: str) -> None:
    node.call(pod, "ADD", GOOD | {key: WRONG_TYPES[key]}).refuse(6, 7)
    assert node.leases() == []
    assert pod.links() == {"lo"}


@spec("J-8")
@pytest.mark.parametrize("key", WRONG_IN_IPAM)
def test_a_known_key_of_a_wrong_type_in_ipam_is_refused(node: Node, pod: Pod, key: str) -> None:
    node.call(pod, "ADD", GOOD | {"ipam": inline() | {key: WRONG_IN_IPAM[key]}}).refuse(6, 7)
    assert node.leases() == []


@spec("J-9")
def test_null_means_absent(network: Callable[..., Network], pod: Pod) -> None:
    nulls = dict.fromkeys(("prevResult", "dns", "runtimeConfig", "args", "capabilities", "mtu", "mac", "mode"))
    own = network(**nulls)
    own.conf["ipam"] |= dict.fromkeys(("rangeStart", "resolvConf", "pools", "subnet"))
    result = own.add(pod).result
    require_form(result, "1.1.0")
    own.check(pod).succeed()
    own.delete(pod).succeed()


@spec("J-9")
def test_an_ipam_of_null_is_no_ipam(network: Callable[..., Network], pod: Pod) -> None:
    own = network(datapath="macvlan")
    own.conf["ipam"] = None
    assert "ips" not in own.add(pod).result
    own.delete(pod).succeed()


@spec("J-10", "J-12")
@pytest.mark.parametrize("verb", VERBS)
def test_unknown_keys_and_those_of_libraries_are_ignored(network: Callable[..., Network], pod: Pod, verb: str) -> None:
    more = {
        "args": {"labels": [], "cni": {}},
        "runtimeConfig": {"unknown": 1},
        "capabilities": {"portMappings": True, "ips": True, "mac": False},
        "cniVersions": ["0.4.0", "1.1.0"],
        "cni.dev/anything": {"a": 1},
        "cni.dev/valid-attachments": [],
        "isGateway": True,
        "k8s.v1.cni.cncf.io/x": None,
        "": 1,
    }
    own = network(**more)
    own.add(pod).succeed()
    previous = {"prevResult": own.result(pod)} if verb in {"CHECK", "DEL"} else {}
    if verb != "ADD":
        own.call(verb, pod, extra=previous).succeed()


@spec("J-10", "A-2")
@pytest.mark.usefixtures("unchanged")
def test_a_misspelled_key_of_our_own_block_is_shown_with_its_value(node: Node, pod: Pod) -> None:
    conf = GOOD | {"ipam": inline() | {"rangestrat": "10.89.0.9"}}
    error = node.call(pod, "ADD", conf).refuse(2)
    assert "rangestrat" in error["msg"]
    assert "10.89.0.9" in error["msg"]


@spec("J-11")
def test_keys_are_found_without_case(network: Callable[..., Network], pod: Pod) -> None:
    own = network()
    own.conf["RuntimeConfig"] = {"IPs": ["10.89.0.77"], "MAC": "02:00:00:00:00:77"}
    own.conf["IPAM"] = {"TYPE": "underlay-ipam", "Subnet": "10.89.0.0/24", "rangestart": "10.89.0.70"}
    del own.conf["ipam"]
    result = own.add(pod).result
    assert [address.partition("/")[0] for address in addresses(result)] == ["10.89.0.77"]
    assert result["interfaces"][-1]["mac"] == "02:00:00:00:00:77"


@spec("J-11")
def test_a_key_in_its_own_spelling_counts_before_another(network: Callable[..., Network], pod: Pod) -> None:
    own = network(Master="nowhere", MASTER="nowhere")
    own.add(pod).succeed()


@spec("J-13", "P-1")
@pytest.mark.parametrize("kind", ["../../bin/sh", "/bin/sh", "bin/sh", "..", ".", "./sh", "a\0b"])
@pytest.mark.usefixtures("unchanged")
def test_a_path_is_no_ipam_type_and_is_not_executed(node: Node, pod: Pod, tmp_path: Path, kind: str) -> None:
    trap = tmp_path / "bin" / "sh"
    trap.parent.mkdir()
    trap.write_text(f"#!/bin/sh\n/bin/touch {tmp_path}/executed\n")
    trap.chmod(0o755)
    env: dict[str, str | bytes | None] = {"CNI_PATH": f"{tmp_path}/bin:{tmp_path}/bin/a/b:{tmp_path}"}
    conf = GOOD | {"ipam": {"type": kind}}
    node.call(pod, "ADD", conf, env=env).refuse(6, 7)
    assert not (tmp_path / "executed").exists()


WRONG_VALUES: dict[str, dict[str, Any]] = {
    "no subnet": {"ipam": {"type": "underlay-ipam"}},
    "subnet is no subnet": {"ipam": {"type": "underlay-ipam", "subnet": "10.89.0.0"}},
    "nonsense": {"ipam": {"type": "underlay-ipam", "subnet": "ten"}},
    "too long a prefix": {"ipam": {"type": "underlay-ipam", "subnet": "10.89.0.0/33"}},
    "too small to allocate": {"ipam": {"type": "underlay-ipam", "subnet": "10.89.0.0/31"}},
    "one address": {"ipam": {"type": "underlay-ipam", "subnet": "10.89.0.0/32"}},
    "start outside": {"ipam": {"type": "underlay-ipam", "subnet": "10.89.0.0/24", "rangeStart": "10.88.0.1"}},
    "end before start": {
        "ipam": {
            "type": "underlay-ipam",
            "subnet": "10.89.0.0/24",
            "rangeStart": "10.89.0.9",
            "rangeEnd": "10.89.0.5",
        }
    },
    "gateway of the other family": {"ipam": {"type": "underlay-ipam", "subnet": "10.89.0.0/24", "gateway": "fd00::1"}},
    "empty set": {"ipam": {"type": "underlay-ipam", "ranges": [[]]}},
    "overlapping sets": {
        "ipam": {"type": "underlay-ipam", "ranges": [[{"subnet": "10.89.0.0/24"}], [{"subnet": "10.89.0.0/25"}]]}
    },
    "a set of two families": {
        "ipam": {"type": "underlay-ipam", "ranges": [[{"subnet": "10.89.0.0/24"}, {"subnet": "fd00:89::/64"}]]}
    },
    "bad route": {"ipam": inline(routes=[{"dst": "everywhere"}])},
    "route of two families": {"ipam": inline(routes=[{"dst": "0.0.0.0/0", "gw": "fd00:89::1"}])},
    "unknown pool": {"ipam": {"type": "underlay-ipam", "pools": ["nobody"]}},
    "missing resolv.conf": {"ipam": inline(resolvConf="/nowhere/resolv.conf")},
    "negative mtu": {"mtu": -1},
    "huge mtu": {"mtu": 70000},
    "unknown datapath": {"datapath": "token ring"},
    "unknown mode": {"mode": "l2"},
    "vlan out of range": {"vlan": 4095},
    "master is a path": {"master": "../eth0"},
}


@spec("J-14", "A-2")
@pytest.mark.parametrize("change", WRONG_VALUES.values(), ids=WRONG_VALUES)
@pytest.mark.usefixtures("unchanged")
def test_a_wrong_value_is_code_7(node: Node, pod: Pod, change: dict[str, Any]) -> None:
    node.call(pod, "ADD", GOOD | change).refuse(7)
