"""The world: what a crash looks like from outside, one seed for everything, and its limits."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from meshwalk.config import Config, LinkConfig, OverlayConfig
from meshwalk.events import NeighbourDown
from meshwalk.proto.overlay.addressbook import BookEntry
from meshwalk.sim.latency import Constant
from meshwalk.sim.node import SimNode
from meshwalk.sim.soaking import recorded_by
from meshwalk.sim.world import Endless, World
from meshwalk.trace import TraceHash
from meshwalk.wire.frames import ContentType, Hello, Ping
from recorder import RecordedWorld, Spied

D = 0.02


def grown(count: int, seed: int = 1) -> RecordedWorld:
    world = RecordedWorld(seed, Constant(D))
    world.grow(count)
    assert world.run_until(world.is_settled, 30)
    world.run(5)
    return world


def downs(world: RecordedWorld, of: SimNode) -> list[tuple[SimNode, str]]:
    """Who says that its link with this node has ended, and why."""
    return [
        (node, event.reason)
        for node in world.nodes
        for event in world.recorder.events[node]
        if isinstance(event, NeighbourDown) and event.peer == of.id
    ]


# Ends of nodes.


def test_a_crash_is_seen_at_once_and_a_machine_that_vanishes_by_its_silence() -> None:
    world = grown(10)
    crashed, vanished = world.nodes[3], world.nodes[4]
    for node, silently in ((crashed, False), (vanished, True)):
        friends = [other for other in world.up if node.id in other.neighbours]
        before = len(downs(world, node))
        idle_s = node.config.link.idle_timeout_s
        world.crash(node, silently=silently)
        assert node not in world.up
        world.run(2 * D)
        noticed = downs(world, node)[before:]
        if not silently:
            assert sorted(map(repr, noticed)) == sorted(
                repr((friend, "lost: the peer ended the connection")) for friend in friends
            )
            continue
        world.run(node.config.detection.least_s - 2 * D)
        noticed = downs(world, node)[before:]
        assert noticed == [], "nobody is given up sooner than this"
        world.run(idle_s + 1)
        noticed = downs(world, node)[before:]
        assert sorted(map(repr, {friend for friend, _ in noticed})) == sorted(map(repr, friends))
        assert all("idle" in reason for _, reason in noticed)
        assert any("nobody can reach it" in reason for _, reason in noticed), "others were asked"


def test_a_machine_that_is_back_answers_what_was_meant_for_its_last_process_with_a_reset() -> None:
    world = grown(2)
    a, b = world.nodes
    for node in world.nodes:
        node.core.overlay.walks.stop()
    world.crash(b, silently=True)
    world.run(1)
    world.restart(b, loses_store=True)
    b.core.overlay.walks.stop()
    assert a.neighbours == [b.id]
    world.run(a.config.link.ping_interval_s + 2 * D)
    assert a.neighbours == [], "long before fifteen seconds of silence"
    assert downs(world, b) == [(a, "lost: the peer ended the connection")]


def test_what_does_not_get_there_is_not_answered_either() -> None:
    world = grown(2)
    a, b = world.nodes
    world.crash(b, silently=True)
    world.conditions.clog(a.host, b.host)
    world.restart(b, loses_store=True)
    b.core.overlay.walks.stop()
    world.run(a.config.link.ping_interval_s + 1)
    assert a.neighbours == [b.id]
    world.conditions.heal()
    world.changed()
    world.run(a.config.link.ping_interval_s)
    assert (a, "lost: the peer ended the connection") in downs(world, b)


def test_what_breaks_after_a_restart_is_not_the_new_pipe_of_the_same_number() -> None:
    world = grown(2)
    a, b = world.nodes
    (old,) = a.ends.values()
    world.crash(a)
    world.restart(a)
    assert world.run_until(world.is_settled, 30)
    # Each life numbers its links from 1: have the new one reach the number of the old one.
    a.ends[old.link] = next(iter(a.ends.values()))
    world.ended(old)
    assert old.link in a.ends
    assert a.neighbours == [b.id]


GIVEN_UP_S = (2 * D + 0.2) * (2**6 - 1)
"""How long a frame is sent again."""


def lossy_pair() -> tuple[RecordedWorld, SimNode, SimNode]:
    """Two linked nodes, of which the first has sent in vain something that the second waits for."""
    idle = Config(link=LinkConfig(idle_timeout_s=60.0, ping_interval_s=20.0))
    world = RecordedWorld(1, Constant(D))
    world.grow(2, idle)
    a, b = world.nodes
    assert world.run_until(world.is_settled, 30)
    for node in world.nodes:
        node.core.overlay.walks.stop()
    world.run(1)
    world.conditions.set_loss(1.0, a.host)
    say(a, b, b"lost")
    return world, a, b


def say(node: SimNode, to: SimNode, body: bytes) -> None:
    node.do(node.core.send(to.id, "", ContentType.BYTES, body, node.time()))


def test_a_sender_gives_up_after_six_tries_and_not_before() -> None:
    world, a, b = lossy_pair()
    world.conditions.heal()
    say(a, b, b"behind it")
    world.run(GIVEN_UP_S - D)
    assert a.neighbours == [b.id]
    world.run(2 * D)
    ((node, why),) = downs(world, b)
    assert node is a
    assert "gave the connection up" in why
    assert a.ends == {}
    assert world.recorder.bodies(b) == [], "it waits behind what was lost"


def test_the_other_end_hears_of_that_when_it_says_something() -> None:
    world, a, b = lossy_pair()
    world.conditions.heal()
    world.run(GIVEN_UP_S + 1)
    assert a.neighbours == []
    assert b.neighbours == [a.id]
    say(b, a, b"are you there?")
    world.run(2 * D + 0.001)
    assert downs(world, a) == [(b, "lost: the peer ended the connection")]
    assert a.ends == b.ends == {}
    assert world.recorder.bodies(a) == []


def test_the_other_end_hears_nothing_over_a_path_that_is_dead() -> None:
    world, a, b = lossy_pair()
    world.run(GIVEN_UP_S + 1)
    say(b, a, b"are you there?")  # the reset is lost as well
    world.run(b.config.link.idle_timeout_s - GIVEN_UP_S - 5)
    assert b.neighbours == [a.id]
    world.run(10)
    ((_, why),) = [down for down in downs(world, a) if down[0] is b]
    assert "idle" in why


def test_the_end_of_a_pipe_waits_for_nothing_that_was_lost() -> None:
    world, a, b = lossy_pair()
    world.conditions.heal()
    world.crash(a)
    world.run(2 * D)
    assert downs(world, a) == [(b, "lost: the peer ended the connection")]


@pytest.mark.parametrize("clock_stops", [True, False])
def test_a_sleeping_machine_hears_that_its_pipe_was_given_up_when_it_wakes(
    clock_stops: bool,
) -> None:
    spied = Spied()
    world = RecordedWorld(1, Constant(D), make_core=spied)
    world.grow(2)
    a, b = world.nodes
    assert world.run_until(world.is_settled, 30)
    world.conditions.set_loss(1.0, a.host)
    say(a, b, b"lost")
    world.conditions.heal()
    world.sleep(a, clock_stops=clock_stops)
    say(b, a, b"before")
    spied.calls.clear()
    world.run(GIVEN_UP_S + 0.5)
    assert spied.of(a, *(call.what for call in spied.calls)) == []
    world.conditions.clog(b.host, a.host)  # which has nothing to do with it
    a.wake()
    world.run(0)
    (call,) = spied.of(a, "lost")
    assert call.at == world.now


def test_to_leave_is_to_say_goodbye() -> None:
    world = grown(10)
    leaver = world.nodes[3]
    friends = {node for node in world.up if leaver.id in node.neighbours}
    world.leave(leaver)
    assert leaver.is_leaving
    world.run(2 * D)
    assert {(node, reason) for node, reason in downs(world, leaver)} == {
        (friend, "leaving") for friend in friends
    }
    assert leaver.is_up
    world.run(leaver.config.link.close_timeout_s)
    assert not leaver.is_up


def test_who_was_restarted_in_time_does_not_go_after_all() -> None:
    world = grown(4)
    leaver = world.nodes[3]
    world.leave(leaver)
    world.run(0.5)
    world.crash(leaver)
    world.restart(leaver)
    world.run(10)
    assert leaver.is_up
    assert not leaver.is_leaving


# Time.


def test_time_passes_to_the_end_of_a_run_and_no_further() -> None:
    world = World(1)
    seen: list[tuple[str, float]] = []

    def note(what: str) -> None:
        seen.append((what, world.now))

    for at, what in [(3.0, "c"), (1.0, "a"), (1.0, "b"), (5.0, "late")]:
        world.timeline.add(at, note, what)
    world.run(3.0)
    assert seen == [("a", 1.0), ("b", 1.0), ("c", 3.0)]
    assert world.now == 3.0
    assert world.events == 3
    world.run(10)
    assert seen[-1] == ("late", 5.0)
    assert world.now == 13.0


def test_run_until() -> None:
    world = World(1)
    happened: list[float] = []
    world.timeline.add(2.0, happened.append, 2.0)
    assert world.run_until(lambda: bool(happened), 10)
    assert 2.0 <= world.now < 2.1, "it looks often"
    assert world.run_until(lambda: bool(happened), 0)
    began = world.now
    assert not world.run_until(lambda: False, 1.5)
    assert world.now == pytest.approx(began + 1.5)


def test_a_run_without_an_end_is_noticed() -> None:
    world = World(1, events_max=1000)

    def again(_: None) -> None:
        world.timeline.add(world.now, again, None)

    world.timeline.add(1.0, again, None)
    with pytest.raises(Endless, match=r"events and no end after 1\.0 virtual seconds"):
        world.run(5)


# Who is where.


def test_nodes_have_hosts_in_groups_and_names_of_their_own() -> None:
    world = World(7)
    nodes = [world.add(group=group) for group in (0, 3, 3)]
    assert [node.host for node in nodes] == ["10.0.0.1", "10.3.0.2", "10.3.0.3"]
    assert len({node.id for node in nodes}) == 3
    assert World(7).add().id == nodes[0].id
    assert World(8).add().id != nodes[0].id
    assert World(8).add(key_seed=5).id == World(7).add(key_seed=5).id != nodes[0].id


def test_what_cannot_be_dialled_announces_nothing_or_in_vain() -> None:
    world = World(1)
    assert world.add().core.own_record.addresses
    assert not world.add(listens=False).core.own_record.addresses
    assert world.add(is_firewalled=True).core.own_record.addresses


def test_growth() -> None:
    world = RecordedWorld(1)
    small = Config(overlay=OverlayConfig(links_min=2, links_max=4))
    world.grow(10, small, spacing_s=0.5)
    assert world.now == pytest.approx(5.0)
    assert len(world.up) == 10
    assert all(node.config is small for node in world.nodes)
    assert world.run_until(world.is_settled, 10)


def test_frames_and_dials_are_counted() -> None:
    world = grown(2)
    assert world.frames[Hello] == 2 * world.dials["established"]
    pings = world.frames[Ping]
    world.run(50)
    assert world.frames[Ping] == pings + 2 * 10
    assert sum(world.dials.values()) == len(world.dialled)


# One seed for everything.


def stormy(world: World) -> None:
    """Some of every kind of trouble."""
    rng = Random(world.seed)
    world.grow(12, spacing_s=0.02)
    conditions = world.conditions
    for round_number in range(12):
        up = [node for node in world.up if not node.is_asleep]
        node = rng.choice(up)
        conditions.heal()
        if round_number % 4 == 0:
            conditions.set_jitter(0.2)
            conditions.set_loss(0.05)
        elif round_number % 4 == 1:
            conditions.partition_halves([node.host for node in world.nodes])
        elif round_number % 4 == 2:
            conditions.limit_bandwidth(20_000)
            world.sleep(node, clock_stops=rng.random() < 0.5)
        else:
            world.crash(node, silently=rng.random() < 0.5)
        world.changed()
        rng.choice([node for node in world.up if not node.is_asleep]).broadcast(b"x" * 1000)
        world.run(rng.uniform(1, 8))
        for other in world.nodes:
            if not other.is_up:
                world.restart(other, loses_store=rng.random() < 0.3)
                other.join(world.nodes[0] if other is not world.nodes[0] else world.nodes[1])
            elif other.is_asleep:
                other.wake()
    conditions.heal()
    world.changed()
    world.run(10)


def digest(seed: int) -> str:
    """Every input and effect of a run, as one number."""
    trace = TraceHash()
    world = World(seed, make_core=recorded_by(trace.write))
    stormy(world)
    assert trace.lines > 5_000
    return f"{trace.lines} {trace.digest} {world.events} {sorted(world.dials.items())}"


def test_the_same_seed_gives_the_same_run_in_every_process() -> None:
    tests = Path(__file__).parents[1]
    program = "from sim.test_world import digest; print(digest(5))"
    shown = [
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(tests)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for hash_seed in ("1", "2")
    ]
    assert shown[0] == shown[1]
    assert shown[0] != digest(6)


def test_frames_that_are_not_encoded_say_the_same() -> None:
    worlds = [RecordedWorld(3, encodes=encodes) for encodes in (True, False)]
    for world in worlds:
        stormy(world)
    encoded, plain = worlds
    for here, there in zip(encoded.nodes, plain.nodes, strict=True):
        assert encoded.recorder.deliveries[here] == plain.recorder.deliveries[there]
        assert encoded.recorder.events[here] == plain.recorder.events[there]
        assert encoded.recorder.effects[here] == plain.recorder.effects[there]
        assert here.neighbours == there.neighbours
    assert any(encoded.recorder.deliveries.values())
    assert encoded.frames == plain.frames
    assert encoded.events == plain.events


# Moving.


def test_a_node_moves_and_nobody_is_told() -> None:
    world = grown(6)
    node = world.nodes[3]
    friends = [other for other in world.up if node.id in other.neighbours]
    old, events = node.address, len(downs(world, node))
    world.move(node)
    assert node.host != old.host
    assert node.host.split(".")[1] == old.host.split(".")[1], "the same address group"
    assert (node.name, node.address.port) == (old.host, old.port)
    world.run(1.0)
    assert len(downs(world, node)) == events, "silence takes longer to notice"
    assert node.core.own_record.addresses == (node.address,)
    assert world.run_until(
        lambda: all(node.address in entry.to_try(4) for entry in entries_of(friends, node)), 120
    )
    assert world.run_until(lambda: len(node.neighbours) == 5, 60)
    assert world.find(world.nodes[0], old, old) is None


def entries_of(nodes: list[SimNode], of: SimNode) -> list[BookEntry]:
    """What these know of that one."""
    return [node.core.overlay.book.entries[of.id] for node in nodes]


def test_what_was_on_its_way_to_a_node_that_moves_is_lost() -> None:
    world = grown(3)
    sender, node = world.nodes[:2]
    sender.broadcast(b"too late")
    world.move(node)
    world.run(1.0)
    heard = [delivery.body for delivery in world.recorder.deliveries[node]]
    assert b"too late" not in heard


def test_a_node_that_is_down_or_asleep_moves() -> None:
    world = grown(4)
    down, asleep = world.nodes[2:4]
    world.crash(down)
    world.sleep(asleep)
    for node in (down, asleep):
        world.move(node, group=7)
        assert node.host.startswith("10.7.")
    world.run(30)
    world.restart(down)
    asleep.wake()
    world.run(60)
    for node in (down, asleep):
        assert node.core.own_record.addresses == (node.address,)
        assert len(node.neighbours) == 3
