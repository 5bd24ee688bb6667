"""SPEC 10: STATUS says whether an ADD would succeed, at once and without touching anything."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .bed import node as nodes
from .bed.netns import Pod
from .bed.network import Network, inline, network_conf, range4
from .bed.node import Node
from .bed.stub import Stub

spec = pytest.mark.spec

TINY = {"subnet": "10.89.0.224/30", "gateway": "10.89.0.225"}  # one address


@spec("S-1", "O-2")
@pytest.mark.usefixtures("unchanged")
def test_a_ready_plugin_says_nothing(network: Callable[..., Network], pod: Pod, datapath: str) -> None:
    network(datapath=datapath).status().succeed()


@spec("S-2")
@pytest.mark.parametrize("version", ["0.1.0", "0.3.1", "0.4.0", "1.0.0"])
def test_status_needs_a_version_that_has_it(network: Callable[..., Network], version: str) -> None:
    error = network(version=version).status().refuse(1)
    assert error["msg"] == "config version does not allow STATUS"


@spec("S-1", "S-3")
def test_a_missing_master_is_code_50(network: Callable[..., Network], datapath: str) -> None:
    error = network(datapath=datapath, master="nowhere0").status().refuse(50)
    assert "nowhere0" in error["msg"]


@spec("S-1", "S-3")
def test_a_master_that_is_down_is_code_51_and_comes_back(
    network: Callable[..., Network], node: Node, datapath: str, spare_master: str
) -> None:
    own = network(datapath=datapath, master=spare_master)
    node.host.configure(f"link set {spare_master} down")
    assert spare_master in own.status().refuse(51)["msg"]
    node.host.configure(f"link set {spare_master} up")
    deadline = time.monotonic() + 5
    while own.status().status != 0:
        assert time.monotonic() < deadline
    own.status().succeed()


@spec("S-3")
def test_a_master_without_carrier_is_code_51(
    network: Callable[..., Network], node: Node, datapath: str, spare_master: str
) -> None:
    own = network(datapath=datapath, master=spare_master)
    own.status().succeed()
    (peer,) = [link["ifname"] for link in node.switch.ip("link", "show") if _is_peer(node, link, spare_master)]
    node.switch.configure(f"link set {peer} down")
    assert spare_master in own.status().refuse(51)["msg"]


def _is_peer(node: Node, link: dict[str, Any], master: str) -> bool:
    end = node.host.link(master)
    assert end
    return bool(link["ifindex"] == end["link_index"])


@spec("S-3", "J-14")
def test_a_wrong_configuration_is_told_as_such(network: Callable[..., Network]) -> None:
    network(ipam={"type": "underlay-ipam", "subnet": "ten"}).status().refuse(7)
    network(ipam={"type": "underlay-ipam", "pools": ["nobody"]}).status().refuse(7)
    network(mtu="big").status().refuse(6)


@spec("S-5", "S-7")
def test_an_exhausted_range_leaves_the_node_ready_by_default(
    network: Callable[..., Network], pods: Callable[[], Pod]
) -> None:
    own = network(ipam=inline([TINY]))
    own.add(pods()).succeed()
    own.add(pods()).refuse(11)
    own.status().succeed()


@pytest.fixture(scope="module")
def strict_node(directories: Callable[[], Path]) -> Iterator[Node]:
    """A node that says so when a pool is full."""
    with nodes.running(directories(), exhausted_is_not_ready=True) as serving:
        yield serving


@spec("S-3", "S-5", "S-7", "A-11")
def test_an_exhausted_range_is_code_50_where_that_is_wanted(
    networks: Callable[..., Network], strict_node: Node, pods: Callable[[], Pod]
) -> None:
    own = networks(strict_node, ipam=inline([TINY]))
    pod, other = pods(), pods()
    own.status().succeed()
    own.add(pod).succeed()
    own.status().refuse(50)
    own.add(other).refuse(11)
    own.check(pod).succeed()
    own.delete(pod).succeed()
    own.status().succeed()


@spec("S-3")
def test_every_set_of_ranges_needs_room(
    networks: Callable[..., Network], strict_node: Node, pods: Callable[[], Pod]
) -> None:
    own = networks(strict_node, ipam=inline([range4()], [{"subnet": "fd00:89::fff0/126"}]))
    while own.add(pods()).status == 0:
        pass
    own.status().refuse(50)


@spec("S-4")
def test_status_reads_only_and_is_quick_while_addresses_are_given(
    network: Callable[..., Network], pods: Callable[[], Pod], stub: Stub
) -> None:
    own = network()
    longest = 0.0
    for _ in range(20):
        start = time.monotonic()
        own.status().succeed()
        longest = max(longest, time.monotonic() - start)
    assert longest < 1


@spec("S-6", "P-7")
def test_a_delegates_status_is_passed_on(network: Callable[..., Network], stub: Stub) -> None:
    own = network(ipam={"type": stub.name})
    own.status().succeed()
    stub.fails("STATUS", 50, "the stub is not ready", "yet")
    error = own.status().refuse(50)
    assert (error["msg"], error["details"]) == ("the stub is not ready", "yet")
    stub.fails("STATUS", 51, "the stub is broken")
    own.status().refuse(51)
    assert stub.calls == ["STATUS"] * 3


@spec("S-1")
@pytest.mark.parametrize("verb", ["STATUS", "ADD"])
def test_without_an_agent_nothing_is_ready(idle_node: Node, pod: Pod, verb: str) -> None:
    conf = network_conf("idle", datapath="veth", version="1.1.0", ipam=inline())
    error = idle_node.cni(verb, conf, container=pod.container, netns=pod.path, ifname="eth0").error
    assert error["code"] == (50 if verb == "STATUS" else 11)
    assert str(idle_node.socket) in error["msg"]
    assert pod.links() == {"lo"}
