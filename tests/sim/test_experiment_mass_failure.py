"""The experiment mass-failure at small sizes: what is measured, and its rows, tables and plots."""

from __future__ import annotations

import multiprocessing
from random import Random
from typing import Any

import msgspec
import pytest

from meshwalk.sim.experiment import Case, Row, Size
from meshwalk.sim.experiments.mass_failure import (
    BROADCASTS_AT_S,
    EXPERIMENT,
    Detector,
    fail_in_a_copy,
    failing_nodes,
    grown,
    links_among,
    stop,
    without_repair,
)
from meshwalk.sim.experiments.mass_failure_report import GRAPH, HYPARVIEW_LABEL, MACHINES
from meshwalk.sim.graphs import are_mutual, random_regular, surviving_share
from meshwalk.sim.world import World

FAILURES: list[tuple[str, float, bool]] = [
    ("on send", 0.3, False),
    ("on send", 0.8, True),
    ("pipes break", 0.3, False),
    ("silence", 0.3, False),
]


def machines(nodes: int = 40, seed: int = 1) -> Row:
    settings = {"kind": MACHINES, "nodes": nodes, "shares": [0.3, 0.8], "failures": FAILURES}
    return EXPERIMENT.run(Case("machines", settings, seed))


def graph(degree: int, nodes: int = 60) -> Row:
    settings = {"kind": GRAPH, "nodes": nodes, "degree": degree, "shares": [0.3, 0.8]}
    return EXPERIMENT.run(Case("graph", settings, 1))


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return [graph(5), graph(8), machines(), machines(seed=2), machines(20)]


@pytest.fixture(scope="module")
def world() -> World:
    """Left as it is: failures are of copies."""
    return grown(60, 3)


@pytest.mark.parametrize("size", Size)
def test_cases(size: Size) -> None:
    cases = EXPERIMENT.cases(size, 7)
    assert len({case.name for case in cases}) == len(cases)
    assert all(case.seed >= 7 for case in cases)
    assert msgspec.json.decode(msgspec.json.encode(cases), type=list[Case]) == cases
    learned = {
        failing[0]
        for case in cases
        if case.settings["kind"] == MACHINES
        for failing in case.settings["failures"]
    }
    assert learned == set(Detector)


@pytest.mark.parametrize("degree", [5, 8])
def test_unrepaired_graphs_are_as_percolation_has_them(degree: int) -> None:
    """Away from the threshold, where chance has less of a say."""
    shares = [share for share in (0.1, 0.3, 0.5, 0.6) if share < 1 - 1 / (degree - 1) - 0.1]
    found = without_repair(random_regular(3_000, degree, Random(1)), shares, Random(2))
    for share, mean, low, high in found:
        assert mean == pytest.approx(surviving_share(degree, share) ** 2, abs=0.03)
        assert low <= mean <= high


@pytest.mark.parametrize("detector", Detector)
@pytest.mark.parametrize("share", [0.5, 0.8])
def test_the_first_broadcast_is_a_flood_of_what_is_left(
    world: World, detector: Detector, share: float
) -> None:
    """Nobody has repaired anything yet: frames of the flood itself bring the first news, and
    a link that is new takes longer than the flood."""
    found = fail_in_a_copy(world, detector, share)
    assert found["reached"][0] == [0.0, found["first_unrepaired"]]
    assert found["survivors"] == round(60 * (1 - share))


def test_single_broadcasts_are_what_the_links_let_one_expect(world: World) -> None:
    """Over many senders they come to the mean that each state gives; silence holds it still."""
    found = fail_in_a_copy(world, Detector.SILENCE, 0.7)
    before = [n for n, (at_s, _) in enumerate(found["reached"]) if at_s < 10]
    in_reach = {found["states"][n]["in_reach"] for n in before}
    assert len(in_reach) == 1
    reached = [found["reached"][n][1] for n in before]
    assert sum(reached) / len(reached) == pytest.approx(in_reach.pop(), abs=0.15)


def test_who_fails() -> None:
    assert 0 in failing_nodes(20, 0.5, Random(1))
    assert 0 not in failing_nodes(20, 0.95, Random(1), keeps_entry=True)
    assert len(failing_nodes(20, 0.5, Random(1))) == 10
    assert len(failing_nodes(20, 1.0, Random(1))) == 19
    assert list(failing_nodes(20, 0.0, Random(1))) == [0]


def test_survivors_learn_as_the_detector_says(world: World) -> None:
    on_send, pipes_break, silence = (
        fail_in_a_copy(world, detector, 0.3, keeps_entry=True) for detector in Detector
    )
    for found in (on_send, pipes_break, silence):
        assert found["linked_at_s"] is not None
        assert found["parts"] == 1
        assert found["without_minimum"] == 0
        assert found["reached"][-1][1] == 1
        assert found["states"][-1] == found["states"][-1] | {"linked": 1, "parts": 1, "in_reach": 1}
    assert pipes_break["linked_at_s"] <= on_send["linked_at_s"] < 15 <= silence["linked_at_s"]


def test_when_survivors_learn() -> None:
    """At once, at the next ping, or when the link has been idle for too long."""
    knowing: dict[str, list[float]] = {}
    for detector in Detector:
        world = grown(12, 1)
        dead = world.nodes[:3]
        links = sum(len(node.neighbours) for node in dead)
        for node in dead:
            stop(world, node, detector)
        ids = {node.id for node in dead}
        links -= sum(peer in ids for node in dead for peer in node.neighbours)
        knowing[detector] = []
        for pause_s in (0.1, 6, 12):
            world.run(pause_s)
            left = sum(peer in ids for node in world.up for peer in node.neighbours)
            knowing[detector].append(left / links)
    assert knowing[Detector.PIPES_BREAK] == [0, 0, 0]
    assert knowing[Detector.ON_SEND][0] > 0.8
    assert knowing[Detector.ON_SEND][1:] == [0, 0]
    at_once, soon, later = knowing[Detector.SILENCE]
    assert (at_once, later) == (1, 0)
    assert soon < 0.5  # a ping, and two vouchers


def test_copies_leave_the_world_as_it_is(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    before = links_among(world.nodes), world.now
    found = fail_in_a_copy(world, Detector.PIPES_BREAK, 0.8)
    assert (links_among(world.nodes), world.now) == before
    assert all(node.is_up for node in world.nodes)
    assert are_mutual(before[0])
    assert fail_in_a_copy(world, Detector.PIPES_BREAK, 0.8) == found
    # Where a process cannot be copied, the network is grown again, which gives the same.
    monkeypatch.setattr(multiprocessing, "get_all_start_methods", lambda: ["spawn"])
    anew = msgspec.json.encode(fail_in_a_copy(world, Detector.PIPES_BREAK, 0.8))
    assert msgspec.json.decode(anew) == found


def test_rows_are_plain_and_repeatable(rows: list[Row]) -> None:
    assert msgspec.json.decode(msgspec.json.encode(rows)) == rows
    assert machines() == rows[2]
    for failure in rows[2]["failures"]:
        assert len(failure["reached"]) == len(failure["states"]) <= len(BROADCASTS_AT_S)
        assert all(0 < reach <= 1 for _, reach in failure["reached"])


def test_tables_are_rectangular(rows: list[Row]) -> None:
    tables = EXPERIMENT.tables(rows)
    assert len({table.title for table in tables}) == len(tables) == 7
    for table in tables:
        assert all(len(row) == len(table.columns) for row in table.rows)
    assert [row[0] for row in tables[0].rows[:2]] == [
        "random, 5 links each",
        "random, 5 links each, theory",
    ]
    early = {(row[0], row[1]): row[2:] for row in tables[2].rows}
    assert early["silence", 40][1] is None  # of 80 % there was no such failure
    assert early[HYPARVIEW_LABEL, 10_000] == [100, 100]
    healing = {tuple(row[:3]): row[3:] for row in tables[5].rows}
    assert healing["pipes break", 40, "30%"][0] == 2
    assert healing["pipes break", 20, "30%"][0] == 1


def test_plots_show_the_largest(rows: list[Row]) -> None:
    plots = {plot.name: plot for plot in EXPERIMENT.plots(rows)}
    assert set(plots) == {"no-repair", "reach-early", "reach-late", "recovery-80"}
    early = {series.label: series for series in plots["reach-early"].series}
    assert list(early["on send"].xs) == [0.3]
    assert list(early[HYPARVIEW_LABEL].ys)[-1] == 0.9
    for plot in plots.values():
        assert len({series.label for series in plot.series}) == len(plot.series)
        assert all(len(series.xs) == len(series.ys) for series in plot.series)


@pytest.mark.parametrize("chosen", [[], [0], [2]], ids=["nothing", "a graph", "machines"])
def test_some_rows_are_enough(rows: list[Row], chosen: list[int]) -> None:
    few: list[dict[str, Any]] = [rows[place] for place in chosen]
    assert bool(EXPERIMENT.tables(few)) == bool(chosen)
    assert bool(EXPERIMENT.plots(few)) == bool(chosen)
