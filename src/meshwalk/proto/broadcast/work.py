"""Proof of work: a network may demand it of each broadcast, so that many of them cost something.

    hash = blake2b-64(number as 8 bytes, big-endian, + blake2b-256(payload))
    worked when the hash, as a big-endian number, is at most (2**64 - 1) // trials

so that a number is found after `trials` hashes on the average, and checked with two. Back,
"Hashcash: A Denial of Service Counter-Measure" (2002). The price grows with the size of what
everybody has to carry, as in Bitmessage; a fixed part stands for what each costs beside its bytes.

The payload names its origin, its sequence and its time. So no number does for two broadcasts, and
nobody can work further ahead than the time in which a broadcast is not stale; within that, work can
be gathered and spent in one burst. It slows down those who have few machines, and nobody else.

All is arithmetic, and one call of `first_number` is one stretch: who has an event loop to keep
searches elsewhere, stretch by stretch, and may stop between two.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

OVERHEAD_BYTES: Final = 1024  # guess: what a broadcast costs each node beside the bytes of it
HASH_BYTES: Final = 8  # as a work number; 2**64 trials are more than anybody has
DIGEST_BYTES: Final = 32  # RFC 7693: blake2b-256, no two payloads with one digest
_NUMBERS: Final = 1 << (8 * HASH_BYTES)  # so many numbers and hashes there are


def trials(size: int, difficulty: int) -> int:
    """How many numbers have to be tried, on the average, for a payload of so many bytes."""
    return difficulty * (size + OVERHEAD_BYTES)


def is_worked(payload: bytes, work: int, difficulty: int) -> bool:
    """Whether the number proves the work for this payload. Any does when none is demanded."""
    if difficulty <= 0:
        return True
    if not 0 <= work < _NUMBERS:
        return False
    seed = work.to_bytes(HASH_BYTES, "big") + blake2b(payload, digest_size=DIGEST_BYTES).digest()
    return blake2b(seed, digest_size=HASH_BYTES).digest() <= _highest(len(payload), difficulty)


def first_number(payload: bytes, difficulty: int, start: int, count: int) -> int | None:
    """The first of the numbers from `start` on, `count` of them, that proves the work."""
    end = min(start + count, _NUMBERS)
    if difficulty <= 0:
        return start if start < end else None
    highest = _highest(len(payload), difficulty)
    digest = blake2b(payload, digest_size=DIGEST_BYTES).digest()
    for number in range(start, end):
        seed = number.to_bytes(HASH_BYTES, "big") + digest
        if blake2b(seed, digest_size=HASH_BYTES).digest() <= highest:
            return number
    return None


def _highest(size: int, difficulty: int) -> bytes:
    """The highest hash that will do, big-endian: bytes of one length compare as their numbers."""
    return ((_NUMBERS - 1) // trials(size, difficulty)).to_bytes(HASH_BYTES, "big")
