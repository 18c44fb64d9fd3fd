"""A chat in a real pseudo-terminal: what is typed, drawn and left behind."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from chats import DEADLINE_S, HOSTILE, PROGRAM, bodies, entry_of, friend

from meshwalk.events import NeighbourDown


class PseudoTerminal:
    """A chat in a terminal of 100 columns, and all that it has drawn."""

    def __init__(self, folder: Path, *entry: str, difficulty: int = 0) -> None:
        self.drawn = b""
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
        self.before = termios.tcgetattr(theirs)
        self._theirs = theirs
        # A terminal that does not answer where the cursor is; there is no other end here.
        environment = {**os.environ, "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"}
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-c", PROGRAM, f"--difficulty={difficulty}"),
                *(str(folder), "", *entry),
            ],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment,
            start_new_session=True,
        )
        os.set_blocking(self._ours, False)

    def type(self, text: str) -> int:
        """Type, and return how much had been drawn before."""
        data, before = text.encode("utf-8", "surrogateescape"), len(self.drawn)
        until = time.monotonic() + DEADLINE_S
        while data:
            assert time.monotonic() < until
            with contextlib.suppress(BlockingIOError):
                data = data[os.write(self._ours, data) :]
            self._look()
        return before

    async def shows(self, text: str, since: int = 0) -> int:
        """Wait until a text is drawn; return the place behind it."""
        wanted = text.encode()
        until = time.monotonic() + DEADLINE_S
        while (at := self.drawn.find(wanted, since)) < 0:
            assert time.monotonic() < until, self.drawn[since:][-3000:]
            self._look()
            await asyncio.sleep(0.01)
        return at + len(wanted)

    async def ends(self) -> int:
        """Wait for the end; return the exit status."""
        until = time.monotonic() + DEADLINE_S
        while (status := self.process.poll()) is None:
            assert time.monotonic() < until, self.drawn[-3000:]
            self._look()
            await asyncio.sleep(0.01)
        self._look()
        assert b"Traceback" not in self.drawn
        assert termios.tcgetattr(self._theirs) == self.before
        return status

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._ours)
        os.close(self._theirs)

    def _look(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self.drawn += os.read(self._ours, 1 << 20)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Callable[..., PseudoTerminal]]:
    opened: list[PseudoTerminal] = []

    def open_one(*entry: str, **options: int) -> PseudoTerminal:
        opened.append(PseudoTerminal(tmp_path / str(len(opened)), *entry, **options))
        return opened[-1]

    yield open_one
    for one in opened:
        one.close()


@pytest.mark.processes
async def test_half_a_line_survives_a_message(terminal: Callable[..., PseudoTerminal]) -> None:
    async with friend() as node:
        screen = terminal(entry_of(node))
        await screen.shows("joined")
        at = screen.type("half a li")
        at = await screen.shows("half a li", at)
        heard = asyncio.create_task(bodies(node, "half a line"))
        await node.broadcast("meanwhile")
        at = await screen.shows("meanwhile", at)
        at = await screen.shows("> half a li", at)
        screen.type("ne\r")
        await screen.shows("half a line", at)
        assert await heard == ["half a line"]
        screen.type("quit\r")
        assert await screen.ends() == 0


@pytest.mark.processes
async def test_no_stranger_commands_the_terminal(terminal: Callable[..., PseudoTerminal]) -> None:
    async with friend() as node:
        screen = terminal(entry_of(node))
        at = await screen.shows("joined")
        await node.broadcast(HOSTILE)
        at = await screen.shows("mark", at)
        room = "\x1b]2;topic\x07"
        await node.broadcast(HOSTILE, topic=room)
        await node.broadcast("after it")
        at = await screen.shows("after it", at)
        screen.type("/rooms\r")
        at = await screen.shows("#␛]2;topic␇: 1 message", at)
        screen.type("/join \udcffroom\r")
        at = await screen.shows("no room can have this name", at)
        screen.type("\x04")
        assert await screen.ends() == 0
    for part in ("\x1b]", "\x07", "\x1b[2J", "\x9b35m", "\u202e"):
        assert part.encode() not in screen.drawn
    assert "␛]0;owned␇␛[2J".encode() in screen.drawn


@pytest.mark.processes
async def test_a_room_shows_where_one_is_and_what_was_said_before(
    terminal: Callable[..., PseudoTerminal],
) -> None:
    async with friend() as node, node.messages() as heard, asyncio.timeout(DEADLINE_S):
        await node.broadcast("from before you came")
        screen = terminal(entry_of(node))
        at = await screen.shows("from before you came")
        await node.broadcast("meow", topic="cats")
        await node.broadcast("to all")
        at = await screen.shows("to all", at)  # so it has the one before, too
        screen.type("/rooms\r")
        at = await screen.shows("#cats: 1 message", at)
        assert b"meow" not in screen.drawn
        screen.type("/join cats\r")
        at = await screen.shows("1 line of the last hour in #cats", at)
        at = await screen.shows("meow", at)
        at = await screen.shows("#cats>", at)
        screen.type("purr\r")
        at = await screen.shows("purr", at)
        assert b"[cats]" in screen.drawn
        message = await anext(heard)
        assert (message.topic, message.body) == ("cats", "purr")
        screen.type("/leave\r")
        await screen.shows("left #cats; you are in the main room", at)
        screen.type("/leave\r")
        await screen.shows("the only room you are in", at)
        screen.type("quit\r")
        assert await screen.ends() == 0


@pytest.mark.processes
async def test_a_proof_of_work_shows_how_far_it_is(terminal: Callable[..., PseudoTerminal]) -> None:
    async with friend() as node:
        screen = terminal(entry_of(node), difficulty=10**9)
        at = await screen.shows("joined")
        screen.type("costly\rhalf a li")
        at = await screen.shows("proving work", at)
        at = await screen.shows("trials; ", at)
        await screen.shows("half a li", at)
        screen.type("\x15quit\r")
        await screen.shows("not sent: 1 line without proof of work yet", at)
        assert await screen.ends() == 0


@pytest.mark.processes
async def test_nothing_that_is_typed_breaks_it(terminal: Callable[..., PseudoTerminal]) -> None:
    async with friend() as node:
        heard = asyncio.create_task(bodies(node, "still here"))
        screen = terminal(entry_of(node))
        at = await screen.shows("joined")
        screen.type("\r   \r/nonsense\r")
        at = await screen.shows("no command /nonsense", at)
        screen.type(f"\x1b[200~{'m' * (1 << 20)}\x1b[201~\r")
        at = await screen.shows("1,048,576", at)
        screen.type("\x1b[200~one\r\ntwo \x1b]0;t\x07 three\x1b[201~\r")
        at = await screen.shows("one⏎two ␛]0;t␇ three", at)
        screen.type("//slash\r\x01\x02\x0b\x0c\x1f\udcff\udcfestill\x03")
        screen.type("still here\r")
        assert await heard == ["one\ntwo \x1b]0;t\x07 three", "/slash", "still here"]
        screen.type("/peers\r/who\r/invite\r/help\r/verbose\r")
        at = await screen.shows("all news", at)
        screen.type("\x03")
        at = await screen.shows("Ctrl-C again leaves", at)
        screen.type("\x03")
        assert await screen.ends() == 0


@pytest.mark.processes
@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 0), (signal.SIGHUP, 0), (signal.SIGINT, 130)]
)
async def test_signals_end_it_properly(
    terminal: Callable[..., PseudoTerminal], number: signal.Signals, status: int
) -> None:
    async with friend() as node, node.events() as events:
        screen = terminal(entry_of(node))
        at = await screen.shows("joined")
        screen.type("half a li")
        await screen.shows("half a li", at)
        screen.process.send_signal(number)
        assert await screen.ends() == status
        async with asyncio.timeout(DEADLINE_S):
            async for event in events:
                if isinstance(event, NeighbourDown):
                    assert "LEAVING" in event.reason.upper()
                    break


@pytest.mark.processes
async def test_a_wrong_entry_at_a_terminal(terminal: Callable[..., PseudoTerminal]) -> None:
    screen = terminal("nonsense:x")
    await screen.shows("! ")
    assert await screen.ends() == 2
