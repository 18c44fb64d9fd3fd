"""Tables and plots of the experiment eclipse."""

from __future__ import annotations

import math
from typing import Final

from meshwalk.sim.experiment import Cell, Kind, Plot, Row, Series, Table

ALL: Final = "all defences"
ONE_LINK: Final = "all, and one link to a group"
UNBOUND: Final = "no bound of links to a group"
NO_GROUPS: Final = "addresses have no groups"
NO_BUCKETS: Final = "no buckets by group and source"
NO_ANCHORS: Final = "no anchors"
NO_RANDOM: Final = "no random share"
NONE: Final = "none of all these"

SHORT: Final = {
    ALL: "all there",
    ONE_LINK: "stricter",
    UNBOUND: "link bound",
    NO_GROUPS: "groups",
    NO_BUCKETS: "buckets",
    NO_ANCHORS: "anchors",
    NO_RANDOM: "random",
    NONE: "all gone",
}
"""What is missing, as a plot has room for."""

DEVIATIONS: Final = 1.96  # of a normal distribution: an interval of 95 %


def chance(shares: list[float]) -> tuple[float, float, float]:
    """A chance, and the interval that it is in with 95 % certainty (Wilson 1927).

    Each value is the share of one network's restarts that went so. The restarts of one network have
    a book in common, so it is networks that are counted: the interval is rather too wide.
    """
    n, p, z = len(shares), sum(shares) / len(shares), DEVIATIONS
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return p, max(0.0, middle - half), min(1.0, middle + half)


def all_hostile(row: Row, links: str, hostile: str) -> float:
    """The share of a network's restarts after which every link of the victim was hostile."""
    restarts = row["restarts"]
    eclipsed = [one for one in restarts if 0 < one[links] == one[hostile]]
    return len(eclipsed) / len(restarts)


def by_missing(rows: list[Row]) -> dict[str, list[Row]]:
    """The rows of each variant, in their order."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["missing"], []).append(row)
    return found


def tables(rows: list[Row]) -> list[Table]:
    """One line for each variant."""
    return [
        Table(
            "all links hostile, in % of restarts (and the interval of 95 %)",
            [
                "defences",
                "networks",
                "restarts",
                "with the minimum of links",
                "and 2 minutes later",
                "hostile links: first (%)",
                "later (%)",
                "minimum after (s, mean)",
                "verified peers",
                "of them hostile (%)",
                "heard of",
                "of them hostile (%) ",
            ],
            [[missing, *_line(found)] for missing, found in by_missing(rows).items()],
        )
    ]


def _line(rows: list[Row]) -> list[Cell]:
    restarts = [one for row in rows for one in row["restarts"]]
    times = [one["after_s"] for one in restarts if one["after_s"] is not None]
    return [
        len(rows),
        len(restarts),
        _shown(chance([all_hostile(row, "links", "hostile") for row in rows])),
        _shown(chance([all_hostile(row, "later_links", "later_hostile") for row in rows])),
        _share(sum(one["hostile"] for one in restarts), sum(one["links"] for one in restarts)),
        _share(
            sum(one["later_hostile"] for one in restarts),
            sum(one["later_links"] for one in restarts),
        ),
        sum(times) / len(times) if times else None,
        *(
            sum(row[what] for row in rows) / len(rows) * factor
            for what, factor in (
                ("verified", 1.0),
                ("verified_hostile", 100.0),
                ("heard", 1.0),
                ("heard_hostile", 100.0),
            )
        ),
    ]


def _share(part: int, whole: int) -> float | None:
    return 100 * part / whole if whole else None


def _shown(found: tuple[float, float, float]) -> str:
    share, low, high = (round(100 * value) for value in found)
    return f"{share} ({low} to {high})"


def plots(rows: list[Row]) -> list[Plot]:
    """The chance with each variant, right after the restart and later."""
    groups = by_missing(rows)
    if not groups:
        return []
    return [
        Plot(
            "chance",
            "Restarts after which every link of the victim is hostile",
            "what is missing",
            "of restarts (%)",
            [
                _series("with the minimum of links", groups, "links", "hostile"),
                _series("2 minutes later", groups, "later_links", "later_hostile"),
            ],
            kind=Kind.BARS,
        )
    ]


def _series(label: str, groups: dict[str, list[Row]], links: str, hostile: str) -> Series:
    found = [chance([all_hostile(row, links, hostile) for row in rows]) for rows in groups.values()]
    shares, lows, highs = ([100 * one[at] for one in found] for at in range(3))
    return Series(label, [SHORT[missing] for missing in groups], shares, lows, highs)
