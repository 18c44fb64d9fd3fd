"""Routes what applications say to each other: by what a message answers, then by what it regards.

    in_reply_to  ----> requests         (an own request that waits; its conversation, if it has one,
    in_regards_to ---> conversations     is the machine that the reply is heard in)
    neither ---------> a request of the peer, an opening, or a message that goes one way

What matches nothing is refused with a code, but for refusals and replies, which are counted. What
goes to a peer goes over the best of its links; conversations that are left without a link have one
sought for them. A node's own machines talk by the same calls, without a wire.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final

from meshwalk.config import Config
from meshwalk.errors import MalformedFrame
from meshwalk.events import Delivery
from meshwalk.proto.dispatch import requests as requests_machine
from meshwalk.proto.dispatch import sending as sending_machine
from meshwalk.proto.dispatch import table as table_machine
from meshwalk.proto.dispatch.conversation import Counterparty, Kind
from meshwalk.proto.dispatch.conversations import Conversations
from meshwalk.proto.dispatch.effects import DispatchEffect, Fault
from meshwalk.proto.dispatch.hearing import Hearing
from meshwalk.proto.dispatch.locallink import local_link
from meshwalk.proto.dispatch.outgoing import Saying
from meshwalk.proto.dispatch.requests import Requests
from meshwalk.proto.dispatch.sending import Sending
from meshwalk.proto.dispatch.table import Table
from meshwalk.proto.effects import Deliver, Effect, PeerRoom, Why
from meshwalk.proto.link import Link
from meshwalk.proto.timers import Key, Timers
from meshwalk.wire.frames import (
    PART_COST_BYTES,
    Channel,
    CloseReason,
    ContentType,
    Credit,
    Message,
    Purpose,
)
from meshwalk.wire.messages import Refusal, RefusalCode, decode_refusal, encode
from meshwalk.wire.peerid import PeerId
from meshwalk.wire.text import printable

TIMERS: Final = frozenset(
    {
        requests_machine.TIMER,
        table_machine.TIMER,
        table_machine.CREDIT_TIMER,
        table_machine.LOST_TIMER,
        sending_machine.TIMER,
    }
)

_APPLICATION: Final = Channel.APPLICATION  # a global is found faster than a class's attribute
# A peer that ended a link for one of these is not to be sought again.
_FINAL: Final = frozenset(
    {
        CloseReason.LEAVING,
        CloseReason.MALFORMED,
        CloseReason.PROTOCOL,
        CloseReason.RATE,
        CloseReason.DISTRUSTED,
        CloseReason.VERSION,
        CloseReason.SELF,
    }
)


class Dispatch:
    """Application messages at one node."""

    def __init__(
        self,
        me: PeerId,
        config: Config,
        new_id: Callable[[], int],
        timers: Timers,
        out: list[Effect],
        unix_offset_s: float,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self.parties: dict[PeerId, Counterparty] = {}
        """Peers that this node talks to, or could."""
        self.wanted: list[DispatchEffect] = []
        """What the node is to do; it empties this after each input."""
        self._config = config
        self._new_id = new_id
        self._timers = timers
        self._out = out
        self._is_leaving = False
        self.sending = Sending(config.conversations, config.pacing, timers, out)
        answered_max = config.conversations.answered_max
        self.requests = Requests(config.requests, answered_max, new_id(), timers, out)
        table = Table(
            config.conversations, self.requests, self.sending, self.refuse_message, timers, out
        )
        self.conversations = Conversations(table, self.sending, new_id, timers, self.wanted)
        self.hearing = Hearing(table, self.requests, self.sending, out, self.wanted)
        self._me = me
        self._local: Link | None = None
        """The way to this node's own machines; most never take it."""
        self.calendar_set(unix_offset_s)

    def calendar_set(self, unix_offset_s: float) -> None:
        """Unix time is machine time plus this from here on."""
        self.unix_offset_s = self.hearing.unix_offset_s = unix_offset_s

    # Commands of the application.

    def party(self, peer: PeerId) -> Counterparty:
        """What is kept for a peer; begun if need be."""
        found = self.parties.get(peer)
        if found is None:
            window = self._config.conversations.shared_window_bytes
            found = Counterparty(peer, window, self.sending.bucket_of_a_peer())
            self.parties[peer] = found
            if peer == self._me:
                self._open_local(found)
        return found

    def link_to(self, peer: PeerId) -> Link | None:
        """The link that goes to a peer now."""
        found = self.parties.get(peer)
        return found.link if found is not None else None

    def send(
        self, party: Counterparty, type: str, content: ContentType, body: bytes, now: float
    ) -> bool:
        """Say something one way; there is a link. False: too many long ones are under way."""
        link, id, sending = party.link, self._new_id(), self.sending
        assert link is not None
        if len(body) > sending.part_max:
            saying = Saying(id, body, content, type)
            party.long_bytes += len(body)
            if self.conversations.say_long(party, saying, Kind.ONE_WAY, now):
                return True
            party.long_bytes -= len(body)
            return False
        message = Message(id, int(now * 1e6), _APPLICATION, body, 0, 0, content, type)
        if sending.is_paced:
            sending.plain(party, message, now)
        else:
            sending.now(link, message, now)
        return True

    def send_unreliably(
        self, party: Counterparty, type: str, content: ContentType, body: bytes, now: float
    ) -> bool:
        """Say something one way if the link has room now; false: it was dropped, and counted."""
        link, size = party.link, len(body) + PART_COST_BYTES
        if (
            link is None
            or link.stalled_at is not None
            or not self.sending.has_room(link)
            or not self.sending.may_send(party, now)
        ):
            self.counts["unreliable dropped"] += 1
            return False
        message = Message(self._new_id(), int(now * 1e6), _APPLICATION, body, 0, 0, content, type)
        link.room -= size
        self.sending.spend(party, size)
        self.sending.now(link, message, now)
        return True

    def request(
        self,
        party: Counterparty,
        type: str,
        content: ContentType,
        body: bytes,
        timeout_s: float,
        now: float,
        conversation: int = 0,
    ) -> int | None:
        """Ask; `Answered` or `Unanswered` with the returned id follows. None: too many wait, or the
        conversation that it is asked in takes no more."""
        if self.requests.is_full:
            return None
        if conversation:
            asked_in = self.conversations.open_now.get(conversation)
            said = self.conversations.say(conversation, type, content, body, now, wants_reply=True)
            if said is None:
                return None
            self.requests.ask(said[0], party, timeout_s, now, asked_in)
            return said[0]
        assert party.link is not None
        id = self._new_id()
        if len(body) > self.sending.part_max:
            saying = Saying(id, body, content, type, wants_reply=True)
            if not self.conversations.say_long(party, saying, Kind.REQUEST, now):
                return None
            self.requests.ask(id, party, timeout_s, now)
            return id
        self.requests.ask(id, party, timeout_s, now)
        message = Message(id, int(now * 1e6), _APPLICATION, body, 0, 0, content, type, True)
        if self.sending.is_paced:
            self.sending.plain(party, message, now)
        else:
            self.sending.now(party.link, message, now)
        return id

    def reply(
        self, peer: PeerId, request: int, content: ContentType, body: bytes, now: float
    ) -> None:
        """Answer a request; nothing happens when its peer has gone."""
        party = self.requests.done(peer, request)
        if party is None or party.link is None:
            return
        if len(body) > self.sending.part_max:
            saying = Saying(self._new_id(), body, content, in_reply_to=request)
            if not self.conversations.say_long(party, saying, Kind.REPLY, now):
                code, text = RefusalCode.BUSY, "too many conversations are open"
                self.refuse_message(party, request, code, text, now)
            return
        message = Message(self._new_id(), int(now * 1e6), _APPLICATION, body, request, 0, content)
        self.sending.now(party.link, message, now)

    def refuse(
        self, peer: PeerId, request: int, code: RefusalCode | int, text: str, now: float
    ) -> None:
        """Say that a request will not be answered."""
        party = self.requests.done(peer, request)
        if party is not None:
            self.refuse_message(party, request, code, text, now)

    def refuse_message(
        self,
        party: Counterparty,
        message: int,
        code: RefusalCode | int,
        text: str,
        now: float,
        regards: int = 0,
        marks: int = 0,
        link: Link | None = None,
    ) -> None:
        """Refuse one message of a peer, or, with `message` 0, the conversation that it regards;
        over this link if it is open."""
        if link is None or not link.is_open:
            link = party.link
        if link is None:
            return  # a peer that comes back with it is refused then
        body = encode(Refusal(int(code), printable(text)))
        id, at = self._new_id(), int(now * 1e6)
        refusal = Message(id, at, Channel.REFUSAL, body, message, regards, marks=marks)
        self.sending.now(link, refusal, now)

    # Inputs.

    def receive(self, link: Link, message: Message, now: float) -> None:
        """A message for the application, or a refusal."""
        assert link.peer is not None
        if not link.may_converse:
            self._not_allowed(link, message, now)
            return
        party = self.party(link.peer)
        if message.channel is Channel.REFUSAL:
            self._on_refusal(party, link, message, now)
        elif message.in_regards_to or message.sequence or message.marks:
            self.hearing.receive(party, link, message, now)
        elif message.in_reply_to:
            self.requests.answered(message.in_reply_to, party, message)
        elif message.wants_reply:
            received_at = now + self.unix_offset_s
            sent_at = message.sent_at_us * 1e-6 + link.peer_epoch_s + self.unix_offset_s
            self.hearing.asked(party, message, sent_at, received_at, now)
        else:
            self._out.append(self.one_way(link, message, now))
        if party.link is None:
            self._heard_too_late(party, now)

    def in_conversation(self, link: Link, message: Message, now: float) -> None:
        """What `receive` does with a message that regards a conversation, on a link that may carry
        it. A short way in, for the most frequent messages."""
        assert link.peer is not None
        self.hearing.receive(self.parties[link.peer], link, message, now)

    def one_way(self, link: Link, message: Message, now: float) -> Deliver:
        """A message that is no reply, wants none, and regards nothing; the link may carry it."""
        assert link.peer is not None
        self.counts["received"] += 1
        offset_s = self.unix_offset_s
        return Deliver(
            Delivery(
                link.peer,
                message.body,
                message.content,
                False,
                message.type,
                1,
                0,
                message.sent_at_us * 1e-6 + link.peer_epoch_s + offset_s,
                now + offset_s,
            )
        )

    def credited(self, link: Link, credit: Credit, now: float) -> None:
        """A peer says how much more it takes in regard to a conversation."""
        assert link.peer is not None
        if link.may_converse:
            party = self.party(link.peer)
            self.hearing.credited(party, link, credit, now)
            if party.link is None:
                self._heard_too_late(party, now)
        else:
            self.counts["not allowed"] += 1

    def link_opened(self, link: Link, window: int, now: float) -> None:
        """A link is open; its peer holds so much for all conversations together."""
        if not link.may_converse:
            return
        assert link.peer is not None
        party = self.party(link.peer)
        # Not more than this node would hold itself: what is said is kept until it is taken.
        own = self._config.conversations.shared_window_bytes
        party.shared_out.limit = min(window, own)
        # The peer does likewise. It is not held to it: what it may send is `own`.
        party.shared_in.scarce_above = min(window, own) // 2
        party.links.append(link)
        if party.link is not None and self._is_better(link, party.link, now):
            party.link = link
            self._moved(party, now)
        else:
            self._choose(party, now)

    def choose_link(self, peer: PeerId, now: float) -> None:
        """One of the links to a peer may be to stay no longer: see which to send over."""
        party = self.parties.get(peer)
        if party is not None:
            self._choose(party, now)

    def link_gone(self, link: Link, reason: CloseReason | None, text: str, now: float) -> None:
        """A link has ended."""
        party = self.parties.get(link.peer) if link.peer is not None else None
        if party is None or link not in party.links:
            return
        party.links.remove(link)
        if party.link is not link and party.link is not None:
            self.conversations.look_again(party, now)
        self._choose(party, now)
        if party.conversations:
            # Until then the peer may not have noticed, and what it says over that link is lost.
            links = self._config.link
            at = now + links.idle_timeout_s + links.ping_interval_s
            self._timers.set((table_machine.LOST_TIMER, party.peer), at)
        if party.link is None:
            is_final = self._is_leaving or reason in _FINAL
            self.requests.lost(party, Why.LINK_LOST, text)
            self._drop_waiting(party)
            self.conversations.link_gone(party, text, now, is_final=is_final)
            self.forget_if_idle(party)

    def unreachable(self, peer: PeerId, why: Why, text: str) -> None:
        """No link to a peer can be made."""
        party = self.parties.get(peer)
        if party is not None and party.link is None:
            self.conversations.unreachable(party, why, text)
            self.forget_if_idle(party)

    def room(self, link: Link, size: int, now: float) -> None:
        """The pipe of a link can take so much more."""
        link.room, link.wants_room = size, False
        party = self.parties.get(link.peer) if link.peer is not None else None
        if party is not None and party.link is link:
            self.sending.pump(party, now)

    def tick(self, key: Key, now: float) -> None:
        """One of the deadlines in `TIMERS` has come."""
        machine, what = key
        if machine == requests_machine.TIMER:
            assert isinstance(what, int)
            self.requests.tick(what)
        elif machine == table_machine.TIMER:
            assert isinstance(what, int)
            self.conversations.tick(what, now)
        elif machine == sending_machine.TIMER:
            self.sending.tick(now)
        else:
            assert isinstance(what, bytes)
            party = self.parties.get(PeerId(what))
            if party is None:
                return
            if machine == table_machine.CREDIT_TIMER:
                self.conversations.tell_owed(party, now)
            elif party.link is not None:
                self.conversations.look_again(party, now)

    def hear_local(self) -> None:
        """Hear what this node has said to itself, in order, and what that leads to."""
        local = self.sending.local
        while local:
            frame, now = local.popleft()
            assert self._local is not None
            if type(frame) is Message:
                self.receive(self._local, frame, now)
            elif type(frame) is Credit:
                self.credited(self._local, frame, now)

    def leave(self) -> None:
        """The node is stopping: whatever ends from here on is not begun again."""
        self._is_leaving = True

    def has_use_for(self, link: Link) -> bool:
        """Whether something is going on that needs this link, or would miss it."""
        party = self.parties.get(link.peer) if link.peer is not None else None
        return party is not None and party.link is link and not party.is_idle

    # What the above share.

    def _open_local(self, party: Counterparty) -> None:
        self._local = local_link(self._me, self._config.link, self._out, self._new_id)
        party.shared_out.limit = self._config.conversations.shared_window_bytes
        party.links.append(self._local)
        party.choose_link()

    def forget_if_idle(self, party: Counterparty) -> None:
        """Keep nothing for a peer that there is no link to, and nothing to do with."""
        if not party.links and party.is_idle:
            self.parties.pop(party.peer, None)
            self.sending.forget(party.peer)
            for timer in (table_machine.CREDIT_TIMER, table_machine.LOST_TIMER):
                self._timers.cancel((timer, party.peer))

    def _choose(self, party: Counterparty, now: float) -> None:
        before = party.link
        party.choose_link()
        if party.link is not None and party.link is not before:
            self._moved(party, now)

    def _is_better(self, new: Link, present: Link, now: float) -> bool:
        """Whether to send over a new link although the present one is open."""
        if new.purpose is not Purpose.CONVERSATION:
            return False
        is_twin = present.purpose is Purpose.CONVERSATION and present.outbound != new.outbound
        if is_twin and now < present.since + self._config.link.connect_timeout_s:
            # Both have dialled at once. So it is the same link at both ends:
            assert new.peer is not None
            return new.outbound == (self._me < new.peer)
        # A peer dials for conversations when it has no link: it has lost the present one already.
        return not new.outbound

    def _moved(self, party: Counterparty, now: float) -> None:
        self.conversations.moved(party, now)
        if party.waiting:
            self.sending.pump(party, now)

    def _heard_too_late(self, party: Counterparty, now: float) -> None:
        """The last link to a peer, which is closing, still brought something."""
        text = "the link was closing"
        self.conversations.link_gone(party, text, now, is_final=self._is_leaving)
        self.forget_if_idle(party)

    def _drop_waiting(self, party: Counterparty) -> None:
        if party.waiting is not None:
            self.counts["lost while waiting"] += len(party.waiting)
            if self.sending.must_wait(party):
                self._out.append(PeerRoom(party.peer))  # whoever waits for it learns of the loss
            party.waiting, party.waiting_bytes = None, 0

    def _on_refusal(self, party: Counterparty, link: Link, message: Message, now: float) -> None:
        if not message.in_reply_to and not message.in_regards_to:
            self.wanted.append(Fault(link, CloseReason.PROTOCOL, "a refusal of nothing"))
            return
        try:
            refusal = decode_refusal(message.body)
        except MalformedFrame as error:
            self.wanted.append(Fault(link, CloseReason.MALFORMED, str(error)))
            return
        refusal = Refusal(refusal.code, printable(refusal.text))
        to, regards = message.in_reply_to, message.in_regards_to
        if to and self.requests.refused(to, party, refusal, regards):
            return
        if message.in_regards_to:
            self.hearing.refused(party, message, refusal, now)

    def _not_allowed(self, link: Link, message: Message, now: float) -> None:
        self.counts["not allowed"] += 1
        if message.wants_reply and link.is_open:
            text = "links of this purpose carry no application messages"
            body = encode(Refusal(int(RefusalCode.NOT_ALLOWED), text))
            at = int(now * 1e6)
            refusal = Message(self._new_id(), at, Channel.REFUSAL, body, in_reply_to=message.id)
            self.sending.now(link, refusal, now)
