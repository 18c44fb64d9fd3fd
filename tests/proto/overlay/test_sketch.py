"""The estimate of how many members there are: an algebra of sets, and an error within bounds."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshwalk.proto.overlay.sketch import HASH_BYTES, MEMBERS_MAX, estimate, member_hash, merged

SIZE = 32
HASHES = st.lists(st.integers(0, 2 ** (8 * HASH_BYTES) - 1), max_size=3 * SIZE)


def sketch_of(members: range, salt: bytes = b"salt", size: int = SIZE) -> list[int]:
    return merged([], [member_hash(n.to_bytes(32, "big"), salt) for n in members], size)


@given(HASHES, HASHES, HASHES)
def test_merging_is_a_union(one: list[int], two: list[int], three: list[int]) -> None:
    a, b, c = (merged([], hashes, SIZE) for hashes in (one, two, three))
    assert merged(a, b, SIZE) == merged(b, a, SIZE)
    assert merged(merged(a, b, SIZE), c, SIZE) == merged(a, merged(b, c, SIZE), SIZE)
    assert merged(a, a, SIZE) == a
    assert merged(merged(a, b, SIZE), b, SIZE) == merged(a, b, SIZE)
    assert merged(a, b, SIZE) == sorted({*one, *two})[:SIZE]


@given(HASHES)
def test_a_strangers_sketch_comes_out_sorted_and_bounded(hashes: list[int]) -> None:
    found = merged([], hashes, SIZE)
    assert found == sorted(set(found))
    assert len(found) <= SIZE
    assert estimate(found, SIZE) >= len(found)


@pytest.mark.parametrize("members", [0, 1, 2, 31])
def test_fewer_than_its_places_are_counted_exactly(members: int) -> None:
    assert estimate(sketch_of(range(members)), SIZE) == members


def test_the_error_is_as_the_theory_says() -> None:
    """Bar-Yossef et al.: a relative standard error of 1/sqrt(k - 2), and no bias, over 100 sets."""
    for members in (40, 300, 2000):
        errors = [
            estimate(sketch_of(range(members), salt.to_bytes(2, "big")), SIZE) / members - 1
            for salt in range(100)
        ]
        mean = sum(errors) / len(errors)
        deviation = math.sqrt(sum(e * e for e in errors) / len(errors))
        bound = 1 / math.sqrt(SIZE - 2)
        assert abs(mean) < 3 * bound / math.sqrt(len(errors))
        assert deviation < 1.3 * bound
        assert max(errors) < 1  # never twice as many as there are
        assert min(errors) > -0.5


def test_the_same_member_counts_once_however_it_comes() -> None:
    halves = merged(sketch_of(range(600)), sketch_of(range(400, 1000)), SIZE)
    assert halves == sketch_of(range(1000))


def test_another_salt_orders_the_members_anew() -> None:
    """Nobody can choose a name that always counts as many."""
    smallest = sketch_of(range(1000))[:4]
    members = [n for n in range(1000) if member_hash(n.to_bytes(32, "big"), b"salt") in smallest]
    again = [member_hash(n.to_bytes(32, "big"), b"other") for n in members]
    assert not set(again) & set(sketch_of(range(1000), b"other")[:4])


@pytest.mark.parametrize("hashes", [[0] * SIZE, [0], [2**64 - 1] * SIZE, list(range(SIZE))])
def test_no_sketch_makes_it_fail(hashes: list[int]) -> None:
    assert estimate(hashes, SIZE) >= 1
    assert estimate(merged([], hashes, SIZE), SIZE) >= 1


def test_made_up_hashes_stand_for_a_bounded_number() -> None:
    assert estimate(list(range(SIZE)), SIZE) == MEMBERS_MAX
