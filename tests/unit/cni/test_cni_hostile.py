"""Whatever arrives, the answer is an error of ours, in words, and soon."""

import json
import time
from collections.abc import Callable
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cni_underlay.cni.environment import Call, CniArgs, Verb, parse_call
from cni_underlay.cni.netconf import decode, version_of
from cni_underlay.cni.precedence import effective_dns, requested_ips, requested_mac
from cni_underlay.cni.received import decode_result
from cni_underlay.cni.result import encode, failure, merge
from cni_underlay.cni.versions import SUPPORTED
from cni_underlay.errors import DecodingError, UnderlayError
from cni_underlay.records import Dns

Outcome = TypeVar("Outcome")

CALLS = [Call(verb=verb, plugin=plugin) for verb in Verb for plugin in ("underlay", "underlay-ipam")]
HEAD = b'{"cniVersion": "1.1.0", "name": "net", "type": "underlay", "ipam": {"type": "underlay-ipam", "pools": ["a"]}'

KEYS = st.sampled_from(
    [
        "cniVersion",
        "name",
        "type",
        "ipam",
        "datapath",
        "mode",
        "mtu",
        "vlan",
        "mac",
        "master",
        "dns",
        "prevResult",
        "runtimeConfig",
        "args",
        "cni",
        "ips",
        "routes",
        "dst",
        "gw",
        "ranges",
        "subnet",
        "rangeStart",
        "pools",
        "interfaces",
        "address",
        "gateway",
        "interface",
        "ip4",
        "ip6",
        "ip",
        "nameservers",
        "search",
        "servers",
        "bandwidth",
        "ingressRate",
        "portMappings",
        "ipRanges",
        "Subnet",
        "MTU",
        "dataDir",
        "resolvConf",
        "table",
        "socketPath",
        "containerID",
        "ifname",
        "cni.dev/valid-attachments",
    ]
)
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
    st.sampled_from(
        [
            "underlay",
            "underlay-ipam",
            "veth",
            "macvlan",
            "bridge",
            "1.1.0",
            "0.2.0",
            "10.1.0.5/24",
            "fd00::/64",
            "10.1.0.1",
        ]
    ),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=5)),
    max_leaves=12,
)


def tried(act: Callable[[], Outcome]) -> Outcome | UnderlayError:
    try:
        return act()
    except UnderlayError as error:
        return error


@pytest.mark.parametrize(
    "stdin",
    [
        b"",
        b" \n",
        b"{",
        b"null",
        b"[]",
        b'"text"',
        b"5",
        HEAD,
        HEAD + b"}{}",
        HEAD + b"} x",
        HEAD + b",}",
        HEAD + b', "x": NaN}',
        HEAD + b', "x": Infinity}',
        HEAD + b', "x": -Infinity}',
        HEAD + b', "x": 01}',
        HEAD + b', "x": /* c */ 1}',
        HEAD + b', "x": "\xff"}',
        HEAD + b', "x": "\xed\xa0\x80"}',
        HEAD + b', "x": "\\ud800"}',
        HEAD + b', "x": "a\x00"}',
        HEAD + b', "x": "a\nb"}',
        HEAD + b"}\x00",
        HEAD.replace(b'"', b"'") + b"}",
        b"\xef\xbb\xbf" + HEAD + b"}",
        (HEAD + b"}").decode().encode("utf-16"),
        (HEAD + b"}").decode().encode("utf-32"),
    ],
)
@pytest.mark.parametrize("verb", ["ADD", "DEL", "CHECK", "GC", "STATUS"])
def test_what_is_not_one_json_object_in_utf_8_cannot_be_decoded(
    call: Callable[..., Call], verb: str, stdin: bytes
) -> None:
    with pytest.raises(DecodingError) as caught:
        decode(stdin, call(verb))
    assert caught.value.code == 6


def deep(depth: int) -> bytes:
    return HEAD + b', "x": ' + b'{"a":' * depth + b"1" + b"}" * depth + b"}"


@pytest.mark.parametrize(
    "stdin",
    [
        deep(500),
        deep(100_000),
        HEAD + b', "x": ' + b"[" * 1_000_000,
        HEAD.replace(b'["a"]', b"[" * 900 + b"]" * 900) + b"}",
        HEAD.replace(b'["a"]', b'["a"], "y": ' + b"[" * 900 + b"]" * 900) + b"}",
        HEAD + b', "prevResult": {"interfaces": [{"name": "a", "x": ' + b"[" * 900 + b"]" * 900 + b"}]}}",
        HEAD + b', "x": "' + b"x" * 5_000_000 + b'"}',
        HEAD.replace(b'"net"', b'"' + b"x" * 5_000_000 + b' "') + b"}",
        HEAD + b', "type": "' + b"x" * 5_000_000 + b'/"}',
        HEAD + b', "mtu": ' + b"9" * 4000 + b"}",
        HEAD + b', "mtu": ' + b"9" * 5000 + b"}",
        HEAD + b', "x": ' + b"9" * 5_000_000 + b"}",
        HEAD + b', "x": 1e400}',
        HEAD + b"".join(b', "k%d": %d' % (number, number) for number in range(200_000)) + b"}",
        HEAD.replace(b'["a"]', b'["a"]' + b"".join(b', "k%d": 1' % number for number in range(100_000))) + b"}",
        HEAD + b', "name": "other"' * 50_000 + b"}",
    ],
    ids=lambda stdin: f"{len(stdin)}-bytes",
)
@pytest.mark.parametrize("verb", ["ADD", "DEL", "CHECK", "STATUS"])
def test_size_and_depth_cost_neither_a_traceback_nor_much_time(
    call: Callable[..., Call], verb: str, stdin: bytes
) -> None:
    start = time.process_time()
    outcome = tried(lambda: decode(stdin, call(verb)))
    if isinstance(outcome, UnderlayError):
        assert len(failure("1.1.0", outcome)) < 4096
    else:
        assert outcome.name in {"net", "other"}
    assert time.process_time() - start < 2.0


def test_of_a_key_given_twice_the_last_counts(call: Callable[..., Call]) -> None:
    assert decode(HEAD + b', "name": "other"}', call("DEL")).name == "other"


def test_a_deep_extra_of_another_plugin_can_be_answered(call: Callable[..., Call]) -> None:
    extra = b"[" * 700 + b"]" * 700
    stdin = HEAD + b', "prevResult": {"interfaces": [{"name": "a", "x": ' + extra + b"}]}}"
    assert extra in encode(decode(stdin, call("ADD")).prev_result, "1.1.0")


@settings(max_examples=300, deadline=None)
@given(stdin=st.binary(max_size=200), about=st.sampled_from(CALLS))
def test_arbitrary_bytes_raise_nothing_but_our_errors(stdin: bytes, about: Call) -> None:
    with pytest.raises(UnderlayError):
        decode(stdin, about)
    assert version_of(stdin) in SUPPORTED


@settings(max_examples=500, deadline=None)
@given(
    changes=st.dictionaries(KEYS, VALUES, max_size=8),
    about=st.sampled_from(CALLS),
    version=st.sampled_from([*SUPPORTED, "9.9.9"]),
)
def test_arbitrary_configurations_raise_nothing_but_our_errors_and_their_answers_encode(
    changes: dict[str, object], about: Call, version: str
) -> None:
    whole = {"cniVersion": version, "name": "net", "type": "underlay", "ipam": {"type": "underlay-ipam"}, **changes}
    stdin = json.dumps(whole).encode()
    try:
        conf = decode(stdin, about)
        requested_ips(conf, about)
        requested_mac(conf, about)
        effective_dns(conf, Dns())
        if conf.prev_result is not None:
            json.loads(encode(merge(conf.prev_result, conf.prev_result), conf.cni_version))
    except UnderlayError as error:
        answer = json.loads(failure(version_of(stdin), error))
        assert answer["code"] in {1, 2, 4, 6, 7}
        assert answer["msg"]


@settings(max_examples=300, deadline=None)
@given(value=VALUES, version=st.sampled_from(SUPPORTED))
def test_arbitrary_results_raise_nothing_but_decoding_errors(value: object, version: str) -> None:
    try:
        result = decode_result(value, version)
    except DecodingError:
        return
    assert json.loads(encode(result, "1.1.0"))["cniVersion"] == "1.1.0"


@settings(max_examples=500, deadline=None)
@given(
    environment=st.dictionaries(
        st.sampled_from(["argv0", "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH", "CNI_ARGS"]),
        st.text(st.characters(codec=None, exclude_categories=()), max_size=20) | st.sampled_from(["a", "IP=1;MAC=2"]),
    ),
    verb=st.sampled_from([*Verb, "", "add"]),
)
def test_arbitrary_environments_raise_nothing_but_our_errors(environment: dict[str, str], verb: str) -> None:
    outcome = tried(lambda: parse_call({**environment, "CNI_COMMAND": verb}))
    if isinstance(outcome, UnderlayError):
        assert json.loads(failure("1.1.0", outcome))["code"] == 4
    else:
        assert outcome.verb is Verb(verb)
        assert outcome.args.pod is not None


@settings(max_examples=300, deadline=None)
@given(pairs=st.lists(st.tuples(st.sampled_from(["IP", "MAC", "x"]), st.text(max_size=30)), max_size=4))
def test_arbitrary_requests_in_cni_args_raise_nothing_but_our_errors(pairs: list[tuple[str, str]]) -> None:
    args = CniArgs(tuple(pairs))
    for read in (lambda: args.ip, lambda: args.mac):
        outcome = tried(read)
        assert getattr(outcome, "code", 4) == 4
