"""What applications say in conversations: some read at once, some late, some never; some end, some
close, some leave, and some have a deadline. Every end finishes by itself, whatever the other does.

Reactions are events of their own: a machine that is still performing effects is given no more.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from random import Random
from typing import Final, TypeAlias

from meshwalk.proto.effects import (
    ConversationHeard,
    ConversationOpened,
    ConversationOver,
    ConversationRoom,
    Effect,
)
from meshwalk.sim.heard import Conversed, Said, filled
from meshwalk.sim.node import SimNode
from meshwalk.sim.plan import Plan
from meshwalk.sim.world import World
from meshwalk.wire.frames import ContentType
from meshwalk.wire.messages import RefusalCode
from meshwalk.wire.peerid import PeerId

ASLEEP_LOOK_S: Final = 1.0  # guess: soon enough after its machine woke up
LONG: Final = 0.15  # guess: of ten messages, one or two are as long as the plan has it
SHORT_BYTES_MAX: Final = 200  # guess: a line of chat
PAUSES_S: Final = (0.0, 0.0, 0.05, 0.5)  # guess: between two messages of one speaker
LATE_S: Final = (0.1, 1.0)  # guess: between two looks of a slow reader
DEADLINES: Final = 0.15  # guess: the share of conversations with a deadline
DEADLINE_S: Final = (0.2, 5.0)  # guess: from too short for any to enough for most
CLOSES_AFTER_S: Final = (0.5, 10.0)  # guess: how long one listens who never reads
LOOSELY: Final = 0.1  # guess: the share of what is said that may be lost
ASKED: Final = 0.1  # guess: the share of it that wants a reply
REFUSED: Final = 0.1  # guess: the share of questions, and of conversations, that are refused

Asked: TypeAlias = Callable[[SimNode, PeerId, int, bytes], None]
"""Notes a request and the reply that it should have."""


class Reads(enum.Enum):
    """How an application reads what it hears."""

    AT_ONCE = enum.auto()
    LATE = enum.auto()
    NEVER = enum.auto()


class Finish(enum.Enum):
    """What an application does when it has said all."""

    END = enum.auto()
    CLOSE = enum.auto()
    LEAVE = enum.auto()


class Part:
    """One application's part in one conversation."""

    __slots__ = (
        "finish",
        "is_reading",
        "is_waiting",
        "left",
        "life",
        "node",
        "number",
        "pause_s",
        "peer",
        "questions",
        "reads",
        "to_read",
    )

    def __init__(self, node: SimNode, number: int, peer: PeerId, left: int, rng: Random) -> None:
        self.node = node
        self.life = node.life
        self.number = number
        self.peer = peer
        self.left = left
        """How many messages it will say yet."""
        self.pause_s = rng.choice(PAUSES_S)
        self.reads = rng.choices(list(Reads), (7, 2, 1))[0]
        self.finish = rng.choices(list(Finish), (7, 2, 1))[0]
        self.is_waiting = False
        """Whether it waits for room to say more."""
        self.is_reading = False
        """Whether its next look has been arranged."""
        self.to_read: list[int] = []
        """What each message costs that it has heard and not read."""
        self.questions: list[tuple[int, bytes]] = []
        """Requests among them: id and body."""


Step: TypeAlias = Callable[[Part], None]


class Talks:
    """The conversations of all applications of a world."""

    def __init__(
        self, world: World, conversed: Conversed, plan: Plan, rng: Random, asked: Asked
    ) -> None:
        self._world = world
        self._conversed = conversed
        self._plan = plan
        self._rng = rng
        self._asked = asked
        self._number = 0
        self._is_calm = False
        self._parts: dict[tuple[str, int, int], Part] = {}

    def open(self, node: SimNode, peer: PeerId) -> int | None:
        """Have a node open a conversation with a peer, and say what the plan allows."""
        rng, said = self._rng, self._said(node)
        has_deadline = not self._is_calm and rng.random() < DEADLINES
        timeout_s = rng.uniform(*DEADLINE_S) if has_deadline else None
        body = filled(*said)
        opened = node.core.open(peer, "talk", ContentType.BYTES, body, timeout_s, node.time())
        if opened is None:
            return None
        number, effects = opened
        self._conversed.opens(node, number, peer, said, timeout_s)
        most = self._plan.conversation_messages_max
        self._begin(Part(node, number, peer, rng.randrange(most), rng))
        node.do(effects)
        return number

    def open_calmly(self, node: SimNode, peer: PeerId) -> None:
        """The same; from now on every application reads at once and ends all in good order, so
        that this one comes to nothing only if the peer is not reached."""
        self._is_calm = True
        number = self.open(node, peer)
        if number is not None and self._conversed.is_open(node, number):
            self._conversed.ends[node.name, node.life, number].must_end_well = True

    def told(self, node: SimNode, effect: Effect) -> None:
        """Something of a node for its application."""
        if type(effect) is ConversationHeard:
            part = self._parts.get((node.name, node.life, effect.conversation))
            if part is not None:
                part.to_read.append(effect.cost)
                if effect.wants_reply:
                    part.questions.append((effect.id, effect.body))
                self._look(part)
        elif type(effect) is ConversationOpened:
            most = self._plan.conversation_messages_max
            left = self._rng.choice([0, 1, self._rng.randrange(most)])
            self._begin(Part(node, effect.conversation, effect.peer, left, self._rng))
        elif type(effect) is ConversationRoom:
            part = self._parts.get((node.name, node.life, effect.conversation))
            if part is not None and part.is_waiting:
                part.is_waiting = False
                self._later(0.0, self._say, part)
        elif type(effect) is ConversationOver:
            self._parts.pop((node.name, node.life, effect.conversation), None)

    def stopped(self, node: SimNode) -> None:
        """A node is down."""
        for key in [key for key in self._parts if key[0] == node.name]:
            del self._parts[key]

    # Steps of one part. Each is an event.

    def _begin(self, part: Part) -> None:
        self._parts[part.node.name, part.life, part.number] = part
        if self._is_calm:
            part.reads, part.finish = Reads.AT_ONCE, Finish.END
        elif part.left == 0 and self._rng.random() < REFUSED:
            part.finish = Finish.LEAVE
        self._later(part.pause_s, self._say, part)
        if part.reads is Reads.NEVER:
            self._later(self._rng.uniform(*CLOSES_AFTER_S), self._close, part)

    def _say(self, part: Part) -> None:
        """Say messages until it is to wait; then, when all is said, finish."""
        node, number = part.node, part.number
        while part.left > 0:
            part.left -= 1
            part.is_waiting = True  # room may come before it is known that it was lacking
            if self._say_one(part):
                return
            part.is_waiting = False
            if not self._conversed.is_open(node, number):
                return
            if part.pause_s:
                self._later(part.pause_s, self._say, part)
                return
        if part.finish is Finish.END:
            self._conversed.ends_saying(node, number)
            node.end(number)
        elif part.finish is Finish.CLOSE:
            self._close(part)
        else:
            self._forget(part)
            self._conversed.closes(node, number)
            node.leave_conversation(number, int(RefusalCode.NO_HANDLER), "no")

    def _say_one(self, part: Part) -> bool:
        node, number, said, luck = part.node, part.number, self._said(part.node), self._rng.random()
        if luck < LOOSELY and said[1] <= SHORT_BYTES_MAX:
            self._conversed.says_loosely(node, number, said)
            node.say_unreliably(number, filled(*said))
            return False
        self._conversed.says(node, number, said)
        if luck > 1.0 - ASKED:
            self._ask(part, filled(*said))
            return False
        return node.say(number, filled(*said))

    def _ask(self, part: Part, body: bytes) -> None:
        node, number, now = part.node, part.number, part.node.time()
        timeout_s = self._plan.config.requests.timeout_s
        asked = node.core.request(part.peer, "", ContentType.BYTES, body, timeout_s, now, number)
        if asked is None:
            self._conversed.says_nothing(node, number)
            return
        id, effects = asked
        self._asked(node, part.peer, id, body[::-1])
        node.do(effects)

    def _close(self, part: Part) -> None:
        self._forget(part)
        self._conversed.closes(part.node, part.number)
        part.node.close_conversation(part.number)

    def _look(self, part: Part) -> None:
        """Have what was heard read, as its application does it."""
        if part.is_reading or part.reads is Reads.NEVER:
            return
        part.is_reading = True
        pause_s = 0.0 if part.reads is Reads.AT_ONCE else self._rng.uniform(*LATE_S)
        self._later(pause_s, self._read, part)

    def _read(self, part: Part) -> None:
        """Read all that waits, or a part of it, and answer what was asked."""
        part.is_reading = False
        some = len(part.to_read)
        if part.reads is Reads.LATE:
            some = 1 + some // 2
        costs = part.to_read[:some]
        del part.to_read[:some]
        part.node.read(part.number, len(costs), sum(costs))
        questions, part.questions = part.questions, []
        for id, body in questions:
            if self._conversed.is_open(part.node, part.number):
                self._answer(part, id, body)
        if part.to_read:
            self._look(part)

    def _answer(self, part: Part, id: int, body: bytes) -> None:
        node, number = part.node, part.number
        end = self._conversed.ends[node.name, node.life, number]
        if end.has_ended or self._rng.random() < REFUSED:
            code = int(RefusalCode.NOT_UNDERSTOOD)
            node.do(node.core.refuse_said(number, id, code, "no", node.time()))
        else:
            node.say(number, body[::-1], id)

    # What the above share.

    def _said(self, node: SimNode) -> Said:
        """Name and size of one more message."""
        self._number += 1
        name = f"{node.name}/{node.life} c{self._number} ".encode()
        most = SHORT_BYTES_MAX
        if self._rng.random() < LONG:
            most = self._plan.conversation_bytes_max
        return name, len(name) + self._rng.randrange(most)

    def _forget(self, part: Part) -> None:
        self._parts.pop((part.node.name, part.life, part.number), None)

    def _later(self, pause_s: float, step: Step, part: Part) -> None:
        self._world.timeline.add(self._world.now + pause_s, self._do, (step, part))

    def _do(self, what: tuple[Step, Part]) -> None:
        step, part = what
        node = part.node
        if node.life != part.life or not node.is_up or node.is_leaving:
            return
        if not self._conversed.is_open(node, part.number):
            self._forget(part)
        elif node.is_asleep:  # so is the application
            self._later(ASLEEP_LOOK_S, step, part)
        elif (part.node.name, part.life, part.number) in self._parts:  # else it has done with it
            step(part)
