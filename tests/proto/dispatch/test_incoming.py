"""One direction at its receiver: in order, put together, and no byte given back that is unread."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from meshwalk.proto.dispatch.incoming import Incoming
from meshwalk.wire.frames import MARK_MORE, PART_COST_BYTES, Channel, Message

WINDOW = 1 << 20


def part(sequence: int, body: bytes = b"", marks: int = 0, id: int = 1) -> Message:
    return Message(id, 0, Channel.APPLICATION, body, 0, 1, sequence=sequence, marks=marks)


@given(st.lists(st.integers(1, 12), max_size=60))
def test_each_part_has_its_turn_once(sequences: list[int]) -> None:
    incoming = Incoming(WINDOW)
    ready: list[int] = []
    for sequence in [*sequences, *range(1, 13)]:
        had = sequence in ready or sequence in (incoming.parked or {})
        assert incoming.has_come(sequence) is had
        if not had:
            ready += [message.sequence for message in incoming.in_order(part(sequence))]
        assert ready == list(range(1, len(ready) + 1))
    assert len(ready) == 12
    assert incoming.parked is None


def test_what_never_was_in_sequence_has_come_before() -> None:
    assert Incoming(WINDOW).has_come(0)


def hear(incoming: Incoming, message: Message) -> tuple[Message, int] | None:
    """As `Hearing` does it."""
    assert incoming.window.receive(len(message.body) + PART_COST_BYTES, 0.0)
    whole = incoming.put_together(message)
    incoming.unread += whole is not None
    if whole is not None:
        incoming.is_growing = False
    elif incoming.wants_to_grow:
        incoming.grow()
    return whole


def read(incoming: Incoming, messages: int, cost: int) -> None:
    """As `Table` does it, when few messages grow."""
    incoming.read(messages, cost)
    if incoming.wants_to_grow:
        incoming.grow()


def test_parts_are_taken_at_once_when_nothing_lies_before_them() -> None:
    incoming = Incoming(WINDOW)
    assert hear(incoming, part(1, bytes(36), MARK_MORE)) is None
    assert (incoming.window.taken, incoming.window.ahead) == (100, 0)
    whole = hear(incoming, part(2, bytes(36)))
    assert whole is not None
    assert (len(whole[0].body), whole[0].marks, whole[1]) == (72, 0, 200)
    assert (incoming.window.taken, incoming.window.ahead) == (200, 200)
    read(incoming, 1, 200)
    assert (incoming.window.taken, incoming.window.ahead) == (200, 0)


def test_parts_wait_for_what_lies_before_them() -> None:
    incoming = Incoming(WINDOW)
    hear(incoming, part(1, bytes(36)))
    hear(incoming, part(2, bytes(36), MARK_MORE))
    assert incoming.window.taken == 0
    read(incoming, 1, 100)
    assert incoming.window.taken == 200
    hear(incoming, part(3, bytes(36)))
    assert (incoming.window.taken, incoming.window.ahead) == (300, 200)
    read(incoming, 1, 200)
    assert (incoming.window.taken, incoming.window.ahead, incoming.unread) == (300, 0, 0)


@given(
    st.lists(st.lists(st.integers(0, 50), min_size=1, max_size=4), max_size=12),
    st.lists(st.integers(0, 3), max_size=40),
)
def test_in_the_end_all_is_taken_and_never_more(
    messages: list[list[int]], reads: list[int]
) -> None:
    incoming, sequence = Incoming(WINDOW), 0
    waiting: list[int] = []
    pace = iter([*reads, *[0] * 100])
    for sizes in messages:
        for n, size in enumerate(sizes):
            sequence += 1
            marks = MARK_MORE if n < len(sizes) - 1 else 0
            whole = hear(incoming, part(sequence, bytes([n]) * size, marks))
            assert (whole is not None) is (marks == 0)
            if whole is not None:
                assert whole[0].body == b"".join(bytes([k]) * s for k, s in enumerate(sizes))
                waiting.append(whole[1])
            for cost in waiting[: next(pace)]:
                read(incoming, 1, cost)
                waiting.pop(0)
            window = incoming.window
            assert 0 <= window.taken <= window.received
            assert window.held + window.ahead >= sum(waiting)
            assert incoming.unread == len(waiting)
    for cost in waiting:
        read(incoming, 1, cost)
    assert (incoming.window.held, incoming.window.ahead, incoming.held) == (0, 0, 0)
