"""One node's broadcasts with hand-written neighbours, and messages as they would send them."""

from __future__ import annotations

from itertools import count
from random import Random
from typing import TypeVar

from meshwalk.config import Config
from meshwalk.events import Delivery
from meshwalk.proto.broadcast.effects import GossipEffect, Pass
from meshwalk.proto.broadcast.gossip import Gossip
from meshwalk.proto.broadcast.history import HeldBroadcast
from meshwalk.proto.effects import Deliver, Effect, Readers
from meshwalk.proto.link import Link, LinkState
from meshwalk.proto.overlay.membership import Neighbour
from meshwalk.proto.timers import Timers
from meshwalk.sim.node import UNIX_START_S
from meshwalk.sim.signatures import CheapSignatures
from meshwalk.wire.address import Address
from meshwalk.wire.frames import ContentType, Purpose
from meshwalk.wire.gossip import Broadcast, GossipMessage, Graft, encode_gossip
from meshwalk.wire.peerid import PeerId
from meshwalk.wire.records import BroadcastMessage, BroadcastPayload, Domain, encode

Sent = TypeVar("Sent", bound=GossipMessage)


def peer(number: int) -> PeerId:
    return PeerId(number.to_bytes(32, "big"))


def neighbour_of(
    number: int, rtt_s: float = 0.02, purpose: Purpose = Purpose.STANDING
) -> Neighbour:
    """A peer with a standing link."""
    out: list[Effect] = []
    remote = Address(f"10.0.0.{number}", 1)
    link = Link(
        number,
        Config().link,
        out,
        count(1).__next__,
        outbound=True,
        remote=remote,
        now=0.0,
        purpose=purpose,
    )
    link.peer = peer(number)
    link.state = LinkState.OPEN
    link.round_trips.add(rtt_s, 0.0)
    link._quickest_s = rtt_s
    return Neighbour(peer(number), link, is_random=True, group=None)


def payload_of(
    origin: int = 5,
    sequence: int = 1,
    *,
    epoch: int = 1,
    sent_at: float = 0.0,
    body: bytes = b"",
    asks: int = 0,
    count: int = 1,
) -> bytes:
    messages = [BroadcastMessage(body, ContentType.BYTES)] * count
    sent_at_ms = int((sent_at + UNIX_START_S) * 1000)
    payload = BroadcastPayload(
        bytes(peer(origin)), epoch, sequence, sent_at_ms, sequence, messages, asks
    )
    return encode(payload)


def copy_of(payload: bytes, signer: int, hops: int = 1, marks: int = 0) -> Broadcast:
    """As a neighbour sends it."""
    signature = CheapSignatures(peer(signer)).sign(Domain.BROADCAST, payload)
    return Broadcast(payload, signature, hops, 0, marks)


def held_of(size: int = 0, at: float = 0.0, sent_at_ms: int = 0) -> HeldBroadcast:
    """One that is kept."""
    return HeldBroadcast(bytes(size), bytes(64), 0, sent_at_ms, 1, 0, False, at, None)


class Desk:
    """The broadcasts of one node, at times of the test's choosing."""

    def __init__(self, neighbours: int = 0, config: Config | None = None, me: int = 0) -> None:
        self.timers = Timers()
        self.gossip = Gossip(
            CheapSignatures(peer(me)), config or Config(), Random(0), self.timers, UNIX_START_S, 0.0
        )
        self.counts = self.gossip.counts
        for number in range(1, neighbours + 1):  # each of them a branch
            self.up(number)
            self.hear(number, Graft())

    def up(self, number: int, now: float = 0.0, rtt_s: float = 0.02) -> list[GossipEffect]:
        return self.gossip.neighbour_up(neighbour_of(number, rtt_s), now)

    def down(self, number: int, now: float = 0.0) -> list[GossipEffect]:
        return self.gossip.neighbour_down(peer(number), now)

    def hear(self, source: int, message: GossipMessage, now: float = 0.0) -> list[GossipEffect]:
        return self.gossip.receive(peer(source), encode_gossip(message), int(now * 1e6), now)

    def copy(
        self, source: int, origin: int = 5, sequence: int = 1, now: float = 0.0, marks: int = 0
    ) -> list[GossipEffect]:
        """A copy comes, as it was sent at that moment."""
        payload = payload_of(origin, sequence, sent_at=now)
        return self.hear(source, copy_of(payload, origin, marks=marks), now)

    def run(self, until: float) -> list[GossipEffect]:
        """Let the machines do what is due."""
        out: list[GossipEffect] = []
        while (at := self.timers.next()) is not None and at <= until:
            for machine, what in self.timers.due(at):
                out += self.gossip.tick(machine, what, at)
        return out


def delivered(effects: list[GossipEffect]) -> list[Delivery]:
    """What a reader gets that takes them in order."""
    return [
        effect.delivery
        for effect in effects
        if type(effect) is Deliver and effect.readers is not Readers.UNORDERED
    ]


def passed(effects: list[GossipEffect], kind: type[Sent]) -> list[tuple[set[PeerId], Sent]]:
    """Messages of a kind, and to whom they go."""
    return [
        (set(effect.peers), effect.message)
        for effect in effects
        if type(effect) is Pass and type(effect.message) is kind
    ]


def to(effects: list[GossipEffect], kind: type[GossipMessage]) -> set[PeerId]:
    """To whom messages of a kind go."""
    peers: set[PeerId] = set()
    return peers.union(*(found for found, _ in passed(effects, kind)))
