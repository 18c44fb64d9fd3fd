"""The experiment join-rules at small sizes: rows, tables and plots."""

from __future__ import annotations

from random import Random
from typing import Any

import msgspec
import pytest

from meshwalk.sim.experiment import Case, Kind, Row, Size
from meshwalk.sim.experiments.join_rules import (
    EXPERIMENT,
    grow_machines,
    joining,
    shape,
    watched,
)
from meshwalk.sim.experiments.join_rules_report import LABELS, OURS
from meshwalk.sim.graphs import are_mutual
from meshwalk.sim.joinrules import JOIN_RULES


def row_of(rule: str, nodes: int = 80, links: int = 5, seed: int = 1) -> Row:
    settings = {"rule": rule, "nodes": nodes, "links": links}
    return EXPERIMENT.run(Case(f"{rule} {nodes} {links} {seed}", settings, seed))


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    small = [row_of(rule, nodes) for nodes in (40, 80) for rule in JOIN_RULES]
    single = [row_of(rule, links=1) for rule in ("by-links", "even-chance")]
    return [*small, row_of("by-links", seed=2), row_of(OURS, 40), *single]


@pytest.mark.parametrize("size", Size)
def test_cases(size: Size) -> None:
    cases = EXPERIMENT.cases(size, 7)
    assert len({case.name for case in cases}) == len(cases)
    assert {case.settings["rule"] for case in cases} == set(LABELS)
    assert all(case.seed >= 7 for case in cases)
    assert msgspec.json.decode(msgspec.json.encode(cases), type=list[Case]) == cases


def test_rows_are_plain_and_repeatable(rows: list[Row]) -> None:
    assert msgspec.json.decode(msgspec.json.encode(row_of("by-links")))["rule"] == "by-links"
    assert row_of("mixed-length") == row_of("mixed-length")
    assert {row["rule"] for row in rows} == set(LABELS)


def test_rows_settle_the_prose(rows: list[Row]) -> None:
    by_rule = {row["rule"]: row for row in rows if row["nodes"] == 80 and row["links"] == 5}
    assert by_rule["even-chance"]["entry_links"] > 70
    assert by_rule["even-chance"]["after_entry"] > 0.95
    assert by_rule["fixed-length"]["entry_links"] == 79
    assert by_rule["fixed-length"]["after_entry"] == pytest.approx(1 / 79)
    assert by_rule["exactly-d"]["without_link"] == 74
    assert by_rule["exactly-d"]["largest_part"] == 6 / 80
    assert by_rule["ours-model"]["entry_links"] <= 10
    for row in by_rule.values():
        assert sum(n for _, n in row["degrees"]) == 80
        assert sum(n for _, n in row["from_entry"]) == 80


def test_machines_keep_their_bounds() -> None:
    growth = grow_machines(40, 3, watched(40))
    assert are_mutual(growth.adjacency)
    assert min(map(len, growth.adjacency)) >= 5
    assert max(map(len, growth.adjacency)) <= 10
    measured = shape(growth.adjacency, Random(1)) | joining(growth)
    assert measured["largest_part"] == 1
    assert measured["requests"] >= 2 * 39
    assert 0 <= measured["lost_share"] < 0.5
    # The watched are all; their links at the join, not those that came to them later.
    assert 2 * 39 < sum(n for _, n in measured["accepted_at"]) <= sum(map(len, growth.adjacency))


def test_machines_are_repeatable() -> None:
    assert grow_machines(12, 5, watched(12)) == grow_machines(12, 5, watched(12))


def test_tables_are_rectangular(rows: list[Row]) -> None:
    tables = EXPERIMENT.tables(rows)
    assert len({table.title for table in tables}) == len(tables) == 7
    for table in tables:
        assert all(len(row) == len(table.columns) for row in table.rows)
    shapes = tables[0].rows
    assert [row[0] for row in shapes[: len(JOIN_RULES)]] == [r.label for r in JOIN_RULES.values()]
    of_two_seeds = [row for row in shapes if row[:2] == [LABELS["by-links"], 80]]
    assert len(of_two_seeds) == 1


def test_plots_show_the_largest(rows: list[Row]) -> None:
    plots = {plot.name: plot for plot in EXPERIMENT.plots(rows)}
    assert set(plots) == {
        "entry-links",
        "degrees",
        "accepted-at",
        "after-random",
        "after-targeted",
    }
    assert plots["accepted-at"].kind is Kind.BARS
    shares = [sum(series.ys) for series in plots["accepted-at"].series]
    assert shares == pytest.approx([1] * len(shares))
    for plot in plots.values():
        assert LABELS["ours-model"] not in [series.label for series in plot.series]
        for series in plot.series:
            assert len(series.xs) == len(series.ys)


@pytest.mark.parametrize(
    "chosen",
    [[], ["exactly-d"], ["by-links", "even-chance"]],
    ids=["nothing", "one rule", "two"],
)
@pytest.mark.parametrize("links", [1, 5])
def test_some_rows_are_enough(chosen: list[str], links: int) -> None:
    few: list[dict[str, Any]] = [row_of(rule, 20, links) for rule in chosen]
    assert bool(EXPERIMENT.tables(few)) == bool(chosen)
    assert bool(EXPERIMENT.plots(few)) == bool(chosen and links > 1)
