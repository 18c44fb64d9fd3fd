"""Conversations: one way, bulk, ten thousand at once, and a reader that is slow.

    python benchmarks/conversations.py [--json] [--rounds 3]

Two processes on loopback, as in link.py, whose bare TLS stands beside the first two rows. Of a slow
reader: one conversation whose reader takes a hundredth of what it could, while another on the same
link is written at full speed. What is shown is the speed of the other beside its speed alone in the
same run, how much the sender of the slow one had got rid of, and what both processes grew by.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from typing import Any

from link import (
    BULK_BYTES,
    BULK_MESSAGES,
    SMALL_BYTES,
    SMALL_MESSAGES,
    bare_one_way,
    measured,
    one_way,
    row,
    serve_bare,
)
from memory import resident_bytes

import meshwalk

HOST = "127.0.0.1:0"
MANY = 10_000
AT_ONCE = 64
WARM_UP = 200
SETTLE_S = 3.0  # what is told lazily is told, and buffers are let go
SLOW_SHARE = 0.01
SLOW_FOR_S = 1.5
SLOW_ROUNDS = 5
SLOW_STEP = 20
HEAD_START_S = 1.0  # of the slow one's writer, whose reader reads from the beginning


async def serve() -> None:
    read_slowly = 0
    async with meshwalk.Node(listen=HOST) as node:

        @node.on("sink")
        async def sink(conversation: meshwalk.Conversation) -> None:
            count = 0
            async for _ in conversation:
                count += 1
            await conversation.send(count)

        @node.on("slow")
        async def slow(conversation: meshwalk.Conversation) -> None:
            """Reads so many messages a second as it was opened with."""
            nonlocal read_slowly
            async for _ in conversation:
                read_slowly += 1
                if read_slowly % SLOW_STEP == 0:  # uvloop's clock knows no parts of milliseconds
                    await asyncio.sleep(SLOW_STEP / conversation.body)

        @node.on("read slowly")
        def how_many(request: meshwalk.Request) -> int:
            return read_slowly

        @node.on("echo")
        async def echo(conversation: meshwalk.Conversation) -> None:
            async for message in conversation:
                await conversation.send(message.body)

        kept: list[meshwalk.Conversation] = []

        @node.on("kept")
        def keep(conversation: meshwalk.Conversation) -> None:
            kept.append(conversation)  # no task: a program that has its own machines for them

        @node.on("resident")
        def resident(request: meshwalk.Request) -> int:
            return resident_bytes()

        print(node.address.port, flush=True)
        await asyncio.Event().wait()


async def conversation_one_way(port: int, size: int, count: int) -> float:
    async with meshwalk.Node(listen=HOST) as node:
        await node.join(f"127.0.0.1:{port}")
        (peer,) = node.neighbours
        body = bytes(size)
        start = time.perf_counter()
        conversation = node.open(peer, "sink")
        for _ in range(count):
            await conversation.send(body)
        conversation.end()
        assert (await conversation.receive()).body == count
        return count / (time.perf_counter() - start)


async def many(port: int) -> dict[str, float]:
    """Time to open them with a message each way, and what each costs at either end."""
    async with meshwalk.Node(listen=HOST) as node:
        await node.join(f"127.0.0.1:{port}")
        (peer,) = node.neighbours
        open_now: list[meshwalk.Conversation] = []

        async def one(type: str) -> None:
            conversation = node.open(peer, type)
            open_now.append(conversation)
            if type == "echo":
                await conversation.send(b"1234567890")
                await conversation.receive()

        async def opened(type: str, count: int) -> tuple[float, int, int]:
            start = time.perf_counter()
            for _ in range(count // AT_ONCE):
                await asyncio.gather(*(one(type) for _ in range(AT_ONCE)))
            seconds = time.perf_counter() - start
            await asyncio.sleep(SETTLE_S)
            return seconds, resident_bytes(), await node.request(peer, type="resident")

        figures: dict[str, float] = {}
        for type in ("kept", "echo"):
            _, here, there = await opened(type, WARM_UP)
            seconds, here_after, there_after = await opened(type, MANY)
            count = MANY // AT_ONCE * AT_ONCE
            figures[f"{type}, opened a second"] = count / seconds
            figures[f"{type}, KiB at who opens"] = (here_after - here) / count / 1024
            figures[f"{type}, KiB at who accepts"] = (there_after - there) / count / 1024
        return figures


async def slow_reader(port: int) -> dict[str, float]:
    async with meshwalk.Node(listen=HOST) as node:
        await node.join(f"127.0.0.1:{port}")
        (peer,) = node.neighbours
        body = bytes(SMALL_BYTES * 10)

        async def written(seconds: float) -> float:
            conversation, count, start = node.open(peer, "sink"), 0, time.perf_counter()
            while time.perf_counter() < start + seconds:
                for _ in range(100):
                    await conversation.send(body)
                count += 100
            conversation.end()
            await conversation.receive()
            return count / (time.perf_counter() - start)

        await written(1.0)
        alone: list[float] = []
        beside: list[float] = []
        slowly: list[float] = []
        ahead = 0.0
        here, there = resident_bytes(), await node.request(peer, type="resident")
        for _ in range(SLOW_ROUNDS):  # in turns, so that a slow moment of the machine hits both
            alone.append(await written(SLOW_FOR_S))
            writer = Writer(node.open(peer, "slow", alone[-1] * SLOW_SHARE), body)
            before = await node.request(peer, type="read slowly")
            start = time.perf_counter()
            beside.append(await written(SLOW_FOR_S))
            slowly.append(writer.sent / (time.perf_counter() - start))
            read = await node.request(peer, type="read slowly") - before
            ahead = max(ahead, (writer.sent - read) * len(body) / 1024)
            writer.stop()
        grown = resident_bytes() - here, await node.request(peer, type="resident") - there
        ratios = [b / a for a, b in zip(alone, beside, strict=True)]
        return {
            "the other alone, messages a second": statistics.median(alone),
            "the other beside it, of that": statistics.median(ratios),
            "the slow one's writer, of the other's speed": statistics.median(slowly)
            / statistics.median(alone),
            "written ahead of the slow reader, KiB": ahead,
            "grown, who writes, MiB": grown[0] / 2**20,
            "grown, who reads, MiB": grown[1] / 2**20,
        }


class Writer:
    """Writes into a conversation as fast as it is let."""

    def __init__(self, conversation: meshwalk.Conversation, body: bytes) -> None:
        self.sent = 0
        self._conversation = conversation
        self._task = asyncio.create_task(self._write(body))

    async def _write(self, body: bytes) -> None:
        while True:
            await self._conversation.send(body)
            self.sent += 1

    def stop(self) -> None:
        self._task.cancel()
        self._conversation.cancel()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        what, expected = arguments.serve
        meshwalk.run(serve_bare(int(expected)) if what == "bare" else serve())
        return
    rows: list[dict[str, Any]] = []
    for name, size, count, unit, scale in (
        (f"one way, {SMALL_BYTES} B", SMALL_BYTES, SMALL_MESSAGES, "msg/s", 1.0),
        (f"bulk, {BULK_BYTES >> 10} KiB", BULK_BYTES, BULK_MESSAGES, "MB/s", BULK_BYTES / 1e6),
    ):
        bare, ours = [], []
        for _ in range(arguments.rounds):
            client = one_way(bare_one_way, size, count)
            bare.append(measured("bare", size * count, client, -1, __file__))
            client = one_way(conversation_one_way, size, count)
            ours.append(measured("meshwalk", count, client, -1, __file__))
        medians = statistics.median(bare) * scale, statistics.median(ours) * scale
        rows.append(row(name, unit, *medians))
    figures = {
        f"{MANY:,} at once": measured("meshwalk", 0, many, -1, __file__),
        "a slow reader": measured("meshwalk", 0, slow_reader, -1, __file__),
    }
    if arguments.json:
        print(json.dumps({"rows": rows, **figures}, indent=2))
        return
    print(f"{'in one conversation':28} {'bare TLS':>12} {'meshwalk':>12} {'ratio':>7}")
    for r in rows:
        shown = f"{r['bare']:>12,.0f} {r['meshwalk']:>12,.0f} {r['ratio']:>7.2f}"
        print(f"{r['work']:28} {shown}  {r['unit']}")
    for name, values in figures.items():
        print(f"\n{name}")
        for what, value in values.items():
            print(f"  {what:45} {value:>12,.2f}")


if __name__ == "__main__":
    main()
