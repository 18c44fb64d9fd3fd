"""Hands each origin's broadcasts over in the order of their numbers. Knows no links and no wire.

As long as no link changes, a flood brings them in order. When a link comes or goes in the middle of
a burst, one way may be seconds ahead of another; what comes early is held until what is missing has
come, or until nothing of it has come for `order_wait_s`. Then the gap is given up and counted;
should it be filled later after all, what comes late is handed over late.

An origin's line begins with the first number that is heard of it: who joins late waits for nothing.
"""

from __future__ import annotations

from collections import Counter

from meshwalk.config import BroadcastConfig
from meshwalk.events import Delivery
from meshwalk.proto.timers import Timers

TIMER = "broadcast"


class Line:
    """One origin's broadcasts of one epoch."""

    __slots__ = ("epoch", "held", "next")

    def __init__(self, epoch: int, first: int) -> None:
        self.epoch = epoch
        self.next = first
        self.held: dict[int, tuple[Delivery, int]] = {}
        """What came early, with the size of its body, by number."""


class Ordering:
    """The lines of all origins at one node."""

    def __init__(self, config: BroadcastConfig, timers: Timers, counts: Counter[str]) -> None:
        self._config = config
        self._timers = timers
        self._counts = counts
        self._lines: dict[bytes, Line] = {}
        self._held = 0
        self._held_bytes = 0

    @property
    def held(self) -> int:
        """Broadcasts that wait for earlier ones."""
        return self._held

    def arrived(self, delivery: Delivery, epoch: int, size: int, now: float) -> list[Delivery]:
        """What can be handed over, now that this has come."""
        origin, number = delivery.origin, delivery.sequence
        line = self._lines.get(origin)
        if line is None or epoch != line.epoch:
            released = self.forget(origin)
            self._lines[origin] = Line(epoch, number + 1)
            return [*released, delivery]
        if number < line.next:
            self._counts["late"] += 1
            return [delivery]
        if number > line.next:
            line.held[number] = delivery, size
            self._held += 1
            self._held_bytes += size
            if len(line.held) == 1:
                self._timers.set((TIMER, origin), now + self._config.order_wait_s)
            if (
                self._held > self._config.order_held_max
                or self._held_bytes > self._config.order_held_bytes_max
            ):
                self._counts["gaps given up"] += 1
                return self._release(origin, line)
            return []
        line.next += 1
        if not line.held:
            return [delivery]
        out = [delivery, *self._next_of(line)]
        if line.held:  # there is progress: the rest of the gap may take as long again
            self._timers.set((TIMER, origin), now + self._config.order_wait_s)
        else:
            self._timers.cancel((TIMER, origin))
        return out

    def tick(self, origin: bytes, now: float) -> list[Delivery]:
        """Nothing of a gap has come for too long: go on behind it."""
        line = self._lines.get(origin)
        if line is None or not line.held:
            return []
        self._counts["gaps given up"] += 1
        line.next = min(line.held)
        out = self._next_of(line)
        if line.held:
            self._timers.set((TIMER, origin), now + self._config.order_wait_s)
        return out

    def forget(self, origin: bytes) -> list[Delivery]:
        """End a line; returns what it still held, in order."""
        line = self._lines.pop(origin, None)
        return [] if line is None else self._release(origin, line)

    def _next_of(self, line: Line) -> list[Delivery]:
        out: list[Delivery] = []
        while (found := line.held.pop(line.next, None)) is not None:
            line.next += 1
            self._held -= 1
            self._held_bytes -= found[1]
            out.append(found[0])
        return out

    def _release(self, origin: bytes, line: Line) -> list[Delivery]:
        self._timers.cancel((TIMER, origin))
        held = sorted(line.held.items())
        line.held.clear()
        self._held -= len(held)
        self._held_bytes -= sum(size for _, (_, size) in held)
        if held:
            line.next = held[-1][0] + 1
        return [delivery for _, (delivery, _) in held]
