"""How far a proof of work is: a bar for people who wait, shown when it takes more than a moment.

Nobody knows when a number will be found: each trial is a lottery ticket. So the bar shows the
chance that one would have been found by now, which never goes back and never stands at its end.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.progress_bar import ProgressBar

from meshwalk.cli.render import as_text, duration, short_count

SHOWN_AFTER_S: Final = 1.0  # guess: what is done sooner needs no bar
BAR_COLUMNS: Final = 30  # guess: beside the words, within 80 columns


def chance(tried: int, expected: int) -> float:
    """The chance that a number is found within so many trials, when `expected` is the mean."""
    return -math.expm1(-tried / max(1, expected))


def trials_text(tried: int, expected: int) -> str:
    """`1.2M trials; 3.0M on the average`."""
    return f"{short_count(tried)} trials; {short_count(expected)} on the average"


def bar_text(tried: int, expected: int) -> str:
    """The bar and the words in one plain line, for a screen that draws for itself."""
    bar = as_text(ProgressBar(1.0, chance(tried, expected), BAR_COLUMNS), BAR_COLUMNS)
    return f"proving work  {bar.ljust(BAR_COLUMNS)}  {trials_text(tried, expected)}"


class Proving:
    """A bar on stderr for as long as a `with` lasts; none where stderr is no terminal."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._started_at = clock()
        self._shown: Progress | None = None

    def __enter__(self) -> Proving:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown is not None:
            self._shown.stop()

    def told(self, tried: int, expected: int) -> None:
        """So many trials were made; the solver's `progress`."""
        if self._shown is None:
            if self._clock() - self._started_at < SHOWN_AFTER_S or not sys.stderr.isatty():
                return
            self._shown = Progress(
                TextColumn("proving work"),
                BarColumn(BAR_COLUMNS),
                TextColumn("{task.fields[told]}"),
                console=Console(stderr=True),
                transient=True,
            )
            self._shown.add_task("", total=1.0, told="")
        waited_s = self._clock() - self._started_at
        told = f"{trials_text(tried, expected)}; {duration(waited_s)}"
        self._shown.update(TaskID(0), completed=chance(tried, expected), told=told)
        self._shown.start()
