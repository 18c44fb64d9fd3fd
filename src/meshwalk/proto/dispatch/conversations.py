"""Conversations as an application uses them: opened, said in, read, ended; and moved between links.

When a link is lost, its conversations go on over another link to the same peer, found anew if need
be: whatever may have been lost is said again, and credits, which count from the beginning, show a
peer that has forgotten the conversation, having restarted, that it is to refuse it.

Limits: conversations with one peer and in all (opening one more is refused), bytes by credit,
messages in parts by `assembling_bytes_max` (they wait; unread, their conversation is refused),
ended ones remembered.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from meshwalk.proto.dispatch.conversation import Conversation, Counterparty, Kind
from meshwalk.proto.dispatch.effects import DispatchEffect, Reach
from meshwalk.proto.dispatch.outgoing import Saying
from meshwalk.proto.dispatch.sending import Sending
from meshwalk.proto.dispatch.table import TIMER, Table
from meshwalk.proto.effects import Why
from meshwalk.proto.timers import Timers
from meshwalk.wire.frames import (
    MARK_ENDS,
    MARK_OPENS,
    MARK_UNRELIABLE,
    MARK_YOURS,
    PART_COST_BYTES,
    Channel,
    ContentType,
    Message,
)
from meshwalk.wire.messages import RefusalCode

_APPLICATION: Final = Channel.APPLICATION  # a global is found faster than a class's attribute
BACKLOG_MESSAGES_MAX: Final = 256  # guess: small ones cost memory, too, before a writer must wait


class Conversations:
    """The conversations of one node, for its application."""

    def __init__(
        self,
        table: Table,
        sending: Sending,
        new_id: Callable[[], int],
        timers: Timers,
        wanted: list[DispatchEffect],
    ) -> None:
        self.open_now = table.open_now
        self.counts = table.counts
        self._table = table
        self._config = table.config
        self._sending = sending
        self._part_max = sending.part_max
        self._new_id = new_id
        self._timers = timers
        self._wanted = wanted

    # Commands of the application.

    def open(
        self,
        party: Counterparty,
        type: str,
        content: ContentType,
        body: bytes,
        timeout_s: float | None,
        now: float,
    ) -> int | None:
        """Open a conversation by its first message; its number. None: there are too many."""
        conversation = self._table.add(party, self._new_id(), is_mine=True, kind=Kind.CONVERSATION)
        if conversation is None:
            return None
        self._table.counts["opened"] += 1
        conversation.is_heard = True
        conversation.type = type
        if timeout_s is not None:
            conversation.deadline = now + timeout_s
            self._timers.set((TIMER, conversation.number), conversation.deadline)
        saying = Saying(conversation.id, body, content, type, marks=MARK_OPENS)
        self._table.put(conversation, saying, now)
        return conversation.number

    def say_long(self, party: Counterparty, saying: Saying, kind: Kind, now: float) -> bool:
        """Send a message in parts that is none of a conversation. False: there are too many."""
        conversation = self._table.add(party, saying.id, is_mine=True, kind=kind)
        if conversation is None:
            return False
        if kind is Kind.REQUEST:
            conversation.request = saying.id
        self._table.put(conversation, saying, now)
        return True

    def say(
        self,
        number: int,
        type: str,
        content: ContentType,
        body: bytes,
        now: float,
        in_reply_to: int = 0,
        wants_reply: bool = False,
    ) -> tuple[int, bool] | None:
        """Say something: the id of the message, and whether to wait for `ConversationRoom` before
        the next. None when the conversation is over, or this end has said that it says no more."""
        conversation = self._table.open_now.get(number)
        if conversation is None or conversation.outgoing.has_ended:
            return None
        id = self._new_id()
        party = conversation.party
        link = party.link
        outgoing = conversation.outgoing
        allowance = outgoing.allowance
        cost = len(body) + PART_COST_BYTES
        sent = allowance.sent + cost
        if (
            link is not None
            and link.room > 0
            and party.turns is None
            and sent <= allowance.limit
            and len(body) <= self._part_max
            and outgoing.backlog is None
            and outgoing.again is None
            and not self._sending.is_paced
            and party.shared_out.take(allowance.sent - allowance.taken, cost)
        ):
            # As `Sending` would do it, without its detours: nobody else is waiting.
            outgoing.sequence = sequence = outgoing.sequence + 1
            message = Message(
                id,
                int(now * 1e6),
                _APPLICATION,
                body,
                in_reply_to,
                conversation.id,
                content,
                type,
                wants_reply,
                sequence,
                conversation.marks,
            )
            allowance.sent = sent
            if outgoing.unacked is None:
                outgoing.unacked = deque()
            outgoing.unacked.append((sent, message))
            link.room -= cost
            self._sending.now(link, message, now)
            return id, False
        self._table.put(
            conversation, Saying(id, body, content, type, in_reply_to, wants_reply), now
        )
        is_full = outgoing.backlog_bytes > self._config.backlog_bytes or (
            outgoing.backlog is not None and len(outgoing.backlog) > BACKLOG_MESSAGES_MAX
        )
        conversation.is_told_full = conversation.is_told_full or is_full
        return id, is_full

    def say_unreliably(
        self, number: int, type: str, content: ContentType, body: bytes, now: float
    ) -> bool:
        """Say something if it can go out now, and never again. False: it was dropped."""
        conversation = self._table.open_now.get(number)
        link = conversation.party.link if conversation is not None else None
        if (
            conversation is None
            or link is None
            or conversation.outgoing.has_ended
            or conversation.outgoing.sequence == 0  # its opening has not gone out yet
            or not self._sending.has_room(link)
            or not self._sending.may_send(conversation.party, now)
        ):
            self._table.counts["unreliable dropped"] += 1
            return False
        message = Message(
            self._new_id(),
            int(now * 1e6),
            _APPLICATION,
            body,
            0,
            conversation.id,
            content,
            type,
            False,
            0,
            conversation.marks | MARK_UNRELIABLE,
        )
        link.room -= len(body) + PART_COST_BYTES
        self._sending.spend(conversation.party, len(body) + PART_COST_BYTES)
        self._sending.now(link, message, now)
        return True

    def read(self, number: int, messages: int, cost: int, now: float) -> None:
        """The application has taken so many messages, which cost so much together."""
        conversation = self._table.open_now.get(number)
        if conversation is None or conversation.is_left:
            return  # what is closed has been taken, whoever still reads
        self._table.took(conversation, messages, cost, now)
        self._table.forget_if_over(conversation, now)

    def end(self, number: int, now: float) -> None:
        """Say nothing more; listen on."""
        conversation = self._table.open_now.get(number)
        if conversation is None or conversation.outgoing.has_ended:
            return
        conversation.outgoing.has_ended = True
        self._table.put(
            conversation, Saying(conversation.id, b"", ContentType.BYTES, marks=MARK_ENDS), now
        )

    def close(self, number: int, now: float) -> None:
        """Say nothing more, and listen no more: what was said still goes out."""
        conversation = self._table.open_now.get(number)
        if conversation is None:
            return
        self.end(number, now)
        conversation.is_left = True
        incoming = conversation.incoming
        unread = incoming.window.held + incoming.window.ahead - incoming.held
        unread -= incoming.parked_cost
        self._table.took(conversation, incoming.unread, unread, now)
        self._linger(conversation, now)
        self._table.forget_if_over(conversation, now)

    def leave(self, number: int, code: int, text: str, now: float) -> None:
        """End a conversation at once, in both directions, for a reason that the peer is told."""
        conversation = self._table.open_now.get(number)
        if conversation is not None:
            self._table.refuse_all(conversation, code, text, now)
            self._table.end(conversation, now)

    def refuse_said(self, number: int, message: int, code: int, text: str, now: float) -> None:
        """Tell the peer that one of its messages could not be taken; the conversation goes on."""
        conversation = self._table.open_now.get(number)
        if conversation is not None:
            marks = 0 if conversation.is_mine else MARK_YOURS
            self._table.refuse_message(
                conversation.party, message, code, text, now, conversation.id, marks, None
            )

    # Inputs.

    def moved(self, party: Counterparty, now: float) -> None:
        """What is said to a peer goes over another link from now on: say again what may be lost."""
        for conversation in list(party.conversations.values()):
            conversation.outgoing.send_again(conversation.id if conversation.is_known else 0)
            if conversation.is_known:
                self._table.tell(conversation, now)
            self._sending.list(conversation)
        if party.turns:
            self._sending.pump(party, now)

    def look_again(self, party: Counterparty, now: float) -> None:
        """A link is lost, though not that which is sent over. With it the peer's word may be lost
        that it has left a conversation, or has heard all: have it say so again."""
        for conversation in list(party.conversations.values()):
            if conversation.is_known:
                self._table.tell(conversation, now)
            else:
                conversation.outgoing.send_again()
                self._sending.list(conversation)
        if party.turns:
            self._sending.pump(party, now)

    def link_gone(self, party: Counterparty, why: str, now: float, *, is_final: bool) -> None:
        """The last link to a peer is lost. `is_final`: it has gone for good."""
        for conversation in list(party.conversations.values()):
            outgoing = conversation.outgoing
            # These are lost with the link: see `Requests`.
            is_request = conversation.kind in (Kind.REQUEST, Kind.REPLY)
            if is_final or is_request or (outgoing.is_over and conversation.is_left):
                self._table.forget(conversation, Why.LINK_LOST, 0, why)
            elif conversation.incoming.has_ended and outgoing.has_ended and outgoing.is_over:
                self._table.forget(conversation)  # both have said all, and nothing can be missing
        self._table.let_grow(party, now)
        if party.conversations:
            self._wanted.append(Reach(party.peer))

    def unreachable(self, party: Counterparty, why: Why, text: str) -> None:
        """No link to a peer can be made."""
        for conversation in list(party.conversations.values()):
            self._table.forget(conversation, why, 0, text)

    def tick(self, number: int, now: float) -> None:
        """The deadline of a conversation, or the end of waiting for its peer to end it."""
        conversation = self._table.open_now.get(number)
        if conversation is None:
            return
        if not conversation.is_mine and not conversation.is_left:
            if not conversation.is_heard:
                self._look_for_the_rest(conversation, now)
            return
        is_late = conversation.deadline is not None and now >= conversation.deadline
        if conversation.is_left and not is_late:
            if conversation.outgoing.is_over:
                text = "the peer has left the conversation"
                self._table.break_off(conversation, RefusalCode.CANCELLED, text, now)
            else:
                # The peer has time to read what was said before this end was closed: what that is
                # is bounded by credit, and a peer that is gone is noticed by its link.
                self._linger(conversation, now)
            return
        code, text = RefusalCode.TOO_LATE, "the deadline has passed"
        self._table.refuse_all(conversation, code, text, now)
        self._table.counts["timed out"] += 1
        self._table.end(conversation, now, Why.TIMED_OUT)

    def tell_owed(self, party: Counterparty, now: float) -> None:
        """It is time to tell what has been read and was not worth telling yet."""
        owing, party.owing = party.owing, None
        for conversation in (owing or {}).values():
            self._table.tell(conversation, now)

    # What the above share.

    def _look_for_the_rest(self, conversation: Conversation, now: float) -> None:
        """It was a while ago that a peer's first message began."""
        if self._table.may_still_come(conversation):
            self._table.await_first(conversation, now)
        else:
            self._table.counts["never opened"] += 1
            text = "no more of the first message has come"
            self._table.break_off(conversation, RefusalCode.TOO_LATE, text, now, Why.TIMED_OUT)

    def _linger(self, conversation: Conversation, now: float) -> None:
        """Look after a closed conversation again after a while, and at its deadline."""
        at = now + self._config.linger_s
        if conversation.deadline is not None:
            at = min(at, conversation.deadline)
        self._timers.set((TIMER, conversation.number), at)
