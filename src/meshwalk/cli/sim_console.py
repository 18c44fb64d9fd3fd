"""What the commands of `meshwalk sim` share: exit codes, JSON, and what they say beside it."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path
from typing import Final

import msgspec

from meshwalk.cli.render import printable

OK: Final = 0  # the exit codes of cli/main.py, which imports these commands only when they run
FAILED: Final = 1  # as above

_PROGRAM: Final = "meshwalk"


def print_json(value: object) -> None:
    """Print one JSON value, for programs."""
    print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def say(line: str) -> None:
    """Tell people on stderr: beside what was asked for, so not among it."""
    print(f"{_PROGRAM}: {printable(line)}", file=sys.stderr)


def command(*arguments: str) -> str:
    """A command line that starts this meshwalk once more, to be copied into the same terminal.

    In a clone, `script/soak` and the like start a meshwalk that is not on the shell's path: then
    the command names its file.
    """
    started_as = sys.argv[0]
    on_path = shutil.which(_PROGRAM)
    is_other = on_path is None or Path(on_path).absolute() != Path(started_as).absolute()
    # Started from elsewhere, as by a test or with `python -m`, it has no file of its own to name.
    names_file = Path(started_as).name == _PROGRAM and is_other
    return shlex.join([started_as if names_file else _PROGRAM, *arguments])
