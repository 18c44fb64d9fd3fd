"""One link: requests, small messages and bulk, each beside bare TLS on uvloop in the same run.

    python benchmarks/link.py [--json] [--rounds 3]

Two processes on loopback. The bare side is a `BufferedProtocol` with meshwalk's certificates that
does nothing but move bytes: it echoes 100, or counts what arrives; small messages are one write
each, which is what a program without a library would do. Each figure is the median of the rounds;
bare and meshwalk take turns, so that a slow moment hits both. The round trip is measured with both
processes free to use any core, and with both held on one, where no time goes into waking the other
core and the code alone is compared.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import uvloop

import meshwalk
from meshwalk.identity.keys import KeyPair
from meshwalk.identity.network import Network
from meshwalk.net.tls import TlsContexts

SMALL_BYTES = 100
BULK_BYTES = 64 << 10
REQUESTS = 5_000
SMALL_MESSAGES = 300_000
BULK_MESSAGES = 4_000
SUBSCRIPTION = 2_000_000  # the reader must hold a burst: this measures the path, not its policy


class Bare(asyncio.BufferedProtocol):
    """Bare TLS: echoes while told to, else counts bytes until it has as many as expected."""

    def __init__(self) -> None:
        self.buffer = bytearray(256 << 10)
        self.transport: asyncio.Transport | None = None
        self.expected = 0
        self.left = 0
        self.done: asyncio.Future[None] | None = None
        self.room = asyncio.Event()
        self.room.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self.transport = transport  # type: ignore[assignment]

    def get_buffer(self, sizehint: int) -> bytearray:
        return self.buffer

    def pause_writing(self) -> None:
        self.room.clear()

    def resume_writing(self) -> None:
        self.room.set()

    def buffer_updated(self, nbytes: int) -> None:
        assert self.transport is not None
        if self.expected == 0:
            self.transport.write(bytes(memoryview(self.buffer)[:nbytes]))
            return
        self.left -= nbytes
        if self.left <= 0:
            self.left += self.expected
            self.transport.write(b"done")

    async def answer(self) -> None:
        self.done = asyncio.get_running_loop().create_future()
        await self.done


class BareClient(Bare):
    """The other end: waits for the next bytes."""

    def buffer_updated(self, nbytes: int) -> None:
        if self.done is not None and not self.done.done():
            self.done.set_result(None)


async def serve_bare(expected: int) -> None:
    contexts = TlsContexts(KeyPair.generate(), Network())

    def protocol() -> Bare:
        bare = Bare()
        bare.expected = bare.left = expected
        return bare

    loop = asyncio.get_running_loop()
    server = await loop.create_server(protocol, "127.0.0.1", 0, ssl=contexts.server)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.Event().wait()


async def serve_meshwalk(expected: int) -> None:
    async with meshwalk.Node(listen="127.0.0.1:0") as node:

        @node.on("echo")
        def echo(request: meshwalk.Request) -> Any:
            return request.body

        print(node.address.port, flush=True)
        count = 0
        async for message in node.messages(SUBSCRIPTION):
            count += 1
            if count % max(1, expected) == 0:
                await node.send(message.origin, b"done")


async def bare_client(port: int) -> BareClient:
    contexts = TlsContexts(KeyPair.generate(), Network())
    client = BareClient()
    await asyncio.get_running_loop().create_connection(
        lambda: client, "127.0.0.1", port, ssl=contexts.client, server_hostname=""
    )
    return client


# What is measured; each gives a value per round.


async def bare_round_trips(port: int) -> list[float]:
    client = await bare_client(port)
    assert client.transport is not None
    body = bytes(SMALL_BYTES)

    async def once() -> None:
        assert client.transport is not None
        client.transport.write(body)
        await client.answer()

    return await timed(once)


async def meshwalk_round_trips(port: int) -> list[float]:
    async with meshwalk.Node(listen="127.0.0.1:0") as node:
        await node.join(f"127.0.0.1:{port}")
        (peer,) = node.neighbours
        body = bytes(SMALL_BYTES)

        async def once() -> None:
            await node.request(peer, body, "echo")

        return await timed(once)


async def timed(once: Callable[[], Awaitable[None]]) -> list[float]:
    for _ in range(REQUESTS // 10):
        await once()
    times = []
    for _ in range(REQUESTS):
        start = time.perf_counter()
        await once()
        times.append(time.perf_counter() - start)
    times.sort()
    return [times[len(times) // 2] * 1e6, times[len(times) * 99 // 100] * 1e6]


async def bare_one_way(port: int, size: int, count: int) -> float:
    client = await bare_client(port)
    assert client.transport is not None
    data = bytes(size)
    start = time.perf_counter()
    for _ in range(count):
        client.transport.write(data)
        if not client.room.is_set():
            await client.room.wait()
    await client.answer()
    return count / (time.perf_counter() - start)


async def meshwalk_one_way(port: int, size: int, count: int) -> float:
    async with meshwalk.Node(listen="127.0.0.1:0") as node:
        await node.join(f"127.0.0.1:{port}")
        (peer,) = node.neighbours
        answers = node.messages()
        body = bytes(size)
        start = time.perf_counter()
        for _ in range(count):
            await node.send(peer, body)
        await anext(answers)
        return count / (time.perf_counter() - start)


def measured(
    what: str,
    expected: int,
    client: Callable[[int], Awaitable[Any]],
    core: int,
    file: str = __file__,
) -> Any:
    """Run a server of this kind, which `file` has, in a process and a client against it here."""
    if core >= 0:
        os.sched_setaffinity(0, {core})
    server = subprocess.Popen(
        [sys.executable, file, "--serve", what, str(expected)], stdout=subprocess.PIPE
    )
    try:
        assert server.stdout is not None
        port = int(server.stdout.readline())

        async def run() -> Any:
            async with asyncio.timeout(120):
                return await client(port)

        return uvloop.run(run())
    finally:
        server.kill()
        server.wait()
        os.sched_setaffinity(0, range(os.cpu_count() or 1))


def compare(rounds: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for name, core in (("round trip", -1), ("round trip, one core", 0)):
        bare, ours = [], []
        for _ in range(rounds):
            bare.append(measured("bare", 0, bare_round_trips, core))
            ours.append(measured("meshwalk", 0, meshwalk_round_trips, core))
        for index, percentile in enumerate(("p50", "p99")):
            rows.append(row(f"{name} {percentile}", "µs", column(bare, index), column(ours, index)))
    for name, size, count, unit, scale in (
        (f"one way, {SMALL_BYTES} B", SMALL_BYTES, SMALL_MESSAGES, "msg/s", 1.0),
        (f"bulk, {BULK_BYTES >> 10} KiB", BULK_BYTES, BULK_MESSAGES, "MB/s", BULK_BYTES / 1e6),
    ):
        bare, ours = [], []
        for _ in range(rounds):
            bare.append(measured("bare", size * count, one_way(bare_one_way, size, count), -1))
            ours.append(measured("meshwalk", count, one_way(meshwalk_one_way, size, count), -1))
        rows.append(
            row(name, unit, statistics.median(bare) * scale, statistics.median(ours) * scale)
        )
    return rows


def one_way(
    client: Callable[[int, int, int], Awaitable[float]], size: int, count: int
) -> Callable[[int], Awaitable[float]]:
    return lambda port: client(port, size, count)


def column(rounds: list[list[float]], index: int) -> float:
    return statistics.median(values[index] for values in rounds)


def row(name: str, unit: str, bare: float, ours: float) -> dict[str, Any]:
    return {"work": name, "unit": unit, "bare": bare, "meshwalk": ours, "ratio": ours / bare}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        what, expected = arguments.serve
        uvloop.run((serve_bare if what == "bare" else serve_meshwalk)(int(expected)))
        return
    rows = compare(arguments.rounds)
    if arguments.json:
        print(json.dumps(rows, indent=2))
        return
    print(f"{'work':28} {'bare TLS':>12} {'meshwalk':>12} {'ratio':>7}")
    for r in rows:
        figures = f"{r['bare']:>12,.0f} {r['meshwalk']:>12,.0f} {r['ratio']:>7.2f}"
        print(f"{r['work']:28} {figures}  {r['unit']}")


if __name__ == "__main__":
    main()
