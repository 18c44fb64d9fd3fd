"""Broadcasts at one node: once, in time, from whom they say, and to whom they should go."""

from __future__ import annotations

import pytest

from meshwalk.config import BroadcastConfig, Config, HistoryConfig, Spreading
from meshwalk.proto.broadcast.arriving import PRUNED_GRACE_S
from meshwalk.proto.broadcast.effects import Blame, GossipEffect
from meshwalk.proto.effects import BroadcastsMissed, Deliver, KeepBroadcast, Readers, ReceiptCame
from meshwalk.wire.frames import CloseReason, ContentType
from meshwalk.wire.gossip import (
    MARK_REPAIRED,
    Broadcast,
    Gone,
    Graft,
    Have,
    Held,
    HistoryWanted,
    Prune,
    Receipt,
    Stem,
    Want,
    encode_gossip,
)
from meshwalk.wire.messages import HOPS_MAX
from meshwalk.wire.records import ASKS_RECEIPT, decode_broadcast_payload

from .scene import Desk, copy_of, delivered, passed, payload_of, peer, to

CONFIG = BroadcastConfig()
AGE_S, SKEW_S = CONFIG.age_max_s, CONFIG.clock_skew_max_s
WAIT_S = 20.0  # longer than anything is waited for
KEY = bytes(peer(5))


def is_new(
    desk: Desk,
    origin: int = 5,
    sequence: int = 1,
    *,
    epoch: int = 1,
    sent_at: float = 0.0,
    now: float = 0.0,
) -> bool:
    payload = payload_of(origin, sequence, epoch=epoch, sent_at=sent_at)
    effects = desk.hear(1, copy_of(payload, origin), now)
    return any(type(effect) is Deliver for effect in effects)


def blames(effects: list[GossipEffect]) -> list[CloseReason]:
    return [effect.reason for effect in effects if type(effect) is Blame]


# Once, in time, and from whom they say.


def test_delivered_kept_and_passed_on_once() -> None:
    desk = Desk(3)
    effects = desk.hear(1, copy_of(payload_of(body=b"x"), 5, hops=3))
    ((to_others, copy),) = passed(effects, Broadcast)
    assert to_others == {peer(2), peer(3)}
    assert copy.hops == 4
    (delivery,) = delivered(effects)
    assert (delivery.origin, delivery.hops, delivery.body) == (peer(5), 3, b"x")
    (kept,) = [effect for effect in effects if type(effect) is KeepBroadcast]
    assert (kept.origin, kept.epoch, kept.sequence) == (KEY, 1, 1)
    again = desk.hear(2, copy_of(payload_of(body=b"x"), 5, hops=3))
    assert not delivered(again)
    assert not passed(again, Broadcast)


def test_a_bundle_is_delivered_message_by_message() -> None:
    desk = Desk(1)
    effects = desk.hear(1, copy_of(payload_of(sequence=7, count=3), 5))
    assert [delivery.sequence for delivery in delivered(effects)] == [7, 8, 9]
    assert desk.counts["messages delivered"] == 3


def test_published_ones_are_heard_elsewhere_and_not_here() -> None:
    here, there = Desk(2), Desk(1, me=9)
    number, effects = here.gossip.publish("", ContentType.BYTES, b"x", 1.0)
    assert number == 1
    ((to_all, copy),) = passed(effects, Broadcast)
    assert to_all == {peer(1), peer(2)}
    assert not delivered(effects)
    assert not delivered(here.hear(1, copy, 1.0))
    assert here.counts["own"] == 1
    assert [delivery.body for delivery in delivered(there.hear(1, copy, 1.0))] == [b"x"]


@pytest.mark.parametrize(
    "body", [b"", b"\xc1", encode_gossip(Broadcast(b"", bytes(64), 1)), encode_gossip(Prune())[:-1]]
)
def test_malformed_is_blamed(body: bytes) -> None:
    desk = Desk(1)
    assert blames(desk.gossip.receive(peer(1), body, 0, 0.0)) == [CloseReason.MALFORMED]
    assert desk.gossip.receive(peer(2), body, 0, 0.0) == [], "no neighbour"


def test_malformed_behind_a_good_head_is_blamed_when_its_signature_is_right() -> None:
    desk = Desk(1)
    payload = payload_of()
    assert decode_broadcast_payload(payload).asks == 0
    cut = payload[:1] + payload[1:-4]
    assert blames(desk.hear(1, copy_of(cut, 5))) == [CloseReason.MALFORMED]


def test_forged_is_blamed_and_leaves_no_trace() -> None:
    desk = Desk(2)
    effects = desk.hear(1, copy_of(payload_of(), 6))
    assert blames(effects) == [CloseReason.PROTOCOL]
    assert len(effects) == 1
    assert len(desk.gossip.origins) == len(desk.gossip.history) == 0
    assert is_new(desk)


def test_too_big_and_too_far() -> None:
    desk = Desk(2)
    assert desk.hear(1, copy_of(payload_of(body=bytes(CONFIG.body_bytes_max + 1)), 5)) == []
    effects = desk.hear(1, copy_of(payload_of(), 5, hops=HOPS_MAX))
    assert delivered(effects)
    ((_, copy),) = passed(effects, Broadcast)
    assert copy.hops == HOPS_MAX, "as far as can be said"


@pytest.mark.parametrize(
    ("sent_at", "fresh"),
    [(-AGE_S - 1, False), (-AGE_S + 1, True), (SKEW_S - 1, True), (SKEW_S + 1, False)],
)
def test_stale_by_the_clock(sent_at: float, fresh: bool) -> None:
    assert is_new(Desk(1), sent_at=sent_at) == fresh


def test_who_brings_nothing_but_what_is_far_too_old_loses_its_link() -> None:
    desk = Desk(2)
    desk.copy(2)
    old = copy_of(payload_of(sent_at=-AGE_S - SKEW_S - 1), 5)
    for _ in range(1000):
        effects = desk.hear(1, old)
        if effects:
            break
    assert blames(effects) == [CloseReason.DISTRUSTED]
    assert desk.gossip.trust.is_refused(peer(1), 0.0)


def test_who_has_a_wrong_clock_blames_nobody() -> None:
    desk = Desk(1)
    old = copy_of(payload_of(sent_at=-AGE_S - SKEW_S - 1), 5)
    assert not any(desk.hear(1, old) for _ in range(1000))


@pytest.mark.parametrize("ahead_s", [0.0, 100.0, SKEW_S - 1])
def test_never_twice_however_long_it_is_replayed(ahead_s: float) -> None:
    """A defect: what an origin with a fast clock had sent came again when it was forgotten."""
    desk = Desk(1)
    assert is_new(desk, sent_at=ahead_s)
    for second in range(0, 9000, 67):
        now = float(second)
        is_new(desk, 8, second + 1, sent_at=now, now=now)
        assert not is_new(desk, sent_at=ahead_s, now=now)


def test_never_twice_across_a_restart_of_the_origin() -> None:
    desk = Desk(1)
    assert is_new(desk, sent_at=SKEW_S - 1)
    assert is_new(desk, epoch=2)
    for second in range(0, 9000, 67):
        assert not is_new(desk, sent_at=SKEW_S - 1, now=float(second))


def test_epochs() -> None:
    desk = Desk(1)
    assert is_new(desk, sequence=9, epoch=2)
    assert not is_new(desk, sequence=10, epoch=1)
    assert is_new(desk, sequence=1, epoch=3)
    assert desk.counts["earlier run"] == 1


def test_an_origin_whose_clock_was_set_back_is_heard_again_in_time() -> None:
    """A defect: it stayed silenced until somebody else broadcast."""
    desk = Desk(1)
    assert is_new(desk, epoch=2)
    later = CONFIG.remembered_s + 1
    assert is_new(desk, epoch=1, sent_at=later, now=later)


def test_overflow_of_origins_never_delivers_twice() -> None:
    """A defect: with more origins than places each made the others' messages new again, so that
    they went round until their hops ran out."""
    desk = Desk(1, Config(broadcast=BroadcastConfig(origins_max=10)))
    origins = range(11, 41)
    assert all(is_new(desk, n, sent_at=n / 100, now=1.0) for n in origins)
    assert len(desk.gossip.origins) == 10
    for _ in range(3):
        assert not any(is_new(desk, n, sent_at=n / 100, now=1.0) for n in origins)
    assert is_new(desk, 99, sent_at=0.9, now=1.0), "newer ones are heard"


def test_an_origin_that_was_forgotten_and_is_heard_again_never_delivers_twice() -> None:
    """A defect: its next broadcast made it known again, and then its older ones were new."""
    desk = Desk(1, Config(broadcast=BroadcastConfig(origins_max=2)))
    assert is_new(desk, 11, 1, sent_at=0.1, now=1.0)
    for other in (12, 13):
        assert is_new(desk, other, sent_at=0.2, now=1.0)
    assert is_new(desk, 11, 2, sent_at=0.3, now=1.0)
    assert not is_new(desk, 11, 1, sent_at=0.1, now=1.0)


def test_what_comes_early_goes_to_those_at_once_who_do_not_mind() -> None:
    desk = Desk(1)
    assert desk.copy(1, sequence=1)
    effects = desk.copy(1, sequence=3)
    assert [e.readers for e in effects if type(e) is Deliver] == [Readers.UNORDERED]
    assert desk.gossip.ordering.held == 1
    (late,) = [delivery.sequence for delivery in delivered(desk.run(WAIT_S))]
    assert late == 3
    assert desk.gossip.ordering.held == 0


# The tree.


def test_who_brings_a_second_copy_is_no_branch_any_more() -> None:
    desk = Desk(3)
    desk.copy(1)
    assert to(desk.copy(2), Prune) == {peer(2)}
    effects = desk.copy(1, sequence=2)
    assert to(effects, Broadcast) == {peer(3)}
    assert to(desk.run(1.0), Have) == {peer(2)}


def test_who_prunes_is_told_of_what_there_is() -> None:
    desk = Desk(2)
    desk.hear(2, Prune())
    assert to(desk.copy(1), Broadcast) == set()
    assert to(desk.run(1.0), Have) == {peer(2)}
    desk.hear(2, Graft())
    assert to(desk.copy(1, sequence=2), Broadcast) == {peer(2)}


def test_one_origin_may_be_grafted_alone() -> None:
    desk = Desk(2)
    desk.hear(2, Prune())
    desk.hear(2, Graft(KEY))
    assert to(desk.copy(1, origin=5), Broadcast) == set(), "nobody has heard of it"
    desk.hear(2, Graft(KEY))
    assert to(desk.copy(1, origin=5, sequence=2), Broadcast) == {peer(2)}
    assert to(desk.copy(1, origin=6), Broadcast) == set()


def test_a_repaired_copy_says_nothing_of_the_tree() -> None:
    desk = Desk(3)
    desk.copy(1)
    assert not passed(desk.copy(2, marks=MARK_REPAIRED), Prune)
    desk.copy(1, sequence=2, marks=MARK_REPAIRED)
    assert not passed(desk.copy(2, sequence=2), Prune), "nor does one that came second to it"


def test_who_pushes_on_a_link_that_has_long_been_none_is_told_again_and_blamed() -> None:
    desk = Desk(2)
    desk.copy(1)
    desk.copy(2)
    assert to(desk.copy(2), Prune) == set(), "it was on its way"
    assert desk.gossip.trust.counts["unwanted"] == 0
    now = PRUNED_GRACE_S + 1.0
    again = desk.hear(2, copy_of(payload_of(), 5), now)
    assert to(again, Prune) == {peer(2)}
    assert desk.gossip.trust.counts["unwanted"] == 0, "it may not know"
    desk.hear(2, copy_of(payload_of(), 5), 2 * now)
    assert desk.gossip.trust.counts["unwanted"] == 1


def test_a_flood_goes_everywhere_and_is_announced_nowhere() -> None:
    desk = Desk(3, Config(broadcast=BroadcastConfig(spreading=Spreading.FLOOD)))
    desk.copy(1)
    assert not passed(desk.copy(2), Prune)
    desk.hear(3, Prune())
    effects = desk.copy(1, sequence=2)
    assert to(effects, Broadcast) == {peer(2), peer(3)}
    assert not passed(desk.run(WAIT_S), Have)


def test_who_loses_its_last_branch_makes_another() -> None:
    desk = Desk()
    for number, rtt_s in ((1, 0.03), (2, 0.02), (3, 0.01)):
        desk.up(number, rtt_s=rtt_s)
    for number in (2, 3):
        desk.hear(number, Prune())
    assert to(desk.down(1), Graft) == {peer(3)}


# What is missing.


def have(sequence: int, last: int | None = None, epoch: int = 1) -> Have:
    return Have([Held(KEY, epoch, [sequence, last or sequence], 1, 0)])


def test_what_is_announced_and_does_not_come_is_asked_for() -> None:
    desk = Desk(2)
    desk.copy(1)
    assert desk.hear(2, have(1, 3)) == []
    ((asked, want),) = passed(desk.run(desk.gossip.fetching.wait_s), Want)
    assert (asked, want.ranges) == ({peer(2)}, [2, 3])
    effects = desk.copy(2, sequence=2)
    assert [delivery.sequence for delivery in delivered(effects)] == [2]
    assert to(effects, Broadcast) == {peer(1)}
    assert to(desk.copy(2, sequence=3), Want) == set()
    assert len(desk.gossip.fetching) == 0


def test_a_gap_is_asked_for_of_who_jumped_it() -> None:
    desk = Desk(2)
    desk.copy(1)
    desk.copy(2, sequence=5)
    ((asked, want),) = passed(desk.run(desk.gossip.fetching.wait_s), Want)
    assert (asked, want.ranges) == ({peer(2)}, [2, 4])


def test_what_nobody_sends_is_missed_and_the_reader_goes_on() -> None:
    desk = Desk(1)
    desk.copy(1)
    desk.copy(1, sequence=3)
    effects, now = list[GossipEffect](), 0.0
    for _ in range(Config().tree.fetch_tries_max):
        now += Config().tree.fetch_wait_most_s / 2
        desk.run(now)
        effects += desk.hear(1, Gone(KEY, 1, [2, 2]), now)
    effects += desk.run(WAIT_S)
    assert BroadcastsMissed(peer(5), 1) in effects
    assert [delivery.sequence for delivery in delivered(effects)] == [3]


def test_of_whom_nobody_has_heard_nothing_is_missed() -> None:
    """Or who lies could have it told that somebody broadcasts."""
    desk = Desk(1)
    desk.hear(1, have(1, 50))
    effects = desk.run(60.0)
    assert passed(effects, Want)
    assert not [e for e in effects if type(e) is BroadcastsMissed]
    assert len(desk.gossip.fetching) == 0


def test_what_is_asked_for_is_sent_and_marked() -> None:
    desk = Desk(2)
    desk.hear(2, Prune())
    desk.copy(1)
    assert desk.hear(2, Want(KEY, 1, [1, 2])) == []
    effects = desk.run(0.0)
    ((asker, copy),) = passed(effects, Broadcast)
    assert (asker, copy.hops, copy.marks) == ({peer(2)}, 2, MARK_REPAIRED)
    ((asker, gone),) = passed(effects, Gone)
    assert (asker, gone.ranges) == ({peer(2)}, [2, 2])


def test_who_has_told_of_it_is_not_sent_it() -> None:
    desk = Desk(3)
    desk.hear(2, have(1))
    assert to(desk.copy(1), Broadcast) == {peer(3)}


@pytest.mark.parametrize("ranges", [[2, 1], [1, 2, 2, 3], [1, 2, 3]])
@pytest.mark.parametrize("kind", [Want, Gone])
def test_ranges_that_are_none_are_blamed(kind: type[Want] | type[Gone], ranges: list[int]) -> None:
    assert blames(Desk(1).hear(1, kind(KEY, 1, ranges))) == [CloseReason.MALFORMED]
    held = Have([Held(KEY, 1, ranges, 1, 0)])
    assert blames(Desk(1).hear(1, held)) == [CloseReason.MALFORMED]


# Pauses, history, receipts, and what is kept.


def test_in_a_pause_neighbours_are_to_announce_and_afterwards_all_is_fetched() -> None:
    desk = Desk(2)
    assert to(desk.gossip.pause(0.0), Prune) == {peer(1), peer(2)}
    assert desk.gossip.pause(0.0) == []
    assert to(desk.hear(1, Graft()), Prune) == {peer(1)}
    assert to(desk.up(3), Prune) == {peer(3)}
    desk.hear(1, have(1, 4))
    assert not passed(desk.run(WAIT_S), Want)
    effects = desk.gossip.resume(WAIT_S)
    assert len(passed(effects, Graft)) == 1
    ((_, want),) = passed(effects + desk.run(WAIT_S), Want)
    assert want.ranges == [1, 4]


def test_history_is_told_to_those_who_ask_now_and_then() -> None:
    desk = Desk(2)
    for sequence in range(1, 6):
        desk.copy(1, sequence=sequence, now=sequence)
    ((asker, told),) = passed(desk.hear(2, HistoryWanted(0), 6.0), Have)
    assert asker == {peer(2)}
    assert told.held[0].ranges == [1, 5]
    since = int((3.0 + 1_700_000_000) * 1000)
    ((_, told),) = passed(desk.hear(2, HistoryWanted(since), 6.0), Have)
    assert told.held[0].ranges == [3, 5]
    burst = Config().history.asks_burst
    answers = [desk.hear(2, HistoryWanted(0), 6.0) for _ in range(burst)]
    assert not answers[-1]


def test_what_the_store_kept_is_served_and_not_delivered_again() -> None:
    before, after = Desk(1), Desk(2)
    effects = before.copy(1)
    kept = [effect for effect in effects if type(effect) is KeepBroadcast]
    after.gossip.restore(kept, 10.0)
    assert not delivered(after.copy(1, now=0.0))
    assert len(after.gossip.held_since(0)) == 1
    after.hear(2, Want(KEY, 1, [1, 1]), 10.0)
    assert to(after.run(10.0), Broadcast) == {peer(2)}
    after.gossip.restore(kept, 10.0)
    assert len(after.gossip.history) == 1


def test_what_the_store_kept_for_too_long_is_left_out() -> None:
    effects = Desk(1).copy(1)
    kept = [effect for effect in effects if type(effect) is KeepBroadcast]
    after = Desk(1)
    after.gossip.restore(kept, AGE_S + 1.0)
    assert len(after.gossip.history) == 0


def test_a_broadcast_that_asks_is_answered_up_the_way_it_came() -> None:
    desk = Desk(2)
    effects = desk.hear(1, copy_of(payload_of(asks=ASKS_RECEIPT), 5))
    assert not passed(effects, Receipt), "the neighbour below has not answered"
    effects = desk.hear(2, Receipt(KEY, 1, 1, 4))
    ((up, receipt),) = passed(effects + desk.run(0.5), Receipt)
    assert (up, receipt.peers, receipt.is_last) == ({peer(1)}, 5, True)


def test_an_own_one_that_asks_hears_how_many() -> None:
    desk = Desk(1)
    number, effects = desk.gossip.publish("", ContentType.BYTES, b"x", 0.0, ASKS_RECEIPT)
    assert to(effects, Broadcast) == {peer(1)}
    epoch = desk.gossip.publishing.epoch
    effects = desk.hear(1, Receipt(bytes(peer(0)), epoch, 1, 7)) + desk.run(1.0)
    assert [(e.number, e.peers) for e in effects if type(e) is ReceiptCame] == [(number, 7)]


def test_a_private_one_that_spreads_ends_its_stem() -> None:
    """A defect: whoever had passed it on began it anew at the end of the embargo."""
    desk = Desk(3)
    payload = payload_of(origin=77, body=b"x")
    signed = copy_of(payload, 77)
    for _ in range(200):  # until chance has this node pass it on
        effects = desk.hear(1, Stem(payload, signed.signature))
        if passed(effects, Stem):
            break
        desk = Desk(3, me=desk.gossip.me[-1] + 1)
    assert desk.gossip.stems.held == 1
    assert len(delivered(desk.hear(2, signed))) == 1
    assert desk.gossip.stems.held == 0
    later = desk.run(600.0)
    assert not delivered(later)
    assert not passed(later, Broadcast)


def test_nothing_is_left_of_a_neighbour_that_has_gone() -> None:
    desk = Desk(2, Config(history=HistoryConfig(count_max=5)))
    desk.copy(1)
    desk.hear(2, have(1, 9))
    desk.hear(2, Want(KEY, 1, [1, 1]))
    desk.hear(2, HistoryWanted(0))
    desk.down(2)
    desk.down(1)
    assert desk.down(1) == []
    desk.run(60.0)
    gossip = desk.gossip
    assert not gossip.tree.branches
    assert not gossip.fetching._suppliers
    assert not gossip.announcing._pending
    assert not gossip.intake._from
    assert not gossip.serving._owed
    assert len(desk.timers) == 0
