"""The order of an origin's broadcasts at one node."""

from __future__ import annotations

from collections import Counter
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from meshwalk.config import BroadcastConfig
from meshwalk.events import Delivery
from meshwalk.proto.ordering import TIMER, Ordering
from meshwalk.proto.timers import Timers
from meshwalk.wire.frames import ContentType
from meshwalk.wire.peerid import PeerId

ORIGIN = PeerId(bytes(range(32)))


class Desk:
    """An ordering, and the numbers that it hands over."""

    def __init__(self, config: BroadcastConfig | None = None) -> None:
        self.timers = Timers()
        self.counts: Counter[str] = Counter()
        self.ordering = Ordering(config or BroadcastConfig(), self.timers, self.counts)

    def arrived(self, number: int, now: float = 0.0, epoch: int = 1, size: int = 1) -> list[int]:
        delivery = Delivery(ORIGIN, b"", ContentType.BYTES, is_broadcast=True, sequence=number)
        return [d.sequence for d in self.ordering.arrived(delivery, epoch, size, now)]

    def tick(self, now: float) -> list[int]:
        out = []
        for machine, origin in self.timers.due(now):
            assert machine == TIMER
            assert isinstance(origin, bytes)
            out += [d.sequence for d in self.ordering.tick(origin, now)]
        return out


def test_what_comes_in_order_waits_for_nothing() -> None:
    desk = Desk()
    assert [desk.arrived(number) for number in (7, 8, 9)] == [[7], [8], [9]]
    assert desk.timers.next() is None


def test_what_comes_early_is_held_until_the_gap_is_filled() -> None:
    desk = Desk()
    assert desk.arrived(1) == [1]
    assert desk.arrived(4) == desk.arrived(3) == []
    assert desk.arrived(2) == [2, 3, 4]
    assert desk.ordering.held == 0
    assert desk.timers.next() is None


def test_a_gap_that_nothing_fills_is_given_up_in_time() -> None:
    desk = Desk()
    assert desk.arrived(1, 0.0) == [1]
    assert desk.arrived(3, 1.0) == desk.arrived(6, 1.5) == []
    assert desk.timers.next() == 2.0
    assert desk.tick(2.0) == [3]
    assert desk.tick(3.0) == [6]
    assert desk.counts["gaps given up"] == 2
    assert desk.arrived(2, 3.0) == [2], "late, but not lost"
    assert desk.arrived(7, 3.0) == [7]


def test_a_gap_that_is_being_filled_may_take_longer() -> None:
    desk = Desk()
    assert desk.arrived(1, 0.0) == [1]
    assert desk.arrived(100, 0.0) == []
    for number in range(2, 100):
        assert desk.tick(number * 0.4) == []
        out = desk.arrived(number, number * 0.4)
        assert out == ([number] if number < 99 else [99, 100])
    assert desk.counts["gaps given up"] == 0


def test_a_restart_of_the_origin_begins_a_new_line() -> None:
    desk = Desk()
    assert desk.arrived(1) == [1]
    assert desk.arrived(3) == []
    assert desk.arrived(1, epoch=2) == [3, 1]
    assert desk.arrived(2, epoch=2) == [2]
    assert desk.timers.next() is None


def test_what_is_held_is_bounded_in_number_and_bytes() -> None:
    many = Desk(BroadcastConfig(order_held_max=3))
    assert many.arrived(1) == [1]
    assert [many.arrived(n) for n in (3, 5, 7)] == [[], [], []]
    assert many.arrived(9) == [3, 5, 7, 9]
    assert many.arrived(10) == [10]
    big = Desk(BroadcastConfig(order_held_bytes_max=100))
    assert big.arrived(1) == [1]
    assert big.arrived(3, size=60) == []
    assert big.arrived(4, size=60) == [3, 4]
    assert big.ordering.held == many.ordering.held == 0


@given(st.randoms(use_true_random=False), st.integers(1, 60))
def test_each_comes_once_and_in_order_however_it_arrives(rng: Random, count: int) -> None:
    desk = Desk()
    numbers = list(range(2, count + 2))
    rng.shuffle(numbers)
    out = desk.arrived(1)
    for number in numbers:
        out += desk.arrived(number)
    assert out == list(range(1, count + 2))
    assert desk.ordering.held == 0
    assert len(desk.timers) == 0
