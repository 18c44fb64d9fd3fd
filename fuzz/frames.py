"""Any stream, however it is cut, gives the same frames or MalformedFrame, and nothing else.

Run: python fuzz/frames.py --seconds 10 --seed 1
"""

from __future__ import annotations

from itertools import pairwise

import mutate

from meshwalk.errors import MalformedFrame
from meshwalk.wire.codec import FrameReader, encode_frame
from meshwalk.wire.frames import LENGTH_BYTES, Frame

FRAME_BYTES = 4096  # small, so that the bound is met; the samples fit

SAMPLES = mutate.inputs("frames.json")
SAMPLES += [a + b for a, b in pairwise(SAMPLES)]
SAMPLES += mutate.inputs("malformed.json", "frames")


def check(data: bytes) -> None:
    """The invariant."""
    whole = read(data, len(data))
    assert read(data, 7) == whole
    assert read(data, 61) == whole
    # The same body under a length that is right reaches the decoder whatever was damaged.
    body = data[LENGTH_BYTES : LENGTH_BYTES + FRAME_BYTES]
    found = read(len(body).to_bytes(LENGTH_BYTES, "big") + body, FRAME_BYTES)
    for frame in (whole or []) + (found or []):
        again = encode_frame(frame)
        assert FrameReader().feed(again) == [frame]


def read(data: bytes, step: int) -> list[Frame] | None:
    """The frames of a stream that comes in steps; None when it is malformed."""
    reader, frames = FrameReader(FRAME_BYTES), list[Frame]()
    buffer = bytearray(step)
    try:
        for start in range(0, len(data), max(step, 1)):
            part = data[start : start + step]
            buffer[: len(part)] = part
            frames += reader.feed(memoryview(buffer)[: len(part)])
            buffer[:] = b"\xff" * len(buffer)
            assert reader.buffered_bytes < FRAME_BYTES + LENGTH_BYTES
    except MalformedFrame:
        return None
    return frames


if __name__ == "__main__":
    mutate.main(check, SAMPLES)
