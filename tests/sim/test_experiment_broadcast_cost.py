"""The experiment broadcast-cost at small sizes: its measures, and its rows, tables and plots."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from meshwalk.sim.experiment import Case, Row, Size
from meshwalk.sim.experiments.broadcast_cost import (
    EXPERIMENT,
    Round,
    kind_of,
    one_round,
    redundancy,
    summed,
)
from meshwalk.sim.experiments.broadcast_cost_report import ABOUT, COPIES, LINKS, PINGS, Pattern
from meshwalk.sim.latency import Constant
from meshwalk.sim.world import World
from meshwalk.wire.frames import Channel, Close, Frame, Hello, Message, Ping, Pong, Purpose
from meshwalk.wire.messages import Broadcast, encode


def row_of(pattern: Pattern, nodes: int = 20, rounds: int = 2, seed: int = 1) -> Row:
    settings = {"pattern": str(pattern), "nodes": nodes, "rounds": rounds}
    return EXPERIMENT.run(Case(f"{pattern} {nodes}", settings, seed))


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return [row_of(pattern, nodes) for pattern in Pattern for nodes in (12, 20)]


@pytest.mark.parametrize("size", Size)
def test_cases(size: Size) -> None:
    cases = EXPERIMENT.cases(size, 7)
    assert len({case.name for case in cases}) == len(cases)
    assert {case.settings["pattern"] for case in cases} == set(Pattern)
    assert all(case.seed >= 7 for case in cases)
    assert msgspec.json.decode(msgspec.json.encode(cases), type=list[Case]) == cases


def complete(nodes: int) -> World:
    """A network in which everybody is everybody's neighbour, and all links take 10 ms."""
    world = World(latency=Constant(0.01), encodes=False)
    world.grow(nodes)
    world.run(10)
    assert all(len(node.neighbours) == nodes - 1 for node in world.nodes)
    return world


def test_a_flood_of_a_known_graph() -> None:
    """Six nodes, all linked: the sender sends 5 copies, each of the others 4. RMR is 25/5 - 1."""
    world = complete(6)
    found = one_round(world, [world.nodes[2]], b"x")
    assert found.sent[COPIES] == 5 + 5 * 4
    row = summed([found])
    assert row["rmr"] == 4
    assert row["ldh_max"] == row["ldh_mean"] == 1
    assert row["deliveries"] == 5
    assert row["control_per_broadcast"] == 0
    assert [delay for _, delay in row["delay_ms"]] == pytest.approx([10] * len(row["delay_ms"]))


def test_all_at_once_counts_each_broadcast() -> None:
    world = complete(6)
    row = summed([one_round(world, world.nodes, b"x"), one_round(world, world.nodes[:1], b"y")])
    assert (row["broadcasts"], row["deliveries"]) == (7, 35)
    assert row["copies_per_broadcast"] == 25
    assert row["rmr_by_round"] == [4, 4]
    assert row["ldh_by_round"] == [1, 1]


@pytest.mark.parametrize("pattern", Pattern)
def test_what_floods_costs_every_link_twice_but_for_a_tree(pattern: Pattern) -> None:
    """Everyone sends over all links but the one it came from: 2L - (n - 1) copies for L links,
    whatever way they take; so RMR is 2L / (n - 1) - 2. Holds as long as broadcasts are floods."""
    row = row_of(pattern, 30)
    assert row["rmr"] == pytest.approx(30 * row["links"] / 29 - 2)
    assert row["deliveries"] == row["broadcasts"] * 29


def test_a_node_that_is_missed_ends_the_round_late_and_raises_the_redundancy() -> None:
    world = complete(6)
    world.crash(world.nodes[5], silently=True)
    found = one_round(world, [world.nodes[0]], b"x")
    assert world.now == pytest.approx(found.began_at + 5 + 1)
    assert len(found.delays_s) == 4
    assert summed([found])["rmr"] == (5 + 4 * 4) / 4 - 1


def test_late_deliveries_do_not_count_in_the_next_round() -> None:
    world = complete(6)
    world.conditions.clog_host(world.nodes[5].host)
    one_round(world, world.nodes[:1], b"x")
    world.conditions.heal()
    world.changed()
    world.run(30)  # the silent one was given up meanwhile, and comes back
    later = one_round(world, world.nodes[1:2], b"y")
    assert len(later.delays_s) == 5
    assert list(later.last_hops) == [bytes(world.nodes[1].id)]


def message(channel: Channel, body: bytes) -> Message:
    return Message(1, 0, channel, body)


@pytest.mark.parametrize(
    ("frame", "kind"),
    [
        (message(Channel.BROADCAST, encode(Broadcast(b"payload", bytes(64), 1))), COPIES),
        (message(Channel.BROADCAST, msgspec.msgpack.encode([2, b"I have it"])), ABOUT),
        (message(Channel.OVERLAY, b""), "overlay"),
        (message(Channel.APPLICATION, b""), "application"),
        (Ping(1, 0), PINGS),
        (Pong(1, 0, 0, 0), PINGS),
        (Hello(1, Purpose.STANDING, 0, ""), LINKS),
        (Close(0), LINKS),
    ],
)
def test_frames_are_told_apart(frame: Frame, kind: str) -> None:
    assert kind_of(frame) == kind
    world = World()
    node = world.add()
    counted = Round([node], b"", 0)
    assert counted.sends(node, 1, frame) == [frame]
    counted.sends(node, 2, frame)
    counted.sends(node, 2, Ping(7, 0))
    counted.sends(node, 2, frame)
    assert counted.sent[kind] == 3 + (kind == PINGS)


def test_measures_of_nothing() -> None:
    assert redundancy(3, 0) is None
    assert redundancy(3, 3) == 0


def test_rows_are_plain_and_repeatable(rows: list[Row]) -> None:
    assert msgspec.json.decode(msgspec.json.encode(rows)) == rows
    assert row_of(Pattern.MANY, 12) == row_of(Pattern.MANY, 12)


def test_tables_are_rectangular(rows: list[Row]) -> None:
    tables = EXPERIMENT.tables([*rows, row_of(Pattern.ALL, seed=2)])
    assert len({table.title for table in tables}) == len(tables) == 3
    for table in tables:
        assert all(len(row) == len(table.columns) for row in table.rows)
    cost = {
        (row[0], row[1]): dict(zip(tables[0].columns, row, strict=True)) for row in tables[0].rows
    }
    assert cost["all at once", 20]["broadcasts"] == 2 * 2 * 20
    assert cost["all at once", 20]["reached (%)"] == 100
    assert cost["iroh-gossip, one sender (ceiling)", 100]["RMR"] == 0.2


def test_plots(rows: list[Row]) -> None:
    plots = {plot.name: plot for plot in EXPERIMENT.plots(rows)}
    assert set(plots) == {"redundancy", "delays"}
    for plot in plots.values():
        assert len({series.label for series in plot.series}) == len(plot.series)
        assert all(len(series.xs) == len(series.ys) for series in plot.series)
    assert all(list(s.xs) == sorted(s.xs) for s in plots["delays"].series)


@pytest.mark.parametrize("chosen", [[], [0]], ids=["nothing", "one"])
def test_some_rows_are_enough(rows: list[Row], chosen: list[int]) -> None:
    few: list[dict[str, Any]] = [rows[place] for place in chosen]
    assert bool(EXPERIMENT.tables(few)) == bool(chosen)
    assert bool(EXPERIMENT.plots(few)) == bool(chosen)
