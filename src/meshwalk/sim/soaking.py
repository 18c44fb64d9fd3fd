"""Drawn runs, one after another and over several processes, and what was wrong with each.

A run that raises is a finding, as one that ends with a false result is. It prints nothing and
knows no clock: the command line does, and FoundationDB's simulation is the model (Zhou et al.,
SIGMOD 2021: whole days of drawn faults each night, every failure repeatable from its seed).
"""

from __future__ import annotations

import re
import struct
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Final, TypeAlias

import msgspec

from meshwalk.errors import InvalidArgument
from meshwalk.proto.node import NodeCore
from meshwalk.proto.recording import RecordedCore, Write
from meshwalk.sim.attackers import BEHAVIOURS
from meshwalk.sim.node import SimNode
from meshwalk.sim.plan import Plan, draw
from meshwalk.sim.replay import DEFECTS
from meshwalk.sim.storm import Storm, Verdict
from meshwalk.sim.workers import ended_on_error, pool
from meshwalk.sim.world import MakeCore

TRACEBACK_LINES: Final = 8  # guess: the last three calls and the error

Attempt: TypeAlias = Callable[[int], "Run"]
"""Carries out the plan of a seed, in any process: a function of a module."""

# What differs between two cases of the same trouble: bodies, and numbers in hosts and counts.
_BODY: Final = re.compile(r"""b(['"]).*?\1""")
_NUMBER: Final = re.compile(r"\d[\d.,]*")
# What machines with a defect raise: as in replay.py, and what encoding and decoding may.
_DEFECTS: Final = (*DEFECTS, msgspec.MsgspecError, struct.error)
_KILLED: Final = "its process was killed; is the memory enough? --jobs 1 has one run at a time"


class Run(msgspec.Struct, frozen=True):
    """One plan, and what became of it."""

    plan_seed: int | None
    """Which seed the plan was drawn from; None when it was read from a file."""
    verdict: Verdict | None = None
    """None when it raised, or did not end."""
    error: str = ""
    """Type and text of what it raised."""
    traceback: str = ""
    """The last lines of it."""

    @property
    def is_good(self) -> bool:
        """Whether nothing was found."""
        return self.verdict is not None and self.verdict.is_good

    @property
    def kinds(self) -> list[str]:
        """What was found, each kind once, without what differs from case to case."""
        if self.verdict is None:
            return [_kind(self.error)]
        return list(dict.fromkeys(_kind(finding.text) for finding in self.verdict.findings))


class Weak(msgspec.Struct):
    """How many runs show less than one in which everything was demanded."""

    fragments: int = 0
    """Runs whose network had come apart, and was joined again by naming entries."""
    excused: dict[str, int] = {}
    """Runs in which a demand was dropped, by its name in `Verdict.excused`."""
    runs: int = 0
    """Runs with any of these."""

    def add(self, run: Run) -> None:
        """Count a run."""
        verdict = run.verdict
        if verdict is None:
            return
        self.fragments += verdict.fragments > 1
        for demand in verdict.excused:
            self.excused[demand] = self.excused.get(demand, 0) + 1
        self.runs += verdict.fragments > 1 or bool(verdict.excused)

    @property
    def line(self) -> str:
        """For a person; empty when there was none."""
        parts = [f"{demand} {count}" for demand, count in sorted(self.excused.items())]
        fragments = [f"in fragments {self.fragments}"] if self.fragments else []
        excused = [f"excused: {', '.join(parts)}"] if parts else []
        return "; ".join([*fragments, *excused])


def plan_of(seed: int) -> Plan:
    """The plan that a soak draws from a seed: all faults, and all attackers."""
    return draw(seed, tuple(BEHAVIOURS))


def run_seed(seed: int) -> Run:
    """Draw a plan and carry it out."""
    return carry_out(plan_of(seed), seed)


def carry_out(plan: Plan, seed: int | None = None, make_core: MakeCore | None = None) -> Run:
    """Carry out a plan; what it raises becomes part of the result.

    Raises `InvalidArgument` for a plan that can never be carried out.
    """
    storm = Storm(plan, make_core)
    try:
        return Run(seed, storm.run())
    except _DEFECTS as error:
        return _raised(seed, error)


def recorded_by(write: Write) -> MakeCore:
    """Nodes that tell `write` of all that they do, as docs/traces.md has it, under their hosts.

    They make the same choices as others.
    """

    def make_core(node: SimNode, seed: int, now: float, unix_offset_s: float) -> NodeCore:
        return RecordedCore(
            node.signatures,
            node.config,
            seed,
            now,
            unix_offset_s,
            write=write,
            node=node.name,
        )

    return make_core


def soak(
    seeds: Iterable[int], jobs: int = 1, attempt: Attempt = run_seed
) -> Generator[Run, None, None]:
    """Carry out the plans of these seeds; each run as it ends.

    The next seed is asked for when a process is free, so the seeds may be without end. Close it, as
    with `contextlib.closing`, if it is left before its end: that ends all processes.
    """
    if jobs < 1:
        raise InvalidArgument(f"--jobs is at least 1, not {jobs}")
    if jobs == 1:
        yield from map(attempt, seeds)
    else:
        with ended_on_error():
            yield from _over_processes(iter(seeds), jobs, attempt)


def _over_processes(seeds: Iterator[int], jobs: int, attempt: Attempt) -> Iterator[Run]:
    """Never more than `jobs` are under way, so a killed process takes few with it."""
    running: dict[Future[Run], int] = {}
    workers: ProcessPoolExecutor | None = None
    ends = False
    while running or not ends:
        while not ends and len(running) < jobs:
            seed = next(seeds, None)
            if seed is None:
                ends = True
                break
            workers, future = _submitted(workers, jobs, attempt, seed)
            running[future] = seed
        for future in wait(running, return_when=FIRST_COMPLETED).done if running else ():
            seed = running.pop(future)
            error = future.exception()
            if isinstance(error, BrokenProcessPool):
                workers = None
                yield Run(seed, None, _KILLED)
            elif error is not None:
                yield _raised(seed, error)
            else:
                yield future.result()
    if workers is not None:
        workers.shutdown()


def _submitted(
    workers: ProcessPoolExecutor | None, jobs: int, attempt: Attempt, seed: int
) -> tuple[ProcessPoolExecutor, Future[Run]]:
    if workers is not None:
        try:
            return workers, workers.submit(attempt, seed)
        except BrokenProcessPool:  # since the last result
            pass
    fresh = pool(jobs)
    return fresh, fresh.submit(attempt, seed)


def _raised(seed: int | None, error: BaseException) -> Run:
    lines = "".join(traceback.format_exception(error)).splitlines()
    name = f"{type(error).__name__}: {error}"
    return Run(seed, None, name, "\n".join(lines[-TRACEBACK_LINES:]))


def _kind(text: str) -> str:
    return _NUMBER.sub("#", _BODY.sub("…", text))
