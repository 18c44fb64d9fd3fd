"""Bodies of overlay messages and refusals. Those about broadcasts: test_gossip.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given

from meshwalk.errors import MalformedFrame
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
    RefusalCode,
    SplitReply,
    SplitRequest,
    VouchAsked,
    VouchOutcome,
    VouchTold,
    decode_overlay,
    decode_refusal,
    encode,
)

from .strategies import HOSTILE, NOT_UTF8, any_bytes, overlay_messages, refusals

DECODERS: list[Callable[[bytes], Any]] = [decode_overlay, decode_refusal]
SAMPLES: list[tuple[Callable[[bytes], Any], OverlayMessage | Refusal]] = [
    (decode_overlay, JoinRequest(b"record", b"token", "192.0.2.1", 3, 10)),
    (decode_overlay, JoinReply(JoinOutcome.DIAL_ME, 4, b"record")),
    (decode_overlay, SplitRequest(b"record", b"token", "")),
    (decode_overlay, SplitReply()),
    (decode_overlay, PeersWanted(7)),
    (decode_overlay, FindPeer(bytes(32), 31, 5)),
    (decode_overlay, PeerFound(b"record", 3)),
    (decode_overlay, PeersTold(2**64 - 1, [b"record", b"another"])),
    (decode_overlay, RecordChanged(b"record")),
    (decode_overlay, Beacon(b"beacon", [1, 2**64 - 1], 2)),
    (decode_overlay, FragmentAsked(b"beacon", 300, b"token")),
    (decode_overlay, FragmentTold(b"beacon", 300, FragmentOutcome.JOIN_US)),
    (decode_overlay, VouchAsked(b"record")),
    (decode_overlay, VouchTold(VouchOutcome.SILENT)),
    (decode_overlay, PartRequest()),
    (decode_overlay, PartReply(is_granted=True)),
    (decode_overlay, Handover(b"record", b"token", dials=True)),
    (decode_refusal, Refusal(RefusalCode.BUSY, "later")),
]


def overlay(value: Any) -> OverlayMessage:
    return decode_overlay(msgspec.msgpack.encode(value))


@pytest.mark.parametrize(("decode", "sample"), SAMPLES)
def test_whole_cut_and_with_junk_after(
    decode: Callable[[bytes], Any], sample: OverlayMessage | Refusal
) -> None:
    body = encode(sample)
    assert decode(body) == sample
    for length in range(len(body)):
        with pytest.raises(MalformedFrame):
            decode(body[:length])
    with pytest.raises(MalformedFrame):
        decode(body + b"\x00")


@given(overlay_messages)
def test_overlay_round_trip(message: OverlayMessage) -> None:
    assert decode_overlay(encode(message)) == message


@given(refusals)
def test_refusal_round_trip(refusal: Refusal) -> None:
    assert decode_refusal(encode(refusal)) == refusal


@given(overlay_messages)
def test_elements_of_a_later_version_are_ignored(message: OverlayMessage) -> None:
    known = msgspec.to_builtins(message, builtin_types=(bytes,))
    assert overlay([*known, "new", {"a": [1]}, None]) == message


@given(any_bytes)
def test_any_body_is_read_or_malformed(body: bytes) -> None:
    for decode in DECODERS:
        try:
            message = decode(body)
        except MalformedFrame:
            continue
        assert decode(encode(message)) == message


@pytest.mark.parametrize("decode", DECODERS)
@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_bodies(decode: Callable[[bytes], Any], body: bytes) -> None:
    with pytest.raises(MalformedFrame) as caught:
        decode(body)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("text", NOT_UTF8.values(), ids=NOT_UTF8.keys())
def test_text_that_is_not_utf8(text: bytes) -> None:
    with pytest.raises(MalformedFrame):
        decode_refusal(b"\x93\x01\x01" + text)
    with pytest.raises(MalformedFrame):
        decode_overlay(b"\x94\x03\xc4\x00\xc4\x00" + text)


@pytest.mark.parametrize("hops", [-1, HOPS_MAX + 1, 2**64 - 1, 1.0, True, None])
def test_hops_are_bounded(hops: Any) -> None:
    with pytest.raises(MalformedFrame):
        overlay([1, b"", b"", "", hops, 0])
    with pytest.raises(MalformedFrame):
        overlay([1, b"", b"", "", 0, hops])
    with pytest.raises(MalformedFrame):
        overlay([2, 0, hops])
    with pytest.raises(MalformedFrame):
        overlay([6, bytes(32), hops])
    with pytest.raises(MalformedFrame):
        overlay([7, b"", hops])


def test_bounds() -> None:
    assert overlay([8, 0, [b""] * RECORDS_PER_MESSAGE_MAX]) == PeersTold(0, [b""] * 16)
    assert overlay([10, b"", [0] * SKETCH_MAX, 0]) == Beacon(b"", [0] * 32, 0)
    for value in (
        [5, -1],
        [5, 1.0],
        [5, []],
        [8, 0, [b""] * (RECORDS_PER_MESSAGE_MAX + 1)],
        [8, 0, [b"", "text"]],
        [8, 0, [bytes(4097)]],
        [8, -1, []],
        [8, 0],
        [9, bytes(4097)],
        [9],
        [10, bytes(4097), [], 0],
        [10, b"", [0] * (SKETCH_MAX + 1), 0],
        [10, b"", [-1], 0],
        [10, b"", [0.5], 0],
        [10, b"", [True], 0],
        [10, b"", [], -1],
        [10, b"", []],
        [11, bytes(4097), 0, b""],
        [11, b"", -1, b""],
        [11, b"", 0, bytes(17)],
        [11, b"", 0],
        [12, bytes(4097), 0, 0],
        [12, b"", 0, 4],
        [12, b"", 0],
        [13, bytes(4097)],
        [13],
        [14, 3],
        [14, True],
        [14],
        [16, 0],
        [16],
        [17, bytes(4097), b"", True],
        [17, b"", bytes(17), True],
        [17, b"", b"", 1],
        [17, b"", b""],
        [1, bytes(4097), b"", "", 0, 0],
        [1, b"", bytes(17), "", 0, 0],
        [1, b"", b"", "a" * 266, 0, 0],
        [2, 4, 0],
        [2, -1, 0],
        [3, b"", b""],
        [6, bytes(31), 0],
        [6, bytes(33), 0],
        [6, bytes(32)],
        [6, bytes(32), 0, -1],
        [7, bytes(4097), 0],
        [7, b""],
        [0],
        [18],
        [],
    ):
        with pytest.raises(MalformedFrame):
            overlay(value)


def test_unknown_refusal_codes_are_read() -> None:
    assert decode_refusal(msgspec.msgpack.encode([1, 999])) == Refusal(999)


def test_numbers_of_the_enums_are_as_published() -> None:
    assert {code.name: code.value for code in RefusalCode} == {
        "NO_HANDLER": 1,
        "HANDLER_FAILED": 2,
        "BUSY": 3,
        "NOT_ALLOWED": 4,
        "NOT_UNDERSTOOD": 5,
        "NO_CONVERSATION": 6,
        "CANCELLED": 7,
        "TOO_BIG": 8,
        "TOO_LATE": 9,
        "ENDED": 10,
    }
    assert {outcome.name: outcome.value for outcome in JoinOutcome} == {
        "LINKED": 0,
        "DIAL_ME": 1,
        "NO_PLACE": 2,
        "BUSY": 3,
    }
    assert {outcome.name: outcome.value for outcome in FragmentOutcome} == {
        "SAME": 0,
        "JOINING": 1,
        "JOIN_US": 2,
        "BUSY": 3,
    }
    assert {outcome.name: outcome.value for outcome in VouchOutcome} == {
        "ALIVE": 0,
        "SILENT": 1,
        "UNKNOWN": 2,
    }


def test_every_message_is_among_the_samples() -> None:
    sampled = {type(sample) for _, sample in SAMPLES}
    assert sampled == {*get_args(OverlayMessage), Refusal}


def test_whoever_knows_nothing_need_name_no_position() -> None:
    assert overlay([5]) == PeersWanted(0)
