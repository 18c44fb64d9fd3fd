"""The handles of one node's conversations, and the handlers of those that peers open."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

from meshwalk.errors import (
    Closed,
    InvalidArgument,
    MalformedFrame,
    MeshwalkError,
    Refused,
    TimedOut,
)
from meshwalk.net.conversation import Conversation, ConversationName
from meshwalk.net.handlers import Handlers
from meshwalk.net.serving import UsersCode
from meshwalk.net.waiters import error_of
from meshwalk.proto.effects import (
    ConversationEnded,
    ConversationOpened,
    ConversationOver,
    ConversationRefused,
    ConversationRoom,
    Why,
)
from meshwalk.wire.content import decoder_of, encode_body
from meshwalk.wire.messages import RefusalCode
from meshwalk.wire.peerid import PeerId

if TYPE_CHECKING:
    from meshwalk.net.driver import Driver

HANDLER_GRACE_S: Final = 1.0  # guess: what a handler that hears of the end needs to put away

News = (
    ConversationOpened
    | ConversationEnded
    | ConversationRefused
    | ConversationRoom
    | ConversationOver
)


class Conversing:
    """All conversations of one node that its application knows of.

    A handler whose conversation is broken off hears it at its next call. One that makes none, since
    it waits for something else, is cancelled after `HANDLER_GRACE_S`, or after `linger_s` when it
    may still be reading: when messages wait to be read, or the peer had said all.
    """

    def __init__(self, handlers: Handlers, own: Callable[[asyncio.Task[None]], None]) -> None:
        self.open_now: dict[int, Conversation[Any]] = {}
        self._running: dict[int, asyncio.Task[None]] = {}
        """Handlers under way, by conversation."""
        self._handlers = handlers
        self._own = own

    def open(
        self,
        driver: Driver,
        peer: PeerId,
        type: str,
        body: Any,
        says: Any,
        timeout_s: float | None,
    ) -> Conversation[Any]:
        """See `Node.open`."""
        decode = decoder_of(says)
        content, data = encode_body(body)
        opened = driver.core.open(peer, type, content, data, timeout_s, driver.clock())
        if opened is None:
            raise Refused(RefusalCode.BUSY, "too many conversations of this node are open")
        number, effects = opened
        id = driver.core.conversation_id(number)
        conversation = Conversation[Any](
            driver, number, peer, type, id, decode, is_opener=True, body=body
        )
        # Before anything is sent: sending may end the link, and with it the conversation.
        self.open_now[number] = conversation
        driver.command(effects)
        return conversation

    def find(self, name: ConversationName, driver: Driver) -> Conversation[Any] | None:
        """This node's end of a conversation, by its name."""
        me = driver.core.me
        if me not in (name.opener, name.acceptor):
            raise InvalidArgument("this conversation is between two other nodes")
        is_mine = name.opener == me
        peer = name.acceptor if is_mine else name.opener
        number = driver.core.conversation_number(peer, name.id, is_mine)
        found = self.open_now.get(number)
        return found if found is not None and found.type == name.type else None

    def told(self, effect: News, driver: Driver) -> None:
        """News of a conversation."""
        if type(effect) is ConversationOpened:
            self._opened(effect, driver)
            return
        conversation = self.open_now.get(effect.conversation)
        if conversation is None:
            return
        if type(effect) is ConversationOver:
            del self.open_now[effect.conversation]
            conversation.over(effect, _error(effect))
            task = self._running.get(effect.conversation)
            if task is not None and conversation.error is not None and not conversation.is_left:
                linger_s = driver.core.config.conversations.linger_s
                grace_s = linger_s if conversation.may_be_read_on else HANDLER_GRACE_S
                end = asyncio.get_running_loop().call_later(grace_s, task.cancel)
                task.add_done_callback(lambda _: end.cancel())
        else:
            conversation.told(effect)

    def stop(self) -> None:
        """The node has stopped: whoever waits for a conversation waits no more."""
        open_now = list(self.open_now.items())
        self.open_now.clear()
        for number, conversation in open_now:
            over = ConversationOver(number, Why.LINK_LOST, 0, "the node has stopped")
            conversation.over(over, _error(over))

    def _opened(self, effect: ConversationOpened, driver: Driver) -> None:
        handler = self._handlers.for_conversation(effect.type)
        if handler is None:
            text = f"nobody takes part in conversations of type {effect.type!r} here"
            _leave(driver, effect.conversation, RefusalCode.NO_HANDLER, text)
            return
        code = _HandlersCode(driver, effect)
        with code:
            try:
                body = decoder_of(Any)(effect.content, effect.body)
            except MalformedFrame as error:
                _leave(driver, effect.conversation, RefusalCode.NOT_UNDERSTOOD, str(error))
                return
            conversation = Conversation[Any](
                driver,
                effect.conversation,
                effect.peer,
                effect.type,
                effect.id,
                handler.decode,
                is_opener=False,
                body=body,
                sent_at=effect.sent_at,
                received_at=effect.received_at,
            )
            code.handle = self.open_now[effect.conversation] = conversation
            result = handler.call(conversation)
            if inspect.isawaitable(result):
                self._run(code, conversation, result)
            elif result is not None:
                kind = type(result).__name__
                raise TypeError(f"a handler of conversations says things, and returned a {kind}")
            # Else it has passed the handle on, and whoever has it closes it.

    def _run(
        self, code: _HandlersCode, conversation: Conversation[Any], result: Awaitable[Any]
    ) -> None:
        coroutine = _close_after(code, conversation, result)
        task = asyncio.get_running_loop().create_task(coroutine)
        self._running[conversation.number] = task
        task.add_done_callback(lambda _: self._running.pop(conversation.number, None))
        self._own(task)


async def _close_after(
    code: _HandlersCode, conversation: Conversation[Any], result: Awaitable[Any]
) -> None:
    with code:
        await result
        conversation.close()


class _HandlersCode(UsersCode):
    """A handler of a conversation: its error ends the conversation. What the conversation itself
    ended with, and the handler let pass, is nobody's failure."""

    __slots__ = ("_conversation", "handle")

    def __init__(self, driver: Driver, effect: ConversationOpened) -> None:
        super().__init__(driver, effect.peer, effect.type)
        self._conversation = effect.conversation
        self.handle: Conversation[Any] | None = None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        return self._is_of_the_end(error) or super().__exit__(kind, error, trace)

    def _is_of_the_end(self, error: BaseException | None) -> bool:
        handle = self.handle
        if error is None or handle is None or not handle.is_over:
            return False
        own = handle.error  # a request within it fails with one of its own that says the same
        return isinstance(error, Closed) or (type(error) is type(own) and str(error) == str(own))

    def refuse(self, code: int, text: str) -> None:
        _leave(self.driver, self._conversation, code, text)


def _leave(driver: Driver, conversation: int, code: int, text: str) -> None:
    driver.command(driver.core.leave_conversation(conversation, int(code), text, driver.clock()))


def _error(effect: ConversationOver) -> MeshwalkError | None:
    if effect.why is None:
        return None
    if effect.why is Why.TIMED_OUT:
        return TimedOut("the conversation was not over within its deadline")
    return error_of(effect.why, effect.code, effect.text)
