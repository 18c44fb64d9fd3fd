"""What is held against peers: it adds up, is forgiven, and is bounded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from meshwalk.config import TrustConfig
from meshwalk.proto.broadcast.trust import FORGIVEN_BELOW, Offence, Trust
from meshwalk.wire.peerid import PeerId


def peer(number: int) -> PeerId:
    return PeerId(number.to_bytes(32, "big"))


A, B = peer(1), peer(2)


def test_nothing_is_held_against_strangers() -> None:
    trust = Trust(TrustConfig())
    assert trust.against(A, 0.0) == 0.0
    assert not trust.is_refused(A, 0.0)
    assert trust.listed(0.0) == []


def test_offences_add_up_to_the_limit_and_stay_above_it() -> None:
    trust = Trust(TrustConfig())
    assert not trust.blame(A, Offence.FORGED, 0.0)
    assert trust.blame(A, Offence.FORGED, 0.0)
    assert trust.blame(A, Offence.FLOODED, 0.0), "it stands at the limit already"
    assert trust.is_refused(A, 0.0)
    assert not trust.is_refused(B, 0.0)
    assert trust.counts == {"forged": 2, "flooded": 1}


def test_half_is_forgiven_in_each_half_life() -> None:
    trust = Trust(TrustConfig(half_life_s=100.0))
    trust.blame(A, Offence.FORGED, 0.0)
    assert trust.against(A, 100.0) == 2.5
    assert trust.against(A, 200.0) == 1.25
    trust.blame(A, Offence.PROMISE_BROKEN, 200.0)
    assert trust.against(A, 200.0) == 2.25
    assert trust.against(A, 150.0) == 2.25, "a clock that goes back takes nothing away"


def test_who_was_refused_is_let_in_again_in_time() -> None:
    trust = Trust(TrustConfig(half_life_s=100.0, limit=10.0))
    for _ in range(4):
        trust.blame(A, Offence.FORGED, 0.0)
    assert trust.is_refused(A, 199.9), "until half of the limit is forgiven"
    assert not trust.is_refused(A, 200.1)


def test_one_offence_at_a_time_never_reaches_the_limit() -> None:
    trust = Trust(TrustConfig(half_life_s=100.0))
    assert not any(trust.blame(A, Offence.FORGED, at * 200.0) for at in range(1000))


def test_each_offence_has_its_own_weight() -> None:
    config = TrustConfig(
        forged=1.0, unworked=2.0, promise_broken=3.0, flooded=4.0, unwanted=5.0, stale=6.0
    )
    for weight, offence in enumerate(Offence, 1):
        trust = Trust(config)
        trust.blame(A, offence, 0.0)
        assert trust.against(A, 0.0) == weight


def test_an_offence_may_be_set_to_weigh_nothing() -> None:
    trust = Trust(TrustConfig(unwanted=0.0))
    assert not trust.blame(A, Offence.UNWANTED, 0.0)
    assert len(trust) == 0
    trust.blame(A, Offence.STALE, 0.0)
    trust.blame(A, Offence.UNWANTED, 0.0)
    assert trust.against(A, 0.0) == 0.25


def test_nothing_is_remembered_without_a_half_life() -> None:
    trust = Trust(TrustConfig(half_life_s=0.0))
    trust.blame(A, Offence.FORGED, 0.0)
    assert trust.against(A, 1.0) == 0.0


def test_what_is_forgiven_vanishes() -> None:
    trust = Trust(TrustConfig(half_life_s=1.0))
    trust.blame(A, Offence.FORGED, 0.0)
    assert trust.listed(8.0) == [(A, 5.0 / 256)]
    assert trust.listed(9.0) == []
    assert trust.against(A, 9.0) == 0.0
    trust.blame(B, Offence.FLOODED, 9.0)
    assert len(trust) == 1


def test_those_are_listed_first_who_have_most() -> None:
    trust = Trust(TrustConfig())
    trust.blame(A, Offence.STALE, 0.0)
    trust.blame(B, Offence.FORGED, 0.0)
    assert trust.listed(0.0) == [(B, 5.0), (A, 0.25)]


def test_who_has_least_is_forgotten_first() -> None:
    trust = Trust(TrustConfig(peers_max=2, half_life_s=100.0))
    trust.blame(A, Offence.FORGED, 0.0)
    trust.blame(B, Offence.PROMISE_BROKEN, 300.0)  # of A's there is less by now
    trust.blame(peer(3), Offence.FORGED, 300.0)
    assert [one for one, _ in trust.listed(300.0)] == [peer(3), B]
    assert trust.counts["forgotten"] == 1


def test_strangers_do_not_push_out_who_is_refused() -> None:
    trust = Trust(TrustConfig(peers_max=10))
    for _ in range(2):
        trust.blame(A, Offence.FORGED, 0.0)
    for number in range(10, 2000):
        trust.blame(peer(number), Offence.PROMISE_BROKEN, 0.0)
    assert trust.is_refused(A, 0.0)
    assert len(trust) == 10


@given(
    st.lists(
        st.tuples(st.integers(0, 11), st.sampled_from(Offence), st.floats(0, 300)), max_size=150
    )
)
def test_the_table_is_what_a_plain_one_would_be(
    blames: list[tuple[int, Offence, float]],
) -> None:
    config = TrustConfig(peers_max=6, half_life_s=60.0)
    weights = dict(zip(Offence, (5.0, 5.0, 1.0, 0.05, 0.1, 0.25), strict=True))
    trust, plain, now = Trust(config), dict[PeerId, float](), 0.0
    for number, offence, gap in blames:
        now += gap
        plain = {one: left * 2 ** (-gap / 60.0) for one, left in plain.items()}
        plain = {one: left for one, left in plain.items() if left >= FORGIVEN_BELOW}
        amount = plain.get(peer(number), 0.0) + weights[offence]
        if abs(amount - config.limit) > 1e-6:
            assert trust.blame(peer(number), offence, now) == (amount > config.limit)
        else:
            trust.blame(peer(number), offence, now)
        plain[peer(number)] = amount
        assert len(trust) <= config.peers_max
        if len(plain) > config.peers_max:
            least = sorted(plain.values())
            if least[1] - least[0] < 1e-6:
                return  # either may go
            del plain[min(plain, key=lambda one: plain[one])]
        found = dict(trust.listed(now))
        for one in plain.keys() | found.keys():
            assert abs(found.get(one, 0.0) - plain.get(one, 0.0)) < 1e-6
