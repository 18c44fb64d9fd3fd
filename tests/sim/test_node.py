"""One node of a world: its timer, its sleep, its store, and what its lives have in common."""

from __future__ import annotations

import pytest

from meshwalk.config import BroadcastConfig, Config, HistoryConfig
from meshwalk.events import NeighbourDown, NeighbourUp
from meshwalk.proto.effects import ForgetPeer
from meshwalk.sim.latency import Constant
from meshwalk.sim.node import UNIX_START_S, Behaviour, Observer, SimNode
from meshwalk.wire.frames import ContentType, Frame, Message, Ping
from recorder import RecordedWorld, Spied, still


class Scene:
    """A few linked nodes."""

    def __init__(self, count: int = 2, config: Config | None = None) -> None:
        self.spied = Spied()
        self.world = RecordedWorld(1, Constant(0.02), make_core=self.spied)
        self.world.grow(count, config)
        assert self.world.run_until(self.world.is_settled, 30)
        self.world.run(5)
        self.a, self.b = self.world.nodes[:2]


def ticks(scene: Scene, node: SimNode) -> list[float]:
    return [round(call.at, 6) for call in scene.spied.of(node, "tick")]


# The timer.


def test_only_the_last_setting_of_the_timer_counts() -> None:
    world = RecordedWorld(1, make_core=(spied := Spied()))
    node = world.add()
    still(node)
    world.run(1)
    spied.calls.clear()
    timers = node.core.timers

    def set_timer(at: float) -> None:
        timers.set(("link", 99), at)  # there is no such link: to tick for it does nothing
        node.arm()

    set_timer(9.0)
    set_timer(5.0)
    set_timer(3.0)
    world.run(20)
    assert [call.at for call in spied.of(node, "tick")] == [3.0], "and nothing at 5 and 9"
    set_timer(world.now + 4)
    set_timer(world.now + 7)  # put off: the machines are asked early, and again when it is due
    spied.calls.clear()
    world.run(3.9)
    assert spied.of(node, "tick") == []
    world.run(20)
    assert spied.of(node, "tick")[-1].at == pytest.approx(28.0)
    assert len(spied.of(node, "tick")) <= 2


def test_a_timer_of_an_earlier_life_does_nothing() -> None:
    world = RecordedWorld(1, make_core=(spied := Spied()))
    node = world.add()
    node.core.timers.set(("link", 99), 5.0)
    node.arm()
    world.run(1)
    world.crash(node)
    world.restart(node)
    still(node)
    spied.calls.clear()
    world.run(20)
    assert spied.of(node, "tick") == []


def test_machines_are_never_called_before_their_deadline_and_time_never_goes_back() -> None:
    scene = Scene(6)
    world, spied = scene.world, scene.spied
    world.sleep(scene.b)
    world.run(3.333)
    scene.b.wake()
    world.run(2)
    world.sleep(scene.b, clock_stops=False)
    world.run(60)
    scene.b.wake()
    world.run(30)
    for node in world.nodes:
        calls = [call for call in spied.calls if call.node is node]
        assert [call.at for call in calls] == sorted(call.at for call in calls)
        nows = [call.given[-1] for call in calls if call.what in ("tick", "receive")]
        assert nows == sorted(nows)
        assert len(nows) > 20


def test_the_worlds_clock_does_not_go_back_when_a_stopped_process_goes_on() -> None:
    """A defect: its deadlines lay in the past, and took the whole world there."""
    scene = Scene()
    world = scene.world
    began = world.now
    world.sleep(scene.b, clock_stops=False)
    world.run(100)
    scene.spied.calls.clear()
    scene.b.wake()
    world.run(1)
    assert scene.spied.calls
    assert all(call.at >= began + 100 for call in scene.spied.calls)


# Sleep.


def test_a_sleeping_machine_takes_nothing_and_does_nothing() -> None:
    scene = Scene()
    world, b = scene.world, scene.b
    world.sleep(b)
    before = b.time()
    scene.spied.calls.clear()
    scene.a.broadcast(b"while you slept")
    world.run(6)
    assert scene.spied.of(b, *(call.what for call in scene.spied.calls)) == []
    assert b.time() == before
    assert b in world.up
    b.wake()
    assert b.time() == before
    assert b"while you slept" in world.recorder.bodies(b), "at once: it lay there"
    world.run(1)
    assert b.time() == pytest.approx(before + 1)
    (call,) = scene.spied.of(b, "calendar_set")
    assert call.given == (UNIX_START_S + 6, before)
    assert world.is_settled(), "six seconds end no link"


def test_naps_add_up() -> None:
    scene = Scene()
    world, b = scene.world, scene.b
    for _ in range(3):
        world.sleep(b)
        world.run(4)
        b.wake()
        world.run(1)
    assert b.time() == pytest.approx(world.now - 12)
    assert b.core.unix_offset_s == UNIX_START_S + 12
    assert b.time() + b.core.unix_offset_s == pytest.approx(
        scene.a.time() + scene.a.core.unix_offset_s
    )
    world.crash(b)
    world.restart(b)
    assert b.time() + b.core.unix_offset_s == pytest.approx(UNIX_START_S + world.now)


def test_to_wake_what_is_awake_and_to_put_to_sleep_what_sleeps_changes_nothing() -> None:
    scene = Scene()
    world, b = scene.world, scene.b
    world.sleep(b)
    world.run(4)
    world.sleep(b)
    world.sleep(b, clock_stops=False)
    world.run(4)
    b.wake()
    assert b.time() == pytest.approx(world.now - 8)
    world.run(3)
    scene.spied.calls.clear()
    b.wake()
    assert b.time() == pytest.approx(world.now - 8)
    assert scene.spied.calls == []


def test_a_stopped_process_finds_its_clock_gone_on() -> None:
    scene = Scene()
    world, b = scene.world, scene.b
    world.sleep(b, clock_stops=False)
    world.run(6)
    assert b.time() == world.now
    b.wake()
    assert b.time() == world.now
    assert scene.spied.of(b, "calendar_set") == []
    assert b.core.unix_offset_s == UNIX_START_S


def test_a_long_sleep_is_noticed_by_the_others_and_mended_afterwards() -> None:
    scene = Scene(6)
    world, b = scene.world, scene.b
    world.sleep(b)
    idle_s = b.config.link.idle_timeout_s
    world.run(idle_s + 1)
    assert all(b.id not in node.neighbours for node in world.nodes if node is not b)
    links = len(b.neighbours)
    assert links > 0, "it has not noticed anything"
    b.wake()
    assert world.run_until(world.is_settled, 30)
    downs = [e for e in world.recorder.events[b] if isinstance(e, NeighbourDown)]
    assert len(downs) >= links


def test_a_broadcast_that_is_too_old_by_the_calendar_is_refused_after_a_sleep() -> None:
    """A machine that did not learn of the calendar would take its own time for the world's."""
    young = Config(
        broadcast=BroadcastConfig(age_max_s=5.0, remembered_s=300.0),
        history=HistoryConfig(age_s=5.0),
    )
    scene = Scene(2, young)
    world, b = scene.world, scene.b
    world.sleep(b)
    scene.a.broadcast(b"old")
    world.run(8)
    b.wake()
    world.run(1)
    assert b"old" not in world.recorder.bodies(b)
    scene.a.broadcast(b"new")
    world.run(1)
    assert b"new" in world.recorder.bodies(b)


# Lives.


def test_a_restart_keeps_who_it_is_and_whom_it_knows() -> None:
    scene = Scene(8)
    world, b = scene.world, scene.b
    me, known = b.id, list(b.stored)
    assert len(known) >= 5
    world.crash(b)
    assert b not in world.up
    assert b.id == me
    world.run(5)
    world.restart(b)
    assert b.id == b.core.me == me
    assert b.life == 2
    assert sorted(b.core.overlay.book.entries) == sorted(known)
    assert world.run_until(world.is_settled, 30), "without being told of an entry"


def test_a_restart_without_its_store_keeps_who_it_is_only() -> None:
    scene = Scene(8)
    world, b = scene.world, scene.b
    me = b.id
    world.crash(b)
    still(*world.up)  # nobody dials it, either
    world.run(20)
    world.restart(b, loses_store=True)
    assert b.id == b.core.me == me
    assert len(b.core.overlay.book) == 0
    world.run(60)
    assert b.neighbours == []


def test_the_store_keeps_what_the_machines_know() -> None:
    scene = Scene(8)
    world, b = scene.world, scene.b
    book = b.core.overlay.book.entries
    assert set(b.stored) == set(book)
    world.crash(scene.a)
    world.run(60)
    heard_of = world.add()
    heard_of.join(b)
    world.run(60)
    assert heard_of.id in b.stored
    assert set(b.stored) == set(book)
    b.do([ForgetPeer(heard_of.id)])
    assert heard_of.id not in b.stored
    b.do([ForgetPeer(heard_of.id)])


def test_each_start_draws_other_chance() -> None:
    world = RecordedWorld(1)
    node = world.add()
    first = node.core._new_id()
    world.crash(node)
    world.restart(node)
    assert node.core._new_id() != first


# What else a node of a world can be.


class Chatty(Behaviour):
    """Says everything twice, and a ping in between."""

    def sends(self, node: SimNode, link: int, frame: Frame) -> list[Frame | bytes]:
        return [frame, Ping(1, 0), frame] if type(frame) is Message else [frame]


def test_a_behaviour_decides_what_leaves_a_node() -> None:
    scene = Scene()
    scene.a.behaviour = Chatty()
    frames = scene.world.frames_by_node[scene.a]
    node, now = scene.a, scene.a.time()
    node.do(node.core.send(scene.b.id, "", ContentType.BYTES, b"twice", now))
    scene.world.run(0.1)
    assert scene.world.recorder.bodies(scene.b) == [b"twice", b"twice"]
    assert scene.world.frames_by_node[node] == frames + 3


def test_the_observer_hears_everything_that_applications_are_told() -> None:
    class Heard(Observer):
        def __init__(self) -> None:
            self.stops: list[SimNode] = []

        def stopped(self, node: SimNode) -> None:
            self.stops.append(node)

    scene = Scene(3)
    events = scene.world.recorder.events[scene.b]
    assert sum(isinstance(event, NeighbourUp) for event in events) == 2
    heard = scene.world.observer = Heard()
    scene.world.crash(scene.b)
    scene.world.leave(scene.a)
    scene.world.run(5)
    assert heard.stops == [scene.b, scene.a]
