"""Pods as the kubelet runs them: they have addresses of the underlay, reach everybody there, and are reached."""

import json
from ipaddress import ip_address, ip_network

import pytest

from cni_underlay.lab.host import Host
from cni_underlay.lab.node import Node
from cni_underlay.lab.vm import Machine

from .bed import evidence
from .bed.kubelet import Kubelet, Server
from .bed.networks import POOL
from .bed.whoami import Visit, visit


@pytest.fixture
def server(kubelet: Kubelet, datapath: str) -> Server:
    """A pod that answers HTTP, in each datapath."""
    return kubelet.serve(kubelet.pod(datapath))


def test_a_sandbox_gets_addresses_of_the_underlay(server: Server, node: Node) -> None:
    (lease,) = evidence.leases(node)
    assert [ip_address(entry["address"]) for entry in lease["addresses"]] == list(server.addresses)
    assert server.addresses[0] in ip_network("10.83.0.0/16")
    assert server.addresses[1] in ip_network("fd83::/64")
    assert lease["pod"] == {"namespace": "default", "name": server.pod.name, "uid": server.pod.uid}
    assert lease["container_id"] == server.sandbox
    links = json.loads(node.output(["nsenter", f"--net={server.netns}", "ip", "-j", "address", "show", "eth0"]))
    carried = {ip_address(entry["local"]) for entry in links[0]["addr_info"]}
    assert set(server.addresses) <= carried


def test_a_vm_reaches_the_pod_and_arrives_with_its_own_address(server: Server, vm: Host) -> None:
    for pod_address, vm_address in zip(server.addresses, vm.addresses, strict=True):
        vm.wait_until_reaches(pod_address)
        assert visit(vm, pod_address) == Visit(host=server.pod.name, peer=vm_address)


def test_the_pod_reaches_a_vm(server: Server, vm: Host, kubelet: Kubelet) -> None:
    for address in vm.addresses:
        assert kubelet.execute(server, "ping", "-c", "1", "-W", "5", str(address)).status == 0
        assert kubelet.fetch(server, address) == f"{vm.name}\n"


def test_the_pod_arrives_at_a_vm_with_its_own_address(server: Server, witness: Machine, kubelet: Kubelet) -> None:
    for address, own in zip(witness.addresses, server.addresses, strict=True):
        assert Visit.parse(kubelet.fetch(server, address, port=8080)).peer == own


def test_the_kubelet_probes_the_pod_from_its_node_and_the_pod_reaches_the_node(
    server: Server, node: Node, kubelet: Kubelet
) -> None:
    for pod_address, node_address in zip(server.addresses, node.addresses, strict=True):
        assert visit(node, pod_address).host == server.pod.name
        assert kubelet.execute(server, "ping", "-c", "1", "-W", "5", str(node_address)).status == 0


@pytest.mark.parametrize("other", ["veth", "macvlan"])
def test_pods_of_one_node_reach_each_other_whatever_their_datapaths(
    server: Server, other: str, kubelet: Kubelet
) -> None:
    peer = kubelet.serve(kubelet.pod(other))
    for theirs, ours in zip(peer.addresses, server.addresses, strict=True):
        assert Visit.parse(kubelet.fetch(server, theirs)) == Visit(host=peer.pod.name, peer=ours)
        assert Visit.parse(kubelet.fetch(peer, ours)) == Visit(host=server.pod.name, peer=theirs)


def test_pods_of_two_nodes_reach_each_other(server: Server, datapath: str, other_node: Node, kubelet: Kubelet) -> None:
    pod = other_node.pod("far")
    try:
        pod.add(other_node.conflist(datapath, {"master": "eth0"}))
        for theirs, ours in zip(pod.addresses, server.addresses, strict=True):
            pod.wait_until_reaches(ours)
            assert visit(pod, ours) == Visit(host=server.pod.name, peer=theirs)
            assert kubelet.execute(server, "ping", "-c", "1", "-W", "5", str(theirs)).status == 0
    finally:
        pod.delete()
        other_node.remove_pod("far")


def test_a_container_that_is_replaced_keeps_the_pods_address(server: Server, kubelet: Kubelet, node: Node) -> None:
    kubelet.runtime.cri.stop_container(server.container)
    kubelet.runtime.cri.remove_container(server.container)
    kubelet.start_server(server)
    assert visit(node, server.address).host == server.pod.name
    assert evidence.history(node, server.address) == ["leased"]


def test_removing_the_sandbox_frees_its_addresses_and_leaves_nothing(
    kubelet: Kubelet, datapath: str, node: Node
) -> None:
    before = evidence.kernel(node)
    resting = evidence.usage(node, POOL)["quarantined"]
    server = kubelet.serve(kubelet.pod(datapath))
    assert evidence.kernel(node) != before
    kubelet.remove(server)
    assert evidence.at_rest(node, before) == before
    assert evidence.leases(node) == []
    assert evidence.usage(node, POOL)["quarantined"] == resting + len(server.addresses)
    assert not server.netns.exists()


def test_stopping_the_sandbox_again_changes_nothing(kubelet: Kubelet, datapath: str, node: Node) -> None:
    pod = kubelet.run(kubelet.pod(datapath))
    kubelet.stop(pod)
    released = evidence.history(node, pod.address)
    kubelet.stop(pod)
    kubelet.stop(pod)
    assert evidence.history(node, pod.address) == released


def test_a_pod_that_comes_back_gets_another_address(kubelet: Kubelet, datapath: str) -> None:
    first = kubelet.run(kubelet.pod(datapath))
    kubelet.remove(first)
    second = kubelet.run(first.pod)
    assert set(first.addresses).isdisjoint(second.addresses)
