"""Broadcasts at one node: once, in time, and from whom they say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshwalk.config import BroadcastConfig
from meshwalk.proto.effects import Deliver
from meshwalk.proto.gossip import Blame, Flood, Gossip, SeenNumbers
from meshwalk.proto.timers import Timers
from meshwalk.sim.node import UNIX_START_S
from meshwalk.sim.signatures import CheapSignatures
from meshwalk.wire.frames import CloseReason, ContentType
from meshwalk.wire.messages import HOPS_MAX, Broadcast, decode_broadcast, encode
from meshwalk.wire.peerid import PeerId
from meshwalk.wire.records import BroadcastPayload, Domain
from meshwalk.wire.records import encode as encode_record

CONFIG = BroadcastConfig()
NEIGHBOUR = PeerId(bytes(31) + b"\x01")
AGE_S, SKEW_S = CONFIG.age_max_s, CONFIG.clock_skew_max_s


def peer(number: int) -> PeerId:
    return PeerId(number.to_bytes(32, "big"))


def gossip(config: BroadcastConfig = CONFIG) -> Gossip:
    return Gossip(CheapSignatures(peer(0)), config, Timers(), UNIX_START_S, 0.0)


def message(
    origin: int = 5,
    sequence: int = 1,
    *,
    epoch: int = 1,
    sent_at: float = 0.0,
    body: bytes = b"",
    hops: int = 1,
    signer: int | None = None,
) -> bytes:
    payload = encode_record(
        BroadcastPayload(
            bytes(peer(origin)),
            epoch,
            sequence,
            int((sent_at + UNIX_START_S) * 1000),
            "",
            ContentType.BYTES,
            body,
        )
    )
    who = CheapSignatures(peer(origin if signer is None else signer))
    return encode(Broadcast(payload, who.sign(Domain.BROADCAST, payload), hops))


def is_new(machine: Gossip, body: bytes, now: float = 0.0) -> bool:
    return any(isinstance(e, Deliver) for e in machine.receive(NEIGHBOUR, body, now))


def test_delivered_and_passed_on_once() -> None:
    machine = gossip()
    hand, flood = machine.receive(NEIGHBOUR, message(hops=3), 0.0)
    assert isinstance(hand, Deliver)
    assert (hand.delivery.origin, hand.delivery.hops) == (peer(5), 3)
    assert isinstance(flood, Flood)
    assert flood.without == NEIGHBOUR
    assert decode_broadcast(flood.body).hops == 4
    assert machine.receive(NEIGHBOUR, message(hops=3), 0.0) == []


def test_published_ones_are_heard_elsewhere_and_not_here() -> None:
    here = gossip()
    number, (flood,) = here.publish("", ContentType.BYTES, b"x", 1.0)
    assert number == 1
    assert isinstance(flood, Flood)
    assert flood.without is None
    assert here.receive(NEIGHBOUR, flood.body, 1.0) == []
    assert here.counts["own"] == 1
    there = Gossip(CheapSignatures(peer(9)), CONFIG, Timers(), UNIX_START_S, 0.0)
    assert is_new(there, flood.body, 1.0)


@pytest.mark.parametrize("body", [b"", b"\xc1", encode(Broadcast(b"", bytes(64), 1))])
def test_malformed_is_blamed(body: bytes) -> None:
    (blame,) = gossip().receive(NEIGHBOUR, body, 0.0)
    assert isinstance(blame, Blame)
    assert blame.reason is CloseReason.MALFORMED


def test_forged_is_blamed_and_leaves_no_trace() -> None:
    machine = gossip()
    (blame,) = machine.receive(NEIGHBOUR, message(signer=6), 0.0)
    assert isinstance(blame, Blame)
    assert blame.reason is CloseReason.PROTOCOL
    assert machine.origins == 0
    assert is_new(machine, message())


def test_too_big_and_too_far() -> None:
    machine = gossip()
    assert machine.receive(NEIGHBOUR, message(body=bytes(CONFIG.body_bytes_max + 1)), 0.0) == []
    (hand,) = machine.receive(NEIGHBOUR, message(hops=HOPS_MAX), 0.0)
    assert isinstance(hand, Deliver)


@pytest.mark.parametrize(
    ("sent_at", "fresh"),
    [(-AGE_S - 1, False), (-AGE_S + 1, True), (SKEW_S - 1, True), (SKEW_S + 1, False)],
)
def test_stale_by_the_clock(sent_at: float, fresh: bool) -> None:
    assert is_new(gossip(), message(sent_at=sent_at)) == fresh


@pytest.mark.parametrize("ahead_s", [0.0, 100.0, SKEW_S - 1])
def test_never_twice_however_long_it_is_replayed(ahead_s: float) -> None:
    """A defect: what an origin with a fast clock had sent came again when it was forgotten."""
    machine = gossip()
    replayed = message(sent_at=ahead_s)
    assert is_new(machine, replayed)
    for second in range(0, 2000, 7):
        is_new(machine, message(8, second + 1, sent_at=float(second)), second)
        assert not is_new(machine, replayed, float(second))


def test_never_twice_across_a_restart_of_the_origin() -> None:
    machine = gossip()
    old = message(sent_at=SKEW_S - 1)
    assert is_new(machine, old)
    assert is_new(machine, message(epoch=2))
    for second in range(0, 2000, 7):
        assert not is_new(machine, old, float(second))


def test_epochs() -> None:
    machine = gossip()
    assert is_new(machine, message(epoch=2, sequence=9))
    assert not is_new(machine, message(epoch=1, sequence=10))
    assert is_new(machine, message(epoch=3, sequence=1))
    assert machine.counts["earlier run"] == 1


def test_an_origin_whose_clock_was_set_back_is_heard_again_in_time() -> None:
    """A defect: it stayed silenced until somebody else broadcast."""
    machine = gossip()
    assert is_new(machine, message(epoch=2))
    later = CONFIG.remembered_s + 1
    assert is_new(machine, message(epoch=1, sent_at=later), later)


def test_overflow_of_origins_never_delivers_twice() -> None:
    """A defect: with more origins than places each made the others' messages new again, so that
    they went round until their hops ran out."""
    machine = gossip(BroadcastConfig(origins_max=10))
    bodies = [message(n, sent_at=n / 100) for n in range(1, 41)]
    assert [is_new(machine, b, 1.0) for b in bodies] == [True] * 40
    assert machine.origins == 10
    for _ in range(3):
        assert not any(is_new(machine, b, 1.0) for b in bodies)
    assert is_new(machine, message(99, sent_at=0.9), 1.0), "newer ones are heard"


def test_an_origin_that_was_forgotten_and_is_heard_again_never_delivers_twice() -> None:
    """A defect: its next broadcast made it known again, and then its older ones were new."""
    machine = gossip(BroadcastConfig(origins_max=2))
    first = message(1, sequence=1, sent_at=0.1)
    assert is_new(machine, first, 1.0)
    for other in (2, 3):
        assert is_new(machine, message(other, sent_at=0.2), 1.0)
    assert is_new(machine, message(1, sequence=2, sent_at=0.3), 1.0)
    assert not is_new(machine, first, 1.0)


@given(st.lists(st.integers(1, 60), max_size=200), st.integers(4, 16))
def test_numbers_are_new_once(numbers: list[int], window: int) -> None:
    seen: SeenNumbers | None = None
    taken: set[int] = set()
    for number in numbers:
        if seen is None:
            seen = SeenNumbers(1, number, window)
        if seen.add(number, window):
            assert number not in taken
            taken.add(number)
        else:
            assert number in taken or number <= seen.floor
        assert len(seen.above) <= 2 * window
        assert seen.floor + 1 not in seen.above


def test_a_gap_is_given_up_and_the_window_moves_on() -> None:
    """A defect: after a gap had been given up, the numbers above it were kept one by one."""
    seen = SeenNumbers(1, 1, 8)
    seen.add(1, 8)
    for number in range(3, 100):
        assert seen.add(number, 8)
    assert seen.floor == 99
    assert not seen.above


def test_absurd_number_hurts_only_its_origin() -> None:
    machine = gossip()
    assert is_new(machine, message(5, 2**64 - 1))
    assert is_new(machine, message(6, 1))
    assert machine.origins == 2


def test_numbers_above_gaps_are_bounded_over_all_origins() -> None:
    config = BroadcastConfig(window=100, window_least=3, numbers_max=30)
    machine = gossip(config)
    for origin in range(1, 6):
        machine.receive(NEIGHBOUR, message(origin, 1), 0.0)
        for sequence in range(3, 63, 2):  # every second one is missing
            machine.receive(NEIGHBOUR, message(origin, sequence), 0.0)
    noted = sum(len(seen.above) for seen in machine._seen.values())
    assert noted == machine._numbers <= config.numbers_max
    assert not is_new(machine, message(5, 4)), "below what is left of its window"
    assert not is_new(machine, message(5, 61)), "seen"


def test_what_is_held_for_its_order_is_handed_over_by_the_timer() -> None:
    machine = gossip()
    assert is_new(machine, message(5, 1))
    assert not is_new(machine, message(5, 3))
    assert machine.held == 1
    (late,) = machine.tick(bytes(peer(5)), CONFIG.order_wait_s)
    assert isinstance(late, Deliver)
    assert late.delivery.sequence == 3
    assert machine.held == 0
