"""Whole networks: a tree that reaches all at little cost, and what brings back what was missed."""

from __future__ import annotations

from collections import Counter

import pytest

from meshwalk.config import BroadcastConfig, Config, LinkConfig
from meshwalk.proto.broadcast.gossip import Gossip
from meshwalk.proto.effects import BroadcastsMissed, ReceiptCame
from meshwalk.sim.node import UNIX_START_S, SimNode
from meshwalk.sim.signatures import CheapSignatures
from meshwalk.wire.frames import ContentType
from meshwalk.wire.records import ASKS_RECEIPT, ASKS_TRACE, Domain
from proto.settled import grown
from recorder import RecordedWorld

from .scene import peer

SETTLES_S = 4.0  # asking of two in turn, and room
PATIENT = Config(link=LinkConfig(idle_timeout_s=120.0, ping_interval_s=30.0))


def warmed(count: int, seed: int, config: Config | None = None) -> RecordedWorld:
    """A network whose tree has been found."""
    network = grown(count, seed, config)
    for turn in range(10):
        network.up[turn % count].broadcast(b"warm %d" % turn)
        network.run(0.5)
    network.run(SETTLES_S)
    for node in network.nodes:
        network.recorder.deliveries[node].clear()
    return network


def gossips(network: RecordedWorld) -> list[Gossip]:
    return [node.core.gossip for node in network.up]


def copies(network: RecordedWorld) -> int:
    """All that have come, at those that are up."""
    return sum(gossip.counts["copies"] for gossip in gossips(network))


def missed(network: RecordedWorld) -> list[BroadcastsMissed]:
    return [
        effect
        for effects in network.recorder.effects.values()
        for effect in effects
        if type(effect) is BroadcastsMissed
    ]


def say(network: RecordedWorld, origin: SimNode, count: int, every_s: float = 0.1) -> list[bytes]:
    """So many broadcasts, one after the other."""
    bodies = [b"%d of %s" % (n, origin.name.encode()) for n in range(count)]
    for body in bodies:
        origin.broadcast(body)
        network.run(every_s)
    return bodies


def heard_from(network: RecordedWorld, node: SimNode, origin: SimNode) -> list[bytes]:
    return [d.body for d in network.recorder.deliveries[node] if d.origin == origin.id]


def check_heard(network: RecordedWorld, origin: SimNode, bodies: list[bytes]) -> None:
    """Everybody else has heard each once, in order."""
    for node in network.up:
        wanted = [] if node is origin else bodies
        assert heard_from(network, node, origin) == wanted, node


def check_rest(network: RecordedWorld) -> None:
    for gossip in gossips(network):
        assert len(gossip.fetching) == gossip.ordering.held == gossip.intake.waiting == 0


# The tree.


@pytest.mark.parametrize("seed", range(3))
def test_a_broadcast_costs_one_copy_for_each_node(seed: int) -> None:
    network = warmed(50, seed)
    before = copies(network)
    origin = network.up[seed]
    bodies = say(network, origin, 20)
    network.run(SETTLES_S)
    check_heard(network, origin, bodies)
    check_rest(network)
    assert 49 * 20 <= copies(network) - before <= 49 * 20 * 1.1
    assert missed(network) == []


def test_everyone_may_speak_along_the_tree() -> None:
    network = warmed(30, 5)
    before = copies(network)
    for node in network.up:
        node.broadcast(b"from " + node.name.encode())
    network.run(SETTLES_S)
    for node in network.up:
        heard = Counter(network.recorder.bodies(node))
        assert heard == Counter(b"from " + other.name.encode() for other in network.up) - Counter(
            [b"from " + node.name.encode()]
        )
    assert copies(network) - before <= 30 * 29 * 1.3


@pytest.mark.parametrize("seed", range(3))
def test_a_broken_tree_still_reaches_everybody(seed: int) -> None:
    """Those with the most branches crash: what is sent at once after, and all later, arrives."""
    network = warmed(40, seed)
    by_branches = sorted(network.up[1:], key=lambda node: -node.core.gossip.tree.eager)
    for node in by_branches[:6]:
        network.crash(node)
    origin = network.up[0]
    bodies = say(network, origin, 10)
    network.run(SETTLES_S)
    check_heard(network, origin, bodies)
    assert network.run_until(network.is_settled, 30)
    later = say(network, origin, 5)
    network.run(SETTLES_S)
    check_heard(network, origin, bodies + later)
    check_rest(network)


def test_the_last_one_before_silence_arrives_through_a_tree_that_has_just_broken() -> None:
    """No later one shows the gap: only announcements do."""
    network = warmed(40, 7)
    origin = network.up[0]
    by_branches = sorted(network.up[1:], key=lambda node: -node.core.gossip.tree.eager)
    for node in by_branches[:4]:
        network.crash(node, silently=True)
    bodies = say(network, origin, 1)
    network.run(SETTLES_S)
    check_heard(network, origin, bodies)


@pytest.mark.parametrize("seed", range(2))
def test_on_lossy_paths_nothing_is_missed(seed: int) -> None:
    network = warmed(30, seed)
    network.conditions.set_loss(0.05)
    network.changed()
    origin = network.up[3]
    bodies = say(network, origin, 40)
    network.run(15.0)
    check_heard(network, origin, bodies)
    assert missed(network) == []
    check_rest(network)


def test_a_burst_is_bundled_and_arrives_in_order() -> None:
    network = warmed(20, 2)
    origin, before = network.up[4], copies(network)
    bodies = say(network, origin, 1000, every_s=0.0)
    network.run(SETTLES_S)
    check_heard(network, origin, bodies)
    assert copies(network) - before <= 19 * 4 * 1.5, "four bundles"


# What was missed.


def test_a_newcomer_that_catches_up_gets_history_once_and_in_order() -> None:
    network = warmed(15, 3)
    origin = network.up[2]
    bodies = say(network, origin, 30)
    network.run(61.0)  # who comes asks for the minute in which it comes, in any case
    newcomer = network.add()
    newcomer.join(network.up[0])
    assert network.run_until(network.is_settled, 30)
    assert network.recorder.bodies(newcomer) == []
    now = newcomer.time()
    newcomer.do(newcomer.core.catch_up(int(UNIX_START_S * 1000), now))
    network.run(SETTLES_S)
    assert heard_from(network, newcomer, origin) == [b"warm 2", *bodies]
    later = say(network, origin, 3)
    network.run(SETTLES_S)
    assert heard_from(network, newcomer, origin) == [b"warm 2", *bodies, *later]


@pytest.mark.parametrize("seed", range(2))
def test_fragments_that_heal_tell_each_other_what_they_missed(seed: int) -> None:
    network = warmed(20, seed)
    left, right = network.up[:10], network.up[10:]
    network.partition(left, right)
    network.run(60.0)
    assert len(network.components()) > 1
    from_left = say(network, left[0], 10)
    from_right = say(network, right[0], 10)
    network.run(SETTLES_S)
    assert all(from_right[0] not in network.recorder.bodies(node) for node in left)
    network.partition()
    assert network.run_until(lambda: len(network.components()) == 1, 300)
    network.run(30.0)
    check_heard(network, left[0], from_left)
    check_heard(network, right[0], from_right)
    assert missed(network) == []


def test_a_short_cut_within_living_links_loses_nothing() -> None:
    """Links stand, and what was written waits in them."""
    network = warmed(20, 1, PATIENT)
    left, right = network.up[:10], network.up[10:]
    network.partition(left, right)
    from_left, from_right = say(network, left[0], 10), say(network, right[0], 10)
    network.partition()
    network.run(15.0)
    check_heard(network, left[0], from_left)
    check_heard(network, right[0], from_right)


def test_a_restart_delivers_nothing_twice_and_serves_others() -> None:
    network = warmed(12, 4)
    origin, node = network.up[1], network.up[5]
    bodies = say(network, origin, 10)
    network.run(SETTLES_S)
    network.crash(node)
    away = say(network, origin, 5)
    network.restart(node)
    assert network.run_until(network.is_settled, 60)
    network.run(SETTLES_S)
    assert heard_from(network, node, origin) == bodies + away, "each once, over both lives"
    since_ms = int(UNIX_START_S * 1000)
    kept = [d.body for d in node.core.broadcasts_since(since_ms) if d.origin == origin.id]
    assert kept == [b"warm 1", *bodies, *away]


def test_a_pause_loses_nothing() -> None:
    network = warmed(15, 6)
    origin, reader = network.up[1], network.up[8]
    reader.do(reader.core.pause_broadcasts(reader.time()))
    network.run(1.0)
    bodies = say(network, origin, 50)
    network.run(SETTLES_S)
    assert reader.core.gossip.counts["pauses"] == 1
    assert len(network.recorder.deliveries[reader]) < 10, "what was on its way"
    reader.do(reader.core.resume_broadcasts(reader.time()))
    network.run(SETTLES_S)
    check_heard(network, origin, bodies)
    check_rest(network)


# What origins ask, and what they hide.


def ask(network: RecordedWorld, origin: SimNode, asks: int) -> list[ReceiptCame]:
    number, effects = origin.core.broadcast("", ContentType.BYTES, b"who?", network.now, asks)
    origin.do(effects)
    network.run(10.0)
    found = [e for e in network.recorder.effects[origin] if type(e) is ReceiptCame]
    assert all(receipt.number == number for receipt in found)
    return found


@pytest.mark.parametrize("seed", range(2))
def test_all_peers_are_counted(seed: int) -> None:
    network = warmed(40, seed)
    found = ask(network, network.up[seed], ASKS_RECEIPT)
    assert sum(receipt.peers for receipt in found) == 39
    assert [receipt.is_last for receipt in found].count(True) >= 1


def test_every_hop_of_a_traced_one_is_told() -> None:
    network = warmed(25, 1)
    origin = network.up[0]
    found = ask(network, origin, ASKS_RECEIPT | ASKS_TRACE)
    hops = [hop for receipt in found for hop in receipt.hops]
    others = {bytes(node.id) for node in network.up if node is not origin}
    assert Counter(hop.peer for hop in hops) == dict.fromkeys(others, 1)
    reached = {bytes(origin.id)}
    for hop in sorted(hops, key=lambda hop: hop.hops):
        assert hop.parent in reached, "who passed it on had it"
        reached.add(hop.peer)


@pytest.mark.parametrize("seed", range(3))
def test_a_private_one_reaches_everybody_and_does_not_name_its_origin(seed: int) -> None:
    network = warmed(20, seed)
    origin, once = network.up[seed], CheapSignatures(peer(1000 + seed))
    payload = origin.core.draft(
        "", ContentType.TEXT, b"psst", network.now, origin=bytes(once.peer_id)
    )
    signature = once.sign(Domain.BROADCAST, payload)
    number, effects = origin.core.broadcast_draft(payload, 0, network.now, signature=signature)
    assert number == 0
    origin.do(effects)
    network.run(120.0)
    for node in network.up:
        heard = [d for d in network.recorder.deliveries[node] if d.body == b"psst"]
        assert {delivery.origin for delivery in heard} == (
            {once.peer_id} if node is not origin else set()
        )
        assert len(heard) == (node is not origin)
    assert all(gossip.stems.held == 0 for gossip in gossips(network))


def test_work_is_demanded_of_all() -> None:
    network = grown(8, 1, Config(broadcast=BroadcastConfig(difficulty=100_000)))
    network.up[0].broadcast(b"no work at all")
    network.run(SETTLES_S)
    assert not any(network.recorder.bodies(node) for node in network.up)
    assert sum(gossip.counts["without work"] for gossip in gossips(network)) > 0
