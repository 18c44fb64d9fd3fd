"""What a node does with others' walks, request by request."""

from __future__ import annotations

from collections import Counter

import pytest

from meshwalk.events import Alone, NeighbourDown, NeighbourUp
from meshwalk.proto.link import Link
from meshwalk.proto.overlay.effects import Disconnect, OverlayEffect
from meshwalk.wire.address import Address
from meshwalk.wire.frames import CloseReason, Purpose
from meshwalk.wire.messages import (
    HOPS_MAX,
    JoinOutcome,
    JoinReply,
    JoinRequest,
    SplitReply,
    SplitRequest,
)

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

ORIGIN = 50


def answers(effects: list[OverlayEffect]) -> list[JoinOutcome]:
    return [s.body.outcome for s in says(effects) if isinstance(s.body, JoinReply)]


def with_neighbours(count: int) -> Bench:
    bench = Bench()
    for number in range(1, count + 1):
        bench.neighbour(number)
    return bench


def link_to(bench: Bench, peer: int) -> Link:
    return bench.overlay.membership.neighbours[peer_of(peer)].link


def test_below_the_minimum_it_accepts_and_dials_where_the_origin_is() -> None:
    bench = with_neighbours(1)
    effects = bench.hear(link_to(bench, 1), request(ORIGIN, hops=5, forced=3))
    (connect,) = connects(effects)
    assert connect.address == Address(host_of(ORIGIN), 1)
    assert (connect.expected, connect.purpose) == (peer_of(ORIGIN), Purpose.JOIN_ACCEPT)
    link, effects = bench.succeed(connect, ORIGIN, 0.1)
    assert answers(effects) == [JoinOutcome.LINKED]
    assert bench.overlay.membership.places == {}
    assert link_to(bench, ORIGIN) is link


@pytest.mark.parametrize("lie", ["tcp://192.0.2.66:80", "tcp://victim.example:80"])
def test_only_addresses_at_the_seen_host_are_dialled(lie: str) -> None:
    bench = with_neighbours(0)
    link = bench.link(ORIGIN, Purpose.JOIN_REQUEST)
    bench.open(link)
    blob = record_of(ORIGIN, lie, f"tcp://{host_of(ORIGIN)}:9")
    effects = bench.hear(link, request(ORIGIN, record=blob, reach="192.0.2.66"))
    assert [c.address for c in connects(effects)] == [Address(host_of(ORIGIN), 9)]


def test_an_outsider_cannot_set_where_it_is_reached() -> None:
    bench = with_neighbours(0)
    link = bench.link(ORIGIN, Purpose.JOIN_REQUEST)
    bench.open(link)
    blob = record_of(ORIGIN, "tcp://192.0.2.66:80")
    effects = bench.hear(link, request(ORIGIN, record=blob, reach="192.0.2.66"))
    assert connects(effects) == []
    assert answers(effects) == [JoinOutcome.DIAL_ME]


@pytest.mark.parametrize(
    ("purpose", "outbound", "origin"),
    [
        (Purpose.JOIN_REQUEST, False, ORIGIN + 1),
        (Purpose.JOIN_REQUEST, True, ORIGIN),
        (Purpose.PROBE, False, ORIGIN),
        (Purpose.CONVERSATION, False, ORIGIN),
    ],
)
def test_requests_on_wrong_links_break_the_protocol(
    purpose: Purpose, outbound: bool, origin: int
) -> None:
    bench = with_neighbours(2)
    link = bench.link(ORIGIN, purpose, outbound=outbound)
    bench.open(link)
    effects = bench.hear(link, request(origin))
    assert [d.reason for d in disconnects(effects)] == [CloseReason.PROTOCOL]
    assert connects(effects) == []


@pytest.mark.parametrize(
    "blob",
    [
        b"",
        b"junk",
        record_of(ORIGIN, signer=ORIGIN + 1),
        record_of(ORIGIN, network_id=bytes(31) + b"x"),
    ],
    ids=["none", "junk", "forged", "other network"],
)
def test_invalid_records(blob: bytes) -> None:
    bench = with_neighbours(2)
    link = link_to(bench, 1)
    for body in (request(ORIGIN, record=blob), SplitRequest(blob, b"t", host_of(ORIGIN))):
        effects = bench.hear(link, body)
        assert [(d.link, d.reason) for d in disconnects(effects)] == [
            (link.number, CloseReason.PROTOCOL)
        ]
        assert connects(effects) == []
    assert peer_of(ORIGIN) not in bench.overlay.book.entries


def test_the_origin_does_not_choose_how_far_its_walk_goes() -> None:
    """A defect: with no hops a newcomer could have itself taken, by a split, by whom it wanted."""
    bench = with_neighbours(4)
    link = bench.link(ORIGIN, Purpose.JOIN_REQUEST)
    bench.open(link)
    (said,) = says(bench.hear(link, request(ORIGIN, hops=0, forced=0)))
    assert isinstance(said.body, JoinRequest)
    assert said.body.hops_left == bench.config.walk_hops - 1
    assert said.body.forced_hops == bench.config.forced_hops - 1


def test_hops_of_a_neighbours_request_are_bounded() -> None:
    """A defect: a neighbour could have a walk go on for 64 hops."""
    bench = with_neighbours(4)
    effects = bench.hear(link_to(bench, 1), request(ORIGIN, hops=HOPS_MAX, forced=HOPS_MAX))
    (said,) = says(effects)
    assert isinstance(said.body, JoinRequest)
    assert said.body.hops_left <= bench.config.walk_hops
    assert said.body.forced_hops <= bench.config.forced_hops


def test_answers_go_back_once_and_only_from_whom_was_asked() -> None:
    bench = with_neighbours(4)
    effects = bench.hear(link_to(bench, 1), request(ORIGIN, hops=5), id=77)
    (said,) = says(effects)
    asked = next(n for n in range(1, 5) if link_to(bench, n).number == said.link)
    other = next(n for n in range(2, 5) if n != asked)
    reply = JoinReply(JoinOutcome.NO_PLACE, HOPS_MAX)
    assert bench.hear(link_to(bench, other), reply, to=said.id) == []
    (back,) = says(bench.hear(link_to(bench, asked), reply, to=said.id))
    assert (back.link, back.in_reply_to) == (link_to(bench, 1).number, 77)
    assert bench.hear(link_to(bench, asked), reply, to=said.id) == []


def test_loss_of_the_onward_link_is_answered() -> None:
    bench = with_neighbours(4)
    (said,) = says(bench.hear(link_to(bench, 1), request(ORIGIN, hops=5), id=77))
    onward = next(link_to(bench, n) for n in range(1, 5) if link_to(bench, n).number == said.link)
    assert JoinOutcome.BUSY in answers(bench.end(onward))
    assert bench.overlay.carrier.carried == {}


def test_carried_walks_and_places_expire_by_themselves() -> None:
    """A defect: both stayed until the next request came."""
    bench = with_neighbours(4)
    bench.hear(link_to(bench, 1), request(ORIGIN, hops=5))
    sparse = with_neighbours(1)
    sparse.hear(link_to(sparse, 1), request(ORIGIN, reach=""))
    assert len(sparse.overlay.membership.places) == 1
    for each in (bench, sparse):
        each.tick_until(60)
        assert not each.overlay.carrier.carried
        assert not each.overlay.membership.places
    link = sparse.link(ORIGIN, Purpose.STANDING, token=b"t")
    assert sparse.overlay.asked(link, sparse.hello(link), 60) is CloseReason.UNINVITED


def test_flood_of_requests_is_answered_busy_and_remembered_within_bounds() -> None:
    bench = with_neighbours(4)
    outcomes = []
    for number in range(2000):
        outcomes += answers(
            bench.hear(link_to(bench, 1), request(1000 + number, hops=5), id=number + 1)
        )
    carrier, config = bench.overlay.carrier, bench.config
    assert len(carrier.carried) <= config.walks_per_link_burst
    assert outcomes.count(JoinOutcome.BUSY) >= 2000 - config.walks_per_link_burst - 20
    assert len(bench.overlay.book) <= bench.settings.book.total_max
    bench.end(link_to(bench, 1))
    assert 1 not in carrier._rates


def test_dial_backs_have_a_budget() -> None:
    bench = Bench(links_min=100, links_max=150)
    bench.neighbour(1)
    dials = 0
    for number in range(250):
        dials += len(
            connects(bench.hear(link_to(bench, 1), request(1000 + number, token=bytes([number]))))
        )
    assert dials == bench.config.dial_backs_burst


def test_silent_firewall_is_told_to_dial_before_its_walk_is_over() -> None:
    """A defect: the dial-back took as long as the whole walk, and such nodes never joined."""
    bench = with_neighbours(1)
    (connect,) = connects(bench.hear(link_to(bench, 1), request(ORIGIN)))
    effects = bench.tick_until(bench.config.walk_timeout_s / 2)
    assert answers(effects) == [JoinOutcome.DIAL_ME]
    link = bench.link(ORIGIN, Purpose.STANDING, token=b"t")
    assert bench.overlay.asked(link, bench.hello(link), 6.0) is None, "the place is kept anew"
    bench.open(link, 6.0)
    assert answers(bench.fail(connect, 10.0)) == []
    assert not bench.overlay.carrier.acceptances


def test_refused_dial_back_pauses_the_address() -> None:
    bench = with_neighbours(1)
    (connect,) = connects(bench.hear(link_to(bench, 1), request(ORIGIN)))
    assert answers(bench.fail(connect, 0.1)) == [JoinOutcome.DIAL_ME]
    bench.tick_until(10)
    assert connects(bench.hear(link_to(bench, 1), request(ORIGIN, token=b"u"), 10.0)) == []


def test_neither_end_can_be_dialled() -> None:
    """A defect: a place was kept for an origin that had nowhere to come to."""
    bench = Bench(announces=False)
    link = bench.neighbour(1)
    effects = bench.hear(link, request(ORIGIN, reach=""))
    assert answers(effects) == [JoinOutcome.NO_PLACE]


# Splits.


def full() -> Bench:
    return with_neighbours(4)


def split_asked(bench: Bench) -> tuple[int, int]:
    """Which neighbour is asked to split, and by which message."""
    effects = bench.hear(link_to(bench, 1), request(ORIGIN))
    (said,) = [s for s in says(effects) if isinstance(s.body, SplitRequest)]
    peer = next(n for n in range(1, 5) if link_to(bench, n).number == said.link)
    return peer, said.id


def test_full_node_splits_and_keeps_its_number() -> None:
    bench = full()
    peer, _ = split_asked(bench)
    effects = bench.end(link_to(bench, peer), CloseReason.SPLIT)
    (connect,) = connects(effects)
    _, effects = bench.succeed(connect, ORIGIN, 0.1)
    assert answers(effects) == [JoinOutcome.LINKED]
    assert len(bench.overlay.membership) == 4


def test_another_link_of_the_asked_neighbour_does_not_end_the_split() -> None:
    """A defect: any link to that peer that ended, even a refused one, counted as its answer."""
    bench = full()
    peer, id = split_asked(bench)
    stray = bench.link(peer, Purpose.PROBE)
    bench.open(stray)
    assert says(bench.end(stray, CloseReason.DONE)) == []
    assert id in bench.overlay.carrier.splits


def test_one_split_link_serves_one_origin() -> None:
    """A defect: every origin that was waiting for this neighbour was dialled at once."""
    bench = full()

    for number in range(8):
        bench.hear(link_to(bench, 1), request(ORIGIN + number, token=bytes([number])))
    waiting = Counter(split.link for split in bench.overlay.carrier.splits.values())
    ((number, times),) = waiting.most_common(1)
    assert times > 1
    peer = next(n for n in range(1, 5) if link_to(bench, n).number == number)
    dialled = len(connects(bench.end(link_to(bench, peer), CloseReason.SPLIT)))
    assert dialled == 1


def test_split_refused_by_all_and_by_strangers() -> None:
    bench = full()
    peer, id = split_asked(bench)
    other = next(n for n in range(1, 5) if n != peer)
    assert bench.hear(link_to(bench, other), SplitReply(), to=id) == []
    outcomes: list[JoinOutcome] = []
    for _ in range(bench.config.split_tries):
        effects = bench.hear(link_to(bench, peer), SplitReply(), to=id)
        outcomes += answers(effects)
        asked = [s for s in says(effects) if isinstance(s.body, SplitRequest)]
        if asked:
            id = asked[0].id
            peer = next(n for n in range(1, 5) if link_to(bench, n).number == asked[0].link)
    assert outcomes == [JoinOutcome.NO_PLACE]
    assert not bench.overlay.carrier.splits


def test_split_without_an_answer_is_answered_in_time() -> None:
    """A defect: the origin's request was forgotten without a word."""
    bench = full()
    split_asked(bench)
    effects = bench.tick_until(bench.config.walk_timeout_s)
    assert answers(effects) == [JoinOutcome.NO_PLACE]


def test_promised_places_are_no_reason_to_split() -> None:
    """A defect: a node whose places were promised gave up the only link it had."""
    bench = Bench(links_min=1, links_max=3)
    link = bench.neighbour(1)
    for number in range(2):
        bench.hear(link, request(100 + number, token=bytes([number]), reach=""))
    effects = bench.hear(link, request(ORIGIN))
    assert answers(effects) == [JoinOutcome.BUSY]


def test_asked_to_split_it_swaps_one_link_for_another() -> None:
    bench = full()
    old = link_to(bench, 2)
    split = SplitRequest(record_of(ORIGIN), b"t", host_of(ORIGIN))
    (connect,) = connects(bench.hear(old, split))
    again = bench.hear(old, SplitRequest(record_of(60), b"u", host_of(60)), id=8)
    assert [type(s.body) for s in says(again)] == [SplitReply], "one at a time"
    _, effects = bench.succeed(connect, ORIGIN, 0.1)
    assert Disconnect(old.number, CloseReason.SPLIT) in effects
    assert len(bench.overlay.membership) == 4


def test_split_of_the_only_link_leaves_nobody_alone() -> None:
    """A defect: with one link, dropping it before adding the other told the application: alone."""
    bench = Bench()
    old = bench.neighbour(1)
    (connect,) = connects(bench.hear(old, SplitRequest(record_of(ORIGIN), b"t", host_of(ORIGIN))))
    _, effects = bench.succeed(connect, ORIGIN, 0.1)
    assert [type(t.event) for t in tells(effects)] == [NeighbourUp, NeighbourDown]
    assert Alone not in [type(t.event) for t in tells(effects)]


def test_only_one_link_at_a_time_makes_room_for_whom_nobody_can_dial() -> None:
    """A defect: origins without an address could push out all neighbours at once."""
    bench = full()
    outcomes: list[JoinOutcome] = []
    for number in range(4):
        body = request(ORIGIN + number, token=bytes([number]), reach="")
        outcomes += answers(bench.hear(link_to(bench, 1), body))
    assert outcomes == [JoinOutcome.DIAL_ME, *[JoinOutcome.NO_PLACE] * 3]
    link = bench.link(ORIGIN, Purpose.STANDING, token=bytes([0]))
    assert bench.overlay.asked(link, bench.hello(link), 0.1) is None
    bench.open(link, 0.1)
    assert len(bench.overlay.membership) == 4
    again = bench.link(ORIGIN, Purpose.STANDING, token=bytes([0]))
    assert bench.overlay.asked(again, bench.hello(again), 0.2) is CloseReason.UNINVITED
