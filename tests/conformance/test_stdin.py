"""SPEC 2: the network configuration on standard input."""

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from typing import Any

import pytest

from .bed.kinds import Option
from .bed.netns import Pod
from .bed.network import Network, inline, network_conf
from .bed.node import Node

spec = pytest.mark.spec

VERBS = ("ADD", "CHECK", "DEL", "GC", "STATUS")
GOOD = network_conf("stdin", datapath="veth", version="1.1.0", ipam=inline()) | {"cni.dev/valid-attachments": []}
TEXT = json.dumps(GOOD)
PATIENCE = 5.0  # seconds: "no unbounded time"

UNDECODABLE = {
    "empty": b"",
    "space": b" \n",
    "truncated": TEXT[:-1].encode(),
    "no object": b"[]",
    "text": b'"underlay"',
    "number": b"1",
    "two documents": (TEXT + TEXT).encode(),
    "trailing garbage": (TEXT + " x").encode(),
    "NaN": TEXT.replace("{", '{"x": NaN,', 1).encode(),
    "Infinity": TEXT.replace("{", '{"x": -Infinity,', 1).encode(),
    "comment": (TEXT + "// done").encode(),
    "block comment": TEXT.replace("{", "{/* c */", 1).encode(),
    "trailing comma": (TEXT[:-1] + ",}").encode(),
    "single quotes": b"{'name': 'stdin'}",
    "unquoted key": b'{name: "stdin"}',
    "NUL": (TEXT + "\0").encode(),
    "only NUL": b"\0" * 16,
    "UTF-16": TEXT.encode("utf-16"),
    "UTF-16-LE": TEXT.encode("utf-16-le"),
    "UTF-32": TEXT.encode("utf-32"),
    "byte order mark": b"\xef\xbb\xbf" + TEXT.encode(),
    "control character": TEXT.replace("{", '{"x": "a\x01b",', 1).encode(),
    "newline in a text": TEXT.replace("{", '{"x": "a\nb",', 1).encode(),
    "leading zero": TEXT.replace("{", '{"x": 01,', 1).encode(),
    "plus": TEXT.replace("{", '{"x": +1,', 1).encode(),
    "bad escape": TEXT.replace("{", '{"x": "\\x41",', 1).encode(),
    "binary": bytes(range(256)),
    "YAML": b"name: stdin\n",
}


def _without(*keys: str, **more: Option) -> dict[str, Any]:
    return {key: value for key, value in (GOOD | more).items() if key not in keys}


@spec("J-1", "O-3")
@pytest.mark.parametrize("stdin", UNDECODABLE.values(), ids=UNDECODABLE)
@pytest.mark.parametrize("verb", VERBS)
def test_what_is_not_one_json_object_is_refused_with_code_6(node: Node, pod: Pod, verb: str, stdin: bytes) -> None:
    node.call(pod, verb, stdin).refuse(6)
    assert node.leases() == []
    assert pod.links() == {"lo"}


@spec("J-1")
@pytest.mark.parametrize("verb", VERBS)
def test_nothing_happens_before_the_end_of_standard_input(node: Node, pod: Pod, verb: str) -> None:
    variables = node.cni.variables(verb, pod.container, pod.path, "eth0", "")
    process = node.cni.start(variables, {})
    assert process.stdin
    process.stdin.write(TEXT.encode())
    process.stdin.flush()
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.1)
    assert node.leases() == []
    process.stdin.write(b"x")
    stdout, _ = process.communicate(timeout=30)
    assert json.loads(stdout)["code"] == 6


@spec("J-2")
@pytest.mark.parametrize("verb", VERBS)
def test_a_closed_standard_input_is_an_error(node: Node, pod: Pod, verb: str) -> None:
    node.call(pod, verb, b"", stdin=None, preexec_fn=lambda: os.close(0)).refuse(5)
    assert pod.links() == {"lo"}


@spec("J-2")
@pytest.mark.parametrize("verb", VERBS)
def test_a_standard_input_that_cannot_be_read_is_an_error(node: Node, pod: Pod, verb: str) -> None:
    directory = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    try:
        node.call(pod, verb, b"", stdin=directory).refuse(5)
    finally:
        os.close(directory)


@spec("J-2")
@pytest.mark.parametrize("verb", VERBS)
def test_dev_null_is_empty_input(node: Node, pod: Pod, verb: str) -> None:
    node.call(pod, verb, b"", stdin=subprocess.DEVNULL).refuse(5, 6)


@spec("E-19")
def test_standard_input_may_be_a_file(network: Callable[..., Network], pod: Pod) -> None:
    own = network()
    with tempfile.TemporaryFile() as stdin:
        stdin.write(json.dumps(own.conf).encode())
        stdin.seek(0)
        own.add(pod, stdin=stdin).succeed()
    assert "eth0" in pod.links()


@spec("J-3")
@pytest.mark.parametrize("stdin", [b"null", b"{}", b" { } \n"])
@pytest.mark.parametrize("verb", VERBS)
def test_an_empty_configuration_is_refused(node: Node, pod: Pod, verb: str, stdin: bytes) -> None:
    node.call(pod, verb, stdin).refuse(6, 7)


def _nested(depth: int, left: str, right: str) -> bytes:
    return TEXT.replace("{", '{"x": ' + left * depth + right * depth + ",", 1).encode()


HOSTILE = {
    **{f"lists {depth} deep": _nested(depth, "[", "]") for depth in (500, 5_000, 100_000)},
    **{f"objects {depth} deep": _nested(depth, '{"a":', "}").replace(b":}", b":1}", 1) for depth in (500, 100_000)},
    "unfinished lists": b'{"x": ' + b"[" * 100_000,
    "a text of 5 MB": TEXT.replace("{", '{"x": "' + "a" * 5_000_000 + '",', 1).encode(),
    "200000 keys": TEXT.replace("{", "{" + "".join(f'"k{i}":{i},' for i in range(200_000)), 1).encode(),
    "1e400": TEXT.replace("{", '{"x": 1e400,', 1).encode(),
    "10**5000": TEXT.replace("{", '{"x": 1' + "0" * 5000 + ",", 1).encode(),
    "a key twice": TEXT.replace("{", '{"name": "first", "name": "second",', 1).encode(),
    "a key 100000 times": TEXT.replace("{", "{" + '"x":1,' * 100_000, 1).encode(),
    "mtu 1e400": json.dumps(GOOD | {"mtu": 1}).replace('"mtu": 1', '"mtu": 1e400').encode(),
    "mtu 10**5000": json.dumps(GOOD | {"mtu": 1}).replace('"mtu": 1', '"mtu": 1' + "0" * 5000).encode(),
    "long name": json.dumps(GOOD | {"name": "a" * 1_000_000}).encode(),
}


@spec("J-4")
@pytest.mark.parametrize("stdin", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("verb", ["ADD", "DEL", "STATUS"])
def test_depth_and_size_end_in_an_answer_and_soon(node: Node, pod: Pod, verb: str, stdin: bytes) -> None:
    start = time.monotonic()
    outcome = node.call(pod, verb, stdin)
    assert time.monotonic() - start < PATIENCE
    if outcome.status != 0:
        outcome.refuse(6, 7, 11)
    _remove(node, pod)


def _remove(node: Node, pod: Pod) -> None:
    for lease in node.leases():
        conf = _without("ipam", name=lease["network"])
        node.call(pod, "DEL", conf).succeed()
    assert node.changes() == {}
