"""Receipts: they add up to the number of peers, in time, and a liar is bounded."""

from __future__ import annotations

import heapq
from itertools import count
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshwalk.config import BroadcastConfig
from meshwalk.proto.broadcast.effects import GossipEffect, Pass
from meshwalk.proto.broadcast.receipts import (
    GATHER_S,
    HOPS_MAX,
    PEERS_MAX,
    TIMER,
    Id,
    Receipts,
)
from meshwalk.proto.effects import ReceiptCame
from meshwalk.proto.timers import Timers
from meshwalk.wire.gossip import HOPS_SEEN_MAX, HopSeen, Receipt
from meshwalk.wire.peerid import PeerId


def peer(number: int) -> PeerId:
    return PeerId(number.to_bytes(32, "big"))


def id_of(number: int) -> Id:
    return b"o" * 32, 5, number


ME, UP, A, B, C = (peer(number) for number in range(1, 6))
CONFIG = BroadcastConfig(confirm_timeout_s=8.0)


def hop_seen(number: int, hops: int = 1) -> HopSeen:
    return HopSeen(peer(number), UP, hops, 1000, 2000, was_repaired=False)


def receipt(peers: int, *, last: bool = True, hops: int = 0, number: int = 1) -> Receipt:
    return Receipt(*id_of(number), peers, [hop_seen(n) for n in range(hops)], last)


class Desk:
    """One node's receipts."""

    def __init__(self, config: BroadcastConfig = CONFIG) -> None:
        self.timers = Timers()
        self.receipts = Receipts(config, ME, self.timers)

    def own(self, *children: PeerId, number: int = 1, traced: bool = False) -> list[GossipEffect]:
        return self.receipts.own(id_of(number), 70 + number, children, 0.0, is_traced=traced)

    def came(
        self, *children: PeerId, number: int = 1, hops: int = 1, hop: HopSeen | None = None
    ) -> list[GossipEffect]:
        return self.receipts.came(
            id_of(number), UP, children, hop, hops, 0.0, is_traced=hop is not None
        )

    def tick(self, now: float) -> list[GossipEffect]:
        out: list[GossipEffect] = []
        for machine, what in self.timers.due(now):
            assert machine == TIMER
            assert isinstance(what, tuple)
            out += self.receipts.tick(what, now)
        return out


def told(peers: int, to: PeerId = UP, number: int = 1) -> list[GossipEffect]:
    return [Pass((to,), Receipt(*id_of(number), peers, [], is_last=True))]


# A node on the way.


def test_a_leaf_answers_at_once() -> None:
    assert Desk().came() == told(1)


def test_a_node_answers_when_all_have_that_it_passed_it_to() -> None:
    desk = Desk()
    assert desk.came(A, B) == []
    assert desk.receipts.heard(A, receipt(3), 0.5) == []
    assert desk.receipts.heard(B, receipt(4), 0.6) == told(8)


def test_what_is_not_the_last_of_a_neighbour_is_waited_on() -> None:
    desk = Desk()
    desk.came(A)
    assert desk.receipts.heard(A, receipt(3, last=False), 0.5) == []
    assert desk.receipts.heard(A, receipt(2), 0.6) == told(6)


def test_a_node_waits_the_less_the_further_from_the_origin() -> None:
    waits = []
    for hops in (1, 2, 8, 15, 16, 40):
        desk = Desk()
        desk.came(A, B, hops=hops)
        desk.receipts.heard(A, receipt(3), 0.0)
        at = desk.timers.next()
        assert at is not None
        assert desk.tick(at - 0.01) == []
        assert desk.tick(at) == told(4), "what there is"
        assert desk.receipts.counts["not answered"] == 1
        waits.append(at)
    assert waits == [7.5, 7.0, 4.0, 0.5, 0.5, 0.5]


def test_what_comes_late_is_told_as_so_many_more_gathered() -> None:
    desk = Desk()
    desk.came(A, B, C)
    assert desk.tick(7.5) == told(1)
    assert desk.receipts.heard(A, receipt(2), 8.0) == []
    assert desk.receipts.heard(B, receipt(3), 8.05) == []
    assert desk.tick(8.0 + GATHER_S) == told(5)
    assert desk.receipts.heard(C, receipt(0), 9.0) == [], "no news"
    assert desk.tick(10.0) == []
    assert desk.receipts.heard(C, receipt(1), 15.99) == []
    assert desk.tick(16.0) == told(1), "before it is forgotten"
    assert len(desk.receipts) == 0
    assert len(desk.timers) == 0
    assert desk.receipts.heard(C, receipt(1), 16.1) == []
    assert desk.receipts.counts["unasked"] == 1


def test_who_sends_it_again_is_told_not_to_wait() -> None:
    desk = Desk()
    desk.came(A, B)
    assert desk.receipts.repeated(id_of(1), C) == told(0, to=C)
    assert desk.receipts.repeated(id_of(2), C) == told(0, to=C, number=2), "also when forgotten"
    assert desk.receipts.repeated(id_of(1), UP) == [], "it will be told of this node"


def test_copies_that_cross_free_both_from_waiting() -> None:
    desk = Desk()
    desk.came(A, B)
    desk.receipts.heard(B, receipt(5), 0.1)
    assert desk.receipts.repeated(id_of(1), A) == [*told(6), *told(0, to=A)]
    assert desk.receipts.heard(A, receipt(0), 0.2) == []
    assert desk.tick(1.0) == []


def test_who_asked_for_it_later_may_answer_and_is_waited_for() -> None:
    desk = Desk()
    desk.came(A)
    desk.receipts.adopted(id_of(1), B, 0.2)
    desk.receipts.adopted(id_of(1), UP, 0.2)
    desk.receipts.adopted(id_of(9), B, 0.2)
    assert desk.receipts.heard(A, receipt(1), 0.3) == []
    assert desk.receipts.heard(B, receipt(1), 0.4) == told(3)
    desk.receipts.adopted(id_of(1), C, 1.0)
    assert desk.receipts.heard(C, receipt(1), 1.5) == []
    assert desk.tick(1.6) == told(1)


def test_a_link_that_ends_is_not_waited_for() -> None:
    desk = Desk()
    desk.came(A, B)
    desk.receipts.heard(A, receipt(3), 0.5)
    assert desk.receipts.neighbour_gone(B, 0.6) == told(4)
    assert desk.receipts.heard(B, receipt(3), 0.7) == []
    assert desk.receipts.counts["unasked"] == 1


def test_without_the_link_to_the_parent_nobody_is_told() -> None:
    desk = Desk()
    desk.came(A)
    assert desk.receipts.neighbour_gone(UP, 0.1) == []
    assert desk.receipts.heard(A, receipt(3), 0.5) == []
    assert desk.tick(16.0) == []
    assert desk.receipts.counts["parent gone"] == 1
    assert len(desk.receipts) == 0


def test_the_same_cannot_come_for_the_first_time_twice() -> None:
    desk = Desk()
    desk.came(A)
    again = desk.receipts.came(id_of(1), B, [C], None, 3, 0.1, is_traced=False)
    assert again == told(0, to=B)
    assert desk.receipts.heard(A, receipt(1), 0.2) == told(2)


# The origin.


def test_an_origin_reports_and_does_not_count_itself() -> None:
    desk = Desk()
    assert desk.own(A, B) == []
    assert desk.receipts.heard(A, receipt(3), 0.5) == []
    assert desk.tick(0.5 + GATHER_S) == [ReceiptCame(71, 3, [], is_last=False)]
    assert desk.receipts.heard(B, receipt(4), 1.0) == [ReceiptCame(71, 4, [], is_last=True)]
    assert desk.receipts.heard(B, receipt(2), 2.0) == []
    assert desk.tick(2.5) == [ReceiptCame(71, 2, [], is_last=True)]


def test_an_origin_that_nobody_answers_hears_so_in_time() -> None:
    desk = Desk()
    assert desk.own(A) == []
    assert desk.tick(7.99) == []
    assert desk.tick(8.0) == [ReceiptCame(71, 0, [], is_last=True)]
    assert Desk().own() == [ReceiptCame(71, 0, [], is_last=True)]


# Traces.


def test_hops_go_up_with_the_count_and_the_own_one_with_them() -> None:
    desk = Desk()
    assert desk.came(A, hop=hop_seen(99)) == []
    (sent,) = desk.receipts.heard(A, receipt(2, hops=2), 0.1)
    assert isinstance(sent, Pass)
    assert sent.message == Receipt(*id_of(1), 3, [hop_seen(99), hop_seen(0), hop_seen(1)])


def test_a_long_report_goes_in_several() -> None:
    desk = Desk()
    desk.came(A, hop=hop_seen(5000))
    for _ in range(2):
        desk.receipts.heard(A, receipt(100, hops=HOPS_SEEN_MAX, last=False), 0.1)
    sent = desk.receipts.heard(A, receipt(0), 0.2)
    messages = [one.message for one in sent if isinstance(one, Pass)]
    assert all(isinstance(one, Receipt) for one in messages)
    reports = [one for one in messages if isinstance(one, Receipt)]
    assert [len(one.hops) for one in reports] == [HOPS_SEEN_MAX, HOPS_SEEN_MAX, 1]
    assert [one.is_last for one in reports] == [False, False, True]
    assert sum(one.peers for one in reports) == 201


def test_hops_of_what_is_not_traced_are_dropped() -> None:
    desk = Desk()
    desk.came(A)
    assert desk.receipts.heard(A, receipt(2, hops=5), 0.1) == told(3)
    assert desk.receipts.counts["hops dropped"] == 5


# Liars, and bounds.


def test_only_those_are_heard_that_were_sent_the_broadcast() -> None:
    desk = Desk()
    desk.came(A)
    assert desk.receipts.heard(B, receipt(100), 0.1) == []
    assert desk.receipts.heard(UP, receipt(100), 0.1) == []
    assert desk.receipts.heard(A, receipt(100, number=2), 0.1) == []
    assert desk.receipts.counts["unasked"] == 3
    assert desk.receipts.heard(A, receipt(1), 0.2) == told(2)


def test_a_liar_adds_so_many_at_the_most() -> None:
    desk = Desk()
    desk.own(A, B, traced=True)
    out: list[GossipEffect] = []
    for turn in range(50):
        out += desk.receipts.heard(A, receipt(2**64 - 1, hops=HOPS_SEEN_MAX), turn * 0.1)
        out += desk.tick(turn * 0.1 + 0.05)
    out += desk.tick(8.0)
    came = [one for one in out if isinstance(one, ReceiptCame)]
    assert sum(one.peers for one in came) == PEERS_MAX
    assert sum(len(one.hops) for one in came) == HOPS_MAX
    assert len(came) < 50


def test_many_small_lies_are_told_together() -> None:
    desk = Desk()
    desk.came()
    out: list[GossipEffect] = []
    for turn in range(1000):
        desk.receipts.adopted(id_of(1), A, 0.0)
        out += desk.receipts.heard(A, receipt(1), turn / 1000)
        out += desk.tick(turn / 1000)
    assert len(out) <= 10


def test_in_a_full_table_others_count_as_leaves_and_own_ones_have_a_share() -> None:
    desk = Desk(BroadcastConfig(receipts_max=16))
    for number in range(14):
        assert desk.came(A, number=number) == []
    assert desk.came(A, number=14) == told(1, number=14)
    assert desk.receipts.heard(A, receipt(5, number=14), 0.1) == []
    assert desk.own(A, number=20) == desk.own(A, number=21) == []
    assert desk.own(A, number=22) == [ReceiptCame(92, 0, [], is_last=True)]
    assert len(desk.receipts) == 16
    assert desk.receipts.counts["no place"] == 2


def test_who_waits_for_nobody_makes_place_first() -> None:
    desk = Desk(BroadcastConfig(receipts_max=2))
    desk.came(A, number=1)
    desk.came(number=2)
    desk.receipts.adopted(id_of(2), B, 0.0)
    desk.receipts.heard(B, receipt(4, number=2), 0.0)
    assert desk.came(A, number=3) == told(4, number=2), "what it has gathered is told yet"
    assert len(desk.timers) == len(desk.receipts) == 2
    assert desk.receipts.heard(A, receipt(1, number=1), 0.1) == told(2, number=1)
    assert desk.receipts.counts["forgotten early"] == 1


# Whole networks.


class Network:
    """A random graph on which one broadcast spreads, with losses that are repaired."""

    def __init__(self, rng: Random, size: int, delay_s: float, lost: float, liar: int) -> None:
        self.rng, self.delay_s, self.lost = rng, delay_s, lost
        self.liar = peer(liar) if liar else None
        self.links: dict[PeerId, list[PeerId]] = {peer(n): [] for n in range(1, size + 1)}
        for n in range(2, size + 1):
            for other in {rng.randrange(1, n), rng.randrange(1, n)}:
                self.links[peer(n)].append(peer(other))
                self.links[peer(other)].append(peer(n))
        self.timers = {name: Timers() for name in self.links}
        self.receipts = {name: Receipts(CONFIG, name, self.timers[name]) for name in self.links}
        self.hops: dict[PeerId, int] = {peer(1): 0}
        self.events: list[tuple[float, int, PeerId, PeerId, Receipt | None]] = []
        self.order = count()
        self.came: list[tuple[float, ReceiptCame]] = []

    def post(self, at: float, sender: PeerId, to: PeerId, message: Receipt | None) -> None:
        """`message` None: a copy of the broadcast."""
        delay_s = self.rng.uniform(0.1, 1.0) * self.delay_s
        if message is None and self.rng.random() < self.lost:  # announced, asked for, and sent
            delay_s += 5 * self.delay_s
        heapq.heappush(self.events, (at + delay_s, next(self.order), sender, to, message))

    def perform(self, at: float, node: PeerId, effects: list[GossipEffect]) -> None:
        for effect in effects:
            if isinstance(effect, ReceiptCame):
                self.came.append((at, effect))
                continue
            assert isinstance(effect, Pass)
            message = effect.message
            assert isinstance(message, Receipt)
            if node == self.liar:
                message = Receipt(*id_of(1), 2**63, [hop_seen(7)] * 100, message.is_last)
            for to in effect.peers:
                self.post(at, node, to, message)

    def send_on(self, at: float, node: PeerId, targets: list[PeerId]) -> None:
        for to in targets:
            self.post(at, node, to, None)

    def run(self, *, late: bool) -> None:
        """`late`: a part of the links carries the broadcast only when it is asked for."""
        start = peer(1)
        targets = self.links[start]
        effects = self.receipts[start].own(id_of(1), 1, targets, 0.0, is_traced=True)
        self.perform(0.0, start, effects)
        self.send_on(0.0, start, targets)
        while True:
            timed = [(at, n) for n, t in self.timers.items() if (at := t.next()) is not None]
            first = min(timed, default=(float("inf"), start))
            if self.events and self.events[0][0] <= first[0]:
                at, _, sender, node, message = heapq.heappop(self.events)
                self.perform(at, node, self.arrived(at, sender, node, message, late=late))
            elif timed:
                for _, what in self.timers[first[1]].due(first[0]):
                    assert isinstance(what, tuple)
                    self.perform(first[0], first[1], self.receipts[first[1]].tick(what, first[0]))
            else:
                return

    def arrived(
        self, at: float, sender: PeerId, node: PeerId, message: Receipt | None, *, late: bool
    ) -> list[GossipEffect]:
        receipts = self.receipts[node]
        if message is not None:
            return receipts.heard(sender, message, at)
        if node in self.hops:
            return receipts.repeated(id_of(1), sender)
        hops = self.hops[node] = self.hops[sender] + 1
        targets = [other for other in self.links[node] if other != sender]
        eager = targets if not late else [t for t in targets if self.rng.random() < 0.7]
        seen = HopSeen(node, sender, hops, 0, 0, was_repaired=False)
        out = receipts.came(id_of(1), sender, eager, seen, hops, at, is_traced=True)
        self.send_on(at, node, eager)
        for other in set(targets) - set(eager):
            receipts.adopted(id_of(1), other, at)
            self.post(at + 0.2, node, other, None)
        return out


@given(st.randoms(use_true_random=False), st.integers(1, 40), st.sampled_from([0.0, 0.2]))
def test_on_ways_that_are_short_enough_the_last_count_is_whole(
    rng: Random, size: int, lost: float
) -> None:
    # A way there and back, with a repair on it, takes 7 delays; a sixteenth of the wait is 0.5 s.
    network = Network(rng, size, delay_s=0.07, lost=lost, liar=0)
    network.run(late=False)
    assert len(network.hops) == size
    assert sum(came.peers for _, came in network.came) == size - 1
    assert [came.is_last for _, came in network.came].index(True) == len(network.came) - 1
    assert network.came[-1][0] <= CONFIG.confirm_timeout_s
    peers = sorted(hop.peer for _, came in network.came for hop in came.hops)
    assert peers == sorted(name for name in network.hops if name != peer(1))


@given(st.randoms(use_true_random=False), st.integers(1, 25), st.floats(0.1, 0.6))
def test_however_slow_links_are_nobody_is_counted_twice(
    rng: Random, size: int, delay_s: float
) -> None:
    network = Network(rng, size, delay_s, lost=0.3, liar=0)
    network.run(late=True)
    peers = sorted(hop.peer for _, came in network.came for hop in came.hops)
    assert sum(came.peers for _, came in network.came) == len(peers) <= size - 1
    assert len(set(peers)) == len(peers)
    assert any(came.is_last for _, came in network.came)
    assert next(at for at, came in network.came if came.is_last) <= CONFIG.confirm_timeout_s
    assert not any(len(receipts) for receipts in network.receipts.values())


@given(st.randoms(use_true_random=False), st.integers(2, 30))
def test_one_liar_in_a_network_is_bounded(rng: Random, size: int) -> None:
    network = Network(rng, size, delay_s=0.05, lost=0.0, liar=rng.randrange(2, size + 1))
    network.run(late=False)
    assert size - 2 <= sum(came.peers for _, came in network.came) <= PEERS_MAX
    assert sum(len(came.hops) for _, came in network.came) <= HOPS_MAX


@pytest.mark.parametrize("confirm_timeout_s", [0.0, 1e-9])
def test_without_time_to_wait_there_is_an_end_all_the_same(confirm_timeout_s: float) -> None:
    desk = Desk(BroadcastConfig(confirm_timeout_s=confirm_timeout_s))
    desk.own(A)
    assert desk.tick(1.0) == [ReceiptCame(71, 0, [], is_last=True)]
    assert len(desk.timers) in (0, 1)
    assert desk.tick(2.0) == []
    assert len(desk.receipts) == 0
