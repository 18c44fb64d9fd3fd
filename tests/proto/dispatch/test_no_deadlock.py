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

from .checks import check_bounds, check_nothing_is_left
from .pair import End, Pair, Talk
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
