"""meshwalk beside other stacks: one table, a column for each stack.

    python benchmarks/stacks/compare.py [--stack NAME ...] [--rows ROW ...] [--rounds 3] [--json]

Each row of each stack has a client and a server process of its own on loopback. Stacks take turns
within a round, so that a slow moment hits all; a figure is the median of the rounds. Absolute
figures drift between machines and hours: compare within one run.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import platform
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from stack import FIGURES, Row

STEP_S = 120.0  # for one row of one stack. guess: three times the slowest, py-libp2p's connections
FOLDER = Path(__file__).parent
EXTRA = 'pip install -e ".[benchmarks]"'


class Column(NamedTuple):
    """A stack: its file here, and the distribution and the module that it needs."""

    file: str
    distribution: str
    module: str


COLUMNS = {
    "bare": Column("bare.py", "uvloop", "uvloop"),
    "meshwalk": Column("meshwalk_stack.py", "meshwalk", "meshwalk"),
    "iroh": Column("iroh_stack.py", "iroh", "iroh"),
    "libp2p": Column("libp2p_stack.py", "libp2p", "libp2p"),
    "zmq": Column("zmq_stack.py", "pyzmq", "zmq"),
    "zmq-blocking": Column("zmqblocking_stack.py", "pyzmq", "zmq"),
}

Values = dict[tuple[Row, str, str], list[float]]
"""By row, key of the figure, and stack: a value for each round."""


def measured(name: str, row: Row) -> dict[str, float]:
    """The figures of this row, measured now; none when the stack has none, or failed."""
    command = [sys.executable, str(FOLDER / COLUMNS[name].file), "--measure", row]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=STEP_S)
    except subprocess.TimeoutExpired:
        print(f"{name}, {row}: not done in {STEP_S:.0f} s", file=sys.stderr)
        return {}
    if done.returncode != 0:
        why = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        print(f"{name}, {row}: {why}", file=sys.stderr)
        return {}
    figures: dict[str, float] | None = json.loads(done.stdout)
    return figures or {}


def compared(names: list[str], rows: list[Row], rounds: int) -> Values:
    values: Values = {}
    for row in rows:
        for _ in range(rounds):
            for name in names:
                for key, value in measured(name, row).items():
                    values.setdefault((row, key, name), []).append(value)
    return values


def as_json(names: list[str], rows: list[Row], values: Values) -> dict[str, Any]:
    """Medians and each round's value; a stack that has no such figure is not there."""
    table = []
    for row in rows:
        for key, (work, unit) in FIGURES[row].items():
            found = {name: values[row, key, name] for name in names if (row, key, name) in values}
            medians = {name: statistics.median(rounds) for name, rounds in found.items()}
            table.append({"work": work, "unit": unit, "median": medians, "rounds": found})
    versions = {name: importlib.metadata.version(COLUMNS[name].distribution) for name in names}
    return {"python": platform.python_version(), "versions": versions, "rows": table}


def as_table(columns: list[str], result: dict[str, Any]) -> str:
    lines = [f"{'work':34}" + "".join(f"{name:>13}" for name in columns)]
    for row in result["rows"]:
        cells = [figure(row["median"].get(name)) for name in columns]
        lines.append(f"{row['work']:34}" + "".join(f"{c:>13}" for c in cells) + f"  {row['unit']}")
    return "\n".join(lines)


def figure(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:,.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--stack", nargs="+", choices=list(COLUMNS), default=list(COLUMNS))
    parser.add_argument("--rows", nargs="+", type=Row, default=list(Row), metavar="ROW")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    columns: list[str] = arguments.stack
    names = [name for name in columns if importlib.util.find_spec(COLUMNS[name].module)]
    if absent := [name for name in columns if name not in names]:
        print(f"not installed: {', '.join(absent)}; {EXTRA} brings them", file=sys.stderr)
    values = compared(names, arguments.rows, arguments.rounds)
    result = as_json(names, arguments.rows, values)
    print(json.dumps(result, indent=2) if arguments.json else as_table(columns, result))


if __name__ == "__main__":
    main()
