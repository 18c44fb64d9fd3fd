"""The control socket: who may open it, what it answers, and what a bad client cannot do to it."""

from __future__ import annotations

import asyncio
import socket
import stat
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from meshwalk.cli.control_client import ControlClient
from meshwalk.errors import (
    Closed,
    InvalidAddress,
    InvalidArgument,
    NotRunning,
    RemoteError,
    StoreError,
    StoreInUse,
    Unreachable,
)
from meshwalk.net import control
from meshwalk.net.control import Control, JoinRequest, PingRequest, find_socket
from meshwalk.net.node import Node

pytestmark = pytest.mark.skipif(not control.is_supported(), reason="needs Unix sockets")


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    async with Node(listen="127.0.0.1:0") as node:
        yield node


@pytest.fixture
def folder() -> Any:
    # pytest's own folders are too long for a socket on some machines.
    with tempfile.TemporaryDirectory(prefix="mw") as name:
        yield Path(name)


def nothing() -> None:
    pass


async def raw(path: Path, method: str, route: str, body: bytes | None = None) -> tuple[int, Any]:
    """Status and answer of a request that `ControlClient` would not make."""
    connector = aiohttp.UnixConnector(path=str(path))
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.request(method, f"http://meshwalk{route}", data=body) as response,
    ):
        return response.status, msgspec.json.decode(await response.read())


# What it answers.


async def test_who_and_where(node: Node, folder: Path) -> None:
    async with Control(node, folder, nothing), ControlClient(folder) as client:
        assert await client.get("id") == {"id": node.id.text, "short": node.id.short}
        assert await client.get("invite") == {"invite": node.invite}
        assert await client.get("peers") == {"peers": []}
        status = await client.get("status")
        assert status["id"] == node.id.text
        assert status["listen"] == str(node.address)
        assert status["network"] == "meshwalk"
        assert status["is_open"] is True
        assert (status["neighbours"], status["peers"]) == (0, 0)
        assert status["data"] == str(folder)
        assert status["statistics"]["node"]["links"] == 0


async def test_join_ping_and_peers(node: Node, folder: Path) -> None:
    async with (
        Node(listen="127.0.0.1:0") as other,
        Control(node, folder, nothing),
        ControlClient(folder) as client,
    ):
        joined = await client.post("join", JoinRequest(other.invite), 15)
        assert joined == {"joined": True, "was_joined": False, "neighbours": 1}
        again = await client.post("join", JoinRequest(str(other.address)), 15)
        assert again["was_joined"] is True

        (peer,) = (await client.get("peers"))["peers"]
        assert (peer["peer"], peer["state"]) == (other.id.text, "neighbour")

        for target in (other.id.text, other.address.host_and_port):
            answer = await client.post("ping", PingRequest(target, count=2))
            assert len(answer["round_trips_s"]) == 2
            assert all(0 < time < 5 for time in answer["round_trips_s"])


async def test_stop_calls_back(node: Node, folder: Path) -> None:
    stopping = asyncio.Event()
    async with Control(node, folder, stopping.set) as served:
        assert served.path is not None
        assert await raw(served.path, "POST", "/v1/stop") == (200, {"stopping": True})
        assert stopping.is_set()


async def test_stopping_waits_until_the_socket_has_gone(node: Node, folder: Path) -> None:
    stopping = asyncio.Event()
    served = Control(node, folder, stopping.set)
    await served.start()
    async with ControlClient(folder) as client:
        stopped = asyncio.create_task(client.stop())
        await stopping.wait()
        assert not stopped.done()
        await served.close()
        await stopped
    assert list(folder.iterdir()) == []


# Errors.


async def test_errors_come_back_as_themselves(node: Node, folder: Path) -> None:
    async with Control(node, folder, nothing), ControlClient(folder) as client:
        with pytest.raises(InvalidAddress, match="no port"):
            await client.post("join", JoinRequest("nowhere:x"))
        with pytest.raises(Unreachable):
            await client.post("ping", PingRequest("127.0.0.1:1"))
        with pytest.raises(InvalidArgument, match="understood"):
            await client.post("ping", PingRequest("127.0.0.1:1", count=0))
        await node.stop()
        with pytest.raises(NotRunning):
            await client.get("status")


@pytest.mark.parametrize(
    ("method", "route", "body", "status", "kind"),
    [
        ("GET", "/v1/nothing", None, 404, "NotFound"),
        ("GET", "/", None, 404, "NotFound"),
        ("GET", "/v1/stop", None, 405, "MethodNotAllowed"),
        ("POST", "/v1/join", b"", 400, "InvalidArgument"),
        ("POST", "/v1/join", b"{", 400, "InvalidArgument"),
        ("POST", "/v1/join", b'{"entry": 1}', 400, "InvalidArgument"),
        ("POST", "/v1/join", b'{"entry": "a:1", "timeout_s": 0}', 400, "InvalidArgument"),
        ("POST", "/v1/join", b'{"entry": "a:1", "force": true}', 400, "InvalidArgument"),
        ("POST", "/v1/ping", b'{"target": "a", "count": 101}', 400, "InvalidArgument"),
        ("POST", "/v1/ping", b" " * 20_000, 413, "RequestEntityTooLarge"),
    ],
)
async def test_bad_requests(
    node: Node, folder: Path, method: str, route: str, body: bytes | None, status: int, kind: str
) -> None:
    async with Control(node, folder, nothing) as served:
        assert served.path is not None
        got, answer = await raw(served.path, method, route, body)
        assert (got, answer["kind"]) == (status, kind)
        assert "\n" not in answer["error"]


async def test_a_client_that_hangs(node: Node, folder: Path) -> None:
    """Neither half a request nor a client that sends nothing keeps others or the end waiting."""
    served = Control(node, folder, nothing)
    path = await served.start()
    half = b"POST /v1/join HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{"
    _, silent = await asyncio.open_unix_connection(str(path))
    _, slow = await asyncio.open_unix_connection(str(path))
    slow.write(half)
    await slow.drain()
    async with ControlClient(folder) as client:
        assert (await client.get("id"))["id"] == node.id.text
    async with asyncio.timeout(control.CLOSE_TIMEOUT_S + 5):
        await served.close()
    for writer in (silent, slow):
        writer.close()


async def test_a_body_that_does_not_arrive(
    node: Node, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "BODY_TIMEOUT_S", 0.05)
    async with Control(node, folder, nothing) as served:
        reader, writer = await asyncio.open_unix_connection(str(served.path))
        writer.write(b"POST /v1/join HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{")
        assert await reader.readline() == b"HTTP/1.1 504 Gateway Timeout\r\n"
        writer.close()


async def test_a_client_that_goes_away_ends_what_it_asked_for(
    node: Node, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def join(entry: str, timeout_s: float) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    monkeypatch.setattr(node, "join", join)
    async with Control(node, folder, nothing), ControlClient(folder) as client:
        asking = asyncio.create_task(client.post("join", JoinRequest("127.0.0.1:1")))
        await begun.wait()
        asking.cancel()
        async with asyncio.timeout(5):
            await ended.wait()


# The socket.


async def test_only_the_owner_may_open_it(node: Node, folder: Path) -> None:
    async with Control(node, folder, nothing) as served:
        assert served.path is not None
        assert stat.S_IMODE(served.path.stat().st_mode) == 0o600


async def test_nothing_is_left(node: Node, folder: Path) -> None:
    served = Control(node, folder, nothing)
    await served.start()
    await served.close()
    await served.close()
    assert list(folder.iterdir()) == []
    assert find_socket(folder) is None


def leave_dead_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(path))


async def test_a_dead_nodes_socket_is_replaced(node: Node, folder: Path) -> None:
    leave_dead_socket(folder / control.SOCKET_NAME)
    with pytest.raises(NotRunning, match="start one with `meshwalk up`"):
        async with ControlClient(folder) as client:
            await client.get("id")
    async with Control(node, folder, nothing), ControlClient(folder) as client:
        assert (await client.get("id"))["id"] == node.id.text


async def test_a_living_nodes_socket_is_not(node: Node, folder: Path) -> None:
    async with Control(node, folder, nothing):
        with pytest.raises(StoreInUse, match="answers"):
            await Control(node, folder, nothing).start()
        async with ControlClient(folder) as client:
            assert (await client.get("id"))["id"] == node.id.text


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch])
async def test_what_is_no_socket_stays(
    node: Node, folder: Path, make: Callable[[Path], None]
) -> None:
    place = folder / control.SOCKET_NAME
    make(place)
    with pytest.raises(StoreError, match="in the way"):
        await Control(node, folder, nothing).start()
    assert place.exists()


async def test_a_long_path(node: Node, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = folder / "run"
    runtime.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(runtime))
    deep = folder / ("d" * 100)
    deep.mkdir()
    # Of a node that died: its pointer and its private folder.
    crashed = runtime / "meshwalk-crashed"
    crashed.mkdir()
    leave_dead_socket(crashed / control.SOCKET_NAME)
    (deep / control.POINTER_NAME).write_text(str(crashed / control.SOCKET_NAME))

    async with Control(node, deep, nothing) as served, ControlClient(deep) as client:
        assert served.path is not None
        assert served.path.parent.parent == runtime
        assert stat.S_IMODE(served.path.parent.stat().st_mode) == 0o700
        assert stat.S_IMODE((deep / control.POINTER_NAME).stat().st_mode) == 0o600
        assert (await client.get("id"))["id"] == node.id.text
        with pytest.raises(StoreInUse):
            await Control(node, deep, nothing).start()
        assert not crashed.exists()
    assert list(deep.iterdir()) == []
    assert list(runtime.iterdir()) == []


# The client.


async def test_no_node(folder: Path) -> None:
    for missing in (folder, folder / "never"):
        with pytest.raises(NotRunning, match="no node is running for"):
            await ControlClient(missing).__aenter__()
    (folder / "file").touch()
    with pytest.raises(StoreError, match="is a file"):
        await ControlClient(folder / "file").__aenter__()


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", Closed),
        (b"SSH-2.0-other\r\n", Closed),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", RemoteError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n7", RemoteError),
    ],
)
async def test_somebody_else_answers(folder: Path, answer: bytes, error: type[Exception]) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_unix_server(serve, str(folder / control.SOCKET_NAME))
    async with server, ControlClient(folder) as client:
        with pytest.raises(error):
            await client.get("id")
