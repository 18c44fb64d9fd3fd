"""Runs over processes, runs that raise, and what makes two findings the same."""

from __future__ import annotations

import itertools
import os
import signal
from contextlib import closing

import msgspec
import pytest

from meshwalk.cli import sim_soak
from meshwalk.errors import InvalidArgument
from meshwalk.sim.checks import Finding
from meshwalk.sim.plan import Plan
from meshwalk.sim.soaking import Run, Weak, carry_out, plan_of, recorded_by, soak
from meshwalk.sim.storm import Storm, Verdict
from meshwalk.trace import TraceHash


def verdict(*texts: str) -> Verdict:
    findings = [Finding(1.0, "10.0.0.1", text) for text in texts]
    return Verdict(
        findings=findings,
        nodes=3,
        up=3,
        fragments=1,
        pieces=1,
        deliveries=0,
        events=10,
        seconds=60.0,
        mended_s=1.0,
    )


def attempt(seed: int) -> Run:
    if seed == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return Run(seed, verdict())


def test_every_seed_is_run_once() -> None:
    assert [run.plan_seed for run in soak(range(2), 1, attempt)] == [0, 1]
    runs = list(soak(range(3), 2, attempt))
    assert sorted(run.plan_seed or 0 for run in runs) == [0, 1, 2]
    assert all(run.is_good for run in runs)


def test_a_killed_process_is_a_finding_and_the_others_go_on() -> None:
    runs = list(soak([3, 4, 5, 6], 2, attempt))
    assert sorted(run.plan_seed or 0 for run in runs) == [3, 4, 5, 6]
    (killed,) = [run for run in runs if run.plan_seed == 3]
    assert "killed" in killed.error
    assert [run for run in runs if run.is_good]  # whatever ran beside it may be gone as well


def test_endless_seeds_are_asked_for_one_by_one() -> None:
    seeds = itertools.count()
    with closing(soak(seeds, 1, attempt)) as runs:
        next(runs)
        next(runs)
    assert next(seeds) == 2


def test_jobs_are_checked() -> None:
    with pytest.raises(InvalidArgument, match="at least 1"):
        next(soak([1], 0))


def test_a_run_that_raises_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(storm: Storm) -> Verdict:
        raise KeyError("nobody")

    monkeypatch.setattr(Storm, "run", run)
    run_ = carry_out(plan_of(1), 1)
    assert not run_.is_good
    assert run_.error == "KeyError: 'nobody'"
    assert run_.traceback.endswith("KeyError: 'nobody'")
    assert 'raise KeyError("nobody")' in run_.traceback


def test_kinds_leave_out_what_differs() -> None:
    run = Run(
        1,
        verdict(
            "3 links after 482 s without faults",
            "delivered twice: b'10.0.0.1/1 99 \\x00'",
            "1 links after 7.5 s without faults",
            'delivered twice: b"it\'s"',
        ),
    )
    assert run.kinds == ["# links after # s without faults", "delivered twice: …"]
    assert Run(1, None, "KeyError: 17").kinds == ["KeyError: #"]


def test_runs_that_show_less_are_counted() -> None:
    weak = Weak()
    assert weak.line == ""
    plain, apart = verdict(), msgspec.structs.replace(verdict(), fragments=3)
    excused = msgspec.structs.replace(apart, excused=["rest", "last words"])
    for seed, each in enumerate([plain, apart, excused, excused]):
        weak.add(Run(seed, each))
    weak.add(Run(9, None, "KeyError: 17"))
    assert (weak.fragments, weak.excused, weak.runs) == (3, {"rest": 2, "last words": 2}, 3)
    assert weak.line == "in fragments 3; excused: last words 2, rest 2"


def test_the_summary_tells_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    tally = sim_soak._Tally(0.0)
    tally.add(Run(0, verdict()))
    tally.add(Run(1, msgspec.structs.replace(verdict(), excused=["links"])))
    sim_soak._print_summary(tally)
    sim_soak._print_tally(tally)
    out = capsys.readouterr().out
    assert "\nof these excused: links 1\n" in out
    assert '"fragments": 0,\n  "excused": {\n    "links": 1\n  }' in out


def small_plan() -> Plan:
    return min((plan_of(seed) for seed in range(60)), key=lambda p: len(p.nodes) * p.duration_s)


def test_a_recorded_run_does_the_same_as_another() -> None:
    plan = small_plan()
    traces = [TraceHash(), TraceHash()]
    runs = [carry_out(plan, make_core=recorded_by(trace.write)) for trace in traces]
    assert runs == [carry_out(plan)] * 2
    assert traces[0].lines > 100
    assert traces[0].digest == traces[1].digest
