"""Pings of one link: when its peer becomes suspect, and when it does not."""

from __future__ import annotations

from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshwalk.config import Config, DetectionConfig, LinkConfig
from meshwalk.proto.connections import Connections
from meshwalk.proto.effects import Effect, Send
from meshwalk.proto.link import Arrived, Ended, Link, News
from meshwalk.proto.pinging import BUSY_S, Recovered, Suspected
from meshwalk.proto.roundtrips import RoundTrips
from meshwalk.proto.timers import Timers
from meshwalk.wire.address import Address
from meshwalk.wire.frames import (
    PROTOCOL_VERSION,
    Channel,
    CloseReason,
    Hello,
    Message,
    Ping,
    Pong,
    Purpose,
)
from meshwalk.wire.peerid import PeerId

PEER = PeerId(bytes(31) + b"\x01")
REMOTE = Address("10.0.0.2", 1)
LINK = LinkConfig()
LEAST_S = DetectionConfig().least_s
UNKNOWN_S = LINK.idle_timeout_s / 2
MESSAGE = Message(1, 0, Channel.APPLICATION, b"")
EPSILON_S = 1e-6


class Bench:
    """An open link in its table, whose ticks come when they are due."""

    def __init__(
        self, purpose: Purpose = Purpose.JOIN_ACCEPT, config: Config | None = None
    ) -> None:
        self.out: list[Effect] = []
        self.timers = Timers()
        self.table = Connections(
            PeerId(bytes(32)),
            config or Config(),
            self.timers,
            self.out,
            count(1).__next__,
            lambda remote: b"",
            "",
        )
        link = self.table.dial(REMOTE, PEER, purpose, b"", 0.0)
        assert link is not None
        self.link: Link = link
        self.table.secured(link.number, PEER, REMOTE, 0.0)
        self.table.receive(link.number, Hello(PROTOCOL_VERSION, purpose, 0, ""), 0.0)
        assert link.is_open
        self.out.clear()
        self.news: list[tuple[float, News]] = []

    def is_suspect(self) -> bool:
        return self.link.suspected_at is not None

    def pings(self) -> list[int]:
        """Ids of the pings that were sent since this was last asked."""
        ids = [e.frame.id for e in self.out if isinstance(e, Send) and isinstance(e.frame, Ping)]
        self.out.clear()
        return ids

    def until(self, end: float) -> list[tuple[float, News]]:
        """Let time pass: what the link had to say, and when."""
        news = []
        while (at := self.timers.next()) is not None and at <= end:
            for _, number in self.timers.due(at):
                assert isinstance(number, int)
                if (said := self.table.tick(number, at)) is not None:
                    news.append((at, said[1]))
        self.news += news
        return news

    def answered(self, end: float, *rtts_s: float) -> None:
        """Let time pass; the pings are answered after these times, in turn."""
        number = 0
        self.pings()
        while (at := self.timers.next()) is not None and at <= end:
            self.until(at)
            for id in self.pings():
                rtt_s = rtts_s[number % len(rtts_s)]
                number += 1
                self.until(at + rtt_s)
                assert self.link.ponged(Pong(id, 0, 0, 0), at + rtt_s)
        assert self.news == []


def test_a_quick_peer_is_suspected_after_a_second_and_its_round_trip() -> None:
    bench = Bench()
    bench.answered(100.0, 0.05)
    ((at, news),) = bench.until(110.0)
    assert news == Suspected()
    assert at == pytest.approx(105.0 + LEAST_S + 0.05)
    assert bench.link.suspected_at == at


def test_a_slow_and_unsteady_peer_is_given_longer() -> None:
    bench = Bench()
    bench.answered(100.0, 0.2, 1.0)
    # The mean is 0.6, the mean deviation 0.4.
    assert bench.link.patience_s == pytest.approx(LEAST_S + 0.6 + 4 * 0.4)
    ((at, news),) = bench.until(110.0)
    assert news == Suspected()
    assert at == pytest.approx(105.0 + bench.link.patience_s)


def test_nobody_seems_closer_by_saying_that_it_held_the_ping() -> None:
    """Links are traded by these round trips."""
    bench = Bench()
    at_us = 90_000_000
    for held_us in (0, 400_000, 500_000, 2**62):
        id = bench.link.measure(100.0)
        assert bench.link.ponged(Pong(id, 0, at_us, at_us + held_us), 100.5)
    assert list(bench.link.round_trips.samples)[-4:] == [pytest.approx(0.5)] * 4
    assert bench.link.rtt_s == pytest.approx(0.5)


def test_nobody_is_given_longer_than_a_link_may_be_idle() -> None:
    bench = Bench()
    for rtt_s in (0.1, 4.9, 0.1, 4.9):
        bench.link.ponged(Pong(bench.link.measure(0.0), 0, 0, 0), rtt_s)
    assert bench.link.patience_s == pytest.approx(LEAST_S + 2.5 + 4 * 2.4)
    for rtt_s in (0.1, 9.9, 0.1, 9.9):
        bench.link.ponged(Pong(bench.link.measure(0.0), 0, 0, 0), rtt_s)
    assert bench.link.patience_s == LINK.idle_timeout_s


def test_a_peer_that_has_answered_nothing_yet_is_given_half_of_what_ends_it() -> None:
    bench = Bench()
    assert bench.until(UNKNOWN_S - 0.01) == []
    assert bench.until(UNKNOWN_S) == [(UNKNOWN_S, Suspected())]


def test_it_is_pinged_once_more_said_once_and_ends_as_before() -> None:
    bench = Bench()
    bench.answered(100.0, 0.05)
    bench.until(106.05)
    assert len(bench.news) == 1
    assert len(bench.pings()) == 2, "one that was not answered, and one more"
    bench.until(200.0)
    (_, ended) = bench.news[1]
    assert isinstance(ended, Ended)
    assert ended.reason is CloseReason.IDLE
    assert bench.news[1][0] == pytest.approx(100.05 + LINK.idle_timeout_s)
    assert len(bench.news) == 2
    assert bench.table.silences == {"suspected": 1, "idle": 1}


@pytest.mark.parametrize("by", ["pong", "ping", "message"])
def test_anything_heard_ends_the_suspicion(by: str) -> None:
    bench = Bench()
    bench.answered(100.0, 0.05)
    bench.until(107.0)
    link = bench.link
    assert bench.is_suspect()
    (*_, last) = bench.pings()
    if by == "pong":
        assert link.ponged(Pong(last, 0, 0, 0), 107.0)
    elif by == "ping":
        link.pinged(Ping(9, 0), 107.0)
    else:
        assert link.receive(MESSAGE, 107.0) == Arrived(MESSAGE)
    assert not bench.is_suspect()
    # It was no more than that, and what follows is another silence.
    assert [what for _, what in bench.until(115.0)] == [Recovered(), Suspected()]
    assert bench.table.silences == {"suspected": 2, "recovered": 1}


def test_each_silence_is_said_once() -> None:
    bench = Bench()
    bench.answered(50.0, 0.05)
    said: list[object] = []
    at = 50.0
    for _ in range(3):
        at += 12.0
        said += [what for _, what in bench.until(at)]
        bench.link.pinged(Ping(1, 0), at)
        for step in range(8):
            at += 1.0
            said += [what for _, what in bench.until(at)]
            bench.link.pinged(Ping(step, 0), at)
    assert said == [Suspected(), Recovered()] * 3
    assert bench.table.silences == {"suspected": 3, "recovered": 3}


def test_a_peer_that_talks_but_does_not_answer_is_not_suspect() -> None:
    bench = Bench()
    for number in range(200):
        bench.link.receive(MESSAGE, number / 2)
        assert bench.until((number + 1) / 2) == []
    assert len(bench.link._pings) == LINK.rtt_window


@pytest.mark.parametrize("purpose", [Purpose.CONVERSATION, Purpose.PROBE, Purpose.JOIN_REQUEST])
def test_only_neighbours_are_suspected(purpose: Purpose) -> None:
    bench = Bench(purpose)
    bench.link.ping(0.0)
    bench.until(100.0)
    assert [type(what) for _, what in bench.news] == [Ended]
    assert bench.table.silences == {}


def test_an_answer_within_one_tick_of_a_coarse_clock() -> None:
    bench = Bench()
    bench.answered(20.0, 0.0)
    bench.until(LINK.ping_interval_s + 20.0)
    (id,) = bench.pings()
    bench.link.ponged(Pong(id, 0, 0, 0), LINK.ping_interval_s + 20.0)
    assert bench.until(LINK.ping_interval_s + 24.9) == []


def test_a_busy_process_reads_before_it_judges() -> None:
    """Of two looks late and early, the second counts."""
    bench = Bench()
    bench.answered(100.0, 0.05)
    bench.until(105.0)
    link = bench.link
    due = link.deadline_open()
    assert due == 105.0 + LEAST_S
    assert link.tick(due + 2.0) is None
    assert link.deadline_open() == due + 2.0 + BUSY_S
    assert link.tick(due + 2.0 + BUSY_S) == Suspected()


# Of whoever slept.


def test_what_a_stopped_process_did_not_hear_is_no_silence() -> None:
    bench = Bench()
    bench.answered(100.0, 0.05)
    bench.until(105.0)
    bench.pings()
    bench.table.doubt(894.0, 1000.0)
    assert len(bench.pings()) == 1, "at once"
    assert bench.link.heard_at == pytest.approx(994.05)
    assert bench.until(1000.0 + LEAST_S) == []
    ((at, news),) = bench.until(1002.0)
    assert news == Suspected()
    assert at == pytest.approx(1000.0 + LEAST_S + 0.05)
    ((at, ended),) = bench.until(1100.0)
    assert isinstance(ended, Ended)
    assert at == pytest.approx(994.05 + LINK.idle_timeout_s)


def test_a_suspicion_from_before_the_sleep_is_forgotten() -> None:
    bench = Bench()
    bench.answered(100.0, 0.05)
    bench.until(107.0)
    assert bench.is_suspect()
    bench.table.doubt(0.0, 107.0)  # the machine's clock stood still
    assert not bench.is_suspect()
    (*_, last) = bench.pings()
    assert bench.link.ponged(Pong(last, 0, 0, 0), 107.05)
    assert bench.until(111.0) == []


def test_short_spells_between_stops_end_a_dead_link() -> None:
    bench = Bench()
    now, awake_s = 0.0, 0.0
    while bench.table.links:
        bench.until(now + 0.5)
        now += 60.5
        awake_s += 0.5
        bench.table.doubt(60.0, now)
        assert awake_s < LINK.idle_timeout_s + 1
    assert bench.table.silences["idle"] == 1
    assert awake_s > LINK.idle_timeout_s - 1


def test_other_time_outs_stand_still_as_well() -> None:
    bench = Bench(Purpose.CONVERSATION)
    link = bench.link
    bench.table.stalled(link.number, 0.0)
    dial = bench.table.dial(REMOTE, PEER, Purpose.PROBE, b"", 0.0)
    assert dial is not None
    bench.table.doubt(99.0, 100.0)
    assert (link.used_at, link.stalled_at, dial.since) == (99.0, 99.0, 99.0)
    bench.until(100.0)
    assert set(bench.table.links.values()) == {link, dial}
    bench.until(99.0 + LINK.stall_timeout_s)
    assert bench.table.ended == {"slow": 1, "lost": 1}


def test_no_time_is_set_to_one_that_has_not_come() -> None:
    bench = Bench()
    bench.link.heard_at = 99.5
    bench.table.doubt(50.0, 100.0)
    assert bench.link.heard_at == 100.0


def test_the_mean_deviation() -> None:
    trips = RoundTrips(4)
    assert trips.mean_deviation_s is None
    for rtt_s in (9.0, 1.0, 2.0, 3.0, 6.0):
        trips.add(rtt_s, 0.0)
    assert trips.mean_s == 3.0
    assert trips.mean_deviation_s == 1.5


# Any order.


STEPS = st.lists(
    st.tuples(
        st.sampled_from([0, 1, 2, 8, 16, 40, 80, 120, 200]),  # sixteenths of a second
        st.sampled_from(["pong", "old pong", "ping", "message", "measure", "nothing", "nothing"]),
    ),
    max_size=60,
)


@given(STEPS)
def test_suspicion_comes_in_time_and_never_too_early(steps: list[tuple[int, str]]) -> None:
    bench = Bench()
    link, number, now = bench.link, bench.link.number, 0.0
    last_s = 0.0  # since the last frame was heard
    silent = [False]

    def let_pass(end: float) -> None:
        while (at := bench.timers.next()) is not None and at <= end and number in bench.table.links:
            due = link.deadline()
            assert due is not None
            # Nothing is due earlier than the link says; the timer may be earlier than needed.
            sent = len(bench.out)
            assert link.tick(due - 1e-3 if due - 1e-3 < at else at - 1e-3) is None
            assert len(bench.out) == sent
            for when, news in bench.until(at):
                silence_s = when - last_s
                if isinstance(news, Suspected):
                    assert not silent[0], "once in each silence"
                    silent[0] = True
                    assert silence_s >= link.patience_s - EPSILON_S
                    assert silence_s <= bound_s() + EPSILON_S
                elif isinstance(news, Ended):
                    assert silence_s >= LINK.idle_timeout_s - EPSILON_S
                    assert silent[0] or bound_s() >= LINK.idle_timeout_s - EPSILON_S
        if number in bench.table.links and end - last_s > bound_s() + EPSILON_S:
            assert silent[0], "too late"
            assert bench.is_suspect()

    def bound_s() -> float:
        return LINK.ping_interval_s + link.patience_s + BUSY_S

    for sixteenths, what in steps:
        now += sixteenths / 16
        let_pass(now)
        if number not in bench.table.links:
            break
        if what == "nothing":
            continue
        if what == "measure":
            link.ping(now)
            continue
        if what.endswith("pong"):
            ids = list(link._pings)
            id = 0 if not ids else ids[0] if what == "old pong" else ids[-1]
            assert link.ponged(Pong(id, 0, 0, 0), now) is bool(ids)
        elif what == "ping":
            link.pinged(Ping(1, 0), now)
        else:
            link.receive(MESSAGE, now)
        last_s, silent[0] = now, False
        assert not bench.is_suspect()
