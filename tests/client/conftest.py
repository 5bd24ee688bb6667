"""The client as a process, and what is at the other end of its socket."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cni_underlay.client.build import compile_client

from .peer import Peer, Request, parse
from .runner import Runner


@pytest.fixture(scope="session")
def client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The client of this checkout's sources, or in $UNDERLAY_CLIENT another build of it: one with sanitizers, say."""
    if other := os.environ.get("UNDERLAY_CLIENT"):
        return Path(other)
    binary = tmp_path_factory.mktemp("client") / "underlay"
    compile_client(binary, "9.8.7")
    return binary


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Peer]:
    """Listens nowhere until a test starts it."""
    peer = Peer(tmp_path / "run" / "agent.sock")
    try:
        yield peer
    finally:
        peer.close()


@pytest.fixture
def call(client: Path, agent: Peer) -> Runner:
    return Runner(binary=client, socket=agent.path)


@pytest.fixture
def spool(agent: Peer) -> Path:
    return agent.path.with_name("spool")


@pytest.fixture
def spooled(spool: Path) -> Callable[[], list[Request]]:
    """What lies in the spool, oldest first; nothing but whole frames under proper names may lie there."""

    def read() -> list[Request]:
        paths = sorted(spool.iterdir()) if spool.exists() else []
        assert all(path.suffix == ".del" for path in paths)
        return [parse(path.read_bytes()) for path in paths]

    return read
