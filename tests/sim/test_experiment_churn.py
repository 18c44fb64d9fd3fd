"""The experiment churn at small sizes: who leaves and joins, what is seen, and what it becomes."""

from __future__ import annotations

import msgspec
import pytest

from meshwalk.sim.experiment import Case, Row, Size
from meshwalk.sim.experiments.churn import (
    EXPERIMENT,
    LOOKS,
    VARIANTS,
    Churn,
    Leaving,
    book_entries,
    links_among,
)
from meshwalk.sim.experiments.churn_report import ANY, ONE, label_of, later
from meshwalk.sim.node import SimNode
from meshwalk.sim.world import World
from meshwalk.wire.peerid import PeerId

NODES = 20
MINUTES = 2


def row_of(leaving: Leaving, entry: str, share: float = 0.2, seed: int = 1) -> Row:
    settings = {
        "nodes": NODES,
        "minutes": MINUTES,
        "share": share,
        "leaving": str(leaving),
        "entry": entry,
    }
    case = Case(f"{share} {leaving} {entry}", settings, seed)
    return {"case": case.name, "seed": seed, **EXPERIMENT.run(case)}


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return [row_of(leaving, entry) for leaving, entry in VARIANTS]


def settled(nodes: int = NODES) -> World:
    world = World(seed=3, encodes=False)
    world.grow(nodes)
    world.run(10)
    return world


@pytest.mark.parametrize("size", Size)
def test_cases(size: Size) -> None:
    cases = EXPERIMENT.cases(size, 7)
    assert len({case.name for case in cases}) == len(cases)
    assert {case.settings["share"] for case in cases} == {0.01, 0.1}
    assert msgspec.json.decode(msgspec.json.encode(cases), type=list[Case]) == cases


def test_rows(rows: list[Row]) -> None:
    assert msgspec.json.decode(msgspec.json.encode(rows)) == rows
    for row in rows:
        assert sum(row["left"].values()) == 0.2 * NODES * MINUTES
        assert len(row["broadcasts"]) == MINUTES
        assert len(row["looks"]) == MINUTES * LOOKS
        assert [look["at_s"] for look in row["looks"][:3]] == [0, 10, 20]
        assert row["looks"][0]["members"] == NODES
        assert row["looks"][0]["parts"] == 1
        assert row["looks"][0]["stale"] == 0
        for broadcast in row["broadcasts"]:
            assert 0 <= broadcast["missed_new"] <= broadcast["missed"] <= broadcast["counted"]
            assert broadcast["reliability"] == 1 - broadcast["missed"] / broadcast["counted"]
        # Who came in the last half minute may still be on the way, and is not counted.
        assert 0 < row["newcomers"] <= 8
    assert set(rows[0]["left"]) == {"crashed", "said goodbye"}
    assert set(rows[1]["left"]) == {"vanished"}


def test_the_same_case_gives_the_same_row(rows: list[Row]) -> None:
    assert row_of(*VARIANTS[0]) == rows[0]


def test_only_the_vanished_leave_dead_links_behind(rows: list[Row]) -> None:
    """A broken pipe is seen within a latency; silence, after 15 seconds."""
    broken, silent = (max(look["dead_links"] for look in row["looks"]) for row in rows[:2])
    assert broken < 0.01 < silent


def test_books_go_stale(rows: list[Row]) -> None:
    for row in rows:
        assert row["looks"][-1]["stale"] > 0.1


def test_one_entry_never_leaves_and_lets_everybody_in(monkeypatch: pytest.MonkeyPatch) -> None:
    world = settled()
    entry = world.nodes[0]
    churn = Churn(world, Leaving.MIXED, ONE)
    churn.draw(1.0, 1)
    used: list[SimNode] = []
    join = SimNode.join

    def noting(node: SimNode, other: SimNode, expected: PeerId | None = None) -> None:
        used.append(other)
        join(node, other, expected)

    monkeypatch.setattr(SimNode, "join", noting)
    churn.minute()
    assert entry in churn.members
    assert entry.is_up
    assert used == [entry] * NODES
    assert sum(churn.left.values()) == NODES


def test_members_are_who_is_up() -> None:
    world = settled()
    churn = Churn(world, Leaving.MIXED, ANY)
    churn.draw(0.5, 1)
    churn.minute()
    up = {node for node in world.nodes if node.is_up and not node.is_leaving}
    assert set(churn.members) == up
    assert len(churn.members) == NODES


def test_a_broadcast_is_counted_for_those_who_had_a_link_and_stayed() -> None:
    world = settled()
    alone = world.add()  # nobody told it of anybody: it has no link, and misses nothing
    churn = Churn(world, Leaving.MIXED, ANY)
    churn.minute()
    assert alone in churn.members
    assert churn.broadcasts == [
        {"counted": NODES, "reliability": 1.0, "missed": 0, "missed_new": 0}
    ]
    assert churn.looks[-1]["without_link"] == 1
    assert churn.looks[-1]["parts"] == 2
    assert churn.looks[-1]["linked_parts"] == 1


def test_who_misses_a_broadcast_is_counted() -> None:
    world = settled()
    cut_off = world.nodes[7]
    churn = Churn(world, Leaving.MIXED, ANY)
    world.conditions.partition([cut_off.host])
    churn.minute()
    assert churn.broadcasts[0]["counted"] == NODES
    assert churn.broadcasts[0]["missed"] in (1, NODES - 1), "or it was the sender"


def test_links_with_the_gone_do_not_count() -> None:
    world = settled(4)
    everyone = list(world.nodes)
    gone = everyone.pop()
    world.crash(gone, silently=True)
    assert [len(mine) for mine in links_among(everyone)] == [2, 2, 2]
    assert len(everyone[0].neighbours) == 3
    assert book_entries(everyone) == (9, 3)


def test_tables(rows: list[Row]) -> None:
    for table in EXPERIMENT.tables(rows):
        assert [line[1] for line in table.rows] == [label_of(row) for row in rows]
        assert all(len(line) == len(table.columns) for line in table.rows)
    broadcasts = EXPERIMENT.tables(rows)[0]
    assert broadcasts.rows[0][4] == sum(rows[0]["left"].values())
    assert EXPERIMENT.tables([])[0].rows == []


def test_later_leaves_out_the_beginning(rows: list[Row]) -> None:
    looks = [{"at_s": 0.0}, {"at_s": 119.0}, {"at_s": 120.0}]
    assert later({"looks": looks}) == looks[2:]
    assert later(rows[0]) == rows[0]["looks"], "it is all that there is"


def test_plots(rows: list[Row]) -> None:
    plots = {plot.name: plot for plot in EXPERIMENT.plots(rows)}
    assert set(plots) == {"reliability", "links", "below-minimum", "parts", "stale"}
    for plot in plots.values():
        assert [series.label for series in plot.series] == [label_of(row) for row in rows]
        assert all(list(series.xs) == [0, 1] for series in plot.series)
    assert EXPERIMENT.plots([]) == []
