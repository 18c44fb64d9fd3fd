"""The programs in docs/testing.md run, and the tests in them pass."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest

TEXT = (Path(__file__).parents[2] / "docs" / "testing.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_block(number: int, tmp_path: Path) -> None:
    names: dict[str, Any] = {"__name__": "tutorial"}
    exec(compile(BLOCKS[number], f"docs/testing.md, block {number}", "exec"), names)
    given = {"tmp_path": tmp_path, "seed": 1}
    for name, test in names.items():
        if name.startswith("test_"):
            test(**{wanted: given[wanted] for wanted in inspect.signature(test).parameters})


def test_there_are_blocks() -> None:
    assert len(BLOCKS) == 4
