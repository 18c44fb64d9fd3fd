"""Answers peers' requests with the functions that the application registered."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec

from meshwalk.errors import MalformedFrame, MeshwalkError
from meshwalk.net.driver import Driver
from meshwalk.proto.effects import Ask
from meshwalk.wire.content import decode_body, encode_body
from meshwalk.wire.messages import RefusalCode
from meshwalk.wire.peerid import PeerId

log = logging.getLogger("meshwalk")


class Request(msgspec.Struct, frozen=True):
    """A peer's question, as its handler gets it."""

    peer: PeerId
    """Who asks: proven by the link."""
    type: str
    body: Any


Handler = Callable[[Request], Any]
AnyHandler = TypeVar("AnyHandler", bound=Handler)


class Serving:
    """The handlers of one node. A handler's error is logged here; the asker hears only that."""

    def __init__(self, own: Callable[[asyncio.Task[None]], None]) -> None:
        self._handlers: dict[str, Handler] = {}
        self._own = own
        self._tasks: dict[tuple[int, int], asyncio.Task[None]] = {}
        """Handlers under way, by link and request: as many as dispatch lets in."""

    def register(self, type: str) -> Callable[[AnyHandler], AnyHandler]:
        """A decorator for the function that answers requests of this type."""

        def decorate(handler: AnyHandler) -> AnyHandler:
            self._handlers[type] = handler
            return handler

        return decorate

    def asked(self, ask: Ask, driver: Driver) -> None:
        """Have a request answered or refused. Plain functions answer within this call."""
        handler = self._handlers.get(ask.type)
        if handler is None:
            text = f"nobody answers requests of type {ask.type!r} here"
            _refuse(ask, driver, RefusalCode.NO_HANDLER, text)
            return
        try:
            body = decode_body(ask.content, ask.body)
        except MalformedFrame as error:
            _refuse(ask, driver, RefusalCode.NOT_UNDERSTOOD, str(error))
            return
        with _UsersCode(ask, driver):
            result = handler(Request(ask.peer, ask.type, body))
            if inspect.isawaitable(result):
                task = asyncio.get_running_loop().create_task(_answer_later(ask, driver, result))
                self._tasks[ask.link, ask.id] = task
                task.add_done_callback(lambda _: self._tasks.pop((ask.link, ask.id), None))
                self._own(task)
            else:
                _answer(ask, driver, result)

    def ask_gone(self, link: int, request: int) -> None:
        """Nobody waits for this answer any more: end its handler."""
        task = self._tasks.get((link, request))
        if task is not None:
            task.cancel()


async def _answer_later(ask: Ask, driver: Driver, result: Awaitable[Any]) -> None:
    with _UsersCode(ask, driver):
        _answer(ask, driver, await result)


class _UsersCode:
    """door: a user's handler may raise anything; it is logged, the asker is told, and we go on.

    A class, since a generator made into a context manager costs a microsecond for each request.
    """

    __slots__ = ("ask", "driver")

    def __init__(self, ask: Ask, driver: Driver) -> None:
        self.ask = ask
        self.driver = driver

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, asyncio.CancelledError):
            text = "the peer's handler was cancelled"
            _refuse(self.ask, self.driver, RefusalCode.HANDLER_FAILED, text)
            task = asyncio.current_task()
            # By us, since the asker has gone or the node stops; or else it was the handler's doing.
            return task is None or not task.cancelling()
        if isinstance(error, Exception):
            _failed(self.ask, self.driver, error)
            return True
        return False


def _answer(ask: Ask, driver: Driver, body: Any) -> None:
    try:
        content, data = encode_body(body)
        effects = driver.core.reply(ask.link, ask.id, content, data, driver.clock())
    except MeshwalkError as error:  # its result cannot travel: its fault, like an exception
        _failed(ask, driver, error)
    else:
        driver.command(effects)


def _failed(ask: Ask, driver: Driver, error: Exception) -> None:
    log.error("the handler of %r failed for %s", ask.type, ask.peer.short, exc_info=error)
    _refuse(ask, driver, RefusalCode.HANDLER_FAILED, "the peer's handler failed")


def _refuse(ask: Ask, driver: Driver, code: RefusalCode, text: str) -> None:
    driver.command(driver.core.refuse(ask.link, ask.id, code, text, driver.clock()))
