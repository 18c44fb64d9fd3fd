"""Plans that once showed a defect, each in a file of regressions/ that says which in its `why`.

`meshwalk sim soak --seed N --shrink` makes such a file.
"""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from meshwalk.sim.planfile import read_plan
from meshwalk.sim.soaking import carry_out

FILES = sorted((Path(__file__).parent / "regressions").glob("*.json"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_it_stays_mended(file: Path) -> None:
    plan = read_plan(file)
    assert plan.why, f"{file} does not say what it is kept for: write it in `why`"
    run = carry_out(plan)
    found = [run.traceback] if run.verdict is None else [str(each) for each in run.verdict.findings]
    again = shlex.join(["meshwalk", "sim", "soak", "--plan", str(file)])
    assert run.is_good, "\n".join([plan.why, *found[:10], f"again: {again}"])
