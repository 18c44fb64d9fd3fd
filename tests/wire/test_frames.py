"""The Structs of the link: what is read, what is refused, what later versions may append."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given

from meshwalk.errors import MalformedFrame
from meshwalk.wire import frames as wire_frames
from meshwalk.wire.codec import FrameReader, encode_frame
from meshwalk.wire.frames import (
    CONVERSING_PURPOSES,
    LENGTH_BYTES,
    RANDOM_PURPOSES,
    SHARED_WINDOW_BYTES,
    SHORT_TEXT_CHARACTERS_MAX,
    STANDING_PURPOSES,
    Channel,
    Close,
    CloseReason,
    ContentType,
    Credit,
    Frame,
    Hello,
    Message,
    Ping,
    Pong,
    Purpose,
)

from .strategies import frames

SMALLEST: list[list[Any]] = [
    [1, 1, 0, 2, ""],
    [2, 1, 2],
    [3, 1, 2, 3, 4],
    [4, 0],
    [5, 1, 2, 0, b""],
    [6, 1, True, 2, 3, 4],
]
"""Every frame with its required elements only."""


def read(value: Any) -> Frame:
    """Encode a plain value and read it as one frame."""
    body = msgspec.msgpack.encode(value)
    (frame,) = FrameReader().feed(len(body).to_bytes(LENGTH_BYTES, "big") + body)
    return frame


@given(frames)
def test_round_trip(frame: Frame) -> None:
    assert FrameReader().feed(encode_frame(frame)) == [frame]


@pytest.mark.parametrize("value", SMALLEST)
def test_elements_with_defaults_may_be_missing(value: list[Any]) -> None:
    frame = read(value)
    assert msgspec.to_builtins(frame, builtin_types=(bytes,))[: len(value)] == value


@pytest.mark.parametrize("value", SMALLEST)
def test_required_elements_may_not_be_missing(value: list[Any]) -> None:
    for length in range(len(value)):
        with pytest.raises(MalformedFrame):
            read(value[:length])


@given(frames)
def test_elements_of_a_later_version_are_ignored(frame: Frame) -> None:
    """The evolution rule: fields are only ever appended, and an old reader skips them."""
    known = msgspec.to_builtins(frame, builtin_types=(bytes,))
    later = [7, "new", b"new", None, {"a": [1.5, {"b": True}]}, msgspec.msgpack.Ext(5, b"new")]
    assert read([*known, *later]) == frame


def test_tags_are_as_published() -> None:
    assert [msgspec.to_builtins(read(value))[0] for value in SMALLEST] == [1, 2, 3, 4, 5, 6]
    kinds = [Hello, Ping, Pong, Close, Message, Credit]
    assert [type(read(value)) for value in SMALLEST] == kinds


def test_frames_of_before_conversations_are_read() -> None:
    hello, message = read([1, 1, 0, 2, "", b"", b"", "agent"]), read([5, 1, 2, 0, b"", 3, 4])
    assert isinstance(hello, Hello)
    assert hello.window == SHARED_WINDOW_BYTES
    assert isinstance(message, Message)
    assert (message.sequence, message.marks) == (0, 0)


@pytest.mark.parametrize("tag", [0, 7, -1, 2**64 - 1, True, 2.0, "2", None, b"\x02", []])
def test_unknown_tags_are_refused(tag: Any) -> None:
    with pytest.raises(MalformedFrame):
        read([tag, 1, True, 2, 3, 4])


@pytest.mark.parametrize("value", [-1, -(2**63), True, 1.0, "1", b"1", None, [1], {}])
def test_integers_are_unsigned_and_nothing_else(value: Any) -> None:
    with pytest.raises(MalformedFrame):
        read([2, value, 2])
    with pytest.raises(MalformedFrame):
        read([2, 1, value])
    for at in (1, 3, 4, 5):
        credit = [6, 1, True, 2, 3, 4]
        credit[at] = value
        with pytest.raises(MalformedFrame):
            read(credit)
    for at in (10, 11):
        message: list[Any] = [5, 1, 2, 0, b"", 0, 0, 0, "", False, 0, 0]
        message[at] = value
        with pytest.raises(MalformedFrame):
            read(message)
    with pytest.raises(MalformedFrame):
        read([1, 1, 0, 2, "", b"", b"", "", value])


def test_integers_have_64_bits() -> None:
    assert read([2, 2**64 - 1, 0]) == Ping(2**64 - 1, 0)
    assert read([3, 0, 2**63, 2**64 - 1, 0]) == Pong(0, 2**63, 2**64 - 1, 0)
    most = 2**64 - 1
    assert read([6, most, False, most, most, most]) == Credit(most, False, most, most, most)


@pytest.mark.parametrize("value", [len(Purpose), 255, -1, 2**64 - 1, 0.0, False, "STANDING"])
def test_unknown_purposes_are_refused(value: Any) -> None:
    with pytest.raises(MalformedFrame):
        read([1, 1, value, 2, ""])


@pytest.mark.parametrize("value", [len(Channel), 255, -1, 2**64 - 1, 0.0, False, "OVERLAY"])
def test_unknown_channels_are_refused(value: Any) -> None:
    with pytest.raises(MalformedFrame):
        read([5, 1, 2, value, b""])


@pytest.mark.parametrize("value", [len(ContentType), 255, -1, 2**64 - 1, 0.0, False, "JSON"])
def test_unknown_content_types_are_refused(value: Any) -> None:
    with pytest.raises(MalformedFrame):
        read([5, 1, 2, 0, b"", 0, 0, value])


def test_unknown_close_reasons_are_read() -> None:
    assert read([4, 999, "of a later version"]) == Close(999, "of a later version")


@pytest.mark.parametrize(
    ("value", "at", "longest"),
    [
        (["a"], 4, SHORT_TEXT_CHARACTERS_MAX),  # seen_at
        ([b"a"], 5, 4096),  # record
        ([b"a"], 6, 16),  # token
        (["é"], 7, SHORT_TEXT_CHARACTERS_MAX),  # agent: characters are counted, not bytes
    ],
)
def test_bounds_of_hello(value: list[Any], at: int, longest: int) -> None:
    hello: list[Any] = [1, 1, 0, 2, "", b"", b"", ""]
    hello[at] = value[0] * longest
    read(hello)
    hello[at] = value[0] * (longest + 1)
    with pytest.raises(MalformedFrame):
        read(hello)


def test_bounds_of_text_elsewhere() -> None:
    longest, longer = "a" * SHORT_TEXT_CHARACTERS_MAX, "a" * (SHORT_TEXT_CHARACTERS_MAX + 1)
    read([4, 0, longest])
    read([5, 1, 2, 0, b"", 0, 0, 0, longest])
    with pytest.raises(MalformedFrame):
        read([4, 0, longer])
    with pytest.raises(MalformedFrame):
        read([5, 1, 2, 0, b"", 0, 0, 0, longer])


@pytest.mark.parametrize("value", ["text", None, 1, [1], True])
def test_bytes_are_bytes(value: Any) -> None:
    with pytest.raises(MalformedFrame):
        read([5, 1, 2, 0, value])


@pytest.mark.parametrize("value", [0, 1, None, "", b""])
def test_booleans_are_booleans(value: Any) -> None:
    with pytest.raises(MalformedFrame):
        read([5, 1, 2, 0, b"", 0, 0, 0, "", value])
    with pytest.raises(MalformedFrame):
        read([6, 1, value, 2, 3, 4])


def test_numbers_of_the_enums_are_as_published() -> None:
    assert [reason.name for reason in sorted(CloseReason)] == [
        *("DONE", "LEAVING", "DUPLICATE", "SELF", "FULL", "UNINVITED", "VERSION"),
        *("MALFORMED", "PROTOCOL", "IDLE", "SLOW", "SPLIT", "RATE", "TRADED"),
        "DISTRUSTED",
    ]
    assert sorted(CloseReason) == list(range(15))
    assert [purpose.name for purpose in sorted(Purpose)] == [
        *("STANDING", "JOIN_REQUEST", "JOIN_ACCEPT", "JOIN_SPLIT", "PROBE", "CONVERSATION"),
        *("CLOSER", "HEALING", "HANDOVER", "RETURNING"),
    ]
    assert sorted(Purpose) == list(range(10))
    assert {0, 2, 3} == RANDOM_PURPOSES
    assert {0, 2, 3, 6, 7, 8, 9} == STANDING_PURPOSES
    assert {0, 2, 3, 5, 6, 7, 8, 9} == CONVERSING_PURPOSES
    assert [channel.name for channel in sorted(Channel)] == [
        *("APPLICATION", "OVERLAY", "BROADCAST", "REFUSAL")
    ]
    assert [content.name for content in sorted(ContentType)] == [
        *("BYTES", "TEXT", "JSON", "MESSAGEPACK")
    ]
    marks = {name: value for name, value in vars(wire_frames).items() if name.startswith("MARK_")}
    assert marks == {
        "MARK_OPENS": 1,
        "MARK_MORE": 2,
        "MARK_ENDS": 4,
        "MARK_YOURS": 8,
        "MARK_UNRELIABLE": 16,
    }


def test_the_numbers_that_both_ends_count_with_are_as_published() -> None:
    """Two nodes with different ones would each take the other for one that breaks its credit."""
    assert wire_frames.FIRST_WINDOW_BYTES == 262_144
    assert wire_frames.SHARED_WINDOW_BYTES == 16_777_216
    assert wire_frames.FLOOR_BYTES == 2_048
    assert wire_frames.PART_COST_BYTES == 64
