"""Fifty nodes in one process over real loopback TCP, all joining through one."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from random import Random

import pytest

from meshwalk import Delivery, Node, Subscription
from meshwalk.cli.swarm_views import components, degrees, mutual_links

NODES = 50
SETTLE_S = 30.0  # design: 10 s on a quiet machine
LOOK_S = 0.02

Reported = dict[int, set[int]]


@asynccontextmanager
async def fifty() -> AsyncIterator[list[Node]]:
    async with AsyncExitStack() as stack:
        nodes = [Node(network="fifty", listen="127.0.0.1:0") for _ in range(NODES)]
        for node in nodes:
            await stack.enter_async_context(node)
        yield nodes


def reported(nodes: list[Node]) -> Reported:
    index_of = {node.id: index for index, node in enumerate(nodes)}
    return {
        index: {index_of[peer] for peer in node.neighbours if peer in index_of}
        for index, node in enumerate(nodes)
    }


def is_settled(nodes: list[Node]) -> bool:
    now = reported(nodes)
    links = mutual_links(now, now)
    wanted = nodes[0].config.overlay.links_min
    enough = min(degrees(links, now).values()) >= wanted
    return enough and len(components(links, now)) == 1


async def until(condition: Callable[[], bool], timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(LOOK_S)
    return True


@pytest.mark.parametrize("gap_s", [0.05, 0.0], ids=["50 ms apart", "at once"])
async def test_fifty_nodes_join_through_one(gap_s: float) -> None:
    async with fifty() as nodes:
        entry, limit = nodes[0], nodes[0].config.overlay.links_max
        began_at = time.monotonic()
        async with asyncio.TaskGroup() as joins:
            for node in nodes[1:]:
                joins.create_task(node.join(str(entry.address)))
                await asyncio.sleep(gap_s)
        # No join is lost: each has returned, and none by an error.
        held = await until(lambda: is_settled(nodes), SETTLE_S)
        now = reported(nodes)
        count = degrees(mutual_links(now, now), now)
        print(f"\n50 nodes, {gap_s} s apart: {time.monotonic() - began_at:.2f} s, {count}")
        assert held
        assert max(count.values()) <= limit
        await everyone_hears_once(nodes)
        await entry.stop()
        left = reported(nodes[1:])
        assert len(components(mutual_links(left, left), left)) == 1


async def everyone_hears_once(nodes: list[Node]) -> None:
    rng, heard = Random(1), [Counter[tuple[bytes, int]]() for _ in nodes]

    async def count(messages: Subscription[Delivery], counter: Counter[tuple[bytes, int]]) -> None:
        async for message in messages:
            counter[message.origin, message.sequence] += 1

    subscriptions = [node.messages() for node in nodes]
    readers = [
        asyncio.create_task(count(messages, counter))
        for messages, counter in zip(subscriptions, heard, strict=True)
    ]
    sent: list[tuple[bytes, int]] = []
    for number in range(100):
        node = rng.choice(nodes)
        sent.append((node.id, await node.broadcast(f"message {number}")))

    def wanted(node: Node) -> Counter[tuple[bytes, int]]:
        return Counter(key for key in sent if key[0] != node.id)

    await until(lambda: all(sum(c.values()) >= 100 - 20 for c in heard), SETTLE_S)
    complete = await until(
        lambda: all(c == wanted(n) for n, c in zip(nodes, heard, strict=True)), SETTLE_S
    )
    for messages in subscriptions:
        messages.close()
    await asyncio.gather(*readers)
    missed = [wanted(n) - c for n, c in zip(nodes, heard, strict=True)]
    twice = [c - wanted(n) for n, c in zip(nodes, heard, strict=True)]
    assert complete, (missed, twice)
