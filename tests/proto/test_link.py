"""One link, input by input."""

from __future__ import annotations

import gc
from itertools import count

import pytest

from meshwalk.config import LinkConfig
from meshwalk.proto.effects import Effect, Measured, Send, Shut
from meshwalk.proto.link import Arrived, Asked, Ended, Link, LinkState, Opened
from meshwalk.proto.roundtrips import RoundTrips
from meshwalk.wire.address import Address
from meshwalk.wire.frames import (
    PROTOCOL_VERSION,
    Channel,
    Close,
    CloseReason,
    Credit,
    Frame,
    Hello,
    Message,
    Ping,
    Pong,
    Purpose,
)
from meshwalk.wire.peerid import PeerId

CONFIG = LinkConfig()
PEER = PeerId(bytes(32))
HELLO = Hello(PROTOCOL_VERSION, Purpose.STANDING, 0, "")
MESSAGE = Message(1, 0, Channel.APPLICATION, b"")
CREDIT = Credit(1, True, 0, 0, 0)
FRAMES: list[Frame] = [HELLO, MESSAGE, CREDIT, Ping(1, 0), Pong(1, 0, 0, 0), Close(0)]


class Bench:
    """A link and what it has had done."""

    def __init__(
        self, state: LinkState, *, outbound: bool = False, purpose: Purpose = Purpose.STANDING
    ) -> None:
        self.out: list[Effect] = []
        self.link = Link(
            1,
            CONFIG,
            self.out,
            count(1).__next__,
            outbound=outbound,
            remote=Address("10.0.0.1", 1),
            now=0.0,
            purpose=purpose,
        )
        hello = Hello(PROTOCOL_VERSION, purpose, 0, "")
        if state is not LinkState.SECURING:
            self.link.secured(PEER, hello if outbound else None, 0.0)
        if state in (LinkState.OPEN, LinkState.CLOSING):
            self.link.receive(hello, 0.0)
            if not outbound:
                self.link.consent(hello, 0.0)
        if state is LinkState.CLOSING:
            self.link.close(CloseReason.DUPLICATE, "", 0.0)
        assert self.link.state is state
        self.out.clear()


def test_refused_stranger_is_not_heard() -> None:
    """A defect: what an uninvited dialler sent after its greeting was delivered and flooded."""
    bench = Bench(LinkState.GREETING)
    assert isinstance(bench.link.receive(HELLO, 0.0), Asked)
    bench.link.close(CloseReason.UNINVITED, "", 0.0)
    assert bench.link.receive(MESSAGE, 0.0) is None
    assert bench.link.receive(CREDIT, 0.0) is None


def test_a_closing_link_that_was_open_hears_messages() -> None:
    bench = Bench(LinkState.CLOSING)
    assert bench.link.receive(MESSAGE, 0.0) == Arrived(MESSAGE)
    assert bench.link.receive(CREDIT, 0.0) == Arrived(CREDIT)
    assert bench.out == []


@pytest.mark.parametrize("outbound", [True, False])
@pytest.mark.parametrize("state", [s for s in LinkState if s is not LinkState.CLOSED])
@pytest.mark.parametrize("frame", FRAMES, ids=lambda f: type(f).__name__)
def test_every_frame_in_every_state_twice(state: LinkState, frame: Frame, outbound: bool) -> None:
    bench = Bench(state, outbound=outbound)
    ends = 0
    for _ in range(2):
        news = bench.link.receive(frame, 0.0)
        if isinstance(news, Asked):
            news = bench.link.close(CloseReason.FULL, "", 0.0)
        ends += isinstance(news, Ended)
    ends += isinstance(bench.link.lost("", not_admitted=False), Ended)
    assert ends == (0 if state is LinkState.CLOSING else 1), "Ended is said once"
    assert bench.link.state is LinkState.CLOSED


def test_second_hello_breaks_the_protocol() -> None:
    bench = Bench(LinkState.OPEN)
    news = bench.link.receive(HELLO, 0.0)
    assert isinstance(news, Ended)
    assert news.reason is CloseReason.PROTOCOL
    assert Shut(1, at_once=False) in bench.out


def test_malformed_while_closing_shuts() -> None:
    """A defect: the stream was out of step, and the link read on."""
    bench = Bench(LinkState.CLOSING)
    assert bench.link.close(CloseReason.MALFORMED, "", 0.0) is None
    assert bench.link.state is LinkState.CLOSED
    assert bench.out == [Shut(1, at_once=True)]


@pytest.mark.parametrize("outbound", [True, False])
def test_securing_ends_by_itself(outbound: bool) -> None:
    """A defect: without a driver's time-out a dial into a black hole stayed for ever."""
    bench = Bench(LinkState.SECURING, outbound=outbound)
    at = bench.link.deadline()
    assert at is not None
    assert bench.link.tick(at - 0.01) is None
    news = bench.link.tick(at)
    assert isinstance(news, Ended)
    assert (news.reason, news.by_us) == (None, False)
    assert bench.out == [Shut(1, at_once=True)]


def test_hello_in_time_or_never() -> None:
    bench = Bench(LinkState.GREETING)
    news = bench.link.tick(CONFIG.hello_timeout_s)
    assert isinstance(news, Ended)
    assert news.reason is CloseReason.IDLE


def test_wrong_version() -> None:
    bench = Bench(LinkState.GREETING)
    news = bench.link.receive(Hello(2, Purpose.STANDING, 0, ""), 0.0)
    assert isinstance(news, Ended)
    assert news.reason is CloseReason.VERSION
    assert bench.link.state is LinkState.CLOSED


@pytest.mark.parametrize("purpose", list(Purpose))
@pytest.mark.parametrize("state", [s for s in LinkState if s is not LinkState.CLOSED])
def test_ticks_at_deadlines_never_stand_still(state: LinkState, purpose: Purpose) -> None:
    bench = Bench(state, purpose=purpose, outbound=True)
    bench.link.stalled_at = 3.0
    last = -1.0
    for _ in range(100):
        at = bench.link.deadline()
        if at is None:
            break
        assert at > last, "a timer that loops"
        last = at
        bench.link.tick(at)
    assert bench.link.state is LinkState.CLOSED, "silence ends every link"


def test_pings_are_bounded_and_only_answers_count() -> None:
    bench = Bench(LinkState.OPEN)
    ids = [bench.link.ping(float(n)) for n in range(100)]
    assert len(bench.link._pings) == CONFIG.rtt_window
    bench.out.clear()
    bench.link.receive(Pong(ids[0], 0, 0, 0), 100.0)
    bench.link.receive(Pong(12345, 0, 0, 0), 100.0)
    assert bench.out == []
    bench.link.receive(Pong(ids[-1], 0, 0, 0), 100.0)
    bench.link.receive(Pong(ids[-1], 0, 0, 0), 100.0)
    assert bench.out == [Measured(ids[-1], 1.0)]


def test_nobody_is_told_of_pings_that_nobody_asked_for() -> None:
    bench = Bench(LinkState.OPEN)
    at = bench.link.deadline()
    assert at is not None
    bench.link.tick(at)
    (sent,) = bench.out
    assert isinstance(sent, Send)
    assert isinstance(sent.frame, Ping)
    asked = bench.link.ping(at)
    bench.out.clear()
    bench.link.receive(Pong(sent.frame.id, 0, 0, 0), at + 0.25)
    assert bench.out == []
    bench.link.receive(Pong(asked, 0, 0, 0), at + 0.5)
    assert bench.out == [Measured(asked, 0.5)]
    assert list(bench.link.round_trips.samples) == [0.25, 0.5]


def test_pong_with_absurd_stamps() -> None:
    bench = Bench(LinkState.OPEN)
    for stamps in ((2**64 - 1, 0), (0, 2**64 - 1)):
        id = bench.link.ping(1.0)
        bench.link.receive(Pong(id, 0, *stamps), 1.5)
    assert list(bench.link.round_trips.samples) == [0.5, 0.5]


def test_clock_offset_is_that_of_the_quickest_sample_kept() -> None:
    """A defect: when the quickest left the window, the latest sample's offset was taken."""
    trips = RoundTrips(3)
    assert (trips.mean_s, trips.jitter_s, trips.clock_offset_s) == (None, None, None)
    for rtt_s, offset_s in ((1.0, 10.0), (2.0, 20.0), (4.0, 40.0), (3.0, 30.0)):
        trips.add(rtt_s, offset_s)
    assert trips.clock_offset_s == 20.0
    assert trips.mean_s == 3.0
    assert trips.jitter_s == 1.5


def test_close_text_is_fit_for_a_log() -> None:
    """A defect: control characters of a stranger went to the screen."""
    bench = Bench(LinkState.OPEN)
    news = bench.link.receive(Close(99, "\x1b[2Jhi\nthere"), 0.0)
    assert isinstance(news, Ended)
    assert (news.reason, news.text) == (None, "?[2Jhi there")
    assert bench.out == [Send(1, Close(99)), Shut(1, at_once=False)]


def test_retired_link_closes_itself_if_its_peer_does_not() -> None:
    bench = Bench(LinkState.OPEN)
    bench.link.retire(1.0)
    assert bench.link.tick(1.0) is None
    news = bench.link.tick(1.0 + CONFIG.close_timeout_s)
    assert isinstance(news, Ended)
    assert news.reason is CloseReason.DUPLICATE


def test_a_link_for_conversations_is_pinged_and_ends_when_it_is_unused() -> None:
    """Else a pair that is silent in a long conversation would lose its link, or never close it."""
    bench = Bench(LinkState.OPEN, purpose=Purpose.CONVERSATION)
    link, used_until = bench.link, 100.0
    while True:
        at = link.deadline()
        assert at is not None
        if at < used_until:
            link.used_at = at  # as a message, or a conversation that is under way, does
        news = link.tick(at)
        if news is not None:
            break
        for effect in bench.out:
            if isinstance(effect, Send) and isinstance(effect.frame, Ping):
                assert link.receive(Pong(effect.frame.id, 0, 0, 0), at) is None
        bench.out.clear()
    assert isinstance(news, Ended)
    assert (news.reason, news.text) == (CloseReason.DONE, "unused")
    unused_s = at - link.used_at
    assert 0 <= unused_s - CONFIG.temporary_timeout_s <= CONFIG.ping_interval_s


@pytest.mark.parametrize(
    ("purpose", "expected"),
    [
        (Purpose.STANDING, True),
        (Purpose.JOIN_REQUEST, False),
        (Purpose.JOIN_ACCEPT, True),
        (Purpose.JOIN_SPLIT, True),
        (Purpose.PROBE, False),
        (Purpose.CONVERSATION, True),
    ],
)
@pytest.mark.parametrize("outbound", [True, False])
def test_what_carries_messages_of_applications(
    purpose: Purpose, expected: bool, outbound: bool
) -> None:
    assert Bench(LinkState.OPEN, purpose=purpose, outbound=outbound).link.may_converse is expected


def test_the_peers_clock_is_known_from_its_greeting_and_better_from_pings() -> None:
    """`peer_epoch_s` is our time when the peer's clock was 0."""
    bench = Bench(LinkState.GREETING, outbound=True)
    link = bench.link
    # The peer's clock is 90 s ahead of ours, and the greeting takes 0.5 s.
    link.receive(Hello(PROTOCOL_VERSION, Purpose.STANDING, 91_000_000, ""), 1.5)
    assert link.peer_epoch_s == pytest.approx(-89.5)
    for sent_at, there_s, back_s in ((2.0, 0.3, 0.1), (3.0, 0.1, 0.1), (4.0, 0.1, 0.9)):
        id = link.ping(sent_at)
        at_us = int((sent_at + there_s + 90) * 1e6)
        link.receive(Pong(id, 0, at_us, at_us), sent_at + there_s + back_s)
    assert link.peer_epoch_s == pytest.approx(-90.0), "by the quickest, which was as long each way"
    assert link.rtt_s == pytest.approx(0.2)


def test_how_long_messages_wait_on_their_way() -> None:
    bench = Bench(LinkState.OPEN)
    link = bench.link
    assert Bench(LinkState.OPEN).link.queueing_s is None
    link.peer_epoch_s = 10.0
    link.arrived(1_000_000, 11.25)
    assert [link.delay_s, link.queueing_s] == [0.25, 0.0]
    for number in range(2, 100):
        link.arrived(number * 1_000_000, 10 + number + 0.75)
    assert link.delay_s == pytest.approx(0.75, abs=0.01)
    assert link.queueing_s == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("sent_at_us", [0, 2**64 - 1])
def test_absurd_times_of_sending(sent_at_us: int) -> None:
    bench = Bench(LinkState.GREETING)
    bench.link.receive(Hello(PROTOCOL_VERSION, Purpose.STANDING, sent_at_us, ""), 0.0)
    for _ in range(3):
        bench.link.arrived(2**64 - 1 - sent_at_us, 1.0)
    assert bench.link.queueing_s is not None
    assert bench.link.queueing_s >= 0


def test_dialler_opens_with_the_answer() -> None:
    bench = Bench(LinkState.GREETING, outbound=True)
    assert bench.link.receive(HELLO, 0.0) == Opened(HELLO)
    assert bench.link.is_open


def test_a_link_that_nobody_holds_is_freed_at_once() -> None:
    # A simulator, and a node with many short links, should not depend on the garbage collector.
    gc.disable()
    try:
        before = sum(type(thing) is Link for thing in gc.get_objects())
        for state in LinkState:
            if state is not LinkState.CLOSED:
                Bench(state)
        assert sum(type(thing) is Link for thing in gc.get_objects()) == before
    finally:
        gc.enable()
