"""Bodies of the messages that spread broadcasts: the copies, what is said of them, what is asked.

    Broadcast   a copy, to neighbours in the tree, and to whoever asked for it
    Have        "I have these": to the other neighbours, some of them in one message
    Want        "send me these"
    Gone        "these I have no more"
    Graft       "from now on send me all at once"
    Prune       "no more: tell me only what you have"
    HistoryWanted   "what do you have since then?", answered by `Have`
    Receipt     how many have a broadcast whose origin asked for it, up the way that it came
    Stem        a broadcast on its way to where it begins to spread

All travel on `Channel.BROADCAST` over standing links. Each is a MessagePack array with a tag,
decoded by `decode_gossip`, which raises `MalformedFrame` and nothing else, whatever the bytes.
Graft and Prune are those of Leitao, Pereira, Rodrigues, "Epidemic Broadcast Trees" (SRDS 2007), and
Have is its IHAVE. Ranges are lists of pairs, first and last number, ascending: `pairs_of` checks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Final, TypeAlias

import msgspec
from msgspec import Meta

from meshwalk.errors import MalformedFrame
from meshwalk.wire.frames import FRAME_BYTES_MAX, STEM_HOPS_MAX, U64
from meshwalk.wire.messages import Hops
from meshwalk.wire.records import Number

PAYLOAD_BYTES_MAX: Final = FRAME_BYTES_MAX - 1024
"""So that what a later hop adds around it, with larger numbers, still fits a frame: else whoever
passes it on would look hostile. measured: 166 bytes."""
HAVE_ENTRIES_MAX: Final = 256  # guess: 14 KiB of keys
DIGESTS_MAX: Final = 128  # guess: two hours of minutes
RANGES_MAX: Final = 64  # guess: pairs of numbers in one message about one origin
HOPS_SEEN_MAX: Final = 128  # guess: 10 KiB; a longer report goes in several

Key: TypeAlias = Annotated[bytes, Meta(min_length=32, max_length=32)]
Payload: TypeAlias = Annotated[bytes, Meta(max_length=PAYLOAD_BYTES_MAX)]
Scope: TypeAlias = Annotated[bytes, Meta(max_length=32)]
"""Whose broadcasts a Graft or Prune is about: an origin's key; b"" for everybody's."""
Ranges: TypeAlias = Annotated[list[Number], Meta(min_length=2, max_length=2 * RANGES_MAX)]

MARK_REPAIRED: Final = 1
"""This copy's way had a detour: it was asked for, not pushed. It says nothing of the tree."""


class Broadcast(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """A copy of a broadcast. `payload` decodes to `records.BroadcastPayload`."""

    payload: Payload
    signature: Annotated[bytes, Meta(min_length=64, max_length=64)]
    hops: Hops
    """Links crossed so far, this one included; not signed, since every hop changes it."""
    way_us: U64 = 0
    """Half the round trips of the links crossed before this one, as their receivers measured."""
    marks: U64 = 0
    """The sum of some of the `MARK_` constants."""
    work: U64 = 0
    """Where the network demands it: the number that proves the work; see `proto/broadcast/work.py`.
    Not signed: whoever changes it breaks the proof."""


class Held(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What the sender of a `Have` has of one origin."""

    origin: Key
    epoch: U64
    ranges: Ranges
    hops: Hops
    """Of the newest of them: links crossed to the sender."""
    way_us: U64
    """Of the newest of them: half the round trips of those links."""


class Have(msgspec.Struct, frozen=True, array_like=True, tag=2, gc=False):
    """Broadcasts that the sender has and has not sent to the receiver. Plumtree's IHAVE."""

    held: Annotated[list[Held], Meta(max_length=HAVE_ENTRIES_MAX)]
    is_history: bool = False
    """Whether it answers a `HistoryWanted`: then it says nothing of the tree."""


class Want(msgspec.Struct, frozen=True, array_like=True, tag=3, gc=False):
    """Asks for broadcasts that the receiver said it has, or that it has shown to have."""

    origin: Key
    epoch: U64
    ranges: Ranges


class Gone(msgspec.Struct, frozen=True, array_like=True, tag=4, gc=False):
    """Answers a `Want`: these the sender has no more."""

    origin: Key
    epoch: U64
    ranges: Ranges


def _require_scope(scope: bytes) -> None:
    if len(scope) not in (0, 32):
        raise ValueError("a scope is a key, or empty")  # decoders make it their own error


class Graft(msgspec.Struct, frozen=True, array_like=True, tag=5, gc=False):
    """The link becomes a branch of the tree: of everybody's, or of one origin's own."""

    scope: Scope = b""

    def __post_init__(self) -> None:
        _require_scope(self.scope)


class Prune(msgspec.Struct, frozen=True, array_like=True, tag=6, gc=False):
    """The link is no branch any more; copies that are on their way are no offence."""

    scope: Scope = b""

    def __post_init__(self) -> None:
        _require_scope(self.scope)


class HistoryWanted(msgspec.Struct, frozen=True, array_like=True, tag=7, gc=False):
    """Asks for a `Have` of all that the receiver holds from then on."""

    since_ms: U64
    """Unix time in milliseconds, by the origins' clocks."""
    digests: Annotated[list[U64], Meta(max_length=DIGESTS_MAX)] = []
    """Of what the sender has for each minute from the one of `since_ms` on: the XOR, over its
    broadcasts sent in it, of the first 8 bytes of BLAKE2b-64 of origin, epoch and sequence (8 bytes
    each, big-endian); 0 for none. Minutes with the same digest need not be told of."""


class HopSeen(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One link that a traced broadcast has crossed, as its receiver tells."""

    peer: Key
    parent: Key
    """From whom it came."""
    hops: Hops
    took_us: U64
    """How long it was on this link, by the two clocks as far as pings have compared them."""
    rtt_us: U64
    """The link's mean round trip; 0 when not known."""
    was_repaired: bool


class Receipt(msgspec.Struct, frozen=True, array_like=True, tag=8, gc=False):
    """So many more peers have a broadcast, all of them by way of the sender. Counts add up."""

    origin: Key
    epoch: U64
    sequence: Number
    peers: U64
    hops: Annotated[list[HopSeen], Meta(max_length=HOPS_SEEN_MAX)] = []
    is_last: bool = True
    """Whether the sender waits for none of those that it passed the broadcast on to."""


class Stem(msgspec.Struct, frozen=True, array_like=True, tag=9, gc=False):
    """A broadcast that does not spread yet: pass it on to one neighbour, or begin.

    Bojja Venkatakrishnan et al., "Dandelion++" (2018), BIP 156; seed 003's chain of hops.
    """

    payload: Payload
    signature: Annotated[bytes, Meta(min_length=64, max_length=64)]
    work: U64 = 0
    hops_left: Annotated[int, Meta(ge=0, le=STEM_HOPS_MAX)] | None = None
    """Hops to go; None: each hop ends it by chance, so that nothing tells how far it has come."""


GossipMessage: TypeAlias = (
    Broadcast | Have | Want | Gone | Graft | Prune | HistoryWanted | Receipt | Stem
)

_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final[msgspec.msgpack.Decoder[GossipMessage]] = msgspec.msgpack.Decoder(GossipMessage)
_read: Final = _decoder.decode
_UNREADABLE: Final = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError)


def encode_gossip(message: GossipMessage) -> bytes:
    """The bytes of a message."""
    return _encoder.encode(message)


def decode_gossip(body: bytes) -> GossipMessage:
    """Read the body of a message about broadcasts. Raises `MalformedFrame`."""
    try:
        return _read(body)
    except _UNREADABLE as error:
        raise MalformedFrame(f"unreadable body: {error}") from None


def ranges_of(numbers: Iterable[int]) -> list[int]:
    """Numbers as ranges: the pairs of first and last, ascending and joined."""
    out: list[int] = []
    for number in sorted(numbers):
        if out and number <= out[-1] + 1:
            out[-1] = number
        else:
            out += (number, number)
    return out


def pairs_of(ranges: Sequence[int]) -> list[tuple[int, int]]:
    """The pairs of ranges. Raises `MalformedFrame` when they are no ranges: out of order, or odd.

    Says nothing of how many numbers lie between; count before you list them.
    """
    if len(ranges) % 2:
        raise MalformedFrame("a range has two ends")
    pairs, before = list(zip(ranges[::2], ranges[1::2], strict=True)), 0
    for first, last in pairs:  # all of them, before anybody acts on the first
        if not before < first <= last:
            raise MalformedFrame("ranges are ascending")
        before = last
    return pairs
