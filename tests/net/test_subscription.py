"""The queue between a node and one reader."""

from __future__ import annotations

import asyncio
import gc

import pytest

from meshwalk.net.subscription import Subscribers, Subscription


async def test_items_come_in_order_and_waiting_for_them_works() -> None:
    subscription: Subscription[int] = Subscription()
    reader = asyncio.create_task(anext(subscription))
    await asyncio.sleep(0)
    subscription.put(1)
    subscription.put(2)
    assert await reader == 1
    assert await anext(subscription) == 2
    assert len(subscription) == 0


async def test_what_does_not_fit_is_dropped_and_counted() -> None:
    subscription: Subscription[int] = Subscription(limit=2)
    assert [subscription.put(number) for number in range(4)] == [True, True, False, False]
    assert subscription.dropped == 2
    subscription.close()
    assert [number async for number in subscription] == [0, 1]


async def test_bytes_are_bounded_too() -> None:
    subscription: Subscription[str] = Subscription(limit_bytes=100)
    assert subscription.put("a", 60)
    assert not subscription.put("b", 41)
    assert subscription.get_nowait() == "a"
    assert subscription.put("b", 41)


async def test_closing_ends_the_reader_after_what_waits() -> None:
    subscription: Subscription[int] = Subscription()
    reader = asyncio.create_task(anext(subscription))
    await asyncio.sleep(0)
    subscription.close()
    subscription.close()
    with pytest.raises(StopAsyncIteration):
        await reader
    assert subscription.is_closed
    assert subscription.put(1), "a closed subscription drops nothing: nobody reads it"


async def test_a_second_reader_is_told_so() -> None:
    subscription: Subscription[int] = Subscription()
    reader = asyncio.create_task(anext(subscription))
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="one reader"):
        await anext(subscription)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    subscription.put(1)
    assert await anext(subscription) == 1


async def test_a_loop_that_is_left_early_leaves_no_queue_behind() -> None:
    subscribers: Subscribers[int] = Subscribers()

    async def first() -> int:
        subscribers_loop = subscribers.subscribe(10)
        subscribers.put(1)
        async for item in subscribers_loop:
            return item
        raise AssertionError

    assert await first() == 1
    gc.collect()
    assert len(subscribers) == 0
    assert subscribers.put(2) is None


async def test_readers_that_are_gone_are_let_go_of_without_a_new_one() -> None:
    subscribers: Subscribers[int] = Subscribers()
    kept = subscribers.subscribe(10)
    for _ in range(5):
        subscribers.subscribe(10)
    gc.collect()
    assert subscribers.put(1) is None
    assert len(subscribers._readers) == len(subscribers) == 1
    assert kept.get_nowait() == 1


async def test_garbage_in_another_thread_never_loses_a_reader() -> None:
    subscribers: Subscribers[int] = Subscribers()

    class Circle:
        def __init__(self) -> None:
            self.me, self.reader = self, subscribers.subscribe(10)

    gc.disable()
    try:
        Circle()
        before = subscribers._readers
        await asyncio.get_running_loop().run_in_executor(None, gc.collect)
        assert subscribers._readers is before, "only the loop changes it"
    finally:
        gc.enable()
    assert len(subscribers) == 0


async def test_every_reader_gets_everything_and_a_full_one_is_named() -> None:
    subscribers: Subscribers[int] = Subscribers()
    wide, narrow = subscribers.subscribe(10), subscribers.subscribe(1)
    assert subscribers.put(1) is None
    assert subscribers.put(2) is narrow
    narrow.close()
    assert subscribers.put(3) is None
    subscribers.close()
    assert [item async for item in wide] == [1, 2, 3]


async def test_a_reader_that_comes_after_the_end_ends_at_once() -> None:
    subscribers: Subscribers[int] = Subscribers()
    subscribers.close()
    assert [item async for item in subscribers.subscribe(10)] == []
