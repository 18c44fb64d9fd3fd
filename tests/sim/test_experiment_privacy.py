"""The experiment privacy at small sizes, and how spies guess."""

from __future__ import annotations

import msgspec
import pytest

from meshwalk.sim.experiment import Case, Row, Size
from meshwalk.sim.experiments.privacy import EXPERIMENT, SPIES, Mode, Plan, case_of
from meshwalk.sim.experiments.privacy_guesses import Network, Seen, all_ways, first_spy, precision
from meshwalk.sim.experiments.privacy_report import Guess, chance
from meshwalk.sim.latency import Constant
from meshwalk.sim.world import World
from meshwalk.wire.peerid import PeerId


def row_of(mode: Mode) -> Row:
    return EXPERIMENT.run(case_of(Plan(str(mode), 30, 12), 1))


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return [row_of(mode) for mode in Mode]


@pytest.fixture(scope="module")
def ring() -> World:
    """Nodes 0 to 5, each linked with all others; every link takes 10 ms."""
    world = World(latency=Constant(0.01), encodes=False)
    world.grow(6)
    world.run(10)
    return world


@pytest.mark.parametrize("size", Size)
def test_cases(size: Size) -> None:
    cases = EXPERIMENT.cases(size, 7)
    assert len({case.name for case in cases}) == len(cases)
    assert {case.settings["mode"] for case in cases} == set(Mode)
    assert msgspec.json.decode(msgspec.json.encode(cases), type=list[Case]) == cases


def test_everybody_hears_all_of_it(rows: list[Row]) -> None:
    for row in rows:
        assert row["broadcasts"] == 12
        assert row["missed"] == row["embargoes_ended"] == 0
        assert [guesses["share"] for guesses in row["guesses"]] == list(SPIES)


def test_stems_are_walked_only_where_there_are_some(rows: list[Row]) -> None:
    none, by_chance, by_hops = rows
    assert none["stem_hops_max"] == 0
    assert none["guesses"][-1]["saw_stem"] == 0
    assert by_chance["stem_hops_mean"] > 2
    assert 1 <= by_hops["stem_hops_max"] <= 10
    assert none["first_ms"] < by_hops["first_ms"]
    assert by_chance["guesses"][-1]["saw_stem"] > 0


def test_the_same_case_gives_the_same_row(rows: list[Row]) -> None:
    assert msgspec.json.decode(msgspec.json.encode(rows)) == rows
    assert row_of(Mode.CHANCE) == rows[1]


# Guesses.


def test_the_first_spy_names_who_sent_first(ring: World) -> None:
    a, b = ring.nodes[0].id, ring.nodes[1].id
    assert first_spy([Seen(1.0, 0, a), Seen(2.0, 1, b)]) == a
    assert first_spy([]) is None


def test_all_ways_name_the_sender_of_a_stem_before_all(ring: World) -> None:
    a, b = ring.nodes[0].id, ring.nodes[1].id
    seen = [Seen(1.0, 0, a, hops=0), Seen(2.0, 1, b, is_stem=True)]
    assert all_ways(seen, Network(ring), set()) == b


def test_all_ways_name_whom_a_copy_comes_from_that_has_crossed_no_link(ring: World) -> None:
    a, b = ring.nodes[0].id, ring.nodes[1].id
    seen = [Seen(1.0, 0, a, hops=1, way_s=0.01), Seen(2.0, 1, b, hops=0)]
    assert all_ways(seen, Network(ring), set()) == b


def test_all_ways_name_the_node_that_all_ways_fit() -> None:
    """Six in a row, 10 ms each; spies have copies of 1, 4 and 5, which say how far they came."""
    network = Network(World())
    row = [PeerId(bytes([number]) * 32) for number in range(6)]
    network.nodes = row
    network._links = {
        peer: [(row[n], 0.01) for n in (place - 1, place + 1) if 0 <= n < 6]
        for place, peer in enumerate(row)
    }
    seen = [
        Seen(0.02, 0, row[1], hops=1, way_s=0.01),
        Seen(0.03, 1, row[4], hops=2, way_s=0.02),
        Seen(0.04, 2, row[5], hops=3, way_s=0.03),
    ]
    assert all_ways(seen, network, set()) == row[2]
    assert network.hops(row[0])[row[5]] == 5
    assert network.ways_s(row[0])[row[5]] == pytest.approx(0.05)
    assert all_ways(seen, network, {row[2]}) != row[2], "a spy is not the origin"


def test_precision_is_shared_by_all_that_one_is_named_for() -> None:
    a, b, c = (PeerId(bytes([number]) * 32) for number in range(3))
    assert precision([(a, a), (b, b), (c, c)]) == 1
    assert precision([(a, a), (b, a), (c, a)]) == pytest.approx(1 / 9)
    assert precision([(a, b), (b, None)]) == 0


def test_a_chance_and_its_interval() -> None:
    share, low, high = chance(0, 10)
    assert (share, low) == (0.0, 0.0)
    assert high == pytest.approx(0.2775, abs=1e-4)  # Wilson's interval for 0 of 10


def test_tables_and_plots(rows: list[Row]) -> None:
    tables = EXPERIMENT.tables(rows)
    assert [len(table.rows) for table in tables] == [len(Mode) * len(SPIES), len(Mode)]
    for table in tables:
        assert all(len(line) == len(table.columns) for line in table.rows)
    (plot,) = EXPERIMENT.plots(rows)
    assert len({series.label for series in plot.series}) == len(Mode) * len(Guess) + 1
    assert EXPERIMENT.tables([]) == []
    assert EXPERIMENT.plots([]) == []
