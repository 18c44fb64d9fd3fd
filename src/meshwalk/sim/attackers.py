"""Ways to depart from the protocol, for nodes of a world. Each is told by what leaves the node.

A hostile node here runs the shipped machines and spoils what they send: that keeps it in the
network, where it does most harm. Clients that never get so far are attacked with in tests of real
nodes.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Final

from meshwalk.errors import MalformedFrame
from meshwalk.sim.node import Behaviour, SimNode
from meshwalk.wire.codec import encode_frame
from meshwalk.wire.frames import Channel, Close, CloseReason, Frame, Message, Ping, Pong
from meshwalk.wire.messages import JoinOutcome, JoinReply, JoinRequest, decode_overlay, encode

OFTEN: Final = 0.1  # guess: share of frames that are spoilt; seldom enough to stay linked a while
COPIES: Final = 20  # guess: as many as make a flood a nuisance


class BlackHole(Behaviour):
    """Keeps its links alive and passes no broadcast on (censoring, as in GossipSub's hardening)."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng

    def sends(self, node: SimNode, link: int, frame: Frame) -> list[Frame | bytes]:
        is_broadcast = type(frame) is Message and frame.channel is Channel.BROADCAST
        return [] if is_broadcast else [frame]


class Degrader(BlackHole):
    """Drops half of all broadcasts."""

    def sends(self, node: SimNode, link: int, frame: Frame) -> list[Frame | bytes]:
        return super().sends(node, link, frame) if self._rng.random() < 0.5 else [frame]


class Repeater(BlackHole):
    """Sends old messages again, later and elsewhere."""

    def __init__(self, rng: Random) -> None:
        super().__init__(rng)
        self._kept: list[Frame] = []

    def sends(self, node: SimNode, link: int, frame: Frame) -> list[Frame | bytes]:
        if type(frame) is not Message:
            return [frame]
        out: list[Frame | bytes] = [frame]
        if self._kept and self._rng.random() < OFTEN:
            out.append(self._rng.choice(self._kept))
        if len(self._kept) < 100:
            self._kept.append(frame)
        return out


class Corruptor(BlackHole):
    """Flips a bit of a frame now and then."""

    def sends(self, node: SimNode, link: int, frame: Frame) -> list[Frame | bytes]:
        if self._rng.random() >= OFTEN * OFTEN:
            return [frame]
        data = bytearray(encode_frame(frame))
        data[self._rng.randrange(len(data))] ^= 1 << self._rng.randrange(8)
        return [bytes(data)]


class Babbler(BlackHole):
    """Puts bytes at random between frames now and then."""

    def sends(self, node: SimNode, link: int, frame: Frame) -> list[Frame | bytes]:
        if self._rng.random() >= OFTEN * OFTEN:
            return [frame]
        return [frame, self._rng.randbytes(self._rng.randint(1, 64))]


class Liar(BlackHole):
    """Answers walks that it should carry with a lie about their end."""

    def sends(self, node: SimNode, link: int, frame: Frame) -> list[Frame | bytes]:
        if type(frame) is not Message or frame.channel is not Channel.OVERLAY:
            return [frame]
        try:
            body = decode_overlay(frame.body)
        except MalformedFrame:
            return [frame]
        if type(body) is not JoinReply:
            return [frame]
        lie = JoinReply(self._rng.choice(list(JoinOutcome)), body.hops, body.record)
        return [_with_body(frame, encode(lie))]


class Swallower(BlackHole):
    """Takes walks and neither carries nor answers them."""

    def sends(self, node: SimNode, link: int, frame: Frame) -> list[Frame | bytes]:
        if type(frame) is Message and frame.channel is Channel.OVERLAY:
            return []
        return [frame]


class Walker(BlackHole):
    """Sends each of its walks many times over."""

    def sends(self, node: SimNode, link: int, frame: Frame) -> list[Frame | bytes]:
        if type(frame) is not Message or frame.channel is not Channel.OVERLAY:
            return [frame]
        try:
            is_walk = type(decode_overlay(frame.body)) is JoinRequest
        except MalformedFrame:
            is_walk = False
        return [frame] * (COPIES if is_walk else 1)


class Mute(BlackHole):
    """Never answers a ping."""

    def sends(self, node: SimNode, link: int, frame: Frame) -> list[Frame | bytes]:
        return [] if type(frame) is Pong else [frame]


class Pinger(BlackHole):
    """Sends every ping many times over."""

    def sends(self, node: SimNode, link: int, frame: Frame) -> list[Frame | bytes]:
        return [frame] * (COPIES if type(frame) is Ping else 1)


class Quitter(BlackHole):
    """Closes a link for no reason now and then, and does not mean it."""

    def sends(self, node: SimNode, link: int, frame: Frame) -> list[Frame | bytes]:
        if type(frame) is Message and self._rng.random() < OFTEN * OFTEN:
            return [Close(int(self._rng.choice(list(CloseReason))), "")]
        return [frame]


BEHAVIOURS: Final[dict[str, Callable[[Random], Behaviour]]] = {
    "black hole": BlackHole,
    "degrader": Degrader,
    "repeater": Repeater,
    "corruptor": Corruptor,
    "babbler": Babbler,
    "liar": Liar,
    "swallower": Swallower,
    "walker": Walker,
    "mute": Mute,
    "pinger": Pinger,
    "quitter": Quitter,
}
"""By the name that a plan has for it."""


def _with_body(message: Message, body: bytes) -> Message:
    return Message(
        message.id,
        message.sent_at_us,
        message.channel,
        body,
        message.in_reply_to,
        message.in_regards_to,
        message.content,
        message.type,
        message.wants_reply,
    )
