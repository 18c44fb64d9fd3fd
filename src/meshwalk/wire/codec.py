"""Frames to bytes and bytes to frames: length prefix, limits, one decode. No state but the bytes.

Whatever the bytes, `FrameReader.feed` gives frames or raises `MalformedFrame`, nothing else.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

import msgspec

from meshwalk.errors import MalformedFrame, TooBig
from meshwalk.wire.frames import FRAME_BYTES_MAX, LENGTH_BYTES, Frame

_encoder: Final = msgspec.msgpack.Encoder()
_decode_frame: Final[Callable[[bytes | memoryview | bytearray], Frame]] = msgspec.msgpack.Decoder(
    Frame
).decode
_length: Final = struct.Struct(">I").unpack_from
_write_length: Final = struct.Struct(">I").pack_into
_NO_LENGTH: Final = bytes(LENGTH_BYTES)


def append_frame(frame: Frame, out: bytearray, body_bytes_max: int = FRAME_BYTES_MAX) -> None:
    """Append a frame with its length prefix to `out`.

    Raises `TooBig` when the body exceeds `body_bytes_max` bytes. Whatever it raises, `out` is as
    it was before.
    """
    start = len(out)
    out += _NO_LENGTH
    try:
        _encoder.encode_into(frame, out, start + LENGTH_BYTES)
    except (OverflowError, TypeError, ValueError):
        # An integer above 64 bits, or text that UTF-8 cannot write: our own mistake, but half a
        # frame left in a write buffer would end the link as well.
        del out[start:]
        raise
    size = len(out) - start - LENGTH_BYTES
    if size > body_bytes_max:
        del out[start:]
        raise TooBig(size, body_bytes_max)
    _write_length(out, start, size)


def encode_frame(frame: Frame, body_bytes_max: int = FRAME_BYTES_MAX) -> bytes:
    """One frame with its length prefix. Raises `TooBig`."""
    out = bytearray()
    append_frame(frame, out, body_bytes_max)
    return bytes(out)


class FrameReader:
    """Splits one link's byte stream into frames.

    Keeps at most one unfinished frame, so at most `body_bytes_max` + 4 bytes and one read.
    After `MalformedFrame` the stream is out of step: close the link and drop the reader.
    """

    def __init__(self, body_bytes_max: int = FRAME_BYTES_MAX) -> None:
        self.body_bytes_max = body_bytes_max
        self._unfinished = bytearray()

    @property
    def buffered_bytes(self) -> int:
        """Bytes of an unfinished frame that are being held."""
        return len(self._unfinished)

    def feed(self, data: bytes | bytearray | memoryview) -> list[Frame]:
        """The frames that `data` completes, in order. `data` may be reused after the call.

        Raises `MalformedFrame`; frames that were complete before the bad one are lost with it,
        since a peer that sends one bad frame is not to be believed.
        """
        if self._unfinished:
            self._unfinished += data
            with memoryview(self._unfinished) as view:
                frames, used = self._split(view)
            del self._unfinished[:used]
            return frames
        # Released even when it raises: a traceback that kept it would pin the caller's buffer.
        with memoryview(data) as view:
            frames, used = self._split(view)
            if used < len(view):
                self._unfinished += view[used:]
        return frames

    def _split(self, view: memoryview) -> tuple[list[Frame], int]:
        frames: list[Frame] = []
        start, end = 0, len(view)
        while end - start >= LENGTH_BYTES:
            (size,) = _length(view, start)
            # Checked before the body arrives: a stranger must not make us wait for 4 GiB.
            if size > self.body_bytes_max:
                raise MalformedFrame(
                    f"frame of {size:,} bytes; the limit is {self.body_bytes_max:,}"
                )
            body = start + LENGTH_BYTES
            if end - body < size:
                break
            start = body + size
            try:
                frames.append(_decode_frame(view[body:start]))
            except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
                # Deeply nested input makes msgspec raise RecursionError rather than DecodeError.
                raise MalformedFrame(f"unreadable frame: {error}") from None
        return frames, start
