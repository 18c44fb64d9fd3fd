"""Tables and plots of the experiment mass-failure, with what is published to compare with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

from meshwalk.sim.experiment import Cell, Plot, Row, Series, Style, Table
from meshwalk.sim.graphs import surviving_share

GRAPH: Final = "graph"  # rows of a random graph, and of a network of the shipped machines
MACHINES: Final = "machines"
WHOLE: Final = 0.999  # of the survivors: a broadcast that reaches so many counts as reliable
FIRST: Final = 10  # guess: broadcasts "right after": they begin within five seconds
LAST: Final = 5  # guess: broadcasts "at the end"
RECOVERIES: Final = (0.5, 0.8, 0.9, 0.95)  # guess: shares that failed, with a plot of their own
SHOWN: Final = (1, 2, 3, 5, 10, 20, 30)  # broadcasts with a column of their own; then the last

# HyParView (DSN 2007, section 5), from its text: no visible effect of failures up to 80 %, and
# about 90 % of the survivors after 95 %. Its text has no figure for 90 %. The mean of 1,000
# broadcasts sent one after the other, with repair on sending, among 10,000 nodes with 5 links.
HYPARVIEW: Final = {**{number / 10: 1.0 for number in range(1, 9)}, 0.95: 0.9}
HYPARVIEW_LABEL: Final = "HyParView, n=10,000 (published)"

Failure: TypeAlias = dict[str, Any]
Group: TypeAlias = tuple[str, int]
"""Label and nodes."""


def failures(rows: Sequence[Row]) -> dict[Group, dict[float, list[Failure]]]:
    """All failures of machines: by label and nodes, then by share, with one for each seed."""
    found: dict[Group, dict[float, list[Failure]]] = {}
    for row in sorted((r for r in rows if r["kind"] == MACHINES), key=lambda row: row["nodes"]):
        for failure in row["failures"]:
            key = (label_of(failure), row["nodes"])
            found.setdefault(key, {}).setdefault(failure["failed"], []).append(failure)
    return found


def label_of(failure: Failure) -> str:
    """How survivors learn of the dead, and whether they still have somebody to meet at."""
    kept = ", entry survives" if failure["keeps_entry"] else ""
    return f"{failure['detector']}{kept}"


# Values of one failure; of 1. Each is expected over all senders, by the links between survivors at
# the moment of sending: one sender in ten that sits in a fragment would hide all the others.


def first_reach(failure: Failure) -> float:
    """What a broadcast reaches that is sent at the moment of the failure."""
    return float(failure["states"][0]["in_reach"])


def early_reach(failure: Failure) -> float:
    """The mean over the moments of the first ten broadcasts."""
    return _mean([state["in_reach"] for state in failure["states"][:FIRST]])


def late_reach(failure: Failure) -> float:
    """The mean over the last five: when all is whole again, or five minutes have passed."""
    return _mean([state["in_reach"] for state in failure["states"][-LAST:]])


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _mean_known(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return _mean(known) if known else None


# Tables.


def tables(rows: list[Row]) -> list[Table]:
    """The floor without repair; reach early and late, by share; broadcast by broadcast; healing."""
    found = []
    if rows:
        found.append(_unrepaired(rows))
    groups = failures(rows)
    if groups:
        found += [
            _by_share("at the moment of the failure", groups, first_reach, is_published=False),
            _by_share("mean of the first five seconds", groups, early_reach, is_published=True),
            _by_share("once whole, or after five minutes", groups, late_reach, is_published=True),
            _by_broadcast(groups),
            _healing(groups),
            _fragments(groups),
        ]
    return found


def _unrepaired(rows: list[Row]) -> Table:
    shares = sorted({share for row in rows for share, *_ in row["unrepaired"]})
    lines: list[list[Cell]] = []
    for row in rows:
        means = {share: mean for share, mean, *_ in row["unrepaired"]}
        lines.append(
            [_network(row), row["nodes"], *(_percent(means.get(share)) for share in shares)]
        )
        if row["kind"] == GRAPH:
            # Above the threshold it is 0, and what is computed is a hair more.
            theory = [round(100 * surviving_share(row["links"], s) ** 2, 3) for s in shares]
            lines.append([f"{_network(row)}, theory", None, *theory])
    title = "No repair: survivors that a flood reaches (%), by the share that failed"
    return Table(title, ["network", "nodes", *map(_heading, shares)], lines)


def _network(row: Row) -> str:
    if row["kind"] == GRAPH:
        return f"random, {row['links']} links each"
    return f"ours, {row['links']:.1f} links in the mean"


def _heading(share: float) -> str:
    return f"{share:.0%}"


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _by_share(
    what: str,
    groups: dict[Group, dict[float, list[Failure]]],
    value: Callable[[Failure], float],
    *,
    is_published: bool,
) -> Table:
    shares = sorted({share for group in groups.values() for share in group})
    lines: list[list[Cell]] = []
    for (label, nodes), group in groups.items():
        means = {share: _mean([value(each) for each in some]) for share, some in group.items()}
        lines.append([label, nodes, *(_percent(means.get(share)) for share in shares)])
    if is_published:
        published = [_percent(HYPARVIEW.get(share)) for share in shares]
        lines.append([HYPARVIEW_LABEL, 10_000, *published])
    # By the links at each look: what was really sent then reached as many (see the case's rows).
    title = f"Survivors in reach of a broadcast (%), {what}, by the share that failed"
    return Table(title, ["survivors learn", "nodes", *map(_heading, shares)], lines)


def _by_broadcast(groups: dict[Group, dict[float, list[Failure]]]) -> Table:
    lines: list[list[Cell]] = []
    for (label, nodes), group in groups.items():
        for share, some in sorted(group.items()):
            reached = [[reach for _, reach in failure["reached"]] for failure in some]
            # After the network is whole there are no more: it would go on as it ended.
            shown = [_mean([of[min(n, len(of)) - 1] for of in reached]) for n in SHOWN]
            last = _mean([of[-1] for of in reached])
            lines.append([label, nodes, _heading(share), *(100 * r for r in [*shown, last])])
    numbers = [f"no. {number}" for number in SHOWN]
    columns = ["survivors learn", "nodes", "failed", *numbers, "last"]
    return Table("Survivors reached (%) by single broadcasts, one after another", columns, lines)


def _healing(groups: dict[Group, dict[float, list[Failure]]]) -> Table:
    """When it is well for good, in the mean of the networks of which that could be said."""
    columns = [
        "survivors learn",
        "nodes",
        "failed",
        "networks",
        f"{WHOLE:.1%} reached, from (s)",
        "all have their links, from (s)",
        "one part, from (s)",
        "networks that became whole",
        "walks a survivor",
    ]
    lines: list[list[Cell]] = []
    for (label, nodes), group in groups.items():
        for share, some in sorted(group.items()):
            times = [
                _mean_known([failure[name] for failure in some])
                for name in ("reliable_at_s", "linked_at_s", "one_part_at_s")
            ]
            whole = sum(_is_whole(failure) for failure in some)
            walks = _mean([failure["walks_per_survivor"] for failure in some])
            lines.append([label, nodes, _heading(share), len(some), *times, whole, walks])
    return Table("Healing, in virtual seconds after the failure", columns, lines)


def _is_whole(failure: Failure) -> bool:
    return failure["one_part_at_s"] is not None and failure["linked_at_s"] is not None


def _fragments(groups: dict[Group, dict[float, list[Failure]]]) -> Table:
    columns = [
        "survivors learn",
        "nodes",
        "failed",
        "survivors",
        "live peers known before",
        "parts at first",
        "parts at the end",
        "parts that want no more links",
        "nodes outside the largest part",
        "nodes below their minimum",
        "nodes without a link",
    ]
    names = ("parts", "content_parts", "apart", "without_minimum", "without_link")
    lines: list[list[Cell]] = []
    for (label, nodes), group in groups.items():
        for share, some in sorted(group.items()):
            means = [_mean([failure[name] for failure in some]) for name in names]
            first = _mean([failure["states"][0]["parts"] for failure in some])
            known = _mean([failure["live_known"] for failure in some])
            survivors = some[0]["survivors"]
            lines.append([label, nodes, _heading(share), survivors, known, first, *means])
    return Table("What stays apart, in the mean of the networks", columns, lines)


# Plots.


def plots(rows: list[Row]) -> list[Plot]:
    """The floor, reach by share, and how it comes back, of the networks with most to show."""
    found = []
    if rows:
        found.append(_plot_unrepaired(rows))
    groups = failures(rows)
    if not groups:
        return found
    most = max(len(group) for group in groups.values())
    nodes = max(key[1] for key, group in groups.items() if len(group) == most)
    chosen = {key[0]: group for key, group in groups.items() if key[1] == nodes}
    shares = {share for group in chosen.values() for share in group}
    found += [
        _plot_reach("early", "first five seconds", chosen, nodes, early_reach),
        _plot_reach("late", "once healed, or after five minutes", chosen, nodes, late_reach),
        *(_plot_recovery(chosen, nodes, share) for share in RECOVERIES if share in shares),
    ]
    return found


def _plot_unrepaired(rows: list[Row]) -> Plot:
    series: list[Series] = []
    one_of_each = {
        (row["nodes"], row["links"] if row["kind"] == GRAPH else MACHINES): row
        for row in reversed(rows)  # of several seeds, the first
    }
    for row in reversed(one_of_each.values()):
        xs, means, low, high = map(list, zip(*row["unrepaired"], strict=True))
        series.append(Series(f"{_network(row)}, n={row['nodes']:,}", xs, means, low, high))
    for row in rows:
        if row["kind"] == GRAPH:
            xs = [share for share, *_ in row["unrepaired"]]
            theory = [surviving_share(row["links"], share) ** 2 for share in xs]
            label = f"theory, {row['links']} links each"
            series.append(Series(label, xs, theory, style=Style.DASHED))
    return _plot("no-repair", "Nobody repairs anything: survivors that a flood reaches", series)


def _plot(name: str, title: str, series: list[Series], x_label: str = "") -> Plot:
    return Plot(
        name,
        title,
        x_label or "share of nodes that failed",
        "share of survivors reached",
        series,
    )


def _plot_reach(
    name: str,
    when: str,
    groups: dict[str, dict[float, list[Failure]]],
    nodes: int,
    value: Callable[[Failure], float],
) -> Plot:
    series: list[Series] = []
    for label, group in groups.items():
        shares = sorted(group)
        values = [[value(failure) for failure in group[share]] for share in shares]
        low, high = [min(some) for some in values], [max(some) for some in values]
        series.append(Series(label, shares, [_mean(some) for some in values], low, high))
    published = Series(HYPARVIEW_LABEL, list(HYPARVIEW), list(HYPARVIEW.values()))
    series.append(Series(published.label, published.xs, published.ys, style=Style.DASHED))
    return _plot(f"reach-{name}", f"Broadcasts after a failure, {when}, {nodes:,} nodes", series)


def _plot_recovery(groups: dict[str, dict[float, list[Failure]]], nodes: int, share: float) -> Plot:
    """What a broadcast reaches that is sent then; of the networks that are whole, all."""
    series = []
    for label, group in groups.items():
        some = group.get(share, [])
        if some:
            longest = max(some, key=lambda failure: len(failure["states"]))["states"]
            xs = [state["at_s"] for state in longest]
            reaches = [[state["in_reach"] for state in failure["states"]] for failure in some]
            ys = [_mean([of[min(n, len(of) - 1)] for of in reaches]) for n in range(len(xs))]
            series.append(Series(label, xs, ys))
    title = f"What a broadcast can reach after {_heading(share)} failed, {nodes:,} nodes"
    return _plot(f"recovery-{share * 100:.0f}", title, series, "time after the failure (s)")
