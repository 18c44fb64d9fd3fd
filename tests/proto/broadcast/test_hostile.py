"""Whatever neighbours send about broadcasts: no error, no growth, and no work without end."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshwalk.config import (
    BroadcastConfig,
    Config,
    HistoryConfig,
    IntakeConfig,
    StemConfig,
    TreeConfig,
)
from meshwalk.proto.broadcast.effects import GossipEffect, Pass
from meshwalk.proto.effects import Deliver, Readers
from meshwalk.wire.codec import encode_frame
from meshwalk.wire.frames import FRAME_BYTES_MAX, Channel, ContentType, Message
from meshwalk.wire.gossip import (
    HAVE_ENTRIES_MAX,
    RANGES_MAX,
    Broadcast,
    Gone,
    GossipMessage,
    Graft,
    Have,
    Held,
    HistoryWanted,
    Prune,
    Receipt,
    Stem,
    Want,
    decode_gossip,
    encode_gossip,
)
from meshwalk.wire.messages import HOPS_MAX
from meshwalk.wire.records import NUMBER_MAX

from .scene import Desk, copy_of, payload_of, peer

ORIGINS = (0, 5, 6, 7, 8)  # the first is the node itself
SMALL = Config(
    broadcast=BroadcastConfig(
        origins_max=3,
        window=16,
        gaps_max=8,
        order_held_max=4,
        receipts_max=3,
        age_max_s=60.0,
        remembered_s=60.0,
    ),
    tree=TreeConfig(
        announced_max=10,
        missing_max=20,
        missing_per_peer_max=8,
        fetch_numbers_max=4,
        serve_numbers_max=10,
        own_trees_max=3,
    ),
    history=HistoryConfig(count_max=6, bytes_max=2000, age_s=30.0),
    intake=IntakeConfig(checks_per_turn=2, waiting_max=4, waiting_bytes_max=3000),
    stem=StemConfig(held_max=4),
)
NEIGHBOURS = 4

numbers = st.one_of(st.integers(1, 40), st.integers(1, NUMBER_MAX))
keys = st.one_of(st.sampled_from(ORIGINS).map(lambda n: bytes(peer(n))), st.binary(min_size=32))
u64 = st.one_of(st.integers(0, 3), st.integers(0, 2**64 - 1))
hops = st.integers(0, HOPS_MAX)
ranges = st.one_of(
    st.lists(numbers, min_size=2, max_size=8),
    st.lists(numbers, min_size=1, max_size=4, unique=True).map(
        lambda found: sorted([*found, *(n + 1 for n in found)])
    ),
)
epochs = st.one_of(st.just(1), u64)
payloads = st.one_of(
    st.builds(
        payload_of,
        st.sampled_from(ORIGINS[1:]),
        st.integers(1, 40),
        epoch=st.sampled_from([1, 1, 1, 2]),
        sent_at=st.sampled_from([-100.0, 0.0, 0.0, 0.0, 20.0, 1000.0]),
        body=st.binary(max_size=600),
        asks=st.integers(0, 3),
        count=st.integers(1, 3),
    ),
    st.binary(max_size=40),
)


@st.composite
def copies(draw: st.DrawFn, kind: type[Broadcast] | type[Stem]) -> GossipMessage:
    """Mostly signed as they should be."""
    payload = draw(payloads)
    signer = draw(st.sampled_from(ORIGINS[1:]))
    for origin in ORIGINS[1:]:
        if bytes(peer(origin)) in payload and draw(st.integers(0, 9)):
            signer = origin
    copy = copy_of(payload, signer, draw(hops), draw(st.sampled_from([0, 0, 1, 2**64 - 1])))
    if kind is Stem:
        return Stem(payload, copy.signature, 0, draw(st.sampled_from([None, 0, 5])))
    return copy


helds = st.builds(Held, keys.map(lambda k: k[:32]), epochs, ranges, hops, u64)
messages: st.SearchStrategy[GossipMessage] = st.one_of(
    copies(Broadcast),
    copies(Broadcast),
    copies(Stem),
    st.builds(Have, st.lists(helds, max_size=4)),
    st.builds(Want, keys.map(lambda k: k[:32]), epochs, ranges),
    st.builds(Gone, keys.map(lambda k: k[:32]), epochs, ranges),
    st.builds(Graft, st.one_of(st.just(b""), keys.map(lambda k: k[:32]))),
    st.builds(Prune, st.one_of(st.just(b""), keys.map(lambda k: k[:32]))),
    st.builds(HistoryWanted, u64),
    st.builds(
        Receipt, keys.map(lambda k: k[:32]), epochs, numbers, u64, st.just([]), st.booleans()
    ),
)
steps = st.one_of(
    st.tuples(st.just("hear"), st.integers(1, NEIGHBOURS), messages),
    st.tuples(st.just("hear"), st.integers(1, NEIGHBOURS), messages),
    st.tuples(st.just("hear"), st.integers(1, NEIGHBOURS), messages),
    st.tuples(st.just("junk"), st.integers(1, NEIGHBOURS), st.binary(max_size=30)),
    st.tuples(st.just("wait"), st.just(0), st.floats(0, 8)),
    st.tuples(st.just("down"), st.integers(1, NEIGHBOURS), st.none()),
    st.tuples(st.just("up"), st.integers(1, NEIGHBOURS), st.none()),
    st.tuples(st.just("publish"), st.just(0), st.integers(0, 3)),
    st.tuples(st.just("pause"), st.booleans().map(int), st.none()),
)


def check_bounds(desk: Desk) -> None:
    gossip, config = desk.gossip, SMALL
    tree, broadcast = config.tree, config.broadcast
    peers = len(gossip.tree.branches)
    assert len(gossip.origins) <= broadcast.origins_max
    assert gossip.origins._gaps <= broadcast.gaps_max
    assert len(gossip.ordering._lines) <= broadcast.origins_max
    assert gossip.ordering.held <= broadcast.order_held_max
    assert len(gossip.history) <= config.history.count_max
    assert gossip.history.bytes <= config.history.bytes_max
    assert len(gossip.fetching) <= tree.missing_max
    assert max(gossip.fetching._noted.values(), default=0) <= tree.missing_per_peer_max
    assert len(gossip.fetching._suppliers) <= peers
    assert all(n <= tree.announced_max for n in gossip.announcing._gathered.values())
    assert len(gossip.announcing._pending) <= peers
    assert all(len(owed) <= tree.serve_numbers_max for owed in gossip.serving._owed.values())
    assert gossip.tree.own_trees <= tree.own_trees_max
    assert gossip.intake.waiting <= peers * config.intake.waiting_max
    assert len(gossip.intake._from) <= peers
    assert gossip.stems.held <= config.stem.held_max
    assert len(gossip.receipts) <= broadcast.receipts_max
    assert len(desk.timers) <= 60


def check_sent(effects: list[GossipEffect]) -> None:
    """What goes out can be read by whoever gets it."""
    for effect in effects:
        if type(effect) is Pass:
            body = encode_gossip(effect.message)
            assert decode_gossip(body) == effect.message
            frame = encode_frame(Message(1, 0, Channel.BROADCAST, body))
            assert len(frame) <= FRAME_BYTES_MAX


@settings(max_examples=150, deadline=None)
@given(st.lists(steps, max_size=60))
def test_whatever_neighbours_send(given_steps: list[tuple[str, int, Any]]) -> None:
    desk, now = Desk(NEIGHBOURS, SMALL), 0.0
    once: set[tuple[object, ...]] = set()
    for what, who, argument in given_steps:
        out: list[GossipEffect] = []
        if what == "hear":
            out = desk.hear(who, argument, now)
        elif what == "junk":
            out = desk.gossip.receive(peer(who), argument, 0, now)
        elif what == "wait":
            now += argument
            out = desk.run(now)
        elif what == "down":
            out = desk.down(who, now)
        elif what == "up" and peer(who) not in desk.gossip.tree.branches:
            out = desk.up(who, now)
        elif what == "publish":
            _, out = desk.gossip.publish("t", ContentType.BYTES, b"x", now, argument)
        elif what == "pause":
            out = desk.gossip.pause(now) if who else desk.gossip.resume(now)
        check_sent(out)
        check_bounds(desk)
        for effect in out:
            if type(effect) is Deliver and effect.readers is not Readers.ORDERED:
                delivery = effect.delivery
                # A bundle's messages have numbers of their own, which a liar chooses as it likes.
                id = delivery.origin, delivery.sequence, delivery.sent_at, delivery.body
                once.add(id)
    out = desk.gossip.resume(now) + desk.run(now + 1000.0)
    for number in range(1, NEIGHBOURS + 1):
        out += desk.down(number, now + 1000.0)
    check_sent(out)
    desk.run(now + 2000.0)
    assert len(desk.gossip.fetching) == 0
    assert desk.gossip.ordering.held == 0
    assert desk.gossip.intake.waiting == 0
    assert desk.gossip.stems.held == 0
    assert len(desk.timers) == 0


# Work without end.


def lines_of(desk: Desk, source: int, message: GossipMessage) -> int:
    """How many lines of Python a message makes the machines go through."""
    count = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    body = encode_gossip(message)
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        desk.gossip.receive(peer(source), body, 0, 0.0)
    finally:
        sys.settrace(before)
    return count


LINES_MAX = 700_000  # the 16,384 numbers that may be looked at for one message, at 40 lines each
KEY = bytes(peer(5))
WIDE = [1, NUMBER_MAX]
MANY = [n for first in range(1, 3 * RANGES_MAX, 3) for n in (first, first + 1)]


@pytest.mark.parametrize(
    "message",
    [
        Have([Held(bytes([n]) * 32, 1, WIDE, 1, 0) for n in range(HAVE_ENTRIES_MAX)]),
        Have([Held(KEY, 1, WIDE, 1, 0)] * HAVE_ENTRIES_MAX),
        Have([Held(KEY, 1, [NUMBER_MAX, NUMBER_MAX], 1, 0)] * HAVE_ENTRIES_MAX),
        Have([Held(KEY, 1, MANY, 1, 0)] * HAVE_ENTRIES_MAX),
        Have([Held(KEY, 0, WIDE, 1, 0)] * HAVE_ENTRIES_MAX),
        Want(KEY, 1, WIDE),
        Want(KEY, 1, MANY),
        Gone(KEY, 1, WIDE),
        Gone(KEY, 1, MANY),
        HistoryWanted(0),
    ],
    ids=lambda message: type(message).__name__,
)
def test_one_message_makes_no_work_without_end(message: GossipMessage) -> None:
    """A defect: what had been gathered for a neighbour was gone through for each entry of a
    message from it, 256 times."""
    desk = Desk(2)
    for sequence in range(1, 2000):
        desk.gossip.announcing.add(peer(1), (KEY, 1, 2 * sequence), 0.0)
        desk.gossip.fetching.told((KEY, 1, 2 * sequence + 1), peer(1), 0.0, from_history=True)
    desk.copy(2)
    desk.run(0.0)
    assert lines_of(desk, 1, message) < LINES_MAX
