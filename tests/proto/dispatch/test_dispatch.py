"""What a message leads to: by what it answers, by what it regards, by the link it comes over."""

from __future__ import annotations

import pytest

from meshwalk.config import Config, RequestConfig
from meshwalk.proto.dispatch.dispatch import Dispatch
from meshwalk.proto.dispatch.effects import Fault, Reach
from meshwalk.proto.effects import (
    Answered,
    Ask,
    AskGone,
    ConversationHeard,
    ConversationOpened,
    ConversationOver,
    Deliver,
    Send,
    Unanswered,
    Why,
)
from meshwalk.proto.link import Link, LinkState
from meshwalk.wire.frames import (
    MARK_MORE,
    MARK_OPENS,
    MARK_YOURS,
    Channel,
    CloseReason,
    ContentType,
    Credit,
    Message,
    Purpose,
)
from meshwalk.wire.messages import Refusal, RefusalCode, encode

from .desk import (
    ME,
    NOTHING_KEPT,
    UNIX_OFFSET_S,
    Desk,
    only_refusal,
    only_sent,
    peer_of,
    question,
    reply,
)

PLAIN = Message(1, 0, Channel.APPLICATION, b"x")
OPENING = Message(50, 0, Channel.APPLICATION, b"hi", type="chat", sequence=1, marks=MARK_OPENS)


def opened(desk: Desk, peer: int = 1) -> int:
    """A conversation of ours: its number."""
    party = desk.machine.party(peer_of(peer))
    number = desk.machine.conversations.open(party, "t", ContentType.BYTES, b"", None, 0.0)
    assert number is not None
    return number


# Where messages go.


def test_one_way() -> None:
    desk = Desk()
    link = desk.link()
    link.peer_epoch_s = 5.0
    (effect,) = desk.hear(link, Message(1, 2_000_000, Channel.APPLICATION, b"x", type="t"), 8.0)
    assert isinstance(effect, Deliver)
    delivery = effect.delivery
    assert (delivery.origin, delivery.body, delivery.topic) == (peer_of(1), b"x", "t")
    assert (delivery.is_broadcast, delivery.hops) == (False, 1)
    assert delivery.sent_at == UNIX_OFFSET_S + 7.0
    assert delivery.received_at == UNIX_OFFSET_S + 8.0


def test_what_a_message_answers_comes_before_what_it_regards() -> None:
    desk = Desk()
    link = desk.link()
    number = opened(desk)
    id = desk.machine.conversations.open_now[number].id
    party = desk.machine.party(peer_of(1))
    asked = desk.machine.request(party, "t", ContentType.BYTES, b"", 5.0, 0.0, number)
    assert asked is not None
    desk.told()
    answer = Message(8, 0, Channel.APPLICATION, b"a", asked, id, sequence=1, marks=MARK_YOURS)
    assert desk.hear(link, answer) == [Answered(asked, ContentType.BYTES, b"a")]
    said = Message(9, 0, Channel.APPLICATION, b"b", 0, id, sequence=2, marks=MARK_YOURS)
    (heard,) = desk.hear(link, said)
    assert isinstance(heard, ConversationHeard)
    assert (heard.conversation, heard.id, heard.body) == (number, 9, b"b")


def test_an_answer_in_a_conversation_to_what_was_never_asked_is_heard_in_it() -> None:
    desk = Desk()
    link = desk.link()
    number = opened(desk)
    id = desk.machine.conversations.open_now[number].id
    desk.told()
    said = Message(8, 0, Channel.APPLICATION, b"a", 7, id, sequence=1, marks=MARK_YOURS)
    (heard,) = desk.hear(link, said)
    assert isinstance(heard, ConversationHeard)
    assert desk.machine.requests.counts == {"unasked replies": 1}


@pytest.mark.parametrize(
    "message",
    [
        Message(8, 0, Channel.APPLICATION, b"", 0, 77, sequence=1),
        Message(8, 0, Channel.APPLICATION, b"", 0, 77, sequence=5, marks=MARK_YOURS),
        Message(8, 0, Channel.APPLICATION, b"", 0, 77),
    ],
    ids=["theirs", "ours", "no sequence"],
)
def test_what_regards_nothing_that_is_known_is_refused(message: Message) -> None:
    desk = Desk()
    link = desk.link()
    sent, code = only_refusal(desk.hear(link, message))
    assert code is RefusalCode.NO_CONVERSATION
    assert sent.in_reply_to == 0
    assert sent.in_regards_to == message.in_regards_to
    assert bool(sent.marks & MARK_YOURS) is not bool(message.marks & MARK_YOURS)
    assert desk.is_at_rest()


def test_credit_for_a_conversation_that_is_not_known_is_refused() -> None:
    desk = Desk()
    link = desk.link()
    for is_yours in (True, False):
        desk.machine.credited(link, Credit(77, is_yours, 0, 0, 100), 0.0)
        sent, code = only_refusal(desk.told())
        assert code is RefusalCode.NO_CONVERSATION
        assert (sent.in_regards_to, bool(sent.marks & MARK_YOURS)) == (77, not is_yours)
    assert desk.machine.conversations.counts == {"late credit": 2}


def test_refusals_of_what_is_not_known_are_counted_and_never_answered() -> None:
    desk = Desk()
    link = desk.link()
    body = encode(Refusal(RefusalCode.NO_CONVERSATION))
    for marks in (0, MARK_YOURS):
        refused = Message(1, 0, Channel.REFUSAL, body, in_regards_to=77, marks=marks)
        assert desk.hear(link, refused) == []
    assert desk.machine.conversations.counts == {"late refusals": 2}


# Which links carry what.


@pytest.mark.parametrize("purpose", [Purpose.JOIN_REQUEST, Purpose.PROBE])
def test_links_of_other_purposes_carry_nothing(purpose: Purpose) -> None:
    desk = Desk()
    link = desk.link(1, purpose)
    sent, code = only_refusal(desk.hear(link, question()))
    assert (sent.in_reply_to, code) == (1, RefusalCode.NOT_ALLOWED)
    assert desk.hear(link, PLAIN) == []
    assert desk.hear(link, OPENING) == []
    assert desk.hear(link, reply(100, Channel.REFUSAL, b"\xc1")) == []
    desk.machine.credited(link, Credit(50, True, 0, 0, 0), 0.0)
    assert desk.told() == []
    assert desk.machine.counts["not allowed"] == 5
    assert desk.machine.link_to(peer_of(1)) is None
    assert len(desk.machine.parties) == NOTHING_KEPT


def test_loss_of_a_link_ends_what_went_over_it() -> None:
    desk = Desk()
    link, other = desk.link(), desk.link(2)
    first, second = desk.ask(1), desk.ask(2)
    desk.hear(link, question())
    assert desk.close(link) == [
        Unanswered(first, Why.LINK_LOST, 0, "gone"),
        AskGone(peer_of(1), 1),
    ]
    requests = desk.machine.requests
    assert (len(requests.waiting), len(requests.serving), len(desk.timers)) == (1, 0, 1)
    assert peer_of(1) not in desk.machine.parties
    assert desk.close(other) == [Unanswered(second, Why.LINK_LOST, 0, "gone")]
    assert len(desk.machine.parties) == NOTHING_KEPT


def test_another_link_to_the_same_peer_takes_over_both_ways() -> None:
    """A defect: whoever asked as soon as a neighbour was up was told that the link was lost when
    both ends had dialled."""
    desk = Desk()
    loser, heir = desk.link(), desk.link()
    id = desk.ask()
    desk.hear(loser, question(4))
    assert desk.close(loser, CloseReason.DUPLICATE) == []
    (ask,) = desk.hear(loser, question(5))
    assert isinstance(ask, Ask)
    for number in (4, 5):
        desk.machine.reply(peer_of(1), number, ContentType.BYTES, b"", 0.0)
        over, sent = only_sent(desk.told())
        assert (over, sent.in_reply_to) == (heir.number, number)
    assert desk.hear(heir, reply(id)) == [Answered(id, ContentType.BYTES, b"")]


def test_the_same_link_is_sent_over_until_it_ends_or_retires() -> None:
    """A defect: messages overtook each other when a node and its peer became neighbours."""
    desk = Desk()
    visitor = desk.link(1, Purpose.CONVERSATION)
    assert desk.machine.link_to(peer_of(1)) is visitor
    old, new = desk.link(), desk.link()
    assert desk.machine.link_to(peer_of(1)) is visitor
    visitor.retire(0.0)
    desk.machine.choose_link(peer_of(1), 0.0)
    assert desk.machine.link_to(peer_of(1)) is new
    desk.close(new)
    assert desk.machine.link_to(peer_of(1)) is old
    desk.close(old)
    assert desk.machine.link_to(peer_of(1)) is visitor, "better than none"
    desk.close(visitor)
    assert desk.machine.link_to(peer_of(1)) is None


def test_a_peer_that_dials_for_a_conversation_has_lost_the_other_links() -> None:
    """It would not know yet here if the peer's machine has another address now."""
    desk = Desk()
    own = desk.link(1, Purpose.CONVERSATION, is_outbound=True)
    for at in (60.0, 61.0):
        again = desk.link(1, Purpose.CONVERSATION, at)
        assert desk.machine.link_to(peer_of(1)) is again
    desk.close(again)
    assert desk.machine.link_to(peer_of(1)) is not own
    desk.link(1, Purpose.CONVERSATION, 120.0, is_outbound=True)
    assert desk.machine.link_to(peer_of(1)) is not own


@pytest.mark.parametrize("peer", [1, 3])
@pytest.mark.parametrize("is_own_first", [True, False])
def test_of_links_that_both_have_dialled_at_once_both_choose_the_same(
    peer: int, is_own_first: bool
) -> None:
    desk = Desk(me=peer_of(2))
    links = {
        is_own: desk.link(peer, Purpose.CONVERSATION, is_outbound=is_own)
        for is_own in (is_own_first, not is_own_first)
    }
    assert desk.machine.link_to(peer_of(peer)) is links[peer > 2], "that of the smaller id"


def test_a_link_is_needed_while_something_goes_on_over_it() -> None:
    desk = Desk()
    link = desk.link(1, Purpose.CONVERSATION)
    assert not desk.machine.has_use_for(link)
    id = desk.ask()
    assert desk.machine.has_use_for(link)
    desk.machine.requests.abandon(id)
    assert not desk.machine.has_use_for(link)
    desk.hear(link, question())
    assert desk.machine.has_use_for(link)
    desk.machine.reply(peer_of(1), 1, ContentType.BYTES, b"", 0.0)
    number = opened(desk)
    assert desk.machine.has_use_for(link)
    desk.machine.conversations.leave(number, RefusalCode.CANCELLED, "", 0.0)
    assert not desk.machine.has_use_for(link)


# Over a link that is closing.


def closing(desk: Desk) -> Link:
    link = desk.link()
    desk.close(link)
    return link


def test_a_request_over_a_closing_link_is_not_served_for_ever() -> None:
    """A defect: it was counted as being served, and nothing ended it."""
    desk = Desk()
    link = closing(desk)
    assert desk.hear(link, question()) == []
    assert desk.machine.requests.counts["too late"] == 1
    (hand,) = desk.hear(link, PLAIN)
    assert isinstance(hand, Deliver)
    assert desk.is_at_rest()


@pytest.mark.parametrize(
    "message",
    [
        PLAIN,
        question(),
        reply(3),
        Message(8, 0, Channel.APPLICATION, b"", 0, 77, sequence=1),
        Message(1, 0, Channel.REFUSAL, encode(Refusal(1)), 5),
    ],
    ids=["one way", "request", "reply", "regards", "refusal"],
)
def test_nothing_is_kept_for_a_peer_whose_links_are_closing(message: Message) -> None:
    """A defect: what came last made an entry for its peer that nothing ever took out."""
    desk = Desk()
    desk.hear(closing(desk), message)
    assert len(desk.machine.parties) == NOTHING_KEPT
    desk.machine.credited(closing(desk), Credit(77, True, 0, 0, 0), 0.0)
    assert len(desk.machine.parties) == NOTHING_KEPT


def test_a_conversation_that_a_closing_link_opens_has_its_peer_sought() -> None:
    """A defect: nothing sought a link for it, so that it never ended if its peer was gone."""
    desk = Desk()
    effect, reach = desk.hear(closing(desk), OPENING)
    assert isinstance(effect, ConversationOpened)
    assert reach == Reach(peer_of(1))
    desk.machine.unreachable(peer_of(1), Why.UNREACHABLE, "nobody there")
    over = ConversationOver(effect.conversation, Why.UNREACHABLE, 0, "nobody there")
    assert desk.told() == [over]
    assert desk.is_at_rest()
    assert len(desk.machine.parties) == NOTHING_KEPT


def test_a_node_that_leaves_begins_nothing() -> None:
    desk = Desk()
    link = desk.link()
    number = opened(desk)
    desk.told()
    desk.machine.leave()
    assert desk.close(link, CloseReason.LEAVING, "leaving") == [
        ConversationOver(number, Why.LINK_LOST, 0, "leaving")
    ]
    assert not [e for e in desk.hear(link, OPENING) if isinstance(e, Reach)]
    assert desk.is_at_rest()
    assert len(desk.machine.parties) == NOTHING_KEPT


@pytest.mark.parametrize(
    ("reason", "is_sought"),
    [
        (None, True),
        (CloseReason.IDLE, True),
        (CloseReason.SLOW, True),
        (CloseReason.SPLIT, True),
        (CloseReason.DONE, True),
        (CloseReason.LEAVING, False),
        (CloseReason.PROTOCOL, False),
        (CloseReason.MALFORMED, False),
    ],
)
def test_who_is_sought_when_its_last_link_is_lost(
    reason: CloseReason | None, is_sought: bool
) -> None:
    desk = Desk()
    link = desk.link()
    number = opened(desk)
    desk.told()
    told = desk.close(link, reason)
    if is_sought:
        assert told == [Reach(peer_of(1))]
        assert number in desk.machine.conversations.open_now
    else:
        assert told == [ConversationOver(number, Why.LINK_LOST, 0, "gone")]
        assert desk.is_at_rest()


def test_a_peer_that_cannot_be_reached_but_has_come_by_itself() -> None:
    desk = Desk()
    desk.close(desk.link())
    number = opened(desk)
    desk.link()
    desk.told()
    desk.machine.unreachable(peer_of(1), Why.UNREACHABLE, "too late")
    assert desk.told() == []
    assert number in desk.machine.conversations.open_now


# To itself.


def heard_locally(machine: Dispatch, desk: Desk) -> list[object]:
    machine.hear_local()
    told = desk.told()
    assert not any(isinstance(effect, Send) for effect in told), "no pipe leads to oneself"
    return list(told)


def test_a_node_talks_to_itself_as_to_any_peer() -> None:
    desk = Desk()
    machine = desk.machine
    party = machine.party(ME)
    id = machine.request(party, "t", ContentType.BYTES, b"q", 5.0, 1.0)
    assert id is not None
    (ask,) = heard_locally(machine, desk)
    at = UNIX_OFFSET_S + 1.0
    assert ask == Ask(ME, id, "t", ContentType.BYTES, b"q", at, at)
    machine.reply(ME, id, ContentType.TEXT, b"a", 2.0)
    assert heard_locally(machine, desk) == [Answered(id, ContentType.TEXT, b"a")]
    machine.send(party, "t", ContentType.BYTES, bytes(200_000), 3.0)
    (hand,) = [e for e in heard_locally(machine, desk) if isinstance(e, Deliver)]
    assert len(hand.delivery.body) == 200_000
    assert desk.is_at_rest()


# Bounds on openings.


def test_long_messages_to_a_peer_that_may_have_no_more_are_refused() -> None:
    config = Config(requests=RequestConfig(served_per_peer_max=1))
    desk = Desk(config)
    link = desk.link()
    (ask,) = desk.hear(link, question(1))
    assert isinstance(ask, Ask)
    first = Message(
        2, 0, Channel.APPLICATION, b"lo", type="t", wants_reply=True, sequence=1, marks=MARK_MORE
    )
    last = Message(2, 0, Channel.APPLICATION, b"ng", 0, 2, sequence=2)
    assert desk.hear(link, first) == []
    refusals = [
        effect.frame
        for effect in desk.hear(link, last)
        if isinstance(effect, Send)
        and isinstance(effect.frame, Message)
        and effect.frame.channel is Channel.REFUSAL
    ]
    assert [message.in_reply_to for message in refusals] == [2]


def test_who_breaks_the_protocol_of_conversations_loses_all_of_them_and_every_link() -> None:
    """And is told nothing more over the links that are closed after the first."""
    desk = Desk()
    link, other = desk.link(), desk.link()
    numbers = [opened(desk), opened(desk)]
    desk.told()
    told = desk.hear(other, Message(1, 0, Channel.APPLICATION, b"", sequence=5))
    text = "a part that opens nothing and regards nothing"
    assert told == [
        *(ConversationOver(number, Why.LINK_LOST, 0, text) for number in numbers),
        *(Fault(each, CloseReason.PROTOCOL, text) for each in (other, link)),
    ]


def test_a_fault_names_the_link_that_it_came_over() -> None:
    desk = Desk()
    desk.link()
    other = desk.link()
    (fault,) = desk.hear(other, Message(1, 0, Channel.REFUSAL, b"\xc1", 5))
    assert isinstance(fault, Fault)
    assert fault.link is other
    other.state = LinkState.CLOSED
