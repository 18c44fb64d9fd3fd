"""The chat: what lines mean, what news is told, and whole chats through pipes and a terminal."""

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
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshwalk.cli.chat_commands import HELP, SLASH_COMMANDS, Connect, Plain, Say, Unknown, parse
from meshwalk.cli.chat_news import PAUSE_S, News
from meshwalk.cli.chat_pipes import LineSplitter
from meshwalk.cli.options import default_data_folder
from meshwalk.errors import TooBig
from meshwalk.events import (
    Alone,
    EntryFailed,
    Event,
    Joined,
    MessagesDropped,
    NeighbourDown,
    NeighbourUp,
    StoreFailed,
)
from meshwalk.net.node import Node
from meshwalk.wire.address import Address
from meshwalk.wire.peerid import PeerId

PEER = PeerId(bytes(range(32)))
HERE = Address("127.0.0.1", 1)
DEADLINE_S = 10.0  # a busy machine; nothing waits that long when all is well
# ESC sequences, a clipboard and a title command, a one-byte CSI, an override, a line end.
HOSTILE = "\x1b]0;owned\x07\x1b[2J\x1b]52;c;aGk=\x1b\\\x9b35m\u202eend\rmark"
PROGRAM = """
import sys
from pathlib import Path
from meshwalk.cli.chat import chat
from meshwalk.cli.options import NodeOptions
from meshwalk.net.loop import run
folder, secret, *entry = sys.argv[1:]
options = NodeOptions(Path(folder), "127.0.0.1:0", secret=secret.encode())
sys.exit(run(chat(options, entry[0] if entry else None)))
"""
# Gives up joining early, for the test of that.
IMPATIENT = """
import meshwalk.cli.chat_session
meshwalk.cli.chat_session.JOIN_TIMEOUT_S = 1.0
"""


# What a line means.


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("", Plain.NOTHING),
        (" \t \n", Plain.NOTHING),
        ("\r\n", Plain.NOTHING),
        ("hello\n", Say("hello")),
        ("  two  spaces ", Say("  two  spaces ")),
        ("exit", Plain.QUIT),
        (" quit ", Plain.QUIT),
        ("/quit", Plain.QUIT),
        ("quit it", Say("quit it")),
        ("connect", Connect(None)),
        ("/connect", Connect(None)),
        ("connect 192.0.2.7:1", Connect("192.0.2.7:1")),
        ("/connect meshwalk://x@y:1/z", Connect("meshwalk://x@y:1/z")),
        ("connect the red wire", Say("connect the red wire")),
        ("/peers", Plain.PEERS),
        ("/WHO", Plain.WHO),
        ("/invite ", Plain.INVITE),
        ("/verbose", Plain.VERBOSE),
        ("/help", Plain.HELP),
        ("//etc/passwd", Say("/etc/passwd")),
        ("//", Say("/")),
        (" /peers", Say(" /peers")),
        ("a/b", Say("a/b")),
        ("one\ntwo", Say("one\ntwo")),
    ],
)
def test_what_a_line_means(line: str, command: object) -> None:
    assert parse(line) == command


@pytest.mark.parametrize("line", ["/", "/nonsense", "/connect a b", "/peers now", "/ etc"])
def test_what_looks_like_a_command_is_not_sent(line: str) -> None:
    assert isinstance(parse(line), Unknown)


@given(st.text(st.characters(codec=None)))
def test_any_line_means_something(line: str) -> None:
    command = parse(line)
    assert not isinstance(command, Say) or command.text.strip()


def test_help_and_completion_name_only_what_there_is() -> None:
    for name in SLASH_COMMANDS:
        assert not isinstance(parse(name), Unknown)
        assert name.removeprefix("/") in HELP


# What news is told.


def up(count: int) -> Event:
    return NeighbourUp(PEER, HERE, count)


def down(count: int) -> Event:
    return NeighbourDown(PEER, "gone", by_us=False, neighbours=count)


def test_joining_is_one_line_and_the_rest_of_the_links_another() -> None:
    news = News()
    assert news.feed(up(1), 0.0) == []
    assert news.feed(Joined(PEER), 0.0) == [f"joined: linked with {PEER.short}"]
    assert news.deadline() is None
    assert [news.feed(up(n), 0.1 * n) for n in (2, 3, 4)] == [[], [], []]
    due = news.deadline() or 0.0
    assert due == pytest.approx(0.2 + PAUSE_S)
    assert news.tick(due - 0.01) == []
    assert news.tick(due) == ["4 neighbours now"]
    assert news.tick(due + 9) == []


def test_a_link_that_is_replaced_at_once_is_no_news() -> None:
    news = News()
    news.feed(up(1), 0.0)
    news.feed(Joined(PEER), 0.0)
    assert news.feed(up(2), 1.0) == []
    assert news.feed(down(1), 1.5) == []
    assert news.deadline() is None


def test_being_alone_is_one_line() -> None:
    news = News()
    news.feed(up(1), 0.0)
    news.feed(Joined(PEER), 0.0)
    assert news.feed(down(0), 5.0) == []
    assert len(news.feed(Alone(), 5.0)) == 1
    assert news.deadline() is None


def test_the_same_failure_is_told_once() -> None:
    news = News()
    refused = EntryFailed(HERE, "connection refused\x1b", not_admitted=False)
    assert news.feed(refused, 0.0) == ["127.0.0.1:1: connection refused␛; trying again"]
    assert news.feed(refused, 1.0) == []
    other = EntryFailed(HERE, "wrong secret", not_admitted=True)
    assert news.feed(other, 2.0) == ["127.0.0.1:1: wrong secret"]
    for port in range(1000):
        assert news.feed(EntryFailed(Address("h", port), "no", not_admitted=False), 3.0)


def test_trouble_is_told() -> None:
    assert "3 messages" in News().feed(MessagesDropped(3, "slow"), 0.0)[0]
    assert "disk" in News().feed(StoreFailed("the disk is full"), 0.0)[0]


def test_verbose_tells_everything() -> None:
    news = News()
    news.verbose = True
    for event in (up(1), Joined(PEER), up(2), down(1)):
        assert len(news.feed(event, 0.0)) == 1
    assert news.deadline() is None


# Lines from pipes.


@given(st.binary(max_size=60), st.lists(st.integers(0, 60)))
def test_lines_are_the_same_however_they_arrive(data: bytes, cuts: list[int]) -> None:
    def lines(parts: list[bytes]) -> list[str]:
        splitter = LineSplitter(limit=8)
        found = [line for part in parts for line in splitter.feed(part)]
        return [repr(line) for line in found + splitter.finish()]

    places = [0, *sorted(cuts), 60]
    parts = [data[a:b] for a, b in pairwise(places)]
    assert lines(parts) == lines([data])


def test_too_long_a_line_is_told_and_the_next_is_read() -> None:
    splitter = LineSplitter(limit=4)
    assert splitter.feed(b"ab\n12345") == ["ab"]
    long, last = splitter.feed(b"678\ncd\nrest")
    assert isinstance(long, TooBig)
    assert (long.size, long.limit) == (8, 4)
    assert last == "cd"
    assert splitter.finish() == ["rest"]


# Whole chats through pipes.


@contextlib.asynccontextmanager
async def friend(secret: str = "") -> AsyncIterator[Node]:
    """Somebody in the network to talk to."""
    async with Node(listen="127.0.0.1:0", secret=secret) as node:
        yield node


def entry_of(node: Node) -> str:
    return node.address.host_and_port


async def started(
    folder: Path, *entry: str, secret: str = "", program: str = PROGRAM
) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        program,
        str(folder),
        secret,
        *entry,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


async def bodies(node: Node, until: object) -> list[object]:
    """What arrives at a node, up to a body."""
    found: list[object] = []
    async with asyncio.timeout(DEADLINE_S), node.messages() as messages:
        async for message in messages:
            found.append(message.body)
            if message.body == until:
                break
    return found


async def line_with(stream: asyncio.StreamReader | None, text: bytes) -> bytes:
    assert stream is not None
    async with asyncio.timeout(DEADLINE_S):
        while line := await stream.readline():
            if text in line:
                return line
    raise AssertionError(f"the stream ended without {text!r}")


@pytest.mark.processes
async def test_a_file_is_sent_whole_and_in_order(tmp_path: Path) -> None:
    long = "x" * 200_000
    lines = [*(f"line {n}" for n in range(300)), long, "//slash", "grüße 🎉", "last"]
    text = "\n\n".join(lines).encode() + b"\n\xff\xfe undecodable"
    async with friend() as node:
        heard = asyncio.create_task(bodies(node, "\ufffd\ufffd undecodable"))
        process = await started(tmp_path, entry_of(node))
        out, err = await process.communicate(text)
        assert (process.returncode, out) == (0, b""), err
        assert await heard == [
            *lines[:-3],
            "/slash",
            "grüße 🎉",
            "last",
            "\ufffd\ufffd undecodable",
        ]
        assert b"joined" in err


@pytest.mark.processes
async def test_a_script_learns_that_a_line_was_not_sent(tmp_path: Path) -> None:
    async with friend() as node:
        heard = asyncio.create_task(bodies(node, "after"))
        process = await started(tmp_path, entry_of(node))
        out, err = await process.communicate(
            b"/nonsense\n%b\n%b\nafter\n" % (b"y" * (1 << 21), b"z" * 400_000)
        )
        assert process.returncode == 1
        assert await heard == ["after"]
        assert out == b""
        assert b"no command /nonsense" in err
        assert b"2,097,152 bytes" in err
        assert b"400,000 bytes" in err
        assert b"3 lines not sent" in err
        assert b"Traceback" not in err


@pytest.mark.processes
async def test_what_strangers_write_is_safe_in_a_pipe(tmp_path: Path) -> None:
    async with friend() as node:
        process = await started(tmp_path, entry_of(node))
        await line_with(process.stderr, b"joined")
        await node.broadcast(HOSTILE, topic="\x1b[1mtopic")
        await node.broadcast(b"\x1b\x00")
        await node.broadcast({"\x1b": ["\x9b"]})
        await node.broadcast("z" * 5000)
        line = await line_with(process.stdout, b"mark")
        assert line.decode() == (
            f"{node.id.short} [␛[1mtopic] -> "
            "␛]0;owned␇␛[2J␛]52;c;aGk=␛\\\N{REPLACEMENT CHARACTER}35mend⏎mark\n"
        )
        assert b"(2 bytes: 1b 00)" in await line_with(process.stdout, b" -> ")
        assert b"\x1b" not in await line_with(process.stdout, b" -> ")
        assert b"z" * 5000 in await line_with(process.stdout, b" -> ")
        out, err = await process.communicate(b"")
        assert process.returncode == 0
        assert b"\x1b" not in out + err


@pytest.mark.processes
async def test_three_programs_hear_each_other(tmp_path: Path) -> None:
    first = await started(tmp_path / "1")
    assert first.stdin is not None
    invite = (await line_with(first.stderr, b"meshwalk://")).split()[-1].decode()
    second = await started(tmp_path / "2", invite)
    await line_with(second.stderr, b"joined")
    third = await started(tmp_path / "3")
    assert second.stdin is not None
    assert third.stdin is not None
    third.stdin.write(f"connect {invite}\nfrom the third\n/who\n".encode())
    await line_with(first.stdout, b"-> from the third")
    await line_with(second.stdout, b"-> from the third")
    await line_with(third.stdout, b"neighbour ")
    first.stdin.write(b"from the first\n")
    await line_with(third.stdout, b"-> from the first")
    third.stdin.write(b"exit\n")
    first.send_signal(signal.SIGTERM)
    second.stdin.close()
    statuses = [await process.wait() for process in (first, second, third)]
    assert statuses == [128 + signal.SIGTERM, 0, 0]
    for process in (first, second, third):
        assert process.stderr is not None
        assert b"Traceback" not in await process.stderr.read()


@pytest.mark.processes
async def test_another_secret_is_one_clear_line(tmp_path: Path) -> None:
    async with friend(secret="theirs") as node:
        process = await started(tmp_path, entry_of(node), secret="ours")
        out, err = await process.communicate(b"not for them\n")
    assert (process.returncode, out) == (1, b"")
    assert_one_problem(err)


@pytest.mark.processes
@pytest.mark.parametrize("entry", ["not an address", "meshwalk://x", "h:99999"])
async def test_a_wrong_entry_is_one_clear_line(tmp_path: Path, entry: str) -> None:
    process = await started(tmp_path, entry)
    out, err = await process.communicate(b"not for anybody\n")
    assert (process.returncode, out) == (1, b"")
    assert_one_problem(err)


@pytest.mark.processes
async def test_a_folder_in_use_is_one_clear_line(tmp_path: Path) -> None:
    async with Node(listen="127.0.0.1:0", data=tmp_path):
        process = await started(tmp_path)
        _, err = await process.communicate(b"")
    assert process.returncode == 1
    assert_one_problem(err)
    assert b"in use by another process" in err


@pytest.mark.processes
async def test_nobody_at_the_entry_is_one_clear_line(tmp_path: Path) -> None:
    async with Node(listen="127.0.0.1:0") as node:
        nowhere = entry_of(node)
    process = await started(tmp_path, nowhere, program=IMPATIENT + PROGRAM)
    out, err = await process.communicate(b"not for anybody\n")
    assert (process.returncode, out) == (1, b"")
    assert_one_problem(err)
    assert nowhere.encode() in err


@pytest.mark.processes
async def test_a_second_chat_of_the_same_user_has_a_passing_identity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    folder = default_data_folder()
    async with Node(listen="127.0.0.1:0", data=folder) as node:
        heard = asyncio.create_task(bodies(node, "from the second"))
        process = await started(folder, entry_of(node))
        _, err = await process.communicate(b"from the second\n")
        assert process.returncode == 0, err
        assert b"passing" in err
        assert await heard == ["from the second"]


def assert_one_problem(err: bytes) -> None:
    assert len(err.splitlines()) == 1, err
    assert err.startswith(b"meshwalk: ")


@pytest.mark.processes
async def test_a_reader_that_goes_away_ends_the_chat_quietly(tmp_path: Path) -> None:
    async with friend() as node:
        reading, writing = os.pipe()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", PROGRAM, str(tmp_path), "", entry_of(node)),
            stdin=subprocess.PIPE,
            stdout=writing,
            stderr=subprocess.PIPE,
        )
        os.close(writing)
        await line_with(process.stderr, b"meshwalk://")
        os.close(reading)
        await node.broadcast("nobody reads this")
        async with asyncio.timeout(DEADLINE_S):
            assert await process.wait() == 0
        assert process.stderr is not None
        assert b"Broken" not in await process.stderr.read()


# A chat in a terminal.


class PseudoTerminal:
    """A chat in a terminal of 100 columns, and all that it has drawn."""

    def __init__(self, folder: Path, *entry: str) -> None:
        self.drawn = b""
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
        self.before = termios.tcgetattr(theirs)
        self._theirs = theirs
        # A terminal that does not answer where the cursor is; there is no other end here.
        environment = {**os.environ, "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(folder), "", *entry],
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

    def open_one(*entry: str) -> PseudoTerminal:
        opened.append(PseudoTerminal(tmp_path / str(len(opened)), *entry))
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
        await node.broadcast(HOSTILE, topic="\x1b]2;topic\x07")
        await screen.shows("mark", at)
        screen.type("\x04")
        assert await screen.ends() == 0
    for part in ("\x1b]", "\x07", "\x1b[2J", "\x9b35m", "\u202e"):
        assert part.encode() not in screen.drawn
    assert "␛]0;owned␇␛[2J".encode() in screen.drawn


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
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
async def test_signals_end_it_properly(
    terminal: Callable[..., PseudoTerminal], number: signal.Signals
) -> None:
    async with friend() as node, node.events() as events:
        screen = terminal(entry_of(node))
        at = await screen.shows("joined")
        screen.type("half a li")
        await screen.shows("half a li", at)
        screen.process.send_signal(number)
        assert await screen.ends() == 128 + number
        async with asyncio.timeout(DEADLINE_S):
            async for event in events:
                if isinstance(event, NeighbourDown):
                    assert "LEAVING" in event.reason.upper()
                    break


@pytest.mark.processes
async def test_a_wrong_entry_at_a_terminal(terminal: Callable[..., PseudoTerminal]) -> None:
    screen = terminal("nonsense:x")
    await screen.shows("! ")
    assert await screen.ends() == 1
