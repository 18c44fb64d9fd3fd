"""Who waits for what the machines will tell: replies, pings, probes, links to peers, their turn.

The asynchronous side of the node's commands: each gives the machines its command, and waits for the
effect that answers it. Whatever waits is told when the node stops.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias, assert_never

from meshwalk.errors import (
    Closed,
    MeshwalkError,
    NotAdmitted,
    Refused,
    TimedOut,
    Unreachable,
)
from meshwalk.proto.effects import (
    Answered,
    Dial,
    Measured,
    PeerReached,
    PeerRoom,
    PeerUnreached,
    ProbeEnded,
    ProbeOpened,
    Unanswered,
    Why,
)
from meshwalk.wire.address import Address
from meshwalk.wire.content import decode_body, encode_body
from meshwalk.wire.frames import ContentType
from meshwalk.wire.messages import RefusalCode
from meshwalk.wire.peerid import PeerId

if TYPE_CHECKING:
    from meshwalk.net.driver import Driver

Awaited: TypeAlias = (
    Unanswered | Measured | ProbeOpened | ProbeEnded | PeerReached | PeerUnreached | PeerRoom
)


class Waiters:
    """All that wait at one running node."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._loop = asyncio.get_running_loop()
        self._is_paced = driver.core.config.pacing.is_on
        self._part_max = driver.core.config.conversations.part_bytes_max
        self._requests: dict[int, asyncio.Future[tuple[ContentType, bytes]]] = {}
        self._pings: dict[int, tuple[int, asyncio.Future[float]]] = {}
        """Link and waiter, by the ping's id."""
        self._probes: dict[int, asyncio.Future[PeerId]] = {}
        self._reaching: dict[PeerId, list[asyncio.Future[None]]] = {}
        """Who waits for a link to a peer."""
        self._held_back: dict[PeerId, list[asyncio.Future[None]]] = {}
        """Who waits until less is held back for a peer: by pacing, or since it is long."""

    async def request(
        self,
        peer: PeerId,
        body: Any,
        type: str,
        timeout_s: float | None,
        *,
        reply: Any,
    ) -> Any:
        """Ask and wait for the reply. See `Node.request`."""
        return await self.answer(*self.ask(peer, body, type, timeout_s), reply)

    def ask(
        self, peer: PeerId, body: Any, type: str, timeout_s: float | None, conversation: int = 0
    ) -> tuple[int, asyncio.Future[tuple[ContentType, bytes]]]:
        """Ask: what `answer` waits for."""
        content, data = encode_body(body)
        timeout_s = self._driver.core.config.requests.timeout_s if timeout_s is None else timeout_s
        asked = self._driver.core.request(
            peer, type, content, data, timeout_s, self._driver.clock(), conversation
        )
        if asked is None:
            raise Refused(RefusalCode.BUSY, "too many of this node's requests wait already")
        request, effects = asked
        waiter: asyncio.Future[tuple[ContentType, bytes]] = self._loop.create_future()
        # Before anything is sent: sending may end the link, and with it the request.
        self._requests[request] = waiter
        self._driver.command(effects)
        return request, waiter

    async def answer(
        self, request: int, waiter: asyncio.Future[tuple[ContentType, bytes]], reply: Any
    ) -> Any:
        """Wait for the reply to what was asked."""
        try:
            answer = await waiter
        finally:
            if self._requests.pop(request, None) is not None:
                self._driver.core.abandon(request)
        return decode_body(*answer) if reply is Any else decode_body(*answer, reply)

    async def measure(self, target: PeerId | Address, timeout_s: float) -> float:
        """The round-trip time to a peer or an address. See `Node.ping`."""
        driver = self._driver
        try:
            async with asyncio.timeout(timeout_s):
                if isinstance(target, PeerId):
                    await self.reach(target)
                    link = driver.core.link_to(target)
                    return await self.ping(link.number if link is not None else 0)
                number, _ = await self.probe(target, None)
                try:
                    return await self.ping(number)
                finally:
                    driver.perform(driver.core.close_link(number, driver.clock()))
                    driver.flush()
        except TimeoutError:
            raise TimedOut(f"no answer within {timeout_s:g} s") from None

    async def ping(self, link: int) -> float:
        """Measure a link once: seconds. Raises `Closed` when it is not open or does not stay so."""
        asked = self._driver.core.ping(link, self._driver.clock())
        if asked is None:
            raise Closed("the link has closed")
        id, effects = asked
        waiter: asyncio.Future[float] = self._loop.create_future()
        self._pings[id] = link, waiter
        self._driver.perform(effects)
        self._driver.flush()
        try:
            return await waiter
        finally:
            self._pings.pop(id, None)

    async def probe(self, address: Address, expected: PeerId | None) -> tuple[int, PeerId]:
        """Open a temporary link for pings. Raises `Unreachable` or `NotAdmitted`."""
        effects = self._driver.core.probe(address, expected, self._driver.clock())
        if not effects or type(effects[0]) is not Dial:
            raise Unreachable("too many connections are being made; try again")
        link = effects[0].link
        waiter: asyncio.Future[PeerId] = self._loop.create_future()
        self._probes[link] = waiter
        self._driver.perform(effects)
        try:
            return link, await waiter
        finally:
            self._probes.pop(link, None)

    async def reach(self, peer: PeerId) -> None:
        """Have a link to any peer. Raises `Unreachable` or `NotAdmitted`."""
        if self._driver.core.link_to(peer) is not None:
            return
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._reaching.setdefault(peer, []).append(waiter)
        self._driver.command(self._driver.core.reach(peer, self._driver.clock()))
        await waiter

    async def ready_for(self, peer: PeerId, size: int = 0) -> None:
        """Have a link to any peer, and wait until it may take a message of this many bytes."""
        await self.reach(peer)
        link = self._driver.core.link_to(peer)
        if link is not None and link.number in self._driver.congested:
            await self._driver.room_for(link.number)
        while self._must_wait(peer, size):
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._held_back.setdefault(peer, []).append(waiter)
            await waiter

    def is_ready_for(self, peer: PeerId, size: int = 0) -> bool:
        """Whether `ready_for` would return at once."""
        driver = self._driver
        link = driver.core.link_to(peer)
        if link is None or (driver.congested and link.number in driver.congested):
            return False
        return not self._must_wait(peer, size)

    def _must_wait(self, peer: PeerId, size: int) -> bool:
        # A message of one part waits for the link alone, unless pacing holds it back.
        may_wait = self._is_paced or size > self._part_max
        return may_wait and self._driver.core.must_wait(peer)

    # For the driver.

    def answered(self, effect: Answered) -> None:
        """A request has its reply; the hot path."""
        waiter = self._requests.pop(effect.request, None)
        if waiter is not None and not waiter.done():
            waiter.set_result((effect.content, effect.body))

    def told(self, effect: Awaited) -> None:
        """What somebody may wait for."""
        if type(effect) is Unanswered:
            request = self._requests.pop(effect.request, None)
            if request is not None:
                _wake([request], partial(error_of, effect.why, effect.code, effect.text))
        elif type(effect) is Measured:
            _, ping = self._pings.pop(effect.ping, (0, None))
            if ping is not None and not ping.done():
                ping.set_result(effect.rtt_s)
        elif type(effect) is ProbeOpened:
            probe = self._probes.get(effect.link)
            if probe is not None and not probe.done():
                probe.set_result(effect.peer)
        elif type(effect) is ProbeEnded:
            probe = self._probes.get(effect.link)
            if probe is not None:
                error = NotAdmitted if effect.not_admitted else Unreachable
                _wake([probe], partial(error, effect.text))
        elif type(effect) is PeerReached:
            _wake(self._reaching.pop(effect.peer, []), None)
        elif type(effect) is PeerUnreached:
            error = NotAdmitted if effect.not_admitted else Unreachable
            _wake(self._reaching.pop(effect.peer, []), partial(error, effect.text))
        elif type(effect) is PeerRoom:
            _wake(self._held_back.pop(effect.peer, []), None)
        else:
            assert_never(effect)

    def link_lost(self, link: int) -> None:
        """No ping on this link will be answered."""
        lost = [waiter for on, waiter in self._pings.values() if on == link]
        _wake(lost, partial(Closed, "the link has closed"))

    def stop(self) -> None:
        """The node has stopped."""
        stopped = partial(Closed, "the node has stopped")
        _wake(self._requests.values(), stopped)
        _wake(self._probes.values(), stopped)
        _wake((waiter for _, waiter in self._pings.values()), stopped)
        for waiters in (*self._reaching.values(), *self._held_back.values()):
            _wake(waiters, stopped)


def error_of(why: Why, code: int, text: str) -> MeshwalkError:
    """What the user gets for a request or conversation that has come to nothing."""
    match why:
        case Why.TIMED_OUT:
            return TimedOut("no reply within the deadline; the peer may be busy or gone")
        case Why.LINK_LOST:
            return Closed(f"the link to the peer has closed before the end ({text or 'lost'})")
        case Why.REFUSED:
            return Refused(code, text or "the peer refused")
        case Why.UNREACHABLE:
            return Unreachable(text or "the peer cannot be reached")
        case Why.NOT_ADMITTED:
            return NotAdmitted(text or "the peer did not admit this node")
        case _:
            assert_never(why)


def _wake(
    waiters: Iterable[asyncio.Future[Any]], error: Callable[[], MeshwalkError] | None
) -> None:
    """End waiting, each with an error of its own: raising one notes in it where it was raised."""
    for waiter in waiters:
        if waiter.done():
            continue
        if error is None:
            waiter.set_result(None)
        else:
            waiter.set_exception(error())
