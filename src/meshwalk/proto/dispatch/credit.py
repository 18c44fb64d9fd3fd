"""Credit of one conversation, in one direction: integers only. It knows neither frames nor links.

Seed 003: "I have n bytes in regard to message Y, and can receive m more". Both ends count bytes
since the conversation began, so that a credit that is late, lost or repeated does no harm: the
latest says all (as MAX_STREAM_DATA in RFC 9000 section 4.1).

    sender   Allowance    sent  <=  limit           what lies between `taken` and `sent` is kept,
    receiver Window       taken <= received <= limit    since it may have to be sent again
"""

from __future__ import annotations

from meshwalk.wire.frames import FIRST_WINDOW_BYTES

TELL_AT = 4  # guess: news of a quarter of the window keeps a sender busy at one frame in sixteen

READ_WITHIN_S = 0.01  # guess: a reader that is not slow, on a path whose round trip is unknown


class Allowance:
    """The sender's side: how much it may still say."""

    __slots__ = ("limit", "outstanding_max", "sent", "taken")

    def __init__(self, outstanding_max: int) -> None:
        self.outstanding_max = max(outstanding_max, FIRST_WINDOW_BYTES)
        """What this end keeps at the most to say it again, however much the peer allows."""
        self.sent = 0
        self.taken = 0
        """Of the bytes sent, those that need never be sent again."""
        self.limit = FIRST_WINDOW_BYTES

    @property
    def room(self) -> int:
        """Bytes that may be sent now."""
        return self.limit - self.sent

    @property
    def outstanding(self) -> int:
        """Bytes sent that may still lie at the receiver, or be on their way."""
        return self.sent - self.taken

    def heard(self, taken: int, held: int, more: int) -> bool:
        """A credit has come. False: it speaks of bytes that were never sent."""
        if taken + held > self.sent:
            return False
        if taken > self.taken:
            self.taken = taken
        self.limit = max(self.limit, min(taken + held + more, self.taken + self.outstanding_max))
        return True


class Window:
    """The receiver's side: how much it holds, and how much more it has said it takes.

    A message that comes in parts is taken while it is being put together, if nothing lies unread
    before it: else one longer than the window would wait for itself for ever. When it is whole,
    such bytes are `ahead` of the reader, and hold up what comes after them until it is read.
    """

    __slots__ = (
        "ahead",
        "full_at",
        "lap",
        "limit",
        "received",
        "size",
        "size_max",
        "taken",
        "told",
    )

    def __init__(self, size_max: int) -> None:
        self.size = FIRST_WINDOW_BYTES
        self.size_max = max(size_max, FIRST_WINDOW_BYTES)
        self.limit = FIRST_WINDOW_BYTES
        self.received = 0
        self.taken = 0
        self.told = 0
        """What the sender knows of `taken`."""
        self.ahead = 0
        """Bytes taken of whole messages that nobody has read yet."""
        self.full_at: float | None = None
        """When the sender had nearly used up what it was allowed, if it has since `tell`."""
        self.lap = (0, 0.0)
        """What had been taken, and when, at the last end of as much as the window holds."""

    def shut(self) -> None:
        """Let nothing come."""
        self.size = self.size_max = self.limit = 0

    @property
    def held(self) -> int:
        """Bytes that wait to be read."""
        return self.received - self.taken

    @property
    def owed(self) -> int:
        """Bytes taken that the sender does not know of."""
        return self.taken - self.told

    def receive(self, cost: int, now: float) -> bool:
        """A part has come. False: it is beyond what was allowed, and counts for nothing."""
        received = self.received + cost
        left = self.limit - received
        if left * TELL_AT < self.size:
            if left < 0:
                return False
            if self.full_at is None:
                self.full_at = now
        self.received = received
        return True

    def take(self, cost: int) -> None:
        """So many bytes have been read."""
        self.taken += cost

    def should_tell(self) -> bool:
        """Whether the sender should hear at once how much more may come."""
        gain = self.size - self.ahead + self.taken - self.limit
        return gain * TELL_AT >= self.size or (self.taken - self.told) * TELL_AT >= self.size

    def tell(self, now: float, rtt_s: float = 0.0) -> tuple[int, int, int]:
        """What a credit says now: bytes taken, held, and how many more may come.

        The window doubles when the sender had nearly used it up, and most of that was read within
        one round trip: then the window is what holds the sender back, and not the reader. So it
        grows to what the path holds, bandwidth times round trip. A reader so quick that little lies
        unread at any time shows in another way: a whole window is read within two round trips, as
        Chromium's QUIC has it.
        """
        held = self.received - self.taken
        if self.taken >= self.lap[0] + self.size:
            if rtt_s and now <= self.lap[1] + 2 * rtt_s:
                self.size = min(self.size * 2, self.size_max)
            self.lap = (self.taken, now)
        if self.full_at is not None:
            if now > self.full_at + max(rtt_s, READ_WITHIN_S):
                self.full_at = None
            elif 2 * (held + self.ahead) <= self.size:
                self.size = min(self.size * 2, self.size_max)
                self.full_at = None
        more = max(self.size - held - self.ahead, self.limit - self.received, 0)
        self.limit = self.received + more
        self.told = self.taken
        return self.taken, held, more
