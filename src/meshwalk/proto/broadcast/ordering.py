"""Hands each origin's broadcasts over in the order of their numbers. Knows no links and no wire.

As long as no link changes, a tree brings them in order. When one does, or something is asked for,
one way may be seconds ahead of another; what comes early goes to those readers at once that do not
mind, and is held for the others until what is missing has come, or until nothing of it has come for
`order_wait_s`, or it is known that nobody has it. Then the gap is given up and counted; should it
be filled later after all, what comes late is handed over late.

An origin's line begins with the first number that is heard of it, or that a neighbour was asked
for: who joins late waits for nothing else. One that restarts begins with 1.
"""

from __future__ import annotations

from collections import Counter

from meshwalk.config import BroadcastConfig
from meshwalk.events import Delivery
from meshwalk.proto.effects import Deliver, Readers
from meshwalk.proto.timers import Timers

TIMER = "broadcast order"


class Line:
    """One origin's broadcasts of one epoch."""

    __slots__ = ("epoch", "held", "next")

    def __init__(self, epoch: int, first: int) -> None:
        self.epoch = epoch
        self.next = first
        self.held: dict[int, tuple[list[Delivery], int]] = {}
        """What came early, with the size of its bodies, by number."""


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

    def arrived(
        self,
        origin: bytes,
        epoch: int,
        number: int,
        messages: list[Delivery],
        size: int,
        first: int,
        now: float,
    ) -> list[Deliver]:
        """What can be handed over, now that these messages of one broadcast have come. `first`:
        where the line begins, if this is the first that is heard of it."""
        line = self._lines.get(origin)
        out: list[Deliver] = []
        if line is None or epoch > line.epoch:
            out = self.forget(origin)
            line = self._lines[origin] = Line(epoch, min(first, number))
        if epoch < line.epoch or number < line.next:
            self._counts["late"] += len(messages)
            return [Deliver(message) for message in messages]
        if number > line.next:
            line.held[number] = messages, size
            self._held += 1
            self._held_bytes += size
            out += [Deliver(message, Readers.UNORDERED) for message in messages]
            if len(line.held) == 1:
                self._timers.set((TIMER, origin), now + self._config.order_wait_s)
            if (
                self._held > self._config.order_held_max
                or self._held_bytes > self._config.order_held_bytes_max
            ):
                self._counts["gaps given up"] += 1
                out += self._release(origin, line)
            return out
        line.next += 1
        out += [Deliver(message) for message in messages]
        return out + self._go_on(origin, line, now) if line.held else out

    def has_line(self, origin: bytes, epoch: int) -> bool:
        """Whether something of this epoch, or a later one, was handed over."""
        line = self._lines.get(origin)
        return line is not None and line.epoch >= epoch

    def begins_behind(self, origin: bytes, epoch: int, number: int) -> None:
        """This one and those before it were handed over in an earlier run of this node."""
        self._lines[origin] = Line(epoch, number + 1)

    def gone(self, origin: bytes, epoch: int, number: int, now: float) -> list[Deliver]:
        """This one will not come: nobody waits for it."""
        line = self._lines.get(origin)
        if line is None or line.epoch != epoch or line.next != number or not line.held:
            return []
        self._counts["gaps given up"] += 1
        line.next += 1
        return self._go_on(origin, line, now)

    def tick(self, origin: bytes, now: float) -> list[Deliver]:
        """Nothing of a gap has come for too long: go on behind it."""
        line = self._lines.get(origin)
        if line is None or not line.held:
            return []
        self._counts["gaps given up"] += 1
        line.next = min(line.held)
        return self._go_on(origin, line, now)

    def leave(self) -> list[Deliver]:
        """The node is stopping: all that waits is handed over, each origin's in order."""
        return [each for origin in list(self._lines) for each in self.forget(origin)]

    def forget(self, origin: bytes) -> list[Deliver]:
        """End a line; returns what it still held, in order."""
        line = self._lines.pop(origin, None)
        return [] if line is None else self._release(origin, line)

    def _go_on(self, origin: bytes, line: Line, now: float) -> list[Deliver]:
        out = self._next_of(line)
        if line.held:  # there is progress: the rest of the gap may take as long again
            self._timers.set((TIMER, origin), now + self._config.order_wait_s)
        else:
            self._timers.cancel((TIMER, origin))
        return out

    def _next_of(self, line: Line) -> list[Deliver]:
        out: list[Deliver] = []
        while (found := line.held.pop(line.next, None)) is not None:
            line.next += 1
            self._held -= 1
            self._held_bytes -= found[1]
            out += [Deliver(message, Readers.ORDERED) for message in found[0]]
        return out

    def _release(self, origin: bytes, line: Line) -> list[Deliver]:
        self._timers.cancel((TIMER, origin))
        held = sorted(line.held.items())
        line.held.clear()
        self._held -= len(held)
        self._held_bytes -= sum(size for _, (_, size) in held)
        if held:
            line.next = held[-1][0] + 1
        return [Deliver(m, Readers.ORDERED) for _, (messages, _) in held for m in messages]
