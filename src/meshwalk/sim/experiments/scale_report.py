"""Tables and plots of the experiment scale."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

from meshwalk.sim.experiment import Cell, Plot, Row, Series, Style, Table

ONE: Final = "one entry"  # how nodes join
ANY: Final = "any member"


def tables(rows: list[Row]) -> list[Table]:
    """What the network is like, what joining and a broadcast take, and what the simulation does."""
    return [
        Table(
            "the network, settled",
            [
                "nodes",
                "joined through",
                "links: least",
                "mean",
                "most",
                "of the first node",
                "below the minimum",
                "parts",
                "mean path (hops)",
                "ln n / ln (links - 1)",
                "clustering",
            ],
            [
                [
                    *_head(row),
                    row["links_least"],
                    row["links"],
                    row["links_most"],
                    row["entry_links"],
                    row["without_minimum"],
                    row["parts"],
                    row["mean_path"],
                    expected_path(row["nodes"], row["links"]),
                    row["clustering"],
                ]
                for row in rows
            ],
        ),
        Table(
            "joining, in virtual seconds, and one broadcast",
            [
                "nodes",
                "joined through",
                "all have joined after (s)",
                "first link: median (s)",
                "99 % (s)",
                "minimum of links: median (s)",
                "99 % (s)",
                "reached",
                "last hop (LDH)",
                "last after (s)",
                "redundancy (RMR)",
                "of a plain flood",
            ],
            [
                [
                    *_head(row),
                    row["joined_s"],
                    *row["first_link_s"][:2],
                    *row["enough_links_s"][:2],
                    row["reached"],
                    row["last_hop"],
                    row["last_s"],
                    row["redundancy"],
                    row["flood_redundancy"],
                ]
                for row in rows
            ],
        ),
        Table(
            "what it costs to simulate",
            [
                "nodes",
                "joined through",
                "pings every (s)",
                "events",
                "events while joining, each node",
                "run (s)",
                "events/s",
                "peak memory (MiB)",
                "each node (KiB)",
            ],
            [
                [
                    *_head(row),
                    row["ping_interval_s"],
                    row["events"],
                    row["joining_events"] / row["nodes"],
                    row.get("run_s"),
                    row["events"] / row["run_s"] if row.get("run_s") else None,
                    row.get("peak_mib"),
                    row.get("kib_per_node"),
                ]
                for row in rows
            ],
        ),
    ]


def _head(row: Row) -> list[Cell]:
    return [row["nodes"], row["entry"]]


def expected_path(nodes: int, links: float) -> float | None:
    """The mean distance in a random graph in which each node has so many links, roughly: the nodes
    at a distance multiply by links - 1 with each hop (Newman, Strogatz, Watts, Phys. Rev. E 64,
    2001, equation 53, with z2/z1 = links - 1, less what is the same for all sizes)."""
    return math.log(nodes) / math.log(links - 1) if links > 2 else None


def plots(rows: list[Row]) -> list[Plot]:
    """Links, distances and hops, costs; each over the number of nodes."""
    if len({row["nodes"] for row in rows}) < 2:
        return []
    measured: list[tuple[str, str, str, list[tuple[str, Callable[[Row], float | None]]], bool]] = [
        (
            "links",
            "Links stay the same from a hundred nodes up",
            "links of a node",
            [
                ("most", lambda row: row["links_most"]),
                ("mean", lambda row: row["links"]),
                ("least", lambda row: row["links_least"]),
                ("of the first node", lambda row: row["entry_links"]),
            ],
            False,
        ),
        (
            "distances",
            "Distances grow with the logarithm of the size",
            "hops",
            [
                ("last hop of a broadcast", lambda row: row["last_hop"]),
                ("mean shortest path", lambda row: row["mean_path"]),
            ],
            False,
        ),
        (
            "joining",
            "Time that a newcomer needs, 83 joining each second",
            "virtual time (s)",
            [
                ("minimum of links, 99 %", lambda row: row["enough_links_s"][1]),
                ("minimum of links, median", lambda row: row["enough_links_s"][0]),
                ("first link, median", lambda row: row["first_link_s"][0]),
            ],
            False,
        ),
        (
            "run-time",
            "Time to simulate joining and settling",
            "run time (s)",
            [("measured", lambda row: row.get("run_s"))],
            True,
        ),
        (
            "memory",
            "Peak memory of the process",
            "memory (MiB)",
            [("measured", lambda row: row.get("peak_mib"))],
            True,
        ),
    ]
    drawn = []
    for name, title, y_label, wanted, y_log in measured:
        series = [s for label, value in wanted for s in _lines(rows, label, value)]
        if series:
            drawn.append(Plot(name, title, "nodes", y_label, series, x_log=True, y_log=y_log))
    return drawn


def _lines(rows: Sequence[Row], label: str, value: Callable[[Row], float | None]) -> list[Series]:
    """One line over sizes for each way of joining, with the range over seeds."""
    found = []
    for entry, added in ((ONE, ""), (ANY, f", through {ANY}")):
        by_nodes: dict[int, list[float]] = {}
        for row in rows:
            if row["entry"] == entry and (measured := value(row)) is not None:
                by_nodes.setdefault(row["nodes"], []).append(measured)
        if not by_nodes:
            continue
        sizes = sorted(by_nodes)
        means = [sum(by_nodes[nodes]) / len(by_nodes[nodes]) for nodes in sizes]
        found.append(
            Series(
                label + added,
                sizes,
                means,
                [min(by_nodes[nodes]) for nodes in sizes],
                [max(by_nodes[nodes]) for nodes in sizes],
                style=Style.LINE if len(sizes) > 1 else Style.POINTS,
            )
        )
    return found
