"""Order statistics, by one definition for all experiments."""

from __future__ import annotations

from collections.abc import Sequence


def percentile(ordered: Sequence[float], percent: float) -> float | None:
    """The least value that so many per cent of all do not exceed (nearest rank); None of nothing.

    `ordered` must be sorted.
    """
    if not ordered:
        return None
    return ordered[max(0, -int(-len(ordered) * percent // 100) - 1)]
