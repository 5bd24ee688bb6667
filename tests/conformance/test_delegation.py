"""SPEC 11: executing another IPAM plugin."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .bed.forms import OLD, require_form
from .bed.kinds import Json, Option
from .bed.netns import Pod
from .bed.network import VERSIONS, Network, addresses, hosts, network_conf, own_interface
from .bed.node import GATEWAY4, GATEWAY6, Node
from .bed.stub import Stub

spec = pytest.mark.spec

GIVEN = "10.89.0.210/24"
ANSWER = {
    "cniVersion": "1.0.0",
    "ips": [{"address": GIVEN, "gateway": GATEWAY4}, {"address": "fd00:89::210/64", "gateway": GATEWAY6}],
    "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}, {"dst": "10.99.0.0/16", "gw": GATEWAY4}],
    "dns": {"nameservers": ["10.89.0.53"]},
}


def _conf(kind: str, **more: Option) -> dict[str, Any]:
    options = {"datapath": "veth", "version": "1.0.0", "ipam": {"type": kind}} | more
    return network_conf("delegation", **options)


@spec("P-1")
def test_the_first_directory_that_has_the_delegate_counts(
    network: Callable[..., Network], pod: Pod, stub: Stub, tmp_path: Path
) -> None:
    other = Stub(name=stub.name, bin_dir=tmp_path / "second", directory=tmp_path / "other")
    other.bin_dir.mkdir()
    other.install().fails("ADD", 5, "the second was executed")
    (tmp_path / "first" / stub.name).mkdir(parents=True)  # a directory of that name is no plugin
    stub.says("ADD", ANSWER)
    path = f":{tmp_path}/missing:{tmp_path}/first::{stub.bin_dir}:{other.bin_dir}:"
    own = network(version="1.0.0", ipam={"type": stub.name})
    own.add(pod, env={"CNI_PATH": path}).succeed()
    assert (stub.calls, other.calls) == (["ADD"], [])
    own.delete(pod, env={"CNI_PATH": path}).succeed()


@spec("P-1", "A-2", "E-3")
@pytest.mark.parametrize("path", ["", None, "/nowhere", "/dev/null:/etc/passwd"])
@pytest.mark.usefixtures("unchanged")
def test_a_delegate_that_is_nowhere_is_named_with_the_path(node: Node, pod: Pod, path: str | None) -> None:
    error = node.call(pod, "ADD", _conf("nobody-has-this"), env={"CNI_PATH": path}).refuse(4, 7)
    assert "nobody-has-this" in error["msg"]
    assert (path or "CNI_PATH") in error["msg"]


@spec("P-1", "A-2")
@pytest.mark.usefixtures("unchanged")
def test_a_delegate_that_cannot_be_executed_is_told(node: Node, pod: Pod, tmp_path: Path) -> None:
    (tmp_path / "broken").write_text("no program")
    (tmp_path / "broken").chmod(0o755)
    (tmp_path / "plain").write_text("no program")
    for name in ("broken", "plain"):
        error = node.call(pod, "ADD", _conf(name), env={"CNI_PATH": str(tmp_path)}).error
        assert name in error["msg"]


@spec("P-2", "E-18")
@pytest.mark.parametrize("verb", ["ADD", "CHECK", "DEL", "GC", "STATUS"])
def test_a_delegate_gets_the_whole_environment_and_the_whole_input(
    network: Callable[..., Network], pod: Pod, stub: Stub, verb: str
) -> None:
    stub.says("ADD", ANSWER | {"cniVersion": "1.1.0"})
    own = network(ipam={"type": stub.name, "odd": [1, None]})
    own.add(pod).succeed()
    env: dict[str, str | bytes | None] = {
        "TRACEPARENT": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "CNI_ARGS": "IgnoreUnknown=1;FOO=bar",
        "CNI_UNHEARD_OF": "1",
        "PATH": "/nowhere",
        "ODD": b"\xff",
        "EMPTY": "",
    }
    document = own.conf | {
        "unknown": {"a": [True, {}]},
        "cni.dev/valid-attachments": [],
        "args": {"x": 1},
        "runtimeConfig": {"y": 2},
        "prevResult": None if verb == "ADD" else own.result(pod),
    }
    # Numbers as they are written, spaces, and the order of keys: nothing may be encoded again.
    stdin = json.dumps(document, indent=1).replace(
        '"unknown"', '"number": 1.50e+3, "big": 18446744073709551617, "unknown"'
    )
    stub.forget()
    if verb == "ADD":
        own.delete(pod).succeed()
        stub.forget()
    container, netns, ifname = ("", "", "") if verb in {"GC", "STATUS"} else (pod.container, pod.path, "eth0")
    own.node.cni(verb, stdin.encode(), container=container, netns=netns, ifname=ifname, env=env).succeed()
    assert stub.calls == [verb]
    assert stub.stdin(verb) == stdin.encode()
    variables = own.node.cni.variables(verb, container, netns, ifname, "") | own.node.cni.environment
    expected = variables | {key: value for key, value in env.items() if isinstance(value, str)} | {"ODD": "\udcff"}
    shell = {"PWD", "OLDPWD", "SHLVL", "_"}  # the stub's own
    assert {key: value for key, value in stub.environment(verb).items() if key not in shell} == expected


@spec("P-3", "R-6", "R-7")
@pytest.mark.parametrize("version", [version for version in VERSIONS if version not in OLD])
def test_a_delegates_addresses_routes_and_dns_are_taken_over(
    network: Callable[..., Network], pod: Pod, datapath: str, version: str, stub: Stub
) -> None:
    ips = ANSWER["ips"]
    if version in ("0.3.0", "0.3.1", "0.4.0"):
        ips = [{"version": "4", **ANSWER["ips"][0]}, {"version": "6", **ANSWER["ips"][1]}]
    stub.says("ADD", ANSWER | {"cniVersion": version, "ips": ips})
    own = network(version=version, datapath=datapath, ipam={"type": stub.name})
    result = own.add(pod).result
    require_form(result, version)
    assert hosts(result) == ["10.89.0.210", "fd00:89::210"]
    assert {result["interfaces"][entry["interface"]]["name"] for entry in result["ips"]} == {"eth0"}
    assert {route["dst"] for route in ANSWER["routes"]} <= {route["dst"] for route in result["routes"]}
    assert result["dns"] == ANSWER["dns"]
    assert set(addresses(result)) == pod.addresses("eth0")
    assert pod.reaches(GATEWAY4)
    own.delete(pod).succeed()


@spec("P-3")
@pytest.mark.parametrize("version", OLD)
@pytest.mark.parametrize("stated", [True, False])
def test_a_delegates_old_form_is_understood(
    network: Callable[..., Network], pod: Pod, datapath: str, version: str, stub: Stub, *, stated: bool
) -> None:
    old = {
        "ip4": {"ip": GIVEN, "gateway": GATEWAY4, "routes": [{"dst": "0.0.0.0/0"}]},
        "ip6": {"ip": "fd00:89::210/64", "gateway": GATEWAY6},
        "dns": {},
    }
    stub.says("ADD", old | ({"cniVersion": version} if stated else {}))
    own = network(version=version, datapath=datapath, ipam={"type": stub.name})
    result = own.add(pod).result
    require_form(result, version)
    assert hosts(result) == ["10.89.0.210", "fd00:89::210"]
    own.delete(pod).succeed()


@spec("P-3")
@pytest.mark.parametrize("version", ["0.3.1", "1.0.0"])
def test_a_delegates_result_without_a_version_is_in_the_configurations(
    network: Callable[..., Network], pod: Pod, version: str, stub: Stub
) -> None:
    stub.says("ADD", {"ips": [{"version": "4", "address": GIVEN}], "dns": {}})
    own = network(version=version, ipam={"type": stub.name})
    assert hosts(own.add(pod).result) == ["10.89.0.210"]
    own.delete(pod).succeed()


@spec("P-4", "A-2", "O-3")
def test_a_delegate_that_fails_is_undone_and_its_error_passed_on(
    node: Node, pod: Pod, stub: Stub, datapath: str, unchanged: None
) -> None:
    stub.fails("ADD", 77, "the stub has nothing", "not a single one")
    error = node.call(pod, "ADD", _conf(stub.name, datapath=datapath)).refuse(77)
    assert (error["msg"], error["details"]) == ("the stub has nothing", "not a single one")
    assert stub.calls == ["ADD", "DEL"]
    assert stub.environment("DEL")["CNI_CONTAINERID"] == pod.container
    assert stub.environment("DEL")["CNI_IFNAME"] == "eth0"


@spec("P-4")
@pytest.mark.usefixtures("unchanged")
def test_a_delegates_error_is_told_even_when_its_undoing_fails_too(node: Node, pod: Pod, stub: Stub) -> None:
    stub.fails("ADD", 77, "the first failure")
    stub.fails("DEL", 78, "the second failure")
    outcome = node.call(pod, "ADD", _conf(stub.name))
    assert outcome.refuse(77)["msg"] == "the first failure"
    assert b"the second failure" in outcome.stderr


@spec("P-5", "P-10", "A-2")
@pytest.mark.parametrize("kind", ["bridge", "veth"])
def test_when_the_interface_cannot_be_made_the_delegate_is_undone(
    node: Node, pod: Pod, stub: Stub, datapath: str, kind: str
) -> None:
    stub.says("ADD", ANSWER)
    pod.configure(f"link add eth0 type {kind}{' peer name other' if kind == 'veth' else ''}")
    before = node.state(), pod.state()
    assert node.call(pod, "ADD", _conf(stub.name, datapath=datapath)).status != 0
    assert stub.calls in ([], ["ADD", "DEL"])
    assert (node.state(), pod.state()) == before


@spec("P-5", "A-2")
@pytest.mark.usefixtures("unchanged")
def test_a_result_without_addresses_is_an_error_and_undone(node: Node, pod: Pod, stub: Stub, datapath: str) -> None:
    stub.says("ADD", {"cniVersion": "1.0.0", "dns": {}})
    outcome = node.call(pod, "ADD", _conf(stub.name, datapath=datapath))
    assert outcome.status != 0
    assert stub.calls == ["ADD", "DEL"]


BAD_RESULTS: dict[str, Any] = {
    "nothing": "",
    "garbage": "segmentation fault",
    "bytes": b"\xff\xfe\x00",
    "a list": [],
    "a number": 5,
    "null": None,
    "two documents": "{}{}",
    "an unknown version": ANSWER | {"cniVersion": "9.9.9"},
    "a version of a wrong type": ANSWER | {"cniVersion": 1},
    "a bad address": ANSWER | {"ips": [{"address": "10.89.0.300/24"}]},
    "an address without prefix": ANSWER | {"ips": [{"address": "10.89.0.210"}]},
    "an empty address": ANSWER | {"ips": [{"address": ""}]},
    "a bad gateway": ANSWER | {"ips": [{"address": GIVEN, "gateway": "x"}]},
    "a bad route": ANSWER | {"routes": [{"dst": "x"}]},
    "ips of a wrong type": ANSWER | {"ips": "x"},
    "nesting": "[" * 100_000,
    "the same address twice": ANSWER | {"ips": [{"address": GIVEN}, {"address": GIVEN}]},
    "an address of nobody": ANSWER | {"ips": [{"address": "0.0.0.0/0"}]},
    "a multicast address": ANSWER | {"ips": [{"address": "224.0.0.1/4"}]},
}


@spec("P-6", "A-2", "O-6")
@pytest.mark.parametrize("answer", BAD_RESULTS.values(), ids=BAD_RESULTS)
@pytest.mark.usefixtures("unchanged")
def test_a_delegates_nonsense_is_an_error_and_leaves_nothing(
    node: Node, pod: Pod, stub: Stub, datapath: str, answer: Json
) -> None:
    stub.says("ADD", answer)
    outcome = node.call(pod, "ADD", _conf(stub.name, datapath=datapath))
    assert outcome.status != 0
    assert stub.calls == ["ADD", "DEL"]


@spec("P-6", "A-2")
@pytest.mark.parametrize(
    "answer", [{}, {"code": "x", "msg": 5}, {"code": 0, "msg": "zero"}, {"msg": "no code"}, "junk"]
)
@pytest.mark.parametrize("status", [1, 77, 255])
@pytest.mark.usefixtures("unchanged")
def test_a_delegates_unreadable_error_is_told_in_our_words(
    node: Node, pod: Pod, stub: Stub, answer: Json, status: int
) -> None:
    stub.says("ADD", answer, status=status)
    outcome = node.call(pod, "ADD", _conf(stub.name))
    assert outcome.code not in (0, 1, 3)
    assert stub.calls == ["ADD", "DEL"]


@spec("P-6", "A-2")
@pytest.mark.parametrize("signal", ["KILL", "SEGV", "TERM"])
@pytest.mark.usefixtures("unchanged")
def test_a_delegate_that_is_killed_is_told_by_its_name(node: Node, pod: Pod, stub: Stub, signal: str) -> None:
    stub.says("ADD", ANSWER, signal=signal)
    assert stub.name in node.call(pod, "ADD", _conf(stub.name)).error["msg"]
    assert stub.calls == ["ADD", "DEL"]


@spec("P-7", "S-6", "G-9")
def test_each_verb_runs_the_delegate_once(network: Callable[..., Network], pod: Pod, stub: Stub) -> None:
    stub.says("ADD", ANSWER | {"cniVersion": "1.1.0"})
    own = network(ipam={"type": stub.name})
    own.status().succeed()
    own.add(pod).succeed()
    own.check(pod).succeed()
    own.collect((pod, "eth0")).succeed()
    own.delete(pod).succeed()
    assert stub.calls == ["STATUS", "ADD", "CHECK", "GC", "DEL"]


@spec("P-7", "D-3")
@pytest.mark.parametrize("netns", ["", "/nowhere"])
def test_del_runs_the_delegate_without_a_namespace_and_without_a_lease(
    network: Callable[..., Network], pod: Pod, stub: Stub, netns: str
) -> None:
    stub.says("ADD", ANSWER)
    own = network(version="1.0.0", ipam={"type": stub.name})
    own.add(pod).succeed()
    pod.remove()
    own.delete(pod, netns=netns).succeed()
    own.delete(pod, netns=netns).succeed()
    assert stub.calls == ["ADD", "DEL", "DEL"]
    assert own.leases() == []


@spec("P-8", "O-5")
def test_a_delegates_log_goes_to_standard_error(network: Callable[..., Network], pod: Pod, stub: Stub) -> None:
    stub.says("ADD", ANSWER, stderr="giving one away\n")
    stub.says("DEL", stderr="taking it back\n")
    own = network(version="1.0.0", ipam={"type": stub.name})
    added = own.add(pod)
    assert b"giving one away" in added.stderr
    assert own_interface(added.result)
    assert b"taking it back" in own.delete(pod).succeed().stderr
    stub.says("ADD", {"code": 70, "msg": "none"}, stderr="nothing to give\n", status=1)
    failed = own.add(pod)
    failed.refuse(70)
    assert b"nothing to give" in failed.stderr


@spec("P-10", "D-8")
def test_the_address_is_released_after_the_interface_is_gone(
    network: Callable[..., Network], pod: Pod, stub: Stub, datapath: str
) -> None:
    """Otherwise its next owner could meet the old one on the wire."""
    stub.says("ADD", ANSWER)
    own = network(version="1.0.0", datapath=datapath, ipam={"type": stub.name})
    own.add(pod).succeed()
    program = stub.bin_dir / stub.name
    program.write_text(
        program.read_text() + f'\n[ "$CNI_COMMAND" != DEL ] || /usr/bin/env PATH=/usr/sbin:/usr/bin:/sbin:/bin '
        f"ip -n {pod.name} -o link show > {stub.directory}/links\n"
    )
    own.delete(pod).succeed()
    seen = (stub.directory / "links").read_text()
    assert "lo:" in seen
    assert "eth0" not in seen


def _reserved(directory: Path, name: str) -> set[str]:
    """The addresses that host-local holds."""
    return {path.name for path in (directory / name).glob("10.89.*")}


@spec("P-2", "P-3", "P-7")
@pytest.mark.parametrize("version", ["0.2.0", "0.3.1", "0.4.0", "1.0.0"])
def test_host_local_gives_the_addresses(
    network: Callable[..., Network], pod: Pod, datapath: str, version: str, tmp_path: Path
) -> None:
    ranges = [[{"subnet": "10.89.0.0/24", "rangeStart": "10.89.0.211", "gateway": GATEWAY4}]]
    ipam = {"type": "host-local", "dataDir": str(tmp_path), "ranges": ranges, "routes": [{"dst": "0.0.0.0/0"}]}
    own = network(version=version, datapath=datapath, ipam=ipam)
    result = own.add(pod).result
    require_form(result, version)
    assert hosts(result) == ["10.89.0.211"]
    assert _reserved(tmp_path, own.name) == {"10.89.0.211"}
    assert pod.reaches(GATEWAY4)
    if version >= "0.4.0":
        own.check(pod).succeed()
    own.delete(pod).succeed()
    assert _reserved(tmp_path, own.name) == set()


def _static(*given: dict[str, str]) -> dict[str, Any]:
    routes = [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]
    return {"type": "static", "addresses": list(given), "routes": routes, "dns": {"nameservers": ["10.89.0.1"]}}


@spec("P-3", "P-7", "K-3")
@pytest.mark.parametrize(
    ("datapath", "gateways"),
    [
        ("veth", False),
        ("macvlan", True),
        pytest.param(
            "veth",
            True,
            marks=pytest.mark.xfail(
                reason="static's CHECK compares the gateway of its configuration with the one in prevResult, "
                "which is the next hop that a veth pod really has"
            ),
        ),
    ],
)
def test_static_gives_the_addresses(
    network: Callable[..., Network], pod: Pod, datapath: str, *, gateways: bool
) -> None:
    four, six = {"address": "10.89.0.215/24"}, {"address": "fd00:89::215/64"}
    if gateways:
        four["gateway"], six["gateway"] = GATEWAY4, GATEWAY6
    own = network(version="1.0.0", datapath=datapath, ipam=_static(four, six))
    result = own.add(pod).result
    assert hosts(result) == ["10.89.0.215", "fd00:89::215"]
    assert result["dns"] == {"nameservers": ["10.89.0.1"]}
    assert pod.reaches(GATEWAY4)
    assert pod.reaches(GATEWAY6)
    own.check(pod).succeed()
    own.delete(pod).succeed()
    assert pod.links() == {"lo"}


@spec("P-3", "K-3")
def test_static_gives_what_the_args_ask_for(network: Callable[..., Network], pod: Pod) -> None:
    own = network(version="1.0.0", ipam={"type": "static"})
    args = f"IgnoreUnknown=1;IP=10.89.0.216/24;GATEWAY={GATEWAY4}"
    assert hosts(own.add(pod, args=args).result) == ["10.89.0.216"]
    own.delete(pod, args=args).succeed()
