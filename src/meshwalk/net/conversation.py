"""`Conversation`: what users hold of a conversation. Say and listen; credit does the waiting.

    async with node.open(peer, "count", 10) as conversation:
        async for message in conversation:
            print(message.body)

A handle is one small object that can be passed around; its `name` can be sent, and either end finds
its own handle by it again.
"""

from __future__ import annotations

import asyncio
import builtins
import typing
from collections import deque
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Final, Generic, Self, overload

import msgspec

from meshwalk.errors import Closed, InvalidArgument, MalformedFrame, MeshwalkError, Refused
from meshwalk.net.serving import APPLICATION_CODE_MIN, is_of_application
from meshwalk.proto.effects import (
    ConversationEnded,
    ConversationHeard,
    ConversationOver,
    ConversationRefused,
    ConversationRoom,
)
from meshwalk.wire.content import Decode, encode_body
from meshwalk.wire.frames import FIRST_WINDOW_BYTES
from meshwalk.wire.messages import RefusalCode
from meshwalk.wire.peerid import PeerId

if TYPE_CHECKING:
    from typing import TypeVar

    from meshwalk.net.driver import Driver

    # So that a bare `Conversation` means `Conversation[Any]`. Python knows it from 3.13 on.
    BodyT = TypeVar("BodyT", default=Any)
else:
    BodyT = typing.TypeVar("BodyT")

DeclaredT = typing.TypeVar("DeclaredT")
"""What a caller declares that it will get."""

READ_AT_BYTES: Final = FIRST_WINDOW_BYTES // 2  # guess: often enough that no sender waits for it

_LEFT: Final = "this end has left the conversation"


class Said(msgspec.Struct, Generic[BodyT], frozen=True):
    """A message in a conversation, as its reader gets it."""

    body: BodyT
    type: str
    sent_at: float
    """Unix time in seconds, by this node's clock as far as the peer's is known."""
    received_at: float
    """Unix time in seconds, by this node's clock."""
    wants_reply: bool
    """Whether the peer waits for `Conversation.reply` to this message."""
    id: int


class ConversationName(msgspec.Struct, frozen=True):
    """What a conversation is called by both its ends: to be sent, stored, or looked up."""

    type: str
    opener: PeerId
    acceptor: PeerId
    id: int
    """Of the message that opened it: what `in_regards_to` says in its messages."""


class Conversation(AsyncIterator[Said[BodyT]], Generic[BodyT]):
    """One end of a conversation. `node.open` makes one, and handlers of conversations get one.

    Iterating gives what the peer says, as `Said`, until it has said all, whatever becomes of the
    conversation later; an error before that is raised. One task reads at a time, and a second one
    gets `RuntimeError`; any number may `send`. Leaving an `async with` closes it; leaving it by an
    exception cancels it, so that the peer hears of that. It stays open until both have ended it, or
    one closes or cancels it: letting go of the handle does not end it.
    """

    __slots__ = (
        "_decode",
        "_driver",
        "_end",
        "_error",
        "_has_ended",
        "_has_said_all",
        "_is_full",
        "_is_left",
        "_is_over",
        "_items",
        "_read_cost",
        "_read_count",
        "_refusal",
        "_room",
        "_waiter",
        "body",
        "id",
        "is_opener",
        "number",
        "peer",
        "received_at",
        "sent_at",
        "type",
    )

    def __init__(
        self,
        driver: Driver,
        number: int,
        peer: PeerId,
        type: str,
        id: int,
        decode: Decode,
        *,
        is_opener: bool,
        body: Any = None,
        sent_at: float = 0.0,
        received_at: float = 0.0,
    ) -> None:
        self.peer = peer
        """Who is at the other end: proven by the link."""
        self.type = type
        """Which kind of conversation it is."""
        self.id = id
        self.is_opener = is_opener
        self.body = body
        """What it was opened with."""
        self.sent_at = sent_at
        self.received_at = received_at
        self.number = number
        """This node's own number for it."""
        self._driver = driver
        self._decode = decode
        self._items: deque[ConversationHeard] | None = None  # an empty deque takes 600 bytes
        self._waiter: asyncio.Future[None] | None = None
        self._room: list[asyncio.Future[None]] | None = None
        """Writers that wait until it is not full."""
        self._read_count = 0
        self._read_cost = 0
        self._is_full = False
        self._end: asyncio.Future[None] | None = None
        self._has_ended = False
        self._has_said_all = False
        self._is_left = False
        self._is_over = False
        self._error: MeshwalkError | None = None
        self._refusal: Refused | None = None

    # Saying.

    async def send(self, body: Any, type: str = "", *, unreliable: bool = False) -> bool:
        """Say something; waits while the peer is slower to read than the caller is to write.

        Arrives once and in order, as long as the conversation lasts: also when the link is lost
        and another can be made. `unreliable`: sent only if it can go out now, and never again;
        false is returned when it could not. Longer than `packet_bytes_max` it is sent reliably.
        Raises `Closed` (ended here, or over), `Refused`, `Unreachable`, `NotAdmitted`, `TimedOut`
        (what ended it), `TooBig`, `InvalidArgument`. That the peer could not read one message,
        which is no end of the conversation, is raised where one listens: see `receive`.
        """
        content, data = encode_body(body)
        driver = self._driver
        if unreliable and len(data) <= driver.core.config.conversations.packet_bytes_max:
            self._check()
            was_sent, effects = driver.core.say_unreliably(
                self.number, type, content, data, driver.clock()
            )
            driver.command(effects)
            if driver.must_yield(len(data)) or not was_sent:
                await asyncio.sleep(0)  # or a writer in a loop would let nothing become of it
            return was_sent
        while self._is_full:
            await self._wait_for_room()
        if self._is_over:
            self._check()
        self._is_full, effects = driver.core.say(self.number, type, content, data, driver.clock())
        driver.command(effects)
        if driver.must_yield(len(data)):
            await asyncio.sleep(0)
        return True

    @overload
    async def request(
        self,
        body: Any = b"",
        type: str = "",
        timeout_s: float | None = None,
        *,
        reply: builtins.type[DeclaredT],
    ) -> DeclaredT: ...
    @overload
    async def request(
        self,
        body: Any = b"",
        type: str = "",
        timeout_s: float | None = None,
        *,
        reply: Any = Any,
    ) -> Any: ...
    async def request(
        self,
        body: Any = b"",
        type: str = "",
        timeout_s: float | None = None,
        *,
        reply: Any = Any,
    ) -> Any:
        """Ask within the conversation: its other end gets a message that `wants_reply`.

        Returns the reply, decoded to the type `reply`; waits as `send` before it asks. Raises as
        `Node.request`, and what ended the conversation.
        """
        await self._may_say()
        driver = self._driver
        asked = driver.waiters.ask(self.peer, body, type, timeout_s, self.number)
        self._is_full = driver.core.is_full(self.number)
        return await driver.waiters.answer(*asked, reply)

    async def reply(self, message: Said[Any], body: Any) -> None:
        """Answer a message of the peer that `wants_reply`. Waits and raises as `send`."""
        content, data = encode_body(body)
        await self._may_say()
        driver = self._driver
        self._is_full, effects = driver.core.say(
            self.number, "", content, data, driver.clock(), message.id
        )
        driver.command(effects)

    def end(self) -> None:
        """Say nothing more, and listen on: the peer's iteration ends when it has read all."""
        driver = self._driver
        self._has_said_all = True
        driver.command(driver.core.end(self.number, driver.clock()))

    def close(self) -> None:
        """Say nothing more and listen no more. What was said still arrives.

        A peer that goes on saying something is told so: its next `send` raises `Refused`.
        """
        self._tell_read()  # first: closing takes the rest, and nothing may be counted twice
        if not self._is_over:
            driver = self._driver
            driver.command(driver.core.close_conversation(self.number, driver.clock()))
            self._leave()

    def cancel(self, text: str = "", code: int = RefusalCode.CANCELLED) -> None:
        """End it at once, both ways: the peer gets `Refused` with this code and text.

        Codes of applications are 100 and up. Raises `InvalidArgument` for another code than those
        and CANCELLED, and for a text that is none.
        """
        if not isinstance(text, str):
            raise InvalidArgument("the text of a refusal is a str")
        if code != RefusalCode.CANCELLED and not is_of_application(code):
            raise InvalidArgument(
                f"an application's codes are {APPLICATION_CODE_MIN} to 2**64 - 1, not {code!r}"
            )
        if not self._is_over:
            driver = self._driver
            effects = driver.core.leave_conversation(
                self.number, int(code), text or "the peer has left", driver.clock()
            )
            driver.command(effects)
            self._leave()

    async def finished(self) -> None:
        """Wait until it is over: both have said all, and each has read all that the other said.

        Raises what ended it before that: `Refused`, `Closed`, `Unreachable`, `TimedOut`; and
        `Refused` also when the peer could not read something, and nobody has heard of that yet.
        """
        self._tell_read()  # else the peer could wait for it as long as this end waits here
        if not self._is_over:
            if self._end is None:
                self._end = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._end)  # several may wait
        self._raise_refusal()
        if self._error is not None:
            raise self._error.with_traceback(None)

    # Listening.

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Said[BodyT]:
        while True:
            items = self._items
            while items:
                said = self._take(items)
                if said is not None:
                    return said
            self._raise_refusal()
            if self._has_ended:  # and what broke it off later has taken nothing from a reader
                raise StopAsyncIteration
            if self._error is not None:
                raise self._error.with_traceback(None)
            if self._is_over or self._is_left:
                raise StopAsyncIteration
            await self._wait_for_news()

    async def receive(self) -> Said[BodyT]:
        """The next message. Raises `Closed` when the peer has said all, or this end has left.

        Iterating ends there. Both raise what broke the conversation off before the peer had said
        all, and `Refused` with the code NOT_UNDERSTOOD when the peer could not read something that
        was sent to it: once, and the conversation goes on. `RuntimeError`: another task reads.
        """
        try:
            return await self.__anext__()
        except StopAsyncIteration:
            text = _LEFT if self._is_left else "the peer has said all in this conversation"
            raise Closed(text) from None

    def __len__(self) -> int:
        """Messages that wait to be read."""
        return len(self._items) if self._items is not None else 0

    def __bool__(self) -> bool:
        return True

    # Itself.

    @property
    def name(self) -> ConversationName:
        """What both ends call it."""
        me = self._driver.core.me
        opener, acceptor = (me, self.peer) if self.is_opener else (self.peer, me)
        return ConversationName(self.type, opener, acceptor, self.id)

    @property
    def is_over(self) -> bool:
        """Whether nothing more comes or goes; what was heard before can still be read."""
        return self._is_over

    @property
    def is_left(self) -> bool:
        """Whether this end listens no more: it was closed or cancelled here."""
        return self._is_left

    @property
    def may_be_read_on(self) -> bool:
        """Whether something waits to be read, be it only that the peer has said all."""
        return bool(self._items) or self._has_ended

    @property
    def error(self) -> MeshwalkError | None:
        """What ended it before its end."""
        return self._error

    def __repr__(self) -> str:
        state = "over" if self._is_over else "open"
        return f"<Conversation {self.type!r} with {self.peer.short}, {state}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: object, error: object, trace: object) -> None:
        if error is None:
            self.close()
        else:
            self.cancel("the peer's program left it by an error")

    # For the driver.

    def heard(self, effect: ConversationHeard) -> None:
        """A message; the hot path."""
        if self._items is None:
            self._items = deque()
        self._items.append(effect)
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def told(self, effect: ConversationEnded | ConversationRefused | ConversationRoom) -> None:
        """News of it."""
        if type(effect) is ConversationRoom:
            self._has_room()
            return
        if type(effect) is ConversationRefused:
            self._refusal = Refused(effect.code, effect.text)
        else:
            self._has_ended = True
        self._wake()

    def over(self, effect: ConversationOver, error: MeshwalkError | None) -> None:
        """It is over, for this reason if it was before its end."""
        self._is_over = True
        self._error = error
        self._has_room()
        self._wake()
        if self._end is not None and not self._end.done():
            self._end.set_result(None)

    # Steps.

    def _leave(self) -> None:
        self._is_left = self._has_said_all = True
        self._items = None
        self._wake()

    def _take(self, items: deque[ConversationHeard]) -> Said[BodyT] | None:
        """The next message; None when it is not what was declared, and its sender hears so."""
        heard = items.popleft()
        self._read_count += 1
        self._read_cost += heard.cost
        if not items:
            self._items = None
            self._tell_read()
        elif self._read_cost >= READ_AT_BYTES:
            self._tell_read()
        try:
            body = self._decode(heard.content, heard.body)
        except MalformedFrame as error:
            driver = self._driver
            effects = driver.core.refuse_said(
                self.number,
                heard.id,
                int(RefusalCode.NOT_UNDERSTOOD),
                str(error),
                driver.clock(),
            )
            driver.command(effects)
            return None
        return Said(body, heard.type, heard.sent_at, heard.received_at, heard.wants_reply, heard.id)

    def _tell_read(self) -> None:
        count, cost = self._read_count, self._read_cost
        self._read_count = self._read_cost = 0
        driver = self._driver
        driver.command(driver.core.read(self.number, count, cost, driver.clock()))

    def _check(self) -> None:
        """Raise what stands in the way of saying something."""
        if self._error is not None:
            raise self._error.with_traceback(None)  # else it would grow with each time
        if self._is_left:
            raise Closed(_LEFT)
        if self._is_over or self._has_said_all:
            text = "the conversation is over" if self._is_over else "this end has said all"
            raise Closed(text)

    async def _may_say(self) -> None:
        while self._is_full:
            await self._wait_for_room()
        self._check()

    def _raise_refusal(self) -> None:
        """Tell that the peer could not read something: once."""
        refusal, self._refusal = self._refusal, None
        if refusal is not None:
            raise refusal

    async def _wait_for_news(self) -> None:
        if self._waiter is not None:
            raise RuntimeError("a conversation has one reader")
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    async def _wait_for_room(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._room is None:
            self._room = []
        self._room.append(waiter)
        await waiter

    def _has_room(self) -> None:
        self._is_full = False
        waiters, self._room = self._room, None
        for waiter in waiters or ():
            if not waiter.done():
                waiter.set_result(None)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
