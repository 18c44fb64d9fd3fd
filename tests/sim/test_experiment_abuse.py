"""The experiment abuse at small sizes."""

from __future__ import annotations

import msgspec
import pytest

from meshwalk.sim.attackers import ABUSES
from meshwalk.sim.experiment import Case, Row, Size
from meshwalk.sim.experiments.abuse import EXPERIMENT, Plan, Scene, case_of
from meshwalk.sim.experiments.abuse_report import NOBODY
from meshwalk.sim.world import World

NODES = 15


def row_of(abuse: str, share: float = 0.2) -> Row:
    return EXPERIMENT.run(case_of(Plan(abuse, NODES, share, 5.0), 1))


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return [row_of(NOBODY, 0.0), row_of("litterer"), row_of("hoarder")]


@pytest.mark.parametrize("size", Size)
def test_cases(size: Size) -> None:
    cases = EXPERIMENT.cases(size, 7)
    assert len({case.name for case in cases}) == len(cases)
    assert {case.settings["abuse"] for case in cases} == {NOBODY, *ABUSES}
    assert msgspec.json.decode(msgspec.json.encode(cases), type=list[Case]) == cases


def test_honest_nodes_hear_each_other(rows: list[Row]) -> None:
    for row in rows:
        assert row["broadcasts"] == 10
        assert row["in_time"] == row["at_all"] == row["worst"] == 1
        assert row["of_abusers"] == 0
        assert row["refused_honest"] == row["score_honest_most"] == 0
        assert row["honest_parts"] == 1


def test_nobody_abuses_where_nobody_does(rows: list[Row]) -> None:
    calm = rows[0]
    assert calm["offences"] == calm["lost_abusers"] == calm["lost_honest"] == {}
    assert set(calm["links"]) == {0.0}


def test_what_cannot_be_read_ends_links(rows: list[Row]) -> None:
    litter = rows[1]
    assert litter["links"][0] > 0.1
    assert litter["links"][-1] < litter["links"][0] / 2
    assert litter["lost_abusers"]["malformed"] > 0


def test_abusers_are_members_like_others() -> None:
    scene = Scene(World(2, encodes=False), Plan("hoarder", NODES, 0.2, 5.0))
    assert len(scene.abusers) == 3
    assert len(scene.honest) == 12
    assert all(len(node.neighbours) >= 5 for node in scene.abusers)
    assert scene.world.nodes[0] in scene.honest
    assert all(node.behaviour is None for node in scene.world.nodes), "they have not begun"


def test_the_same_case_gives_the_same_row(rows: list[Row]) -> None:
    assert msgspec.json.decode(msgspec.json.encode(rows)) == rows
    assert row_of("hoarder") == rows[2]


def test_tables_and_plots(rows: list[Row]) -> None:
    tables = EXPERIMENT.tables(rows)
    assert len(tables) == 3
    for table in tables:
        assert [line[0] for line in table.rows] == [NOBODY, "litterer", "hoarder"]
        assert all(len(line) == len(table.columns) for line in table.rows)
    plots = {plot.name: plot for plot in EXPERIMENT.plots(rows)}
    assert set(plots) == {"delivered", "links"}
    assert EXPERIMENT.tables([]) == []
    assert EXPERIMENT.plots([]) == EXPERIMENT.plots(rows[:1]) == []
