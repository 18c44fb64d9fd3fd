"""Worlds for the transport contract: transports that can reach each other, and what watches them.

`scenario` makes a test of a coroutine on each of the worlds. In each, the loop's exception handler
must stay silent, and nothing may be left unclosed.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest

from meshwalk.config import LinkConfig
from meshwalk.identity.keys import KeyPair
from meshwalk.identity.network import Network
from meshwalk.net.memory import MemoryHub, MemoryPipe, MemoryTransport
from meshwalk.net.tcp import TcpTransport
from meshwalk.net.tcppipe import TcpPipe
from meshwalk.net.transport import Listener, Pipe, Transport
from meshwalk.wire.address import Address

SCENARIO_TIMEOUT_S = 30.0  # guess: a hundred times what the longest takes

ANY_PORT = Address("127.0.0.1", 0)
NETWORK = Network("contract", b"a secret")
QUICK = LinkConfig(close_timeout_s=0.2)


class Reader:
    """Keeps what a pipe delivers; `until` waits for it."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.events: list[str] = []
        self.why: str | None = None
        self.is_calling_the_pipe = False
        self._changed = asyncio.Event()

    def received(self, data: memoryview) -> None:
        assert not self.is_calling_the_pipe
        assert self.why is None, "nothing comes after lost"
        self.data += data
        self._changed.set()

    def stalled(self) -> None:
        self._event("stalled")

    def resumed(self) -> None:
        self._event("resumed")

    def lost(self, why: str) -> None:
        self.why = why
        self._event("lost")

    def _event(self, event: str) -> None:
        assert not self.is_calling_the_pipe
        self.events.append(event)
        self._changed.set()

    async def until(self, is_true: Callable[[], bool]) -> None:
        while not is_true():
            self._changed.clear()
            await self._changed.wait()

    async def until_lost(self) -> str:
        await self.until(lambda: self.why is not None)
        assert self.why is not None
        return self.why

    async def until_bytes(self, count: int) -> None:
        await self.until(lambda: len(self.data) >= count)


class Gate:
    """An acceptor that admits everyone, or nobody."""

    def __init__(self, *, is_open: bool = True, starts: bool = True) -> None:
        self.is_open = is_open
        self.starts = starts
        self.admitted: list[Address] = []
        self.failed: list[tuple[int, str]] = []
        self.pipes: list[Pipe] = []
        self.readers: list[Reader] = []
        self._changed = asyncio.Event()

    def admit(self, remote: Address) -> int | None:
        self.admitted.append(remote)
        return len(self.admitted) if self.is_open else None

    def handshake_failed(self, link: int, why: str) -> None:
        assert why
        assert "\n" not in why
        self.failed.append((link, why))
        self._changed.set()

    def accepted(self, link: int, pipe: Pipe) -> None:
        reader = Reader()
        self.pipes.append(pipe)
        self.readers.append(reader)
        if self.starts:
            pipe.start(reader)
        self._changed.set()

    async def until(self, is_true: Callable[[], bool]) -> None:
        while not is_true():
            self._changed.clear()
            await self._changed.wait()


class World:
    """Transports of one kind that can reach each other, and an end to all that they opened."""

    kind = ""

    def __init__(self) -> None:
        self.listeners: list[Listener] = []
        self.pipes: list[Pipe] = []

    def transport(
        self, seed: int, network: Network = NETWORK, config: LinkConfig = QUICK
    ) -> Transport:
        raise NotImplementedError

    def pause(self, pipe: Pipe) -> None:
        raise NotImplementedError

    def resume(self, pipe: Pipe) -> None:
        raise NotImplementedError

    async def listen(self, transport: Transport, gate: Gate, at: Address = ANY_PORT) -> Address:
        listener = await transport.listen(at, gate)
        self.listeners.append(listener)
        return listener.address

    async def pair(self, config: LinkConfig = QUICK) -> tuple[Pipe, Reader, Pipe, Reader]:
        """Dialling pipe and reader, answering pipe and reader."""
        gate = Gate()
        address = await self.listen(self.transport(1, config=config), gate)
        pipe = await self.transport(2, config=config).dial(address, None)
        reader = Reader()
        pipe.start(reader)
        await gate.until(lambda: bool(gate.pipes))
        self.pipes += [pipe, gate.pipes[0]]
        return pipe, reader, gate.pipes[0], gate.readers[0]

    async def end(self) -> None:
        for listener in self.listeners:
            await listener.close()
        for pipe in self.pipes:
            pipe.abort()
        # Whatever was aborted or refused is closed within a few turns of the loop.
        for _ in range(5):
            await asyncio.sleep(0)


class MemoryWorld(World):
    kind = "memory"

    def __init__(self) -> None:
        super().__init__()
        self.hub = MemoryHub()

    def transport(
        self, seed: int, network: Network = NETWORK, config: LinkConfig = QUICK
    ) -> Transport:
        return MemoryTransport(self.hub, keys(seed).peer_id, network.network_id, config)

    def pause(self, pipe: Pipe) -> None:
        cast("MemoryPipe", pipe).pause_reading()

    def resume(self, pipe: Pipe) -> None:
        cast("MemoryPipe", pipe).resume_reading()


class TcpWorld(World):
    kind = "tcp"

    def transport(
        self, seed: int, network: Network = NETWORK, config: LinkConfig = QUICK
    ) -> Transport:
        return TcpTransport(keys(seed), network, config)

    def pause(self, pipe: Pipe) -> None:
        raw = cast("TcpPipe", pipe)._raw
        assert raw is not None
        raw.pause_reading()

    def resume(self, pipe: Pipe) -> None:
        raw = cast("TcpPipe", pipe)._raw
        assert raw is not None
        raw.resume_reading()


def keys(seed: int) -> KeyPair:
    return KeyPair(bytes([seed]) * 32)


def uvloop_factory() -> asyncio.AbstractEventLoop:
    loop: asyncio.AbstractEventLoop = pytest.importorskip("uvloop").new_event_loop()
    return loop


WORLDS = {
    "memory": (MemoryWorld, asyncio.new_event_loop),
    "tcp": (TcpWorld, asyncio.new_event_loop),
    "tcp-uvloop": (TcpWorld, uvloop_factory),
}

Scenario = Callable[[World], Awaitable[None]]


def scenario(*worlds: str) -> Callable[[Scenario], Callable[[str], None]]:
    """A test from a coroutine, on each of the worlds or on those named."""

    def decorate(steps: Scenario) -> Callable[[str], None]:
        @pytest.mark.parametrize("kind", worlds or tuple(WORLDS))
        def test(kind: str) -> None:
            make_world, make_loop = WORLDS[kind]
            complaints: list[dict[str, Any]] = []

            async def run() -> None:
                loop = asyncio.get_running_loop()
                loop.set_exception_handler(lambda _, context: complaints.append(context))
                world = make_world()
                try:
                    async with asyncio.timeout(SCENARIO_TIMEOUT_S):
                        await steps(world)
                finally:
                    await world.end()

            with asyncio.Runner(loop_factory=make_loop) as runner:
                runner.run(run())
            gc.collect()  # what was left unclosed says so now
            assert complaints == []

        test.__doc__ = steps.__doc__
        return test

    return decorate
