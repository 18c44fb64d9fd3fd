"""Floods of every message of the overlay, by neighbours and by strangers, against one node.

What may come of one is bounded: work for others, checked signatures, dials, memory. It can be seen
in the node's counters, and the other neighbours are served as before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import msgspec
import pytest
from beset import GOOD, HOSTILE, LARGEST, SOMEBODY, Victim, beacon_of

from meshwalk.proto.overlay.effects import OverlayEffect
from meshwalk.proto.overlay.statistics import statistics_of
from meshwalk.wire.frames import CloseReason, Purpose
from meshwalk.wire.messages import (
    RECORDS_PER_MESSAGE_MAX,
    Beacon,
    FindPeer,
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
from proto.overlay.bench import (
    SEQUENCE,
    connects,
    disconnects,
    peer_of,
    record_of,
    says,
    tells,
)

FLOOD = 2_000  # messages in one second of virtual time


MADE_UP: dict[str, Callable[[int], OverlayMessage]] = {
    "join request": lambda n: JoinRequest(record_of(SOMEBODY + n), b"%d" % n, "", 3, 10),
    "join reply": lambda n: JoinReply(JoinOutcome.DIAL_ME, 1, record_of(SOMEBODY + n)),
    "split request": lambda n: SplitRequest(record_of(SOMEBODY + n), b"%d" % n, "10.9.9.9"),
    "split reply": lambda n: SplitReply(),
    "everything wanted": lambda n: PeersWanted(0),
    "position beyond the last": lambda n: PeersWanted(LARGEST),
    "search": lambda n: FindPeer(bytes(peer_of(SOMEBODY + n)), 64),
    "search for what no record can be": lambda n: FindPeer(bytes(peer_of(GOOD)), 64, LARGEST),
    "found": lambda n: PeerFound(record_of(SOMEBODY + n), 1),
    "told": lambda n: PeersTold(n, [record_of(SOMEBODY + n)] * RECORDS_PER_MESSAGE_MAX),
    "told nothing": lambda n: PeersTold(LARGEST, []),
    "record changed": lambda n: RecordChanged(record_of(HOSTILE, sequence=SEQUENCE + n)),
    "leader after leader": lambda n: Beacon(beacon_of(SOMEBODY - n, 1), [n], 1),
    "beacon after beacon": lambda n: Beacon(beacon_of(HOSTILE, n), [n], LARGEST),
    "the same beacon": lambda n: Beacon(beacon_of(HOSTILE, 1), [n], LARGEST),
    "larger leaders": lambda n: Beacon(beacon_of(SOMEBODY + n, LARGEST, LARGEST), [], LARGEST),
    "vouch asked": lambda n: VouchAsked(record_of(SOMEBODY + n)),
    "vouch asked about a neighbour": lambda n: VouchAsked(record_of(GOOD, sequence=SEQUENCE + n)),
    "vouch told": lambda n: VouchTold(VouchOutcome.SILENT),
    "part request": lambda n: PartRequest(),
    "part reply": lambda n: PartReply(is_granted=True),
    "handover": lambda n: Handover(record_of(SOMEBODY + n), b"%d" % n, dials=True),
    "handover, place to keep": lambda n: Handover(record_of(SOMEBODY + n), b"%d" % n, dials=False),
    "handover of a neighbour": lambda n: Handover(
        record_of(GOOD, sequence=SEQUENCE + n), b"%d" % n, dials=True
    ),
    "fragment told": lambda n: FragmentTold(beacon_of(SOMEBODY, n), 1, FragmentOutcome.JOIN_US),
}


def flood(bench: Victim, message: Callable[[int], OverlayMessage]) -> list[OverlayEffect]:
    """One second of it, beginning after a minute."""
    effects = bench.tick_until(60.0)
    effects.clear()
    for n in range(FLOOD):
        now = 60.0 + n / FLOOD
        effects += bench.hear(bench.hostile, message(n), now, id=n + 1, to=n)
        effects += bench.tick_until(now)
    return effects


@pytest.mark.parametrize("message", MADE_UP.values(), ids=MADE_UP.keys())
def test_flood_from_a_neighbour(message: Callable[[int], OverlayMessage]) -> None:
    bench = Victim()
    effects = flood(bench, message)
    assert disconnects(effects) == [], "all of it could be said, at another rate"
    # Work for others: of all limits on one link the loosest, that of walks, lets through 300.
    onward = [s for s in says(effects) if s.link != bench.hostile.number]
    assert len(onward) <= bench.config.walks_per_link_burst + 50
    answers = Counter(s.in_reply_to for s in says(effects) if s.in_reply_to)
    assert max(answers.values(), default=0) <= 1, "each question has one answer at the most"
    detection = bench.settings.detection
    limit = bench.config.addresses_per_peer_max
    asked_to_dial = (detection.vouching_per_link_burst + 1) * limit + bench.config.dial_backs_burst
    assert len(connects(effects)) <= asked_to_dial + 20
    exchange, healing = bench.settings.exchange, bench.settings.healing
    checks = (
        bench.config.walks_per_link_burst + bench.config.walks_per_link_per_s,
        (exchange.told_burst + 1) * RECORDS_PER_MESSAGE_MAX,
        healing.beacons_per_link_burst + 1,
        detection.vouching_per_link_burst + 1,
    )
    assert bench.signatures.checked <= max(checks)
    assert bench.remembered() < 500
    assert len(bench.overlay.book) <= bench.settings.book.total_max
    assert bench.overlay.membership.neighbours[peer_of(GOOD)].link is bench.good
    assert bench.serves_the_others(61.0)
    bench.tick_until(200.0)
    assert bench.remembered() < 200, "most of it is forgotten"


@pytest.mark.parametrize(
    ("kind", "machine", "counted"),
    [
        ("everything wanted", "exchange", "wanted too soon"),
        ("told", "exchange", "told too fast"),
        ("record changed", "exchange", "moved too fast"),
        ("leader after leader", "beacons", "too fast"),
        ("beacon after beacon", "beacons", "too fast"),
        ("vouch asked", "suspicions", "asked too much"),
        ("part request", "trades", "not granted"),
        ("handover", "handovers", "too many"),
        ("handover of a neighbour", "handovers", "too many"),
        ("join request", "others_walks", "busy"),
        ("search", "others_finds", "busy"),
    ],
)
def test_floods_can_be_seen(kind: str, machine: str, counted: str) -> None:
    bench = Victim()
    flood(bench, MADE_UP[kind])
    counts: dict[str, int] = getattr(statistics_of(bench.overlay), machine)
    assert counts[counted] > FLOOD * 0.8, counts


@pytest.mark.parametrize("message", MADE_UP.values(), ids=MADE_UP.keys())
@pytest.mark.parametrize("purpose", [Purpose.JOIN_REQUEST, Purpose.PROBE, Purpose.CONVERSATION])
def test_strangers_are_closed_or_ignored(
    purpose: Purpose, message: Callable[[int], OverlayMessage]
) -> None:
    bench = Victim()
    link = bench.link(SOMEBODY, purpose)
    bench.open(link)
    before = bench.remembered(), len(bench.overlay.book)
    body = message(7)
    if type(body) is JoinRequest and purpose is Purpose.JOIN_REQUEST:
        body = msgspec.structs.replace(body, record=record_of(SOMEBODY + 1))
    effects = bench.hear(link, body)
    assert says(effects) == []
    assert connects(effects) == []
    is_answer = type(body) in (JoinReply, FragmentTold)
    closed = [] if is_answer else [(link.number, CloseReason.PROTOCOL)]
    assert [(d.link, d.reason) for d in disconnects(effects)] == closed
    assert (bench.remembered(), len(bench.overlay.book)) == before


def test_no_flood_tells_the_application_more_than_happened() -> None:
    bench = Victim()
    told = [t for message in MADE_UP.values() for t in tells(flood_briefly(bench, message))]
    assert told == []


def flood_briefly(bench: Victim, message: Callable[[int], OverlayMessage]) -> list[OverlayEffect]:
    return [e for n in range(20) for e in bench.hear(bench.hostile, message(n), 1.0, id=n + 1)]
