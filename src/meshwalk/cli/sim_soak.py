"""`meshwalk sim soak`: drawn runs with faults and attackers, and what must not be in them."""

from __future__ import annotations

import itertools
import secrets
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from time import perf_counter
from typing import Final

import msgspec
from rich.console import Console
from rich.live import Live
from rich.text import Text

from meshwalk.cli.render import duration, printable
from meshwalk.cli.sim_console import FAILED, OK, command, print_json, say
from meshwalk.errors import InvalidArgument
from meshwalk.sim.plan import Plan
from meshwalk.sim.planfile import as_json, read_plan
from meshwalk.sim.shrinking import shrink
from meshwalk.sim.soaking import Run, Weak, carry_out, plan_of, recorded_by, soak
from meshwalk.trace import TraceWriter

FINDINGS_SHOWN: Final = 4  # guess: the first ones tell what it is
KINDS_SHOWN: Final = 20  # guess: half a screen
SEED_BITS: Final = 48  # guess: short enough to type, and no two soaks meet
# Four times the longest of 71 drawn runs: 4.4 GB. Six had more than 1 GB, half less than 50 MB.
TRACE_BYTES_MAX: Final = 16 << 30


class SoakOptions(msgspec.Struct, frozen=True):
    """What `meshwalk sim soak` was asked for."""

    seed: int | None
    count: int | None
    minutes: float | None
    jobs: int
    plan: Path | None
    trace: Path | None
    out: Path | None
    shrinks: bool
    as_json: bool


def run_soak(options: SoakOptions) -> int:
    """Run until done or interrupted; 1 when anything was found, else 0.

    Raises `InvalidArgument` for options that do not go together, and for a file that is no plan.
    """
    if options.plan is not None:
        if options.seed is not None or options.count is not None or options.minutes is not None:
            raise InvalidArgument("--plan runs one file; leave out --seed, --count and --minutes")
        return _One(options, read_plan(options.plan)).run()
    if options.trace is not None or options.shrinks:
        if options.seed is None or options.count not in (None, 1):
            raise InvalidArgument(
                "--trace and --shrink take one run: name it with --seed N or --plan FILE"
            )
        return _One(options, plan_of(options.seed)).run()
    return _Many(options).run()


class _Tally(msgspec.Struct):
    """What has run so far."""

    began_at: float
    runs: int = 0
    events: int = 0
    virtual_s: float = 0.0
    failed: list[Run] = []
    kinds: dict[str, list[int | None]] = {}
    """The seeds that showed each kind of finding."""
    weak: Weak = msgspec.field(default_factory=Weak)

    def add(self, run: Run) -> None:
        self.runs += 1
        self.weak.add(run)
        if run.verdict is not None:
            self.events += run.verdict.events
            self.virtual_s += run.verdict.seconds
        if not run.is_good:
            self.failed.append(run)
            for kind in run.kinds:
                self.kinds.setdefault(kind, []).append(run.plan_seed)

    @property
    def took_s(self) -> float:
        return perf_counter() - self.began_at

    @property
    def line(self) -> str:
        """Of the terminal while it runs."""
        per_s = self.events / max(self.took_s, 0.001)
        return (
            f"{_count(self.runs, 'run')}, {per_s:,.0f} events/s,"
            f" {self.virtual_s / 3600:,.1f} virtual hours, {len(self.failed)} with findings"
        )


class _Many:
    """Runs of drawn plans."""

    def __init__(self, options: SoakOptions) -> None:
        self._options = options
        self._tally = _Tally(perf_counter())
        console = Console(stderr=True)
        self._live = Live(
            console=console,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            get_renderable=lambda: Text(self._tally.line),
        )
        self._is_live = console.is_terminal

    def run(self) -> int:
        options = self._options
        if options.out is not None:
            options.out.mkdir(parents=True, exist_ok=True)
        try:
            self._show_live()
            with closing(soak(self._seeds(), options.jobs)) as runs:
                for run in runs:
                    self._ended(run)
        except KeyboardInterrupt:
            pass  # the usual end of a soak
        finally:
            self._live.stop()
        if options.as_json:
            _print_tally(self._tally)
        else:
            _print_summary(self._tally)
        return FAILED if self._tally.failed else OK

    def _seeds(self) -> Iterator[int]:
        options = self._options
        first = secrets.randbits(SEED_BITS) if options.seed is None else options.seed
        minutes, began_at = options.minutes, self._tally.began_at
        seeds = (
            itertools.count(first) if options.count is None else range(first, first + options.count)
        )
        for seed in seeds:
            if minutes is not None and perf_counter() - began_at >= 60 * minutes:
                return
            yield seed

    def _ended(self, run: Run) -> None:
        self._tally.add(run)
        if run.is_good:
            return
        path = None
        if self._options.out is not None and run.plan_seed is not None:
            plan = msgspec.structs.replace(plan_of(run.plan_seed), why="; ".join(run.kinds))
            path = _write(plan, self._options.out, f"seed-{run.plan_seed}.json")
        if not self._options.as_json:
            self._live.stop()
            _print_run(run)
            if path is not None:
                print(f"  wrote {printable(str(path))}")
            sys.stdout.flush()
            self._show_live()

    def _show_live(self) -> None:
        if self._is_live:
            self._live.start()


class _One:
    """One run, which may be traced and made smaller."""

    def __init__(self, options: SoakOptions, plan: Plan) -> None:
        self._options = options
        self._plan = plan
        self._tally = _Tally(perf_counter())

    def run(self) -> int:
        options = self._options
        run = self._traced(options.trace) if options.trace else carry_out(self._plan, options.seed)
        self._tally.add(run)
        if options.as_json:
            _print_tally(self._tally)
        else:
            if not run.is_good:
                _print_run(run, options.plan)
            _print_summary(self._tally)
        if options.shrinks and not run.is_good:
            self._shrink(run)
        return OK if run.is_good else FAILED

    def _traced(self, path: Path) -> Run:
        with TraceWriter(path, TRACE_BYTES_MAX) as trace:
            run = carry_out(self._plan, self._options.seed, recorded_by(trace.write))
        size = f"{trace.bytes / 1e6:,.1f} MB"
        if trace.is_whole:
            again = command("sim", "replay", str(path), "--node", _host_of(run))
            say(f"wrote {path}, {size}; for one node of it: {again}")
        else:
            why = "the disk is full, or it is at its limit"
            say(f"{path} ends before the run does, after {size}: {why}")
        return run

    def _shrink(self, run: Run) -> None:
        kind = run.kinds[0]
        say(f"making it smaller while it has: {kind}")
        small = shrink(self._plan, lambda plan: kind in carry_out(plan).kinds)
        small = msgspec.structs.replace(small, why=kind)
        options = self._options
        stem = options.plan.stem if options.plan is not None else f"seed-{options.seed}"
        folder = options.out or Path()
        folder.mkdir(parents=True, exist_ok=True)
        path = _write(small, folder, f"{stem}-small.json")
        nodes, faults = _count(len(small.nodes), "node"), _count(len(small.steps), "fault")
        again = command("sim", "soak", "--plan", str(path))
        say(f"wrote {path}: {nodes}, {faults}, {small.duration_s:.1f} s; to run it: {again}")


def _write(plan: Plan, folder: Path, name: str) -> Path:
    path = folder / name
    path.write_bytes(as_json(plan))
    return path


def _again(run: Run, file: Path | None = None) -> str:
    which = ["--seed", str(run.plan_seed), "--count", "1"]
    if file is not None:
        which = ["--plan", str(file)]
    return command("sim", "soak", *which)


# What is shown.


def _print_run(run: Run, file: Path | None = None) -> None:
    name = f"seed {run.plan_seed}" if file is None else str(file)
    if run.verdict is None:
        print(f"{printable(name)}: {printable(run.error)}")
        for line in run.traceback.splitlines():
            print(f"    {printable(line)}")
    else:
        findings = run.verdict.findings
        print(
            f"{printable(name)}: {_count(run.verdict.nodes, 'node')},"
            f" {run.verdict.seconds:,.0f} virtual s, {_count(len(findings), 'finding')}"
        )
        for finding in findings[:FINDINGS_SHOWN]:
            print(f"    {printable(str(finding))}")
        if len(findings) > FINDINGS_SHOWN:
            print(f"    and {len(findings) - FINDINGS_SHOWN} more")
    print(f"  again: {printable(_again(run, file))}")


def _print_summary(tally: _Tally) -> None:
    print(
        f"{_count(tally.runs, 'run')}, {_count(tally.events, 'event')},"
        f" {tally.virtual_s / 3600:,.1f} virtual hours in {duration(tally.took_s)}:"
        f" {len(tally.failed) or 'none'} with findings"
    )
    if tally.runs > 1:
        if tally.weak.line:
            print(f"of these {tally.weak.line}")
        kinds = sorted(tally.kinds.items(), key=lambda item: -len(item[1]))
        for kind, seeds in kinds[:KINDS_SHOWN]:
            print(f"{len(seeds):>6}  {printable(kind)}, first with seed {seeds[0]}")


def _print_tally(tally: _Tally) -> None:
    value = {
        "runs": tally.runs,
        "events": tally.events,
        "virtual_s": round(tally.virtual_s, 3),
        "took_s": round(tally.took_s, 3),
        "fragments": tally.weak.fragments,
        "excused": tally.weak.excused,
        "failed": tally.failed,
    }
    print_json(value)


def _host_of(run: Run) -> str:
    """Where something was found first, as a trace names it."""
    findings = run.verdict.findings if run.verdict is not None else []
    return next((finding.host for finding in findings if finding.host), "HOST")


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
