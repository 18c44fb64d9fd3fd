"""Turns and rates: nobody waits for more than one part of each other, and the rates hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import count
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshwalk.config import Config, LinkConfig, PacingConfig
from meshwalk.proto.dispatch.dispatch import Dispatch
from meshwalk.proto.effects import Ask, Effect, PeerRoom, Send, WantRoom
from meshwalk.proto.link import Link, LinkState
from meshwalk.proto.timers import Timers
from meshwalk.wire.address import Address
from meshwalk.wire.frames import (
    SHARED_WINDOW_BYTES,
    Channel,
    CloseReason,
    ContentType,
    Credit,
    Message,
    Purpose,
)
from meshwalk.wire.peerid import PeerId

from .pair import Pair
from .smallnodes import FIRST_WINDOW, paced, small, small_windows

BYTES = ContentType.BYTES
COST = 64  # of a message beyond its body: `PART_COST_BYTES`


@pytest.fixture(autouse=True, scope="module")
def windows() -> Iterator[None]:
    with small_windows():
        yield


# Conversations in turn.


@pytest.mark.parametrize("others", [1, 4])
def test_a_small_message_waits_for_one_part_of_each_other(others: int) -> None:
    pair = Pair(small(window_bytes_max=1 << 20, shared_window_bytes=1 << 20))
    wire = pair.connect()
    sender = pair.ends[0]
    quick = sender.open(b"quick")
    assert quick is not None
    for _ in range(others):
        talk = sender.open(bytes(200_000))
        assert talk is not None
    ahead = len(wire.to[1])
    sender.say(quick, b"small")
    seen: list[Message] = []
    while not any(message.body == b"small" for message in seen):
        frame = wire.to[1][0]
        if ahead > 0:
            ahead -= 1
        elif isinstance(frame, Message):
            seen.append(frame)
        pair.deliver(wire, 1, 1)
        if not wire.to[1]:
            pair.deliver_all()
    parts = Counter(message.id for message in seen[:-1])
    assert max(parts.values(), default=0) <= 1


def test_conversations_get_as_much_as_each_other() -> None:
    pair = Pair(small(window_bytes_max=1 << 20, shared_window_bytes=1 << 20))
    wire = pair.connect()
    talks = [pair.ends[0].open() for _ in range(3)]
    for talk in talks:
        assert talk is not None
        pair.ends[0].say(talk, bytes(100_000))
    arrived: Counter[int] = Counter()
    for _ in range(150):
        frame = wire.to[1][0]
        if isinstance(frame, Message) and frame.in_regards_to:
            arrived[frame.in_regards_to] += len(frame.body)
        pair.deliver(wire, 1, 1)
        pair.deliver(wire, 0)
    assert len(arrived) == 3
    assert max(arrived.values()) - min(arrived.values()) <= 3 * 1024


def test_room_is_asked_for_once() -> None:
    pair = Pair()
    pair.connect()
    sender = pair.ends[0]
    talk = sender.open()
    assert talk is not None
    asked = 0
    pair.give_room = lambda *_: None  # type: ignore[method-assign]
    machine = sender.machine.conversations
    for _ in range(30):
        machine.say(talk.number, "", BYTES, bytes(900), pair.now)
        asked += sum(type(effect) is WantRoom for effect in sender.out)
        pair.said[talk.name, 0].append(bytes(900))
        sender.perform()
    assert asked <= 1


# Rates.


class Went(NamedTuple):
    """A message that was sent."""

    at: float
    peer: int
    size: int
    body: bytes


class Office:
    """A paced node with a link to each of some peers, that never lack room."""

    def __init__(self, config: Config, peers: int) -> None:
        self.now = 10.0
        self.timers = Timers()
        self.out: list[Effect] = []
        self.effects: list[Effect] = []
        self.went: list[Went] = []
        me = PeerId(bytes(32))
        ids = count(1)
        self.machine = Dispatch(me, config, ids.__next__, self.timers, self.out, 0.0)
        self.links = [self._link(n + 1) for n in range(peers)]
        for link in self.links:
            self.machine.link_opened(link, SHARED_WINDOW_BYTES, self.now)

    def _link(self, number: int) -> Link:
        link = Link(
            number,
            LinkConfig(),
            self.out,
            count().__next__,
            outbound=False,
            remote=Address("10.0.0.1", 1),
            now=self.now,
            purpose=Purpose.STANDING,
        )
        link.peer = PeerId(bytes([number]) * 32)
        link.state = LinkState.OPEN
        link.room = 1 << 40
        return link

    def send(self, peer: int, body: bytes) -> None:
        party = self.machine.party(PeerId(bytes([peer + 1]) * 32))
        assert self.machine.send(party, "", BYTES, body, self.now)
        self.note()

    def note(self) -> None:
        for effect in self.out:
            if type(effect) is Send and isinstance(effect.frame, Message):
                size = len(effect.frame.body) + COST
                self.went.append(Went(self.now, effect.link - 1, size, effect.frame.body))
            else:
                self.effects.append(effect)
        self.out.clear()

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        steps = 0
        while (at := self.timers.next()) is not None and at <= until:
            self.now = max(self.now, at)
            for key in self.timers.due(self.now):
                self.machine.tick(key, self.now)
                self.note()
            steps += 1
            assert steps < 10_000, "it ticks without end"
        self.now = until


def check_rate(went: list[Went], per_s: float, burst: int) -> None:
    """In every stretch: the burst, the rate, and one message that was begun."""
    largest = max((w.size for w in went), default=0)
    for first in range(len(went)):
        total = 0
        for w in went[first:]:
            total += w.size
            assert total <= burst + per_s * (w.at - went[first].at) + largest + 1e-3


SENDS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1024), st.floats(0, 0.5)), max_size=30)


@given(SENDS, st.floats(100, 1e6), st.sampled_from([0.0, 100.0, 5000.0]), st.integers(1, 4096))
def test_rates_hold_in_every_stretch_and_everything_goes_out(
    sends: list[tuple[int, int, float]], per_s: float, per_peer: float, burst: int
) -> None:
    rates = PacingConfig(bytes_per_s=per_s, peer_bytes_per_s=per_peer, burst_bytes=burst)
    office = Office(paced(rates), 3)
    for n, (peer, size, pause_s) in enumerate(sends):
        office.send(peer, n.to_bytes(2, "big") + bytes(max(size - 2, 0)))
        office.run(pause_s)
    total = sum(size + 2 + COST for _, size, _ in sends)
    office.run(2 * total / min(per_s, per_peer or per_s) + 1)
    assert len(office.went) == len(sends)
    check_rate(office.went, per_s, burst)
    for peer in range(3):
        mine = [w for w in office.went if w.peer == peer]
        assert [w.body for w in mine] == sorted(w.body for w in mine)  # in the order of saying
        if per_peer:
            check_rate(mine, per_peer, burst)
    assert len(office.timers) == 0
    for party in office.machine.parties.values():
        assert (party.waiting, party.waiting_bytes) == (None, 0)


def test_what_waits_is_spread_out_evenly() -> None:
    office = Office(paced(PacingConfig(bytes_per_s=1000, burst_bytes=1)), 3)
    for peer in (0, 1, 2):
        for _ in range(10):
            office.send(peer, bytes(100 - COST))
    office.run(10.0)
    assert [w.at for w in office.went] == pytest.approx(
        [office.went[0].at + 0.1 * n for n in range(30)], abs=0.01
    )
    assert [w.peer for w in office.went[1:28]] == [n % 3 for n in range(27)]


def test_peers_are_interleaved_though_one_has_much_more_to_send() -> None:
    office = Office(paced(PacingConfig(bytes_per_s=10_000, burst_bytes=1)), 3)
    for _ in range(50):
        office.send(0, bytes(900))
    office.run(0.01)
    office.went.clear()
    for _ in range(5):
        office.send(1, bytes(900))
        office.send(2, bytes(900))
    office.run(20.0)
    last = max(n for n, w in enumerate(office.went) if w.peer)
    counts = Counter(w.peer for w in office.went[: last + 1])
    assert counts[1] == counts[2] == 5
    assert counts[0] <= 6


def test_a_slow_peer_holds_up_no_other() -> None:
    office = Office(paced(PacingConfig(peer_bytes_per_s=1000, burst_bytes=1)), 2)
    for _ in range(10):
        office.send(0, bytes(936))
    office.send(1, b"x")
    assert office.went[-1].peer == 1
    office.run(20.0)
    assert len(office.went) == 11


def test_one_way_messages_and_conversations_with_a_peer_take_turns() -> None:
    office = Office(paced(PacingConfig(bytes_per_s=10_000, burst_bytes=1)), 1)
    for _ in range(20):
        office.send(0, bytes(900))
    party = office.machine.party(PeerId(bytes([1]) * 32))
    opened = office.machine.conversations.open(party, "t", BYTES, b"hello", None, office.now)
    assert opened is not None
    office.went.clear()
    office.run(0.5)
    assert b"hello" in [w.body for w in office.went]


def test_replies_go_at_once() -> None:
    office = Office(paced(PacingConfig(bytes_per_s=1, burst_bytes=1)), 1)
    office.send(0, bytes(1000))
    office.send(0, bytes(1000))
    asked = Message(1 << 40, 0, Channel.APPLICATION, b"?", wants_reply=True)
    office.machine.receive(office.links[0], asked, office.now)
    office.note()
    (ask,) = [effect for effect in office.effects if type(effect) is Ask]
    office.machine.reply(ask.peer, ask.id, BYTES, b"!", office.now)
    office.note()
    assert [w.body for w in office.went] == [bytes(1000), b"!"]


def test_credit_goes_at_once() -> None:
    office = Office(paced(PacingConfig(bytes_per_s=1, burst_bytes=1)), 1)
    office.send(0, bytes(1000))
    office.send(0, bytes(1000))
    long = Message(1 << 40, 0, Channel.APPLICATION, bytes(3000), sequence=1)
    office.machine.receive(office.links[0], long, office.now)
    office.note()
    sent = [e.frame for e in office.effects if type(e) is Send]
    assert [type(frame) for frame in sent] == [Credit]


def test_a_writer_is_told_when_to_wait_and_when_no_longer() -> None:
    rates = PacingConfig(bytes_per_s=1000, burst_bytes=1, waiting_bytes_max=2000)
    office = Office(paced(rates), 1)
    party = office.machine.party(PeerId(bytes([1]) * 32))
    sent = 0
    while not office.machine.sending.must_wait(party):
        office.send(0, bytes(436))
        sent += 1
    assert sent == 6  # one has gone, and five are more than 2,000 bytes
    assert not any(type(effect) is PeerRoom for effect in office.effects)
    office.run(1.0)
    assert [e for e in office.effects if type(e) is PeerRoom] == [PeerRoom(party.peer)]


def test_what_waits_is_lost_with_the_link_and_its_writer_waits_no_more() -> None:
    rates = PacingConfig(bytes_per_s=1000, burst_bytes=1, waiting_bytes_max=2000)
    office = Office(paced(rates), 2)
    for _ in range(7):
        office.send(0, bytes(436))
    office.send(1, b"x")
    office.machine.link_gone(office.links[0], None, "", office.now)
    office.note()
    assert office.machine.counts["lost while waiting"] == 6
    assert PeerRoom(PeerId(bytes([1]) * 32)) in office.effects
    office.run(5.0)
    assert [w.peer for w in office.went] == [0, 1]
    assert len(office.machine.parties) == 1  # the other peer


def test_paced_conversations_arrive() -> None:
    pair = Pair(paced(PacingConfig(bytes_per_s=20_000, burst_bytes=1000)), small())
    pair.connect()
    for size in (0, 3000, 50_000):
        talk = pair.ends[0].open(bytes(size))
        assert talk is not None
        pair.ends[0].say(talk, bytes(size))
    pair.finish()
    assert sum(talk.heard for talk in pair.ends[1].past) == 6


def test_long_replies_go_at_once_as_well() -> None:
    office = Office(paced(PacingConfig(bytes_per_s=1, burst_bytes=1)), 1)
    office.send(0, bytes(1000))
    office.send(0, bytes(1000))
    asked = Message(1 << 40, 0, Channel.APPLICATION, b"?", wants_reply=True)
    office.machine.receive(office.links[0], asked, office.now)
    office.note()
    (ask,) = [effect for effect in office.effects if type(effect) is Ask]
    office.went.clear()
    office.machine.reply(ask.peer, ask.id, BYTES, bytes(3000), office.now)
    office.note()
    assert sum(len(w.body) for w in office.went) == 3000


def test_unreliable_messages_go_out_when_the_rate_allows_and_never_wait() -> None:
    office = Office(paced(PacingConfig(bytes_per_s=100, burst_bytes=50)), 1)
    peer = PeerId(bytes([1]) * 32)
    number = office.machine.conversations.open(
        office.machine.party(peer), "t", BYTES, b"", None, office.now
    )
    assert number is not None
    office.note()
    office.run(5.0)  # the opening is paid for
    conversations = office.machine.conversations
    assert conversations.say_unreliably(number, "", BYTES, bytes(50), office.now)
    assert not conversations.say_unreliably(number, "", BYTES, bytes(50), office.now)
    office.run(5.0)
    assert conversations.say_unreliably(number, "", BYTES, bytes(50), office.now)


def test_a_broadcast_is_answered_for_by_what_follows() -> None:
    office = Office(paced(PacingConfig(bytes_per_s=1000, burst_bytes=1000)), 1)
    party = office.machine.party(PeerId(bytes([1]) * 32))
    for _ in range(20):
        office.send(0, bytes(1000 - COST))
    office.went.clear()
    for _ in range(100):
        office.machine.sending.charge(party, 100)
        office.run(0.1)
    # Ten seconds, of which the broadcasts took half.
    assert 4 <= len(office.went) <= 6


def test_room_that_unreliable_messages_used_up_comes_back() -> None:
    office = Office(small(), 1)
    (link,) = office.links
    link.room = 1000
    party = office.machine.party(PeerId(bytes([1]) * 32))
    sent = [
        office.machine.send_unreliably(party, "", BYTES, bytes(400), office.now) for _ in range(9)
    ]
    office.note()
    assert sent == [True] * 3 + [False] * 6
    assert [type(e) for e in office.effects].count(WantRoom) == 1
    office.machine.room(link, 1000, office.now)
    assert office.machine.send_unreliably(party, "", BYTES, bytes(400), office.now)


def test_those_that_waited_in_vain_do_not_hide_those_that_wait() -> None:
    """Of more than are fed at once, the first have been served by their floor in the meantime."""
    pair = Pair(small(shared_window_bytes=FIRST_WINDOW, per_peer_max=200))
    pair.connect()
    sender, reader = pair.ends
    greedy = sender.open()
    assert greedy is not None
    while not greedy.is_full:
        sender.say(greedy, bytes(500))
    talks = [sender.open() for _ in range(70)]
    pair.deliver_all()
    for talk in talks:
        assert talk is not None
        for _ in range(12):
            sender.say(talk, bytes(200))
    pair.flow()
    for talk in talks:
        assert talk is not None
        theirs = next(t for t in reader.talks.values() if t.name == talk.name)
        assert theirs.heard == 13
    pair.finish()


def test_long_one_way_messages_make_their_writer_wait() -> None:
    office = Office(small(), 1)
    party = office.machine.party(PeerId(bytes([1]) * 32))
    office.send(0, bytes(1000))
    assert not office.machine.sending.must_wait(party)
    office.send(0, bytes(600_000))
    assert office.machine.sending.must_wait(party)
    office.machine.link_gone(office.links[0], CloseReason.LEAVING, "", office.now)
    office.note()
    assert not office.machine.sending.must_wait(party)
    assert party.long_bytes == 0
    assert PeerRoom(party.peer) in office.effects
