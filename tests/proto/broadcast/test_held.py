"""What an application gets of what is kept, of the past, and at the end."""

from __future__ import annotations

from meshwalk.config import BroadcastConfig, Config
from meshwalk.proto.broadcast.effects import Blame
from meshwalk.proto.broadcast.trust import Offence
from meshwalk.sim.node import UNIX_START_S
from meshwalk.sim.signatures import CheapSignatures
from meshwalk.wire.frames import ContentType
from meshwalk.wire.gossip import Broadcast, Have, Held
from meshwalk.wire.records import BroadcastMessage, BroadcastPayload, Domain, encode

from .scene import Desk, copy_of, delivered, payload_of, peer

KEY = bytes(peer(5))


def with_topic(sequence: int, topic: str, sent_at: float = 0.0) -> Broadcast:
    at_ms = int((sent_at + UNIX_START_S) * 1000)
    message = BroadcastMessage(b"", ContentType.BYTES, topic)
    payload = encode(BroadcastPayload(KEY, 1, sequence, at_ms, sequence, [message]))
    signature = CheapSignatures(peer(5)).sign(Domain.BROADCAST, payload)
    return Broadcast(payload, signature, 1)


def test_only_the_topics_that_are_wanted_are_read() -> None:
    desk = Desk(1)
    for sequence, topic in enumerate(("cats", "dogs", "cats"), 1):
        desk.hear(1, with_topic(sequence, topic))
    assert [d.sequence for d in desk.gossip.held_since(0, frozenset({"cats"}))] == [1, 3]
    assert [d.sequence for d in desk.gossip.held_since(0)] == [1, 2, 3]


def test_a_clock_that_was_set_back_does_not_put_an_origin_out_of_order() -> None:
    desk = Desk(1)
    for sequence, sent_at in ((1, 0.0), (2, -5.0), (3, -4.0)):
        desk.hear(1, copy_of(payload_of(5, sequence, sent_at=sent_at), 5))
    assert [d.sequence for d in desk.gossip.held_since(0)] == [1, 2, 3]


def test_what_was_fetched_from_before_the_node_is_the_past_and_what_is_new_is_not() -> None:
    desk = Desk(1)
    before = int((UNIX_START_S - 60.0) * 1000)
    desk.gossip.catch_up(before, 0.0)
    desk.hear(1, Have([Held(KEY, 1, [1, 1], 1, 0)], is_history=True), 0.0)
    desk.run(2.0)
    old = desk.hear(1, copy_of(payload_of(5, 1, sent_at=-60.0), 5), 2.0)
    new = desk.copy(1, sequence=2, now=2.0)
    # One that is slow, and was pushed and not fetched, is not of the past.
    slow = desk.hear(1, copy_of(payload_of(6, 1, sent_at=-60.0), 6), 2.0)
    assert [d.is_past for d in delivered(old + new + slow)] == [True, False, False]


def test_what_waits_for_its_order_is_handed_over_when_the_node_stops() -> None:
    desk = Desk(1)
    assert [d.sequence for d in delivered(desk.copy(1, sequence=1))] == [1]
    assert not delivered(desk.copy(1, sequence=3)), "for those who mind the order"
    assert [d.sequence for d in delivered(desk.gossip.leave(0.0))] == [3]


def test_who_sends_without_work_is_told_why_it_loses_its_link() -> None:
    desk = Desk(1, Config(broadcast=BroadcastConfig(difficulty=10_000)))
    effects = [effect for sequence in (1, 2) for effect in desk.copy(1, sequence=sequence)]
    assert not delivered(effects)
    (blame,) = [effect for effect in effects if type(effect) is Blame]
    assert "proof of work" in blame.text
    assert desk.gossip.trust.counts[Offence.UNWORKED.name.lower()] == 2
