"""Both ledgers do the same with the same calls, whatever these are and however often the one on disk is opened anew."""

import shutil
import tempfile
from collections.abc import Callable
from ipaddress import ip_address, ip_interface
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from cni_underlay.errors import UnderlayError
from cni_underlay.ipam.pools import pool_from_mapping
from cni_underlay.records import (
    AddressState,
    Attachment,
    Claim,
    DatapathKind,
    Dns,
    Instant,
    IPAddress,
    LeasedAddress,
    Pool,
)
from cni_underlay.store.memory import MemoryStore
from cni_underlay.store.port import Store
from cni_underlay.store.sqlite import SQLiteStore


def _pool(name: str, *subnets: str, **more: object) -> Pool:
    return pool_from_mapping({"name": name, "ranges": [{"subnet": subnet} for subnet in subnets], **more})


POOLS = [
    _pool("app", "10.7.0.0/29", "fd00:7::/125", quarantine=20, floor=5),
    _pool("app", "10.7.0.0/28", quarantine=40, floor=0),
    _pool("twin", "10.7.0.0/29", quarantine=0, floor=0),
]
ADDRESSES = [ip_address(f"10.7.0.{host}") for host in range(9)] + [ip_address("fd00:7::3")]
CLAIMS = [
    Claim(
        attachment=Attachment(network="net", container_id=f"c{number}", ifname="eth0"),
        datapath=DatapathKind.VETH,
        master=f"eth{number % 2}",
    )
    for number in range(8)
]


class TwoLedgers(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="ledgers-"))
        self.now = Instant(wall=1e9, uptime=1000.0, boot_id="first")
        self.memory = MemoryStore()
        self.disk = self.opened()

    def opened(self) -> SQLiteStore:
        return SQLiteStore(self.directory / "ledger.db", self.now, reserve=4096)

    def teardown(self) -> None:
        self.disk.close()
        shutil.rmtree(self.directory)

    def both(self, call: Callable[[Store], Any]) -> None:
        outcomes = []
        for store in (self.memory, self.disk):
            try:
                outcomes.append(call(store))
            except UnderlayError as error:
                outcomes.append(type(error))
        assert outcomes[0] == outcomes[1]

    @rule(seconds=st.sampled_from([0.001, 1.0, 5.0, 20.0, 39.0]))
    def time_passes(self, seconds: float) -> None:
        self.now = Instant(wall=self.now.wall + seconds, uptime=self.now.uptime + seconds, boot_id="first")

    @rule(
        claim=st.sampled_from(CLAIMS),
        pools=st.lists(st.sampled_from(POOLS), max_size=2),
        wanted=st.lists(st.sampled_from(ADDRESSES), max_size=1),
    )
    def acquire(self, claim: Claim, pools: list[Pool], wanted: list[IPAddress]) -> None:
        self.both(lambda store: store.acquire(claim, pools, wanted, self.now))

    @rule(generation=st.integers(1, 30))
    def release(self, generation: int) -> None:
        self.time_passes(0.001)  # which of two rests of one age comes first is nobody's promise
        self.both(lambda store: store.release([generation, generation], "DEL", self.now))

    @rule(generation=st.integers(1, 30))
    def withdraw(self, generation: int) -> None:
        self.both(lambda store: store.withdraw(generation, self.now))

    @rule(generation=st.integers(1, 30), host=st.integers(1, 4))
    def record(self, generation: int, host: int) -> None:
        address = LeasedAddress(
            pool="delegate", slot=host, interface=ip_interface(f"10.9.0.{host}/24"), gateway=ip_address("10.9.0.254")
        )
        self.both(lambda store: store.record(generation, [address], (), Dns(domain="a.example"), self.now))

    @rule(generation=st.integers(1, 30))
    def confirm(self, generation: int) -> None:
        self.both(lambda store: store.confirm(generation))

    @rule(address=st.sampled_from(ADDRESSES), state=st.sampled_from([AddressState.RESERVED, AddressState.FOREIGN]))
    def set_aside(self, address: IPAddress, state: AddressState) -> None:
        self.both(lambda store: store.set_aside("app", [address], state, self.now, mac="02:00:00:00:00:01"))

    @rule(addresses=st.lists(st.sampled_from(ADDRESSES), unique=True))
    def give_back(self, addresses: list[IPAddress]) -> None:
        self.both(lambda store: store.give_back("app", addresses, self.now))

    @rule()
    def tidy(self) -> None:
        self.both(lambda store: store.tidy(self.now))

    @rule(pool=st.sampled_from(POOLS))
    def has_room(self, pool: Pool) -> None:
        self.both(lambda store: store.has_room(pool, self.now))

    @rule()
    def the_agent_restarts(self) -> None:
        self.disk.close()
        self.disk = self.opened()

    @invariant()
    def they_say_the_same(self) -> None:
        self.both(lambda store: store.leases())
        self.both(lambda store: [each for each in store.usage() if any((each.leased, each.quarantined, each.reserved))])
        self.both(lambda store: [store.users(master) for master in ("eth0", "eth1")])

    @rule(address=st.sampled_from(ADDRESSES))
    def they_remember_the_same(self, address: IPAddress) -> None:
        self.both(lambda store: store.history(address))
        self.both(lambda store: store.holder(address))


TestTwoLedgers = TwoLedgers.TestCase
TestTwoLedgers.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
