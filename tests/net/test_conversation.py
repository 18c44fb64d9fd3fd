"""Conversations through the public `Node`, over real TLS on loopback."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import msgspec
import pytest
from talk import DEADLINE_S, SEVERAL_PARTS, echo, is_clean, two_nodes, until

import meshwalk
from meshwalk import Conversation, ConversationName, Node, Request
from meshwalk.config import Config, PacingConfig
from meshwalk.net.tcppipe import SYSTEM_UNSENT_BYTES, TcpPipe
from meshwalk.wire.messages import RefusalCode

# Saying and hearing.


async def test_a_conversation_streams_and_ends() -> None:
    async with two_nodes() as (one, two):

        @two.on("count")
        async def count(conversation: Conversation) -> None:
            for number in range(conversation.body):
                await conversation.send(number)

        async with one.open(two.id, "count", 5) as conversation:
            assert [message.body async for message in conversation] == [0, 1, 2, 3, 4]
        await conversation.finished()
        await until(lambda: is_clean(one) and is_clean(two))


async def test_both_ways_with_a_half_close() -> None:
    async with two_nodes() as (one, two):
        heard: list[Any] = []

        @two.on("collect")
        async def collect(conversation: Conversation) -> None:
            heard.extend([message.body async for message in conversation])
            await conversation.send(len(heard))

        conversation = one.open(two.id, "collect")
        for body in (b"bytes", "text", {"a": [1, None]}, SEVERAL_PARTS):
            await conversation.send(body)
        conversation.end()
        with pytest.raises(meshwalk.Closed):
            await conversation.send("more")
        assert (await conversation.receive()).body == 4
        with pytest.raises(meshwalk.Closed, match="said all"):
            await conversation.receive()
        await conversation.finished()
        assert heard == [b"bytes", "text", {"a": [1, None]}, SEVERAL_PARTS]
        await until(lambda: is_clean(one) and is_clean(two))


async def test_times_of_sending_and_receiving() -> None:
    async with two_nodes() as (one, two):
        two.on("echo")(echo)
        async with one.open(two.id, "echo") as conversation:
            await conversation.send("now")
            message = await conversation.receive()
        assert abs(message.received_at - message.sent_at) < DEADLINE_S
        assert abs(message.received_at - one._surroundings.unix_clock()) < DEADLINE_S
        heard = two.messages()
        await one.send(two.id, "now")
        delivery = await anext(heard)
        assert abs(delivery.received_at - delivery.sent_at) < DEADLINE_S
        assert delivery.sent_at > 1e9


async def test_requests_within_a_conversation_and_big_ones_without() -> None:
    async with two_nodes() as (one, two):
        two.on("echo")(echo)

        @two.on("reverse")
        def reverse(request: Request) -> Any:
            return request.body[::-1]

        async with one.open(two.id, "echo") as conversation:
            assert await conversation.request("question") == "question"
            assert await conversation.request(SEVERAL_PARTS) == SEVERAL_PARTS
        assert await one.request(two.id, SEVERAL_PARTS, "reverse") == SEVERAL_PARTS[::-1]
        messages = two.messages()
        await one.send(two.id, SEVERAL_PARTS)
        assert (await anext(messages)).body == SEVERAL_PARTS
        await until(lambda: is_clean(one) and is_clean(two))


async def test_a_name_leads_both_ends_to_the_conversation() -> None:
    async with two_nodes() as (one, two):
        accepted: asyncio.Future[Conversation] = asyncio.get_running_loop().create_future()

        @two.on("kept")
        def kept(conversation: Conversation) -> None:
            accepted.set_result(conversation)

        @two.on("say in")
        async def say_in(request: Request[ConversationName]) -> None:
            other = two.conversation(request.body)
            assert other is not None
            await other.send("by name")

        conversation = one.open(two.id, "kept")
        theirs = await accepted
        assert conversation.name == theirs.name
        assert one.conversation(theirs.name) is conversation
        await one.request(two.id, conversation.name, "say in")
        assert (await conversation.receive()).body == "by name"
        conversation.cancel()
        assert one.conversation(theirs.name) is None


async def test_a_nodes_own_machines_talk_by_the_same_calls() -> None:
    async with Node(listen="127.0.0.1:0") as node, asyncio.timeout(DEADLINE_S):
        node.on("echo")(echo)

        @node.on("double")
        def double(request: Request) -> Any:
            return request.body * 2

        messages = node.messages()
        for number in range(10):
            await node.send(node.id, number)
        assert [(await anext(messages)).body for _ in range(10)] == list(range(10))
        assert await node.request(node.id, 21, "double") == 42
        async with node.open(node.id, "echo") as conversation:
            await conversation.send(SEVERAL_PARTS)
            assert (await conversation.receive()).body == SEVERAL_PARTS
        await until(lambda: is_clean(node))


# What goes wrong.


async def test_errors_of_handlers_are_typed_and_tell_no_secrets() -> None:
    async with two_nodes() as (one, two):

        @two.on("broken")
        async def broken(conversation: Conversation) -> None:
            raise RuntimeError("the password is swordfish")

        @two.on("unwilling")
        async def unwilling(conversation: Conversation) -> None:
            raise meshwalk.Refused(123, "not today")

        codes = {}
        for type in ("broken", "unwilling", "unknown"):
            with pytest.raises(meshwalk.Refused) as refused:
                await one.open(two.id, type).receive()
            codes[type] = refused.value.code
            assert "swordfish" not in str(refused.value)
        assert codes == {
            "broken": RefusalCode.HANDLER_FAILED,
            "unwilling": 123,
            "unknown": RefusalCode.NO_HANDLER,
        }
        await until(lambda: is_clean(one) and is_clean(two))


class Point(msgspec.Struct):
    x: int
    y: int


async def test_a_body_that_does_not_fit_costs_its_sender_an_error_and_nothing_else() -> None:
    async with two_nodes() as (one, two):

        @two.on("points")
        async def points(conversation: Conversation[Point]) -> None:
            async for message in conversation:
                await conversation.send(message.body.x + message.body.y)

        async with one.open(two.id, "points") as conversation:
            await conversation.send(Point(1, 2))
            assert (await conversation.receive()).body == 3
            await conversation.send("no point")
            with pytest.raises(meshwalk.Refused, match="does not fit") as refused:
                await conversation.receive()
            assert refused.value.code == RefusalCode.NOT_UNDERSTOOD
            await conversation.send({"x": 3, "y": 4})
            assert (await conversation.receive()).body == 7


async def test_a_peer_that_left_is_not_streamed_to() -> None:
    async with two_nodes() as (one, two):
        ended = asyncio.Event()

        @two.on("endless")
        async def endless(conversation: Conversation) -> None:
            try:
                while True:
                    await conversation.send(bytes(1000))
            finally:
                ended.set()

        async with one.open(two.id, "endless") as conversation:
            async for _ in conversation:
                break
        await ended.wait()
        await until(lambda: is_clean(one) and is_clean(two))


async def test_cancelling_and_deadlines() -> None:
    async with two_nodes() as (one, two):
        errors: list[meshwalk.MeshwalkError] = []

        @two.on("wait")
        async def wait(conversation: Conversation) -> None:
            try:
                await conversation.receive()
            except meshwalk.MeshwalkError as error:
                errors.append(error)

        conversation = one.open(two.id, "wait")
        await until(lambda: two.statistics().node.conversations_open == 1)
        conversation.cancel("I changed my mind")
        await until(lambda: len(errors) == 1)
        assert "changed my mind" in str(errors[0])
        with pytest.raises(meshwalk.TimedOut):
            await one.open(two.id, "wait", timeout_s=0.05).receive()
        await until(lambda: len(errors) == 2)
        assert isinstance(errors[1], meshwalk.Refused)
        assert errors[1].code == RefusalCode.TOO_LATE
        await until(lambda: is_clean(one) and is_clean(two))


# Back-pressure.


async def test_a_slow_reader_holds_up_its_own_writer_and_nobody_else() -> None:
    async with two_nodes() as (one, two):
        slow: asyncio.Future[Conversation] = asyncio.get_running_loop().create_future()

        @two.on("slow")
        def never_read(conversation: Conversation) -> None:
            slow.set_result(conversation)

        two.on("echo")(echo)
        body, sent = bytes(10_000), 0

        async def write() -> None:
            nonlocal sent
            conversation = one.open(two.id, "slow")
            for _ in range(1000):
                await conversation.send(body)
                sent += 1
            conversation.end()

        events = one.events(peer=two.id)
        writer = asyncio.create_task(write())
        theirs = await slow
        async with one.open(two.id, "echo") as conversation:
            for number in range(500):
                await conversation.send(number)
                assert (await conversation.receive()).body == number
        held = len(theirs)
        assert sent < 100
        assert held * len(body) <= meshwalk.config.ConversationConfig().window_bytes_max
        exhausted = [e for e in _all(events) if isinstance(e, meshwalk.CreditExhausted)]
        assert exhausted
        assert exhausted[0].conversation == "slow"
        count = 0
        async for _ in theirs:
            count += 1
        theirs.close()
        await writer
        assert count == 1000
        await until(lambda: is_clean(one) and is_clean(two))


def _all(subscription: meshwalk.Subscription[Any]) -> list[Any]:
    found = []
    while (item := subscription.get_nowait()) is not None:
        found.append(item)
    return found


async def test_unreliable_messages_are_dropped_and_counted_when_there_is_no_room() -> None:
    async with two_nodes() as (one, two):
        kept: asyncio.Future[Conversation] = asyncio.get_running_loop().create_future()

        @two.on("kept")
        def keep(conversation: Conversation) -> None:
            kept.set_result(conversation)

        messages = two.messages()
        assert await one.send(two.id, "one way", unreliable=True)
        assert (await anext(messages)).body == "one way"
        conversation = one.open(two.id, "kept")
        theirs = await kept
        assert await conversation.send("in it", unreliable=True)
        assert (await theirs.receive()).body == "in it"
        # Longer than a packet: the wish is ignored, and it arrives for certain.
        assert await conversation.send(SEVERAL_PARTS, unreliable=True)
        assert (await theirs.receive()).body == SEVERAL_PARTS
        driver = one._driver
        assert driver is not None
        link = driver.core.link_to(two.id)
        assert link is not None
        link.room = 0
        assert not await conversation.send("dropped", unreliable=True)
        link.room = 0  # there is some again when the writer goes on: false is returned a turn later
        assert not await one.send(two.id, "dropped", unreliable=True)
        conversation.cancel()


async def test_pacing_holds_back_a_nodes_own_broadcasts() -> None:
    paced = Config(pacing=PacingConfig(bytes_per_s=200_000, burst_bytes=10_000))
    async with Node(listen="127.0.0.1:0", config=paced) as one, Node(listen="127.0.0.1:0") as two:
        await one.join(two.address)
        heard = two.messages()
        loop = asyncio.get_running_loop()
        start = loop.time()
        for _ in range(5):
            await one.broadcast(bytes(20_000))
        assert loop.time() - start > 0.3
        for _ in range(5):
            await anext(heard)


async def test_pacing_holds_back_what_is_no_reply() -> None:
    paced = Config(pacing=PacingConfig(bytes_per_s=200_000, burst_bytes=10_000))
    async with Node(listen="127.0.0.1:0", config=paced) as one, Node(listen="127.0.0.1:0") as two:
        await one.join(two.address)
        heard = two.messages()
        loop = asyncio.get_running_loop()
        start = loop.time()
        for _ in range(5):
            await one.send(two.id, bytes(20_000))
        for _ in range(5):
            await anext(heard)
        # 100,000 bytes at 200,000 a second, less the burst and the last message's own debt.
        assert loop.time() - start > 0.3


async def test_the_systems_buffer_holds_little_that_waits() -> None:
    lowat = getattr(socket, "TCP_NOTSENT_LOWAT", None)
    if lowat is None:
        pytest.skip("this system has no such bound")
    async with two_nodes() as (one, _):
        assert one._driver is not None
        (connection,) = one._driver.connections.values()
        assert isinstance(connection.pipe, TcpPipe)
        raw = connection.pipe._raw
        assert raw is not None
        bound = raw.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, lowat)
        assert bound == SYSTEM_UNSENT_BYTES
