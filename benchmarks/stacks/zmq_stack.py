"""ZeroMQ through pyzmq with CURVE: asyncio, which here is uvloop.

Requests are REQ to REP. What goes one way, goes between two DEALERs, since these may answer; the
receiver counts messages. Queues are as ZeroMQ has them by default, 1,000 messages at each end. The
server shows its key and the client must know it; clients' keys are not checked, which costs
nothing after the handshake. ZeroMQ has no streams.
"""

# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import asyncio
import time
from typing import Any, TypeVar

import uvloop
import zmq
import zmq.asyncio
from stack import COUNTED, SETTLE_S, WARM_UP, Load, Opened, Row, Server, run, timed

_Socket = TypeVar("_Socket", bound="zmq.Socket[Any]")


class Zmq:
    """pyzmq on asyncio as a `Stack`."""

    def serve(self, row: Row, load: Load) -> None:
        async def main() -> None:
            context = zmq.asyncio.Context()
            socket = context.socket(zmq.DEALER if row in COUNTED else zmq.REP)
            print(listening(socket), flush=True)
            while row not in COUNTED:
                await socket.send(await socket.recv())
            while True:
                for _ in range(load.count):
                    await socket.recv()
                await socket.send(b"done")

        uvloop.run(main())

    def round_trips(self, address: str, load: Load) -> list[float]:
        async def main() -> list[float]:
            context = zmq.asyncio.Context()
            socket = connected(context.socket(zmq.REQ), address)
            body = bytes(load.size)

            async def once() -> None:
                await socket.send(body)
                await socket.recv()

            times = await timed(once, load.count)
            context.destroy(linger=0)
            return times

        return uvloop.run(main())

    def one_way(self, address: str, load: Load) -> float:
        async def main() -> float:
            context = zmq.asyncio.Context()
            socket = connected(context.socket(zmq.DEALER), address)
            body = bytes(load.size)
            start = time.perf_counter()
            for _ in range(load.count):
                await socket.send(body)
            await socket.recv()
            rate = load.count / (time.perf_counter() - start)
            context.destroy(linger=0)
            return rate

        return uvloop.run(main())

    def streams(self, server: Server, load: Load) -> Opened | None:
        return None

    def idle(self, server: Server, load: Load) -> float | None:
        async def main() -> float:
            context = zmq.asyncio.Context()
            kept, sizes = [], []  # a socket that nothing holds is closed
            for count in (WARM_UP, load.count):
                for _ in range(count):
                    socket = connected(context.socket(zmq.REQ), server.address)
                    await socket.send(bytes(load.size))
                    await socket.recv()
                    kept.append(socket)
                await asyncio.sleep(SETTLE_S)
                sizes.append(server.resident_bytes())
            context.destroy(linger=0)
            return (sizes[1] - sizes[0]) / load.count

        return uvloop.run(main())


def listening(socket: zmq.Socket[Any]) -> str:
    """Bind on loopback; the address and the key that a client needs."""
    public, secret = zmq.curve_keypair()
    socket.curve_server = True
    socket.curve_secretkey = secret
    port = socket.bind_to_random_port("tcp://127.0.0.1")
    return f"tcp://127.0.0.1:{port} {public.decode()}"


def connected(socket: _Socket, address: str) -> _Socket:
    endpoint, key = address.split()
    socket.curve_publickey, socket.curve_secretkey = zmq.curve_keypair()
    socket.curve_serverkey = key.encode()
    socket.connect(endpoint)
    return socket


if __name__ == "__main__":
    run(Zmq(), __file__)
