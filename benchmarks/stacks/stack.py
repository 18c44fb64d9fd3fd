"""What every stack answers to: the rows that are measured, their loads, and the two processes.

A stack is one file. `FILE --measure ROW` is the client: it starts `FILE --serve ROW` as the server,
measures, and prints the figures as JSON. Both ends say how much memory they hold: the server
answers each line on its standard input with its resident size, and ends when that is closed, so
that no server outlives its client.

No stack frames or counts more than its users must: a stack of streams counts bytes, a stack of
messages counts messages. What is counted ends with an answer of the receiver, which stops the
clock.
"""

from __future__ import annotations

import argparse
import enum
import gc
import json
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Protocol, Self

import msgspec

WARM_UP = 20  # connections and streams made before the first look at memory; as memory.py
SETTLE_S = 1.0  # before each look: temporary state goes, buffers are let go; as memory.py
OPENERS = 64  # streams that open at once. guess: enough to hide the round trip of each
OPEN_PATIENCE_S = 5.0  # an open that takes longer says that the stack opens no more. guess
READ_BYTES = 256 << 10  # asked of a stream at once when bytes are counted; the buffer of link.py
PAGE_BYTES = resource.getpagesize()
ONE_CORE = 0  # the core that both processes are held on


class Row(enum.StrEnum):
    """What is measured."""

    REQUESTS = "requests"
    REQUESTS_ONE_CORE = "requests-one-core"
    MESSAGES = "messages"
    BULK = "bulk"
    STREAMS = "streams"
    IDLE = "idle"


class Load(msgspec.Struct, frozen=True):
    """The size of a message in bytes, and how many: requests, messages, streams, connections."""

    size: int
    count: int


# As in link.py and memory.py, so that the figures of bare TLS and meshwalk can be compared.
LOADS = {
    Row.REQUESTS: Load(100, 5_000),
    Row.REQUESTS_ONE_CORE: Load(100, 5_000),
    Row.MESSAGES: Load(100, 300_000),
    Row.BULK: Load(64 << 10, 4_000),
    Row.STREAMS: Load(100, 10_000),
    Row.IDLE: Load(100, 200),
}
COUNTED = frozenset((Row.MESSAGES, Row.BULK))
"""Rows whose server counts what arrives and answers at the end. The others echo."""

FIGURES: dict[Row, dict[str, tuple[str, str]]] = {
    Row.REQUESTS: {
        "p50": ("request and reply of 100 B, p50", "µs"),
        "p99": ("request and reply of 100 B, p99", "µs"),
    },
    Row.REQUESTS_ONE_CORE: {
        "p50": ("the same on one core, p50", "µs"),
        "p99": ("the same on one core, p99", "µs"),
    },
    Row.MESSAGES: {"rate": ("one way, 100 B", "msg/s")},
    Row.BULK: {"rate": ("one way, 64 KiB", "MB/s")},
    Row.STREAMS: {
        "opened": ("streams opened on one connection", "of 10,000"),
        "seconds": ("to open them, a message each", "s"),
        "client": ("memory of a stream, who opens", "KiB"),
        "server": ("memory of a stream, who accepts", "KiB"),
    },
    Row.IDLE: {"server": ("memory of an idle connection", "KiB")},
}
"""What a row gives: by key, its name in the table and its unit."""


class Opened(msgspec.Struct, frozen=True):
    """Streams that stood at once on one connection, and what they cost.

    `count` has those of the warm-up too; time and memory are of the others.
    """

    count: int
    seconds: float
    client_bytes: float
    """Of one stream, at the end that opens."""
    server_bytes: float
    """Of one stream, at the end that accepts."""


class Server:
    """The server of this row in a process of its own. Use it in a `with`."""

    def __init__(self, file: str, row: Row) -> None:
        self._process = subprocess.Popen(
            [sys.executable, file, "--serve", row],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.address = self._line()

    def resident_bytes(self) -> int:
        """What the server holds now, after it has collected its garbage."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return int(self._line())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if not line:
            self._process.kill()
            raise RuntimeError(f"the server ended with code {self._process.wait()}")
        return line


class Stack(Protocol):
    """One stack. Its calls block, so that each may bring its own loop, or none."""

    def serve(self, row: Row, load: Load) -> None:
        """Print the address in one line, then serve until killed."""

    def round_trips(self, address: str, load: Load) -> list[float]:
        """Seconds of each request and its reply, one at a time. See `timed`."""

    def one_way(self, address: str, load: Load) -> float:
        """Messages a second, from the first write to the receiver's answer that it has all."""

    def streams(self, server: Server, load: Load) -> Opened | None:
        """Open streams on one connection and exchange a message on each; None: has no such thing.

        `OPENERS` at a time. All of them stand when memory is looked at.
        """

    def idle(self, server: Server, load: Load) -> float | None:
        """Bytes at the server for one more connection with a peer that has said something."""


async def timed(once: Callable[[], Awaitable[None]], count: int) -> list[float]:
    """Seconds of each call, after some that are not counted. Works on any loop."""
    for _ in range(count // 10):
        await once()
    times = []
    for _ in range(count):
        start = time.perf_counter()
        await once()
        times.append(time.perf_counter() - start)
    return times


def resident_bytes() -> int:
    """What this process holds, after collecting its garbage."""
    gc.collect()
    fields = Path("/proc/self/statm").read_text(encoding="ascii").split()
    return int(fields[1]) * PAGE_BYTES


def run(stack: Stack, file: str, shares: Mapping[Row, float] | None = None) -> None:
    """The `main` of a stack's file: be the server of a row, or its client.

    `shares` says which part of a load is sent, so that a slow stack takes seconds, not minutes.
    """
    parser = argparse.ArgumentParser(description="One row of one stack; see compare.py.")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--serve", type=Row, metavar="ROW", help="|".join(Row))
    what.add_argument("--measure", type=Row, metavar="ROW", help="|".join(Row))
    arguments = parser.parse_args()
    row: Row = arguments.serve or arguments.measure
    load = LOADS[row]
    load = Load(load.size, int(load.count * (shares or {}).get(row, 1.0)))
    if arguments.serve:
        threading.Thread(target=_answer_sizes, daemon=True).start()
        stack.serve(row, load)
        return
    if row is Row.REQUESTS_ONE_CORE:
        os.sched_setaffinity(0, {ONE_CORE})  # the server inherits it
    with Server(file, row) as server:
        print(json.dumps(_figures(stack, row, load, server)), flush=True)


def _answer_sizes() -> None:
    for _ in sys.stdin:
        print(resident_bytes(), flush=True)
    os._exit(0)


def _figures(stack: Stack, row: Row, load: Load, server: Server) -> dict[str, float] | None:
    if row in COUNTED:
        rate = stack.one_way(server.address, load)
        return {"rate": rate * load.size / 1e6 if row is Row.BULK else rate}
    if row is Row.STREAMS:
        opened = stack.streams(server, load)
        if opened is None:
            return None
        return {
            "opened": opened.count,
            "seconds": opened.seconds,
            "client": opened.client_bytes / 1024,
            "server": opened.server_bytes / 1024,
        }
    if row is Row.IDLE:
        idle = stack.idle(server, load)
        return None if idle is None else {"server": idle / 1024}
    times = sorted(stack.round_trips(server.address, load))
    return {
        "p50": times[len(times) // 2] * 1e6,
        "p99": times[len(times) * 99 // 100] * 1e6,
    }
