"""Conversations whose parts, credits and refusals go over several links, some of which are lost."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from meshwalk.config import LinkConfig
from meshwalk.proto.effects import Answered, ConversationRefused, Unanswered, Why
from meshwalk.wire.frames import MARK_YOURS, Channel, Message
from meshwalk.wire.messages import Refusal, RefusalCode, encode

from .checks import check_nothing_is_left
from .pair import BYTES, End, Pair, Wire
from .smallnodes import small, small_windows


@pytest.fixture(autouse=True)
def windows() -> Iterator[None]:
    with small_windows():
        yield


@pytest.fixture
def pair() -> Pair:
    return Pair()


def ask(pair: Pair, index: int, body: bytes) -> int:
    """One end asks the other."""
    end = pair.ends[index]
    party = end.machine.party(end.other.peer)
    id = end.machine.request(party, "", BYTES, body, 100.0, pair.now)
    assert id is not None
    pair.asked[id], end.waiting[id] = body, None
    end.perform()
    return id


def change_link(pair: Pair, index: int, old: Wire, new: Wire) -> None:
    """One end sends over the new link from now on."""
    pair.retire(old, index)
    assert pair.ends[index].machine.link_to(pair.ends[1 - index].peer) is new.links[index]


def got(end: End, kind: type) -> list[object]:
    return [effect for effect in end.effects if type(effect) is kind]


def frames(wire: Wire, to: int) -> list[str]:
    return [type(frame).__name__ for frame in wire.to[to]]


# Replies that are too long for a part.


@pytest.mark.parametrize("asked_bytes", [10, 3000, 20_000])
@pytest.mark.parametrize("moves", [(0,), (1,), (0, 1)])
def test_a_long_reply_arrives_whatever_is_said_again_of_the_request(
    pair: Pair, asked_bytes: int, moves: tuple[int, ...]
) -> None:
    """A defect: they had one name, so that parts of the request that came twice, and credit that
    came late, were taken for the reply's."""
    asker, server = pair.ends
    old = pair.connect()
    id = ask(pair, 0, bytes(asked_bytes))
    while not server.asks:
        assert pair.deliver(old, 1, 1) or pair.deliver(old, 0)
    pair.answer(server, id, bytes(20_000))
    new = pair.connect(1)
    for index in moves:
        change_link(pair, index, old, new)
    pair.deliver(old, 0)
    pair.deliver(new, 1)
    pair.deliver(new, 0)
    pair.deliver(old, 1)
    pair.flow()
    assert len(got(asker, Answered)) == 1
    assert not pair.faults
    pair.finish()
    for end in pair.ends:
        check_nothing_is_left(end)


def test_a_long_reply_that_nobody_waits_for_is_refused_once(pair: Pair) -> None:
    asker, server = pair.ends
    wire = pair.connect()
    id = ask(pair, 0, b"?")
    pair.deliver(wire, 1)
    asker.machine.requests.abandon(id)
    del asker.waiting[id]
    pair.answer(server, id, bytes(3000))
    pair.deliver(wire, 0, 1)
    assert not asker.machine.conversations.open_now
    pair.deliver(wire, 0)
    pair.deliver(wire, 1)
    assert not wire.to[0], "it is not said again"
    assert not server.machine.conversations.open_now


def test_a_request_ends_when_there_is_no_room_for_its_long_reply() -> None:
    """A defect: its reply was dropped without a word, and the request waited for its deadline."""
    pair = Pair(small(per_peer_max=1), small())
    asker, server = pair.ends
    pair.connect()
    id = ask(pair, 0, b"?")
    pair.deliver_all()
    assert asker.open() is not None
    pair.answer(server, id, bytes(3000))
    pair.deliver_all()
    text = "too many conversations are open"
    assert got(asker, Unanswered) == [Unanswered(id, Why.REFUSED, RefusalCode.BUSY, text)]
    pair.finish()
    for end in pair.ends:
        check_nothing_is_left(end)


def test_a_request_ends_with_the_long_reply_that_is_broken_off() -> None:
    pair = Pair(small(message_bytes_max=4096))
    asker, server = pair.ends
    pair.connect()
    id = ask(pair, 0, b"?")
    pair.deliver_all()
    pair.answer(server, id, bytes(9000))
    pair.deliver_all()
    assert got(asker, Unanswered) == [
        Unanswered(id, Why.REFUSED, RefusalCode.TOO_BIG, "the message is too long")
    ]
    pair.finish()
    for end in pair.ends:
        check_nothing_is_left(end)


def test_nothing_is_said_to_who_has_sent_a_long_message(pair: Pair) -> None:
    sender, receiver = pair.ends
    wire = pair.connect()
    pair.keeps_books = False
    party = sender.machine.party(receiver.peer)
    sender.do(lambda: sender.machine.send(party, "", BYTES, bytes(3000), pair.now))
    (conversation,) = sender.machine.conversations.open_now.values()
    wire.to[0].append(
        Message(
            1,
            0,
            Channel.APPLICATION,
            b"",
            0,
            conversation.id,
            sequence=1,
            marks=MARK_YOURS,
        )
    )
    pair.deliver(wire, 0)
    assert pair.faults == ["more was said than there was credit for"]
    assert not sender.machine.conversations.open_now


# Another link.


def test_no_credit_overtakes_an_opening(pair: Pair) -> None:
    """A defect: credit for what the peer could not know yet came first over the new link, so that
    it was refused and the conversation lost."""
    end = pair.ends[0]
    old = pair.connect()
    talks = [end.open(b"x") for _ in range(5)]
    new = pair.connect()
    change_link(pair, 0, old, new)
    assert frames(new, 1) == ["Message"] * 5
    pair.deliver(new, 1)
    pair.flow()
    assert all(talk is not None and talk.over is None for talk in talks)
    assert len(pair.ends[1].talks) == 5
    assert not end.machine.conversations.counts["late refusals"]
    pair.finish()


@pytest.mark.parametrize("is_told_in_time", [True, False])
def test_who_left_says_so_again_when_its_word_is_lost_with_a_link(
    pair: Pair, is_told_in_time: bool
) -> None:
    """A defect: the other end sent over another link, which was not lost, and never learned."""
    first, second = pair.ends
    old = pair.connect()
    mine = first.open(b"x")
    assert mine is not None
    pair.flow()
    new = pair.connect()
    (theirs,) = second.talks.values()
    assert first.machine.link_to(second.peer) is old.links[0]
    assert second.machine.link_to(first.peer) is new.links[1]
    first.leave(mine)
    old.to[1].clear()
    pair.lose(old, 1)
    if is_told_in_time:
        pair.lose(old, 0)
    # Else the old link is dead and its other end does not know: what it says there is lost.
    pair.deliver(new, 0)
    pair.deliver(new, 1)
    assert theirs.over is not None
    assert theirs.over.code == RefusalCode.NO_CONVERSATION


def test_the_last_receipt_is_asked_for_when_a_link_was_dead_without_a_sign(pair: Pair) -> None:
    """A defect: it went over a link that only the other end had lost, and nothing followed it."""
    first, second = pair.ends
    old = pair.connect()
    mine = first.open(b"x")
    assert mine is not None
    first.end(mine)
    pair.flow()
    (theirs,) = second.talks.values()
    new = pair.connect()
    second.say(theirs, b"y")
    second.end(theirs)
    pair.lose(old, 1)
    pair.deliver(new, 0)
    first.read(mine)
    assert mine.over is not None
    pair.cut(old)
    pair.deliver_all()
    assert theirs.number in second.talks
    pair.wait(LinkConfig().idle_timeout_s * 2)
    pair.deliver_all()
    assert theirs.over is not None
    assert theirs.over.why is None
    for end in pair.ends:
        check_nothing_is_left(end)


def test_an_opening_is_said_again_when_its_refusal_is_lost_with_another_link() -> None:
    pair = Pair(small(), small(per_peer_max=1))
    first, second = pair.ends
    other = pair.connect(0)
    here = pair.connect(1)
    change_link(pair, 0, other, here)
    change_link(pair, 1, here, other)
    assert first.open() is not None
    one_too_many = first.open()
    assert one_too_many is not None
    pair.deliver(here, 1)
    assert [f for f in other.to[0] if isinstance(f, Message)]
    pair.cut(other)
    pair.flow()
    assert one_too_many.over is not None
    assert one_too_many.over.code in (RefusalCode.BUSY, RefusalCode.NO_CONVERSATION)
    pair.finish()
    for end in (first, second):
        check_nothing_is_left(end)


# What closing links bring, and what breaks the protocol.


def test_a_request_in_parts_over_a_closing_link_leaves_nothing(pair: Pair) -> None:
    """A defect: it was put to the application, whose answer then kept its peer for ever."""
    _, server = pair.ends
    wire = pair.connect()
    pair.keeps_books = False
    pair.lose(wire, 1)
    wire.to[1].append(Message(7, 0, Channel.APPLICATION, b"?", wants_reply=True, sequence=1))
    pair.deliver(wire, 1)
    assert not server.asks
    assert not server.machine.requests.serving
    server.do(lambda: server.machine.reply(server.other.peer, 7, BYTES, b"", pair.now))
    pair.wait(1000.0)
    assert not server.machine.parties


def test_what_is_out_of_turn_and_beyond_the_window_is_not_kept(pair: Pair) -> None:
    """A defect: it was kept although its link was closed; over one link after another came more
    than any bound."""
    pair.keeps_books = False
    victim = pair.ends[1]
    pair.connect()
    pair.ends[0].open()
    pair.deliver_all()
    (conversation,) = victim.machine.conversations.open_now.values()
    wires = [pair.connect() for _ in range(3)]
    beyond = Message(1, 0, Channel.APPLICATION, bytes(5000), 0, conversation.id, sequence=100)
    wires[-1].to[1].append(beyond)
    pair.deliver(wires[-1], 1)
    assert conversation.incoming.parked is None
    assert not victim.machine.conversations.open_now
    assert not pair.wires, "the peer has lost every link"
    pair.connect().to[1].append(beyond)
    pair.deliver_all()
    assert not victim.machine.conversations.open_now


def test_a_refusal_of_what_the_application_does_not_know_is_not_put_to_it(pair: Pair) -> None:
    """A defect: it was told of a conversation that was a long message of its own."""
    sender, receiver = pair.ends
    wire = pair.connect()
    party = sender.machine.party(receiver.peer)
    pair.one_way[bytes(9000)] = 1
    sender.do(lambda: sender.machine.send(party, "", BYTES, bytes(9000), pair.now))
    (conversation,) = sender.machine.conversations.open_now.values()
    body = encode(Refusal(100, ""))
    wire.to[0].append(
        Message(1, 0, Channel.REFUSAL, body, conversation.id, conversation.id, marks=MARK_YOURS)
    )
    pair.deliver(wire, 0)
    assert not got(sender, ConversationRefused)
    pair.flow()
    assert receiver.delivered == [bytes(9000)]
