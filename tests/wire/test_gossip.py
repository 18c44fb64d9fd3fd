"""Bodies of the messages about broadcasts, and the ranges in them."""

from __future__ import annotations

from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshwalk.errors import MalformedFrame
from meshwalk.wire.codec import encode_frame
from meshwalk.wire.frames import STEM_HOPS_MAX, Channel, Message
from meshwalk.wire.gossip import (
    DIGESTS_MAX,
    HAVE_ENTRIES_MAX,
    HOPS_SEEN_MAX,
    MARK_REPAIRED,
    PAYLOAD_BYTES_MAX,
    RANGES_MAX,
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
    decode_gossip,
    encode_gossip,
    pairs_of,
    ranges_of,
)
from meshwalk.wire.messages import HOPS_MAX
from meshwalk.wire.records import NUMBER_MAX

from .strategies import HOSTILE, any_bytes, gossip_messages, ranges

KEY, OTHER, SIGNATURE = bytes(range(32)), bytes(range(32, 64)), bytes(64)
SAMPLES: list[GossipMessage] = [
    Broadcast(b"payload", SIGNATURE, 2, 15_000, MARK_REPAIRED, 2**64 - 1),
    Have([Held(KEY, 7, [1, 4, 9, 9], 3, 45_000), Held(OTHER, 8, [2, 2], 0, 0)]),
    Have([Held(KEY, 7, [1, 1], 1, 0)], is_history=True),
    Want(KEY, 7, [1, 4, 9, 9]),
    Gone(KEY, 7, [1, NUMBER_MAX]),
    Graft(),
    Graft(KEY),
    Prune(),
    Prune(KEY),
    HistoryWanted(2**64 - 1),
    HistoryWanted(60_000, [0, 2**64 - 1]),
    Receipt(KEY, 7, 9, 3, [HopSeen(KEY, OTHER, 2, 15_000, 30_000, was_repaired=True)], False),
    Stem(b"payload", SIGNATURE, 5, 10),
    Stem(b"payload", SIGNATURE),
]


def gossip(value: Any) -> GossipMessage:
    return decode_gossip(msgspec.msgpack.encode(value))


def test_every_message_is_among_the_samples() -> None:
    assert {type(sample) for sample in SAMPLES} == set(get_args(GossipMessage))


def test_tags_are_as_published() -> None:
    kinds: tuple[type[msgspec.Struct], ...] = get_args(GossipMessage)
    assert {kind.__name__: kind.__struct_config__.tag for kind in kinds} == {
        "Broadcast": 1,
        "Have": 2,
        "Want": 3,
        "Gone": 4,
        "Graft": 5,
        "Prune": 6,
        "HistoryWanted": 7,
        "Receipt": 8,
        "Stem": 9,
    }


@pytest.mark.parametrize("sample", SAMPLES)
def test_whole_cut_and_with_junk_after(sample: GossipMessage) -> None:
    body = encode_gossip(sample)
    assert decode_gossip(body) == sample
    for length in range(len(body)):
        with pytest.raises(MalformedFrame):
            decode_gossip(body[:length])
    with pytest.raises(MalformedFrame):
        decode_gossip(body + b"\x00")


@given(gossip_messages)
def test_round_trip(message: GossipMessage) -> None:
    assert decode_gossip(encode_gossip(message)) == message


@given(gossip_messages)
def test_elements_of_a_later_version_are_ignored(message: GossipMessage) -> None:
    known = msgspec.to_builtins(message, builtin_types=(bytes,))
    assert gossip([*known, "new", {"a": [1]}, None]) == message


@given(any_bytes)
def test_any_body_is_read_or_malformed(body: bytes) -> None:
    try:
        message = decode_gossip(body)
    except MalformedFrame:
        return
    assert decode_gossip(encode_gossip(message)) == message


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_bodies(body: bytes) -> None:
    with pytest.raises(MalformedFrame) as caught:
        decode_gossip(body)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("kind", range(1, 10))
@pytest.mark.parametrize(
    "rest",
    [b"\x91" * 200_000, b"\x81\xa1a" * 100_000, b"\xdd\xff\xff\xff\xff"],
    ids=["deep array", "deep map", "list of 4 billion"],
)
def test_hostile_elements_after_any_tag(kind: int, rest: bytes) -> None:
    known = msgspec.msgpack.encode(next(s for s in SAMPLES if s.__struct_config__.tag == kind))
    for body in (bytes([0x92, kind]) + rest, b"\x9f" + known[1:] + rest):
        with pytest.raises(MalformedFrame):
            decode_gossip(body)


@pytest.mark.parametrize("hops", [-1, HOPS_MAX + 1, 2**64 - 1, 1.0, True, None])
def test_hops_are_bounded(hops: Any) -> None:
    for value in (
        [1, b"", SIGNATURE, hops],
        [2, [[KEY, 7, [1, 1], hops, 0]]],
        [8, KEY, 7, 9, 3, [[KEY, OTHER, hops, 0, 0, False]]],
    ):
        with pytest.raises(MalformedFrame):
            gossip(value)


@pytest.mark.parametrize("hops", [-1, STEM_HOPS_MAX + 1, 2**64 - 1, 1.0, True, b""])
def test_hops_of_a_stem_are_bounded(hops: Any) -> None:
    with pytest.raises(MalformedFrame):
        gossip([9, b"", SIGNATURE, 0, hops])


@pytest.mark.parametrize("length", [0, 63, 65])
def test_signatures_have_64_bytes(length: int) -> None:
    for value in ([1, b"", bytes(length), 0], [9, b"", bytes(length)]):
        with pytest.raises(MalformedFrame):
            gossip(value)


def test_the_longest_payload_fits_a_frame_at_every_hop() -> None:
    """Else who passes it on would send what the next one refuses."""
    payload, most = bytes(PAYLOAD_BYTES_MAX), 2**64 - 1
    for message in (
        Broadcast(payload, SIGNATURE, HOPS_MAX, most, most, most),
        Stem(payload, SIGNATURE, most, STEM_HOPS_MAX),
    ):
        body = encode_gossip(message)
        assert decode_gossip(body) == message
        encode_frame(Message(most, most, Channel.BROADCAST, body))
    for value in ([1, payload + b"x", SIGNATURE, 1], [9, payload + b"x", SIGNATURE]):
        with pytest.raises(MalformedFrame):
            gossip(value)


@pytest.mark.parametrize("length", [0, 31, 33])
def test_keys_have_32_bytes(length: int) -> None:
    key = bytes(length)
    for value in (
        [2, [[key, 7, [1, 1], 0, 0]]],
        [3, key, 7, [1, 1]],
        [4, key, 7, [1, 1]],
        [8, key, 7, 9, 3],
        [8, KEY, 7, 9, 3, [[key, OTHER, 1, 0, 0, False]]],
        [8, KEY, 7, 9, 3, [[KEY, key, 1, 0, 0, False]]],
    ):
        with pytest.raises(MalformedFrame):
            gossip(value)


@pytest.mark.parametrize("tag", [5, 6])
def test_a_scope_is_a_key_or_empty(tag: int) -> None:
    """What is neither would be noted as an origin that does not exist."""
    assert gossip([tag]) == gossip([tag, b""])
    gossip([tag, KEY])
    for length in (1, 31, 33):
        with pytest.raises(MalformedFrame):
            gossip([tag, bytes(length)])


@pytest.mark.parametrize(
    "bad",
    [[], [1], [0, 1], [1, NUMBER_MAX + 1], [1, 1.0], [1, True], [-1, 1], [1, 2] * (RANGES_MAX + 1)],
)
def test_numbers_and_lengths_of_ranges_are_bounded(bad: list[Any]) -> None:
    for value in ([2, [[KEY, 7, bad, 0, 0]]], [3, KEY, 7, bad], [4, KEY, 7, bad]):
        with pytest.raises(MalformedFrame):
            gossip(value)


def test_what_is_needed_and_how_much_of_it() -> None:
    held, hop = [KEY, 7, [1, 1], 0, 0], [KEY, OTHER, 1, 0, 0, False]
    gossip([2, [held] * HAVE_ENTRIES_MAX])
    gossip([3, KEY, 7, [1, 1] * RANGES_MAX])
    gossip([7, 1, [2**64 - 1] * DIGESTS_MAX])
    gossip([8, KEY, 7, 9, 3, [hop] * HOPS_SEEN_MAX])
    for value in (
        [0],
        [10],
        [],
        [1, b"", SIGNATURE],
        [1, b"", SIGNATURE, 0, -1],
        [1, b"", SIGNATURE, 0, 0, -1],
        [1, b"", SIGNATURE, 0, 0, 0, 1.0],
        [2],
        [2, held],
        [2, [held[:4]]],
        [2, [held] * (HAVE_ENTRIES_MAX + 1)],
        [2, [held], 1],
        [2, [held], None],
        [3, KEY, 7],
        [3, KEY, -7, [1, 1]],
        [4, KEY, 7],
        [7],
        [7, -1],
        [7, 1, [-1]],
        [7, 1, [1.0]],
        [7, 1, [b"12345678"]],
        [7, 1, [0] * (DIGESTS_MAX + 1)],
        [8, KEY, 7, 9],
        [8, KEY, 7, 0, 3],
        [8, KEY, 7, NUMBER_MAX + 1, 3],
        [8, KEY, 7, 9, -3],
        [8, KEY, 7, 9, 3, [hop[:5]]],
        [8, KEY, 7, 9, 3, [hop] * (HOPS_SEEN_MAX + 1)],
        [8, KEY, 7, 9, 3, [], 1],
        [9, b""],
        [9, b"", SIGNATURE, -1],
    ):
        with pytest.raises(MalformedFrame):
            gossip(value)


def test_what_may_be_left_out() -> None:
    assert gossip([1, b"p", SIGNATURE, 1]) == Broadcast(b"p", SIGNATURE, 1, 0, 0, 0)
    assert gossip([2, []]) == Have([], is_history=False)
    assert gossip([7, 1]) == HistoryWanted(1, [])
    assert gossip([8, KEY, 7, 9, 3]) == Receipt(KEY, 7, 9, 3, [], is_last=True)
    assert gossip([9, b"p", SIGNATURE]) == Stem(b"p", SIGNATURE, 0, None)


# Ranges.


@given(st.sets(st.integers(1, 300)))
def test_numbers_come_back_from_their_ranges(numbers: set[int]) -> None:
    pairs = pairs_of(ranges_of(numbers))
    assert [n for first, last in pairs for n in range(first, last + 1)] == sorted(numbers)
    ends = [last for _, last in pairs]
    assert all(first > last + 1 for (first, _), last in zip(pairs[1:], ends, strict=False)), pairs


def test_ranges_of_what_comes_twice_and_in_no_order() -> None:
    assert ranges_of([9, 3, 1, 2, 2, 9]) == [1, 3, 9, 9]
    assert ranges_of([]) == []


def test_ranges_may_touch_and_be_huge() -> None:
    assert pairs_of([1, 2, 3, 3]) == [(1, 2), (3, 3)]
    assert pairs_of([1, NUMBER_MAX]) == [(1, NUMBER_MAX)]


@pytest.mark.parametrize(
    "bad", [[1], [1, 2, 3], [2, 1], [1, 3, 3, 4], [1, 3, 2, 5], [5, 6, 1, 2], [0, 1], [-1, 1]]
)
def test_what_does_not_ascend_is_malformed(bad: list[int]) -> None:
    with pytest.raises(MalformedFrame):
        pairs_of(bad)


@given(ranges)
def test_any_ranges_ascend_or_are_malformed(found: list[int]) -> None:
    try:
        pairs = pairs_of(found)
    except MalformedFrame:
        return
    flat = [end for pair in pairs for end in pair]
    assert flat == found == sorted(found)
    assert all(a < b for a, b in zip(flat[1::2], flat[2::2], strict=False))
