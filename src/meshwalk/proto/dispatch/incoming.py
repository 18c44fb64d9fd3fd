"""What one end hears in a conversation: parts put in order, put together, and held until read.

Parts may come twice, or out of order, when one link has taken the place of another. Bounded by the
window: a part beyond it is the sender's breach, whatever its place in the sequence. A message that
is longer than the window comes to its end by growing: its parts are taken before it is whole.
"""

from __future__ import annotations

import msgspec

from meshwalk.proto.dispatch.credit import Window
from meshwalk.wire.frames import MARK_MORE, PART_COST_BYTES, Message


class Incoming:
    """One direction of one conversation, at its receiver."""

    __slots__ = (
        "expected",
        "has_ended",
        "held",
        "is_growing",
        "parked",
        "parts",
        "parts_cost",
        "unread",
        "window",
    )

    def __init__(self, window_max: int) -> None:
        self.window = Window(window_max)
        self.expected = 1
        """The next in sequence."""
        self.has_ended = False
        """The sender says nothing more."""
        self.unread = 0
        """Whole messages that nobody has read yet."""
        self.parked: dict[int, Message] | None = None
        """What came before its turn."""
        self.parts: list[Message] | None = None
        """Of the message that is not whole yet."""
        self.parts_cost = 0
        """Of those, what they cost of the window."""
        self.held = 0
        """Of that, what is not taken yet."""
        self.is_growing = False
        """Whether parts are taken as they come."""

    def has_come(self, sequence: int) -> bool:
        """Whether a part with this number has come before."""
        return sequence < self.expected or (self.parked is not None and sequence in self.parked)

    def in_order(self, message: Message) -> list[Message]:
        """The parts whose turn has come: this one, which has not come before, and those that waited
        for it; [] when it must wait."""
        sequence = message.sequence
        parked = self.parked
        if sequence > self.expected:
            if parked is None:
                parked = self.parked = {}
            parked[sequence] = message
            return []
        self.expected += 1
        ready = [message]
        while parked and self.expected in parked:
            ready.append(parked.pop(self.expected))
            self.expected += 1
        if not parked:
            self.parked = None
        return ready

    def put_together(self, part: Message) -> tuple[Message, int] | None:
        """Add a part whose turn it is: the whole message and its cost, or None for not yet."""
        cost = len(part.body) + PART_COST_BYTES
        if self.parts is None:
            if not part.marks & MARK_MORE:
                return part, cost
            self.parts = []
        self.parts.append(part)
        self.parts_cost += cost
        if self.is_growing:
            self.window.take(cost)
        else:
            self.held += cost
        if part.marks & MARK_MORE:
            return None
        first, parts, total = self.parts[0], self.parts, self.parts_cost
        # What has been taken already is told as `ahead`; the rest is taken when it is read.
        self.window.ahead += total - self.held
        self.parts = None
        self.parts_cost = self.held = 0
        body = b"".join([p.body for p in parts])
        return msgspec.structs.replace(first, body=body, marks=first.marks & ~MARK_MORE), total

    @property
    def parked_cost(self) -> int:
        """What came before its turn costs so much of the window."""
        return sum(len(part.body) + PART_COST_BYTES for part in (self.parked or {}).values())

    def read(self, messages: int, cost: int) -> None:
        """The reader has taken so many whole messages, which cost so much together."""
        self.unread -= messages
        window = self.window
        ahead = min(window.ahead, cost)
        window.ahead -= ahead
        window.take(cost - ahead)

    @property
    def wants_to_grow(self) -> bool:
        """Whether parts wait to be taken, and nothing that lies unread is before them."""
        return self.held > 0 and self.unread == 0

    def grow(self) -> None:
        """Take the parts that have come, and the others as they come, until the message is whole
        and `is_growing` is unset."""
        self.is_growing = True
        self.window.take(self.held)
        self.held = 0
