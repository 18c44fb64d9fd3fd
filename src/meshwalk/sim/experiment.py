"""What an experiment is: cases to run, and the tables and plots that its results become.

An experiment draws nothing and measures no time itself: it returns JSON-able rows, and describes
tables and plots as values. `sim/runner.py` runs the cases, `sim/plots.py` draws, and the command
line prints. So results can be kept as JSON and be drawn anew without running anything.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import msgspec

Row: TypeAlias = dict[str, Any]
"""Results of one case, JSON-able. The runner adds `case` (its name), `seed` and, from the command
line, `run_s`: seconds of wall clock, the one field that is not the same in every run."""

Cell: TypeAlias = str | int | float | None
"""One field of a table. None is shown as a dash."""


class Size(enum.StrEnum):
    """How much to run: an experiment chooses its cases by it."""

    QUICK = "quick"
    """Seconds on two cores: a first look, and what the tests run."""
    FULL = "full"
    """Minutes on two cores: what the documentation shows."""
    HUGE = "huge"
    """Whatever a large machine can do in an hour or a night."""


class Case(msgspec.Struct, frozen=True):
    """One run. It crosses processes and is written as JSON, so it holds plain values only."""

    name: str
    """Unique within the experiment: "ours n=1000 seed=3"."""
    settings: dict[str, Any]
    """What the experiment's `run` reads; JSON-able."""
    seed: int
    """All randomness of the run comes from it."""
    weight: float = 1.0
    """Work expected, relative to the other cases: longest first, and for the progress bar."""


class Table(msgspec.Struct, frozen=True):
    """Results to read. Numbers stay numbers; whoever shows them rounds them."""

    title: str
    columns: list[str]
    """Headings, with the unit: "healed after (s)"."""
    rows: list[list[Cell]]
    """One cell per column in each."""


class Kind(enum.StrEnum):
    """How the series of a plot are drawn."""

    LINES = "lines"
    """`ys` over `xs`, joined in the order given, with a marker at each point."""
    BARS = "bars"
    """`ys` beside each other at each of `xs`, which are categories: numbers or texts."""
    HISTOGRAM = "histogram"
    """How often each of `xs` occurs; with `ys`, each value counts so much (a weight)."""


class Style(enum.StrEnum):
    """How one series of a `LINES` plot differs from the others."""

    LINE = "line"
    """Measured values."""
    DASHED = "dashed"
    """A bound or a theory to compare with: dashed, grey, no markers."""
    POINTS = "points"
    """Many single runs: small markers, not joined."""


class Series(msgspec.Struct, frozen=True):
    """One line, one colour of bars, or one histogram."""

    label: str
    """In the legend; a plot with one series has none."""
    xs: Sequence[float | str]
    ys: Sequence[float] = ()
    """As many as `xs`; empty only for a histogram of plain values."""
    low: Sequence[float] = ()
    """With `high`: the range over several seeds, a light band or an error bar. Else empty."""
    high: Sequence[float] = ()
    style: Style = Style.LINE


class Plot(msgspec.Struct, frozen=True):
    """One picture, described. `sim/plots.py` draws it; nothing here needs matplotlib."""

    name: str
    """Becomes a part of the file's name: letters, digits and hyphens; unique in the experiment."""
    title: str
    x_label: str
    """With the unit: "nodes", "time (s)"."""
    y_label: str
    series: list[Series]
    kind: Kind = Kind.LINES
    x_log: bool = False
    """Logarithmic to the base 10; for `LINES` and `HISTOGRAM`."""
    y_log: bool = False
    y_from_zero: bool = True
    """Show zero on the y axis, unless it is logarithmic: differences are not made larger."""


class Experiment(msgspec.Struct, frozen=True):
    """A question to the simulator. Each file in `sim/experiments/` exports one as EXPERIMENT."""

    name: str
    """As typed on the command line: "join-rules"."""
    summary: str
    """What it shows, in one line, for `meshwalk sim list`."""
    cases: Callable[[Size, int], list[Case]]
    """The cases for a size and a base seed."""
    run: Callable[[Case], Row]
    """Same case, same row. A function at the top of a module, because it crosses processes."""
    tables: Callable[[list[Row]], list[Table]]
    """From rows in the order of cases; some cases may be missing."""
    plots: Callable[[list[Row]], list[Plot]]
    """As `tables`. An empty list when the rows are too few for a plot."""
    fresh_process: bool = False
    """Run each case in a process of its own, so that its peak memory is its own."""


class FailedCase(msgspec.Struct, frozen=True):
    """A case that has no row, and why."""

    case: str
    error: str


class Results(msgspec.Struct, frozen=True):
    """What a run of an experiment leaves behind, as JSON: enough to draw it again."""

    experiment: str
    """Its name."""
    version: str
    """Of meshwalk."""
    size: Size
    seed: int
    """The base seed that was given."""
    rows: list[Row]
    """In the order of cases."""
    failures: list[FailedCase] = []
    """Cases without a row; empty when all went well."""
