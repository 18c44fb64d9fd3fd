"""meshwalk as a member of a network that broadcast.py measures: a `Node`, by its public API."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import msgspec
from member import Counting, Ticking, cost, said, stamped

import meshwalk
from meshwalk.config import BroadcastConfig, Config, Spreading
from meshwalk.events import MessagesMissed, NeighbourDown


class Member:
    """One node, and what it has counted."""

    def __init__(self, node: meshwalk.Node) -> None:
        self.node = node
        self.counting = Counting()
        self.ticking = Ticking()
        self.missed = 0
        self.partings: list[str] = []
        self._watching: asyncio.Task[None] | None = None

    async def read_messages(self, messages: Any) -> None:
        received = self.counting.received
        async for message in messages:
            received(message.body)

    async def read_events(self, events: Any) -> None:
        async for event in events:
            if isinstance(event, NeighbourDown):
                self.partings.append(str(event))
            elif isinstance(event, MessagesMissed):
                self.missed += event.count

    async def obey(self, order: dict[str, Any]) -> dict[str, Any]:
        what = order["do"]
        if what == "join":
            await self.node.join(order["address"])
            return {}
        if what == "send":
            return await self.send(order["run"], order["seconds"], order["size"], order["rate"])
        if what == "count":
            run = self.counting.runs.get(order["run"])
            return {"count": run.count if run is not None else 0}
        if what == "tick":
            self._watching = asyncio.get_running_loop().create_task(self.ticking.watch())
            return {}
        return self.report(order["run"])

    def report(self, run: int) -> dict[str, Any]:
        statistics = self.node.statistics()
        counts = msgspec.to_builtins(statistics.node, str_keys=True)
        return {
            "cost": cost(),
            "run": self.counting.told(run),
            "links": len(self.node.neighbours),
            "missed": self.missed,
            "dropped": statistics.messages_dropped,
            "broadcast": counts["broadcast"],
            "trust": counts["trust"],
            "ended": counts["ended"],
            "waiting": {
                name: counts[f"broadcasts_{name}"]
                for name in ("held", "kept", "missing", "waiting")
            },
            "branches": counts["branches"],
            "own_trees": counts["own_trees"],
            "partings": self.partings[-5:],
            "late_ms": self.ticking.told(),
        }

    async def send(self, run: int, seconds: float, size: int, rate: float) -> dict[str, Any]:
        """Send for so long; `rate` 0: as fast as it goes."""
        padding = bytes(size - 16)
        broadcast = self.node.broadcast
        began = time.monotonic()
        number = 0
        while (now := time.monotonic()) < began + seconds:
            if rate and (ahead_s := began + number / rate - now) > 0:
                await asyncio.sleep(ahead_s)
            await broadcast(stamped(run, number, padding))
            number += 1
        return {
            "sent": number,
            "seconds": time.monotonic() - began,
            "ended_ns": time.monotonic_ns(),
        }


async def main(spreading: Spreading) -> None:
    config = Config(broadcast=BroadcastConfig(spreading=spreading))
    node = meshwalk.Node(listen="127.0.0.1:0", config=config)
    messages, events = node.messages(), node.events()
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async with node:
        member = Member(node)
        tasks = [
            loop.create_task(member.read_messages(messages)),
            loop.create_task(member.read_events(events)),
        ]
        sys.stdout.buffer.write(node.address.host_and_port.encode() + b"\n")
        sys.stdout.buffer.flush()
        while line := await reader.readline():
            sys.stdout.buffer.write(said(await member.obey(json.loads(line))))
            sys.stdout.buffer.flush()
        for task in tasks:
            task.cancel()


if __name__ == "__main__":
    meshwalk.run(main(Spreading(sys.argv[1])))
