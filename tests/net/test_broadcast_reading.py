"""Reading broadcasts on real nodes: what was sent before, after a restart, and slow readers."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from meshwalk import Delivery, Node, Subscription

DEADLINE_S = 20


def local(**options: Any) -> Node:
    return Node(listen="127.0.0.1:0", **options)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.005)


async def linked(one: Node, other: Node) -> None:
    await other.join(one.address)
    await until(lambda: other.id in one.neighbours and one.id in other.neighbours)


async def taken(messages: Subscription[Delivery], count: int) -> list[Any]:
    """So many bodies, and no more than that wait."""
    async with asyncio.timeout(DEADLINE_S):
        found = [(await anext(messages)).body for _ in range(count)]
    assert len(messages) == 0
    return found


def paused(node: Node) -> int:
    """How often a node has held back broadcasts."""
    assert node._driver is not None
    return node._driver.core.gossip.counts["pauses"]


def is_paused(node: Node) -> bool:
    assert node._driver is not None
    return node._driver.core.gossip.fetching.is_paused


async def test_who_comes_late_gets_what_was_sent_before_from_who_has_it() -> None:
    async with local() as keeper:
        async with local() as origin:
            await linked(keeper, origin)
            heard = keeper.messages()
            for number in range(5):
                await origin.broadcast(number, topic="even" if number % 2 == 0 else "odd")
            assert await taken(heard, 5) == [0, 1, 2, 3, 4]
        async with local() as late:
            plain = late.messages()
            asked = late.messages(since=time.time() - 600)
            even = late.messages(since=time.time() - 600, topic="even")
            await linked(keeper, late)
            assert await taken(asked, 5) == [0, 1, 2, 3, 4]
            assert await taken(even, 3) == [0, 2, 4]
            await keeper.broadcast("new")
            assert await taken(asked, 1) == ["new"]
            assert await taken(plain, 1) == ["new"], "the past is for those who asked"


async def test_what_the_node_holds_comes_first_and_once() -> None:
    async with local() as one, local() as two:
        await linked(one, two)
        from_the_start = two.messages()
        for number in range(10):
            await one.broadcast(number)
        assert await taken(from_the_start, 10) == list(range(10))
        asked = two.messages(since=time.time() - 60)
        in_any_order = two.messages(since=time.time() - 60, ordered=False)
        assert len(asked) == len(in_any_order) == 10
        for number in range(10, 20):
            await one.broadcast(number)
        assert await taken(from_the_start, 10) == list(range(10, 20))
        assert await taken(asked, 20) == await taken(in_any_order, 20) == list(range(20))
        assert len(two.messages(since=time.time() + 60)) == 0


async def test_own_broadcasts_are_not_read_back() -> None:
    async with local() as one, local() as two:
        await linked(one, two)
        await one.broadcast("mine")
        assert len(one.messages(since=0.0)) == 0


async def test_after_a_restart_nothing_comes_twice_and_others_are_served(tmp_path: Path) -> None:
    async with local() as origin:
        async with local(data=tmp_path) as keeper:
            await linked(origin, keeper)
            heard = keeper.messages()
            for number in range(5):
                await origin.broadcast(number)
            assert await taken(heard, 5) == [0, 1, 2, 3, 4]
            await keeper.broadcast("of the keeper")
        async with local(data=tmp_path) as keeper:
            again = keeper.messages()
            held = keeper.messages(since=time.time() - 60)
            assert len(held) == 5
            await linked(origin, keeper)
            await origin.broadcast("new")
            assert await taken(again, 1) == ["new"]
            assert await taken(held, 6) == [0, 1, 2, 3, 4, "new"]
            await origin.stop()
            async with local() as late:
                asked = late.messages(since=time.time() - 60)
                await linked(keeper, late)
                found = await taken(asked, 7)
            assert [body for body in found if body != "of the keeper"] == [0, 1, 2, 3, 4, "new"]
            assert "of the keeper" in found


async def test_a_reader_that_waits_loses_nothing_and_keeps_the_order() -> None:
    count = 5_000
    async with local() as one, local() as two:
        await linked(one, two)
        slow = two.messages(limit=500, when_full="wait")
        for number in range(count):
            await one.broadcast(number)
            if number % 100 == 0:
                await asyncio.sleep(0)
        await until(lambda: is_paused(two))
        async with asyncio.timeout(DEADLINE_S):
            for number in range(count):
                assert (await anext(slow)).body == number
        assert slow.dropped == two.statistics().messages_dropped == 0
        assert paused(two) > 0
        await until(lambda: not is_paused(two))


async def test_who_is_linked_with_a_paused_node_hears_all() -> None:
    async with local() as one, local() as two, local() as three:
        await linked(one, two)
        await linked(one, three)
        slow, keen = two.messages(limit=4, when_full="wait"), three.messages()
        await until(lambda: three.id in one.neighbours)
        for number in range(20):
            await one.broadcast(number)
            await asyncio.sleep(0.002)
        assert await taken(keen, 20) == list(range(20))
        await until(lambda: is_paused(two))
        assert await taken_slowly(slow, 20) == list(range(20))


async def taken_slowly(messages: Subscription[Delivery], count: int) -> list[Any]:
    found = []
    async with asyncio.timeout(DEADLINE_S):
        for _ in range(count):
            found.append((await anext(messages)).body)
            await asyncio.sleep(0)
    return found


async def test_a_reader_that_goes_away_leaves_no_node_paused() -> None:
    async with local() as one, local() as two:
        await linked(one, two)
        everything = two.messages()
        for turn in range(2):
            slow = two.messages(limit=4, when_full="wait")
            for number in range(4):
                await one.broadcast(number)
            await until(lambda: is_paused(two))
            if turn == 0:
                slow.close()
            else:
                del slow
                gc.collect()
            await until(lambda: not is_paused(two))
            assert await taken(everything, 4) == [0, 1, 2, 3]
        await one.broadcast("after")
        assert await taken(everything, 1) == ["after"]


async def test_a_node_may_be_stopped_while_it_is_paused() -> None:
    async with local() as one:
        async with local() as two:
            await linked(one, two)
            slow = two.messages(limit=2, when_full="wait")
            for number in range(3):
                await one.broadcast(number)
            await until(lambda: is_paused(two))
        assert [message.body async for message in slow][:1] == [0]
