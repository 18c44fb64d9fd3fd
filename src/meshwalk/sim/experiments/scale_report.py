"""Tables and plots of the experiment scale."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from meshwalk.sim.experiment import Plot, Row, Series, Table

ONE: Final = "one entry"  # how nodes join
ANY: Final = "any member"


Measure: TypeAlias = Callable[[Row], float | None]

# Each column of a table: its heading, and what stands in it.
NETWORK: Final[dict[str, Measure]] = {
    "links: least": lambda row: row["links_least"],
    "mean": lambda row: row["links"],
    "most": lambda row: row["links_most"],
    "of the first node": lambda row: row["entry_links"],
    "below the minimum": lambda row: row["without_minimum"],
    "parts": lambda row: row["parts"],
    "mean path (hops)": lambda row: row["mean_path"],
    "ln n / ln (links - 1)": lambda row: expected_path(row["nodes"], row["links"]),
    "clustering": lambda row: row["clustering"],
}
JOINING: Final[dict[str, Measure]] = {
    "all have joined after (s)": lambda row: row["joined_s"],
    "first link: median (s)": lambda row: row["first_link_s"][0],
    "first link: 99 % (s)": lambda row: row["first_link_s"][1],
    "minimum of links: median (s)": lambda row: row["enough_links_s"][0],
    "minimum of links: 99 % (s)": lambda row: row["enough_links_s"][1],
    "reached": lambda row: row["reached"],
    "last hop (LDH)": lambda row: row["last_hop"],
    "last after (s)": lambda row: row["last_s"],
    "redundancy (RMR)": lambda row: row["redundancy"],
    "of a plain flood": lambda row: row["flood_redundancy"],
}
COST: Final[dict[str, Measure]] = {
    "pings every (s)": lambda row: row["ping_interval_s"],
    "events": lambda row: row["events"],
    "events while joining, each node": lambda row: row["joining_events"] / row["nodes"],
    "run (s)": lambda row: row.get("run_s"),
    "events/s": lambda row: row["events"] / row["run_s"] if row.get("run_s") else None,
    "peak memory (MiB)": lambda row: row.get("peak_mib"),
    "each node (KiB)": lambda row: row.get("kib_per_node"),
}


def tables(rows: list[Row]) -> list[Table]:
    """What the network is like, what joining and a broadcast take, and what the simulation does."""
    return [
        Table(
            title,
            ["nodes", "joined through", *columns],
            [[row["nodes"], row["entry"], *(of(row) for of in columns.values())] for row in rows],
        )
        for title, columns in (
            ("the network, settled", NETWORK),
            ("joining, in virtual seconds, and one broadcast", JOINING),
            ("what it costs to simulate", COST),
        )
    ]


def expected_path(nodes: int, links: float) -> float | None:
    """The mean distance in a random graph in which each node has so many links, roughly: the nodes
    at a distance multiply by links - 1 with each hop (Newman, Strogatz, Watts, Phys. Rev. E 64,
    2001, equation 53, with z2/z1 = links - 1, less what is the same for all sizes)."""
    return math.log(nodes) / math.log(links - 1) if links > 2 else None


# Each plot: name, title, y axis, lines, and whether the y axis is logarithmic.
PLOTS: Final[tuple[tuple[str, str, str, dict[str, Measure], bool], ...]] = (
    (
        "links",
        "Links stay the same from a hundred nodes up",
        "links of a node",
        {
            "most": lambda row: row["links_most"],
            "mean": lambda row: row["links"],
            "least": lambda row: row["links_least"],
            "of the first node": lambda row: row["entry_links"],
        },
        False,
    ),
    (
        "distances",
        "Distances grow with the logarithm of the size",
        "hops",
        {
            "last hop of a broadcast": lambda row: row["last_hop"],
            "mean shortest path": lambda row: row["mean_path"],
        },
        False,
    ),
    (
        "joining",
        "Time that a newcomer needs",
        "virtual time (s)",
        {
            "minimum of links, 99 %": lambda row: row["enough_links_s"][1],
            "minimum of links, median": lambda row: row["enough_links_s"][0],
            "first link, median": lambda row: row["first_link_s"][0],
        },
        False,
    ),
    (
        "run-time",
        "Time to simulate joining and settling",
        "run time (s)",
        {"measured": lambda row: row.get("run_s")},
        True,
    ),
    (
        "memory",
        "Peak memory of the process",
        "memory (MiB)",
        {"measured": lambda row: row.get("peak_mib")},
        True,
    ),
)


def plots(rows: list[Row]) -> list[Plot]:
    """Links, distances and hops, costs; each over the number of nodes."""
    if len({row["nodes"] for row in rows}) < 2:
        return []
    drawn = []
    for name, title, y_label, lines, y_log in PLOTS:
        series = [one for label, of in lines.items() for one in _line(rows, label, of)]
        if series:
            drawn.append(Plot(name, title, "nodes", y_label, series, x_log=True, y_log=y_log))
    return drawn


def _line(rows: Sequence[Row], label: str, value: Measure) -> list[Series]:
    """One line over sizes, with the range over seeds; none if nothing was measured. Of a size that
    has both ways of joining, it shows the one through one entry."""
    through_one = {row["nodes"] for row in rows if row["entry"] == ONE}
    by_nodes: dict[int, list[float]] = {}
    for row in rows:
        measured = value(row)
        if measured is not None and (row["entry"] == ONE or row["nodes"] not in through_one):
            by_nodes.setdefault(row["nodes"], []).append(measured)
    if not by_nodes:
        return []
    sizes = sorted(by_nodes)
    means = [sum(by_nodes[nodes]) / len(by_nodes[nodes]) for nodes in sizes]
    low, high = ([of(by_nodes[nodes]) for nodes in sizes] for of in (min, max))
    return [Series(label, sizes, means, low, high)]
