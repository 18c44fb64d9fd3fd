"""A chat through pipes and files: lines in, lines out, no colours, no prompt.

What others write and what commands answer goes to stdout, one line each; news and problems go to
stderr. Reading and writing happen in threads, because a file or a reader that waits must not hold
the node. The threads use descriptors, not Python's streams: a daemon thread that is ended while it
holds a stream's lock would end the process with a complaint.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import sys
import threading
from collections.abc import AsyncGenerator, Callable
from typing import TextIO

from meshwalk.cli.render import message_line, sent_at
from meshwalk.errors import TooBig
from meshwalk.events import Delivery
from meshwalk.wire.frames import FRAME_BYTES_MAX

LINE_BYTES_MAX = FRAME_BYTES_MAX  # a longer line could not be sent in any case
READ_BYTES = 64 << 10  # pipe(7): the capacity of a pipe on Linux
LINES_WAITING_MAX = 256  # guess: lines read ahead of the network
OUTLET_ITEMS_MAX = 1024  # guess: news that waits for a reader of stderr; more is left out


class LineSplitter:
    """Bytes in pieces to lines of text. Too long a line becomes `TooBig` and costs no memory."""

    def __init__(self, limit: int = LINE_BYTES_MAX) -> None:
        self._limit = limit
        self._start = bytearray()
        self._size = 0

    def feed(self, data: bytes) -> list[str | TooBig]:
        """The lines that these bytes complete."""
        *ends, rest = data.split(b"\n")
        lines: list[str | TooBig] = []
        for end in ends:
            self._add(end)
            lines.append(self._take())
        self._add(rest)
        return lines

    def finish(self) -> list[str | TooBig]:
        """The last line, when the input did not end in a line end."""
        return [self._take()] if self._size else []

    def _add(self, part: bytes) -> None:
        self._size += len(part)
        self._start += part[: max(0, self._limit - len(self._start))]

    def _take(self) -> str | TooBig:
        size, self._size = self._size, 0
        start, self._start = self._start, bytearray()
        if size > self._limit:
            return TooBig(size, self._limit)
        return start.decode("utf-8", "replace")


class Pipes:
    """The `Screen` for scripts. `on_broken` is called, in the loop, when nobody reads stdout."""

    is_terminal = False

    def __init__(self, on_broken: Callable[[], None]) -> None:
        self._out = _Outlet(sys.stdout, on_broken)
        self._err = _Outlet(sys.stderr, lambda: None)

    async def lines(self) -> AsyncGenerator[str | TooBig, None]:
        """The lines of stdin, to its end."""
        waiting: asyncio.Queue[str | TooBig | None] = asyncio.Queue(LINES_WAITING_MAX)
        loop = asyncio.get_running_loop()
        reader = threading.Thread(
            target=_read_lines, args=(_descriptor(sys.stdin), waiting, loop), daemon=True
        )
        reader.start()
        while (line := await waiting.get()) is not None:
            yield line

    def room(self, name: str) -> None:
        """A script knows where it is."""

    def busy(self, text: str | None) -> None:
        """A script waits."""

    async def messages(self, batch: list[Delivery], *, past: bool = False) -> None:
        # A script wants whole lines, so they are made safe but not cut.
        lines = (
            f"{sent_at(message)} " * past + message_line(message, LINE_BYTES_MAX)
            for message in batch
        )
        await self._out.write("".join(f"{line}\n" for line in lines))

    async def own(self, text: str, room: str) -> None:
        """A script knows what it has sent."""

    async def tell(self, text: str) -> None:
        await self._out.write(f"{text}\n")

    async def news(self, text: str) -> None:
        self._err.post(f"{text}\n")

    async def problem(self, text: str) -> None:
        self._err.post(f"meshwalk: {text}\n")

    def close(self, timeout_s: float = 1.0) -> None:
        """Wait a moment until everything is written; a reader that does not read loses the rest."""
        self._out.close(timeout_s)
        self._err.close(timeout_s)


def _read_lines(
    descriptor: int | None,
    waiting: asyncio.Queue[str | TooBig | None],
    loop: asyncio.AbstractEventLoop,
) -> None:
    splitter = LineSplitter()

    def hand_over(line: str | TooBig | None) -> None:
        asyncio.run_coroutine_threadsafe(waiting.put(line), loop).result()

    # Of the loop, when the chat ends first: RuntimeError or a cancelled future.
    with contextlib.suppress(RuntimeError, asyncio.CancelledError):
        while data := _read(descriptor):
            for line in splitter.feed(data):
                hand_over(line)
        for line in splitter.finish():
            hand_over(line)
        hand_over(None)


def _read(descriptor: int | None) -> bytes:
    if descriptor is None:
        return b""
    try:
        return os.read(descriptor, READ_BYTES)
    except OSError:  # closed, a folder, or a terminal that has gone: nothing more will come
        return b""


class _Outlet:
    """Writes text to a descriptor in a thread, in order."""

    def __init__(self, stream: TextIO | None, on_broken: Callable[[], None]) -> None:
        self._descriptor = _descriptor(stream)
        self._encoding = getattr(stream, "encoding", None) or "utf-8"
        self._on_broken = on_broken
        self._loop = asyncio.get_running_loop()
        self._is_broken = self._descriptor is None
        self._items: queue.SimpleQueue[tuple[bytes, asyncio.Future[None] | None] | None] = (
            queue.SimpleQueue()
        )
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    async def write(self, text: str) -> None:
        """Return when the text is written, or when nobody reads any more."""
        if self._is_broken:
            return
        written: asyncio.Future[None] = self._loop.create_future()
        self._items.put((text.encode(self._encoding, "replace"), written))
        await written

    def post(self, text: str) -> None:
        """Write without waiting; left out when much waits already."""
        if not self._is_broken and self._items.qsize() < OUTLET_ITEMS_MAX:
            self._items.put((text.encode(self._encoding, "replace"), None))

    def close(self, timeout_s: float) -> None:
        self._items.put(None)
        self._thread.join(timeout_s)

    def _run(self) -> None:
        # RuntimeError: the loop has ended in the meantime.
        with contextlib.suppress(RuntimeError):
            while (item := self._items.get()) is not None:
                data, written = item
                if not self._is_broken and not self._write(data):
                    self._is_broken = True
                    self._loop.call_soon_threadsafe(self._on_broken)
                if written is not None:
                    self._loop.call_soon_threadsafe(_resolve, written)

    def _write(self, data: bytes) -> bool:
        assert self._descriptor is not None
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
        except OSError:  # a broken pipe, a full disk, or a terminal that has gone
            return False
        return True


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _descriptor(stream: TextIO | None) -> int | None:
    """A stream's descriptor; None when the stream is closed or, under pythonw, missing."""
    try:
        return None if stream is None else stream.fileno()
    except (OSError, ValueError):
        return None
