"""Ways to depart from the protocol, for nodes of a world. Each is told by what leaves the node.

A hostile node here runs the shipped machines and spoils what they send: that keeps it in the
network, where it does most harm. Clients that never get so far are attacked with in tests of real
nodes.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Final

from meshwalk.errors import InvalidRecord, MalformedFrame
from meshwalk.sim.node import Behaviour, SimNode
from meshwalk.wire.address import Address
from meshwalk.wire.codec import encode_frame
from meshwalk.wire.frames import Channel, Close, CloseReason, Frame, Message, Ping, Pong, Purpose
from meshwalk.wire.messages import (
    RECORDS_PER_MESSAGE_MAX,
    JoinOutcome,
    JoinReply,
    JoinRequest,
    OverlayMessage,
    PeersTold,
    SplitRequest,
    decode_overlay,
    encode,
)
from meshwalk.wire.peerid import PeerId
from meshwalk.wire.records import decode_peer_record, decode_signed

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


class Ring:
    """Attackers who work together to be all that a victim is linked to."""

    def __init__(self, rng: Random) -> None:
        self.members: list[SimNode] = []
        self.ids: set[PeerId] = set()
        self.captured = 0
        """Walks that were answered by members instead of being carried on."""
        self._rng = rng

    def add(self, node: SimNode) -> None:
        """Have a node join them."""
        self.members.append(node)
        self.ids.add(node.id)
        node.behaviour = Eclipser(self._rng, self)

    def records(self) -> list[bytes]:
        """Whom the members tell of: each other."""
        some = self._rng.sample(self.members, min(RECORDS_PER_MESSAGE_MAX, len(self.members)))
        return [member.core.own_record.blob for member in some]

    def capture(self, walk: JoinRequest) -> None:
        """One member of each address group dials the origin of a walk, as if the walk had ended
        there."""
        record = decode_peer_record(decode_signed(walk.record).payload)
        peer, addresses = record.peer_id, record.parsed_addresses()
        by_group: dict[str, SimNode] = {}
        for member in self._rng.sample(self.members, len(self.members)):
            if peer not in member.core.overlay.membership.neighbours:
                by_group.setdefault(member.host.split(".")[1], member)
        self.captured += 1
        for member in by_group.values():
            if addresses:
                dial(member, addresses[0], peer, Purpose.JOIN_ACCEPT, walk.token)


class Eclipser(Behaviour):
    """Tells only of its accomplices, as much and as often as anybody listens, and has them take the
    place of whoever a walk that it should carry would have come to."""

    def __init__(self, rng: Random, ring: Ring) -> None:
        self._rng = rng
        self._ring = ring

    def sends(self, node: SimNode, link: int, frame: Frame) -> list[Frame | bytes]:
        if type(frame) is Ping and not self._is_among_us(node, link):
            told = PeersTold(frame.sent_at_us, self._ring.records())
            return [frame, self._message(frame.sent_at_us, told)]
        if type(frame) is not Message or frame.channel is not Channel.OVERLAY:
            return [frame]
        try:
            body = decode_overlay(frame.body)
            if type(body) is PeersTold:
                told = PeersTold(body.upto, self._ring.records())
                return [_with_body(frame, encode(told))]
            if type(body) is SplitRequest:
                return []
            if type(body) is JoinRequest and not self._is_own(node, body):
                self._ring.capture(body)
                return []
        except (MalformedFrame, InvalidRecord):
            pass
        return [frame]

    def _is_among_us(self, node: SimNode, link: int) -> bool:
        return node.core.connections.links[link].peer in self._ring.ids

    def _is_own(self, node: SimNode, walk: JoinRequest) -> bool:
        return decode_peer_record(decode_signed(walk.record).payload).peer_id == node.id

    def _message(self, sent_at_us: int, body: OverlayMessage) -> Message:
        return Message(self._rng.getrandbits(48), sent_at_us, Channel.OVERLAY, encode(body))


def dial(node: SimNode, address: Address, peer: PeerId, purpose: Purpose, token: bytes) -> None:
    """Have a node make a link that its machines have no reason for."""
    core = node.core
    core.connections.dial(address, peer, purpose, token, node.time())
    node.do(core.resumed(0))  # an input that does nothing: it hands out what was to be done


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
