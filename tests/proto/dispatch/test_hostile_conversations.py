"""Peers that say in conversations what no honest one would: nothing raises, and the bounds hold."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from meshwalk.proto.effects import ConversationHeard
from meshwalk.wire.frames import (
    MARK_ENDS,
    MARK_MORE,
    MARK_OPENS,
    MARK_UNRELIABLE,
    MARK_YOURS,
    Channel,
    Credit,
    Message,
)
from meshwalk.wire.messages import Refusal, RefusalCode, decode_refusal, encode

from .checks import check_bounds, check_nothing_is_left
from .pair import BYTES, End, Pair, Talk
from .smallnodes import FIRST_WINDOW, small, small_windows

PART = 64  # what a part costs beyond its body: `PART_COST_BYTES`


@pytest.fixture(autouse=True, scope="module")
def windows() -> Iterator[None]:
    with small_windows():
        yield


@pytest.fixture
def pair() -> Pair:
    return hostile_pair()


def hostile_pair(**settings: int) -> Pair:
    """End 0 says what it likes; end 1 keeps to the protocol."""
    made = Pair(small(**settings))
    made.keeps_books = False
    made.connect()
    return made


def opened(pair: Pair) -> Talk:
    """A conversation that the hostile end has opened, as its victim knows it."""
    pair.ends[0].open()
    pair.deliver_all()
    (talk,) = pair.ends[1].talks.values()
    return talk


def say(pair: Pair, *frames: Message | Credit) -> End:
    """The victim hears this, and keeps its bounds: after each the victim itself."""
    victim = pair.ends[1]
    for frame in frames:
        for wire in list(pair.wires.values()):
            wire.to[1].append(frame)
            pair.deliver(wire, 1)
        check_bounds(victim)
    return victim


def part(
    sequence: int,
    marks: int = 0,
    body: bytes = b"",
    regards: int = 0,
    id: int = 9000,
    reply: int = 0,
    wants: bool = False,
) -> Message:
    return Message(
        id,
        0,
        Channel.APPLICATION,
        body,
        reply,
        regards,
        BYTES,
        "",
        wants,
        sequence,
        marks,
    )


def refusals(pair: Pair) -> list[int]:
    """The codes that the victim has answered with since it was asked last."""
    (wire,) = pair.wires.values()
    frames = list(wire.to[0])
    wire.to[0].clear()
    return [
        decode_refusal(frame.body).code
        for frame in frames
        if isinstance(frame, Message) and frame.channel is Channel.REFUSAL
    ]


@pytest.mark.parametrize(
    "frame",
    [
        part(5),
        part(0, MARK_OPENS),
        part(0, MARK_UNRELIABLE),
        part(1, MARK_YOURS | MARK_OPENS),
        part(1, MARK_OPENS, id=0),
        Credit(0, False, 0, 0, 0),
        Credit(0, True, 0, 0, 0),
        Message(1, 0, Channel.REFUSAL, encode(Refusal(6, ""))),
    ],
)
def test_what_regards_nothing_is_a_breach(pair: Pair, frame: Message | Credit) -> None:
    """To refuse it would be a refusal of nothing, and so a breach as well."""
    victim = say(pair, frame)
    assert len(pair.faults) == 1
    assert not victim.talks
    check_nothing_is_left(victim)


@pytest.mark.parametrize(
    "frame",
    [
        part(1, MARK_YOURS, regards=77),
        part(7, regards=77),
        part(0, MARK_UNRELIABLE, regards=77),
        Credit(77, False, 0, 0, 0),
        Credit(77, True, 1 << 63, 1 << 63, 1 << 63),
    ],
)
def test_what_regards_the_unknown_is_refused(pair: Pair, frame: Message | Credit) -> None:
    victim = say(pair, frame)
    assert refusals(pair) == [RefusalCode.NO_CONVERSATION]
    assert not pair.faults
    assert not victim.machine.conversations.open_now


def test_refusals_of_the_unknown_are_counted(pair: Pair) -> None:
    body = encode(Refusal(RefusalCode.NO_CONVERSATION, "x"))
    for marks in (0, MARK_YOURS):
        for reply in (0, 5):
            say(pair, Message(1, 0, Channel.REFUSAL, body, reply, 77, marks=marks))
    assert pair.ends[1].machine.conversations.counts["late refusals"] == 4
    assert refusals(pair) == []


def test_more_than_the_window_is_a_breach(pair: Pair) -> None:
    talk = opened(pair)
    id, left = talk.name.id, FIRST_WINDOW - PART
    say(pair, part(2, body=bytes(left - PART), regards=id))
    assert talk.heard == 2
    assert not pair.faults
    victim = say(pair, part(3, regards=id))
    assert pair.faults == ["more was said than there was credit for"]
    check_nothing_is_left(victim)


def test_more_than_all_windows_together_ends_the_conversation_that_it_is_in() -> None:
    pair = hostile_pair(shared_window_bytes=FIRST_WINDOW)
    for id in range(9000, 9003):
        say(pair, part(1, MARK_OPENS, id=id), part(2, body=bytes(3500), regards=id))
    # It may be that both ends count differently for a moment, after one left another conversation.
    assert not pair.faults
    assert len(pair.ends[1].machine.conversations.open_now) == 1


def test_credit_for_what_was_never_said_is_a_breach(pair: Pair) -> None:
    talk = opened(pair)
    victim = pair.ends[1]
    victim.say(talk, b"x")
    say(pair, Credit(talk.name.id, False, 65, 0, 1))
    assert not pair.faults
    say(pair, Credit(talk.name.id, False, 65, 1, 1))
    assert pair.faults == ["credit for what was never said"]
    check_nothing_is_left(victim)


def test_parts_out_of_turn_count_as_any_other(pair: Pair) -> None:
    talk = opened(pair)
    ids = [3, 1 << 63, (1 << 64) - 1, *range(10, 100)]
    say(pair, *(part(n, regards=talk.name.id) for n in ids))
    assert pair.faults == ["more was said than there was credit for"]
    assert talk.heard == 1


def test_parts_out_of_turn_may_come_twice(pair: Pair) -> None:
    talk = opened(pair)
    say(pair, *(part(3, body=bytes(500), regards=talk.name.id) for _ in range(20)))
    say(pair, part(2, regards=talk.name.id))
    assert talk.heard == 3
    assert not pair.faults


def test_closing_does_not_take_what_came_out_of_turn(pair: Pair) -> None:
    talk = opened(pair)
    victim = say(pair, part(3, body=b"xxx", regards=talk.name.id))
    victim.close(talk)
    say(pair, part(2, regards=talk.name.id))
    assert not pair.faults


@pytest.mark.parametrize("size", [0, 1, 500])
@pytest.mark.parametrize("marks", [MARK_OPENS, 0])
def test_a_message_without_end_is_refused(size: int, marks: int) -> None:
    pair = hostile_pair(message_bytes_max=10_000, assembling_bytes_max=12_000)
    say(pair, part(1, MARK_MORE | marks, bytes(size)))
    codes: list[int] = []
    for sequence in range(2, 400):
        say(pair, part(sequence, MARK_MORE, bytes(size), 9000))
        codes += refusals(pair)
        if codes:
            break
    assert codes in ([RefusalCode.TOO_BIG], [RefusalCode.BUSY])
    check_nothing_is_left(pair.ends[1])


def test_the_last_part_does_not_make_it_longer_than_allowed() -> None:
    pair = hostile_pair(message_bytes_max=1500)
    talk = opened(pair)
    say(pair, part(2, MARK_MORE, bytes(1000), talk.name.id))
    say(pair, part(3, 0, bytes(1000), talk.name.id))
    assert talk.heard == 1
    assert talk.over is not None


def test_many_half_messages_are_refused() -> None:
    pair = hostile_pair(message_bytes_max=10_000, assembling_bytes_max=20_000)
    for id in range(9000, 9060):
        say(pair, part(1, MARK_MORE | MARK_OPENS, bytes(900), id=id))
    assert len(pair.ends[1].machine.conversations.open_now) == 60
    assert pair.ends[1].machine.parties[pair.ends[0].peer].growing == 2
    for id in range(9000, 9060):
        say(pair, part(2, MARK_MORE, bytes(900), id))
    # The two that grow are not refused, nor those that share what may lie unread.
    assert 2 < len(pair.ends[1].machine.conversations.open_now) < 30
    assert set(refusals(pair)) == {RefusalCode.BUSY}


def test_unreliable_messages_keep_the_bound_of_what_lies_unread() -> None:
    pair = hostile_pair(message_bytes_max=10_000, assembling_bytes_max=20_000)
    for id in range(9000, 9020):
        say(pair, part(1, MARK_OPENS, id=id))
        say(pair, *[part(0, MARK_UNRELIABLE, bytes(1000), id) for _ in range(5)])
    victim = pair.ends[1]
    heard = sum(type(effect) is ConversationHeard for effect in victim.effects)
    assert heard == 20_000 // (1000 + PART)
    assert victim.machine.conversations.counts["unreliable dropped"] == 100 - heard
    for talk in list(victim.talks.values()):
        victim.read(talk)
    say(pair, part(0, MARK_UNRELIABLE, bytes(1000), 9000))
    assert heard + 1 == sum(type(effect) is ConversationHeard for effect in victim.effects)


def test_a_flood_of_openings_is_refused(pair: Pair) -> None:
    victim = say(pair, *(part(1, MARK_OPENS, id=id) for id in range(9000, 9100)))
    assert len(victim.talks) == 64
    assert refusals(pair) == [RefusalCode.BUSY] * 36


@pytest.mark.parametrize("marks", [MARK_ENDS, MARK_ENDS | MARK_OPENS, MARK_ENDS | MARK_MORE])
def test_what_ends_before_it_begins_leaves_nothing(pair: Pair, marks: int) -> None:
    victim = say(pair, part(1, marks, b"x"))
    pair.flow()
    assert not victim.machine.conversations.open_now


@pytest.mark.parametrize("last", [0, MARK_MORE])
def test_what_ends_within_its_first_message_leaves_nothing(pair: Pair, last: int) -> None:
    victim = say(pair, part(1, MARK_OPENS | MARK_MORE, b"x"), part(2, MARK_ENDS | last, b"", 9000))
    pair.flow()
    assert not victim.machine.conversations.open_now


@pytest.mark.parametrize("after", [part(3, MARK_ENDS), part(3), part(3, MARK_MORE)])
def test_nothing_comes_after_the_end(pair: Pair, after: Message) -> None:
    talk = opened(pair)
    regards = talk.name.id
    late = part(3, after.marks, b"late", regards)
    victim = say(pair, part(2, MARK_ENDS, b"with a body", regards), late)
    assert talk.heard == 1
    assert pair.faults == ["something was said after the end of a conversation"]
    check_nothing_is_left(victim)


def test_nothing_that_came_before_its_turn_comes_after_the_end(pair: Pair) -> None:
    talk = opened(pair)
    regards = talk.name.id
    say(pair, part(3, 0, b"late", regards), part(2, MARK_ENDS, b"", regards))
    assert talk.heard == 1
    assert talk.has_ended
    assert len(pair.faults) == 1


def test_an_opening_that_is_a_reply_still_opens(pair: Pair) -> None:
    """Also when it does answer a request; what is said in it next tells the application."""
    victim = say(pair, part(1, MARK_OPENS, reply=4711))
    assert len(victim.talks) == 1
    party = victim.machine.party(pair.ends[0].peer)
    id = victim.machine.request(party, "", BYTES, b"", 10.0, pair.now)
    assert id is not None
    pair.answers[id] = b""
    victim.waiting[id] = b""
    victim.perform()
    say(pair, part(1, MARK_OPENS, reply=id, id=9001))
    assert not victim.waiting
    assert len(victim.talks) == 1
    say(pair, part(2, body=b"x", regards=9001))
    assert len(victim.talks) == 2


def test_unreliable_messages_fill_no_more_than_a_window(pair: Pair) -> None:
    talk = opened(pair)
    frames = [part(0, MARK_UNRELIABLE, bytes(500), talk.name.id) for _ in range(100)]
    victim = say(pair, *frames)
    held = [e for e in victim.effects if type(e) is ConversationHeard]
    assert sum(e.cost for e in held) <= FIRST_WINDOW
    assert victim.machine.conversations.counts["unreliable dropped"] == 100 - len(held)


IDS = st.sampled_from([0, 1, 2, 3, 5001, 5002, 5003, 9000, 9001, (1 << 64) - 1])
NUMBERS = st.sampled_from([0, 1, 2, 3, 4, 64, 128, 4096, 1 << 63, (1 << 64) - 1])
BODIES = st.sampled_from([b"", b"x", bytes(900), bytes(5000)])
REFUSALS = st.builds(Refusal, st.integers(0, 12), st.just("")).map(encode)
MESSAGES = st.builds(
    Message,
    IDS,
    NUMBERS,
    st.just(Channel.APPLICATION),
    BODIES,
    IDS,
    IDS,
    st.just(BYTES),
    st.just(""),
    st.booleans(),
    NUMBERS,
    st.integers(0, 63),
)
REFUSED = st.builds(
    Message,
    IDS,
    NUMBERS,
    st.just(Channel.REFUSAL),
    st.one_of(REFUSALS, BODIES),
    IDS,
    IDS,
    marks=st.integers(0, 31),
)
CREDITS = st.builds(Credit, IDS, st.booleans(), NUMBERS, NUMBERS, NUMBERS)
DOINGS = st.sampled_from(["open", "say", "read", "end", "close", "leave", "request", "wait"])
FRAMES = st.one_of(MESSAGES, MESSAGES, REFUSED, CREDITS)


def do(pair: Pair, what: str) -> None:
    """The victim goes on with its own things."""
    victim = pair.ends[1]
    talk = next(reversed(victim.talks.values()), None)
    if what == "open":
        victim.open(bytes(2000))
    elif what == "wait":
        pair.wait(1.0)
    elif what == "request":
        party = victim.machine.party(pair.ends[0].peer)
        if party.link is not None:
            id = victim.machine.request(party, "", BYTES, bytes(2000), 10.0, pair.now)
            if id is not None:
                victim.waiting[id] = None
                victim.perform()
        else:
            victim.machine.forget_if_idle(party)
    elif talk is None:
        return
    elif what == "say":
        if not talk.is_ending:
            victim.say(talk, bytes(3000))
    elif what == "read":
        victim.read(talk, 1)
    else:
        {"end": victim.end, "close": victim.close, "leave": victim.leave}[what](talk)


@given(st.lists(st.one_of(FRAMES, FRAMES, DOINGS), max_size=40))
@example([part(1, MARK_OPENS, id=9000), part(2, MARK_ENDS, regards=9000), part(3, regards=9000)])
def test_whatever_comes_nothing_raises_and_the_bounds_hold(doings: list[object]) -> None:
    pair = hostile_pair()
    pair.ends[0].machine.link_gone = lambda *_: None  # type: ignore[method-assign]
    pair.answers = Anything()
    for doing in doings:
        if not pair.wires:
            pair.connect()
        if isinstance(doing, str):
            do(pair, doing)
        else:
            assert isinstance(doing, Message | Credit)
            say(pair, doing)
        check_bounds(pair.ends[1])
    for wire in list(pair.wires.values()):
        pair.lose(wire, 1)
    victim = pair.ends[1]
    for talk in list(victim.talks.values()):
        victim.leave(talk)
    pair.wait(400.0)
    for party in victim.machine.parties.values():
        assert not party.asked


class Anything(dict[int, bytes]):
    """Any answer will do."""
