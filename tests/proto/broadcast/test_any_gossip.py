"""Neighbours that say anything at all: nothing raises, bounds hold, nothing is kept twice."""

from __future__ import annotations

from random import Random
from types import SimpleNamespace
from typing import Any, cast

import pytest

from meshwalk.config import BroadcastConfig, Config, HistoryConfig, IntakeConfig, TreeConfig
from meshwalk.proto.broadcast.effects import Blame, GossipEffect, Pass
from meshwalk.proto.broadcast.gossip import Gossip
from meshwalk.proto.effects import KeepBroadcast
from meshwalk.proto.timers import Timers
from meshwalk.wire.frames import ContentType, Purpose
from meshwalk.wire.gossip import (
    Broadcast,
    Gone,
    GossipMessage,
    Graft,
    Have,
    Held,
    HistoryWanted,
    HopSeen,
    Prune,
    Receipt,
    Stem,
    Want,
    decode_gossip,
    encode_gossip,
)
from meshwalk.wire.peerid import PeerId
from meshwalk.wire.records import NUMBER_MAX, BroadcastMessage, BroadcastPayload, Domain, encode

UNIX_S = 1e9
EPOCH = 10**12
STEPS = 400  # guess: each kind of message some thirty times
CONFIG = Config(  # tables so small that each is full now and then
    broadcast=BroadcastConfig(window=300, origins_max=6),
    tree=TreeConfig(
        missing_max=800,
        missing_per_peer_max=300,
        announced_max=50,
        fetch_numbers_max=16,
        serve_numbers_max=40,
        own_trees_max=3,
    ),
    history=HistoryConfig(count_max=30, bytes_max=2_000_000),
    intake=IntakeConfig(waiting_max=5, checks_per_turn=2),
)


class PlainSignatures:
    """Signatures that anybody could make, since they are no matter here."""

    def __init__(self, number: int) -> None:
        self.peer_id = PeerId(bytes([number]) * 32)
        self.network_id = bytes(32)

    def sign(self, domain: Domain, payload: bytes) -> bytes:
        return bytes(self.peer_id) * 2

    def verify(self, domain: Domain, peer: bytes, signature: bytes, payload: bytes) -> bool:
        return signature == bytes(peer) * 2


class Hostile:
    """What neighbours say, drawn from one seed."""

    def __init__(self, seed: int, me: bytes) -> None:
        self.rng = Random(seed)
        self.origins = [bytes([number]) * 32 for number in range(2, 12)]
        self.keys = [*self.origins, me]
        self.payloads: dict[tuple[bytes, int, int], bytes] = {}

    def u64(self) -> int:
        return self.rng.choice([0, 1, 2**63, 2**64 - 1, self.rng.getrandbits(20)])

    def number(self) -> int:
        return self.rng.choice(
            [1, 2, self.rng.randint(1, 40), self.rng.randint(1, 30_000), NUMBER_MAX]
        )

    def epoch(self) -> int:
        return self.rng.choice([EPOCH, EPOCH, EPOCH, EPOCH - 5, EPOCH + 5, 2**64 - 1])

    def ranges(self) -> list[int]:
        ends = sorted({self.number() for _ in range(2 * self.rng.randint(1, 3))})
        return ends[: len(ends) // 2 * 2] or [1, 2**40]

    def payload(self, origin: bytes, now: float) -> bytes:
        """The same for the same name: an origin that lies about this is another matter."""
        name = origin, self.epoch(), self.number()
        if name not in self.payloads:
            off_ms = self.rng.choice([0, 0, 0, -3000, -(10**7), 10**7])
            body = bytes(self.rng.choice([1, 1, 300_000]))
            self.payloads[name] = encode(
                BroadcastPayload(
                    *name,
                    int((UNIX_S + now) * 1000) + off_ms,
                    self.number(),
                    [BroadcastMessage(body, ContentType.BYTES)],
                    self.rng.choice([0, 0, 1, 2, 3, 7]),
                )
            )
        return self.payloads[name]

    def message(self, own_epoch: int, now: float) -> GossipMessage:
        rng = self.rng
        key, origin = rng.choice(self.keys), rng.choice(self.origins)
        epoch = rng.choice([self.epoch(), own_epoch])
        hop = HopSeen(key, key, 64, self.u64(), self.u64(), was_repaired=True)
        payload = self.payload(origin, now)
        signature = origin * 2 if rng.random() < 0.97 else bytes(64)
        copy = Broadcast(
            payload,
            signature,
            rng.choice([0, 1, 63, 64]),
            self.u64(),
            rng.choice([0, 1]),
            self.u64(),
        )
        held = [Held(key, epoch, self.ranges(), rng.choice([0, 64]), self.u64()) for _ in range(2)]
        others: list[GossipMessage] = [
            Have(held),
            Want(key, epoch, self.ranges()),
            Gone(key, epoch, self.ranges()),
            Graft(rng.choice([b"", key])),
            Prune(rng.choice([b"", key])),
            HistoryWanted(self.u64()),
            Receipt(key, epoch, rng.randint(1, 5), self.u64(), [hop] * 128, rng.random() < 0.5),
            Stem(payload, origin * 2, 0, rng.choice([None, 0, 3, 10])),
        ]
        return copy if rng.random() < 0.3 else rng.choice(others)


class Beset:
    """A node among such neighbours."""

    def __init__(self, seed: int) -> None:
        me = PlainSignatures(1)
        self.timers = Timers()
        self.node = Gossip(me, CONFIG, Random(seed), self.timers, UNIX_S, 0.0)
        self.hostile = Hostile(seed, bytes(me.peer_id))
        self.peers = [PeerId(bytes([number]) * 32) for number in range(2, 7)]
        self.up: dict[PeerId, Any] = {}
        self.kept: set[tuple[bytes, int, int]] = set()
        self.now = 0.0

    def does(self, effects: list[GossipEffect]) -> None:
        """What the node says is what any other reads."""
        for effect in effects:
            if isinstance(effect, Pass):
                decode_gossip(encode_gossip(effect.message))
                assert set(effect.peers) <= set(self.up)
            elif isinstance(effect, Blame):
                assert effect.peer in self.up
            elif isinstance(effect, KeepBroadcast):
                name = effect.origin, effect.epoch, effect.sequence
                assert name not in self.kept
                self.kept.add(name)

    def link_up(self, peer: PeerId) -> None:
        rng = self.hostile.rng
        self.up[peer] = SimpleNamespace(
            purpose=rng.choice([Purpose.STANDING, Purpose.HEALING]),
            stalled_at=None,
            rtt_s=0.03,
            peer_epoch_s=self.now - rng.choice([0, 2**64 - 1]) / 1e6,
            round_trips=SimpleNamespace(mean_s=0.03),
        )
        neighbour = SimpleNamespace(peer=peer, link=self.up[peer])
        self.does(self.node.neighbour_up(cast("Any", neighbour), self.now))

    def goes_on(self, seconds: float) -> None:
        self.now += seconds
        for _ in range(3000):
            due = self.timers.next()
            if due is None or due > self.now:
                return
            for machine, what in list(self.timers.due(self.now)):
                self.does(self.node.tick(machine, what, self.now))
        pytest.fail("timers never rest")

    def step(self) -> None:
        rng, node, now = self.hostile.rng, self.node, self.now
        chance = rng.random()
        peer = rng.choice(self.peers)
        if peer not in self.up:
            self.link_up(peer)
        elif chance < 0.02:
            del self.up[peer]
            self.does(node.neighbour_down(peer, now))
        elif chance < 0.04:
            self.does(node.pause(now))
        elif chance < 0.08:
            self.does(node.resume(now))
        elif chance < 0.15:
            asks = rng.choice([0, 0, 1, 3])
            self.does(node.publish("", ContentType.BYTES, b"x", now, asks)[1])
        elif chance < 0.17:
            self.does(node.catch_up(rng.choice([0, EPOCH]), now))
        elif chance < 0.20:
            self.up[peer].stalled_at = rng.choice([None, now])
        elif chance < 0.35:
            self.goes_on(rng.choice([0.01, 0.3, 1.0, 6.0, 30.0]))
        else:
            body = encode_gossip(self.hostile.message(node.publishing.epoch, now))
            sent_at_us = rng.choice([int(now * 1e6), self.hostile.u64()])
            self.does(node.receive(peer, body, sent_at_us, now))
        assert len(node.fetching) <= CONFIG.tree.missing_max
        assert len(node.origins) <= CONFIG.broadcast.origins_max
        assert len(node.history) <= CONFIG.history.count_max
        assert node.tree.own_trees <= CONFIG.tree.own_trees_max
        assert set(node.tree.branches) == set(self.up)


@pytest.mark.parametrize("seed", range(12))
def test_whatever_neighbours_say(seed: int) -> None:
    beset = Beset(seed)
    for _ in range(STEPS):
        beset.step()
    assert len(beset.kept) > 20  # most of it was read
