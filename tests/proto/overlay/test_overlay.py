"""The overlay as a whole: who is let in, what is passed on, and that nothing remains."""

from __future__ import annotations

from random import Random

import pytest

from meshwalk.events import Alone, Joined, NeighbourDown, NeighbourUp
from meshwalk.proto.link import Link
from meshwalk.proto.overlay.addressbook import BookEntry
from meshwalk.proto.overlay.effects import Connect, OverlayEffect
from meshwalk.wire.address import Address
from meshwalk.wire.frames import Channel, CloseReason, Message, Purpose
from meshwalk.wire.messages import (
    Acquaintances,
    JoinOutcome,
    JoinReply,
    OverlayMessage,
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


@pytest.mark.parametrize("purpose", [Purpose.STANDING, Purpose.JOIN_ACCEPT, Purpose.JOIN_SPLIT])
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
    assert says(effects) == []
    assert [type(t.event) for t in tells(effects)] == [NeighbourDown, NeighbourDown]
    assert len(bench.timers) == 0


def test_a_bad_record_is_not_passed_on() -> None:
    """A defect: a peer's unreadable record was told to new neighbours, who blamed and left us."""
    bench = Bench()
    elsewhere = record_of(3, network_id=bytes(31) + b"x")
    for number, blob in ((1, b"junk"), (2, record_of(9)), (3, elsewhere)):
        bench.open(bench.link(number, record=blob))
    good = bench.link(4)
    effects = bench.open(good)
    assert [s for s in says(effects) if isinstance(s.body, Acquaintances)] == []


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


def test_acquaintances_count_once_and_are_bounded() -> None:
    bench = Bench(links_min=1)
    link = bench.neighbour(1)
    before = len(bench.overlay.book)
    for start in (100, 200):
        body = Acquaintances([record_of(start + n) for n in range(16)])
        bench.hear(link, body)
    assert len(bench.overlay.book) - before == bench.config.acquaintances_max
    for n in range(50):
        other = bench.neighbour(2)
        bench.hear(other, Acquaintances([record_of(300 + n)]))
        bench.end(other)
    assert bench.overlay._acquainted == {link.number}


@pytest.mark.parametrize(
    "blob", [b"", b"junk", record_of(5, signer=6), record_of(5, network_id=bytes(31) + b"x")]
)
def test_invalid_acquaintances_end_the_link(blob: bytes) -> None:
    bench = Bench(links_min=1)
    link = bench.neighbour(1)
    effects = bench.hear(link, Acquaintances([blob]))
    assert [d.reason for d in disconnects(effects)] == [CloseReason.PROTOCOL]


def test_a_greeting_is_believed_only_about_the_host_it_comes_from() -> None:
    bench = Bench()
    blob = record_of(1, "tcp://192.0.2.66:80", f"tcp://{host_of(1)}:7")
    bench.open(bench.link(1, record=blob))
    assert bench.overlay.book.entries[peer_of(1)].addresses == (Address(host_of(1), 7),)


@pytest.mark.parametrize("purpose", [Purpose.JOIN_REQUEST, Purpose.PROBE, Purpose.CONVERSATION])
@pytest.mark.parametrize(
    "body",
    [SplitRequest(record_of(5), b"t", host_of(5)), SplitReply(), Acquaintances([])],
    ids=lambda b: type(b).__name__,
)
def test_neighbours_messages_on_other_links(purpose: Purpose, body: OverlayMessage) -> None:
    bench = Bench()
    link = bench.link(5, purpose)
    bench.open(link)
    effects = bench.hear(link, body)
    assert [d.reason for d in disconnects(effects)] == [CloseReason.PROTOCOL]


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
    what = rng.randrange(9)
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
    if links:
        link = rng.choice(links)
        bodies: list[OverlayMessage] = [
            request(peer, token=bytes([rng.randrange(4)]), hops=rng.randrange(4), forced=0),
            request(peer, reach="", token=bytes([rng.randrange(4)])),
            SplitRequest(record_of(peer), b"s", host_of(peer)),
            SplitReply(),
            JoinReply(rng.choice(list(JoinOutcome)), 1, record_of(peer)),
        ]
        return bench.hear(link, rng.choice(bodies), now, to=rng.randrange(1000, bench.next_id()))
    return bench.overlay.enter(Address(host_of(peer), 1), None, now)


@pytest.mark.parametrize("seed", range(30))
def test_any_order_of_events_keeps_the_bounds_and_leaves_nothing(seed: int) -> None:
    rng = Random(seed)
    bench = Bench(links_min=2, links_max=4, seed=seed)
    links: list[Link] = []
    pending: list[Connect] = []
    balance, now = 0, 0.0
    for _ in range(300):
        effects = any_event(bench, rng, links, pending, now)
        now += rng.random()
        effects += bench.tick_until(now)
        while effects:
            effect = effects.pop(0)
            if isinstance(effect, Connect):
                pending.append(effect)
            kinds = [type(t.event) for t in tells([effect])]
            balance += kinds.count(NeighbourUp) - kinds.count(NeighbourDown)
            for closed in disconnects([effect]):
                for link in [known for known in links if known.number == closed.link]:
                    links.remove(link)
                    effects += bench.end(link, closed.reason, now, by_us=True)
        assert balance == len(bench.overlay.membership) <= 4
        assert bench.overlay.membership.walks_under_way == len(bench.overlay.walks.walks)
    drain(bench, links, pending, now)


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
    assert not overlay._acquainted
    assert len(bench.timers) == 0


def test_joined_and_alone() -> None:
    bench = Bench()
    link = bench.link(1)
    events = [t.event for t in tells(bench.open(link) + bench.end(link))]
    assert [type(e) for e in events] == [NeighbourUp, Joined, NeighbourDown, Alone]
