"""Tables and plots of the experiment spreading."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias

from meshwalk.sim.experiment import Cell, Plot, Row, Series, Style, Table

SHOWN: Final = (1, 2, 3, 5, 10, 20)  # broadcasts, counted from 1
WANTED: Final = 0.999  # of the survivors, by the tenth broadcast: what is asked for

Group: TypeAlias = tuple[int, float, str, str]
"""Nodes, share that fails, how survivors learn of it, how broadcasts spread."""


def grouped(rows: Sequence[Row]) -> dict[Group, list[Row]]:
    """Rows that differ only in their seed, together."""
    found: dict[Group, list[Row]] = {}
    for row in rows:
        group = row["nodes"], row["failing"], row["detector"], row["spreading"]
        found.setdefault(group, []).append(row)
    return found


def mean_at(rows: Sequence[Row], name: str, place: int) -> float | None:
    """The mean of one broadcast over the networks."""
    found = [row[name][place] for row in rows if row[name][place] is not None]
    return sum(found) / len(found) if found else None


def tables(rows: list[Row]) -> list[Table]:
    """Whom broadcasts reach in time and at all, and what repair took."""
    groups = grouped(rows)
    if not groups:
        return []
    return [
        _reach(
            "in_time", "Survivors reached within 10 s (%), by the number of the broadcast", groups
        ),
        _reach("at_all", "Survivors reached a minute later (%)", groups),
        _delays(groups),
        _repair(groups),
    ]


HEADS: Final = ["nodes", "failed (%)", "survivors learn", "by"]


def _heads(group: Group) -> list[Cell]:
    nodes, failing, detector, spreading = group
    return [nodes, 100 * failing, detector, spreading]


def _reach(name: str, title: str, groups: dict[Group, list[Row]]) -> Table:
    lines: list[list[Cell]] = []
    for group, rows in groups.items():
        shown = [100 * (mean_at(rows, name, number - 1) or 0.0) for number in SHOWN]
        least = 100 * min(row[name][9] for row in rows)
        parts = 100 * min(row["largest"][9] for row in rows)
        lines.append([*_heads(group), len(rows), *shown, least, parts])
    columns = [*HEADS, "networks", *(f"no. {number}" for number in SHOWN)]
    columns += ["no. 10, worst network", "largest part then"]
    return Table(title, columns, lines)


def _delays(groups: dict[Group, list[Row]]) -> Table:
    columns = [*HEADS, *(f"half of no. {n} (s)" for n in (1, 5, 10))]
    columns += [f"last of no. {n} (s)" for n in (1, 5, 10)]
    lines: list[list[Cell]] = []
    for group, rows in groups.items():
        halves = [mean_at(rows, "half_s", n - 1) for n in (1, 5, 10)]
        lasts = [mean_at(rows, "last_s", n - 1) for n in (1, 5, 10)]
        lines.append([*_heads(group), *halves, *lasts])
    return Table(
        "From the call to the deliveries: half of those reached, and the last", columns, lines
    )


def _repair(groups: dict[Group, list[Row]]) -> Table:
    kinds = sorted({kind for rows in groups.values() for row in rows for kind in row["counts"]})
    lines: list[list[Cell]] = []
    for group, rows in groups.items():
        survivors = sum(row["survivors"] for row in rows)
        each = [sum(row["counts"].get(kind, 0) for row in rows) / survivors for kind in kinds]
        lines.append([*_heads(group), *each, max(row["parts"] for row in rows)])
    columns = [*HEADS, *kinds, "parts at the end, most"]
    return Table("Counted at each survivor since the failure, twenty broadcasts", columns, lines)


def plots(rows: list[Row]) -> list[Plot]:
    """Reach in time, broadcast by broadcast."""
    groups = grouped(rows)
    if not groups:
        return []
    series, longest = [], 2
    for (nodes, failing, detector, spreading), found in groups.items():
        count = len(found[0]["in_time"])
        longest = max(longest, count)
        ys = [100 * (mean_at(found, "in_time", place) or 0.0) for place in range(count)]
        label = f"{nodes:,}, {failing:.0%} failed, {detector}, {spreading}"
        series.append(Series(label, list(range(1, count + 1)), ys))
    series.append(Series("wanted", [1, longest], [100 * WANTED] * 2, style=Style.DASHED))
    return [
        Plot(
            "reached",
            "Survivors that a broadcast reaches within 10 s of it",
            "broadcast, one a second after the failure",
            "survivors reached (%)",
            series,
            y_from_zero=False,
        )
    ]
