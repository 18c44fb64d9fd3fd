"""The experiment eclipse at small sizes, its attackers, and the arithmetic of its chances."""

from __future__ import annotations

import msgspec
import pytest

from meshwalk.sim.experiment import Case, Row, Size
from meshwalk.sim.experiments.eclipse import (
    EXPERIMENT,
    FIRST_GROUP,
    GROUPS,
    TIMES,
    Plan,
    Siege,
    case_of,
    variants,
)
from meshwalk.sim.experiments.eclipse_report import (
    ALL,
    NONE,
    ONE_LINK,
    SHORT,
    all_hostile,
    chance,
)
from meshwalk.sim.world import World

HONEST = 12


def row_of(missing: str) -> Row:
    case = case_of(Plan(missing, HONEST, 60.0, 1), 1)
    return {"case": case.name, "seed": case.seed, **EXPERIMENT.run(case)}


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return [row_of(ALL), row_of(NONE)]


@pytest.fixture(scope="module")
def siege() -> Siege:
    siege = Siege(World(2, encodes=False), Plan(ALL, HONEST, 60.0, 1))
    siege.attack()
    return siege


@pytest.mark.parametrize("size", Size)
def test_cases(size: Size) -> None:
    cases = EXPERIMENT.cases(size, 7)
    assert len({case.name for case in cases}) == len(cases)
    assert {case.settings["missing"] for case in cases} == {*variants()}
    assert msgspec.json.decode(msgspec.json.encode(cases), type=list[Case]) == cases


def test_every_defence_is_taken_away_once_and_all_together() -> None:
    found = variants()
    assert found[ALL] == ({}, {})
    assert found.keys() == SHORT.keys()
    each = [found[name] for name in found if name not in (ALL, ONE_LINK, NONE)]
    assert all(len(overlay) + len(book) >= 1 for overlay, book in each)
    for overlay, book in each:
        assert overlay.items() <= found[NONE][0].items()
        assert book.items() <= found[NONE][1].items()


def test_attackers_are_many_in_few_groups(siege: Siege) -> None:
    groups = {node.host.split(".")[1] for node in siege.attackers}
    assert len(siege.attackers) == TIMES * HONEST
    assert groups == {str(FIRST_GROUP + number) for number in range(GROUPS)}
    honest = {node.host.split(".")[1] for node in siege.world.nodes[:HONEST]}
    assert len(honest) == HONEST, "each has a group of its own"


def test_attackers_fill_the_book(siege: Siege) -> None:
    book = siege.book()
    known = set(siege.victim.core.overlay.book.entries)
    assert all(node.id in known for node in siege.attackers)
    assert book["verified_hostile"] > 0.5


def test_attackers_tell_of_each_other_only(siege: Siege) -> None:
    told = [
        entry
        for entry in siege.victim.core.overlay.book.entries.values()
        if entry.met == "exchange" and entry.source.split(".")[1] in {"250", "251", "252", "253"}
    ]
    ids = {node.id for node in siege.attackers}
    assert all(entry.peer in ids for entry in told)


def test_walks_that_attackers_should_carry_end_at_them(siege: Siege) -> None:
    world, agent = siege.world, siege.attackers[0]
    newcomer = world.add(siege.victim.config, group=99)
    newcomer.join(agent)
    world.run(5)
    ids = {node.id for node in siege.attackers}
    assert newcomer.neighbours
    assert all(peer in ids for peer in newcomer.neighbours)
    assert siege.captured > 0


def test_the_defences_help(rows: list[Row]) -> None:
    assert msgspec.json.decode(msgspec.json.encode(rows)) == rows
    with_all, with_none = (row["restarts"][0] for row in rows)
    assert with_all["hostile"] < with_all["links"]
    share, other = (one["hostile"] / one["links"] for one in (with_all, with_none))
    assert share < other
    for row in rows:
        for one in row["restarts"]:
            assert one["after_s"] is not None
            assert one["links"] >= 5


def test_the_same_case_gives_the_same_row(rows: list[Row]) -> None:
    assert row_of(ALL) == rows[0]


def test_a_chance_and_its_interval() -> None:
    share, low, high = chance([0.0] * 10)
    assert (share, low) == (0.0, 0.0)
    assert high == pytest.approx(0.2775, abs=1e-4)  # Wilson's interval for 0 of 10
    share, low, high = chance([1.0, 0.0, 0.5, 0.5])
    assert share == 0.5
    assert low == pytest.approx(1 - high)


def test_all_links_hostile() -> None:
    restarts = [
        {"links": 5, "hostile": 5},
        {"links": 5, "hostile": 4},
        {"links": 0, "hostile": 0},  # alone is not eclipsed
        {"links": 8, "hostile": 8},
    ]
    assert all_hostile({"restarts": restarts}, "links", "hostile") == 0.5


def test_tables_and_plots(rows: list[Row]) -> None:
    (table,) = EXPERIMENT.tables(rows)
    assert [line[0] for line in table.rows] == [ALL, NONE]
    assert all(len(line) == len(table.columns) for line in table.rows)
    (plot,) = EXPERIMENT.plots(rows)
    assert all(list(series.xs) == [SHORT[ALL], SHORT[NONE]] for series in plot.series)
    assert EXPERIMENT.tables([])[0].rows == []
    assert EXPERIMENT.plots([]) == []
