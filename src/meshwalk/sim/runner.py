"""Runs the cases of an experiment, in this process or over several.

It decides nothing about what a case does and prints nothing. Processes are spawned, not forked, so
that a case starts from the same state on every system. A worker whose parent is killed ends too.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import Final, TypeAlias

import msgspec

from meshwalk.errors import InvalidArgument
from meshwalk.sim.experiment import Case, Experiment, Row, Size
from meshwalk.sim.workers import ended_on_error, pool

Clock: TypeAlias = Callable[[], float]
"""Seconds from any start. It crosses processes: a function such as time.perf_counter."""

_KILLED: Final = (
    "a worker process was killed while this case ran; is the memory enough?"
    " --jobs 1 runs one case at a time"
)


class Failure(msgspec.Struct, frozen=True):
    """Why a case has no row."""

    error: str
    """Type and text of what was raised."""
    traceback: str = ""
    """As the interpreter prints it; empty when the process was killed."""


class Outcome(msgspec.Struct, frozen=True):
    """What became of one case."""

    case: Case
    result: Row | Failure


def chosen_cases(experiment: Experiment, size: Size, seed: int, containing: str = "") -> list[Case]:
    """The cases of an experiment whose names contain the text; all of them for an empty text.

    Raises `InvalidArgument` when no name does.
    """
    cases = experiment.cases(size, seed)
    names = [case.name for case in cases]
    assert len(set(names)) == len(names), f"two cases of {experiment.name} have the same name"
    chosen = [case for case in cases if containing in case.name]
    if not chosen:
        raise InvalidArgument(
            f"{experiment.name} has no case with {containing!r} in its name at size {size};"
            f" there are, for example: {'; '.join(names[:3])}"
        )
    return chosen


def run_cases(
    experiment: Experiment,
    cases: Sequence[Case],
    *,
    jobs: int = 1,
    clock: Clock | None = None,
    on_done: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """Run the cases, the heaviest first; the outcomes in the order of the cases.

    A case that raises becomes a `Failure` and the others go on. `on_done` is called in this process
    as each ends. With more than one job, or if the experiment wants fresh processes, `jobs` worker
    processes are used. Rows get the fields `case` and `seed`, and `run_s` if there is a clock.
    An error in `on_done`, KeyboardInterrupt included, ends all workers before it goes on.
    """
    if jobs < 1:
        raise InvalidArgument(f"--jobs is at least 1, not {jobs}")
    attempt = partial(_attempt, experiment.run, clock)
    order = sorted(range(len(cases)), key=lambda index: -cases[index].weight)
    outcomes: dict[int, Outcome] = {}
    if experiment.fresh_process:
        found = _over_processes(attempt, cases, order, jobs, is_fresh=True)
    elif jobs > 1 and len(cases) > 1:
        found = _over_processes(attempt, cases, order, min(jobs, len(cases)), is_fresh=False)
    else:
        found = ((index, attempt(cases[index])) for index in order)
    with ended_on_error():
        for index, result in found:
            outcomes[index] = Outcome(cases[index], result)
            on_done(outcomes[index])
    return [outcomes[index] for index in range(len(cases))]


def _attempt(run: Callable[[Case], Row], clock: Clock | None, case: Case) -> Row | Failure:
    began_at = 0.0 if clock is None else clock()
    try:
        row = run(case)
    except Exception as error:  # noqa: BLE001 # door: a case's run; the failure names the case
        lines = traceback.format_exception(error)
        return Failure(f"{type(error).__name__}: {error}", "".join(lines))
    took = {} if clock is None else {"run_s": round(clock() - began_at, 3)}
    return {"case": case.name, "seed": case.seed, **row, **took}


# Worker processes.

_Attempt: TypeAlias = Callable[[Case], Row | Failure]


def _over_processes(
    attempt: _Attempt, cases: Sequence[Case], order: Sequence[int], jobs: int, *, is_fresh: bool
) -> Iterator[tuple[int, Row | Failure]]:
    """Results as they come. Never more than `jobs` are under way, so a broken pool loses few."""
    waiting = list(reversed(order))
    running: dict[Future[Row | Failure], tuple[int, ProcessPoolExecutor]] = {}
    shared: ProcessPoolExecutor | None = None
    while waiting or running:
        while waiting and len(running) < jobs:
            workers = pool(1) if is_fresh else shared or pool(jobs)
            shared = None if is_fresh else workers
            try:
                future = workers.submit(attempt, cases[waiting[-1]])
            except BrokenProcessPool:  # since the last result
                shared = None
                continue
            running[future] = (waiting.pop(), workers)
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            index, workers = running.pop(future)
            is_broken = isinstance(future.exception(), BrokenProcessPool)
            if is_broken and workers is shared:
                shared = None
            if is_broken or is_fresh:
                workers.shutdown()
            yield index, Failure(_KILLED) if is_broken else future.result()
    if shared is not None:
        shared.shutdown()
