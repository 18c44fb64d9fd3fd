"""The experiment spreading at small sizes: who hears what after a failure."""

from __future__ import annotations

import msgspec
import pytest

from meshwalk.events import Delivery
from meshwalk.sim.experiment import Case, Row, Size
from meshwalk.sim.experiments.mass_failure import Detector
from meshwalk.sim.experiments.spreading import (
    BROADCASTS,
    EXPERIMENT,
    FLOOD,
    TREE,
    Plan,
    Reached,
    case_of,
    shares,
)
from meshwalk.sim.world import World
from meshwalk.wire.frames import ContentType

NODES = 24


def row_of(detector: Detector, spreading: str = TREE) -> Row:
    return EXPERIMENT.run(case_of(Plan(NODES, 0.5, str(detector), spreading), 1))


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return [row_of(Detector.PIPES_BREAK), row_of(Detector.PIPES_BREAK, FLOOD)]


@pytest.mark.parametrize("size", Size)
def test_cases(size: Size) -> None:
    cases = EXPERIMENT.cases(size, 7)
    assert len({case.name for case in cases}) == len(cases)
    assert {case.settings["detector"] for case in cases} == set(Detector)
    assert msgspec.json.decode(msgspec.json.encode(cases), type=list[Case]) == cases


def test_all_survivors_are_reached_again(rows: list[Row]) -> None:
    for row in rows:
        assert row["survivors"] == NODES // 2
        assert row["before"] == 1
        assert len(row["in_time"]) == BROADCASTS
        assert all(0 <= share <= 1 for share in (*row["in_time"], *row["at_all"]))
        assert row["in_time"][9] == row["at_all"][9] == 1
        assert row["parts"] == 1


def test_a_tree_grafts_and_a_flood_does_not(rows: list[Row]) -> None:
    tree, flood = rows
    assert tree["counts"]["grafts"] > 0
    assert flood["counts"]["grafts"] == 0
    assert tree["counts"]["copies"] < flood["counts"]["copies"] / 2


def test_the_same_case_gives_the_same_row(rows: list[Row]) -> None:
    assert msgspec.json.decode(msgspec.json.encode(rows)) == rows
    assert row_of(Detector.PIPES_BREAK) == rows[0]


def test_what_is_late_counts_at_all() -> None:
    world = World()
    sender, soon, late = (world.add() for _ in range(3))
    reached = Reached()
    reached.sends(sender, b"x")
    delivery = Delivery(sender.id, b"x", ContentType.BYTES, is_broadcast=True)
    world.run(1)
    reached.delivered(soon, delivery)
    reached.delivered(soon, delivery)  # once more, in order
    world.run(20)
    reached.delivered(late, delivery)
    found = shares(reached, [b"x"], 3)
    assert found == {"in_time": [0.5], "at_all": [1.0], "half_s": [1.0], "last_s": [21.0]}


def test_tables_and_plots(rows: list[Row]) -> None:
    tables = EXPERIMENT.tables(rows)
    assert len(tables) == 4
    for table in tables:
        assert all(len(line) == len(table.columns) for line in table.rows)
    (plot,) = EXPERIMENT.plots(rows)
    assert len({series.label for series in plot.series}) == 3
    assert all(len(series.xs) == len(series.ys) for series in plot.series)
    assert EXPERIMENT.tables([]) == []
    assert EXPERIMENT.plots([]) == []
