"""The way in: each neighbour its rate and its turn, each origin its rate."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from meshwalk.config import IntakeConfig
from meshwalk.proto.broadcast.intake import RECEIVERS_ALLOW, TIMER, Intake, Turn
from meshwalk.proto.broadcast.origins import Origin
from meshwalk.proto.timers import Timers
from meshwalk.wire.peerid import PeerId

from .scene import peer

A, B, C = (peer(number) for number in (1, 2, 3))
CONFIG = IntakeConfig(checks_per_turn=4, turn_s=1.0, waiting_max=10, waiting_bytes_max=100)


class Desk:
    """One way in; what is taken, in order."""

    def __init__(self, config: IntakeConfig = CONFIG) -> None:
        self.timers = Timers()
        self.counts: Counter[str] = Counter()
        self.intake: Intake[int] = Intake(config, self.timers, self.counts)
        self.taken: list[tuple[PeerId, int]] = []

    def offer(self, by: PeerId, item: int, now: float = 0.0, size: int = 1) -> bool:
        if not self.intake.allows_link(by, size, now):
            return False
        if self.intake.offer(by, item, size, now) is not Turn.NOW:
            return False
        self.taken.append((by, item))
        return True

    def run(self, until: float) -> None:
        while (at := self.timers.next()) is not None and at <= until:
            for machine, _ in self.timers.due(at):
                assert machine == TIMER
                before = len(self.taken)
                self.taken += self.intake.tick(at)
                assert len(self.taken) - before <= CONFIG.checks_per_turn


def test_so_many_are_taken_at_once_and_the_rest_in_turns() -> None:
    desk = Desk()
    assert [desk.offer(A, item) for item in range(10)] == [True] * 4 + [False] * 6
    assert desk.intake.waiting == 6
    desk.run(1.0)
    assert [item for _, item in desk.taken] == list(range(8))
    desk.run(2.0)
    assert [item for _, item in desk.taken] == list(range(10))
    assert len(desk.timers) == 0
    assert desk.offer(A, 10, 2.5), "the turn has room"


def test_what_comes_later_does_not_overtake_what_waits() -> None:
    desk = Desk()
    for item in range(6):
        desk.offer(A, item)
    assert not desk.offer(A, 6, 1.5), "the turn before is not over"
    desk.run(2.0)
    assert [item for _, item in desk.taken] == list(range(7))


def test_a_neighbour_that_floods_starves_nobody() -> None:
    desk = Desk()
    for item in range(1000):
        desk.offer(A, item)
    for item in range(3):
        desk.offer(B, item)
    desk.offer(C, 0)
    desk.run(1.0)
    assert Counter(by for by, _ in desk.taken[4:]) == {A: 2, B: 1, C: 1}
    desk.run(2.0)
    assert [item for by, item in desk.taken if by == B] == [0, 1, 2]


def test_what_waits_is_bounded_in_number_and_bytes() -> None:
    desk = Desk()
    for item in range(50):
        desk.offer(A, item)
    assert desk.intake.waiting == CONFIG.waiting_max
    for item in range(50):
        desk.offer(B, item, size=40)
    assert desk.intake._from[B].bytes == 80
    assert desk.counts["dropped unread"] == (50 - 4 - 10) + (50 - 2)


def test_who_has_gone_has_no_turn() -> None:
    desk = Desk()
    for by in (A, B):
        for item in range(6):
            desk.offer(by, item)
    desk.intake.forget(A)
    desk.intake.forget(C)
    desk.run(10.0)
    assert {by for by, _ in desk.taken[4:]} == {B}
    assert desk.intake.waiting == desk.intake.waiting_peers == 0


def test_a_neighbour_keeps_to_its_rate() -> None:
    desk = Desk(IntakeConfig(link_bytes_per_s=10.0, link_burst_bytes=100, cost_bytes=5))
    allowed = [desk.intake.allows_link(A, 46, 0.0) for _ in range(3)]
    assert allowed == [True, True, False], "100 bytes at once"
    assert desk.intake.allows_link(B, 45, 0.0), "the others have theirs"
    assert not desk.intake.allows_link(A, 45, 0.0)
    assert desk.intake.allows_link(A, 45, 0.3)
    assert desk.counts["above a neighbour's rate"] == 2


def test_an_origin_keeps_to_its_rate_whoever_passes_it_on() -> None:
    desk = Desk(IntakeConfig(origin_bytes_per_s=10.0, origin_burst_bytes=100, cost_bytes=5))
    origin, other = Origin(1, 0), Origin(1, 0)
    allowed = [desk.intake.allows_origin(origin, 45, 0.0) for _ in range(10)]
    assert sum(allowed) == RECEIVERS_ALLOW * 100 // 50 + 1
    assert desk.intake.allows_origin(other, 45, 0.0)
    assert desk.counts["above an origin's rate"] == 10 - sum(allowed)
    assert not desk.intake.allows_origin(origin, 45, 1.0)
    assert desk.intake.allows_origin(origin, 45, 6.0)


@given(
    st.lists(st.tuples(st.sampled_from([A, B, C]), st.floats(0, 0.7), st.booleans()), max_size=120)
)
def test_each_is_taken_once_and_in_its_order_or_dropped(
    offers: list[tuple[PeerId, float, bool]],
) -> None:
    desk, now, gone = Desk(), 0.0, 0
    for item, (by, later, leaves) in enumerate(offers):
        now += later
        desk.run(now)
        if leaves and item % 10 == 0:
            gone += len(desk.intake._from[by].items) if by in desk.intake._from else 0
            desk.intake.forget(by)
        desk.offer(by, item, now)
        for waiting in desk.intake._from.values():
            assert len(waiting.items) <= CONFIG.waiting_max
            assert waiting.bytes == sum(size for _, size in waiting.items)
        assert (desk.intake.waiting > 0) <= (desk.timers.next() is not None)
    desk.run(now + 1000.0)
    assert desk.intake.waiting == desk.intake.waiting_peers == 0
    assert len(desk.timers) == 0
    for by in (A, B, C):
        items = [item for one, item in desk.taken if one == by]
        assert items == sorted(set(items))
    assert len(desk.taken) + desk.counts["dropped unread"] + gone == len(offers)


def test_a_neighbour_brings_only_so_many_new_origins() -> None:
    desk = Desk(IntakeConfig(newcomers_per_s=2.0, newcomers_burst=3))
    desk.offer(A, 0)
    desk.offer(B, 0)
    assert [desk.intake.allows_newcomer(A, 0.0) for _ in range(5)] == [True] * 3 + [False] * 2
    assert desk.intake.allows_newcomer(B, 0.0), "each has its own"
    assert desk.intake.allows_newcomer(A, 1.0)
    assert desk.counts["too many new origins"] == 2
