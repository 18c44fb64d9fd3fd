"""Two nodes that talk, for the tests of conversations."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from meshwalk import Conversation, Node, PeerId

DEADLINE_S = 20
SEVERAL_PARTS = bytes(range(256)) * 2048  # half a MiB


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def two_nodes(**options: Any) -> AsyncIterator[tuple[Node, Node]]:
    """Two neighbours."""
    async with (
        Node(listen="127.0.0.1:0", **options) as one,
        Node(listen="127.0.0.1:0", **options) as two,
    ):
        await one.join(two.address)
        await until(lambda: two.id in one.neighbours and one.id in two.neighbours)
        async with asyncio.timeout(DEADLINE_S):
            yield one, two


def cut(node: Node, peer: PeerId) -> None:
    """End every connection to a peer at once, as a broken path does."""
    driver = node._driver
    assert driver is not None
    for connection in list(driver.connections.values()):
        if connection.pipe.peer == peer:
            connection.pipe.abort()


def is_clean(node: Node) -> bool:
    """Whether nothing of any conversation or request is left."""
    statistics = node.statistics().node
    driver = node._driver
    assert driver is not None
    shared = [
        credit.used
        for party in driver.core.dispatch.parties.values()
        for credit in (party.shared_in, party.shared_out)
    ]
    return not (
        statistics.conversations_open
        or statistics.requests_waiting
        or statistics.requests_served
        or any(shared)
    )


async def echo(conversation: Conversation) -> None:
    """What most of the tests talk with."""
    async for message in conversation:
        if message.wants_reply:
            await conversation.reply(message, message.body)
        else:
            await conversation.send(message.body)
