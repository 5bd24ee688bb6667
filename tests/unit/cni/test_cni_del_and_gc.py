from collections.abc import Callable

import pytest

from cni_underlay.cni.ipamconf import DelegateConf, IpamConf
from cni_underlay.cni.netconf import NetConf
from cni_underlay.cni.versions import SUPPORTED
from cni_underlay.errors import DecodingError, IncompatibleVersionError, InvalidConfigError

Conf = Callable[..., NetConf]

VALID = "cni.dev/valid-attachments"
OLD = "cni.dev/attachments"
WRONG = [
    {"ipam": {"type": "underlay-ipam", "subnet": "nonsense/99"}},
    {"ipam": {"type": "underlay-ipam", "unknown": 1, "ranges": 5, "pools": {}}},
    {"ipam": {"type": "underlay-ipam"}},
    {"datapath": "nonsense", "mode": 5, "mtu": -1, "vlan": 9999, "mac": "x", "master": "../x"},
    {"prevResult": "text"},
    {"prevResult": {"cniVersion": "0.2.0", "ips": 5, "ip4": []}},
    {"prevResult": None},
    {"prevResult": {}},
    {"dns": 5, "args": [], "runtimeConfig": "x", "capabilities": 1},
    {"type": 5},
]


@pytest.mark.parametrize("changes", WRONG)
@pytest.mark.parametrize("verb", ["DEL", "GC"])
def test_what_went_wrong_since_the_add_does_not_matter(conf: Conf, verb: str, changes: dict[str, object]) -> None:
    found = conf({**changes, VALID: []}, verb)
    assert found.name == "net"
    assert found.ipam == IpamConf(type="underlay-ipam")


@pytest.mark.parametrize("block", [..., None, {}, 5, "text", [], {"type": 5}, {"pools": ["app"]}])
def test_a_del_without_a_legible_ipam_type_has_nobody_to_ask(conf: Conf, block: object) -> None:
    assert conf({"ipam": block}, "DEL").ipam is None


@pytest.mark.parametrize("verb", ["DEL", "GC"])
def test_the_delegate_is_known_without_its_configuration(conf: Conf, verb: str) -> None:
    assert conf({"ipam": {"type": "host-local"}, VALID: []}, verb).ipam == DelegateConf(type="host-local")


@pytest.mark.parametrize("version", SUPPORTED)
def test_a_del_works_at_every_version_without_prev_result(conf: Conf, version: str) -> None:
    assert conf({"cniVersion": version}, "DEL").cni_version == version


@pytest.mark.parametrize("key", [VALID, OLD, "CNI.dev/Valid-Attachments"])
def test_a_gc_lists_whom_to_leave_alone(conf: Conf, key: str) -> None:
    entries = [
        {"containerID": "a", "ifname": "eth0"},
        {"ContainerID": "a", "IfName": "eth1"},
        {"containerID": "ab", "ifname": "eth0"},
    ]
    assert conf({key: entries}, "GC").valid_attachments == {("a", "eth0"), ("a", "eth1"), ("ab", "eth0")}


@pytest.mark.parametrize("value", [None, []])
def test_null_and_an_empty_list_leave_nobody(conf: Conf, value: object) -> None:
    assert conf({VALID: value}, "GC").valid_attachments == frozenset()
    assert conf({OLD: value}, "GC").valid_attachments == frozenset()


def test_the_newer_key_counts_when_both_are_there(conf: Conf) -> None:
    entry = [{"containerID": "a", "ifname": "eth0"}]
    assert conf({VALID: entry, OLD: []}, "GC").valid_attachments == {("a", "eth0")}
    assert conf({VALID: None, OLD: entry}, "GC").valid_attachments == frozenset()
    assert conf({VALID: entry, OLD: "malformed"}, "GC").valid_attachments == {("a", "eth0")}


def test_a_gc_without_the_list_removes_nothing(conf: Conf) -> None:
    with pytest.raises(InvalidConfigError, match="the key is missing, so nothing is removed"):
        conf({}, "GC")


@pytest.mark.parametrize(
    "value",
    [
        5,
        "a",
        {},
        True,
        [5],
        [None],
        ["a"],
        [{}],
        [{"containerID": "a"}],
        [{"ifname": "eth0"}],
        [{"containerID": "", "ifname": "e"}],
        [{"containerID": "a", "ifname": None}],
        [{"containerID": 5, "ifname": "e"}],
        [{"containerID": "a", "ifname": "e"}, {}],
    ],
)
def test_a_malformed_list_removes_nothing(conf: Conf, value: object) -> None:
    with pytest.raises((InvalidConfigError, DecodingError), match=VALID):
        conf({VALID: value}, "GC")


def test_a_gc_below_1_1_0_is_refused_before_the_list_is_read(conf: Conf) -> None:
    with pytest.raises(IncompatibleVersionError, match="config version does not allow GC"):
        conf({"cniVersion": "1.0.0", VALID: 5}, "GC")


def test_other_verbs_have_no_list(conf: Conf) -> None:
    for verb in ("ADD", "DEL", "CHECK", "STATUS"):
        assert conf({VALID: []}, verb).valid_attachments is None


def test_20_000_entries_are_read(conf: Conf) -> None:
    entries = [{"containerID": f"c{number}", "ifname": "eth0"} for number in range(20_000)]
    assert len(conf({VALID: entries}, "GC").valid_attachments) == 20_000
