"""The client of a running node's control socket; see net/control.py for the routes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Final, Self

import aiohttp
import msgspec

from meshwalk import errors
from meshwalk.errors import Closed, MeshwalkError, NotRunning, RemoteError, StoreError, TimedOut
from meshwalk.net.control import find_socket, is_supported

ANSWER_TIMEOUT_S: Final = 10.0  # guess: a node that is busy, on a machine that is busy
STOP_TIMEOUT_S: Final = 30.0  # guess: neighbours told, and a slow disk written to
STOP_LOOK_S: Final = 0.02  # guess: between two looks whether the node has gone

# Errors that are made of one line; the others would want more than the socket carries.
_KINDS: Final[dict[str, type[MeshwalkError]]] = {
    name: kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, MeshwalkError) and "__init__" not in vars(kind)
}


class ControlClient:
    """Asks the node that keeps its store in `folder`. An async context manager.

    Entering raises `NotRunning` when there is no such node. Its methods raise what the node's
    own would, `NotRunning` when nobody answers, and `Closed` when the node stops meanwhile.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path: Path | None = None
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        if not is_supported():
            raise StoreError("there is no control socket on this system yet; only on Unix")
        if self._folder.exists() and not self._folder.is_dir():
            raise StoreError(f"{self._folder} is a file; the store needs a folder")
        try:
            self._path = find_socket(self._folder)
        except OSError as error:
            raise self._cannot_open(error) from error
        if self._path is None:
            raise self._nobody()
        connector = aiohttp.UnixConnector(path=str(self._path))
        self._session = aiohttp.ClientSession(connector=connector)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def get(self, route: str) -> dict[str, Any]:
        """The answer to GET /v1/`route`."""
        return await self._ask("GET", route, None, ANSWER_TIMEOUT_S)

    async def post(
        self, route: str, body: msgspec.Struct | None = None, takes_s: float = 0.0
    ) -> dict[str, Any]:
        """The answer to POST /v1/`route`; `takes_s` is how long the work itself may take."""
        return await self._ask("POST", route, body, takes_s + ANSWER_TIMEOUT_S)

    async def stop(self) -> None:
        """Stop the node; returns when its port and its store are free."""
        await self.post("stop")
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                # The socket goes last, and the node cannot tell of its own end.
                while self._path is not None and self._path.exists():  # noqa: ASYNC110
                    await asyncio.sleep(STOP_LOOK_S)
        except TimeoutError:
            raise TimedOut(
                f"the node has not stopped within {STOP_TIMEOUT_S:g} s; it was told to"
            ) from None

    async def _ask(
        self, method: str, route: str, body: msgspec.Struct | None, timeout_s: float
    ) -> dict[str, Any]:
        assert self._session is not None
        try:
            async with self._session.request(
                method,
                f"http://meshwalk/v1/{route}",
                data=msgspec.json.encode(body) if body is not None else None,
                timeout=aiohttp.ClientTimeout(total=timeout_s),
            ) as response:
                status, content = response.status, await response.read()
        except aiohttp.ClientConnectorError as error:
            raise self._cannot_open(error.os_error) from error
        except aiohttp.ClientError as error:
            raise Closed("the node stopped before it answered") from error
        except TimeoutError:
            raise TimedOut(f"the node did not answer within {timeout_s:g} s") from None
        try:
            answer: dict[str, Any] = msgspec.json.decode(content, type=dict[str, Any])
        except msgspec.DecodeError as error:
            raise RemoteError(f"what answers at {self._path} is not a meshwalk node") from error
        if status != 200:
            text = str(answer.get("error", f"the node answered with status {status}"))
            raise _KINDS.get(str(answer.get("kind")), MeshwalkError)(text)
        return answer

    def _nobody(self) -> NotRunning:
        return NotRunning(f"no node is running for {self._folder}; start one with `meshwalk up`")

    def _cannot_open(self, error: OSError) -> MeshwalkError:
        if isinstance(error, ConnectionRefusedError | FileNotFoundError):
            return self._nobody()  # what a dead node left
        reason = error.strerror or str(error)
        return StoreError(f"cannot ask the node in {self._folder}: {reason}")
