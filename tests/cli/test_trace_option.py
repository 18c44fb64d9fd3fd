"""`meshwalk up --trace`, `meshwalk sim replay` and `meshwalk sim diff`."""

from __future__ import annotations

import asyncio
import re
import socket
import stat
from pathlib import Path

import msgspec
import pytest

from meshwalk import Node
from meshwalk.cli import up
from meshwalk.cli.main import run_command
from meshwalk.cli.options import NodeOptions
from meshwalk.errors import InvalidArgument, StoreError
from meshwalk.net.control import Control
from meshwalk.trace import Header, Input, Line, Output, encode_line, read_trace

DEADLINE_S = 20


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """Of a node that ran by `meshwalk up` for as long as another needs to say hello."""
    path = tmp_path / "up.trace"
    asyncio.run(_visited(tmp_path, path))
    return path


async def _visited(folder: Path, path: Path) -> None:
    async with Node(listen="127.0.0.1:0") as visitor:
        options = NodeOptions(folder / "data", "127.0.0.1:0")
        running = asyncio.create_task(up.up(options, [visitor.invite], quiet=True, trace=path))
        async with asyncio.timeout(DEADLINE_S):
            while not visitor.neighbours:
                await asyncio.sleep(0.01)
            await visitor.broadcast("hello")
            await visitor.ping(visitor.neighbours[0])
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running


def rewritten(path: Path, change: dict[int, Line | None]) -> Path:
    """The trace with some lines changed, or left out."""
    lines = [change.get(number, line) for number, line in read_trace(path)]
    changed = path.with_name("changed.trace")
    changed.write_bytes(b"".join(encode_line(line) + b"\n" for line in lines if line is not None))
    return changed


def deliver(path: Path) -> tuple[int, Output]:
    return next(
        (number, line)
        for number, line in read_trace(path)
        if isinstance(line, Output) and line.name == "Deliver"
    )


def test_what_up_records_is_replayed(trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert stat.S_IMODE(trace.stat().st_mode) == 0o600
    assert run_command(["sim", "replay", str(trace)]) == 0
    assert re.fullmatch(r"[\d,]+ inputs, [\d,]+ effects: the same\n", capsys.readouterr().out)


def test_the_option_is_passed_on(
    trace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ["--data", str(tmp_path / "data"), "--listen", "127.0.0.1:0"]
    assert run_command(["up", *data, "--trace", str(trace)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert run_command(["up", *data, "--trace", str(tmp_path / "none" / "file")]) == 1
    assert "cannot write the trace" in capsys.readouterr().err


def test_a_start_that_fails_leaves_no_trace(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "up.trace"

    def complaint(listen: str) -> str:
        options = ["--data", str(tmp_path / "data"), "--listen", listen, "--trace", str(path)]
        assert run_command(["up", *options]) in (1, 2)
        return capsys.readouterr().err

    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        first = complaint(taken)
        assert "is taken" in first
        assert not path.exists()
        assert complaint(taken) == first
    assert "exists already" not in complaint("nonsense")
    assert not path.exists()

    async def refuse(_: Control) -> Path:
        raise StoreError("no control socket")

    monkeypatch.setattr(Control, "start", refuse)  # the node has started, but nobody was told
    assert "no control socket" in complaint("127.0.0.1:0")
    assert not path.exists()


def test_a_defect_at_the_start_leaves_its_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def defect(_: Control) -> Path:
        raise KeyError("defect")

    path = tmp_path / "up.trace"
    monkeypatch.setattr(Control, "start", defect)
    running = up.up(NodeOptions(tmp_path / "data", "127.0.0.1:0"), [], quiet=True, trace=path)
    with pytest.raises(KeyError):
        asyncio.run(running)
    assert isinstance(next(line for _, line in read_trace(path)), Header)


def test_a_difference_is_shown_and_fails(trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    number, line = deliver(trace)
    other = msgspec.structs.replace(line, value=msgspec.Raw(b'{"other":1}'))
    changed = rewritten(trace, {number: other})
    capsys.readouterr()
    assert run_command(["sim", "replay", str(changed)]) == 1
    shown = capsys.readouterr().out.splitlines()
    assert shown[-3].startswith(f"line {number} came out otherwise, after ")
    assert shown[-2] == 'expected  Deliver {"other":1}'
    assert shown[-1].startswith('got       Deliver {"delivery":{"origin":')
    inputs = [line for line in shown if re.match(r" *\d+  \d+\.\d{6} ", line)]
    assert len(inputs) == 11


def test_every_step_can_be_shown(trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert run_command(["sim", "replay", str(trace), "--step"]) == 0
    shown = capsys.readouterr().out
    numbers = [int(number) for number in re.findall(r"^ *(\d+)  ", shown, re.MULTILINE)]
    count = sum(1 for _ in read_trace(trace))
    assert numbers == list(range(1, count))  # all but the end


def test_a_replay_stops_where_it_is_told(trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    number, _ = deliver(trace)
    capsys.readouterr()
    assert run_command(["sim", "replay", str(trace), "--until", str(number)]) == 0
    shown = capsys.readouterr().out
    assert f"\n{number:>8}      Deliver" in shown
    assert f"\n{number + 1:>8}  " not in shown
    assert '"neighbours": 1' in shown


def test_a_node_that_is_not_there_is_told(trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["sim", "replay", str(trace), "--node", "10.0.0.1"]) == 2
    assert "has no node '10.0.0.1'" in capsys.readouterr().err


def test_a_trace_that_breaks_off_is_the_same_so_far(
    trace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace.write_bytes(trace.read_bytes()[:-40])
    assert run_command(["sim", "replay", str(trace)]) == 0
    assert capsys.readouterr().out.endswith("the same; the recording broke off\n")


def test_traces_are_compared(trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    number, _ = deliver(trace)
    changed = rewritten(trace, {number: None})
    capsys.readouterr()
    assert run_command(["sim", "diff", str(trace), str(trace)]) == 0
    assert capsys.readouterr().out == "the same\n"
    assert run_command(["sim", "diff", str(trace), str(changed)]) == 1
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == f"line {number} differs"
    assert len(shown) == 1 + 10 + 4
    assert shown[-4] == f"{trace}:"
    assert shown[-3].strip().startswith("Deliver ")
    header = next(line for _, line in read_trace(trace))
    assert isinstance(header, Header)
    changed = rewritten(trace, {1: msgspec.structs.replace(header, meshwalk="another")})
    assert run_command(["sim", "diff", str(changed), str(trace)]) == 1
    assert '"meshwalk":"another"' in capsys.readouterr().out


def test_hostile_text_cannot_reach_the_terminal(
    trace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = Input(time=1.0, name="\x9b2J\u202e", values=msgspec.Raw(b"{}"))
    number = sum(1 for _ in read_trace(trace)) - 1
    changed = rewritten(trace, {number: line})
    capsys.readouterr()
    assert run_command(["sim", "replay", str(changed)]) in (1, 2)
    assert run_command(["sim", "diff", str(changed), str(trace)]) == 1
    shown = capsys.readouterr()
    assert "\x9b" not in shown.out + shown.err
    assert "\u202e" not in shown.out + shown.err


def test_a_file_that_is_no_trace_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "file"
    path.write_text("hello\n")
    assert run_command(["sim", "replay", str(path)]) == 2
    assert "line 1: not a line of a trace" in capsys.readouterr().err
    with pytest.raises(InvalidArgument):
        list(read_trace(path))
