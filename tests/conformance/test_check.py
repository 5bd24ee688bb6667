"""SPEC 8: CHECK compares the kernel with what ADD answered, of its own interface only, and changes nothing."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from .bed.kinds import Json, Option
from .bed.netns import Pod
from .bed.network import Network, addresses, hosts, inline, own_interface, range4
from .bed.node import GATEWAY4, Node
from .bed.stub import Stub

spec = pytest.mark.spec


@spec("C-1", "J-7")
@pytest.mark.parametrize("version", ["0.1.0", "0.2.0", "0.3.0", "0.3.1"])
def test_check_needs_a_version_that_has_it(network: Callable[..., Network], pod: Pod, version: str) -> None:
    own = network(version=version)
    result = own.add(pod).result
    error = own.check(pod, previous=result).refuse(1)
    assert error["msg"] == "config version does not allow CHECK"


@spec("C-2")
@pytest.mark.parametrize("previous", [None, {}], ids=["absent", "empty"])
@pytest.mark.parametrize("version", ["0.4.0", "1.0.0", "1.1.0"])
def test_check_needs_the_previous_result(
    network: Callable[..., Network], pod: Pod, version: str, previous: Json
) -> None:
    own = network(version=version)
    own.add(pod).succeed()
    assert "prevResult" in own.check(pod, previous=previous).refuse(7)["msg"]


@spec("C-3", "C-9", "O-2")
@pytest.mark.parametrize("version", ["0.4.0", "1.0.0", "1.1.0"])
def test_check_right_after_add_passes_and_changes_nothing(
    network: Callable[..., Network], node: Node, pod: Pod, datapath: str, version: str
) -> None:
    own = network(version=version, datapath=datapath)
    own.add(pod).succeed()
    own.check(pod).succeed()
    before = node.state(), pod.state()
    with ThreadPoolExecutor(6) as pool:
        for outcome in [pool.submit(own.check, pod) for _ in range(12)]:
            outcome.result().succeed()
    assert (node.state(), pod.state()) == before


def _edit(own: Network, pod: Pod, *lines: str) -> None:
    pod.configure(*lines)


def _rename(own: Network, pod: Pod) -> None:
    pod.configure("link set eth0 down", "link set eth0 name other", "link set other up")


def _another_kind(own: Network, pod: Pod) -> None:
    link = pod.link("eth0")
    assert link
    pod.configure(
        "link delete eth0",
        "link add eth0 type bridge",
        f"link set eth0 address {link['address']} mtu {link['mtu']} up",
        *(f"addr add {address} dev eth0" for address in addresses(own.result(pod))),
        "route add default dev eth0",
        "-6 route add default dev eth0".removeprefix("-6 ").replace("default", "::/0"),
    )


def _another_prefix(own: Network, pod: Pod) -> None:
    first = addresses(own.result(pod))[0]
    host = first.partition("/")[0]
    pod.configure(f"addr add {host}/25 dev eth0", f"addr delete {first} dev eth0")


def _another_gateway(own: Network, pod: Pod) -> None:
    pod.configure("route replace default dev eth0")


def _another_interface(own: Network, pod: Pod) -> None:
    pod.configure("link add other type bridge", "link set other up", "route replace default dev other")


IN_THE_CONTAINER: dict[str, Callable[[Network, Pod], None]] = {
    "link gone": lambda own, pod: _edit(own, pod, "link delete eth0"),
    "link renamed": _rename,
    "link of another kind": _another_kind,
    "link down": lambda own, pod: _edit(own, pod, "link set eth0 down"),
    "another mac": lambda own, pod: _edit(own, pod, "link set eth0 address 02:00:00:00:00:99"),
    "another mtu": lambda own, pod: _edit(own, pod, "link set eth0 mtu 1300"),
    "address gone": lambda own, pod: _edit(own, pod, f"addr delete {addresses(own.result(pod))[0]} dev eth0"),
    "IPv6 address gone": lambda own, pod: _edit(own, pod, f"addr delete {addresses(own.result(pod))[1]} dev eth0"),
    "another prefix length": _another_prefix,
    "default route gone": lambda own, pod: _edit(own, pod, "route delete default"),
    "IPv6 default route gone": lambda own, pod: _edit(own, pod, "route delete ::/0"),
    "default route without its gateway": _another_gateway,
    "default route by another interface": _another_interface,
}


@spec("C-4", "C-8")
@pytest.mark.parametrize("damage", IN_THE_CONTAINER.values(), ids=IN_THE_CONTAINER)
def test_check_fails_for_what_changed_in_the_container(
    network: Callable[..., Network], pod: Pod, datapath: str, damage: Callable[[Network, Pod], None]
) -> None:
    own = network(datapath=datapath)
    own.add(pod).succeed()
    own.check(pod).succeed()
    damage(own, pod)
    own.check(pod).refuse(100)


def _host(own: Network, *lines: str) -> None:
    (lease,) = own.leases()
    own.node.host.configure(*(line.format(link=lease["host_ifname"]) for line in lines))


def _drop_host_route(own: Network, pod: Pod) -> None:
    address = hosts(own.result(pod))[0]
    done = own.node.host.run("ip", "route", "flush", "table", "all", "to", address)
    assert done.returncode == 0


ON_THE_HOST: dict[str, Callable[[Network, Pod], None]] = {
    "host end gone": lambda own, pod: _host(own, "link delete {link}"),
    "host end down": lambda own, pod: _host(own, "link set {link} down"),
    "host route gone": _drop_host_route,
    "proxy entry gone": lambda own, pod: _host(own, f"neigh delete proxy {hosts(own.result(pod))[0]} dev eth0"),
}


@spec("C-8")
@pytest.mark.parametrize("damage", ON_THE_HOST.values(), ids=ON_THE_HOST)
def test_check_fails_for_what_changed_on_the_host_side_of_a_veth(
    network: Callable[..., Network], pod: Pod, damage: Callable[[Network, Pod], None]
) -> None:
    own = network(datapath="veth")
    own.add(pod).succeed()
    own.check(pod).succeed()
    damage(own, pod)
    own.check(pod).refuse(100)


@spec("C-8")
@pytest.mark.parametrize("change", ["link set {} down", "link delete {}"])
def test_check_fails_when_the_master_is_down_or_gone(
    network: Callable[..., Network], pod: Pod, datapath: str, spare_master: str, change: str
) -> None:
    own = network(datapath=datapath, master=spare_master)
    own.add(pod).succeed()
    own.check(pod).succeed()
    own.node.host.configure(change.format(spare_master))
    own.check(pod).refuse(100, 102)


@spec("C-4")
def test_check_fails_when_the_namespace_is_gone(network: Callable[..., Network], pod: Pod, datapath: str) -> None:
    own = network(datapath=datapath)
    own.add(pod).succeed()
    pod.remove()
    own.check(pod).refuse(3, 8, 100)


@spec("C-4")
def test_check_fails_in_another_namespace(
    network: Callable[..., Network], pods: Callable[[], Pod], datapath: str
) -> None:
    own = network(datapath=datapath)
    pod, other = pods(), pods()
    result = own.add(pod).result
    own.check(pod, netns=other.path).refuse(100)
    for entry in result["interfaces"]:
        if entry["name"] == "eth0":
            entry["sandbox"] = other.path
    own.check(pod, netns=other.path, previous=result).refuse(100)


def _drop_own(result: dict[str, Any]) -> None:
    result["interfaces"] = [entry for entry in result["interfaces"] if entry["name"] != "eth0"]
    for entry in result["ips"]:
        entry["interface"] = 0
    if not result["interfaces"]:
        del result["ips"], result["interfaces"]


def _own(result: dict[str, Any]) -> dict[str, Any]:
    (entry,) = [entry for entry in result["interfaces"] if entry["name"] == "eth0"]
    return dict(entry) and entry


def _set_own(**values: Option) -> Callable[[dict[str, Any]], None]:
    return lambda result: _own(result).update(values)


def _more_addresses(result: dict[str, Any]) -> None:
    index = [entry["name"] for entry in result["interfaces"]].index("eth0")
    result["ips"].append({"address": "10.89.0.251/24", "interface": index})


WRONG_RESULTS: dict[str, Callable[[dict[str, Any]], None]] = {
    "own interface missing": _drop_own,
    "another sandbox": _set_own(sandbox="/run/netns/other"),
    "another mac": _set_own(mac="02:00:00:00:00:98"),
    "another mtu": _set_own(mtu=1234),
    "an address it has not": _more_addresses,
    "a route it has not": lambda result: result["routes"].append({"dst": "198.51.100.0/24", "gw": GATEWAY4}),
    "another gateway": lambda result: result["routes"].append({"dst": "0.0.0.0/0", "gw": "10.89.0.250"}),
}


@spec("C-4", "C-8", "C-11")
@pytest.mark.parametrize("change", WRONG_RESULTS.values(), ids=WRONG_RESULTS)
def test_check_fails_when_the_previous_result_says_otherwise(
    network: Callable[..., Network], pod: Pod, datapath: str, change: Callable[[dict[str, Any]], None]
) -> None:
    own = network(datapath=datapath)
    result = own.add(pod).result
    change(result)
    own.check(pod, previous=result).refuse(100)


def _foreign_interfaces(result: dict[str, Any]) -> None:
    result["interfaces"] += [
        {"name": "ifb0", "mac": "02:00:00:00:00:77"},
        {"name": "net7", "mac": "02:00:00:00:00:78", "sandbox": result["interfaces"][-1]["sandbox"]},
    ]
    result["ips"].append({"address": "192.0.2.7/24", "interface": len(result["interfaces"]) - 1})


def _foreign_in_front(result: dict[str, Any]) -> None:
    result["interfaces"].insert(0, {"name": "first9", "sandbox": "/elsewhere"})
    for entry in result["ips"]:
        entry["interface"] += 1
    result["ips"].insert(0, {"address": "192.0.2.7/24", "interface": 0})


def _without_index(result: dict[str, Any]) -> None:
    for entry in result["ips"]:
        del entry["interface"]


def _without(key: str) -> Callable[[dict[str, Any]], None]:
    return lambda result: result.pop(key, None)


def _without_mac(result: dict[str, Any]) -> None:
    for entry in result["interfaces"]:
        entry.pop("mac", None)


def _as_cached(result: dict[str, Any]) -> None:
    """libcni keeps results in a cache: keys sorted, an empty list instead of none, an empty dns dropped."""
    kept = json.loads(json.dumps(result, sort_keys=True))
    result.clear()
    result.update(kept)
    result.setdefault("routes", [])
    if not result.get("dns"):
        result.pop("dns", None)


HARMLESS: dict[str, Callable[[dict[str, Any]], None]] = {
    "other plugins' interfaces and addresses": _foreign_interfaces,
    "another plugin's in front": _foreign_in_front,
    "addresses without an interface": _without_index,
    "no routes": _without("routes"),
    "no dns": _without("dns"),
    "no mac": _without_mac,
    "upper case mac": lambda result: _own(result).update(mac=_own(result)["mac"].upper()),
    "as the library keeps it": _as_cached,
    "no version": _without("cniVersion"),
    "foreign dns": lambda result: result.update(dns={"nameservers": ["192.0.2.53"]}),
}


@spec("C-5", "C-6", "C-7")
@pytest.mark.parametrize("change", HARMLESS.values(), ids=HARMLESS)
def test_check_judges_only_its_own_interface(
    network: Callable[..., Network], pod: Pod, datapath: str, change: Callable[[dict[str, Any]], None]
) -> None:
    own = network(datapath=datapath)
    result = own.add(pod).result
    change(result)
    own.check(pod, previous=result).succeed()


@spec("C-7")
@pytest.mark.parametrize("version", ["0.4.0", "1.0.0", "1.1.0"])
def test_check_reads_a_result_in_its_configurations_version(
    network: Callable[..., Network], pod: Pod, version: str
) -> None:
    own = network(version=version)
    result = own.add(pod).result
    _as_cached(result)
    own.check(pod, previous=result).succeed()


@spec("C-5", "H-3")
def test_check_passes_with_a_mac_that_a_later_plugin_set(
    network: Callable[..., Network], pod: Pod, datapath: str
) -> None:
    own = network(datapath=datapath)
    result = own.add(pod).result
    pod.configure("link set eth0 address 02:00:00:00:00:55")
    _own(result)["mac"] = "02:00:00:00:00:55"
    own.check(pod, previous=result).succeed()


@spec("C-5")
def test_check_passes_with_more_in_the_container_than_was_answered(
    network: Callable[..., Network], pod: Pod, datapath: str
) -> None:
    own = network(datapath=datapath)
    own.add(pod).succeed()
    pod.configure(
        "addr add 192.0.2.1/24 dev eth0",
        "route add 198.51.100.0/24 dev eth0",
        "route add default dev eth0 metric 500",
        "link add other type bridge",
    )
    own.check(pod).succeed()


@spec("C-11")
def test_check_finds_a_route_whatever_its_protocol_and_metric(network: Callable[..., Network], pod: Pod) -> None:
    own = network(datapath="macvlan", ipam=inline([range4()]))
    result = own.add(pod).result
    pod.configure(f"route replace default via {GATEWAY4} proto static", "route delete default")
    pod.configure(f"route add default via {GATEWAY4} proto bird metric 300")
    own.check(pod).succeed()
    result["routes"][0]["priority"] = 7
    own.check(pod, previous=result).refuse(100)


@spec("C-8", "C-10")
def test_check_fails_after_del_even_when_somebody_makes_the_same_interface(
    network: Callable[..., Network], pod: Pod, datapath: str
) -> None:
    own = network(datapath=datapath)
    result = own.add(pod).result
    own.delete(pod).succeed()
    own.check(pod, previous=result).refuse(100)
    pod.configure(
        "link add eth0 type bridge",
        f"link set eth0 address {own_interface(result)['mac']} up",
        *(f"addr add {address} dev eth0" for address in addresses(result)),
    )
    own.check(pod, previous=result).refuse(100)


@spec("C-8")
def test_check_fails_for_a_lease_of_another_container(network: Callable[..., Network], pods: Callable[[], Pod]) -> None:
    own = network()
    pod = pods()
    result = own.add(pod).result
    own.check(pod, container="another", previous=result).refuse(100)


@spec("C-8", "P-7")
def test_check_passes_a_delegates_failure_on(network: Callable[..., Network], pod: Pod, stub: Stub) -> None:
    own = network(version="1.0.0", ipam={"type": stub.name})
    stub.says("ADD", {"cniVersion": "1.0.0", "ips": [{"address": "10.89.0.204/24"}]})
    own.add(pod).succeed()
    own.check(pod).succeed()
    stub.fails("CHECK", 123, "the stub has lost it", "somewhere")
    error = own.check(pod).refuse(123)
    assert (error["msg"], error["details"]) == ("the stub has lost it", "somewhere")
    assert stub.calls == ["ADD", "CHECK", "CHECK"]
