"""Many nodes that trade at once: whatever comes between, nobody is left with too little."""

from __future__ import annotations

import math
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from meshwalk.config import TradingConfig
from meshwalk.proto.link import Link
from meshwalk.wire.frames import CloseReason, Purpose

from .knowing import Net, Node, config

MARKET = config(
    links_min=3,
    links_max=6,
    links_random_min=2,
    trading=TradingConfig(interval_s=5.0, stay_s=20.0),
)


def randoms(node: Node) -> int:
    return node.overlay.membership.randoms


def market(count: int, slowest_s: float, seed: int) -> tuple[Net, Random]:
    """Nodes on a plane, linked at random, that know each other well and trade."""
    net, rng = Net(seed, (0.01, slowest_s)), Random(seed)
    nodes = [net.add(MARKET) for _ in range(count)]
    places = [(rng.random(), rng.random()) for _ in nodes]
    for one in nodes:
        for two in nodes[: one.number]:
            distance = math.dist(places[one.number], places[two.number])
            net.rtts_s[frozenset({one.number, two.number})] = 0.01 + distance
    for one in nodes:  # each to the next two, and to one more
        for step in (1, 2, rng.randrange(3, count)):
            two = nodes[(one.number + step) % count]
            has_room = max(map(links, (one, two))) < MARKET.overlay.links_max
            if two.number not in one.neighbours and has_room:
                net.link(one, two)
    for one in nodes:
        for two in nodes:
            if one is not two:
                net.knows_well(one, two)
        one.overlay.trading.start(net.now)
    return net, rng


def mean_rtt_s(net: Net) -> float:
    rtts = [net.rtt_s(n, net.nodes[m]) for n in net.nodes for m in n.neighbours]
    return sum(rtts) / len(rtts)


def test_a_network_of_traders_grows_closer() -> None:
    net, _ = market(12, 0.05, 1)
    before = mean_rtt_s(net)
    net.run(300)
    assert sum(n.overlay.trading.counts["traded"] for n in net.nodes) >= 5
    assert mean_rtt_s(net) < 0.9 * before


@settings(max_examples=40)
@given(
    count=st.integers(5, 9),
    slowest_s=st.sampled_from([0.05, 1.0, 8.0]),
    losses=st.lists(st.floats(0, 300), max_size=6),
    seed=st.integers(0, 2**16),
)
def test_however_trades_interleave_nobody_is_left_with_too_little(
    count: int, slowest_s: float, losses: list[float], seed: int
) -> None:
    net, rng = market(count, slowest_s, seed)
    floor = {n: (min(3, links(n)), min(2, randoms(n))) for n in net.nodes}

    def watch() -> None:
        for node in net.nodes:
            assert links(node) <= MARKET.overlay.links_max
            if not losses:
                assert links(node) >= floor[node][0]
                assert randoms(node) >= floor[node][1]
        for _, node, link, why in net.closed:
            if why is CloseReason.TRADED:
                check_trade(node, link)
        net.closed.clear()

    net.watch = watch
    for at in sorted(losses):
        net.run(max(0.0, at - net.now))
        one = net.nodes[rng.randrange(count)]
        if one.neighbours:
            net.lose(one, net.nodes[rng.choice(sorted(one.neighbours))])
    net.run(300 - net.now)


def links(node: Node) -> int:
    return len(node.overlay.membership)


def check_trade(node: Node, far: Link) -> None:
    """Whoever lets a link go has enough at that moment, whatever else has been lost, and the last
    who came is closer."""
    assert links(node) >= node.config.overlay.links_min
    assert randoms(node) >= node.config.overlay.random_min
    newest = list(node.overlay.membership.neighbours.values())[-1].link
    assert newest.purpose is Purpose.CLOSER
    assert newest.round_trips.mean_s is not None
    assert far.round_trips.mean_s is not None
    assert newest.round_trips.mean_s < MARKET.trading.ratio * far.round_trips.mean_s
