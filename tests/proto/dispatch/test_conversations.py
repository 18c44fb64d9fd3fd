"""Conversations of two nodes: what each input leads to, and what hostile peers get."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from meshwalk.proto.effects import (
    ConversationOver,
    ConversationRefused,
    Unanswered,
    Why,
)
from meshwalk.wire.frames import (
    Credit,
)
from meshwalk.wire.messages import RefusalCode

from .checks import check_bounds, check_nothing_is_left
from .pair import BYTES, End, Pair, Talk
from .smallnodes import FIRST_WINDOW, small, small_windows


@pytest.fixture(autouse=True)
def windows() -> Iterator[None]:
    with small_windows():
        yield


@pytest.fixture
def pair() -> Pair:
    made = Pair()
    made.connect()
    return made


def opened(pair: Pair, body: bytes = b"") -> tuple[Talk, Talk]:
    """A conversation that both ends know of."""
    mine = pair.ends[0].open(body)
    assert mine is not None
    pair.deliver_all()
    (theirs,) = pair.ends[1].talks.values()
    return mine, theirs


def told(end: End, kind: type) -> list[object]:
    return [effect for effect in end.effects if type(effect) is kind]


# The life of one.


def test_both_end_and_nothing_is_left(pair: Pair) -> None:
    mine, theirs = opened(pair, b"hello")
    pair.ends[1].say(theirs, b"hi")
    pair.ends[0].say(mine, bytes(50_000))
    pair.ends[1].end(theirs)
    pair.deliver_all()
    assert mine.has_ended
    assert mine.over is None
    pair.finish()
    for talk in (mine, theirs):
        assert talk.over == ConversationOver(talk.number, None)
    for end in pair.ends:
        check_nothing_is_left(end)


def test_one_end_may_say_on_when_the_other_has_ended(pair: Pair) -> None:
    mine, theirs = opened(pair)
    pair.ends[0].end(mine)
    pair.deliver_all()
    assert pair.ends[1].say(theirs, b"still here")
    pair.flow()
    assert mine.heard == 1
    assert not pair.ends[0].say(mine, b"no")


def test_leaving_ends_it_for_both(pair: Pair) -> None:
    mine, theirs = opened(pair)
    pair.ends[1].say(theirs, bytes(50_000))
    pair.ends[1].leave(theirs, 123)
    pair.deliver_all()
    assert theirs.over == ConversationOver(theirs.number, None)
    assert mine.over == ConversationOver(mine.number, Why.REFUSED, 123, "")
    for end in pair.ends:
        check_nothing_is_left(end)


def test_what_was_said_before_closing_arrives(pair: Pair) -> None:
    mine, theirs = opened(pair)
    pair.ends[0].say(mine, bytes(60_000))
    pair.ends[0].close(mine)
    pair.flow()
    assert theirs.heard == 2
    assert theirs.has_ended
    pair.ends[1].say(theirs, b"into the void")
    pair.finish()


def test_a_deadline_ends_it_for_both(pair: Pair) -> None:
    mine = pair.ends[0].open(b"", 5.0)
    pair.deliver_all()
    (theirs,) = pair.ends[1].talks.values()
    pair.wait(5.0)
    pair.deliver_all()
    assert mine is not None
    assert mine.over == ConversationOver(mine.number, Why.TIMED_OUT)
    assert theirs.over is not None
    assert theirs.over.code == RefusalCode.TOO_LATE
    for end in pair.ends:
        check_nothing_is_left(end)


def test_who_closes_waits_for_the_other_for_a_while_only(pair: Pair) -> None:
    mine, theirs = opened(pair)
    pair.ends[0].close(mine)
    pair.deliver_all()
    pair.wait(29.0)
    pair.deliver_all()
    assert not pair.ends[0].past
    pair.wait(2.0)
    pair.deliver_all()
    assert mine.over is not None
    assert theirs.over is not None


def test_a_full_table_refuses_one_more(pair: Pair) -> None:
    for _ in range(64):
        assert pair.ends[0].open() is not None
    assert pair.ends[0].open() is None
    pair.deliver_all()
    assert len(pair.ends[1].talks) == 64
    assert pair.ends[1].open() is None


def test_a_peer_that_allows_fewer_refuses_one_more() -> None:
    pair = Pair(small(), small(per_peer_max=1))
    pair.connect()
    first, second = pair.ends[0].open(), pair.ends[0].open()
    assert first is not None
    assert second is not None
    pair.deliver_all()
    assert first.over is None
    assert second.over == ConversationOver(
        second.number, Why.REFUSED, RefusalCode.BUSY, "too many conversations are open"
    )


# Links that are lost.


def test_what_was_on_its_way_is_said_again(pair: Pair) -> None:
    mine, theirs = opened(pair)
    for n in range(10):
        pair.ends[0].say(mine, bytes([n]))
    pair.cut_all()
    assert pair.ends[0].is_sought
    assert pair.ends[1].is_sought
    pair.ends[0].say(mine, b"meanwhile")
    pair.flow()
    assert theirs.heard == 12
    pair.finish()


def test_what_both_had_ended_is_said_again_as_well(pair: Pair) -> None:
    """A link is lost with words that its sender ended with: they are not given up."""
    mine, theirs = opened(pair)
    pair.ends[1].end(theirs)
    pair.deliver_all()
    pair.ends[0].say(mine, b"goodbye")
    pair.ends[0].end(mine)
    pair.cut_all()
    pair.flow()
    assert theirs.heard == 2
    assert theirs.over == ConversationOver(theirs.number, None)
    assert mine.over == ConversationOver(mine.number, None)


def test_a_restarted_peer_refuses(pair: Pair) -> None:
    mine, _ = opened(pair)
    pair.ends[0].say(mine, bytes(3000))
    pair.flow()
    pair.restart(1)
    pair.flow()
    assert mine.over is not None
    assert (mine.over.why, mine.over.code) == (Why.REFUSED, RefusalCode.NO_CONVERSATION)


def test_a_conversation_that_was_over_is_not_opened_again(pair: Pair) -> None:
    """The peer's last word that it heard all is lost together with the link."""
    mine, theirs = opened(pair)
    pair.ends[0].say(mine, b"all")
    pair.ends[0].end(mine)
    pair.deliver_all()
    pair.ends[1].read(theirs)
    pair.ends[1].end(theirs)
    (wire,) = pair.wires.values()
    pair.deliver(wire, 0)
    pair.deliver(wire, 1)
    assert theirs.over is not None
    wire.to[0].clear()
    pair.cut(wire)
    pair.flow()
    assert mine.over == ConversationOver(mine.number, None)


def test_a_long_message_is_heard_once_though_its_receipt_is_lost(pair: Pair) -> None:
    sender, receiver = pair.ends
    party = sender.machine.party(receiver.peer)
    pair.one_way[bytes(3000)] = 1
    sender.do(lambda: sender.machine.send(party, "", BYTES, bytes(3000), pair.now))
    (wire,) = pair.wires.values()
    pair.deliver(wire, 1)
    assert len(receiver.delivered) == 1
    pair.cut(wire)
    pair.flow()
    assert len(receiver.delivered) == 1
    for end in pair.ends:
        check_nothing_is_left(end)


def test_a_long_request_is_over_with_its_link(pair: Pair) -> None:
    """Nobody waits for its answer, so the rest of it is not said."""
    asker, _ = pair.ends
    party = asker.machine.party(pair.ends[1].peer)
    id = asker.machine.request(party, "", BYTES, bytes(50_000), 10.0, pair.now)
    assert id is not None
    asker.waiting[id] = b""
    asker.perform()
    pair.cut_all()
    assert told(asker, Unanswered) == [Unanswered(id, Why.LINK_LOST, 0, "lost")]
    for end in pair.ends:
        assert not end.machine.conversations.open_now


# Credit.


def test_a_conversation_that_waits_for_shared_credit_goes_on_when_another_is_left() -> None:
    """Nobody reads, so only what is left gives credit back."""
    pair = Pair(small(shared_window_bytes=FIRST_WINDOW))
    pair.connect()
    for _ in range(3):
        talk = pair.ends[0].open()
        assert talk is not None
        for _ in range(4):
            pair.ends[0].say(talk, bytes(900))
    pair.deliver_all()
    assert pair.ends[0].machine.parties[pair.ends[1].peer].starved
    first, second, third = pair.ends[1].talks.values()
    before = second.heard + third.heard
    assert first.heard == 5
    assert before < 10
    pair.ends[1].leave(first)
    pair.deliver_all()
    assert second.heard + third.heard > before


@pytest.mark.parametrize("how", ["leaves", "deadline"])
def test_shared_credit_that_comes_back_is_used_at_once(how: str) -> None:
    pair = Pair(small(shared_window_bytes=FIRST_WINDOW))
    pair.connect()
    first = pair.ends[0].open(b"", 5.0)
    assert first is not None
    pair.ends[0].say(first, bytes(900))
    pair.ends[0].say(first, bytes(900))
    pair.ends[0].say(first, bytes(900))
    pair.ends[0].say(first, bytes(900))
    second = pair.ends[0].open()
    assert second is not None
    for _ in range(4):
        pair.ends[0].say(second, bytes(900))
    pair.deliver_all()
    theirs = [t for t in pair.ends[1].talks.values() if t.name == second.name]
    before = theirs[0].heard
    assert before < 5
    if how == "leaves":
        pair.ends[0].leave(first)
    else:
        pair.wait(5.0)
    pair.deliver_all()
    assert theirs[0].heard == 5


def test_what_the_peer_allows_beyond_all_reason_is_not_used(pair: Pair) -> None:
    """A peer that allows everything and takes nothing does not fill this node's memory."""
    mine, _ = opened(pair)
    speaker = pair.ends[0]
    party = speaker.machine.parties[pair.ends[1].peer]
    (link,) = party.links
    speaker.machine.link_gone(link, None, "", pair.now)
    speaker.machine.link_opened(link, (1 << 64) - 1, pair.now)
    credit = Credit(mine.name.id, True, 0, 0, (1 << 64) - 1)
    speaker.do(lambda: speaker.machine.credited(link, credit, pair.now))
    for _ in range(200):
        speaker.say(mine, bytes(500))
    link.room = 1 << 30
    speaker.do(lambda: speaker.machine.room(link, 1 << 30, pair.now))
    (conversation,) = speaker.machine.conversations.open_now.values()
    assert conversation.outgoing.allowance.outstanding <= 16384 + 1024


def test_reading_what_was_closed_gives_nothing_back_twice(pair: Pair) -> None:
    mine, theirs = opened(pair)
    for _ in range(3):
        pair.ends[0].say(mine, bytes(500))
    pair.deliver_all()
    costs = list(theirs.unread)
    pair.ends[1].close(theirs)
    machine = pair.ends[1].machine.conversations
    pair.ends[1].do(lambda: machine.read(theirs.number, 3, sum(costs), pair.now))
    check_bounds(pair.ends[1])
    pair.finish()


# Messages that were refused.


def test_refusal_of_one_message_reaches_the_conversation(pair: Pair) -> None:
    """Also when requests were made before and after it."""
    mine, theirs = opened(pair)
    asker = pair.ends[0]
    said = asker.machine.conversations.say(mine.number, "", BYTES, b"?", pair.now)
    assert said is not None
    pair.said[mine.name, 0].append(b"?")
    id = asker.machine.request(
        asker.machine.party(pair.ends[1].peer), "", BYTES, b"", 10.0, pair.now
    )
    assert id is not None
    asker.waiting[id] = pair.asked[id] = b""
    asker.perform()
    pair.deliver_all()
    machine = pair.ends[1].machine.conversations
    pair.ends[1].do(lambda: machine.refuse_said(theirs.number, said[0], 4, "no", pair.now))
    pair.deliver_all()
    assert told(asker, ConversationRefused) == [ConversationRefused(mine.number, said[0], 4, "no")]


def test_a_long_request_is_heard_once_though_its_receipt_is_lost(pair: Pair) -> None:
    """It is said again over another link, while a long answer is on its way already."""
    asker, server = pair.ends
    (wire,) = pair.wires.values()
    id = asker.machine.request(
        asker.machine.party(server.peer), "", BYTES, bytes(3000), 10.0, pair.now
    )
    assert id is not None
    pair.asked[id], asker.waiting[id] = bytes(3000), None
    asker.perform()
    pair.deliver(wire, 1)
    pair.connect()
    pair.cut(wire)
    pair.answer(server, id, bytes(5000))
    pair.flow()
    assert not asker.waiting
    assert server.asked_ids == {id}
    for end in pair.ends:
        check_nothing_is_left(end)


def test_a_peer_that_restarted_before_it_had_read_all_is_no_success(pair: Pair) -> None:
    """Both had said all, but not everything had been read when the peer went away."""
    mine, theirs = opened(pair)
    pair.ends[1].end(theirs)
    pair.deliver_all()
    pair.ends[0].say(mine, b"never read")
    pair.ends[0].end(mine)
    pair.deliver_all()
    pair.restart(1)
    pair.flow()
    assert mine.over is not None
    assert (mine.over.why, mine.over.code) == (Why.REFUSED, RefusalCode.NO_CONVERSATION)


def test_who_left_without_a_link_is_no_offender(pair: Pair) -> None:
    """The peer cannot know yet that the one conversation holds nothing any more."""
    pair = Pair(small(shared_window_bytes=FIRST_WINDOW))
    pair.connect()
    first, theirs = opened(pair)
    while not first.is_full:
        pair.ends[0].say(first, bytes(500))
    pair.deliver_all()
    pair.cut_all()
    pair.ends[0].leave(first)
    second = pair.ends[0].open(bytes(500))
    assert second is not None
    pair.flow()
    assert not pair.faults
    assert theirs.over is not None
    pair.finish()


def test_an_opening_that_is_said_again_starts_nothing_at_a_peer_that_restarted(pair: Pair) -> None:
    mine, theirs = opened(pair, b"start the engine")
    pair.ends[1].say(theirs, b"it runs")  # so it knows of it, and has not said yet how much it took
    pair.deliver_all()
    pair.restart(1)
    pair.flow()
    assert mine.over is not None
    assert not pair.ends[1].talks
    assert not pair.ends[1].past


def test_a_peer_that_goes_on_is_told_that_this_end_has_left(pair: Pair) -> None:
    mine, theirs = opened(pair)
    pair.ends[0].say(mine, b"last words")
    pair.ends[0].close(mine)
    for _ in range(5):
        pair.ends[1].say(theirs, b"and another thing")
    pair.deliver_all()
    # Not before it has read what was said to it.
    assert theirs.number in pair.ends[1].talks
    pair.ends[1].read(theirs)
    pair.flow()
    assert theirs.over is not None
    assert theirs.over.code == RefusalCode.CANCELLED
    for end in pair.ends:
        check_nothing_is_left(end)
