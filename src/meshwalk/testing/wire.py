"""Pipes between the machines of a simulated world: in memory, on virtual time, over bad networks.

They keep the contract of `net/transport.py`. How long bytes take and what cannot cross is asked of
`sim/conditions.py`, once for each write. A pipe is a reliable stream as TCP's: order is kept, what
is lost comes later, and what cannot cross waits. Nothing is encrypted: who is at the other end is
asserted by the world and not proven.

A dial takes the steps of `sim/dialling.py`: a SYN that gets no answer goes again after 1, 3 and 7
seconds, and the acceptor is asked to admit the dialler after three crossings. Unlike there, nobody
listening is heard of after two, and an address that no machine has is refused at once: in a test
that is a mistake, which a silence of ten seconds would hide.

What a machine hears of, it hears of in its own process, so nothing is told to one that is paused.
The pipes themselves are in pipe.py.
"""

from __future__ import annotations

import asyncio
import itertools
from typing import Final

from meshwalk.config import LinkConfig
from meshwalk.errors import AddressInUse, InvalidArgument, NotAdmitted, TimedOut, Unreachable
from meshwalk.net.memory import DELIVERED_BYTES, EPHEMERAL_PORT_MIN
from meshwalk.net.transport import Acceptor, Listener, Pipe
from meshwalk.sim.conditions import Conditions, dial_retry_at
from meshwalk.testing.loop import VirtualTimeLoop
from meshwalk.testing.pipe import LOOK_S, WirePipe
from meshwalk.testing.process import Process
from meshwalk.wire.address import Address
from meshwalk.wire.peerid import PeerId

FLIGHT_BYTES: Final = 1_000  # guess: certificates and keys in a flight of the TLS handshake


class Host:
    """One machine on the wire."""

    def __init__(self, name: str) -> None:
        self.name = name
        """The host part of its addresses."""
        self.process = Process(name)
        self.is_paused = False
        self.is_running = False
        """Whether its node's process lives: if not, dials are refused."""
        self.has_vanished = False
        """Whether it answers nothing at all."""
        self.pipes: dict[WirePipe, None] = {}


class Wire:
    """The network between hosts."""

    def __init__(self, loop: VirtualTimeLoop, conditions: Conditions) -> None:
        self.loop = loop
        self.conditions = conditions
        self.hosts: dict[str, Host] = {}
        self.listeners: dict[Address, WireListener] = {}
        self.scratch = memoryview(bytearray(DELIVERED_BYTES))
        self._ports = itertools.count(EPHEMERAL_PORT_MIN)

    def free_port(self) -> int:
        """A port that nobody has had; begins anew when all have been used."""
        return EPHEMERAL_PORT_MIN + next(self._ports) % (65_536 - EPHEMERAL_PORT_MIN)

    def is_blocked(self, sender: Host, receiver: Host) -> bool:
        """Whether nothing crosses between two machines now."""
        conditions = self.conditions
        return conditions.blocks_anything and not conditions.can_cross(sender.name, receiver.name)

    async def knock(self, sender: Host, receiver: Host) -> None:
        """Send SYNs until one has arrived, to which the answer arrives, too; or never return."""
        for tries in itertools.count(1):
            now = self.loop.time()
            outcome = self.conditions.dial_outcome(now, sender.name, receiver.name, tries)
            if outcome.arrives_at is not None:
                await asyncio.sleep(outcome.arrives_at - now)
                if not self._is_closed_to(sender, receiver):
                    return
            again_at = dial_retry_at(now, tries)
            if again_at is None:
                await asyncio.Event().wait()
            else:
                await asyncio.sleep(again_at - self.loop.time())

    async def answer(self, sender: Host, receiver: Host) -> None:
        """The answer to a SYN, of which `knock` has seen to it that it is not lost."""
        await asyncio.sleep(self.conditions.delay_s(sender.name, receiver.name))
        await self._opening(sender, receiver)

    async def cross(self, sender: Host, receiver: Host, size: int = FLIGHT_BYTES) -> None:
        """One flight of a handshake; never returns when it does not arrive."""
        now = self.loop.time()
        outcome = self.conditions.frame_outcome(now, sender.name, receiver.name, size)
        if outcome.arrives_at is None:
            await asyncio.Event().wait()
        else:
            await asyncio.sleep(outcome.arrives_at - now)
            await self._opening(sender, receiver)

    async def _opening(self, sender: Host, receiver: Host) -> None:
        """Wait for as long as nothing can cross."""
        while self._is_closed_to(sender, receiver):  # noqa: ASYNC110 # nobody tells of changes
            await asyncio.sleep(LOOK_S)

    def _is_closed_to(self, sender: Host, receiver: Host) -> bool:
        return receiver.has_vanished or receiver.is_paused or self.is_blocked(sender, receiver)

    def crash(self, host: Host, *, silently: bool) -> None:
        """End every pipe of a host, told to the other ends unless the machine goes `silently`."""
        for address in [a for a, listener in self.listeners.items() if listener.host is host]:
            del self.listeners[address]
        for pipe in list(host.pipes):
            pipe.crash(silently=silently)
        host.is_running = False
        host.has_vanished = silently


class WireTransport:
    """Makes pipes as `peer_id` on one host. Implements `transport.Transport`."""

    def __init__(
        self, wire: Wire, host: Host, peer_id: PeerId, network_id: bytes, config: LinkConfig
    ) -> None:
        self.wire = wire
        self.host = host
        self.peer_id = peer_id
        self.network_id = network_id
        self.config = config

    async def listen(self, address: Address, acceptor: Acceptor) -> Listener:
        """As `Transport.listen`; the acceptor is told of everything in the host's process."""
        if address.host != self.host.name:
            raise InvalidArgument(
                f"this machine is {self.host.name}; it cannot listen at {address}"
            )
        where = Address(address.host, address.port or self.wire.free_port())
        if where in self.wire.listeners:
            raise AddressInUse(f"{where} is taken; choose another port")
        self.wire.loop.adopt(acceptor, self.host.process)
        self.wire.listeners[where] = listener = WireListener(self, where, acceptor)
        return listener

    async def dial(self, address: Address, expected: PeerId | None) -> Pipe:
        """As `Transport.dial`: TCP's handshake and TLS 1.3's take two round trips."""
        timeout_s = self.config.connect_timeout_s + self.config.handshake_timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                return await self._dial(address, expected)
        except TimeoutError:
            raise TimedOut(f"{address} did not answer in time") from None

    async def _dial(self, address: Address, expected: PeerId | None) -> Pipe:
        wire, here = self.wire, self.host
        there = wire.hosts.get(address.host)
        if there is None:
            raise Unreachable(f"there is no machine at {address}")
        await wire.knock(here, there)  # SYN
        is_heard = address in wire.listeners
        await wire.answer(there, here)  # SYN and ACK, or a reset
        if not is_heard:
            raise Unreachable(f"nobody listens at {address}")
        await wire.cross(here, there)  # ClientHello, on the heels of the ACK
        listener = wire.listeners.get(address)
        remote = Address(here.name, wire.free_port())
        handshake = None if listener is None else listener.admit(remote)
        if listener is None or handshake is None:
            await wire.cross(there, here)
            raise Unreachable(f"{address}: the other end closed the connection at once")
        try:
            await wire.cross(there, here)  # ServerHello to Finished (RFC 8446 section 2)
            if (refusal := listener.refusal(self, expected)) is not None:
                raise NotAdmitted(f"{address}: {refusal}")
        except BaseException:
            handshake.fail("the other end broke off the handshake")
            raise
        return handshake.joined(self, address)


class WireListener:
    """Where a `WireTransport` listens. Implements `transport.Listener`."""

    def __init__(self, transport: WireTransport, address: Address, acceptor: Acceptor) -> None:
        self.transport = transport
        self.host = transport.host
        self.acceptor = acceptor
        self.handshakes: dict[Handshake, None] = {}
        self._address = address

    @property
    def address(self) -> Address:
        """As `Listener.address`."""
        return self._address

    async def close(self) -> None:
        """As `Listener.close`."""
        listeners = self.transport.wire.listeners
        if listeners.get(self._address) is self:
            del listeners[self._address]
        for handshake in list(self.handshakes):
            handshake.fail("this node stopped listening")

    def admit(self, remote: Address) -> Handshake | None:
        """Begin a handshake, if the acceptor takes it."""
        link = self.host.process.run(self.acceptor.admit, remote)
        return None if link is None else Handshake(self, remote, link)

    def refusal(self, dialler: WireTransport, expected: PeerId | None) -> str | None:
        """Why the two ends do not shake hands, if they do not."""
        own = self.transport
        if own.network_id != dialler.network_id:
            return "the other end has another network or secret"
        if expected is not None and expected != own.peer_id:
            return f"{own.peer_id.short} answered and {expected.short} was expected"
        return None


class Handshake:
    """A connection that was admitted and is no pipe yet, as its acceptor sees it."""

    def __init__(self, listener: WireListener, remote: Address, link: int) -> None:
        self._listener = listener
        self._remote = remote
        self._link = link
        listener.handshakes[self] = None
        transport = listener.transport
        self._timer = transport.wire.loop.call_later(
            transport.config.handshake_timeout_s,
            self.fail,
            "the other end did not finish the handshake in time",
            context=transport.host.process.context.copy(),
        )

    @property
    def is_over(self) -> bool:
        """Whether it became a pipe or failed."""
        return self not in self._listener.handshakes

    def fail(self, why: str) -> None:
        """Tell the acceptor that it came to nothing, unless it is over already."""
        if not self.is_over:
            self._end()
            listener = self._listener
            listener.host.process.run(listener.acceptor.handshake_failed, self._link, why)

    def joined(self, dialler: WireTransport, address: Address) -> WirePipe:
        """The dialler's end; the acceptor gets its own when the last flight has arrived there."""
        own = self._listener.transport
        here = WirePipe(dialler, own.peer_id, self._remote, address)
        there = WirePipe(own, dialler.peer_id, address, self._remote, self)
        here.other, there.other = there, here
        here.send("established")
        return here

    def accept(self, pipe: WirePipe) -> None:
        """The last flight has arrived."""
        if self.is_over:
            pipe.abort()
        else:
            self._end()
            self._listener.acceptor.accepted(self._link, pipe)

    def _end(self) -> None:
        self._timer.cancel()
        del self._listener.handshakes[self]
