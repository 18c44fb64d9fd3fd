"""Tables and plots of the experiment detection."""

from __future__ import annotations

from typing import Final

from meshwalk.sim.experiment import Cell, Plot, Row, Series, Table
from meshwalk.sim.percentiles import percentile

CALM: Final = "all well"
SLOW: Final = "one in five slow"
LOSSY: Final = "slow, 5 % lost"
CONDITIONS: Final = {CALM: "calm", SLOW: "slow", LOSSY: "lossy"}
"""The conditions, and how they are called in the names of plots."""

VANISHED: Final = "vanished"
SUSPENDED: Final = "suspended"
AT_ONCE: Final = "many at once"

SHIPPED: Final = "as shipped"
NOBODY_ASKED: Final = "nobody is asked"
IDLE_ONLY: Final = "idle time-out only"
MAIN: Final = (SHIPPED, NOBODY_ASKED, IDLE_ONLY)
"""Rules that are compared under each condition; the others are to choose the settings by."""


def tables(rows: list[Row]) -> list[Table]:
    """How long it takes; what is done wrongly; and what it costs."""
    return [_times(rows), _mistakes(rows)]


def _times(rows: list[Row]) -> Table:
    lines: list[list[Cell]] = []
    for row in rows:
        for how in (VANISHED, SUSPENDED, AT_ONCE):
            times = row["dropped"].get(how, [])
            mean = sum(times) / len(times) if times else None
            some = [percentile(times, percent) for percent in (50, 95, 100)]
            missed = row["missed"].get(how, 0)
            lines.append([row["condition"], row["rule"], how, len(times), mean, *some, missed])
    return Table(
        "from its going until a neighbour drops a node, in virtual seconds",
        ["network", "rule", "gone", "links", "mean", "p50", "p95", "longest", "kept"],
        lines,
    )


def _mistakes(rows: list[Row]) -> Table:
    return Table(
        "while all live: suspicions and links given up, and frames",
        [
            "network",
            "rule",
            "link-hours",
            "suspected, a link-hour",
            "vouched for",
            "heard again",
            "given up",
            "given up, a link-hour",
            "answers, a link-hour",
            "pings and pongs, a link and second",
            "all frames, a link and second",
        ],
        [
            [
                row["condition"],
                row["rule"],
                row["link_hours"],
                row["suspicions"].get("suspected", 0) / row["link_hours"],
                row["suspicions"].get("vouched for", 0),
                row["suspicions"].get("heard again", 0),
                row["given_up"],
                row["given_up"] / row["link_hours"],
                _answers(row) / row["link_hours"],
                row["pings"],
                row["frames"],
            ]
            for row in rows
        ],
    )


def _answers(row: Row) -> int:
    return sum(count for what, count in row["suspicions"].items() if what.startswith("answered"))


def plots(rows: list[Row]) -> list[Plot]:
    """How many have dropped a node that vanished, over time, by each of the main rules."""
    found = []
    for condition, name in CONDITIONS.items():
        series = [
            _share_over_time(row["rule"], row["dropped"][VANISHED])
            for row in rows
            if row["condition"] == condition
            and row["rule"] in MAIN
            and row["dropped"].get(VANISHED)
        ]
        if series:
            found.append(
                Plot(
                    f"times-{name}",
                    f"Who has dropped a node that vanished: {condition}",
                    "time after it vanished (s)",
                    "share of its neighbours",
                    series,
                )
            )
    return found


def _share_over_time(label: str, times: list[float]) -> Series:
    """At twenty points: more of them would only hide each other."""
    shares = [number / 20 for number in range(1, 21)]
    at = [percentile(times, 100 * share) or 0.0 for share in shares]
    return Series(label, at, shares)
