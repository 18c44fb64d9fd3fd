"""Tables of experiments as text: for a terminal, and as Markdown. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from rich import box
from rich.console import JustifyMethod
from rich.table import Table as RichTable
from rich.text import Text

from meshwalk.cli.render import printable
from meshwalk.sim.experiment import Cell, Experiment, Table

NOTHING: Final = "-"


def cell_text(cell: Cell) -> str:
    """A cell as people read it: four significant digits, groups of three, "-" for None."""
    if cell is None:
        return NOTHING
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, int):
        return f"{cell:,}"
    if isinstance(cell, float):
        return f"{cell:,.0f}" if abs(cell) >= 1000 else f"{cell:.4g}"
    return printable(cell)


def is_numeric(table: Table, column: int) -> bool:
    """Whether a column stands to the right: numbers and dashes only."""
    cells = [row[column] for row in table.rows if row[column] is not None]
    return bool(cells) and all(isinstance(cell, int | float) for cell in cells)


def for_terminal(table: Table) -> RichTable:
    """A table for a rich console; `render.as_text` makes plain text of it."""
    shown = RichTable(
        title=Text(printable(table.title), style="bold"),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        header_style="",
    )
    for index, heading in enumerate(table.columns):
        side: JustifyMethod = "right" if is_numeric(table, index) else "left"
        shown.add_column(Text(printable(heading)), justify=side)
    for row in table.rows:
        shown.add_row(*(Text(cell_text(cell)) for cell in row))
    return shown


def list_for_terminal(experiments: Iterable[Experiment]) -> RichTable:
    """Names and summaries, one experiment a line."""
    shown = RichTable(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    shown.add_column(no_wrap=True, style="bold")
    shown.add_column()
    for experiment in experiments:
        shown.add_row(Text(experiment.name), Text(experiment.summary))
    return shown


def as_markdown(tables: Sequence[Table]) -> str:
    """Tables for documents, each under its title in bold."""
    return "\n".join(_one_as_markdown(table) for table in tables)


def _one_as_markdown(table: Table) -> str:
    sides = ["--:" if is_numeric(table, index) else "---" for index in range(len(table.columns))]
    lines = [
        _line(table.columns),
        _line(sides),
        *(_line([cell_text(cell) for cell in row]) for row in table.rows),
    ]
    return f"**{table.title}**\n\n" + "\n".join(lines) + "\n"


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
