"""The experiment healing at small sizes: each kind of cut, what is seen, and what it becomes."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest

from meshwalk.sim.experiment import Case, Row, Size
from meshwalk.sim.experiments.healing import (
    COUNTED,
    EXPERIMENT,
    HEALED_WITHIN_S,
    Cut,
    Plan,
    What,
    case_of,
)
from meshwalk.sim.experiments.healing_report import label_of
from meshwalk.wire.frames import Channel, Message
from meshwalk.wire.messages import OverlayMessage, encode

PLANS = (
    Plan(16, 1, 60.0, 0.1),
    Plan(16, 2, 60.0, 0.1),
    Plan(26, 2, 190.0, what=What.FULL),
    Plan(16, 2, 120.0, what=What.MOVED),
)


def row_of(plan: Plan) -> Row:
    case = case_of(plan, 1)
    return {"case": case.name, "seed": case.seed, **EXPERIMENT.run(case)}


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return [row_of(plan) for plan in PLANS]


@pytest.mark.parametrize("size", Size)
def test_cases(size: Size) -> None:
    cases = EXPERIMENT.cases(size, 7)
    assert len({case.name for case in cases}) == len(cases)
    assert {case.settings["parts"] for case in cases} >= {1, 2, 3}
    assert {case.settings["what"] for case in cases} == {*map(str, What)}
    assert msgspec.json.decode(msgspec.json.encode(cases), type=list[Case]) == cases


def test_whatever_the_cut_it_heals(rows: list[Row]) -> None:
    assert msgspec.json.decode(msgspec.json.encode(rows)) == rows
    whole, *cut = rows
    assert whole["parts_when_cut"] == 1
    assert whole["bridges"] == 0
    for row in cut:
        assert row["parts_when_cut"] >= 2
        assert row["healed_s"] is not None
        assert row["healed_s"] <= row["agreed_s"] <= HEALED_WITHIN_S
        assert row["bridges"] >= 1
        assert row["looks"][-1]["parts"] == row["looks"][-1]["leaders"] == 1


def test_nobody_drops_a_link_to_heal(rows: list[Row]) -> None:
    assert rows[2]["full"] >= 0.7
    assert rows[2]["healings"] >= 2
    assert rows[2]["dropped"] == {}


def test_it_costs_messages(rows: list[Row]) -> None:
    names = [kind.__name__ for kind in COUNTED.values()]
    for row in rows:
        assert list(row["frames"]) == names
        assert 0 < row["frames"]["Beacon"] < row["overlay_frames"]
        assert row["frames"]["FragmentAsked"] > 0


def test_all_know_how_many_they_are(rows: list[Row]) -> None:
    for row in rows:
        low, median, high = row["sizes"]["before"]
        assert 0.5 <= low <= median <= high <= 2.0


def test_who_moves_has_another_address_and_the_same_name(rows: list[Row]) -> None:
    cut = Cut(Plan(6, 2, 100.0, what=What.MOVED), 1)
    cut.settle()
    before = {node: node.address for node in cut.members}
    cut.apart()
    moved = [node for node in cut.members if node.address != before[node]]
    assert [node.name.split(".")[1] for node in moved] == ["1"] * 3
    assert all(node.host.startswith("10.1.") and node.is_up for node in moved)
    assert rows[3]["members"] == rows[3]["staying"] == 16, "who moves stays"


def test_some_leave_and_some_join(rows: list[Row]) -> None:
    churned = rows[1]
    assert churned["members"] == 16
    assert churned["staying"] < 16


def test_tags_are_those_of_the_wire() -> None:
    assert {kind.__struct_config__.tag: kind for kind in COUNTED.values()} == COUNTED


def test_only_messages_of_the_overlay_are_counted() -> None:
    cut = Cut(Plan(2, 1, 1.0), 1)
    cut.settle()
    world = cut.world
    world.counted = Counter()
    end = next(iter(cut.members[0].ends.values()))
    beacon: OverlayMessage = cut.members[0].core.overlay.beacons._beacon()
    world.cross(end, Message(1, 0, Channel.OVERLAY, encode(beacon)))
    world.cross(end, Message(2, 0, Channel.APPLICATION, b"\x00\x0a"))
    assert dict(world.counted) == {10: 1}


def test_the_same_case_gives_the_same_row(rows: list[Row]) -> None:
    assert row_of(PLANS[3]) == rows[3]


def test_tables_and_plots(rows: list[Row]) -> None:
    labels = [label_of(row) for row in rows]
    assert len(set(labels)) == len(labels)
    for table in EXPERIMENT.tables(rows):
        assert [line[0] for line in table.rows] == labels
        assert all(len(line) == len(table.columns) for line in table.rows)
    plots = {plot.name: plot for plot in EXPERIMENT.plots(rows)}
    assert set(plots) == {"largest", "messages"}
    assert [series.label for series in plots["largest"].series] == labels[1:]
    assert plots["messages"].series[0].label == labels[0]
    assert EXPERIMENT.tables([])[0].rows == []
    assert EXPERIMENT.plots([]) == []
