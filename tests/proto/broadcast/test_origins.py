"""Whose broadcasts have come, and which: against a plain set, and within bounds."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from meshwalk.config import BroadcastConfig
from meshwalk.proto.broadcast.origins import Origins, SeenNumbers
from meshwalk.sim.node import UNIX_START_S
from meshwalk.wire.records import NUMBER_MAX, BroadcastHead

from .scene import peer


class Table:
    """Origins, as copies of their broadcasts come."""

    def __init__(self, config: BroadcastConfig | None = None) -> None:
        self.counts: Counter[str] = Counter()
        self.origins = Origins(config or BroadcastConfig(), self.counts, UNIX_START_S)

    def why_not(
        self, origin: int, number: int, now: float, *, epoch: int = 1, sent_at: float | None = None
    ) -> str | None:
        at = now if sent_at is None else sent_at
        ms = int((at + UNIX_START_S) * 1000)
        head = BroadcastHead(bytes(peer(origin)), epoch, number, ms)
        why = self.origins.why_not(head, now)
        if why is None:
            self.counts["skipped"] += self.origins.note(head, now)[1]
        return why

    @property
    def gaps(self) -> int:
        """Counted anew."""
        tables = self.origins._known, self.origins._new
        latest = [origin for table in tables for origin in table.values()]
        earlier = [origin.earlier for origin in latest if origin.earlier is not None]
        return sum(origin.seen.gaps for origin in latest + earlier)


# Numbers.


@given(st.integers(0, 20), st.lists(st.integers(1, 80), max_size=150), st.data())
def test_numbers_are_what_a_plain_set_would_be(
    floor: int, numbers: list[int], data: st.DataObject
) -> None:
    seen, plain = SeenNumbers(floor), set(range(floor + 1))
    for number in numbers:
        assert (number in seen) == (number in plain)
        if number not in plain:
            seen.add(number)
            plain.add(number)
        if not number % 17:
            to = data.draw(st.integers(0, seen.highest))
            seen.raise_floor(to)
            plain |= set(range(to + 1))
        if not number % 29:
            seen.fill()
            plain |= set(range(seen.highest + 1))
        assert [n for n in range(100) if n in seen] == sorted(plain)
        assert seen.highest == max(plain)
        spans = seen._spans
        apart = [b - a for a, b in zip(spans[1:-1:2], spans[2::2], strict=True)]
        assert all(gap > 1 for gap in apart), "ranges that touch are one"


def test_a_gap_is_one_entry_however_wide() -> None:
    seen = SeenNumbers(0)
    for number in (1, 2, 3, 10**9, 10**9 + 1):
        seen.add(number)
    assert seen.gaps == 1
    assert 10**6 not in seen
    assert 10**9 in seen


def test_the_window_moves_on_over_a_gap_that_nothing_fills() -> None:
    """A defect of old: after a gap had been given up, the numbers above it were kept one by one."""
    table = Table(BroadcastConfig(window=8))
    assert table.why_not(5, 1, 0.0) is None
    for number in range(3, 100):
        assert table.why_not(5, number, 0.0) is None
    known = table.origins.get(bytes(peer(5)), 1)
    assert known is not None
    assert known.seen.gaps == 0
    assert table.why_not(5, 2, 0.0) == "repeated", "below the window"


@given(st.lists(st.integers(1, 60), max_size=200), st.integers(4, 16))
def test_numbers_are_new_once(numbers: list[int], window: int) -> None:
    table, taken = Table(BroadcastConfig(window=window)), set[int]()
    for number in numbers:
        if table.why_not(5, number, 0.0) is None:
            assert number not in taken
            taken.add(number)
        elif number not in taken:
            assert number <= max(taken) - window
        known = table.origins.get(bytes(peer(5)), 1)
        assert known is not None
        assert known.seen.gaps <= window


# The table.


def test_an_absurd_number_hurts_only_its_origin() -> None:
    table = Table()
    assert table.why_not(5, NUMBER_MAX, 0.0) is None
    assert table.why_not(6, 1, 0.0) is None
    assert table.why_not(5, 1, 0.0) == "repeated"


def test_gaps_are_bounded_over_all_origins() -> None:
    table = Table(BroadcastConfig(gaps_max=30, window=100))
    for origin in range(1, 6):
        for number in range(1, 63, 2):  # every second one is missing
            assert table.why_not(origin, number, 0.0) in (None, "repeated")
            assert table.gaps == table.origins._gaps <= 30
    assert table.counts["skipped"] > 0
    assert table.why_not(5, 4, 0.0) == "repeated", "what was missing there counts as seen"
    assert table.why_not(1, 4, 0.0) is None, "others keep theirs"


@given(
    st.lists(
        st.tuples(st.integers(1, 6), st.integers(1, 3), st.integers(1, 9), st.floats(0, 40)),
        max_size=120,
    )
)
def test_never_twice_and_within_bounds(heard: list[tuple[int, int, int, float]]) -> None:
    config = BroadcastConfig(
        origins_max=4, gaps_max=5, window=6, remembered_s=100.0, age_max_s=60.0
    )
    table, taken, now = Table(config), set[tuple[int, int, int]](), 0.0
    sent_at: dict[tuple[int, int, int], float] = {}
    for origin, epoch, number, later in heard:
        now += later
        id = origin, epoch, number
        at = sent_at.setdefault(id, now)  # a replay says the same as the first time
        if table.why_not(origin, number, now, epoch=epoch, sent_at=at) is None:
            assert id not in taken
            taken.add(id)
        assert len(table.origins) <= config.origins_max
        assert table.gaps == table.origins._gaps <= config.gaps_max


def test_who_is_silent_is_forgotten_as_others_are_heard_whether_it_spoke_much_or_little() -> None:
    """A defect: who had spoken little was not forgotten while anybody spoke often."""
    table = Table(BroadcastConfig(remembered_s=100.0, age_max_s=60.0))
    for number in range(1, 20):
        assert table.why_not(1, number, 0.0) is None
    for origin in (2, 3, 4):
        assert table.why_not(origin, 1, 0.0) is None
    for number in range(1, 20):
        assert table.why_not(9, number, 101.0) is None
    assert len(table.origins) == 1


def test_the_gaps_of_who_speaks_again_after_long_are_counted_no_more() -> None:
    """A defect: they were counted for ever, until no gap of anybody's was remembered."""
    table = Table(BroadcastConfig(remembered_s=100.0, age_max_s=60.0))
    for now in (0.0, 101.0, 202.0):
        for epoch, number in ((1, 1), (1, 3), (2, 5), (2, 7)):
            table.why_not(5, number + int(now), now, epoch=epoch + int(now))
            assert table.gaps == table.origins._gaps
    assert table.gaps == 2


def test_only_the_latest_two_epochs_are_known() -> None:
    table = Table()
    key = bytes(peer(5))
    for epoch in (2, 4, 6):
        assert table.why_not(5, 7, 0.0, epoch=epoch) is None
    known = {epoch for epoch in range(9) if table.origins.get(key, epoch) is not None}
    assert known == {4, 6}
    assert table.why_not(5, 8, 0.0, epoch=2) == table.why_not(5, 8, 0.0, epoch=5) == "earlier run"
    assert table.why_not(5, 8, 0.0, epoch=4) is None, "it was still on its way"
    assert table.why_not(5, 7, 0.0, epoch=4) == "repeated"


def test_what_may_yet_come_of_an_epoch() -> None:
    table = Table()
    key = bytes(peer(5))
    for number in (3, 7):
        assert table.why_not(5, number, 0.0, epoch=2) is None
    assert list(table.origins.missing_in(key, 2, 1, 9)) == [(1, 2), (4, 6), (8, 9)]
    assert list(table.origins.missing_in(key, 3, 1, 9)) == [(1, 9)]
    assert list(table.origins.missing_in(key, 1, 1, 9)) == [], "it is over"
    assert list(table.origins.missing_in(b"?" * 32, 1, 1, 9)) == [(1, 9)]


@given(st.sets(st.integers(1, 40)), st.integers(0, 20), st.integers(1, 50), st.integers(0, 40))
def test_what_is_missing_is_what_a_set_says(
    numbers: set[int], floor: int, first: int, width: int
) -> None:
    seen = SeenNumbers(floor)
    for number in sorted(numbers):
        if number not in seen:
            seen.add(number)
    found = {n for a, b in seen.missing_in(first, first + width) for n in range(a, b + 1)}
    assert found == {n for n in range(first, first + width + 1) if n not in seen}
