"""Conversations and messages used wrongly, or by too many, or too fast; in virtual time."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable
from typing import Any, assert_type

import msgspec
import pytest

import meshwalk
from meshwalk import Conversation, ConversationName, Node, PeerId, Refused, Request
from meshwalk.config import Config, ConversationConfig, PacingConfig
from meshwalk.net.driver import Driver
from meshwalk.testing import World, simulated
from meshwalk.wire.messages import RefusalCode

NOBODY = PeerId(bytes(range(32)))


async def pair(world: World, config: Config | None = None) -> tuple[Node, Node]:
    anna = await world.start("anna", config=config)
    return anna, await world.start("bert", join=anna, config=config)


def driver_of(node: Node) -> Driver:
    assert node._driver is not None
    return node._driver


def backlog(node: Node) -> int:
    conversations = driver_of(node).core.dispatch.conversations.open_now.values()
    return sum(conversation.outgoing.backlog_bytes for conversation in conversations)


# Whom to.


@pytest.mark.parametrize("peer", [str(NOBODY), bytes(NOBODY), b"", None, 1])
@pytest.mark.parametrize("what", ["send", "unreliably", "request", "open", "ping"])
@simulated()
async def test_a_peer_is_named_by_its_id(world: World, what: str, peer: Any) -> None:
    node = await world.start("anna")

    async def call() -> None:
        if what == "open":
            node.open(peer, "talk")
        elif what == "unreliably":
            await node.send(peer, "hello", unreliable=True)
        else:
            await getattr(node, what)(peer, *["hello"] * (what != "ping"))

    with pytest.raises(meshwalk.InvalidArgument, match=r"PeerId.parse\(text\)"):
        await call()


@simulated()
async def test_whatever_a_stop_meets_nobody_waits_for_it(world: World) -> None:
    anna, bert = await pair(world)

    @anna.on("never")
    async def never(request: Request) -> None:
        await asyncio.Event().wait()

    @anna.on("talk")
    async def talk(conversation: Conversation) -> None:
        await asyncio.Event().wait()

    conversation = bert.open(anna.id, "talk")
    waiting: list[Awaitable[Any]] = [
        asyncio.create_task(conversation.receive()),
        asyncio.create_task(conversation.finished()),
        asyncio.create_task(bert.request(anna.id, type="never", timeout_s=1000)),
    ]
    await world.sleep(1)
    world.partition([anna], [bert])
    waiting += [
        asyncio.create_task(bert.send(NOBODY, "hello")),
        asyncio.create_task(bert.ping(anna.id, timeout_s=1000)),
        asyncio.create_task(bert.ping(anna.address, timeout_s=1000)),
    ]
    await world.sleep(1)

    def defect(now: float) -> Any:
        raise ZeroDivisionError

    driver_of(bert).core.leave = defect  # type: ignore[method-assign]
    with pytest.raises(ZeroDivisionError):
        await bert.stop()
    at = world.now
    for waiter in waiting:
        with pytest.raises(meshwalk.Closed):
            await waiter
    assert world.now == at


# Saying what cannot be said.


@pytest.mark.parametrize("how", ["end", "close", "cancel"])
@simulated()
async def test_nothing_is_said_after_the_end(world: World, how: str) -> None:
    anna, bert = await pair(world)

    @anna.on("talk")
    async def talk(conversation: Conversation) -> None:
        async for _ in conversation:
            pass

    conversation = bert.open(anna.id, "talk")
    await conversation.send("before")
    getattr(conversation, how)()
    message = meshwalk.Said("", "", 0.0, 0.0, True, 1)
    for call in (
        conversation.send("after"),
        conversation.send("after", unreliable=True),
        conversation.request("after"),
        conversation.reply(message, "after"),
    ):
        with pytest.raises(meshwalk.Closed):
            await call


@simulated()
async def test_only_who_listens_hears_what_was_not_understood(world: World) -> None:
    anna, bert = await pair(world)

    @anna.on("numbers")
    async def numbers(conversation: Conversation[int]) -> None:
        async for message in conversation:
            await conversation.reply(message, message.body)

    conversation = bert.open(anna.id, "numbers")
    await conversation.send("a text")
    await world.sleep(1)
    assert await conversation.request(1) == 1
    assert await conversation.send(2, unreliable=True)
    await conversation.reply(meshwalk.Said("", "", 0.0, 0.0, True, 1), 3)
    with pytest.raises(Refused) as refused:
        await conversation.receive()
    assert refused.value.code == RefusalCode.NOT_UNDERSTOOD
    conversation.cancel()


@pytest.mark.parametrize(
    ("text", "code"),
    [("no", -1), ("no", 0), ("no", 99), ("no", 2**64), ("no", "no"), (b"no", 100), (None, 7)],
)
@simulated()
async def test_a_code_that_is_no_applications(world: World, text: Any, code: Any) -> None:
    anna, bert = await pair(world)

    @anna.on("talk")
    async def talk(conversation: Conversation) -> None:
        async for _ in conversation:
            pass

    async with bert.open(anna.id, "talk") as conversation:
        await conversation.send("hello")
        with pytest.raises(meshwalk.InvalidArgument):
            conversation.cancel(text, code)
        await conversation.send("still there")
        conversation.cancel("for good", 2**64 - 1)
        assert conversation.is_over


# Too much, too fast.


@pytest.mark.parametrize("what", ["refuse", "reply", "request"])
@simulated()
async def test_nothing_gets_past_a_peer_that_does_not_read(world: World, what: str) -> None:
    """Neither its refusals open the writer's gate, nor do replies and requests go around it."""
    anna, bert = await pair(world)
    kept: list[Conversation] = []
    anna.on("kept")(lambda request: None)

    @anna.on("kept")
    def keep(conversation: Conversation) -> None:
        kept.append(conversation)

    conversation = bert.open(anna.id, "kept")
    body, said = bytes(60_000), 0

    async def write(*, in_turn: bool) -> None:
        nonlocal said
        for number in range(100):
            if in_turn or what == "refuse":
                await conversation.send(body)
            elif what == "reply":
                await conversation.reply(meshwalk.Said("", "", 0.0, 0.0, True, number + 1), body)
            else:
                await conversation.request(body, timeout_s=1000)
            said += 1

    writer = asyncio.create_task(write(in_turn=True))
    await world.sleep(2)
    before, waits = said, backlog(bert)
    assert 0 < before < 100
    (theirs,) = kept
    driver = driver_of(anna)
    others = [asyncio.create_task(write(in_turn=False)) for _ in range(10)]
    for number in range(100):
        refusal = driver.core.refuse_said(theirs.number, number + 1, 5, "no", driver.clock())
        driver.command(refusal)
        await world.sleep(0.01)
    assert (said, backlog(bert)) == (before, waits)
    for task in (writer, *others):
        task.cancel()
    conversation.cancel()


@pytest.mark.parametrize("what", ["reply", "request"])
@simulated()
async def test_replies_and_requests_alone_wait_for_the_reader(world: World, what: str) -> None:
    anna, bert = await pair(world)
    anna.on("kept")(_keep)
    conversation = bert.open(anna.id, "kept")
    body = bytes(60_000)

    async def say(number: int) -> None:
        if what == "reply":
            await conversation.reply(meshwalk.Said("", "", 0.0, 0.0, True, number), body)
        else:
            await conversation.request(body, timeout_s=1000)

    tasks = [asyncio.create_task(say(number + 1)) for number in range(100)]
    await world.sleep(5)
    assert backlog(bert) <= ConversationConfig().backlog_bytes + len(body)
    for task in tasks:
        task.cancel()
    conversation.cancel()


@simulated()
async def test_long_messages_wait_until_others_have_gone(world: World) -> None:
    anna, bert = await pair(world)
    heard = anna.messages()
    body = bytes(1_000_000)
    most = sent = 0

    async def write() -> None:
        nonlocal sent, most
        for _ in range(10):
            await bert.send(anna.id, body)
            sent += 1
            most = max(most, backlog(bert))

    async with asyncio.TaskGroup() as writers:
        for _ in range(3):
            writers.create_task(write())
        for _ in range(30):
            assert len((await anext(heard)).body) == len(body)
    assert sent == 30
    assert most <= len(body) + PacingConfig().waiting_bytes_max


@simulated()
async def test_unreliable_writers_let_others_run(world: World) -> None:
    anna, bert = await pair(world)

    @anna.on("talk")
    async def talk(conversation: Conversation) -> None:
        async for _ in conversation:
            pass

    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    conversation = bert.open(anna.id, "talk")
    await conversation.send("begin")
    for send in (conversation.send, lambda *a, **k: bert.send(anna.id, *a, **k)):
        await world.sleep(1)
        counting, before = asyncio.create_task(others()), turns
        for _ in range(200):
            assert await send(bytes(1000), unreliable=True)
        assert turns > before, "one for some 400 small messages"
        link = driver_of(bert).core.link_to(anna.id)
        assert link is not None
        before, dropped = turns, 0
        for _ in range(20):
            link.room = 0
            dropped += not await send(b"", unreliable=True)
        assert turns - before >= dropped > 0
        counting.cancel()
    conversation.cancel()


@simulated()
async def test_an_unreliable_send_to_a_node_that_stops_meanwhile(world: World) -> None:
    node = await world.start("anna")
    driver = driver_of(node)

    async def reached(peer: PeerId) -> None:
        await node.stop()

    driver.waiters.reach = reached  # type: ignore[method-assign]
    with pytest.raises(meshwalk.NotRunning):
        await node.send(NOBODY, "hello", unreliable=True)


@simulated()
async def test_long_unreliable_sends_wait_as_others(world: World) -> None:
    anna, bert = await pair(world)
    heard = anna.messages()
    for _ in range(300):  # 18 MB, of which 8 MiB may wait to be sent
        assert await bert.send(anna.id, bytes(60_000), unreliable=True)
    for _ in range(300):
        await anext(heard)
    assert "slow" not in bert.statistics().node.ended


# Errors.


@simulated()
async def test_an_error_does_not_grow_with_each_time_it_is_raised(world: World) -> None:
    anna, bert = await pair(world)
    conversation = bert.open(anna.id, "nobody listens")
    depths: set[int] = set()
    for call in (conversation.receive, conversation.finished, lambda: conversation.send("hello")):
        for _ in range(50):
            with pytest.raises(Refused) as refused:
                await call()
            depths.add(len(traceback.extract_tb(refused.value.__traceback__)))
    assert max(depths) < 10


@simulated()
async def test_each_who_waits_gets_an_error_of_its_own(world: World) -> None:
    _, bert = await pair(world)
    calls = [asyncio.create_task(bert.send(NOBODY, "hello")) for _ in range(5)]
    errors = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(error) for error in errors} == {meshwalk.Unreachable}
    assert len({id(error) for error in errors}) == 5


@simulated()
async def test_who_has_heard_all_has_no_error(world: World) -> None:
    anna, bert = await pair(world)

    @anna.on("five")
    async def five(conversation: Conversation) -> None:
        for number in range(5):
            await conversation.send(number)
        conversation.end()
        async for _ in conversation:
            pass

    conversation = bert.open(anna.id, "five")
    await world.sleep(2)
    world.crash("anna")
    await world.until(lambda: conversation.is_over, 120)
    assert [message.body async for message in conversation] == [0, 1, 2, 3, 4]
    with pytest.raises(meshwalk.Closed, match="said all"):
        await conversation.receive()
    for call in (conversation.send("hello"), conversation.finished()):
        with pytest.raises(meshwalk.Unreachable):
            await call
    assert isinstance(conversation.error, meshwalk.Unreachable)


# Names and types.


@simulated()
async def test_a_name_of_another_type_is_nobodys(world: World) -> None:
    anna, bert = await pair(world)
    anna.on("talk")(_keep)
    conversation = bert.open(anna.id, "talk")
    name = conversation.name
    assert bert.conversation(name) is conversation
    assert bert.conversation(msgspec.structs.replace(name, type="walk")) is None
    conversation.cancel()


@simulated()
async def test_a_name_of_a_conversation_with_oneself(world: World) -> None:
    node = await world.start("anna")
    named: list[tuple[ConversationName, Conversation | None]] = []

    @node.on("self")
    def keep(conversation: Conversation) -> None:
        named.append((conversation.name, node.conversation(conversation.name)))

    conversation = node.open(node.id, "self")
    await world.sleep(1)
    assert named == [(conversation.name, conversation)]
    conversation.cancel()


def _keep(conversation: Conversation) -> None:
    """Whoever tests speaks for it."""


@simulated()
async def test_what_is_declared_is_what_type_checkers_see(world: World) -> None:
    anna, bert = await pair(world)
    anna.on("sum")(sum_of)

    @anna.on("talk")
    async def talk(conversation: Conversation[int]) -> None:
        async for message in conversation:
            await conversation.reply(message, str(message.body))

    assert assert_type(await bert.request(anna.id, [1, 2], "sum", reply=int), int) == 3
    assert assert_type(await bert.request(anna.id, [1, 2], "sum"), Any) == 3
    async with bert.open(anna.id, "talk", says=str) as conversation:
        assert_type(conversation, Conversation[str])
        assert assert_type(await conversation.request(4, reply=str), str) == "4"
        assert assert_type(await conversation.request(4), Any) == "4"
    async with bert.open(anna.id, "talk") as conversation_of_any:
        assert_type(conversation_of_any, Conversation[Any])


def sum_of(request: Request[list[int]]) -> int:
    return sum(request.body)
