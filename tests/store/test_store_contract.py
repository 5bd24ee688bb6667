"""What every ledger promises (store/port.py), asked of each adapter in the same words."""

import threading
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

import pytest

from cni_underlay.errors import (
    AddressInUseError,
    AttachmentExistsError,
    InvalidConfigError,
    PoolExhaustedError,
    TryAgainLaterError,
)
from cni_underlay.records import (
    AddressState,
    Attachment,
    Claim,
    DatapathKind,
    Dns,
    Lease,
    LeasedAddress,
    Pod,
    Pool,
    Route,
)
from cni_underlay.store.port import Store

MakeClaim = Callable[..., Claim]
MakePool = Callable[..., Pool]
Clock = Any


def ips(lease: Lease | None) -> list[str]:
    return [str(address.interface.ip) for address in lease.addresses] if lease else []


def usage(store: Store, pool: str = "app") -> tuple[int, int, int, int]:
    for each in store.usage():
        if each.pool == pool:
            return each.leased, each.quarantined, each.reserved, each.foreign
    return 0, 0, 0, 0


def whats(store: Store, address: str) -> list[str]:
    return [event.what for event in store.history(ip_address(address))]


def foreign_address(text: str, slot: int = 0) -> LeasedAddress:
    return LeasedAddress(pool="delegate/dhcp/net", slot=slot, interface=ip_interface(text), gateway=None)


@pytest.fixture
def pool(make_pool: MakePool) -> Pool:
    return make_pool("10.7.0.0/29", quarantine=120, floor=30)


def test_a_lease_comes_back_exactly_as_it_was_given(
    store: Store, clock: Clock, make_claim: MakeClaim, make_pool: MakePool
) -> None:
    routes = (
        Route(dst=ip_network("0.0.0.0/0")),
        Route(
            dst=ip_network("fd00:9::/64"), gw=ip_address("fd00:7::9"), mtu=1400, advmss=1, priority=7, table=9, scope=0
        ),
    )
    both = replace(
        make_pool("10.7.0.0/24", "fd00:7::/64"),
        routes=routes,
        dns=Dns(nameservers=("10.7.0.2",), domain="a.example", search=("b.example",), options=("ndots:2",)),
    )
    claim = make_claim(mode="bridge", mac="c2:11:22:33:44:55")
    lease = store.acquire(claim, [both], [], clock())
    assert lease.claim == claim
    assert ips(lease) == ["10.7.0.2", "fd00:7::2"]
    assert (lease.routes, lease.dns, lease.leased_at, lease.attached) == (routes, both.dns, clock(), False)
    assert store.find(claim.attachment) == lease
    assert store.leases() == (lease,)
    assert store.holder(ip_address("fd00:7::2")) == lease
    assert store.holder(ip_address("10.7.0.3")) is None


def test_generations_grow_and_leases_come_oldest_first(
    store: Store, clock: Clock, make_claim: MakeClaim, pool: Pool
) -> None:
    made = [store.acquire(make_claim(), [pool], [], clock()).generation for _ in range(4)]
    assert made == sorted(set(made))
    assert [lease.generation for lease in store.leases()] == made


def test_the_youngest_generation_is_not_used_again(
    store: Store, clock: Clock, make_claim: MakeClaim, pool: Pool
) -> None:
    first = store.acquire(make_claim(), [pool], [], clock())
    store.release([first.generation], "DEL", clock())
    assert store.acquire(make_claim(), [pool], [], clock()).generation > first.generation


def test_a_repeated_add_is_told_and_costs_no_address(
    store: Store, clock: Clock, make_claim: MakeClaim, pool: Pool
) -> None:
    claim = make_claim()
    lease = store.acquire(claim, [pool], [], clock())
    with pytest.raises(AttachmentExistsError):
        store.acquire(claim, [pool], [], clock())
    assert store.leases() == (lease,)
    assert usage(store) == (1, 0, 0, 0)


def test_a_repeated_add_is_told_so_also_when_the_pool_is_exhausted(
    store: Store, clock: Clock, make_claim: MakeClaim, make_pool: MakePool
) -> None:
    claim, tiny = make_claim(), make_pool("10.7.0.0/30")
    store.acquire(claim, [tiny], [], clock())
    with pytest.raises(AttachmentExistsError):
        store.acquire(claim, [tiny], [], clock())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"container_id": "abc"}, {"container_id": "abcd"}),
        ({"container_id": "x", "ifname": "eth1"}, {"container_id": "x", "ifname": "eth10"}),
        ({"container_id": "c", "network": "a-b"}, {"container_id": "b-c", "network": "a"}),
        ({"container_id": "x", "network": "a"}, {"container_id": "x", "network": "b"}),
    ],
)
def test_keys_are_compared_whole(
    store: Store, clock: Clock, make_claim: MakeClaim, pool: Pool, one: dict[str, str], other: dict[str, str]
) -> None:
    first = store.acquire(make_claim(**one), [pool], [], clock())
    second = store.acquire(make_claim(**other), [pool], [], clock())
    store.release([first.generation], "DEL", clock())
    assert store.find(first.claim.attachment) is None
    assert store.find(second.claim.attachment) == second


def test_the_mac_of_a_lease_follows_from_its_address(
    store: Store, clock: Clock, make_claim: MakeClaim, pool: Pool
) -> None:
    lease = store.acquire(make_claim(), [pool], [], clock())
    assert lease.claim.mac == "02:75:0a:07:00:02"
    assert store.find(lease.claim.attachment) == lease
    assert store.history(ip_address("10.7.0.2"))[0].mac == "02:75:0a:07:00:02"


def test_a_released_address_rests_and_its_attachment_is_gone(
    store: Store, clock: Clock, make_claim: MakeClaim, pool: Pool
) -> None:
    lease = store.acquire(make_claim(), [pool], [], clock())
    assert store.release([lease.generation], "DEL", clock()) == 1
    assert store.find(lease.claim.attachment) is None
    assert store.holder(ip_address("10.7.0.2")) is None
    assert usage(store) == (0, 1, 0, 0)
    with pytest.raises(AddressInUseError, match="rests"):
        store.acquire(make_claim(), [pool], [ip_address("10.7.0.2")], clock.advance(119))
    assert ips(store.acquire(make_claim(), [pool], [ip_address("10.7.0.2")], clock.advance(1))) == ["10.7.0.2"]


def test_an_old_generation_never_frees_a_newer_lease(
    store: Store, clock: Clock, make_claim: MakeClaim, pool: Pool
) -> None:
    claim = make_claim()
    old = store.acquire(claim, [pool], [], clock())
    store.release([old.generation], "DEL", clock())
    new = store.acquire(claim, [pool], [], clock())
    assert store.release([old.generation, old.generation, 999_999], "late DEL", clock()) == 0
    assert store.find(claim.attachment) == new


def test_many_leases_end_at_once(store: Store, clock: Clock, make_claim: MakeClaim, make_pool: MakePool) -> None:
    wide = make_pool("10.7.0.0/24", "fd00:7::/64")
    made = [store.acquire(make_claim(), [wide], [], clock()).generation for _ in range(20)]
    assert store.release([*made[:15], *made[:3]], "GC", clock()) == 15
    assert [lease.generation for lease in store.leases()] == made[15:]
    assert usage(store) == (10, 30, 0, 0)
    assert store.release([], "GC", clock()) == 0


def test_an_exhausted_pool_keeps_nothing_and_says_why(
    store: Store, clock: Clock, make_claim: MakeClaim, pool: Pool
) -> None:
    held = [store.acquire(make_claim(), [pool], [], clock()) for _ in range(5)]
    loser = make_claim()
    assert not store.has_room(pool, clock())
    with pytest.raises(PoolExhaustedError, match=r"of 5 in .* 5 are leased, 0 quarantined"):
        store.acquire(loser, [pool], [], clock())
    assert store.find(loser.attachment) is None
    assert len(store.leases()) == 5
    store.release([held[2].generation], "DEL", clock())
    with pytest.raises(PoolExhaustedError, match="the next one is usable in 20 s"):
        store.acquire(loser, [pool], [], clock.advance(10))
    assert store.has_room(pool, clock.advance(20))
    assert ips(store.acquire(loser, [pool], [], clock())) == ips(held[2])
    assert "rested 30 s of 120 s" in store.history(held[2].addresses[0].interface.ip)[-1].reason


def test_a_refused_wish_keeps_nothing(store: Store, clock: Clock, make_claim: MakeClaim, make_pool: MakePool) -> None:
    both = make_pool("10.7.0.0/24", "fd00:7::/64")
    store.acquire(make_claim(), [both], [ip_address("fd00:7::9")], clock())
    claim = make_claim()
    for wanted, error in (
        (["10.7.0.50", "fd00:7::9"], AddressInUseError),
        (["10.7.0.50", "10.7.0.51"], InvalidConfigError),
        (["10.7.0.255"], InvalidConfigError),
    ):
        with pytest.raises(error):
            store.acquire(claim, [both], [ip_address(text) for text in wanted], clock())
        assert store.find(claim.attachment) is None
    assert usage(store) == (2, 0, 0, 0)
    assert store.holder(ip_address("10.7.0.50")) is None


def test_spill_over_takes_all_addresses_from_one_pool(
    store: Store, clock: Clock, make_claim: MakeClaim, make_pool: MakePool
) -> None:
    pools = [make_pool("10.7.0.0/24", "fd00:7::/126"), make_pool("10.8.0.0/24", "fd00:8::/64", name="spare")]
    found = [ips(store.acquire(make_claim(), pools, [], clock())) for _ in range(3)]
    assert found[2] == ["10.8.0.2", "fd00:8::2"]
    assert [each.pool for each in store.usage()] == ["app", "spare"]


def test_a_lease_without_pools_waits_for_its_delegate(store: Store, clock: Clock, make_claim: MakeClaim) -> None:
    lease = store.acquire(make_claim(), [], [], clock())
    assert (lease.addresses, lease.claim.mac) == ((), "")
    addresses = (foreign_address("10.9.0.5/24"), foreign_address("fd00:9::5/64", 1))
    routes, dns = (Route(dst=ip_network("0.0.0.0/0"), gw=ip_address("10.9.0.1")),), Dns(domain="a.example")
    recorded = store.record(lease.generation, addresses, routes, dns, clock())
    assert (recorded.addresses, recorded.routes, recorded.dns) == (addresses, routes, dns)
    assert recorded.claim.mac == "02:75:0a:09:00:05"
    assert store.find(lease.claim.attachment) == recorded
    assert store.record(lease.generation, addresses, routes, dns, clock()) == recorded
    assert store.holder(ip_address("10.9.0.5")) == recorded


def test_delegated_addresses_go_free_without_rest(store: Store, clock: Clock, make_claim: MakeClaim) -> None:
    addresses = [foreign_address("10.9.0.5/24")]
    first = store.acquire(make_claim(), [], [], clock())
    store.record(first.generation, addresses, (), Dns(), clock())
    store.release([first.generation], "DEL", clock())
    second = store.acquire(make_claim(), [], [], clock())
    assert store.record(second.generation, addresses, (), Dns(), clock()).addresses == tuple(addresses)
    assert whats(store, "10.9.0.5") == ["leased", "freed", "leased"]


def test_a_delegate_that_gives_one_address_twice_is_stopped_and_keeps_nothing(
    store: Store, clock: Clock, make_claim: MakeClaim
) -> None:
    first, second = (store.acquire(make_claim(), [], [], clock()) for _ in range(2))
    store.record(first.generation, [foreign_address("10.9.0.5/24")], (), Dns(), clock())
    with pytest.raises(AddressInUseError, match=r"10\.9\.0\.5 is leased in pool delegate/dhcp/net"):
        store.record(
            second.generation,
            [foreign_address("10.9.0.6/24"), foreign_address("10.9.0.5/24", 1)],
            (),
            Dns(),
            clock(),
        )
    assert store.holder(ip_address("10.9.0.6")) is None
    assert store.find(second.claim.attachment) == second


def test_addresses_of_a_lease_that_ended_meanwhile_are_refused(
    store: Store, clock: Clock, make_claim: MakeClaim
) -> None:
    lease = store.acquire(make_claim(), [], [], clock())
    store.release([lease.generation], "DEL", clock())
    with pytest.raises(TryAgainLaterError):
        store.record(lease.generation, [foreign_address("10.9.0.5/24")], (), Dns(), clock())


def test_a_confirmed_lease_shows_at_once(store: Store, clock: Clock, make_claim: MakeClaim, pool: Pool) -> None:
    lease = store.acquire(make_claim(), [pool], [], clock())
    other = store.acquire(make_claim(), [pool], [], clock())
    store.confirm(lease.generation)
    store.confirm(999_999)
    attached = replace(lease, attached=True)
    assert store.find(lease.claim.attachment) == attached
    assert store.holder(ip_address("10.7.0.2")) == attached
    assert store.leases() == (attached, other)


def test_a_withdrawn_address_is_free_at_once_and_the_next_add_gets_another(
    store: Store, clock: Clock, make_claim: MakeClaim, pool: Pool
) -> None:
    lease = store.acquire(make_claim(), [pool], [], clock())
    store.withdraw(lease.generation, clock())
    store.withdraw(lease.generation, clock())
    assert store.find(lease.claim.attachment) is None
    assert usage(store) == (0, 0, 0, 0)
    assert whats(store, "10.7.0.2") == ["leased", "freed"]
    assert ips(store.acquire(lease.claim, [pool], [], clock())) == ["10.7.0.3"]


def test_a_thousand_failing_adds_do_not_exhaust_a_small_pool(
    store: Store, clock: Clock, make_claim: MakeClaim, pool: Pool
) -> None:
    for _ in range(1000):
        store.withdraw(store.acquire(make_claim(), [pool], [], clock()).generation, clock())
    assert usage(store) == (0, 0, 0, 0)
    assert store.has_room(pool, clock())


def test_a_withdrawn_early_reuse_goes_on_resting(
    store: Store, clock: Clock, make_claim: MakeClaim, make_pool: MakePool
) -> None:
    tiny = make_pool("10.7.0.0/30", quarantine=120, floor=30)
    first = store.acquire(make_claim(), [tiny], [], clock())
    store.release([first.generation], "DEL", clock())
    early = store.acquire(make_claim(), [tiny], [], clock.advance(40))
    store.withdraw(early.generation, clock())
    assert usage(store) == (0, 1, 0, 0)
    with pytest.raises(AddressInUseError, match="usable in 80 s"):
        store.acquire(make_claim(), [tiny], [ip_address("10.7.0.2")], clock())
    assert whats(store, "10.7.0.2") == ["leased", "quarantined", "leased", "quarantined"]


def test_tidying_frees_what_rested_long_enough_and_nothing_else(
    store: Store, clock: Clock, make_claim: MakeClaim, pool: Pool
) -> None:
    first, second = (store.acquire(make_claim(), [pool], [], clock()) for _ in range(2))
    store.release([first.generation], "DEL", clock())
    store.release([second.generation], "DEL", clock.advance(50))
    assert store.tidy(clock.advance(69)) == 0
    assert usage(store) == (0, 2, 0, 0)
    assert store.tidy(clock.advance(1)) == 1
    assert usage(store) == (0, 1, 0, 0)
    assert whats(store, "10.7.0.2") == ["leased", "quarantined", "freed"]
    assert store.tidy(clock()) == 0


def test_history_tells_who_had_the_address_when_and_how_it_left(
    store: Store, clock: Clock, make_claim: MakeClaim, pool: Pool
) -> None:
    pod = Pod(namespace="shop", name="cart-0", uid="8c4f")
    lease = store.acquire(make_claim("c1", pod=pod), [pool], [], clock())
    store.release([lease.generation], "GC", clock.advance(5))
    leased, ended = store.history(ip_address("10.7.0.2"))
    assert (leased.what, ended.what, ended.reason) == ("leased", "quarantined", "GC")
    assert ended.at - leased.at == 5
    for event in (leased, ended):
        assert (event.pool, event.pod, event.generation) == ("app", pod, lease.generation)
        assert event.attachment == Attachment(network="underlay", container_id="c1", ifname="eth0")
        assert event.mac == "02:75:0a:07:00:02"
    assert store.history(ip_address("10.7.0.99")) == ()


def test_addresses_set_aside_are_passed_over_counted_and_given_back(
    store: Store, clock: Clock, make_claim: MakeClaim, pool: Pool
) -> None:
    store.set_aside("app", [ip_address("10.7.0.2")], AddressState.RESERVED, clock(), reason="printer")
    store.set_aside("app", [ip_address("10.7.0.3")], AddressState.FOREIGN, clock(), mac="52:54:00:00:00:01")
    assert ips(store.acquire(make_claim(), [pool], [], clock())) == ["10.7.0.4"]
    assert usage(store) == (1, 0, 1, 1)
    event = store.history(ip_address("10.7.0.3"))[0]
    assert (event.what, event.mac, event.generation, event.attachment) == ("foreign", "52:54:00:00:00:01", 0, None)
    with pytest.raises(AddressInUseError, match="is reserved already"):
        store.acquire(make_claim(), [pool], [ip_address("10.7.0.2")], clock())
    assert store.give_back("app", [ip_address("10.7.0.2"), ip_address("10.7.0.6")], clock(), reason="moved") == 1
    assert ips(store.acquire(make_claim(), [pool], [ip_address("10.7.0.2")], clock())) == ["10.7.0.2"]


def test_setting_aside_a_list_with_a_leased_address_changes_none(
    store: Store, clock: Clock, make_claim: MakeClaim, pool: Pool
) -> None:
    store.acquire(make_claim(), [pool], [], clock())
    with pytest.raises(AddressInUseError):
        store.set_aside("app", [ip_address("10.7.0.3"), ip_address("10.7.0.2")], AddressState.FOREIGN, clock())
    assert usage(store) == (1, 0, 0, 0)
    assert whats(store, "10.7.0.3") == []


def test_a_resting_address_may_turn_out_to_be_foreign(
    store: Store, clock: Clock, make_claim: MakeClaim, pool: Pool
) -> None:
    lease = store.acquire(make_claim(), [pool], [], clock())
    store.release([lease.generation], "DEL", clock())
    store.set_aside("app", [ip_address("10.7.0.2")], AddressState.FOREIGN, clock())
    assert usage(store) == (0, 0, 0, 1)
    assert store.tidy(clock.advance(1000)) == 0


def test_users_of_a_master_are_counted(store: Store, clock: Clock, make_claim: MakeClaim, pool: Pool) -> None:
    made = [
        store.acquire(make_claim(master=master, datapath=datapath), [pool], [], clock())
        for master, datapath in (
            ("eth0", DatapathKind.VETH),
            ("eth0", DatapathKind.MACVLAN),
            ("eth1", DatapathKind.VETH),
        )
    ]
    assert (store.users("eth0"), store.users("eth1"), store.users("eth2")) == (2, 1, 0)
    store.release([made[0].generation], "DEL", clock())
    assert store.users("eth0") == 1


def test_two_networks_on_one_subnet_both_work(
    store: Store, clock: Clock, make_claim: MakeClaim, make_pool: MakePool
) -> None:
    one, other = make_pool("10.7.0.0/30", name="one"), make_pool("10.7.0.0/30", name="other")
    first = store.acquire(make_claim(network="one"), [one], [], clock())
    second = store.acquire(make_claim(network="other"), [other], [], clock())
    assert ips(first) == ips(second) == ["10.7.0.2"]
    store.release([first.generation], "DEL", clock())
    assert store.holder(ip_address("10.7.0.2")) == second


def test_a_pool_edited_between_two_adds_gives_nothing_twice(
    store: Store, clock: Clock, make_claim: MakeClaim, make_pool: MakePool
) -> None:
    before, after = make_pool("10.7.0.0/29"), make_pool("10.7.0.0/28")
    found = [ips(store.acquire(make_claim(), [pool], [], clock()))[0] for pool in [before] * 5 + [after] * 8]
    assert len(set(found)) == 13


@pytest.mark.parametrize("text", ["Grüße", "\udcff\udc80", "\ud800x", "\x1asub", "a\x00b", "日本"])
def test_texts_that_are_hardly_texts_come_back_unchanged(
    store: Store, clock: Clock, make_claim: MakeClaim, pool: Pool, text: str
) -> None:
    claim = make_claim(pod=Pod(namespace=text, name=text, uid=text), netns_path=text, ifname=text, mode=text)
    store.acquire(claim, [pool], [], clock())
    found = store.find(claim.attachment)
    assert found is not None
    assert (found.claim.pod, found.claim.netns_path, found.claim.attachment) == (
        claim.pod,
        text,
        claim.attachment,
    )


def test_sixteen_threads_share_a_small_pool_exactly(
    store: Store, clock: Clock, make_claim: MakeClaim, make_pool: MakePool
) -> None:
    pool = make_pool("10.7.0.0/26")  # 61 addresses
    claims = [[make_claim() for _ in range(6)] for _ in range(16)]
    got: list[str] = []
    refused: list[PoolExhaustedError] = []
    start = threading.Barrier(16)

    def work(mine: list[Claim]) -> None:
        start.wait()
        for claim in mine:
            try:
                got.extend(ips(store.acquire(claim, [pool], [], clock())))
            except PoolExhaustedError as error:
                refused.append(error)

    threads = [threading.Thread(target=work, args=(mine,)) for mine in claims]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(got), len(set(got)), len(refused)) == (61, 61, 16 * 6 - 61)
    assert sorted(got) == sorted(ip for lease in store.leases() for ip in ips(lease))


def test_one_attachment_added_by_many_threads_gets_one_lease(
    store: Store, clock: Clock, make_claim: MakeClaim, make_pool: MakePool
) -> None:
    pool, claim = make_pool("10.7.0.0/24"), make_claim()
    outcomes: list[str] = []
    start = threading.Barrier(16)

    def work() -> None:
        start.wait()
        try:
            store.acquire(claim, [pool], [], clock())
        except AttachmentExistsError:
            outcomes.append("exists")
        else:
            outcomes.append("leased")

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["exists"] * 15 + ["leased"]
    assert usage(store) == (1, 0, 0, 0)


def test_closing_twice_is_closing_once(store: Store) -> None:
    store.close()
    store.close()


def test_memory_and_disk_are_writable(store: Store) -> None:
    store.require_writable()
