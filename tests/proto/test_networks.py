"""Whole networks of the shipped machines on the virtual clock: do they form, mend and rest?"""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from meshwalk.config import Config, LinkConfig, OverlayConfig
from meshwalk.events import (
    Alone,
    EntryFailed,
    Joined,
    LinkClosed,
    LinkOpened,
    NeighbourDown,
    NeighbourUp,
)
from meshwalk.proto.effects import Answered, Ask, SavePeer
from meshwalk.sim.node import UNIX_START_S, SimNode
from meshwalk.wire.address import Address
from meshwalk.wire.frames import ContentType
from recorder import RecordedWorld

from .settled import check_at_rest, check_books_balance, check_broadcasts, grown

NARROW = Config(overlay=OverlayConfig(links_min=4, links_max=6))
LINKS = (LinkOpened, LinkClosed)
PINGS_PER_LINK_PER_MINUTE = 24  # one ping and one pong every 5 s at each end
BEACONS_PER_LINK_PER_MINUTE = 4
FRAMES_PER_TEST = 24  # at each end: a greeting, 20 pings or pongs, question or answer, a goodbye
TESTS_PER_MINUTE = 4  # two of others and two by others, on the mean


# A peer that takes nothing is noticed by the first frame that waits for it.
IMPATIENT = Config(link=LinkConfig(send_buffer_high_bytes=1))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("spacing_s", [0.05, 0.0])
def test_fifty_through_one_entry(seed: int, spacing_s: float) -> None:
    network = RecordedWorld(seed)
    network.grow(50, spacing_s=spacing_s)
    assert network.run_until(network.is_settled, 10)
    check_books_balance(network)
    network.run(20)
    check_at_rest(network)
    check_broadcasts(network, network.up[seed], 40)
    joins = [
        sum(isinstance(e, Joined) for e in network.recorder.events[node]) for node in network.up
    ]
    assert set(joins) == {1}, "nobody was alone again"


@pytest.mark.parametrize("size", range(2, 15))
def test_every_small_size_settles_and_rests(size: int) -> None:
    network = grown(size, size)
    network.run(120)
    check_books_balance(network)
    network.frames_by_node.clear()
    network.dialled.clear()
    tests = sum(node.core.overlay.probing.counts["begun"] for node in network.up)
    downs = sum(
        isinstance(e, NeighbourDown) for node in network.up for e in network.recorder.events[node]
    )
    network.run(120)
    allowed = 0.0
    for node in network.up:
        links = len(node.neighbours) * (PINGS_PER_LINK_PER_MINUTE + BEACONS_PER_LINK_PER_MINUTE)
        # Too few for everybody's minimum: two walks of ten hops in a round, a round in half a
        # minute, at each of up to five nodes, there and back.
        chatter = 150 if size <= 5 else FRAMES_PER_TEST * TESTS_PER_MINUTE
        allowed += links + chatter
        # Chance has some tested more than others.
        assert network.frames_by_node[node] / 2 <= links + 3 * chatter
    assert network.frames_by_node.total() / 2 <= allowed * 1.1
    begun = sum(node.core.overlay.probing.counts["begun"] for node in network.up) - tests
    assert len(network.dialled) == begun, "nobody is dialled but to be tested"
    after = sum(
        isinstance(e, NeighbourDown) for node in network.up for e in network.recorder.events[node]
    )
    assert after == downs


@pytest.mark.parametrize("seed", range(3))
def test_entry_killed(seed: int) -> None:
    network = grown(50, seed)
    network.crash(network.up[0])
    assert network.run_until(network.is_settled, 15)
    check_broadcasts(network, network.up[7], 3)


@pytest.mark.parametrize("seed", range(4))
def test_forty_percent_killed_at_once(seed: int) -> None:
    network = grown(50, seed)
    for node in Random(seed).sample(network.up, 20):
        network.crash(node)
    assert network.run_until(network.is_settled, 15)
    check_broadcasts(network, network.up[0], 20)
    network.run(30)
    check_at_rest(network)


def test_a_third_vanishes_without_a_word() -> None:
    network = grown(30, 1)
    for node in Random(1).sample(network.up, 10):
        network.crash(node, silently=True)
    assert network.run_until(network.is_settled, 45), "15 s of silence, then repair"
    check_broadcasts(network, network.up[0], 3)


def saturated(seed: int) -> RecordedWorld:
    """Everyone has as many links as it may: grown while six were wanted, then four are enough."""
    greedy = Config(overlay=OverlayConfig(links_min=6, links_max=8))
    network = RecordedWorld(seed)
    network.grow(24, greedy)
    network.run(20)
    for node in network.up:
        # The maximum moves to where the node stands: full, whatever comes.
        narrow = OverlayConfig(
            links_min=min(4, len(node.neighbours) - 2), links_max=len(node.neighbours)
        )
        overlay = node.core.overlay
        overlay.membership.config = narrow
        network.recorder.most_links[node] = 0
        assert overlay.membership.is_full
    return network


@pytest.mark.parametrize(
    "kind", [{}, {"listens": False}, {"is_firewalled": True}], ids=["open", "nat", "firewall"]
)
@pytest.mark.parametrize("seed", range(2))
def test_saturated_network_admits(seed: int, kind: dict[str, bool]) -> None:
    network = saturated(seed)
    newcomer = network.add(NARROW, **kind)  # type: ignore[arg-type]
    newcomer.join(network.up[0])
    assert network.run_until(lambda: len(newcomer.neighbours) >= 4, 45)
    network.run(30)
    for node in network.up:
        config = node.core.overlay.membership.config
        assert network.recorder.most_links[node] <= config.links_max
        assert len(node.neighbours) >= config.links_min
    assert len(network.components()) == 1
    assert network.are_mutual()


@pytest.mark.parametrize("seed", range(2))
def test_nodes_that_cannot_be_dialled_join(seed: int) -> None:
    network = grown(20, seed)
    for number in range(8):
        # By turns: behind a NAT, refusing what it announces, silent where it announces.
        node = network.add(listens=number % 3 != 0, is_firewalled=number % 3 == 2)
        node.listens = number % 3 == 2
        node.join(network.up[0])
    assert network.run_until(network.is_settled, 90)
    network.run(60)
    check_at_rest(network)
    check_broadcasts(network, network.up[-1], 5)


@pytest.mark.parametrize("seed", range(8))
def test_both_dial_at_once(seed: int) -> None:
    network = RecordedWorld(seed)
    a, b = network.add(), network.add()
    a.join(b)
    b.join(a)
    sent: Counter[SimNode] = Counter()
    asked: Counter[SimNode] = Counter()

    def chat(_: None) -> None:
        for here, there in ((a, b), (b, a)):
            for effect in [e for e in network.recorder.effects[here] if isinstance(e, Ask)]:
                network.recorder.effects[here].remove(effect)
                here.do(
                    here.core.reply(effect.peer, effect.id, ContentType.BYTES, b"", network.now)
                )
            if there.id in here.neighbours:
                now = network.now
                here.do(here.core.send(there.id, "", ContentType.BYTES, b"", now))
                sent[here] += 1
                out = here.core.request(there.id, "", ContentType.BYTES, b"", 5, now)
                assert out is not None
                here.do(out[1])
                asked[here] += 1
        if network.now < 1.0:
            network.timeline.add(network.now + 0.002, chat, None)
        else:
            network.timeline.add(network.now + 0.2, answer_last, None)

    def answer_last(_: None) -> None:
        for here in (a, b):
            for effect in [e for e in network.recorder.effects[here] if isinstance(e, Ask)]:
                here.do(
                    here.core.reply(effect.peer, effect.id, ContentType.BYTES, b"", network.now)
                )

    chat(None)
    network.run(4)
    for here, there in ((a, b), (b, a)):
        assert len(network.recorder.deliveries[there]) == sent[here] > 0
        assert sum(isinstance(e, Answered) for e in network.recorder.effects[here]) == asked[here]
        assert here.neighbours == [there.id]
        news = [e for e in network.recorder.events[here] if not isinstance(e, LINKS)]
        assert [type(e) for e in news] == [NeighbourUp, Joined], "no neighbour came and went"
        assert here.core.statistics().requests_served == 0
    network.run(20)
    ours, theirs = a.core.link_of(b.id), b.core.link_of(a.id)
    assert ours is not None
    assert theirs is not None
    assert ours.outbound != theirs.outbound
    assert len(a.core.connections.links) == len(b.core.connections.links) == 1


def test_restart_from_the_book_with_the_entry_down() -> None:
    network = grown(20, 3)
    entry, node = network.up[0], network.up[5]
    network.run(10)
    assert len(node.stored) > 5
    network.crash(entry)
    network.crash(node)
    network.run(20)
    network.restart(node)
    assert node.neighbours == []
    assert network.run_until(lambda: len(node.neighbours) >= 5, 10)


def test_small_fragment_finds_back_by_its_book() -> None:
    network = grown(20, 4)
    network.run(10)
    fragment = network.up[:4]
    network.partition(network.up[4:], fragment)
    network.run(60)
    assert len(network.components()) > 1
    network.partition()
    assert network.run_until(network.is_settled, 90)


def test_the_entry_is_oneself() -> None:
    network = RecordedWorld(1)
    node = network.add()
    node.join(node)
    network.run(60)
    failed = [e for e in network.recorder.events[node] if isinstance(e, EntryFailed)]
    assert [(e.address, e.reason) for e in failed] == [(node.address, "this is the node itself")]
    assert len(network.dialled) == 1
    check_at_rest(network)


def test_entry_given_anew_while_it_turns_out_to_be_oneself() -> None:
    network = RecordedWorld(1)
    node = network.add()
    node.join(node)
    node.core.overlay.walks.entries[0].failures = 1
    node.join(node)  # removing the first by its value was an error that ended the node
    network.run(60)
    assert node.core.overlay.walks.entries == []


def test_entry_with_another_peer_than_expected() -> None:
    network = RecordedWorld(1)
    a, b, c = network.add(), network.add(), network.add()
    a.join(b, expected=c.id)
    network.run(5)
    assert not a.neighbours
    failed = [e for e in network.recorder.events[a] if isinstance(e, EntryFailed)]
    assert failed
    assert all(e.not_admitted for e in failed)


def test_strangers_can_have_third_parties_tested_and_no_more() -> None:
    """What an origin announces of another host is dialled by no walk. It may be by a test, as
    whatever peers tell of each other: each node tries it a few times, for the liar's key."""
    network = grown(20, 5)
    victim = network.add()
    liar = network.add()
    network.dialled.clear()
    mine = liar.address
    lies = (victim.address, Address("10.99.0.1", 55555), mine)
    liar.core.listening(lies, network.now)
    liar.join(network.up[0])
    network.run(600)
    assert len(liar.neighbours) >= 5
    others = [(node, dial) for _, node, dial in network.dialled if node is not liar]
    assert others
    hosts = (victim.address.host, "10.99.0.1")
    lured = [(node, dial) for node, dial in others if dial.address.host in hosts]
    assert {dial.expected for _, dial in lured} == {liar.id}
    tries = Counter((node, dial.address) for node, dial in lured)
    assert max(tries.values(), default=0) <= Config().book.failures_max
    network.dialled.clear()
    network.run(600)
    # Who has reached it where it is goes there first.
    again = [d for _, node, d in network.dialled if node is not liar and d.address.host in hosts]
    assert len(again) <= len(lured) / 2


def test_alone_with_dead_peers_does_not_hammer_and_still_tries_its_entry() -> None:
    network = grown(2, 6)
    lone = network.add()
    network.crash(lone)
    dead = [network.add() for _ in range(200)]
    for number, node in enumerate(dead):
        network.crash(node)
        seen = UNIX_START_S - number
        lone.stored[node.id] = SavePeer(
            node.id, b"", str(node.address), True, seen, 0, None, "test"
        )
    network.restart(lone)
    late_entry = network.add()
    network.crash(late_entry)
    lone.join(late_entry)
    network.dialled.clear()
    network.run(240)
    by_second = Counter(int(at) for at, _, _ in network.dialled)
    assert max(by_second.values()) <= 12, "three at a time, and a pause after each round"
    tried = {dial.address for _, _, dial in network.dialled}
    assert {node.address for node in dead} <= tried, "everybody had a turn"
    network.dialled.clear()
    network.run(600)
    assert len(network.dialled) <= 600 / 4, "then rarely"
    assert sum(dial.address == late_entry.address for _, _, dial in network.dialled) >= 5
    network.restart(late_entry)
    late_entry.join(network.up[0])
    assert network.run_until(lambda: bool(lone.neighbours), 120)


def test_a_peer_that_stops_reading_is_dropped_and_slows_nobody() -> None:
    network = grown(12, 7, IMPATIENT)
    sleeper = network.up[3]
    network.stall(sleeper)
    origin = next(n for n in network.up if sleeper.id in n.neighbours)
    before = {node: len(network.recorder.deliveries[node]) for node in network.up}
    origin.broadcast(b"x")
    network.run(1)
    for node in network.up:
        if node not in (origin, sleeper):
            assert len(network.recorder.deliveries[node]) == before[node] + 1
    timeout_s = origin.core.config.link.stall_timeout_s
    network.run(timeout_s - 1.5)
    assert sleeper.id in origin.neighbours
    network.run(1.0)
    assert all(sleeper.id not in n.neighbours for n in network.up if n is not sleeper)
    assert "slow" in origin.core.statistics().ended
    network.resume(sleeper)
    assert network.run_until(network.is_settled, 60)


def test_leave_tells_everyone_and_starts_nothing() -> None:
    network = grown(12, 8)
    leaver = network.up[2]
    friends = [n for n in network.up if leaver.id in n.neighbours]
    network.dialled.clear()
    network.leave(leaver)
    network.run(1)
    assert leaver in network.up
    assert not leaver.neighbours
    assert leaver.core.statistics().timers == 0
    assert not leaver.core.connections.links
    assert not leaver.ends
    network.run(4)
    assert leaver not in network.up
    assert not any(isinstance(e, Alone) for e in network.recorder.events[leaver])
    for friend in friends:
        last = [e for e in network.recorder.events[friend] if isinstance(e, NeighbourDown)][-1]
        assert last.peer == leaver.id
        assert last.reason == "leaving"
    assert all(node is not leaver for _, node, _ in network.dialled), (
        "a defect: it looked for links"
    )
    assert network.run_until(network.is_settled, 15)


def test_an_entry_joins_two_fragments_that_lack_nothing() -> None:
    """A defect: a node with enough links did nothing when it was given an entry."""
    network = RecordedWorld(13)
    network.grow(8)
    other = network.add()
    for _ in range(8):
        network.add().join(other)
    assert network.run_until(lambda: len(network.components()) == 2, 5)
    network.run(30)
    lucky = next(n for n in network.up[9:] if 5 <= len(n.neighbours) < 10)
    lucky.join(network.up[3])
    assert network.run_until(lambda: len(network.components()) == 1, 10)
    check_broadcasts(network, lucky, 5)
