"""The order of an origin's broadcasts at one node, for readers who mind it and who do not."""

from __future__ import annotations

from collections import Counter
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from meshwalk.config import BroadcastConfig
from meshwalk.events import Delivery
from meshwalk.proto.broadcast.ordering import TIMER, Ordering
from meshwalk.proto.effects import Deliver, Readers
from meshwalk.proto.timers import Timers
from meshwalk.wire.frames import ContentType
from meshwalk.wire.peerid import PeerId

ORIGIN = PeerId(bytes(range(32)))
WAIT_S = BroadcastConfig().order_wait_s


class Desk:
    """An ordering, and the numbers that it hands over to those who mind the order."""

    def __init__(self, config: BroadcastConfig | None = None) -> None:
        self.timers = Timers()
        self.counts: Counter[str] = Counter()
        self.ordering = Ordering(config or BroadcastConfig(), self.timers, self.counts)
        self.at_once: list[int] = []
        """What those got who do not mind."""

    def arrived(
        self, number: int, now: float = 0.0, epoch: int = 1, size: int = 1, first: int = 0
    ) -> list[int]:
        delivery = Delivery(ORIGIN, b"", ContentType.BYTES, is_broadcast=True, sequence=number)
        out = self.ordering.arrived(
            bytes(ORIGIN), epoch, number, [delivery], size, first or number, now
        )
        return self.read(out)

    def gone(self, number: int, now: float = 0.0, epoch: int = 1) -> list[int]:
        return self.read(self.ordering.gone(bytes(ORIGIN), epoch, number, now))

    def tick(self, now: float) -> list[int]:
        out: list[int] = []
        for machine, origin in self.timers.due(now):
            assert machine == TIMER
            assert isinstance(origin, bytes)
            out += self.read(self.ordering.tick(origin, now))
        return out

    def read(self, out: list[Deliver]) -> list[int]:
        self.at_once += [d.delivery.sequence for d in out if d.readers is not Readers.ORDERED]
        return [d.delivery.sequence for d in out if d.readers is not Readers.UNORDERED]


def test_what_comes_in_order_waits_for_nothing() -> None:
    desk = Desk()
    assert [desk.arrived(number) for number in (7, 8, 9)] == [[7], [8], [9]]
    assert desk.timers.next() is None


def test_what_comes_early_is_held_until_the_gap_is_filled() -> None:
    desk = Desk()
    assert desk.arrived(1) == [1]
    assert desk.arrived(4) == desk.arrived(3) == []
    assert desk.at_once == [1, 4, 3], "who does not mind has them already"
    assert desk.arrived(2) == [2, 3, 4]
    assert desk.at_once == [1, 4, 3, 2]
    assert desk.ordering.held == 0
    assert desk.timers.next() is None


def test_a_bundle_stays_together() -> None:
    desk = Desk()
    both = [
        Delivery(ORIGIN, body, ContentType.BYTES, is_broadcast=True, sequence=number)
        for number, body in ((2, b"a"), (3, b"b"))
    ]
    assert desk.arrived(1) == [1]
    assert desk.read(desk.ordering.arrived(bytes(ORIGIN), 1, 3, both, 9, 3, 0.0)) == []
    assert desk.ordering.held == 1
    assert desk.arrived(2) == [2, 2, 3]


def test_a_gap_that_nothing_fills_is_given_up_in_time() -> None:
    desk = Desk()
    assert desk.arrived(1, 0.0) == [1]
    assert desk.arrived(3, 1.0) == desk.arrived(6, 1.5) == []
    assert desk.timers.next() == 1.0 + WAIT_S
    assert desk.tick(1.0 + WAIT_S) == [3]
    assert desk.tick(1.0 + 2 * WAIT_S) == [6]
    assert desk.counts["gaps given up"] == 2
    assert desk.arrived(2, 20.0) == [2], "late, but not lost"
    assert desk.counts["late"] == 1
    assert desk.arrived(7, 20.0) == [7]


def test_a_gap_that_is_being_filled_may_take_longer() -> None:
    desk = Desk()
    assert desk.arrived(1, 0.0) == [1]
    assert desk.arrived(100, 0.0) == []
    step_s = WAIT_S * 0.4
    for number in range(2, 100):
        assert desk.tick(number * step_s) == []
        out = desk.arrived(number, number * step_s)
        assert out == ([number] if number < 99 else [99, 100])
    assert desk.counts["gaps given up"] == 0


def test_nobody_waits_for_what_nobody_has() -> None:
    desk = Desk()
    assert desk.arrived(1) == [1]
    assert desk.arrived(4) == []
    assert desk.gone(3, 0.5) == [], "2 may yet come"
    assert desk.gone(2, 0.5, epoch=7) == []
    assert desk.gone(2, 0.5) == []
    assert desk.gone(3, 0.5) == [4]
    assert desk.gone(5, 0.5) == [], "nothing waits for it"
    assert desk.arrived(5) == [5]
    assert desk.timers.next() is None


def test_a_restart_of_the_origin_begins_a_new_line() -> None:
    desk = Desk()
    assert desk.arrived(1) == [1]
    assert desk.arrived(3) == []
    assert desk.arrived(1, epoch=2) == [3, 1]
    assert desk.arrived(2, epoch=2) == [2]
    assert desk.timers.next() is None


def test_what_is_known_to_have_been_before_is_waited_for() -> None:
    desk = Desk()
    assert desk.arrived(5, first=3) == []
    assert desk.arrived(4, first=4) == []
    assert desk.arrived(3, first=3) == [3, 4, 5]


def test_what_was_read_in_an_earlier_run_is_not_waited_for() -> None:
    desk = Desk()
    desk.ordering.begins_behind(bytes(ORIGIN), 1, 7)
    assert desk.arrived(9, first=2) == []
    assert desk.arrived(8) == [8, 9]


def test_what_is_left_of_an_earlier_epoch_comes_late() -> None:
    desk = Desk()
    assert desk.arrived(1, epoch=2) == [1]
    assert desk.arrived(9, epoch=1) == [9]
    assert desk.counts["late"] == 1
    assert desk.arrived(2, epoch=2) == [2]


def test_an_origin_that_is_forgotten_leaves_nothing() -> None:
    desk = Desk()
    assert desk.arrived(1) == [1]
    assert desk.arrived(3) == desk.arrived(5) == []
    assert desk.read(desk.ordering.forget(bytes(ORIGIN))) == [3, 5]
    assert desk.ordering.held == 0
    assert desk.timers.next() is None
    assert desk.ordering.forget(bytes(ORIGIN)) == []


def test_what_is_held_is_bounded_in_number_and_bytes() -> None:
    many = Desk(BroadcastConfig(order_held_max=3))
    assert many.arrived(1) == [1]
    assert [many.arrived(n) for n in (3, 5, 7)] == [[], [], []]
    assert many.arrived(9) == [3, 5, 7, 9]
    assert many.at_once == [1, 3, 5, 7, 9], "each once"
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
    assert desk.at_once == [1, *numbers]
    assert desk.ordering.held == 0
    assert len(desk.timers) == 0


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("came"), st.integers(1, 30)),
            st.tuples(st.just("gone"), st.integers(1, 30)),
            st.tuples(st.just("wait"), st.integers(1, 5)),
        ),
        max_size=80,
    )
)
def test_each_reader_gets_each_once_whatever_is_lost(steps: list[tuple[str, int]]) -> None:
    config = BroadcastConfig(order_held_max=5)
    desk, now, came, read = Desk(config), 0.0, list[int](), list[int]()
    for what, number in steps:
        if what == "came" and number not in came:
            came.append(number)
            read += desk.arrived(number, now)
        elif what == "gone" and number not in came:
            read += desk.gone(number, now)
        elif what == "wait":
            now += number
            read += desk.tick(now)
        assert desk.ordering.held <= config.order_held_max
        assert desk.at_once == came
        assert (desk.timers.next() is None) == (desk.ordering.held == 0)
    while (at := desk.timers.next()) is not None:
        read += desk.tick(at)
    assert sorted(read) == sorted(came)
    assert desk.ordering.held == desk.ordering._held_bytes == 0
