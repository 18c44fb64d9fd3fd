"""The frames of a link: what one end says to the other end of the same pipe.

A frame is 4 bytes of body length, big-endian, then a MessagePack array whose first element is
the tag. Only `Message` carries anything for the layers above, and its body is opaque here.
Evolution: append fields with defaults, never retype or reorder; a reader ignores what it does
not know at the end of an array.

Integers on the wire are unsigned 64-bit unless said otherwise. Times are microseconds of the
sender's own clock, from an epoch of its choosing: only differences mean anything.
"""

from __future__ import annotations

import enum
from typing import Annotated, Final, TypeAlias

import msgspec
from msgspec import Meta

# An array has no field names, but msgspec refuses a field that is named as its tag: `Message.type`.
_TAG: Final = "tag"

PROTOCOL_VERSION: Final = 1  # the first; a Hello says it, and no other is accepted
ALPN: Final = "meshwalk/1"
LENGTH_BYTES: Final = 4  # seed 002: BodyLengthBytes
FRAME_BYTES_MAX: Final = 1 << 20  # GossipSub: 1 MiB a message; settings can lower it
FIRST_WINDOW_BYTES: Final = 256 << 10
"""What may be sent in regard to a new conversation before the first `Credit`. guess: what a gigabit
path holds in 2 ms; HTTP/2 (RFC 9113 section 6.9.2) has 64 KiB, and QUIC stacks 1 MiB and more."""
SHARED_WINDOW_BYTES: Final = 16 << 20
"""What may lie unread in all conversations of two peers together, beyond `FLOOR_BYTES` of each,
unless a Hello says otherwise. guess: 64 first windows."""
FLOOR_BYTES: Final = 2 << 10
"""What each conversation may have lie unread whatever the others do, so that none can starve
another. guess: a line of chat, some ten times; 65,536 conversations then hold 128 MiB at the
most."""
PART_COST_BYTES: Final = 64
"""What a part costs of a window beyond its body, so that empty ones are no free memory. guess: the
smallest of the objects that hold it."""
STEM_HOPS_MAX: Final = 10  # seed 003: a broadcast first travels "a random number of hops", 0 to 10
SHORT_TEXT_CHARACTERS_MAX: Final = 265  # the longest address, `address.ADDRESS_CHARACTERS_MAX`

# MessagePack knows no larger integer, so the upper bound needs no check (and msgspec has none).
U64: TypeAlias = Annotated[int, Meta(ge=0)]
ShortText: TypeAlias = Annotated[str, Meta(max_length=SHORT_TEXT_CHARACTERS_MAX)]
Token: TypeAlias = Annotated[bytes, Meta(max_length=16)]
RecordBytes: TypeAlias = Annotated[bytes, Meta(max_length=4096)]


class Purpose(enum.IntEnum):
    """Why a connection was made. The dialler says it; the acceptor agrees or closes."""

    STANDING = 0
    """To be neighbours; quotes the token of a walk that ended at the acceptor."""
    JOIN_REQUEST = 1
    """To send join requests into the network; closed when they are answered."""
    JOIN_ACCEPT = 2
    """To be neighbours: the dialler accepts the join request that had this token."""
    JOIN_SPLIT = 3
    """As JOIN_ACCEPT, from a peer that gives up one of its links for it; one more will dial."""
    PROBE = 4
    """To exchange pings and close."""
    CONVERSATION = 5
    """To exchange application messages without being neighbours."""
    CLOSER = 6
    """To be neighbours because the dialler measured the acceptor to be close."""
    HEALING = 7
    """To be neighbours because the two are of different fragments; quotes the token of the probe
    that showed it."""
    HANDOVER = 8
    """To be neighbours because a common neighbour that left named the two to each other; quotes the
    token that it gave both."""

    RETURNING = 9
    """To be neighbours again: the two were so before the dialler restarted."""


RANDOM_PURPOSES: Final = frozenset({Purpose.STANDING, Purpose.JOIN_ACCEPT, Purpose.JOIN_SPLIT})
"""Of links that a walk has brought."""
STANDING_PURPOSES: Final = RANDOM_PURPOSES | {
    Purpose.CLOSER,
    Purpose.HEALING,
    Purpose.HANDOVER,
    Purpose.RETURNING,
}
"""Of links that make neighbours."""
CONVERSING_PURPOSES: Final = STANDING_PURPOSES | {Purpose.CONVERSATION}
"""Of links that may carry messages of applications."""


class CloseReason(enum.IntEnum):
    """Why an end closes a link. Said on the wire and kept by both ends."""

    DONE = 0
    """A temporary link has served its purpose."""
    LEAVING = 1
    """The node is stopping."""
    DUPLICATE = 2
    """Both ends dialled; the other link survives."""
    SELF = 3
    """Both ends are the same node."""
    FULL = 4
    """The acceptor has no place left."""
    UNINVITED = 5
    """The token is unknown, used up, or belongs to somebody else."""
    VERSION = 6
    """The protocol versions do not match."""
    MALFORMED = 7
    """A frame could not be read."""
    PROTOCOL = 8
    """A frame that is not allowed now."""
    IDLE = 9
    """Nothing was heard for too long."""
    SLOW = 10
    """The peer does not read, and more was waiting for it than is allowed."""
    SPLIT = 11
    """The link is given up so that a newcomer finds a place."""
    RATE = 12
    """Too many frames of one kind."""
    TRADED = 13
    """Given up for a closer link, as the other end agreed to."""
    DISTRUSTED = 14
    """Too much is held against the peer; it may come again later."""


class Hello(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False, tag_field=_TAG):
    """First frame each way. The acceptor's comes after the dialler's, and is its consent."""

    version: U64
    purpose: Purpose
    sent_at_us: U64
    seen_at: ShortText
    """The address that the sender sees the receiver at, `tcp://host:port`; "" if unknown."""
    record: RecordBytes = b""
    """The sender's signed peer record (`records.Signed`); b"" if it has none yet."""
    token: Token = b""
    agent: ShortText = ""
    window: U64 = SHARED_WINDOW_BYTES
    """What may lie unread here in all conversations with the receiver together; see `Credit`."""


class Ping(msgspec.Struct, frozen=True, array_like=True, tag=2, gc=False, tag_field=_TAG):
    """Asks for a `Pong` at once."""

    id: U64
    sent_at_us: U64


class Pong(msgspec.Struct, frozen=True, array_like=True, tag=3, gc=False, tag_field=_TAG):
    """Answers a `Ping` with the four time stamps of RFC 5905 section 8 (the fourth is arrival)."""

    in_reply_to: U64
    ping_sent_at_us: U64
    ping_received_at_us: U64
    sent_at_us: U64


class Close(msgspec.Struct, frozen=True, array_like=True, tag=4, gc=False, tag_field=_TAG):
    """Last frame each way: the sender says nothing more, and reads on until it is answered."""

    reason: U64
    """A `CloseReason`; a plain integer, so that a newer peer's reason is no error."""
    text: ShortText = ""


class Channel(enum.IntEnum):
    """Which machine of the receiver a message is for."""

    APPLICATION = 0
    OVERLAY = 1
    BROADCAST = 2
    REFUSAL = 3


class ContentType(enum.IntEnum):
    """What the application's body is."""

    BYTES = 0
    TEXT = 1
    JSON = 2
    MESSAGEPACK = 3


MARK_OPENS: Final = 1
"""The message opens a conversation, and its type says which machine the receiver is to start."""
MARK_MORE: Final = 2
"""The body is not whole: the next part follows, as the next in sequence of the same
conversation."""
MARK_ENDS: Final = 4
"""The sender says nothing more in this conversation. The body is empty and no message."""
MARK_YOURS: Final = 8
"""`in_regards_to` names a message of the receiver; without it, one of the sender."""
MARK_UNRELIABLE: Final = 16
"""Outside the sequence, and never sent again: whoever has no room for it drops it."""


class Message(msgspec.Struct, frozen=True, array_like=True, tag=5, gc=False, tag_field=_TAG):
    """One message, or a part of one: an envelope that dispatch reads, and a body that only its
    receiver reads.

    A body that is too long for one frame opens a conversation of its own, whatever it is: a message
    that goes one way, a request, or a reply. Its parts regard the first one's id, or the request's.
    """

    id: U64
    """Unique for the sender while it runs."""
    sent_at_us: U64
    channel: Channel
    body: bytes
    in_reply_to: U64 = 0
    """The receiver's message that this one answers; 0 for none."""
    in_regards_to: U64 = 0
    """The message that opened the conversation this one belongs to; 0 for none."""
    content: ContentType = ContentType.BYTES
    type: ShortText = ""
    """The application's own name for this kind of message."""
    wants_reply: bool = False
    sequence: U64 = 0
    """Counts, from 1, what the sender says in one conversation; 0 outside of any."""
    marks: U64 = 0
    """The sum of some of the `MARK_` constants."""


class Credit(msgspec.Struct, frozen=True, array_like=True, tag=6, gc=False, tag_field=_TAG):
    """How much more the sender can take in regard to a conversation. Seed 003's "I have n bytes in
    regard to message Y, and can receive m more".

    Bytes are counted since the conversation began, each part with `PART_COST_BYTES`, so that a
    credit that comes late or twice does no harm.
    """

    in_regards_to: U64
    is_yours: bool
    """Whether that is a message of the receiver, as `MARK_YOURS`."""
    taken: U64
    """Bytes that have been read and need never be sent again."""
    held: U64
    """Bytes beyond those that have come and wait to be read."""
    more: U64
    """Bytes that may come beyond those."""


Frame: TypeAlias = Hello | Ping | Pong | Close | Message | Credit
