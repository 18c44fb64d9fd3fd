"""The stem of private broadcasts: where it goes, when it ends, and who begins if it is lost."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshwalk.config import StemConfig
from meshwalk.proto.broadcast.stem import HELD_BYTES_MAX, TIMER, Id, Stems
from meshwalk.proto.timers import Timers
from meshwalk.wire.frames import STEM_HOPS_MAX
from meshwalk.wire.gossip import Stem
from meshwalk.wire.peerid import PeerId

NEIGHBOURS = [PeerId(bytes([number]) * 32) for number in range(1, 9)]
A, B, C = NEIGHBOURS[:3]
LONG = 1e-12  # a chance to end that no test draws


def id_of(number: int) -> Id:
    return b"k" * 32, 1, number


def stem(left: int | None = None, size: int = 10) -> Stem:
    return Stem(b"p" * size, b"s" * 64, 7, left)


class Hop:
    """One node's stems."""

    def __init__(self, config: StemConfig | None = None, seed: int = 0) -> None:
        self.timers = Timers()
        self.stems = Stems(config or StemConfig(leave_chance=LONG), Random(seed), self.timers)

    def begin(
        self, number: int, neighbours: list[PeerId], now: float = 0.0, size: int = 10
    ) -> PeerId | None:
        sent = self.stems.begin(id_of(number), stem(size=size), neighbours, now)
        return sent[0] if sent else None

    def heard(
        self, number: int, source: PeerId, neighbours: list[PeerId], now: float = 0.0, size: int = 1
    ) -> PeerId | None:
        sent = self.stems.heard(id_of(number), stem(size=size), source, neighbours, now)
        return sent[0] if sent else None


# Where to.


def test_all_of_one_source_go_to_the_same_neighbour_in_an_epoch() -> None:
    hop = Hop(StemConfig(leave_chance=LONG, epoch_s=600.0, held_max=10_000))
    own = {hop.begin(number, NEIGHBOURS, number) for number in range(500)}
    assert len(own) == 1
    to: dict[PeerId, set[PeerId | None]] = {}
    for number in range(1000, 1000 + 100 * len(NEIGHBOURS)):
        source = NEIGHBOURS[number % len(NEIGHBOURS)]
        to.setdefault(source, set()).add(hop.heard(number, source, NEIGHBOURS, 550.0))
    assert all(len(hops) == 1 for hops in to.values())
    assert len(own.union(*to.values())) <= 2, "of at most two"


def test_another_epoch_has_other_relays() -> None:
    hop = Hop(StemConfig(leave_chance=LONG, epoch_s=100.0))
    seen = Counter(hop.begin(number, NEIGHBOURS, number * 100.0) for number in range(400))
    assert set(seen) == set(NEIGHBOURS)
    assert max(seen.values()) < 2 * min(seen.values()), "each about as often"


def test_nothing_goes_back_to_where_it_came_from() -> None:
    for seed in range(50):
        hop = Hop(seed=seed)
        for number, source in enumerate(NEIGHBOURS):
            assert hop.heard(number, source, NEIGHBOURS) not in (None, source)
            assert hop.heard(100 + number, source, [A, source]) != source


def test_who_has_one_neighbour_only_passes_on_its_own_alone() -> None:
    hop = Hop()
    assert hop.begin(1, [A]) == A
    assert hop.heard(2, A, [A]) is None
    assert hop.begin(3, []) is None
    assert hop.stems.counts["nobody to pass to"] == 2
    assert hop.stems.held == 1


def test_a_neighbour_that_is_gone_is_replaced() -> None:
    hop = Hop()
    first = hop.begin(1, NEIGHBOURS)
    assert first is not None
    hop.stems.neighbour_gone(first)
    rest = [peer for peer in NEIGHBOURS if peer != first]
    second = hop.begin(2, rest)
    assert second in rest
    assert hop.begin(3, NEIGHBOURS) == second, "it stays, though the first has come back"
    assert hop.begin(4, [C]) == C, "also when only the list of neighbours says so"


def test_a_relay_that_goes_moves_only_what_went_there() -> None:
    hop = Hop(StemConfig(leave_chance=LONG, held_max=10_000))
    before = {s: hop.heard(n, s, NEIGHBOURS) for n, s in enumerate(NEIGHBOURS)}
    gone = before[A]
    assert gone is not None
    hop.stems.neighbour_gone(gone)
    rest = [peer for peer in NEIGHBOURS if peer != gone]
    after = {s: hop.heard(100 + n, s, rest) for n, s in enumerate(rest)}
    assert gone not in after.values()
    assert all(after[s] == before[s] for s in rest if before[s] != gone)


# When it ends.


def test_by_chance_a_stem_ends_as_often_as_is_set() -> None:
    hop = Hop(StemConfig(leave_chance=0.1, held_max=10_000))
    ended = sum(hop.heard(number, A, NEIGHBOURS) is None for number in range(2000))
    assert 150 < ended < 250
    assert hop.stems.counts["ended"] == ended


def test_by_chance_an_own_one_crosses_one_link_at_least() -> None:
    hop = Hop(StemConfig(leave_chance=1.0))
    assert hop.begin(1, NEIGHBOURS) is not None
    assert hop.heard(2, A, NEIGHBOURS) is None


def test_by_chance_nothing_in_a_stem_changes_on_its_way() -> None:
    hop = Hop()
    own, other = stem(), stem()
    begun = hop.stems.begin(id_of(1), own, NEIGHBOURS, 0.0)
    passed = hop.stems.heard(id_of(2), other, A, NEIGHBOURS, 0.0)
    assert begun is not None
    assert passed is not None
    assert begun[1] == own
    assert passed[1] == other
    assert begun[1].hops_left is None


def test_counted_hops_are_drawn_evenly_and_counted_down() -> None:
    config = StemConfig(hops=3)
    crossed: Counter[int] = Counter()
    nodes = [Hop(config, seed) for seed in range(5)]
    for number in range(400):
        sent = nodes[0].stems.begin(id_of(number), stem(), [A, B], 0.0)
        left = sent[1].hops_left if sent else None
        links = 0
        while sent is not None:
            assert left is not None
            assert sent[1].hops_left == left - links
            links += 1
            sent = nodes[links].stems.heard(id_of(number), sent[1], C, [A, B], 0.0)
        crossed[links] += 1
    assert set(crossed) == {0, 1, 2, 3}
    assert min(crossed.values()) > 60


@pytest.mark.parametrize("config", [StemConfig(), StemConfig(hops=2)])
def test_a_claim_of_many_hops_ends_in_so_many_at_the_latest(config: StemConfig) -> None:
    sent: Stem | None = stem(STEM_HOPS_MAX)
    links = 0
    while sent is not None:
        onward = Hop(config).stems.heard(id_of(1), sent, A, [A, B, C], 0.0)
        sent = onward[1] if onward else None
        links += 1
    assert links == STEM_HOPS_MAX + 1


def test_one_that_comes_back_goes_on_as_if_for_the_first_time() -> None:
    """Were it to begin to spread, a neighbour could try whether this node had seen it."""
    hop = Hop()
    assert hop.begin(1, NEIGHBOURS) is not None
    assert hop.heard(2, A, NEIGHBOURS) is not None
    assert hop.heard(1, B, NEIGHBOURS) is not None, "an own one"
    assert hop.heard(2, A, NEIGHBOURS) is not None, "and any other, alike"
    assert hop.stems.held == 2
    assert hop.stems.counts["heard twice"] == 2


# The embargo.


def test_an_embargo_ends_in_time_and_hands_the_stem_back() -> None:
    hop = Hop(StemConfig(embargo_s=5.0, embargo_mean_s=10.0, leave_chance=LONG))
    assert hop.begin(1, NEIGHBOURS, 100.0) is not None
    at = hop.timers.next()
    assert at is not None
    assert at > 105.0
    assert list(hop.timers.due(at)) == [(TIMER, id_of(1))]
    assert hop.stems.tick(id_of(1), at) == stem()
    assert hop.stems.tick(id_of(1), at) is None
    assert hop.stems.held == 0


def test_embargoes_differ_by_chance() -> None:
    config = StemConfig(embargo_s=5.0, embargo_mean_s=10.0, leave_chance=LONG)
    waits = []
    for seed in range(300):
        hop = Hop(config, seed)
        hop.begin(1, NEIGHBOURS)
        at = hop.timers.next()
        assert at is not None
        waits.append(at)
    assert min(waits) >= 5.0
    assert 13.0 < sum(waits) / len(waits) < 17.0
    plain = Hop(StemConfig(embargo_mean_s=0.0, embargo_s=2.0))
    plain.begin(1, NEIGHBOURS)
    assert plain.timers.next() == 2.0


def test_one_that_spreads_is_held_no_more() -> None:
    hop = Hop()
    hop.begin(1, NEIGHBOURS)
    hop.stems.spreads(id_of(1))
    hop.stems.spreads(id_of(2))
    assert hop.stems.held == 0
    assert len(hop.timers) == 0
    assert hop.stems.tick(id_of(1), 100.0) is None


# Bounds.


def test_others_cannot_fill_the_table_so_that_own_ones_begin_here() -> None:
    hop = Hop(StemConfig(leave_chance=LONG, held_max=16))
    passed = [hop.heard(number, A, NEIGHBOURS) for number in range(20)]
    assert sum(to is not None for to in passed) == 14
    own = [hop.begin(100 + number, NEIGHBOURS) for number in range(3)]
    assert [to is None for to in own] == [False, False, True]
    assert hop.stems.held == 16
    assert hop.stems.counts["no place"] == 7


def test_the_bytes_that_are_held_are_bounded() -> None:
    hop = Hop()
    big = HELD_BYTES_MAX // 16
    passed = [hop.heard(number, A, NEIGHBOURS, size=big) for number in range(20)]
    assert sum(to is not None for to in passed) == 14
    assert hop.begin(100, NEIGHBOURS, size=big) is not None
    for number in range(20):
        hop.stems.spreads(id_of(number))
    assert hop.heard(200, A, NEIGHBOURS, size=big) is not None, "the room is given back"


@given(st.integers(0, 2**32), st.sampled_from([0, 4, 10]), st.integers(2, 6))
def test_every_stem_begins_to_spread_somewhere(seed: int, hops: int, degree: int) -> None:
    """In a random network where any hop may be lost, some holder begins, sooner or later."""
    rng = Random(seed)
    names = [PeerId(bytes([n + 1]) * 32) for n in range(10)]
    links: dict[PeerId, set[PeerId]] = {name: set() for name in names}
    for name in names:
        for other in rng.sample([n for n in names if n != name], degree):
            links[name].add(other)
            links[other].add(name)
    config = StemConfig(hops=hops, leave_chance=0.05)
    nodes = {name: Hop(config, rng.getrandbits(32)) for name in names}
    at, number = rng.choice(names), 1
    sent = nodes[at].stems.begin(id_of(number), stem(), sorted(links[at]), 0.0)
    passes = 0
    while sent is not None and rng.random() > 0.1:  # else: lost on its way
        passes += 1
        assert passes < 1000
        source, (at, message) = at, sent
        assert at in links[source]
        sent = nodes[at].stems.heard(id_of(number), message, source, sorted(links[at]), 0.0)
    if sent is None:
        return
    holders = [hop for hop in nodes.values() if hop.stems.held]
    assert holders
    for hop in holders:
        keys = list(hop.timers.due(1e6))
        assert keys == [(TIMER, id_of(number))]
        assert hop.stems.tick(id_of(number), 1e6) is not None
