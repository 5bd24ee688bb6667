"""SPEC 5: the result of ADD in each version's form, and that it says what the kernel has."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .bed.forms import OLD, WITH_FAMILY, require_form
from .bed.netns import Pod
from .bed.network import VERSIONS, Network, addresses, hosts, inline, own_interface, range4, range6
from .bed.node import GATEWAY4, GATEWAY6, MASTER, Node

spec = pytest.mark.spec

RICH: dict[str, Any] = {"dns": {"nameservers": ["10.89.0.1"], "domain": "example.org", "search": ["a.example.org"]}}
MODERN = tuple(version for version in VERSIONS if version not in OLD)


@spec("R-1", "R-8", "V-5")
@pytest.mark.parametrize("version", VERSIONS)
def test_the_result_has_exactly_the_keys_of_its_version(
    network: Callable[..., Network], pod: Pod, datapath: str, version: str
) -> None:
    own = network(version=version, datapath=datapath, **RICH)
    result = own.add(pod).result
    require_form(result, version)
    assert result["dns"] == RICH["dns"]
    own.delete(pod).succeed()


@spec("R-1")
@pytest.mark.parametrize("version", VERSIONS)
def test_the_least_result_has_no_empty_values(network: Callable[..., Network], pod: Pod, version: str) -> None:
    own = network(version=version, datapath="macvlan", ipam={"type": "underlay-ipam", "ranges": [[range4()]]})
    own.conf["ipam"]["ranges"][0][0].pop("gateway")
    result = own.add(pod).result
    require_form(result, version)
    assert not result.get("dns")


@spec("R-2", "R-3", "R-4")
@pytest.mark.parametrize("version", MODERN)
def test_every_address_points_at_the_containers_interface(
    network: Callable[..., Network], pod: Pod, datapath: str, version: str
) -> None:
    result = network(version=version, datapath=datapath).add(pod).result
    names = [entry["name"] for entry in result["interfaces"]]
    assert names.count("eth0") == 1
    assert {entry["interface"] for entry in result["ips"]} == {names.index("eth0")}
    assert own_interface(result)["sandbox"] == pod.path
    assert [entry for entry in result["interfaces"] if entry["name"] != "eth0" and entry.get("sandbox")] == []


@spec("R-4")
def test_no_host_interface_of_the_result_has_the_containers_name(
    network: Callable[..., Network], node: Node, pods: Callable[[], Pod]
) -> None:
    own = network()
    pod = pods()
    (host_name,) = {entry["name"] for entry in own.add(pod).result["interfaces"]} - {"eth0"}
    assert host_name in node.host.links()
    other = pods()
    outcome = own.add(other, ifname=host_name)
    if outcome.status == 0:
        names = [entry["name"] for entry in outcome.result["interfaces"]]
        assert names.count(host_name) == 1
        assert own_interface(outcome.result, host_name)["sandbox"] == other.path


@spec("R-5")
def test_the_result_says_what_the_kernel_has(
    network: Callable[..., Network], node: Node, pod: Pod, datapath: str
) -> None:
    result = network(datapath=datapath, mtu=1400).add(pod).result
    for entry in result["interfaces"]:
        link = (pod if "sandbox" in entry else node.host).link(entry["name"])
        assert link is not None
        assert "UP" in link["flags"]
        assert entry["mac"] == link["address"] == link["address"].lower()
        assert entry["mtu"] == link["mtu"]
    assert own_interface(result)["mtu"] == 1400
    assert set(addresses(result)) == pod.addresses("eth0")


@spec("R-5")
def test_a_macvlan_address_has_the_subnets_prefix_length(network: Callable[..., Network], pod: Pod) -> None:
    result = network(datapath="macvlan").add(pod).result
    assert [address.partition("/")[2] for address in addresses(result)] == ["24", "64"]


@spec("R-5")
def test_the_mtu_is_the_masters_where_none_is_asked_for(
    network: Callable[..., Network], node: Node, pod: Pod, datapath: str
) -> None:
    master = node.host.link(MASTER)
    assert master
    assert own_interface(network(datapath=datapath).add(pod).result)["mtu"] == master["mtu"]


ROUTES = [
    {"dst": "0.0.0.0/0"},
    {"dst": "::/0"},
    {"dst": "10.99.0.0/16"},
    {"dst": "10.98.0.0/16", "gw": GATEWAY4},
    {"dst": "fd00:99::/64", "gw": GATEWAY6},
]


@spec("R-6")
@pytest.mark.parametrize("version", ["0.2.0", "0.4.0", "1.1.0"])
def test_each_route_of_the_configuration_is_answered_and_installed(
    network: Callable[..., Network], pod: Pod, datapath: str, version: str
) -> None:
    own = network(version=version, datapath=datapath, ipam=inline(routes=ROUTES))
    result = own.add(pod).result
    if version in OLD:
        answered = [route for family in ("ip4", "ip6") for route in result[family]["routes"]]
        assert all(":" in route["dst"] for route in result["ip6"]["routes"])
        assert not any(":" in route["dst"] for route in result["ip4"]["routes"])
    else:
        answered = result["routes"]
    assert {route["dst"] for route in ROUTES} <= {route["dst"] for route in answered}
    installed = _routes(pod)
    for route in answered:
        assert route["dst"] in installed
        if "gw" in route:
            assert installed[route["dst"]] == route["gw"]


def _routes(pod: Pod) -> dict[str, str]:
    """Destinations and gateways of the main table."""
    found = {}
    for family, everything in (("-4", "0.0.0.0/0"), ("-6", "::/0")):
        for route in pod.ip(family, "route", "show"):
            destination = everything if route["dst"] == "default" else route["dst"]
            if "/" not in destination:
                destination += "/32" if family == "-4" else "/128"
            found[destination] = route.get("gateway", "")
    return found


@spec("R-6")
def test_a_macvlan_route_without_a_gateway_uses_the_ranges(network: Callable[..., Network], pod: Pod) -> None:
    own = network(datapath="macvlan", ipam=inline(routes=[{"dst": "10.99.0.0/16"}, {"dst": "fd00:99::/64"}]))
    result = own.add(pod).result
    assert [route.get("gw") for route in result["routes"]] in ([None, None], [GATEWAY4, GATEWAY6])
    assert _routes(pod)["10.99.0.0/16"] == GATEWAY4
    assert _routes(pod)["fd00:99::/64"] == GATEWAY6


@spec("R-6", "R-1")
def test_route_attributes_are_installed_and_only_the_newest_version_shows_them(
    network: Callable[..., Network], pods: Callable[[], Pod]
) -> None:
    route = {"dst": "10.97.0.0/16", "gw": GATEWAY4, "mtu": 1280, "advmss": 1200, "priority": 77, "table": 100}
    for version in ("1.0.0", "1.1.0"):
        pod = pods()
        own = network(version=version, datapath="macvlan", ipam=inline([range4()], routes=[route]))
        result = own.add(pod).result
        require_form(result, version)
        (answered,) = result["routes"]
        assert answered == (route if version == "1.1.0" else {"dst": route["dst"], "gw": route["gw"]})
        (installed,) = pod.ip("route", "show", "table", "100")
        assert (installed["dst"], installed["gateway"], installed["metric"]) == ("10.97.0.0/16", GATEWAY4, 77)
        assert installed["metrics"] == [{"mtu": 1280, "advmss": 1200}]
        own.delete(pod).succeed()


@spec("R-7")
@pytest.mark.parametrize("version", VERSIONS)
def test_the_configurations_dns_is_answered(network: Callable[..., Network], pod: Pod, version: str) -> None:
    assert network(version=version, **RICH).add(pod).result["dns"] == RICH["dns"]


@spec("R-7")
def test_the_addresses_dns_counts_where_the_configuration_has_none(
    network: Callable[..., Network], pods: Callable[[], Pod], datapath: str, tmp_path: Path
) -> None:
    resolv = tmp_path / "resolv.conf"
    resolv.write_text(
        "# a comment\nnameserver 10.89.0.9\nnameserver fd00::9\ndomain x.org\nsearch a b\noptions ndots:5\n"
    )
    given = {
        "nameservers": ["10.89.0.9", "fd00::9"],
        "domain": "x.org",
        "search": ["a", "b"],
        "options": ["ndots:5"],
    }
    own = network(datapath=datapath, ipam=inline(resolvConf=str(resolv)))
    assert own.add(pods()).result["dns"] == given
    own.conf["dns"] = {}
    assert own.add(pods()).result["dns"] == given
    own.conf["dns"] = {"nameservers": ["10.89.0.1"]}
    assert own.add(pods()).result["dns"] == {"nameservers": ["10.89.0.1"]}


@spec("R-9")
def test_addresses_come_in_the_order_of_the_ranges(network: Callable[..., Network], pods: Callable[[], Pod]) -> None:
    first4, first6 = inline([range4()], [range6()]), inline([range6()], [range4()])
    assert [":" in address for address in hosts(network(ipam=first4).add(pods()).result)] == [False, True]
    assert [":" in address for address in hosts(network(ipam=first6).add(pods()).result)] == [True, False]


@spec("R-10", "C-9", "A-16")
def test_an_ipv6_address_is_usable_when_add_returns(network: Callable[..., Network], pod: Pod, datapath: str) -> None:
    own = network(datapath=datapath, ipam=inline([range6()]))
    own.add(pod).succeed()
    link = pod.link("eth0")
    assert link
    states = [entry for entry in link["addr_info"] if entry["family"] == "inet6" and entry["scope"] == "global"]
    assert states
    assert not any(entry.get("tentative") or entry.get("dadfailed") for entry in states)
    own.check(pod).succeed()
    assert pod.reaches(GATEWAY6)


@spec("J-6", "A-2")
@pytest.mark.parametrize("version", OLD)
@pytest.mark.usefixtures("unchanged")
def test_an_old_form_refuses_two_addresses_of_one_family_and_gives_them_back(
    node: Node, pod: Pod, datapath: str, version: str
) -> None:
    ipam = {"type": "underlay-ipam", "ranges": [[range4(16, 99)], [range4(100, 200)]]}
    conf = {"cniVersion": version, "name": "two", "type": "underlay", "datapath": datapath, "ipam": ipam}
    error = node.call(pod, "ADD", conf).refuse(7)
    assert "IPv4" in error["msg"]


@spec("R-1", "A-2")
@pytest.mark.parametrize("version", OLD)
@pytest.mark.usefixtures("unchanged")
def test_an_old_form_refuses_an_interface_without_addresses(node: Node, pod: Pod, version: str) -> None:
    conf = {"cniVersion": version, "name": "none", "type": "underlay", "datapath": "macvlan", "master": MASTER}
    node.call(pod, "ADD", conf).refuse(7)


@spec("R-1")
@pytest.mark.parametrize("version", MODERN)
def test_an_interface_without_addresses_has_no_ips(network: Callable[..., Network], pod: Pod, version: str) -> None:
    own = network(version=version, datapath="macvlan")
    del own.conf["ipam"]
    result = own.add(pod).result
    require_form(result, version)
    assert not result.get("ips")
    assert pod.addresses("eth0") == set()
    own.delete(pod).succeed()


@spec("R-1")
def test_addresses_say_their_family_in_the_versions_that_have_it(
    network: Callable[..., Network], pods: Callable[[], Pod]
) -> None:
    for version in WITH_FAMILY:
        result = network(version=version).add(pods()).result
        assert [entry["version"] for entry in result["ips"]] == ["4", "6"]


@spec("R-5", "A-12")
def test_a_subnet_alone_is_a_range(network: Callable[..., Network], pod: Pod, datapath: str) -> None:
    subnet = {"veth": "10.89.0.128/27", "macvlan": "10.89.0.160/27"}[datapath]
    result = network(datapath=datapath, ipam={"type": "underlay-ipam", "subnet": subnet}).add(pod).result
    assert hosts(result) == [{"veth": "10.89.0.130", "macvlan": "10.89.0.162"}[datapath]]
