"""Tables and plots of the experiment healing."""

from __future__ import annotations

from typing import Final

from meshwalk.sim.experiment import Cell, Kind, Plot, Row, Series, Table

PLAIN: Final = "plain"
WHEN: Final = ("before", "apart", "after")


def label_of(row: Row) -> str:
    """What sets a case apart from the others."""
    if row["parts"] == 1:
        return f"{row['nodes']:,} nodes, not cut"
    minutes = row["cut_s"] / 60
    cut = f"{minutes / 60:.0f} h" if minutes >= 120 else f"{minutes:.0f} min"
    churn = f", {row['share']:.1%}/min" if row["share"] else ""
    what = f", {row['what']}" if row["what"] != PLAIN else ""
    return f"{row['nodes']:,} in {row['parts']} parts, {cut}{churn}{what}"


def tables(rows: list[Row]) -> list[Table]:
    """How quickly, at what cost, and how well each part knew its size; one line for each case."""
    kinds = list(rows[0]["frames"]) if rows else []
    return [
        Table(
            "from the end of the cut; links that ended: between two who stayed, in two minutes",
            [
                "case",
                "seed",
                "there since the beginning",
                "full when cut (%)",
                "parts when cut",
                "one part after (s)",
                "one leader after (s)",
                "ends that healed",
                "links between the parts",
                "links that ended, and why",
            ],
            [
                [
                    label_of(row),
                    row["seed"],
                    f"{row['staying']} of {row['members']}",
                    100 * row["full"],
                    row["parts_when_cut"],
                    row["healed_s"],
                    row["agreed_s"],
                    row["healings"],
                    row["bridges"],
                    ", ".join(f"{count} {why}" for why, count in row["dropped"].items()) or "none",
                ]
                for row in rows
            ],
        ),
        Table(
            "messages a node and minute, in the two minutes after the cut",
            ["case", "seed", *kinds, "of the overlay in all"],
            [
                [label_of(row), row["seed"], *row["frames"].values(), row["overlay_frames"]]
                for row in rows
            ],
        ),
        Table(
            "size of its part as a node takes it, by the truth: 5 %, median, 95 % of all nodes",
            ["case", "seed", "before the cut", "at its end", "five minutes later"],
            [[label_of(row), row["seed"], *(_shares(row, when) for when in WHEN)] for row in rows],
        ),
    ]


def _shares(row: Row, when: str) -> Cell:
    return ", ".join(f"{share:.2f}" for share in row["sizes"][when])


def plots(rows: list[Row]) -> list[Plot]:
    """How the largest part grows, and what it costs."""
    cut = [row for row in rows if row["parts"] > 1]
    if not cut:
        return []
    whole = [row for row in rows if row["parts"] == 1]
    return [
        Plot(
            "largest",
            "The largest part once the cut has ended",
            "time (s)",
            "of all nodes (%)",
            [_over_time(row) for row in cut],
            x_log=True,
        ),
        Plot(
            "messages",
            "Messages in the two minutes after the cut",
            "",
            "a node and minute",
            [
                Series(label_of(row), list(row["frames"]), list(row["frames"].values()))
                for row in [*whole, *(c for c in cut if c["nodes"] in {w["nodes"] for w in whole})]
            ],
            kind=Kind.BARS,
        ),
    ]


def _over_time(row: Row) -> Series:
    looks = row["looks"]
    largest = [100 * look["largest"] for look in looks]
    return Series(label_of(row), [look["at_s"] for look in looks], largest)
