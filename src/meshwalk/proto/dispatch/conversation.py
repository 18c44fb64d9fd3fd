"""One conversation at one end, and what a node keeps for each peer it talks to. Records only.

A conversation works both ways from its first message on: there is no state of being opened. One
direction is over when its sender has said so and everything was taken; the conversation when both
are, or when either end leaves it, which a refusal in regard to it says.
"""

from __future__ import annotations

import enum
from collections import OrderedDict, deque
from collections.abc import Callable

from meshwalk.proto.dispatch.incoming import Incoming
from meshwalk.proto.dispatch.outgoing import Outgoing
from meshwalk.proto.dispatch.sharedcredit import SharedCredit
from meshwalk.proto.link import Link
from meshwalk.proto.rate import ByteBucket
from meshwalk.wire.frames import MARK_YOURS, Message
from meshwalk.wire.peerid import PeerId


class Kind(enum.IntEnum):
    """What a conversation is for. All but the first are one message of its opener that is too long
    for a part: the other end says nothing in it."""

    CONVERSATION = 0
    ONE_WAY = 1
    REQUEST = 2
    REPLY = 3


class Conversation:
    """One end of one conversation."""

    __slots__ = (
        "asked",
        "deadline",
        "heard_before",
        "id",
        "incoming",
        "is_heard",
        "is_known",
        "is_left",
        "is_mine",
        "is_told_full",
        "key",
        "kind",
        "marks",
        "number",
        "outgoing",
        "party",
        "request",
        "type",
    )

    def __init__(
        self,
        party: Counterparty,
        number: int,
        id: int,
        *,
        is_mine: bool,
        kind: Kind,
        window_max: int,
    ) -> None:
        self.party = party
        self.number = number
        """This node's own count of conversations: its name for the application."""
        self.id = id
        """Of the message that opened it."""
        self.is_mine = is_mine
        """Whether this node opened it."""
        self.marks = 0 if is_mine else MARK_YOURS
        """Whose id `id` is, as its messages say it."""
        self.key = id * 2 + is_mine
        """Its name among those with this peer, at this end."""
        self.kind = kind
        self.request = 0
        """The own request that is made in it, or answered by it, and so ends with it."""
        self.type = ""
        self.outgoing = Outgoing(window_max)
        self.incoming = Incoming(window_max)
        self.is_told_full = False
        """Whether the application has been asked to wait."""
        self.is_known = False
        """Whether the peer has shown that it knows of it."""
        self.is_heard = False
        """Whether the application knows of it."""
        self.asked: dict[int, None] | None = None
        """Own requests in it that wait for their reply, by id."""
        self.deadline: float | None = None
        """When it is broken off."""
        self.heard_before = 0
        """What had come when it was last looked whether more of a first message comes."""
        self.is_left = False
        """Whether the application listens no more: what comes is taken and forgotten."""

    @property
    def regards(self) -> int:
        """What `in_regards_to` says in its messages; the first one's own id says it itself."""
        return self.id if self.outgoing.sequence or not self.is_mine else 0

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come or go."""
        outgoing, incoming = self.outgoing, self.incoming
        if not outgoing.is_over:
            return False
        if self.kind is not Kind.CONVERSATION:
            return incoming.parts is None and incoming.parked is None
        return outgoing.has_ended and incoming.has_ended and incoming.unread == 0


class Counterparty:
    """What a node keeps for a peer that it talks to: links, conversations, credit, turns."""

    __slots__ = (
        "ahead",
        "asked",
        "conversations",
        "growing",
        "held_up",
        "is_turn_of_conversations",
        "link",
        "links",
        "long_bytes",
        "owing",
        "pace",
        "peer",
        "served",
        "shared_in",
        "shared_out",
        "starved",
        "told_exhausted_at",
        "turns",
        "waiting",
        "waiting_bytes",
    )

    def __init__(self, peer: PeerId, shared_window: int, pace: ByteBucket | None) -> None:
        self.peer = peer
        self.links: list[Link] = []
        """Open links that may carry what applications say."""
        self.link: Link | None = None
        """The one of them to send over."""
        self.conversations: dict[int, Conversation] = {}
        self.shared_in = SharedCredit(shared_window)
        self.shared_out = SharedCredit()
        self.turns: OrderedDict[int, Conversation] | None = None
        """Conversations with something to send, by key, in turn. (The first of a plain dict is not
        found at once when many before it are gone.)"""
        self.starved: dict[int, Conversation] | None = None
        """Those that wait for shared credit, by key."""
        self.owing: dict[int, Conversation] | None = None
        """Those whose peer does not know yet all that has been taken, by key."""
        self.waiting: deque[Message] | None = None
        """Messages that are no part of a conversation and wait for their turn."""
        self.waiting_bytes = 0
        self.long_bytes = 0
        """Not sent yet of messages that go one way and are too long for a part."""
        self.is_turn_of_conversations = False
        """Whether one of `waiting` has gone out since any of them did."""
        self.ahead = 0
        """Bytes of whole messages that lie unread, beyond all windows."""
        self.growing = 0
        """Messages whose parts are taken before they are whole."""
        self.held_up: dict[int, Conversation] | None = None
        """Conversations with one that waits to be such, by key."""
        self.pace = pace
        self.asked: dict[int, Conversation | None] = {}
        """Own requests that wait for its reply, by id, and what they were asked in."""
        self.served: dict[int, None] = {}
        """Its requests that are being answered, by id."""
        self.told_exhausted_at: float | None = None

    @property
    def is_idle(self) -> bool:
        """Whether nothing is going on with it, so that it may be forgotten, and its link closed."""
        return not (self.conversations or self.asked or self.served or self.waiting)

    def choose_link(self) -> None:
        """Send on over the same link until it ends or retires, lest what is sent now overtake what
        was sent before; then over the best of the others: one that stays, the newest of several."""
        if self.link is not None and self.link in self.links and self.link.retires_at is None:
            return
        best: Callable[[Link], tuple[bool, bool, int]] = lambda link: (  # noqa: E731
            link.retires_at is None,
            link.is_standing,
            link.number,
        )
        self.link = max(self.links, key=best, default=None)
