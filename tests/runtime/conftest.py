"""A real runtime on a node of the lab: Debian's containerd and runc, asked by CRI as the kubelet asks them."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from cni_underlay import client
from cni_underlay.lab import Lab
from cni_underlay.lab.node import Node
from cni_underlay.lab.vm import Machine

from .bed import containerd, evidence, whoami
from .bed.containerd import PROGRAMS, Containerd
from .bed.kubelet import Kubelet
from .bed.networks import NETWORKS, TOPOLOGY
from .bed.waiting import wait_until

_REFERENCE = Path("/usr/lib/cni")
_VM_PORT = 8080


@pytest.fixture(scope="session")
def programs() -> None:
    """Skip, saying what is missing, where no runtime can run."""
    if os.geteuid() != 0:
        pytest.skip("needs root: namespaces, mounts and cgroups are made")
    missing = {package for program, package in PROGRAMS.items() if shutil.which(program) is None}
    if not (_REFERENCE / "loopback").exists():
        missing.add("containernetworking-plugins")
    if missing:
        pytest.skip(f"not installed: {' '.join(sorted(missing))} (Debian packages)")


@pytest.fixture(scope="session")
def lab(programs: None) -> Iterator[Lab]:
    """Two nodes and a VM on one segment."""
    with Lab.of(TOPOLOGY) as lab:
        yield lab


@pytest.fixture(scope="session")
def node(lab: Lab) -> Node:
    """The node on which containerd runs."""
    return lab.node("node1")


@pytest.fixture(scope="session")
def other_node(lab: Lab) -> Node:
    """A second node, whose pods are made by the lab."""
    return lab.node("node2")


@pytest.fixture(scope="session")
def vm(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """A VM that serves `whoami` at `vm_port`."""
    vm = lab.vm("vm1")
    whoami.serve(vm, tmp_path_factory.mktemp("vm"), _VM_PORT)
    return vm


@pytest.fixture(scope="session")
def vm_port() -> int:
    return _VM_PORT


@pytest.fixture(scope="session")
def runtime(node: Node, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containerd]:
    """The node's containerd, with one handler for each of `NETWORKS`."""
    directory = tmp_path_factory.mktemp("containerd")
    plugins = [*_REFERENCE.iterdir(), *client.install(directory)]
    environment = {"UNDERLAY_SOCKET": str(node.agent.socket)}
    with containerd.running(directory, node.netns, plugins, NETWORKS, environment) as running:
        yield running
    assert containerd.remains(running) == []


@pytest.fixture
def kubelet(node: Node, runtime: Containerd) -> Iterator[Kubelet]:
    """The node's kubelet. After each test its pods are removed, and nothing of them may be left on the node."""
    before = evidence.kernel(node)
    kubelet = Kubelet(runtime)
    try:
        yield kubelet
    finally:
        if node.agent.process is None:
            node.start_agent()
        kubelet.remove_all()
    wait_until(lambda: not evidence.leases(node), "leases are left")
    wait_until(lambda: evidence.kernel(node) <= before, "links, routes or neighbours are left")


@pytest.fixture(params=["veth", "macvlan"])
def datapath(request: pytest.FixtureRequest) -> str:
    """The handler of each datapath that this kernel can run in a container's namespace."""
    return str(request.param)
