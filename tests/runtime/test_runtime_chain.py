"""The reference plugins behind ours, as clusters chain them."""

from cni_underlay.lab.node import Node
from cni_underlay.lab.vm import Machine

from .bed.cri import HostPort
from .bed.kubelet import Kubelet
from .bed.whoami import Visit, visit


def test_a_sysctl_set_by_the_tuning_plugin_reaches_the_pod(kubelet: Kubelet) -> None:
    server = kubelet.serve(kubelet.pod("chain"))
    assert kubelet.execute(server, "cat", "/proc/sys/net/core/somaxconn").stdout == "500\n"


def test_a_vm_reaches_a_host_port_of_the_node_and_the_pod_sees_the_vm(
    kubelet: Kubelet, node: Node, witness: Machine
) -> None:
    pod = kubelet.pod("chain", host_ports=[HostPort(host_port=8090, container_port=80)])
    server = kubelet.serve(pod)
    assert visit(witness, node.address, port=8090) == Visit(host=pod.name, peer=witness.address)
    assert visit(witness, server.address) == Visit(host=pod.name, peer=witness.address)
    kubelet.remove(server)
    assert str(server.address) not in node.output(["nft", "list", "ruleset"])
