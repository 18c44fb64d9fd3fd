"""Events in order of (time, sequence), as one heap would give them, at a fraction of its cost.

A heap of all that is pending pays for every event with a logarithm of cache misses. Here time is
cut into slots: an event far ahead is appended to its slot's list, and a slot is sorted once, when
its time comes. Brown, "Calendar queues", CACM 31(10), 1988, is the idea.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any, Final, TypeAlias

Event: TypeAlias = tuple[float, int, Callable[[Any], None], Any]
"""When, in which order among equals, what to call, and its argument."""

SLOTS_PER_S: Final = 256  # guess: below the latency of most paths, some hundred events in each


class Timeline:
    """What is to happen, earliest first; of two at the same time, the one that was added first."""

    def __init__(self) -> None:
        self.pending = 0
        """Events added and not yet taken out."""
        self._sequence = 0
        self._slot = -1
        self._now: list[Event] = []
        """The present slot, latest first, so that the next one is at the end."""
        self._late: list[Event] = []
        """A heap of what was added to the present slot, or an earlier one, after it was sorted."""
        self._ahead: dict[int, list[Event]] = {}
        self._slots: list[int] = []
        """A heap of the keys of `_ahead`."""

    def add(self, at: float, action: Callable[[Any], None], argument: Any) -> None:
        """Have `action(argument)` come at `at`. Never before what has been taken out already."""
        self._sequence = sequence = self._sequence + 1
        self.pending += 1
        slot = int(at * SLOTS_PER_S)
        if slot <= self._slot:
            heapq.heappush(self._late, (at, sequence, action, argument))
            return
        events = self._ahead.get(slot)
        if events is None:
            self._ahead[slot] = [(at, sequence, action, argument)]
            heapq.heappush(self._slots, slot)
        else:
            events.append((at, sequence, action, argument))

    def take(self, until: float) -> Event | None:
        """The next event that is due by `until`; None when there is none."""
        while True:
            if self._late and (not self._now or self._late[0] < self._now[-1]):
                if self._late[0][0] > until:
                    return None
                self.pending -= 1
                return heapq.heappop(self._late)
            if self._now:
                if self._now[-1][0] > until:
                    return None
                self.pending -= 1
                return self._now.pop()
            if not self._slots or self._slots[0] > until * SLOTS_PER_S:
                return None
            self._slot = heapq.heappop(self._slots)
            self._now = self._ahead.pop(self._slot)
            self._now.sort(reverse=True)
