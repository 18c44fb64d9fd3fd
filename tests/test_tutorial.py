"""The programs in docs/tutorial.md and others run and print what stands there; so do commands."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PROGRAM = re.compile(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```)?", re.MULTILINE | re.DOTALL)
PROGRAMS = [
    pytest.param(name, code, printed, id=f"{name}-{number}")
    for name in ("tutorial.md", "conversations.md", "overlay.md")
    for number, (code, printed) in enumerate(PROGRAM.findall((DOCS / name).read_text()))
]
COMMANDS = re.findall(
    r"^```sh\n(.*?)^```", (DOCS / "tutorial.md").read_text(), re.MULTILINE | re.DOTALL
)
DEADLINE_S = 60.0  # guess: twice what it takes on two cores that do other things as well


@pytest.mark.parametrize(("document", "code", "printed"), PROGRAMS)
def test_program(
    document: str, code: str, printed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    exec(compile(code, document, "exec"), {"__name__": "__main__"})
    assert capsys.readouterr().out == printed


def test_there_are_programs() -> None:
    assert len(PROGRAMS) >= 10


@pytest.mark.processes
@pytest.mark.skipif(sys.platform == "win32", reason="the commands are for a POSIX shell")
def test_a_network_mends_itself_at_the_prompt(tmp_path: Path) -> None:
    def sh(commands: str) -> str:
        text = commands.replace("/tmp/mending", str(tmp_path))
        run = subprocess.run(
            ["sh", "-c", text], cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=DEADLINE_S
        )
        return run.stdout

    def until(is_so: Callable[[dict[str, Any]], bool]) -> None:
        """Ask the node that the tutorial looks at until it is so."""
        deadline = time.monotonic() + DEADLINE_S
        while True:
            answer = sh("script/run status --json --data /tmp/mending/8 2>&1")
            if answer.startswith("{") and is_so(json.loads(answer)):
                return
            assert time.monotonic() < deadline, answer

    start, look, kill, leave = COMMANDS
    try:
        sh(start)
        until(lambda s: s["neighbours"] >= 5 and overlay_of(s)["leader"] is not None)
        seen = sh(look)
        assert re.search(
            r"^fragment +about [2-8] nodes; beacon of \w{8} heard ", seen, re.MULTILINE
        )
        assert len(re.findall(r"^\w{8} neighbour ", seen, re.MULTILINE)) >= 5
        sh(kill)
        until(lambda s: s["neighbours"] == 5)
        sh(leave)
        until(lambda s: s["neighbours"] == 4)
    finally:
        for file in tmp_path.glob("*.pid"):
            with contextlib.suppress(ProcessLookupError):  # one of those that have ended
                os.kill(int(file.read_text()), signal.SIGTERM)


def overlay_of(status: dict[str, Any]) -> dict[str, Any]:
    overlay: dict[str, Any] = status["statistics"]["node"]["overlay"]
    return overlay
