"""The experiment broadcast-cost at small sizes: its measures, and its rows, tables and plots."""

from __future__ import annotations

from random import Random
from typing import Any

import msgspec
import pytest

from meshwalk.config import BroadcastConfig, Config, Spreading
from meshwalk.events import Delivery
from meshwalk.sim.experiment import Case, Row, Size
from meshwalk.sim.experiments.broadcast_cost import (
    EXPERIMENT,
    FLOOD,
    TREE,
    Counting,
    Course,
    Plan,
    Round,
    case_of,
    kind_of,
    redundancy,
    summed,
)
from meshwalk.sim.experiments.broadcast_cost_report import (
    ABOUT,
    COPIES,
    LINKS,
    PINGS,
    Pattern,
    ceilings,
)
from meshwalk.sim.latency import Constant
from meshwalk.sim.world import World
from meshwalk.wire.frames import (
    Channel,
    Close,
    ContentType,
    Frame,
    Hello,
    Message,
    Ping,
    Pong,
    Purpose,
)
from meshwalk.wire.gossip import Broadcast, Prune, encode_gossip


def row_of(
    pattern: Pattern,
    nodes: int = 20,
    rounds: int = 2,
    seed: int = 1,
    spreading: str = TREE,
    loss: float = 0.0,
    churn: float = 0.0,
) -> Row:
    plan = Plan(str(pattern), nodes, rounds, spreading, loss, churn)
    return EXPERIMENT.run(case_of(plan, seed))


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


def complete(nodes: int, spreading: Spreading = Spreading.FLOOD) -> Course:
    """A network in which everybody is everybody's neighbour, and all links take 10 ms."""
    world = World(latency=Constant(0.01), encodes=False)
    world.grow(nodes, Config(broadcast=BroadcastConfig(spreading=spreading)))
    world.run(10)
    assert all(len(node.neighbours) == nodes - 1 for node in world.nodes)
    return Course(world, Random(1))


def test_a_flood_of_a_known_graph() -> None:
    """Six nodes, all linked: the sender sends 5 copies, each of the others 4. RMR is 25/5 - 1."""
    course = complete(6)
    found = course.one_round([course.members[2]], b"x")
    assert found.sent[COPIES] == 5 + 5 * 4
    row = summed([found])
    assert row["rmr"] == 4
    assert row["ldh_max"] == row["ldh_mean"] == 1
    assert row["deliveries"] == row["expected"] == 5
    assert row["control_per_broadcast"] == row["missed"] == 0
    assert row["copy_bytes_per_broadcast"] > 25 * 100
    assert [delay for _, delay in row["delay_ms"]] == pytest.approx([10] * len(row["delay_ms"]))


def test_a_tree_of_a_known_graph() -> None:
    """Links begin as branches only while an end has few: the first broadcast costs less than a
    flood, and leaves a star; the second is one copy for each node."""
    course = complete(6, Spreading.TREE)
    sender = course.members[:1]
    first, second = course.one_round(sender, b"x"), course.one_round(sender, b"y")
    assert 5 < first.sent[COPIES] < 25
    assert second.sent[COPIES] == 5
    row = summed([first, second])
    assert row["rmr_by_round"] == [first.sent[COPIES] / 5 - 1, 0]
    assert row["missed"] == 0
    assert row["control_bytes_per_broadcast"] > row["control_per_broadcast"] > 0


def test_all_at_once_counts_each_broadcast() -> None:
    course = complete(6)
    rounds = [course.one_round(course.members, b"x"), course.one_round(course.members[:1], b"y")]
    row = summed(rounds)
    assert (row["broadcasts"], row["deliveries"]) == (7, 35)
    assert row["copies_per_broadcast"] == 25
    assert row["rmr_by_round"] == [4, 4]
    assert row["ldh_by_round"] == [1, 1]


@pytest.mark.parametrize("pattern", Pattern)
def test_what_floods_costs_every_link_twice_but_for_a_tree(pattern: Pattern) -> None:
    """Everyone sends over all links but the one it came from: 2L - (n - 1) copies for L links,
    whatever way they take; so RMR is 2L / (n - 1) - 2."""
    row = row_of(pattern, 30, spreading=FLOOD)
    assert row["rmr"] == pytest.approx(30 * row["links"] / 29 - 2)
    assert row["deliveries"] == row["broadcasts"] * 29
    assert row["missed"] == 0


@pytest.mark.parametrize("pattern", [Pattern.ONE, Pattern.MANY])
def test_a_tree_that_has_grown_costs_one_copy_for_each_node(pattern: Pattern) -> None:
    row = row_of(pattern, 30, rounds=8)
    assert row["missed"] == 0
    first, *_, last_but_one, last = row["rmr_by_round"]
    assert 1 < first < 30 * row["links"] / 29 - 2, "not even the first is a flood"
    # In between, branches are moved to shorter ways, which costs some copies.
    assert max(last_but_one, last) < 0.1


@pytest.mark.parametrize(("loss", "churn"), [(0.05, 0.0), (0.0, 0.5)])
def test_nobody_who_stays_misses_anything(loss: float, churn: float) -> None:
    calm = row_of(Pattern.MANY, 15, rounds=3)
    row = row_of(Pattern.MANY, 15, rounds=3, loss=loss, churn=churn)
    assert row["missed_for_good"] == 0
    assert row["last_ms"] > calm["last_ms"]
    assert bool(row["left"]) == bool(churn)


def test_a_node_that_is_missed_ends_the_round_late_and_raises_the_redundancy() -> None:
    course = complete(6)
    course.world.crash(course.members[5], silently=True)
    found = course.one_round([course.members[0]], b"x")
    assert course.world.now == pytest.approx(found.began_at + 5 + 1)
    assert len(found.delays_s) == 4
    row = summed([found])
    assert row["rmr"] == (5 + 4 * 4) / 4 - 1
    assert row["missed"] == 1


def test_late_deliveries_do_not_count_in_the_next_round() -> None:
    course = complete(6, Spreading.TREE)
    world = course.world
    world.conditions.clog_host(world.nodes[5].host)
    first = course.one_round(world.nodes[:1], b"x")
    assert first.missed == 1
    world.conditions.heal()
    world.changed()
    world.run(30)  # the silent one was given up meanwhile, and comes back
    later = course.one_round(world.nodes[1:2], b"y")
    assert len(first.delays_s) == 4
    assert len(later.delays_s) == 5
    assert list(later.last_hops) == [bytes(world.nodes[1].id)]


def test_what_is_delivered_again_in_order_counts_once() -> None:
    world = World()
    sender, node = world.add(), world.add()
    counted = Round([sender], world.nodes, 0.0)
    delivery = Delivery(sender.id, b"x", ContentType.BYTES, is_broadcast=True)
    counted.delivered(node, delivery)
    counted.delivered(node, delivery)
    assert len(counted.delays_s) == 1
    assert counted.still_missing(world.nodes) == 0


def message(channel: Channel, body: bytes) -> Message:
    return Message(1, 0, channel, body)


@pytest.mark.parametrize(
    ("frame", "kind"),
    [
        (message(Channel.BROADCAST, encode_gossip(Broadcast(b"payload", bytes(64), 1))), COPIES),
        (message(Channel.BROADCAST, encode_gossip(Prune())), ABOUT),
        (message(Channel.BROADCAST, b"\xff"), ABOUT),
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
    counting = Counting()
    assert counting.sends(node, 1, frame) == [frame], "between rounds nothing is counted"
    counted = counting.current = Round([node], [node], 0)
    assert counting.sends(node, 1, frame) == [frame]
    counting.sends(node, 2, frame)
    counting.sends(node, 2, Ping(7, 0))
    counting.sends(node, 2, frame)
    assert counted.sent[kind] == 3 + (kind == PINGS)


def test_measures_of_nothing() -> None:
    assert redundancy(3, 0) is None
    assert redundancy(3, 3) == 0


def test_rows_are_plain_and_repeatable(rows: list[Row]) -> None:
    assert msgspec.json.decode(msgspec.json.encode(rows)) == rows
    assert row_of(Pattern.MANY, 12) == row_of(Pattern.MANY, 12)


def test_ceilings_grow_with_the_hops() -> None:
    assert ceilings("one sender", 100) == pytest.approx((0.2, 15))
    assert ceilings("one sender", 10_000) == pytest.approx((0.2, 30))
    assert ceilings("all at once", 20)[1] < 20


def test_tables_are_rectangular(rows: list[Row]) -> None:
    tables = EXPERIMENT.tables([*rows, row_of(Pattern.ALL, seed=2)])
    assert len({table.title for table in tables}) == len(tables) == 4
    for table in tables:
        assert all(len(row) == len(table.columns) for row in table.rows)
    cost = {
        (row[0], row[1]): dict(zip(tables[0].columns, row, strict=True)) for row in tables[0].rows
    }
    assert cost["all at once", 20]["broadcasts"] == 2 * 2 * 20
    assert cost["all at once", 20]["deliveries missed"] == 0
    assert cost["iroh-gossip, one sender (ceiling)", 100]["RMR"] == 0.2


def test_plots(rows: list[Row]) -> None:
    plots = {plot.name: plot for plot in EXPERIMENT.plots(rows)}
    assert set(plots) == {"redundancy", "delays", "delays-lossy"}
    for plot in plots.values():
        assert len({series.label for series in plot.series}) == len(plot.series)
        assert all(len(series.xs) == len(series.ys) for series in plot.series)
    assert all(list(s.xs) == sorted(s.xs) for s in plots["delays"].series)


@pytest.mark.parametrize("chosen", [[], [0]], ids=["nothing", "one"])
def test_some_rows_are_enough(rows: list[Row], chosen: list[int]) -> None:
    few: list[dict[str, Any]] = [rows[place] for place in chosen]
    assert bool(EXPERIMENT.tables(few)) == bool(chosen)
    assert bool(EXPERIMENT.plots(few)) == bool(chosen)
