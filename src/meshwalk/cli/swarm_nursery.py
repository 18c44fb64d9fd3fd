"""Makes and ends the processes of a swarm.

Where there is fork, a helper process does it: it has imported everything already and runs nothing
else, so a node costs a fork instead of half a second of imports. It is the processes' parent, so it
reaps them, and a signal never goes to a number that the system has given to somebody else. It ends,
and kills all of them, when its own parent does. Elsewhere every node is a new interpreter.

`python -m meshwalk.cli.swarm_nursery FD` is the helper; `python -m meshwalk.cli.swarm_nursery` one
node, with its `Birth` on the standard input.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import selectors
import signal
import socket
import sys
from collections.abc import Callable
from typing import Protocol

import msgspec

from meshwalk.cli.swarm_node import die_with_parent, run_node
from meshwalk.cli.swarm_words import (
    Birth,
    Born,
    Ended,
    Frames,
    NurseryOrder,
    NurseryReport,
    Signal,
    Start,
    frame,
    read,
)

CLOSE_TIMEOUT_S = 5.0  # guess: SIGKILL and reaping of 100 processes takes under a second
TEXT_PAUSE_S = 0.05  # guess: a traceback is written in many pieces, one after the other
READ_BYTES = 64 << 10  # a pipe's size on Linux
_HAS_FORK = hasattr(os, "fork")


class Nursery(Protocol):
    """Makes processes and sends them signals."""

    async def start(self, birth: Birth) -> None:
        """Make a process; `Born` comes when it is there."""

    async def signal(self, indices: list[int], number: int) -> None:
        """Send a signal to those of these processes that live."""

    async def close(self) -> None:
        """Kill every process and wait until all are gone; bounded."""


async def open_nursery(
    heard: Callable[[NurseryReport], None],
    complain: Callable[[str], None],
    fork: bool = _HAS_FORK,
) -> Nursery:
    """A nursery that tells `heard` of births and ends, and `complain` what processes print."""
    nursery = ForkingNursery(heard, complain) if fork else SpawningNursery(heard, complain)
    await nursery.open()
    return nursery


async def _pass_on_text(stream: asyncio.StreamReader, complain: Callable[[str], None]) -> None:
    """What processes print to the standard error; what comes in one go is one complaint."""
    while text := await stream.read(READ_BYTES):
        with contextlib.suppress(TimeoutError):
            while len(text) < READ_BYTES:
                async with asyncio.timeout(TEXT_PAUSE_S):
                    more = await stream.read(READ_BYTES)
                if not more:
                    break
                text += more
        complain(text.decode(errors="replace").strip())


class ForkingNursery:
    """The parent's side of the helper process."""

    def __init__(
        self, heard: Callable[[NurseryReport], None], complain: Callable[[str], None]
    ) -> None:
        self._heard = heard
        self._complain = complain
        self._tasks: list[asyncio.Task[None]] = []
        self._process: asyncio.subprocess.Process | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def open(self) -> None:
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                self._process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-m",
                    "meshwalk.cli.swarm_nursery",
                    str(theirs.fileno()),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.DEVNULL,
                    stderr=asyncio.subprocess.PIPE,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,  # out of reach of the terminal's Ctrl-C
                )
            reader, self._writer = await asyncio.open_connection(sock=ours)
        except BaseException:
            ours.close()
            raise
        assert self._process.stderr is not None
        self._tasks = [
            asyncio.create_task(self._listen(reader)),
            asyncio.create_task(_pass_on_text(self._process.stderr, self._complain)),
        ]

    async def start(self, birth: Birth) -> None:
        await self._say(Start(birth))

    async def signal(self, indices: list[int], number: int) -> None:
        await self._say(Signal(indices, number))

    async def close(self) -> None:
        assert self._process is not None
        assert self._writer is not None
        self._writer.close()  # the helper's sign to kill all and end
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()  # and the system kills its children, where it can
            await self._process.wait()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _say(self, order: NurseryOrder) -> None:
        assert self._writer is not None
        self._writer.write(frame(order))
        await self._writer.drain()

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        decoder: msgspec.msgpack.Decoder[NurseryReport] = msgspec.msgpack.Decoder(NurseryReport)
        while (report := await read(reader, decoder)) is not None:
            self._heard(report)


class SpawningNursery:
    """A new interpreter for every node."""

    def __init__(
        self, heard: Callable[[NurseryReport], None], complain: Callable[[str], None]
    ) -> None:
        self._heard = heard
        self._complain = complain
        self._processes: dict[int, asyncio.subprocess.Process] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Nothing to prepare."""

    async def start(self, birth: Birth) -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "meshwalk.cli.swarm_nursery",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        self._processes[birth.index] = process
        self._heard(Born(birth.index, birth.run, process.pid))
        assert process.stdin is not None
        process.stdin.write(frame(birth))
        process.stdin.close()
        task = asyncio.create_task(self._wait(birth, process))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def signal(self, indices: list[int], number: int) -> None:
        for index in indices:
            process = self._processes.get(index)
            if process is not None:
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(number)

    async def close(self) -> None:
        for process in self._processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_TIMEOUT_S)

    async def _wait(self, birth: Birth, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None
        await _pass_on_text(process.stderr, self._complain)
        status = await process.wait()
        if self._processes.get(birth.index) is process:
            del self._processes[birth.index]
        self._heard(Ended(birth.index, birth.run, status))


# The helper process.


class Helper:
    """Forks on demand, reaps, and kills all when its parent goes."""

    def __init__(self, parent: socket.socket) -> None:
        self._parent = parent
        self._frames = Frames()
        self._children: dict[int, Birth] = {}
        self._decoder: msgspec.msgpack.Decoder[NurseryOrder] = msgspec.msgpack.Decoder(NurseryOrder)
        # A signal writes a byte there, so that waiting for orders also wakes for ended children.
        self._wakes, self._waker = socket.socketpair()
        self._wakes.setblocking(False)
        self._waker.setblocking(False)

    def run(self) -> Birth | None:
        """None when the parent is gone; in a new child process: what it is to be."""
        signal.signal(signal.SIGCHLD, lambda number, stack: None)
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        with selectors.DefaultSelector() as selector:
            selector.register(self._parent, selectors.EVENT_READ)
            selector.register(self._wakes, selectors.EVENT_READ)
            while True:
                selector.select()
                self._reap()
                orders = self._orders()
                if orders is None:
                    self._end_all()
                    return None
                for order in orders:
                    if isinstance(order, Signal):
                        self._signal(order)
                    elif self._fork(order.birth):
                        return order.birth

    def _orders(self) -> list[NurseryOrder] | None:
        with contextlib.suppress(BlockingIOError):
            self._wakes.recv(READ_BYTES)
        try:
            data = self._parent.recv(READ_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return []
        except OSError:
            return None
        return [self._decoder.decode(body) for body in self._frames.feed(data)] if data else None

    def _fork(self, birth: Birth) -> bool:
        """True in the child."""
        pid = os.fork()
        if pid == 0:
            die_with_parent()
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for end in (self._parent, self._wakes, self._waker):
                end.close()
            return True
        self._children[pid] = birth
        self._tell(Born(birth.index, birth.run, pid))
        return False

    def _signal(self, order: Signal) -> None:
        wanted = set(order.indices)
        for pid, birth in self._children.items():
            if birth.index in wanted:  # not reaped yet, so the number is still this child's
                os.kill(pid, order.number)

    def _reap(self) -> None:
        while self._children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            birth = self._children.pop(pid)
            self._tell(Ended(birth.index, birth.run, os.waitstatus_to_exitcode(status)))

    def _end_all(self) -> None:
        for pid in self._children:
            os.kill(pid, signal.SIGKILL)
        for pid in self._children:
            os.waitpid(pid, 0)

    def _tell(self, report: NurseryReport) -> None:
        with contextlib.suppress(OSError):  # the parent is gone; the next read says so
            self._parent.sendall(frame(report))


def main(arguments: list[str]) -> int:
    """The helper process, or a node's own; see the top of the file."""
    if not arguments:
        die_with_parent()
        (body,) = Frames().feed(sys.stdin.buffer.read())
        return run_node(msgspec.msgpack.decode(body, type=Birth))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.freeze()  # what the children share stays shared: collecting would touch, and so copy, it
    helper = Helper(socket.socket(fileno=int(arguments[0])))
    birth = helper.run()
    return 0 if birth is None else run_node(birth)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
