"""The arguments of `meshwalk sim`. What a command needs is imported when it runs."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final

import typer

from meshwalk.sim.experiment import Size
from meshwalk.sim.plots import Format

Action = Callable[[], int]  # as in cli/main.py, which imports this file

SEED: Final = 1  # any would do; the same every time, so that two people get the same numbers

app = typer.Typer(name="sim", help="Measure networks in simulation.", rich_markup_mode=None)

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object, for programs.")]
PlotFormat = Annotated[Format, typer.Option("--format", help="Of the plots.")]


@app.callback(invoke_without_command=True)
def _sim(ctx: typer.Context) -> None:
    if ctx.invoked_subcommand is None:
        print(ctx.get_help())
        raise typer.Exit


@app.command("list", help="List the experiments.")
def list_experiments(as_json: AsJson = False) -> Action:
    def action() -> int:
        from meshwalk.cli.sim_run import list_experiments

        return list_experiments(as_json=as_json)

    return action


@app.command(help="Run experiments; show tables, write results and plots.")
def run(
    names: Annotated[
        list[str], typer.Argument(metavar="NAME", help="Experiments, or all of them: all.")
    ],
    size: Annotated[
        Size, typer.Option("--size", help="Seconds, minutes, or a night.")
    ] = Size.QUICK,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Where chance starts.")] = SEED,
    case: Annotated[
        str, typer.Option("--case", metavar="TEXT", help="Only cases with this in their name.")
    ] = "",
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", min=1, help="Processes; all cores by default.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Write JSON, tables and plots here.")
    ] = None,
    file_format: PlotFormat = Format.SVG,
    as_json: AsJson = False,
) -> Action:
    def action() -> int:
        from meshwalk.cli.sim_run import Run

        chosen = Run(size, seed, case, jobs or _cores(), out, file_format, as_json=as_json)
        return chosen.run(names)

    return action


@app.command(help="Draw plots and tables anew, from results that `run --out` wrote.")
def draw(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="JSON files.")],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Where to; beside the first FILE.")
    ] = None,
    file_format: PlotFormat = Format.SVG,
) -> Action:
    def action() -> int:
        from meshwalk.cli.sim_run import draw_again

        return draw_again(files, out, file_format)

    return action


@app.command(help="Run drawn networks with faults and attackers; show what must not be.")
def soak(
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, help="The first plan; any by default.")
    ] = None,
    count: Annotated[
        int | None, typer.Option("--count", "-n", min=1, help="End after so many runs.")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option("--minutes", min=0.0, help="End after this time.")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", min=1, help="Processes; all cores by default.")
    ] = None,
    plan: Annotated[
        Path | None, typer.Option("--plan", metavar="FILE", help="Run the plan in this file.")
    ] = None,
    trace: Annotated[
        Path | None,
        typer.Option(
            "--trace", metavar="FILE", help="Record one run to a new FILE; it may take gigabytes."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Write each failing plan here.")
    ] = None,
    shrink: Annotated[
        bool, typer.Option("--shrink", help="Write the smallest plan that fails as this one.")
    ] = False,
    as_json: AsJson = False,
) -> Action:
    def action() -> int:
        from meshwalk.cli.sim_soak import SoakOptions, run_soak

        processes = jobs or _cores()
        return run_soak(
            SoakOptions(seed, count, minutes, processes, plan, trace, out, shrink, as_json)
        )

    return action


@app.command("replay", help="Run a trace again, and show where it comes out otherwise.")
def replay_trace(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="As `up --trace` writes it.")],
    node: Annotated[
        str | None, typer.Option("--node", metavar="HOST", help="One node of those that share it.")
    ] = None,
    step: Annotated[bool, typer.Option("--step", help="Show every step.")] = False,
    until: Annotated[
        int | None,
        typer.Option("--until", metavar="LINE", min=1, help="Stop there and show the node."),
    ] = None,
) -> Action:
    def action() -> int:
        from meshwalk.cli.sim_replay import replay_trace

        return replay_trace(file, node, until, is_stepping=step)

    return action


@app.command(help="Show the first line where two traces part.")
def diff(
    one: Annotated[Path, typer.Argument(metavar="FILE", help="A trace.")],
    other: Annotated[Path, typer.Argument(metavar="OTHER", help="Another.")],
) -> Action:
    def action() -> int:
        from meshwalk.cli.sim_replay import diff

        return diff(one, other)

    return action


def _cores() -> int:
    """Those that this process may use: a container often has fewer than the machine."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
