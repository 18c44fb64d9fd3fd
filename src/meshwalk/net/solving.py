"""Proofs of work, found in a process of their own, so that the event loop never waits for one.

The parent writes the difficulty in a line of its own and then the payload. The child answers with
lines: "tried N" now and then, and "found NUMBER" at its end. Cancelling `solved` ends the child; a
child whose parent has gone ends when it next has something to tell.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import Callable
from typing import Final, TypeAlias

from meshwalk.errors import LocalError
from meshwalk.proto.broadcast.work import first_number, is_worked, trials

Progress: TypeAlias = Callable[[int, int], None]
"""Told how many trials were made so far, and how many it takes on the average."""

CHILD: Final = "from meshwalk.net.solving import search; raise SystemExit(search())"
STRETCH: Final = 1 << 14  # measured: 10 to 20 ms of trials, between two looks at the clock
TELL_EVERY_S: Final = 0.1  # guess: ten steps a second look smooth
NICENESS: Final = 10  # guess: half way to the last; other programs come first


async def solved(payload: bytes, difficulty: int, progress: Progress | None = None) -> int:
    """The number that proves work for a payload: see `proto/broadcast/work.py`.

    `progress` is called on the loop. Raises `LocalError` when the child cannot be started, or dies.
    """
    expected = trials(len(payload), difficulty)
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-c", CHILD),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,  # it may be a screen that is drawn on
            # What this program imports from, so that the child finds the same library.
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
    except OSError as error:
        reason = error.strerror or error
        raise LocalError(f"cannot start a process for the proof of work: {reason}") from error
    try:
        number = await _answer(process, b"%d\n%b" % (difficulty, payload), expected, progress)
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):  # it has ended a moment ago
                process.kill()
        await process.wait()
    if number is None or not is_worked(payload, number, difficulty):
        raise LocalError("the process for the proof of work has died; nothing was sent")
    return number


async def _answer(
    process: asyncio.subprocess.Process, task: bytes, expected: int, progress: Progress | None
) -> int | None:
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(ConnectionError):  # it has died: then its output ends
        process.stdin.write(task)
        await process.stdin.drain()
        process.stdin.close()
    while line := await process.stdout.readline():
        word, _, number = line.partition(b" ")
        if word == b"found":
            return int(number)
        if word == b"tried" and progress is not None:
            progress(int(number), expected)
    return None


def search() -> int:
    """The child: read a task from stdin, and answer on stdout. The exit code."""
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    difficulty = int(sys.stdin.buffer.readline())
    payload = sys.stdin.buffer.read()
    tried, told_at = 0, time.monotonic()
    while (number := first_number(payload, difficulty, tried, STRETCH)) is None:
        tried += STRETCH
        if time.monotonic() - told_at >= TELL_EVERY_S:
            told_at = time.monotonic()
            if not _told(f"tried {tried}"):
                return 1
    return 0 if _told(f"found {number}") else 1


def _told(line: str) -> bool:
    """Write a line; false: nobody reads any more."""
    try:
        os.write(1, f"{line}\n".encode())
    except OSError:
        return False
    return True
