"""Tables and plots of the experiment abuse."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final, TypeAlias

from meshwalk.sim.experiment import Cell, Plot, Row, Series, Style, Table

NOBODY: Final = "nobody"
WANTED: Final = 0.99  # of the deliveries to honest nodes: what is asked for

Group: TypeAlias = tuple[str, float]
"""Abuse and share of abusers."""


def grouped(rows: Sequence[Row]) -> dict[Group, list[Row]]:
    """Rows that differ only in their seed, together."""
    found: dict[Group, list[Row]] = {}
    for row in rows:
        found.setdefault((row["abuse"], row["share"]), []).append(row)
    return found


def _mean(rows: Sequence[Row], name: str) -> float:
    return float(sum(row[name] for row in rows) / len(rows))


def _listed(rows: Sequence[Row], name: str) -> str:
    """Counts by name, the most frequent first, as the mean of the networks."""
    found: Counter[str] = Counter()
    for row in rows:
        found.update(row[name])
    return ", ".join(f"{what} {n / len(rows):,.0f}" for what, n in found.most_common(4))


def tables(rows: list[Row]) -> list[Table]:
    """What honest nodes get, and what becomes of the abusers."""
    groups = grouped(rows)
    if not groups:
        return []
    return [_delivered(groups), _fate(groups), _offences(groups)]


def _delivered(groups: dict[Group, list[Row]]) -> Table:
    columns = ["abuse", "abusers (%)", "networks", "broadcasts", "delivered within 10 s (%)"]
    columns += ["worst network", "worst broadcast", "at all (%)", "p50 (ms)", "p95 (ms)"]
    columns += ["p99 (ms)", "last (ms)", "messages of abusers at each", "parts of the honest"]
    lines: list[list[Cell]] = []
    for (abuse, share), rows in groups.items():
        lines.append(
            [
                abuse,
                100 * share,
                len(rows),
                sum(row["broadcasts"] for row in rows),
                100 * _mean(rows, "in_time"),
                100 * min(row["in_time"] for row in rows),
                100 * min(row["worst"] for row in rows),
                100 * _mean(rows, "at_all"),
                *(sum(row["delay_ms"][p] for row in rows) / len(rows) for p in ("50", "95", "99")),
                max(row["delay_ms"]["100"] for row in rows),
                _mean(rows, "of_abusers"),
                max(row["honest_parts"] for row in rows),
            ]
        )
    return Table("Honest broadcasts at honest nodes", columns, lines)


def _fate(groups: dict[Group, list[Row]]) -> Table:
    columns = ["abuse", "abusers (%)", "links with them before (%)", "after 10 s", "at the end"]
    columns += ["most held against one, mean", "abusers refused", "most held against an honest one"]
    columns += ["honest ones refused", "their links, ended for", "honest links, ended for"]
    lines: list[list[Cell]] = []
    for (abuse, share), rows in groups.items():
        at = [[100 * row["links"][min(p, len(row["links"]) - 1)] for row in rows] for p in (0, 10)]
        end = [100 * row["links"][-1] for row in rows]
        lines.append(
            [
                abuse,
                100 * share,
                *(sum(some) / len(some) for some in (*at, end)),
                _mean(rows, "score_abusers"),
                _mean(rows, "refused_abusers"),
                max(row["score_honest_most"] for row in rows),
                _mean(rows, "refused_honest"),
                _listed(rows, "lost_abusers"),
                _listed(rows, "lost_honest"),
            ]
        )
    return Table("What becomes of the abusers", columns, lines)


def _offences(groups: dict[Group, list[Row]]) -> Table:
    kinds = sorted({kind for rows in groups.values() for row in rows for kind in row["offences"]})
    lines: list[list[Cell]] = [
        [
            abuse,
            100 * share,
            *(sum(row["offences"].get(kind, 0) for row in rows) / len(rows) for kind in kinds),
        ]
        for (abuse, share), rows in groups.items()
    ]
    return Table("Offences that honest nodes counted", ["abuse", "abusers (%)", *kinds], lines)


def plots(rows: list[Row]) -> list[Plot]:
    """Delivery by the share of abusers, and their links over time at the largest share."""
    groups = grouped(rows)
    abuses = list(dict.fromkeys(abuse for abuse, _ in groups if abuse != NOBODY))
    if not abuses:
        return []
    delivered, links = [], []
    most = max(share for _, share in groups)
    for abuse in abuses:
        shares = sorted(share for name, share in groups if name == abuse)
        ys = [100 * _mean(groups[abuse, share], "in_time") for share in shares]
        delivered.append(Series(abuse, [100 * share for share in shares], ys))
        found = groups.get((abuse, most))
        if found:
            looks = min(len(row["links"]) for row in found)
            shown = [100 * sum(row["links"][n] for row in found) / len(found) for n in range(looks)]
            links.append(Series(abuse, list(range(looks)), shown))
    wanted = Series("wanted", [0, 100 * most], [100 * WANTED] * 2, style=Style.DASHED)
    return [
        Plot(
            "delivered",
            "Honest broadcasts that honest nodes get within 10 s",
            "abusers among the nodes (%)",
            "delivered (%)",
            [*delivered, wanted],
            y_from_zero=False,
        ),
        Plot(
            "links",
            f"Links of honest nodes that are with abusers, {most:.0%} of the nodes",
            "time since the abuse began (s)",
            "of their links (%)",
            links,
        ),
    ]
