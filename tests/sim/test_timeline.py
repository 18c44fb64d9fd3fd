"""The timeline gives what one heap would give: by time, and among equals by who was added first."""

from __future__ import annotations

import heapq
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from meshwalk.sim.timeline import SLOTS_PER_S, Timeline

# Times that fall on the borders of slots, at the same moment, close together, and far apart.
delays = st.one_of(
    st.sampled_from([0.0, 1 / SLOTS_PER_S, 2 / SLOTS_PER_S, 1.0, 3600.0]),
    st.floats(0.0, 3 / SLOTS_PER_S),
    st.floats(0.0, 100.0),
)
operations = st.lists(st.tuples(st.sampled_from(["add", "run"]), delays), max_size=60)


class PlainHeap:
    """The same, as everybody would write it."""

    def __init__(self) -> None:
        self.heap: list[tuple[float, int]] = []

    def add(self, at: float, name: int) -> None:
        heapq.heappush(self.heap, (at, name))  # names count up, as a sequence would


def nothing(_: Any) -> None:
    pass


@given(operations, st.lists(delays, max_size=20))
def test_as_a_plain_heap(script: list[tuple[str, float]], follow_ups: list[float]) -> None:
    """Events are added between runs and, as most are, by events that happen."""
    timeline, heap = Timeline(), PlainHeap()
    now, name = 0.0, 0
    follow_ups = list(follow_ups)

    def add(at: float) -> None:
        nonlocal name
        name += 1
        timeline.add(at, nothing, name)
        heap.add(at, name)

    for what, delay in script:
        if what == "add":
            add(now + delay)
            continue
        until = now + delay
        for now, action, argument in timeline.due(until):
            assert action is nothing
            assert (now, argument) == heapq.heappop(heap.heap)
            assert now <= until
            if follow_ups:
                add(now + follow_ups.pop())
        assert not heap.heap or heap.heap[0][0] > until
        assert timeline.pending == len(heap.heap)
        now = until


def test_a_run_that_is_broken_off_goes_on_where_it_was() -> None:
    timeline = Timeline()
    for number in range(6):
        timeline.add(1.0 + number // 2, nothing, number)
    for _, _, argument in timeline.due(10.0):
        if argument == 2:
            break
    assert timeline.pending == 3
    timeline.add(2.0, nothing, 6)
    assert [argument for _, _, argument in timeline.due(10.0)] == [3, 6, 4, 5]
    assert timeline.pending == 0
