"""What an application has a node do: join, send, ask, converse. Checks what it is given.

Like the inputs of `node.py`, commands take `now` and return effects for the driver to perform.
"""

from __future__ import annotations

from meshwalk.errors import Closed, InvalidArgument, NotANeighbour, Refused, TooBig
from meshwalk.events import Delivery
from meshwalk.proto.dispatch.conversation import Counterparty
from meshwalk.proto.effects import Effect, PeerReached
from meshwalk.proto.link import Link
from meshwalk.proto.machines import Machines
from meshwalk.wire.address import Address
from meshwalk.wire.frames import ContentType
from meshwalk.wire.messages import RefusalCode
from meshwalk.wire.peerid import PeerId
from meshwalk.wire.text import printable

TYPE_CHARACTERS_MAX = 255  # below ShortText's bound in wire/frames.py
TIMEOUT_S_MAX = 31_536_000  # a year: guess, longer than any link lives


class Commands(Machines):
    """All machines of one node, as an application uses them."""

    def join(self, address: Address, expected: PeerId | None, now: float) -> list[Effect]:
        """Enter a network through this address."""
        self._on_overlay(self.overlay.enter(address, expected, now), now)
        return self._flush()

    def broadcast(
        self, topic: str, content: ContentType, body: bytes, now: float, asks: int = 0
    ) -> tuple[int, list[Effect]]:
        """Send to everyone; the number is this node's count. Raises `TooBig`, `InvalidArgument`.

        `asks`: some of `wire.records.ASKS_`; then `ReceiptCame` follows with that number.
        """
        self._check(body, topic, self.config.broadcast.body_bytes_max)
        number, effects = self.gossip.publish(topic, content, body, now, asks)
        self._on_gossip(effects, now)
        return number, self._flush()

    def draft(
        self,
        topic: str,
        content: ContentType,
        body: bytes,
        now: float,
        asks: int = 0,
        origin: bytes = b"",
    ) -> bytes:
        """The payload of a broadcast that is to be worked on, or private, for `broadcast_draft`.

        `origin`: of a private one, the key that will sign it, made for it alone: then nothing in it
        names this node. Raises `TooBig`, `InvalidArgument`.
        """
        self._check(body, topic, self.config.broadcast.body_bytes_max)
        return self.gossip.draft(topic, content, body, now, asks, origin)

    def broadcast_draft(
        self, payload: bytes, work: int, now: float, signature: bytes = b""
    ) -> tuple[int, list[Effect]]:
        """Send a payload that was drafted; its number, or 0 when it is private: then it comes with
        the signature of its own key. Raises `Refused` when another broadcast went out since: draft
        anew."""
        published = self.gossip.publish_draft(payload, work, now, signature)
        if published is None:
            raise Refused(RefusalCode.TOO_LATE, "another broadcast went out since it was drafted")
        self._on_gossip(published[1], now)
        return published[0], self._flush()

    def catch_up(self, since_ms: int, now: float) -> list[Effect]:
        """Ask neighbours for broadcasts since then, Unix time in milliseconds: they are delivered
        as they come."""
        self._on_gossip(self.gossip.catch_up(since_ms, now), now)
        return self._flush()

    def broadcasts_since(
        self, since_ms: int, topics: frozenset[str] | None = None
    ) -> list[Delivery]:
        """Others' broadcasts that are kept here and were sent from then on, the oldest first; only
        those with one of these topics, if there are any."""
        return self.gossip.held_since(since_ms, topics)

    def pause_broadcasts(self, now: float) -> list[Effect]:
        """The application does not read: have neighbours announce, and push nothing."""
        self._on_gossip(self.gossip.pause(now), now)
        return self._flush()

    def resume_broadcasts(self, now: float) -> list[Effect]:
        """It reads again: fetch what was announced."""
        self._on_gossip(self.gossip.resume(now), now)
        return self._flush()

    def reach(self, peer: PeerId, now: float) -> list[Effect]:
        """Have a link to any peer: `PeerReached` or `PeerUnreached` follows, unless there is
        one."""
        self._check_peer(peer)
        if peer == self.me:
            self.dispatch.party(peer)
            self._out.append(PeerReached(peer))
        elif self.dispatch.link_to(peer) is None:
            self._on_reaching(self.reaching.want(peer, now), now)
        return self._flush()

    def link_to(self, peer: PeerId) -> Link | None:
        """The link that messages to a peer go over; None when it is to be reached first."""
        party = self.dispatch.parties.get(peer)
        return party.link if party is not None else None

    def must_wait(self, peer: PeerId) -> bool:
        """Whether pacing holds back so much for a peer that a writer should wait for `PeerRoom`."""
        party = self.dispatch.parties.get(peer)
        return party is not None and self.dispatch.sending.must_wait(party)

    def may_broadcast_at(self, now: float) -> float:
        """When pacing, and the rate of an origin, allow one more broadcast: `now`, or later."""
        return max(self.dispatch.sending.free_at(now), self.gossip.publishing.free_at(now))

    def send(
        self, peer: PeerId, type: str, content: ContentType, body: bytes, now: float
    ) -> list[Effect]:
        """Send to a peer there is a link to.

        Raises `NotANeighbour`, `TooBig`, `InvalidArgument`, `Refused` (too much is under way).
        """
        self._check(body, type, self.config.conversations.message_bytes_max)
        if not self.dispatch.send(self._party_of(peer), type, content, body, now):
            raise Refused(RefusalCode.BUSY, "too many long messages are under way to this peer")
        if self.dispatch.sending.local or self.dispatch.wanted:
            self._after_dispatch(now)
        return self._flush()

    def send_unreliably(
        self, peer: PeerId, type: str, content: ContentType, body: bytes, now: float
    ) -> tuple[bool, list[Effect]]:
        """Send to a peer if its link has room now; else false. Longer than a packet: as `send`."""
        if len(body) > self.config.conversations.packet_bytes_max:
            return True, self.send(peer, type, content, body, now)
        self._check(body, type, self.config.conversations.message_bytes_max)
        was_sent = self.dispatch.send_unreliably(self._party_of(peer), type, content, body, now)
        self._after_dispatch(now)
        return was_sent, self._flush()

    def request(
        self,
        peer: PeerId,
        type: str,
        content: ContentType,
        body: bytes,
        timeout_s: float,
        now: float,
        conversation: int = 0,
    ) -> tuple[int, list[Effect]] | None:
        """Ask a peer there is a link to, or one in a conversation; None when too many requests wait
        already. Raises as `send`, and `Closed` when the conversation is over."""
        self._check(body, type, self.config.conversations.message_bytes_max)
        _check_timeout(timeout_s)
        if not conversation:
            party = self._party_of(peer)
        elif (found := self.dispatch.conversations.open_now.get(conversation)) is None:
            raise Closed("the conversation is over")
        elif found.outgoing.has_ended:
            raise Closed("this end has said all in this conversation")
        else:
            party = found.party
        asked = self.dispatch.request(party, type, content, body, timeout_s, now, conversation)
        if asked is None:
            return None
        self._after_dispatch(now)
        return asked, self._flush()

    def abandon(self, request: int) -> None:
        """Nobody waits for this reply any more."""
        self.dispatch.requests.abandon(request)

    def reply(
        self, peer: PeerId, request: int, content: ContentType, body: bytes, now: float
    ) -> list[Effect]:
        """Answer a peer's request. Raises `TooBig`."""
        self._check(body, "", self.config.conversations.message_bytes_max)
        self.dispatch.reply(peer, request, content, body, now)
        self._after_dispatch(now)
        return self._flush()

    def refuse(self, peer: PeerId, request: int, code: int, text: str, now: float) -> list[Effect]:
        """Tell a peer that its request will not be answered."""
        self.dispatch.refuse(peer, request, code, text, now)
        self._after_dispatch(now)
        return self._flush()

    # Conversations, by the number that this node knows them by.

    def open(
        self,
        peer: PeerId,
        type: str,
        content: ContentType,
        body: bytes,
        timeout_s: float | None,
        now: float,
    ) -> tuple[int, list[Effect]] | None:
        """Open a conversation with any peer; its number. None when there are too many.

        `ConversationOver` comes at its end, also if the peer cannot be reached. Raises `TooBig`,
        `InvalidArgument`.
        """
        self._check(body, type, self.config.conversations.message_bytes_max)
        if timeout_s is not None:
            _check_timeout(timeout_s)
        self._check_peer(peer)
        party = self.dispatch.party(peer)
        number = self.dispatch.conversations.open(party, type, content, body, timeout_s, now)
        if number is None:
            self.dispatch.forget_if_idle(party)
            return None
        if party.link is None:
            self._on_reaching(self.reaching.want(peer, now), now)
        self._after_dispatch(now)
        return number, self._flush()

    def conversation_id(self, conversation: int) -> int:
        """The id of the message that opened it; 0 when it is over."""
        found = self.dispatch.conversations.open_now.get(conversation)
        return found.id if found is not None else 0

    def conversation_number(self, peer: PeerId, id: int, is_mine: bool) -> int:
        """The number of the one that this message of ours or of the peer opened; 0 for none."""
        party = self.dispatch.parties.get(peer)
        found = party.conversations.get(id * 2 + is_mine) if party is not None else None
        return found.number if found is not None else 0

    def is_full(self, conversation: int) -> bool:
        """Whether `ConversationRoom` is to be waited for before more is said in it."""
        found = self.dispatch.conversations.open_now.get(conversation)
        return found is not None and found.is_told_full

    def say(
        self,
        conversation: int,
        type: str,
        content: ContentType,
        body: bytes,
        now: float,
        in_reply_to: int = 0,
    ) -> tuple[bool, list[Effect]]:
        """Say something; true: wait for `ConversationRoom` before more. Raises `TooBig`,
        `InvalidArgument`, `Closed` (it is over, or this end has ended it)."""
        self._check(body, type, self.config.conversations.message_bytes_max)
        said = self.dispatch.conversations.say(conversation, type, content, body, now, in_reply_to)
        if said is None:
            raise Closed("nothing more can be said in this conversation: it has ended")
        if self.dispatch.sending.local or self.dispatch.wanted:
            self._after_dispatch(now)
        return said[1], self._flush()

    def say_unreliably(
        self, conversation: int, type: str, content: ContentType, body: bytes, now: float
    ) -> tuple[bool, list[Effect]]:
        """Say something if it can go out now. Longer than a packet: see `say`."""
        self._check(body, type, self.config.conversations.packet_bytes_max)
        was_said = self.dispatch.conversations.say_unreliably(
            conversation, type, content, body, now
        )
        self._after_dispatch(now)
        return was_said, self._flush()

    def read(self, conversation: int, messages: int, cost: int, now: float) -> list[Effect]:
        """The application has taken so many messages, which cost so much together."""
        self.dispatch.conversations.read(conversation, messages, cost, now)
        self._after_dispatch(now)
        return self._flush()

    def refuse_said(
        self, conversation: int, message: int, code: int, text: str, now: float
    ) -> list[Effect]:
        """Tell the peer that one message of a conversation could not be taken; it goes on."""
        self.dispatch.conversations.refuse_said(conversation, message, code, text, now)
        self._after_dispatch(now)
        return self._flush()

    def end(self, conversation: int, now: float) -> list[Effect]:
        """Say nothing more in it; listen on."""
        self.dispatch.conversations.end(conversation, now)
        self._after_dispatch(now)
        return self._flush()

    def close_conversation(self, conversation: int, now: float) -> list[Effect]:
        """Say nothing more in it, and listen no more; what was said still goes out."""
        self.dispatch.conversations.close(conversation, now)
        self._after_dispatch(now)
        return self._flush()

    def leave_conversation(
        self, conversation: int, code: int, text: str, now: float
    ) -> list[Effect]:
        """End it at once, both ways, for a reason that the peer is told."""
        self.dispatch.conversations.leave(conversation, code, printable(text), now)
        self._after_dispatch(now)
        return self._flush()

    # What the above share.

    def _party_of(self, peer: PeerId) -> Counterparty:
        party = self.dispatch.parties.get(peer)
        if party is None and peer == self.me:
            party = self.dispatch.party(peer)
        if party is None or party.link is None:
            self._check_peer(peer)
            raise NotANeighbour(f"there is no link to {peer.short}; it is not a neighbour")
        return party

    def _check_peer(self, peer: PeerId) -> None:
        if not isinstance(peer, PeerId):  # else it would be looked for under a name that is none
            raise InvalidArgument("name a peer by its PeerId; PeerId.parse(text) reads one")

    def _check(self, body: bytes, label: str, limit: int) -> None:
        if len(body) > limit:
            raise TooBig(len(body), limit)
        if type(label) is not str:
            raise InvalidArgument("a type or topic is text")
        if not label:
            return
        if len(label) > TYPE_CHARACTERS_MAX:
            raise InvalidArgument(f"a type or topic has at most {TYPE_CHARACTERS_MAX} characters")
        if not label.isascii():
            try:
                label.encode()
            except UnicodeEncodeError:
                raise InvalidArgument("a type or topic is text that UTF-8 can write") from None


def _check_timeout(timeout_s: float) -> None:
    if not (0 <= timeout_s <= TIMEOUT_S_MAX):  # NaN, too, would put the timers out of order
        raise InvalidArgument(f"a deadline lies 0 to {TIMEOUT_S_MAX:,} seconds ahead")
