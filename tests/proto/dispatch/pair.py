"""Two dispatch machines joined by pretend wires, their applications, and a ledger of what was said.

The ledger checks at each message that it is the next of those said: once, in order, whole.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from itertools import count
from typing import NamedTuple

from meshwalk.config import Config, LinkConfig
from meshwalk.proto.dispatch import dispatch as dispatch_machine
from meshwalk.proto.dispatch.dispatch import Dispatch
from meshwalk.proto.dispatch.effects import Fault
from meshwalk.proto.effects import (
    Answered,
    Ask,
    AskGone,
    ConversationEnded,
    ConversationHeard,
    ConversationOpened,
    ConversationOver,
    ConversationRefused,
    ConversationRoom,
    Deliver,
    Effect,
    Send,
    Unanswered,
    WantRoom,
)
from meshwalk.proto.link import Link, LinkState
from meshwalk.proto.timers import Timers
from meshwalk.wire.address import Address
from meshwalk.wire.codec import FrameReader, encode_frame
from meshwalk.wire.frames import (
    FRAME_BYTES_MAX,
    CloseReason,
    ContentType,
    Credit,
    Message,
    Purpose,
)
from meshwalk.wire.peerid import PeerId

from .smallnodes import small

BYTES = ContentType.BYTES
PIPE_BYTES = 8192  # small, so that a few messages fill it


class Name(NamedTuple):
    """A conversation, as both ends know it."""

    opener: int
    life: int
    id: int


class Talk:
    """A conversation, as the application at one end knows it."""

    def __init__(self, name: Name, number: int) -> None:
        self.name = name
        self.number = number
        self.heard = 0
        """How many of the peer's messages."""
        self.unread: deque[int] = deque()
        """What each message that nobody has read yet costs."""
        self.has_ended = False
        """The peer has said all."""
        self.is_ending = False
        """This end has said all."""
        self.is_closed = False
        self.is_full = False
        self.over: ConversationOver | None = None
        self.questions: list[int] = []
        """Messages that want a reply."""


class Wire:
    """A link between the ends, in order. An end that has lost it may still be sent what it was."""

    def __init__(self, number: int, links: tuple[Link, Link]) -> None:
        self.number = number
        self.links = links
        self.is_up = [True, True]
        """Whether each end believes it to be open."""
        self.to: tuple[deque[Message | Credit], deque[Message | Credit]] = (deque(), deque())
        self.given_up_at = float("inf")
        """When an end gives it up that does not know yet that the other has lost it."""
        self.wants_room = [False, False]
        """Whether each end has asked to be told when its pipe has room."""


class End:
    """One node: its machine, and an application that keeps books."""

    def __init__(self, pair: Pair, index: int, config: Config) -> None:
        self.pair = pair
        self.index = index
        self.config = config
        self.peer = PeerId(bytes([index + 1]) * 32)
        self.life = -1
        self.machine: Dispatch
        self.start()

    def start(self) -> None:
        """Begin a life that knows nothing of the last."""
        self.life += 1
        self.out: list[Effect] = []
        self.timers = Timers()
        ids = count(1 + self.index * 5000 + self.life * 100_000)
        self.machine = Dispatch(self.peer, self.config, ids.__next__, self.timers, self.out, 0.0)
        self.talks: dict[int, Talk] = {}
        self.past: list[Talk] = []
        self.asks: dict[int, bytes] = {}
        """The peer's requests that wait for an answer."""
        self.asked_ids: set[int] = set()
        self.waiting: dict[int, bytes | None] = {}
        """Own requests: what the reply must be, once it is known."""
        self.is_sought = False
        self.delivered: list[bytes] = []
        self.effects: list[Effect] = []
        """All that came for the application in this life."""

    @property
    def other(self) -> End:
        return self.pair.ends[1 - self.index]

    def open(self, body: bytes = b"", timeout_s: float | None = None) -> Talk | None:
        party = self.machine.party(self.other.peer)
        conversations = self.machine.conversations
        number = conversations.open(party, "t", BYTES, body, timeout_s, self.pair.now)
        if number is None:
            self.machine.forget_if_idle(party)
            return None
        self.is_sought = self.is_sought or party.link is None
        id = conversations.open_now[number].id
        talk = self.talks[number] = Talk(Name(self.index, self.life, id), number)
        self.pair.said[talk.name, self.index] = [body]
        self.perform()
        return talk

    def say(self, talk: Talk, body: bytes) -> bool:
        """False: it cannot, any more."""
        said = self.machine.conversations.say(talk.number, "", BYTES, body, self.pair.now)
        if said is None:
            assert talk.over or talk.is_ending
            return False
        talk.is_full = said[1]
        self.pair.said[talk.name, self.index].append(body)
        self.perform()
        return True

    def do(self, what: Callable[[], object]) -> None:
        """Give the machine an input and do what it wants."""
        what()
        self.perform()

    def read(self, talk: Talk, most: int = 1 << 30) -> int:
        """Read so many of the messages that wait; how many there were."""
        costs = [talk.unread.popleft() for _ in range(min(most, len(talk.unread)))]
        if costs:
            machine, now = self.machine.conversations, self.pair.now
            self.do(lambda: machine.read(talk.number, len(costs), sum(costs), now))
        return len(costs)

    def end(self, talk: Talk) -> None:
        talk.is_ending = True
        self.do(lambda: self.machine.conversations.end(talk.number, self.pair.now))

    def close(self, talk: Talk) -> None:
        talk.is_ending = talk.is_closed = True
        talk.unread.clear()
        self.do(lambda: self.machine.conversations.close(talk.number, self.pair.now))

    def leave(self, talk: Talk, code: int = 100) -> None:
        talk.is_ending = talk.is_closed = True
        machine = self.machine.conversations
        self.do(lambda: machine.leave(talk.number, code, "", self.pair.now))

    # What the driver does.

    def perform(self) -> None:
        """Do what the machine wants, as the node and its driver would."""
        machine = self.machine
        while machine.wanted or machine.sending.local:
            machine.hear_local()
            wanted = machine.wanted[:]
            machine.wanted.clear()
            for effect in wanted:
                if type(effect) is Fault:
                    self.pair.faults.append(effect.text)
                    self.pair.break_off(effect.link, effect.reason)
                else:
                    self.is_sought = True
        out = self.out[:]
        self.out.clear()
        for made in out:
            self._one(made)

    def _one(self, effect: Effect) -> None:
        if type(effect) is Send:
            assert isinstance(effect.frame, Message | Credit)
            self.pair.cross(self, effect.link, effect.frame)
        elif type(effect) is WantRoom:
            self.pair.wires[effect.link].wants_room[self.index] = True
        else:
            self.effects.append(effect)
            self._hear(effect)

    def _hear(self, effect: Effect) -> None:
        if type(effect) is ConversationOpened:
            name = Name(1 - self.index, self.other.life, effect.id)
            assert (name, 1 - self.index) in self.pair.said or not self.pair.keeps_books
            assert not any(t.name == name for t in (*self.talks.values(), *self.past))
            talk = self.talks[effect.conversation] = Talk(name, effect.conversation)
            self.pair.said[name, self.index] = []
            self._next(talk, effect.body)
        elif type(effect) is ConversationHeard:
            talk = self.talks[effect.conversation]
            assert not talk.is_closed
            if effect.type == "unreliable":
                self.pair.unreliable.remove(effect.body)
            else:
                self._next(talk, effect.body)
            if effect.wants_reply:
                talk.questions.append(effect.id)
            talk.unread.append(effect.cost)
        elif type(effect) is ConversationEnded:
            talk = self.talks[effect.conversation]
            assert not talk.has_ended
            if self.pair.keeps_books:
                assert talk.heard == len(self.pair.said[talk.name, 1 - self.index])
            talk.has_ended = True
        elif type(effect) is ConversationRoom:
            self.talks[effect.conversation].is_full = False
        elif type(effect) is ConversationOver:
            talk = self.talks.pop(effect.conversation)
            talk.over = effect
            self.past.append(talk)
        elif type(effect) is ConversationRefused:
            assert effect.conversation in self.talks
        else:
            self._hear_alone(effect)

    def _hear_alone(self, effect: Effect) -> None:
        if type(effect) is Ask:
            assert effect.id not in self.asked_ids, "the same request was heard twice"
            self.asked_ids.add(effect.id)
            assert not self.pair.keeps_books or effect.body == self.pair.asked[effect.id]
            self.asks[effect.id] = effect.body
        elif type(effect) is AskGone:
            del self.asks[effect.id]
        elif type(effect) is Answered:
            del self.waiting[effect.request]
            assert effect.body == self.pair.answers[effect.request]
        elif type(effect) is Unanswered:
            del self.waiting[effect.request]
        elif type(effect) is Deliver:
            self.delivered.append(effect.delivery.body)
            self.pair.one_way[effect.delivery.body] -= 1
            assert not self.pair.keeps_books or self.pair.one_way[effect.delivery.body] >= 0, (
                "heard twice, or never said"
            )

    def _next(self, talk: Talk, body: bytes) -> None:
        if self.pair.keeps_books:
            assert body == self.pair.said[talk.name, 1 - self.index][talk.heard]
        talk.heard += 1


class Pair:
    """Two ends, the wires between them, and the time."""

    def __init__(self, config: Config | None = None, other: Config | None = None) -> None:
        self.now = 100.0
        self.said: dict[tuple[Name, int], list[bytes]] = {}
        """By conversation and which end says it."""
        self.unreliable: list[bytes] = []
        self.one_way: Counter[bytes] = Counter()
        """Said and not heard yet."""
        self.asked: dict[int, bytes] = {}
        self.answers: dict[int, bytes] = {}
        self.keeps_books = True
        """False when one of the ends says what is not in the ledger."""
        self.faults: list[str] = []
        self.wires: dict[int, Wire] = {}
        config = config or small()
        self.ends: tuple[End, End] = (End(self, 0, config), End(self, 1, other or config))
        self._numbers = count(1)

    # Wires.

    def connect(self, dialler: int = 0, purpose: Purpose = Purpose.CONVERSATION) -> Wire:
        """One more link, the same number at both ends."""
        number = next(self._numbers)
        links = (
            self._link(number, 0, purpose, is_outbound=dialler == 0),
            self._link(number, 1, purpose, is_outbound=dialler == 1),
        )
        wire = self.wires[number] = Wire(number, links)
        for end, link in zip(self.ends, links, strict=True):
            window = end.other.config.conversations.shared_window_bytes
            link.state = LinkState.OPEN
            end.is_sought = False
            end.machine.link_opened(link, window, self.now)
        for end in self.ends:
            end.perform()
        return wire

    def _link(self, number: int, index: int, purpose: Purpose, *, is_outbound: bool) -> Link:
        end = self.ends[index]
        link = Link(
            number,
            end.config.link,
            end.out,
            count().__next__,
            outbound=is_outbound,
            remote=Address("10.0.0.1", 1),
            now=self.now,
            purpose=purpose,
        )
        link.peer = end.other.peer
        link.room = PIPE_BYTES
        return link

    def retire(self, wire: Wire, index: int) -> None:
        """One end is to send over another link, if there is one."""
        end = self.ends[index]
        wire.links[index].retires_at = self.now
        end.do(lambda: end.machine.choose_link(end.other.peer, self.now))

    def lose(self, wire: Wire, index: int, reason: CloseReason | None = None) -> None:
        """One end finds that the link is lost. What is on its way to it may still come."""
        if not wire.is_up[index]:
            return
        wire.is_up[index] = False
        wire.given_up_at = self.now + LinkConfig().idle_timeout_s
        end = self.ends[index]
        wire.links[index].state = LinkState.CLOSING
        end.machine.link_gone(wire.links[index], reason, "lost", self.now)
        end.perform()

    def cut_all(self) -> None:
        """There is no link any more."""
        for wire in list(self.wires.values()):
            self.cut(wire)

    def cut(self, wire: Wire, reason: CloseReason | None = None) -> None:
        """The link breaks: both ends know, and what was on its way is lost."""
        self.wires.pop(wire.number, None)
        for queue in wire.to:
            queue.clear()
        for index in (0, 1):
            self.lose(wire, index, reason)

    def break_off(self, link: Link, reason: CloseReason) -> None:
        """One end finds fault with the other."""
        wire = self.wires.get(link.number)
        if wire is not None:
            self.cut(wire, reason)

    def cross(self, end: End, number: int, frame: Message | Credit) -> None:
        """A frame goes on its way, as bytes that can be read."""
        (copy,) = FrameReader(FRAME_BYTES_MAX).feed(encode_frame(frame))
        assert isinstance(copy, Message | Credit)
        wire = self.wires.get(number)
        if wire is not None and wire.is_up[end.index]:
            wire.to[1 - end.index].append(copy)

    def deliver(self, wire: Wire, index: int, most: int = 1 << 30) -> int:
        """So many frames arrive at an end, which may have closed the link: how many there were."""
        queue, end = wire.to[index], self.ends[index]
        done = 0
        while queue and done < most:
            frame = queue.popleft()
            link = wire.links[index]
            if isinstance(frame, Message):
                end.machine.receive(link, frame, self.now)
            else:
                end.machine.credited(link, frame, self.now)
            end.perform()
            done += 1
        self.give_room(wire, 1 - index)
        return done

    def give_room(self, wire: Wire, index: int) -> None:
        """The pipe of an end has room again, if it has."""
        waits = sum(len(f.body) + 64 for f in wire.to[1 - index] if isinstance(f, Message))
        if wire.wants_room[index] and wire.is_up[index] and waits < PIPE_BYTES // 2:
            wire.wants_room[index] = False
            end = self.ends[index]
            end.do(lambda: end.machine.room(wire.links[index], PIPE_BYTES - waits, self.now))

    def deliver_all(self) -> int:
        """Everything on its way arrives, and what that leads to: how many frames."""
        total = 0
        while done := sum(
            self.deliver(wire, index, 50) for wire in list(self.wires.values()) for index in (0, 1)
        ):
            total += done
            assert total < 100_000, "no end of it"
        return total

    # Time.

    def wait(self, seconds: float) -> None:
        """Time passes, and both ends' deadlines come."""
        until = self.now + seconds
        while True:
            for wire in [w for w in self.wires.values() if self.now >= w.given_up_at]:
                self.cut(wire)
            nexts = [at for end in self.ends if (at := end.timers.next()) is not None]
            at = min([*nexts, *(wire.given_up_at for wire in self.wires.values()), until])
            self.now = max(self.now, min(at, until))
            for end in self.ends:
                for key in end.timers.due(self.now):
                    assert key[0] in dispatch_machine.TIMERS
                    end.machine.tick(key, self.now)
                    end.perform()
            if at >= until:
                return

    def restart(self, index: int) -> None:
        """One end forgets everything."""
        end = self.ends[index]
        for wire in list(self.wires.values()):
            wire.is_up[index] = False
            self.cut(wire)
        end.start()

    # The end of it.

    def read_all(self) -> int:
        """Every application reads what it has, and answers."""
        done = 0
        for end in self.ends:
            for talk in list(end.talks.values()):
                done += end.read(talk)
        return done

    def flow(self, rounds: int = 2000) -> None:
        """Everything is delivered and read, until nothing happens any more, and time passes."""
        still = 0
        for _ in range(rounds):
            done = self.deliver_all() + self.read_all()
            for wire in [w for w in self.wires.values() if not all(w.is_up)]:
                self.cut(wire)
            if any(end.is_sought for end in self.ends) and not self.wires:
                self.connect()
                done += 1
            still = 0 if done else still + 1
            if still > 3:
                return
            self.wait(1.0)
        raise AssertionError("it does not come to rest")

    def finish(self) -> None:
        """Everybody says all and reads all; then nothing may be left."""
        if not self.wires:
            self.connect()
        self.flow()
        for end in self.ends:
            for id in list(end.asks):
                self.answer(end, id, b"late")
            for talk in list(end.talks.values()):
                end.end(talk)
        self.flow()
        self.wait(400.0)
        self.flow()

    def answer(self, end: End, id: int, body: bytes) -> None:
        """Reply to a request that waits."""
        del end.asks[id]
        self.answers[id] = body
        end.do(lambda: end.machine.reply(end.other.peer, id, BYTES, body, self.now))
