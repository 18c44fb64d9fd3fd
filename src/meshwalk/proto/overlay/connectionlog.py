"""The log of whom a node connected to, by which peers tell each other only the news. Order only.

A place in it is a position: when the node connected, in microseconds of Unix time, and always more
than the last. So a cursor into the log holds across a restart of its owner, whatever is in memory.
"""

from __future__ import annotations

from meshwalk.proto.overlay.bookentry import BookEntry
from meshwalk.wire.peerid import PeerId


class ConnectionLog:
    """Entries with a position, at most so many: those connected to last."""

    __slots__ = ("_entries", "_is_sorted", "_length_max", "newest_position")

    def __init__(self, length_max: int) -> None:
        self.newest_position = 0
        """The last that was given; 0 before the first."""
        self._length_max = length_max
        self._entries: dict[PeerId, BookEntry] = {}
        """The oldest first, once it is sorted."""
        self._is_sorted = True

    def load(self, entry: BookEntry) -> None:
        """Take over an entry of an earlier run, if it has a position; in any order."""
        if entry.position > 0:
            self.newest_position = max(self.newest_position, entry.position)
            self._entries[entry.peer] = entry
            self._is_sorted = False

    def add(self, entry: BookEntry, unix_us: int) -> BookEntry | None:
        """Put an entry at the end; the one that falls out at the other, if one does."""
        self._sort()
        self._entries.pop(entry.peer, None)
        oldest = None
        if len(self._entries) >= self._length_max:
            oldest = self._entries.pop(next(iter(self._entries)))
            oldest.position = 0
        entry.position = self.newest_position = max(self.newest_position + 1, unix_us)
        self._entries[entry.peer] = entry
        return oldest

    def after(self, position: int) -> list[BookEntry]:
        """The entries beyond a position, the oldest first; all of them if it is none that this log
        has reached: whoever quotes it has it from before we lost our memory."""
        if position > self.newest_position:
            position = 0
        self._sort()
        found: list[BookEntry] = []
        for entry in reversed(self._entries.values()):
            if entry.position <= position:
                break
            found.append(entry)
        found.reverse()
        return found

    def remove(self, entry: BookEntry) -> None:
        """Forget an entry, if it is here."""
        self._entries.pop(entry.peer, None)

    def _sort(self) -> None:
        if self._is_sorted:
            return
        self._is_sorted = True
        ordered = sorted(self._entries.values(), key=lambda entry: entry.position)
        surplus = max(0, len(ordered) - self._length_max)
        for entry in ordered[:surplus]:
            entry.position = 0
        self._entries = {entry.peer: entry for entry in ordered[surplus:]}
