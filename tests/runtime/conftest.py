"""A real runtime on a node of the lab: Debian's containerd and runc, asked by CRI as the kubelet asks them."""

import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from cni_underlay import client
from cni_underlay.lab.errors import GuestError
from cni_underlay.lab.guest_kernel import kernel as guest_kernel
from cni_underlay.lab.host import Host
from cni_underlay.lab.lab import Lab, sweep
from cni_underlay.lab.node import Node
from cni_underlay.lab.process import tail
from cni_underlay.lab.vm import Machine

from .bed import containerd, evidence, isolation, whoami
from .bed.containerd import REFERENCE_PLUGINS, Containerd
from .bed.kubelet import Kubelet
from .bed.networks import GUEST, NETWORKS, TOPOLOGY, VM
from .bed.waiting import wait_until

_LOGS = pytest.StashKey[dict[str, Path]]()


@pytest.fixture(scope="package")
def installed() -> None:
    """Skips where no runtime can run, saying what is missing; clears what killed test runs left."""
    if os.geteuid() != 0:
        pytest.skip("needs root: namespaces, mounts and cgroups are made")
    if missing := containerd.missing_packages():
        pytest.skip(f"not installed: {' '.join(missing)} (Debian packages)")
    isolation.sweep()


@pytest.fixture(scope="package")
def lab(installed: None, request: pytest.FixtureRequest) -> Iterator[Lab]:
    """Two nodes, a VM and, where a kernel for it is to be had, a QEMU guest, all on one segment."""
    sweep()
    topology = TOPOLOGY
    try:
        guest_kernel()
    except GuestError:
        topology = {**TOPOLOGY, "vms": {name: vm for name, vm in TOPOLOGY["vms"].items() if name != GUEST}}
    with Lab(topology) as lab:
        request.config.stash[_LOGS] = {f"agent of {node.name}": node.agent.log for node in lab.nodes}
        yield lab


@pytest.fixture(scope="package")
def node(lab: Lab) -> Node:
    """The node on which containerd runs."""
    return lab.node("node1")


@pytest.fixture(scope="package")
def other_node(lab: Lab) -> Node:
    """A second node; the lab makes its pods."""
    return lab.node("node2")


@pytest.fixture(params=[VM, GUEST])
def vm(lab: Lab, request: pytest.FixtureRequest) -> Host:
    """A VM of either kind: a namespace, and a QEMU guest with a kernel of its own."""
    if request.param not in (spec.name for spec in lab.topology.vms):
        pytest.skip("no kernel for a QEMU guest, see cni_underlay/lab/guest_kernel.py")
    return lab.vm(request.param)


@pytest.fixture(scope="package")
def witness(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """The VM that is a namespace, serving at port 8080 a page that says who asked for it."""
    machine = lab.vm(VM)
    assert isinstance(machine, Machine)
    whoami.serve(machine, tmp_path_factory.mktemp("witness"), 8080)
    return machine


@pytest.fixture(scope="package")
def runtime(
    node: Node, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Containerd]:
    """The node's containerd, with one handler for each of `NETWORKS`."""
    directory = tmp_path_factory.mktemp("containerd")
    plugins = {plugin.name: plugin for plugin in REFERENCE_PLUGINS.iterdir()}
    plugins |= {"underlay": client.path(), "underlay-ipam": client.path()}
    environment = {"UNDERLAY_SOCKET": str(node.agent.socket)}
    with containerd.running(directory, node.netns, plugins, NETWORKS, environment) as running:
        request.config.stash[_LOGS]["containerd"] = running.log
        yield running
    assert isolation.remains(running.cell) == []


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
    assert evidence.at_rest(node, before) <= before


@pytest.fixture(params=["veth", "macvlan"])
def datapath(request: pytest.FixtureRequest) -> str:
    """The handler of each datapath;"""
    return str(request.param)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the ends of the agents' and containerd's logs to a failed test's report."""
    report = yield
    if report.failed:
        report.sections += [(name, tail(log)) for name, log in item.config.stash.get(_LOGS, {}).items()]
    return report
