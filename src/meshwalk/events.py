"""News of a node for the application that runs it. Each is a frozen Struct; names are past tense
or a noun with its change, and `str(event)` is a line for a log."""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import msgspec

from meshwalk.wire.address import Address
from meshwalk.wire.frames import ContentType
from meshwalk.wire.peerid import PeerId

MEMBERS_SHOWN_MAX: Final = 1_000_000  # guess: more is a lie sooner than a network


def about(members: int) -> str:
    """An estimated size of a fragment, in words: "about 30 nodes". Others' words are part of it, so
    beyond `MEMBERS_SHOWN_MAX` it only says so."""
    if members > MEMBERS_SHOWN_MAX:
        return f"over {MEMBERS_SHOWN_MAX:,} nodes"
    return f"about {members:,} node{'' if members == 1 else 's'}"


class NeighbourUp(msgspec.Struct, frozen=True, tag=True):
    """A standing link to `peer` is ready."""

    peer: PeerId
    address: Address
    """Where the other end of the link is seen at."""
    neighbours: int
    """How many there are now."""

    def __str__(self) -> str:
        return f"linked with {self.peer.short} at {self.address} ({self.neighbours} links)"


class NeighbourDown(msgspec.Struct, frozen=True, tag=True):
    """The standing link to `peer` has ended."""

    peer: PeerId
    reason: str
    by_us: bool
    neighbours: int
    """How many are left."""

    def __str__(self) -> str:
        who = "closed by us" if self.by_us else "closed by the peer or the world"
        return f"link with {self.peer.short} ended: {self.reason} ({who}; {self.neighbours} left)"


class Joined(msgspec.Struct, frozen=True, tag=True):
    """The node had no neighbour and has one now: it is part of a network."""

    peer: PeerId

    def __str__(self) -> str:
        return f"joined through {self.peer.short}"


class Alone(msgspec.Struct, frozen=True, tag=True):
    """The last neighbour is gone. The node keeps trying whom it knows."""

    def __str__(self) -> str:
        return "alone: no neighbour is left; trying the peers that are known"


class FragmentFound(msgspec.Struct, frozen=True, tag=True):
    """`peer` is in another fragment of the network: the two are being joined."""

    peer: PeerId
    its_size: int
    """About how many members its fragment has, by its own word."""
    our_size: int
    """About how many members this node's fragment has, itself included."""

    def __str__(self) -> str:
        sizes = f"of {about(self.its_size)}, ours of {about(self.our_size)}"
        return f"{self.peer.short} is in another fragment {sizes}; joining them"


class EntryFailed(msgspec.Struct, frozen=True, tag=True):
    """An entry address did not answer, or refused. The node tries again after a pause."""

    address: Address
    reason: str
    not_admitted: bool
    """Whether trying again is vain: another network or secret, or another peer than expected."""

    def __str__(self) -> str:
        return f"{self.address} did not let us in: {self.reason}"


class LinkOpened(msgspec.Struct, frozen=True, tag=True):
    """A connection to `peer` is ready: a standing one, or one for a purpose that will end."""

    peer: PeerId
    address: Address
    purpose: str
    """As `wire.frames.Purpose` names it, in lower case."""
    outbound: bool
    """Whether this node dialled."""

    def __str__(self) -> str:
        way = "to" if self.outbound else "from"
        return f"connection {way} {self.peer.short} at {self.address} opened ({self.purpose})"


class LinkClosed(msgspec.Struct, frozen=True, tag=True):
    """A connection to `peer` that was ready has ended."""

    peer: PeerId
    purpose: str
    reason: str
    by_us: bool

    def __str__(self) -> str:
        who = "by us" if self.by_us else "by the peer or the world"
        return f"connection with {self.peer.short} ({self.purpose}) closed {who}: {self.reason}"


class LinkStalled(msgspec.Struct, frozen=True, tag=True):
    """`peer` does not read, and much waits to be sent to it."""

    peer: PeerId

    def __str__(self) -> str:
        return f"{self.peer.short} reads too slowly; what is sent to it waits"


class LinkResumed(msgspec.Struct, frozen=True, tag=True):
    """`peer` reads again."""

    peer: PeerId

    def __str__(self) -> str:
        return f"{self.peer.short} reads again"


class CreditExhausted(msgspec.Struct, frozen=True, tag=True):
    """The application of `peer` is slower than ours: a conversation waits. Told once a second at
    the most for each peer."""

    peer: PeerId
    conversation: str
    """The type of the conversation."""

    def __str__(self) -> str:
        return f"{self.peer.short} has not read what was said in {self.conversation!r}; it waits"


class MessagesDropped(msgspec.Struct, frozen=True, tag=True):
    """A subscriber was too slow, and messages for it were dropped."""

    count: int
    why: str

    def __str__(self) -> str:
        return f"{self.count} messages dropped: {self.why}"


class MessagesMissed(msgspec.Struct, frozen=True, tag=True):
    """Broadcasts of `peer` that were sent and will not come: nobody had them any more."""

    peer: PeerId
    count: int

    def __str__(self) -> str:
        what = f"{self.count:,} broadcast{'' if self.count == 1 else 's'}"
        return f"{what} of {self.peer.short} could not be had any more"


class StoreFailed(msgspec.Struct, frozen=True, tag=True):
    """Something could not be written to the store. The node goes on without it."""

    reason: str

    def __str__(self) -> str:
        return f"the store cannot be written: {self.reason}"


Event: TypeAlias = (
    NeighbourUp
    | NeighbourDown
    | Joined
    | Alone
    | FragmentFound
    | EntryFailed
    | LinkOpened
    | LinkClosed
    | LinkStalled
    | LinkResumed
    | CreditExhausted
    | MessagesDropped
    | MessagesMissed
    | StoreFailed
)


class Delivery(msgspec.Struct, frozen=True):
    """A message that arrived: a broadcast, or one that was sent to this node alone."""

    origin: PeerId
    """Who wrote it: proven by its signature (broadcast) or by the link (direct)."""
    body: Any
    """bytes, str, or what the JSON or MessagePack decodes to, by `content`."""
    content: ContentType
    is_broadcast: bool
    topic: str = ""
    """The label of a broadcast, or the type of a direct message."""
    hops: int = 1
    """Links crossed."""
    sequence: int = 0
    """The origin's count of its broadcasts since it started; 0 for direct messages."""
    sent_at: float = 0.0
    """Unix time in seconds: of a broadcast by the origin's clock, else by ours, as far as the
    difference of the clocks is known from the pings."""
    received_at: float = 0.0
    """Unix time in seconds when it came to this node; 0.0 for broadcasts."""
    is_past: bool = False
    """Whether it is a broadcast from before this node was there, fetched for a reader that asked
    for the past: others do not get it."""
