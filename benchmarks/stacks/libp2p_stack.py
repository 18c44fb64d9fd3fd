"""py-libp2p: Noise and yamux over TCP, on trio.

A message is one `write` of a stream; the receiver counts bytes, with no framing of its own. yamux
here keeps a place of its backlog for each stream that its opener has not closed, so that one end
has at most 256 open: further ones wait, and are found by their waiting.
"""

# mypy: disable-error-code="import-not-found, import-untyped"

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio
from libp2p import new_host
from libp2p.abc import IHost, INetStream
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_noise_key_pair
from libp2p.custom_types import TProtocol
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as NoiseTransport
from multiaddr import Multiaddr
from stack import (
    COUNTED,
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

PROTOCOL = TProtocol("/benchmark/1.0.0")
DIALLERS = 20  # at a time: py-libp2p waits 250 ms after each dial for other addresses to race
SHARES = {Row.MESSAGES: 0.1, Row.BULK: 0.5}


class Libp2p:
    """py-libp2p as a `Stack`."""

    def serve(self, row: Row, load: Load) -> None:
        async def main() -> None:
            expected = load.size * load.count if row in COUNTED else 0
            async with host("/ip4/127.0.0.1/tcp/0") as server:
                server.set_stream_handler(PROTOCOL, count(expected) if expected else echo)
                print(server.get_addrs()[0], flush=True)
                await trio.sleep_forever()

        trio.run(main)

    def round_trips(self, address: str, load: Load) -> list[float]:
        async def main() -> list[float]:
            async with host() as client:
                stream = await client.new_stream(await connected(client, address), [PROTOCOL])
                return await timed(lambda: exchanged(stream, load.size), load.count)

        times: list[float] = trio.run(main)
        return times

    def one_way(self, address: str, load: Load) -> float:
        async def main() -> float:
            async with host() as client:
                stream = await client.new_stream(await connected(client, address), [PROTOCOL])
                body = bytes(load.size)
                start = time.perf_counter()
                for _ in range(load.count):
                    await stream.write(body)
                await read(stream, 4)
                return load.count / (time.perf_counter() - start)

        return float(trio.run(main))

    def streams(self, server: Server, load: Load) -> Opened | None:
        async def main() -> Opened:
            async with host() as client:
                peer = await connected(client, server.address)
                kept, _ = await opened(client, peer, Load(load.size, WARM_UP))
                await trio.sleep(SETTLE_S)
                here, there = resident_bytes(), server.resident_bytes()
                rest = Load(load.size, load.count - WARM_UP)
                more, seconds = await opened(client, peer, rest)
                kept += more
                await trio.sleep(SETTLE_S)
                here, there = resident_bytes() - here, server.resident_bytes() - there
                return Opened(len(kept), seconds, here / len(more), there / len(more))

        cost: Opened = trio.run(main)
        return cost

    def idle(self, server: Server, load: Load) -> float | None:
        async def main() -> float:
            dials = trio.CapacityLimiter(DIALLERS)

            async def peer(task_status: Any) -> None:
                async with host() as client:
                    async with dials:
                        to = await connected(client, server.address)
                        stream = await client.new_stream(to, [PROTOCOL])
                        await exchanged(stream, load.size)
                    task_status.started()
                    await trio.sleep_forever()

            sizes = []
            async with trio.open_nursery() as peers:
                for count in (WARM_UP, load.count):
                    async with trio.open_nursery() as starting:
                        for _ in range(count):
                            starting.start_soon(peers.start, peer)
                    await trio.sleep(SETTLE_S)
                    sizes.append(server.resident_bytes())
                peers.cancel_scope.cancel()
            return (sizes[1] - sizes[0]) / load.count

        return float(trio.run(main))


@asynccontextmanager
async def host(*listen: str) -> AsyncIterator[IHost]:
    """A host that offers Noise and yamux only, with a key of its own."""
    keys = create_new_key_pair()
    noise = NoiseTransport(keys, noise_privkey=create_noise_key_pair().private_key)
    new = new_host(key_pair=keys, sec_opt={NOISE: noise}, muxer_preference="YAMUX")
    async with new.run([Multiaddr(address) for address in listen]):
        yield new


async def connected(client: IHost, address: str) -> ID:
    server = info_from_p2p_addr(Multiaddr(address))
    await client.connect(server)
    return server.peer_id


async def exchanged(stream: INetStream, size: int) -> None:
    await stream.write(bytes(size))
    await read(stream, size)


async def read(stream: INetStream, size: int) -> None:
    while size > 0:
        size -= len(await stream.read(size))


async def opened(client: IHost, peer: ID, load: Load) -> tuple[list[INetStream], float]:
    """As many streams as open in time, each after one message there and back; seconds taken."""
    kept: list[INetStream] = []
    left = iter(range(load.count))
    start = last = time.perf_counter()

    async def opener() -> None:
        nonlocal last
        for _ in left:
            with trio.move_on_after(OPEN_PATIENCE_S) as scope:
                stream = await client.new_stream(peer, [PROTOCOL])
                await exchanged(stream, load.size)
                kept.append(stream)
                last = time.perf_counter()
            if scope.cancelled_caught:
                return

    async with trio.open_nursery() as nursery:
        for _ in range(OPENERS):
            nursery.start_soon(opener)
    return kept, last - start


async def echo(stream: INetStream) -> None:
    while data := await stream.read(READ_BYTES):
        await stream.write(data)


def count(expected: int) -> Callable[[INetStream], Awaitable[None]]:
    async def counted(stream: INetStream) -> None:
        left = expected
        while left > 0:
            left -= len(await stream.read(READ_BYTES))
        await stream.write(b"done")

    return counted


if __name__ == "__main__":
    run(Libp2p(), __file__, SHARES)
