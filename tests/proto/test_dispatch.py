"""Messages and requests between two peers, input by input."""

from __future__ import annotations

from itertools import count

import pytest

from meshwalk.config import LinkConfig, RequestConfig
from meshwalk.proto.dispatch import Dispatch, DispatchEffect, Fault, Transmit
from meshwalk.proto.effects import Answered, Ask, AskGone, Deliver, Unanswered, Why
from meshwalk.proto.link import Link, LinkState
from meshwalk.proto.timers import Timers
from meshwalk.wire.address import Address
from meshwalk.wire.frames import Channel, CloseReason, ContentType, Message, Purpose
from meshwalk.wire.messages import Refusal, RefusalCode, decode_refusal, encode
from meshwalk.wire.peerid import PeerId

NUMBERS = count(1)


def link_to(peer: int = 1, purpose: Purpose = Purpose.STANDING) -> Link:
    link = Link(
        next(NUMBERS),
        LinkConfig(),
        [],
        count().__next__,
        outbound=False,
        remote=Address("10.0.0.1", 1),
        now=0.0,
        purpose=purpose,
    )
    link.peer = PeerId(peer.to_bytes(32, "big"))
    link.state = LinkState.OPEN
    return link


def dispatch(pending_max: int = 3, served_per_peer_max: int = 2) -> tuple[Dispatch, Timers]:
    timers = Timers()
    config = RequestConfig(pending_max=pending_max, served_per_peer_max=served_per_peer_max)
    return Dispatch(config, count(100).__next__, timers), timers


def asked(machine: Dispatch, link: Link) -> int:
    out = machine.request(link, "t", ContentType.BYTES, b"", 5.0, 0.0)
    assert out is not None
    return out[0]


def reply(to: int, channel: Channel = Channel.APPLICATION, body: bytes = b"") -> Message:
    return Message(9, 0, channel, body, to)


def question(id: int = 1, channel: Channel = Channel.APPLICATION) -> Message:
    return Message(id, 0, channel, b"q", wants_reply=True)


def test_reply_ends_a_request_once() -> None:
    machine, timers = dispatch()
    link = link_to()
    id = asked(machine, link)
    assert machine.receive(link, reply(id), 0.0) == [Answered(id, ContentType.BYTES, b"")]
    assert machine.receive(link, reply(id), 0.0) == []
    assert machine.counts["unasked replies"] == 1
    assert (machine.waiting, len(timers)) == (0, 0)


def test_late_unasked_and_others_replies() -> None:
    machine, timers = dispatch()
    link = link_to()
    id = asked(machine, link)
    assert machine.receive(link_to(2), reply(id), 0.0) == []
    assert machine.receive(link, reply(12345), 0.0) == []
    assert [key[1] for key in timers.due(5.0)] == [id]
    assert machine.tick(id) == [Unanswered(id, Why.TIMED_OUT)]
    assert machine.tick(id) == []
    assert machine.receive(link, reply(id), 0.0) == []
    assert machine.counts["unasked replies"] == 3


def test_refusal_is_told_with_its_code() -> None:
    machine, _ = dispatch()
    link = link_to()
    id = asked(machine, link)
    body = encode(Refusal(RefusalCode.NO_HANDLER, "no\x1b[2J"))
    (told,) = machine.receive(link, reply(id, Channel.REFUSAL, body), 0.0)
    assert told == Unanswered(id, Why.REFUSED, RefusalCode.NO_HANDLER, "no?[2J")


def test_bad_refusals() -> None:
    machine, _ = dispatch()
    link = link_to()
    id = asked(machine, link)
    lost, fault = machine.receive(link, reply(id, Channel.REFUSAL, b"\xc1"), 0.0)
    assert lost == Unanswered(id, Why.LINK_LOST)
    assert isinstance(fault, Fault)
    (fault,) = machine.receive(link, Message(1, 0, Channel.REFUSAL, b""), 0.0)
    assert isinstance(fault, Fault)
    assert fault.reason is CloseReason.PROTOCOL


def test_too_many_own_requests() -> None:
    machine, _ = dispatch(pending_max=1)
    link = link_to()
    id = asked(machine, link)
    assert machine.request(link, "t", ContentType.BYTES, b"", 5.0, 0.0) is None
    machine.abandon(id)
    asked(machine, link)


def refusal_code(effects: list[DispatchEffect]) -> int:
    (sent,) = effects
    assert isinstance(sent, Transmit)
    assert sent.message.channel is Channel.REFUSAL
    return decode_refusal(sent.message.body).code


def test_served_once_and_within_bounds() -> None:
    machine, _ = dispatch()
    link = link_to()
    (ask,) = machine.receive(link, question(1), 0.0)
    assert isinstance(ask, Ask)
    (fault,) = machine.receive(link, question(1), 0.0)
    assert isinstance(fault, Fault)
    machine.receive(link, question(2), 0.0)
    other = link_to(1)
    assert refusal_code(machine.receive(other, question(1), 0.0)) == RefusalCode.BUSY
    (ask,) = machine.receive(link_to(2), question(1), 0.0)
    assert isinstance(ask, Ask)
    assert machine.serving == 3
    (sent,) = machine.reply(link.number, 1, ContentType.BYTES, b"a", 0.0)
    assert isinstance(sent, Transmit)
    assert (sent.link, sent.message.in_reply_to) == (link, 1)
    assert machine.reply(link.number, 1, ContentType.BYTES, b"a", 0.0) == []
    assert machine.refuse(link.number, 1, RefusalCode.BUSY, "", 0.0) == []
    assert refusal_code(machine.refuse(link.number, 2, RefusalCode.BUSY, "", 0.0))


@pytest.mark.parametrize("purpose", [Purpose.JOIN_REQUEST, Purpose.PROBE])
def test_links_of_other_purposes_carry_nothing(purpose: Purpose) -> None:
    machine, _ = dispatch()
    link = link_to(1, purpose)
    code = refusal_code(machine.receive(link, question(), 0.0))
    assert code == RefusalCode.NOT_ALLOWED
    assert machine.receive(link, Message(1, 0, Channel.APPLICATION, b""), 0.0) == []
    assert machine.serving == 0


def test_loss_of_a_link_ends_what_went_over_it() -> None:
    machine, timers = dispatch()
    link, other = link_to(), link_to(2)
    first, second = asked(machine, link), asked(machine, other)
    machine.receive(link, question(), 0.0)
    assert machine.link_gone(link) == [
        Unanswered(first, Why.LINK_LOST),
        AskGone(link.number, 1),
    ]
    assert (machine.waiting, machine.serving, len(timers)) == (1, 0, 1)
    assert not machine._served
    assert machine.link_gone(other) == [Unanswered(second, Why.LINK_LOST)]


def test_an_heir_takes_over_both_ways() -> None:
    """A defect: whoever asked as soon as a neighbour was up was told that the link was lost when
    both ends had dialled."""
    machine, _ = dispatch()
    loser, heir = link_to(), link_to()
    id = asked(machine, loser)
    machine.receive(loser, question(4), 0.0)
    loser.state = LinkState.CLOSING
    assert machine.link_gone(loser, heir) == []
    (ask,) = machine.receive(loser, question(5), 0.0, heir)
    assert isinstance(ask, Ask)
    for number in (4, 5):
        (sent,) = machine.reply(loser.number, number, ContentType.BYTES, b"", 0.0)
        assert isinstance(sent, Transmit)
        assert sent.link is heir
    assert machine.receive(heir, reply(id), 0.0) == [Answered(id, ContentType.BYTES, b"")]


def test_a_request_over_a_closing_link_is_not_served_for_ever() -> None:
    """A defect: it was counted as being served, and nothing ended it."""
    machine, _ = dispatch()
    link = link_to()
    link.state = LinkState.CLOSING
    assert machine.receive(link, question(), 0.0) == []
    assert machine.serving == 0
    (hand,) = machine.receive(link, Message(1, 0, Channel.APPLICATION, b"x"), 0.0)
    assert isinstance(hand, Deliver)
