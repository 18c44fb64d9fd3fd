"""The experiment scale at small sizes: its measures, and its rows, tables and plots."""

from __future__ import annotations

from random import Random

import msgspec
import pytest

from meshwalk.sim.experiment import Case, Row, Size
from meshwalk.sim.experiments.scale import (
    EXPERIMENT,
    FLOODING,
    JOINING_LEAST_PER_S,
    JOINING_MOST_PER_S,
    broadcast,
    joining_per_s,
    links_of,
    resident_bytes,
    shape,
)
from meshwalk.sim.experiments.scale_report import ANY, ONE, expected_path
from meshwalk.sim.latency import Constant
from meshwalk.sim.newcomers import Newcomers, times_of
from meshwalk.sim.world import World


def row_of(entry: str, nodes: int, seed: int = 1) -> Row:
    case = Case(f"{entry} {nodes}", {"entry": entry, "nodes": nodes}, seed)
    return {"case": case.name, "seed": seed, **EXPERIMENT.run(case)}


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return [row_of(ONE, 12), row_of(ONE, 30), row_of(ANY, 30)]


@pytest.mark.parametrize("size", Size)
def test_cases(size: Size) -> None:
    cases = EXPERIMENT.cases(size, 7)
    assert len({case.name for case in cases}) == len(cases)
    assert min(case.settings["nodes"] for case in cases) >= 100
    assert all(case.seed >= 7 for case in cases)
    assert msgspec.json.decode(msgspec.json.encode(cases), type=list[Case]) == cases


def test_the_largest_network_is_run_once() -> None:
    cases = [case for size in Size for case in EXPERIMENT.cases(size, 1)]
    assert [c.settings["entry"] for c in cases if c.settings["nodes"] == 100_000] == [ANY]


def test_rows(rows: list[Row]) -> None:
    assert msgspec.json.decode(msgspec.json.encode(rows)) == rows
    for row in rows:
        assert row["parts"] == 1
        assert row["reached"] == 1
        assert row["without_minimum"] == 0
        assert 5 <= row["links_least"] <= row["links"] <= row["links_most"] <= 10
        assert row["newcomers"] == row["nodes"] - 1
        assert row["never_linked"] == row["never_enough"] == 0
        assert sum(nodes for _, nodes in row["degrees"]) == row["nodes"]
        # Nothing is repaired or saved here: each copy is one that a plain flood has.
        assert row["redundancy"] == pytest.approx(row["flood_redundancy"])
        first, enough = row["first_link_s"], row["enough_links_s"]
        assert 0 < first[0] <= first[1] <= first[2] <= enough[2]
    assert [row["ping_interval_s"] for row in rows] == [5.0, 5.0, 60.0]


def test_the_same_case_gives_the_same_row(rows: list[Row]) -> None:
    machine = {"peak_mib", "kib_per_node"}
    again = row_of(ONE, 12)
    assert {k: v for k, v in again.items() if k not in machine} == {
        k: v for k, v in rows[0].items() if k not in machine
    }


def test_tables(rows: list[Row]) -> None:
    timed = [{**rows[0], "run_s": 2.0}, *rows[1:]]
    network, joining, cost = EXPERIMENT.tables(timed)
    for table in (network, joining, cost):
        assert [line[:2] for line in table.rows] == [[12, ONE], [30, ONE], [30, ANY]]
        assert all(len(line) == len(table.columns) for line in table.rows)
    rate = cost.columns.index("events/s")
    assert cost.rows[0][rate] == rows[0]["events"] / 2
    assert cost.rows[1][rate] is None, "without a clock there is no rate"
    assert EXPERIMENT.tables([])[0].rows == []


def test_plots(rows: list[Row]) -> None:
    plots = {plot.name: plot for plot in EXPERIMENT.plots(rows)}
    assert set(plots) >= {"links", "distances", "joining"}
    assert "run-time" not in plots, "nothing was timed"
    most = plots["links"].series[0]
    assert list(most.xs) == [12, 30]
    assert list(most.ys) == [rows[0]["links_most"], rows[1]["links_most"]]
    (large,) = (row for row in rows if row["entry"] == ANY)
    with_large = EXPERIMENT.plots([*rows[:2], {**large, "nodes": 99}])[0]
    assert list(with_large.series[0].xs) == [12, 30, 99]
    assert EXPERIMENT.plots(rows[:1]) == []


def test_a_flood_of_a_known_graph() -> None:
    """Six nodes, all linked, 10 ms apart: the sender sends 5 copies, each of the others 4."""
    world = World(latency=Constant(0.01), encodes=False)
    world.grow(6, FLOODING)
    world.run(10)
    adjacency = links_of(world.nodes)
    measured = shape(adjacency, 5, Random(1))
    assert measured["links"] == measured["entry_links"] == 5
    assert measured["mean_path"] == measured["clustering"] == 1
    found = broadcast(world, world.nodes[2], sum(map(len, adjacency)))
    assert found["reached"] == found["last_hop"] == 1
    assert found["last_s"] == pytest.approx(0.01)
    assert found["copies"] == 5 + 5 * 4
    assert found["redundancy"] == found["flood_redundancy"] == 4


def test_shape_of_a_torn_network() -> None:
    found = shape([[1], [0], [3, 4], [2, 4], [2, 3], []], 2, Random(1))
    assert (found["parts"], found["apart"], found["without_minimum"]) == (3, 3, 3)
    assert (found["links_least"], found["links_most"], found["entry_links"]) == (0, 2, 1)


def test_joining_grows_with_the_network() -> None:
    assert joining_per_s(1) == JOINING_LEAST_PER_S
    assert joining_per_s(10_000) == 500
    assert joining_per_s(90_000) == JOINING_MOST_PER_S


def test_expected_path() -> None:
    assert expected_path(1_000, 11) == pytest.approx(3)
    assert expected_path(1_000, 2) is None


def test_memory_of_the_process() -> None:
    now, most = resident_bytes(), resident_bytes(peak=True)
    if now is None or most is None:
        pytest.skip("this system does not tell")
    assert 1 << 20 < now <= most


# Newcomers.


def test_newcomers_are_timed_from_joining() -> None:
    world = World(latency=Constant(0.01), encodes=False)
    watch = world.observer = Newcomers()
    entry = world.add()
    world.run(3.0)
    newcomer, lonely = world.add(), world.add()
    for node in (newcomer, lonely):
        watch.joins(node)
    newcomer.join(entry)
    world.run(10.0)
    assert watch.found[lonely].first_s is None
    first_s = watch.found[newcomer].first_s
    # Ten crossings: dial, handshake, greeting and the walk; then the acceptor's link in turn.
    assert first_s is not None
    assert 0.05 < first_s < 1.0
    assert watch.found[newcomer].enough_s is None, "there is one other node, and five are wanted"
    times = times_of(watch.found.values())
    assert (times["newcomers"], times["never_linked"], times["never_enough"]) == (2, 1, 2)
    assert times["first_link_s"] == [first_s] * 3
    assert times["enough_links_s"] == [None] * 3


def test_times_of_nobody() -> None:
    assert times_of([])["first_link_s"] == [None, None, None]
