"""Conversations whose links and peers come and go, and with peers that are no neighbours."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from talk import DEADLINE_S, SEVERAL_PARTS, cut, echo, is_clean, two_nodes, until

import meshwalk
from meshwalk import Conversation, Node, PeerId, Request
from meshwalk.config import (
    Config,
    ConversationConfig,
    ExchangeConfig,
    LinkConfig,
    OverlayConfig,
    ReachConfig,
)

# Links and peers that come and go.


async def test_a_conversation_survives_the_loss_of_its_link() -> None:
    async with two_nodes() as (one, two):
        two.on("echo")(echo)
        bodies = [bytes([number % 256]) * (number * 37 % 5000) for number in range(600)]
        heard: list[bytes] = []

        async def listen(conversation: Conversation) -> None:
            heard.extend([message.body async for message in conversation])

        conversation = one.open(two.id, "echo")
        listener = asyncio.create_task(listen(conversation))
        for index, body in enumerate(bodies):
            await conversation.send(body)
            if index in (150, 350):
                await asyncio.sleep(0)
                cut(one if index == 150 else two, two.id if index == 150 else one.id)
        conversation.end()
        await listener
        assert heard == bodies
        await until(lambda: is_clean(one) and is_clean(two))


async def test_a_peer_that_restarts_has_forgotten_the_conversation(tmp_path: Path) -> None:
    two = Node(listen="127.0.0.1:0", data=tmp_path)
    async with Node(listen="127.0.0.1:0") as one, asyncio.timeout(DEADLINE_S):
        await two.start()
        two.on("echo")(echo)
        id, port = two.id, two.address.port
        await one.join(two.address)
        conversation = one.open(id, "echo")
        await conversation.send("before")
        assert (await conversation.receive()).body == "before"
        # A crash: no goodbye, and what it knew of the conversation is gone.
        driver, listener = two._driver, two._listener
        assert driver is not None
        assert listener is not None
        driver.abort()
        await listener.close()
        await two.stop()
        two = Node(listen=f"127.0.0.1:{port}", data=tmp_path)
        await two.start()
        two.on("echo")(echo)
        assert two.id == id
        # It was sought when the link broke: either before it was back, or then in vain.
        with pytest.raises((meshwalk.Refused, meshwalk.Unreachable)):
            await conversation.receive()
        await until(lambda: is_clean(one))
        await until(lambda: id in one.neighbours)  # who has lost its only link looks for others
        async with one.open(id, "echo") as again:
            await again.send("hello again")
            assert (await again.receive()).body == "hello again"
        await two.stop()


async def test_a_node_that_stops_ends_its_conversations() -> None:
    async with two_nodes() as (one, two):
        two.on("echo")(echo)
        conversation = one.open(two.id, "echo")
        await conversation.send("hello")
        await conversation.receive()
        reader = asyncio.create_task(conversation.receive())
        await asyncio.sleep(0)
        await two.stop()
        with pytest.raises(meshwalk.Closed):
            await reader
        await until(lambda: is_clean(one))


async def test_what_was_said_before_a_stop_is_heard() -> None:
    async with two_nodes() as (one, two):
        heard: list[int] = []

        @two.on("last words")
        async def last_words(conversation: Conversation) -> None:
            async for message in conversation:
                await asyncio.sleep(0)
                heard.append(message.body)

        async with one.open(two.id, "last words") as conversation:
            for number in range(20):
                await conversation.send(number)
        await one.stop()
        await until(lambda: len(heard) == 20)


# Peers that are no neighbours.


@asynccontextmanager
async def a_line(length: int) -> AsyncIterator[list[Node]]:
    """Nodes of which each is linked with the one before it, and with no other for long."""
    config = Config(
        overlay=OverlayConfig(links_min=1, links_max=3),
        exchange=ExchangeConfig(log_max=1),
        reach=ReachConfig(pause_s=0.1),
    )
    nodes = [Node(listen="127.0.0.1:0", config=config) for _ in range(length)]
    try:
        for node in nodes:
            await node.start()
        for before, node in itertools.pairwise(nodes):
            await node.join(before.address)
        async with asyncio.timeout(DEADLINE_S):
            yield nodes
    finally:
        for node in nodes:
            await node.stop()


async def test_any_peer_is_sent_to_asked_and_conversed_with() -> None:
    async with a_line(8) as nodes:
        first = nodes[0]
        for other in nodes[1:]:
            other.on("echo")(echo)

            @other.on("who")
            def who(request: Request, me: PeerId = other.id) -> bytes:
                return bytes(me)

        far = [node for node in nodes[1:] if node.id not in first.neighbours]
        assert far, "some are no neighbours"
        for node in far:
            heard = node.messages()
            assert await first.request(node.id, type="who") == bytes(node.id)
            await first.send(node.id, "hello")
            message = await anext(heard)
            assert (message.origin, message.body) == (first.id, "hello")
            async with first.open(node.id, "echo") as conversation:
                await conversation.send(SEVERAL_PARTS)
                assert (await conversation.receive()).body == SEVERAL_PARTS


async def test_a_peer_that_nobody_knows_is_said_to_be_unreachable() -> None:
    async with two_nodes() as (one, _):
        nobody = PeerId(bytes(range(32)))
        for call in (
            one.send(nobody, "hello"),
            one.request(nobody, "hello"),
            one.open(nobody, "echo").receive(),
        ):
            with pytest.raises(meshwalk.Unreachable) as unreachable:
                await call
            assert nobody.short in str(unreachable.value)
        assert is_clean(one)


async def test_a_link_for_conversations_is_closed_when_nobody_uses_it() -> None:
    quick = Config(
        link=LinkConfig(temporary_timeout_s=0.3, ping_interval_s=0.1, idle_timeout_s=1.0),
        overlay=OverlayConfig(links_min=1, links_max=3),
        conversations=ConversationConfig(tell_after_s=0.05),
    )
    async with (
        two_nodes(config=quick) as (one, two),
        Node(listen="127.0.0.1:0", config=quick) as three,
    ):
        two.on("echo")(echo)
        # Known by address, and no neighbour: three belongs to no network yet.
        assert one._driver is not None
        blob = one._driver.core.own_record.blob_for(one.address)
        assert three._driver is not None
        book = three._driver.core.overlay.book
        record = book.open(blob, three._driver.core.overlay._shared.signatures)
        now = three._driver.clock()
        book.heard(record, blob, (one.address,), "exchange", one.address, now)
        one.on("echo")(echo)
        events = three.events(peer=one.id)
        conversation = three.open(one.id, "echo")
        for _ in range(5):  # longer than an unused link lasts, and mostly silent
            await conversation.send("still here")
            assert (await conversation.receive()).body == "still here"
            await asyncio.sleep(0.2)
        assert three._driver.core.dispatch.link_to(one.id) is not None
        conversation.close()
        # Not any link: three, which has none of its own, may have made it a neighbour meanwhile.
        async for event in events:
            if isinstance(event, meshwalk.LinkClosed) and event.purpose == "conversation":
                break
        await until(lambda: is_clean(three) and is_clean(one))
