"""How much a pipe can take: what machines that want to know are told, and when."""

from __future__ import annotations

from meshwalk.config import Config, LinkConfig
from meshwalk.proto.effects import ConversationHeard, WantRoom
from meshwalk.sim.latency import Constant
from meshwalk.sim.node import SimNode
from recorder import Call, RecordedWorld, Spied

HIGH = 16_000
CONFIG = Config(link=LinkConfig(send_buffer_high_bytes=HIGH))


class Pair:
    """Two linked nodes, and a conversation that the first has opened."""

    def __init__(self, rate: float | None = None) -> None:
        self.spied = Spied()
        self.world = RecordedWorld(1, Constant(0.01), make_core=self.spied)
        self.a, self.b = self.world.add(CONFIG), self.world.add(CONFIG)
        self.a.join(self.b)
        assert self.world.run_until(self.world.is_settled, 5)
        if rate is not None:
            self.world.conditions.limit_bandwidth(rate, self.a.host)
        number = self.a.open(self.b.id, "bulk", b"")
        assert number is not None
        self.number = number
        self.world.run(0.1)
        self.spied.calls.clear()

    def say(self, count: int, size: int = 4_000) -> None:
        for _ in range(count):
            self.a.say(self.number, bytes(size))

    def rooms(self, node: SimNode) -> list[Call]:
        return self.spied.of(node, "room")

    @property
    def heard(self) -> int:
        effects = self.world.recorder.effects[self.b]
        return sum(type(effect) is ConversationHeard for effect in effects)


def want(pair: Pair, node: SimNode) -> int:
    """Have its machines want room; the number of the link."""
    link = node.core.link_to(pair.b.id)
    assert link is not None
    node.do([WantRoom(link.number)])
    return link.number


def test_an_empty_pipe_has_room_at_once_and_no_event_is_needed() -> None:
    pair = Pair()
    link = want(pair, pair.a)
    assert [call.given[:2] for call in pair.rooms(pair.a)] == [(link, HIGH)]


def test_much_is_said_in_one_step_through_an_empty_pipe() -> None:
    """As many times the high mark as credit allows; the depth of the calls does not grow."""
    pair = Pair()
    pair.say(60)
    assert len(pair.rooms(pair.a)) > 10
    pair.world.run(0.05)
    assert pair.heard == 60


def test_what_is_held_at_a_blocked_end_counts_until_it_is_taken() -> None:
    pair = Pair()
    pair.world.sleep(pair.b)
    pair.say(2)
    pair.world.run(0.1)
    link = want(pair, pair.a)
    ((_, _, _, given),) = pair.rooms(pair.a)
    assert given[0] == link
    assert HIGH - 9_000 < given[1] < HIGH - 8_000
    pair.say(4)
    pair.world.run(0.1)
    pair.spied.calls.clear()
    pair.say(1)  # the link has none left, by its own count
    assert pair.rooms(pair.a) == []
    pair.world.run(1)
    assert pair.rooms(pair.a) == []
    pair.b.wake()
    assert [call.given[:2] for call in pair.rooms(pair.a)] == [(link, HIGH)]
    pair.world.run(0.1)
    assert pair.heard == 7


def test_a_sender_that_sleeps_hears_of_room_when_it_wakes() -> None:
    pair = Pair()
    pair.world.sleep(pair.b)
    pair.say(6)
    pair.world.run(0.1)
    pair.spied.calls.clear()
    link = want(pair, pair.a)
    pair.world.sleep(pair.a)
    pair.b.wake()
    pair.world.run(0.1)
    assert pair.rooms(pair.a) == []
    pair.a.wake()
    assert [call.given[:2] for call in pair.rooms(pair.a)] == [(link, HIGH)]
    assert pair.heard == 6


def test_a_queue_has_room_when_half_of_the_high_mark_has_left_it() -> None:
    pair = Pair(rate=10_000.0)
    pair.say(10)  # 40 KB: four seconds
    began = pair.world.now
    assert pair.rooms(pair.a) == []
    pair.world.run(5)
    rooms = pair.rooms(pair.a)
    # 16 KB are in the queue; half of that takes 0.8 s, and so does each half that follows.
    assert 0.7 < rooms[0].at - began < 1.1
    assert all(HIGH / 2 - 500 < call.given[1] <= HIGH for call in rooms)
    assert pair.heard == 10


def test_nobody_is_told_of_room_after_the_end_of_the_pipe() -> None:
    pair = Pair(rate=1_000.0)
    pair.say(10)
    pair.world.crash(pair.a)
    pair.world.restart(pair.a)
    pair.spied.calls.clear()
    pair.world.run(60)
    assert pair.rooms(pair.a) == []
