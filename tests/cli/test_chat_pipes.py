"""Whole chats through pipes, in processes of their own, over loopback."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from chats import DEADLINE_S, HOSTILE, IMPATIENT, PROGRAM, bodies, entry_of, friend

from meshwalk.cli.options import default_data_folder
from meshwalk.net.node import Node


async def started(
    folder: Path, *entry: str, secret: str = "", program: str = PROGRAM, room: str = ""
) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        program,
        f"--room={room}",
        str(folder),
        secret,
        *entry,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


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
        room = "\x1b[1mtopic"
        process = await started(tmp_path, entry_of(node), room=room)
        await line_with(process.stderr, b"joined")
        await node.broadcast(HOSTILE, topic=room)
        await node.broadcast(b"\x1b\x00", topic=room)
        await node.broadcast({"\x1b": ["\x9b"]}, topic=room)
        await node.broadcast("z" * 5000, topic=room)
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
    assert await third.wait() == 0
    second.stdin.close()
    assert await second.wait() == 0
    first.send_signal(signal.SIGTERM)
    assert await first.wait() == 0
    for process in (first, second, third):
        assert process.stderr is not None
        assert b"Traceback" not in await process.stderr.read()


@pytest.mark.processes
async def test_rooms_are_apart(tmp_path: Path) -> None:
    async with friend() as node, node.messages() as heard, asyncio.timeout(DEADLINE_S):
        process = await started(tmp_path, entry_of(node), room="cats")
        assert process.stdin is not None
        await line_with(process.stderr, b"joined")
        await node.broadcast("not for them")
        await node.broadcast("meow", topic="cats")
        assert b"[cats] -> meow" in await line_with(process.stdout, b"->")
        process.stdin.write(b"purr\n/join #dogs\nwoof\n/rooms\n")
        said = [await anext(heard) for _ in range(2)]
        assert [(each.topic, each.body) for each in said] == [("cats", "purr"), ("dogs", "woof")]
        assert b"joined  #cats: 1 message" in await line_with(process.stdout, b"#cats")
        assert b"here    #dogs: nothing yet" in await line_with(process.stdout, b"#dogs")
        assert b"the main room: 1 message" in await line_with(process.stdout, b"the main room")
        process.stdin.write(b"/leave cats\n/history\n")
        await line_with(process.stderr, b"nothing is kept of the last hour in #dogs")
        await node.broadcast("not for them either", topic="cats")
        await node.broadcast("bark", topic="dogs")
        assert b"[dogs] -> bark" in await line_with(process.stdout, b"->")
        process.stdin.write(b"/join cats\n/history\n")
        assert re.match(rb"\d\d:\d\d .*-> meow", await line_with(process.stdout, b"->"))
        assert b"-> not for them either" in await line_with(process.stdout, b"->")
        process.stdin.close()
        assert await process.wait() == 0


@pytest.mark.processes
async def test_a_room_that_cannot_be(tmp_path: Path) -> None:
    process = await started(tmp_path, room="x" * 256)
    out, err = await process.communicate(b"")
    assert (process.returncode, out) == (2, b"")
    assert_one_problem(err)


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
    assert (process.returncode, out) == (2, b"")
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
