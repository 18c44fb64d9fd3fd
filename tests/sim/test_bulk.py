"""Much in one conversation over a long path: the window grows if the reader keeps up, else not."""

from __future__ import annotations

from meshwalk.proto.effects import ConversationHeard, ConversationOpened, ConversationRoom, Effect
from meshwalk.sim.latency import Constant
from meshwalk.sim.node import Observer, SimNode
from meshwalk.sim.world import World
from meshwalk.wire.frames import FIRST_WINDOW_BYTES

ONE_WAY_S = 0.05
MESSAGE_BYTES = 64_000
FIRST_PER_S = FIRST_WINDOW_BYTES / (2 * ONE_WAY_S)
"""What the first window alone carries over this path."""


class Bulk(Observer):
    """One node says as much as it may, another reads at a rate, or as it comes."""

    def __init__(self, reads_per_s: float | None = None) -> None:
        self.world = World(1, Constant(ONE_WAY_S), encodes=False, observer=self)
        self.a, self.b = self.world.add(), self.world.add()
        self.a.join(self.b)
        self.world.run(5)
        self.reads_per_s = reads_per_s
        self.number_at_b = 0
        self.waiting: list[int] = []
        self.read_bytes = 0
        number = self.a.open(self.b.id, "bulk", b"")
        assert number is not None
        self.number = number
        self.began = self.world.now
        self.say()
        if reads_per_s is not None:
            self.read_slowly(None)

    def told(self, node: SimNode, effect: Effect) -> None:
        if type(effect) is ConversationOpened:
            self.number_at_b = effect.conversation
        elif type(effect) is ConversationRoom:
            self.world.timeline.add(self.world.now, self.say, None)
        elif type(effect) is ConversationHeard:
            self.waiting.append(effect.cost)
            if self.reads_per_s is None:
                self.world.timeline.add(self.world.now, self.read, None)

    def say(self, _: None = None) -> None:
        while not self.a.say(self.number, bytes(MESSAGE_BYTES)):
            pass

    def read(self, _: None) -> None:
        if self.waiting:
            cost = self.waiting.pop(0)
            self.read_bytes += cost
            self.b.read(self.number_at_b, 1, cost)

    def read_slowly(self, _: None) -> None:
        self.read(None)
        assert self.reads_per_s is not None
        pause_s = MESSAGE_BYTES / self.reads_per_s
        self.world.timeline.add(self.world.now + pause_s, self.read_slowly, None)

    @property
    def window(self) -> int:
        """Of the reader, as it is now."""
        conversation = self.b.core.dispatch.conversations.open_now[self.number_at_b]
        return conversation.incoming.window.size

    def run(self, seconds: float) -> float:
        """Bytes a second that were read in the last half of this time."""
        self.world.run(seconds / 2)
        before = self.read_bytes
        self.world.run(seconds / 2)
        return (self.read_bytes - before) / (seconds / 2)


def test_the_window_grows_to_what_the_path_holds() -> None:
    """It doubles with each round trip; the limit of `window_bytes_max` comes first here."""
    bulk = Bulk()
    per_s = bulk.run(6.0)
    assert per_s > 8 * FIRST_PER_S
    assert bulk.window == bulk.b.config.conversations.window_bytes_max


def test_a_slow_reader_keeps_the_first_window() -> None:
    reads_per_s = FIRST_PER_S / 4
    bulk = Bulk(reads_per_s)
    per_s = bulk.run(6.0)
    assert 0.8 * reads_per_s < per_s <= 1.05 * reads_per_s
    assert bulk.window == FIRST_WINDOW_BYTES
    assert sum(bulk.waiting) <= FIRST_WINDOW_BYTES


def test_a_reader_that_becomes_fast_gets_a_larger_window() -> None:
    bulk = Bulk(FIRST_PER_S / 4)
    bulk.run(2.0)
    assert bulk.window == FIRST_WINDOW_BYTES
    bulk.reads_per_s = 100 * FIRST_PER_S
    assert bulk.run(4.0) > 4 * FIRST_PER_S
    assert bulk.window > 4 * FIRST_WINDOW_BYTES
