"""Proof of work: what it costs, and that only what was worked passes."""

from __future__ import annotations

from hashlib import blake2b

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshwalk.proto.broadcast.work import first_number, is_worked, trials


def test_the_price_grows_with_size_and_difficulty() -> None:
    assert trials(0, 1) == 1024
    assert trials(976, 3) == 6000
    assert trials(10**6, 0) == 0


def test_the_formula_is_the_documented_one() -> None:
    payload, number = b"news", 0
    digest = blake2b(payload, digest_size=32).digest()
    while True:
        hashed = blake2b(number.to_bytes(8, "big") + digest, digest_size=8).digest()
        if int.from_bytes(hashed, "big") <= (2**64 - 1) // trials(len(payload), 1):
            break
        number += 1
    assert first_number(payload, 1, 0, number + 1) == number
    assert first_number(payload, 1, 0, number) is None


@given(st.binary(max_size=64))
def test_what_is_found_is_worked_and_nothing_before_it_is(payload: bytes) -> None:
    found, start = None, 0
    while found is None:  # stretch by stretch, as a process does that may be stopped
        found = first_number(payload, 1, start, 500)
        start += 500
    assert is_worked(payload, found, 1)
    assert not any(is_worked(payload, number, 1) for number in range(found))


def test_a_number_proves_the_work_for_its_payload_only() -> None:
    found = first_number(b"one", 2, 0, 100_000)
    assert found is not None
    others = (b"other %d" % index for index in range(50))
    # Each passes by chance once in 2,000.
    assert not any(is_worked(other, found, 2) for other in others)


def test_as_many_are_tried_as_is_said() -> None:
    tried = 0
    for index in range(100):
        found = first_number(index.to_bytes(2, "big"), 1, 0, 100_000)
        assert found is not None
        tried += found + 1
    # The mean of 100 such draws errs by a tenth of itself.
    assert 0.7 < tried / 100 / trials(2, 1) < 1.4


@pytest.mark.parametrize("difficulty", [0, -1])
def test_where_none_is_demanded_any_number_does(difficulty: int) -> None:
    assert is_worked(b"x", 0, difficulty)
    assert is_worked(b"x", 2**70, difficulty)
    assert first_number(b"x", difficulty, 5, 1) == 5
    assert first_number(b"x", difficulty, 5, 0) is None


@pytest.mark.parametrize("work", [-1, 2**64, 2**80])
def test_numbers_that_do_not_fit_are_no_proof(work: int) -> None:
    assert not is_worked(b"x", work, 1)


def test_a_search_ends_with_the_last_number() -> None:
    assert first_number(b"x", 1000, 2**64 - 3, 10) is None
    assert first_number(b"x", 1000, 2**64, 10) is None


def test_more_than_anybody_can_work_is_no_error() -> None:
    assert not is_worked(b"x", 1, 2**63)
