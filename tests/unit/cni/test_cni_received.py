from ipaddress import ip_address, ip_interface, ip_network

import msgspec
import pytest

from cni_underlay.cni.received import decode_result
from cni_underlay.cni.result import Interface, Ip, Result
from cni_underlay.cni.versions import SUPPORTED
from cni_underlay.errors import DecodingError
from cni_underlay.records import Dns, Route

ADDRESSES = Result(
    ips=(
        Ip(address=ip_interface("10.1.0.5/24"), gateway=ip_address("10.1.0.1")),
        Ip(address=ip_interface("fd00::5/64")),
    ),
    routes=(Route(dst=ip_network("0.0.0.0/0"), gw=ip_address("10.1.0.254")),),
    dns=Dns(nameservers=("10.0.0.2",)),
)
OLD = {
    "ip4": {"ip": "10.1.0.5/24", "gateway": "10.1.0.1", "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.0.254"}]},
    "ip6": {"ip": "fd00::5/64"},
    "dns": {"nameservers": ["10.0.0.2"]},
}
VERSIONED = {
    "ips": [
        {"version": "4", "address": "10.1.0.5/24", "gateway": "10.1.0.1"},
        {"version": "6", "address": "fd00::5/64"},
    ],
    "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.0.254"}],
    "dns": {"nameservers": ["10.0.0.2"]},
}


@pytest.mark.parametrize("stated", [*SUPPORTED, None, ""])
@pytest.mark.parametrize("form", [OLD, VERSIONED], ids=["families", "ips"])
def test_the_form_tells_the_version_whatever_is_stated(form: dict[str, object], stated: str | None) -> None:
    assert decode_result({"cniVersion": stated, **form}, "1.0.0") == ADDRESSES
    assert decode_result(form, "0.2.0") == ADDRESSES


@pytest.mark.parametrize("stated", ["2.0.0", "1.0", "nonsense"])
def test_a_version_that_nobody_knows_is_an_error(stated: str) -> None:
    with pytest.raises(DecodingError, match=rf"cniVersion '{stated}' is not known"):
        decode_result({"cniVersion": stated, **VERSIONED}, "1.0.0")


def test_a_result_that_went_through_libcnis_cache_is_the_same() -> None:
    cached = {"cniVersion": "1.0.0", "dns": {}, "interfaces": [{"name": "eth0", "sandbox": "/n"}], "routes": []}
    cached["ips"] = [{"address": "10.1.0.5/24", "interface": 0, "gateway": ""}]
    assert decode_result(cached, "1.0.0") == Result(
        interfaces=(Interface(name="eth0", sandbox="/n"),), ips=(Ip(address=ip_interface("10.1.0.5/24"), interface=0),)
    )


def test_nulls_and_other_spellings_are_what_they_are_in_go() -> None:
    odd = {
        "CNIVersion": "1.0.0",
        "Interfaces": None,
        "IPs": [{"Address": "10.1.0.5/24", "Gateway": None}],
        "Routes": None,
    }
    assert decode_result({**odd, "DNS": None, "ip4": None}, "1.0.0") == Result(
        ips=(Ip(address=ip_interface("10.1.0.5/24")),)
    )


def test_an_interface_keeps_what_others_put_into_it() -> None:
    entry = {
        "Name": "eth0",
        "Mac": "C2:00:00:00:00:01",
        "mtu": 1400,
        "socketPath": "/s",
        "custom": {"Name": [None, 1e3]},
    }
    found = decode_result({"interfaces": [entry]}, "1.1.0").interfaces[0]
    assert (found.name, found.mac, found.mtu) == ("eth0", "c2:00:00:00:00:01", 1400)
    assert dict(found.extras) == {"socketPath": msgspec.Raw(b'"/s"'), "custom": msgspec.Raw(b'{"Name":[null,1000.0]}')}


def test_an_index_of_an_ipam_plugin_has_nothing_to_point_at() -> None:
    assert decode_result({"ips": [{"address": "10.1.0.5/24", "interface": 3}]}, "1.0.0").ips[0].interface is None


@pytest.mark.parametrize("index", [1, -1, 10**30])
def test_an_index_beyond_the_interfaces_is_an_error(index: int) -> None:
    entry = {"address": "10.1.0.5/24", "interface": index}
    with pytest.raises(DecodingError, match="is none of the 1 interfaces"):
        decode_result({"interfaces": [{"name": "a"}], "ips": [entry]}, "1.0.0")


@pytest.mark.parametrize(
    "value",
    [
        None,
        "text",
        [],
        5,
        {"ips": {}},
        {"ips": [{}]},
        {"ips": [5]},
        {"ips": [{"address": "10.1.0.5"}]},
        {"ips": [{"address": "10.1.0.5/33"}]},
        {"ips": [{"address": "fe80::1%eth0/64"}]},
        {"ips": [{"address": "10.1.0.5/24", "gateway": "x"}]},
        {"ips": [{"address": "10.1.0.5/24", "interface": "0"}]},
        {"interfaces": {}},
        {"interfaces": ["eth0"]},
        {"interfaces": [{"name": 5}]},
        {"interfaces": [{"name": "a", "mtu": -1}]},
        {"interfaces": [{"name": "a", "mtu": 2**32}]},
        {"routes": [{"dst": "x"}]},
        {"routes": [{}]},
        {"routes": [{"dst": "10.0.0.0/8", "scope": -1}]},
        {"dns": []},
        {"dns": {"search": "a"}},
        {"ip4": []},
        {"ip4": {}},
        {"ip4": {"ip": "10.1.0.5"}},
        {"cniVersion": 1},
    ],
)
def test_a_wrong_result_is_an_error_that_says_whose_it_is(value: object) -> None:
    with pytest.raises(DecodingError, match=r"^delegate x: "):
        decode_result(value, "1.0.0", "delegate x")
