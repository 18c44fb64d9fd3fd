"""The experiment detection at small sizes: who is slow, who goes, and what is noted of it."""

from __future__ import annotations

import msgspec
import pytest

from meshwalk.events import NeighbourDown
from meshwalk.proto.effects import Happened
from meshwalk.sim.experiment import Case, Row, Size
from meshwalk.sim.experiments.detection import (
    EXPERIMENT,
    FIXED_S,
    RULES,
    STOPS_FOR_S,
    Slow,
    Slowness,
    Watch,
)
from meshwalk.sim.experiments.detection_report import (
    AT_ONCE,
    CALM,
    LOSSY,
    MAIN,
    SHIPPED,
    SLOW,
    SUSPENDED,
    VANISHED,
)
from meshwalk.sim.latency import Constant
from meshwalk.sim.node import SimNode
from meshwalk.sim.world import World

NODES = 20
WAYS = (VANISHED, SUSPENDED, AT_ONCE)


def row_of(condition: str, rule: str, seed: int = 1) -> Row:
    settings = {"nodes": NODES, "watch_s": 60.0, "condition": condition, "rule": rule}
    case = Case(f"{condition} {rule}", settings, seed)
    return {"case": case.name, "seed": seed, **EXPERIMENT.run(case)}


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return [row_of(SLOW, rule) for rule in MAIN] + [row_of(LOSSY, SHIPPED), row_of(CALM, SHIPPED)]


def settled(nodes: int = 10) -> World:
    world = World(3, Constant(0.02), encodes=False)
    world.grow(nodes)
    world.run(10)
    return world


@pytest.mark.parametrize("size", Size)
def test_cases(size: Size) -> None:
    cases = EXPERIMENT.cases(size, 7)
    assert len({case.name for case in cases}) == len(cases)
    assert {case.settings["rule"] for case in cases} <= set(RULES)
    assert msgspec.json.decode(msgspec.json.encode(cases), type=list[Case]) == cases


def test_rows(rows: list[Row]) -> None:
    assert msgspec.json.decode(msgspec.json.encode(rows)) == rows
    for row in rows:
        assert row["link_hours"] == pytest.approx(row["links"] * NODES / 2 * 60 / 3600)
        assert set(row["dropped"]) == set(WAYS)
        assert row["missed"] == {}, "all are noticed in the end"
        for times in row["dropped"].values():
            assert times == sorted(times)
            assert min(times) > 0
        assert 0 < row["pings"] <= row["frames"]


def test_the_same_case_gives_the_same_row(rows: list[Row]) -> None:
    assert row_of(SLOW, SHIPPED) == rows[0]


def mean(row: Row, how: str) -> float:
    times = row["dropped"][how]
    return float(sum(times) / len(times))


def test_asking_others_is_quicker_than_the_idle_time_out(rows: list[Row]) -> None:
    shipped, alone, idle = rows[:3]
    for how in WAYS:
        assert mean(shipped, how) < 0.8 * mean(idle, how)
        assert mean(alone, how) == pytest.approx(mean(idle, how), rel=0.1)


def test_nobody_is_suspect_where_nobody_is_slow(rows: list[Row]) -> None:
    assert rows[-1]["suspicions"] == {}
    assert rows[-1]["given_up"] == 0


def test_only_the_idle_time_out_suspects_nobody(rows: list[Row]) -> None:
    assert rows[2]["suspicions"] == {}


# Slow nodes.


def test_the_slow_are_slow_in_turn() -> None:
    world = settled()
    slow = Slow(world, share=0.6)
    assert sorted(way.name for way in slow.nodes.values()) == sorted(
        2 * [way.name for way in Slowness]
    )
    far = next(node for node, way in slow.nodes.items() if way is Slowness.FAR)
    other = next(node for node in world.nodes if node not in slow.nodes)
    assert world.delay_s(far, other) == world.delay_s(other, far) == 0.02 + FIXED_S


def test_the_changing_take_another_time_each_second() -> None:
    world = settled()
    slow = Slow(world, share=0.3)
    node = next(node for node, way in slow.nodes.items() if way is Slowness.CHANGING)
    other = next(node for node in world.nodes if node not in slow.nodes)
    delays = set()
    for _ in range(5):
        delays.add(world.delay_s(node, other))
        world.run(1)
    assert len(delays) == 5


def test_the_stopping_stand_still_for_a_while_and_go_on() -> None:
    world = settled()
    slow = Slow(world, share=0.3)
    node = next(node for node, way in slow.nodes.items() if way is Slowness.STOPPING)
    assert world.run_until(lambda: node.is_asleep, 300)
    began_at = world.now
    assert world.run_until(lambda: not node.is_asleep, 5)
    assert STOPS_FOR_S[0] - 0.1 <= world.now - began_at <= STOPS_FOR_S[1] + 0.1


# What is noted.


def down(node: SimNode, peer: SimNode, reason: str, *, by_us: bool) -> Happened:
    return Happened(NeighbourDown(peer.id, reason, by_us, 1))


def test_links_between_live_nodes_that_are_closed_as_idle_are_mistakes() -> None:
    world = settled()
    watch = Watch()
    one, other = world.nodes[:2]
    watch.told(one, down(one, other, "idle: nothing heard for too long", by_us=True))
    watch.told(other, down(other, one, "idle: nothing heard for too long", by_us=False))
    watch.told(one, down(one, other, "split", by_us=True))
    watch.told(one, down(one, other, "lost: broken", by_us=False))
    assert watch.given_up == 1
    assert watch.dropped() == {}


def test_dropping_who_is_gone_is_timed_and_no_mistake() -> None:
    world = settled()
    watch = world.observer = Watch()
    gone = world.nodes[4]
    neighbours = [node for node in world.nodes if gone.id in node.neighbours]
    watch.goes(gone, VANISHED)
    world.crash(gone, silently=True)
    assert watch.missed() == {VANISHED: len(neighbours)}
    world.run(20)
    assert watch.missed() == {}
    assert len(watch.dropped()[VANISHED]) == len(neighbours)
    assert watch.given_up == 0


def test_what_the_gone_believe_does_not_matter() -> None:
    world = settled()
    watch = world.observer = Watch()
    first, second = world.nodes[0], world.nodes[1]
    assert second.id in first.neighbours
    watch.goes(first, VANISHED)
    before = watch.missed()[VANISHED]
    watch.goes(second, SUSPENDED)
    assert watch.missed()[VANISHED] == before - 1
    watch.told(second, down(second, first, "idle", by_us=True))
    assert watch.given_up == 0
    assert watch.dropped() == {}


# What it becomes.


def test_tables(rows: list[Row]) -> None:
    times, mistakes = EXPERIMENT.tables(rows)
    assert len(times.rows) == len(WAYS) * len(rows)
    assert [line[:2] for line in mistakes.rows] == [[row["condition"], row["rule"]] for row in rows]
    assert all(len(line) == len(t.columns) for t in (times, mistakes) for line in t.rows)
    assert times.rows[0][4] == pytest.approx(mean(rows[0], VANISHED))
    assert times.rows[0][7] == max(rows[0]["dropped"][VANISHED])
    assert [table.rows for table in EXPERIMENT.tables([])] == [[], []]


def test_plots(rows: list[Row]) -> None:
    plots = {plot.name: plot for plot in EXPERIMENT.plots(rows)}
    assert set(plots) == {"times-calm", "times-slow", "times-lossy"}
    assert [series.label for series in plots["times-slow"].series] == list(MAIN)
    for series in plots["times-slow"].series:
        assert list(series.xs) == sorted(series.xs)
        assert series.ys[-1] == 1
    assert EXPERIMENT.plots([]) == []
