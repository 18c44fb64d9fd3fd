"""Peers in buckets."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from meshwalk.proto.overlay.buckets import KEY_BYTES, Buckets
from meshwalk.wire.peerid import PeerId

KEY = bytes(range(KEY_BYTES))


def buckets(
    name: bytes = b"heard", key: bytes = KEY, count: int = 64, bucket_max: int = 16, reach: int = 8
) -> Buckets:
    return Buckets(name, key, count, bucket_max, reach)


def peer_of(number: int) -> PeerId:
    return PeerId(number.to_bytes(32, "big"))


def reached(table: Buckets, owner: str) -> set[int]:
    return {table.bucket_of(owner, b"%d" % number) for number in range(1000)}


def test_an_owner_reaches_few_buckets_and_all_owners_all() -> None:
    table = buckets()
    shares = [reached(table, f"owner {number}") for number in range(60)]
    assert {len(share) for share in shares} <= set(range(4, 9))
    assert max(map(len, shares)) == 8
    assert set().union(*shares) == set(range(64))


def test_nobody_without_the_key_can_tell_where() -> None:
    places = {
        tuple(table.bucket_of("owner", b"%d" % number) for number in range(20))
        for table in (buckets(), buckets(key=bytes(KEY_BYTES)), buckets(name=b"verified"))
    }
    assert len(places) == 3


def test_the_place_is_the_same_in_every_process() -> None:
    places = [buckets().bucket_of("10.0.0.1", b"%d" % number) for number in range(4)]
    assert places == [53, 16, 62, 60], "whatever they are, they depend on nothing but the key"


def test_a_bucket_is_bounded_and_empties() -> None:
    table = buckets(bucket_max=2)
    table.add(peer_of(1), 5)
    assert not table.is_full(5)
    table.add(peer_of(2), 5)
    assert table.is_full(5)
    assert not table.is_full(6)
    with pytest.raises(AssertionError):
        table.add(peer_of(3), 5)
    assert list(table.members(5)) == [peer_of(1), peer_of(2)]
    assert len(table) == 2
    table.remove(peer_of(1), 5)
    table.remove(peer_of(2), 5)
    assert len(table) == 0
    assert list(table.members(5)) == []
    assert list(table.shuffled(Random(0))) == []


def test_a_full_bucket_is_met_no_more_often_than_one_with_one_peer() -> None:
    table = buckets(bucket_max=50)
    for number in range(50):
        table.add(peer_of(number), 1)
    table.add(peer_of(99), 2)
    rng = Random(1)
    firsts = Counter(next(table.shuffled(rng)) for _ in range(2000))
    assert 900 < firsts[peer_of(99)] < 1100
    assert len(firsts) == 51
    everybody = list(table.shuffled(rng))
    assert len(everybody) == len(set(everybody)) == 51
