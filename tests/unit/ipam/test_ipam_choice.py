import re
from collections.abc import Callable
from ipaddress import ip_address

import pytest

from cni_underlay.errors import AddressInUseError, InvalidConfigError, PoolExhaustedError
from cni_underlay.ipam.book import Book
from cni_underlay.ipam.choice import Choice, has_room, lease
from cni_underlay.ipam.keys import key_of
from cni_underlay.records import AddressState, Pool

MakePool = Callable[..., Pool]


@pytest.fixture
def book() -> Book:
    return Book()


def take(book: Book, *pools: Pool, wanted: tuple[str, ...] = (), at: float = 0.0) -> list[str]:
    return texts(lease(book, pools, [ip_address(text) for text in wanted], at))


def texts(chosen: Choice) -> list[str]:
    return [str(address.interface) for address in chosen.addresses]


def rest(book: Book, pool: Pool, text: str, at: float) -> None:
    book.release(pool.name, key_of(ip_address(text)), at)


def test_leases_go_upward_and_carry_prefix_and_gateway(book: Book, make_pool: MakePool) -> None:
    pool = make_pool("10.7.0.0/29")
    chosen = lease(book, [pool], [], 0.0)
    assert texts(chosen) == ["10.7.0.2/29"]
    assert str(chosen.addresses[0].gateway) == "10.7.0.1"
    assert chosen.pool is pool
    assert [take(book, pool) for _ in range(4)] == [[f"10.7.0.{host}/29"] for host in (3, 4, 5, 6)]


def test_a_released_address_is_not_the_next_one_given(book: Book, make_pool: MakePool) -> None:
    pool = make_pool("10.7.0.0/29", quarantine=0, floor=0)
    take(book, pool)
    rest(book, pool, "10.7.0.2", 1.0)
    assert take(book, pool, at=2.0) == ["10.7.0.3/29"]


def test_the_search_wraps_once_and_finds_what_was_freed_below(book: Book, make_pool: MakePool) -> None:
    pool = make_pool("10.7.0.0/29", quarantine=10)
    for _ in range(5):
        take(book, pool)
    rest(book, pool, "10.7.0.4", 0.0)
    assert take(book, pool, at=10.0) == ["10.7.0.4/29"]


def test_a_dual_stack_pool_gives_one_address_of_each_family(book: Book, make_pool: MakePool) -> None:
    assert take(book, make_pool("10.7.0.0/24", "fd00:7::/64")) == ["10.7.0.2/24", "fd00:7::2/64"]


def test_an_address_rests_until_the_quarantine_is_over_to_the_moment(book: Book, make_pool: MakePool) -> None:
    pool = make_pool("10.7.0.0/30", quarantine=120, floor=120)
    take(book, pool)
    rest(book, pool, "10.7.0.2", 100.0)
    with pytest.raises(PoolExhaustedError):
        take(book, pool, at=219.999)
    assert take(book, pool, at=220.0) == ["10.7.0.2/30"]
    assert book.early_reuses == 0


def test_the_longest_rested_is_used_early_once_nothing_else_is_left(book: Book, make_pool: MakePool) -> None:
    pool = make_pool("10.7.0.0/29", quarantine=120, floor=30)
    for _ in range(5):
        take(book, pool)
    rest(book, pool, "10.7.0.5", 10.0)
    rest(book, pool, "10.7.0.3", 11.0)
    with pytest.raises(PoolExhaustedError):
        take(book, pool, at=39.9)
    chosen = lease(book, [pool], [], 41.0)
    assert texts(chosen) == ["10.7.0.5/29"]
    assert (chosen.picks[0].since, book.early_reuses) == (10.0, 1)
    assert "rested 31 s of 120 s" in chosen.picks[0].reason


def test_a_free_address_comes_before_any_that_rests(book: Book, make_pool: MakePool) -> None:
    pool = make_pool("10.7.0.0/29", quarantine=120, floor=0)
    take(book, pool)
    rest(book, pool, "10.7.0.2", 0.0)
    assert [take(book, pool, at=100.0) for _ in range(4)][-1] == ["10.7.0.6/29"]
    assert book.early_reuses == 0


def test_a_longer_quarantine_after_a_reload_holds_what_the_shorter_one_let_go(book: Book, make_pool: MakePool) -> None:
    short = make_pool("10.7.0.0/30", quarantine=10, floor=10)
    long = make_pool("10.7.0.0/30", quarantine=60, floor=60)
    take(book, short)
    rest(book, short, "10.7.0.2", 0.0)
    assert has_room(book, short, 15.0)
    with pytest.raises(PoolExhaustedError):
        take(book, long, at=15.0)
    assert take(book, short, at=15.0) == ["10.7.0.2/30"]


def test_exhaustion_names_pool_size_counts_and_the_next_moment(book: Book, make_pool: MakePool) -> None:
    pool = make_pool("10.7.0.0/29", quarantine=120, floor=30)
    for _ in range(4):
        take(book, pool)
    book.set_aside("app", key_of(ip_address("10.7.0.6")), AddressState.RESERVED)
    rest(book, pool, "10.7.0.2", 100.0)
    expected = (
        "pool app has no free address: of 5 in 10.7.0.1-10.7.0.6, 3 are leased, 1 quarantined, 1 reserved or foreign; "
        "the next one is usable in 17 s"
    )
    with pytest.raises(PoolExhaustedError, match=re.escape(expected)):
        take(book, pool, at=113.5)


def test_a_refused_set_leaves_the_other_sets_as_they_were(book: Book, make_pool: MakePool) -> None:
    pool = make_pool("10.7.0.0/24", "fd00:7::/126")
    take(book, pool)
    take(book, pool)
    with pytest.raises(PoolExhaustedError, match="fd00:7::1-fd00:7::3"):
        take(book, pool)
    assert book.shelf("app").usage().leased == 4
    assert not has_room(book, pool, 0.0)
    assert take(book, make_pool("10.7.0.0/24")) == ["10.7.0.4/24"]


def test_the_next_pool_gives_what_the_first_cannot(book: Book, make_pool: MakePool) -> None:
    pools = (make_pool("10.7.0.0/30"), make_pool("10.8.0.0/24", name="spare"))
    assert [take(book, *pools) for _ in range(3)] == [["10.7.0.2/30"], ["10.8.0.2/24"], ["10.8.0.3/24"]]


def test_a_lease_never_mixes_pools(book: Book, make_pool: MakePool) -> None:
    pools = (make_pool("10.7.0.0/24", "fd00:7::/126"), make_pool("10.8.0.0/24", "fd00:8::/64", name="spare"))
    found = [take(book, *pools) for _ in range(3)]
    assert found[2] == ["10.8.0.2/24", "fd00:8::2/64"]
    assert take(book, make_pool("10.7.0.0/24")) == ["10.7.0.4/24"]


def test_all_pools_exhausted_are_all_named(book: Book, make_pool: MakePool) -> None:
    pools = (make_pool("10.7.0.0/30"), make_pool("10.8.0.0/30", name="spare"))
    take(book, *pools)
    take(book, *pools)
    with pytest.raises(PoolExhaustedError, match=r"pool app has no free.*pool spare has no free"):
        take(book, *pools)


def test_no_pools_give_no_addresses(book: Book) -> None:
    assert lease(book, [], [], 0.0) == Choice()


def test_two_networks_on_one_subnet_prefer_different_addresses_and_share_in_need(
    book: Book, make_pool: MakePool
) -> None:
    one, other = make_pool("10.7.0.0/29"), make_pool("10.7.0.0/29", name="other")
    assert take(book, one) == ["10.7.0.2/29"]
    assert [take(book, other)[0] for _ in range(5)] == [f"10.7.0.{host}/29" for host in (3, 4, 5, 6, 2)]


def test_an_address_that_one_of_two_holders_lets_go_is_still_avoided(book: Book, make_pool: MakePool) -> None:
    first, second = make_pool("10.7.0.0/29", quarantine=0, floor=0), make_pool("10.7.0.0/29", name="second")
    take(book, first, wanted=("10.7.0.2",))
    take(book, second, wanted=("10.7.0.2",))
    rest(book, first, "10.7.0.2", 0.0)
    assert not book.overdue(0.0) or book.tidy(0.0, 10)
    third = make_pool("10.7.0.0/29", name="third")
    assert take(book, third) == ["10.7.0.3/29"]


def test_reserved_and_foreign_addresses_are_passed_over_until_given_back(book: Book, make_pool: MakePool) -> None:
    pool = make_pool("10.7.0.0/29")
    for text, state in (("10.7.0.2", AddressState.RESERVED), ("10.7.0.3", AddressState.FOREIGN)):
        book.set_aside("app", key_of(ip_address(text)), state)
    assert take(book, pool) == ["10.7.0.4/29"]
    assert book.give_back("app", key_of(ip_address("10.7.0.3"))) is AddressState.FOREIGN
    assert book.give_back("app", key_of(ip_address("10.7.0.3"))) is None
    assert [take(book, pool)[0] for _ in range(3)] == ["10.7.0.5/29", "10.7.0.6/29", "10.7.0.3/29"]


def test_a_leased_address_cannot_be_set_aside(book: Book, make_pool: MakePool) -> None:
    take(book, make_pool("10.7.0.0/29"))
    with pytest.raises(AddressInUseError):
        book.set_aside("app", key_of(ip_address("10.7.0.2")), AddressState.FOREIGN)


def test_a_wanted_address_is_given_exactly_and_moves_the_round_robin(book: Book, make_pool: MakePool) -> None:
    pool = make_pool("10.7.0.0/24")
    assert take(book, pool, wanted=("10.7.0.77",)) == ["10.7.0.77/24"]
    assert take(book, pool) == ["10.7.0.78/24"]


def test_sets_without_a_wish_get_an_address_by_themselves(book: Book, make_pool: MakePool) -> None:
    pool = make_pool("10.7.0.0/24", "fd00:7::/64")
    assert take(book, pool, wanted=("fd00:7::abcd",)) == ["10.7.0.2/24", "fd00:7::abcd/64"]


def test_the_same_wish_from_two_sources_is_one(book: Book, make_pool: MakePool) -> None:
    assert take(book, make_pool("10.7.0.0/24"), wanted=("10.7.0.9", "10.7.0.9")) == ["10.7.0.9/24"]


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ("10.9.0.1", "is in no subnet of pool app"),
        ("fd00:7::1", "is in no subnet of pool app"),
        ("10.7.0.1", "is the gateway in pool app"),
        ("10.7.0.0", "is the network address of 10.7.0.0/24"),
        ("10.7.0.255", "is the broadcast address of 10.7.0.0/24"),
        ("10.7.0.41", "is excluded (10.7.0.40-10.7.0.49)"),
        ("10.7.0.251", "is outside the ranges of pool app"),
    ],
)
def test_a_wish_that_can_never_be_met_is_the_configurations_fault(
    book: Book, make_pool: MakePool, wish: str, words: str
) -> None:
    pool = make_pool(
        "10.9.9.0/24",
        ranges=[{"subnet": "10.7.0.0/24", "range": "10.7.0.2-10.7.0.250", "exclude": "10.7.0.40-10.7.0.49"}],
    )
    with pytest.raises(InvalidConfigError, match=re.escape(f"requested address {wish} {words}")):
        take(book, pool, wanted=(wish,))
    assert book.shelf("app").usage().leased == 0


def test_two_wishes_for_one_set_are_refused(book: Book, make_pool: MakePool) -> None:
    with pytest.raises(InvalidConfigError, match=r"10\.7\.0\.8 and 10\.7\.0\.9 are of one set of pool app"):
        take(book, make_pool("10.7.0.0/24"), wanted=("10.7.0.8", "10.7.0.9"))


def test_a_wish_that_somebody_holds_has_to_wait(book: Book, make_pool: MakePool) -> None:
    pool = make_pool("10.7.0.0/24")
    take(book, pool, wanted=("10.7.0.9",))
    with pytest.raises(AddressInUseError, match=r"10\.7\.0\.9 of pool app is leased already"):
        take(book, pool, wanted=("10.7.0.9",))


def test_a_wish_that_rests_is_told_how_long(book: Book, make_pool: MakePool) -> None:
    pool = make_pool("10.7.0.0/24", quarantine=60, floor=0)
    take(book, pool, wanted=("10.7.0.9",))
    rest(book, pool, "10.7.0.9", 100.0)
    with pytest.raises(AddressInUseError, match=r"rests after its last owner; it is usable in 40 s"):
        take(book, pool, wanted=("10.7.0.9",), at=120.0)
    assert take(book, pool, wanted=("10.7.0.9",), at=160.0) == ["10.7.0.9/24"]


def test_a_wish_goes_to_the_pool_that_has_it(book: Book, make_pool: MakePool) -> None:
    pools = (make_pool("10.7.0.0/24"), make_pool("10.8.0.0/24", name="spare"))
    assert take(book, *pools, wanted=("10.8.0.9",)) == ["10.8.0.9/24"]
    with pytest.raises(AddressInUseError):
        take(book, *pools, wanted=("10.8.0.9",))
    with pytest.raises(InvalidConfigError, match=r"no subnet of pool app.*no subnet of pool spare"):
        take(book, *pools, wanted=("10.9.0.9",))


def test_an_edited_pool_goes_on_behind_the_last_lease(book: Book, make_pool: MakePool) -> None:
    take(book, make_pool("10.7.0.0/24"), wanted=("10.7.0.100",))
    edited = make_pool("10.7.0.0/24", ranges=[{"subnet": "10.7.0.0/24", "exclude": "10.7.0.90-10.7.0.110"}])
    assert take(book, edited) == ["10.7.0.111/24"]


def test_an_edited_pool_never_gives_what_is_leased_from_its_old_shape(book: Book, make_pool: MakePool) -> None:
    small, large = make_pool("10.7.0.0/29"), make_pool("10.7.0.0/28")
    held = {take(book, small)[0].split("/")[0] for _ in range(5)}
    more = {take(book, large)[0].split("/")[0] for _ in range(8)}
    assert not held & more
    with pytest.raises(PoolExhaustedError):
        take(book, large)


def test_a_release_that_is_undone_after_its_rest_was_over_leaves_the_address_leased(
    book: Book, make_pool: MakePool
) -> None:
    pool = make_pool("10.7.0.0/30", quarantine=0, floor=0)
    take(book, pool)
    book.begin()
    rest(book, pool, "10.7.0.2", 0.0)
    assert has_room(book, pool, 0.0)
    book.revert()
    with pytest.raises(PoolExhaustedError):
        take(book, pool)
