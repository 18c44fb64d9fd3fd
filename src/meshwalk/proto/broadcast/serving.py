"""Sends neighbours what they ask for, as fast as they take it. Bounded for each."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from typing import TypeAlias

from meshwalk.config import TreeConfig
from meshwalk.proto.broadcast.effects import Pass
from meshwalk.proto.broadcast.history import HeldBroadcast, History, Id
from meshwalk.proto.timers import Timers
from meshwalk.wire.gossip import RANGES_MAX, Gone, ranges_of
from meshwalk.wire.peerid import PeerId

TIMER = "broadcast serve"
AGAIN_S = 0.02  # guess: a quarter of a megabyte every 20 ms is 13 MB/s for one peer that asks

Send: TypeAlias = Callable[[PeerId, Id, HeldBroadcast, float], Pass]
"""How one is sent to a neighbour that has asked for it."""
Takes: TypeAlias = Callable[[float], bool]
"""Whether it takes one more now, and within the rate that it allows."""


class Serving:
    """What neighbours of one node have asked for."""

    def __init__(
        self, config: TreeConfig, history: History, timers: Timers, counts: Counter[str]
    ) -> None:
        self._config = config
        self._history = history
        self._timers = timers
        self._counts = counts
        self._owed: dict[PeerId, deque[Id]] = {}

    def asked(self, peer: PeerId, ids: list[Id], now: float) -> None:
        """A neighbour asks for these; `tick` sends them."""
        owed = self._owed.get(peer)
        if owed is None:
            owed = self._owed[peer] = deque()
            self._timers.set((TIMER, peer), now)
        room = max(0, self._config.serve_numbers_max - len(owed))
        owed.extend(ids[:room])
        self._counts["asked for too much"] += len(ids) - min(room, len(ids))

    def forget(self, peer: PeerId) -> None:
        """A neighbour has gone."""
        if self._owed.pop(peer, None) is not None:
            self._timers.cancel((TIMER, peer))

    def tick(self, peer: PeerId, send: Send, takes_answer: Takes, now: float) -> list[Pass]:
        """Send a neighbour some of what it asked for."""
        owed = self._owed.get(peer)
        if owed is None:
            return []
        out: list[Pass] = []
        gone: dict[tuple[bytes, int], list[int]] = {}
        size = 0
        while owed and takes_answer(now) and size < self._config.serve_bytes:
            id = owed.popleft()
            held = self._history.get(id)
            if held is None:
                gone.setdefault(id[:2], []).append(id[2])
            else:
                size += len(held.payload)
                self._counts["sent on request"] += 1
                out.append(send(peer, id, held, now))
        for (origin, epoch), numbers in gone.items():
            ranges = ranges_of(numbers)
            for start in range(0, len(ranges), 2 * RANGES_MAX):
                part = ranges[start : start + 2 * RANGES_MAX]
                out.append(Pass((peer,), Gone(origin, epoch, part)))
        if owed:
            self._timers.set((TIMER, peer), now + AGAIN_S)
        else:
            del self._owed[peer]
        return out
