"""Readers that wait: whom they hold back, and until when."""

from __future__ import annotations

import asyncio
import gc

import pytest
from readers import World, broadcast, taken

from meshwalk.net import reading
from meshwalk.net.reading import Reader


@pytest.fixture
async def world() -> World:
    return World()


async def test_a_reader_that_waits_holds_back_from_half_full_to_a_quarter(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "ON_THEIR_WAY_MAX", 3)
    reader = world.read(limit=8, when_full="wait")
    world.deliver(*(broadcast(number) for number in range(1, 4)))
    assert await world.calls() == []
    world.deliver(broadcast(4))
    assert await world.calls() == ["pause"]
    world.deliver(*(broadcast(number) for number in range(5, 12)))
    assert (len(reader), reader.dropped) == (11, 0), "what is on its way is queued"
    world.deliver(broadcast(12))
    assert (reader.dropped, world.inbox.dropped) == (1, 1)
    assert await world.calls() == []
    assert [(await anext(reader)).sequence for _ in range(8)] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert await world.calls() == []
    assert (await anext(reader)).sequence == 9
    assert await world.calls() == ["resume"]
    world.deliver(broadcast(13), broadcast(14))
    assert await world.calls() == ["pause"]
    assert taken(reader) == [10, 11, 13, 14]
    assert await world.calls() == ["resume"]


async def test_bytes_hold_back_too(world: World) -> None:
    reader = world.read(when_full="wait")
    half = reader.limit_bytes // 2
    world.deliver(broadcast(1, bytes(half)))
    assert await world.calls() == []
    world.deliver(broadcast(2, bytes(1000)), broadcast(3, bytes(half)))
    assert await world.calls() == ["pause"]
    assert (len(reader), reader.dropped) == (2, 1)
    reader.get_nowait()
    assert await world.calls() == ["resume"]


async def test_a_tiny_queue_works(world: World) -> None:
    reader = world.read(limit=1, when_full="wait")
    world.deliver(broadcast(1))
    assert await world.calls() == ["pause"]
    assert taken(reader) == [1]
    assert await world.calls() == ["resume"]


async def test_readers_that_drop_hold_nobody_back(world: World) -> None:
    reader = world.read(limit=4)
    world.deliver(*(broadcast(number) for number in range(1, 9)))
    assert reader.dropped == 4
    assert await world.calls() == []


async def test_all_readers_must_have_drained(world: World) -> None:
    one, two = world.read(limit=4, when_full="wait"), world.read(limit=8, when_full="wait")
    world.deliver(*(broadcast(number) for number in range(1, 5)))
    assert await world.calls() == ["pause"]
    taken(one)
    assert await world.calls() == []
    taken(two)
    assert await world.calls() == ["resume"]


async def test_what_is_gone_again_within_a_turn_is_not_told(world: World) -> None:
    reader = world.read(limit=2, when_full="wait")
    world.deliver(broadcast(1))
    assert taken(reader) == [1]
    assert await world.calls() == []


async def test_what_was_held_before_holds_nobody_back(world: World) -> None:
    world.core.held = [broadcast(number) for number in range(1, 9)]
    reader = world.read(limit=4, since=0, when_full="wait")
    world.deliver(broadcast(9))
    assert await world.calls() == ["catch up"]
    world.deliver(broadcast(10))
    assert await world.calls() == ["pause"]
    assert [(await anext(reader)).sequence for _ in range(8)] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert await world.calls() == []
    assert (await anext(reader)).sequence == 9
    assert await world.calls() == ["resume"]
    assert taken(reader) == [10]


async def test_a_crowded_reader_that_is_closed_holds_nobody_back(world: World) -> None:
    reader = world.read(limit=2, when_full="wait")
    world.deliver(broadcast(1), broadcast(2))
    assert await world.calls() == ["pause"]
    reader.close()
    assert await world.calls() == ["resume"]
    world.deliver(broadcast(3))
    assert taken(reader) == [1, 2], "what waits can still be read"
    assert await world.calls() == []


async def test_a_crowded_reader_that_is_let_go_of_holds_nobody_back(world: World) -> None:
    reader = world.read(limit=2, when_full="wait")
    world.deliver(broadcast(1))
    assert await world.calls() == ["pause"]
    del reader
    gc.collect()
    assert await world.calls() == ["resume"]


async def test_a_crowded_reader_may_be_let_go_of_in_another_thread(world: World) -> None:
    class Circle:
        def __init__(self) -> None:
            self.me, self.reader = self, world.read(limit=2, when_full="wait")

    gc.disable()
    try:
        Circle()
        world.deliver(broadcast(1))
        assert await world.calls() == ["pause"]
        loop = asyncio.get_running_loop()
        loop.set_debug(True)  # it complains of what is not safe there
        await loop.run_in_executor(None, gc.collect)
        assert await world.calls() == ["resume"]
    finally:
        gc.enable()


async def test_a_node_that_stops_and_starts_again_is_not_paused(world: World) -> None:
    reader = world.read(limit=2, when_full="wait")
    world.deliver(broadcast(1))
    assert await world.calls() == ["pause"]
    world.inbox.close()
    assert await world.calls() == []
    assert reader.is_closed
    world.start()
    again = world.read(limit=2, when_full="wait")
    world.deliver(broadcast(1))
    assert await world.calls() == ["pause"]
    assert taken(again) == [1]
    assert await world.calls() == ["resume"]


def test_a_node_may_live_in_one_loop_after_the_other() -> None:
    loop, worlds = asyncio.new_event_loop(), list[tuple[World, Reader]]()

    def first() -> None:
        world = World()
        worlds.append((world, world.read(limit=2, when_full="wait")))
        world.deliver(broadcast(1))
        loop.stop()  # before it has come to what that leads to

    async def second(world: World) -> list[str]:
        world.start()
        reader = world.read(limit=2, when_full="wait")
        world.deliver(broadcast(1))
        assert len(reader) == 1
        return await world.calls()

    loop.call_soon(first)
    loop.run_forever()
    loop.close()
    world, _ = worlds[0]
    world.inbox.close()
    assert asyncio.run(second(world)) == ["pause"]


async def test_a_reader_left_over_from_a_loop_that_has_ended_does_no_harm() -> None:
    def life() -> Reader:
        async def run() -> Reader:
            world = World()
            reader = world.read(limit=2, when_full="wait")
            world.deliver(broadcast(1))
            return reader

        return asyncio.run(run())

    reader = await asyncio.get_running_loop().run_in_executor(None, life)
    assert taken(reader) == [1]
