"""The conversations of one node, and the steps that saying and hearing share. Decides no protocol.

Whatever a conversation holds it gives back in `forget`: its place in the tables, its timers, the
credit that it shares with others, its turn.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final

from meshwalk.config import ConversationConfig
from meshwalk.proto.dispatch.conversation import Conversation, Counterparty, Kind
from meshwalk.proto.dispatch.outgoing import Saying
from meshwalk.proto.dispatch.requests import Requests
from meshwalk.proto.dispatch.sending import Sending
from meshwalk.proto.effects import ConversationOver, ConversationRoom, Effect, Why
from meshwalk.proto.link import Link
from meshwalk.proto.timers import Timers
from meshwalk.wire.frames import FLOOR_BYTES, MARK_YOURS, Credit
from meshwalk.wire.messages import RefusalCode
from meshwalk.wire.peerid import PeerId

TIMER: Final = "conversation"
CREDIT_TIMER: Final = "credit"
LOST_TIMER: Final = "lost link"
FINISHED_PEERS_MAX: Final = 256
"""guess: as many as there are links at a time (`ConnectionConfig.total_max`), so that a peer whose
link was lost, and who says again what it has no credit for, is not heard twice. With `finished_max`
of each that takes 28 MiB at the worst (measured: 110 bytes each)."""


class Table:
    """All conversations of one node."""

    def __init__(
        self,
        config: ConversationConfig,
        requests: Requests,
        sending: Sending,
        refuse_message: Callable[[Counterparty, int, int, str, float, int, int, Link | None], None],
        timers: Timers,
        out: list[Effect],
    ) -> None:
        self.counts: Counter[str] = Counter()
        self.open_now: dict[int, Conversation] = {}
        """All of them, by this node's own number."""
        self.finished: dict[PeerId, dict[int, bool]] = {}
        """Conversations that have ended here lately, oldest first, by peers, the latest last: what
        is said again in one, over another link, opens no new one."""
        self.config = config
        self.refuse_message = refuse_message
        self._requests = requests
        self._sending = sending
        self._timers = timers
        self._out = out
        self._next_number = 1
        self._of_peers = 0
        """How many of the open ones were opened by peers: half of all at the most, so that none of
        them keeps this node from opening its own."""
        self._growing_max = config.assembling_bytes_max // config.message_bytes_max

    def add(
        self, party: Counterparty, id: int, *, is_mine: bool, kind: Kind
    ) -> Conversation | None:
        """One more conversation; None: there are too many."""
        config = self.config
        if (
            len(party.conversations) >= config.per_peer_max
            or len(self.open_now) >= config.total_max
            or (not is_mine and self._of_peers >= config.total_max // 2)
        ):
            return None
        self._of_peers += not is_mine
        number = self._next_number
        self._next_number += 1
        conversation = Conversation(
            party, number, id, is_mine=is_mine, kind=kind, window_max=config.window_bytes_max
        )
        if is_mine and kind is not Kind.CONVERSATION:
            conversation.incoming.window.shut()
        party.conversations[conversation.key] = conversation
        self.open_now[number] = conversation
        return conversation

    def await_first(self, conversation: Conversation, now: float) -> None:
        """Look after a while whether the rest of a peer's first message still comes."""
        conversation.heard_before = conversation.incoming.window.received
        self._timers.set((TIMER, conversation.number), now + self.config.opening_timeout_s)

    def may_still_come(self, conversation: Conversation) -> bool:
        """Whether the rest of a first message is under way, or the peer cannot be blamed."""
        party = conversation.party
        return (
            party.link is None
            or conversation.incoming.window.received > conversation.heard_before
            or (party.held_up is not None and conversation.key in party.held_up)
            or self._requests.awaits(conversation.request, party)
        )

    def forget_if_over(self, conversation: Conversation, now: float) -> bool:
        """Forget a conversation that has come to its end: true if it has."""
        if not conversation.is_over or conversation.number not in self.open_now:
            return False
        window = conversation.incoming.window
        if window.owed:
            self.tell(conversation, now)
        self.end(conversation, now)
        return True

    def end(
        self,
        conversation: Conversation,
        now: float,
        why: Why | None = None,
        code: int = 0,
        text: str = "",
    ) -> None:
        """Forget a conversation, and let others use the credit that it held."""
        self.forget(conversation, why, code, text)
        self.let_grow(conversation.party, now)
        if conversation.party.turns or conversation.party.starved:
            self._sending.pump(conversation.party, now)

    def forget(
        self, conversation: Conversation, why: Why | None = None, code: int = 0, text: str = ""
    ) -> None:
        """Free all that a conversation holds, and say so to the application if it knows of it."""
        party = conversation.party
        if self.open_now.pop(conversation.number, None) is None:
            return
        self._of_peers -= not conversation.is_mine
        key = conversation.key
        del party.conversations[key]
        self._timers.cancel((TIMER, conversation.number))
        outgoing, window = conversation.outgoing, conversation.incoming.window
        party.shared_out.change(outgoing.allowance.outstanding, 0)
        party.shared_in.change(window.received - window.told, 0)
        party.ahead -= window.ahead
        party.growing -= conversation.incoming.is_growing
        is_complete = conversation.is_over
        if conversation.kind is Kind.ONE_WAY:
            self._sending.long_gone(party, outgoing.backlog_bytes)
        outgoing.drop()
        for table in (party.turns, party.starved, party.owing, party.held_up):
            if table is not None:
                table.pop(key, None)
        if not party.turns:
            party.turns = None
        self._note_end(conversation, is_complete=is_complete)
        self._requests.conversation_gone(conversation, why, code, text)
        if conversation.is_heard:
            if conversation.is_told_full:
                self._out.append(ConversationRoom(conversation.number))
            self._out.append(ConversationOver(conversation.number, why, code, text))

    def code_of_unknown(self, party: Counterparty, key: int) -> RefusalCode:
        """Why a conversation that is named so is not known here."""
        is_complete = self.finished.get(party.peer, {}).get(key, False)
        return RefusalCode.ENDED if is_complete else RefusalCode.NO_CONVERSATION

    def _note_end(self, conversation: Conversation, *, is_complete: bool) -> None:
        peer = conversation.party.peer
        of_peer = self.finished.pop(peer, {})
        self.finished[peer] = of_peer  # the latest now
        if len(self.finished) > FINISHED_PEERS_MAX:
            del self.finished[next(iter(self.finished))]
        of_peer[conversation.key] = is_complete
        if len(of_peer) > self.config.finished_max:
            del of_peer[next(iter(of_peer))]

    def put(self, conversation: Conversation, saying: Saying, now: float) -> None:
        """Say something, when it is its turn."""
        conversation.outgoing.put(saying)
        if conversation.number in self.open_now:
            self._sending.list(conversation)
            self._sending.send_replies(conversation, now)
            self._sending.pump(conversation.party, now)

    def refuse(
        self,
        party: Counterparty,
        id: int,
        is_mine: bool,
        code: int,
        text: str,
        now: float,
        link: Link | None = None,
    ) -> None:
        """Tell the peer that a conversation, known here or not, is not, or is over; over this link
        if it is open."""
        self.refuse_message(party, 0, code, text, now, id, 0 if is_mine else MARK_YOURS, link)

    def break_off(
        self, conversation: Conversation, code: int, text: str, now: float, why: Why | None = None
    ) -> None:
        """End a conversation at once, both ways, for a reason that the peer is told."""
        self.refuse_all(conversation, int(code), text, now)
        self.end(conversation, now, why, int(code), text)

    def refuse_all(self, conversation: Conversation, code: int, text: str, now: float) -> None:
        """Tell the peer that a conversation is over, unless it has never heard of it."""
        is_mine = conversation.is_mine
        if conversation.outgoing.sequence or not is_mine:
            self.refuse(conversation.party, conversation.id, is_mine, code, text, now)

    def took(self, conversation: Conversation, messages: int, cost: int, now: float) -> None:
        """Give back to the sender what has been read."""
        incoming, party = conversation.incoming, conversation.party
        ahead = incoming.window.ahead
        incoming.read(messages, cost)
        party.ahead += incoming.window.ahead - ahead
        if incoming.held:
            self.grow(conversation)
        self.settle(conversation, now)

    def settle(self, conversation: Conversation, now: float) -> None:
        """Tell the peer what has been taken, now if that helps it, else soon."""
        window = conversation.incoming.window
        if window.should_tell() or (
            conversation.party.shared_in.is_scarce and window.owed * 4 >= FLOOR_BYTES
        ):
            self.tell(conversation, now)
        elif window.owed:
            self.owe(conversation, now)

    def grow(self, conversation: Conversation) -> None:
        """Take parts of a message before it is whole, if not too many of the peer's grow already;
        else when its turn comes. What has begun to grow needs nothing more of this end to come to
        its end: so its turn does come."""
        party = conversation.party
        if not conversation.incoming.wants_to_grow:
            return
        if party.growing < self._growing_max:
            party.growing += 1
            conversation.incoming.grow()
        else:
            if party.held_up is None:
                party.held_up = {}
            party.held_up[conversation.key] = conversation

    def stop_growing(self, conversation: Conversation, now: float) -> None:
        """The message is whole."""
        party, incoming = conversation.party, conversation.incoming
        if incoming.is_growing:
            incoming.is_growing = False
            party.growing -= 1
            self.let_grow(party, now)
        elif party.held_up:
            party.held_up.pop(conversation.key, None)

    def let_grow(self, party: Counterparty, now: float) -> None:
        """Give their turn to those that wait to grow, if there is room."""
        while party.held_up and party.growing < self._growing_max:
            conversation = party.held_up.pop(next(iter(party.held_up)))
            self.grow(conversation)  # not if something else has come to be unread: it asks again
            self.settle(conversation, now)

    def tell(self, conversation: Conversation, now: float) -> None:
        """Tell the peer how much has been taken, and how much more may come."""
        party, window = conversation.party, conversation.incoming.window
        if party.owing is not None:
            party.owing.pop(conversation.key, None)
        if party.link is None:
            return  # it is told when there is one again
        before = window.received - window.told
        taken, held, more = window.tell(now, party.link.rtt_s)
        party.shared_in.change(before, held)
        credit = Credit(conversation.id, not conversation.is_mine, taken, held, more)
        self._sending.now(party.link, credit, now)

    def owe(self, conversation: Conversation, now: float) -> None:
        """Tell it soon, together with what other conversations owe by then."""
        party = conversation.party
        if party.owing is None:
            party.owing = {}
        if not party.owing:
            self._timers.set((CREDIT_TIMER, party.peer), now + self.config.tell_after_s)
        party.owing[conversation.key] = conversation
