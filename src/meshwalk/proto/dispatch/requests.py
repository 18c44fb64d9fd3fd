"""Requests: one message, one reply, a deadline. Own ones that wait, and others' being answered.

A reply that comes after the deadline is told apart from a second one, and both from one that
answers nothing that this node ever asked: all three are counted and dropped. A request that nobody
here answers is refused with a code, never with silence.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from meshwalk.config import RequestConfig
from meshwalk.proto.dispatch.conversation import Conversation, Counterparty, Kind
from meshwalk.proto.effects import Answered, Ask, AskGone, Effect, Unanswered, Why
from meshwalk.proto.timers import Timers
from meshwalk.wire.frames import Message
from meshwalk.wire.messages import Refusal
from meshwalk.wire.peerid import PeerId

TIMER: Final = "request"


class Requests:
    """The requests of one node."""

    def __init__(
        self,
        config: RequestConfig,
        answered_max: int,
        first_id: int,
        timers: Timers,
        out: list[Effect],
    ) -> None:
        self.counts: Counter[str] = Counter()
        self.waiting: dict[int, Counterparty] = {}
        """Own requests that wait for a reply, by id."""
        self.serving: dict[tuple[PeerId, int], Counterparty] = {}
        """Requests of others that are being answered."""
        self._config = config
        self._timers = timers
        self._out = out
        self._first_id = first_id
        self._last_id = 0
        self._over: dict[int, bool] = {}
        """Own requests that were over lately, oldest first: whether they were answered."""
        self._answered_max = answered_max

    # Own requests.

    @property
    def is_full(self) -> bool:
        """Whether no more may wait."""
        return len(self.waiting) >= self._config.pending_max

    def ask(
        self,
        id: int,
        party: Counterparty,
        timeout_s: float,
        now: float,
        conversation: Conversation | None = None,
    ) -> None:
        """Wait for the reply to a request that is being sent."""
        self.waiting[id] = party
        self._last_id = id
        party.asked[id] = conversation
        if conversation is not None:
            if conversation.asked is None:
                conversation.asked = {}
            conversation.asked[id] = None
        self._timers.set((TIMER, id), now + timeout_s)

    def awaits(self, id: int, party: Counterparty) -> bool:
        """Whether this peer owes the reply to such a request."""
        return self.waiting.get(id) is party

    def abandon(self, id: int) -> bool:
        """Nobody waits for this reply any more. False: nobody did."""
        party = self.waiting.pop(id, None)
        if party is None:
            return False
        conversation = party.asked.pop(id)
        if conversation is not None and conversation.asked is not None:
            del conversation.asked[id]
        self._timers.cancel((TIMER, id))
        self._over[id] = False
        if len(self._over) > self._answered_max:
            del self._over[next(iter(self._over))]
        return True

    def answered(self, id: int, party: Counterparty, message: Message) -> bool:
        """A reply has come. False: nothing of the kind was ever asked here."""
        if not self._ends(id, party):
            return self._is_late(id, message.in_regards_to)
        self.counts["answered"] += 1
        self._out.append(Answered(id, message.content, message.body))
        return True

    def refused(self, id: int, party: Counterparty, refusal: Refusal, regards: int = 0) -> bool:
        """A refusal has come. False: nothing of the kind was ever asked here."""
        if not self._ends(id, party):
            return self._is_late(id, regards)
        self.counts["refused"] += 1
        self._out.append(Unanswered(id, Why.REFUSED, refusal.code, refusal.text))
        return True

    def tick(self, id: int) -> None:
        """A request's deadline has come."""
        if self.abandon(id):
            self.counts["timed out"] += 1
            self._out.append(Unanswered(id, Why.TIMED_OUT))

    # Requests of others.

    def asked(
        self, party: Counterparty, message: Message, sent_at: float, received_at: float
    ) -> bool:
        """A peer asks. False: too many are being answered. What is being answered already is not
        put to the application again."""
        key = (party.peer, message.id)
        if key in self.serving:
            self.counts["duplicates"] += 1
            return True
        if party.link is None:
            self.counts["too late"] += 1  # its answer would find no way back
            return True
        if len(party.served) >= self._config.served_per_peer_max:
            self.counts["busy"] += 1
            return False
        self.counts["asked"] += 1
        self.serving[key] = party
        party.served[message.id] = None
        self._out.append(
            Ask(
                party.peer,
                message.id,
                message.type,
                message.content,
                message.body,
                sent_at,
                received_at,
            )
        )
        return True

    def done(self, peer: PeerId, id: int) -> Counterparty | None:
        """A request is answered, or will not be: to whom that goes; None when nobody waits."""
        party = self.serving.pop((peer, id), None)
        if party is not None:
            del party.served[id]
        return party

    # Both.

    def lost(self, party: Counterparty, why: Why, text: str) -> None:
        """There is no link to a peer any more: it answers nothing, and waits for nothing."""
        for id in [i for i, conversation in party.asked.items() if conversation is None]:
            self.abandon(id)
            self._out.append(Unanswered(id, why, 0, text))
        for id in list(party.served):
            self.done(party.peer, id)
            self._out.append(AskGone(party.peer, id))

    def conversation_gone(
        self, conversation: Conversation, why: Why | None, code: int, text: str
    ) -> None:
        """Whatever was asked in a conversation that is over has no reply."""
        if conversation.kind is not Kind.CONVERSATION:
            if why is not None and self.abandon(conversation.request):
                self._out.append(Unanswered(conversation.request, why, code, text))
            return
        for id in list(conversation.asked or ()):
            self.abandon(id)
            self._out.append(Unanswered(id, why or Why.LINK_LOST, code, text))

    def _ends(self, id: int, party: Counterparty) -> bool:
        """Whether a reply from this peer ends a request that waits; if so, it waits no more."""
        if self.waiting.get(id) is not party:
            return False
        self.abandon(id)
        self._over[id] = True
        return True

    def _is_late(self, id: int, regards: int) -> bool:
        # In a conversation an id may be of a message that wanted no reply.
        if self._over.get(id):
            self.counts["duplicate replies"] += 1
        elif id in self._over or (not regards and self._first_id <= id <= self._last_id):
            self.counts["late replies"] += 1
        else:
            self.counts["unasked replies"] += 1
            return False
        return True
