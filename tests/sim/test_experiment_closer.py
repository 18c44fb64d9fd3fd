"""The experiment closer at small sizes: regions, looks, trades, failures, and what it becomes."""

from __future__ import annotations

import multiprocessing
from random import Random

import msgspec
import pytest

from meshwalk.config import Config
from meshwalk.sim.experiment import Case, Row, Size
from meshwalk.sim.experiments.closer import (
    BETWEEN_S,
    EXPERIMENT,
    NEVER_S,
    QUICK,
    REGIONS,
    REPAIR_S,
    REPAIRED_SHARES,
    SHARES,
    WITHIN_S,
    Regions,
    config_of,
    look_at,
    repaired,
    unrepaired,
)
from meshwalk.sim.experiments.closer_report import label_of
from meshwalk.sim.world import World

HOSTS = [f"10.0.0.{number}" for number in range(1, 31)]


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    found = []
    for case in EXPERIMENT.cases(Size.QUICK, 1):
        settings = {**case.settings, "nodes": 36, "seconds": 150.0, "looks": 5}
        case = msgspec.structs.replace(case, settings=settings)
        found.append({"case": case.name, "seed": case.seed, **EXPERIMENT.run(case)})
    return found


@pytest.mark.parametrize("size", Size)
def test_cases(size: Size) -> None:
    cases = EXPERIMENT.cases(size, 7)
    assert len({case.name for case in cases}) == len(cases)
    assert {case.settings["trades"] for case in cases} == {False, True}
    assert msgspec.json.decode(msgspec.json.encode(cases), type=list[Case]) == cases


def test_regions_are_near_within_and_far_between() -> None:
    regions = Regions(1)
    assert {regions.of(host) for host in HOSTS} == set(range(REGIONS))
    rng = Random(1)
    for one in HOSTS:
        for other in HOSTS:
            trip_s = regions.round_trip_s(one, other)
            assert trip_s == regions.round_trip_s(other, one)
            if regions.of(one) == regions.of(other):
                assert trip_s == WITHIN_S
            else:
                assert BETWEEN_S[0] <= trip_s <= BETWEEN_S[1]
            there_s = regions.latency.delay_s(one, other, rng)
            assert there_s == pytest.approx(trip_s / 2, rel=0.11)
    assert Regions(1).round_trip_s(HOSTS[0], HOSTS[1]) != Regions(2).round_trip_s(*HOSTS[:2])


def test_full_networks_are_as_shipped_but_for_what_is_varied() -> None:
    full, quick = ({"trades": True, "randoms_least": 3, "is_quick": is_it} for is_it in (0, 1))
    assert config_of(full) == Config()
    assert config_of(quick) == QUICK
    assert config_of({**full, "trades": False}).trading.interval_s == NEVER_S
    assert config_of({**full, "randoms_least": 4}).overlay.random_min == 4


def test_rows(rows: list[Row]) -> None:
    assert msgspec.json.decode(msgspec.json.encode(rows)) == rows
    for row in rows:
        assert [look["at_s"] for look in row["looks"]] == [0, 30, 60, 90, 120, 150]
        for look in row["looks"]:
            assert look["links_least"] <= look["links"] <= look["links_most"] <= 10
            assert 1000 * WITHIN_S <= look["mean_ms"] <= 1000 * BETWEEN_S[1]
            assert look["p50_ms"] <= look["p95_ms"]
        assert [share for share, *_ in row["unrepaired"]] == list(SHARES)
        for _, mean, least, most in row["unrepaired"]:
            assert 0 < least <= mean <= most <= 1


def test_who_does_not_trade_stays_as_it_is(rows: list[Row]) -> None:
    first, *_, last = rows[0]["looks"]
    assert rows[0]["outcomes"] == {}
    assert last["mean_ms"] == pytest.approx(first["mean_ms"], rel=0.05)


def test_who_trades_gets_closer_and_nobody_is_left_with_too_little(rows: list[Row]) -> None:
    row = rows[1]
    first, *_, last = row["looks"]
    assert last["traded"] == row["outcomes"]["traded"] > 20
    assert last["mean_ms"] < 0.7 * first["mean_ms"]
    assert last["within"] > first["within"]
    for look in row["looks"]:
        assert look["below_minimum"] == 0
        assert look["randoms_least"] >= 3
        assert look["parts"] == 1


def grown() -> World:
    world = World(2, Regions(2).latency, encodes=False)
    world.grow(12)
    world.run(20)
    return world


def test_a_look_counts_links_and_those_who_lack_some() -> None:
    world = grown()
    regions = Regions(2)
    look = look_at(world, regions, 0.0)
    trips = [
        regions.round_trip_s(node.host, other.host)
        for node in world.nodes
        for other in world.nodes
        if other.id in node.neighbours
    ]
    assert look["mean_ms"] == pytest.approx(1000 * sum(trips) / len(trips))
    assert look["links"] == len(trips) / 12
    assert (look["below_minimum"], look["parts"]) == (0, 1)
    alone = world.add()
    look = look_at(world, regions, 0.0)
    assert alone.neighbours == []
    assert (look["below_minimum"], look["below_randoms"], look["parts"]) == (1, 1, 2)
    assert (look["links_least"], look["randoms_least"]) == (0, 0)


def test_failures_leave_the_network_as_it_was() -> None:
    world = grown()
    before = [node.neighbours for node in world.nodes]
    unrepaired(world, Random(1))
    found = repaired(world)
    assert [node.neighbours for node in world.nodes] == before
    assert all(node.is_up for node in world.nodes)
    if "fork" in multiprocessing.get_all_start_methods():
        assert [one["failed"] for one in found] == list(REPAIRED_SHARES)
        assert all(one["later"]["at_s"] <= REPAIR_S for one in found)
        assert found[0]["later"]["in_reach"] == 1


def test_what_cannot_be_copied_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multiprocessing, "get_all_start_methods", lambda: ["spawn"])
    assert repaired(grown()) == []


def test_tables(rows: list[Row]) -> None:
    tables = EXPERIMENT.tables(rows)
    trips, links, failures = tables
    assert [line[0] for line in links.rows] == [label_of(row) for row in rows]
    assert len(trips.rows) == 2 * len(rows)
    assert len(failures.rows) == len(SHARES) * len(rows)
    assert all(len(line) == len(table.columns) for table in tables for line in table.rows)
    assert trips.rows[3][4] == rows[1]["looks"][-1]["mean_ms"]
    assert [table.rows for table in EXPERIMENT.tables([])] == [[], [], []]


def test_plots(rows: list[Row]) -> None:
    plots = {plot.name: plot for plot in EXPERIMENT.plots(rows)}
    assert set(plots) == {"round-trips", "after-failures"}
    for plot in plots.values():
        assert [series.label for series in plot.series] == [label_of(row) for row in rows]
    assert list(plots["after-failures"].series[0].xs) == list(SHARES)
    assert EXPERIMENT.plots([]) == []
