"""Tables and plots of the experiment closer."""

from __future__ import annotations

from meshwalk.sim.experiment import Cell, Plot, Row, Series, Table


def label_of(row: Row) -> str:
    """What sets a case apart from others of the same size and seed."""
    if not row["trades"]:
        return "no trading"
    return f"trading, {row['randoms_least']} random links kept"


def tables(rows: list[Row]) -> list[Table]:
    """Round trips, links, and what stays in one part after failures."""
    return [_trips(rows), _links(rows), _failures(rows)]


def _trips(rows: list[Row]) -> Table:
    lines: list[list[Cell]] = []
    for row in rows:
        for when, look in (("before", row["looks"][0]), ("after", row["looks"][-1])):
            lines.append(
                [
                    *_head(row),
                    when,
                    look["mean_ms"],
                    look["p50_ms"],
                    look["p95_ms"],
                    100 * look["within"],
                    look["traded"],
                ]
            )
    return Table(
        "round trips of links (ms), before anything is traded and at the end",
        ["network", "nodes", "seed", "when", "mean", "p50", "p95", "within a region (%)", "trades"],
        lines,
    )


def _links(rows: list[Row]) -> Table:
    lines: list[list[Cell]] = []
    for row in rows:
        last, looks = row["looks"][-1], row["looks"]
        lines.append(
            [
                *_head(row),
                last["links_least"],
                last["links"],
                last["links_most"],
                last["randoms_least"],
                last["randoms"],
                max(look["below_minimum"] for look in looks),
                max(look["below_randoms"] for look in looks),
                max(look["parts"] for look in looks),
                row["mean_path"],
                row["clustering"],
            ]
        )
    return Table(
        "links at the end; and at any look, the most nodes that lacked some",
        [
            "network",
            "nodes",
            "seed",
            "least",
            "mean",
            "most",
            "random: least",
            "random: mean",
            "below the minimum",
            "below the random share",
            "parts",
            "mean path (hops)",
            "clustering",
        ],
        lines,
    )


def _failures(rows: list[Row]) -> Table:
    lines: list[list[Cell]] = []
    for row in rows:
        repaired = {one["failed"]: one["later"] for one in row["repaired"]}
        for share, mean, least, _ in row["unrepaired"]:
            later = repaired.get(share)
            lines.append(
                [
                    *_head(row),
                    f"{share:.0%}",
                    100 * mean,
                    100 * least,
                    100 * later["in_reach"] if later else None,
                    later["parts"] if later else None,
                    100 * later["linked"] if later else None,
                ]
            )
    return Table(
        "survivors in the largest part right after a failure (%), and a minute of repair later",
        [
            "network",
            "nodes",
            "seed",
            "failed",
            "mean",
            "least",
            "later: in reach of a broadcast",
            "later: parts",
            "later: with all their links",
        ],
        lines,
    )


def _head(row: Row) -> list[Cell]:
    return [label_of(row), row["nodes"], row["seed"]]


def plots(rows: list[Row]) -> list[Plot]:
    """Round trips over time, and what stays in one part, of the first network of each kind."""
    if not rows:
        return []
    nodes = max(row["nodes"] for row in rows)
    first = {label_of(row): row for row in reversed(rows) if row["nodes"] == nodes}
    first = dict(reversed(first.items()))
    return [
        Plot(
            "round-trips",
            f"Round trips of links, {nodes:,} nodes in six regions",
            "time (min)",
            "mean round trip (ms)",
            [
                Series(
                    label,
                    [look["at_s"] / 60 for look in row["looks"]],
                    [look["mean_ms"] for look in row["looks"]],
                )
                for label, row in first.items()
            ],
        ),
        Plot(
            "after-failures",
            f"Largest part right after a failure, {nodes:,} nodes",
            "share of nodes that failed",
            "share of the survivors",
            [
                Series(
                    label,
                    [share for share, *_ in row["unrepaired"]],
                    [mean for _, mean, *_ in row["unrepaired"]],
                    [least for *_, least, _ in row["unrepaired"]],
                    [most for *_, most in row["unrepaired"]],
                )
                for label, row in first.items()
            ],
        ),
    ]
