"""Bare mutual TLS on uvloop with meshwalk's certificates: the floor, which only moves bytes.

As in link.py: a `BufferedProtocol` that echoes, or counts bytes; small messages are one write each,
which is what a program without a library would do. Unlike there all connections of a process read
into one buffer, so that memory is the connection's and not the buffer's. It has no streams.
"""

from __future__ import annotations

import asyncio
import time

import uvloop
from stack import (
    COUNTED,
    READ_BYTES,
    SETTLE_S,
    WARM_UP,
    Load,
    Opened,
    Row,
    Server,
    run,
    timed,
)

from meshwalk.identity.keys import KeyPair
from meshwalk.identity.network import Network
from meshwalk.net.tls import TlsContexts

# Filled and looked at in one turn of the loop: connections may share it.
_BUFFER = bytearray(READ_BYTES)


class ServerEnd(asyncio.BufferedProtocol):
    """Echoes, or counts bytes and answers when it has as many as expected."""

    def __init__(self, expected: int) -> None:
        self._transport: asyncio.Transport | None = None
        self._expected = self._left = expected

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment] # uvloop's is no subclass

    def get_buffer(self, sizehint: int) -> bytearray:
        return _BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        assert self._transport is not None
        if self._expected == 0:
            self._transport.write(bytes(memoryview(_BUFFER)[:nbytes]))
            return
        self._left -= nbytes
        if self._left <= 0:
            self._left += self._expected
            self._transport.write(b"done")


class ClientEnd(asyncio.BufferedProtocol):
    """Waits for the next bytes."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.room = asyncio.Event()
        self.room.set()
        self._arrived: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment] # uvloop's is no subclass

    def get_buffer(self, sizehint: int) -> bytearray:
        return _BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)

    def pause_writing(self) -> None:
        self.room.clear()

    def resume_writing(self) -> None:
        self.room.set()

    async def answer(self) -> None:
        self._arrived = asyncio.get_running_loop().create_future()
        await self._arrived


class Bare:
    """Bare TLS as a `Stack`."""

    def serve(self, row: Row, load: Load) -> None:
        async def main() -> None:
            contexts = TlsContexts(KeyPair.generate(), Network())
            expected = load.size * load.count if row in COUNTED else 0
            server = await asyncio.get_running_loop().create_server(
                lambda: ServerEnd(expected), "127.0.0.1", 0, ssl=contexts.server
            )
            print(server.sockets[0].getsockname()[1], flush=True)
            await asyncio.Event().wait()

        uvloop.run(main())

    def round_trips(self, address: str, load: Load) -> list[float]:
        async def main() -> list[float]:
            client = await connected(address, contexts())
            return await timed(lambda: exchanged(client, load.size), load.count)

        return uvloop.run(main())

    def one_way(self, address: str, load: Load) -> float:
        async def main() -> float:
            client = await connected(address, contexts())
            assert client.transport is not None
            data = bytes(load.size)
            start = time.perf_counter()
            for _ in range(load.count):
                client.transport.write(data)
                if not client.room.is_set():
                    await client.room.wait()
            await client.answer()
            return load.count / (time.perf_counter() - start)

        return uvloop.run(main())

    def streams(self, server: Server, load: Load) -> Opened | None:
        return None

    def idle(self, server: Server, load: Load) -> float | None:
        async def main() -> float:
            shared = contexts()
            clients = []
            sizes = []
            for count in (WARM_UP, load.count):
                for _ in range(count):
                    client = await connected(server.address, shared)
                    await exchanged(client, load.size)
                    clients.append(client)
                await asyncio.sleep(SETTLE_S)
                sizes.append(server.resident_bytes())
            return (sizes[1] - sizes[0]) / load.count

        return uvloop.run(main())


def contexts() -> TlsContexts:
    return TlsContexts(KeyPair.generate(), Network())


async def connected(address: str, contexts: TlsContexts) -> ClientEnd:
    _, client = await asyncio.get_running_loop().create_connection(
        ClientEnd, "127.0.0.1", int(address), ssl=contexts.client, server_hostname=""
    )
    return client


async def exchanged(client: ClientEnd, size: int) -> None:
    assert client.transport is not None
    client.transport.write(bytes(size))
    await client.answer()


if __name__ == "__main__":
    run(Bare(), __file__)
