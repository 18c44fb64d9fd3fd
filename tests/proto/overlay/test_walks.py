"""A node's own walks, answer by answer."""

from __future__ import annotations

import pytest

from meshwalk.events import EntryFailed
from meshwalk.proto.link import Ended
from meshwalk.proto.overlay.bookentry import BookEntry, Table
from meshwalk.proto.overlay.effects import Say
from meshwalk.proto.overlay.membership import Place
from meshwalk.wire.address import Address
from meshwalk.wire.frames import CloseReason, Purpose
from meshwalk.wire.messages import JoinOutcome, JoinReply, JoinRequest

from .bench import Bench, connects, disconnects, host_of, peer_of, record_of, says, tells

ENTRY = Address("10.0.0.99", 1)


def walks_in(effects: list[Say]) -> list[Say]:
    return [s for s in effects if isinstance(s.body, JoinRequest)]


def walking() -> tuple[Bench, Say]:
    """A node with one neighbour, and the walk that it has sent over that link."""
    bench = Bench(links_min=2)
    link = bench.link(1)
    (walk,) = walks_in(says(bench.open(link)))
    return bench, walk


def token_of(walk: Say) -> bytes:
    assert isinstance(walk.body, JoinRequest)
    return walk.body.token


def test_alone_it_dials_its_entry_and_walks_from_there() -> None:
    bench = Bench()
    (connect,) = connects(bench.overlay.enter(ENTRY, None, 0.0))
    assert (connect.address, connect.purpose) == (ENTRY, Purpose.JOIN_REQUEST)
    _, effects = bench.succeed(connect, 99, 0.1)
    assert len(walks_in(says(effects))) == 1


def test_token_is_good_once_and_only_in_time() -> None:
    bench, walk = walking()
    link = bench.link(2, token=token_of(walk))
    assert bench.overlay.asked(link, bench.hello(link), 0.1) is None
    bench.open(link, 0.1)
    again = bench.link(3, token=token_of(walk))
    assert bench.overlay.asked(again, bench.hello(again), 0.2) is CloseReason.UNINVITED
    assert bench.overlay.walks.walks == {}


def test_late_tokens_expire() -> None:
    """A defect: a walk once answered in the negative stayed open to its token for ever."""
    bench, walk = walking()
    link = bench.overlay.membership.neighbours[peer_of(1)].link
    bench.hear(link, JoinReply(JoinOutcome.NO_PLACE, 1), to=walk.id)
    late = bench.link(2, token=token_of(walk))
    assert bench.overlay.asked(late, bench.hello(late), 4.9) is None
    assert bench.overlay.asked(late, bench.hello(late), 60.0) is CloseReason.UNINVITED
    bench.tick_until(20)
    assert token_of(walk) not in bench.overlay.walks.late


def test_a_split_token_is_good_for_one_of_each_kind() -> None:
    bench, walk = walking()
    bench.overlay.walks.failures = 9
    split = bench.link(2, Purpose.JOIN_SPLIT, token=token_of(walk))
    assert bench.overlay.asked(split, bench.hello(split), 0.1) is None
    bench.open(split, 0.1)
    second = bench.link(3, Purpose.JOIN_SPLIT, token=token_of(walk))
    assert bench.overlay.asked(second, bench.hello(second), 0.1) is CloseReason.UNINVITED
    accept = bench.link(3, Purpose.JOIN_ACCEPT, token=token_of(walk))
    assert bench.overlay.asked(accept, bench.hello(accept), 0.1) is None


@pytest.mark.parametrize("outcome", [JoinOutcome.LINKED, JoinOutcome.NO_PLACE, JoinOutcome.BUSY])
def test_answers_without_a_link_wait_before_the_next_round(outcome: JoinOutcome) -> None:
    """A defect: a peer that answered LINKED and did not link made us walk at once, in a loop."""
    bench, walk = walking()
    link = bench.overlay.membership.neighbours[peer_of(1)].link
    effects = bench.hear(link, JoinReply(outcome, 1), to=walk.id)
    assert walks_in(says(effects)) == []
    assert bench.overlay.walks.failures == 1
    assert bench.timers.next() is not None


def test_lying_neighbour_cannot_make_it_hurry() -> None:
    bench, walk = walking()
    link = bench.overlay.membership.neighbours[peer_of(1)].link
    started, now, id = 0, 0.0, walk.id
    while now < 60:
        effects = bench.hear(link, JoinReply(JoinOutcome.LINKED, 1), now, to=id)
        now += 0.25
        effects += bench.tick_until(now)
        for said in walks_in(says(effects)):
            started, id = started + 1, said.id
    assert started <= 12


def test_dial_me_is_followed_once() -> None:
    """A defect: each DIAL_ME for one walk brought another four dials at others' addresses."""
    bench, walk = walking()
    link = bench.overlay.membership.neighbours[peer_of(1)].link
    dials = []
    for n in range(20):
        blob = record_of(30 + n, *[f"tcp://192.0.2.{n}:{p}" for p in range(1, 9)])
        effects = bench.hear(link, JoinReply(JoinOutcome.DIAL_ME, 1, blob), to=walk.id)
        dials += connects(effects)
        while connects(effects):
            effects = bench.fail(connects(effects)[0], 0.1)
            dials += [c for c in connects(effects) if c.purpose is Purpose.STANDING]
    assert len(dials) <= bench.config.addresses_per_peer_max
    assert {c.purpose for c in dials} == {Purpose.STANDING}


@pytest.mark.parametrize(
    "blob",
    [
        b"",
        b"junk",
        record_of(5, signer=6),
        record_of(0),
        record_of(1),
        record_of(5, "tcp://[::]:1"),
    ],
    ids=["none", "junk", "forged", "myself", "my neighbour", "nowhere"],
)
def test_dial_me_with_hostile_records(blob: bytes) -> None:
    bench, walk = walking()
    link = bench.overlay.membership.neighbours[peer_of(1)].link
    effects = bench.hear(link, JoinReply(JoinOutcome.DIAL_ME, 1, blob), to=walk.id)
    assert connects(effects) == []
    assert bench.overlay.walks.walks == {}
    assert bench.overlay.walks.failures == 1


def test_dial_me_leads_to_a_link_with_the_walks_token() -> None:
    bench, walk = walking()
    link = bench.overlay.membership.neighbours[peer_of(1)].link
    reply = JoinReply(JoinOutcome.DIAL_ME, 1, record_of(5))
    (connect,) = connects(bench.hear(link, reply, to=walk.id))
    assert (connect.expected, connect.token) == (peer_of(5), token_of(walk))
    bench.succeed(connect, 5, 0.2)
    assert bench.overlay.walks.walks == {}
    assert peer_of(5) in bench.overlay.membership.neighbours


def test_dial_me_after_the_time_is_still_followed() -> None:
    """A defect: the acceptor kept its place in vain when its answer came a moment late."""
    bench, walk = walking()
    bench.tick_until(5.0)
    assert token_of(walk) in bench.overlay.walks.late
    link = bench.overlay.membership.neighbours[peer_of(1)].link
    reply = JoinReply(JoinOutcome.DIAL_ME, 1, record_of(5))
    assert len(connects(bench.hear(link, reply, 5.1, to=walk.id))) == 1


def test_answers_from_others_and_for_no_walk_are_ignored() -> None:
    bench, walk = walking()
    stranger = bench.link(9, Purpose.JOIN_REQUEST)
    bench.open(stranger)
    for link, id in ((stranger, walk.id), (stranger, 0)):
        reply = JoinReply(JoinOutcome.DIAL_ME, 1, record_of(9))
        assert bench.hear(link, reply, to=id) == []
    assert token_of(walk) in bench.overlay.walks.walks


def test_loss_of_the_link_loses_the_walk_but_not_its_token() -> None:
    bench, walk = walking()
    link = bench.overlay.membership.neighbours[peer_of(1)].link
    bench.end(link, now=0.1)
    assert bench.overlay.walks.walks == {}
    late = bench.link(2, token=token_of(walk))
    assert bench.overlay.asked(late, bench.hello(late), 0.2) is None


def test_the_entry_gets_a_turn_among_many_dead_peers() -> None:
    """A defect: as long as three dead peers of the book were ready, no entry was tried again."""
    bench = Bench()
    known = [
        BookEntry(peer_of(n), b"", 0, (Address(host_of(n), 1),), "store", 0.0, table=Table.VERIFIED)
        for n in range(1, 60)
    ]
    pending = connects(bench.overlay.enter(ENTRY, None, 0.0))
    pending += connects(bench.overlay.start(known, 0.0))
    now, dialled = 0.0, []
    while now < 300:
        while pending:
            dialled.append(pending[0].address)
            pending += connects(bench.fail(pending.pop(0), now))
        now += 0.5
        pending += connects(bench.tick_until(now))
    assert dialled.count(ENTRY) >= 4


def test_another_peer_at_one_address_is_no_reason_not_to_try_the_next() -> None:
    """A defect: a private address that is somebody else's here hid the public one."""
    bench = Bench()
    places = (Address("192.168.0.5", 1), Address("198.51.100.1", 1))
    entry = BookEntry(peer_of(1), b"", 0, places, "store", 0.0, table=Table.VERIFIED)
    (connect,) = connects(bench.overlay.start([entry], 0.0))
    link = bench.link(1, Purpose.JOIN_REQUEST, outbound=True)
    link.attempt = connect.attempt
    ended = Ended(None, "another", by_us=False, was_open=False, not_admitted=True)
    (second,) = connects(bench.overlay.ended(link, ended, 0.1))
    assert second.address == places[1]


def test_own_limit_on_dials_is_not_held_against_peers() -> None:
    """A defect: peers that were never dialled were counted as failed, and forgotten."""
    bench = Bench()
    entry = BookEntry(peer_of(1), b"", 0, (ENTRY,), "store", 0.0)
    (connect,) = connects(bench.overlay.start([entry], 0.0))
    effects = bench.overlay.not_dialled(connect.attempt, 0.0)
    assert bench.overlay.book.entries[peer_of(1)].failures == 0
    assert not [t for t in tells(effects) if isinstance(t.event, EntryFailed)]
    assert bench.timers.next() is not None


def test_link_to_the_entry_ends_with_its_walks() -> None:
    bench = Bench()
    (connect,) = connects(bench.overlay.enter(ENTRY, None, 0.0))
    link, effects = bench.succeed(connect, 99, 0.1)
    (walk,) = walks_in(says(effects))
    effects = bench.hear(link, JoinReply(JoinOutcome.NO_PLACE, 1), 0.2, to=walk.id)
    assert [d.link for d in disconnects(effects)] == [link.number]


def content() -> Bench:
    """A node that lacks nothing and has room."""
    bench = Bench(links_min=1)
    bench.neighbour(1)
    bench.tick_until(20)
    return bench


def test_an_entry_is_owed_a_link_though_others_filled_the_node() -> None:
    """A defect: whose first walk failed and who was linked with meanwhile never tried the entry
    again. Nodes that were all started at once came up in two networks."""
    bench = content()
    (connect,) = connects(bench.overlay.enter(ENTRY, None, 30.0))
    link, effects = bench.succeed(connect, 99, 30.1)
    (walk,) = walks_in(says(effects))
    bench.hear(link, JoinReply(JoinOutcome.NO_PLACE, 1), 30.2, to=walk.id)
    bench.end(link, CloseReason.DONE, 30.3)
    (again,) = connects(bench.tick_until(120))
    assert again.address == ENTRY
    link, effects = bench.succeed(again, 99, 120.1)
    (walk,) = walks_in(says(effects))
    bench.open(bench.link(2, token=token_of(walk)), 120.2)
    bench.end(link, CloseReason.DONE, 120.3)
    assert not connects(bench.tick_until(1000)), "it has brought a link, and is owed no more"


def test_a_dead_entry_is_told_once_as_long_as_nothing_is_missing() -> None:
    bench = content()
    pending = connects(bench.overlay.enter(ENTRY, None, 30.0))
    told, dials, now = 0, 0, 30.0
    while now < 300:
        for connect in pending:
            dials += 1
            told += len(tells(bench.fail(connect, now)))
        now += 0.5
        pending = connects(bench.tick_until(now))
    assert told == 1
    assert 5 < dials < 30, "again and again, with pauses that grow"


def test_who_cannot_be_dialled_follows_dial_me_to_an_entry_it_is_owed() -> None:
    """A defect: with enough links it did not, and never came out of its fragment."""
    bench = content()
    (connect,) = connects(bench.overlay.enter(ENTRY, None, 30.0))
    link, effects = bench.succeed(connect, 99, 30.1)
    (walk,) = walks_in(says(effects))
    reply = JoinReply(JoinOutcome.DIAL_ME, 1, record_of(98))
    (dial,) = connects(bench.hear(link, reply, 30.2, to=walk.id))
    assert (dial.expected, dial.token) == (peer_of(98), token_of(walk))


def test_own_limit_on_dials_makes_it_wait() -> None:
    """A defect: while a promised place was being dialled, a dial that was not begun was asked for
    again in the same step, without end."""
    bench = Bench()
    (connect,) = connects(bench.overlay.enter(ENTRY, None, 0.0))
    link, effects = bench.succeed(connect, 99, 0.1)
    (walk, *_) = walks_in(says(effects))
    reply = JoinReply(JoinOutcome.DIAL_ME, 1, record_of(98))
    assert connects(bench.hear(link, reply, 0.2, to=walk.id))
    sources = connects(bench.end(link, CloseReason.DONE, 0.3) + bench.tick_until(3))
    assert sources
    for source in sources:
        assert not connects(bench.overlay.not_dialled(source.attempt, 3.0))
    assert connects(bench.tick_until(10)), "but it is tried again"


def test_alone_with_a_known_entry_it_waits_longer_and_longer() -> None:
    """Whom it reached by an entry counts as tried, or the pause would not grow."""
    bench = Bench()
    (connect,) = connects(bench.overlay.enter(ENTRY, None, 0.0))
    link, effects = bench.succeed(connect, 99, 0.1)
    (walk, *_) = walks_in(says(effects))
    neighbour = bench.link(99, token=token_of(walk))
    bench.open(neighbour, 0.2)
    bench.end(link, CloseReason.DONE, 0.3)
    pending, dials, now = connects(bench.end(neighbour, None, 0.4)), 0, 0.4
    while now < 300:
        for connect in pending:
            dials += 1
            pending = connects(bench.fail(connect, now))
        now += 0.25
        pending = connects(bench.tick_until(now))
    assert dials < 60, "some ten a minute at most"


def test_a_split_taken_leaves_the_walk_open_to_its_other_half() -> None:
    """A defect: when the link that was split was also the way back, the answer BUSY ended the walk,
    the other half was refused, and the network had lost a link."""
    bench, walk = walking()
    link = bench.overlay.membership.neighbours[peer_of(1)].link
    split = bench.link(2, Purpose.JOIN_SPLIT, token=token_of(walk))
    bench.open(split, 0.1)
    bench.hear(link, JoinReply(JoinOutcome.BUSY, 1), 0.2, to=walk.id)
    accept = bench.link(3, Purpose.JOIN_ACCEPT, token=token_of(walk))
    assert bench.overlay.asked(accept, bench.hello(accept), 0.3) is None


def test_a_split_is_let_in_only_with_a_place_for_its_other_half() -> None:
    """A defect: the origin took the first half as its last link and refused the second, so that the
    link that had been split was gone for nothing."""
    bench = Bench(links_min=2, links_max=4)
    link = bench.link(1)
    (walk,) = walks_in(says(bench.open(link)))
    bench.neighbour(5)
    split = bench.link(2, Purpose.JOIN_SPLIT, token=token_of(walk))
    assert bench.overlay.asked(split, bench.hello(split), 0.1) is None
    bench.open(split, 0.1)
    assert len(bench.overlay.membership) == 3
    bench.overlay.membership.promise(b"stranger", Place(peer_of(7), 60.0))
    stranger = bench.link(7, Purpose.STANDING, token=b"stranger")
    assert bench.overlay.asked(stranger, bench.hello(stranger), 0.2) is CloseReason.FULL
    other_half = bench.link(3, Purpose.JOIN_ACCEPT, token=token_of(walk))
    assert bench.overlay.asked(other_half, bench.hello(other_half), 0.2) is None
    bench.open(other_half, 0.2)
    assert bench.overlay.membership.is_full


def test_with_one_place_left_a_split_is_refused() -> None:
    bench, walk = walking()
    bench.neighbour(5)
    bench.neighbour(6)
    split = bench.link(2, Purpose.JOIN_SPLIT, token=token_of(walk))
    assert bench.overlay.asked(split, bench.hello(split), 0.1) is CloseReason.FULL


def test_places_are_kept_for_other_halves_only_above_the_minimum() -> None:
    """Or a peer that quotes our tokens and goes away again could keep others out."""
    bench = Bench(links_min=3, links_max=5)
    link = bench.link(1)
    walks = walks_in(says(bench.open(link)))
    split = bench.link(2, Purpose.JOIN_SPLIT, token=token_of(walks[0]))
    bench.open(split, 0.1)
    bench.end(split, CloseReason.DONE, 0.2)
    walks += walks_in(says(bench.tick_until(1.0)))
    for number, walk in enumerate(bench.overlay.walks.walks.values(), 3):
        honest = bench.link(number, token=walk.token)
        assert bench.overlay.asked(honest, bench.hello(honest), 0.3) is None


def test_the_bound_on_groups_is_back_when_others_have_filled_the_node() -> None:
    """A defect: it stayed aside unless an own walk brought the last link."""
    bench = Bench(links_min=3, links_max=8)
    bench.overlay.start([], 0.0)
    pending = connects(bench.overlay.enter(ENTRY, None, 0.0))
    for now in range(1, 60):
        effects = bench.tick_until(now)
        for connect in pending:
            effects += bench.fail(connect, now)
        pending = connects(effects)
    membership = bench.overlay.membership
    assert not membership.groups_count
    for number in range(3):
        bench.open(bench.link(number + 1, Purpose.JOIN_ACCEPT, outbound=True), 60.0)
    assert membership.missing == 0
    assert membership.groups_count
