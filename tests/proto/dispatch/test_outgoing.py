"""One direction at its sender: parts in sequence within the room, kept until they are taken."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from meshwalk.proto.dispatch.outgoing import PART_BYTES_LEAST, Outgoing, Saying
from meshwalk.wire.frames import (
    MARK_ENDS,
    MARK_MORE,
    MARK_OPENS,
    PART_COST_BYTES,
    ContentType,
    Credit,
    Message,
)

BYTES = ContentType.BYTES
PART_MAX = 2048
WINDOW = 1 << 20


def parts_of(outgoing: Outgoing, room: int = 1 << 20, part_max: int = PART_MAX) -> list[Message]:
    parts = []
    while outgoing.is_waiting and outgoing.cost_of_next() <= room:
        part, cost = outgoing.take_next(room, part_max, 1, 0, 0.0)
        assert cost <= room
        room -= cost
        parts.append(part)
    return parts


def credit(taken: int, held: int = 0, more: int = 0) -> Credit:
    return Credit(1, False, taken, held, more)


def test_a_long_message_goes_in_parts_that_share_its_id() -> None:
    outgoing = Outgoing(WINDOW)
    body = bytes(range(250)) * 20
    outgoing.put(Saying(7, body, ContentType.JSON, "t", 3, True, MARK_OPENS))
    parts = parts_of(outgoing)
    assert b"".join(part.body for part in parts) == body
    assert [part.sequence for part in parts] == [1, 2, 3]
    assert [part.marks for part in parts] == [MARK_OPENS | MARK_MORE, MARK_MORE, 0]
    assert {part.id for part in parts} == {7}
    first = parts[0]
    assert (first.type, first.in_reply_to, first.wants_reply) == ("t", 3, True)
    assert {(part.type, part.in_reply_to, part.wants_reply) for part in parts[1:]} == {
        ("", 0, False)
    }
    assert outgoing.backlog_bytes == 0


def test_an_empty_message_is_one_part() -> None:
    outgoing = Outgoing(WINDOW)
    outgoing.put(Saying(7, b"", BYTES, marks=MARK_ENDS))
    (part,) = parts_of(outgoing)
    assert (part.body, part.marks, part.sequence) == (b"", MARK_ENDS, 1)
    assert outgoing.allowance.sent == PART_COST_BYTES


def test_credit_that_trickles_makes_no_small_parts() -> None:
    outgoing = Outgoing(WINDOW)
    outgoing.put(Saying(7, bytes(5000), BYTES))
    assert outgoing.cost_of_next() == PART_BYTES_LEAST + PART_COST_BYTES
    part, cost = outgoing.take_next(PART_BYTES_LEAST + PART_COST_BYTES, PART_MAX, 1, 0, 0.0)
    assert (len(part.body), cost) == (PART_BYTES_LEAST, PART_BYTES_LEAST + PART_COST_BYTES)


def test_taken_parts_are_forgotten_and_others_said_again() -> None:
    outgoing = Outgoing(WINDOW)
    for id in range(1, 5):
        outgoing.put(Saying(id, bytes(36), BYTES))
    parts = parts_of(outgoing)
    assert outgoing.heard(credit(100 + 100 + 50))
    outgoing.put(Saying(9, b"", BYTES))
    outgoing.send_again()
    assert outgoing.cost_of_next() == 0
    again = parts_of(outgoing)
    assert again[:2] == parts[2:]
    assert [part.sequence for part in again] == [3, 4, 5]
    assert not outgoing.is_over
    assert outgoing.heard(credit(464))
    assert outgoing.is_over


def test_what_has_been_taken_meanwhile_is_not_said_again() -> None:
    outgoing = Outgoing(WINDOW)
    outgoing.put(Saying(1, bytes(36), BYTES))
    parts_of(outgoing)
    outgoing.send_again()
    assert outgoing.heard(credit(100))
    assert not outgoing.is_waiting


def test_nonsense_changes_nothing() -> None:
    outgoing = Outgoing(WINDOW)
    outgoing.put(Saying(1, bytes(36), BYTES))
    parts_of(outgoing)
    assert not outgoing.heard(credit(101))
    assert not outgoing.heard(credit(1, 100))
    assert not outgoing.is_over


@given(
    st.lists(st.integers(0, 9000), min_size=1, max_size=8),
    st.lists(st.tuples(st.integers(64, 4000), st.booleans()), max_size=60),
    st.integers(1024, 4096),
)
def test_everything_is_said_in_sequence_whatever_the_room(
    sizes: list[int], rooms: list[tuple[int, bool]], part_max: int
) -> None:
    outgoing = Outgoing(WINDOW)
    bodies = [bytes([id]) * size for id, size in enumerate(sizes)]
    for id, body in enumerate(bodies):
        outgoing.put(Saying(id + 1, body, BYTES))
    heard: dict[int, Message] = {}
    for room, is_lost in [*rooms, (1 << 20, True), (1 << 20, False)]:
        for part in parts_of(outgoing, room, part_max):
            assert len(part.body) <= part_max
            assert heard.setdefault(part.sequence, part) == part
        if is_lost:
            outgoing.send_again()
    assert sorted(heard) == list(range(1, len(heard) + 1))
    whole = dict.fromkeys(range(1, len(bodies) + 1), b"")
    for _, part in sorted(heard.items()):
        whole[part.id] += part.body
    assert list(whole.values()) == bodies
    cost = sum(len(part.body) + PART_COST_BYTES for part in heard.values())
    assert outgoing.allowance.sent == cost
    assert (outgoing.backlog_bytes, outgoing.is_waiting) == (0, False)
