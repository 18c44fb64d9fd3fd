"""meshwalk through its public API: requests, direct messages, conversations, standing links.

Bulk goes through one conversation, and each of the streams is a conversation with a handler.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from stack import COUNTED, SETTLE_S, WARM_UP, Load, Opened, Row, Server, resident_bytes, run, timed

import meshwalk
from meshwalk.config import Config, ConnectionConfig, OverlayConfig

SUBSCRIPTION = 2_000_000  # the reader must hold a burst: this measures the path, not its policy
BULK_FROM = 10_000  # larger messages are bulk
AT_ONCE = 64  # conversations being opened, as the other stacks do
HOST = "127.0.0.1:0"


def many(links: int) -> Config:
    """For the node that all link to: below its minimum it accepts every walk."""
    return Config(
        connections=ConnectionConfig(total_max=1000, accepts_burst=1000),
        overlay=OverlayConfig(links_min=links, links_max=links + 10),
    )


ONE = Config(overlay=OverlayConfig(links_min=1, links_max=3))


class Meshwalk:
    """meshwalk as a `Stack`."""

    def serve(self, row: Row, load: Load) -> None:
        config = many(WARM_UP + load.count) if row is Row.IDLE else None
        meshwalk.run(serve(config, load.count if row in COUNTED else 0))

    def round_trips(self, address: str, load: Load) -> list[float]:
        async def main() -> list[float]:
            async with meshwalk.Node(listen=HOST) as node:
                await node.join(address)
                (peer,) = node.neighbours
                body = bytes(load.size)

                async def once() -> None:
                    await node.request(peer, body, "echo")

                return await timed(once, load.count)

        return meshwalk.run(main())

    def one_way(self, address: str, load: Load) -> float:
        async def main() -> float:
            async with meshwalk.Node(listen=HOST) as node:
                await node.join(address)
                (peer,) = node.neighbours
                answers = node.messages()
                body = bytes(load.size)
                start = time.perf_counter()
                if load.size > BULK_FROM:
                    async with node.open(peer, "sink") as conversation:
                        for _ in range(load.count):
                            await conversation.send(body)
                        await conversation.receive()
                else:
                    for _ in range(load.count):
                        await node.send(peer, body)
                    await anext(answers)
                return load.count / (time.perf_counter() - start)

        return meshwalk.run(main())

    def streams(self, server: Server, load: Load) -> Opened | None:
        async def main() -> Opened:
            async with meshwalk.Node(listen=HOST) as node:
                await node.join(server.address)
                (peer,) = node.neighbours
                kept, _ = await opened(node, peer, Load(load.size, WARM_UP))
                await asyncio.sleep(SETTLE_S)
                here, there = resident_bytes(), server.resident_bytes()
                rest = Load(load.size, load.count - WARM_UP)
                more, seconds = await opened(node, peer, rest)
                kept += more
                await asyncio.sleep(SETTLE_S)
                here, there = resident_bytes() - here, server.resident_bytes() - there
                return Opened(len(kept), seconds, here / len(more), there / len(more))

        return meshwalk.run(main())

    def idle(self, server: Server, load: Load) -> float | None:
        async def main() -> float:
            nodes = []
            sizes = []
            for count in (WARM_UP, load.count):
                for _ in range(count):
                    node = meshwalk.Node(listen=HOST, config=ONE)
                    nodes.append(await node.start())
                    await node.join(server.address)
                    for peer in node.neighbours:
                        await node.request(peer, bytes(load.size), "echo")
                await asyncio.sleep(SETTLE_S)
                sizes.append(server.resident_bytes())
            return (sizes[1] - sizes[0]) / load.count

        return meshwalk.run(main())


async def opened(
    node: meshwalk.Node, peer: meshwalk.PeerId, load: Load
) -> tuple[list[meshwalk.Conversation], float]:
    """Open conversations and exchange a message on each, some at a time."""
    body = bytes(load.size)
    kept: list[meshwalk.Conversation] = []
    start = time.perf_counter()

    async def one() -> None:
        conversation = node.open(peer, "stream")
        await conversation.send(body)
        await conversation.receive()
        kept.append(conversation)

    for done in range(0, load.count, AT_ONCE):
        await asyncio.gather(*(one() for _ in range(min(AT_ONCE, load.count - done))))
    return kept, time.perf_counter() - start


async def serve(config: Config | None, expected: int) -> None:
    async with meshwalk.Node(listen=HOST, config=config) as node:

        @node.on("echo")
        def echo(request: meshwalk.Request) -> Any:
            return request.body

        @node.on("stream")
        async def stream(conversation: meshwalk.Conversation) -> None:
            async for message in conversation:
                await conversation.send(message.body)

        @node.on("sink")
        async def sink(conversation: meshwalk.Conversation) -> None:
            count = 0
            async for _ in conversation:
                count += 1
                if count == expected:
                    await conversation.send(b"done")

        print(node.address.host_and_port, flush=True)
        count = 0
        async for message in node.messages(SUBSCRIPTION):
            count += 1
            if count % max(1, expected) == 0:
                await node.send(message.origin, b"done")


if __name__ == "__main__":
    run(Meshwalk(), __file__)
