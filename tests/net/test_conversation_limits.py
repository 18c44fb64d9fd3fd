"""Conversations of public `Node`s at their limits: long messages, too many, a peer that is gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

import meshwalk
from meshwalk import Conversation, Node
from meshwalk.config import Config, ConversationConfig
from meshwalk.wire.messages import RefusalCode

DEADLINE_S = 20


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition on nodes that run on this loop."""
    while not condition():
        await asyncio.sleep(0.005)


@asynccontextmanager
async def pair(config: Config | None = None) -> AsyncIterator[tuple[Node, Node]]:
    """Two neighbours, for as long as a test may take. No conversation may be left at its end."""
    async with (
        asyncio.timeout(DEADLINE_S),
        Node(listen="127.0.0.1:0", config=config) as one,
        Node(listen="127.0.0.1:0", config=config) as two,
    ):
        await two.join(one.address)
        await until(lambda: two.id in one.neighbours and one.id in two.neighbours)
        yield one, two
        await until(lambda: are_over(one, two))


def are_over(*nodes: Node) -> bool:
    statistics = [node.statistics().node for node in nodes]
    return not any(s.conversations_open or s.requests_waiting for s in statistics)


def echoes(node: Node) -> None:
    """Have a node say again what it is told, and answer what it is asked, until the other ends."""

    @node.on("echo")
    async def echo(conversation: Conversation) -> None:
        async for message in conversation:
            if message.wants_reply:
                await conversation.reply(message, message.body)
            else:
                await conversation.send(message.body)


@pytest.mark.parametrize("size", [0, 65_536, 65_537, 300_000, 5_000_000])
async def test_long_messages(size: int) -> None:
    body = bytes(range(256)) * (size // 256 + 1)
    async with pair() as (one, two):
        echoes(two)
        two.on("backwards")(lambda request: request.body[::-1])
        heard = two.messages()
        async with one.open(two.id, "echo") as conversation:
            await conversation.send(body[:size])
            assert (await conversation.receive()).body == body[:size]
        assert await one.request(two.id, body[:size], "backwards") == body[:size][::-1]
        await one.send(two.id, body[:size], "file")
        assert (await anext(heard)).body == body[:size]


async def test_a_peer_that_is_gone_for_good() -> None:
    async with pair() as (one, two):
        echoes(two)
        conversation = one.open(two.id, "echo")
        await conversation.send("hi")
        await conversation.receive()
        await two.stop()
        with pytest.raises(meshwalk.Closed):
            await conversation.receive()
        with pytest.raises(meshwalk.Closed):
            await conversation.send("hello?")
        await two.start()


async def test_more_than_may_be_open_are_refused() -> None:
    config = Config(conversations=ConversationConfig(per_peer_max=3))
    async with pair(config) as (one, two):
        echoes(two)
        some = [one.open(two.id, "echo") for _ in range(3)]
        with pytest.raises(meshwalk.Refused) as refused:
            one.open(two.id, "echo")
        assert refused.value.code == RefusalCode.BUSY
        for conversation in some:
            conversation.close()
            await conversation.finished()
        one.open(two.id, "echo").close()
