"""Named deadlines of all machines of one node: set, cancel, next, due. No clock, no call-backs.

A key is (machine, what): the node routes a due key to the machine that its first part names.
Setting a key again replaces its deadline, so nothing stale ever comes due.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Iterator
from typing import TypeAlias

Key: TypeAlias = tuple[str, Hashable]


class Timers:
    """A heap of deadlines with lazy removal."""

    __slots__ = ("_current", "_heap", "changes")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Key]] = []
        self._current: dict[Key, int] = {}
        self.changes = 0
        """How often a deadline was set: who arms a clock need look again only when it grew."""

    def __len__(self) -> int:
        return len(self._current)

    def set(self, key: Key, at: float) -> None:
        """Make `key` due at `at`, instead of any earlier setting."""
        self.changes += 1
        self._current[key] = self.changes
        heapq.heappush(self._heap, (at, self.changes, key))
        # Replaced entries stay in the heap until they surface; rebuilt when they outnumber the
        # others, so that memory follows the number of keys.
        if len(self._heap) > 64 and len(self._heap) > 4 * len(self._current):
            current = self._current
            self._heap = [entry for entry in self._heap if current.get(entry[2]) == entry[1]]
            heapq.heapify(self._heap)

    def cancel(self, key: Key) -> None:
        """Forget `key`; nothing happens when it is not set."""
        self._current.pop(key, None)

    def next(self) -> float | None:
        """The earliest deadline, or None."""
        heap = self._heap
        while heap:
            at, change, key = heap[0]
            if self._current.get(key) == change:
                return at
            heapq.heappop(heap)
        return None

    def due(self, now: float) -> Iterator[Key]:
        """Take out, one by one and earliest first, the keys whose deadline has come."""
        current = self._current
        while self._heap and self._heap[0][0] <= now:
            _, change, key = heapq.heappop(self._heap)
            if current.get(key) == change:
                del current[key]
                yield key
