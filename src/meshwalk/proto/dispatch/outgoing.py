"""What one end says in a conversation: parts, in sequence, within credit; kept until they are
taken.

say --> backlog --credit--> sent, unacknowledged --Credit--> forgotten
                                 |  ^
                                 `--' again, when the link that they went over is lost
"""

from __future__ import annotations

from collections import deque
from typing import Final

import msgspec

from meshwalk.proto.dispatch.credit import Allowance
from meshwalk.wire.frames import (
    MARK_MORE,
    PART_COST_BYTES,
    Channel,
    ContentType,
    Credit,
    Message,
)

_APPLICATION: Final = Channel.APPLICATION  # a global is found faster than a class's attribute
PART_BYTES_LEAST = 512
"""A shorter part is sent only when it is the last: credit that trickles must not make frames that
are all envelope. guess: eight times a part's own cost."""


class Saying(msgspec.Struct, gc=False):
    """A message on its way out. Its parts share its id."""

    id: int
    body: bytes
    content: ContentType
    type: str = ""
    in_reply_to: int = 0
    wants_reply: bool = False
    marks: int = 0
    """Of its first part; `MARK_ENDS` stands for the end of all saying."""
    offset: int = 0
    """How much of the body has been sent."""


class Outgoing:
    """One direction of one conversation, at its sender."""

    __slots__ = (
        "again",
        "allowance",
        "backlog",
        "backlog_bytes",
        "has_ended",
        "sequence",
        "unacked",
    )

    def __init__(self, window_max: int) -> None:
        self.allowance = Allowance(window_max)
        self.sequence = 0
        """Of the part that was sent last."""
        self.has_ended = False
        """Nothing more will be said."""
        self.backlog: deque[Saying] | None = None
        """What waits for credit or for the link. None rather than empty, as most are: an empty
        deque takes 600 bytes."""
        self.backlog_bytes = 0
        self.unacked: deque[tuple[int, Message]] | None = None
        """Parts sent and not taken, each with the count of bytes up to its end."""
        self.again: deque[Message] | None = None
        """Those of `unacked` that are to be sent again."""

    @property
    def is_waiting(self) -> bool:
        """Whether something is to be sent as soon as it may."""
        return self.backlog is not None or self.again is not None

    @property
    def is_reply_next(self) -> bool:
        """Whether what is to be sent next answers a message of the peer."""
        if self.again is not None:
            return self.again[0].in_reply_to != 0
        return self.backlog is not None and self.backlog[0].in_reply_to != 0

    @property
    def is_over(self) -> bool:
        """Whether all that was said has been taken."""
        return self.backlog is None and self.unacked is None

    def put(self, saying: Saying) -> None:
        """Say something after all that waits."""
        if self.backlog is None:
            self.backlog = deque()
        self.backlog.append(saying)
        self.backlog_bytes += len(saying.body)

    def sent(self, message: Message, cost: int) -> None:
        """Note a part that goes out now."""
        allowance = self.allowance
        allowance.sent += cost
        if self.unacked is None:
            self.unacked = deque()
        self.unacked.append((allowance.sent, message))

    def cost_of_next(self) -> int:
        """What the next part would need of the credit: all of a short one, or the least of a long
        one; 0 when it has been paid for already."""
        if self.again is not None:
            return 0
        assert self.backlog is not None
        saying = self.backlog[0]
        left = len(saying.body) - saying.offset
        return min(left, PART_BYTES_LEAST) + PART_COST_BYTES

    def take_next(
        self, room: int, part_max: int, regards: int, marks: int, now: float
    ) -> tuple[Message, int]:
        """The next part, of at most `room` bytes in credit, and what it costs of it: 0 for one that
        is sent again. `regards` and `marks` name the conversation."""
        if self.again is not None:
            message = self.again.popleft()
            if not self.again:
                self.again = None
            return message, 0
        assert self.backlog is not None
        saying = self.backlog[0]
        start = saying.offset
        left = len(saying.body) - start
        size = min(left, part_max, room - PART_COST_BYTES)
        body = saying.body if size == len(saying.body) else saying.body[start : start + size]
        saying.offset += size
        self.backlog_bytes -= size
        if size == left:
            self.backlog.popleft()
            if not self.backlog:
                self.backlog = None
        else:
            marks |= MARK_MORE
        self.sequence += 1
        is_first = start == 0
        message = Message(
            saying.id,
            int(now * 1e6),
            _APPLICATION,
            body,
            saying.in_reply_to if is_first else 0,
            regards,
            saying.content,
            saying.type if is_first else "",
            saying.wants_reply and is_first,
            self.sequence,
            marks | saying.marks if is_first else marks,
        )
        cost = size + PART_COST_BYTES
        self.sent(message, cost)
        return message, cost

    def heard(self, credit: Credit) -> bool:
        """A credit has come. False when it makes no sense."""
        allowance = self.allowance
        if not allowance.heard(credit.taken, credit.held, credit.more):
            return False
        unacked = self.unacked
        if unacked is not None:
            while unacked and unacked[0][0] <= allowance.taken:
                unacked.popleft()
            if not unacked:
                self.unacked = self.again = None
        return True

    def send_again(self, known_as: int = 0) -> None:
        """The link is lost: send what may have been lost with it.

        `known_as`: the id of a conversation that the peer is known to know, else 0. Then an opening
        says so, too: a peer that has forgotten it meanwhile is not to take it for a new one.
        """
        if self.unacked is None:
            return
        self.again = deque(message for _, message in self.unacked)
        if known_as and not self.again[0].in_regards_to:
            self.again[0] = msgspec.structs.replace(self.again[0], in_regards_to=known_as)

    def drop(self) -> None:
        """Say nothing of what waits, and send nothing again."""
        self.backlog = self.unacked = self.again = None
        self.backlog_bytes = 0
        self.has_ended = True
