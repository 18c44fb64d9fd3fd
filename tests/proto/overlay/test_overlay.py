"""The overlay as a whole: who is let in, what is passed on, and that nothing remains."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import get_args

import pytest

from meshwalk.events import Alone, Joined, NeighbourDown, NeighbourUp
from meshwalk.identity.keys import sign_beacon
from meshwalk.proto.link import Link
from meshwalk.proto.overlay.bookentry import BookEntry
from meshwalk.proto.overlay.effects import Connect, Disconnect, Measure, OverlayEffect
from meshwalk.sim.signatures import CheapSignatures
from meshwalk.wire.address import Address
from meshwalk.wire.frames import STANDING_PURPOSES, Channel, CloseReason, Message, Purpose
from meshwalk.wire.messages import (
    Beacon,
    FindPeer,
    FragmentAsked,
    FragmentOutcome,
    FragmentTold,
    Handover,
    JoinOutcome,
    JoinReply,
    JoinRequest,
    OverlayMessage,
    PartReply,
    PartRequest,
    PeerFound,
    PeersTold,
    PeersWanted,
    RecordChanged,
    SplitReply,
    SplitRequest,
    VouchAsked,
    VouchOutcome,
    VouchTold,
)
from meshwalk.wire.records import BeaconPayload

from .bench import (
    Bench,
    connects,
    disconnects,
    host_of,
    peer_of,
    record_of,
    request,
    says,
    tells,
)


@pytest.mark.parametrize("purpose", sorted(STANDING_PURPOSES - {Purpose.CLOSER}))
def test_uninvited(purpose: Purpose) -> None:
    bench = Bench()
    for token in (b"", b"x"):
        link = bench.link(1, purpose, token=token)
        assert bench.overlay.asked(link, bench.hello(link), 0.0) is CloseReason.UNINVITED


def test_a_place_is_for_its_origin_alone() -> None:
    bench = Bench()
    bench.hear(bench.neighbour(1), request(5, reach=""))
    thief = bench.link(6, Purpose.STANDING, token=b"t")
    assert bench.overlay.asked(thief, bench.hello(thief), 0.0) is CloseReason.UNINVITED
    # Nor does a link of another kind use it up.
    bench.open(bench.link(7, Purpose.JOIN_ACCEPT, token=b"t"))
    assert b"t" in bench.overlay.membership.places


@pytest.mark.parametrize("purpose", list(Purpose))
def test_leaving_lets_nobody_in(purpose: Purpose) -> None:
    """A defect: links to join, probe and converse were still let in while the node stopped."""
    bench = Bench()
    bench.overlay.leave(0.0)
    link = bench.link(1, purpose)
    assert bench.overlay.asked(link, bench.hello(link), 0.0) is CloseReason.LEAVING


def test_leaving_looks_for_nobody() -> None:
    """A defect: each link that closed made the node walk, and at last dial."""
    bench = Bench(links_min=2)
    links = [bench.neighbour(n) for n in (1, 2)]
    effects = bench.overlay.leave(0.0)
    for link in links:
        effects += bench.end(link, CloseReason.LEAVING, by_us=True)
    effects += bench.overlay.enter(Address("10.0.0.9", 1), None, 0.0)
    effects += bench.tick_until(100)
    assert connects(effects) == []
    assert [type(s.body) for s in says(effects)] == [Handover, Handover]
    assert [type(t.event) for t in tells(effects)] == [NeighbourDown, NeighbourDown]
    assert len(bench.timers) == 0


def told_of(effects: list[OverlayEffect]) -> list[bytes]:
    return [blob for s in says(effects) if isinstance(s.body, PeersTold) for blob in s.body.records]


def test_a_bad_record_is_not_passed_on() -> None:
    """A defect: a peer's unreadable record was told to new neighbours, who blamed and left us."""
    bench = Bench(links_max=6)
    elsewhere = record_of(3, network_id=bytes(31) + b"x")
    for number, blob in ((1, b"junk"), (2, record_of(9)), (3, elsewhere)):
        bench.open(bench.link(number, record=blob))
    good = bench.link(4)
    effects = bench.open(good) + bench.hear(good, PeersWanted())
    assert told_of(effects) == []
    effects = bench.open(bench.link(5)) + bench.tick_until(60)
    assert told_of(effects) == [record_of(5)], "what is good goes to whoever has asked"


def test_a_bad_record_from_the_store_is_left_out() -> None:
    bench = Bench()
    where = (Address("10.0.0.9", 1),)
    bench.overlay.start(
        [
            BookEntry(peer_of(1), b"junk", 1, where, "store", 0.0),
            BookEntry(peer_of(2), record_of(2), 1, where, "store", 0.0),
            BookEntry(peer_of(3), b"", 1, where, "store", 0.0),
        ],
        0.0,
    )
    assert set(bench.overlay.book.entries) == {peer_of(2), peer_of(3)}


def test_what_neighbours_tell_is_bounded() -> None:
    bench = Bench(links_min=1)
    link = bench.neighbour(1)
    before = len(bench.overlay.book)
    for number in range(200):
        first = 100 + 16 * number
        told = PeersTold(number + 1, [record_of(first + n) for n in range(16)])
        assert disconnects(bench.hear(link, told)) == []
    burst = bench.settings.exchange.told_burst
    counts = bench.overlay.exchange.counts
    assert counts["heard"] == 16 * burst
    assert counts["told too fast"] == 200 - burst
    assert 0 < len(bench.overlay.book) - before <= 16 * burst
    assert bench.overlay.book.entries[peer_of(1)].cursor == burst, "the rest is asked for again"
    for n in range(50):
        other = bench.neighbour(2)
        bench.hear(other, PeersTold(1, [record_of(9300 + n)]))
        bench.end(other)
    assert len(bench.overlay.exchange._counterparties) == 1


LYING: list[Callable[[bytes], OverlayMessage]] = [
    lambda blob: PeersTold(1, [record_of(7), blob]),
    RecordChanged,
    VouchAsked,
    lambda blob: Handover(blob, b"t", dials=True),
    lambda blob: Beacon(blob, [], 1),
]


@pytest.mark.parametrize("message", LYING)
@pytest.mark.parametrize(
    "blob", [b"", b"junk", record_of(5, signer=6), record_of(5, network_id=bytes(31) + b"x")]
)
def test_what_is_not_signed_ends_the_link(
    blob: bytes, message: Callable[[bytes], OverlayMessage]
) -> None:
    bench = Bench(links_min=1)
    link = bench.neighbour(1)
    bench.neighbour(2)
    effects = bench.hear(link, message(blob))
    assert [(d.link, d.reason) for d in disconnects(effects)] == [
        (link.number, CloseReason.PROTOCOL)
    ]
    assert connects(effects) == []
    assert [s for s in says(effects) if s.link != link.number] == []
    assert peer_of(5) not in bench.overlay.book.entries


def test_a_changed_record_is_of_the_neighbour_itself() -> None:
    bench = Bench(links_min=1)
    link = bench.neighbour(1)
    effects = bench.hear(link, RecordChanged(record_of(5)))
    assert [d.reason for d in disconnects(effects)] == [CloseReason.PROTOCOL]


def test_a_greeting_is_believed_only_about_the_host_it_comes_from() -> None:
    bench = Bench()
    blob = record_of(1, "tcp://192.0.2.66:80", f"tcp://{host_of(1)}:7")
    bench.open(bench.link(1, record=blob))
    assert bench.overlay.book.entries[peer_of(1)].addresses == (Address(host_of(1), 7),)


FOR_NEIGHBOURS: list[OverlayMessage] = [
    SplitRequest(record_of(5), b"t", host_of(5)),
    SplitReply(),
    PeersWanted(),
    FindPeer(bytes(peer_of(5)), 1),
    PeerFound(record_of(5), 1),
    PeersTold(1, [record_of(5)]),
    RecordChanged(record_of(5)),
    Beacon(record_of(5), [], 1),
    VouchAsked(record_of(5)),
    VouchTold(VouchOutcome.SILENT),
    PartRequest(),
    PartReply(is_granted=True),
    Handover(record_of(5), b"t", dials=True),
]
FOR_STRANGERS: list[OverlayMessage] = [
    JoinRequest(record_of(5), b"t", "", 1, 1),
    JoinReply(JoinOutcome.BUSY, 1),
    FragmentAsked(b"", 1, b"t"),
    FragmentTold(b"", 1, FragmentOutcome.SAME),
]


def test_every_message_is_for_neighbours_or_for_strangers() -> None:
    listed = {type(body) for body in (*FOR_NEIGHBOURS, *FOR_STRANGERS)}
    assert listed == set(get_args(OverlayMessage))


@pytest.mark.parametrize("purpose", sorted(set(Purpose) - STANDING_PURPOSES))
@pytest.mark.parametrize("body", FOR_NEIGHBOURS, ids=lambda b: type(b).__name__)
def test_neighbours_messages_on_other_links(purpose: Purpose, body: OverlayMessage) -> None:
    bench = Bench()
    link = bench.link(5, purpose)
    bench.open(link)
    effects = bench.hear(link, body)
    assert [d.reason for d in disconnects(effects)] == [CloseReason.PROTOCOL]
    assert [type(e) for e in effects] == [Disconnect]


@pytest.mark.parametrize("purpose", sorted(set(Purpose) - {Purpose.PROBE}))
def test_only_a_probe_asks_for_the_fragment(purpose: Purpose) -> None:
    bench = Bench()
    link = bench.link(5, purpose)
    bench.open(link)
    effects = bench.hear(link, FragmentAsked(b"", 1, b"t"))
    assert [d.reason for d in disconnects(effects)] == [CloseReason.PROTOCOL]
    assert not bench.overlay.healing._promises


@pytest.mark.parametrize(
    "body",
    [
        PeerFound(record_of(5), 1),
        SplitReply(),
        JoinReply(JoinOutcome.LINKED, 1, record_of(5)),
        FragmentTold(record_of(5), 9, FragmentOutcome.JOIN_US),
        VouchTold(VouchOutcome.SILENT),
        PartReply(is_granted=True),
    ],
    ids=lambda b: type(b).__name__,
)
def test_answers_to_what_was_not_asked_are_ignored(body: OverlayMessage) -> None:
    bench = Bench(links_min=1)
    link = bench.neighbour(1)
    for to in (0, 1, bench.last_id, 2**64 - 1):
        assert bench.hear(link, body, to=to) == []


def test_unreadable_body() -> None:
    bench = Bench()
    link = bench.neighbour(1)
    effects = bench.overlay.heard(link, Message(1, 0, Channel.OVERLAY, b"\xc1"), 0.0)
    assert [d.reason for d in disconnects(effects)] == [CloseReason.MALFORMED]


def test_twins_are_dropped_by_the_dialler_of_the_winner() -> None:
    """A defect: the loser's end could be heard before the winner was open, and the node was
    alone in between."""
    bench = Bench()
    loser = bench.neighbour(1)  # dialled by 1; our own wins, for we are 0
    winner = bench.link(1, outbound=True)
    assert [d.link for d in disconnects(bench.open(winner))] == [loser.number]
    bench = Bench()
    loser = bench.link(1, outbound=True)
    bench.open(loser)
    bench.overlay.membership.me = peer_of(9)  # now 1 is the smaller
    winner = bench.link(1)
    assert disconnects(bench.open(winner)) == []
    assert loser.retires_at is not None
    assert tells(bench.end(loser, CloseReason.DUPLICATE)) == []


def any_event(
    bench: Bench, rng: Random, links: list[Link], pending: list[Connect], now: float
) -> list[OverlayEffect]:
    """Something happens to the node."""
    what = rng.randrange(12)
    peer = rng.randrange(1, 12)
    if what <= 1:
        links.append(bench.link(peer, rng.choice(list(Purpose)), outbound=False, token=b"t"))
        hello = bench.hello(links[-1])
        if bench.overlay.asked(links[-1], hello, now) is None:
            return bench.overlay.opened(links[-1], hello, now)
        links.pop()
        return []
    if what == 2 and links:
        link = links.pop(rng.randrange(len(links)))
        return bench.end(link, rng.choice([None, *CloseReason]), now)
    if what in (3, 4) and pending:
        connect = pending.pop(rng.randrange(len(pending)))
        if what == 3:
            return bench.fail(connect, now, rng.choice([None, None, CloseReason.FULL]))
        known = connect.expected or peer_of(peer)
        link, effects = bench.succeed(connect, int.from_bytes(known, "big"), now)
        links.append(link)
        return effects
    if what == 9 and links:
        link = rng.choice(links)
        if link.is_standing:
            return bench.overlay.suspected(link, now)
        link.round_trips.add(0.1, 0.0)
        return bench.overlay.measured(link, now)
    if what == 10:
        return bench.overlay.record_changed(now) + bench.overlay.find(peer_of(peer), now)
    if links:
        body = any_body(rng, peer)
        return bench.hear(rng.choice(links), body, now, to=rng.randrange(1000, bench.next_id()))
    effects = bench.overlay.woke(now) if rng.randrange(4) == 0 else []
    return effects + bench.overlay.enter(Address(host_of(peer), 1), None, now)


def any_body(rng: Random, peer: int) -> OverlayMessage:
    """What any node may say at any time."""
    record, token, number = (
        record_of(peer),
        bytes([rng.randrange(4)]),
        rng.choice([0, 1, 2**64 - 1]),
    )
    beacon = sign_beacon(
        BeaconPayload(bytes(peer_of(peer)), rng.randrange(9), rng.randrange(3)),
        CheapSignatures(peer_of(peer)),
    )
    sketch = [rng.getrandbits(64) for _ in range(rng.randrange(33))]
    bodies: list[OverlayMessage] = [
        request(peer, token=token, hops=rng.randrange(4), forced=0),
        request(peer, reach="", token=token),
        SplitRequest(record, b"s", host_of(peer)),
        SplitReply(),
        JoinReply(rng.choice(list(JoinOutcome)), 1, record),
        PeersWanted(number),
        FindPeer(bytes(peer_of(peer)), 3, number),
        PeerFound(record, 1),
        PeersTold(number, [record, record_of(peer + 1)]),
        RecordChanged(record),
        Beacon(beacon, sketch, number),
        FragmentAsked(rng.choice([b"", beacon]), number, token),
        FragmentTold(beacon, number, rng.choice(list(FragmentOutcome))),
        VouchAsked(record),
        VouchTold(rng.choice(list(VouchOutcome))),
        PartRequest(),
        PartReply(is_granted=rng.random() < 0.5),
        Handover(record, token, dials=rng.random() < 0.5),
    ]
    return rng.choice(bodies)


@pytest.mark.parametrize("seed", range(30))
def test_any_order_of_events_keeps_the_bounds_and_leaves_nothing(seed: int) -> None:
    rng = Random(seed)
    bench = Bench(links_min=2, links_max=4, seed=seed)
    links: list[Link] = []
    pending = connects(bench.overlay.start([], 0.0))
    balance, now = 0, 0.0
    ever: set[int] = set()
    for _ in range(600):
        effects = any_event(bench, rng, links, pending, now)
        now += rng.random()
        effects += bench.tick_until(now)
        ever |= {link.number for link in links}
        while effects:
            effect = effects.pop(0)
            if isinstance(effect, Connect):
                pending.append(effect)
            if isinstance(effect, Measure):
                assert effect.link in ever  # of one that has ended the node takes no notice
            kinds = [type(t.event) for t in tells([effect])]
            balance += kinds.count(NeighbourUp) - kinds.count(NeighbourDown)
            for closed in disconnects([effect]):
                for link in [known for known in links if known.number == closed.link]:
                    links.remove(link)
                    effects += bench.end(link, closed.reason, now, by_us=True)
        places = 4 + bench.settings.overlay.healing_places
        assert balance == len(bench.overlay.membership) <= places
        assert bench.overlay.membership.walks_under_way == len(bench.overlay.walks.walks)
        check_bounds(bench, links)
    drain(bench, links, pending, now)


def check_bounds(bench: Bench, links: list[Link]) -> None:
    """What is remembered follows what there is."""
    overlay, numbers = bench.overlay, {link.number for link in links}
    assert len(overlay.book) <= bench.settings.book.total_max
    assert set(overlay.exchange._counterparties) <= {link.peer for link in links}
    for rates in (overlay.carrier._rates, overlay.beacons._rates, overlay.vouching._rates):
        assert set(rates) <= numbers
    assert set(overlay.vouching._suspicions) <= numbers
    assert len(overlay.vouching._inquiries) <= bench.settings.detection.vouching_max
    assert set(overlay.parting._heirs) <= numbers
    assert all(len(heirs) <= 2 for heirs in overlay.parting._heirs.values())
    assert set(overlay.healing._questions) <= numbers
    assert len(overlay.healing._promises) <= 16
    assert len(overlay.beacons._sketch) <= bench.settings.healing.sketch
    assert len(overlay.probing.attempts) <= bench.settings.probing.probes_max
    for blob in (overlay.beacons.blob, *(entry.blob for entry in overlay.book.entries.values())):
        assert len(blob) < 300, "of what is signed one copy is kept"


def drain(bench: Bench, links: list[Link], pending: list[Connect], now: float) -> None:
    """Everything ends; nothing of it may remain."""
    bench.overlay.leave(now)
    for link in links:
        bench.end(link, CloseReason.LEAVING, now, by_us=True)
    for connect in pending:
        bench.fail(connect, now, CloseReason.LEAVING)
    overlay = bench.overlay
    assert not overlay.membership.neighbours
    assert not overlay.membership.places
    assert not overlay.carrier.acceptances
    assert not overlay.carrier.splits
    assert not overlay.carrier.carried
    assert not overlay.carrier._rates
    assert not overlay.exchange._counterparties
    assert not overlay.beacons._rates
    assert not overlay.healing._questions
    assert not overlay.healing._promises
    assert not overlay.vouching._suspicions
    assert not overlay.vouching._inquiries
    assert not overlay.vouching._rates
    assert not overlay.trading._promised
    assert not overlay.parting._heirs
    for machine in overlay._diallers:
        assert not machine.attempts
    assert len(bench.timers) == 0


def test_joined_and_alone() -> None:
    bench = Bench()
    link = bench.link(1)
    events = [t.event for t in tells(bench.open(link) + bench.end(link))]
    assert [type(e) for e in events] == [NeighbourUp, Joined, NeighbourDown, Alone]
