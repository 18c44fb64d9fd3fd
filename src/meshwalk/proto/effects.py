"""What a node asks its driver to do. The only vocabulary between `proto` and `net` or `sim`.

A driver performs effects in order, after each input, before the next input.
"""

from __future__ import annotations

import enum
from typing import TypeAlias, final

import msgspec

from meshwalk.events import Delivery, Event
from meshwalk.wire.address import Address
from meshwalk.wire.frames import ContentType, Frame
from meshwalk.wire.gossip import HopSeen
from meshwalk.wire.peerid import PeerId


class Why(enum.Enum):
    """Why an own request got no reply, or a conversation is over before its end."""

    TIMED_OUT = enum.auto()
    REFUSED = enum.auto()
    LINK_LOST = enum.auto()
    UNREACHABLE = enum.auto()
    NOT_ADMITTED = enum.auto()


@final
class Dial(msgspec.Struct, frozen=True, gc=False):
    """Make a pipe; answer with `secured` or `dial_failed`."""

    link: int
    address: Address
    expected: PeerId | None


@final
class Send(msgspec.Struct, frozen=True, gc=False):
    """Write a frame to a link's pipe."""

    link: int
    frame: Frame


@final
class Shut(msgspec.Struct, frozen=True, gc=False):
    """End a link's pipe: after what is queued, or at once. `lost` may come and is ignored."""

    link: int
    at_once: bool


class Readers(enum.Enum):
    """Which of an application's readers a message is for."""

    ALL = enum.auto()
    UNORDERED = enum.auto()
    """Those that take each broadcast as it comes: it came before others of its origin."""
    ORDERED = enum.auto()
    """Those that take each origin's broadcasts in their order: the others have it already."""


@final
class Deliver(msgspec.Struct, frozen=True, gc=False):
    """Hand a message to the application."""

    delivery: Delivery
    readers: Readers = Readers.ALL


@final
class KeepBroadcast(msgspec.Struct, frozen=True, gc=False):
    """Keep a broadcast for those who miss it, and to know it again after a restart. Own ones, too.
    What is kept comes back by `start`."""

    origin: bytes
    epoch: int
    sequence: int
    sent_at_ms: int
    payload: bytes
    signature: bytes
    work: int


@final
class ReceiptCame(msgspec.Struct, frozen=True, gc=False):
    """So many more peers have an own broadcast that asked for receipts."""

    number: int
    """What the broadcast returned."""
    peers: int
    hops: list[HopSeen]
    """Of a traced one: how it came to some of them, in no order."""
    is_last: bool
    """Whether none are to come that are waited for; some may all the same."""


@final
class BroadcastsMissed(msgspec.Struct, frozen=True, gc=False):
    """Nobody had these any more, or nobody sent them."""

    origin: PeerId
    count: int


@final
class Ask(msgspec.Struct, frozen=True, gc=False):
    """A peer's request: have the application answer it with `reply` or `refuse`."""

    peer: PeerId
    id: int
    type: str
    content: ContentType
    body: bytes
    sent_at: float
    """Unix time in seconds, by our clock, as far as the offset of the peer's is known."""
    received_at: float


@final
class AskGone(msgspec.Struct, frozen=True, gc=False):
    """The peer that asked has gone: nobody waits for this answer any more."""

    peer: PeerId
    id: int


@final
class Answered(msgspec.Struct, frozen=True, gc=False):
    """The reply to an own request."""

    request: int
    content: ContentType
    body: bytes


@final
class Unanswered(msgspec.Struct, frozen=True, gc=False):
    """An own request will get no reply."""

    request: int
    why: Why
    code: int = 0
    """The peer's `RefusalCode` when it refused."""
    text: str = ""


@final
class ConversationOpened(msgspec.Struct, frozen=True, gc=False):
    """A peer has opened a conversation: have the application listen, or `leave` it."""

    conversation: int
    """This node's own number for it."""
    peer: PeerId
    id: int
    """Of the message that opened it."""
    type: str
    content: ContentType
    body: bytes
    sent_at: float
    received_at: float


@final
class ConversationHeard(msgspec.Struct, frozen=True, gc=False):
    """A message in a conversation. Say `read` when the application has taken it."""

    conversation: int
    id: int
    type: str
    content: ContentType
    body: bytes
    cost: int
    """What it takes of the window, in bytes."""
    wants_reply: bool
    sent_at: float
    received_at: float


@final
class ConversationEnded(msgspec.Struct, frozen=True, gc=False):
    """The peer says nothing more in a conversation."""

    conversation: int


@final
class ConversationRefused(msgspec.Struct, frozen=True, gc=False):
    """The peer could not take one message of a conversation, which goes on."""

    conversation: int
    message: int
    code: int
    text: str


@final
class ConversationRoom(msgspec.Struct, frozen=True, gc=False):
    """What waited to be said in a conversation has gone out, nearly all."""

    conversation: int


@final
class ConversationOver(msgspec.Struct, frozen=True, gc=False):
    """A conversation is over, and its number means nothing any more."""

    conversation: int
    why: Why | None
    """None: both ends have said all, and heard all."""
    code: int = 0
    text: str = ""


@final
class PeerReached(msgspec.Struct, frozen=True, gc=False):
    """There is a link to a peer that was to be reached."""

    peer: PeerId


@final
class PeerUnreached(msgspec.Struct, frozen=True, gc=False):
    """There is none, and there will not be soon."""

    peer: PeerId
    text: str
    not_admitted: bool


@final
class PeerRoom(msgspec.Struct, frozen=True, gc=False):
    """What waited for its turn to be sent to a peer has gone out, nearly all."""

    peer: PeerId


@final
class WantRoom(msgspec.Struct, frozen=True, gc=False):
    """Say `room` as soon as the link's pipe can take more."""

    link: int


@final
class Measured(msgspec.Struct, frozen=True, gc=False):
    """A ping was answered."""

    ping: int
    rtt_s: float


@final
class ProbeOpened(msgspec.Struct, frozen=True, gc=False):
    """A link that was dialled to exchange pings is open."""

    link: int
    peer: PeerId


@final
class ProbeEnded(msgspec.Struct, frozen=True, gc=False):
    """Such a link has ended, or was never made."""

    link: int
    text: str
    not_admitted: bool


@final
class Happened(msgspec.Struct, frozen=True, gc=False):
    """News for the application."""

    event: Event


@final
class SavePeer(msgspec.Struct, frozen=True, gc=False):
    """Keep what is known of a peer."""

    peer: PeerId
    record: bytes
    address: str
    verified: bool
    last_seen: float
    """Unix time in seconds."""
    failures: int
    rtt_s: float | None
    met: str
    source: str = ""
    """The address group of who told of it."""
    heard_at: float = 0.0
    """When it was last told of or met, as far as the store needs to know; Unix time in seconds."""
    failing_since: float | None = None
    """Unix time in seconds; None when it has not failed since it last worked."""
    tested_at: float | None = None
    """Unix time in seconds; None when it never passed a test."""
    jitter_s: float | None = None
    position: int = 0
    """In the own log of connections; 0 when not in it."""
    cursor: int = 0
    """How far the node is with the peer's log; the peer chose it: 64 bits without a sign."""
    is_anchor: bool = False
    lost: bool = False
    """Verified once, and out of reach for long."""


@final
class ForgetPeer(msgspec.Struct, frozen=True, gc=False):
    """Keep nothing more of a peer."""

    peer: PeerId


Effect: TypeAlias = (
    Dial
    | Send
    | Shut
    | Deliver
    | KeepBroadcast
    | ReceiptCame
    | BroadcastsMissed
    | Ask
    | AskGone
    | Answered
    | Unanswered
    | ConversationOpened
    | ConversationHeard
    | ConversationEnded
    | ConversationRefused
    | ConversationRoom
    | ConversationOver
    | PeerReached
    | PeerUnreached
    | PeerRoom
    | WantRoom
    | Measured
    | ProbeOpened
    | ProbeEnded
    | Happened
    | SavePeer
    | ForgetPeer
)
