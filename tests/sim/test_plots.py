"""Plots drawn from descriptions: every kind, in both formats, the same bytes in every process."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from meshwalk.errors import InvalidArgument
from meshwalk.sim import plots
from meshwalk.sim.experiment import Kind, Plot, Series, Style
from meshwalk.sim.plots import Format, NoMatplotlib, draw

SIZES = [100, 1000, 10000]
LINES = Plot(
    "growth",
    "Hops to the last node",
    "nodes",
    "hops",
    [
        Series("ours", SIZES, [4, 6, 8], low=[3, 5, 7], high=[5, 7, 9]),
        Series("single runs", SIZES, [5, 6, 7], style=Style.POINTS),
        Series("ln n", SIZES, [4.6, 6.9, 9.2], style=Style.DASHED),
    ],
    x_log=True,
)
BARS = Plot(
    "rules",
    "Degrees",
    "rule",
    "neighbours",
    [Series("mean", ["walk", "oldest"], [6, 9], low=[5, 7], high=[7, 9]), Series("max", [], [])],
    kind=Kind.BARS,
)
HISTOGRAM = Plot(
    "degrees",
    "Neighbours",
    "neighbours",
    "nodes",
    [Series("ours", [4, 5, 5, 6]), Series("weighted", [4, 9], [10, 20])],
    kind=Kind.HISTOGRAM,
    y_log=True,
)
ALL = [LINES, BARS, HISTOGRAM]


@pytest.mark.parametrize("plot", ALL, ids=lambda plot: plot.name)
def test_each_kind_in_both_formats(plot: Plot) -> None:
    picture = ElementTree.fromstring(draw(plot))
    assert picture.attrib["viewBox"] == "0 0 576 324"  # 8 by 4.5 inches in points
    png = draw(plot, Format.PNG)
    assert png.startswith(b"\x89PNG")
    assert int.from_bytes(png[16:20], "big") == 1600


def test_the_legend_is_left_out_where_one_series_is_alone() -> None:
    alone = Plot("one", "One", "x", "y", [Series("the only one", [1, 2], [1, 2])])
    assert b'id="legend' not in draw(alone)
    assert b'id="legend' in draw(LINES)


def test_long_titles_and_legends_make_a_picture_taller_and_not_wider() -> None:
    long = "a title so long that it would be cut off at the edge of the picture, 1,000 nodes"
    series = [Series(f"a rule with a long name, number {n}", [1, 2], [n, n]) for n in range(5)]
    picture = ElementTree.fromstring(draw(Plot("long", long, "x", "y", series)))
    _, _, width, height = map(float, picture.attrib["viewBox"].split())
    rows = 2 + 3  # of the title; of the legend, in two columns
    assert (width, round(height)) == (576, round(324 + (rows - 2) * 72 * plots.ROW_INCHES))


def test_a_picture_tells_neither_date_nor_machine() -> None:
    text = draw(LINES).decode()
    assert "dc:date" not in text
    assert "dc:creator" not in text
    # Nothing is fetched from elsewhere when somebody looks at it.
    assert set(re.findall(r'href="(.)', text)) == {"#"}


def test_the_same_bytes_in_every_process() -> None:
    program = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import hashlib, test_plots as t\n"
        "print(hashlib.sha256(b''.join(t.draw(plot) for plot in t.ALL)).hexdigest())\n"
    )
    other = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONHASHSEED": "12345"},
        capture_output=True,
        text=True,
        check=True,
    )
    ours = hashlib.sha256(b"".join(map(draw, ALL))).hexdigest()
    assert other.stdout.strip() == ours


def test_what_the_user_has_set_for_own_pictures_changes_nothing() -> None:
    import matplotlib

    before = draw(LINES)
    with matplotlib.rc_context({"lines.linewidth": 9.0, "axes.titlesize": 40}):
        assert draw(LINES) == before
        assert matplotlib.rcParams["lines.linewidth"] == 9.0


@pytest.mark.parametrize(
    ("series", "kind", "says"),
    [
        (Series("short", [1, 2], [1]), Kind.LINES, "series 'short': 2 xs and 1 ys"),
        (Series("none", [1, 2]), Kind.BARS, "2 xs and 0 ys"),
        (Series("band", [1], [1], low=[1]), Kind.LINES, "low and high"),
        (Series("empty", []), Kind.LINES, "plot 'p' has no values"),
    ],
)
def test_series_that_do_not_fit(series: Series, kind: Kind, says: str) -> None:
    with pytest.raises(InvalidArgument, match=re.escape(says)):
        draw(Plot("p", "P", "x", "y", [series], kind))


@pytest.mark.parametrize(
    ("values", "is_log", "count", "first", "last"),
    [
        ([2.0, 3.0, 5.0], False, 4, 1.5, 5.5),  # each whole number in the middle of its bin
        ([0.0, 80.0], False, plots.BINS, 0.0, 80.0),
        ([0.25, 0.5], False, plots.BINS, 0.25, 0.5),
        ([0.5], False, 1, 0.0, 1.0),
        ([1.0, 1000.0], True, plots.BINS, 1.0, 1000.0),
    ],
)
def test_bins(values: list[float], is_log: bool, count: int, first: float, last: float) -> None:
    edges = plots._bins(values, is_log=is_log)
    assert len(edges) == count + 1
    assert (edges[0], edges[-1]) == (first, last)
    assert edges == sorted(set(edges))


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.05, "0.05"), (2.5, "2.5"), (1000.0, "1,000"), (25e4, "250,000"), (2e6, "2M")],
)
def test_numbers_on_axes(value: float, text: str) -> None:
    assert plots._number(value) == text


def test_without_matplotlib_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(
        NoMatplotlib, match=r'^plots need matplotlib: pip install "meshwalk\[sim\]"$'
    ):
        draw(LINES)
