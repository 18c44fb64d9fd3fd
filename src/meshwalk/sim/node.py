"""A simulated node: the shipped machines on a host of a world, and what outlives a crash of them.

It does what `net/driver.py` does for a real one: feeds inputs, performs effects in order, arms one
timer. The wire and other nodes are the world's.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from meshwalk.config import Config
from meshwalk.events import Delivery
from meshwalk.identity.keys import Signatures
from meshwalk.proto.effects import (
    Deliver,
    Dial,
    Effect,
    ForgetPeer,
    KeepBroadcast,
    Readers,
    SavePeer,
    Send,
    Shut,
    WantRoom,
)
from meshwalk.proto.node import NodeCore
from meshwalk.proto.overlay.restoring import restored
from meshwalk.wire.address import Address
from meshwalk.wire.frames import ContentType, Frame
from meshwalk.wire.peerid import PeerId

if TYPE_CHECKING:
    from meshwalk.sim.dialling import Dialling
    from meshwalk.sim.pipe import PipeEnd
    from meshwalk.sim.world import World

UNIX_START_S: Final = 1_700_000_000.0  # any date will do: what Unix time it is at time 0
NEVER: Final = float("inf")


class Observer:
    """Hears what nodes have for their applications. Subclass it; as it stands it forgets all."""

    def delivered(self, node: SimNode, delivery: Delivery) -> None:
        """A message."""

    def stopped(self, node: SimNode) -> None:
        """The node is down; what its application waited for will not come."""

    def told(self, node: SimNode, effect: Effect) -> None:
        """Anything else that the world does not perform: events, requests, replies, records."""


class Behaviour:
    """How a node departs from the protocol. As it stands it does not: attackers.py has some."""

    def sends(self, node: SimNode, link: int, frame: Frame) -> list[Frame | bytes]:
        """What goes out on a link instead of a frame; bytes go out as they are."""
        return [frame]


class SimNode:
    """One node of a `World`. Made by `World.add`."""

    def __init__(
        self,
        world: World,
        host: str,
        port: int,
        signatures: Signatures,
        config: Config,
    ) -> None:
        # What every event reads comes first: attributes lie in the order of their first setting.
        self.world = world
        self.core: NodeCore
        self.is_up = False
        self.is_asleep = False
        """Takes nothing and does nothing, as a machine that is suspended."""
        self.life = 0
        """How often it was started."""
        self.slept_s = 0.0
        """How far its machine's time is behind the world's."""
        self.ends: dict[int, PipeEnd] = {}
        """Its ends of pipes, by the number of their link."""
        self.behaviour: Behaviour | None = None
        self._wanting: list[int] = []
        """Links whose machines want to know when there is room."""
        self._timers_seen = -1
        self._armed = NEVER
        self._arming = 0
        """How often the timer was set: only the last setting counts, in whichever life."""
        self.address = Address(host, port)
        self.host = host
        self.name = host
        """The host it had first: what it is called wherever it moves."""
        self.signatures = signatures
        self.config = config
        self.listens = True
        """Whether it accepts connections, and announces where."""
        self.is_firewalled = False
        """Whether connections to it are dropped without a word."""
        self.has_vanished = False
        """Down together with its machine: nobody even refuses."""
        self.is_leaving = False
        """Says goodbye: its application has stopped, and it soon will."""
        self.dialling: dict[int, Dialling] = {}
        """Its dials and accepted handshakes under way, by the number of their link."""
        self.stored: dict[PeerId, SavePeer] = {}
        """The address book as a store would have it."""
        self.kept: deque[KeepBroadcast] = deque(maxlen=config.history.count_max)
        """Broadcasts as a store would have them."""
        self._asleep_since = 0.0

    def __repr__(self) -> str:
        return f"<{self.host} {self.signatures.peer_id.short}>"

    @property
    def id(self) -> PeerId:
        """Its PeerId; the same in every life."""
        return self.signatures.peer_id

    @property
    def neighbours(self) -> list[PeerId]:
        """Peers with a standing link, oldest first."""
        return list(self.core.overlay.membership.neighbours)

    def time(self) -> float:
        """Its machine's time, which stands still while it sleeps."""
        if self.is_asleep and self._asleep_since != NEVER:
            return self._asleep_since - self.slept_s
        return self.world.now - self.slept_s

    # Its life; the world calls these.

    def start(self, seed: int) -> None:
        """Run from here on, with the peers that its store kept."""
        self.life += 1
        self.is_up, self.is_leaving, self.has_vanished, self.is_asleep = True, False, False, False
        self._disarm()
        now, unix_offset_s = self.time(), UNIX_START_S + self.slept_s
        self.core = self.world.make_core(self, seed, now, unix_offset_s)
        self._timers_seen = -1
        self._wanting.clear()
        self._is_at(now)
        known = [restored(saved, unix_offset_s) for saved in self.stored.values()]
        entries = [entry for entry in known if entry is not None]
        self.do(self.core.start(entries, now, list(self.kept)))

    def sleep(self, *, clock_stops: bool) -> None:
        """Take nothing and do nothing; time stands still as well, unless it is only stopped.

        A machine that sleeps already goes on as it does.
        """
        if self.is_asleep:
            return
        self.is_asleep = True
        self._asleep_since = self.world.now if clock_stops else NEVER

    def wake(self) -> None:
        """Go on, if it sleeps. What waited for it arrives, in order."""
        if not self.is_asleep:
            return
        self.is_asleep = False
        effects: list[Effect] = []
        if self._asleep_since != NEVER:
            self.slept_s += self.world.now - self._asleep_since
            effects = self.core.calendar_set(UNIX_START_S + self.slept_s, self.time())
        self._disarm()
        if self.is_up:  # not when it crashed asleep
            self.do([*effects, *self._is_at(self.time())])
        self.arm()
        self.release()

    def moved(self) -> None:
        """See that the machine has another address than before; when it wakes, if it sleeps."""
        if not self.is_asleep:
            self.do(self._is_at(self.time()))

    def _is_at(self, now: float) -> list[Effect]:
        self.core.listening((self.address,) if self.listens else (), now)
        return self.core.hosts((self.host,), now)

    def release(self) -> None:
        """Take what waits, where the way is free again, and hear what was not heard asleep."""
        for end in list(self.ends.values()):
            end.release()
        for dialling in list(self.dialling.values()):
            dialling.release()

    # Commands, as an application would give them.

    def join(self, other: SimNode, expected: PeerId | None = None) -> None:
        """Enter the network through another node."""
        self.do(self.core.join(other.address, expected, self.time()))

    def broadcast(self, body: bytes, topic: str = "") -> int:
        """Send to everyone; the number of the broadcast at this node, in this life."""
        now = self.time()
        sequence, effects = self.core.broadcast(topic, ContentType.BYTES, body, now)
        self.do(effects)
        return sequence

    def reach(self, peer: PeerId) -> None:
        """Have a link to any peer."""
        self.do(self.core.reach(peer, self.time()))

    def open(
        self, peer: PeerId, type: str, body: bytes, timeout_s: float | None = None
    ) -> int | None:
        """Open a conversation: this node's number for it. None: there are too many."""
        opened = self.core.open(peer, type, ContentType.BYTES, body, timeout_s, self.time())
        if opened is None:
            return None
        number, effects = opened
        self.do(effects)
        return number

    def say(self, conversation: int, body: bytes, in_reply_to: int = 0) -> bool:
        """Say something in a conversation. Raises `Closed`.

        True: wait for `ConversationRoom`, which the observer may have heard before this returns.
        """
        now = self.time()
        must_wait, effects = self.core.say(
            conversation, "", ContentType.BYTES, body, now, in_reply_to
        )
        self.do(effects)
        return must_wait

    def say_unreliably(self, conversation: int, body: bytes) -> bool:
        """Say something if it can go out now; whether it did."""
        now = self.time()
        was_said, effects = self.core.say_unreliably(conversation, "", ContentType.BYTES, body, now)
        self.do(effects)
        return was_said

    def read(self, conversation: int, messages: int, cost: int) -> None:
        """Take what was heard in a conversation."""
        self.do(self.core.read(conversation, messages, cost, self.time()))

    def end(self, conversation: int) -> None:
        """Say nothing more in a conversation."""
        self.do(self.core.end(conversation, self.time()))

    def close_conversation(self, conversation: int) -> None:
        """Say nothing more in a conversation, and listen no more."""
        self.do(self.core.close_conversation(conversation, self.time()))

    def leave_conversation(self, conversation: int, code: int, text: str) -> None:
        """End a conversation at once."""
        self.do(self.core.leave_conversation(conversation, code, text, self.time()))

    # What `net/driver.py` does.

    def do(self, effects: list[Effect]) -> None:
        """Perform effects in order, then see to the timer."""
        while True:
            for effect in effects:
                if type(effect) is Send:
                    end = self.ends.get(effect.link)
                    if end is None:
                        continue
                    if self.behaviour is None:
                        self.world.cross(end, effect.frame)
                    else:
                        self._misbehave(self.behaviour, end, effect)
                elif type(effect) is Deliver:
                    if effect.readers is not Readers.UNORDERED:  # simulated ones read in order
                        self.world.observer.delivered(self, effect.delivery)
                elif type(effect) is WantRoom:
                    self._wanting.append(effect.link)
                elif type(effect) is Dial:
                    self.world.dial(self, effect)
                elif type(effect) is Shut:
                    self.world.shut(self, effect.link)
                else:
                    self._tell(effect)
            if not self._wanting:
                break
            effects = self._give_room(self._wanting.pop())
        if self.core.timers.changes != self._timers_seen:
            self.arm()

    def arm(self) -> None:
        """Have the machines called when they want to be."""
        timers = self.core.timers
        self._timers_seen = timers.changes
        at = timers.next()
        if at is not None and at < self._armed:
            self._armed = at
            self._arming += 1
            # A machine that was stopped while its clock went on has deadlines behind it.
            due = max(at + self.slept_s, self.world.now)
            self.world.timeline.add(due, self._tick, self._arming)

    def _disarm(self) -> None:
        self._armed = NEVER
        self._arming += 1

    def _tick(self, arming: int) -> None:
        if arming != self._arming or not self.is_up or self.is_asleep:
            return  # set anew meanwhile; or it will be when it wakes
        # Not before the time it was set for, as the rounding of a clock that stood still has it.
        now = self.world.now - self.slept_s
        if now < self._armed:
            now = self._armed
        self._armed = NEVER
        self.do(self.core.tick(now))
        if self._armed == NEVER:  # else a deadline was set, and so the timer, too
            self.arm()

    def _give_room(self, link: int) -> list[Effect]:
        """What comes of it that a pipe can take more; nothing, if it says so later."""
        end = self.ends.get(link)
        room = end.room_or_wait() if end is not None else 0
        return self.core.room(link, room, self.time()) if room > 0 else []

    def _misbehave(self, behaviour: Behaviour, end: PipeEnd, send: Send) -> None:
        for item in behaviour.sends(self, send.link, send.frame):
            self.world.cross(end, item)

    def _tell(self, effect: Effect) -> None:
        if type(effect) is SavePeer:
            self.stored[effect.peer] = effect
        elif type(effect) is ForgetPeer:
            self.stored.pop(effect.peer, None)
        elif type(effect) is KeepBroadcast:
            self.kept.append(effect)
        self.world.observer.told(self, effect)
