"""Handlers of conversations that are over, and handlers that are none; in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

import meshwalk
from meshwalk import Conversation, Node, Refused, Request
from meshwalk.config import ConversationConfig
from meshwalk.net.conversing import HANDLER_GRACE_S
from meshwalk.testing import World, simulated
from meshwalk.wire.messages import RefusalCode

LINGER_S = ConversationConfig().linger_s


async def pair(world: World) -> tuple[Node, Node]:
    anna = await world.start("anna")
    return anna, await world.start("bert", join=anna)


class Waits:
    """A handler that listens to no end: it waits for something that never comes."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.begun = 0
        self.ended_at: list[float] = []

    async def __call__(self, conversation: Conversation) -> None:
        self.begun += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.ended_at.append(self._world.now)


@pytest.mark.parametrize("how", ["cancel", "deadline", "crash"])
@simulated()
async def test_a_handler_ends_soon_after_its_conversation(
    world: World, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    anna, bert = await pair(world)
    handler = Waits(world)
    anna.on("talk")(handler)
    conversation = bert.open(anna.id, "talk", timeout_s=3 if how == "deadline" else None)
    await world.until(lambda: handler.begun)
    theirs = anna._conversing.open_now[next(iter(anna._conversing.open_now))]
    if how == "cancel":
        conversation.cancel("bye", 101)
    elif how == "crash":
        world.crash("bert")
    await world.until(lambda: theirs.is_over, 120)
    over_at = world.now
    await world.until(lambda: handler.ended_at)
    assert handler.ended_at[0] == pytest.approx(over_at + HANDLER_GRACE_S, abs=0.2)
    assert not caplog.records


@pytest.mark.parametrize("what", ["unread", "all said"])
@simulated()
async def test_a_handler_that_may_be_reading_is_given_time(world: World, what: str) -> None:
    anna, bert = await pair(world)
    handler = Waits(world)
    anna.on("talk")(handler)
    conversation = bert.open(anna.id, "talk")
    if what == "unread":
        await conversation.send("read me")
    else:
        conversation.end()
    await world.sleep(1)
    theirs = anna._conversing.open_now[next(iter(anna._conversing.open_now))]
    conversation.cancel("bye", 101)
    await world.until(lambda: theirs.is_over)
    over_at = world.now
    await world.until(lambda: handler.ended_at, 2 * LINGER_S)
    assert handler.ended_at[0] == pytest.approx(over_at + LINGER_S, abs=0.2)


@simulated()
async def test_a_handler_that_goes_on_after_a_good_end_is_left_alone(world: World) -> None:
    anna, bert = await pair(world)
    done: list[str] = []

    @anna.on("closes")
    async def closes(conversation: Conversation) -> None:
        conversation.cancel("that is all", 100)
        await asyncio.sleep(10 * LINGER_S)
        done.append(conversation.type)

    @anna.on("ends")
    async def ends(conversation: Conversation) -> None:
        conversation.end()
        async for _ in conversation:
            pass
        await asyncio.sleep(10 * LINGER_S)
        done.append(conversation.type)

    @anna.on("leaves")
    async def leaves(conversation: Conversation) -> None:
        conversation.close()
        await asyncio.sleep(10 * LINGER_S)
        done.append(conversation.type)

    bert.open(anna.id, "closes")
    conversation = bert.open(anna.id, "leaves")
    await world.sleep(1)
    conversation.cancel("I am leaving, too", 100)
    async with bert.open(anna.id, "ends") as conversation:
        conversation.end()
        await conversation.finished()
    await world.sleep(11 * LINGER_S)
    assert sorted(done) == ["closes", "ends", "leaves"]


@pytest.mark.parametrize("call", ["send", "receive", "request", "finished"])
@pytest.mark.parametrize("how", ["cancel", "deadline", "stop", "end"])
@simulated()
async def test_the_end_of_a_conversation_is_no_failure_of_its_handler(
    world: World, call: str, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    anna, bert = await pair(world)
    raised: list[BaseException] = []

    @anna.on("talk")
    async def talk(conversation: Conversation) -> None:
        if how == "end":
            conversation.end()
        try:
            while True:
                if call in ("send", "request"):
                    await getattr(conversation, call)("hello")
                else:
                    await getattr(conversation, call)()
                await asyncio.sleep(0.1)
                if how == "end" and call == "finished":
                    return
        except meshwalk.MeshwalkError as error:
            raised.append(error)
            raise

    conversation = bert.open(anna.id, "talk", timeout_s=5 if how == "deadline" else None)
    await conversation.send("hello")
    await world.sleep(1)
    if how == "cancel":
        conversation.cancel("enough", 100)
    elif how == "stop":
        await bert.stop()
    elif how == "end":
        conversation.close()
    await world.sleep(100)
    assert raised or (how, call) == ("end", "finished")
    if how != "end" or call == "receive":  # to say something after one's own end is a mistake
        assert not caplog.records


# What is no handler.


async def _async_generator(conversation: Conversation) -> AsyncIterator[int]:
    yield 1


def _generator(request: Request) -> Iterator[int]:
    yield 1


class Yields:
    def method(self, conversation: Conversation) -> Iterator[int]:
        yield 1

    def __call__(self, request: Request) -> Iterator[int]:
        yield 1


@pytest.mark.parametrize("handler", [_async_generator, _generator, Yields().method, Yields()])
@simulated()
async def test_a_handler_does_not_yield(world: World, handler: Any) -> None:
    node = await world.start("anna")
    with pytest.raises(meshwalk.InvalidArgument, match="does not yield"):
        node.on("talk")(handler)


@simulated()
async def test_a_handler_that_returns_something_has_misunderstood(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    anna, bert = await pair(world)

    @anna.on("five")
    def five(conversation: Conversation) -> int:
        return 5

    conversation = bert.open(anna.id, "five")
    with pytest.raises(Refused) as refused:
        await conversation.receive()
    assert refused.value.code == RefusalCode.HANDLER_FAILED
    (record,) = caplog.records
    assert "returned a int" in str(record.exc_info)
    assert not anna.statistics().node.conversations_open
