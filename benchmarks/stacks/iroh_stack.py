"""iroh's Python wheel: QUIC streams between endpoints on loopback, without relays or discovery.

On uvloop, which the wheel's futures take well (350 µs a round trip against 440 on stock asyncio).
A message is one `write_all` of a stream; the receiver counts bytes, with no framing of its own.
"""

# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Coroutine
from typing import Any

import iroh
import uvloop
from stack import (
    COUNTED,
    LOADS,
    OPEN_PATIENCE_S,
    OPENERS,
    READ_BYTES,
    SETTLE_S,
    WARM_UP,
    Load,
    Opened,
    Row,
    Server,
    resident_bytes,
    run,
    timed,
)

ALPN = b"benchmark"
STREAMS_MAX = 2 * LOADS[Row.STREAMS].count  # allowed on a connection; iroh's own default is 100
SHARES = {Row.MESSAGES: 0.1, Row.BULK: 0.1}


class Iroh:
    """iroh as a `Stack`."""

    def serve(self, row: Row, load: Load) -> None:
        uvloop.run(serve(load, load.size * load.count if row in COUNTED else 0))

    def round_trips(self, address: str, load: Load) -> list[float]:
        async def main() -> list[float]:
            endpoint = await bound()
            connection = await connected(endpoint, address)
            stream = await connection.open_bi()
            sending, receiving, body = stream.send(), stream.recv(), bytes(load.size)

            async def once() -> None:
                await sending.write_all(body)
                await receiving.read_exact(load.size)

            times = await timed(once, load.count)
            await endpoint.close()
            return times

        return uvloop.run(main())

    def one_way(self, address: str, load: Load) -> float:
        async def main() -> float:
            endpoint = await bound()
            connection = await connected(endpoint, address)
            stream = await connection.open_bi()
            sending, body = stream.send(), bytes(load.size)
            start = time.perf_counter()
            for _ in range(load.count):
                await sending.write_all(body)
            await stream.recv().read_exact(4)
            rate = load.count / (time.perf_counter() - start)
            await endpoint.close()
            return rate

        return uvloop.run(main())

    def streams(self, server: Server, load: Load) -> Opened | None:
        async def main() -> Opened:
            endpoint = await bound()
            connection = await connected(endpoint, server.address)
            kept, _ = await opened(connection, Load(load.size, WARM_UP))
            await asyncio.sleep(SETTLE_S)
            here, there = resident_bytes(), server.resident_bytes()
            rest = Load(load.size, load.count - WARM_UP)
            more, seconds = await opened(connection, rest)
            kept += more
            await asyncio.sleep(SETTLE_S)
            here, there = resident_bytes() - here, server.resident_bytes() - there
            await endpoint.close()
            return Opened(len(kept), seconds, here / len(more), there / len(more))

        return uvloop.run(main())

    def idle(self, server: Server, load: Load) -> float | None:
        async def main() -> float:
            kept, sizes = [], []
            for count in (WARM_UP, load.count):
                for _ in range(count):
                    endpoint = await bound()
                    connection = await connected(endpoint, server.address)
                    kept.append((endpoint, connection, await exchanged(connection, load.size)))
                await asyncio.sleep(SETTLE_S)
                sizes.append(server.resident_bytes())
            await asyncio.gather(*(endpoint.close() for endpoint, _, _ in kept))
            return (sizes[1] - sizes[0]) / load.count

        return uvloop.run(main())


async def bound() -> iroh.Endpoint:
    options = iroh.EndpointOptions(
        preset=iroh.preset_minimal(),
        bind_addr="127.0.0.1:0",
        alpns=[ALPN],
        relay_mode=iroh.RelayMode.disabled(),
    )
    return await iroh.Endpoint.bind(options)


async def connected(endpoint: iroh.Endpoint, address: str) -> iroh.Connection:
    id, socket = address.split()
    to = iroh.EndpointAddr(iroh.EndpointId.from_string(id), None, [socket])
    return await endpoint.connect(to, ALPN)


async def exchanged(connection: iroh.Connection, size: int) -> iroh.BiStream:
    stream = await connection.open_bi()
    await stream.send().write_all(bytes(size))
    await stream.recv().read_exact(size)
    return stream


async def opened(connection: iroh.Connection, load: Load) -> tuple[list[iroh.BiStream], float]:
    """As many streams as open in time, each after one message there and back; seconds taken."""
    kept: list[iroh.BiStream] = []
    left = iter(range(load.count))
    start = last = time.perf_counter()

    async def opener() -> None:
        nonlocal last
        for _ in left:
            try:
                async with asyncio.timeout(OPEN_PATIENCE_S):
                    kept.append(await exchanged(connection, load.size))
            except TimeoutError:
                return
            last = time.perf_counter()

    async with asyncio.TaskGroup() as openers:
        for _ in range(OPENERS):
            openers.create_task(opener())
    return kept, last - start


async def serve(load: Load, expected: int) -> None:
    endpoint = await bound()
    print(endpoint.id(), endpoint.bound_sockets()[0], flush=True)
    tasks: set[asyncio.Task[None]] = set()

    async def until_gone(work: Coroutine[Any, Any, None]) -> None:
        with contextlib.suppress(iroh.IrohError):  # the client has closed its end
            await work

    def own(work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(until_gone(work))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def accepted(incoming: iroh.Incoming) -> None:
        connection = await (await incoming.accept()).connect()
        connection.set_max_concurrent_bi_streams(STREAMS_MAX)
        while True:
            stream = await connection.accept_bi()
            own(count(stream, expected) if expected else echo(stream, load.size))

    while (incoming := await endpoint.accept_next()) is not None:
        own(accepted(incoming))


async def echo(stream: iroh.BiStream, size: int) -> None:
    sending, receiving = stream.send(), stream.recv()
    while data := await receiving.read(size):
        await sending.write_all(data)


async def count(stream: iroh.BiStream, expected: int) -> None:
    receiving, left = stream.recv(), expected
    while left > 0:
        left -= len(await receiving.read(READ_BYTES))
    await stream.send().write_all(b"done")


if __name__ == "__main__":
    run(Iroh(), __file__, SHARES)
