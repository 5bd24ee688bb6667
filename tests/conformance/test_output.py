"""SPEC 3 and 4: what a plugin prints, and what it does when nobody reads it; VERSION."""

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from .bed.calls import Caller
from .bed.netns import Pod
from .bed.network import VERSIONS, Network, network_conf
from .bed.network import inline as ranges
from .bed.node import Node
from .bed.stub import Stub

spec = pytest.mark.spec

CONF = network_conf("output", datapath="veth", version="1.1.0", ipam=ranges())


@spec("O-1", "O-2", "O-5")
@pytest.mark.parametrize("version", VERSIONS)
def test_only_an_add_prints_and_it_prints_one_object(network: Callable[..., Network], pod: Pod, version: str) -> None:
    own = network(version=version)
    added = own.add(pod)
    assert added.status == 0
    assert isinstance(json.loads(added.stdout), dict)
    silent = [own.delete(pod)]
    if version >= "0.4.0":
        own.add(pod).succeed()
        silent += [own.check(pod), own.delete(pod)]
    if version >= "1.1.0":
        silent += [own.status(), own.collect()]
    assert {(outcome.status, outcome.stdout, outcome.stderr) for outcome in silent} == {(0, b"", b"")}


@spec("O-1", "O-3", "O-4", "O-6")
@pytest.mark.parametrize("verb", ["ADD", "CHECK", "DEL", "GC", "STATUS"])
@pytest.mark.parametrize("version", VERSIONS)
def test_an_error_is_one_object_in_the_configurations_version(node: Node, pod: Pod, verb: str, version: str) -> None:
    conf = CONF | {"cniVersion": version, "name": ""}
    outcome = node.call(pod, verb, conf)
    assert outcome.status == 1
    assert outcome.error["cniVersion"] == version
    assert outcome.stderr == b""


@spec("O-4")
@pytest.mark.parametrize("stdin", [b"", b"{", b"[]", b'{"cniVersion": 5}', b'{"cniVersion": "7.0.0", "name": "a"}'])
def test_an_error_about_an_unknown_version_is_in_the_newest(node: Node, pod: Pod, stdin: bytes) -> None:
    outcome = node.call(pod, "ADD", stdin)
    assert outcome.error["cniVersion"] == VERSIONS[-1]


@spec("O-5", "P-8")
def test_what_is_said_beside_the_result_goes_to_standard_error(network: Callable[..., Network], pod: Pod) -> None:
    own = network()
    own.conf["ipam"]["dataDir"] = "/nowhere"
    outcome = own.add(pod)
    assert b"dataDir" in outcome.stderr
    assert b"dataDir" not in outcome.stdout
    assert not Path("/nowhere").exists()


@spec("O-7")
def test_nobody_keeps_standard_output_open(network: Callable[..., Network], pod: Pod) -> None:
    own = network()
    read, write = os.pipe()
    try:
        own.add(pod, stdout=write, stderr=write).succeed()
        os.close(write)
        with os.fdopen(read, "rb", closefd=False) as stream:
            start = time.monotonic()
            assert stream.read().endswith(b"}")
            assert time.monotonic() - start < 1
    finally:
        os.close(read)


@spec("O-8", "A-2")
def test_an_add_whose_reader_has_gone_is_undone(node: Node, pod: Pod, unchanged: None, datapath: str) -> None:
    read, write = os.pipe()
    os.close(read)
    conf = CONF | {"datapath": datapath}
    try:
        outcome = node.call(pod, "ADD", conf, stdout=write)
    finally:
        os.close(write)
    assert outcome.status != 0


@spec("O-8", "A-2")
def test_an_add_whose_result_finds_no_room_is_undone(node: Node, pod: Pod, unchanged: None) -> None:
    with Path("/dev/full").open("wb") as full:
        outcome = node.call(pod, "ADD", CONF, stdout=full)
    assert outcome.status != 0


@spec("O-8")
def test_an_add_whose_output_is_closed_is_not_done(node: Node, pod: Pod, unchanged: None) -> None:
    outcome = node.cni(
        "ADD",
        CONF,
        container=pod.container,
        netns=pod.path,
        ifname="eth0",
        stdout=None,
        preexec_fn=lambda: os.close(1),
    )
    assert outcome.status != 0


@spec("A-19", "A-2", "A-20")
def test_an_add_whose_caller_was_killed_is_undone_with_its_delegate(
    network: Callable[..., Network], node: Node, pod: Pod, stub: Stub
) -> None:
    own = network(ipam={"type": stub.name})
    before = pod.state()
    stub.says("ADD", {"cniVersion": "1.1.0", "ips": [{"address": "10.89.0.200/24"}]})
    stub.hold("ADD")
    with node.cni.start(node.cni.variables("ADD", pod.container, pod.path, "eth0", ""), {}) as process:
        assert process.stdin
        process.stdin.write(json.dumps(own.conf).encode())
        process.stdin.close()
        stub.arrived("ADD")
        process.kill()
    stub.release("ADD")
    deadline = time.monotonic() + 10
    while node.leases(own.name) or "DEL" not in stub.calls:
        assert time.monotonic() < deadline, "the agent keeps what nobody was told of"
        time.sleep(0.01)
    assert stub.calls == ["ADD", "DEL"]
    assert pod.state() == before


@spec("V-1", "V-2")
@pytest.mark.parametrize("plugin", ["underlay", "underlay-ipam"])
def test_version_lists_every_released_version_in_order(cni: Caller, plugin: str) -> None:
    answer = cni("VERSION", {"cniVersion": "1.0.0"}, plugin=plugin).result
    assert answer["supportedVersions"] == list(VERSIONS)
    assert answer["cniVersion"] in ("1.0.0", VERSIONS[-1])
    assert set(answer) == {"cniVersion", "supportedVersions"}


@spec("V-3")
def test_version_answers_while_standard_input_is_open(cni: Caller) -> None:
    process = cni.start({"CNI_COMMAND": "VERSION"}, {})
    try:
        assert process.stdout
        assert json.loads(process.stdout.read())["supportedVersions"] == list(VERSIONS)
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.communicate()


@spec("V-3", "E-12")
@pytest.mark.parametrize("stdin", [b"", b"{", b"\xff" * 100, b"[]", b'{"cniVersion": "9.9.9"}', b"x" * 1_000_000])
def test_version_does_not_care_for_its_input(cni: Caller, stdin: bytes) -> None:
    process = cni.start({"CNI_COMMAND": "VERSION"}, {}, stdin=subprocess.PIPE)
    stdout, stderr = process.communicate(stdin, timeout=10)
    assert process.returncode == 0
    assert json.loads(stdout)["supportedVersions"] == list(VERSIONS)
    assert stderr == b""


@spec("V-4", "E-12")
@pytest.mark.parametrize("value", [None, "", "dummy", "../../x", b"\xff"], ids=ascii)
def test_version_needs_no_other_variable_and_no_agent(node: Node, tmp_path: Path, value: str | bytes | None) -> None:
    before = node.state()
    names = ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS", "CNI_PATH")
    env: dict[str, str | bytes | None] = dict.fromkeys(names, value)
    env["UNDERLAY_SOCKET"] = str(tmp_path / "run" / "agent.sock")
    assert node.cni("VERSION", {"cniVersion": "0.4.0"}, env=env).result["supportedVersions"] == list(VERSIONS)
    assert list(tmp_path.iterdir()) == []
    assert node.state() == before
