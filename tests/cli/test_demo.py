"""The demonstration: its drawing as text, and a small run of it in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from itertools import pairwise

import pytest
from rich.cells import cell_len
from rich.console import Console, RenderableType

from meshwalk.cli.demo import demo
from meshwalk.cli.demo_view import (
    SIDE_WIDTH,
    Claim,
    NodeState,
    Phase,
    PhaseState,
    Scene,
    drawing,
    duration,
    histogram,
    line,
    positions,
    screen,
    side,
    summary,
)
from meshwalk.errors import InvalidArgument

RUN = "from meshwalk.cli.demo import demo; raise SystemExit(demo({nodes}, {kill}, {json}, 7))"


def scene(count: int = 4, **more: object) -> Scene:
    links = {(a, b): 9.0 for b in range(count) for a in range(b)}
    fields: dict[str, object] = {
        "nodes": [NodeState.ENOUGH] * count,
        "links": links,
        "phases": [Phase("join", PhaseState.OK, 1.5), Phase("mend")],
        "components": [count],
        "news": ["something", "x" * 200],
    }
    return Scene(**{**fields, **more})  # type: ignore[arg-type]


def shown(what: RenderableType, width: int = 80) -> list[str]:
    console = Console(width=width, force_terminal=True, color_system=None)
    with console.capture() as capture:
        console.print(what)
    return capture.get().splitlines()


@pytest.mark.parametrize(("width", "height"), [(80, 24), (100, 30), (300, 100)])
@pytest.mark.parametrize("nodes", [2, 30, 100])
def test_the_screen_fits_the_terminal(nodes: int, width: int, height: int) -> None:
    lines = shown(screen(scene(nodes), width, height), width)
    assert len(lines) < height
    assert max(map(cell_len, lines)) <= width


def test_all_that_is_counted_is_on_the_smallest_screen() -> None:
    text = "\n".join(shown(screen(scene(), 80, 23)))
    for word in ("✓ join", "· mend", "1.50 s", "nodes", "least/most", "pieces", "0  1  2"):
        assert word in text


def test_every_node_is_drawn_once() -> None:
    picture = drawing(scene(30), 40, 17).plain
    assert picture.count("◆") == 1
    assert picture.count("●") == 29
    assert [len(row) for row in picture.split("\n")] == [40] * 17


def test_killed_nodes_are_crosses_even_the_entry() -> None:
    states = [NodeState.KILLED, NodeState.ENOUGH, NodeState.KILLED]
    picture = drawing(scene(3, nodes=states, links={}), 40, 17).plain
    assert picture.count("✕") == 2
    assert "◆" not in picture


def test_of_many_links_only_the_ends_are_drawn() -> None:
    """So the middle of the picture stays empty, and new links can be seen there."""

    def middle(of: Scene) -> str:
        return drawing(of, 41, 17).plain.split("\n")[8][18:23]

    assert middle(scene(30)).strip() == ""
    assert middle(scene(30, links={(0, 15): 9.0})).strip()
    many = {(a, b): 9.0 for b in range(30) for a in range(b)}
    assert middle(scene(30, links={**many, (0, 15): 0.0})).strip()
    assert middle(scene(30, links=many, lost={(0, 15): 0.0})).strip()
    assert middle(scene(30, links=many, lost={(0, 15): 9.0})).strip() == ""


def test_positions_are_inside_and_apart() -> None:
    for count in (1, 2, 30, 100):
        places = positions(count, 41, 17)
        assert all(0 <= x < 41 and 0 <= y < 17 for x, y in places)
    assert len(set(positions(30, 41, 17))) == 30


def test_a_line_has_both_ends_and_no_gaps() -> None:
    for end in ((7, 3), (0, 0), (-5, 9), (3, 0)):
        dots = line((0, 0), end)
        assert (dots[0], dots[-1]) == ((0, 0), end)
        for (x, y), (u, v) in pairwise(dots):
            assert max(abs(x - u), abs(y - v)) <= 1


def test_side_names_what_is_wrong() -> None:
    states = [NodeState.KILLED, NodeState.SHORT, NodeState.SHORT, NodeState.ENOUGH]
    text = side(scene(4, nodes=states, links={(1, 2): 1.0}, components=[2, 1]), 17).plain
    assert "3 of 4" in text
    assert "0 / 1, mean 0.7" in text
    assert "entry ◆     killed" in text
    assert max(map(len, text.split("\n"))) <= SIDE_WIDTH


def test_histogram() -> None:
    rows = histogram([0, 5, 5, 12], 5, 10, 2).plain.split("\n")
    assert rows[0].startswith("               ██ ")
    assert rows[1].startswith("██             ██ ")
    assert rows[2].startswith("0  1  2  3  4  5  ")
    assert histogram([], 5, 10, 2).plain.strip().startswith("0")


def test_duration() -> None:
    assert [duration(s) for s in (0.0123, 0.9, 1.456)] == ["12 ms", "900 ms", "1.46 s"]


def test_summary_has_a_line_for_each_claim() -> None:
    claims = [
        Claim("the 18 nodes left mend", "1 piece, 5+ links", "2 pieces, 4+ links", False, 30.0),
        Claim("10 broadcasts reach all", "290, none twice", "290, 0 twice", True, 0.01),
    ]
    lines = shown(summary(claims, 80))
    assert len(lines) == 4
    assert lines[2].rstrip().endswith("FAILED")
    assert lines[3].rstrip().endswith("ok")


def test_arguments_are_checked() -> None:
    for nodes, kill in ((1, 0), (101, 0), (5, -1), (5, 91)):
        with pytest.raises(InvalidArgument):
            demo(nodes, kill, as_json=True, seed=None)


@pytest.mark.processes
def test_a_small_demo_as_json() -> None:
    result = subprocess.run(
        [sys.executable, "-c", RUN.format(nodes=8, kill=40, json=True)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    summary = json.loads(result.stdout)
    assert summary["ok"], summary
    assert (summary["nodes"], summary["killed"], summary["seed"]) == (8, 3, 7)
    assert all(claim["ok"] for claim in summary["claims"])
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.processes
def test_without_a_terminal_it_prints_lines() -> None:
    result = subprocess.run(
        [sys.executable, "-c", RUN.format(nodes=2, kill=40, json=False)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stdout
    assert "everything held" in result.stdout
    assert "\x1b" not in result.stdout


@pytest.mark.processes
def test_interrupted_it_cleans_up() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", RUN.format(nodes=20, kill=40, json=False)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    process.stdout.readline()  # the processes are up
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=20)
    assert "all nodes have ended" in out
    assert process.returncode == 130
