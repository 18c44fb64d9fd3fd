"""One end of a pipe between two machines of a simulated world.

What crosses is kept at the end that will receive it, with the time at which it arrives: bytes, and
signs such as a goodbye. When its time has come and the way is free, it is taken in order. What is
lost for good arrives at `NEVER`, and so does what was sent after it; only a reset still comes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final, Literal

from meshwalk.net.memory import DELIVERED_BYTES
from meshwalk.net.transport import PipeReader
from meshwalk.wire.address import Address
from meshwalk.wire.peerid import PeerId

if TYPE_CHECKING:
    from meshwalk.testing.wire import Handshake, WireTransport

LOOK_S: Final = 0.05  # guess: how often it looks whether what waits can cross; TCP looks less often
# What the systems of both ends take before the sender's pipe fills: Linux's default for a socket's
# send buffer, net.core.wmem_default.
SYSTEM_BUFFER_BYTES: Final = 212_992

NEVER: Final = float("inf")

_ABORTED: Final = "this node ended it at once"
_UNCLEAN: Final = "the peer ended the connection without a goodbye"
_GIVEN_UP: Final = "the network lost too much; the system gave the connection up"

Sign = Literal["established", "finished", "ended", "reset"]
"""What crosses a pipe besides bytes: its beginning, a goodbye, the answer to that, a breach."""


class WirePipe:
    """One end of a pipe. Implements `transport.Pipe`.

    After `close` or `abort` nothing more is `received`. What waits for its time, or for the way to
    be free, lies at the end that will receive it.
    """

    other: WirePipe

    def __init__(
        self,
        transport: WireTransport,
        peer: PeerId,
        local: Address,
        remote: Address,
        handshake: Handshake | None = None,
    ) -> None:
        self.host = transport.host
        self._wire = transport.wire
        self._loop = transport.wire.loop
        self._config = transport.config
        self._context = self.host.process.context.copy()
        self._peer, self._local, self._remote = peer, local, remote
        self._handshake = handshake
        self._reader: PipeReader | None = None
        self._coming: deque[tuple[float, memoryview | Sign]] = deque()
        """What the other end has sent, and when it arrives."""
        self._last_at = 0.0
        self._outstanding = 0
        """Bytes sent that the other end's reader has not got."""
        self._kept: list[memoryview | Sign] = []
        """Sent while the machine was paused."""
        self._timer: asyncio.TimerHandle | asyncio.Handle | None = None
        self._is_ending = False  # closed, aborted or lost: nothing is written or received any more
        self._is_told_full = False
        self._deadline: asyncio.TimerHandle | None = None
        self._why: str | None = None  # set when nothing remains but to tell the reader
        self._is_gone = False
        self.host.pipes[self] = None

    # As Pipe.

    @property
    def peer(self) -> PeerId:
        """As `Pipe.peer`; asserted by the world."""
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
        """As `Pipe.unsent_bytes`: what the other end has not got, less the systems' buffers."""
        return max(0, self._outstanding - SYSTEM_BUFFER_BYTES)

    def start(self, reader: PipeReader) -> None:
        """As `Pipe.start`."""
        assert self._reader is None, "start is called once"
        self._reader = reader
        self._soon()

    def write(self, data: bytes | bytearray) -> None:
        """As `Pipe.write`."""
        if self._is_ending or not data:
            return
        self._outstanding += len(data)
        self.send(memoryview(data))
        if self._outstanding > SYSTEM_BUFFER_BYTES and not self._is_told_full:
            self._soon()  # to tell the reader, if it is that much

    def close(self) -> None:
        """As `Pipe.close`. A peer that does not read is given up after `close_timeout_s`."""
        if self._is_ending:
            return
        self._is_ending = True
        self.send("finished")
        self._deadline = self._loop.call_later(
            self._config.close_timeout_s, self._give_up, context=self._context
        )

    def abort(self) -> None:
        """As `Pipe.abort`."""
        self._break(_ABORTED)

    # The world's side.

    def send(self, item: memoryview | Sign) -> None:
        """Let bytes or a sign cross to the other end."""
        to = self.other
        if self.host.is_paused:
            self._kept.append(item)
            return
        if to._is_gone:
            if item != "reset" and to.host.is_running:
                self._come(self, "reset")  # its system knows nothing of this connection
            return
        self._come(to, item)

    def resume(self) -> None:
        """The machine goes on: what it sent meanwhile leaves it."""
        kept, self._kept = self._kept, []
        for item in kept:
            self.send(item)

    def crash(self, *, silently: bool) -> None:
        """The end's process is gone at once."""
        self.other.forget_unsent()
        if not silently and self._why is None:
            self._come(self.other, "reset")
        self._kept.clear()
        self._coming.clear()
        self._end("this machine crashed")

    def forget_unsent(self) -> None:
        """Of what comes, drop what the sender's system had not taken yet."""
        room, kept = SYSTEM_BUFFER_BYTES, deque[tuple[float, memoryview | Sign]]()
        for at, item in self._coming:
            if isinstance(item, memoryview):
                item = item[:room]
                room -= len(item)
            if item:
                kept.append((at, item))
        self._coming = kept

    def _come(self, to: WirePipe, item: memoryview | Sign) -> None:
        size = len(item) if isinstance(item, memoryview) else 0
        sender, now = to.other.host, self._loop.time()
        outcome = self._wire.conditions.frame_outcome(now, sender.name, to.host.name, size)
        at = NEVER if outcome.arrives_at is None else outcome.arrives_at
        if item == "reset":
            to._forget_gap()
        if outcome.given_up_at is not None and to._last_at < NEVER:
            # RFC 9293 section 3.8.3: the other end is not told. What it sends later is answered
            # with a reset.
            end = to.other
            self._loop.call_at(outcome.given_up_at, end._end, _GIVEN_UP, context=end._context)
        to._last_at = max(to._last_at, at)  # nothing overtakes
        to._coming.append((to._last_at, item))
        to._arm(to._last_at)

    def _forget_gap(self) -> None:
        while self._coming and self._coming[-1][0] == NEVER:
            self._coming.pop()
        if self._last_at == NEVER:
            self._last_at = self._coming[-1][0] if self._coming else 0.0

    def _arm(self, at: float) -> None:
        if self._timer is None and at < NEVER:  # else a turn is due already, and arms anew
            self._timer = self._loop.call_at(at, self._turn, context=self._context)

    def _soon(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_soon(self._turn, context=self._context)

    def _turn(self) -> None:
        """All that the reader hears of, it hears from here."""
        self._timer = None
        if self._is_gone:
            return
        if self._reader is not None:
            self._tell_flow(self._reader)
        self._take()
        reader = self._reader  # there now, if the pipe has just been accepted
        if self._why is not None and reader is not None:
            self._leave()
            reader.lost(self._why)

    def _take(self) -> None:
        coming, now = self._coming, self._loop.time()
        room = DELIVERED_BYTES
        while coming and self._why is None:
            at, item = coming[0]
            if at > now:
                self._arm(at)
                return
            if self._wire.is_blocked(self.other.host, self.host):
                self._arm(now + LOOK_S)
                return
            if self._reader is None and item != "established":
                return  # `start` looks again
            if not room:
                self._soon()
                return
            coming.popleft()
            if isinstance(item, memoryview):
                if len(item) > room:
                    coming.appendleft((at, item[room:]))
                    item = item[:room]
                room -= len(item)
                self._deliver(item)
            else:
                self._obey(item)

    def _deliver(self, data: memoryview) -> None:
        size, other = len(data), self.other
        other._outstanding -= size
        if other._is_told_full and not other._is_gone:
            other._soon()
        reader = self._reader
        if self._is_ending or reader is None:
            return
        scratch = self._wire.scratch
        scratch[:size] = data
        try:
            reader.received(scratch[:size])
        except BaseException:  # a mistake of the reader; the loop reports it
            self.abort()
            raise

    def _obey(self, sign: Sign) -> None:
        if sign == "established":
            assert self._handshake is not None
            self._handshake.accept(self)
        elif sign == "finished":
            if not self._is_ending:  # of two that close, neither needs the other's answer
                self.send("ended")
            self._end("")
        elif sign == "ended":
            self._end("")
        else:
            self._end(_UNCLEAN)

    def _tell_flow(self, reader: PipeReader) -> None:
        if self._is_ending or (self._outstanding <= SYSTEM_BUFFER_BYTES and not self._is_told_full):
            return
        high = self._config.send_buffer_high_bytes
        if self.unsent_bytes > high and not self._is_told_full:
            self._is_told_full = True
            reader.stalled()
        elif self.unsent_bytes <= high // 2 and self._is_told_full:
            self._is_told_full = False
            reader.resumed()

    def _break(self, why: str) -> None:
        if self._why is None and not self._is_gone:
            self.other.forget_unsent()
            self.send("reset")
            self._end(why)

    def _end(self, why: str) -> None:
        if self._why is not None or self._is_gone:
            return
        self._why = why
        self._is_ending = True
        self._outstanding = 0
        if self._deadline is not None:
            self._deadline.cancel()
        self._soon()

    def _leave(self) -> None:
        self._is_gone = True
        self._coming.clear()
        self.host.pipes.pop(self, None)

    def _give_up(self) -> None:
        unsent = self._outstanding
        self._break(f"the peer did not read the last {unsent:,} bytes in time" if unsent else "")
