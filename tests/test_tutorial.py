"""The programs in docs/tutorial.md and docs/conversations.md run, and print what stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
PROGRAM = re.compile(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```)?", re.MULTILINE | re.DOTALL)
PROGRAMS = [
    pytest.param(name, code, printed, id=f"{name}-{number}")
    for name in ("tutorial.md", "conversations.md")
    for number, (code, printed) in enumerate(PROGRAM.findall((DOCS / name).read_text()))
]


@pytest.mark.parametrize(("document", "code", "printed"), PROGRAMS)
def test_program(
    document: str, code: str, printed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    exec(compile(code, document, "exec"), {"__name__": "__main__"})
    assert capsys.readouterr().out == printed


def test_there_are_programs() -> None:
    assert len(PROGRAMS) >= 10
