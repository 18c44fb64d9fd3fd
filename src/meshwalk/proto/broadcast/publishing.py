"""This node's own broadcasts: numbers them, gathers bursts into bundles, signs, and keeps its rate.

The first after a pause goes out at once; what follows within `bundle_wait_s` goes out together, as
Nagle's algorithm (RFC 896) does it with a clock in place of the acknowledgement. So one signature,
one frame and one look-up do for up to 512 messages, here and at every hop.
"""

from __future__ import annotations

from typing import Final

from meshwalk.config import Config
from meshwalk.identity.keys import Signatures
from meshwalk.proto.rate import ByteBucket
from meshwalk.proto.timers import Timers
from meshwalk.wire.frames import ContentType
from meshwalk.wire.records import (
    BUNDLE_MESSAGES_MAX,
    BroadcastMessage,
    BroadcastPayload,
    decode_broadcast_payload,
    encode,
)

TIMER = "broadcast seal"
MESSAGE_BYTES: Final = 16  # more than the head of a message in a bundle: measured, 8 bytes


class Publishing:
    """What one node sends to everyone."""

    def __init__(
        self,
        signatures: Signatures,
        config: Config,
        timers: Timers,
        unix_offset_s: float,
        now: float,
    ) -> None:
        self.unix_offset_s = unix_offset_s
        self._me = bytes(signatures.peer_id)
        self._config = config.broadcast
        self._cost_bytes = config.intake.cost_bytes
        self._timers = timers
        self.epoch = int((now + unix_offset_s) * 1000)
        self._sequence = 0
        self._count = 0
        self._open: list[BroadcastMessage] = []
        self._open_bytes = 0
        self._sealed_at = float("-inf")
        intake = config.intake
        self._bucket = ByteBucket(intake.origin_bytes_per_s, intake.origin_burst_bytes)
        self.is_ahead = False
        """Whether so much has gone out that `free_at` may lie ahead."""

    def free_at(self, now: float) -> float:
        """When the rate of an origin allows one more: `now`, or later."""
        at = self._bucket.ready_at(now)
        self.is_ahead = at > now
        return at

    def add(
        self, topic: str, content: ContentType, body: bytes, now: float
    ) -> tuple[int, list[bytes]]:
        """One more message: its number, and the payloads that are to go out now."""
        size = len(body) + len(topic) + MESSAGE_BYTES
        out: list[bytes] = []
        if self._open and self._open_bytes + size > self._config.bundle_bytes_max:
            out.append(self._seal(now))
        self._count += 1
        self._open.append(BroadcastMessage(body, content, topic))
        self._open_bytes += size
        if (
            now >= self._sealed_at + self._config.bundle_wait_s
            or self._open_bytes >= self._config.bundle_bytes_max
            or len(self._open) >= BUNDLE_MESSAGES_MAX
        ):
            out.append(self._seal(now))
        elif len(self._open) == 1:
            self._timers.set((TIMER, None), self._sealed_at + self._config.bundle_wait_s)
        return self._count, out

    def alone(
        self, topic: str, content: ContentType, body: bytes, now: float, asks: int
    ) -> tuple[int, list[bytes]]:
        """One more message, in a bundle of its own, after what was gathered."""
        out = self.tick(now)
        self._count += 1
        self._open.append(BroadcastMessage(body, content, topic))
        out.append(self._seal(now, asks))
        return self._count, out

    def draft(self, topic: str, content: ContentType, body: bytes, now: float, asks: int) -> bytes:
        """The payload that `take_draft` will send, unless another goes out before."""
        messages = [BroadcastMessage(body, content, topic)]
        return self._payload(self._sequence + 1, self._count + 1, messages, asks, now)

    def draft_as(
        self, origin: bytes, topic: str, content: ContentType, body: bytes, now: float
    ) -> bytes:
        """The payload of the only broadcast that an origin will ever send."""
        messages = [BroadcastMessage(body, content, topic)]
        # To the minute: an exact time tells whose clock it is, and how long the stem was.
        sent_at_ms = int((now + self.unix_offset_s) // 60) * 60_000
        return encode(BroadcastPayload(origin, sent_at_ms, 1, sent_at_ms, 1, messages))

    def take_draft(self, payload: bytes, now: float) -> int | None:
        """A draft goes out: its number. None: another went out since it was made."""
        read = decode_broadcast_payload(payload)
        if self._open or read.sequence != self._sequence + 1 or read.epoch != self.epoch:
            return None
        self._sequence += 1
        self._count += 1
        self._spend(payload, now)
        return self._count

    def tick(self, now: float) -> list[bytes]:
        """What was gathered goes out."""
        return [self._seal(now)] if self._open else []

    def _seal(self, now: float, asks: int = 0) -> bytes:
        self._sequence += 1
        first = self._count - len(self._open) + 1
        payload = self._payload(self._sequence, first, self._open, asks, now)
        self._open = []
        self._open_bytes = 0
        self._timers.cancel((TIMER, None))
        self._spend(payload, now)
        return payload

    def _spend(self, payload: bytes, now: float) -> None:
        self._sealed_at = now
        self._bucket.ready_at(now)  # what has come in since counts before a debt is bounded
        self._bucket.borrow(len(payload) + self._cost_bytes)
        self.free_at(now)

    def _payload(
        self, sequence: int, first: int, messages: list[BroadcastMessage], asks: int, now: float
    ) -> bytes:
        sent_at_ms = int((now + self.unix_offset_s) * 1000)
        return encode(
            BroadcastPayload(self._me, self.epoch, sequence, sent_at_ms, first, messages, asks)
        )
