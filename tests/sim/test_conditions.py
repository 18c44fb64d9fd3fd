"""Conditions between hosts: each has its effect and only that, and healing ends them all."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshwalk.errors import InvalidArgument
from meshwalk.sim.conditions import Conditions, DialOutcome, address_group, dial_retry_at
from meshwalk.sim.latency import Constant, Uniform

HOSTS = ["10.0.0.1", "10.0.0.2", "10.1.0.1", "10.1.0.2", "10.2.0.1"]
A, B, C, D, E = HOSTS
DELAY_S = 0.01

Change = Callable[[Conditions], object]

hosts = st.sampled_from(HOSTS)
scopes = st.tuples(st.none() | hosts, st.none() | hosts)
shares = st.floats(0, 1)
changes: st.SearchStrategy[Change] = st.one_of(
    st.builds(lambda s, x: lambda c: c.set_loss(x, *s), scopes, shares),
    st.builds(lambda s, x: lambda c: c.set_delay(x, *s), scopes, st.floats(0, 5)),
    st.builds(lambda x: lambda c: c.set_jitter(x), shares),
    st.builds(lambda x: lambda c: c.set_dial_loss(x), shares),
    st.builds(lambda h, x: lambda c: c.limit_bandwidth(x, h), hosts, st.floats(1, 1e6)),
    st.builds(lambda s: lambda c: c.clog(*s), scopes),
    st.builds(lambda s: lambda c: c.unclog(*s), scopes),
    st.builds(lambda h: lambda c: c.clog_host(h), hosts),
    st.builds(lambda h: lambda c: c.unclog_host(h), hosts),
    st.builds(lambda g: lambda c: c.partition(g), st.lists(hosts)),
    st.just(lambda c: c.partition_halves(HOSTS)),
    st.just(lambda c: c.partition_address_groups()),
    st.just(lambda c: c.rejoin()),
    st.just(lambda c: setattr(c, "latency", Constant(1.0))),
)


def constant(seed: int = 1) -> Conditions:
    return Conditions(Constant(DELAY_S), Random(seed))


def arrival_s(
    conditions: Conditions, now: float, from_host: str, to_host: str, size: int
) -> float | None:
    """When a frame arrives; None when never."""
    return conditions.frame_outcome(now, from_host, to_host, size).arrives_at


def crossings(conditions: Conditions) -> set[tuple[str, str]]:
    return {(a, b) for a, b in permutations(HOSTS, 2) if conditions.can_cross(a, b)}


EVERYTHING = set(permutations(HOSTS, 2))


def test_untouched_is_the_latency_alone() -> None:
    model, rng = Uniform(0.005, 0.05), Random(3)
    conditions = Conditions(model, Random(3))
    assert conditions.is_plain
    assert not conditions.blocks_anything
    for now in range(100):
        assert arrival_s(conditions, now, A, B, 10**9) == now + model.delay_s(A, B, rng)
    outcome = conditions.dial_outcome(5.0, A, B)
    assert outcome == DialOutcome(arrives_at=5.0 + model.delay_s(A, B, rng))
    assert crossings(conditions) == EVERYTHING


@given(st.lists(changes, max_size=12), st.integers(0, 2**32))
def test_healing_ends_everything(made: list[Change], seed: int) -> None:
    rng = Random(seed)
    conditions = Conditions(Uniform(0.005, 0.05), rng)
    for change in made:
        change(conditions)
        for a, b in permutations(HOSTS, 2):
            arrival_s(conditions, 0.0, a, b, 1000)
    conditions.heal()
    fresh = Conditions(Uniform(0.005, 0.05), Random())
    fresh._rng.setstate(rng.getstate())
    for a, b in permutations(HOSTS, 2):
        assert arrival_s(conditions, 1.0, a, b, 1000) == arrival_s(fresh, 1.0, a, b, 1000)
        assert conditions.dial_outcome(1.0, a, b) == fresh.dial_outcome(1.0, a, b)
    assert crossings(conditions) == EVERYTHING
    assert conditions.is_plain
    assert not conditions.blocks_anything


@given(st.lists(changes, max_size=8), st.integers(0, 2**32), st.integers(0, 10**6))
def test_nothing_is_faster_than_the_latency(made: list[Change], seed: int, size: int) -> None:
    conditions = constant(seed)
    for change in made:
        change(conditions)
    for a, b in permutations(HOSTS, 2):
        frame = conditions.frame_outcome(7.0, a, b, size)
        assert (frame.arrives_at is None) != (frame.given_up_at is None)
        if frame.arrives_at is not None:
            assert frame.arrives_at >= 7.0 + DELAY_S
        if frame.given_up_at is not None:
            assert frame.given_up_at >= 7.0 + 63 * (2 * DELAY_S + 0.2) - 1e-9
        assert conditions.can_cross(a, a)
        assert conditions.blocks_anything or conditions.can_cross(a, b)
        outcome = conditions.dial_outcome(7.0, a, b)
        if outcome.arrives_at is not None:
            assert outcome.arrives_at >= 7.0 + DELAY_S
            assert conditions.can_cross(a, b)
            assert conditions.can_cross(b, a)
        else:
            assert outcome.try_again_at == 8.0


# Delay and loss.


def test_delays_of_scopes_add_up_in_one_direction() -> None:
    conditions = constant()
    conditions.set_delay(1.0, A, B)
    conditions.set_delay(2.0, A)
    conditions.set_delay(4.0, None, B)
    conditions.set_delay(8.0)
    extra_s = {
        pair: round((arrival_s(conditions, 0.0, *pair, 1) or 0.0) - DELAY_S, 9)
        for pair in [(A, B), (A, C), (C, B), (C, D), (B, A)]
    }
    assert extra_s == {(A, B): 15.0, (A, C): 10.0, (C, B): 12.0, (C, D): 8.0, (B, A): 8.0}
    assert conditions.delay_s(A, B) == pytest.approx(15.0 + DELAY_S)
    for scope in ((A, B), (A, None), (None, B), (None, None)):
        conditions.set_delay(0.0, *scope)
    assert conditions.is_plain


def test_jitter_is_drawn_for_each_frame() -> None:
    conditions = constant()
    conditions.set_jitter(0.5)
    delays = [arrival_s(conditions, 0.0, A, B, 1) or 0.0 for _ in range(500)]
    assert DELAY_S <= min(delays) < DELAY_S + 0.01
    assert DELAY_S + 0.49 < max(delays) <= DELAY_S + 0.5


def test_lost_frames_come_after_doubling_timeouts() -> None:
    conditions = constant()
    conditions.set_loss(0.5, A, B)
    arrivals = [arrival_s(conditions, 0.0, A, B, 1) for _ in range(20_000)]
    # A round trip of 20 ms and 200 ms, doubled: 0.22 s, 0.66 s, 1.54 s, 3.3 s, 6.82 s.
    expected = [0.01 + 0.22 * (2**losses - 1) for losses in range(6)]
    found = sorted({round(at, 9) for at in arrivals if at is not None})
    assert found == pytest.approx(expected)
    assert arrivals.count(None) / 20_000 == pytest.approx(0.5**6, rel=0.15)
    first = sum(at == DELAY_S for at in arrivals)
    assert first / 20_000 == pytest.approx(0.5, rel=0.05)
    assert arrival_s(conditions, 0.0, B, A, 1) == DELAY_S  # the other direction loses nothing


def test_a_frame_is_given_up_after_six_timeouts_only() -> None:
    """A defect: it was given up in the moment in which it was sent first."""
    conditions = constant()
    conditions.set_loss(1.0)
    outcome = conditions.frame_outcome(3.0, A, B, 1)
    # 0.22 s, doubled five times; the last one passes as well before nothing more is tried.
    assert outcome.arrives_at is None
    assert outcome.given_up_at == pytest.approx(3.0 + 0.22 * (2**6 - 1))
    conditions.limit_bandwidth(100.0)
    outcome = conditions.frame_outcome(3.0, A, B, 500)
    assert outcome.given_up_at == pytest.approx(8.0 + 0.22 * (2**6 - 1)), "sent 5 s later"


def test_losses_of_scopes_are_independent() -> None:
    conditions = constant()
    conditions.set_loss(0.5, A)
    conditions.set_loss(0.5, None, B)
    late = sum(arrival_s(conditions, 0.0, A, B, 1) != DELAY_S for _ in range(20_000))
    assert late / 20_000 == pytest.approx(0.75, rel=0.02)
    conditions.set_loss(1.0)
    assert arrival_s(conditions, 0.0, C, D, 1) is None


def test_a_dial_is_tried_at_0_1_3_and_7_seconds() -> None:
    conditions = constant()
    conditions.set_dial_loss(1.0)
    now, times = 20.0, [20.0]
    for tries in (1, 2, 3):
        outcome = conditions.dial_outcome(now, A, B, tries)
        assert outcome.arrives_at is None
        assert outcome.try_again_at is not None
        now = outcome.try_again_at
        times.append(now)
    assert times == [20.0, 21.0, 23.0, 27.0]
    assert conditions.dial_outcome(now, A, B, 4) == DialOutcome()
    assert [dial_retry_at(20.0, tries) for tries in (1, 2, 3, 4)] == [21.0, 22.0, 24.0, None]
    conditions.set_dial_loss(0.0)
    assert conditions.dial_outcome(now, A, B, 4) == DialOutcome(arrives_at=now + DELAY_S)
    conditions.clog(B, A)  # the answer cannot come back
    assert conditions.dial_outcome(0.0, A, B) == DialOutcome(try_again_at=1.0)


def test_either_direction_loses_a_dial() -> None:
    conditions = constant()
    conditions.set_loss(0.5, A, B)
    conditions.set_loss(0.5, B, A)
    conditions.set_dial_loss(0.2)
    lost = sum(conditions.dial_outcome(0.0, A, B).arrives_at is None for _ in range(10_000))
    assert lost / 10_000 == pytest.approx(1 - 0.5 * 0.5 * 0.8, rel=0.03)
    conditions.set_loss(0.0, B, A)
    conditions.set_loss(0.0, A, B)
    lost = sum(conditions.dial_outcome(0.0, A, B).arrives_at is None for _ in range(10_000))
    assert lost / 10_000 == pytest.approx(0.2, rel=0.1)


def test_another_latency_holds_until_healed() -> None:
    conditions = constant()
    conditions.latency = slow = Constant(2.0)
    assert conditions.latency is slow
    assert arrival_s(conditions, 0.0, A, B, 1) == 2.0
    conditions.heal()
    assert arrival_s(conditions, 0.0, A, B, 1) == DELAY_S


# Bandwidth.


@given(
    st.floats(10, 1e6),
    st.lists(st.tuples(st.floats(0, 2), hosts, st.integers(0, 10_000)), min_size=1, max_size=40),
)
def test_an_uplink_is_a_queue(rate: float, frames: list[tuple[float, str, int]]) -> None:
    """Frames leave in order, never faster than the rate, and an idle uplink does not wait."""
    conditions = constant()
    conditions.limit_bandwidth(rate, A)
    now = free_at = 0.0
    for gap, to_host, size in frames:
        now += gap
        free_at = max(now, free_at) + size / rate
        assert arrival_s(conditions, now, A, to_host, size) == pytest.approx(free_at + DELAY_S)
        assert arrival_s(conditions, now, B, to_host, size) == now + DELAY_S


def test_limits_of_hosts_and_paths() -> None:
    conditions = constant()
    conditions.limit_bandwidth(100.0)
    conditions.limit_bandwidth(1000.0, A)
    conditions.limit_bandwidth(10.0, A, B)
    assert arrival_s(conditions, 0.0, C, D, 100) == pytest.approx(1.0 + DELAY_S)
    assert arrival_s(conditions, 0.0, D, C, 100) == pytest.approx(1.0 + DELAY_S)  # its own uplink
    assert arrival_s(conditions, 0.0, C, A, 100) == pytest.approx(2.0 + DELAY_S)  # behind the first
    assert arrival_s(conditions, 0.0, A, C, 100) == pytest.approx(0.1 + DELAY_S)
    assert arrival_s(conditions, 0.0, A, B, 100) == pytest.approx(0.2 + 10.0 + DELAY_S)
    assert arrival_s(conditions, 0.0, A, C, 100) == pytest.approx(0.3 + DELAY_S)
    # What is empty takes up nothing, and comes behind what waits.
    assert arrival_s(conditions, 0.0, A, B, 0) == pytest.approx(10.2 + DELAY_S)
    assert arrival_s(conditions, 0.0, A, C, 0) == pytest.approx(0.3 + DELAY_S)
    conditions.limit_bandwidth(None, A, B)
    assert arrival_s(conditions, 0.0, A, B, 0) == pytest.approx(0.3 + DELAY_S)
    conditions.limit_bandwidth(None)
    assert arrival_s(conditions, 0.0, C, D, 100) == DELAY_S
    assert arrival_s(conditions, 0.0, A, B, 0) == pytest.approx(0.3 + DELAY_S)  # of A, not of all
    conditions.limit_bandwidth(100.0)
    assert arrival_s(conditions, 0.0, C, D, 0) == DELAY_S  # the queue of the earlier limit is gone
    conditions.heal()
    conditions.limit_bandwidth(1000.0, A)
    assert arrival_s(conditions, 0.0, A, B, 0) == DELAY_S


# What nothing can cross.


def test_clogs_are_of_a_scope() -> None:
    conditions = constant()
    conditions.clog(A, B)
    assert EVERYTHING - crossings(conditions) == {(A, B)}
    conditions.clog(C)
    assert EVERYTHING - crossings(conditions) == {(A, B), *((C, h) for h in HOSTS if h != C)}
    conditions.unclog(C)
    conditions.clog(None, D)
    assert EVERYTHING - crossings(conditions) == {(A, B), *((h, D) for h in HOSTS if h != D)}
    conditions.clog_host(D)
    blocked = {(a, b) for a, b in EVERYTHING if D in (a, b)}
    assert EVERYTHING - crossings(conditions) == {(A, B)} | blocked
    conditions.unclog_host(D)
    assert EVERYTHING - crossings(conditions) == {(A, B)}
    conditions.clog()
    assert crossings(conditions) == set()
    conditions.unclog()
    conditions.unclog(A, B)
    assert not conditions.blocks_anything


def test_partitions_into_groups() -> None:
    conditions = constant()
    conditions.partition([A, B], [C])
    parts = [{A, B}, {C}, {D, E}]
    joined = {(a, b) for part in parts for a, b in permutations(part, 2)}
    assert crossings(conditions) == joined
    assert conditions.can_cross(D, "10.9.9.9")  # a host to come is with the rest
    assert not conditions.can_cross(A, "10.9.9.9")
    conditions.partition([E])  # one against the rest, in place of the earlier partition
    assert EVERYTHING - crossings(conditions) == {(a, b) for a, b in EVERYTHING if E in (a, b)}
    with pytest.raises(InvalidArgument, match="two groups"):
        conditions.partition([A], [B, A])
    with pytest.raises(InvalidArgument, match="list of hosts"):
        conditions.partition(A)
    assert not conditions.can_cross(A, E)  # what is refused changes nothing
    conditions.clog(A, B)
    conditions.rejoin()
    assert EVERYTHING - crossings(conditions) == {(A, B)}


@given(st.integers(0, 2**32))
def test_halves_are_drawn(seed: int) -> None:
    conditions = constant(seed)
    one, other = conditions.partition_halves(HOSTS)
    assert sorted(one + other) == sorted(HOSTS)
    assert (len(one), len(other)) == (2, 3)
    joined = {pair for half in (one, other) for pair in permutations(half, 2)}
    assert crossings(conditions) == joined
    assert constant(seed).partition_halves(HOSTS) == (one, other)


def test_address_groups_are_islands() -> None:
    conditions = constant()
    conditions.partition_address_groups()
    assert crossings(conditions) == set(permutations([A, B], 2)) | set(permutations([C, D], 2))
    assert conditions.can_cross("10.7.0.1", "10.7.255.1")
    assert not conditions.can_cross("10.7.0.1", "10.8.0.1")


@pytest.mark.parametrize(
    ("host", "group"),
    [
        ("10.1.2.3", "10.1.0.0/16"),
        ("2001:db8:1:2::3", "2001:db8::/32"),
        ("a.name", "a.name"),
    ],
)
def test_address_group(host: str, group: str) -> None:
    assert address_group(host) == group


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.set_loss(1.1),
        lambda c: c.set_loss(float("nan")),
        lambda c: c.set_dial_loss(-0.1),
        lambda c: c.set_jitter(-1.0),
        lambda c: c.set_delay(float("inf")),
        lambda c: c.limit_bandwidth(0.0),
        lambda c: c.limit_bandwidth(float("inf")),
        lambda c: c.limit_bandwidth(100.0, None, A),
    ],
)
def test_values_that_cannot_be(change: Change) -> None:
    conditions = constant()
    with pytest.raises(InvalidArgument):
        change(conditions)
    assert conditions.is_plain
