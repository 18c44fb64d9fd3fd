"""One node's dispatch with made-up links, for tests that call an input and compare the effects."""

from __future__ import annotations

from itertools import count

from meshwalk.config import Config, LinkConfig
from meshwalk.proto.dispatch.dispatch import Dispatch
from meshwalk.proto.dispatch.effects import DispatchEffect
from meshwalk.proto.dispatch.table import CREDIT_TIMER, LOST_TIMER
from meshwalk.proto.effects import Effect, Send
from meshwalk.proto.link import Link, LinkState
from meshwalk.proto.timers import Timers
from meshwalk.wire.address import Address
from meshwalk.wire.frames import (
    SHARED_WINDOW_BYTES,
    Channel,
    CloseReason,
    ContentType,
    Message,
    Purpose,
)
from meshwalk.wire.messages import Refusal, RefusalCode, decode_refusal, encode
from meshwalk.wire.peerid import PeerId

UNIX_OFFSET_S = 1_000.0
NOTHING_KEPT = 0
"""Peers that something is kept for when nothing goes on."""


def peer_of(number: int) -> PeerId:
    return PeerId(number.to_bytes(32, "big"))


ME = peer_of(0)


def reply(to: int, channel: Channel = Channel.APPLICATION, body: bytes = b"") -> Message:
    return Message(9, 0, channel, body, to)


def question(id: int = 1, sent_at_us: int = 0) -> Message:
    return Message(id, sent_at_us, Channel.APPLICATION, b"q", wants_reply=True)


def refusal(to: int, code: int, text: str = "") -> Message:
    return reply(to, Channel.REFUSAL, encode(Refusal(code, text)))


class Desk:
    """The dispatch of peer 0."""

    def __init__(self, config: Config | None = None, me: PeerId = ME) -> None:
        self.timers = Timers()
        self._out: list[Effect] = []
        self._numbers = count(1)
        self.machine = Dispatch(
            me,
            config or Config(),
            count(100).__next__,
            self.timers,
            self._out,
            UNIX_OFFSET_S,
        )

    def link(
        self,
        peer: int = 1,
        purpose: Purpose = Purpose.STANDING,
        now: float = 0.0,
        *,
        is_outbound: bool = False,
    ) -> Link:
        """A link that has just opened."""
        link = Link(
            next(self._numbers),
            LinkConfig(),
            [],
            count().__next__,
            outbound=is_outbound,
            remote=Address("10.0.0.1", 1),
            now=now,
            purpose=purpose,
        )
        link.peer, link.state = peer_of(peer), LinkState.OPEN
        self.machine.link_opened(link, SHARED_WINDOW_BYTES, now)
        return link

    def ask(self, peer: int = 1, timeout_s: float = 5.0) -> int:
        """An own request: its id."""
        party = self.machine.party(peer_of(peer))
        id = self.machine.request(party, "t", ContentType.BYTES, b"", timeout_s, 0.0)
        assert id is not None
        self.told()
        return id

    def hear(self, link: Link, message: Message, now: float = 0.0) -> list[Effect | DispatchEffect]:
        """A message comes: what is to be done."""
        self.machine.receive(link, message, now)
        return self.told()

    def close(
        self, link: Link, reason: CloseReason | None = None, text: str = "gone"
    ) -> list[Effect | DispatchEffect]:
        """A link ends: what is to be done."""
        link.state = LinkState.CLOSING
        self.machine.link_gone(link, reason, text, 0.0)
        return self.told()

    def told(self) -> list[Effect | DispatchEffect]:
        """What has been asked of the driver and of the node since the last time."""
        told = [*self._out, *self.machine.wanted]
        self._out.clear()
        self.machine.wanted.clear()
        return told

    def is_at_rest(self) -> bool:
        """Whether nothing is going on and nothing is kept. Takes out the timers."""
        machine = self.machine
        return (
            not machine.requests.waiting
            and not machine.requests.serving
            and not machine.conversations.open_now
            and not machine.wanted
            and not machine.sending.local
            and all(party.is_idle for party in machine.parties.values())
            # The time to tell what has been read comes also when all has been told meanwhile.
            and all(name in (CREDIT_TIMER, LOST_TIMER) for name, _ in self.timers.due(float("inf")))
        )


def only_sent(told: list[Effect | DispatchEffect]) -> tuple[int, Message]:
    """The one message that was sent: over which link, and the message."""
    (sent,) = told
    assert isinstance(sent, Send)
    assert isinstance(sent.frame, Message)
    return sent.link, sent.frame


def only_refusal(told: list[Effect | DispatchEffect]) -> tuple[Message, RefusalCode]:
    """The one refusal that was sent."""
    _, message = only_sent(told)
    assert message.channel is Channel.REFUSAL
    return message, RefusalCode(decode_refusal(message.body).code)
