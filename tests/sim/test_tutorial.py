"""The programs in docs/simulator.md run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

TEXT = (Path(__file__).parents[2] / "docs" / "simulator.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_block(number: int) -> None:
    names: dict[str, Any] = {"__name__": "tutorial"}
    exec(compile(BLOCKS[number], f"docs/simulator.md, block {number}", "exec"), names)


def test_there_are_blocks_and_the_first_is_short() -> None:
    assert len(BLOCKS) == 5
    assert len(BLOCKS[0].strip().splitlines()) <= 10


def test_what_it_names_exists() -> None:
    source = Path(__file__).parents[2] / "src" / "meshwalk"
    for name in set(re.findall(r"`(sim/(?:[a-z]+/)*[a-z]+\.py)`", TEXT)):
        assert (source / name).exists(), name
    plan = (source / "sim" / "plan.py").read_text() + (source / "sim" / "storm.py").read_text()
    for name in re.findall(r"`(_[A-Za-z_]+)`", TEXT):
        assert name in plan, name
