"""Tables and plots of the experiment join-rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from meshwalk.sim.experiment import Cell, Kind, Plot, Row, Series, Style, Table
from meshwalk.sim.graphs import surviving_share
from meshwalk.sim.joinrules import JOIN_RULES

OURS = "ours"  # the machines themselves; "ours-model" is their model
LABELS = {
    **{name: rule.label for name, rule in JOIN_RULES.items()},
    OURS: "ours (machines)",
}
MODEL_OF_OURS = "ours-model"  # in tables only: it is to lie on the line of the machines

Group = tuple[str, int, int]
"""Rule, nodes, links wanted."""


def grouped(rows: Sequence[Row]) -> dict[Group, list[Row]]:
    """Rows that differ only in their seed, together: by links, size, and the order of `LABELS`."""
    order = list(LABELS)
    keys = {(row["rule"], row["nodes"], row["links"]) for row in rows}
    ranked = sorted(keys, key=lambda key: (key[2], key[1], order.index(key[0])))
    return {
        key: [row for row in rows if (row["rule"], row["nodes"], row["links"]) == key]
        for key in ranked
    }


def mean(rows: Sequence[Row], value: Callable[[Row], float | None]) -> float | None:
    """The mean of what is known; None when nothing is."""
    known = [v for row in rows if (v := value(row)) is not None]
    return sum(known) / len(known) if known else None


def field(name: str, factor: float = 1.0) -> Callable[[Row], float | None]:
    """Takes a field of a row, times a factor."""

    def value(row: Row) -> float | None:
        return None if row[name] is None else row[name] * factor

    return value


def percent(name: str) -> Callable[[Row], float | None]:
    """Takes a share of a row as per cent."""
    return field(name, 100)


# Tables.

Column = tuple[str, Callable[[Row], float | None]]

SHAPE: tuple[Column, ...] = (
    ("entry's links", field("entry_links")),
    ("most of the others", field("most_links_of_others")),
    ("median", field("median_links")),
    ("mean", field("mean_links")),
    ("nodes without a link (%)", lambda row: 100 * row["without_link"] / row["nodes"]),
    ("mean hops between two", field("mean_path")),
    ("clustering", field("clustering")),
)
JOINING: tuple[Column, ...] = (
    ("first request accepted at entry (%)", percent("first_at_entry")),
    ("new links' distance from entry (hops)", field("mean_accepted_at")),
    ("all nodes' distance from entry (hops)", field("mean_from_entry")),
    ("hops a request", field("hops_per_request")),
    ("requests a joiner", lambda row: row["requests"] / (row["nodes"] - 1)),
    ("lost (%)", percent("lost_share")),
)


def tables(rows: list[Row]) -> list[Table]:
    """Shape, joining, losses and failures; then what one request each leaves."""
    groups = grouped(rows)
    several = {key: group for key, group in groups.items() if key[2] > 1}
    single = {key: group for key, group in groups.items() if key[2] == 1}
    found = []
    if several:
        found += [
            _table("Shape of the network", several, SHAPE),
            _table("Where requests are accepted", several, JOINING),
            _lost(several),
            _failures("Random failures", "after_random", several, ()),
            _failures("Failures of the highest degrees", "after_targeted", several, AFTER_ENTRY),
        ]
    if single:
        found += [
            _table("One request for one link each: shape", single, SHAPE[:2] + JOINING[:4]),
            _failures("One request each: random failures", "after_random", single, AFTER_ENTRY),
        ]
    return found


AFTER_ENTRY: tuple[Column, ...] = (("entry only", percent("after_entry")),)


def _table(title: str, groups: dict[Group, list[Row]], columns: Sequence[Column]) -> Table:
    return Table(
        title,
        ["rule", "nodes", *(heading for heading, _ in columns)],
        [
            [*_start(key), *(mean(rows, value) for _, value in columns)]
            for key, rows in groups.items()
        ],
    )


def _start(key: Group) -> list[Cell]:
    return [LABELS[key[0]], key[1]]


def _lost(groups: dict[Group, list[Row]]) -> Table:
    reasons = sorted({reason for rows in groups.values() for row in rows for reason in row["lost"]})
    columns: list[Column] = [(reason, _lost_for(reason)) for reason in reasons]
    columns.append(("came by at its origin", lambda row: 100 * row["returns"] / row["requests"]))
    return _table("Lost requests, of 100 that are sent", groups, columns)


def _lost_for(reason: str) -> Callable[[Row], float | None]:
    return lambda row: 100 * row["lost"].get(reason, 0) / row["requests"]


def _failures(
    what: str, name: str, groups: dict[Group, list[Row]], more: Sequence[Column]
) -> Table:
    shares = [share for share, _ in next(iter(groups.values()))[0][name]]
    columns = [(f"{share:.0%}", _share_after(name, i)) for i, share in enumerate(shares)]
    title = f"{what}: survivors in the largest part (%), by the share that failed"
    return _table(title, groups, [*more, *columns])


def _share_after(name: str, index: int) -> Callable[[Row], float | None]:
    return lambda row: 100 * row[name][index][1]


# Plots.


def plots(rows: list[Row]) -> list[Plot]:
    """Links of the entry by size; of the largest networks: degrees, distances and failures."""
    groups = {
        key: group for key, group in grouped(rows).items() if key[2] > 1 and key[0] != MODEL_OF_OURS
    }
    if not groups:
        return []
    nodes = max(key[1] for key in groups)
    largest = {key[0]: group for key, group in groups.items() if key[1] == nodes}
    links = next(iter(groups))[2]
    # As many links each as the machines have in the mean; without them, as a joiner's links give.
    typical = mean(largest.get(OURS, []), field("mean_links")) or 2 * links
    return [
        _entry_links(groups, links),
        _degrees(largest, nodes),
        _distances(largest, nodes),
        _after(largest, nodes, "after_random", "chosen by chance", round(typical)),
        _after(largest, nodes, "after_targeted", "with most links", None),
    ]


def _entry_links(groups: dict[Group, list[Row]], links: int) -> Plot:
    series = []
    for rule in LABELS:
        sizes = {key[1]: group for key, group in groups.items() if key[0] == rule}
        if sizes:
            values = [[row["entry_links"] for row in group] for group in sizes.values()]
            means = [sum(some) / len(some) for some in values]
            low, high = [min(some) for some in values], [max(some) for some in values]
            series.append(Series(LABELS[rule], list(sizes), means, low, high))
    sizes_all = sorted({key[1] for key in groups})
    theory = [(2 * links * nodes) ** 0.5 for nodes in sizes_all]
    series.append(Series(f"√({2 * links}·nodes)", sizes_all, theory, style=Style.DASHED))
    title = f"Links of the node that all enter through, {links} wanted by each"
    return Plot("entry-links", title, "nodes", "links", series, x_log=True, y_log=True)


def _degrees(largest: dict[str, list[Row]], nodes: int) -> Plot:
    """How many have at least so many links: the tail without bins."""
    series = []
    for rule, group in largest.items():
        counts: dict[int, int] = {}
        for row in group:
            for degree, count in row["degrees"]:
                counts[degree] = counts.get(degree, 0) + count
        xs = [degree for degree in sorted(counts) if degree > 0]
        total = sum(counts.values())
        ys = [sum(n for degree, n in counts.items() if degree >= x) / total for x in xs]
        series.append(Series(LABELS[rule], xs, ys))
    title = f"Who has how many links, {nodes:,} nodes"
    y_label = "share of nodes with at least so many"
    return Plot("degrees", title, "links", y_label, series, x_log=True, y_log=True)


def _distances(largest: dict[str, list[Row]], nodes: int) -> Plot:
    hops: set[int] = set()
    series: list[tuple[str, dict[int, float]]] = []
    for rule, group in largest.items():
        counts: dict[int, int] = {}
        for row in group:
            for distance, count in row["accepted_at"]:
                counts[distance] = counts.get(distance, 0) + count
        total = sum(counts.values())
        if total:
            hops |= counts.keys()
            series.append((LABELS[rule], {d: n / total for d, n in counts.items()}))
    xs = sorted(hops)
    return Plot(
        "accepted-at",
        f"How far from the entry new links end, {nodes:,} nodes",
        "hops from the entry, before the join",
        "share of new links",
        [Series(label, xs, [by.get(x, 0.0) for x in xs]) for label, by in series],
        kind=Kind.BARS,
    )


def _after(
    largest: dict[str, list[Row]], nodes: int, name: str, who: str, regular: int | None
) -> Plot:
    series = [Series(LABELS[rule], *_mean_after(group, name)) for rule, group in largest.items()]
    if regular is not None:
        xs = series[0].xs
        theory = [surviving_share(regular, float(x)) for x in xs]
        label = f"random, {regular} links each"
        series.append(Series(label, xs, theory, style=Style.DASHED))
    return Plot(
        name.replace("_", "-"),
        f"Survivors in one part after the nodes {who} fail, {nodes:,} nodes",
        "share of nodes that failed",
        "share of survivors in the largest part",
        series,
    )


def _mean_after(group: list[Row], name: str) -> tuple[list[float], list[float]]:
    points: list[list[list[Any]]] = [row[name] for row in group]
    xs = [point[0] for point in points[0]]
    return xs, [sum(of[i][1] for of in points) / len(points) for i in range(len(xs))]
