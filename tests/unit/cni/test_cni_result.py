import json
from ipaddress import ip_address, ip_interface, ip_network

import msgspec
import pytest

from cni_underlay.cni.environment import Verb
from cni_underlay.cni.received import decode_result
from cni_underlay.cni.result import Interface, Ip, Result, encode, failure, merge, version_answer
from cni_underlay.cni.versions import SUPPORTED
from cni_underlay.errors import (
    DecodingError,
    DelegateError,
    InvalidConfigError,
    PoolExhaustedError,
    UnderlayError,
)
from cni_underlay.records import Dns, Route

NETNS = "/var/run/../run/netns/cni-1"
HOST = Interface(name="und0123456789a", mac="0a:00:00:00:00:01", mtu=1500)
POD = Interface(name="eth0", mac="c2:00:00:00:00:01", mtu=1500, sandbox=NETNS)
V4 = Ip(address=ip_interface("10.1.0.5/24"), gateway=ip_address("10.1.0.1"), interface=1)
V6 = Ip(address=ip_interface("fd00::5/64"), gateway=ip_address("fd00::1"), interface=1)
DEFAULT_V4 = Route(dst=ip_network("0.0.0.0/0"))
ROUTE_V6 = Route(
    dst=ip_network("fd01::/48"), gw=ip_address("fd00::9"), mtu=1400, advmss=1300, priority=5, table=100, scope=0
)
DNS = Dns(nameservers=("10.0.0.2",), domain="example", search=("a", "b"), options=("ndots:2",))
DUAL = Result(interfaces=(HOST, POD), ips=(V4, V6), routes=(DEFAULT_V4, ROUTE_V6), dns=DNS)
BARE = Result(ips=(Ip(address=ip_interface("10.1.0.5/24")),))

DNS_FORM = {"nameservers": ["10.0.0.2"], "domain": "example", "search": ["a", "b"], "options": ["ndots:2"]}
OLD_INTERFACES = [
    {"name": "und0123456789a", "mac": "0a:00:00:00:00:01"},
    {"name": "eth0", "mac": "c2:00:00:00:00:01", "sandbox": NETNS},
]
OLD_ROUTES = [{"dst": "0.0.0.0/0"}, {"dst": "fd01::/48", "gw": "fd00::9"}]

FAMILIES = {
    "ip4": {"ip": "10.1.0.5/24", "gateway": "10.1.0.1", "routes": [{"dst": "0.0.0.0/0"}]},
    "ip6": {"ip": "fd00::5/64", "gateway": "fd00::1", "routes": [{"dst": "fd01::/48", "gw": "fd00::9"}]},
    "dns": DNS_FORM,
}
VERSIONED = {
    "interfaces": OLD_INTERFACES,
    "ips": [
        {"version": "4", "address": "10.1.0.5/24", "gateway": "10.1.0.1", "interface": 1},
        {"version": "6", "address": "fd00::5/64", "gateway": "fd00::1", "interface": 1},
    ],
    "routes": OLD_ROUTES,
    "dns": DNS_FORM,
}
PLAIN = {
    "interfaces": OLD_INTERFACES,
    "ips": [
        {"address": "10.1.0.5/24", "gateway": "10.1.0.1", "interface": 1},
        {"address": "fd00::5/64", "gateway": "fd00::1", "interface": 1},
    ],
    "routes": OLD_ROUTES,
    "dns": DNS_FORM,
}
FULL = PLAIN | {
    "interfaces": [{**entry, "mtu": 1500} for entry in OLD_INTERFACES],
    "routes": [
        {"dst": "0.0.0.0/0"},
        {"dst": "fd01::/48", "gw": "fd00::9", "mtu": 1400, "advmss": 1300, "priority": 5, "table": 100, "scope": 0},
    ],
}
GOLDEN = {
    "0.1.0": FAMILIES,
    "0.2.0": FAMILIES,
    "0.3.0": VERSIONED,
    "0.3.1": VERSIONED,
    "0.4.0": VERSIONED,
    "1.0.0": PLAIN,
    "1.1.0": FULL,
}
BARE_GOLDEN = {
    "0.1.0": {"ip4": {"ip": "10.1.0.5/24"}, "dns": {}},
    "0.2.0": {"ip4": {"ip": "10.1.0.5/24"}, "dns": {}},
    "0.3.0": {"ips": [{"version": "4", "address": "10.1.0.5/24"}], "dns": {}},
    "0.3.1": {"ips": [{"version": "4", "address": "10.1.0.5/24"}], "dns": {}},
    "0.4.0": {"ips": [{"version": "4", "address": "10.1.0.5/24"}], "dns": {}},
    "1.0.0": {"ips": [{"address": "10.1.0.5/24"}]},
    "1.1.0": {"ips": [{"address": "10.1.0.5/24"}]},
}


@pytest.mark.parametrize("version", SUPPORTED)
def test_a_result_has_exactly_the_keys_of_its_version(version: str) -> None:
    assert json.loads(encode(DUAL, version)) == {"cniVersion": version, **GOLDEN[version]}


@pytest.mark.parametrize("version", SUPPORTED)
def test_what_is_not_there_is_left_out_and_never_null_or_empty(version: str) -> None:
    assert json.loads(encode(BARE, version)) == {"cniVersion": version, **BARE_GOLDEN[version]}


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0"])
def test_an_old_form_refuses_a_second_address_of_a_family_rather_than_lose_it(version: str) -> None:
    two = Result(ips=(V4, V6, Ip(address=ip_interface("10.2.0.5/24"))))
    with pytest.raises(
        InvalidConfigError, match=r"only one IPv4 address, and there is 10\.2\.0\.5/24 beside 10\.1\.0\.5/24"
    ):
        encode(two, version)


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0"])
def test_an_old_form_cannot_report_an_interface_without_addresses(version: str) -> None:
    with pytest.raises(InvalidConfigError, match="without addresses"):
        encode(Result(interfaces=(POD,)), version)


@pytest.mark.parametrize("version", SUPPORTED[2:])
def test_newer_forms_can_report_an_interface_without_addresses(version: str) -> None:
    assert "ips" not in json.loads(encode(Result(interfaces=(POD,)), version))


@pytest.mark.parametrize("version", SUPPORTED[2:])
def test_addresses_keep_their_order_since_kubernetes_takes_the_first(version: str) -> None:
    answer = json.loads(encode(Result(interfaces=(HOST, POD), ips=(V6, V4)), version))
    assert [entry["address"] for entry in answer["ips"]] == ["fd00::5/64", "10.1.0.5/24"]


@pytest.mark.parametrize("version", SUPPORTED)
def test_a_result_is_read_back_as_far_as_its_version_can_say_it(version: str) -> None:
    answer = json.loads(encode(DUAL, version))
    again = decode_result(answer, "1.1.0")
    assert json.loads(encode(again, version)) == answer
    assert [ip.address for ip in again.ips] == [ip.address for ip in DUAL.ips]


def test_the_newest_form_loses_nothing() -> None:
    assert decode_result(json.loads(encode(DUAL, "1.1.0")), "1.1.0") == DUAL


PREVIOUS = Result(
    interfaces=(
        Interface(name="net0", extras=(("pciID", msgspec.Raw(b'"0000:04:00.5"')), ("x", msgspec.Raw(b'{"A":[null]}')))),
    ),
    ips=(Ip(address=ip_interface("192.0.2.7/24"), interface=0),),
    routes=(DEFAULT_V4,),
    dns=Dns(nameservers=("192.0.2.53",)),
)


def test_a_chains_result_is_kept_and_ours_appended_with_shifted_indexes() -> None:
    joined = merge(PREVIOUS, DUAL)
    assert joined.interfaces == (*PREVIOUS.interfaces, HOST, POD)
    assert [ip.interface for ip in joined.ips] == [0, 2, 2]
    assert joined.routes == (DEFAULT_V4, ROUTE_V6)
    assert joined.dns == PREVIOUS.dns


def test_ours_gives_the_dns_where_the_chain_has_none() -> None:
    assert merge(Result(), DUAL) == DUAL


def test_an_address_without_interface_stays_so() -> None:
    assert merge(PREVIOUS, BARE).ips[1].interface is None


def test_unknown_keys_of_anothers_interface_are_carried_at_versions_that_may_have_them() -> None:
    newest = json.loads(encode(PREVIOUS, "1.1.0"))["interfaces"][0]
    assert newest == {"name": "net0", "pciID": "0000:04:00.5", "x": {"A": [None]}}
    assert json.loads(encode(PREVIOUS, "1.0.0"))["interfaces"][0] == {"name": "net0", "x": {"A": [None]}}


def test_a_failure_has_exactly_the_keys_of_the_specification() -> None:
    assert json.loads(failure("0.4.0", PoolExhaustedError("pool app is full", "253 leased"))) == {
        "cniVersion": "0.4.0",
        "code": 11,
        "msg": "pool app is full",
        "details": "253 leased",
    }
    assert "details" not in json.loads(failure("1.1.0", DecodingError("x")))


@pytest.mark.parametrize("text", ["\udcff", "a\ud800b", '\0\n"\\', "\u2028", "é", "x" * 5_000_000, "not found"])
def test_a_failure_is_valid_json_whatever_its_texts_hold(text: str) -> None:
    answer = json.loads(failure("1.1.0", DecodingError(text, text)).decode("utf-8", "strict"))
    assert answer["msg"] == answer["details"] == text.replace("\udcff", "\ufffd").replace("\ud800", "\ufffd")


@pytest.mark.parametrize("code", [0, -5, 2**32, 10**30])
def test_a_code_that_libcni_cannot_read_becomes_the_internal_one(code: int) -> None:
    assert json.loads(failure("1.1.0", DelegateError(code, "x")))["code"] == 999


def test_a_failure_without_words_says_at_least_what_it_is() -> None:
    assert json.loads(failure("1.1.0", UnderlayError("")))["msg"] == "UnderlayError"


@pytest.mark.parametrize("text", ["link not found", "open /x: no such file or directory"])
def test_a_failed_del_never_says_what_go_cni_takes_for_success(text: str) -> None:
    answer = failure("1.1.0", UnderlayError(text, text), Verb.DEL).decode()
    assert "not found" not in answer
    assert "no such file or directory" not in answer
    assert text in failure("1.1.0", UnderlayError(text), Verb.ADD).decode()


def test_a_namespace_path_that_is_not_utf_8_still_gives_valid_json() -> None:
    odd = Result(interfaces=(Interface(name="eth0", sandbox="/run/\udcff"),), ips=(BARE.ips[0],))
    assert json.loads(encode(odd, "1.1.0"))["interfaces"][0]["sandbox"] == "/run/\ufffd"


def test_the_answer_to_version_repeats_the_callers_and_lists_all_ascending() -> None:
    assert json.loads(version_answer("0.4.0")) == {"cniVersion": "0.4.0", "supportedVersions": list(SUPPORTED)}
    assert json.loads(version_answer(""))["cniVersion"] == "1.1.0"
