"""A table of peers in buckets, so that nobody can fill it: the placing and the choosing.

Heilman et al., "Eclipse Attacks on Bitcoin's Peer-to-Peer Network" (USENIX Security 2015), and
Bitcoin Core's address manager that came of it: who owns a share of the table, such as one group of
addresses, reaches only a few of its buckets. Which ones, a keyed hash says, so that nobody outside
can tell whom it would push out. Knows peers and texts, and nothing of what they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import blake2b
from random import Random

from meshwalk.wire.peerid import PeerId

KEY_BYTES = 16  # 128 bits: nobody finds it by trying
DIGEST_BYTES = 8  # far more than buckets, so that none is favoured


class Buckets:
    """At most `count` buckets of at most `bucket_max` peers each; one owner reaches `reach`.

    Takes memory for the buckets in use only. It does not know where a peer is: the caller does.
    """

    __slots__ = ("_bucket_max", "_count", "_key", "_members", "_name", "_reach")

    def __init__(self, name: bytes, key: bytes, count: int, bucket_max: int, reach: int) -> None:
        self._name = name
        """At most 16 bytes; another table with the same key places otherwise."""
        self._key = key
        self._count = count
        self._bucket_max = bucket_max
        self._reach = reach
        self._members: dict[int, list[PeerId]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._members.values()))

    def bucket_of(self, owner: str, spread: bytes) -> int:
        """The bucket for something of `owner`: one of `reach`, chosen by `spread`."""
        owned = owner.encode()
        which = self._hash(spread) % self._reach
        # The number comes first and has a fixed length, so no two pairs make the same text.
        return self._hash(which.to_bytes(DIGEST_BYTES, "big") + owned) % self._count

    def members(self, bucket: int) -> Sequence[PeerId]:
        """The peers in a bucket, those that came first before the others."""
        return self._members.get(bucket, ())

    def is_full(self, bucket: int) -> bool:
        """Whether somebody has to go before somebody can come."""
        return len(self.members(bucket)) >= self._bucket_max

    def add(self, peer: PeerId, bucket: int) -> None:
        """Put a peer into a bucket that has room."""
        members = self._members.setdefault(bucket, [])
        assert len(members) < self._bucket_max
        members.append(peer)

    def remove(self, peer: PeerId, bucket: int) -> None:
        """Take a peer out of the bucket that it is in."""
        members = self._members[bucket]
        members.remove(peer)
        if not members:
            del self._members[bucket]

    def shuffled(self, rng: Random) -> Iterator[PeerId]:
        """All peers: a bucket at random, its peers at random, then the next bucket.

        So whoever has most of the peers is still met only as often as it has buckets.
        """
        buckets = list(self._members.values())
        rng.shuffle(buckets)
        for members in buckets:
            yield from rng.sample(members, len(members))

    def _hash(self, data: bytes) -> int:
        digest = blake2b(data, digest_size=DIGEST_BYTES, key=self._key, person=self._name)
        return int.from_bytes(digest.digest(), "big")
