"""The command line as users run it: real processes, their screens and their exit codes.

What needs no process is in test_arguments.py.
"""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

ANY_PORT = ("--listen", "127.0.0.1:0")
JSON_KEYS = {
    "id", "short", "version", "pid", "network", "is_open", "data", "uptime_s", "listen",
    "addresses", "invite", "neighbours", "peers", "messages_dropped", "statistics", "difficulty",
}  # fmt: skip


def environment(**more: str) -> dict[str, str]:
    colours = ("NO_COLOR", "FORCE_COLOR", "COLORTERM")
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("MESHWALK_") and name not in colours
    }
    return {**kept, "COLUMNS": "100", "TERM": "xterm", **more}


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "meshwalk", *map(str, arguments)]


def run(*arguments: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), env=environment(**more), capture_output=True, text=True, timeout=60
    )


def good(*arguments: str | Path, **more: str) -> str:
    done = run(*arguments, **more)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def answer(*arguments: str | Path) -> dict[str, Any]:
    decoded: dict[str, Any] = json.loads(good(*arguments, "--json"))
    return decoded


def bad(code: int, *arguments: str | Path, **more: str) -> str:
    """The one line that says what was wrong."""
    done = run(*arguments, **more)
    assert done.returncode == code, done
    return complaint(done.stderr)


def complaint(stderr: str) -> str:
    assert "Traceback" not in stderr, stderr
    (line,) = stderr.splitlines()
    assert line.startswith("meshwalk: ")
    return line.removeprefix("meshwalk: ")


class Up:
    """A `meshwalk up` under way, and the lines that it has printed."""

    def __init__(self, process: subprocess.Popen[str], data: Path) -> None:
        self.process = process
        self.data = data
        self.lines: list[str] = []
        self.until("ready")
        self.shown = dict(line.split(maxsplit=1) for line in self.lines[:-1])

    def until(self, text: str) -> str:
        """The next line that has `text` in it."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            if text in line:
                return self.lines[-1]
        raise AssertionError(f"{text!r} never came: {self.lines} {self.errors()}")

    def errors(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.read()

    def end(self) -> int:
        """Wait for the end, read what is left; the exit code."""
        assert self.process.stdout is not None
        self.lines += self.process.stdout.read().splitlines()
        return self.process.wait(30)


@contextmanager
def up(data: Path, *arguments: str | Path, **more: str) -> Iterator[Up]:
    listen = () if "--listen" in arguments or "MESHWALK_LISTEN" in more else ANY_PORT
    process = subprocess.Popen(
        command("up", "--data", data, *listen, *arguments),
        env=environment(**more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield Up(process, data)
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="mw") as name:
        yield Path(name)


@pytest.fixture(scope="module")
def alice() -> Iterator[Up]:
    """A node that runs throughout, in a network without others."""
    with tempfile.TemporaryDirectory(prefix="mw") as name, up(Path(name)) as alice:
        yield alice


# Against a running node.


@pytest.mark.processes
def test_up_introduces_itself(alice: Up) -> None:
    assert alice.lines[-1] == "ready; stop with Ctrl-C or `meshwalk stop`"
    assert list(alice.shown) == ["node", "network", "listening", "control", "invite"]
    assert alice.shown["network"] == "meshwalk (open: no secret)"
    assert alice.shown["control"] == str(alice.data / "control.sock")


@pytest.mark.processes
def test_queries_of_a_node_that_is_alone(alice: Up) -> None:
    data = ("--data", alice.data)
    who = alice.shown["node"]
    assert good("--data", alice.data, "id") == f"{who}\n"
    assert good("invite", *data) == f"{alice.shown['invite']}\n"
    assert answer("invite", *data) == {"invite": alice.shown["invite"]}
    assert answer("id", *data) == {"id": who, "short": who[:8]}
    assert answer("peers", *data) == {"peers": []}
    assert "no peers yet" in good("peers", *data)
    status = answer("status", *data)
    assert set(status) == JSON_KEYS
    assert (status["id"], status["pid"]) == (who, alice.process.pid)
    text = good("status", *data)
    assert "alone" in text
    assert alice.shown["invite"] in text


@pytest.mark.processes
def test_what_a_running_node_cannot_do(alice: Up) -> None:
    data = ("--data", alice.data)
    assert "nobody listens" in bad(1, "join", "127.0.0.1:1", "--timeout", "0.3", *data)
    assert "no port" in bad(2, "join", "nowhere:x", *data)
    assert "nobody listens" in bad(1, "ping", "127.0.0.1:1", *data)
    assert "invite" in bad(2, "join", "meshwalk://broken", *data)
    stranger = "a" * 52
    assert "no address of aaaaaaaa is known" in bad(1, "ping", stranger, *data)


@pytest.mark.processes
def test_two_nodes(folder: Path) -> None:
    """Join by invite with `up` and with `join`; peers, ping, stop; the other is alone."""
    with up(folder / "a") as first, up(folder / "b", first.shown["invite"]) as second:
        one, two = first.shown["node"], second.shown["node"]
        assert one[:8] in second.until("joined through")
        assert two[:8] in first.until("joined through")
        assert two[:8] in good("peers", "--data", first.data)
        (peer,) = answer("peers", "--data", first.data)["peers"]
        assert (peer["peer"], peer["state"]) == (two, "neighbour")
        assert set(peer) == {
            "peer", "state", "address", "rtt_s", "jitter_s", "failures", "seen_s_ago", "met",
            "linked_s", "messages_in", "messages_out", "one_way_s", "queueing_s", "clock_offset_s",
            "tested_s_ago", "is_anchor",
        }  # fmt: skip

        pings = good("ping", two[:8], "--count", "2", "--data", first.data).splitlines()
        assert [line.startswith(f"{two[:8]}: ") for line in pings] == [True, True, False]
        assert pings[2].startswith("2 pings, 0 lost; least / mean / most ")
        measured = answer("ping", second.shown["listening"], "--data", first.data)
        assert measured["lost"] == 0
        assert len(measured["round_trips_s"]) == 1

        with up(folder / "c") as third:
            joined = answer("join", first.shown["invite"], "--data", third.data)
            assert (joined["joined"], joined["was_joined"]) == (True, False)
            again = good("join", second.shown["invite"], "--data", third.data)
            assert "in a network already" in again
            third.process.send_signal(signal.SIGTERM)
            assert third.end() == 0

        assert good("stop", "--data", second.data) == "stopped\n"
        assert second.end() == 0
        assert second.lines[-1].endswith("stopped")
        assert not (second.data / "control.sock").exists()
        first.until("alone")
        first.process.send_signal(signal.SIGINT)
        assert first.end() == 0
        assert first.errors() == ""
    assert "no node is running" in bad(1, "status", "--data", folder / "a")
    assert good("id", "--data", folder / "a") == f"{one}\n"


@pytest.mark.processes
def test_options_from_the_environment(folder: Path) -> None:
    (folder / "secret").write_text("a long secret\n")
    variables = {
        "MESHWALK_DATA": str(folder / "env"),
        "MESHWALK_LISTEN": "127.0.0.1:0",
        "MESHWALK_NETWORK": "of the environment",
        "MESHWALK_SECRET_FILE": str(folder / "secret"),
    }
    process = subprocess.Popen(
        command("up", "--network", "of the option", "127.0.0.1:1"),
        env=environment(**variables),
        stdout=subprocess.PIPE,
        text=True,
        stderr=subprocess.PIPE,
    )
    try:
        node = Up(process, folder / "env")
        assert node.shown["listening"].startswith("tcp://127.0.0.1:")
        # What stands on the command line wins.
        assert node.shown["network"] == "of the option (with a secret)"
        # An entry that does not answer is tried again, and told once.
        assert node.until("trying again").endswith(
            "nobody listens at tcp://127.0.0.1:1; trying again"
        )
        assert good("id", MESHWALK_DATA=str(folder / "env")) == f"{node.shown['node']}\n"
        assert good("stop", MESHWALK_DATA=str(folder / "env")) == "stopped\n"
        assert node.end() == 0
    finally:
        process.kill()
        process.communicate()


@pytest.mark.processes
def test_quiet(folder: Path) -> None:
    with up(folder / "a", "--quiet") as node:
        assert node.lines == ["ready"]
        good("stop", "--data", folder / "a")
        assert node.end() == 0
        assert node.lines == ["ready"]


# Bad surroundings: one line each, and no traceback.


@pytest.mark.processes
def test_nobody_runs(folder: Path) -> None:
    line = f"no node is running for {folder}; start one with `meshwalk up`"
    assert bad(1, "status", "--data", folder) == line
    assert bad(1, "invite", "--data", folder) == f"an invite needs a running node, and {line}"
    who = good("id", "--data", folder / "new")
    assert len(who) == 53
    assert good("id", "--data", folder / "new") == who


@pytest.mark.processes
def test_taken(alice: Up, folder: Path) -> None:
    port = alice.shown["listening"].removeprefix("tcp://")
    assert "is taken" in bad(1, "up", "--data", folder / "b", "--listen", port)
    assert "in use by another process" in bad(1, "up", "--data", alice.data, *ANY_PORT)


@pytest.mark.processes
def test_bad_entries(folder: Path) -> None:
    start = ("up", "--data", folder / "a", *ANY_PORT)
    assert "no port" in bad(2, *start, "127.0.0.1:99999")
    assert "invite" in bad(2, *start, "meshwalk://damaged")
    other = f"meshwalk://{'a' * 52}@127.0.0.1:1/other"
    assert "for the network 'other'" in bad(2, *start, "--network", "mine", other)
    assert "address of this machine" in bad(
        2, "up", "--data", folder / "a", "--listen", "8.8.8.8:1"
    )


@pytest.mark.processes
def test_not_admitted(folder: Path) -> None:
    for name in ("right", "wrong"):
        (folder / name).write_text(f"the {name} secret")
    with up(folder / "a", "--secret-file", folder / "right") as node:
        start = ("up", "--data", folder / "b", *ANY_PORT)
        line = bad(1, *start, "--secret-file", folder / "wrong", node.shown["invite"])
        assert "another network or secret" in line
        line = bad(1, *start, node.shown["listening"])
        assert "another network or secret" in line


@pytest.mark.processes
def test_secret_files(folder: Path) -> None:
    (folder / "empty").touch()
    start = ("up", "--data", folder / "a", *ANY_PORT, "--secret-file")
    assert "cannot read the secret file" in bad(1, *start, folder / "missing")
    assert "is empty" in bad(2, *start, folder / "empty")
    assert not (folder / "a").exists()


@pytest.mark.processes
def test_stores_that_are_none(folder: Path) -> None:
    (folder / "file").touch()
    assert "is a file" in bad(1, "up", "--data", folder / "file", *ANY_PORT)
    assert "is a file" in bad(1, "status", "--data", folder / "file")
    foreign = folder / "a" / "meshwalk.sqlite3"
    foreign.parent.mkdir()
    foreign.write_text("these are not the bytes of a store" * 100)
    assert "not a meshwalk store" in bad(1, "up", "--data", folder / "a", *ANY_PORT)
    assert "not a meshwalk store" in bad(1, "id", "--data", folder / "a")


def can_mount() -> bool:
    try:
        tried = subprocess.run(
            ["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", tempfile.gettempdir()],
            capture_output=True,
            timeout=10,
        )
    except OSError:
        return False
    return tried.returncode == 0


@pytest.mark.processes
def test_a_full_disk(folder: Path) -> None:
    if not can_mount():
        pytest.skip("needs the right to mount")
    script = 'mount -t tmpfs -o size=16k tmpfs "$0" && exec "$@"'
    inner = command("up", "--data", folder / "disk", *ANY_PORT)
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, str(folder), *inner],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "no space is left" in complaint(done.stderr)


@pytest.mark.processes
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_output_that_cannot_be_written() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command("version"), env=environment(), stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 1
    assert complaint(done.stderr) == "No space left on device"


@pytest.mark.processes
def test_output_that_nobody_reads() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as closed:
        done = subprocess.run(
            command("version"), env=environment(), stdout=closed, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 1
    assert complaint(done.stderr) == "nobody reads the output any more"


@pytest.mark.processes
def test_interrupted_while_asking(folder: Path) -> None:
    """Ctrl-C while a node that hangs is asked: 130 and one line."""
    folder.joinpath("a").mkdir()
    with socket.socket(socket.AF_UNIX) as hanging:
        hanging.bind(str(folder / "a" / "control.sock"))
        hanging.listen()
        process = subprocess.Popen(
            command("status", "--data", folder / "a"), env=environment(), stderr=subprocess.PIPE
        )
        connection, _ = hanging.accept()
        connection.recv(1)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
        connection.close()
    assert process.returncode == 130
    assert complaint(errors.decode()) == "interrupted"


@pytest.mark.processes
def test_debugging_shows_the_traceback(folder: Path) -> None:
    done = run("status", "--data", folder, MESHWALK_DEBUG="1")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("meshwalk: no node is running")


@pytest.mark.processes
def test_colours_only_on_a_terminal_that_wants_them(folder: Path) -> None:
    with up(folder / "a") as first, up(folder / "b", first.shown["invite"]) as second:
        second.until("joined through")
        asking = ("peers", "--data", second.data)
        who = first.shown["node"][:8]
        assert "\x1b" not in good(*asking)
        assert re.search(rf"\x1b\[(3|9)[^m]*m{who}", on_terminal(*asking))
        plain = on_terminal(*asking, NO_COLOR="1")
        assert who in plain
        assert not re.search(r"\x1b\[(3|9)", plain)


def on_terminal(*arguments: str | Path, **more: str) -> str:
    """What a command shows on a terminal."""
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        command(*arguments), env=environment(**more), stdout=terminal, stderr=terminal
    )
    os.close(terminal)
    shown = b""
    try:
        while select.select([controller], [], [], 30)[0]:
            shown += os.read(controller, 4096)
    except OSError:
        pass  # Linux: the last writer has gone
    finally:
        os.close(controller)
    assert process.wait(30) == 0, shown
    return shown.decode()
