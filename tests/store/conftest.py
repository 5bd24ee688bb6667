from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from cni_underlay.ipam.pools import pool_from_mapping
from cni_underlay.records import Attachment, Claim, DatapathKind, Instant, Pod, Pool
from cni_underlay.store.memory import MemoryStore
from cni_underlay.store.port import Store
from cni_underlay.store.sqlite import SQLiteStore


@dataclass
class HandClock:
    """A clock that stands until it is moved."""

    wall: float = 1_700_000_000.0
    uptime: float = 1_000.0
    boot_id: str = "00000000-0000-4000-8000-000000000001"
    _boots: Iterator[int] = field(default_factory=lambda: count(2))

    def __call__(self) -> Instant:
        return Instant(wall=self.wall, uptime=self.uptime, boot_id=self.boot_id)

    def advance(self, seconds: float) -> Instant:
        self.uptime += seconds
        self.wall += seconds
        return self()

    def reboot(self, uptime: float = 20.0) -> Instant:
        self.boot_id = f"00000000-0000-4000-8000-{next(self._boots):012d}"
        self.uptime = uptime
        self.wall += 60
        return self()


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def make_pool() -> Callable[..., Pool]:
    def make(*subnets: str, name: str = "app", **more: object) -> Pool:
        return pool_from_mapping({"name": name, "ranges": [{"subnet": subnet} for subnet in subnets], **more})

    return make


@pytest.fixture
def make_claim() -> Callable[..., Claim]:
    """Claims of a veth pod; each call without a container id makes another pod."""
    numbers = count(1)

    def make(container_id: str = "", **more: object) -> Claim:
        number = next(numbers)
        fields: dict[str, Any] = {
            "pod": Pod(namespace="shop", name=f"cart-{number}", uid=f"uid-{number}"),
            "datapath": DatapathKind.VETH,
            "master": "eth0",
            "mtu": 1500,
            "host_ifname": f"und{number:011x}",
            "netns_path": f"/run/netns/cni-{number}",
            "netns_inode": 4_026_532_000 + number,
        }
        key = {"network": "underlay", "container_id": container_id or f"c{number:063x}", "ifname": "eth0"}
        key |= {name: more.pop(name) for name in ("network", "ifname") if name in more}
        return Claim(attachment=Attachment(**key), **(fields | more))

    return make


@pytest.fixture
def ledger_path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "ledger.db"


@pytest.fixture
def open_store(ledger_path: Path, clock: HandClock) -> Iterator[Callable[..., SQLiteStore]]:
    """Opens ledgers at the present time; closes them all at the end."""
    with ExitStack() as stack:

        def opened(path: Path = ledger_path, **more: int) -> SQLiteStore:
            store = SQLiteStore(path, clock(), **more)
            stack.callback(store.close)
            return store

        yield opened


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, open_store: Callable[..., SQLiteStore]) -> Store:
    return MemoryStore() if request.param == "memory" else open_store()
