"""Credit that conversations share: the sum is kept, and everybody has a floor of his own."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from meshwalk.proto.dispatch.sharedcredit import SharedCredit
from meshwalk.wire.frames import FLOOR_BYTES


def test_the_floor_is_not_shared() -> None:
    shared = SharedCredit(0)
    assert shared.room(0) == FLOOR_BYTES
    assert shared.take(0, FLOOR_BYTES)
    assert shared.used == 0
    assert not shared.take(FLOOR_BYTES, 1)
    assert shared.room(FLOOR_BYTES) == 0


def test_what_lies_beyond_the_floors_is() -> None:
    shared = SharedCredit(100)
    assert shared.take(0, FLOOR_BYTES + 60)
    assert shared.is_scarce
    assert shared.room(0) == FLOOR_BYTES + 40
    assert not shared.take(0, FLOOR_BYTES + 41)
    assert shared.take(0, FLOOR_BYTES + 40)
    shared.change(FLOOR_BYTES + 60, FLOOR_BYTES)
    assert (shared.used, shared.is_scarce) == (40, False)


SIZES = st.integers(1, 3 * FLOOR_BYTES)
STEPS = st.lists(st.tuples(st.integers(0, 4), st.booleans(), SIZES))


@given(STEPS, st.integers(0, 5 * FLOOR_BYTES))
def test_the_sum_is_that_of_the_parts(steps: list[tuple[int, bool, int]], limit: int) -> None:
    shared, outstanding = SharedCredit(limit), [0] * 5
    for which, is_more, size in steps:
        before = outstanding[which]
        if is_more:
            room = shared.room(before)
            assert shared.take(before, size) is (size <= room)
            if size <= room:
                outstanding[which] += size
        else:
            outstanding[which] = max(before - size, 0)
            shared.change(before, outstanding[which])
        assert shared.used == sum(max(n - FLOOR_BYTES, 0) for n in outstanding)
        assert 0 <= shared.used <= limit
        assert sum(outstanding) <= limit + FLOOR_BYTES * 5
    for n in outstanding:
        shared.change(n, 0)
    assert shared.used == 0


@given(STEPS)
def test_a_receiver_that_hears_late_never_finds_the_sender_wrong(
    steps: list[tuple[int, bool, int]],
) -> None:
    """What arrives was counted by its sender before; what was taken is, later."""
    limit = 2 * FLOOR_BYTES
    sender, receiver = SharedCredit(limit), SharedCredit(limit)
    sent, received = [0] * 5, [0] * 5
    for which, is_more, size in steps:
        if is_more:
            if sender.take(sent[which], size):
                sent[which] += size
            arrived = sent[which] - received[which]
            half = arrived // 2
            assert receiver.take(received[which], half)
            received[which] += half
        else:
            taken = min(size, received[which])
            receiver.change(received[which], received[which] - taken)
            received[which] -= taken
            sender.change(sent[which], sent[which] - taken)
            sent[which] -= taken
    for which in range(5):
        assert receiver.take(received[which], sent[which] - received[which])
    assert receiver.used == sender.used
