"""Bytes to frames: whole, by the byte, split anywhere, with junk after, and hostile."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshwalk.errors import MalformedFrame, TooBig
from meshwalk.wire.codec import FrameReader, append_frame, encode_frame
from meshwalk.wire.frames import (
    LENGTH_BYTES,
    Channel,
    Close,
    Frame,
    Hello,
    Message,
    Ping,
    Pong,
    Purpose,
)

from .strategies import HOSTILE, NOT_UTF8, any_bytes, frames

SAMPLES: list[Frame] = [
    Hello(1, Purpose.STANDING, 2, "tcp://192.0.2.1:55555", b"record", b"token", "agent"),
    Ping(1, 2),
    Message(3, 4, Channel.APPLICATION, b"body" * 20, type="greeting", wants_reply=True),
    Pong(1, 2, 3, 4),
    Close(0, "done"),
]


def stream_of(frames: list[Frame]) -> bytes:
    return b"".join(encode_frame(frame) for frame in frames)


def framed(body: bytes) -> bytes:
    return len(body).to_bytes(LENGTH_BYTES, "big") + body


# Three feeds, as h11 tests its parsers.


def test_whole() -> None:
    reader = FrameReader()
    assert reader.feed(stream_of(SAMPLES)) == SAMPLES
    assert reader.buffered_bytes == 0


def test_byte_by_byte() -> None:
    reader = FrameReader()
    stream = stream_of(SAMPLES)
    found = [frame for i in range(len(stream)) for frame in reader.feed(stream[i : i + 1])]
    assert found == SAMPLES
    assert reader.buffered_bytes == 0


@pytest.mark.parametrize("sample", SAMPLES)
def test_junk_after_a_frame(sample: Frame) -> None:
    with pytest.raises(MalformedFrame):
        FrameReader().feed(encode_frame(sample) + framed(b"\xc1junk"))


@pytest.mark.parametrize("sample", SAMPLES)
def test_junk_within_the_length_of_a_frame(sample: Frame) -> None:
    body = encode_frame(sample)[LENGTH_BYTES:]
    with pytest.raises(MalformedFrame):
        FrameReader().feed(framed(body + b"\x00"))
    with pytest.raises(MalformedFrame):
        FrameReader().feed(framed(body[:-1]))


def test_split_at_every_offset() -> None:
    stream = stream_of(SAMPLES)
    for at in range(len(stream) + 1):
        reader = FrameReader()
        assert reader.feed(stream[:at]) + reader.feed(stream[at:]) == SAMPLES


@given(st.lists(frames, max_size=6), st.lists(st.integers(0, 3000), max_size=12))
def test_split_anywhere(sent: list[Frame], cuts: list[int]) -> None:
    stream = stream_of(sent)
    ends = [*sorted(cuts), len(stream)]
    reader, found, start = FrameReader(), list[Frame](), 0
    for end in ends:
        found += reader.feed(memoryview(stream)[start:end])
        start = max(start, end)
    assert found == sent


def test_nothing_gives_nothing() -> None:
    reader = FrameReader()
    assert reader.feed(b"") == []
    assert reader.feed(b"\x00\x00") == []
    assert reader.feed(b"") == []
    assert reader.buffered_bytes == 2


# Whatever the bytes.


@given(any_bytes)
def test_any_body_is_a_frame_or_malformed(body: bytes) -> None:
    try:
        (frame,) = FrameReader().feed(framed(body))
    except MalformedFrame:
        return
    # What was read can be said again, and means the same.
    assert FrameReader().feed(encode_frame(frame)) == [frame]


@given(st.binary(max_size=64) | any_bytes)
def test_any_stream_is_frames_or_malformed(stream: bytes) -> None:
    reader = FrameReader(body_bytes_max=512)
    try:
        for i in range(len(stream)):
            reader.feed(stream[i : i + 1])
    except MalformedFrame:
        return
    assert reader.buffered_bytes < 512 + LENGTH_BYTES


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_bodies(body: bytes) -> None:
    with pytest.raises(MalformedFrame) as caught:
        FrameReader().feed(framed(body))
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("text", NOT_UTF8.values(), ids=NOT_UTF8.keys())
def test_text_that_is_not_utf8(text: bytes) -> None:
    with pytest.raises(MalformedFrame):
        FrameReader().feed(framed(b"\x93\x04\x01" + text))


def test_huge_lengths_are_refused_before_the_body_comes() -> None:
    for size in (1001, 2**31, 2**32 - 1):
        reader = FrameReader(body_bytes_max=1000)
        with pytest.raises(MalformedFrame, match="the limit is 1,000"):
            reader.feed(size.to_bytes(LENGTH_BYTES, "big"))


# Bounds.


def test_longest_frame_is_read_and_one_byte_more_is_not() -> None:
    sample = encode_frame(SAMPLES[2])
    size = len(sample) - LENGTH_BYTES
    assert FrameReader(size).feed(sample) == [SAMPLES[2]]
    with pytest.raises(MalformedFrame):
        FrameReader(size - 1).feed(sample)


@given(st.lists(frames, min_size=1, max_size=6), st.integers(1, 400))
def test_reader_holds_less_than_one_frame(sent: list[Frame], step: int) -> None:
    stream = stream_of(sent)
    longest = max(len(encode_frame(frame)) for frame in sent)
    reader = FrameReader(longest - LENGTH_BYTES)
    for start in range(0, len(stream), step):
        reader.feed(stream[start : start + step])
        assert reader.buffered_bytes < longest


# Aliasing: the transport reads every link into the same buffer.


def test_bodies_are_copies_of_the_buffer() -> None:
    stream = stream_of(SAMPLES)
    for cut in (0, 3, 50, len(stream)):
        reader, found, buffer = FrameReader(), list[Frame](), bytearray(len(stream))
        for part in (stream[:cut], stream[cut:]):
            buffer[: len(part)] = part
            found += reader.feed(memoryview(buffer)[: len(part)])
            buffer[:] = b"\xff" * len(buffer)
        assert found == SAMPLES


@pytest.mark.parametrize("damage", [b"", framed(b"\xc1"), framed(b"\x91" * 5000), b"\xff" * 4])
def test_buffer_is_let_go(damage: bytes) -> None:
    """A bytearray that is still viewed cannot be resized: BufferError."""
    buffer = bytearray(stream_of(SAMPLES) + damage + b"\x00")
    if damage:
        with pytest.raises(MalformedFrame) as caught:
            FrameReader().feed(buffer)
        assert caught.tb is not None  # still held
    else:
        FrameReader().feed(buffer)
    buffer.clear()


def test_reader_takes_every_kind_of_buffer() -> None:
    stream = stream_of(SAMPLES)
    for data in (stream, bytearray(stream), memoryview(stream)):
        assert FrameReader().feed(data) == SAMPLES


# Writing.


def test_append_frame_appends() -> None:
    out = bytearray(b"before")
    for sample in SAMPLES:
        append_frame(sample, out)
    assert bytes(out) == b"before" + stream_of(SAMPLES)


def test_too_big_leaves_the_buffer_as_it_was() -> None:
    size = len(encode_frame(SAMPLES[2])) - LENGTH_BYTES
    out = bytearray(b"before")
    with pytest.raises(TooBig) as caught:
        append_frame(SAMPLES[2], out, size - 1)
    assert out == b"before"
    assert (caught.value.size, caught.value.limit) == (size, size - 1)
    append_frame(SAMPLES[2], out, size)
    assert len(out) == len(b"before") + LENGTH_BYTES + size


@pytest.mark.parametrize(
    ("frame", "error"),
    [
        (Message(1, 1, Channel.APPLICATION, b"b", type="\ud800"), UnicodeEncodeError),
        (Ping(2**64, 1), OverflowError),
    ],
)
def test_what_cannot_be_encoded_leaves_the_buffer_as_it_was(
    frame: Frame, error: type[Exception]
) -> None:
    out = bytearray(b"before")
    with pytest.raises(error):
        append_frame(frame, out)
    assert out == b"before"
