"""The local control socket of a running node: HTTP over a Unix socket in its data folder.

It translates requests to calls of `Node` and decides nothing. Whoever may open the socket may
control the node, so the file is for its owner alone.

    GET  /v1/status                            the node, its network and its counts
    GET  /v1/peers                             {"peers": [...]}, as `PeerInfo`
    GET  /v1/id                                {"id", "short"}
    GET  /v1/invite                            {"invite"}
    POST /v1/ping   {"target", "count": 1}     {"target", "round_trips_s": [...]}; null: no answer
    POST /v1/join   {"entry", "timeout_s"}     {"joined": true, "was_joined", "neighbours"}
    POST /v1/trace  {"timeout_s"}              the way of a broadcast; see `trace_answer`
    POST /v1/stop                              {"stopping": true}; the socket goes last of all

An error is {"error": "one line", "kind": "a class of errors.py"} with a status that fits. Keys may
be added within /v1, and what is inside "statistics" may change; the rest stays.

Unix sockets only: Windows has no control socket yet. A port on loopback would be open to every
user of the machine and to every web page that its browser shows.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
import socket
import stat
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, Final, Self, TypeVar

import msgspec
from aiohttp import web

from meshwalk.errors import (
    Closed,
    InvalidArgument,
    InvalidPeerId,
    MeshwalkError,
    NotRunning,
    RemoteError,
    StoreError,
    StoreFull,
    StoreInUse,
    TimedOut,
    Unreachable,
)
from meshwalk.net.node import JOIN_TIMEOUT_S, Node
from meshwalk.net.solving import Progress
from meshwalk.version import __version__
from meshwalk.wire.address import INVITE_CHARACTERS_MAX
from meshwalk.wire.peerid import PeerId

SOCKET_NAME: Final = "control.sock"
POINTER_NAME: Final = "control.path"
"""Holds the socket's path when the data folder's own path is too long for a socket."""

# sun_path holds 104 bytes on macOS and the BSDs and 108 on Linux, with a zero byte at the end.
SOCKET_PATH_BYTES_MAX: Final = 103
POINTER_BYTES_MAX: Final = 4096  # Linux, limits.h: PATH_MAX
BODY_BYTES_MAX: Final = 16 << 10  # guess: an invite of 4096 characters, escaped
BODY_TIMEOUT_S: Final = 5.0  # guess: a client on the same machine that sends has sent by then
CLOSE_TIMEOUT_S: Final = 1.0  # guess: for answers under way when the node stops
PINGS_MAX: Final = 100  # guess
PING_TIMEOUT_S: Final = 5.0  # as Node.ping
JOIN_TIMEOUT_MAX_S: Final = 600.0  # guess
TRACE_TIMEOUT_MAX_S: Final = 600.0  # guess
TRACE_TOPIC: Final = "meshwalk:trace"
"""Of broadcasts that are sent to be traced, so that no program takes them for words."""

# The first that fits; an error of any other kind is this machine's.
_STATUS: Final[tuple[tuple[type[MeshwalkError], int], ...]] = (
    (InvalidArgument, 400),
    (NotRunning, 409),
    (TimedOut, 504),
    (RemoteError, 502),
    (Unreachable, 502),
    (Closed, 502),
)

_Body = TypeVar("_Body")
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class PingRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of POST /v1/ping; `target` is a PeerId or HOST:PORT."""

    target: Annotated[str, msgspec.Meta(max_length=INVITE_CHARACTERS_MAX)]
    count: Annotated[int, msgspec.Meta(ge=1, le=PINGS_MAX)] = 1


class JoinRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of POST /v1/join; `entry` is an invite or HOST:PORT."""

    entry: Annotated[str, msgspec.Meta(max_length=INVITE_CHARACTERS_MAX)]
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=JOIN_TIMEOUT_MAX_S)] = JOIN_TIMEOUT_S


class TraceRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of POST /v1/trace; None: as long as the node's configuration says."""

    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=TRACE_TIMEOUT_MAX_S)] | None = None


class Control:
    """The control socket of `node`, which keeps its store in `folder`.

    Start it after the node, and close it after the node has stopped: its end tells clients that
    port and store are free. `on_stop` is called when a client asks the node to stop.
    """

    def __init__(self, node: Node, folder: Path, on_stop: Callable[[], None]) -> None:
        self.path: Path | None = None
        """The socket, once started."""
        self._node = node
        self._folder = folder
        self._on_stop = on_stop
        self._private: Path | None = None
        self._server: asyncio.AbstractServer | None = None
        self._runner: web.AppRunner | None = None

    async def start(self) -> Path:
        """Listen; the socket's path. What a dead node left behind is replaced.

        Raises `StoreInUse` when a living node listens there, `StoreFull`, and `StoreError` when
        the place cannot be used, or the system has no Unix sockets.
        """
        if not is_supported():
            raise StoreError("there is no control socket on this system yet; only on Unix")
        listening = self._bind()
        runner = web.AppRunner(
            self._application(),
            access_log=None,
            handle_signals=False,
            handler_cancellation=True,  # a client that goes away ends what it asked for
            shutdown_timeout=CLOSE_TIMEOUT_S,
        )
        try:
            await runner.setup()
            assert runner.server is not None
            loop = asyncio.get_running_loop()
            self._server = await loop.create_unix_server(runner.server, sock=listening)
        except BaseException:
            listening.close()
            self._remove()
            raise
        self._runner = runner
        assert self.path is not None
        return self.path

    async def close(self) -> None:
        """Remove the socket and end what clients still wait for. May be called again."""
        if self._server is None or self._runner is None:
            return
        # First the file: from here on it may be another node's.
        self._remove()
        self._server.close()
        await self._runner.cleanup()
        self._server = self._runner = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # The socket.

    def _bind(self) -> socket.socket:
        path, pointer = self._folder / SOCKET_NAME, self._folder / POINTER_NAME
        try:
            _clear(path, pointer)
            if len(os.fsencode(path)) > SOCKET_PATH_BYTES_MAX:
                # mkdtemp: a new folder for this user alone, with a name that nobody can squat.
                self._private = Path(tempfile.mkdtemp(prefix="meshwalk-"))
                path = self._private / SOCKET_NAME
            self.path = path
            listening = _bound(path)
            if self._private is not None:
                _write_privately(pointer, os.fsencode(path))
        except OSError as error:
            self._remove()
            raise _from_system(path, error) from error
        return listening

    def _remove(self) -> None:
        path, self.path = self.path, None
        with contextlib.suppress(OSError):
            if path is not None:
                path.unlink()
        if self._private is not None:
            with contextlib.suppress(OSError):
                (self._folder / POINTER_NAME).unlink()
            shutil.rmtree(self._private, ignore_errors=True)
            self._private = None

    # The requests.

    def _application(self) -> web.Application:
        application = web.Application(middlewares=[_errors_in_json], client_max_size=BODY_BYTES_MAX)
        application.router.add_get("/v1/status", self._status)
        application.router.add_get("/v1/peers", self._peers)
        application.router.add_get("/v1/id", self._id)
        application.router.add_get("/v1/invite", self._invite)
        application.router.add_post("/v1/ping", self._ping)
        application.router.add_post("/v1/join", self._join)
        application.router.add_post("/v1/trace", self._trace)
        application.router.add_post("/v1/stop", self._stop)
        return application

    async def _status(self, _: web.Request) -> web.Response:
        node = self._node
        peers = node.peers()
        statistics = node.statistics()
        return _json(
            {
                "id": node.id.text,
                "short": node.id.short,
                "version": __version__,
                "pid": os.getpid(),
                "network": node.network.name,
                "is_open": node.network.is_open,
                "data": str(self._folder),
                "difficulty": node.config.broadcast.difficulty,
                "uptime_s": statistics.uptime_s,
                "listen": str(node.address),
                "addresses": [str(address) for address in node.addresses],
                "invite": node.invite,
                "neighbours": len(node.neighbours),
                "peers": len(peers),
                "messages_dropped": statistics.messages_dropped,
                "statistics": statistics,
            }
        )

    async def _peers(self, _: web.Request) -> web.Response:
        peers = [
            # PeerId is bytes, which JSON would carry in base64.
            {**msgspec.structs.asdict(info), "peer": info.peer.text}
            for info in self._node.peers()
        ]
        return _json({"peers": peers})

    async def _id(self, _: web.Request) -> web.Response:
        return _json({"id": self._node.id.text, "short": self._node.id.short})

    async def _invite(self, _: web.Request) -> web.Response:
        return _json({"invite": self._node.invite})

    async def _ping(self, request: web.Request) -> web.Response:
        wanted = await _body(request, PingRequest)
        target = _target(wanted.target)
        round_trips: list[float | None] = []
        for _ in range(wanted.count):
            try:
                round_trips.append(await self._node.ping(target, PING_TIMEOUT_S))
            except TimedOut:
                round_trips.append(None)
        return _json({"target": wanted.target, "round_trips_s": round_trips})

    async def _join(self, request: web.Request) -> web.Response:
        wanted = await _body(request, JoinRequest)
        was_joined = bool(self._node.neighbours)
        await self._node.join(wanted.entry, wanted.timeout_s)
        neighbours = len(self._node.neighbours)
        return _json({"joined": True, "was_joined": was_joined, "neighbours": neighbours})

    async def _trace(self, request: web.Request) -> web.Response:
        wanted = await _body(request, TraceRequest)
        return _json(await trace_answer(self._node, wanted.timeout_s))

    async def _stop(self, _: web.Request) -> web.Response:
        self._on_stop()
        return _json({"stopping": True})


async def trace_answer(
    node: Node, timeout_s: float | None, progress: Progress | None = None
) -> dict[str, Any]:
    """Trace a broadcast of `node`: {"origin", "number", "peers", "is_complete", "silent", "hops"}.

    A hop is {"peer", "parent", "hops", "took_s", "total_s", "rtt_s", "was_repaired"}; "total_s",
    the time since the origin sent, is null where somebody on the way told nothing.
    """
    trace = await node.trace_broadcast(topic=TRACE_TOPIC, timeout_s=timeout_s, progress=progress)
    totals_s = {trace.origin: 0.0}
    hops: list[dict[str, Any]] = []
    for hop in trace.hops:  # parents come first
        before_s = totals_s.get(hop.parent)
        if before_s is not None:
            totals_s[hop.peer] = before_s + hop.took_s
        told = msgspec.structs.asdict(hop)
        told |= {"peer": hop.peer.text, "parent": hop.parent.text}
        hops.append({**told, "total_s": totals_s.get(hop.peer)})
    return {
        "origin": trace.origin.text,
        "number": trace.number,
        "peers": trace.peers,
        "is_complete": trace.is_complete,
        "silent": [peer.text for peer in trace.silent],
        "hops": hops,
    }


def is_supported() -> bool:
    """Whether this system has Unix sockets that asyncio can use."""
    return hasattr(socket, "AF_UNIX") and hasattr(asyncio, "open_unix_connection")


def find_socket(folder: Path) -> Path | None:
    """Where the node that keeps its store in `folder` would answer; None when nothing is there.

    A socket that is found may be a dead node's. Raises `OSError`.
    """
    path = folder / SOCKET_NAME
    if len(os.fsencode(path)) <= SOCKET_PATH_BYTES_MAX:
        return path if path.exists() else None
    try:
        with (folder / POINTER_NAME).open("rb") as file:
            return Path(os.fsdecode(file.read(POINTER_BYTES_MAX)))
    except FileNotFoundError:
        return None


def _clear(path: Path, pointer: Path) -> None:
    """Remove what a dead node left. Raises `StoreInUse` when the node lives, and `OSError`."""
    left = [path] if len(os.fsencode(path)) <= SOCKET_PATH_BYTES_MAX else []
    if pointer.exists() and (found := find_socket(path.parent)) is not None:
        left.append(found)
    for place in left:
        if not place.exists():
            continue
        if not stat.S_ISSOCK(place.lstat().st_mode):
            raise StoreError(f"{place} is in the way of the control socket; move it")
        if _answers(place):
            raise StoreInUse(f"a node answers at {place} already; stop it with `meshwalk stop`")
        place.unlink()
        if place != path:
            with contextlib.suppress(OSError):
                place.parent.rmdir()
    pointer.unlink(missing_ok=True)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        # A node too busy to accept has a full backlog, and is alive: EAGAIN.
        probe.setblocking(False)
        return probe.connect_ex(str(path)) not in (errno.ECONNREFUSED, errno.ENOENT)


def _bound(path: Path) -> socket.socket:
    """A socket bound to `path`, for its owner alone from the first moment on."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        made.bind(str(path))
    except BaseException:
        made.close()
        raise
    finally:
        os.umask(before)
    return made


def _write_privately(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


def _from_system(path: Path, error: OSError) -> StoreError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreFull(f"no space is left for the control socket {path}; free some")
    return StoreError(f"cannot make the control socket {path}: {error.strerror or error}")


def _target(text: str) -> PeerId | str:
    try:
        return PeerId.parse(text)
    except InvalidPeerId:
        return text


async def _body(request: web.Request, kind: type[_Body]) -> _Body:
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            content = await request.read()
        return msgspec.json.decode(content, type=kind)
    except TimeoutError:
        raise TimedOut("the request did not arrive in time") from None
    except msgspec.DecodeError as error:
        raise InvalidArgument(f"the request cannot be understood: {error}") from error


@web.middleware
async def _errors_in_json(request: web.Request, handler: _Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except MeshwalkError as error:
        status = next((number for kind, number in _STATUS if isinstance(error, kind)), 500)
        return _error(status, str(error), type(error).__name__)
    except web.HTTPException as error:
        # Of aiohttp itself: no such route, another method, a body too large.
        kind = type(error).__name__.removeprefix("HTTP")
        return _error(error.status, f"{request.method} {request.path}: {error.reason}", kind)


def _error(status: int, text: str, kind: str) -> web.Response:
    return _json({"error": text, "kind": kind}, status)


def _json(content: Any, status: int = 200) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(content), status=status, content_type="application/json"
    )
