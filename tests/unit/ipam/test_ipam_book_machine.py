"""The book against a model that knows no bitmap, no queue and no undo: lists, walked from the start each time."""

from contextlib import suppress
from ipaddress import ip_address
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from cni_underlay.errors import AddressInUseError, InvalidConfigError, PoolExhaustedError
from cni_underlay.ipam.book import Book
from cni_underlay.ipam.choice import has_room, lease
from cni_underlay.ipam.keys import key_of
from cni_underlay.ipam.pools import pool_from_mapping
from cni_underlay.records import AddressState, Pool


def _pool(name: str, *ranges: dict[str, Any], **more: object) -> Pool:
    return pool_from_mapping({"name": name, "ranges": list(ranges), **more})


_V4 = {"subnet": "10.7.0.0/28", "exclude": ["10.7.0.4-10.7.0.5"]}
_V6 = {"subnet": "fd00:7::/125"}
POOLS = [
    _pool("app", _V4, _V6, quarantine=20, floor=5),
    _pool("app", _V4, _V6, quarantine=60, floor=60),  # reloaded with a longer rest
    _pool(
        "app", {"subnet": "10.7.0.0/28", "range": ["10.7.0.9-10.7.0.12", "10.7.0.2-10.7.0.6"]}, quarantine=20, floor=0
    ),
    _pool("twin", {"subnet": "10.7.0.0/28"}, quarantine=10, floor=10),  # another network on the same subnet
    _pool("spare", {"subnet": "10.8.0.0/29"}, {"subnet": "fd00:8::/125"}, quarantine=0, floor=0),
]
WISHES = [ip_address(f"10.7.0.{host}") for host in (0, 1, 2, 4, 9, 12, 15)] + [ip_address("fd00:7::3")]
UNIVERSE = [key_of(ip_address(f"10.{net}.0.{host}")) for net in (7, 8) for host in range(16)] + [
    key_of(ip_address(f"fd00:{net}::{host}")) for net in (7, 8) for host in range(8)
]


class NaivePool:
    def __init__(self) -> None:
        self.leased: set[int] = set()
        self.rests: list[tuple[float, int]] = []  # in the order of release
        self.awake: set[int] = set()
        self.aside: dict[int, AddressState] = {}
        self.cursors: dict[int, int] = {}
        self.quarantine = 0.0

    def settle(self, now: float, quarantine: float) -> None:
        self.quarantine = quarantine
        self.awake = {key for since, key in self.rests if now - since >= quarantine}

    def closed(self) -> set[int]:
        return self.leased | set(self.aside) | {key for _, key in self.rests if key not in self.awake}

    def end_rest(self, key: int) -> float | None:
        since = next((since for since, rests in self.rests if rests == key), None)
        self.rests = [entry for entry in self.rests if entry[1] != key]
        self.awake.discard(key)
        return since


def _usable(pool: Pool, slot: int) -> list[int]:
    """In the order of the ranges, straight from the rules."""
    gateways = {each.gateway for ranges in pool.sets for each in ranges}
    found = []
    for each in pool.sets[slot]:
        reserved = {each.subnet[0]} | ({each.subnet[-1]} if each.subnet.version == 4 else set())
        excluded = {key for one, other in each.excludes for key in range(key_of(one), key_of(other) + 1)}
        for key in range(key_of(each.first), key_of(each.last) + 1):
            address = next(a for a in each.subnet if key_of(a) == key)
            if address not in gateways | reserved and key not in excluded:
                found.append(key)
    return found


class RefusedError(Exception):
    pass


class Model:
    def __init__(self) -> None:
        self.pools: dict[str, NaivePool] = {}
        self.early = 0

    def of(self, name: str) -> NaivePool:
        return self.pools.setdefault(name, NaivePool())

    def lease(self, pool: Pool, wanted: list[Any], now: float) -> list[int]:
        """One pool; raises `RefusedError` with the error's class."""
        naive = self.of(pool.name)
        naive.settle(now, pool.quarantine)
        assigned: dict[int, int] = {}
        for wish in dict.fromkeys(wanted):
            slots = [slot for slot in range(len(pool.sets)) if key_of(wish) in _usable(pool, slot)]
            if not slots or slots[0] in assigned:
                raise RefusedError(InvalidConfigError)
            assigned[slots[0]] = key_of(wish)
        picks = []
        for slot in range(len(pool.sets)):
            if slot in assigned and assigned[slot] in naive.closed():
                raise RefusedError(AddressInUseError)
            picks.append(assigned[slot] if slot in assigned else self.next(pool, slot, now))
        for slot, key in enumerate(picks):
            self.early += any(rests == key for _, rests in naive.rests) and key not in naive.awake
            naive.end_rest(key)
            naive.leased.add(key)
            naive.cursors[slot] = key
        return picks

    def next(self, pool: Pool, slot: int, now: float) -> int:
        naive, usable = self.of(pool.name), _usable(pool, slot)
        cursor = naive.cursors.get(slot)
        below = [key for key in usable if cursor is not None and key <= cursor]
        start = usable.index(max(below)) + 1 if below else 0
        ordered = usable[start:] + usable[:start]
        free = [key for key in ordered if key not in naive.closed()]
        elsewhere = set().union(*(each.closed() for each in self.pools.values()))
        for key in [*(key for key in free if key not in elsewhere), *free]:
            return key
        for since, key in sorted(naive.rests, key=lambda entry: entry[0]):
            if key in usable and now - since >= pool.floor:
                return key
        raise RefusedError(PoolExhaustedError)


class BookAgainstModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.book = Book()
        self.model = Model()
        self.now = 1000.0

    def settle_all(self) -> None:
        """Undo lets whoever had rested rest again until the next look at the pool; let both look."""
        self.book.overdue(self.now)
        for name, naive in self.model.pools.items():
            naive.settle(self.now, self.book.shelf(name).quarantine)

    @rule(seconds=st.sampled_from([0.0, 1.0, 4.5, 5.0, 10.0, 19.5, 20.0, 41.0, 100.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(
        pool=st.sampled_from(POOLS),
        wanted=st.lists(st.sampled_from(WISHES), max_size=2) | st.just([]),
        times=st.integers(1, 6),
    )
    def lease(self, pool: Pool, wanted: list[Any], times: int) -> None:
        for _ in range(times):
            self.lease_once(pool, wanted)

    def lease_once(self, pool: Pool, wanted: list[Any]) -> None:
        try:
            expected: list[int] | type = self.model.lease(pool, wanted, self.now)
        except RefusedError as refusal:
            expected = refusal.args[0]
        try:
            found: list[int] | type = [pick.key for pick in lease(self.book, [pool], wanted, self.now).picks]
        except (AddressInUseError, InvalidConfigError, PoolExhaustedError) as refusal:
            found = type(refusal)
        assert found == expected
        self.settle_all()

    @rule(pool=st.sampled_from(POOLS))
    def room_is_what_a_lease_would_find(self, pool: Pool) -> None:
        naive = self.model.of(pool.name)
        naive.settle(self.now, pool.quarantine)
        try:
            expected = all(self.model.next(pool, slot, self.now) for slot in range(len(pool.sets)))
        except RefusedError:
            expected = False
        assert has_room(self.book, pool, self.now) is expected

    @rule(pool=st.sampled_from(POOLS), wanted=st.lists(st.sampled_from(WISHES), max_size=1))
    def a_transaction_fails_after_leases(self, pool: Pool, wanted: list[Any]) -> None:
        self.book.begin()
        with suppress(AddressInUseError, InvalidConfigError, PoolExhaustedError):
            for _ in range(3):
                lease(self.book, [pool], wanted, self.now)
        self.book.revert()
        self.settle_all()

    @rule(data=st.data())
    def a_transaction_fails_after_anything_else(self, data: st.DataObject) -> None:
        self.book.begin()
        for name, naive in self.model.pools.items():
            for key in sorted(naive.leased):
                if data.draw(st.booleans()):
                    self.book.release(name, key, self.now)
            for key in sorted(naive.aside):
                self.book.give_back(name, key)
            with suppress(AddressInUseError):
                self.book.set_aside(name, data.draw(st.sampled_from(UNIVERSE)), AddressState.FOREIGN)
            with suppress(AddressInUseError):
                self.book.adopt(name, data.draw(st.sampled_from(UNIVERSE)))
        self.book.tidy(self.now, 3)
        self.book.revert()
        self.settle_all()

    @rule(data=st.data(), most=st.integers(1, 8))
    def release(self, data: st.DataObject, most: int) -> None:
        held = [(name, key) for name, naive in self.model.pools.items() for key in sorted(naive.leased)]
        for name, key in data.draw(st.permutations(held))[:most]:
            self.now += 0.001  # no two rests of one age: which of them comes first is nobody's promise
            self.model.of(name).leased.remove(key)
            self.model.of(name).rests.append((self.now, key))
            self.book.release(name, key, self.now)

    @rule(data=st.data())
    def withdraw_an_early_reuse(self, data: st.DataObject) -> None:
        held = [(name, key) for name, naive in self.model.pools.items() for key in sorted(naive.leased)]
        if not held:
            return
        self.now += 0.001
        name, key = data.draw(st.sampled_from(held))
        since = data.draw(st.none() | st.just(self.now - 3.0))
        self.model.of(name).leased.remove(key)
        if since is not None:
            self.model.of(name).rests.append((since, key))
            self.model.of(name).rests.sort(key=lambda entry: entry[0])
        self.book.withdraw(name, key, since)
        self.settle_all()

    @rule(key=st.sampled_from(UNIVERSE), state=st.sampled_from([AddressState.RESERVED, AddressState.FOREIGN]))
    def set_aside(self, key: int, state: AddressState) -> None:
        naive = self.model.of("app")
        try:
            self.book.set_aside("app", key, state)
        except AddressInUseError:
            assert key in naive.leased
        else:
            assert key not in naive.leased
            naive.end_rest(key)
            naive.aside[key] = state

    @rule(key=st.sampled_from(UNIVERSE))
    def give_back(self, key: int) -> None:
        assert self.book.give_back("app", key) == self.model.of("app").aside.pop(key, None)

    @rule()
    def tidy(self) -> None:
        self.settle_all()
        expected = set()
        for name, naive in self.model.pools.items():
            expected |= {(name, key) for key in naive.awake}
            naive.rests = [entry for entry in naive.rests if entry[1] not in naive.awake]
            naive.awake = set()
        assert set(self.book.tidy(self.now, 1000)) == expected

    @invariant()
    def every_address_is_where_the_model_has_it(self) -> None:
        everywhere: set[int] = set()
        for name, naive in self.model.pools.items():
            shelf = self.book.shelf(name)
            everywhere |= naive.closed()
            assert {key for key in UNIVERSE if shelf.closed.is_taken(key)} == naive.closed()
            usage = shelf.usage()
            assert (usage.leased, usage.quarantined) == (len(naive.leased), len(naive.rests))
            assert usage.reserved + usage.foreign == len(naive.aside)
        assert {key for key in UNIVERSE if self.book.everywhere.is_taken(key)} == everywhere
        assert self.book.early_reuses == self.model.early


TestBookAgainstModel = BookAgainstModel.TestCase
TestBookAgainstModel.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
