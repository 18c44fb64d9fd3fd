"""Pipes within one process: for tests, examples and simulations on any asyncio event loop.

They keep the contract of `transport.py` as TCP does, marks and refusals included, with no socket,
no encryption and no waiting: what one end does, the other end hears at the loop's next turn. Like
TCP's, the bytes that a reader gets are gone after the call.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque

from meshwalk.config import LinkConfig
from meshwalk.errors import AddressInUse, NotAdmitted, Unreachable
from meshwalk.net.transport import Acceptor, Listener, Pipe, PipeReader
from meshwalk.wire.address import Address
from meshwalk.wire.peerid import PeerId

EPHEMERAL_PORT_MIN = 49152  # RFC 6335 section 6: ports for whoever does not ask for one
DELIVERED_BYTES = 256 << 10
"""Delivered at once and within one turn of the loop: as a read of tcppipe.py."""

_ABORTED = "this node ended it at once"
_UNCLEAN = "the peer ended the connection without a goodbye"


class MemoryHub:
    """The world that `MemoryTransport`s reach each other in. One event loop may use a hub."""

    def __init__(self) -> None:
        self._listeners: dict[Address, MemoryListener] = {}
        self._ports = itertools.count(EPHEMERAL_PORT_MIN)
        self.scratch = memoryview(bytearray(DELIVERED_BYTES))

    def free_port(self) -> int:
        """A port that nobody has had."""
        return next(self._ports)

    def add(self, listener: MemoryListener) -> None:
        """Let a listener be found. Raises `AddressInUse`."""
        if self.find(listener.address) is not None:
            raise AddressInUse(f"{listener.address} is taken; choose another port")
        self._listeners[listener.address] = listener

    def remove(self, listener: MemoryListener) -> None:
        """Let a listener be found no more."""
        if self._listeners.get(listener.address) is listener:
            del self._listeners[listener.address]

    def find(self, address: Address) -> MemoryListener | None:
        """Who listens there, be it on every interface."""
        if address in self._listeners:
            return self._listeners[address]
        for host in ("0.0.0.0", "::"):  # noqa: S104 # a name to look up; nothing is bound
            if listener := self._listeners.get(Address(host, address.port)):
                return listener
        return None


class MemoryTransport:
    """Makes pipes within `hub` as `peer_id`. Implements `transport.Transport`.

    Nodes meet only those with the same `network_id`. `host` is where others see this one.
    """

    def __init__(
        self,
        hub: MemoryHub,
        peer_id: PeerId,
        network_id: bytes,
        config: LinkConfig | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        self.hub = hub
        self.peer_id = peer_id
        self.network_id = network_id
        self.config = config or LinkConfig()
        self._host = host

    async def listen(self, address: Address, acceptor: Acceptor) -> Listener:
        """As `Transport.listen`; any host will do."""
        where = Address(address.host, address.port or self.hub.free_port())
        listener = MemoryListener(self, where, acceptor)
        self.hub.add(listener)
        return listener

    async def dial(self, address: Address, expected: PeerId | None) -> Pipe:
        """As `Transport.dial`; never `TimedOut`."""
        await asyncio.sleep(0)  # one turn of the loop: the acceptor is never called from `dial`
        listener = self.hub.find(address)
        if listener is None:
            raise Unreachable(f"nobody listens at {address}")
        return listener.answer(self, Address(self._host, self.hub.free_port()), address, expected)


class MemoryListener:
    """Where a `MemoryTransport` listens. Implements `transport.Listener`."""

    def __init__(self, transport: MemoryTransport, address: Address, acceptor: Acceptor) -> None:
        self._transport = transport
        self._address = address
        self._acceptor = acceptor

    @property
    def address(self) -> Address:
        """As `Listener.address`."""
        return self._address

    async def close(self) -> None:
        """As `Listener.close`; handshakes take no time here, so none is under way."""
        self._transport.hub.remove(self)

    def answer(
        self, dialler: MemoryTransport, remote: Address, local: Address, expected: PeerId | None
    ) -> MemoryPipe:
        """The whole handshake; the dialler's end. Raises as `Transport.dial` does."""
        own = self._transport
        link = self._acceptor.admit(remote)
        if link is None:
            text = f"{local}: the other end closed the connection at once: it may be full"
            raise Unreachable(text)
        refusal = None
        if own.network_id != dialler.network_id:
            refusal = "the other end has another network or secret"
        elif expected is not None and expected != own.peer_id:
            refusal = f"{own.peer_id.short} answered and {expected.short} was expected"
        if refusal is not None:
            self._acceptor.handshake_failed(link, "the other end broke off the handshake")
            raise NotAdmitted(f"{local}: {refusal}")
        here = MemoryPipe(own, dialler.peer_id, local, remote)
        there = MemoryPipe(dialler, own.peer_id, remote, local)
        here.join(there)
        there.join(here)
        self._acceptor.accepted(link, here)
        return there


class MemoryPipe:
    """One end of a pipe. Implements `transport.Pipe`, and can stop reading as a busy peer would.

    After `close` or `abort` nothing more is `received`.
    """

    def __init__(
        self, transport: MemoryTransport, peer: PeerId, local: Address, remote: Address
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._config = transport.config
        self._scratch = transport.hub.scratch
        self._peer = peer
        self._local = local
        self._remote = remote
        self._other: MemoryPipe = self
        self._reader: PipeReader | None = None
        self._arrived: deque[memoryview] = deque()
        self._arrived_bytes = 0
        self._is_paused = False
        self._is_ending = False  # closed, aborted or lost: nothing is written or received any more
        self._has_ended = False  # the other end will write no more
        self._is_scheduled = False
        self._is_told_full = False
        self._deadline: asyncio.TimerHandle | None = None
        self._why: str | None = None  # set when nothing remains but to tell the reader
        self._is_gone = False

    def join(self, other: MemoryPipe) -> None:
        """Let `other` be the other end."""
        self._other = other

    @property
    def peer(self) -> PeerId:
        """As `Pipe.peer`."""
        return self._peer

    @property
    def remote(self) -> Address:
        """As `Pipe.remote`."""
        return self._remote

    @property
    def local(self) -> Address:
        """As `Pipe.local`."""
        return self._local

    @property
    def unsent_bytes(self) -> int:
        """As `Pipe.unsent_bytes`: what the other end's reader has not got."""
        return self._other._arrived_bytes

    def start(self, reader: PipeReader) -> None:
        """As `Pipe.start`."""
        assert self._reader is None, "start is called once"
        self._reader = reader
        self._schedule()

    def write(self, data: bytes | bytearray) -> None:
        """As `Pipe.write`."""
        other = self._other
        if self._is_ending or other._is_ending or not data:
            return
        other._arrived.append(memoryview(data))
        other._arrived_bytes += len(data)
        other._schedule()
        self._schedule()

    def close(self) -> None:
        """As `Pipe.close`. A peer that does not read is given up after `close_timeout_s`."""
        if self._is_ending:
            return
        self._is_ending = True
        self._discard()
        self._other._has_ended = True
        self._other._schedule()
        self._deadline = self._loop.call_later(self._config.close_timeout_s, self._give_up)

    def abort(self) -> None:
        """As `Pipe.abort`."""
        self._end(_ABORTED)
        self._other._end(_UNCLEAN)

    def pause_reading(self) -> None:
        """Take nothing from the peer until `resume_reading`."""
        self._is_paused = True

    def resume_reading(self) -> None:
        """Take again what the peer has sent."""
        self._is_paused = False
        self._schedule()

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        """All that the reader hears of, it hears from here."""
        self._is_scheduled = False
        reader = self._reader
        if reader is None or self._is_gone:
            return
        self._tell_flow(reader)
        self._deliver(reader)
        if self._has_ended and not self._arrived and self._why is None:
            # All is read: both ends are over.
            self._end("")
            self._other._end("")
        if self._why is not None and not self._is_gone:
            self._is_gone = True
            reader.lost(self._why)

    def _deliver(self, reader: PipeReader) -> None:
        room = DELIVERED_BYTES
        while self._arrived and room and not self._is_paused:
            data = self._arrived.popleft()
            if len(data) > room:
                self._arrived.appendleft(data[room:])
                data = data[:room]
            size = len(data)
            room -= size
            self._arrived_bytes -= size
            self._scratch[:size] = data
            try:
                reader.received(self._scratch[:size])
            except BaseException:  # a mistake of the reader; the loop reports it
                self.abort()
                raise
        if self._arrived and not self._is_paused:
            self._schedule()
        if room < DELIVERED_BYTES:
            self._other._schedule()

    def _tell_flow(self, reader: PipeReader) -> None:
        high = self._config.send_buffer_high_bytes
        unsent = self.unsent_bytes
        if self._is_ending:
            return
        if unsent > high and not self._is_told_full:
            self._is_told_full = True
            reader.stalled()
        elif unsent <= high // 2 and self._is_told_full:
            self._is_told_full = False
            reader.resumed()

    def _end(self, why: str) -> None:
        if self._why is not None:
            return
        self._why = why
        self._is_ending = True
        self._discard()
        if self._deadline is not None:
            self._deadline.cancel()
        self._schedule()

    def _discard(self) -> None:
        self._arrived.clear()
        self._arrived_bytes = 0
        self._other._schedule()

    def _give_up(self) -> None:
        unsent = self.unsent_bytes
        self._end(f"the peer did not read the last {unsent:,} bytes in time" if unsent else "")
        self._other._end(_UNCLEAN)
