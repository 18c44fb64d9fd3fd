"""Drawn runs that each commit has to pass, and the same choices whatever the process.

`meshwalk sim soak` draws as many more as one likes. What a seed draws changes with plan.py; what
must stay mended is kept in regressions/, where it does not.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Final

import pytest

from meshwalk.sim.attackers import BEHAVIOURS
from meshwalk.sim.plan import Fault, Kind
from meshwalk.sim.soaking import plan_of, run_seed

SEEDS: Final = range(48)
HASHED: Final = (39, 64, 75)  # quick ones: attackers, and many nodes

PROGRAM: Final = """
import sys
from meshwalk.sim.soaking import carry_out, plan_of, recorded_by
from meshwalk.trace import TraceHash

for seed in map(int, sys.argv[1:]):
    trace = TraceHash()
    run = carry_out(plan_of(seed), seed, recorded_by(trace.write))
    print(seed, trace.lines, trace.digest, run.verdict)
"""


def test_all_faults_and_attackers_are_among_them() -> None:
    plans = [plan_of(seed) for seed in SEEDS]
    assert {step.fault for plan in plans for step in plan.steps} == set(Fault)
    assert {node.kind for plan in plans for node in plan.nodes} == set(Kind)
    assert {node.behaviour for plan in plans for node in plan.nodes} == {"", *BEHAVIOURS}


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_found(seed: int) -> None:
    run = run_seed(seed)
    found = [run.traceback] if run.verdict is None else [str(each) for each in run.verdict.findings]
    again = f"again: meshwalk sim soak --seed {seed} --count 1"
    assert run.is_good, "\n".join(["", *found[:10], again])


def test_the_order_of_sets_does_not_matter() -> None:
    """Processes differ in how they hash bytes and text, and so in the order of their sets."""
    shown = [
        subprocess.run(
            [sys.executable, "-c", PROGRAM, *map(str, HASHED)],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout
        for hash_seed in ("0", "1")
    ]
    assert shown[0] == shown[1]
    assert len(shown[0].splitlines()) == len(HASHED)
