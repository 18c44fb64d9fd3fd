"""Tables and plots of the experiment churn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from meshwalk.sim.experiment import Cell, Plot, Row, Series, Table

ONE: Final = "one entry that stays"  # whom newcomers join through
ANY: Final = "any member"
SETTLED_S: Final = 120.0  # guess: looks before that show how churn begins, not what it is like


def label_of(row: Row) -> str:
    """What sets a case apart from others of the same size."""
    through = "" if row["entry"] == ANY else ", one entry"
    return f"{row['share']:.0%}/min, {row['leaving']}{through}"


def later(row: Row) -> list[dict[str, Any]]:
    """The looks once churn has been under way for two minutes; all, where there are no more."""
    looks: list[dict[str, Any]] = row["looks"]
    return [look for look in looks if look["at_s"] >= SETTLED_S] or looks


def mean_of(looks: Sequence[dict[str, Any]], what: str) -> float:
    """The mean of one measure over looks or broadcasts."""
    return float(sum(look[what] for look in looks)) / len(looks)


def tables(rows: list[Row]) -> list[Table]:
    """Broadcasts, links, newcomers and address books; one line for each case."""
    head = ["nodes", "leaving, and joining through", "seed"]
    return [
        Table(
            "broadcasts, one a minute, to those who had a link and stayed",
            [
                *head,
                "minutes",
                "left",
                "reliability: mean",
                "least",
                "missed",
                "of them newcomers",
                "with all reached",
            ],
            [
                [*_head(row), row["minutes"], sum(row["left"].values()), *_heard(row)]
                for row in rows
            ],
        ),
        Table(
            "links, after the first two minutes",
            [
                *head,
                "mean",
                "least",
                "most",
                "with the dead (%)",
                "below minimum (%)",
                "of those 30 s old (%)",
                "30 s old, no link",
                "whole, but for newcomers (% of looks)",
                "parts of two or more: most",
            ],
            [[*_head(row), *_links(row)] for row in rows],
        ),
        Table(
            "newcomers, in seconds from joining; and address books at the end",
            [
                *head,
                "newcomers",
                "first link: median",
                "99 %",
                "minimum of links: median",
                "99 %",
                "never linked",
                "of them still there",
                "known peers",
                "of them gone (%)",
            ],
            [[*_head(row), *_newcomers(row)] for row in rows],
        ),
    ]


def _head(row: Row) -> list[Cell]:
    return [row["nodes"], label_of(row), row["seed"]]


def _heard(row: Row) -> list[Cell]:
    found = row["broadcasts"]
    return [
        mean_of(found, "reliability"),
        min(one["reliability"] for one in found),
        sum(one["missed"] for one in found),
        sum(one["missed_new"] for one in found),
        sum(not one["missed"] for one in found),
    ]


def _links(row: Row) -> list[Cell]:
    looks = later(row)
    return [
        mean_of(looks, "links"),
        min(look["links_least"] for look in looks),
        max(look["links_most"] for look in looks),
        100 * mean_of(looks, "dead_links"),
        100 * mean_of(looks, "below_minimum"),
        100 * mean_of(looks, "old_below_minimum"),
        max(look["old_without_link"] for look in looks),
        100 * sum(_is_whole(look) for look in looks) / len(looks),
        max(look["linked_parts"] for look in looks),
    ]


def _is_whole(look: dict[str, Any]) -> bool:
    """Whether there is one part, with everybody in it who has been there for half a minute."""
    return bool(look["linked_parts"] == 1 and look["old_without_link"] == 0)


def _newcomers(row: Row) -> list[Cell]:
    last = row["looks"][-1]
    return [
        row["newcomers"],
        *row["first_link_s"][:2],
        *row["enough_links_s"][:2],
        row["never_linked"],
        row["staying_never_linked"],
        last["book"],
        100 * last["stale"],
    ]


def plots(rows: list[Row]) -> list[Plot]:
    """Broadcasts, links, parts and address books over time, of the largest network."""
    if not rows:
        return []
    nodes = max(row["nodes"] for row in rows)
    first: dict[str, Row] = {}
    for row in rows:
        if row["nodes"] == nodes:
            first.setdefault(label_of(row), row)
    return [
        Plot(
            "reliability",
            f"Broadcasts of each minute, {nodes:,} nodes",
            "time (min)",
            "reached, of those who stayed (%)",
            [
                Series(
                    label,
                    list(range(len(row["broadcasts"]))),
                    [100 * one["reliability"] for one in row["broadcasts"]],
                )
                for label, row in first.items()
            ],
            y_from_zero=False,
        ),
        *(
            Plot(
                name,
                f"{title}, {nodes:,} nodes",
                "time (min)",
                y_label,
                [_over_time(label, row, what, factor) for label, row in first.items()],
            )
            for name, title, y_label, what, factor in (
                ("links", "Links between nodes that are there", "mean links", "links", 1.0),
                (
                    "below-minimum",
                    "Nodes of 30 seconds and more with too few links",
                    "below the minimum (%)",
                    "old_below_minimum",
                    100.0,
                ),
                ("parts", "Parts of two nodes or more", "parts", "linked_parts", 1.0),
                (
                    "stale",
                    "Known peers that are gone",
                    "of the address books (%)",
                    "stale",
                    100.0,
                ),
            )
        ),
    ]


def _over_time(label: str, row: Row, what: str, factor: float) -> Series:
    """One point a minute: the mean of its looks."""
    by_minute: dict[int, list[float]] = {}
    for look in row["looks"]:
        by_minute.setdefault(int(look["at_s"] // 60), []).append(factor * look[what])
    means = [sum(values) / len(values) for values in by_minute.values()]
    return Series(label, list(by_minute), means)
