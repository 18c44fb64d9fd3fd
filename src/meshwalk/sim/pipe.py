"""One end of a pretend pipe: order, what waits because it cannot cross, and how full that makes it.

What cannot cross waits as TCP would have it, and arrives in order when the way is free again. The
sender's machines hear of it as they would from a real transport: stalled, overflowed, resumed.

A frame that is lost for good leaves a gap where it would have come, and what was sent after it
waits there in vain. The sender's system gives its end up after a while; the other end hears nothing
of that until it sends something, which is answered with a reset.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from meshwalk.errors import MalformedFrame
from meshwalk.wire.codec import FrameReader, encode_frame
from meshwalk.wire.frames import Frame

if TYPE_CHECKING:
    from meshwalk.sim.node import SimNode


class Finished:
    """The last of the handshake: the acceptor's pipe is there."""


class Lost:
    """The end of the pipe, as its other end hears of it."""


class Gap:
    """Where a frame is missing that never comes."""


FINISHED: Final = Finished()
LOST: Final = Lost()
GAP: Final = Gap()
GIVEN_UP: Final = "the network lost too much; the system gave the connection up"
DRAINED: Final = 0.5  # as net/connection.py: of the high mark, so that many parts go out at once

Item: TypeAlias = Frame | bytes | Finished | Lost
"""What crosses a pipe: a frame, encoded frames, or the pipe's begin and end."""


def size_of(item: Item) -> int:
    """How many bytes an item takes on the wire."""
    if isinstance(item, bytes):
        return len(item)
    if isinstance(item, Finished | Lost):
        return 0
    return len(encode_frame(item))


class PipeEnd:
    """Where one end of a pipe receives."""

    __slots__ = (
        "arrives_at",
        "has_gap",
        "held",
        "held_bytes",
        "host",
        "is_cut",
        "is_given_up",
        "is_open",
        "is_told_full",
        "life",
        "link",
        "node",
        "other",
        "reader",
        "wants_room",
    )

    def __init__(self, node: SimNode, link: int, life: int) -> None:
        self.node = node
        self.host = node.host
        self.link = link
        self.life = life
        """Which life of the node it belongs to."""
        self.other: PipeEnd
        self.is_open = True
        self.arrives_at = 0.0
        """When the last of what is on its way arrives: nothing overtakes."""
        self.reader: FrameReader | None = None
        """Made when the first bytes come: few worlds encode, and nodes have many ends."""
        self.held: list[Item | Gap] | None = None
        """What has come and could not be taken."""
        self.held_bytes = 0
        self.is_told_full = False
        """Whether the sender's machines believe that much waits here."""
        self.wants_room = False
        """Whether this end's machines are to hear when it can take more."""
        self.has_gap = False
        """Whether something that was sent here was lost for good."""
        self.is_given_up = False
        """Whether its own system gave it up while the machine slept."""

        self.is_cut = False
        """Whether one of the ends has another address by now: nothing comes here, not even a
        reset."""

    @property
    def is_blocked(self) -> bool:
        """Whether nothing can be taken here now."""
        node = self.node
        if node.is_asleep:
            return True
        conditions = node.world.conditions
        return not conditions.can_cross(self.other.node.host, node.host)

    def release(self) -> None:
        """Take what waits, if the way is free again, and hear what was not heard asleep."""
        if self.held and self.held[0] is not GAP and not self.is_blocked:
            items, self.held, self.held_bytes = self.held, None, 0
            for item in items:
                if item is GAP:
                    self.leave_gap()
                else:
                    self.arrive(item)  # type: ignore[arg-type]
            self._tell_sender()
        self.other._tell_sender()
        if self.is_given_up and self.is_open:
            self.give_up()

    def room_or_wait(self) -> int:
        """How many bytes this end can send on before it holds much; 0: its node is told later.

        What is held at the other end counts, and what the queues of a limited path hold: for want
        of a system with a buffer for each pipe, all that the host has sent.
        """
        node = self.node
        high = node.config.link.send_buffer_high_bytes
        world, held = node.world, self.other.held_bytes
        self.wants_room = False
        if world.conditions.is_plain and not held:
            return high
        queued, rate = world.conditions.queued(world.now, node.host, self.other.host)
        if held + queued < high:
            return high - held - int(queued)
        self.wants_room = True
        if held < high:
            free_at = world.now + (queued + held - high * DRAINED) / rate
            world.timeline.add(free_at, self._has_drained, None)
        return 0

    def _has_drained(self, _: None) -> None:
        """A queue on the way has got shorter, unless that has changed meanwhile."""
        self.other._offer_room()

    def arrive(self, item: Item) -> None:
        """Take what was sent from the other end, or hold it for as long as it cannot cross."""
        if not self.is_open:
            if self.other.has_gap:  # so what was sent last may not have come there
                self._reset(item)
            return
        node = self.node
        if node.life != self.life or not node.is_up:
            self._reset(item)
            return
        world = node.world
        is_free = not (self.held or node.is_asleep or world.conditions.blocks_anything)
        if not is_free and (self.held or self.is_blocked):
            self._hold(item)
        elif type(item) is bytes:
            self._take_bytes(item)
        elif item is LOST:
            world.ended(self)
        elif item is FINISHED:
            world.finished(self)
        else:
            now = world.now - node.slept_s  # the hot path: what `SimNode.time` would say
            node.do(node.core.receive(self.link, (item,), now))  # type: ignore[arg-type]

    def cut(self) -> None:
        """Nothing comes here any more."""
        self.is_cut = True
        self.leave_gap()

    def leave_gap(self, _: None = None) -> None:
        """What comes after this waits for something that never comes."""
        if self.is_open:
            if self.held is None:
                self.held = []
            self.held.append(GAP)

    def give_up(self, _: None = None) -> None:
        """What this end sent has been in vain too often: its system tells the machines, if awake.

        Nothing crosses for that, so it is told over a blocked path as well.
        """
        if not self.is_open:
            return
        if self.node.is_asleep:
            self.is_given_up = True
        else:
            self.node.world.ended(self, GIVEN_UP)

    def _reset(self, item: Item) -> None:
        """A machine that is up answers with a reset what comes for a pipe that is gone."""
        node = self.node
        if not node.has_vanished and not self.is_blocked:
            self.is_open = False
            if item is not LOST:
                node.world.transmit(self.other, LOST)

    def _take_bytes(self, data: bytes) -> None:
        node = self.node
        if self.reader is None:
            self.reader = FrameReader(node.config.link.frame_bytes_max)
        try:
            frames = self.reader.feed(data)
        except MalformedFrame as error:
            node.do(node.core.malformed(self.link, str(error), node.time()))
        else:
            node.do(node.core.receive(self.link, frames, node.time()))

    def _hold(self, item: Item) -> None:
        if self.held is None:
            self.held = []
        if item is LOST and self.is_cut:
            return
        if item is LOST and GAP in self.held:  # a reset waits for nothing that was lost
            del self.held[self.held.index(GAP) :]
            if not self.held and not self.is_blocked:
                self.node.world.ended(self)
                return
        self.held.append(item)
        self.held_bytes += size_of(item)
        if self.held_bytes > self.other.node.config.link.send_buffer_high_bytes:
            self._tell_sender()

    def _tell_sender(self) -> None:
        """Have the machines at the other end hear how much waits here, if they can hear at all."""
        end, sender = self.other, self.other.node
        if not end.is_open or not sender.is_up or sender.is_asleep or sender.life != end.life:
            return
        limits = sender.config.link
        if self.held_bytes > limits.send_buffer_bytes_max:
            sender.do(sender.core.overflowed(end.link, sender.time()))
        elif self.held_bytes <= limits.send_buffer_high_bytes:
            if self.is_told_full:
                self.is_told_full = False
                sender.do(sender.core.resumed(end.link))
            self._offer_room()
        elif not self.is_told_full:
            self.is_told_full = True
            sender.do(sender.core.stalled(end.link, sender.time()))

    def _offer_room(self) -> None:
        """Have the machines at the other end hear that they may send more, if they want to."""
        end, sender = self.other, self.other.node
        if not end.wants_room or not end.is_open:
            return
        if sender.is_up and not sender.is_asleep and sender.life == end.life:
            room = end.room_or_wait()
            if room > 0:
                sender.do(sender.core.room(end.link, room, sender.time()))
