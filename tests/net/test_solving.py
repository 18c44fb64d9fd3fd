"""Proofs of work in a process of their own: found, told of, cancelled, and children that fail."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from meshwalk.errors import LocalError
from meshwalk.net.solving import CHILD, solved
from meshwalk.proto.broadcast.work import is_worked, trials

DEADLINE_S = 20
PAYLOAD = b"what everybody gets"
EASY = 3  # some 3,000 trials: milliseconds
HOPELESS = 10**12  # some 10**15 trials: years


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> list[asyncio.subprocess.Process]:
    """The processes that are started in a test."""
    found: list[asyncio.subprocess.Process] = []
    start = asyncio.create_subprocess_exec

    async def noted(*arguments: Any, **options: Any) -> asyncio.subprocess.Process:
        found.append(await start(*arguments, **options))
        return found[-1]

    monkeypatch.setattr(asyncio, "create_subprocess_exec", noted)
    return found


def program(folder: Path, text: str) -> str:
    """A program that is started in place of Python."""
    path = folder / "child"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o700)
    return str(path)


@pytest.mark.processes
async def test_a_number_is_found_that_proves_the_work(
    children: list[asyncio.subprocess.Process],
) -> None:
    number = await solved(PAYLOAD, EASY)
    assert is_worked(PAYLOAD, number, EASY)
    assert [child.returncode is not None for child in children] == [True]


@pytest.mark.processes
async def test_progress_is_told_while_the_loop_goes_on_and_cancelling_ends_the_child(
    children: list[asyncio.subprocess.Process],
) -> None:
    told: list[tuple[int, int]] = []
    enough = asyncio.Event()

    def progress(tried: int, expected: int) -> None:
        told.append((tried, expected))
        if len(told) == 2:
            enough.set()

    solving_it = asyncio.create_task(solved(PAYLOAD, HOPELESS, progress))
    async with asyncio.timeout(DEADLINE_S):
        await enough.wait()
    solving_it.cancel()
    with pytest.raises(asyncio.CancelledError):
        await solving_it
    (child,) = children
    assert child.returncode is not None
    tried = [count for count, _ in told]
    assert 0 < tried[0] < tried[1]
    assert {expected for _, expected in told} == {trials(len(PAYLOAD), HOPELESS)}


@pytest.mark.skipif(os.name != "posix", reason="needs a shell")
@pytest.mark.parametrize(
    "text",
    [
        "exit 1",
        "cat > /dev/null; echo found 0",  # which proves nothing
        "cat > /dev/null; echo tried 5; echo; echo hello; kill -9 $$",
    ],
)
async def test_a_child_that_fails_is_one_typed_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str
) -> None:
    monkeypatch.setattr(sys, "executable", program(tmp_path, text))
    with pytest.raises(LocalError, match="died"):
        await solved(b"x" * (1 << 20), HOPELESS, lambda tried, expected: None)


async def test_a_child_that_cannot_be_started_is_a_typed_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "missing"))
    with pytest.raises(LocalError, match="cannot start"):
        await solved(PAYLOAD, EASY)


@pytest.mark.processes
def test_a_child_whose_parent_has_gone_ends() -> None:
    child = subprocess.Popen(
        [sys.executable, "-P", "-c", CHILD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdout.close()
    child.stdin.write(b"%d\n%b" % (HOPELESS, PAYLOAD))
    child.stdin.close()
    assert child.wait(DEADLINE_S) == 1
