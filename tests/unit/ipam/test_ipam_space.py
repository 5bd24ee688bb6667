import random
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from cni_underlay.ipam.space import Space

LINE = 5000  # five leaves: the second level has work to do


class SpaceAgainstASet(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.space = Space()
        self.taken: set[int] = set()

    @rule(offset=st.integers(0, LINE))
    def take(self, offset: int) -> None:
        self.space.take(offset)
        self.taken.add(offset)

    @rule(offset=st.integers(0, LINE))
    def give(self, offset: int) -> None:
        self.space.give(offset)
        self.taken.discard(offset)

    @rule(first=st.integers(0, LINE), size=st.integers(1, 2100))
    def take_a_stretch(self, first: int, size: int) -> None:
        for offset in range(first, first + size):
            self.space.take(offset)
        self.taken.update(range(first, first + size))

    @rule(low=st.integers(0, LINE), size=st.integers(0, LINE))
    def next_free_is_the_lowest(self, low: int, size: int) -> None:
        expected = next((offset for offset in range(low, low + size + 1) if offset not in self.taken), None)
        assert self.space.next_free(low, low + size) == expected

    @invariant()
    def count_agrees(self) -> None:
        assert self.space.taken == len(self.taken)


TestSpaceAgainstASet = SpaceAgainstASet.TestCase
TestSpaceAgainstASet.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


@given(st.integers(0, 2**129), st.integers(0, 2000))
@settings(max_examples=50, deadline=None)
def test_a_full_stretch_anywhere_on_the_line_is_jumped_over(start: int, size: int) -> None:
    space = Space()
    for offset in range(start, start + size):
        space.take(offset)
    assert space.next_free(start, start + size) == start + size
    assert space.next_free(start, start + size - 1) is None


def test_a_million_in_a_row_costs_one_word_for_a_thousand() -> None:
    space = Space()
    for offset in range(1 << 20):
        space.take(offset)
    assert space.taken == 1 << 20
    assert space.next_free(0, 1 << 30) == 1 << 20
    assert [len(level) for level in space._levels] == [1024, 1, 1]


def test_the_only_gap_in_a_million_is_found_from_everywhere() -> None:
    space = Space()
    for offset in range(1 << 20):
        space.take(offset)
    space.give(777_777)
    assert space.next_free(0, 1 << 20) == 777_777
    assert space.next_free(777_778, (1 << 20) - 1) is None


def test_giving_everything_back_leaves_nothing_behind() -> None:
    space = Space()
    offsets = random.Random(5).sample(range(1 << 21), 4000) + list(range(4096, 8192))
    for offset in offsets:
        space.take(offset)
    random.Random(6).shuffle(offsets)
    for offset in offsets:
        space.give(offset)
    assert space.taken == 0
    assert not any(space._levels)


def test_taking_and_giving_twice_is_once() -> None:
    space = Space()
    space.take(7)
    space.take(7)
    assert space.taken == 1
    space.give(7)
    space.give(7)
    assert space.taken == 0
    assert not space.is_taken(7)


def test_a_walk_over_the_gaps_is_strictly_upward() -> None:
    space, generator = Space(), random.Random(9)
    for offset in generator.sample(range(10_000), 9_000):
        space.take(offset)
    walk, offset = [], space.next_free(0, 9_999)
    while offset is not None:
        walk.append(offset)
        offset = space.next_free(offset + 1, 9_999)
    assert len(walk) == 1000
    assert all(one < other for one, other in pairwise(walk))
