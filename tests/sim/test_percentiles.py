"""Percentiles by the nearest rank."""

from __future__ import annotations

from meshwalk.sim.percentiles import percentile


def test_they_are_those_of_the_nearest_rank() -> None:
    values = [float(n) for n in range(1, 11)]
    assert [percentile(values, p) for p in (0, 10, 11, 50, 99, 100)] == [1, 1, 2, 5, 10, 10]
    hundred = [float(n) for n in range(1, 101)]
    assert percentile(hundred, 99) == 99
    assert percentile([], 50) is None
