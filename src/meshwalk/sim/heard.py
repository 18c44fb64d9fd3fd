"""What is said in conversations must be heard: in order, without gaps, whole, once, and where it
was said to.

`Conversed` is told by the applications what they say, and by the nodes what is heard. Whatever is
said begins with a name of its own and goes on with it, so that its parts cannot change places
unseen. It keeps names and sizes, no bodies.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from meshwalk.proto.effects import (
    ConversationEnded,
    ConversationHeard,
    ConversationOpened,
    ConversationOver,
    Effect,
    PeerReached,
    PeerUnreached,
)
from meshwalk.sim.node import SimNode
from meshwalk.wire.messages import RefusalCode
from meshwalk.wire.peerid import PeerId

ROUNDING_S: Final = 1e-6  # as checks.py

Key: TypeAlias = tuple[str, int, int]
"""One end of a conversation: its node's host and life, and the number that it has there."""
Said: TypeAlias = tuple[bytes, int]
"""The name that a body begins with, and its size."""
Found: TypeAlias = Callable[[SimNode | None, str], None]


def filled(name: bytes, size: int) -> bytes:
    """A body of that size: its name, again and again; no shorter than that."""
    return (name * (size // len(name) + 1))[: max(size, len(name))]


def name_of(body: bytes) -> bytes:
    """The first two words: who says it, and a number."""
    return b" ".join(body[:64].split(b" ", 2)[:2]) + b" "


class End:
    """What one end has said and heard."""

    __slots__ = (
        "answers",
        "has_ended",
        "heard",
        "is_closed",
        "is_ended",
        "loose",
        "me",
        "must_end_well",
        "other",
        "peer",
        "said",
        "until",
    )

    def __init__(self, me: PeerId, peer: PeerId, opener: End | None) -> None:
        self.me = me
        self.peer = peer
        self.other = opener
        """Whom it hears: the end that opened it. That one knows when it hears the first."""
        self.answers: list[End] = []
        """Ends that heard of this one's opening: one for each life of the peer at the most."""
        self.said: list[Said] = []
        self.loose: dict[bytes, int] = {}
        """What was said unreliably: sizes by name."""
        self.has_ended = False
        """Whether it has said that it says no more."""
        self.heard = 0
        """How much of what the other end said."""
        self.is_ended = False
        """Whether it was told that the other says no more."""
        self.is_closed = False
        """Whether it listens no more, nor expects the other end to end."""
        self.must_end_well = False
        """Whether nothing stands in its way."""
        self.until = float("inf")
        """Its deadline, by its node's time."""


MISSES_MAX: Final = 1  # measured: of a thousand worlds some three have one
SEARCHED_IN_VAIN: Final = ("nobody asked knows one", "no answer came", "was not reached within")


class Conversed:
    """All conversations of a world."""

    def __init__(self, found: Found, hostile: set[PeerId]) -> None:
        self.opened_count = self.accepted_count = self.heard_count = 0
        self.missed = 0
        """Conversations that had to end well, and whose peer was searched for in vain."""
        self.ended_well = 0
        """Conversations, seen from one end each, that ended with all said and heard."""
        self.ends: dict[Key, End] = {}
        """Those that are not over."""
        self.deadlines_hold = True
        """Whether deadlines are kept: not where processes are stopped while clocks go on."""
        self._found = found
        self._hostile = hostile
        self._openings: dict[bytes, End] = {}
        self._wanted: dict[tuple[str, int, PeerId], None] = {}
        """Peers that are to be reached, by host and life of who wants that."""

    def is_open(self, node: SimNode, number: int) -> bool:
        """Whether a conversation is not over at a node, in its present life."""
        return (node.name, node.life, number) in self.ends

    # What applications do.

    def opens(
        self, node: SimNode, number: int, peer: PeerId, said: Said, timeout_s: float | None
    ) -> None:
        """A node opens a conversation under this number."""
        end = self.ends[node.name, node.life, number] = End(node.id, peer, None)
        end.said.append(said)
        if timeout_s is not None:
            end.until = node.time() + timeout_s
        self._openings[said[0]] = end
        self.opened_count += 1

    def says(self, node: SimNode, number: int, said: Said) -> None:
        """A node says something in a conversation that is not over."""
        self.ends[node.name, node.life, number].said.append(said)

    def says_nothing(self, node: SimNode, number: int) -> None:
        """It did not say the last after all."""
        self.ends[node.name, node.life, number].said.pop()

    def says_loosely(self, node: SimNode, number: int, said: Said) -> None:
        """It says something that may be lost."""
        name, size = said
        self.ends[node.name, node.life, number].loose[name] = size

    def ends_saying(self, node: SimNode, number: int) -> None:
        """It says no more."""
        self.ends[node.name, node.life, number].has_ended = True

    def closes(self, node: SimNode, number: int) -> None:
        """It says and hears no more, and has no deadline: what it said is still to be read."""
        end = self.ends[node.name, node.life, number]
        end.has_ended = end.is_closed = True
        end.until = float("inf")

    def wants(self, node: SimNode, peer: PeerId) -> None:
        """A node wants a link to a peer that it has none to."""
        self._wanted[node.name, node.life, peer] = None

    # What happens.

    def told(self, node: SimNode, effect: Effect) -> None:
        """Something of a node for its application."""
        handler = _HANDLERS.get(type(effect))
        if handler is not None:
            handler(self, node, effect)

    def stopped(self, node: SimNode) -> None:
        """A node is down, and all its ends are gone."""
        for key in [key for key in self.ends if key[0] == node.name]:
            del self.ends[key]
        for wanted in [wanted for wanted in self._wanted if wanted[0] == node.name]:
            del self._wanted[wanted]

    def rest(self) -> None:
        """All must be over."""
        for host, life, number in self.ends:
            self._found(None, f"conversation {number} of {host} in life {life} has never ended")
        for host, life, peer in self._wanted:
            self._found(None, f"{host} in life {life} never heard whether {peer.short} is reached")

    # Steps.

    def _opened(self, node: SimNode, effect: ConversationOpened) -> None:
        self.accepted_count += 1
        name = name_of(effect.body)
        opening = self._openings.get(name)
        if opening is None or opening.me != effect.peer:
            if effect.peer not in self._hostile:
                self._found(node, f"a conversation that nobody opened so: {name!r}")
            opening = End(effect.peer, node.id, None)
            opening.said.append((name, len(effect.body)))
        elif opening.peer != node.id and effect.peer not in self._hostile:
            self._found(node, f"a conversation that was opened with another: {name!r}")
        end = End(node.id, effect.peer, opening)
        end.heard = 1
        self.ends[node.name, node.life, effect.conversation] = end
        opening.answers.append(end)
        self._compare(node, end, effect.body, opening.said[0])

    def _heard(self, node: SimNode, effect: ConversationHeard) -> None:
        self.heard_count += 1
        body = effect.body
        name = name_of(body)
        end = self.ends.get((node.name, node.life, effect.conversation))
        if end is None:
            self._found(node, f"heard in a conversation that is over: {name!r}")
            return
        if end.is_closed:
            self._found(node, f"heard in a conversation that was closed: {name!r}")
        if end.other is None:
            end.other = next((e for e in end.answers if _says(e, name)), None)
        other = end.other
        if self._is_spoilt(end):
            return
        if other is None:
            self._found(node, f"heard, and nobody said it here: {name!r}")
            return
        if (size := other.loose.pop(name, None)) is not None:
            self._compare(node, end, body, (name, size))
            return
        if end.heard >= len(other.said):
            self._found(node, f"heard more than was said in a conversation: {name!r}")
            return
        self._compare(node, end, body, other.said[end.heard])
        end.heard += 1
        if end.is_ended:
            self._found(node, f"heard after the last word of a conversation: {name!r}")

    def _compare(self, node: SimNode, end: End, body: bytes, said: Said) -> None:
        if body != filled(*said) and not self._is_spoilt(end):
            name, size = said
            self._found(
                node, f"heard {len(body)} bytes {name_of(body)!r}, not the {size} of {name!r}"
            )

    def _ended(self, node: SimNode, effect: ConversationEnded) -> None:
        end = self.ends.get((node.name, node.life, effect.conversation))
        if end is None or end.is_ended:
            self._found(node, "a conversation has ended twice, or was over")
            return
        end.is_ended = True
        if self._is_spoilt(end):
            return
        if end.other is None:
            end.other = next((e for e in end.answers if e.has_ended and not e.said), None)
        other = end.other
        if other is None or not other.has_ended:
            self._found(node, "the last word of a conversation that goes on")
        elif end.heard < len(other.said):
            text = f"the last word after {end.heard} of {len(other.said)} in a conversation"
            self._found(node, text)

    def _over(self, node: SimNode, effect: ConversationOver) -> None:
        end = self.ends.pop((node.name, node.life, effect.conversation), None)
        if end is None:
            self._found(node, "a conversation is over twice")
            return
        if self.deadlines_hold and node.time() > end.until + ROUNDING_S:
            late_s = node.time() - end.until
            self._found(node, f"a conversation is over {late_s:.3f} s after its deadline")
        if effect.why is not None:
            if end.must_end_well and not self._may_miss(effect):
                peer = end.peer.short
                why = effect.text or effect.why.name
                self._found(node, f"a conversation with {peer} came to nothing: {why}")
            return
        self.ended_well += 1
        if not end.has_ended:
            self._found(node, "a conversation is over that this end has not ended")
        elif not end.is_closed and not end.is_ended:
            self._found(node, "a conversation is over that the other end has not ended")

    def _may_miss(self, effect: ConversationOver) -> bool:
        """Whether it came to nothing by the small numbers of a plan, or by chance: a search is a
        few random walks, and a second miss in one world is no chance."""
        if effect.code == RefusalCode.BUSY:
            return True
        is_miss = any(text in effect.text for text in SEARCHED_IN_VAIN)
        self.missed += is_miss
        return is_miss and self.missed <= MISSES_MAX

    def _is_spoilt(self, end: End) -> bool:
        """Whether one of the two may say, or have said in its name, what it pleases."""
        return end.me in self._hostile or end.peer in self._hostile

    def _reached(self, node: SimNode, effect: PeerReached | PeerUnreached) -> None:
        self._wanted.pop((node.name, node.life, effect.peer), None)


def _says(end: End, name: bytes) -> bool:
    return name in end.loose or (bool(end.said) and end.said[0][0] == name)


_HANDLERS: Final[dict[type, Callable[..., None]]] = {
    ConversationOpened: Conversed._opened,
    ConversationHeard: Conversed._heard,
    ConversationEnded: Conversed._ended,
    ConversationOver: Conversed._over,
    PeerReached: Conversed._reached,
    PeerUnreached: Conversed._reached,
}
