"""Pipes: order whatever the delays, what waits while it cannot cross, and what the sender hears."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from meshwalk.config import Config, ConversationConfig, LinkConfig
from meshwalk.events import NeighbourDown
from meshwalk.sim.latency import Constant, Uniform
from meshwalk.sim.node import SimNode
from meshwalk.sim.pipe import FINISHED, LOST, size_of
from meshwalk.wire.codec import encode_frame
from meshwalk.wire.frames import ContentType, Ping
from recorder import Call, RecordedWorld, Spied, still

DELAY_S = 0.1
SMALL = Config(
    link=LinkConfig(send_buffer_high_bytes=2_000, send_buffer_bytes_max=2 << 20),
    conversations=ConversationConfig(part_bytes_max=1_000_000),  # so that no credit holds it back
)


class Pair:
    """Two linked nodes, of which the first sends numbered messages to the second."""

    def __init__(self, config: Config | None = None) -> None:
        self.spied = Spied()
        self.world = RecordedWorld(1, Constant(DELAY_S), make_core=self.spied)
        self.a, self.b = self.world.add(config), self.world.add(config)
        self.a.join(self.b)
        assert self.world.run_until(self.world.is_settled, 5)
        self.world.run(1)
        still(self.a, self.b)
        self.sent = 0

    def send(self, count: int = 1, size: int = 4) -> None:
        for _ in range(count):
            body = self.sent.to_bytes(4, "big").ljust(size, b".")
            self.sent += 1
            a, b = self.a, self.b
            a.do(a.core.send(b.id, "", ContentType.BYTES, body, a.time()))

    @property
    def heard(self) -> list[int]:
        return [int.from_bytes(body[:4], "big") for body in self.world.recorder.bodies(self.b)]

    def told(self, node: SimNode, *names: str) -> list[Call]:
        """What the machines of a node have been told of their link."""
        return self.spied.of(node, *names)


def cut(pair: Pair) -> None:
    pair.world.partition([pair.a], [pair.b])


def cut_one_way(pair: Pair) -> None:
    pair.world.conditions.clog(pair.a.host, pair.b.host)


def put_to_sleep(pair: Pair) -> None:
    pair.world.sleep(pair.b)


def stop(pair: Pair) -> None:
    pair.world.sleep(pair.b, clock_stops=False)


def free(pair: Pair) -> None:
    if pair.b.is_asleep:
        pair.b.wake()
    pair.world.conditions.heal()
    pair.world.changed()


OBSTACLES = [cut, cut_one_way, put_to_sleep, stop]


def test_frames_keep_their_order_whatever_each_one_takes() -> None:
    pair = Pair()
    world, conditions = pair.world, pair.world.conditions
    sent: list[float] = []
    arrived: list[float] = []

    def run() -> None:
        world.run(0.01)
        arrived.extend([world.now] * (len(pair.heard) - len(arrived)))

    for step in range(60):
        if step == 10:
            conditions.set_jitter(1.0)
        if step == 20:
            conditions.latency = Constant(3.0)
        if step == 30:
            conditions.latency = Constant(0.001)
            conditions.set_jitter(0.0)
        if step == 40:
            conditions.set_loss(0.2, pair.a.host)
        if step == 50:
            conditions.heal()
            conditions.latency = Uniform(0.001, 1.0)
        pair.send()
        sent.append(world.now)
        run()
    while len(arrived) < 60:
        run()
        assert world.now < 30
    assert pair.heard == list(range(60))
    assert arrived[0] - sent[0] < 2 * DELAY_S
    assert arrived[25] - sent[25] > 3.0
    assert arrived[35] - sent[35] > 2.5, "it takes a millisecond, but waits for those before it"


def test_order_is_of_one_direction_and_one_pipe() -> None:
    """What is slow from here to there holds up nobody else."""
    pair = Pair()
    world = pair.world
    world.conditions.set_delay(5.0, pair.a.host, pair.b.host)
    pair.send()
    world.conditions.set_delay(0.0, pair.a.host, pair.b.host)
    a, b = pair.a, pair.b
    b.do(b.core.send(a.id, "", ContentType.BYTES, b"back", b.time()))
    world.run(1.1 * DELAY_S)
    assert world.recorder.bodies(a) == [b"back"]
    assert pair.heard == []


@pytest.mark.parametrize("obstacle", OBSTACLES)
def test_what_cannot_cross_waits_and_keeps_its_place(obstacle: Callable[[Pair], None]) -> None:
    pair = Pair()
    pair.send(3)
    pair.world.run(DELAY_S / 2)  # they are under way
    obstacle(pair)
    pair.send(3)
    pair.world.run(1)
    pair.send(3)
    pair.world.run(1)
    assert pair.heard == []
    pair.send(3)
    pair.world.run(DELAY_S / 2)  # under way when the way is free again: they wait their turn
    free(pair)
    assert pair.heard == list(range(9))
    pair.send(3)
    pair.world.run(1)
    assert pair.heard == list(range(15))
    assert pair.world.is_settled(), "two seconds end no link"


def test_nothing_overtakes_what_has_not_been_let_go_yet() -> None:
    pair = Pair()
    cut(pair)
    pair.send(3)
    pair.world.run(1)
    pair.world.conditions.rejoin()  # and the world is told later
    pair.send(3)
    pair.world.run(1)
    assert pair.heard == []
    pair.world.changed()
    assert pair.heard == list(range(6))


def test_what_waits_is_held_back_by_whatever_still_blocks_it() -> None:
    pair = Pair()
    pair.world.sleep(pair.b)
    cut_one_way(pair)
    pair.send(3)
    pair.world.run(1)
    pair.b.wake()
    pair.world.run(1)
    assert pair.heard == []
    free(pair)
    assert pair.heard == [0, 1, 2]


def test_the_end_of_a_pipe_waits_behind_what_was_said() -> None:
    pair = Pair()
    cut(pair)
    pair.send(3)
    pair.world.crash(pair.a)
    pair.world.run(5)
    assert pair.heard == []
    assert pair.b.neighbours == [pair.a.id]
    free(pair)
    assert pair.heard == [0, 1, 2]
    assert pair.b.neighbours == []


def test_the_sender_hears_that_much_waits_and_that_it_is_taken() -> None:
    pair = Pair(SMALL)
    put_to_sleep(pair)
    pair.send(1, 1_500)
    pair.world.run(1)
    assert pair.told(pair.a, "stalled") == []
    link = pair.a.core.link_of(pair.b.id)
    assert link is not None
    for _ in range(3):
        pair.send(1, 1_500)
        pair.world.run(0.5)
    assert [call.given[0] for call in pair.told(pair.a, "stalled")] == [link.number], "once"
    assert [link.stalled_at is None] == [False]
    pair.b.wake()
    assert [call.given for call in pair.told(pair.a, "resumed")] == [(link.number,)]
    assert [link.stalled_at is None] == [True]
    pair.world.run(20)
    assert pair.heard == [0, 1, 2, 3]
    assert len(pair.told(pair.a, "stalled", "resumed")) == 2
    put_to_sleep(pair)
    pair.send(3, 1_500)
    pair.world.run(1)
    assert len(pair.told(pair.a, "stalled")) == 2, "and again when it is full again"


def test_the_end_that_does_not_read_is_given_up() -> None:
    pair = Pair(SMALL)
    cut_one_way(pair)  # so pings still come: silence is not what ends it
    pair.send(2, 1_500)
    pair.world.run(pair.a.config.link.stall_timeout_s)
    assert pair.a.neighbours == [pair.b.id]
    pair.world.run(2 * DELAY_S)
    assert pair.a.neighbours == []
    (down,) = [e for e in pair.world.recorder.events[pair.a] if isinstance(e, NeighbourDown)]
    assert down.reason.startswith("slow")


def test_the_sender_hears_of_too_much_at_once() -> None:
    pair = Pair(SMALL)
    put_to_sleep(pair)
    pair.send(3, 1_000_000)
    pair.world.run(2 * DELAY_S)
    assert [call.what for call in pair.told(pair.a, "stalled", "overflowed")] == [
        "stalled",
        "overflowed",
    ]
    assert pair.a.core.statistics().ended["slow"] == 1
    assert pair.a.neighbours == []


def test_a_sender_that_sleeps_is_told_when_it_goes_on() -> None:
    """Nothing reaches the machines of a process that is suspended."""
    pair = Pair(SMALL)
    put_to_sleep(pair)
    pair.send(3, 1_000_000)
    pair.world.sleep(pair.a)
    pair.spied.calls.clear()
    pair.world.run(5)
    assert pair.spied.calls == []
    pair.a.wake()
    assert len(pair.told(pair.a, "overflowed")) == 1
    assert pair.a.neighbours == []


def test_what_happens_to_a_pipe_is_not_told_to_the_next_life_of_its_sender() -> None:
    """A defect: its links are numbered anew, and one of another pipe heard of it."""
    pair = Pair(SMALL)
    world, a = pair.world, pair.a
    put_to_sleep(pair)
    pair.send(2, 1_500)
    world.run(1)
    assert len(pair.told(a, "stalled")) == 1
    pair.send(3, 1_000_000)  # still under way when the machine goes
    world.crash(a, silently=True)
    world.restart(a)
    world.run(1)
    pair.b.wake()
    assert len(pair.told(a, "stalled", "resumed", "overflowed")) == 1


def test_a_sender_that_sleeps_hears_when_it_wakes_that_all_is_taken() -> None:
    pair = Pair(SMALL)
    put_to_sleep(pair)
    pair.send(2, 1_500)
    pair.world.run(1)
    link = pair.a.core.link_of(pair.b.id)
    assert link is not None
    assert link.stalled_at is not None
    pair.world.sleep(pair.a)
    pair.b.wake()
    pair.world.run(1)
    assert pair.heard == [0, 1]
    assert pair.told(pair.a, "resumed") == []
    pair.a.wake()
    assert [call.given for call in pair.told(pair.a, "resumed")] == [(link.number,)]
    assert link.stalled_at is None


@pytest.mark.parametrize("encodes", [True, False])
def test_what_waits_behind_a_gap_fills_the_pipe_of_its_sender(encodes: bool) -> None:
    pair = Pair(SMALL)
    pair.world._encodes = encodes
    pair.send()
    pair.world.conditions.set_loss(1.0, pair.a.host)
    pair.send()
    pair.world.conditions.heal()
    put_to_sleep(pair)
    pair.send(2, 1_500)
    pair.world.run(1)
    pair.b.wake()
    pair.world.changed()
    assert pair.heard == [0], "that was sent before it"
    assert [call.what for call in pair.told(pair.a, "stalled", "resumed")] == ["stalled"]


@pytest.mark.parametrize("encodes", [True, False])
def test_bytes_that_are_no_frame_end_the_link(encodes: bool) -> None:
    world = RecordedWorld(1, Constant(DELAY_S), encodes=encodes)
    a, b = world.add(), world.add()
    a.join(b)
    world.run(2)
    link = a.core.link_of(b.id)
    assert link is not None
    end = a.ends[link.number]
    ping = encode_frame(Ping(1, 0))
    world.cross(end, ping[:3])
    world.cross(end, ping[3:])
    world.run(1)
    assert b.neighbours == [a.id]
    world.cross(end, b"\xff" * 8)
    world.run(1)
    assert b.core.statistics().ended["malformed"] == 1
    assert a.neighbours == b.neighbours == []


def test_sizes_are_those_of_the_wire() -> None:
    ping = Ping(7, 1_000_000)
    assert size_of(ping) == len(encode_frame(ping)) == size_of(encode_frame(ping))
    assert size_of(FINISHED) == size_of(LOST) == 0
