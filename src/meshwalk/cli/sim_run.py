"""`meshwalk sim list`, `run` and `draw`: experiments on this machine's cores, and their results.

Tables and JSON need nothing but meshwalk; plots need matplotlib, of the extra `sim`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from time import perf_counter
from typing import Final

import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from meshwalk.cli.render import as_text, duration
from meshwalk.cli.sim_console import FAILED, OK, command, print_json, say
from meshwalk.cli.sim_tables import as_markdown, for_terminal, list_for_terminal
from meshwalk.errors import InvalidArgument
from meshwalk.sim.experiment import Case, Experiment, FailedCase, Results, Size
from meshwalk.sim.experiments import catalogue
from meshwalk.sim.plots import Format, NoMatplotlib, draw, require_matplotlib
from meshwalk.sim.runner import Failure, Outcome, chosen_cases, run_cases
from meshwalk.version import __version__

UNLIMITED_COLUMNS: Final = 1000  # a file or a pipe has no width; more than any table
# What tables and plots raise of rows that they do not know.
_OTHER_ROWS: Final = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


def list_experiments(*, as_json: bool) -> int:
    """Print the names of all experiments and what they show."""
    if as_json:
        listed = [{"name": one.name, "summary": one.summary} for one in catalogue.EXPERIMENTS]
        print_json({"experiments": listed})
    else:
        _print_table(list_for_terminal(catalogue.EXPERIMENTS))
    return OK


class Run:
    """One `meshwalk sim run`: its options, and the results so far."""

    def __init__(
        self,
        size: Size,
        seed: int,
        containing: str,
        jobs: int,
        out: Path | None,
        file_format: Format,
        *,
        as_json: bool,
    ) -> None:
        self._size = size
        self._seed = seed
        self._containing = containing
        self._jobs = jobs
        self._out = out
        self._format = file_format
        self._as_json = as_json
        self._can_draw = True
        self._has_failed = False
        self._took_s = 0.0

    def run(self, names: Sequence[str]) -> int:
        """Run the experiments of these names one after another; the exit code.

        Results are shown and written as each experiment ends, so an interrupt loses one at most;
        JSON is one object, printed at the end, of an interrupted run too. What cannot be written
        is told, and the other experiments go on. Raises `InvalidArgument` before anything runs when
        a name or the choice of cases is wrong.
        """
        plan = [
            (experiment, chosen_cases(experiment, self._size, self._seed, self._containing))
            for experiment in catalogue.find(names)
        ]
        if self._out is not None:
            self._out.mkdir(parents=True, exist_ok=True)
            self._can_draw = _can_draw()
        all_results: list[Results] = []
        try:
            for experiment, cases in plan:
                results = self._run_one(experiment, cases)
                all_results.append(results)
                # Files first: a pipe that nobody reads any more must not cost an hour's results.
                written = self._written(experiment, results)
                if not self._as_json:
                    self._show(experiment, results, written)
        finally:
            if self._as_json:
                print_json({"results": all_results})
        return FAILED if self._has_failed else OK

    def _run_one(self, experiment: Experiment, cases: list[Case]) -> Results:
        began_at = perf_counter()
        progress = _Progress(experiment.name, cases)
        with progress.bar:
            outcomes = run_cases(
                experiment, cases, jobs=self._jobs, clock=perf_counter, on_done=progress.advance
            )
        failures: list[FailedCase] = []
        for outcome in outcomes:
            if isinstance(outcome.result, Failure):
                failures.append(FailedCase(outcome.case.name, outcome.result.error))
                self._complain(experiment, outcome.case, outcome.result)
        self._took_s = perf_counter() - began_at
        rows = [outcome.result for outcome in outcomes if isinstance(outcome.result, dict)]
        return Results(experiment.name, __version__, self._size, self._seed, rows, failures)

    def _complain(self, experiment: Experiment, case: Case, failure: Failure) -> None:
        self._has_failed = True
        again = command(
            *("sim", "run", experiment.name, "--size", self._size),
            *("--seed", str(self._seed), "--case", case.name, "--jobs", "1"),
        )
        say(f"{experiment.name}, case {case.name!r}: {failure.error}; to repeat it: {again}")
        if os.environ.get("MESHWALK_DEBUG", "") not in ("", "0"):
            print(failure.traceback, file=sys.stderr)

    def _written(self, experiment: Experiment, results: Results) -> list[Path]:
        """The files that could be written; none without `--out`."""
        written: list[Path] = []
        if self._out is None:
            return written
        try:
            for path in self._write(experiment, results, self._out):
                written.append(path)  # noqa: PERF402 # keeps what came before an error
        except OSError as error:
            self._has_failed = True
            say(f"{experiment.name}: cannot write to {self._out}: {error.strerror}; going on")
        return written

    def _write(self, experiment: Experiment, results: Results, folder: Path) -> Iterator[Path]:
        path = folder / f"{experiment.name}.json"
        path.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=1) + b"\n")
        yield path
        if results.rows:
            yield _write_tables(experiment, results, folder)
        if results.rows and self._can_draw:
            yield from _write_plots(experiment, results, folder, self._format)

    def _show(self, experiment: Experiment, results: Results, written: Sequence[Path]) -> None:
        count = len(results.rows)
        print(
            f"{experiment.name}: {count} of {count + len(results.failures)} cases,"
            f" size {self._size}, seed {self._seed}, {duration(self._took_s)}"
        )
        for table in experiment.tables(results.rows) if results.rows else []:
            _print_table(for_terminal(table))
        _print_written(written)


def draw_again(files: Sequence[Path], out: Path | None, file_format: Format) -> int:
    """Write tables and plots of results that an earlier run wrote; the exit code.

    Raises `InvalidArgument` for a file that is none of ours, or of a version whose results were
    others, `NoMatplotlib`, and `OSError`.
    """
    require_matplotlib()
    plan = [(path, _read_results(path)) for path in files]
    for path, results in plan:
        (experiment,) = catalogue.find([results.experiment])
        folder = out or path.parent
        folder.mkdir(parents=True, exist_ok=True)
        if not results.rows:
            continue
        try:
            _print_written([_write_tables(experiment, results, folder)])
            _print_written(_write_plots(experiment, results, folder, file_format))
        except _OTHER_ROWS as error:
            raise InvalidArgument(
                f"{path} holds other results than meshwalk {__version__} draws; meshwalk"
                f" {results.version} wrote it: run the experiment again"
                f" ({type(error).__name__}: {error})"
            ) from error
    return OK


def _read_results(path: Path) -> Results:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Results)
    except msgspec.DecodeError as error:
        raise InvalidArgument(
            f"{path} holds no results of `meshwalk sim run --out`: {error}"
        ) from error


def _write_tables(experiment: Experiment, results: Results, folder: Path) -> Path:
    path = folder / f"{experiment.name}.md"
    path.write_text(as_markdown(experiment.tables(results.rows)), encoding="utf-8")
    return path


def _write_plots(
    experiment: Experiment, results: Results, folder: Path, file_format: Format
) -> Iterator[Path]:
    for plot in experiment.plots(results.rows):
        path = folder / f"{experiment.name}-{plot.name}.{file_format}"
        path.write_bytes(draw(plot, file_format))
        yield path


def _can_draw() -> bool:
    """Whether there is matplotlib; else say what to do, before a run that may take long."""
    try:
        require_matplotlib()
    except NoMatplotlib as error:
        say(f"{error}; going on without plots")
        return False
    return True


# The terminal.


class _Progress:
    """A bar on stderr, by the weight of the cases that have ended, if stderr is a terminal."""

    def __init__(self, name: str, cases: Sequence[Case]) -> None:
        console = Console(stderr=True)
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[done]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._count = len(cases)
        self._ended = 0
        total = sum(case.weight for case in cases)
        self._task = self.bar.add_task(name, total=total, done=self._done)

    @property
    def _done(self) -> str:
        return f"{self._ended} of {self._count} cases"

    def advance(self, outcome: Outcome) -> None:
        """A case has ended."""
        self._ended += 1
        self.bar.update(self._task, advance=outcome.case.weight, done=self._done)


def _print_table(table: Table) -> None:
    console = Console(highlight=False)
    if console.is_terminal:
        console.print(table)
    else:
        print(as_text(table, UNLIMITED_COLUMNS))


def _print_written(paths: Iterable[Path]) -> None:
    for path in paths:
        print(f"wrote {path}")
