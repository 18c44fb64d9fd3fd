"""Broadcasts that are kept, so that others can have what they missed. Bounded; the oldest go first.

The memory of one node; the driver's store keeps the same, so that it outlives a restart.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import Final, TypeAlias

import msgspec

from meshwalk.config import HistoryConfig
from meshwalk.wire.gossip import DIGESTS_MAX, RANGES_MAX, Broadcast, Held, ranges_of
from meshwalk.wire.messages import HOPS_MAX
from meshwalk.wire.peerid import PeerId

Id: TypeAlias = tuple[bytes, int, int]
"""Which broadcast: its origin's key, epoch and sequence."""


MINUTE_MS: Final = 60_000  # how many milliseconds a minute has


class HeldBroadcast(msgspec.Struct, gc=False):
    """One that is kept."""

    payload: bytes
    signature: bytes
    work: int
    sent_at_ms: int
    hops: int
    """Links that it crossed to here; 0 for an own one."""
    way_us: int
    """Half the round trips of those links."""
    was_repaired: bool
    """Whether it came by a detour: then its way says nothing of the tree."""
    at: float
    source: PeerId | None
    """Who brought it first; None for an own one, and for one that the store kept."""

    def copy(self, marks: int) -> Broadcast:
        """What to send of it."""
        hops = min(self.hops + 1, HOPS_MAX)
        return Broadcast(self.payload, self.signature, hops, self.way_us, marks, self.work)


class History:
    """What one node keeps."""

    def __init__(self, config: HistoryConfig) -> None:
        self._config = config
        self._held: dict[Id, HeldBroadcast] = {}
        self._order: deque[Id] = deque()
        self.bytes = 0
        """Of payloads."""
        self._digests: dict[int, int] = {}
        """Of what is kept, by the minute in which it was sent."""

    def __len__(self) -> int:
        return len(self._held)

    @property
    def is_full(self) -> bool:
        """Whether older ones had to make place."""
        config = self._config
        return len(self._held) >= config.count_max or self.bytes > config.bytes_max // 8 * 7

    def get(self, id: Id) -> HeldBroadcast | None:
        """One, if it is still kept."""
        return self._held.get(id)

    def hold(self, id: Id, broadcast: HeldBroadcast) -> None:
        """Keep one, if it is not kept; the oldest make place."""
        config, held, order = self._config, self._held, self._order
        if id in held:
            return
        held[id] = broadcast
        order.append(id)
        self.bytes += len(broadcast.payload)
        self._mark(id, broadcast.sent_at_ms)
        old = broadcast.at - config.age_s
        while (
            len(order) > config.count_max
            or (self.bytes > config.bytes_max and len(order) > 1)
            or held[order[0]].at < old
        ):
            id = order.popleft()
            gone = held.pop(id)
            self.bytes -= len(gone.payload)
            self._mark(id, gone.sent_at_ms)

    def since(self, since_ms: int) -> Iterator[tuple[Id, HeldBroadcast]]:
        """Those sent from then on, in the order in which they came."""
        for id in self._order:
            found = self._held[id]
            if found.sent_at_ms >= since_ms:
                yield id, found

    def digests(self, since_ms: int, until_ms: int) -> list[int]:
        """A digest of what is kept for each minute from then on, to be compared with another
        node's: they are the same if it keeps the same."""
        first, last = since_ms // MINUTE_MS, until_ms // MINUTE_MS
        found = [self._digests.get(minute, 0) for minute in range(first, last + 1)]
        return found[:DIGESTS_MAX]

    def told_since(
        self, since_ms: int, digests: Sequence[int] = (), oldest_ms: int = 0
    ) -> Iterator[Held]:
        """What is kept as it is told of, by origin, in ranges; without the minutes of which the
        other has the same digest, and what was sent before `oldest_ms`."""
        first = since_ms // MINUTE_MS
        same = {
            first + at
            for at, digest in enumerate(digests)
            if digest == self._digests.get(first + at, 0)
        }
        numbers: dict[tuple[bytes, int], list[int]] = {}
        for (origin, epoch, sequence), held in self.since(max(since_ms, oldest_ms)):
            if held.sent_at_ms // MINUTE_MS not in same:
                numbers.setdefault((origin, epoch), []).append(sequence)
        for (origin, epoch), found in numbers.items():
            ranges = ranges_of(found)
            for start in range(0, len(ranges), 2 * RANGES_MAX):
                part = ranges[start : start + 2 * RANGES_MAX]
                yield self.told(origin, epoch, part)

    def told(self, origin: bytes, epoch: int, ranges: list[int]) -> Held:
        """Some of one origin as they are told of."""
        newest = self._held.get((origin, epoch, ranges[-1]))
        hops, way_us = (newest.hops, newest.way_us) if newest is not None else (HOPS_MAX, 0)
        return Held(origin, epoch, ranges, hops, way_us)

    def _mark(self, id: Id, sent_at_ms: int) -> None:
        """One more, or one less: adding twice takes it away."""
        origin, epoch, sequence = id
        data = origin + epoch.to_bytes(8) + sequence.to_bytes(8)
        digest = int.from_bytes(blake2b(data, digest_size=8).digest())
        minute = sent_at_ms // MINUTE_MS
        left = self._digests.get(minute, 0) ^ digest
        if left:
            self._digests[minute] = left
        else:
            self._digests.pop(minute, None)
