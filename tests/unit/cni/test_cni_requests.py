from collections.abc import Callable
from ipaddress import ip_address

import pytest

from cni_underlay.cni.environment import Call
from cni_underlay.cni.netconf import NetConf
from cni_underlay.cni.precedence import effective_dns, requested_ips, requested_mac
from cni_underlay.errors import DecodingError, InvalidConfigError, InvalidEnvironmentError
from cni_underlay.records import Dns

Conf = Callable[..., NetConf]
Calls = Callable[..., Call]

RUNTIME = {"ips": ["10.1.0.5", "10.1.0.6/24", "2001:db8::5"], "mac": "C2:00:00:00:00:01"}
ARGS = {"cni": {"ips": ["10.1.0.7"], "mac": "c2:00:00:00:00:02", "labels": [{"key": "a", "value": "b"}]}}
CNI_ARGS = "IgnoreUnknown=1;IP=10.1.0.8;MAC=c2:00:00:00:00:03"


def addresses(*texts: str) -> tuple[object, ...]:
    return tuple(map(ip_address, texts))


def test_the_stronger_source_replaces_the_weaker_entirely(conf: Conf, call: Calls) -> None:
    asked = call(CNI_ARGS=CNI_ARGS)
    everything = conf({"runtimeConfig": RUNTIME, "args": ARGS, "mac": "c2:00:00:00:00:04"})
    assert requested_ips(everything, asked) == addresses("10.1.0.5", "10.1.0.6", "2001:db8::5")
    assert requested_mac(everything, asked) == "c2:00:00:00:00:01"
    without_runtime = conf({"args": ARGS, "mac": "c2:00:00:00:00:04"})
    assert requested_ips(without_runtime, asked) == addresses("10.1.0.7")
    assert requested_mac(without_runtime, asked) == "c2:00:00:00:00:02"
    neither = conf({"mac": "c2:00:00:00:00:04"})
    assert requested_ips(neither, asked) == addresses("10.1.0.8")
    assert requested_mac(neither, asked) == "c2:00:00:00:00:03"
    assert requested_ips(neither, call()) == ()
    assert requested_mac(neither, call()) == "c2:00:00:00:00:04"
    assert requested_mac(conf({}), call()) == ""


def test_a_weaker_source_is_not_even_read(conf: Conf, call: Calls) -> None:
    asked = call(CNI_ARGS="IP=nonsense;MAC=nonsense")
    found = conf({"runtimeConfig": RUNTIME, "args": {"cni": {"ips": ["nonsense"], "mac": "nonsense"}}})
    assert requested_ips(found, asked)[0] == ip_address("10.1.0.5")
    assert requested_mac(found, asked) == "c2:00:00:00:00:01"


@pytest.mark.parametrize("empty", [{}, {"ips": None, "mac": None}, {"ips": [], "mac": ""}])
def test_an_empty_source_replaces_nothing(conf: Conf, call: Calls, empty: dict[str, object]) -> None:
    found = conf({"runtimeConfig": empty, "args": {"cni": empty}})
    assert requested_ips(found, call(CNI_ARGS=CNI_ARGS)) == addresses("10.1.0.8")
    assert requested_mac(found, call(CNI_ARGS=CNI_ARGS)) == "c2:00:00:00:00:03"


@pytest.mark.parametrize("text", ["nonsense", "", "10.1.0.5/33", "10.1.0.0/255.0.255.0", "fe80::1%eth0", "1" * 5000])
def test_an_address_that_is_none_is_the_fault_of_whoever_wrote_it(conf: Conf, call: Calls, text: str) -> None:
    with pytest.raises(InvalidConfigError, match=r"^runtimeConfig\.ips: "):
        requested_ips(conf({"runtimeConfig": {"ips": [text]}}), call())
    with pytest.raises(InvalidConfigError, match=r"^args\.cni\.ips: "):
        requested_ips(conf({"args": {"cni": {"ips": [text]}}}), call())


@pytest.mark.parametrize("text", ["nonsense", "01:00:5e:00:00:01", "00:00:00:00:00:00"])
def test_a_mac_that_no_interface_can_have_is_the_fault_of_whoever_wrote_it(conf: Conf, call: Calls, text: str) -> None:
    with pytest.raises(InvalidConfigError, match=r"^runtimeConfig\.mac: "):
        requested_mac(conf({"runtimeConfig": {"mac": text}}), call())
    with pytest.raises(InvalidConfigError, match=r"^args\.cni\.mac: "):
        requested_mac(conf({"args": {"cni": {"mac": text}}}), call())
    with pytest.raises(InvalidEnvironmentError, match=r"^CNI_ARGS: MAC: "):
        requested_mac(conf({}), call(CNI_ARGS=f"MAC={text}"))


def test_keys_of_the_runtime_are_found_without_case(conf: Conf) -> None:
    runtime = {
        "IPs": ["10.1.0.5"],
        "MAC": "c2:00:00:00:00:01",
        "DNS": {"Servers": ["1.1.1.1"], "Searches": ["a"], "Options": None},
    }
    found = conf({"RuntimeConfig": runtime}).runtime
    assert (found.ips, found.mac, found.dns) == (
        ("10.1.0.5",),
        "c2:00:00:00:00:01",
        Dns(nameservers=("1.1.1.1",), search=("a",)),
    )


def test_the_content_of_args_that_is_not_ours_is_ignored(conf: Conf) -> None:
    assert conf({"args": {"cni": {"x": {}}, "org.apache.mesos": {"network_info": []}}}).args.ips == ()


@pytest.mark.parametrize(
    "runtime", [{"ips": "10.1.0.5"}, {"ips": [5]}, {"mac": 5}, {"dns": []}, {"dns": {"servers": "x"}}, 5]
)
def test_a_runtime_config_of_wrong_types_cannot_be_decoded(conf: Conf, runtime: object) -> None:
    with pytest.raises(DecodingError, match=r"^runtimeConfig: "):
        conf({"runtimeConfig": runtime})


@pytest.mark.parametrize(
    ("runtime", "unsupported"),
    [
        (
            {"portMappings": [{"HostPort": 8080, "ContainerPort": 80, "Protocol": "tcp", "HostIP": ""}]},
            ("portMappings",),
        ),
        ({"PortMappings": [{"hostPort": 8080}]}, ("portMappings",)),
        ({"bandwidth": {"IngressRate": 1000, "EgressRate": 0}}, ("bandwidth",)),
        ({"bandwidth": {"ingressRate": 0, "egressRate": 5, "egressBurst": 34359738367}}, ("bandwidth",)),
        ({"infinibandGUID": "c2:11:22:33:44:55:66:77", "deviceID": "0000:04:00.5"}, ("infinibandGUID", "deviceID")),
        ({"aliases": ["a"]}, ("aliases",)),
        ({"portMappings": [], "aliases": None, "deviceID": ""}, ()),
        ({"bandwidth": {"IngressRate": 0, "IngressBurst": 4294967295, "EgressBurst": 4294967295}}, ()),
        ({"bandwidth": {}}, ()),
        ({"cgroupPath": "/kubelet.slice", "io.kubernetes.cri.pod-annotations": {"k": "v"}}, ()),
    ],
)
def test_capabilities_that_are_asked_for_and_not_ours_are_named(
    conf: Conf, runtime: dict[str, object], unsupported: tuple[str, ...]
) -> None:
    assert conf({"runtimeConfig": runtime}).runtime.unsupported == unsupported


OF_RUNTIME = Dns(nameservers=("1.1.1.1",), options=("ndots:5",))
OF_CONF = Dns(search=("conf.example",))
OF_IPAM = Dns(nameservers=("9.9.9.9",), domain="ipam.example")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {
                "runtimeConfig": {"dns": {"servers": ["1.1.1.1"], "options": ["ndots:5"]}},
                "dns": {"search": ["conf.example"]},
            },
            OF_RUNTIME,
        ),
        ({"runtimeConfig": {"dns": {"servers": []}}, "dns": {"search": ["conf.example"]}}, OF_CONF),
        ({"dns": {}}, OF_IPAM),
        ({"dns": {"nameservers": [], "domain": ""}}, OF_IPAM),
        ({}, OF_IPAM),
    ],
)
def test_the_runtimes_dns_wins_then_the_configurations_where_any_field_is_set_then_ipams(
    conf: Conf, changes: dict[str, object], expected: Dns
) -> None:
    assert effective_dns(conf(changes), OF_IPAM) == expected
