"""What neighbours are only told of: gathered for a moment, and told in ranges. Plumtree's IHAVE."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from typing import TypeAlias

from meshwalk.config import TreeConfig
from meshwalk.proto.broadcast.history import History, Id
from meshwalk.proto.timers import Timers
from meshwalk.wire.gossip import HAVE_ENTRIES_MAX, RANGES_MAX, Have, Held, ranges_of
from meshwalk.wire.peerid import PeerId

TIMER = "broadcast announce"

Pending: TypeAlias = dict[tuple[bytes, int], list[int]]
"""Numbers by origin and epoch."""


class Announcing:
    """What each neighbour of one node has yet to be told of."""

    def __init__(
        self, config: TreeConfig, history: History, timers: Timers, counts: Counter[str]
    ) -> None:
        self._config = config
        self._history = history
        self._timers = timers
        self._counts = counts
        self._pending: dict[PeerId, Pending] = {}
        self._gathered: Counter[PeerId] = Counter()
        self._is_due = False

    def add(self, peer: PeerId, id: Id, now: float) -> None:
        """A neighbour is to be told of this one soon."""
        pending = self._pending.get(peer)
        if pending is None:
            pending = self._pending[peer] = {}
        origin = id[:2]
        numbers = pending.get(origin)
        if numbers is None:
            pending[origin] = [id[2]]
        else:
            numbers.append(id[2])
        self._gathered[peer] += 1
        if self._gathered[peer] > self._config.announced_max:
            self._drop_oldest(peer)
        if not self._is_due:
            self._is_due = True
            self._timers.set((TIMER, None), now + self._config.announce_every_s)

    def knows(self, peer: PeerId, origin: tuple[bytes, int], ranges: list[int]) -> int:
        """A neighbour has these: it need not be told. Returns how many were looked at."""
        pending = self._pending.get(peer)
        if pending is None or (numbers := pending.get(origin)) is None:
            return 0
        # The index is odd within a pair, or that of its first.
        left = [
            number
            for number in numbers
            if (at := bisect_left(ranges, number)) % 2 == 0
            and (at == len(ranges) or ranges[at] != number)
        ]
        self._gathered[peer] -= len(numbers) - len(left)
        if left:
            pending[origin] = left
        else:
            del pending[origin]
        return len(numbers)

    def forget(self, peer: PeerId) -> None:
        """A neighbour has gone."""
        self._pending.pop(peer, None)
        del self._gathered[peer]

    def tick(self, takes_more: dict[PeerId, bool], now: float) -> Iterator[tuple[PeerId, Have]]:
        """Tell those who read; the others when they do."""
        self._is_due = False
        for peer in list(self._pending):
            if takes_more.get(peer):
                self._gathered[peer] = 0
                for have in self.in_messages(self._told(self._pending.pop(peer))):
                    yield peer, have
        if self._pending:
            self._is_due = True
            self._timers.set((TIMER, None), now + self._config.announce_every_s)

    def in_messages(self, held: Iterator[Held]) -> Iterator[Have]:
        """In messages of a bounded size."""
        gathered: list[Held] = []
        for one in held:
            gathered.append(one)
            if len(gathered) == HAVE_ENTRIES_MAX:
                yield Have(gathered)
                gathered = []
        if gathered:
            yield Have(gathered)

    def _told(self, pending: Pending) -> Iterator[Held]:
        for (origin, epoch), numbers in pending.items():
            ranges = ranges_of(numbers)
            for start in range(0, len(ranges), 2 * RANGES_MAX):
                part = ranges[start : start + 2 * RANGES_MAX]
                yield self._history.told(origin, epoch, part)

    def _drop_oldest(self, peer: PeerId) -> None:
        pending = self._pending[peer]
        oldest = next(iter(pending))
        numbers = pending[oldest]
        # Its later ones stay: they show that there are others.
        dropped = numbers[: (len(numbers) + 1) // 2]
        del numbers[: len(dropped)]
        if not numbers:
            del pending[oldest]
        self._gathered[peer] -= len(dropped)
        self._counts["not announced"] += len(dropped)
