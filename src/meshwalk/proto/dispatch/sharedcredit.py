"""Credit that all conversations of two peers share, in one direction: integers only.

The windows of many conversations together would allow more than a node wants to hold for one peer.
So both ends count what lies beyond a floor in each conversation, and the sum stays within what the
receiver's Hello says. The floor is every conversation's own: however many others are stuck because
nobody reads them, one that is read goes on. (HTTP/2 has no floor: RFC 9113 section 5.2.2 warns of
what happens there when a stream is not read.)
"""

from __future__ import annotations

from meshwalk.wire.frames import FLOOR_BYTES, SHARED_WINDOW_BYTES


class SharedCredit:
    """One end's count of what may be outstanding together."""

    __slots__ = ("limit", "scarce_above", "used")

    def __init__(self, limit: int = SHARED_WINDOW_BYTES) -> None:
        self.limit = limit
        self.scarce_above = limit // 2
        """Whoever can give back some should do so at once when more than this is used."""
        self.used = 0

    def room(self, outstanding: int) -> int:
        """Bytes that a conversation with so many outstanding may add."""
        return max(FLOOR_BYTES - outstanding, 0) + max(self.limit - self.used, 0)

    def take(self, outstanding: int, cost: int) -> bool:
        """Add so much to a conversation with so much outstanding, if there is room for it."""
        after = outstanding + cost
        if after > FLOOR_BYTES:
            used = self.used + after - (max(FLOOR_BYTES, outstanding))
            if used > self.limit:
                return False
            self.used = used
        return True

    def change(self, before: int, after: int) -> None:
        """A conversation's outstanding bytes have changed."""
        if before > FLOOR_BYTES:
            self.used -= before - FLOOR_BYTES
        if after > FLOOR_BYTES:
            self.used += after - FLOOR_BYTES

    @property
    def is_scarce(self) -> bool:
        """Whether the other end may have to wait for some."""
        return self.used > self.scarce_above
