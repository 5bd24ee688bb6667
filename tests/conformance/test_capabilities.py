"""SPEC 13: runtimeConfig, args and CNI_ARGS, as the runtimes really write them."""

from collections.abc import Callable
from typing import Any

import pytest

from .bed.kinds import Json
from .bed.netns import Pod
from .bed.network import Network, hosts, inline, network_conf, own_interface, range4
from .bed.node import GATEWAY4, Node

spec = pytest.mark.spec

DYNAMIC4 = {"subnet": "10.89.0.0/24", "rangeStart": "10.89.0.120", "rangeEnd": "10.89.0.129", "gateway": GATEWAY4}
DYNAMIC6 = {"subnet": "fd00:89::/64", "rangeStart": "fd00:89::120"}
UNSUPPORTED: dict[str, Any] = {
    "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": ""}],
    "PortMappings": [{"HostPort": 8080, "ContainerPort": 80, "Protocol": "tcp", "HostIP": ""}],
    "bandwidth": {"ingressRate": 1000000, "ingressBurst": 1000},
    "Bandwidth": {"IngressRate": 0, "IngressBurst": 4294967295, "EgressRate": 5, "EgressBurst": 4294967295},
    "infinibandGUID": "c2:11:22:33:44:55:66:77",
    "deviceID": "0000:04:00.5",
    "aliases": ["web"],
}
HARMLESS: dict[str, Any] = {
    "portMappings": [],
    "bandwidth": {"IngressRate": 0, "IngressBurst": 4294967295, "EgressRate": 0, "EgressBurst": 34359738367},
    "aliases": None,
    "cgroupPath": "/kubelet.slice/x",
    "io.kubernetes.cri.pod-annotations": {"k": "v"},
    "unheardOf": {"a": [1]},
    "ips": None,
    "mac": None,
    "ipRanges": None,
    "dns": None,
    "deviceID": "",
}


@spec("K-1", "A-14")
@pytest.mark.parametrize("key", ["ips", "IPs", "Ips"])
@pytest.mark.parametrize(
    "wanted", [["10.89.0.130"], ["10.89.0.130/24", "fd00:89::1130"], ["fd00:89::1130/64"]], ids=str
)
def test_ips_are_given_as_asked(network: Callable[..., Network], pod: Pod, key: str, wanted: list[str]) -> None:
    own = network(capabilities={"ips": True}, runtimeConfig={key: wanted})
    given = hosts(own.add(pod).result)
    assert {address.partition("/")[0] for address in wanted} <= set(given)
    assert len(given) == 2


@spec("K-1")
@pytest.mark.parametrize("key", ["mac", "Mac", "MAC"])
def test_a_mac_is_set_as_asked(network: Callable[..., Network], pod: Pod, datapath: str, key: str) -> None:
    own = network(datapath=datapath, runtimeConfig={key: "c2:11:22:33:44:55"})
    assert own_interface(own.add(pod).result)["mac"] == "c2:11:22:33:44:55"


@spec("K-4", "K-1")
@pytest.mark.parametrize(
    "ranges",
    [
        [[DYNAMIC4]],
        [DYNAMIC4],
        [[{"Subnet": "10.89.0.0/24", "RangeStart": "10.89.0.120", "RangeEnd": "10.89.0.129"}]],
        [{"Subnet": "10.89.0.0/24", "RangeStart": "10.89.0.120", "RangeEnd": "", "Gateway": ""}],
    ],
    ids=["sets", "flat", "sets without tags", "flat without tags"],
)
@pytest.mark.parametrize("key", ["ipRanges", "IPRanges", "IpRanges"])
def test_dynamic_ranges_come_before_the_static_ones(
    network: Callable[..., Network], pod: Pod, key: str, ranges: Json
) -> None:
    own = network(ipam=inline([range4(16, 99)]), runtimeConfig={key: ranges})
    dynamic, static = (int(address.rpartition(".")[2]) for address in hosts(own.add(pod).result))
    assert 120 <= dynamic <= 129
    assert 16 <= static <= 99
    own.check(pod).succeed()
    own.delete(pod).succeed()


@spec("K-4")
def test_a_flat_list_of_both_families_gives_one_address_of_each(network: Callable[..., Network], pod: Pod) -> None:
    own = network(ipam={"type": "underlay-ipam"}, runtimeConfig={"ipRanges": [DYNAMIC4, DYNAMIC6]})
    assert [address[:9] for address in hosts(own.add(pod).result)] == ["10.89.0.1", "fd00:89::"]


@spec("K-4", "S-1", "G-8")
def test_status_and_gc_do_not_need_the_runtimes_ranges(network: Callable[..., Network], pod: Pod) -> None:
    own = network(ipam={"type": "underlay-ipam"})
    ranges = {"runtimeConfig": {"ipRanges": [[DYNAMIC4]]}}
    own.add(pod, extra=ranges).succeed()
    own.status().succeed()
    own.collect((pod, "eth0")).succeed()
    own.check(pod, extra=ranges).succeed()
    own.collect().succeed()
    assert own.leases() == []


@spec("K-1", "R-7")
@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        (
            {"dns": {"servers": ["10.0.0.1"], "searches": ["a.org"], "options": ["ndots:2"]}},
            {"nameservers": ["10.0.0.1"], "search": ["a.org"], "options": ["ndots:2"]},
        ),
        ({"dns": {"Servers": ["10.0.0.1"], "Searches": None, "Options": None}}, {"nameservers": ["10.0.0.1"]}),
        ({"DNS": {"Servers": None, "Searches": ["a.org"]}}, {"search": ["a.org"]}),
        ({"dns": {"servers": [], "searches": [], "options": []}}, {"nameservers": ["192.0.2.53"]}),
        ({"dns": None}, {"nameservers": ["192.0.2.53"]}),
        ({}, {"nameservers": ["192.0.2.53"]}),
    ],
)
def test_dns_of_the_runtime_counts_before_the_configurations(
    network: Callable[..., Network], pod: Pod, asked: dict[str, Any], answered: dict[str, Any]
) -> None:
    own = network(dns={"nameservers": ["192.0.2.53"]}, runtimeConfig=asked)
    assert own.add(pod).result["dns"] == answered


@spec("K-1", "A-2")
@pytest.mark.parametrize("key", UNSUPPORTED)
@pytest.mark.usefixtures("unchanged")
def test_a_capability_that_we_have_not_is_refused_when_asked_for(node: Node, pod: Pod, key: str) -> None:
    conf = network_conf("capability", datapath="veth", version="1.1.0", ipam=inline())
    conf["runtimeConfig"] = {key: UNSUPPORTED[key]}
    error = node.call(pod, "ADD", conf).refuse(7)
    assert key.lower() in error["msg"].lower()


@spec("K-1", "J-9")
@pytest.mark.parametrize("key", HARMLESS)
def test_a_capability_that_asks_for_nothing_does_no_harm(network: Callable[..., Network], pod: Pod, key: str) -> None:
    own = network(runtimeConfig={key: HARMLESS[key]})
    own.add(pod).succeed()
    own.check(pod).succeed()
    own.delete(pod).succeed()


@spec("K-1")
def test_all_that_containerd_sends_together_passes(network: Callable[..., Network], pod: Pod) -> None:
    own = network(
        version="1.0.0",
        runtimeConfig={
            "dns": {"Servers": None, "Searches": None, "Options": None},
            "bandwidth": {"IngressRate": 0, "IngressBurst": 4294967295, "EgressRate": 0, "EgressBurst": 4294967295},
            "portMappings": None,
            "ipRanges": [],
            "cgroupPath": "/kubepods.slice/x",
            "io.kubernetes.cri.pod-annotations": {"a": "b"},
        },
    )
    args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=a;K8S_POD_NAME=b;K8S_POD_INFRA_CONTAINER_ID=c;K8S_POD_UID=d"
    own.add(pod, args=args).succeed()
    (lease,) = own.leases()
    assert lease["pod"] == {"namespace": "a", "name": "b", "uid": "d"}
    own.check(pod, args=args).succeed()
    own.delete(pod, args=args).succeed()


@spec("K-2", "A-14")
@pytest.mark.parametrize(
    ("runtime", "args", "environment", "given"),
    [
        (["10.89.0.131"], ["10.89.0.132"], "IP=10.89.0.133", "10.89.0.131"),
        (None, ["10.89.0.132"], "IP=10.89.0.133", "10.89.0.132"),
        (None, None, "IP=10.89.0.133", "10.89.0.133"),
        (None, ["10.89.0.132"], "IP=nonsense", "10.89.0.132"),
        (["10.89.0.131"], ["nonsense"], "IP=192.0.2.1", "10.89.0.131"),
        ([], ["10.89.0.132"], "", "10.89.0.132"),
        (None, [], "IP=10.89.0.133", "10.89.0.133"),
    ],
)
def test_the_stronger_source_of_an_address_replaces_the_weaker(
    network: Callable[..., Network], pod: Pod, runtime: Json, args: Json, environment: str, given: str
) -> None:
    own = network(ipam=inline([range4()]), runtimeConfig={"ips": runtime}, args={"cni": {"ips": args}})
    assert hosts(own.add(pod, args=environment).result) == [given]


@spec("K-2")
@pytest.mark.parametrize(
    "args",
    [
        {"cni": {"labels": [{"key": "app", "value": "web"}]}},
        {"org.mesos": {"network_info": {}}},
        {"cni": None},
        {},
        {"cni": {"unheardOf": 1}, "labels": ["x"]},
    ],
    ids=str,
)
def test_unknown_args_are_ignored(network: Callable[..., Network], pod: Pod, args: Json) -> None:
    own = network(args=args)
    own.add(pod).succeed()
    own.check(pod).succeed()
    own.delete(pod).succeed()


@spec("K-3", "J-12")
def test_declared_capabilities_without_a_runtimes_values_do_no_harm(
    network: Callable[..., Network], node: Node, pod: Pod
) -> None:
    own = network(capabilities=dict.fromkeys((*UNSUPPORTED, *HARMLESS), True))
    own.add(pod).succeed()
    own.delete(pod).succeed()
    assert node.changes() == {}
