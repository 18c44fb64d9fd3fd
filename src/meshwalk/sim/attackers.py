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
from meshwalk.wire.frames import (
    Channel,
    Close,
    CloseReason,
    ContentType,
    Frame,
    Message,
    Ping,
    Pong,
    Purpose,
)
from meshwalk.wire.gossip import (
    Broadcast,
    Gone,
    GossipMessage,
    Graft,
    Have,
    Held,
    Prune,
    Stem,
    decode_gossip,
    encode_gossip,
)
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
from meshwalk.wire.records import (
    BroadcastMessage,
    BroadcastPayload,
    Domain,
    decode_broadcast_head,
    decode_peer_record,
    decode_signed,
)
from meshwalk.wire.records import encode as encode_record

OFTEN: Final = 0.1  # guess: share of frames that are spoilt; seldom enough to stay linked a while
COPIES: Final = 20  # guess: as many as make a flood a nuisance
FLOOD: Final = 30  # guess: broadcasts with each ping, on each link; see experiments/abuse.py
INVENTED: Final = 64  # guess: numbers that a liar announces at a time, of each origin
KEPT: Final = 100  # guess: old copies that are enough to be a nuisance


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


class Meddler(Behaviour):
    """Does what it should, and adds messages about broadcasts to each ping. As it stands, none.

    One object for each node: what it has seen is this node's.
    """

    def __init__(self, rng: Random) -> None:
        self._rng = rng

    def sends(self, node: SimNode, link: int, frame: Frame) -> list[Frame | bytes]:
        if type(frame) is Ping:
            return [frame, *(self._message(node, body) for body in self.adds(node, link))]
        about = _about(frame)
        if about is None:
            return [frame]
        assert type(frame) is Message
        return [_with_body(frame, encode_gossip(other)) for other in self.instead(about)]

    def adds(self, node: SimNode, link: int) -> list[bytes]:
        """Bodies of messages that go out after a ping."""
        return []

    def instead(self, message: GossipMessage) -> list[GossipMessage]:
        """What is sent for a message about broadcasts."""
        return [message]

    def _message(self, node: SimNode, body: bytes) -> Message:
        sent_at_us = int(node.time() * 1e6)
        return Message(self._rng.getrandbits(48), sent_at_us, Channel.BROADCAST, body)


class Flooder(Meddler):
    """Broadcasts as fast as it can, to each neighbour by itself. All of it is genuine."""

    def __init__(self, rng: Random) -> None:
        super().__init__(rng)
        self._made: list[bytes] = []
        self._sent: dict[int, int] = {}
        """How many of them have gone out on each link."""

    def adds(self, node: SimNode, link: int) -> list[bytes]:
        start = self._sent.get(link, max(0, len(self._made) - FLOOD))
        end = self._sent[link] = start + FLOOD
        while len(self._made) < end:
            self._made.append(self._one(node, len(self._made) + 1))
        return self._made[start:end]

    def _one(self, node: SimNode, number: int) -> bytes:
        gossip = node.core.gossip
        sent_at_ms = int((node.time() + gossip.unix_offset_s) * 1000)
        messages = [BroadcastMessage(b"flood %d" % number, ContentType.BYTES)]
        epoch = gossip.publishing.epoch
        payload = encode_record(
            BroadcastPayload(bytes(node.id), epoch, number, sent_at_ms, number, messages)
        )
        signature = node.signatures.sign(Domain.BROADCAST, payload)
        return encode_gossip(Broadcast(payload, signature, 1))


class Litterer(Meddler):
    """Sends bytes at random as if they were messages about broadcasts."""

    def adds(self, node: SimNode, link: int) -> list[bytes]:
        return [self._rng.randbytes(self._rng.randint(1, 200)) for _ in range(COPIES)]


class Forger(Meddler):
    """Changes a bit of every copy that it passes on: of the payload, or of the signature."""

    def instead(self, message: GossipMessage) -> list[GossipMessage]:
        if type(message) is not Broadcast:
            return [message]
        payload, signature = bytearray(message.payload), bytearray(message.signature)
        changed = self._rng.choice((payload, signature))
        # Of a payload: in the text, if it has no topic and asks nothing. It can still be read.
        changed[-4 - self._rng.randrange(4)] ^= 1 << self._rng.randrange(8)
        return [
            Broadcast(
                bytes(payload),
                bytes(signature),
                message.hops,
                message.way_us,
                message.marks,
                message.work,
            )
        ]


class Replayer(Meddler):
    """Sends all the old copies that it has kept, to everybody, again and again."""

    def __init__(self, rng: Random) -> None:
        super().__init__(rng)
        self._kept: dict[bytes, Broadcast] = {}

    def adds(self, node: SimNode, link: int) -> list[bytes]:
        return [encode_gossip(copy) for copy in self._kept.values()]

    def instead(self, message: GossipMessage) -> list[GossipMessage]:
        if type(message) is Broadcast and len(self._kept) < KEPT:
            self._kept[message.payload] = message
        return [message]


class Promiser(Meddler):
    """Announces broadcasts, real ones and others, by the best of ways, and never sends one."""

    def __init__(self, rng: Random) -> None:
        super().__init__(rng)
        self._newest: dict[tuple[bytes, int], int] = {}

    def adds(self, node: SimNode, link: int) -> list[bytes]:
        held = [
            Held(origin, epoch, [number + 1, number + INVENTED], 1, 0)
            for (origin, epoch), number in self._newest.items()
        ]
        unknown = self._rng.randbytes(32)
        held.append(Held(unknown, node.core.gossip.publishing.epoch, [1, INVENTED], 1, 0))
        return [encode_gossip(Have(held[-KEPT:]))]

    def instead(self, message: GossipMessage) -> list[GossipMessage]:
        if type(message) is not Broadcast:
            return [message]
        head = decode_broadcast_head(message.payload)
        of = head.origin, head.epoch
        self._newest[of] = max(self._newest.get(of, 0), head.sequence)
        return [Have([Held(*of, [head.sequence, head.sequence], 1, 0)])]


class Staller(Promiser):
    """Does the same, and does not say either that it has not got what it is asked for."""

    def instead(self, message: GossipMessage) -> list[GossipMessage]:
        return [] if type(message) is Gone else super().instead(message)


class Hoarder(Meddler):
    """Takes all broadcasts, and asks for more; passes on none and tells of none."""

    def instead(self, message: GossipMessage) -> list[GossipMessage]:
        return [] if isinstance(message, Broadcast | Have | Stem) else [message]


class Waverer(Meddler):
    """Makes branches and ends them, all the time: of the tree of all, and of those of origins."""

    def __init__(self, rng: Random) -> None:
        super().__init__(rng)
        self._origins: dict[bytes, None] = {}

    def adds(self, node: SimNode, link: int) -> list[bytes]:
        scopes = [b"", *self._origins]
        out: list[bytes] = []
        for _ in range(COPIES):
            scope = self._rng.choice(scopes)
            out += (encode_gossip(Graft(scope)), encode_gossip(Prune(scope)))
        self._rng.shuffle(out)
        return out

    def instead(self, message: GossipMessage) -> list[GossipMessage]:
        if type(message) is Broadcast and len(self._origins) < KEPT:
            self._origins[decode_broadcast_head(message.payload).origin] = None
        return [message]


def _about(frame: Frame) -> GossipMessage | None:
    """What a frame says of broadcasts."""
    if type(frame) is not Message or frame.channel is not Channel.BROADCAST:
        return None
    try:
        return decode_gossip(frame.body)
    except MalformedFrame:
        return None


ABUSES: Final[dict[str, Callable[[Random], Behaviour]]] = {
    "flooder": Flooder,
    "litterer": Litterer,
    "forger": Forger,
    "replayer": Replayer,
    "promiser": Promiser,
    "staller": Staller,
    "hoarder": Hoarder,
    "waverer": Waverer,
}
"""What is done to broadcasts, by name."""


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
