from collections.abc import Callable

import pytest

from cni_underlay.cni.environment import Call
from cni_underlay.cni.ipamconf import DelegateConf, IpamConf
from cni_underlay.cni.netconf import NetConf, Role, role, version_of
from cni_underlay.errors import DecodingError, IncompatibleVersionError, InvalidConfigError
from cni_underlay.records import DatapathKind, Dns

Conf = Callable[..., NetConf]

FOREIGN = {"type": "macvlan", "mode": "bridge", "mtu": "as the master's", "mac": 5, "datapath": "x", "vlan": -1}


def test_a_short_configuration_gets_the_documented_defaults(conf: Conf) -> None:
    found = conf({})
    assert (found.name, found.type, found.cni_version) == ("net", "underlay", "1.1.0")
    assert (found.datapath, found.master, found.mode, found.mtu, found.mac) == (DatapathKind.VETH, "", "", 0, "")
    assert found.ipam == IpamConf(type="underlay-ipam", pools=("app",))
    assert (found.dns, found.prev_result, found.valid_attachments, found.ignored) == (Dns(), None, None, ())


def test_a_full_configuration_is_read(conf: Conf) -> None:
    link = {
        "datapath": "macvlan",
        "master": "bond0",
        "mode": "vepa",
        "mtu": 9000,
        "mac": "C2-11-22-33-44-55",
        "vlan": 0,
    }
    dns = {"nameservers": ["10.0.0.2"], "domain": "d", "search": ["a", "b"], "options": ["ndots:2"]}
    found = conf({**link, "dns": dns})
    assert (found.datapath, found.master, found.mode, found.mtu) == (DatapathKind.MACVLAN, "bond0", "vepa", 9000)
    assert found.mac == "c2:11:22:33:44:55"
    assert found.dns == Dns(nameservers=("10.0.0.2",), domain="d", search=("a", "b"), options=("ndots:2",))


def test_standard_input_is_kept_byte_for_byte_for_delegates(conf: Conf) -> None:
    assert conf({"x": 2**70}).raw.endswith(b'"x": 1180591620717411303424}')


@pytest.mark.parametrize("verb", ["ADD", "DEL", "CHECK", "GC", "STATUS"])
@pytest.mark.parametrize("name", [..., "", None])
def test_a_missing_network_name_is_an_invalid_configuration_for_every_verb(conf: Conf, verb: str, name: object) -> None:
    with pytest.raises(InvalidConfigError, match=r"^missing network name$") as caught:
        conf({"name": name}, verb)
    assert caught.value.code == 7


@pytest.mark.parametrize("verb", ["ADD", "DEL", "CHECK", "GC", "STATUS"])
@pytest.mark.parametrize("name", ["../../x", "/x", "..", "a\0b", "a b", "net\n", "n\u00e9t", "-n", "\u0663", "a/b"])
def test_a_network_name_with_other_characters_is_refused_and_shown(conf: Conf, verb: str, name: str) -> None:
    with pytest.raises(InvalidConfigError, match="invalid characters found in network name") as caught:
        conf({"name": name}, verb)
    assert caught.value.details == name


@pytest.mark.parametrize("verb", ["ADD", "DEL", "CHECK", "GC", "STATUS"])
@pytest.mark.parametrize("key", ["name", "cniVersion"])
@pytest.mark.parametrize("value", [5, True, [], {}, 1.1])
def test_a_name_or_version_of_another_type_cannot_be_decoded(conf: Conf, verb: str, key: str, value: object) -> None:
    with pytest.raises(DecodingError, match=key) as caught:
        conf({key: value}, verb)
    assert caught.value.code == 6


@pytest.mark.parametrize("version", [..., "", None])
def test_a_missing_version_means_0_1_0(conf: Conf, version: object) -> None:
    assert conf({"cniVersion": version}).cni_version == "0.1.0"
    with pytest.raises(IncompatibleVersionError):
        conf({"cniVersion": version}, "CHECK")


def test_the_version_is_judged_before_anything_that_only_a_newer_one_has(conf: Conf) -> None:
    for verb in ("ADD", "DEL"):
        with pytest.raises(IncompatibleVersionError, match="incompatible CNI versions"):
            conf({"cniVersion": "9.9.9", "ipam": 5, "datapath": "x"}, verb)


@pytest.mark.parametrize(
    ("stdin", "version"),
    [
        (b'{"cniVersion": "0.4.0"}', "0.4.0"),
        (b'{"CNIVERSION": "0.4.0"}', "0.4.0"),
        (b'{"name": "x"}', "0.1.0"),
        (b'{"cniVersion": null}', "0.1.0"),
        (b'{"cniVersion": "7.0.0"}', "1.1.0"),
        (b'{"cniVersion": [1]}', "1.1.0"),
        (b"", "1.1.0"),
        (b"[]", "1.1.0"),
    ],
)
def test_a_failure_is_answered_in_the_stated_version_or_the_newest(stdin: bytes, version: str) -> None:
    assert version_of(stdin) == version


@pytest.mark.parametrize(
    "key", ["ipam", "dns", "runtimeConfig", "args", "capabilities", "prevResult", "mtu", "master", "mac"]
)
def test_null_means_absent(conf: Conf, key: str) -> None:
    bare = {"ipam": ...}
    found, expected = conf({**bare, key: None}), conf({**bare, key: ...})
    assert {name: getattr(found, name) for name in ("ipam", "dns", "runtime", "args", "prev_result", "mtu", "mac")} == {
        name: getattr(expected, name) for name in ("ipam", "dns", "runtime", "args", "prev_result", "mtu", "mac")
    }


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("ipam", "string"),
        ("ipam", []),
        ("ipam", {"type": 5}),
        ("dns", []),
        ("dns", {"nameservers": "10.0.0.2"}),
        ("prevResult", "string"),
        ("runtimeConfig", []),
        ("args", "a=b"),
        ("args", {"cni": 1}),
        ("mtu", "1500"),
        ("mtu", 1500.5),
        ("mtu", True),
        ("vlan", "1"),
        ("master", 5),
        ("datapath", {}),
        ("mode", []),
        ("mac", 1),
        ("type", 5),
    ],
)
def test_a_known_key_of_a_wrong_type_is_an_error_in_words(conf: Conf, key: str, value: object) -> None:
    with pytest.raises((DecodingError, InvalidConfigError), match=key):
        conf({key: value})


def test_known_keys_are_found_without_case_and_the_exact_one_first(conf: Conf) -> None:
    assert conf({"DataPath": "ipvlan", "MASTER": "eth1"}).master == "eth1"
    assert conf({"master": "eth1", "Master": "eth2"}).master == "eth1"
    assert conf({"Master": "eth2", "master": "eth1"}).master == "eth1"
    assert conf({"Master": "eth2", "master": None}).master == "eth2"
    assert conf({"DNS": {"NameServers": ["10.0.0.2"]}}).dns.nameservers == ("10.0.0.2",)
    assert conf({"ipam": {"Type": "underlay-ipam", "POOLS": ["b"]}}).ipam == IpamConf(
        type="underlay-ipam", pools=("b",)
    )


@pytest.mark.parametrize("verb", ["ADD", "DEL", "CHECK", "GC", "STATUS"])
def test_unknown_keys_of_operators_are_ignored(conf: Conf, verb: str) -> None:
    extra = {
        "args": {"a": 1},
        "capabilities": {"mac": True},
        "cniVersions": ["1.1.0"],
        "cni.dev/x": 1,
        "delegates": [{}],
    }
    found = conf({**extra, "cni.dev/valid-attachments": [], "kubeconfig": "/x", "disableCheck": True}, verb)
    assert found.ignored == ()


@pytest.mark.parametrize(
    ("changes", "mode"),
    [
        ({"datapath": "macvlan"}, "bridge"),
        ({"datapath": "macvlan", "mode": "passthru"}, "passthru"),
        ({"datapath": "macvlan", "mode": "private"}, "private"),
        ({"datapath": "ipvlan"}, "l2"),
        ({"datapath": "ipvlan", "mode": "l3"}, "l3"),
        ({"datapath": "ipvlan", "mode": "l3s"}, "l3s"),
        ({"datapath": "veth", "mode": ""}, ""),
        ({"datapath": ""}, ""),
    ],
)
def test_each_datapath_has_its_own_modes(conf: Conf, changes: dict[str, object], mode: str) -> None:
    assert conf(changes).mode == mode


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"datapath": "bridge"}, "datapath: 'bridge' is none of veth, macvlan, ipvlan"),
        ({"datapath": "none"}, "is none of veth, macvlan, ipvlan"),
        ({"datapath": "MACVLAN"}, "is none of"),
        ({"mode": "bridge"}, 'no modes, not \'bridge\'; it is one of "datapath": "macvlan"'),
        ({"datapath": "macvlan", "mode": "l2"}, 'it is one of "datapath": "ipvlan"'),
        ({"datapath": "macvlan", "mode": "nonsense"}, "bridge, private, vepa, passthru, not 'nonsense'"),
        ({"datapath": "ipvlan", "mode": "L2"}, "l2, l3, l3s, not 'L2'"),
        ({"mtu": -1}, "mtu: -1"),
        ({"mtu": 67}, "mtu: 67 is not 0 .* or 68 to 65535"),
        ({"mtu": 65536}, "mtu: 65536"),
        ({"mtu": 10**400}, "mtu: 1000"),
        ({"vlan": -1}, "vlan: -1"),
        ({"vlan": 4095}, "vlan: 4095"),
        ({"vlan": 120}, "vlan 120: VLAN masters are not supported yet"),
        ({"mac": "01:00:5e:00:00:01"}, "mac: .* multicast"),
        ({"mac": "00:00:00:00:00:00"}, "mac: .* all zero"),
        ({"mac": "nonsense"}, "mac: 'nonsense'"),
        ({"master": "../../eth0"}, "master: '../../eth0'"),
        ({"master": "e" * 16}, "master: .* 16 bytes"),
        ({"master": "all"}, "master: 'all'"),
        ({"master": "lo"}, "master: 'lo'"),
    ],
)
@pytest.mark.parametrize("verb", ["ADD", "CHECK", "STATUS"])
def test_a_wrong_value_is_an_invalid_configuration_that_names_it(
    conf: Conf, verb: str, changes: dict[str, object], words: str
) -> None:
    with pytest.raises(InvalidConfigError, match=words) as caught:
        conf(changes, verb)
    assert caught.value.code == 7
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("mtu", [0, 68, 1280, 1500, 65535])
def test_an_mtu_in_bounds_is_taken(conf: Conf, mtu: int) -> None:
    assert conf({"mtu": mtu}).mtu == mtu


def test_reference_keys_without_effect_are_reported_only_where_they_are_set(conf: Conf) -> None:
    assert conf({"ipMasq": False, "linkInContainer": False}).ignored == ()
    assert [words.split()[0] for words in conf({"ipMasq": True, "linkInContainer": True}).ignored] == [
        "ipMasq",
        "linkInContainer",
    ]


@pytest.mark.parametrize(
    ("plugin", "main", "ipam", "expected"),
    [
        ("underlay", "underlay", "underlay-ipam", Role.MAIN),
        ("underlay", "underlay", "underlay", Role.MAIN),
        ("underlay", "underlay", "host-local", Role.MAIN),
        ("other-name", "other-name", "underlay-ipam", Role.MAIN),
        ("underlay-ipam", "macvlan", "underlay-ipam", Role.IPAM),
        ("underlay-ipam", "underlay-ipam", "underlay-ipam", Role.IPAM),
        ("underlay", "macvlan", "underlay", Role.IPAM),
        ("addresses", "ptp", "addresses", Role.IPAM),
        ("/opt/cni/bin/addresses", "ptp", "addresses", Role.IPAM),
    ],
)
@pytest.mark.parametrize("verb", ["ADD", "DEL", "CHECK", "GC", "STATUS"])
def test_the_executable_tells_from_its_name_and_the_types_what_it_is_asked_for(
    conf: Conf, call: Callable[..., Call], verb: str, plugin: str, main: str, ipam: str, expected: Role
) -> None:
    changes = {"type": main, "ipam": {"type": ipam, "pools": ["app"]}, "cni.dev/valid-attachments": []}
    found = conf(changes, verb, plugin)
    assert role(call(verb, argv0=plugin), found) is expected
    assert isinstance(found.ipam, DelegateConf if ipam == "host-local" else IpamConf)


@pytest.mark.parametrize("verb", ["ADD", "CHECK", "STATUS"])
def test_a_delegate_reads_nothing_of_the_main_plugins_words(conf: Conf, verb: str) -> None:
    found = conf(FOREIGN | {"ipMasq": True}, verb, "underlay-ipam")
    assert (found.datapath, found.mode, found.mtu, found.mac) == (DatapathKind.NONE, "", 0, "")
    assert found.ignored == ()


def test_a_delegate_reads_what_the_runtime_asks_for(conf: Conf) -> None:
    runtime = {"ips": ["10.1.0.5"], "ipRanges": [[{"subnet": "10.1.0.0/24"}]]}
    found = conf({"type": "ptp", "ipam": {"type": "underlay-ipam"}, "runtimeConfig": runtime}, "ADD", "underlay-ipam")
    assert found.runtime.ips == ("10.1.0.5",)
    assert isinstance(found.ipam, IpamConf)
    assert found.ipam.ranges[0][0].subnet == "10.1.0.0/24"


def test_a_delegate_reads_prev_result_for_check_only(conf: Conf) -> None:
    changes = {"type": "ptp", "prevResult": {"ips": [{"address": "10.1.0.5/24"}]}}
    assert conf(changes, "ADD", "underlay-ipam").prev_result is None
    assert str(conf(changes, "CHECK", "underlay-ipam").prev_result.ips[0].address) == "10.1.0.5/24"


def test_a_delegate_without_an_ipam_block_is_told_what_to_write(conf: Conf) -> None:
    for block in (..., {}, None):
        with pytest.raises(InvalidConfigError, match="ipam: write"):
            conf({"type": "ptp", "ipam": block}, "ADD", "underlay-ipam")


def test_a_delegate_with_an_ipam_block_that_is_no_object_cannot_decode_it(conf: Conf) -> None:
    with pytest.raises(DecodingError, match=r'^ipam: expected an object, got "text"$'):
        conf({"type": "ptp", "ipam": "text"}, "ADD", "underlay-ipam")


@pytest.mark.parametrize("main", ["../../bin/sh", "/opt/cni/bin/underlay", "..", "a\0b"])
@pytest.mark.parametrize("plugin", ["underlay", "underlay-ipam"])
def test_a_type_that_is_a_path_is_refused(conf: Conf, plugin: str, main: str) -> None:
    with pytest.raises(InvalidConfigError, match=r"^type: .* is no plain file name"):
        conf({"type": main}, "ADD", plugin)


@pytest.mark.parametrize("block", [..., None, {}])
def test_a_main_plugin_may_be_without_ipam(conf: Conf, block: object) -> None:
    assert conf({"ipam": block, "datapath": "macvlan"}).ipam is None


@pytest.mark.parametrize("value", [..., None, {}])
def test_a_prev_result_without_content_is_none(conf: Conf, value: object) -> None:
    for verb in ("ADD", "CHECK"):
        assert conf({"prevResult": value}, verb).prev_result is None


def test_a_prev_result_is_read_for_add_and_check(conf: Conf) -> None:
    value = {"interfaces": [{"name": "eth0"}], "ips": [{"address": "10.1.0.5/24", "interface": 0}]}
    for verb in ("ADD", "CHECK"):
        found = conf({"prevResult": value}, verb).prev_result
        assert (found.interfaces[0].name, found.ips[0].interface) == ("eth0", 0)


@pytest.mark.parametrize(
    "value", ["text", 5, [], True, {"ips": 5}, {"ips": [{"address": "x"}]}, {"cniVersion": "7.0.0"}]
)
def test_a_malformed_prev_result_is_an_error_that_names_it(conf: Conf, value: object) -> None:
    for verb in ("ADD", "CHECK"):
        with pytest.raises(DecodingError, match=r"^prevResult: "):
            conf({"prevResult": value}, verb)
