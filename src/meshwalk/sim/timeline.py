"""Events in order of time, as one heap would give them, at a fraction of its cost.

A heap of all that is pending pays for every event with a logarithm of cache misses. Here time is
cut into slots: an event far ahead is appended to its slot's list, and a slot is sorted once, when
its time comes. Brown, "Calendar queues", CACM 31(10), 1988, is the idea.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from operator import itemgetter
from typing import Any, Final, TypeAlias

Event: TypeAlias = tuple[float, Callable[[Any], None], Any]
"""When, what to call, and its argument."""

SLOTS_PER_S: Final = 256  # guess: below the latency of most paths, some hundred events in each

_when: Final = itemgetter(0)


class Timeline:
    """What is to happen, earliest first; of two at the same time, the one that was added first."""

    def __init__(self) -> None:
        self.ahead: dict[int, list[Event]] = {}
        """Later slots, by number, unsorted. Who has found one may append to it, as `add` does."""
        self._slots: list[int] = []
        """A heap of the keys of `ahead`."""
        self._slot = -1
        self._present: list[Event] = []
        """The present slot, latest first, so that the next one is at the end."""
        self._late: list[tuple[float, int, Event]] = []
        """A heap of what was added to the present slot, or an earlier one, after it was sorted."""
        self._lates = 0

    @property
    def pending(self) -> int:
        """Events added and not yet taken out."""
        return len(self._present) + len(self._late) + sum(map(len, self.ahead.values()))

    def add(self, at: float, action: Callable[[Any], None], argument: Any) -> None:
        """Have `action(argument)` come at `at`. Never before what has been taken out already."""
        slot = int(at * SLOTS_PER_S)
        if slot <= self._slot:
            self._lates += 1
            heapq.heappush(self._late, (at, self._lates, (at, action, argument)))
            return
        events = self.ahead.get(slot)
        if events is None:
            self.ahead[slot] = [(at, action, argument)]
            heapq.heappush(self._slots, slot)
        else:
            events.append((at, action, argument))

    def due(self, until: float) -> Iterator[Event]:
        """Take out what is due by `until`, one by one; meanwhile more may be added."""
        late = self._late
        while True:
            present = self._present
            while present or late:
                # What is late was added after all that is present: it comes second among equals.
                if late and not (present and present[-1][0] <= late[0][0]):
                    if late[0][0] > until:
                        return
                    yield heapq.heappop(late)[2]
                elif present[-1][0] > until:
                    return
                else:
                    yield present.pop()
            if not self._slots or self._slots[0] > until * SLOTS_PER_S:
                return
            self._slot = heapq.heappop(self._slots)
            self._present = self.ahead.pop(self._slot)
            self._present.sort(key=_when)  # stable: equals stay in the order of their adding
            self._present.reverse()
