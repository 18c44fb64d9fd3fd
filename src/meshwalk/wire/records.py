"""Things that are signed: peer records and broadcasts, and the exact bytes a signature covers.

Every signature covers: a domain tag of 16 bytes, the network's id of 32 bytes, and the payload as
it travels. The tag keeps a signature for one kind of thing from being passed off as another; the
id keeps it from being passed off in another network. The payload is signed and checked as bytes
and never re-encoded, so that two encoders need not agree. No keys here.
"""

from __future__ import annotations

import enum
from functools import lru_cache
from typing import Annotated, Final, TypeAlias, TypeVar

import msgspec
from msgspec import Meta

from meshwalk.errors import InvalidAddress, InvalidRecord
from meshwalk.wire.address import Address
from meshwalk.wire.frames import U64, ContentType, ShortText
from meshwalk.wire.peerid import PeerId

RECORD_ADDRESSES_MAX: Final = 8  # guess: as many as an invite carries
RECORD_BYTES_MAX: Final = 4096  # guess: eight addresses of 262 characters, key, signature, and room
SIGNATURE_BYTES: Final = 64  # RFC 8032 section 5.1.6
# A record passes a node many times: it is read at each hop of each walk. What was read out of it is
# remembered, and shared by all nodes of a process.
RECORDS_REMEMBERED_MAX: Final = 1024  # guess: walks under way at once; 20 MB if all are the longest
PEER_IDS_REMEMBERED_MAX: Final = 4096  # guess: four full address books; 1 MB


class Domain(enum.Enum):
    """What a signature is for; the tag that it covers first, 16 bytes each."""

    PEER_RECORD = b"meshwalk/1 peer "
    BROADCAST = b"meshwalk/1 bcast"
    BEACON = b"meshwalk/1 beacn"


def bytes_to_sign(domain: Domain, network_id: bytes, payload: bytes) -> bytes:
    """What the signature of `payload` covers."""
    return domain.value + network_id + payload


class PeerRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Where a peer says it listens. Newer sequence numbers replace older ones."""

    peer: Annotated[bytes, Meta(min_length=32, max_length=32)]
    sequence: U64
    """Unix time in microseconds when the record was made, or one more than the last."""
    addresses: Annotated[list[ShortText], Meta(max_length=RECORD_ADDRESSES_MAX)] = []

    @property
    def peer_id(self) -> PeerId:
        """The peer that the record speaks of."""
        return peer_id_of(self.peer)

    def parsed_addresses(self) -> tuple[Address, ...]:
        """The addresses that can be read and dialled, in the peer's own order.

        One with a zone (`fe80::1%eth0`) is left out: it names an interface of the peer's machine.
        """
        return _parsed(tuple(self.addresses))

    def addresses_at(self, host: str) -> tuple[Address, ...]:
        """Those of `parsed_addresses` that have this host."""
        return _parsed_at(tuple(self.addresses), host)


@lru_cache(PEER_IDS_REMEMBERED_MAX)
def peer_id_of(key: bytes) -> PeerId:
    """The PeerId of a key in a record, one object for all records. Raises `InvalidPeerId`."""
    return PeerId(key)


@lru_cache(RECORDS_REMEMBERED_MAX)
def _parsed(texts: tuple[str, ...]) -> tuple[Address, ...]:
    found: list[Address] = []
    for text in texts:
        try:
            address = Address.parse(text, default_port=None)
        except InvalidAddress:
            continue
        if address.port and not address.is_unspecified and "%" not in address.host:
            found.append(address)
    return tuple(found)


@lru_cache(RECORDS_REMEMBERED_MAX)
def _parsed_at(texts: tuple[str, ...], host: str) -> tuple[Address, ...]:
    return tuple(address for address in _parsed(texts) if address.host == host)


class Signed(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A payload and its signature, as one blob in a frame or in the store."""

    payload: bytes
    signature: Annotated[bytes, Meta(min_length=SIGNATURE_BYTES, max_length=SIGNATURE_BYTES)]


NUMBER_MAX: Final = 2**63 - 1  # guess: so that the sum of two is still a u64
Number: TypeAlias = Annotated[int, Meta(ge=1, le=NUMBER_MAX)]
"""Of a broadcast or a message: they are counted from 1."""
ASKS_RECEIPT: Final = 1
"""The origin wants to know how many peers have the broadcast."""
ASKS_TRACE: Final = 2
"""The origin wants to know which way it took. Nodes answer if their settings allow it."""
BUNDLE_MESSAGES_MAX: Final = 512  # guess: checking one signature for so many is 0.1 µs each


class BroadcastMessage(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One message of an application to everyone."""

    body: bytes
    content: ContentType
    topic: ShortText = ""


class BroadcastPayload(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What the origin of a broadcast signs: one message, or a bundle of some that came in a burst,
    so that one signature does for all."""

    origin: Annotated[bytes, Meta(min_length=32, max_length=32)]
    epoch: U64
    """Unix time in milliseconds at which the origin started; a restart begins a new count."""
    sequence: Number
    """1 for the first broadcast of this epoch, then one more for each."""
    sent_at_ms: U64
    """Unix time in milliseconds by the origin's clock."""
    first: Number
    """The number of the first message in it: messages are counted apart from bundles."""
    messages: Annotated[list[BroadcastMessage], Meta(min_length=1, max_length=BUNDLE_MESSAGES_MAX)]
    asks: U64 = 0
    """The sum of some of the `ASKS_` constants."""


class BroadcastHead(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The beginning of a `BroadcastPayload`: which one it is. Read first, since of most copies that
    come twice nothing more matters."""

    origin: Annotated[bytes, Meta(min_length=32, max_length=32)]
    epoch: U64
    sequence: Number
    sent_at_ms: U64


class BeaconPayload(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What the leader of a fragment signs, again and again."""

    leader: Annotated[bytes, Meta(min_length=32, max_length=32)]
    counter: U64
    """Grows with each; the leader's Unix time in milliseconds, so that a restart goes on."""
    epoch: U64
    """Members are counted anew in each. Never falls under one leader."""


_Record = TypeVar("_Record")

_encoder: Final = msgspec.msgpack.Encoder()
_signed: Final = msgspec.msgpack.Decoder(Signed)
_peer_record: Final = msgspec.msgpack.Decoder(PeerRecord)
_beacon_payload: Final = msgspec.msgpack.Decoder(BeaconPayload)
_broadcast: Final = msgspec.msgpack.Decoder(BroadcastPayload)
_read_head: Final = msgspec.msgpack.Decoder(BroadcastHead).decode
_UNREADABLE: Final = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError)


def encode(record: PeerRecord | BroadcastPayload | BeaconPayload | Signed) -> bytes:
    """The bytes of a record."""
    return _encoder.encode(record)


@lru_cache(RECORDS_REMEMBERED_MAX)
def shared(blob: bytes) -> bytes:
    """The same bytes: one object for the address books of all nodes of a process."""
    return blob


@lru_cache(RECORDS_REMEMBERED_MAX)
def decode_signed(blob: bytes) -> Signed:
    """Split a blob into payload and signature. Raises `InvalidRecord`."""
    if len(blob) > RECORD_BYTES_MAX:
        raise InvalidRecord(f"record of {len(blob)} bytes; the limit is {RECORD_BYTES_MAX}")
    return _decode(_signed, blob)


@lru_cache(RECORDS_REMEMBERED_MAX)
def decode_peer_record(payload: bytes) -> PeerRecord:
    """Read a peer record whose signature has yet to be checked. Raises `InvalidRecord`."""
    return _decode(_peer_record, payload)


@lru_cache(RECORDS_REMEMBERED_MAX)
def decode_beacon_payload(payload: bytes) -> BeaconPayload:
    """Read a beacon whose signature has yet to be checked. Raises `InvalidRecord`."""
    return _decode(_beacon_payload, payload)


def decode_broadcast_payload(payload: bytes) -> BroadcastPayload:
    """Read a broadcast whose signature has yet to be checked. Raises `InvalidRecord`."""
    return _decode(_broadcast, payload)


def decode_broadcast_head(payload: bytes) -> BroadcastHead:
    """Read which broadcast it is; the rest may yet be unreadable. Raises `InvalidRecord`."""
    try:  # as `_decode`, without its call: most frames of a busy network are copies of broadcasts
        return _read_head(payload)
    except _UNREADABLE as error:
        raise InvalidRecord(f"unreadable record: {error}") from None


def _decode(decoder: msgspec.msgpack.Decoder[_Record], blob: bytes) -> _Record:
    try:
        return decoder.decode(blob)
    except _UNREADABLE as error:
        raise InvalidRecord(f"unreadable record: {error}") from None
