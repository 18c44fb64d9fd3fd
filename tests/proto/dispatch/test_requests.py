"""Requests and replies between two peers, input by input."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

from meshwalk.config import Config, ConversationConfig, RequestConfig
from meshwalk.proto.dispatch.effects import Fault
from meshwalk.proto.effects import Answered, Ask, AskGone, Send, Unanswered, Why
from meshwalk.wire.frames import Channel, CloseReason, ContentType, Message
from meshwalk.wire.messages import RefusalCode

from .desk import (
    UNIX_OFFSET_S,
    Desk,
    only_refusal,
    only_sent,
    peer_of,
    question,
    refusal,
    reply,
)


def narrow(pending_max: int = 3, served_per_peer_max: int = 2) -> Desk:
    limits = RequestConfig(pending_max=pending_max, served_per_peer_max=served_per_peer_max)
    return Desk(Config(requests=limits))


def test_reply_ends_a_request_once() -> None:
    desk = narrow()
    link = desk.link()
    id = desk.ask()
    assert desk.hear(link, reply(id)) == [Answered(id, ContentType.BYTES, b"")]
    assert desk.hear(link, reply(id)) == []
    assert desk.machine.requests.counts == {"answered": 1, "duplicate replies": 1}
    assert desk.is_at_rest()


def test_reply_after_the_deadline_is_late() -> None:
    desk = narrow()
    link = desk.link()
    id = desk.ask(timeout_s=5.0)
    assert list(desk.timers.due(4.9)) == []
    (key,) = desk.timers.due(5.0)
    desk.machine.tick(key, 5.0)
    assert desk.told() == [Unanswered(id, Why.TIMED_OUT)]
    desk.machine.tick(key, 5.0)
    assert desk.hear(link, reply(id), 5.1) == []
    assert desk.hear(link, refusal(id, RefusalCode.BUSY), 5.1) == []
    assert desk.machine.requests.counts == {"timed out": 1, "late replies": 2}
    assert desk.is_at_rest()


def test_reply_to_what_was_abandoned_is_late() -> None:
    desk = narrow()
    link = desk.link()
    id = desk.ask()
    assert desk.machine.requests.abandon(id)
    assert not desk.machine.requests.abandon(id)
    assert desk.is_at_rest()
    assert desk.hear(link, reply(id)) == []
    assert desk.machine.requests.counts == {"late replies": 1}


@pytest.mark.parametrize("id", [1, 99, 12345, 2**64 - 1])
def test_reply_to_what_was_never_asked(id: int) -> None:
    desk = narrow()
    link = desk.link()
    desk.ask()
    assert desk.hear(link, reply(id)) == []
    assert desk.hear(link, refusal(id, RefusalCode.BUSY)) == []
    assert desk.machine.requests.counts == {"unasked replies": 2}
    assert len(desk.machine.requests.waiting) == 1


def test_reply_of_another_peer_ends_nothing() -> None:
    desk = narrow()
    link, other = desk.link(1), desk.link(2)
    id = desk.ask(1)
    assert desk.hear(other, reply(id)) == []
    assert desk.hear(other, refusal(id, RefusalCode.BUSY)) == []
    assert desk.machine.requests.counts["answered"] == 0
    assert desk.hear(link, reply(id)) == [Answered(id, ContentType.BYTES, b"")]


def test_answered_requests_are_remembered_for_a_while() -> None:
    desk = Desk(Config(conversations=ConversationConfig(answered_max=2)))
    link = desk.link()
    ids = [desk.ask() for _ in range(3)]
    for id in ids:
        desk.hear(link, reply(id))
    for id in ids:
        assert desk.hear(link, reply(id)) == []
    counts = desk.machine.requests.counts
    assert counts == {"answered": 3, "late replies": 1, "duplicate replies": 2}


def test_refusal_is_told_with_its_code() -> None:
    desk = narrow()
    link = desk.link()
    id = desk.ask()
    told = desk.hear(link, refusal(id, RefusalCode.NO_HANDLER, "no\x1b[2J"))
    assert told == [Unanswered(id, Why.REFUSED, RefusalCode.NO_HANDLER, "no?[2J")]
    id = desk.ask()
    told = desk.hear(link, refusal(id, 999, "of a later version"))
    assert told == [Unanswered(id, Why.REFUSED, 999, "of a later version")]
    assert desk.is_at_rest()


def test_bad_refusals() -> None:
    desk = narrow()
    link = desk.link()
    id = desk.ask()
    (fault,) = desk.hear(link, reply(id, Channel.REFUSAL, b"\xc1"))
    assert isinstance(fault, Fault)
    assert (fault.link, fault.reason) == (link, CloseReason.MALFORMED)
    (fault,) = desk.hear(link, Message(1, 0, Channel.REFUSAL, b""))
    assert isinstance(fault, Fault)
    assert (fault.link, fault.reason) == (link, CloseReason.PROTOCOL)
    told = desk.close(link, CloseReason.MALFORMED, "malformed")
    assert told == [Unanswered(id, Why.LINK_LOST, 0, "malformed")]


def test_too_many_own_requests() -> None:
    desk = narrow(pending_max=1)
    desk.link()
    id = desk.ask()
    party = desk.machine.party(peer_of(1))
    assert desk.machine.request(party, "t", ContentType.BYTES, b"", 5.0, 0.0) is None
    assert desk.machine.request(party, "t", ContentType.BYTES, bytes(1 << 20), 5.0, 0.0) is None
    assert desk.told() == []
    desk.machine.requests.abandon(id)
    desk.ask()


def test_what_is_asked_says_who_and_when() -> None:
    desk = narrow()
    link = desk.link()
    link.peer_epoch_s = 5.0
    (ask,) = desk.hear(link, question(7, sent_at_us=2_000_000), now=8.0)
    sent_at, received_at = UNIX_OFFSET_S + 7.0, UNIX_OFFSET_S + 8.0
    assert ask == Ask(peer_of(1), 7, "", ContentType.BYTES, b"q", sent_at, received_at)


def test_served_once_and_within_bounds() -> None:
    desk = narrow()
    link = desk.link()
    (ask,) = desk.hear(link, question(1))
    assert isinstance(ask, Ask)
    (ask,) = desk.hear(link, question(2))
    assert isinstance(ask, Ask)
    message, code = only_refusal(desk.hear(link, question(3)))
    assert (message.in_reply_to, code) == (3, RefusalCode.BUSY)
    (ask,) = desk.hear(desk.link(2), question(1))
    assert isinstance(ask, Ask), "each peer has its own numbers, and its own limit"
    assert len(desk.machine.requests.serving) == 3
    desk.machine.reply(peer_of(1), 1, ContentType.BYTES, b"a", 0.0)
    over, sent = only_sent(desk.told())
    assert (over, sent.in_reply_to, sent.body) == (link.number, 1, b"a")
    desk.machine.reply(peer_of(1), 1, ContentType.BYTES, b"a", 0.0)
    desk.machine.refuse(peer_of(1), 1, RefusalCode.BUSY, "", 0.0)
    assert desk.told() == [], "it is answered once"
    desk.machine.refuse(peer_of(1), 2, RefusalCode.BUSY, "", 0.0)
    message, code = only_refusal(desk.told())
    assert (message.in_reply_to, code) == (2, RefusalCode.BUSY)
    desk.machine.reply(peer_of(2), 1, ContentType.BYTES, b"", 0.0)
    desk.told()
    assert desk.is_at_rest()


def test_what_is_being_answered_is_not_asked_again() -> None:
    """Whether it comes in one piece or in parts, over the same link or another, and also when no
    more requests are taken: a refusal would end the first."""
    desk = narrow()
    link, other = desk.link(), desk.link()
    for id in (1, 2):
        (ask,) = desk.hear(link, question(id))
        assert isinstance(ask, Ask)
    in_a_part = msgspec.structs.replace(question(1), sequence=1)
    for again in (question(1), in_a_part):
        told = desk.hear(other, again)
        assert not [e for e in told if isinstance(e, Ask | Fault)]
        assert not refused(told)
    assert desk.machine.requests.counts["duplicates"] == 2
    assert len(desk.machine.requests.serving) == 2
    assert refused(desk.hear(link, question(3))) == [3]


def refused(told: Sequence[object]) -> list[int]:
    """The messages that have been refused."""
    frames = [effect.frame for effect in told if isinstance(effect, Send)]
    refusals = [f for f in frames if isinstance(f, Message) and f.channel is Channel.REFUSAL]
    return [message.in_reply_to for message in refusals]


def test_both_sides_of_a_request_end_with_the_last_link() -> None:
    desk = narrow()
    link = desk.link()
    id = desk.ask()
    desk.hear(link, question(4))
    assert desk.close(link) == [
        Unanswered(id, Why.LINK_LOST, 0, "gone"),
        AskGone(peer_of(1), 4),
    ]
    desk.machine.reply(peer_of(1), 4, ContentType.BYTES, b"", 0.0)
    assert desk.told() == []
    assert desk.is_at_rest()
