"""`meshwalk sim replay` and `meshwalk sim diff`: what a trace says, step by step, and where it
parts from what the machines do now, or from another trace."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import Final

from meshwalk.cli.render import printable
from meshwalk.cli.sim_console import FAILED, OK, print_json
from meshwalk.errors import InvalidArgument
from meshwalk.sim.replay import Replayed, Step, Summary, replay, summarise
from meshwalk.trace import Header, Line, describe, encode_line, first_difference, read_trace
from meshwalk.version import __version__

LINE_CHARACTERS_MAX: Final = 200  # guess: a frame's numbers and the start of its body
DIFFERENCE_CHARACTERS_MAX: Final = 2000  # guess: a screen for the two lines that matter


def replay_trace(file: Path, node: str | None, until: int | None, *, is_stepping: bool) -> int:
    """Replay and say how it went; 0 when all came out as it was recorded, else 1.

    `until` is the last line to feed. Raises `InvalidArgument`, `StoreError`.
    """
    lines = read_trace(file)
    if until is not None:
        lines = takewhile(lambda numbered: numbered[0] <= until, lines)
    steps = replay(lines, node)
    summary = summarise(_shown(steps) if is_stepping else steps)
    last = summary.last
    if last is None:
        raise InvalidArgument(f'{file} has no node {node!r}; its hosts stand after "n" in a line')
    if last.difference is not None:
        _show_difference(summary, last, is_stepping=is_stepping)
        return FAILED
    if until is not None:
        if not is_stepping:
            _show_steps([*summary.before, last.step])
        print_json(last.node.statistics())
    broken_off = "" if last.step.is_whole or until is not None else "; the recording broke off"
    print(f"{summary.inputs:,} inputs, {summary.effects:,} effects: the same{broken_off}")
    return OK


def diff(one: Path, other: Path) -> int:
    """Show the first line where two traces part; 0 when they are the same, else 1, as diff(1).

    Raises `InvalidArgument`, `StoreError`.
    """
    parting = first_difference(read_trace(one), read_trace(other))
    if parting is None:
        print("the same")
        return OK
    print(f"line {parting.number} differs")
    for number, line in parting.before:
        print(_numbered(number, line))
    for path, found in ((one, parting.one), (other, parting.other)):
        print(f"{printable(str(path))}:")
        print(f"          {_in_full(found, 'nothing more')}")
    return FAILED


def _shown(steps: Iterator[Replayed]) -> Iterator[Replayed]:
    for replayed in steps:
        if replayed.difference is None:
            _show_steps([replayed.step])
        yield replayed


def _show_difference(summary: Summary, last: Replayed, *, is_stepping: bool) -> None:
    assert last.difference is not None
    if not is_stepping:
        _show_steps(summary.before)
    number = last.difference.number
    step = last.step
    _show_steps([Step(step.number, step.input, [n for n in step.outcome if n[0] < number])])
    after = f"after {summary.inputs:,} inputs"
    print(f"line {number} came out otherwise, {after}, with meshwalk {__version__}")
    print(f"expected  {_in_full(last.difference.expected, 'nothing more')}")
    print(f"got       {_in_full(last.difference.got, 'nothing')}")


def _show_steps(steps: list[Step]) -> None:
    for step in steps:
        print(_numbered(step.number, step.input))
        for number, line in step.outcome:
            print(_numbered(number, line))


def _numbered(number: int, line: Line) -> str:
    return f"{number:>8}  {printable(_of_node(line) + describe(line), LINE_CHARACTERS_MAX)}"


def _of_node(line: Line) -> str:
    return f"{line.node}  " if line.node else ""


def _in_full(line: Line | None, nothing: str) -> str:
    if line is None:
        return nothing
    if isinstance(line, Header):  # all of it: two runs may differ in a setting
        return printable(encode_line(line).decode(), DIFFERENCE_CHARACTERS_MAX)
    return printable(_of_node(line) + describe(line).strip(), DIFFERENCE_CHARACTERS_MAX)
