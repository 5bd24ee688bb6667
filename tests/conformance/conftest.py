"""A black box: client and agent as processes, pods as namespaces; the kernel and the ledger are read back."""

import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from .bed import node as nodes
from .bed.calls import Caller
from .bed.chain import Chain
from .bed.kinds import Option
from .bed.netns import Pod, difference, unique
from .bed.network import Network, inline, network_conf
from .bed.node import Node
from .bed.stub import Stub

DATAPATHS = ("veth", "macvlan")
_numbers = count(1)


@pytest.fixture(scope="session", autouse=True)
def _root() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: namespaces and interfaces are made")


@pytest.fixture(scope="session")
def directories() -> Iterator[Callable[[], Path]]:
    """Makes directories with short paths: a socket's has 107 bytes at most."""
    with ExitStack() as undo:

        def make() -> Path:
            path = Path(tempfile.mkdtemp(prefix="uc-", dir="/tmp"))
            undo.callback(shutil.rmtree, path, ignore_errors=True)
            return path

        yield make


@pytest.fixture(scope="session")
def node(directories: Callable[[], Path]) -> Iterator[Node]:
    """The node that all tests share; each leaves it as it was."""
    with nodes.running(directories()) as serving:
        yield serving


@pytest.fixture
def own_node(directories: Callable[[], Path]) -> Iterator[Node]:
    """A node of the test's own, for what would disturb others: settings, damage, the agent's death."""
    with nodes.running(directories()) as serving:
        yield serving


@pytest.fixture
def idle_node(directories: Callable[[], Path]) -> Iterator[Node]:
    """A node of the test's own whose agent has not been started."""
    with nodes.wired(directories()) as wired:
        yield wired


@pytest.fixture
def cni(node: Node) -> Caller:
    return node.cni


@pytest.fixture(params=DATAPATHS)
def datapath(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def pods() -> Iterator[Callable[[], Pod]]:
    """Makes sandboxes."""
    with ExitStack() as undo:

        def make() -> Pod:
            pod = Pod()
            undo.callback(pod.remove)
            pod.create()
            return pod

        yield make


@pytest.fixture
def pod(pods: Callable[[], Pod]) -> Pod:
    return pods()


@pytest.fixture
def networks(pods: Callable[[], Pod]) -> Iterator[Callable[..., Network]]:
    """Makes networks on any node. Afterwards each is cleared by GC, and its node must be as it was at its start.

    The sandboxes go later: the kernel takes namespaces down in the background, and what is in them stays for a while.
    """
    made: list[Network] = []

    def make(
        where: Node,
        *,
        datapath: str = "veth",
        version: str | None = "1.1.0",
        ipam: dict[str, Any] | None = None,
        plugin: str = "underlay",
        **more: Option,
    ) -> Network:
        name = more.pop("name", f"net{next(_numbers)}-{secrets.token_hex(3)}")
        block = inline() if ipam is None else ipam
        conf = network_conf(name, datapath=datapath, version=version, ipam=block, **more)
        made.append(Network(node=where, conf=conf, plugin=plugin))
        return made[-1]

    yield make
    for network in made:
        network.clear().succeed()
    for where in {id(network.node): network.node for network in made}.values():
        assert where.changes() == {}


@pytest.fixture
def network(networks: Callable[..., Network], node: Node) -> Callable[..., Network]:
    """Makes networks on the shared node."""

    def make(**options: Option) -> Network:
        return networks(node, **options)

    return make


@pytest.fixture
def stub(node: Node, tmp_path: Path) -> Iterator[Stub]:
    """A delegate in the shared node's plugin directory."""
    made = Stub(name=unique("d"), bin_dir=node.directory / "bin", directory=tmp_path / "stub").install()
    try:
        yield made
    finally:
        for verb in list(made.held):
            made.release(verb)
        (made.bin_dir / made.name).unlink()


@pytest.fixture
def chain(network: Callable[..., Network], node: Node) -> Callable[..., Chain]:
    """Makes configuration lists of which our plugin is a part; they are cleared like any network."""

    def make(*plugins: dict[str, Any], before: tuple[dict[str, Any], ...] = (), **options: Option) -> Chain:
        fields = {key: options.pop(key) for key in ("version", "capabilities") if key in options}
        own = network(version=fields.get("version", "1.0.0"), **options)
        return Chain(node=node, name=own.name, plugins=[*before, own.conf, *plugins], **fields)

    return make


@pytest.fixture(scope="session")
def fresh(_root: None) -> dict[str, Any]:
    """What a sandbox is like that nobody has touched."""
    pod = Pod().create()
    try:
        return pod.state()
    finally:
        pod.remove()


@pytest.fixture
def unchanged(node: Node, pod: Pod, fresh: dict[str, Any]) -> Iterator[None]:
    """The test must leave node and ledger as they were at the agent's start, and its sandbox untouched."""
    yield
    assert node.changes() == {}
    assert difference(fresh, pod.state()) == {}


@pytest.fixture
def spare_master(node: Node) -> Iterator[str]:
    """Another interface of the shared node on the segment, for a test that takes it down or away.

    To be asked for after the networks, so that it is gone before their node is looked at.
    """
    name = unique("m")
    node.plug(node.host, name)
    try:
        yield name
    finally:
        if name in node.host.links():
            node.host.configure(f"link delete {name}")
