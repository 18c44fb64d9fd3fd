"""Generated values of every Struct of the wire, and bytes that nearly are MessagePack."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import strategies as st

from meshwalk.wire.frames import (
    SHORT_TEXT_CHARACTERS_MAX,
    STEM_HOPS_MAX,
    Channel,
    Close,
    ContentType,
    Credit,
    Frame,
    Hello,
    Message,
    Ping,
    Pong,
    Purpose,
)
from meshwalk.wire.gossip import (
    DIGESTS_MAX,
    Broadcast,
    Gone,
    GossipMessage,
    Graft,
    Have,
    Held,
    HistoryWanted,
    HopSeen,
    Prune,
    Receipt,
    Stem,
    Want,
)
from meshwalk.wire.messages import (
    HOPS_MAX,
    RECORDS_PER_MESSAGE_MAX,
    SKETCH_MAX,
    Beacon,
    FindPeer,
    FragmentAsked,
    FragmentOutcome,
    FragmentTold,
    Handover,
    JoinOutcome,
    JoinReply,
    JoinRequest,
    OverlayMessage,
    PartReply,
    PartRequest,
    PeerFound,
    PeersTold,
    PeersWanted,
    RecordChanged,
    Refusal,
    SplitReply,
    SplitRequest,
    VouchAsked,
    VouchOutcome,
    VouchTold,
)
from meshwalk.wire.records import (
    NUMBER_MAX,
    BeaconPayload,
    BroadcastMessage,
    BroadcastPayload,
    PeerRecord,
    Signed,
)

u64 = st.integers(0, 2**64 - 1)
short_text = st.text(max_size=SHORT_TEXT_CHARACTERS_MAX)
token = st.binary(max_size=16)
record_bytes = st.binary(max_size=200)
hops = st.integers(0, HOPS_MAX)
key = st.binary(min_size=32, max_size=32)
signature = st.binary(min_size=64, max_size=64)
body = st.binary(max_size=300)

frames: st.SearchStrategy[Frame] = st.one_of(
    st.builds(
        Hello, u64, st.sampled_from(Purpose), u64, short_text, record_bytes, token, short_text, u64
    ),
    st.builds(Ping, u64, u64),
    st.builds(Pong, u64, u64, u64, u64),
    st.builds(Close, u64, short_text),
    st.builds(
        Message,
        u64,
        u64,
        st.sampled_from(Channel),
        body,
        u64,
        u64,
        st.sampled_from(ContentType),
        short_text,
        st.booleans(),
        u64,
        u64,
    ),
    st.builds(Credit, u64, st.booleans(), u64, u64, u64),
)
overlay_messages: st.SearchStrategy[OverlayMessage] = st.one_of(
    st.builds(JoinRequest, record_bytes, token, short_text, hops, hops),
    st.builds(JoinReply, st.sampled_from(JoinOutcome), hops, record_bytes),
    st.builds(SplitRequest, record_bytes, token, short_text),
    st.builds(SplitReply),
    st.builds(PeersWanted, u64),
    st.builds(FindPeer, key, hops, u64),
    st.builds(PeerFound, record_bytes, hops),
    st.builds(PeersTold, u64, st.lists(record_bytes, max_size=RECORDS_PER_MESSAGE_MAX)),
    st.builds(RecordChanged, record_bytes),
    st.builds(Beacon, record_bytes, st.lists(u64, max_size=SKETCH_MAX), u64),
    st.builds(FragmentAsked, record_bytes, u64, token),
    st.builds(FragmentTold, record_bytes, u64, st.sampled_from(FragmentOutcome)),
    st.builds(VouchAsked, record_bytes),
    st.builds(VouchTold, st.sampled_from(VouchOutcome)),
    st.builds(PartRequest),
    st.builds(PartReply, st.booleans()),
    st.builds(Handover, record_bytes, token, st.booleans()),
)
ranges = st.lists(st.integers(1, 2**16) | st.integers(1, NUMBER_MAX), min_size=2, max_size=20)
"""Not all of them ascend: whoever reads them checks that."""
numbers = st.integers(1, NUMBER_MAX)
scopes = st.just(b"") | key
gossip_messages: st.SearchStrategy[GossipMessage] = st.one_of(
    st.builds(Broadcast, body, signature, hops, u64, u64, u64),
    st.builds(
        Have, st.lists(st.builds(Held, key, u64, ranges, hops, u64), max_size=4), st.booleans()
    ),
    st.builds(Want, key, u64, ranges),
    st.builds(Gone, key, u64, ranges),
    st.builds(Graft, scopes),
    st.builds(Prune, scopes),
    st.builds(HistoryWanted, u64, st.lists(u64, max_size=DIGESTS_MAX)),
    st.builds(
        Receipt,
        key,
        u64,
        numbers,
        u64,
        st.lists(st.builds(HopSeen, key, key, hops, u64, u64, st.booleans()), max_size=3),
        st.booleans(),
    ),
    st.builds(Stem, body, signature, u64, st.none() | st.integers(0, STEM_HOPS_MAX)),
)
refusals = st.builds(Refusal, u64, short_text)
peer_records = st.builds(PeerRecord, key, u64, st.lists(short_text, max_size=8))
signed_blobs = st.builds(Signed, body, signature)
beacon_payloads = st.builds(BeaconPayload, key, u64, u64)
broadcast_payloads = st.builds(
    BroadcastPayload,
    key,
    u64,
    numbers,
    u64,
    numbers,
    st.lists(
        st.builds(BroadcastMessage, body, st.sampled_from(ContentType), short_text),
        min_size=1,
        max_size=4,
    ),
    u64,
)

_scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
    | st.binary(max_size=70)
)
_values: st.SearchStrategy[Any] = st.recursive(
    _scalars,
    lambda inner: (
        st.lists(inner, max_size=10) | st.dictionaries(st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)


@st.composite
def _tagged_arrays(draw: st.DrawFn) -> bytes:
    """An array that begins like one of ours and goes on as it likes."""
    tag = draw(st.integers(0, 18))
    return msgspec.msgpack.encode([tag, *draw(st.lists(_values, max_size=13))])


@st.composite
def _damaged(draw: st.DrawFn) -> bytes:
    """A valid encoding with some bytes changed, cut or added."""
    valid = st.one_of(
        frames,
        overlay_messages,
        gossip_messages,
        refusals,
        peer_records,
        signed_blobs,
        beacon_payloads,
        broadcast_payloads,
    ).map(msgspec.msgpack.encode)
    data = bytearray(draw(valid))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        data[at : at + draw(st.integers(0, 2))] = draw(st.binary(max_size=3))
    return bytes(data)


any_bytes: st.SearchStrategy[bytes] = (
    st.binary(max_size=100) | _values.map(msgspec.msgpack.encode) | _tagged_arrays() | _damaged()
)
"""Anything at all, most of it close to something that would be read."""

NOT_UTF8 = {
    "no start byte": b"\xa2\xff\xfe",
    "cut short": b"\xa1\xc3",
    "surrogate": b"\xa3\xed\xa0\x80",
    "longer than need be": b"\xa2\xc0\x80",
    "above U+10FFFF": b"\xa4\xf4\x90\x80\x80",
}
"""MessagePack text that is not UTF-8 (RFC 3629): msgspec raises UnicodeDecodeError for it."""

HOSTILE = {
    "nothing": b"",
    "deep array": b"\x91" * 200_000,
    "deep map": b"\x81\xa1a" * 100_000,
    "deep array after the known elements": b"\x9f\x02\x01\x02" + b"\x91" * 200_000,
    "array of 4 billion": b"\xdd\xff\xff\xff\xff\x05",
    "map of 4 billion": b"\xdf\xff\xff\xff\xff",
    "bytes of 4 billion": b"\xc6\xff\xff\xff\xff",
    "text of 4 billion": b"\x92\x04\xdb\xff\xff\xff\xff",
    "list of 4 billion in a field": b"\x93\x08\x00\xdd\xff\xff\xff\xff",
    "list of 4 billion structs in a field": b"\x92\x02\xdd\xff\xff\xff\xff",
    "list of 4 billion integers": b"\x94\x0a\xc4\x00\xdd\xff\xff\xff\xff",
    "list of 4 billion in place of the tag": b"\x92\xdd\xff\xff\xff\xff\x05",
    "extension of 4 billion": b"\xc9\xff\xff\xff\xff\x01",
    "opcode that MessagePack never uses": b"\xc1",
    "map in place of an array": b"\x82\xa3tag\x02\xa2id\x01",
    "time stamp as an integer": b"\x93\x02\xd6\xff\x00\x00\x00\x00\x01",
}
"""Inputs that no parser of ours may read, and that are easy to get wrong."""
