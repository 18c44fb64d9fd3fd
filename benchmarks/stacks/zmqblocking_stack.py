"""ZeroMQ through pyzmq with CURVE, as zmq_stack.py, but with blocking calls and no event loop.

What a program can have that gives a thread to each socket.
"""

# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import time

import zmq
from stack import COUNTED, SETTLE_S, WARM_UP, Load, Opened, Row, Server, run
from zmq_stack import connected, listening


class ZmqBlocking:
    """pyzmq without a loop as a `Stack`."""

    def serve(self, row: Row, load: Load) -> None:
        socket = zmq.Context().socket(zmq.DEALER if row in COUNTED else zmq.REP)
        print(listening(socket), flush=True)
        while row not in COUNTED:
            socket.send(socket.recv())
        while True:
            for _ in range(load.count):
                socket.recv()
            socket.send(b"done")

    def round_trips(self, address: str, load: Load) -> list[float]:
        context = zmq.Context()
        socket = connected(context.socket(zmq.REQ), address)
        body = bytes(load.size)
        times = []
        for _ in range(load.count // 10 + load.count):
            start = time.perf_counter()
            socket.send(body)
            socket.recv()
            times.append(time.perf_counter() - start)
        context.destroy(linger=0)
        return times[load.count // 10 :]

    def one_way(self, address: str, load: Load) -> float:
        context = zmq.Context()
        socket = connected(context.socket(zmq.DEALER), address)
        body = bytes(load.size)
        start = time.perf_counter()
        for _ in range(load.count):
            socket.send(body)
        socket.recv()
        rate = load.count / (time.perf_counter() - start)
        context.destroy(linger=0)
        return rate

    def streams(self, server: Server, load: Load) -> Opened | None:
        return None

    def idle(self, server: Server, load: Load) -> float | None:
        context = zmq.Context()
        kept, sizes = [], []  # a socket that nothing holds is closed
        for count in (WARM_UP, load.count):
            for _ in range(count):
                socket = connected(context.socket(zmq.REQ), server.address)
                socket.send(bytes(load.size))
                socket.recv()
                kept.append(socket)
            time.sleep(SETTLE_S)
            sizes.append(server.resident_bytes())
        context.destroy(linger=0)
        return (sizes[1] - sizes[0]) / load.count


if __name__ == "__main__":
    run(ZmqBlocking(), __file__)
