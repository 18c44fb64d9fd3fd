"""What the commands of `meshwalk sim` share: the commands that they tell people to type."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from meshwalk.cli.sim_console import command


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "a clone" / "bin" / "meshwalk"
    path.parent.mkdir(parents=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_a_program_off_the_path_is_named_by_its_file(
    program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [str(program), "sim", "soak"])
    monkeypatch.setenv("PATH", str(tmp_path))
    assert command("sim", "soak", "a b") == f"{shlex.quote(str(program))} sim soak 'a b'"
    other = tmp_path / "meshwalk"
    other.write_text("#!/bin/sh\n")
    other.chmod(0o755)
    assert shlex.split(command("sim")) == [str(program), "sim"]


def test_a_program_on_the_path_is_named_by_its_name(
    program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(program.parent))
    for started_as in (str(program), "/usr/lib/python3/meshwalk/__main__.py", "-c"):
        monkeypatch.setattr(sys, "argv", [started_as])
        assert command("sim", "list") == "meshwalk sim list"
