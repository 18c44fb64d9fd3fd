"""Bodies of the messages that a node's own machines exchange: overlay and refusal. Those about
broadcasts are in gossip.py.

Each is a MessagePack array with a tag, decoded by `decode_overlay` and its kin, which raise
`MalformedFrame` and nothing else, whatever the bytes.
"""

from __future__ import annotations

import enum
from typing import Annotated, Final, TypeAlias, TypeVar

import msgspec
from msgspec import Meta

from meshwalk.errors import MalformedFrame
from meshwalk.wire.frames import U64, RecordBytes, ShortText, Token

RECORDS_PER_MESSAGE_MAX: Final = 16  # GossipSub v1.1: peers exchanged on a prune
SKETCH_MAX: Final = 32  # guess: an estimate within 18 %, in 288 bytes
HOPS_MAX: Final = 64  # guess: far above any walk or flood that a healthy network makes

Hops: TypeAlias = Annotated[int, Meta(ge=0, le=HOPS_MAX)]


class JoinRequest(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """Asks that the walk end in a link for the origin. Bounced from neighbour to neighbour.

    Seed 000's JOIN_REQ, with an answer, a bound on its hops, and an origin that is proven.
    """

    record: RecordBytes
    """The origin's signed peer record."""
    token: Token
    """Names the walk; whoever accepts quotes it to the origin."""
    reach: ShortText
    """Host at which the first hop saw the origin; "" if the origin cannot be dialled there.
    Only addresses of the record with this host may be dialled."""
    forced_hops: Hops
    """Hops to go before anyone but a node below its minimum may accept."""
    hops_left: Hops


class JoinOutcome(enum.IntEnum):
    """How a walk ended."""

    LINKED = 0
    """The acceptor has dialled the origin, and they are neighbours."""
    DIAL_ME = 1
    """The acceptor cannot dial the origin and keeps a place: dial `record`, quote `token`."""
    NO_PLACE = 2
    """Nobody on the walk could take the origin, or all it met are its neighbours already."""
    BUSY = 3
    """A node on the walk carries too many walks; try again later."""


class JoinReply(msgspec.Struct, frozen=True, array_like=True, tag=2, gc=False):
    """Ends a walk; goes back along it, each hop by `in_reply_to`."""

    outcome: JoinOutcome
    hops: Hops
    """How far from the origin the walk ended."""
    record: RecordBytes = b""
    """The acceptor's signed peer record; b"" when nobody accepted."""


class SplitRequest(msgspec.Struct, frozen=True, array_like=True, tag=3, gc=False):
    """From a full node to a neighbour: dial this origin, and drop our link for it.

    Done: the receiver closes the link between the two with `CloseReason.SPLIT`.
    Not done: it answers with `SplitReply`.
    """

    record: RecordBytes
    token: Token
    reach: ShortText


class SplitReply(msgspec.Struct, frozen=True, array_like=True, tag=4, gc=False):
    """The split was not done (it is the origin, has it as a neighbour, or could not dial it)."""


class PeersWanted(msgspec.Struct, frozen=True, array_like=True, tag=5, gc=False):
    """To a neighbour: tell whom you have connected to since, now and whenever there is news.

    Seed 003: everyone knows how far a counterparty is with one's list.
    """

    since: U64 = 0
    """The last position in the receiver's list that the sender has; 0: everything."""


class FindPeer(msgspec.Struct, frozen=True, array_like=True, tag=6, gc=False):
    """Asks for a peer's signed record. Bounced from neighbour to neighbour until one has it.

    Whoever has no such record passes it on; the target itself answers whatever `newer_than` says.
    """

    target: Annotated[bytes, Meta(min_length=32, max_length=32)]
    """The peer's key."""
    hops_left: Hops
    newer_than: U64 = 0
    """Only a record with a higher sequence number helps: whoever asks has this one."""


class PeerFound(msgspec.Struct, frozen=True, array_like=True, tag=7, gc=False):
    """Ends a search; goes back along it, each hop by `in_reply_to` and each hop checking it."""

    record: RecordBytes
    """The target's signed peer record; b"" when nobody on the way had it."""
    hops: Hops
    """How far from the receiver the search ended."""


class PeersTold(msgspec.Struct, frozen=True, array_like=True, tag=8, gc=False):
    """Signed records of peers that the sender has connected to, the oldest news first."""

    upto: U64
    """The position of the last of them in the sender's list: quoted in the next `PeersWanted`."""
    records: Annotated[list[RecordBytes], Meta(max_length=RECORDS_PER_MESSAGE_MAX)]


class RecordChanged(msgspec.Struct, frozen=True, array_like=True, tag=9, gc=False):
    """To neighbours: the sender's own signed record, made anew."""

    record: RecordBytes


class Beacon(msgspec.Struct, frozen=True, array_like=True, tag=10, gc=False):
    """To neighbours, and on by each to the others: this fragment has this leader."""

    beacon: RecordBytes
    """A `records.Signed` of the leader, whose payload is a `records.BeaconPayload`."""
    sketch: Annotated[list[U64], Meta(max_length=SKETCH_MAX)]
    """The smallest hashes of the members counted so far in this epoch, ascending; see healing."""
    size: U64
    """How many members the sender takes the fragment to have; 0: it does not know."""


class FragmentAsked(msgspec.Struct, frozen=True, array_like=True, tag=11, gc=False):
    """Over a probe: of which fragment are you? Seed 001's `defragment`."""

    beacon: RecordBytes
    """The asker's, as in `Beacon`; b"" when it has no fresh one."""
    size: U64
    """Of the asker's fragment, as it estimates."""
    token: Token
    """What a link that heals will quote."""


class FragmentOutcome(enum.IntEnum):
    """What the one that was asked makes of two beacons."""

    SAME = 0
    """One fragment, or at least one end does not know."""
    JOINING = 1
    """Two: the one that was asked joins the asker's, which is as large or larger."""
    JOIN_US = 2
    """Two, and the asker is to join. Seed 001's `defragment_greater_count`."""
    BUSY = 3
    """Two, but the one that was asked has no place left, or has healed just now."""


class FragmentTold(msgspec.Struct, frozen=True, array_like=True, tag=12, gc=False):
    """The answer. For `JOINING` and `JOIN_US` the asker dials, with `Purpose.HEALING`: it has just
    shown that it can."""

    beacon: RecordBytes
    size: U64
    outcome: FragmentOutcome


class VouchAsked(msgspec.Struct, frozen=True, array_like=True, tag=13, gc=False):
    """To a neighbour: does this peer of ours still live? SWIM's ping-req."""

    record: RecordBytes
    """The suspect's signed record."""


class VouchOutcome(enum.IntEnum):
    """What the one that was asked knows of a suspect."""

    ALIVE = 0
    """It has heard from it since it was asked."""
    SILENT = 1
    """It has tried to, in vain."""
    UNKNOWN = 2
    """It has no way to try now."""


class VouchTold(msgspec.Struct, frozen=True, array_like=True, tag=14, gc=False):
    """The answer, by `in_reply_to`."""

    outcome: VouchOutcome


class PartRequest(msgspec.Struct, frozen=True, array_like=True, tag=15, gc=False):
    """To a neighbour: may our link be given up for a closer one, within a short while?"""


class PartReply(msgspec.Struct, frozen=True, array_like=True, tag=16, gc=False):
    """The answer: it may if the receiver has enough other links."""

    is_granted: bool


class Handover(msgspec.Struct, frozen=True, array_like=True, tag=17, gc=False):
    """To a neighbour, as the last before leaving: take this other neighbour of mine instead."""

    record: RecordBytes
    """The other's signed record."""
    token: Token
    """Given to both; the link quotes it."""
    dials: bool
    """Whether the receiver is to dial; else it keeps a place."""


OverlayMessage: TypeAlias = (
    JoinRequest
    | JoinReply
    | SplitRequest
    | SplitReply
    | PeersWanted
    | FindPeer
    | PeerFound
    | PeersTold
    | RecordChanged
    | Beacon
    | FragmentAsked
    | FragmentTold
    | VouchAsked
    | VouchTold
    | PartRequest
    | PartReply
    | Handover
)


class RefusalCode(enum.IntEnum):
    """Why a request got no answer."""

    NO_HANDLER = 1
    """Nobody at that peer answers messages of this type."""
    HANDLER_FAILED = 2
    """The peer's own code raised an error; its log has it."""
    BUSY = 3
    """The peer carries too many requests."""
    NOT_ALLOWED = 4
    """Links of this purpose carry no such messages."""
    NOT_UNDERSTOOD = 5
    """The body does not decode to its content type, or to what the receiver declared."""
    NO_CONVERSATION = 6
    """The receiver knows of no such conversation: it has ended there, or the peer has restarted."""
    CANCELLED = 7
    """The peer has left the conversation before its end."""
    TOO_BIG = 8
    """The message is longer than the receiver takes."""
    TOO_LATE = 9
    """The peer's deadline for the conversation has passed."""
    ENDED = 10
    """The conversation has come to its end at the receiver: all that was said was heard."""


class Refusal(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """Answers a request that will not be answered otherwise."""

    code: U64
    """A `RefusalCode`; a plain integer, so that a newer peer's code is no error."""
    text: ShortText = ""


_Body = TypeVar("_Body")

_encoder: Final = msgspec.msgpack.Encoder()
_overlay: Final[msgspec.msgpack.Decoder[OverlayMessage]] = msgspec.msgpack.Decoder(OverlayMessage)
_refusal: Final = msgspec.msgpack.Decoder(Refusal)
# Deeply nested input makes msgspec raise RecursionError rather than DecodeError.
_UNREADABLE: Final = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError)


def encode(body: OverlayMessage | Refusal) -> bytes:
    """The bytes of a body."""
    return _encoder.encode(body)


def decode_overlay(body: bytes) -> OverlayMessage:
    """Read the body of a message for the overlay. Raises `MalformedFrame`."""
    return _decode(_overlay, body)


def decode_refusal(body: bytes) -> Refusal:
    """Read the body of a refusal. Raises `MalformedFrame`."""
    return _decode(_refusal, body)


def _decode(decoder: msgspec.msgpack.Decoder[_Body], body: bytes) -> _Body:
    try:
        return decoder.decode(body)
    except _UNREADABLE as error:
        raise MalformedFrame(f"unreadable body: {error}") from None
