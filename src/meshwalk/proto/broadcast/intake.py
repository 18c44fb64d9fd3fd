"""How fast broadcasts are taken: each neighbour its rate, each origin its own, and signatures only
so many at a time, the neighbours in turn. Tables and rules; knows nothing of what it takes.

What an origin sends beyond its rate is dropped and counted; whoever passed it on has it still, so
that it is asked for when there is room. So is what a neighbour sends while too much of it waits.
"""

from __future__ import annotations

import enum
from collections import Counter, deque
from collections.abc import Iterator
from typing import Final, Generic, TypeVar

from meshwalk.config import IntakeConfig
from meshwalk.proto.broadcast.origins import Origin
from meshwalk.proto.rate import ByteBucket, TokenBucket
from meshwalk.proto.timers import Timers
from meshwalk.wire.peerid import PeerId

TIMER = "broadcast intake"
RECEIVERS_ALLOW: Final = 2  # guess: what an origin sends evenly may come in bursts

_Item = TypeVar("_Item")


class Turn(enum.Enum):
    """When a broadcast is looked at."""

    NOW = enum.auto()
    LATER = enum.auto()
    """It waits."""
    NEVER = enum.auto()
    """There is no room: it was dropped."""


class Waiting(Generic[_Item]):
    """What one neighbour has sent and nobody has looked at."""

    __slots__ = ("bucket", "bytes", "items", "newcomers")

    def __init__(self, config: IntakeConfig) -> None:
        self.newcomers = TokenBucket(config.newcomers_per_s, config.newcomers_burst)
        self.bucket = ByteBucket(config.link_bytes_per_s, config.link_burst_bytes)
        self.items: deque[tuple[_Item, int]] = deque()
        self.bytes = 0


class Intake(Generic[_Item]):
    """The way in to one node."""

    def __init__(self, config: IntakeConfig, timers: Timers, counts: Counter[str]) -> None:
        self._config = config
        self._timers = timers
        self._counts = counts
        self._from: dict[PeerId, Waiting[_Item]] = {}
        self._turns: deque[PeerId] = deque()
        """Neighbours of whom something waits, the next one first."""
        self._turn_ends = 0.0
        self._checked = 0

    @property
    def waiting(self) -> int:
        """Broadcasts that wait for their turn."""
        return sum(len(waiting.items) for waiting in self._from.values())

    def allows_link(self, peer: PeerId, size: int, now: float) -> bool:
        """Whether a neighbour keeps to its rate with so many bytes more."""
        waiting = self._from.get(peer)
        if waiting is None:
            waiting = self._from[peer] = Waiting(self._config)
        if waiting.bucket.ready_at(now) > now:
            self._counts["above a neighbour's rate"] += 1
            return False
        waiting.bucket.spend(size + self._config.cost_bytes)
        return True

    def allows_newcomer(self, peer: PeerId, now: float) -> bool:
        """Whether a neighbour may bring one more origin that nobody has heard of. The caller has
        seen to `allows_link`."""
        if self._from[peer].newcomers.take(now):
            return True
        self._counts["too many new origins"] += 1
        return False

    def allows_origin(self, origin: Origin, size: int, now: float) -> bool:
        """Whether an origin keeps to its rate with so many bytes more; then they are counted."""
        config = self._config
        per_s = RECEIVERS_ALLOW * config.origin_bytes_per_s
        spent = max(0.0, origin.spent - (now - origin.spent_at) * per_s)
        origin.spent_at = now
        if spent > RECEIVERS_ALLOW * config.origin_burst_bytes:
            origin.spent = spent
            self._counts["above an origin's rate"] += 1
            return False
        origin.spent = spent + size + config.cost_bytes
        return True

    def offer(self, peer: PeerId, item: _Item, size: int, now: float) -> Turn:
        """When to look at it; what is dropped is counted. The caller has seen to `allows_link`."""
        config = self._config
        if now >= self._turn_ends:
            self._turn_ends = now + config.turn_s
            self._checked = 0
        if not self._turns and self._checked < config.checks_per_turn:
            self._checked += 1
            return Turn.NOW
        waiting = self._from[peer]
        if (
            len(waiting.items) >= config.waiting_max
            or waiting.bytes + size > config.waiting_bytes_max
        ):
            self._counts["dropped unread"] += 1
            return Turn.NEVER
        if not waiting.items:
            self._turns.append(peer)
        waiting.items.append((item, size))
        waiting.bytes += size
        if self.waiting_peers == 1 and len(waiting.items) == 1:
            self._timers.set((TIMER, None), self._turn_ends)
        return Turn.LATER

    @property
    def waiting_peers(self) -> int:
        """Neighbours of whom something waits."""
        return len(self._turns)

    def tick(self, now: float) -> Iterator[tuple[PeerId, _Item]]:
        """The next turn: one of each neighbour, and again, as far as it goes."""
        self._turn_ends = now + self._config.turn_s
        self._checked = 0
        while self._turns and self._checked < self._config.checks_per_turn:
            peer = self._turns.popleft()
            waiting = self._from.get(peer)
            if waiting is None or not waiting.items:
                continue
            item, size = waiting.items.popleft()
            waiting.bytes -= size
            if waiting.items:
                self._turns.append(peer)
            self._checked += 1
            yield peer, item
        if self._turns:
            self._timers.set((TIMER, None), self._turn_ends)

    def forget(self, peer: PeerId) -> None:
        """The neighbour has gone, and what it sent last with it: others have it."""
        self._from.pop(peer, None)
        if peer in self._turns:
            self._turns.remove(peer)
