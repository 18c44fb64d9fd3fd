"""Tables and plots of the experiment privacy."""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

from meshwalk.sim.experiment import Cell, Plot, Row, Series, Style, Table

DEVIATIONS: Final = 1.96  # of a normal distribution: an interval of 95 %


class Guess(enum.StrEnum):
    """How spies guess."""

    FIRST = "first spy"
    WAYS = "all ways"


Group: TypeAlias = tuple[int, str]
"""Nodes and mode."""


def grouped(rows: Sequence[Row]) -> dict[Group, list[Row]]:
    """Rows that differ only in their seed, together."""
    found: dict[Group, list[Row]] = {}
    for row in rows:
        found.setdefault((row["nodes"], row["mode"]), []).append(row)
    return found


def chance(right: int, of: int) -> tuple[float, float, float]:
    """A chance, and the interval that it is in with 95 % certainty (Wilson 1927)."""
    p, z = right / of, DEVIATIONS
    middle = (p + z * z / (2 * of)) / (1 + z * z / of)
    half = z * math.sqrt(p * (1 - p) / of + z * z / (4 * of * of)) / (1 + z * z / of)
    return p, max(0.0, middle - half), min(1.0, middle + half)


def by_share(rows: Sequence[Row]) -> dict[float, list[tuple[Row, dict[str, Any]]]]:
    """The guesses of each share of spies, with their rows."""
    found: dict[float, list[tuple[Row, dict[str, Any]]]] = {}
    for row in rows:
        for guesses in row["guesses"]:
            found.setdefault(guesses["share"], []).append((row, guesses))
    return found


def chance_of(found: Sequence[tuple[Row, dict[str, Any]]], name: str) -> tuple[float, float, float]:
    """How often a guess was right, over several networks. Each origin draws its first hop by
    itself, so it is broadcasts that are counted."""
    right = sum(guesses["right"][name] for _, guesses in found)
    return chance(right, sum(row["broadcasts"] for row, _ in found))


# Tables.


def tables(rows: list[Row]) -> list[Table]:
    """How often spies are right, and what hiding costs."""
    groups = grouped(rows)
    if not groups:
        return []
    return [_chances(groups), _times(groups)]


def _chances(groups: dict[Group, list[Row]]) -> Table:
    columns = ["nodes", "private broadcasts", "spies (%)", "broadcasts", "a spy had the stem (%)"]
    for guess in Guess:
        columns += [f"{guess}: right (%)", f"{guess}: precision (%)"]
    lines: list[list[Cell]] = []
    for (nodes, mode), rows in groups.items():
        for share, found in by_share(rows).items():
            broadcasts = sum(row["broadcasts"] for row, _ in found)
            saw = sum(guesses["saw_stem"] for _, guesses in found)
            line: list[Cell] = [nodes, mode, 100 * share, broadcasts, 100 * saw / broadcasts]
            for guess in Guess:
                mean = sum(guesses["precision"][guess] for _, guesses in found) / len(found)
                line += [_shown(chance_of(found, guess)), 100 * mean]
            lines.append(line)
    return Table("How often spies name the origin (and the interval of 95 %)", columns, lines)


def _shown(found: tuple[float, float, float]) -> str:
    share, low, high = (100 * value for value in found)
    return f"{share:.1f} ({low:.1f} to {high:.1f})"


def _times(groups: dict[Group, list[Row]]) -> Table:
    columns = ["nodes", "private broadcasts", "hops of the stem, mean", "most"]
    columns += ["first delivery, median (ms)", "p50 (ms)", "p95 (ms)", "p99 (ms)"]
    columns += ["last delivery, median (ms)", "most (ms)", "embargoes that ended", "missed"]
    lines: list[list[Cell]] = []
    for (nodes, mode), rows in groups.items():
        count = len(rows)
        lines.append(
            [
                nodes,
                mode,
                sum(row["stem_hops_mean"] for row in rows) / count,
                max(row["stem_hops_max"] for row in rows),
                sum(row["first_ms"] for row in rows) / count,
                *(sum(row["delay_ms"][p] for row in rows) / count for p in ("50", "95", "99")),
                sum(row["last_ms"]["50"] for row in rows) / count,
                max(row["last_ms"]["100"] for row in rows),
                sum(row["embargoes_ended"] for row in rows),
                sum(row["missed"] for row in rows),
            ]
        )
    return Table("What hiding costs, from the call to the deliveries", columns, lines)


# Plots.


def plots(rows: list[Row]) -> list[Plot]:
    """The chance by the share of spies, one picture for each number of nodes."""
    groups = grouped(rows)
    found = []
    for nodes in dict.fromkeys(nodes for nodes, _ in groups):
        series = []
        for (count, mode), some in groups.items():
            if count != nodes:
                continue
            for guess in Guess:
                chances = {s: chance_of(pairs, guess) for s, pairs in by_share(some).items()}
                xs = [100 * share for share in chances]
                ys, low, high = ([100 * one[at] for one in chances.values()] for at in range(3))
                series.append(Series(f"{mode}, {guess}", xs, ys, low, high))
        series.append(Series("as many as there are spies", [0, 30], [0, 30], style=Style.DASHED))
        found.append(
            Plot(
                f"named-{nodes}",
                f"Private broadcasts whose origin spies name, of {nodes:,} nodes",
                "spies among the nodes (%)",
                "named rightly (%)",
                series,
            )
        )
    return found
