"""What neighbours are told of: in time, in ranges, once, and no more than is bounded."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from meshwalk.config import HistoryConfig, TreeConfig
from meshwalk.proto.broadcast.announcing import TIMER, Announcing
from meshwalk.proto.broadcast.history import History
from meshwalk.proto.timers import Timers
from meshwalk.wire.gossip import HAVE_ENTRIES_MAX, RANGES_MAX, Have, pairs_of, ranges_of
from meshwalk.wire.peerid import PeerId

from .scene import peer

A, B = peer(1), peer(2)
ONE, OTHER = (b"k" * 32, 1), (b"l" * 32, 1)
EVERY_S = TreeConfig().announce_every_s


class Desk:
    """What one node has to tell."""

    def __init__(self, config: TreeConfig | None = None) -> None:
        self.timers = Timers()
        self.counts: Counter[str] = Counter()
        history = History(HistoryConfig())
        self.announcing = Announcing(config or TreeConfig(), history, self.timers, self.counts)

    def add(self, to: PeerId, *numbers: int, of: tuple[bytes, int] = ONE, now: float = 0.0) -> None:
        for number in numbers:
            self.announcing.add(to, (*of, number), now)

    def tick(self, now: float, *stalled: PeerId) -> list[tuple[PeerId, Have]]:
        takes_more = {one: one not in stalled for one in (A, B)}
        return [
            told
            for machine, _ in self.timers.due(now)
            if machine == TIMER
            for told in self.announcing.tick(takes_more, now)
        ]

    def numbers(self, to: PeerId) -> list[int]:
        """Gathered for a neighbour, counted anew."""
        return [n for found in self.announcing._pending.get(to, {}).values() for n in found]


def told(found: list[tuple[PeerId, Have]]) -> dict[PeerId, set[tuple[bytes, int, int]]]:
    out: dict[PeerId, set[tuple[bytes, int, int]]] = {}
    for to, have in found:
        for held in have.held:
            for first, last in pairs_of(held.ranges):
                ids = {(held.origin, held.epoch, n) for n in range(first, last + 1)}
                assert not ids & out.setdefault(to, set()), "twice"
                out[to] |= ids
    return out


def test_it_is_gathered_for_a_moment_and_told_in_ranges() -> None:
    desk = Desk()
    desk.add(A, 1, 2, 3, 9)
    desk.add(B, 3, now=0.05)
    assert desk.tick(EVERY_S * 0.9) == []
    (first, to_a), (second, to_b) = desk.tick(EVERY_S)
    assert (first, second) == (A, B)
    assert [held.ranges for held in to_a.held] == [[1, 3, 9, 9]]
    assert [held.ranges for held in to_b.held] == [[3, 3]]
    assert len(desk.timers) == 0
    desk.add(A, 4, now=9.0)
    assert desk.timers.next() == 9.0 + EVERY_S


def test_nobody_is_told_what_it_has_told_itself() -> None:
    desk = Desk()
    desk.add(A, 1, 2, 3, 4, 5)
    assert desk.announcing.knows(A, ONE, [2, 3, 5, 5, 7, 9]) == 5
    assert desk.announcing.knows(A, OTHER, [1, 9]) == 0
    assert desk.announcing.knows(B, ONE, [1, 9]) == 0
    assert told(desk.tick(EVERY_S)) == {A: {(*ONE, 1), (*ONE, 4)}}
    desk.add(A, 6)
    desk.announcing.knows(A, ONE, [6, 6])
    assert desk.tick(EVERY_S * 2) == []


@given(st.sets(st.integers(1, 50), max_size=30), st.sets(st.integers(1, 50), min_size=1))
def test_what_a_neighbour_knows_is_what_its_ranges_say(ours: set[int], theirs: set[int]) -> None:
    desk = Desk()
    desk.add(A, *ours)
    desk.announcing.knows(A, ONE, ranges_of(theirs))
    assert set(desk.numbers(A)) == ours - theirs
    assert desk.announcing._gathered[A] == len(ours - theirs)


def test_who_does_not_read_is_told_later() -> None:
    desk = Desk()
    desk.add(A, 1)
    desk.add(B, 1)
    assert set(told(desk.tick(EVERY_S, A))) == {B}
    desk.add(A, 2, now=EVERY_S)
    assert told(desk.tick(EVERY_S * 2)) == {A: {(*ONE, 1), (*ONE, 2)}}
    assert len(desk.timers) == 0


def test_who_has_gone_is_told_nothing() -> None:
    desk = Desk()
    desk.add(A, 1)
    desk.announcing.forget(A)
    desk.announcing.forget(B)
    assert desk.tick(EVERY_S) == []
    assert not desk.announcing._gathered
    assert len(desk.timers) == 0


def test_messages_are_of_a_bounded_size() -> None:
    desk = Desk()
    for origin in range(HAVE_ENTRIES_MAX + 5):
        desk.add(A, 1, of=(origin.to_bytes(32, "big"), 1))
    desk.add(A, *range(1, 6 * RANGES_MAX, 2))
    found = desk.tick(EVERY_S)
    assert len(found) > 1
    for _, have in found:
        assert len(have.held) <= HAVE_ENTRIES_MAX
        assert all(len(held.ranges) <= 2 * RANGES_MAX for held in have.held)
    assert len(told(found)[A]) == HAVE_ENTRIES_MAX + 5 + 3 * RANGES_MAX


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=200))
def test_what_is_gathered_is_bounded_and_the_newest_is_told(adds: list[tuple[int, bool]]) -> None:
    desk = Desk(TreeConfig(announced_max=5))
    for number, (origin, to_a) in enumerate(adds, 1):
        to = A if to_a else B
        desk.add(to, number, of=(bytes([origin]) * 32, 1))
        assert desk.announcing._gathered[to] == len(desk.numbers(to)) <= 5
        assert number in desk.numbers(to), "from a later one the others show"
    left = len(desk.numbers(A)) + len(desk.numbers(B))
    assert left + desk.counts["not announced"] == len(adds)
