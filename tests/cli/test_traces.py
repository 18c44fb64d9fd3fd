"""`meshwalk trace` against nodes of this process: through the control socket, and by joining."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from meshwalk.cli import traces
from meshwalk.cli.options import NodeOptions
from meshwalk.cli.traces import trace
from meshwalk.errors import InvalidArgument, NotRunning, TimedOut
from meshwalk.net import control
from meshwalk.net.control import TRACE_TOPIC, Control
from meshwalk.net.node import Node

DEADLINE_S = 20

pytestmark = pytest.mark.skipif(not control.is_supported(), reason="needs Unix sockets")


@pytest.fixture
def folder() -> Iterator[Path]:
    # pytest's own folders are too long for a socket on some machines.
    with tempfile.TemporaryDirectory(prefix="mw") as name:
        yield Path(name)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.01)


def local() -> Node:
    return Node(listen="127.0.0.1:0")


def options(folder: Path) -> NodeOptions:
    return NodeOptions(folder, "127.0.0.1:0")


async def test_of_a_running_node(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with local() as one, local() as two, Control(one, folder, lambda: None):
        await two.join(one.address)
        await until(lambda: two.id in one.neighbours and one.id in two.neighbours)
        async with two.messages() as messages:
            assert await trace(options(folder), None, None, as_json=False) == 0
            assert (await anext(messages)).topic == TRACE_TOPIC
        shown = capsys.readouterr().out.splitlines()
        assert shown[1] == f"you ({one.id.short})"
        assert shown[2].startswith(f"└ {two.id.short} ")
        assert shown[3].startswith("1 peer answered; the last 1 hop away; the slowest")
        assert await trace(options(folder), None, 2.0, as_json=True) == 0
        told = json.loads(capsys.readouterr().out)
        assert told["origin"] == one.id.text
        assert (told["peers"], told["is_complete"], told["silent"]) == (1, True, [])
        (hop,) = told["hops"]
        assert (hop["peer"], hop["parent"], hop["hops"]) == (two.id.text, one.id.text, 1)
        assert hop["total_s"] == hop["took_s"] >= 0


async def test_of_a_passing_node(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traces, "SETTLING_S", 0.0)
    async with local() as one:
        entry = one.address.host_and_port
        assert await trace(options(folder / "unused"), entry, None, as_json=False) == 0
        assert one.id.short in capsys.readouterr().out
        await until(lambda: not one.neighbours)
    assert not (folder / "unused").exists()


async def test_nobody_there(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(NotRunning, match="--join"):
        await trace(options(folder), None, None, as_json=False)
    with pytest.raises(InvalidArgument):
        await trace(options(folder), "h:99999", None, as_json=False)
    async with local() as one, Control(one, folder, lambda: None):
        with pytest.raises(TimedOut, match="no peer answered"):
            await trace(options(folder), None, 0.1, as_json=True)
    assert json.loads(capsys.readouterr().out)["hops"] == []
