"""Timers against a plain dictionary of deadlines."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from meshwalk.proto.timers import Key, Timers

keys = st.integers(0, 5).map(lambda n: ("m", n))
steps = st.lists(
    st.one_of(
        st.tuples(st.just("set"), keys, st.integers(0, 50)),
        st.tuples(st.just("cancel"), keys, st.just(0)),
        st.tuples(st.just("due"), keys, st.integers(0, 60)),
    ),
    max_size=200,
)


@given(steps)
def test_behaves_as_a_dictionary(steps: list[tuple[str, Key, int]]) -> None:
    timers, model = Timers(), dict[Key, int]()
    for what, key, at in steps:
        if what == "set":
            timers.set(key, at)
            model[key] = at
        elif what == "cancel":
            timers.cancel(key)
            model.pop(key, None)
        else:
            due = list(timers.due(at))
            expected = {k for k, when in model.items() if when <= at}
            assert set(due) == expected
            times = [model[k] for k in due]
            assert [model.pop(k) for k in due] == sorted(times)
        assert len(timers) == len(model)
        assert timers.next() == min(model.values(), default=None)


def test_earliest_first_and_in_order_of_setting() -> None:
    timers = Timers()
    timers.set(("m", "late"), 2.0)
    timers.set(("m", "a"), 1.0)
    timers.set(("m", "b"), 1.0)
    assert [what for _, what in timers.due(5.0)] == ["a", "b", "late"]
    assert timers.next() is None


def test_memory_follows_the_number_of_keys() -> None:
    timers = Timers()
    for at in range(10_000):
        timers.set(("m", 1), at)
    assert len(timers._heap) <= 65
