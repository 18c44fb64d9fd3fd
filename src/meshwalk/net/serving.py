"""Answers peers' requests with the functions that the application registered."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, TypeGuard

import msgspec

from meshwalk.errors import MalformedFrame, MeshwalkError, Refused
from meshwalk.net.handlers import AnyHandler, Handlers, Request
from meshwalk.proto.effects import Ask
from meshwalk.wire.content import encode_body
from meshwalk.wire.messages import RefusalCode
from meshwalk.wire.peerid import PeerId

if TYPE_CHECKING:
    from meshwalk.net.driver import Driver

log = logging.getLogger("meshwalk")

APPLICATION_CODE_MIN: Final = 100  # guess: room for more codes of ours, and easy to remember
APPLICATION_CODE_MAX: Final = 2**64 - 1  # a `Refusal` carries 64 bits


def is_of_application(code: object) -> TypeGuard[int]:
    """Whether an application may refuse with this code."""
    return isinstance(code, int) and APPLICATION_CODE_MIN <= code <= APPLICATION_CODE_MAX


class Serving:
    """Answers requests. A handler's error is logged here; the asker hears only that it failed.

    A handler that raises `Refused(code, text)` refuses on purpose: the asker gets both. Codes of
    applications are 100 and up; with any other the asker gets the text and HANDLER_FAILED.
    """

    def __init__(self, own: Callable[[asyncio.Task[None]], None], handlers: Handlers) -> None:
        self.handlers = handlers
        self._for_request = self.handlers.for_request
        self._own = own
        self._tasks: dict[tuple[PeerId, int], asyncio.Task[None]] = {}
        """Handlers under way, by peer and request: as many as dispatch lets in."""

    def register(
        self, type: str, *, body: Any = msgspec.UNSET
    ) -> Callable[[AnyHandler], AnyHandler]:
        """See `Handlers.register`."""
        return self.handlers.register(type, body=body)

    def asked(self, ask: Ask, driver: Driver) -> None:
        """Have a request answered or refused. Plain functions answer within this call."""
        handler = self._for_request(ask.type)
        if handler is None:
            text = f"nobody answers requests of type {ask.type!r} here"
            _refuse(ask, driver, RefusalCode.NO_HANDLER, text)
            return
        answering = _Answering(ask, driver)
        with answering:  # decoding runs a user's too: what checks a new Struct
            try:
                body = handler.decode(ask.content, ask.body)
            except MalformedFrame as error:
                _refuse(ask, driver, RefusalCode.NOT_UNDERSTOOD, str(error))
                return
            request = Request(ask.peer, ask.type, body, ask.sent_at, ask.received_at)
            result = handler.call(request)
            if inspect.isawaitable(result):
                task = asyncio.get_running_loop().create_task(_answer_later(answering, result))
                self._tasks[ask.peer, ask.id] = task
                task.add_done_callback(lambda _: self._tasks.pop((ask.peer, ask.id), None))
                self._own(task)
            else:
                answering.answer(result)

    def ask_gone(self, peer: PeerId, request: int) -> None:
        """Nobody waits for this answer any more: end its handler."""
        task = self._tasks.get((peer, request))
        if task is not None:
            task.cancel()


async def _answer_later(answering: _Answering, result: Awaitable[Any]) -> None:
    with answering:
        answering.answer(await result)


class UsersCode:
    """door: a user's handler may raise anything; it is logged, the peer is told, and we go on.

    A class, since a generator made into a context manager costs a microsecond for each request.
    """

    __slots__ = ("driver", "peer", "type")

    def __init__(self, driver: Driver, peer: PeerId, type: str) -> None:
        self.driver = driver
        self.peer = peer
        self.type = type

    def refuse(self, code: int, text: str) -> None:
        """Tell the peer."""
        raise NotImplementedError

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, asyncio.CancelledError):
            self.refuse(RefusalCode.HANDLER_FAILED, "the peer's handler was cancelled")
            task = asyncio.current_task()
            # By us, since the peer has gone or the node stops; or else it was the handler's doing.
            return task is None or not task.cancelling()
        if isinstance(error, Refused):
            self.refuse(self._code_of(error), str(error))
            return True
        if isinstance(error, Exception):
            self.failed(error)
            return True
        return False

    def failed(self, error: Exception) -> None:
        """The handler did not do its part: the log has the details, the peer hears only that."""
        log.error("the handler of %r failed for %s", self.type, self.peer.short, exc_info=error)
        self.refuse(RefusalCode.HANDLER_FAILED, "the peer's handler failed")

    def _code_of(self, error: Refused) -> int:
        code: object = error.code  # it is the user's, so perhaps no number at all
        if is_of_application(code):
            return code
        # A code of ours would have the peer believe that we said it. It may be another peer's
        # refusal, which the handler met and let pass.
        log.warning("the handler of %r refused with the code %s: %s", self.type, code, error)
        return int(RefusalCode.HANDLER_FAILED)


class _Answering(UsersCode):
    """A handler of a request: its error refuses the request."""

    __slots__ = ("_ask",)

    def __init__(self, ask: Ask, driver: Driver) -> None:
        super().__init__(driver, ask.peer, ask.type)
        self._ask = ask

    def refuse(self, code: int, text: str) -> None:
        _refuse(self._ask, self.driver, code, text)

    def answer(self, body: Any) -> None:
        """Send what the handler returned."""
        ask, driver = self._ask, self.driver
        try:
            content, data = encode_body(body)
            effects = driver.core.reply(ask.peer, ask.id, content, data, driver.clock())
        except MeshwalkError as error:  # its result cannot travel: its fault, like an exception
            self.failed(error)
        else:
            driver.command(effects)


def _refuse(ask: Ask, driver: Driver, code: int, text: str) -> None:
    driver.command(driver.core.refuse(ask.peer, ask.id, code, text, driver.clock()))
