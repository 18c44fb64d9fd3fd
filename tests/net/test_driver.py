"""The driver: what effects become, and how a writer and a peer that does not read are treated.

Whole nodes on the in-memory transport, so that a peer can be made to stop reading at will.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

import meshwalk
from meshwalk import Node
from meshwalk.config import Config, LinkConfig
from meshwalk.identity.keys import KeyPair
from meshwalk.identity.network import Network
from meshwalk.net.driver import Driver
from meshwalk.net.memory import MemoryHub, MemoryPipe, MemoryTransport
from meshwalk.net.transport import Transport

DEADLINE_S = 20
SMALL_BUFFERS = Config(
    link=LinkConfig(
        frame_bytes_max=400_000,
        send_buffer_high_bytes=50_000,
        send_buffer_bytes_max=600_000,
        writer_patience_s=0.1,
        stall_timeout_s=0.3,
    )
)


def in_memory(hub: MemoryHub, config: Config = SMALL_BUFFERS) -> Node:
    def transport(keys: KeyPair, network: Network, settings: Config) -> Transport:
        return MemoryTransport(hub, keys.peer_id, network.network_id, settings.link)

    return Node(listen="127.0.0.1:0", config=config, transport=transport)


def driver_of(node: Node) -> Driver:
    driver = node._driver
    assert driver is not None
    return driver


def pipes_of(node: Node) -> list[MemoryPipe]:
    return [cast("MemoryPipe", c.pipe) for c in driver_of(node).connections.values()]


def stop_reading(node: Node) -> None:
    for pipe in pipes_of(node):
        pipe.pause_reading()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.001)


async def mesh(hub: MemoryHub, others: list[Node]) -> Node:
    """One more node; all are linked with each other, and no connection is being made or ended."""
    entry = await in_memory(hub).start()
    for other in others:
        await other.start()
        await other.join(entry.address)
    nodes = [entry, *others]
    await until(
        lambda: all(n.statistics().node.links == len(n.neighbours) == len(others) for n in nodes)
    )
    return entry


async def test_one_peer_that_does_not_read_holds_nobody_and_is_dropped() -> None:
    hub = MemoryHub()
    leaves = [in_memory(hub) for _ in range(3)]
    centre = await mesh(hub, leaves)
    try:
        silent, *others = leaves
        stop_reading(silent)
        readers = [node.messages() for node in others]
        body = bytes(1000)
        async with asyncio.timeout(DEADLINE_S):
            for _ in range(1000):
                await centre.broadcast(body)
            for reader in readers:
                for _ in range(1000):
                    await anext(reader)
        # It may have come back since: its new pipes are not paused.
        await until(lambda: centre.statistics().node.ended.get("slow", 0) >= 1)
    finally:
        for node in (*leaves, centre):
            await node.stop()


async def test_a_peer_that_never_reads_again_is_dropped_in_time() -> None:
    hub = MemoryHub()
    leaf = in_memory(hub)
    centre = await mesh(hub, [leaf])
    try:
        stop_reading(leaf)
        events = centre.events()
        # More than the high mark, less than the bound: only time can end it.
        sending = asyncio.create_task(centre.send(leaf.id, bytes(200_000)))
        async with asyncio.timeout(DEADLINE_S):
            async for event in events:
                if isinstance(event, meshwalk.NeighbourDown):
                    assert "slow" in event.reason
                    assert event.by_us
                    break
            await sending  # a writer that waits is let go when the link is
    finally:
        await leaf.stop()
        await centre.stop()


async def test_a_writer_waits_for_its_only_reader() -> None:
    hub = MemoryHub()
    leaf = in_memory(hub)
    centre = await mesh(hub, [leaf])
    try:
        reader = leaf.messages()
        stop_reading(leaf)
        sent = 0

        async def write() -> None:
            nonlocal sent
            for _ in range(300):
                await centre.broadcast(bytes(1000))
                sent += 1

        writer = asyncio.create_task(write())
        await until(lambda: driver_of(centre).connections != {} and sent > 0)
        for _ in range(50):
            await asyncio.sleep(0)
        assert sent < 300, "250 KB more than the mark were written to a peer that does not read"
        for pipe in pipes_of(leaf):
            pipe.resume_reading()
        async with asyncio.timeout(DEADLINE_S):
            await writer
            for _ in range(300):
                await anext(reader)
        assert centre.neighbours == [leaf.id]
    finally:
        await leaf.stop()
        await centre.stop()


async def test_what_one_turn_sends_is_joined_into_few_writes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hub = MemoryHub()
    leaf = in_memory(hub)
    centre = await mesh(hub, [leaf])
    try:
        reader = leaf.messages()
        (pipe,) = pipes_of(centre)
        writes: list[int] = []
        write = pipe.write

        def counted(data: bytes | bytearray) -> None:
            writes.append(len(data))
            write(data)

        monkeypatch.setattr(pipe, "write", counted)
        for number in range(100):
            await centre.send(leaf.id, number)
        for number in range(100):
            assert (await anext(reader)).body == number
        assert len(writes) <= 3
    finally:
        await leaf.stop()
        await centre.stop()


async def test_bytes_that_are_no_frame_end_that_link_only() -> None:
    hub = MemoryHub()
    leaves = [in_memory(hub), in_memory(hub)]
    centre = await mesh(hub, leaves)
    try:
        bad, good = leaves
        link = driver_of(bad).core.link_of(centre.id)
        assert link is not None
        driver_of(bad).connections[link.number].pipe.write(b"\xff\xff\xff\xff")
        await until(lambda: centre.statistics().node.ended.get("malformed") == 1)
        assert good.id in centre.neighbours
        with pytest.raises(meshwalk.Refused):
            await centre.request(good.id, type="still there?")
    finally:
        for node in (*leaves, centre):
            await node.stop()


async def test_stopping_ends_what_waits() -> None:
    hub = MemoryHub()
    leaf = in_memory(hub)
    centre = await mesh(hub, [leaf])

    @leaf.on("never")
    async def never(request: meshwalk.Request) -> None:
        await asyncio.Event().wait()

    asked = asyncio.create_task(centre.request(leaf.id, type="never"))
    await until(lambda: leaf.statistics().node.requests_served == 1)
    await centre.stop()
    with pytest.raises(meshwalk.Closed):
        await asked
    await leaf.stop()
    assert [t for t in asyncio.all_tasks() if t is not asyncio.current_task()] == []


async def test_a_peer_that_reads_slowly_but_steadily_keeps_its_link() -> None:
    hub = MemoryHub()
    leaf = in_memory(hub)
    centre = await mesh(hub, [leaf])
    try:
        (pipe,) = pipes_of(centre)
        (connection,) = driver_of(centre).connections.values()
        stop_reading(leaf)
        await centre.send(leaf.id, bytes(300_000))
        link = driver_of(centre).core.link_of(leaf.id)
        assert link is not None
        await until(lambda: link.stalled_at is not None)
        began_at = link.stalled_at
        assert began_at is not None
        connection.written += 1  # as if one byte of what waits had been taken
        assert connection.is_congested()
        assert link.stalled_at is not None
        assert link.stalled_at > began_at, "the time that it may take nothing begins anew"
        assert pipe.unsent_bytes > SMALL_BUFFERS.link.send_buffer_high_bytes
    finally:
        await leaf.stop()
        await centre.stop()


class Silent:
    """A pipe that never tells of its buffer, and says that so much waits."""

    def __init__(self, pipe: MemoryPipe, unsent_bytes: int) -> None:
        self._pipe = pipe
        self.unsent_bytes = unsent_bytes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pipe, name)


@pytest.mark.parametrize("how", ["for a turn", "for long", "to the byte"])
async def test_a_pipe_that_was_full_and_told_nobody_is_looked_at_again(how: str) -> None:
    hub = MemoryHub()
    leaf = in_memory(hub)
    centre = await mesh(hub, [leaf])
    heard = 0

    @leaf.on("sink")
    async def sink(conversation: meshwalk.Conversation) -> None:
        nonlocal heard
        async for _ in conversation:
            heard += 1

    async def write() -> None:
        for _ in range(20):
            await conversation.send(bytes(20_000))

    try:
        (connection,) = driver_of(centre).connections.values()
        conversation = centre.open(leaf.id, "sink")
        await conversation.send("begin")
        await until(lambda: heard == 1)
        high = SMALL_BUFFERS.link.send_buffer_high_bytes
        silent = Silent(pipes_of(centre)[0], high if how == "to the byte" else high + 1)
        connection.pipe = cast("Any", silent)
        writer = asyncio.create_task(write())
        if how != "to the byte":
            while connection._look is None:
                await asyncio.sleep(0)
            if how == "for long":
                await until(lambda: isinstance(connection._look, asyncio.TimerHandle))
            assert heard < 20
            silent.unsent_bytes = 0
        await writer
        await until(lambda: heard == 21)
        silent.unsent_bytes = high + 1
        writer = asyncio.create_task(write())
        await until(lambda: connection._look is not None)
        connection.pipe.abort()
        await until(lambda: connection.link not in driver_of(centre).connections)
        assert connection._look is None, "nobody looks at a pipe that is gone"
        writer.cancel()
    finally:
        await leaf.stop()
        await centre.stop()
