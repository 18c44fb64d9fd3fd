"""What is kept for those who missed it: the newest, within its bounds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from meshwalk.config import HistoryConfig
from meshwalk.proto.broadcast.history import History, Id
from meshwalk.wire.gossip import RANGES_MAX, pairs_of
from meshwalk.wire.messages import HOPS_MAX

from .scene import held_of


def id_of(number: int, origin: int = 1, epoch: int = 1) -> Id:
    return bytes([origin]) * 32, epoch, number


@given(st.lists(st.tuples(st.integers(0, 60), st.floats(0, 5)), max_size=80))
def test_the_newest_are_kept_as_far_as_there_is_room(sizes: list[tuple[int, float]]) -> None:
    config = HistoryConfig(count_max=6, bytes_max=100, age_s=8.0)
    history, plain, now = History(config), list[tuple[Id, int, float]](), 0.0
    for number, (size, later) in enumerate(sizes, 1):
        now += later
        history.hold(id_of(number), held_of(size, now))
        plain.append((id_of(number), size, now))
        while (
            len(plain) > 6
            or (sum(size for _, size, _ in plain) > 100 and len(plain) > 1)
            or plain[0][2] < now - 8.0
        ):
            plain.pop(0)
        assert [id for id, _ in history.since(0)] == [id for id, _, _ in plain]
        assert history.bytes == sum(size for _, size, _ in plain)
        assert len(history) == len(plain)
        assert all(history.get(id) is not None for id, _, _ in plain)


def test_one_that_is_larger_than_all_room_is_kept_alone() -> None:
    history = History(HistoryConfig(bytes_max=10))
    history.hold(id_of(1), held_of(5))
    history.hold(id_of(2), held_of(50))
    assert [id for id, _ in history.since(0)] == [id_of(2)]


def test_the_same_one_twice_is_one() -> None:
    """A store may give what the network has brought meanwhile."""
    history = History(HistoryConfig(count_max=2))
    for number in (1, 1, 2, 3):
        history.hold(id_of(number), held_of(10))
    assert [id[2] for id, _ in history.since(0)] == [2, 3]
    assert history.bytes == 20


def test_what_was_sent_since_then() -> None:
    history = History(HistoryConfig())
    for number in range(1, 6):
        history.hold(id_of(number), held_of(sent_at_ms=100 * number))
    assert [id[2] for id, _ in history.since(300)] == [3, 4, 5]
    assert list(history.told_since(501)) == []


def test_it_is_told_by_origin_in_ranges_of_a_bounded_number() -> None:
    history = History(HistoryConfig())
    for number in range(1, 4 * RANGES_MAX, 2):
        history.hold(id_of(number), held_of())
    for number in (7, 8, 9):
        history.hold(id_of(number, origin=2), held_of())
    told = list(history.told_since(0))
    assert all(len(held.ranges) <= 2 * RANGES_MAX for held in told)
    found = {
        (held.origin, number)
        for held in told
        for first, last in pairs_of(held.ranges)
        for number in range(first, last + 1)
    }
    assert found == {(id[0], id[2]) for id, _ in history.since(0)}
    assert told[-1].ranges == [7, 9]
    assert told[-1].hops == 1


def test_what_is_told_of_may_be_gone_already() -> None:
    held = History(HistoryConfig()).told(b"k" * 32, 1, [3, 3])
    assert held.hops == HOPS_MAX, "no way that anybody would choose"
