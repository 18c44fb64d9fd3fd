"""How many members a fragment has: the k smallest hashes of their names tell. Arithmetic only.

Bar-Yossef et al., "Counting distinct elements in a data stream" (RANDOM 2002): of n hashes spread
evenly over [0, 1), the k-th smallest lies near k / n. Two sketches are merged by keeping the k
smallest of both, whatever they have in common, so it does not matter how often a member is counted.
Fewer than k hashes are the exact number.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

HASH_BYTES = 8  # so that two of a million members share one with a chance of 1 in 40 million
MEMBERS_MAX = 1_000_000  # guess: a hundred times what the overlay is made for; more is a lie
_RANGE = 1 << (8 * HASH_BYTES)  # hashes are below it


def member_hash(peer: bytes, salt: bytes) -> int:
    """The hash of one member; by a new `salt` nobody can choose a name that is always small."""
    return int.from_bytes(hashlib.blake2b(peer, digest_size=HASH_BYTES, key=salt).digest(), "big")


def merged(one: list[int], other: Iterable[int], size: int) -> list[int]:
    """The `size` smallest hashes of both, ascending."""
    return sorted({*one, *other})[:size]


def estimate(sketch: list[int], size: int) -> int:
    """How many members a sketch of `size` hashes stands for."""
    if len(sketch) < size:
        return len(sketch)
    # Made-up hashes can stand for more members than there could ever be.
    return min(MEMBERS_MAX, max(size, round((size - 1) * _RANGE / max(1, sketch[-1]))))
