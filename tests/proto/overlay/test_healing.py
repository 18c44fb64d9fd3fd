"""Two fragments become one: who finds the other, which side joins, and what it may not cost."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshwalk.config import Config, ProbingConfig
from meshwalk.events import FragmentFound
from meshwalk.identity.keys import sign_beacon
from meshwalk.proto.overlay.bookentry import NEVER
from meshwalk.proto.overlay.effects import Connect, Say
from meshwalk.proto.overlay.healing import PROMISES_MAX
from meshwalk.sim.node import UNIX_START_S
from meshwalk.sim.signatures import CheapSignatures
from meshwalk.wire.frames import CloseReason, Purpose
from meshwalk.wire.messages import (
    FragmentAsked,
    FragmentOutcome,
    FragmentTold,
    JoinRequest,
)
from meshwalk.wire.peerid import PeerId
from meshwalk.wire.records import BeaconPayload, decode_peer_record, decode_signed

from .knowing import Net, Node, config, peer_of

# No random links are kept: nobody walks but to heal.
CONFIG = config(links_max=8, links_random_min=0, probing=ProbingConfig(interval_s=10.0))
HEALING = CONFIG.healing


def fragment(net: Net, count: int, settings: Config = CONFIG) -> list[Node]:
    """A path of nodes that have beacons, and do nothing else of their own."""
    nodes = [net.add(settings, walks=True) for _ in range(count)]
    for node in nodes:
        node.overlay.beacons.start(net.now)
    for one, two in itertools.pairwise(nodes):
        net.link(one, two)
    return nodes


def two_fragments(one: int, two: int, seed: int = 0) -> tuple[Net, list[Node], list[Node]]:
    net = Net(seed)
    fragments = fragment(net, one), fragment(net, two)
    net.run(150)  # two epochs would be more: in these small ones all are counted by now
    return net, *fragments


def probe(net: Net, one: Node, two: Node) -> None:
    """Have one test the other, now."""
    net.hears_of(one, two)
    for entry in one.overlay.book.entries.values():
        entry.tested_at = NEVER
        entry.test_begun_at = NEVER if entry.peer == two.id else net.now
    one.overlay.probing._next_at = net.now
    net.do(one, one.overlay.tick("probing", net.now))
    one.overlay.probing._next_at = float("inf")


def outcomes(net: Net) -> list[FragmentOutcome]:
    return [said.body.outcome for said in net.of(FragmentTold)]


def walkers(net: Net, one: Node, two: Node) -> set[int]:
    """Who of two has sent walks of its own over the link between the two."""
    return {
        said.by.number
        for said in net.of(JoinRequest)
        if {said.by, said.to} == {one, two} and origin(said.body) == said.by.id
    }


def origin(request: JoinRequest) -> PeerId:
    return decode_peer_record(decode_signed(request.record).payload).peer_id


def beacon_blob(leader: int) -> bytes:
    payload = BeaconPayload(bytes(peer_of(leader)), int(UNIX_START_S * 1e3), 1)
    return sign_beacon(payload, CheapSignatures(peer_of(leader)))


@pytest.mark.parametrize(("asker", "asked"), [(3, 2), (3, 3)])
def test_if_the_asker_is_of_as_many_or_more_the_other_joins(asker: int, asked: int) -> None:
    net, ours, theirs = two_fragments(asker, asked)
    probe(net, ours[0], theirs[0])
    net.run(5)
    assert outcomes(net) == [FragmentOutcome.JOINING]
    assert theirs[0].number in ours[0].neighbours
    assert walkers(net, ours[0], theirs[0]) == {theirs[0].number}
    assert len(net.closed) == 1  # the probe


def test_if_the_asker_is_of_fewer_it_joins() -> None:
    net, ours, theirs = two_fragments(2, 3)
    probe(net, ours[0], theirs[0])
    net.run(5)
    assert outcomes(net) == [FragmentOutcome.JOIN_US]
    assert theirs[0].number in ours[0].neighbours
    assert walkers(net, ours[0], theirs[0]) == {ours[0].number}


def test_both_go_by_the_smaller_leader_then_and_know_how_many_they_are() -> None:
    net, ours, theirs = two_fragments(3, 2)
    probe(net, theirs[1], ours[2])
    net.run(300)
    assert {n.overlay.beacons.leader for n in net.nodes} == {ours[0].id}
    assert {n.overlay.beacons.size for n in net.nodes} == {5}


def test_the_joiner_walks_for_more_than_one_link() -> None:
    net, ours, theirs = two_fragments(6, 2)
    probe(net, ours[3], theirs[1])
    net.run(10)
    joiner = theirs[1]
    between = {n for n in joiner.neighbours if n in {o.number for o in ours}}
    assert len(between) == 1 + HEALING.walks


def test_the_application_hears_of_the_other_fragment() -> None:
    net, ours, theirs = two_fragments(2, 3)
    probe(net, ours[0], theirs[0])
    net.run(5)
    found = [e for e in ours[0].events if isinstance(e, FragmentFound)]
    assert found == [FragmentFound(theirs[0].id, 3, 2)]


def test_within_one_fragment_nothing_happens() -> None:
    net = Net()
    nodes = fragment(net, 4)
    net.run(100)
    probe(net, nodes[0], nodes[3])
    net.run(5)
    assert outcomes(net) == [FragmentOutcome.SAME]
    assert [c.purpose for _, _, c in net.dials] == [Purpose.PROBE]


def test_whoever_has_no_fresh_beacon_claims_nothing() -> None:
    net = Net()
    ours, theirs = fragment(net, 2), [net.add(CONFIG)]
    net.run(100)
    probe(net, ours[0], theirs[0])
    net.run(5)
    probe(net, theirs[0], ours[0])
    net.run(5)
    assert outcomes(net) == [FragmentOutcome.SAME] * 2


def test_a_node_takes_part_once_in_a_while() -> None:
    net, ours, theirs = two_fragments(2, 2)
    third = fragment(net, 2)
    net.run(60)
    probe(net, ours[0], theirs[0])
    net.run(5)
    probe(net, third[0], ours[0])
    net.run(5)
    assert outcomes(net) == [FragmentOutcome.JOINING, FragmentOutcome.BUSY]
    net.run(HEALING.pause_s)
    probe(net, third[1], ours[0])
    net.run(5)
    assert outcomes(net)[2] is FragmentOutcome.JOIN_US
    assert third[1].number in ours[0].neighbours


def test_a_promise_runs_out() -> None:
    net, ours, theirs = two_fragments(2, 2)
    asker, asked = ours[0], theirs[0]
    told: list[bytes] = []

    def lose_the_answer() -> None:
        told.extend(said.body.token for said in net.of(FragmentAsked) if not told)
        if any(said.by is asked for said in net.of(FragmentTold)):
            net.lose(asker, asked)

    net.watch = lose_the_answer
    probe(net, asker, asked)
    net.run(2)
    assert asked.overlay.healing.invites(told[0], asker.id, net.now)
    assert not asked.overlay.healing.invites(told[0], ours[1].id, net.now)
    net.run(HEALING.promise_s)
    assert not asked.overlay.healing.invites(told[0], asker.id, net.now)
    assert asker.number not in asked.neighbours


def test_who_comes_without_a_promise_is_turned_away() -> None:
    net, ours, theirs = two_fragments(2, 2)
    address = theirs[0].overlay.membership  # somebody is there
    assert address is not None
    remote = ours[0].link_to(ours[1]).remote
    net.do(ours[0], [Connect(77, remote, ours[1].id, Purpose.HEALING, b"a token of nobody's")])
    net.run(2)
    assert net.closed == []
    assert len(ours[1].neighbours) == 1


# Hostile peers.


def test_a_forged_beacon_ends_the_probe() -> None:
    net, ours, theirs = two_fragments(2, 2)
    blob = beacon_blob(50)
    ours[0].overlay.beacons._blob = blob[:-1] + bytes([blob[-1] ^ 1])
    probe(net, ours[0], theirs[0])
    net.run(5)
    assert [(n, why) for _, n, _, why in net.closed] == [(theirs[0], CloseReason.PROTOCOL)]
    assert outcomes(net) == []


def test_a_probe_may_ask_once() -> None:
    net, ours, theirs = two_fragments(2, 2)
    probe(net, ours[0], theirs[0])
    while not outcomes(net):
        net.run(0.01)
    end = next(end for end in ours[0].ends.values() if end.link.purpose is Purpose.PROBE)
    net.do(ours[0], [Say(end.link.number, 1, FragmentAsked(b"", 1, b"t"))])
    net.run(0.2)
    assert (theirs[0], CloseReason.PROTOCOL) in [(n, why) for _, n, _, why in net.closed]


def test_the_question_is_for_probes_only() -> None:
    net, ours, _ = two_fragments(2, 2)
    net.closed.clear()
    net.say(ours[0], ours[1], FragmentAsked(b"", 1, b"t"))
    net.run(0.3)
    assert net.closed[0][1] is ours[1]
    assert net.closed[0][3] is CloseReason.PROTOCOL


def test_an_answer_to_no_question_is_ignored() -> None:
    net, ours, theirs = two_fragments(2, 2)
    told = FragmentTold(beacon_blob(50), 1000, FragmentOutcome.JOIN_US)
    for _ in range(20):
        net.say(ours[0], ours[1], told)
    net.run(5)
    assert net.dials == []
    assert theirs


def test_many_that_ask_and_do_not_come_are_promised_no_more_than_may_be() -> None:
    net, _, theirs = two_fragments(1, 3)
    askers = [fragment(net, 1)[0] for _ in range(PROMISES_MAX + 10)]
    net.run(60)
    net.said.clear()

    def fall_silent() -> None:
        for said in net.of(FragmentAsked):
            said.by.is_silent = True

    net.watch = fall_silent
    for asker in askers:
        probe(net, asker, theirs[0])
    net.run(2)
    asked = theirs[0].overlay.healing
    assert sum(asked.counts.values()) == len(askers)
    questions = [(said.body.token, said.by.id) for said in net.of(FragmentAsked)]
    promised = {peer for token, peer in questions if asked.invites(token, peer, net.now)}
    assert len(promised) == PROMISES_MAX
    # Or whoever asks often enough could push out all that are on the way.
    first = [said.to.id for said in net.of(FragmentTold)][:PROMISES_MAX]
    assert promised == set(first)
    assert asked.counts["asked: busy"] == 10


def bridges(net: Net, node: Node) -> int:
    found = node.overlay.membership.neighbours.values()
    return sum(n.link.purpose is Purpose.HEALING for n in found)


def test_of_many_that_were_promised_a_place_one_comes() -> None:
    """A defect: they could all come in one instant, and take every place."""
    net, _, theirs = two_fragments(1, 3)
    askers = [fragment(net, 1)[0] for _ in range(6)]
    net.run(60)
    for asker in askers:
        probe(net, asker, theirs[0])
    net.run(5)
    promised = {FragmentOutcome.JOINING, FragmentOutcome.JOIN_US}
    assert sum(outcome in promised for outcome in outcomes(net)) > 1
    assert bridges(net, theirs[0]) == 1
    assert sum(a.overlay.healing.counts["dial failed"] for a in askers) > 0


def test_in_a_long_time_a_node_gets_few_bridges() -> None:
    net, _, theirs = two_fragments(1, 3)
    for _ in range(6):
        asker = fragment(net, 1)[0]
        net.run(60 + HEALING.pause_s)
        asker.overlay.beacons.neighbour_up = lambda *_: None  # type: ignore[method-assign]
        probe(net, asker, theirs[0])
        net.run(5)
    assert bridges(net, theirs[0]) == CONFIG.overlay.healing_places + 1
    assert FragmentOutcome.BUSY in outcomes(net)


def test_several_nodes_of_a_fragment_heal_at_the_same_time() -> None:
    net, ours, theirs = two_fragments(3, 3)
    for one, two in zip(ours, theirs, strict=True):
        probe(net, one, two)
    net.run(5)
    assert [bridges(net, node) for node in net.nodes] == [1] * 6


# Whatever happens.


@settings(max_examples=15)
@given(
    st.lists(st.integers(1, 4), min_size=2, max_size=3),
    st.integers(3, 4),
    st.integers(0, 2**16),
)
def test_fragments_find_each_other_and_nobody_drops_a_link(
    sizes: list[int], links_max: int, seed: int
) -> None:
    """Full nodes take part, within their places for it; one side walks; what stood goes on."""
    net = Net(seed)
    settings = config(
        links_max=links_max, links_random_min=0, probing=ProbingConfig(interval_s=20.0, pings=3)
    )
    fragments: list[list[Node]] = []
    for size in sizes:
        fragments.append(fragment(net, size, settings))
        full = fragments[-1][-1]
        while len(full.neighbours) < links_max:  # leaves that know nobody else
            leaf = net.add(settings, walks=True)
            leaf.overlay.beacons.start(net.now)
            net.link(leaf, full)
            fragments[-1].append(leaf)

    def watch() -> None:
        for node in net.nodes:
            count = len(node.overlay.membership)
            assert count <= links_max + node.config.overlay.healing_places

    net.run(100)
    net.watch = watch
    for number, members in enumerate(fragments):
        for other in fragments[:number] + fragments[number + 1 :]:
            for member in members:
                net.hears_of(member, other[seed % len(other)])
                member.overlay.probing.start(net.now)
    net.run(250)
    # Walks into the other fragment may end in a split, which gives two links for one.
    fine = {CloseReason.DONE, CloseReason.DUPLICATE, CloseReason.SPLIT}
    assert {reason for *_, reason in net.closed} <= fine
    assert {n.overlay.beacons.leader for n in net.nodes} == {net.nodes[0].id}
    healed = [(by, c) for _, by, c in net.dials if c.purpose is Purpose.HEALING]
    for by, connect in healed:
        to = next(n for n in net.nodes if n.id == connect.expected)
        assert len(walkers(net, by, to)) <= 1
