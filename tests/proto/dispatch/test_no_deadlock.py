"""No schedule of delivery and reading gets two nodes stuck, and unread words fill no more memory
than was allowed.

Both ends say much in many conversations at once, through windows that hold little of it.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshwalk.proto.effects import ConversationHeard
from meshwalk.wire.messages import RefusalCode

from .checks import check_bounds, check_nothing_is_left
from .pair import BYTES, End, Pair, Talk
from .smallnodes import FIRST_WINDOW, FLOOR, small, small_windows


@pytest.fixture(autouse=True, scope="module")
def windows() -> Iterator[None]:
    with small_windows():
        yield


TALKS = 6
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["say", "say", "deliver", "deliver", "read", "credit", "wait", "cut"]),
        st.integers(0, 1),
        st.integers(0, TALKS - 1),
        st.sampled_from([0, 1, 3, 900, 3000, 20_000, 100_000]),
    ),
    max_size=80,
)


def begun(shared: int) -> tuple[Pair, list[list[Talk]]]:
    """Conversations that both ends know, in the same order at both."""
    pair = Pair(small(shared_window_bytes=shared))
    pair.connect()
    for n in range(TALKS):
        pair.ends[n % 2].open()
    pair.deliver_all()
    return pair, [sorted(end.talks.values(), key=lambda talk: talk.name) for end in pair.ends]


def held(end: End) -> int:
    """Bytes that lie unread at an end, by its application's books."""
    return sum(sum(talk.unread) for talk in end.talks.values())


def check_memory(end: End) -> None:
    config = end.config.conversations
    most = config.shared_window_bytes + FLOOR * TALKS + config.assembling_bytes_max
    assert held(end) <= most
    check_bounds(end)


@settings(max_examples=60)
@given(STEPS, st.sampled_from([FIRST_WINDOW, 4 * FIRST_WINDOW]))
def test_whatever_the_schedule_everything_arrives(
    steps: list[tuple[str, int, int, int]], shared: int
) -> None:
    pair, talks = begun(shared)
    said = 0
    for what, index, which, size in steps:
        end, talk = pair.ends[index], talks[index][which]
        if what == "say" and said + size < 1_000_000:
            said += size
            end.say(talk, bytes([which]) * size)
        elif what == "deliver":
            for wire in list(pair.wires.values()):
                pair.deliver(wire, index, size)
        elif what == "read":
            end.read(talk, 1 + size % 5)
        elif what == "wait":
            pair.wait(0.4)
        elif what == "cut" and which == 0:
            pair.cut_all()
            pair.connect()
        for each in pair.ends:
            check_memory(each)
    pair.flow()
    assert not pair.faults
    for index in (0, 1):
        for talk in talks[index]:
            assert talk.heard == len(pair.said[talk.name, 1 - index])
    pair.finish()
    for end in pair.ends:
        check_nothing_is_left(end)


@pytest.mark.parametrize("shared", [FIRST_WINDOW, 16 * FIRST_WINDOW])
def test_a_conversation_that_is_read_goes_on_among_others_that_are_not(shared: int) -> None:
    pair, talks = begun(shared)
    for talk in talks[0]:
        for _ in range(100):
            pair.ends[0].say(talk, bytes(400))
    reader, read = pair.ends[1], talks[1][3]
    for _ in range(500):
        done = pair.deliver_all() + reader.read(read)
        if not done:
            pair.wait(1.0)
        check_memory(reader)
    assert read.heard == len(pair.said[read.name, 0]) >= 100
    assert all(talk.heard < 100 for talk in talks[1] if talk is not read)


def test_a_message_longer_than_every_window_arrives_behind_one_that_is_not_read() -> None:
    pair, talks = begun(FIRST_WINDOW)
    sender, reader = pair.ends
    sender.say(talks[0][0], b"first")
    sender.say(talks[0][0], bytes(500_000))
    pair.deliver_all()
    assert talks[1][0].heard == (3 if talks[1][0].name.opener == 0 else 2) - 1
    pair.flow()
    told = [e for e in reader.effects if type(e) is ConversationHeard]
    assert [len(e.body) for e in told] == [5, 500_000]


MANY = 12
LONG = 40_000  # ten windows


def few_grow() -> Pair:
    """Two long messages may be put together at a time beyond their windows."""
    pair = Pair(small(message_bytes_max=LONG, assembling_bytes_max=2 * LONG))
    pair.connect()
    return pair


def send(pair: Pair, end: End, body: bytes, *, is_request: bool = False) -> None:
    machine = end.machine
    party = machine.party(end.other.peer)
    if is_request:
        id = machine.request(party, "t", BYTES, body, 300.0, pair.now)
        assert id is not None
        pair.asked[id], end.waiting[id] = body, None
    else:
        pair.one_way[body] += 1
        assert machine.send(party, "t", BYTES, body, pair.now)
    end.perform()


def test_many_long_messages_at_once_all_arrive() -> None:
    pair = few_grow()
    for n in range(MANY):
        for end in pair.ends:
            send(pair, end, bytes([n, end.index]) * (LONG // 2))
            send(pair, end, bytes([n, end.index]) * (LONG // 2), is_request=True)
    pair.deliver_all()  # nothing has to be read, and nothing but credit to be waited for
    for end in pair.ends:
        assert sorted(end.delivered) == [
            bytes([n, 1 - end.index]) * (LONG // 2) for n in range(MANY)
        ]
        assert len(end.asks) == MANY
        check_bounds(end)
    assert not +pair.one_way
    assert not pair.faults
    pair.finish()
    for end in pair.ends:
        check_nothing_is_left(end)


@pytest.mark.parametrize("is_cut", [False, True])
def test_those_that_have_to_wait_go_on_after_others_are_gone(is_cut: bool) -> None:
    """Two requests have begun to be put together. They end with the link, or they are abandoned."""
    pair = few_grow()
    sender, reader = pair.ends
    for n in range(2):
        send(pair, sender, bytes([n]) * LONG, is_request=True)
    for n in range(MANY):
        send(pair, sender, bytes([n]) * LONG)
    (wire,) = pair.wires.values()
    pair.deliver(wire, 1, 10)
    assert reader.machine.parties[sender.peer].growing == 2
    if is_cut:
        pair.cut_all()
        pair.flow()
    else:
        for number in (1, 2):
            sender.machine.conversations.leave(number, 100, "", pair.now)
            sender.perform()
        pair.deliver_all()
    assert sorted(reader.delivered) == [bytes([n]) * LONG for n in range(MANY)]


def test_long_messages_that_nobody_reads_hold_up_none_that_are_read_at_once() -> None:
    pair = few_grow()
    sender, reader = pair.ends
    talks = [sender.open() for _ in range(MANY)]
    pair.deliver_all()
    for talk in talks:
        assert talk is not None
        sender.say(talk, bytes(LONG))
    pair.deliver_all()
    unread = [talk for talk in reader.talks.values() if talk.heard == 2]
    # Those that had no place for theirs were broken off, at both ends.
    assert len(unread) == 1
    assert reader.machine.parties[sender.peer].growing == 0
    assert {talk.over.code for talk in reader.past if talk.over} == {RefusalCode.BUSY}
    assert {talk.over.code for talk in sender.past if talk.over} == {RefusalCode.BUSY}
    assert len(sender.past) == len(reader.past) == MANY - 1
    send(pair, sender, bytes(LONG))
    send(pair, sender, bytes(LONG), is_request=True)
    pair.deliver_all()
    assert (len(reader.delivered), len(reader.asks)) == (1, 1)
    check_bounds(reader)
    pair.finish()
    for end in pair.ends:
        check_nothing_is_left(end)


@settings(max_examples=60)
@given(STEPS, st.integers(2, 4))
def test_whatever_the_schedule_long_messages_arrive(
    steps: list[tuple[str, int, int, int]], slots: int
) -> None:
    """One way and in conversations, read late, over links that break."""
    pair = Pair(small(message_bytes_max=LONG, assembling_bytes_max=slots * LONG))
    pair.connect()
    for n in range(TALKS):
        pair.ends[n % 2].open()
    pair.deliver_all()
    talks = [sorted(end.talks.values(), key=lambda talk: talk.name) for end in pair.ends]
    said = [0, 0]
    for count, (what, index, which, size) in enumerate(steps):
        end, talk = pair.ends[index], talks[index][which]
        if what == "say" and count % 2 and said[index] < slots - 1:  # so many fit in unread
            said[index] += 1
            end.say(talk, bytes([which]) * min(size, LONG))
        elif what == "say":
            if end.machine.parties[end.other.peer].link is not None:
                send(pair, end, bytes([count, index]) * (min(size, LONG) // 2))
        elif what == "deliver":
            for wire in list(pair.wires.values()):
                pair.deliver(wire, index, size)
        elif what == "read":
            end.read(talk)
        elif what == "wait":
            pair.wait(0.4)
        elif what == "cut" and which == 0:
            pair.cut_all()
            pair.connect()
        for each in pair.ends:
            check_bounds(each)
    pair.flow()
    assert not pair.faults
    for index in (0, 1):
        for talk in talks[index]:
            assert talk.heard == len(pair.said[talk.name, 1 - index])
    # Short ones that go one way are lost with a link; long ones never.
    assert all(len(body) <= 1024 for body in +pair.one_way)
    pair.finish()
    for end in pair.ends:
        check_nothing_is_left(end)


def test_nobody_reads_until_both_have_filled_everything() -> None:
    pair, talks = begun(FIRST_WINDOW)
    for index in (0, 1):
        for talk in talks[index]:
            for size in (0, 100, 5000, 60_000):
                pair.ends[index].say(talk, bytes(size))
    for _ in range(5):
        pair.deliver_all()
        pair.wait(5.0)
    assert all(end.machine.parties[end.other.peer].turns is None for end in pair.ends)
    for end in pair.ends:
        check_memory(end)
    pair.flow()
    for index in (0, 1):
        for talk in talks[index]:
            assert talk.heard == len(pair.said[talk.name, 1 - index])
