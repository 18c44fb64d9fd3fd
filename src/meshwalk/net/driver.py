"""The only place where effects become I/O: feed the node, perform effects, arm one timer.

Reading: a pipe's bytes are split into frames and given to the machines in the same call, and what
they want sent is written before it returns; no task or queue lies between. What the application
sends within one turn of the loop is joined into one write per link, but for the first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Protocol

from meshwalk.errors import MalformedFrame, NotAdmitted, TimedOut, Unreachable
from meshwalk.events import Delivery, Event
from meshwalk.net.broadcasting import Broadcasting
from meshwalk.net.connection import LOOK_AGAIN_S, Connection
from meshwalk.net.conversing import Conversing
from meshwalk.net.surveying import Surveying
from meshwalk.net.transport import Pipe, Transport
from meshwalk.net.waiters import Awaited, Waiters
from meshwalk.proto.effects import (
    Answered,
    Ask,
    AskGone,
    BroadcastsMissed,
    ConversationHeard,
    Deliver,
    Dial,
    Effect,
    ForgetPeer,
    Happened,
    KeepBroadcast,
    Readers,
    ReceiptCame,
    SavePeer,
    Send,
    Shut,
    WantRoom,
)
from meshwalk.proto.node import NodeCore
from meshwalk.wire.address import Address
from meshwalk.wire.codec import append_frame, encode_frame
from meshwalk.wire.frames import Channel, Frame, Message
from meshwalk.wire.peerid import PeerId

_BROADCAST = Channel.BROADCAST  # a global is found faster than a class's attribute
JOINED_BYTES_MAX = 64 << 10  # guess: four TLS records; more is written at once and not gathered
YIELD_BYTES = 256 << 10  # guess: a quarter of a millisecond of bulk
YIELD_COST_BYTES = 576  # measured: what a message costs beyond its bytes, so some 400 small ones
CLOCK_STEP_S = 1.0  # guess: more than a clock drifts between two looks, less than anyone minds


class Application(Protocol):
    """Whom the driver tells what the machines have for the application. Called on the loop."""

    def delivered(self, delivery: Delivery, readers: Readers) -> None:
        """A message for some of the readers; its body is still bytes."""

    def broadcast_kept(self, change: KeepBroadcast) -> None:
        """A broadcast to keep in the store."""

    def broadcasts_missed(self, effect: BroadcastsMissed) -> None:
        """Broadcasts that could not be had any more."""

    def happened(self, event: Event) -> None:
        """News."""

    def asked(self, ask: Ask) -> None:
        """A peer's request."""

    def ask_gone(self, peer: PeerId, request: int) -> None:
        """Nobody waits for the answer to this request any more."""

    def peer_changed(self, change: SavePeer | ForgetPeer) -> None:
        """Something to keep in the store."""


class Driver:
    """Runs one `NodeCore` on an asyncio event loop. Also decides, as `Acceptor`, by asking it."""

    def __init__(
        self,
        core: NodeCore,
        transport: Transport,
        application: Application,
        conversing: Conversing,
        spawn: Callable[[asyncio.Task[None]], None],
        clock: Callable[[], float],
        unix_clock: Callable[[], float],
    ) -> None:
        self.core = core
        self.clock = clock
        self._unix_clock = unix_clock
        self._unsent_max = core.config.link.send_buffer_bytes_max
        self.connections: dict[int, Connection] = {}
        self.congested: set[int] = set()
        """Links that a writer should not add to; kept by their connections."""
        self._transport = transport
        self._application = application
        self._conversing = conversing
        self._spawn = spawn
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._armed_at = float("inf")
        self._timers_seen = -1
        self._dirty: list[Connection] = []
        self._is_joining = False
        self._is_reading = False
        self._last_frame: Frame | None = None
        self._last_bytes = b""
        self._dials: dict[int, asyncio.Task[None]] = {}
        self._wanting: list[Connection] = []
        """Connections whose machines want to know when there is room."""
        self._gathered = 0
        self.waiters = Waiters(self)
        self.broadcasting = Broadcasting(self)
        self._all_gone: asyncio.Event = asyncio.Event()
        self._surveying: Surveying | None = None

    # As Acceptor.

    def admit(self, remote: Address) -> int | None:
        link = self.core.admit(remote, self.clock())
        self.arm()
        return link

    def handshake_failed(self, link: int, why: str) -> None:
        self.perform(self.core.lost(link, why, self.clock()))

    def accepted(self, link: int, pipe: Pipe) -> None:
        self._attach(link, pipe)

    # Running the machines.

    def received(self, connection: Connection, data: memoryview) -> None:
        """Bytes of a link: its frames, what they lead to, and what is sent because of them."""
        self._is_reading = True
        try:
            frames = connection.frames.feed(data)
            if frames:
                self.perform(self.core.receive(connection.link, frames, self.clock()))
        except MalformedFrame as error:
            self.perform(self.core.malformed(connection.link, str(error), self.clock()))
        finally:
            self._is_reading = False
        self.flush()

    def perform(self, effects: list[Effect]) -> None:
        """Perform effects in order; frames are gathered until `flush`."""
        conversations = self._conversing.open_now
        for effect in effects:
            if type(effect) is Send:
                self._send(effect)
            elif type(effect) is Deliver:
                self._application.delivered(effect.delivery, effect.readers)
            elif type(effect) is ConversationHeard:
                conversation = conversations.get(effect.conversation)
                if conversation is not None:
                    conversation.heard(effect)
            elif type(effect) is Ask:
                self._application.asked(effect)
            elif type(effect) is Answered:
                self.waiters.answered(effect)
            else:
                self._perform_rare(effect)
        if self.core.timers.changes != self._timers_seen:
            self.arm()

    def command(self, effects: list[Effect]) -> None:
        """Perform what a call of the application led to.

        The first frames of a turn of the loop go out at once, so that a lone request does not wait;
        what follows in the same turn is joined and goes out at its end.
        """
        self.perform(effects)
        if (self._dirty or self._wanting) and not (self._is_reading or self._is_joining):
            self._is_joining = True
            self._loop.call_soon(self._end_of_turn)
            self.flush()

    def flush(self) -> None:
        """Write what was gathered, one write per link."""
        while True:
            while self._dirty:
                connection = self._dirty.pop()
                connection.is_dirty = False
                self._write(connection)
            if not self._wanting:
                return
            connection = self._wanting.pop()
            connection.has_room_or_waits()

    def must_yield(self, size: int) -> bool:
        """Whether a writer that has just sent so many bytes should let others run."""
        self._gathered += size + YIELD_COST_BYTES
        if self._gathered < YIELD_BYTES:
            return False
        self._gathered = 0
        return True

    def arm(self) -> None:
        """Set the timer for the machines' next deadline if it is earlier than the one set."""
        self._timers_seen = self.core.timers.changes
        at = self.core.deadline()
        if at is None or at >= self._armed_at:
            return  # a timer that comes too early finds nothing due and is set again
        if self._timer is not None:
            self._timer.cancel()
        self._armed_at = at
        self._timer = self._loop.call_later(max(0.0, at - self.clock()), self._tick)

    def survey(self, hosts: Callable[[Iterable[str]], list[str]]) -> None:
        """Tell the machines at which hosts this one is, from now on; see `Surroundings.hosts`."""
        self._surveying = Surveying(self, hosts)
        self._surveying.look()

    # For the application.

    async def room_for(self, link: int) -> None:
        """Wait until this link is not congested, or is gone."""
        connection = self.connections.get(link)
        while connection is not None and connection.is_congested():
            await asyncio.wait([connection.wait_for_room()], timeout=LOOK_AGAIN_S)
            connection = self.connections.get(link)

    async def room_for_broadcast(self) -> None:
        """Wait until no neighbour's link is congested, but for those that take nothing at all.

        A peer that reads slowly makes the writer slow; one that does not read holds it for
        `writer_patience_s` once, and then its link's own bounds end it.
        """
        patience_s = self.core.config.link.writer_patience_s
        while True:
            since = self.clock() - patience_s
            waiters = [
                connection.wait_for_room()
                for neighbour in self.core.overlay.membership.neighbours.values()
                if neighbour.link.number in self.congested
                and (connection := self.connections.get(neighbour.link.number)) is not None
                and connection.is_congested()
                and connection.progress_at > since
            ]
            if not waiters:
                return
            await asyncio.wait(waiters, timeout=LOOK_AGAIN_S, return_when=asyncio.FIRST_COMPLETED)
            for waiter in waiters:
                waiter.cancel()

    async def leave(self, timeout_s: float) -> None:
        """Close every link in good order; after `timeout_s` those that are left, at once."""
        self._all_gone.clear()
        try:
            self.perform(self.core.leave(self.clock()))
            self.flush()
            self.broadcasting.stop()
            if self.connections:
                try:
                    async with asyncio.timeout(timeout_s):
                        await self._all_gone.wait()
                except TimeoutError:
                    for connection in list(self.connections.values()):
                        connection.pipe.abort()
        finally:  # whatever has gone wrong: nobody waits for a node that has stopped
            if self._timer is not None:
                self._timer.cancel()
                self._armed_at = float("-inf")  # never armed again
            self._look_no_more()
            self.waiters.stop()
            self.broadcasting.stop()
            self._conversing.stop()

    def abort(self) -> None:
        """Drop every link at once, as a crash would."""
        self._armed_at = float("-inf")
        self._look_no_more()
        if self._timer is not None:
            self._timer.cancel()
        for task in self._dials.values():
            task.cancel()
        for connection in list(self.connections.values()):
            connection.pipe.abort()

    def pipe_lost(self, link: int) -> None:
        """A pipe has gone; told by its connection."""
        self.waiters.link_lost(link)
        if not self.connections:
            self._all_gone.set()

    # Steps.

    def _perform_rare(self, effect: Effect) -> None:
        if type(effect) is Dial:
            self._dials[effect.link] = task = self._loop.create_task(self._dial(effect))
            self._spawn(task)
        elif type(effect) is Shut:
            self._shut(effect)
        elif type(effect) is Happened:
            self._application.happened(effect.event)
        elif type(effect) is SavePeer or type(effect) is ForgetPeer:
            self._application.peer_changed(effect)
        elif type(effect) is KeepBroadcast:
            self._application.broadcast_kept(effect)
        elif type(effect) is ReceiptCame:
            self.broadcasting.told(effect)
        elif type(effect) is BroadcastsMissed:
            self._application.broadcasts_missed(effect)
        elif type(effect) is AskGone:
            self._application.ask_gone(effect.peer, effect.id)
        elif type(effect) is WantRoom:
            connection = self.connections.get(effect.link)
            if connection is not None:
                self._wanting.append(connection)
        elif isinstance(effect, Awaited):
            self.waiters.told(effect)
        else:
            performed = Send | Deliver | Ask | Answered | ConversationHeard
            assert not isinstance(effect, performed)
            self._conversing.told(effect, self)

    def _send(self, send: Send) -> None:
        connection = self.connections.get(send.link)
        if connection is None:
            return
        frame = send.frame
        out = connection.out
        if type(frame) is not Message or frame.channel is not _BROADCAST:
            append_frame(frame, out)
        else:  # a flood sends one frame over many links: encode it once
            if frame is not self._last_frame:
                self._last_bytes = encode_frame(frame)
                self._last_frame = frame
            out += self._last_bytes
        if not connection.is_dirty:
            connection.is_dirty = True
            self._dirty.append(connection)
        if len(out) >= JOINED_BYTES_MAX:
            self._write(connection)

    def _write(self, connection: Connection) -> None:
        data, connection.out = connection.out, bytearray()
        if not data:
            return
        connection.pipe.write(data)
        connection.written += len(data)
        if connection.is_congested() and connection.unsent > self._unsent_max:
            self.perform(self.core.overflowed(connection.link, self.clock()))

    def _shut(self, shut: Shut) -> None:
        task = self._dials.pop(shut.link, None)
        if task is not None:
            task.cancel()
        connection = self.connections.get(shut.link)
        if connection is None:
            return
        if shut.at_once:
            connection.pipe.abort()
        else:
            self._write(connection)
            connection.pipe.close()

    async def _dial(self, dial: Dial) -> None:
        try:
            pipe = await self._transport.dial(dial.address, dial.expected)
        except NotAdmitted as error:
            self.perform(self.core.lost(dial.link, str(error), self.clock(), not_admitted=True))
        except (Unreachable, TimedOut) as error:
            self.perform(self.core.lost(dial.link, str(error), self.clock()))
        else:
            self._attach(dial.link, pipe)
        finally:
            self._dials.pop(dial.link, None)
            self.flush()

    def _attach(self, link: int, pipe: Pipe) -> None:
        connection = Connection(self, link, pipe)
        self.connections[link] = connection
        if self._surveying is not None and pipe.local.host not in self.core.own_record.hosts:
            # This machine has an address anew: in place of another one? Or it has more of them than
            # are kept, and then each connection says so.
            self._surveying.look_soon()
        pipe.start(connection)
        effects = self.core.secured(link, pipe.peer, pipe.remote, pipe.local.host, self.clock())
        self.perform(effects)
        self.flush()

    def _tick(self) -> None:
        self._armed_at = float("inf")
        now = self.clock()
        self._mind_the_calendar(now)
        for connection in self.connections.values():
            if connection.congested_at is not None:
                connection.is_congested()  # has it taken anything since?
        self.perform(self.core.tick(now))
        self.arm()
        self.flush()

    def _mind_the_calendar(self, now: float) -> None:
        # Machine time stands still while a machine sleeps, and calendars are set.
        offset_s = self._unix_clock() - now
        if abs(offset_s - self.core.unix_offset_s) > CLOCK_STEP_S:
            self.perform(self.core.calendar_set(offset_s, now))
            if self._surveying is not None:  # it has slept, perhaps, and been carried elsewhere
                self._surveying.look()

    def _look_no_more(self) -> None:
        if self._surveying is not None:
            self._surveying.stop()

    def _end_of_turn(self) -> None:
        self._is_joining = False
        self.flush()
