"""Six eventful minutes, written down line by line: the same in every process, or a test fails.

As a program it prints the story of the seed in its argument.
"""

from __future__ import annotations

import asyncio
import sys

from meshwalk import Node, NotRunning
from meshwalk.testing import World, simulate


async def story(world: World) -> list[str]:
    """Six nodes that talk at random times while things go wrong."""
    lines: list[str] = []

    async def listen(name: str, node: Node) -> None:
        async for message in node.messages():
            line = f"{world.now!r} {name} {message.origin} {message.body}"
            lines.append(line)

    async def watch(name: str, node: Node) -> None:
        async for event in node.events():
            line = f"{world.now!r} {name} {event!r}"
            lines.append(line)

    async def talk(name: str, node: Node) -> None:
        try:
            while True:
                await asyncio.sleep(world.random.uniform(1, 30))
                await node.broadcast({"from": name, "at": world.now})
        except NotRunning:
            lines.append(f"{world.now!r} {name} has stopped")

    async with asyncio.TaskGroup() as group:
        tasks = set()
        for name in ("anna", "bert", "carl", "dora", "emil", "fred"):
            node = await world.start(name, join="anna" if world.nodes else None)
            lines.append(f"{name} {node.id}")
            tasks |= {group.create_task(each(name, node)) for each in (listen, watch, talk)}
        await world.sleep(90)
        world.partition(["anna", "bert"], ["carl", "dora"])
        world.set_loss(0.1)
        await world.sleep(90)
        world.heal()
        world.pause("emil")
        world.crash("fred", silently=True)
        await world.sleep(90)
        world.resume("emil")
        await world.restart("fred")
        await world.sleep(90)
        for task in tasks:
            task.cancel()
    return lines


if __name__ == "__main__":
    print("\n".join(simulate(story, seed=int(sys.argv[1]))))
