"""Cases over processes: the order of results, failures, killed workers, and a parent that dies."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from meshwalk.errors import InvalidArgument
from meshwalk.sim.experiment import Case, Experiment, Plot, Row, Size, Table
from meshwalk.sim.runner import Failure, Outcome, chosen_cases, run_cases


def cases(size: Size, seed: int) -> list[Case]:
    count = {Size.QUICK: 4, Size.FULL: 8, Size.HUGE: 16}[size]
    return [Case(f"n={n}", {"n": n}, seed + n, weight=n) for n in range(1, count + 1)]


def square(case: Case) -> Row:
    return {"n": case.settings["n"], "square": case.settings["n"] ** 2}


def fail_at_two(case: Case) -> Row:
    if case.settings["n"] == 2:
        raise ValueError("two is too much")
    return square(case)


def die_at_four(case: Case) -> Row:
    """As if the system had ended the process for want of memory."""
    if case.settings["n"] == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return square(case)


def tell_process(case: Case) -> Row:
    return {"process": os.getpid()}


def experiment(run: Callable[[Case], Row], *, fresh_process: bool = False) -> Experiment:
    def no_tables(rows: list[Row]) -> list[Table]:
        return []

    def no_plots(rows: list[Row]) -> list[Plot]:
        return []

    return Experiment("squares", "Squares.", cases, run, no_tables, no_plots, fresh_process)


FEW = cases(Size.QUICK, 100)


@pytest.mark.parametrize("jobs", [1, 2])
def test_results_stand_in_the_order_of_the_cases_and_the_heaviest_runs_first(jobs: int) -> None:
    ended: list[str] = []
    outcomes = run_cases(
        experiment(square), FEW, jobs=jobs, on_done=lambda outcome: ended.append(outcome.case.name)
    )
    assert [outcome.result for outcome in outcomes] == [
        {"case": f"n={n}", "seed": 100 + n, "n": n, "square": n * n} for n in (1, 2, 3, 4)
    ]
    assert sorted(ended) == ["n=1", "n=2", "n=3", "n=4"]
    if jobs == 1:
        assert ended == ["n=4", "n=3", "n=2", "n=1"]


def test_the_clock_that_is_given_measures_each_case() -> None:
    ticks = iter([1.0, 1.5, 2.0, 4.0])
    outcomes = run_cases(experiment(square), FEW[:2], clock=lambda: next(ticks))
    rows = [outcome.result for outcome in outcomes]
    assert [row["run_s"] for row in rows if isinstance(row, dict)] == [2.0, 0.5]


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_case_that_raises_is_told_and_the_others_go_on(jobs: int) -> None:
    one, two, three, four = run_cases(experiment(fail_at_two), FEW, jobs=jobs)
    assert isinstance(two.result, Failure)
    assert two.result.error == "ValueError: two is too much"
    assert "fail_at_two" in two.result.traceback
    for outcome in (one, three, four):
        assert isinstance(outcome.result, dict)


def test_a_killed_worker_loses_what_ran_beside_it_and_nothing_else() -> None:
    outcomes = run_cases(experiment(die_at_four), cases(Size.FULL, 0), jobs=2)
    lost = [outcome for outcome in outcomes if isinstance(outcome.result, Failure)]
    assert 1 <= len(lost) <= 2
    assert "n=4" in [outcome.case.name for outcome in lost]
    for outcome in lost:
        assert isinstance(outcome.result, Failure)
        assert "killed" in outcome.result.error


def test_fresh_processes_are_not_used_twice() -> None:
    outcomes = run_cases(experiment(tell_process, fresh_process=True), FEW[:2], jobs=1)
    processes = {row["process"] for o in outcomes if isinstance(row := o.result, dict)}
    assert len(processes) == 2
    assert os.getpid() not in processes


def test_one_job_needs_no_process() -> None:
    (outcome,) = run_cases(experiment(tell_process), FEW[:1], jobs=8)
    assert isinstance(outcome.result, dict)
    assert outcome.result["process"] == os.getpid()


def test_cases_are_chosen_by_a_part_of_their_name() -> None:
    found = experiment(square)
    assert [case.name for case in chosen_cases(found, Size.HUGE, 1, "n=1")][:2] == ["n=1", "n=10"]
    assert len(chosen_cases(found, Size.FULL, 1)) == 8
    with pytest.raises(InvalidArgument, match=r"no case with 'm='.* for example: n=1; n=2; n=3"):
        chosen_cases(found, Size.QUICK, 1, "m=")


def test_no_jobs_at_all() -> None:
    with pytest.raises(InvalidArgument, match="at least 1"):
        run_cases(experiment(square), FEW, jobs=0)


def sleep_for_long(case: Case) -> Row:
    """Tells who runs it by a file, then works until it is ended."""
    Path(case.settings["folder"], str(os.getpid())).touch()
    time.sleep(60)
    return {}


def workers_in(folder: Path, count: int) -> list[int]:
    while len(found := [int(path.name) for path in folder.iterdir()]) < count:
        time.sleep(0.01)
    return found


def all_ended(workers: list[int]) -> bool:
    def runs(worker: int) -> bool:
        try:
            state = Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return False
        return state != "Z"  # a zombie whose new parent does not look after it has ended

    until = time.monotonic() + 20
    while any(map(runs, workers)) and time.monotonic() < until:
        time.sleep(0.01)
    return not any(map(runs, workers))


def test_an_interrupt_ends_the_workers(tmp_path: Path) -> None:
    workers: list[BaseProcess] = []
    others = set(multiprocessing.active_children())  # of pools that earlier tests broke

    def interrupt(outcome: Outcome) -> None:
        workers.extend(set(multiprocessing.active_children()) - others)
        raise KeyboardInterrupt

    long = Case("long", {"folder": str(tmp_path)}, 0)
    bad = Case("bad", {"folder": str(tmp_path / "nowhere")}, 0, weight=0.5)
    with pytest.raises(KeyboardInterrupt):
        run_cases(experiment(sleep_for_long), [long, bad], jobs=2, on_done=interrupt)
    assert workers
    for worker in workers:
        worker.join(timeout=20)
        assert worker.exitcode is not None


@pytest.mark.processes
@pytest.mark.skipif(not Path("/proc").exists(), reason="needs /proc to see processes")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_with_their_parent(tmp_path: Path, number: signal.Signals) -> None:
    program = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from test_runner import *\n"
        "if __name__ == '__main__':\n"
        f"    long = [Case(str(n), {{'folder': {str(tmp_path)!r}}}, 0) for n in range(2)]\n"
        "    run_cases(experiment(sleep_for_long), long, jobs=2)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.DEVNULL)
    try:
        workers = workers_in(tmp_path, 2)
        parent.send_signal(number)
        assert parent.wait(timeout=20) == -number
        assert all_ended(workers)
    finally:
        parent.kill()
