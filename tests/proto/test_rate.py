"""The token bucket never gives more than its burst and its rate."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from meshwalk.proto.rate import BucketPerLink, ByteBucket, TokenBucket


@given(
    st.floats(0.1, 100),
    st.integers(1, 50),
    st.lists(st.floats(0, 2), min_size=1, max_size=200),
)
def test_bounded_in_every_stretch(per_s: float, burst: int, gaps: list[float]) -> None:
    bucket, now, taken = TokenBucket(per_s, burst), 0.0, 0
    for gap in gaps:
        now += gap
        taken += bucket.take(now)
        assert taken <= burst + now * per_s + 1e-6


def test_burst_then_rate() -> None:
    bucket = TokenBucket(2.0, 3)
    assert [bucket.take(0.0) for _ in range(4)] == [True, True, True, False]
    assert [bucket.take(0.5), bucket.take(0.5)] == [True, False]
    assert [bucket.take(100.0) for _ in range(4)] == [True, True, True, False]


@given(
    st.floats(10, 1e6),
    st.integers(1, 10_000),
    st.lists(st.tuples(st.floats(0, 2), st.integers(0, 5_000)), min_size=1, max_size=200),
)
def test_bytes_are_bounded_in_every_stretch_but_for_one_message(
    per_s: float, burst: int, messages: list[tuple[float, int]]
) -> None:
    bucket, now, sent, largest = ByteBucket(per_s, burst), 0.0, 0, 0
    for gap, size in messages:
        now += gap
        if bucket.ready_at(now) <= now:
            bucket.spend(size)
            sent += size
            largest = max(largest, size)
        assert sent <= burst + now * per_s + largest + 1e-3


def test_who_is_told_when_may_send_then() -> None:
    bucket = ByteBucket(100.0, 50)
    assert bucket.ready_at(0.0) == 0.0
    bucket.spend(250)
    at = bucket.ready_at(0.0)
    assert at == 2.0
    assert bucket.ready_at(at - 0.1) > at - 0.1
    assert bucket.ready_at(at + 1e-9) == at + 1e-9


def test_what_others_send_takes_half_of_the_rate_at_the_most() -> None:
    bucket, now, spent = ByteBucket(100.0, 50), 0.0, 0
    while now < 100.0:
        bucket.charge(1000)
        if bucket.ready_at(now) <= now:
            bucket.spend(10)
            spent += 10
        now += 0.05
    assert 4900 <= spent <= 5200


def test_who_waits_for_what_others_have_sent_as_well_is_told_when() -> None:
    bucket = ByteBucket(100.0, 50)
    bucket.ready_at(0.0)
    bucket.spend(150)
    bucket.charge(30)
    at = bucket.ready_at(0.0)
    assert at == 1.3
    assert bucket.ready_at(at + 1e-9) == at + 1e-9


def test_who_borrows_waits_for_a_second_at_the_most() -> None:
    bucket = ByteBucket(100.0, 50)
    bucket.borrow(80)
    assert bucket.ready_at(0.0) == 0.3
    for _ in range(10):
        bucket.borrow(1000)
    assert bucket.ready_at(0.0) == 1.0


def test_each_link_has_a_bucket_until_it_ends() -> None:
    rates = BucketPerLink(1.0, 2)
    assert [rates.take(7, 0.0) for _ in range(3)] == [True, True, False]
    assert rates.take(8, 0.0)
    assert set(rates) == {7, 8}
    rates.forget(7)
    rates.forget(9)
    assert set(rates) == {8}
    assert rates.take(7, 0.0)
    rates.clear()
    assert not rates
