"""Standing links as they open and end: who is a neighbour by which, and what is told of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshwalk.events import Alone, Joined, NeighbourDown, NeighbourUp
from meshwalk.proto.link import Link
from meshwalk.wire.frames import CloseReason, Purpose
from meshwalk.wire.messages import SplitRequest

from .bench import Bench, connects, disconnects, host_of, peer_of, record_of, request
from .knowing import Net, Node, config

CONFIG = config(links_max=3)


def pair() -> tuple[Net, Node, Node]:
    net = Net()
    return net, net.add(CONFIG), net.add(CONFIG)


def told(node: Node) -> list[type]:
    return [type(event) for event in node.events]


def test_the_first_neighbour_is_told_and_the_last() -> None:
    net, one, two = pair()
    three = net.add(CONFIG)
    net.link(one, two)
    net.link(one, three)
    assert told(one) == [NeighbourUp, Joined, NeighbourUp]
    net.lose(one, two)
    net.lose(one, three)
    assert told(one)[3:] == [NeighbourDown, NeighbourDown, Alone]
    down = [e for e in one.events if isinstance(e, NeighbourDown)]
    assert [(e.peer, e.reason, e.by_us, e.neighbours) for e in down] == [
        (two.id, "lost", False, 1),
        (three.id, "lost", False, 0),
    ]


def test_who_leaves_is_not_told_that_it_is_alone() -> None:
    net, one, two = pair()
    net.link(one, two)
    net.leave(one)
    assert Alone not in told(one)
    net.run(1)
    assert told(two)[-2:] == [NeighbourDown, Alone]


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("is_at_once", [False, True])
def test_when_both_dial_both_keep_the_smaller_ones_link(first: int, is_at_once: bool) -> None:
    net, one, two = pair()
    net.link(*((one, two) if first == 0 else (two, one)))
    if not is_at_once:
        net.run(5)
    net.link(*((two, one) if first == 0 else (one, two)))
    net.run(1)
    assert one.link_to(two).outbound
    assert not two.link_to(one).outbound
    # The loser is closed by the end that dialled the winner: there that is open last.
    assert [(n, why) for _, n, _, why in net.closed] == [(one, CloseReason.DUPLICATE)]
    assert len(one.ends) == len(two.ends) == 1
    assert told(one) == told(two) == [NeighbourUp, Joined]


def test_a_second_link_dialled_by_the_same_end_changes_nothing() -> None:
    net, one, two = pair()
    net.link(one, two)
    stands = one.link_to(two)
    net.link(one, two)
    net.run(1)
    assert one.link_to(two) is stands
    assert told(one) == [NeighbourUp, Joined]


def test_beyond_the_maximum_a_link_is_closed_unless_it_heals() -> None:
    net = Net()
    one = net.add(CONFIG)
    guests = [net.add(CONFIG) for _ in range(8)]
    for guest in guests[:4]:
        net.link(guest, one)
    net.run(1)
    assert one.neighbours == {g.number for g in guests[:3]}
    assert [(n, why) for _, n, _, why in net.closed] == [(one, CloseReason.FULL)]
    assert not guests[3].neighbours
    for guest in guests[4:]:
        net.link(guest, one, Purpose.HEALING)
    net.run(1)
    places = CONFIG.overlay.links_max + CONFIG.overlay.healing_places
    assert len(one.neighbours) == places
    assert len(net.closed) == 1 + 4 - CONFIG.overlay.healing_places


def test_only_walks_bring_random_links() -> None:
    net = Net()
    one = net.add(config(links_max=12))
    for purpose, is_random in (
        (Purpose.JOIN_ACCEPT, True),
        (Purpose.JOIN_SPLIT, True),
        (Purpose.STANDING, True),
        (Purpose.CLOSER, False),
        (Purpose.HEALING, False),
        (Purpose.HANDOVER, False),
    ):
        guest = net.add(CONFIG)
        net.link(guest, one, purpose)
        assert one.overlay.membership.neighbours[guest.id].is_random is is_random


def beyond_the_maximum() -> tuple[Bench, Link]:
    """A node with six links of four, two of which heal; and one of the others."""
    bench = Bench(links_min=2, links_max=4)
    links = [bench.neighbour(n) for n in range(1, 5)]
    for n in (90, 91):
        bench.open(bench.link(n, Purpose.HEALING, outbound=True))
    assert len(bench.overlay.membership) == 6
    return bench, links[0]


def test_who_is_promised_anothers_place_gets_it_beyond_the_maximum_too() -> None:
    """A defect: the other was dropped, and the newcomer refused as well."""
    bench, asker = beyond_the_maximum()
    bench.hear(asker, request(50, reach="", token=b"t"))
    newcomer = bench.link(50, Purpose.STANDING, token=b"t")
    assert bench.overlay.asked(newcomer, bench.hello(newcomer), 0.0) is None
    assert [d.reason for d in disconnects(bench.open(newcomer))] == [CloseReason.SPLIT]
    assert peer_of(50) in bench.overlay.membership.neighbours
    assert len(bench.overlay.membership) == 6


def test_who_splits_a_link_beyond_the_maximum_has_one_for_one() -> None:
    bench, asker = beyond_the_maximum()
    (connect,) = connects(bench.hear(asker, SplitRequest(record_of(51), b"s", host_of(51))))
    _, effects = bench.succeed(connect, 51, 0.0)
    assert [(d.link, d.reason) for d in disconnects(effects)] == [(asker.number, CloseReason.SPLIT)]
    assert peer_of(51) in bench.overlay.membership.neighbours
    assert len(bench.overlay.membership) == 6


def test_who_splits_a_link_that_is_gone_has_no_place_for_it() -> None:
    bench, asker = beyond_the_maximum()
    (connect,) = connects(bench.hear(asker, SplitRequest(record_of(51), b"s", host_of(51))))
    bench.end(asker)
    newcomer, effects = bench.succeed(connect, 51, 0.0)
    assert [(d.link, d.reason) for d in disconnects(effects)] == [
        (newcomer.number, CloseReason.FULL)
    ]
    assert len(bench.overlay.membership) == 5


@pytest.mark.parametrize("beyond", [0, 2])
def test_a_full_node_gets_its_random_links_back(beyond: int) -> None:
    """A defect: who had enough links that it had not chosen kept them, and looked for no others."""
    bench = Bench(links_min=2, links_max=4)
    for n in range(1, 5):
        bench.open(bench.link(n, Purpose.CLOSER, outbound=True), float(n))
    for n in range(90, 90 + beyond):
        bench.open(bench.link(n, Purpose.HEALING, outbound=True), 5.0)
    membership = bench.overlay.membership
    for n in (50, 51):
        assert membership.missing == 52 - n
        now = 5.0
        while not (walks := bench.overlay.walks.walks):
            bench.tick_until(now := now + 0.1)
        newcomer = bench.link(n, Purpose.JOIN_ACCEPT, token=next(iter(walks)))
        assert bench.overlay.asked(newcomer, bench.hello(newcomer), now) is None
        effects = bench.open(newcomer, now)
        assert [d.reason for d in disconnects(effects)] == [CloseReason.SPLIT]
        assert len(membership) == 4 + beyond
    assert membership.randoms == 2
    assert membership.missing == 0
    assert {peer_of(90 + n) for n in range(beyond)} < set(membership.neighbours)


@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.integers(0, 4), st.booleans(), st.floats(0, 0.2)),
        max_size=30,
    ),
    st.integers(0, 2**16),
)
def test_both_ends_come_to_the_same_neighbours(
    steps: list[tuple[int, int, bool, float]], seed: int
) -> None:
    """Links come from both sides and go, at any time: in the end both have one link, or none."""
    net = Net(seed)
    nodes = [net.add(CONFIG) for _ in range(5)]
    for a, b, is_lost, pause_s in steps:
        if is_lost:
            net.lose(nodes[a], nodes[b])
        elif a != b:
            net.link(nodes[a], nodes[b])
        net.run(pause_s)
        assert all(len(n.overlay.membership) <= CONFIG.overlay.links_max for n in nodes)
    net.run(10)
    for node in nodes:
        assert len(node.ends) == len(node.neighbours)
        for number in node.neighbours:
            assert node.number in nodes[number].neighbours
        ups = sum(isinstance(e, NeighbourUp) for e in node.events)
        downs = sum(isinstance(e, NeighbourDown) for e in node.events)
        assert ups - downs == len(node.neighbours)
