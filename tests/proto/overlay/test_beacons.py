"""Beacons: every fragment agrees on one leader, and about how many it is."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshwalk.config import HealingConfig
from meshwalk.identity.keys import sign_beacon
from meshwalk.proto.overlay.beacons import AGE_MS, ELECTION_S, LEADERS_MAX
from meshwalk.sim.node import UNIX_START_S
from meshwalk.sim.signatures import CheapSignatures
from meshwalk.wire.frames import CloseReason
from meshwalk.wire.messages import Beacon
from meshwalk.wire.records import BeaconPayload, decode_beacon_payload, decode_signed

from .knowing import Net, Node, config, peer_of

HEALING = HealingConfig(epoch_beacons=16)
CONFIG = config(links_max=40, healing=HEALING)
INTERVAL_S, TIMEOUT_S = HEALING.beacon_interval_s, HEALING.beacon_timeout_s
UNIX_START_MS = int(UNIX_START_S * 1e3)


def node(net: Net) -> Node:
    """A node that does nothing but beacons."""
    made = net.add(CONFIG)
    made.overlay.beacons.start(net.now)
    return made


def path(count: int, seed: int = 0) -> tuple[Net, list[Node]]:
    net = Net(seed)
    nodes = [node(net) for _ in range(count)]
    for one, two in itertools.pairwise(nodes):
        net.link(one, two)
    return net, nodes


def leaders(nodes: list[Node]) -> set[int]:
    return {n.net.number_of[n.overlay.beacons.leader] for n in nodes if n.overlay.beacons.leader}


def beacon(leader: int, counter: int, epoch: int = 1, sketch: list[int] | None = None) -> Beacon:
    """A genuine beacon of any leader."""
    payload = BeaconPayload(bytes(peer_of(leader)), counter, epoch)
    return Beacon(sign_beacon(payload, CheapSignatures(peer_of(leader))), sketch or [], 0)


def beacon_of(body: Beacon) -> BeaconPayload:
    return decode_beacon_payload(decode_signed(body.beacon).payload)


# One node.


def test_a_node_alone_is_a_fragment_of_one() -> None:
    net = Net()
    alone = node(net)
    beacons = alone.overlay.beacons
    assert (beacons.leader, beacons.heard_at, beacons.blob) == (None, None, b"")
    assert not beacons.is_fresh(net.now)
    net.run(INTERVAL_S)
    assert beacons.leader == alone.id
    assert beacons.size == 1
    assert beacons.is_fresh(net.now)
    assert beacons.heard_at is not None
    assert UNIX_START_S <= beacons.heard_at <= UNIX_START_S + INTERVAL_S


def test_a_new_neighbour_is_told_at_once() -> None:
    net, (one, two) = path(2)
    net.run(INTERVAL_S)
    third = node(net)
    net.link(third, two)
    net.run(0.2)
    assert third.overlay.beacons.leader == one.id
    assert third.overlay.beacons.size == 3


def test_whoever_is_smaller_leads_at_once() -> None:
    net = Net()
    small, large = node(net), node(net)
    net.run(INTERVAL_S)
    assert leaders([small, large]) == {0, 1}
    net.link(small, large)
    net.run(0.2)
    assert leaders([small, large]) == {0}


def test_a_larger_leader_is_told_of_the_smaller() -> None:
    net, (one, two) = path(2)
    net.run(INTERVAL_S)
    before = len([said for said in net.of(Beacon) if said.by is two])
    net.say(one, two, beacon(9, UNIX_START_MS))
    net.run(0.2)
    assert two.overlay.beacons.leader == one.id
    assert two.overlay.beacons.counts["larger leader"] == 1
    assert len([said for said in net.of(Beacon) if said.by is two]) == before + 1


def test_a_forged_beacon_ends_the_link_and_changes_nothing() -> None:
    net, (one, two) = path(2)
    net.run(INTERVAL_S)
    good = beacon(0, UNIX_START_MS * 2)
    net.say(two, one, Beacon(good.beacon[:-1] + bytes([good.beacon[-1] ^ 1]), [], 0))
    net.say(two, one, Beacon(b"", [], 0))
    net.run(0.2)
    assert [reason for *_, reason in net.closed] == [CloseReason.PROTOCOL]
    assert one.overlay.beacons.leader == one.id


def test_a_flood_of_genuine_beacons_is_bounded() -> None:
    net, (one, two, three) = path(3)
    net.run(INTERVAL_S)
    before = len([said for said in net.of(Beacon) if said.to is three])
    numbers = [peer_of(500 - n) for n in range(300)]
    for number, peer in enumerate(numbers):
        net.number_of[peer] = 500 - number
        net.say(one, two, beacon(500 - number, UNIX_START_MS + number))
    net.run(0.2)
    assert two.overlay.beacons.counts["too fast"] >= 300 - HEALING.beacons_per_link_burst
    assert two.neighbours == {0, 2}
    assert len([said for said in net.of(Beacon) if said.to is three]) == before
    net.run(60)
    for number in range(100):  # as fast as they are taken
        net.say(one, two, beacon(500 - number, UNIX_START_MS + 1000 + number))
        net.run(0.45)
    fresh = [p for p in numbers if two.overlay.beacons.is_of_ours(bytes(p), net.now)]
    assert len(fresh) == LEADERS_MAX - 1  # and their own


def test_its_own_beacon_of_an_earlier_run_is_surpassed() -> None:
    """A leader restarts with its clock set back, and its neighbours know a higher number."""
    net, (one, two) = path(2)
    net.run(100)
    net.crash(one)
    net.run(1)
    net.nodes[0] = one = Node(net, 0, CONFIG, one.host, net.now)
    one.overlay.walks.stop()
    one.overlay.book.unix_offset_s = UNIX_START_S - 10_000
    one.overlay.beacons.start(net.now)
    net.link(one, two)
    net.run(2 * INTERVAL_S)
    led = two.overlay.beacons.counts["passed on"]
    net.run(4 * INTERVAL_S)
    assert leaders([one, two]) == {0}
    assert two.overlay.beacons.counts["passed on"] >= led + 3


def test_a_leader_whose_clock_was_set_back_is_told_its_number() -> None:
    """A defect: known to all by a higher number, it led alone until its clock had caught up."""
    net, (one, two, three) = path(3)
    net.run(100)
    net.crash(one)
    net.run(2 * TIMEOUT_S)
    assert leaders([two, three]) == {1}
    epochs = {beacon_of(said.body).epoch for said in net.of(Beacon) if said.by is one}
    net.nodes[0] = one = Node(net, 0, CONFIG, one.host, net.now)
    one.overlay.walks.stop()
    one.overlay.book.unix_offset_s = UNIX_START_S - 10_000
    one.overlay.beacons.start(net.now)
    begins = net.now
    net.run(INTERVAL_S)  # alone, by its own number
    net.link(one, two)
    net.run(2 * INTERVAL_S)
    assert two.overlay.beacons.counts["leader set back"] in (1, 2, 3)
    assert leaders([one, two, three]) == {0}
    net.run(10 * INTERVAL_S)
    assert two.overlay.beacons.counts["leader set back"] in (1, 2, 3)
    assert [n.overlay.beacons.size for n in (one, two, three)] == [3, 3, 3]
    said = [beacon_of(s.body) for s in net.of(Beacon) if s.by is one and s.at >= begins]
    assert said[-1].epoch > max(epochs)


def test_only_the_leader_itself_is_told_its_number() -> None:
    net, (one, two, three) = path(3)
    net.run(100)
    old = next(said.body for said in net.of(Beacon) if said.by is one)
    before = sum(said.by is two for said in net.of(Beacon))
    net.say(three, two, old)
    net.run(0.2)
    assert sum(said.by is two for said in net.of(Beacon)) == before
    assert two.overlay.beacons.counts["leader set back"] == 0


def test_a_beacon_of_long_ago_takes_no_lead() -> None:
    """Whoever kept one of a small PeerId could say it to those who have come since."""
    net = Net()
    one, two = (net.add(CONFIG, number=number) for number in (5, 6))
    for each in (one, two):
        each.overlay.beacons.start(net.now)
    net.link(one, two)
    net.run(INTERVAL_S + 1)
    net.say(two, one, beacon(0, UNIX_START_MS - AGE_MS))
    net.run(1)
    assert leaders([one, two]) == {5}
    net.number_of[peer_of(0)] = 0
    net.say(two, one, beacon(0, UNIX_START_MS - AGE_MS // 2))  # clocks differ by so much
    net.run(1)
    assert leaders([one]) == {0}


@pytest.mark.parametrize(
    ("wrong", "days", "leader", "next_leader"),
    [
        (0, -3, 1, 2),
        (0, 3, 0, 1),
        (2, 3, 2, 0),
        (2, -3, 0, 1),
        (1, 1.5, 1, 0),
        (1, 1, 0, 1),
        (3, 20000, 3, 0),
    ],
)
def test_a_node_whose_clock_is_wrong_by_days_is_of_the_same_fragment(
    wrong: int, days: float, leader: int, next_leader: int
) -> None:
    net = Net()
    nodes = [net.add(CONFIG) for _ in range(4)]
    nodes[wrong].overlay.book.unix_offset_s += days * 86_400
    for each in nodes:
        each.overlay.beacons.start(net.now)
    for one, two in itertools.combinations(nodes, 2):
        net.link(one, two)
    net.run(2 * INTERVAL_S)
    for _ in range(10):
        net.run(INTERVAL_S)
        assert leaders(nodes) == {leader}
    net.run(16 * INTERVAL_S)
    assert {n.overlay.beacons.size for n in nodes} == {4}
    net.crash(nodes.pop(leader))
    net.run(TIMEOUT_S + 2 * ELECTION_S)
    assert leaders(nodes) == {next_leader}


def test_after_waking_a_node_listens_before_it_claims_to_lead() -> None:
    net, (one, two) = path(2)
    net.run(100)
    led = two.overlay.beacons.counts["led"]
    net.lose(one, two)
    net.now += 1000  # asleep
    net.do(two, two.overlay.woke(net.now))
    net.run(INTERVAL_S - 1)
    assert two.overlay.beacons.counts["led"] == led
    net.run(ELECTION_S + 2)
    assert leaders([two]) == {1}


# A leader that is gone.


def test_when_a_leader_dies_the_next_smallest_takes_its_place() -> None:
    net, nodes = path(5)
    net.run(60)
    net.crash(nodes[0])
    net.run(TIMEOUT_S - INTERVAL_S - 1)
    assert leaders(nodes[1:]) == {0}  # it may come back yet
    net.run(INTERVAL_S + ELECTION_S + 2)
    assert leaders(nodes[1:]) == {1}


def test_old_beacons_of_a_dead_leader_never_revive_it() -> None:
    net, nodes = path(5)
    net.run(100)
    old = [said.body for said in net.of(Beacon) if said.by is nodes[0]]
    net.crash(nodes[0])
    net.run(2 * TIMEOUT_S)
    passed_on = [n.overlay.beacons.counts["passed on"] for n in nodes]
    now = net.now
    for body in old:
        net.say(nodes[4], nodes[3], body)
        net.say(nodes[1], nodes[2], body)
        net.run(1)
    assert leaders(nodes[1:]) == {1}
    assert not nodes[2].overlay.beacons.is_of_ours(bytes(nodes[0].id), net.now)
    rounds = (net.now - now) / INTERVAL_S + 1
    again = [n.overlay.beacons.counts["passed on"] for n in nodes]
    assert all(b - a <= rounds for a, b in zip(passed_on, again, strict=True))


def test_members_that_left_are_not_counted_for_ever() -> None:
    net, nodes = path(8)
    net.run(300)
    assert {n.overlay.beacons.size for n in nodes} == {8}
    for gone in nodes[4:]:
        net.crash(gone)
    net.run(2 * 16 * INTERVAL_S)
    assert {n.overlay.beacons.size for n in nodes[:4]} == {4}


# Any network.


@st.composite
def graphs(draw: st.DrawFn) -> tuple[int, list[tuple[int, int]]]:
    """A connected graph: a tree in which the smallest may be anywhere, and some more edges."""
    count = draw(st.integers(2, 9))
    order = draw(st.permutations(range(count)))
    edges = {tuple(sorted((order[n], order[draw(st.integers(0, n - 1))]))) for n in range(1, count)}
    for _ in range(draw(st.integers(0, 8))):
        one, two = draw(st.integers(0, count - 1)), draw(st.integers(0, count - 1))
        if one != two:
            edges.add(tuple(sorted((one, two))))
    return count, sorted((a, b) for a, b in edges)


@settings(max_examples=40)
@given(graphs(), st.sampled_from([0.01, 0.2, 1.0]), st.integers(0, 2**16))
def test_any_connected_network_agrees_on_the_smallest_that_lives(
    graph: tuple[int, list[tuple[int, int]]], slowest_s: float, seed: int
) -> None:
    count, edges = graph
    net = Net(seed, (0.001, slowest_s))
    nodes = [node(net) for _ in range(count)]
    for a, b in edges:
        net.link(nodes[a], nodes[b])
    net.run(3 * INTERVAL_S)
    assert leaders(nodes) == {0}
    net.run(2 * HEALING.epoch_beacons * INTERVAL_S)
    assert {n.overlay.beacons.size for n in nodes} == {count}
    # Each link bears two beacons in an interval, and now and then one back.
    begins = net.now
    net.run(10 * INTERVAL_S)
    said = Counter(said.link for said in net.of(Beacon) if said.at > begins)
    assert all(times <= 2 * 11 for times in said.values())
    assert not any(n.overlay.beacons.counts["too fast"] for n in nodes)

    net.crash(nodes[0])
    net.run(TIMEOUT_S + ELECTION_S + 3 * INTERVAL_S)
    for fragment in fragments(nodes[1:]):
        assert leaders(fragment) == {min(n.number for n in fragment)}


def fragments(nodes: list[Node]) -> list[list[Node]]:
    """The connected parts of what is left."""
    found: list[list[Node]] = []
    left = {n.number: n for n in nodes}
    while left:
        fragment = [left.pop(min(left))]
        for member in fragment:
            fragment += [left.pop(n) for n in sorted(member.neighbours) if n in left]
        found.append(fragment)
    return found
