"""Messages for everyone: signed by the origin, delivered at most once, flooded over all links.

Each origin counts its broadcasts; (origin, epoch, sequence) names one. A node remembers for each
origin which numbers it has seen: those up to `floor`, and a few above it. That costs one entry per
origin instead of one per message, and what is below the window counts as seen. An origin is
remembered until everything it has sent is stale; if the table overflows first, unknown origins must
be newer than whom it pushed out. So nothing is ever delivered twice, however long it circulates.

Over links that keep order, with every node passing on each message as it first comes, an origin's
broadcasts reach everyone in the order of their numbers as long as no link changes meanwhile: each
peer on the way of a number has passed on all smaller ones before, over the same links. When links
do change, ordering.py restores the order; passing on never waits for it.

A message is decoded and checked against what was seen before its signature is verified, since most
copies of a flood are repeats; it is verified before it is passed on.
"""

from __future__ import annotations

from collections import Counter
from typing import TypeAlias, final

import msgspec

from meshwalk.config import BroadcastConfig
from meshwalk.errors import InvalidRecord, MalformedFrame
from meshwalk.events import Delivery
from meshwalk.identity.keys import Signatures
from meshwalk.proto.effects import Deliver
from meshwalk.proto.ordering import Ordering
from meshwalk.proto.timers import Timers
from meshwalk.wire.frames import CloseReason, ContentType
from meshwalk.wire.messages import HOPS_MAX, Broadcast, decode_broadcast, encode
from meshwalk.wire.peerid import PeerId
from meshwalk.wire.records import (
    BroadcastPayload,
    Domain,
    decode_broadcast_payload,
    peer_id_of,
)
from meshwalk.wire.records import encode as encode_record


@final
class Flood(msgspec.Struct, frozen=True, gc=False):
    """Send a body to every neighbour but one."""

    body: bytes
    without: PeerId | None


@final
class Blame(msgspec.Struct, frozen=True, gc=False):
    """The peer passed on what it must not: close its link."""

    reason: CloseReason
    text: str


GossipEffect: TypeAlias = Flood | Deliver | Blame


class SeenNumbers:
    """Which of one origin's numbers have come, in one epoch."""

    __slots__ = ("above", "epoch", "floor", "keep_until", "newest_ms", "unknown_until_ms")

    def __init__(self, epoch: int, first: int, window: int) -> None:
        self.epoch = epoch
        # Smaller numbers may still be on their way when an origin is first heard of.
        self.floor = max(0, first - 1 - window)
        self.above: set[int] = set()
        self.keep_until = 0.0
        self.newest_ms = 0
        self.unknown_until_ms = 0
        """What it sent until then may have come before it was forgotten, and known again."""

    def add(self, number: int, window: int) -> bool:
        """Note a number; false when it counts as seen."""
        if number <= self.floor or number in self.above:
            return False
        self.above.add(number)
        if len(self.above) > 2 * window:
            self.narrow(window)
        while self.floor + 1 in self.above:
            self.floor += 1
            self.above.discard(self.floor)
        return True

    def narrow(self, window: int) -> None:
        """Gaps older than `window` will not be filled: what is missing there counts as seen."""
        if self.above:
            self.floor = max(self.floor, max(self.above) - window)
            self.above = {n for n in self.above if n > self.floor}


class Gossip:
    """Broadcasts at one node."""

    def __init__(
        self,
        signatures: Signatures,
        config: BroadcastConfig,
        timers: Timers,
        unix_offset_s: float,
        now: float,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._signatures = signatures
        self._config = config
        self.unix_offset_s = unix_offset_s
        self._epoch = int((now + unix_offset_s) * 1000)
        self._sequence = 0
        # Ordered by when each origin was last heard: the first is the one to forget.
        self._seen: dict[bytes, SeenNumbers] = {}
        self._ordering = Ordering(config, timers, self.counts)
        self._numbers = 0  # noted above gaps, of all origins
        # The newest that was sent by an origin that had to make place in the table.
        self._pushed_out_ms = 0

    @property
    def held(self) -> int:
        """Broadcasts that came early and wait for others of their origin."""
        return self._ordering.held

    @property
    def origins(self) -> int:
        """How many origins are remembered."""
        return len(self._seen)

    def publish(
        self, topic: str, content: ContentType, body: bytes, now: float
    ) -> tuple[int, list[GossipEffect]]:
        """Send to everyone; returns the message's number too. The caller has checked the size."""
        self._sequence += 1
        payload = encode_record(
            BroadcastPayload(
                bytes(self._signatures.peer_id),
                self._epoch,
                self._sequence,
                int((now + self.unix_offset_s) * 1000),
                topic,
                content,
                body,
            )
        )
        signature = self._signatures.sign(Domain.BROADCAST, payload)
        self.counts["sent"] += 1
        return self._sequence, [Flood(encode(Broadcast(payload, signature, 1)), None)]

    def receive(self, peer: PeerId, body: bytes, now: float) -> list[GossipEffect]:
        """A copy of a broadcast came from a neighbour."""
        try:
            broadcast = decode_broadcast(body)
            payload = decode_broadcast_payload(broadcast.payload)
        except (MalformedFrame, InvalidRecord) as error:
            self.counts["malformed"] += 1
            return [Blame(CloseReason.MALFORMED, str(error))]
        why = self._refuse(payload, now)
        if why is not None:
            self.counts[why] += 1
            return []
        if not self._signatures.verify(
            Domain.BROADCAST, payload.origin, broadcast.signature, broadcast.payload
        ):
            self.counts["forged"] += 1
            return [Blame(CloseReason.PROTOCOL, "a broadcast with a false signature")]
        released = self._note(payload, now)
        self.counts["delivered"] += 1
        delivery = Delivery(
            peer_id_of(payload.origin),
            payload.body,
            payload.content,
            is_broadcast=True,
            topic=payload.topic,
            hops=broadcast.hops,
            sequence=payload.sequence,
            sent_at=payload.sent_at_ms / 1000,
        )
        released += self._ordering.arrived(delivery, payload.epoch, len(payload.body), now)
        effects: list[GossipEffect] = [Deliver(each) for each in released]
        if broadcast.hops < HOPS_MAX:
            onward = Broadcast(broadcast.payload, broadcast.signature, broadcast.hops + 1)
            effects.append(Flood(encode(onward), peer))
        return effects

    def tick(self, origin: bytes, now: float) -> list[GossipEffect]:
        """What came early of this origin has waited long enough."""
        return [Deliver(delivery) for delivery in self._ordering.tick(origin, now)]

    def _refuse(self, payload: BroadcastPayload, now: float) -> str | None:
        """Why a broadcast is not to be looked at any further, before its signature is checked."""
        if payload.origin == self._signatures.peer_id:
            return "own"
        if len(payload.body) > self._config.body_bytes_max:
            return "too big"
        age_s = now + self.unix_offset_s - payload.sent_at_ms / 1000
        if age_s > self._config.age_max_s or age_s < -self._config.clock_skew_max_s:
            return "stale"
        seen = self._seen.get(payload.origin)
        if seen is None:
            return "unknown and old" if payload.sent_at_ms <= self._pushed_out_ms else None
        if payload.sent_at_ms <= seen.unknown_until_ms:
            return "unknown and old"
        if payload.epoch > seen.epoch or seen.keep_until < now:
            return None
        if payload.epoch < seen.epoch:
            return "earlier run"
        if payload.sequence <= seen.floor or payload.sequence in seen.above:
            return "repeated"
        return None

    def _note(self, payload: BroadcastPayload, now: float) -> list[Delivery]:
        """Remember a number; returns what was held of an origin that is forgotten for it."""
        window = self._config.window
        before = self._seen.pop(payload.origin, None)
        self._numbers -= len(before.above) if before is not None else 0
        seen = before
        if seen is None or payload.epoch > seen.epoch or seen.keep_until < now:
            seen = SeenNumbers(payload.epoch, payload.sequence, window)
        seen.add(payload.sequence, window)
        if self._numbers + len(seen.above) > self._config.numbers_max:
            seen.narrow(self._config.window_least)
        if self._numbers + len(seen.above) > self._config.numbers_max:
            # Many origins leave gaps at once: this one goes on without its own.
            seen.narrow(0)
        self._numbers += len(seen.above)
        if before is not None:
            # Also through a restart: the earlier run's messages may not be stale yet.
            seen.keep_until, seen.newest_ms = before.keep_until, before.newest_ms
            seen.unknown_until_ms = before.unknown_until_ms
        else:
            seen.unknown_until_ms = self._pushed_out_ms
        # An origin whose clock is ahead of ours could be replayed for that much longer.
        ahead_s = max(0.0, payload.sent_at_ms / 1000 - self.unix_offset_s - now)
        seen.keep_until = max(seen.keep_until, now + ahead_s + self._config.remembered_s)
        seen.newest_ms = max(seen.newest_ms, payload.sent_at_ms)
        self._seen[payload.origin] = seen
        oldest = next(iter(self._seen))
        if len(self._seen) > self._config.origins_max:
            self.counts["origins evicted"] += 1
            self._pushed_out_ms = max(self._pushed_out_ms, self._seen[oldest].newest_ms)
        elif self._seen[oldest].keep_until >= now:
            return []
        self._numbers -= len(self._seen.pop(oldest).above)
        return self._ordering.forget(oldest)
