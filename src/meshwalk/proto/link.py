"""One connection: its life cycle, greeting, and the reason it ends.

Everything that decides what a link may do next is in this file; what pings tell is in `pinging.py`.
It does not know who else exists or what a message says, and treats dialled and accepted pipes alike
but for who greets first.

    SECURING --secured--> GREETING --hello--> OPEN --close--> CLOSING --close or timer--> CLOSED
        |                    |                  |                                           ^
        `---- failed --------`------- lost -----`-------------------------------------------'

In CLOSING the link says nothing more. If it was open it still hears messages, so that a link which
loses to its twin (both ends dialled) loses none; one that was refused hears nothing.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, ClassVar, Final, TypeAlias, final

import msgspec

from meshwalk.config import DetectionConfig, LinkConfig
from meshwalk.proto.effects import Effect, Send, Shut
from meshwalk.proto.pinging import Pinging, Silence
from meshwalk.wire.address import Address
from meshwalk.wire.frames import (
    CONVERSING_PURPOSES,
    PROTOCOL_VERSION,
    STANDING_PURPOSES,
    Close,
    CloseReason,
    Credit,
    Frame,
    Hello,
    Message,
    Ping,
    Pong,
    Purpose,
)
from meshwalk.wire.peerid import PeerId
from meshwalk.wire.text import printable


class LinkState(enum.IntEnum):
    """See the drawing at the top of the file. Integers, since an `Enum` hashes in Python."""

    SECURING = enum.auto()
    GREETING = enum.auto()
    OPEN = enum.auto()
    CLOSING = enum.auto()
    CLOSED = enum.auto()


# For hot paths: Python 3.11 takes 75 ns to find an Enum's member by its class, a global takes 5.
OPEN: Final = LinkState.OPEN


# News, from a link to the connection table.


@final
class Asked(msgspec.Struct, frozen=True):
    """The dialler has greeted: `consent` or `close`."""

    hello: Hello


@final
class Opened(msgspec.Struct, frozen=True):
    """Both ends have greeted."""

    hello: Hello


@final
class Arrived(msgspec.Struct, frozen=True, gc=False):
    """A message, or credit for one."""

    message: Message | Credit


@final
class Ended(msgspec.Struct, frozen=True):
    """The link is over for everyone above. Comes once."""

    reason: CloseReason | None
    """None: the connection broke or was never made."""
    text: str
    by_us: bool
    was_open: bool
    not_admitted: bool = False


News: TypeAlias = Asked | Opened | Arrived | Silence | Ended

# Closing for one of these, nothing that the peer still says matters, or it does not read.
_CLOSED_AT_ONCE: Final = frozenset(
    {
        CloseReason.SELF,
        CloseReason.MALFORMED,
        CloseReason.PROTOCOL,
        CloseReason.IDLE,
        CloseReason.SLOW,
        CloseReason.RATE,
        CloseReason.DISTRUSTED,
        CloseReason.VERSION,
    }
)
_DETECTION: Final = DetectionConfig()  # for a link of no table, such as a node's to itself


class Link(Pinging):
    """One end of one connection."""

    __slots__ = (
        "_over",
        "_was_open",
        "attempt",
        "delay_least_s",
        "delay_s",
        "expected",
        "is_standing",
        "local_host",
        "may_converse",
        "messages_in",
        "messages_out",
        "outbound",
        "peer",
        "purpose",
        "record",
        "remote",
        "retires_at",
        "room",
        "since",
        "stalled_at",
        "state",
        "token",
        "used_at",
        "wants_room",
    )

    def __init__(
        self,
        number: int,
        config: LinkConfig,
        out: list[Effect],
        new_id: Callable[[], int],
        *,
        outbound: bool,
        remote: Address,
        now: float,
        purpose: Purpose = Purpose.STANDING,
        token: bytes = b"",
        expected: PeerId | None = None,
        detection: DetectionConfig = _DETECTION,
        phase_s: float | None = None,
    ) -> None:
        super().__init__(number, config, detection, out, new_id, now, phase_s)
        self.outbound = outbound
        self.remote = remote
        self.purpose = purpose
        self.is_standing = purpose in STANDING_PURPOSES
        """Whether the link is meant to make its ends neighbours."""
        self.may_converse = purpose in CONVERSING_PURPOSES
        """Whether it may carry messages of applications."""
        self.token = token
        self.expected = expected
        self.state = LinkState.SECURING
        self.peer: PeerId | None = None
        self.local_host = ""
        """The host of this machine that the link uses; "" before its pipe is there."""
        self.record = b""
        self.attempt = 0
        """The number under which whoever had it dialled knows it; 0 for accepted links."""
        self.since = now
        self.stalled_at: float | None = None
        self.retires_at: float | None = None
        """Set when the link has lost to its twin, and its peer is to close it: the latest time."""
        self.messages_in = 0
        self.messages_out = 0
        self.room = config.send_buffer_high_bytes
        """Bytes that conversations may add to what waits in the pipe, as far as is known here."""
        self.wants_room = False
        """Whether the driver has been asked to say when there is more."""
        self.used_at = now
        """When a temporary link last carried a message, or was last needed."""
        self.delay_s: float | None = None
        """How long messages were on their way lately: smoothed as round trips are (RFC 6298)."""
        self.delay_least_s = 0.0
        """The least that one took. What `delay_s` is above it, they waited in some queue, as RFC
        6817 (LEDBAT) has it; and so it does not matter how far the clocks are apart."""
        self._over = False  # Ended has been said
        self._was_open = False

    @property
    def is_open(self) -> bool:
        """Whether messages may be sent."""
        return self.state is OPEN

    @property
    def is_pinged(self) -> bool:
        """Whether it may be silent for long and still be needed: then pings show that it lives."""
        return self.is_standing or self.purpose is Purpose.CONVERSATION

    @property
    def queueing_s(self) -> float | None:
        """How long messages wait in some queue on their way here; None before the first."""
        return None if self.delay_s is None else self.delay_s - self.delay_least_s

    # Inputs.

    def secured(self, peer: PeerId, hello: Hello | None, now: float) -> None:
        """The pipe is there and the peer proven. A dialler says `hello` now; an acceptor waits."""
        assert self.state is LinkState.SECURING
        self.state = LinkState.GREETING
        self.peer = peer
        self.since = self.heard_at = now
        if hello is not None:
            self._out.append(Send(self.number, hello))

    def consent(self, hello: Hello, now: float) -> None:
        """Answer the dialler's hello: the link is open."""
        self._out.append(Send(self.number, hello))
        self._open(now)

    def receive(self, frame: Frame, now: float) -> News | None:
        """A frame from the peer."""
        handler = self._HANDLERS[self.state].get(type(frame))
        if handler is not None:
            self.heard_at = now
            return handler(self, frame, now)
        if self.state is LinkState.CLOSED:
            return None
        kind = type(frame).__name__
        return self.close(
            CloseReason.PROTOCOL, f"{kind} is not allowed in {self.state.name.lower()}", now
        )

    def arrived(self, sent_at_us: int, now: float) -> None:
        """A message has come: note how long it was on its way. One of each batch is enough."""
        delay_s = now - self.peer_epoch_s - sent_at_us * 1e-6
        if self.delay_s is None:
            self.delay_s = self.delay_least_s = delay_s
            return
        self.delay_s += (delay_s - self.delay_s) / 8
        if delay_s < self.delay_least_s:
            self.delay_least_s = delay_s

    def retire(self, now: float) -> None:
        """The link lost to its twin, whose dialler closes it; if that fails to come, we do."""
        self.retires_at = now + self._config.close_timeout_s

    def doubt(self, late_s: float, now: float) -> None:
        """This end has slept, or stood still for `late_s`; the peer had no part in that.

        No time-out counts what it stood still, and silence is judged by a ping that is sent now.
        Short spells between long stops add up, so that they end a dead link as one long spell does.
        """
        self.heard_at = min(now, self.heard_at + late_s)
        if self.state is not OPEN:
            self.since = min(now, self.since + late_s)
            return
        self.used_at = min(now, self.used_at + late_s)
        if self.stalled_at is not None:
            self.stalled_at = min(now, self.stalled_at + late_s)
        if self.retires_at is not None:
            self.retires_at += late_s
        if self.is_pinged:
            self.ping_anew(now)

    def close(self, reason: CloseReason, text: str, now: float) -> News | None:
        """End the link with a reason that the peer is told."""
        if self.state is LinkState.CLOSING and reason in _CLOSED_AT_ONCE:
            self.state = LinkState.CLOSED
            self._out.append(Shut(self.number, at_once=True))
            return None
        if self.state is LinkState.SECURING:
            self.state = LinkState.CLOSED
            self._out.append(Shut(self.number, at_once=True))
            return self._ended(reason, text, by_us=True, was_open=False)
        if self.state not in (LinkState.GREETING, LinkState.OPEN):
            return None
        was_open = self.state is OPEN
        self._out.append(Send(self.number, Close(int(reason), printable(text))))
        if reason in _CLOSED_AT_ONCE:
            self.state = LinkState.CLOSED
            does_not_read = reason in (CloseReason.SLOW, CloseReason.IDLE)
            self._out.append(Shut(self.number, at_once=does_not_read))
        else:
            self.state = LinkState.CLOSING
            self.since = now
        return self._ended(reason, text, by_us=True, was_open=was_open)

    def lost(self, why: str, *, not_admitted: bool = False) -> News | None:
        """The pipe is gone, or was never made."""
        was_open = self.state is OPEN
        self.state = LinkState.CLOSED
        text = why or "the peer ended the connection"
        return self._ended(None, text, by_us=False, was_open=was_open, not_admitted=not_admitted)

    def tick(self, now: float) -> News | None:
        """Its deadline has come: ping, or give up."""
        config = self._config
        if self.state is not OPEN:
            return self._tick_not_open(now)
        if self.stalled_at is not None and now >= self.stalled_at + config.stall_timeout_s:
            return self.close(CloseReason.SLOW, "the peer does not read", now)
        if self.retires_at is not None and now >= self.retires_at:
            return self.close(CloseReason.DUPLICATE, "", now)
        if self.is_pinged:
            if now >= self.heard_at + config.idle_timeout_s:
                return self.close(CloseReason.IDLE, "nothing heard for too long", now)
            if not self.is_standing and now >= self.used_at + config.temporary_timeout_s:
                return self.close(CloseReason.DONE, "unused", now)
            news = self.judge(now) if self.is_standing and now >= self._judge_at else None
            if now >= self._ping_at:
                self.measure(now)
            return news
        if now >= self.heard_at + config.temporary_timeout_s:
            return self.close(CloseReason.DONE, "unused", now)
        return None

    def _tick_not_open(self, now: float) -> News | None:
        config = self._config
        if self.state is LinkState.SECURING:
            if now >= self.since + self._securing_timeout_s:
                self._out.append(Shut(self.number, at_once=True))
                return self.lost("no answer in time")
        elif self.state is LinkState.GREETING:
            if now >= self.since + config.hello_timeout_s:
                return self.close(CloseReason.IDLE, "no hello in time", now)
        elif self.state is LinkState.CLOSING and now >= self.since + config.close_timeout_s:
            self.state = LinkState.CLOSED
            self._out.append(Shut(self.number, at_once=True))
        return None

    def deadline(self) -> float | None:
        """When `tick` is next due; it may turn out too early, never too late."""
        if self.state is OPEN:
            return self.deadline_open()
        config = self._config
        if self.state is LinkState.SECURING:
            return self.since + self._securing_timeout_s
        if self.state is LinkState.GREETING:
            return self.since + config.hello_timeout_s
        if self.state is LinkState.CLOSING:
            return self.since + config.close_timeout_s
        return None

    def deadline_open(self) -> float:
        """`deadline` of a link that is open."""
        config = self._config
        if self.is_pinged:
            at = self.heard_at + config.idle_timeout_s
            if self._ping_at < at:
                at = self._ping_at
            if self._judge_at < at and self.is_standing:
                at = self._judge_at
        else:
            at = self.heard_at + config.temporary_timeout_s
        if self.stalled_at is not None:
            at = min(at, self.stalled_at + config.stall_timeout_s)
        if self.retires_at is not None:
            at = min(at, self.retires_at)
        return at

    # Frames.

    def _on_hello(self, hello: Hello, now: float) -> News | None:
        if hello.version != PROTOCOL_VERSION:
            text = f"version {PROTOCOL_VERSION} is spoken here, not {hello.version}"
            return self.close(CloseReason.VERSION, text, now)
        self.record = hello.record
        # Until a ping has been answered: as if its greeting had taken no time.
        self.peer_epoch_s = now - hello.sent_at_us / 1e6
        if self.outbound:
            self._open(now)
            return Opened(hello)
        self.purpose = hello.purpose
        self.is_standing = hello.purpose in STANDING_PURPOSES
        self.may_converse = hello.purpose in CONVERSING_PURPOSES
        self.token = hello.token
        return Asked(hello)

    def _on_pong(self, pong: Pong, now: float) -> None:
        self.ponged(pong, now)

    def _on_message(self, message: Message | Credit, now: float) -> News | None:
        if not self._was_open:
            return None  # a refused stranger's messages: nobody here has agreed to hear them
        self.messages_in += 1
        return Arrived(message)

    def _on_close(self, close: Close, now: float) -> News | None:
        was_open = self.state is OPEN
        if self.state is not LinkState.CLOSING:
            self._out.append(Send(self.number, Close(close.reason)))
        self.state = LinkState.CLOSED
        self._out.append(Shut(self.number, at_once=False))
        try:
            reason = CloseReason(close.reason)
        except ValueError:
            reason = None  # a newer peer's reason; its text stands
        return self._ended(reason, printable(close.text), by_us=False, was_open=was_open)

    def _ignore(self, frame: Frame, now: float) -> None:
        return

    # One table for all links: what may come in which state.
    _HANDLERS: ClassVar[dict[LinkState, dict[type, Callable[[Link, Any, float], News | None]]]] = {
        LinkState.SECURING: {},
        LinkState.GREETING: {Hello: _on_hello, Close: _on_close},
        LinkState.OPEN: {
            Message: _on_message,
            Credit: _on_message,
            Ping: Pinging.pinged,
            Pong: _on_pong,
            Close: _on_close,
        },
        LinkState.CLOSING: {
            Message: _on_message,
            Credit: _on_message,
            Ping: _ignore,
            Pong: _ignore,
            Hello: _ignore,
            Close: _on_close,
        },
        LinkState.CLOSED: {},
    }

    # What the above share.

    @property
    def _securing_timeout_s(self) -> float:
        # A driver that knows which step it is at may give up earlier, by `lost`.
        config = self._config
        connecting_s = config.connect_timeout_s if self.outbound else 0.0
        return connecting_s + config.handshake_timeout_s

    def _open(self, now: float) -> None:
        self._was_open = True
        self.state = OPEN
        self.since = self.heard_at = self.used_at = now
        self._ping_at = now  # measure at once: a link without a round-trip time tells nothing

    def _ended(
        self,
        reason: CloseReason | None,
        text: str,
        *,
        by_us: bool,
        was_open: bool,
        not_admitted: bool = False,
    ) -> News | None:
        if self._over:
            return None
        self._over = True
        return Ended(reason, text, by_us, was_open, not_admitted)
