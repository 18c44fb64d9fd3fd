"""The edges of a node's life: full buffers, cancelled handlers, stopping twice."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import meshwalk
from meshwalk import Node
from meshwalk.config import Config, LinkConfig, StoreConfig
from meshwalk.net.driver import Driver
from meshwalk.wire.messages import RefusalCode

DEADLINE_S = 20
SMALL_BUFFERS = Config(
    link=LinkConfig(
        frame_bytes_max=400_000, send_buffer_high_bytes=50_000, send_buffer_bytes_max=600_000
    )
)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.005)


async def pair(one: Node, other: Node) -> None:
    await other.join(one.address)
    await until(lambda: other.id in one.neighbours and one.id in other.neighbours)


def local(**options: Any) -> Node:
    return Node(listen="127.0.0.1:0", **options)


def driver_of(node: Node) -> Driver:
    assert node._driver is not None
    return node._driver


async def test_a_request_whose_sending_ends_the_link_is_closed_and_not_forgotten() -> None:
    async with local(config=SMALL_BUFFERS) as one, local() as two:
        await pair(one, two)
        driver = driver_of(one)
        link = driver.core.link_of(two.id)
        assert link is not None
        # As if the peer read nothing at all: the first request overflows the buffer.
        pipe = driver.connections[link.number].pipe
        driver.connections[link.number].pipe = FullPipe(pipe)  # type: ignore[assignment]
        with pytest.raises(meshwalk.Closed):
            async with asyncio.timeout(DEADLINE_S):
                await one.request(two.id, bytes(100_000), timeout_s=1)
        pipe.abort()
        assert one.statistics().node.requests_waiting == 0


class FullPipe:
    """A pipe that says that a megabyte waits."""

    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe
        self.unsent_bytes = 0

    def write(self, data: bytes) -> None:
        self.unsent_bytes = 1_000_000

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pipe, name)


@pytest.mark.parametrize("what", ["broadcast", "send", "request"])
async def test_many_writers_at_once_wait_as_one_would(what: str) -> None:
    count, body = 60, bytes(100_000)  # ten times what may wait for a peer
    async with local(config=SMALL_BUFFERS) as one, local() as two:
        await pair(one, two)
        two.on("size")(lambda request: len(request.body))
        heard = two.messages()

        async def write() -> None:
            if what == "broadcast":
                await one.broadcast(body)
            elif what == "send":
                await one.send(two.id, body)
            else:
                assert await one.request(two.id, body, "size") == len(body)

        async with asyncio.timeout(DEADLINE_S):
            await asyncio.gather(*(write() for _ in range(count)))
            if what != "request":
                for _ in range(count):
                    await anext(heard)
        assert one.neighbours == [two.id]
        assert "slow" not in one.statistics().node.ended


async def test_a_handler_may_stop_its_node() -> None:
    one, two = await local().start(), await local().start()
    await pair(one, two)

    @one.on("stop")
    async def stop(request: meshwalk.Request) -> None:
        await one.stop()

    with pytest.raises((meshwalk.Closed, meshwalk.Refused)):
        await two.request(one.id, type="stop")
    async with asyncio.timeout(DEADLINE_S):
        await one.stop()
    with pytest.raises(meshwalk.NotRunning):
        await one.broadcast(b"")
    await two.stop()


async def test_a_handler_that_will_not_end_does_not_hold_the_stop(
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = Config(link=LinkConfig(close_timeout_s=0.1))
    one, two = await local(config=config).start(), await local(config=config).start()
    await pair(one, two)
    release = asyncio.Event()

    @one.on("stubborn")
    async def stubborn(request: meshwalk.Request) -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    asked = asyncio.create_task(two.request(one.id, type="stubborn"))
    await until(lambda: one.statistics().node.requests_served == 1)
    with caplog.at_level(logging.WARNING, logger="meshwalk"):
        async with asyncio.timeout(DEADLINE_S):
            await one.stop()
    assert "do not end" in caplog.text
    with pytest.raises((meshwalk.Closed, meshwalk.Refused)):
        await asked
    release.set()
    await two.stop()


async def test_stopping_twice_at_once_waits_twice() -> None:
    async with local() as other:
        node = await local().start()
        await pair(other, node)
        await asyncio.gather(node.stop(), node.stop())
        port = node.address.port
        async with local() as again:
            assert again.id != node.id
        with pytest.raises(meshwalk.Unreachable):
            await other.ping(f"127.0.0.1:{port}")


async def test_a_stop_that_is_cancelled_goes_on(tmp_path: Path) -> None:
    node = await local(data=tmp_path).start()
    stopping = asyncio.create_task(node.stop())
    await asyncio.sleep(0)
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    await node.stop()
    async with local(data=tmp_path):
        pass


async def test_a_node_can_be_started_again(tmp_path: Path) -> None:
    node = local(data=tmp_path)
    await node.start()
    id = node.id
    await node.stop()
    await node.start()
    assert node.id == id
    assert not node.messages().is_closed
    await node.stop()
    assert node.messages().is_closed


async def test_a_handler_ends_with_whoever_asked() -> None:
    ended = asyncio.Event()
    async with local() as one:

        @one.on("slow")
        async def slow(request: meshwalk.Request) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        two = await local().start()
        await pair(one, two)
        asked = asyncio.create_task(two.request(one.id, type="slow"))
        await until(lambda: one.statistics().node.requests_served == 1)
        await two.stop()
        async with asyncio.timeout(DEADLINE_S):
            await ended.wait()
        with pytest.raises(meshwalk.Closed):
            await asked
        assert one.statistics().node.requests_served == 0


async def test_a_handler_that_is_cancelled_within_is_told_of() -> None:
    async with local() as one, local() as two:
        await pair(one, two)

        @one.on("async")
        async def later(request: meshwalk.Request) -> None:
            raise asyncio.CancelledError

        @one.on("plain")
        def plain(request: meshwalk.Request) -> None:
            raise asyncio.CancelledError

        for kind in ("async", "plain"):
            with pytest.raises(meshwalk.Refused) as refused:
                await two.request(one.id, type=kind)
            assert refused.value.code == RefusalCode.HANDLER_FAILED
        assert one.statistics().node.requests_served == 0
        assert two.id in one.neighbours


async def test_a_machine_that_slept_is_heard_again() -> None:
    config = Config(link=LinkConfig(ping_interval_s=0.05))
    async with local(config=config) as one, local(config=config) as two:
        await pair(one, two)
        heard = two.messages()
        # Asleep for an hour: the calendar went on, the machine's clock stood still.
        driver = driver_of(one)
        driver.core.calendar_set(driver.core.unix_offset_s - 3600, driver.clock())
        await until(lambda: abs(driver_of(one).core.unix_offset_s - _offset(one)) < 1)
        await one.broadcast("awake")
        assert (await anext(heard)).body == "awake"


def _offset(node: Node) -> float:
    return time.time() - driver_of(node).clock()


async def test_history_is_bounded_over_short_runs(tmp_path: Path) -> None:
    config = Config(store=StoreConfig(history_max=10))
    for _ in range(3):
        async with local(data=tmp_path, config=config) as node:
            for number in range(20):
                await node.broadcast(number)
    async with local(data=tmp_path, config=config) as node:
        assert node._storage is not None
        kept = await node._storage.history(1000)
        assert len(kept) == 10
        assert kept[-1].at >= kept[0].at
