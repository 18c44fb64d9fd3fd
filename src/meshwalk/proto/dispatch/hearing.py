"""What peers say in conversations: put in order, counted against credit, and given to whom it is
for.

Reply-to comes first, then what a message regards. What regards a conversation that is not known
here is refused, unless it has ended here lately. Hostile input ends in a `Fault`, a refusal or a
count.
"""

from __future__ import annotations

from typing import Final

from meshwalk.events import Delivery
from meshwalk.proto.dispatch.conversation import Conversation, Counterparty, Kind
from meshwalk.proto.dispatch.effects import DispatchEffect, Fault
from meshwalk.proto.dispatch.outgoing import PART_BYTES_LEAST
from meshwalk.proto.dispatch.requests import Requests
from meshwalk.proto.dispatch.sending import Sending
from meshwalk.proto.dispatch.table import Table
from meshwalk.proto.effects import (
    ConversationEnded,
    ConversationHeard,
    ConversationOpened,
    ConversationRefused,
    Deliver,
    Effect,
    Why,
)
from meshwalk.proto.link import Link
from meshwalk.wire.frames import (
    MARK_ENDS,
    MARK_MORE,
    MARK_OPENS,
    MARK_UNRELIABLE,
    MARK_YOURS,
    PART_COST_BYTES,
    CloseReason,
    Credit,
    Message,
)
from meshwalk.wire.messages import Refusal, RefusalCode

_SPECIAL: Final = MARK_MORE | MARK_ENDS | MARK_OPENS | MARK_UNRELIABLE


class Hearing:
    """The side of conversations that listens."""

    def __init__(
        self,
        table: Table,
        requests: Requests,
        sending: Sending,
        out: list[Effect],
        wanted: list[DispatchEffect],
    ) -> None:
        self.unix_offset_s = 0.0
        self._table = table
        self._config = table.config
        # An honest sender's parts have so much in them, or are the last.
        self._parts_max = table.config.message_bytes_max // PART_BYTES_LEAST + 1
        self._requests = requests
        self._sending = sending
        self._out = out
        self._wanted = wanted

    # Inputs.

    def receive(self, party: Counterparty, link: Link, message: Message, now: float) -> None:
        """A part of what a peer says in some conversation."""
        marks = message.marks
        key = message.in_regards_to * 2 + (1 if marks & MARK_YOURS else 0)
        conversation = party.conversations.get(key) if message.in_regards_to else None
        if conversation is None:
            conversation = self._known(party, link, message, now)
            if conversation is None:
                return
        if marks & MARK_UNRELIABLE:
            self._hear_unreliable(conversation, link, message, now)
            return
        conversation.is_known = True  # whoever speaks in it knows of it: if not later, it restarted
        incoming = conversation.incoming
        window, shared = incoming.window, party.shared_in
        cost = len(message.body) + PART_COST_BYTES
        ready: list[Message] | None = None
        if message.sequence == incoming.expected and incoming.parked is None:
            incoming.expected += 1
        else:
            if incoming.has_come(message.sequence):
                self._table.counts["duplicates"] += 1
                self._table.owe(conversation, now)
                return
            ready = []
        # What the sender knows to be outstanding, at the least: so it cannot be in the wrong.
        outstanding = window.received - window.told
        if not window.receive(cost, now):
            self._breach(party, link, "more was said than there was credit for")
            return
        if not shared.take(outstanding, cost):
            # Not a breach for certain: it may have freed some by leaving another conversation, and
            # the word of that may be on its way over another link.
            window.received -= cost
            self._table.counts["busy"] += 1
            text = "more lies unread than all conversations together may have"
            self._table.break_off(conversation, RefusalCode.BUSY, text, now, Why.REFUSED)
            return
        if ready is None:
            if not marks & _SPECIAL and incoming.parts is None and not incoming.has_ended:
                self._hear(conversation, link, message, cost, now)
            else:
                self._hear_part(conversation, link, message, now)
            return
        for part in incoming.in_order(message):
            if conversation.number in self._table.open_now:  # else it has ended by one of them
                self._hear_part(conversation, link, part, now)

    def credited(self, party: Counterparty, link: Link, credit: Credit, now: float) -> None:
        """A peer says how much more it can take."""
        is_mine = credit.is_yours
        if not credit.in_regards_to:
            self._breach(party, link, "credit in regard to nothing")
            return
        conversation = party.conversations.get(credit.in_regards_to * 2 + is_mine)
        if conversation is None:
            self._table.counts["late credit"] += 1
            self._refuse_unknown(party, link, credit.in_regards_to, is_mine, now)
            return
        outgoing = conversation.outgoing
        before = outgoing.allowance.outstanding
        if not outgoing.heard(credit):
            self._breach(party, link, "credit for what was never said")
            return
        conversation.is_known = True
        after = outgoing.allowance.outstanding
        if after != before:
            party.shared_out.change(before, after)
        if not self._table.forget_if_over(conversation, now):
            self._sending.list(conversation)
            self._sending.send_replies(conversation, now)
            if conversation.is_left and conversation.incoming.window.held:
                self._tell_left(conversation, now)
        if party.turns or party.starved:
            self._sending.pump(party, now)

    def refused(self, party: Counterparty, message: Message, refusal: Refusal, now: float) -> None:
        """A peer has refused a conversation, or left it, or one message of it."""
        is_mine = bool(message.marks & MARK_YOURS)
        conversation = party.conversations.get(message.in_regards_to * 2 + is_mine)
        if conversation is None:
            self._table.counts["late refusals"] += 1
            return
        if message.in_reply_to:
            if conversation.is_heard:
                self._out.append(
                    ConversationRefused(
                        conversation.number, message.in_reply_to, refusal.code, refusal.text
                    )
                )
            return
        if refusal.code in (RefusalCode.NO_CONVERSATION, RefusalCode.ENDED):
            self._is_unknown(conversation, refusal, now)
            return
        self._table.counts["refused"] += 1
        self._table.end(conversation, now, Why.REFUSED, refusal.code, refusal.text)

    def asked(
        self,
        party: Counterparty,
        message: Message,
        sent_at: float,
        received_at: float,
        now: float,
    ) -> None:
        """A peer asks something that is no part of a conversation."""
        if not self._requests.asked(party, message, sent_at, received_at):
            text = "too many requests are being answered"
            self._table.refuse_message(party, message.id, RefusalCode.BUSY, text, now, 0, 0, None)

    # Steps.

    def _tell_left(self, conversation: Conversation, now: float) -> None:
        """Tell a peer that goes on saying something that nobody listens, when it has heard all."""
        if conversation.outgoing.is_over:
            text = "the peer has left the conversation"
            self._table.break_off(conversation, RefusalCode.CANCELLED, text, now)

    def _breach(self, party: Counterparty, link: Link, text: str) -> None:
        """The peer breaks the protocol: over no other link does it go on."""
        for conversation in list(party.conversations.values()):
            self._table.forget(conversation, Why.LINK_LOST, 0, text)
        for each in (link, *(other for other in party.links if other is not link)):
            self._wanted.append(Fault(each, CloseReason.PROTOCOL, text))

    def _known(
        self, party: Counterparty, link: Link, message: Message, now: float
    ) -> Conversation | None:
        """The conversation that a first part opens; None, and refused, when it opens none."""
        id, marks = message.in_regards_to, message.marks
        is_mine = bool(marks & MARK_YOURS)
        if id == 0:
            id = message.id
            if id == 0 or is_mine or message.sequence != 1 or marks & MARK_UNRELIABLE:
                self._breach(party, link, "a part that opens nothing and regards nothing")
                return None
            if (present := party.conversations.get(id * 2)) is not None:
                return present  # it came before, over another link
            is_over = id * 2 in self._table.finished.get(party.peer, ())
            to = message.in_reply_to
            is_reply = to and not marks & MARK_OPENS
            if not is_over and not (is_reply and not self._requests.awaits(to, party)):
                return self._opened(party, message, now)
        self._table.counts["unknown conversation"] += 1
        self._refuse_unknown(party, link, id, is_mine, now)
        return None

    def _refuse_unknown(
        self, party: Counterparty, link: Link, id: int, is_mine: bool, now: float
    ) -> None:
        # Over the link that it came by: another may be dead already without a sign of that.
        code = self._table.code_of_unknown(party, id * 2 + is_mine)
        is_ended = code is RefusalCode.ENDED
        text = "it has ended here" if is_ended else "no such conversation is known here"
        self._table.refuse(party, id, is_mine, code, text, now, link)

    def _opened(self, party: Counterparty, message: Message, now: float) -> Conversation | None:
        kind = Kind.ONE_WAY
        if message.marks & MARK_OPENS:
            kind = Kind.CONVERSATION
        elif message.in_reply_to:
            kind = Kind.REPLY
        elif message.wants_reply:
            kind = Kind.REQUEST
        conversation = self._table.add(party, message.id, is_mine=False, kind=kind)
        if conversation is None:
            self._table.counts["busy"] += 1
            text = "too many conversations are open"
            self._table.refuse(party, message.id, False, RefusalCode.BUSY, text, now)
            if kind is Kind.REPLY:
                refusal = Refusal(int(RefusalCode.BUSY), text)
                self._requests.refused(message.in_reply_to, party, refusal)
            return None
        if kind is Kind.REPLY:
            conversation.request = message.in_reply_to
        conversation.type = message.type
        conversation.is_known = True
        if message.marks & MARK_MORE:
            self._table.await_first(conversation, now)
        return conversation

    def _hear_part(self, conversation: Conversation, link: Link, part: Message, now: float) -> None:
        incoming = conversation.incoming
        if incoming.has_ended:
            self._breach(
                conversation.party, link, "something was said after the end of a conversation"
            )
            return
        if part.marks & MARK_ENDS:
            if not conversation.is_heard or incoming.parts is not None:
                self._breach(conversation.party, link, "a conversation ends within a message")
                return
            incoming.has_ended = True
            # What an end has left unread is given back now: the peer waits for nothing else.
            left = incoming.window.held if conversation.is_left else 0
            incoming.window.take(max(left, PART_COST_BYTES + len(part.body)))
            if not conversation.is_left:
                self._out.append(ConversationEnded(conversation.number))
            if not self._table.forget_if_over(conversation, now):
                self._table.tell(conversation, now)
            return
        ahead = incoming.window.ahead
        whole = incoming.put_together(part)
        party = conversation.party
        party.ahead += incoming.window.ahead - ahead
        count = len(incoming.parts or ())
        size = incoming.parts_cost - PART_COST_BYTES * count
        if whole is not None:
            size = len(whole[0].body)
        if size > self._config.message_bytes_max or count > self._parts_max:
            self._table.counts["too big"] += 1
            text = "the message is too long"
            self._table.break_off(conversation, RefusalCode.TOO_BIG, text, now, Why.REFUSED)
        elif whole is None:
            self._table.grow(conversation)
            self._table.settle(conversation, now)
        elif party.ahead > self._config.assembling_bytes_max and conversation.is_heard:
            # What nobody has to wait for, an opening, a request or a reply to one, is read at once.
            self._table.counts["busy"] += 1
            text = "too much is unread already"
            self._table.break_off(conversation, RefusalCode.BUSY, text, now, Why.REFUSED)
        else:
            self._table.stop_growing(conversation, now)
            self._hear(conversation, link, whole[0], whole[1], now)

    def _hear(
        self, conversation: Conversation, link: Link, message: Message, cost: int, now: float
    ) -> None:
        """A whole message whose turn it is. Reply-to comes first, then what it regards."""
        conversation.incoming.unread += 1
        sent_at = message.sent_at_us * 1e-6 + link.peer_epoch_s + self.unix_offset_s
        received_at = now + self.unix_offset_s
        is_reply = message.in_reply_to and self._requests.answered(
            message.in_reply_to, conversation.party, message
        )
        if is_reply:
            pass  # nobody else is to hear it
        elif conversation.is_left:
            # Not given back, so that a peer that goes on and on has to stop.
            conversation.incoming.unread -= 1
            self._tell_left(conversation, now)
            return
        elif conversation.is_heard:
            self._out.append(
                ConversationHeard(
                    conversation.number,
                    message.id,
                    message.type,
                    message.content,
                    message.body,
                    cost,
                    message.wants_reply,
                    sent_at,
                    received_at,
                )
            )
            return
        else:
            self._hear_first(conversation, message, sent_at, received_at, now)
        self._table.took(conversation, 1, cost, now)
        self._table.forget_if_over(conversation, now)

    def _hear_first(
        self,
        conversation: Conversation,
        message: Message,
        sent_at: float,
        received_at: float,
        now: float,
    ) -> None:
        """The whole message that a peer has opened a conversation with: it says what for."""
        party = conversation.party
        if conversation.kind is Kind.CONVERSATION:
            conversation.is_heard = True
            self._table.counts["accepted"] += 1
            self._out.append(
                ConversationOpened(
                    conversation.number,
                    party.peer,
                    conversation.id,
                    message.type,
                    message.content,
                    message.body,
                    sent_at,
                    received_at,
                )
            )
        elif conversation.kind is Kind.ONE_WAY:
            self._requests.counts["received"] += 1
            delivery = Delivery(
                party.peer,
                message.body,
                message.content,
                False,
                message.type,
                sent_at=sent_at,
                received_at=received_at,
            )
            self._out.append(Deliver(delivery))
        elif conversation.kind is Kind.REQUEST:
            self.asked(party, message, sent_at, received_at, now)

    def _hear_unreliable(
        self, conversation: Conversation, link: Link, message: Message, now: float
    ) -> None:
        incoming = conversation.incoming
        cost = len(message.body) + PART_COST_BYTES
        window = incoming.window
        party = conversation.party
        has_room = window.held + window.ahead + cost <= window.size
        if (
            not has_room
            or party.ahead + cost > self._config.assembling_bytes_max
            or conversation.is_left
            or not conversation.is_heard
            or incoming.has_ended
            or len(message.body) > self._config.packet_bytes_max
        ):
            self._table.counts["unreliable dropped"] += 1
            return
        window.ahead += cost
        party.ahead += cost
        self._hear(conversation, link, message, cost, now)

    def _is_unknown(self, conversation: Conversation, refusal: Refusal, now: float) -> None:
        """The peer knows nothing of a conversation."""
        outgoing = conversation.outgoing
        has_said_all = outgoing.backlog is None and (
            outgoing.has_ended or conversation.kind is not Kind.CONVERSATION
        )
        if refusal.code == RefusalCode.ENDED and has_said_all:
            # It has heard all, and its word for that was lost with a link.
            self._table.end(conversation, now)
        else:
            self._table.counts["forgotten by the peer"] += 1
            self._table.end(conversation, now, Why.REFUSED, refusal.code, refusal.text)
