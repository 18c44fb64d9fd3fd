"""Whose turn it is to send: conversations of one peer in turn, peers in turn, at the rate that is
set.

A part goes out when the link has room, the conversation has credit, the credit that all share has
room, and pacing allows it. So a long message never holds up a short one in another conversation for
longer than one part takes. Seed 003 has both: the blocked sender, and "spread the non response
outgoing messages out to a constant rate (constant per counterparty, and uniformly interleaved)".
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from itertools import islice
from typing import Final

from meshwalk.config import ConversationConfig, PacingConfig
from meshwalk.events import CreditExhausted
from meshwalk.proto.dispatch.conversation import Conversation, Counterparty, Kind
from meshwalk.proto.dispatch.outgoing import PART_BYTES_LEAST
from meshwalk.proto.effects import ConversationRoom, Effect, Happened, PeerRoom, Send, WantRoom
from meshwalk.proto.link import Link
from meshwalk.proto.rate import ByteBucket
from meshwalk.proto.timers import Timers
from meshwalk.wire.frames import PART_COST_BYTES, Credit, Message
from meshwalk.wire.peerid import PeerId

TIMER: Final = "pacing"
NEVER: Final = float("inf")
FED_AT_ONCE: Final = 32  # guess: more than the parts of one window
EXHAUSTED_EVERY_S: Final = 1.0  # guess: news of a peer that is always behind, not a flood of it


class Sending:
    """Turns and rates of one node."""

    def __init__(
        self,
        conversations: ConversationConfig,
        pacing: PacingConfig,
        timers: Timers,
        out: list[Effect],
    ) -> None:
        self.counts: Counter[str] = Counter()
        self.local: deque[tuple[Message | Credit, float]] = deque()
        """What this node says to itself."""
        self.is_paced = pacing.is_on
        self.part_max = conversations.part_bytes_max
        self._backlog_low = conversations.backlog_bytes // 2
        self._pacing = pacing
        self._timers = timers
        self._out = out
        self._node_pace = self._bucket(pacing.bytes_per_s)
        self._paced: dict[PeerId, Counterparty] = {}
        """Peers with something to send, in turn."""

    # Inputs.

    def pump(self, party: Counterparty, now: float) -> None:
        """Send what may be sent now to a peer."""
        if self.is_paced:
            self._paced.setdefault(party.peer, party)
            self.tick(now)
        else:
            while self._send_one(party, now):
                pass

    def tick(self, now: float) -> None:
        """Send what the rates allow now, the peers in turn."""
        turns, later, wake_at = deque(self._paced.values()), [], NEVER
        while turns:
            if self._node_pace is not None and (at := self._node_pace.ready_at(now)) > now:
                wake_at = min(wake_at, at)
                break
            party = turns.popleft()
            if party.pace is not None and (at := party.pace.ready_at(now)) > now:
                wake_at = min(wake_at, at)
                later.append(party)
                continue
            size = self._send_one(party, now)
            if not size:
                continue  # nothing to send, or no room or credit for it: whoever gives some pumps
            self.spend(party, size)
            turns.append(party)
        self._paced = {party.peer: party for party in (*turns, *later)}
        if wake_at < NEVER:
            self._timers.set((TIMER, None), wake_at)

    # Commands.

    def now(self, link: Link, frame: Message | Credit, now: float) -> None:
        """Send at once, whatever waits: replies, credit, and what has had its turn."""
        if link.number:
            link.messages_out += 1
            link.used_at = now
            self._out.append(Send(link.number, frame))
        else:
            self.local.append((frame, now))

    def plain(self, party: Counterparty, message: Message, now: float) -> None:
        """When pacing allows: a message that is no part of a conversation and no reply."""
        if party.waiting is None:
            party.waiting = deque()
        party.waiting.append(message)
        party.waiting_bytes += len(message.body) + PART_COST_BYTES
        self.pump(party, now)

    def list(self, conversation: Conversation) -> None:
        """Give a conversation that has something to send its turns."""
        if not conversation.outgoing.is_waiting:
            return
        party = conversation.party
        if party.turns is None:
            party.turns = OrderedDict()
        party.turns.setdefault(conversation.key, conversation)

    def want_room(self, link: Link) -> None:
        """Have the driver say when the link can take more."""
        if not link.wants_room:
            link.wants_room = True
            self._out.append(WantRoom(link.number))

    def has_room(self, link: Link) -> bool:
        """Whether a link can take more now; if not, it is asked to say when."""
        if link.room <= 0:
            self.want_room(link)
        return link.room > 0

    def charge(self, party: Counterparty | None, size: int) -> None:
        """Something that is not held back was sent, a broadcast: the others wait the longer."""
        for bucket in (self._node_pace, party.pace if party is not None else None):
            if bucket is not None:
                bucket.charge(size)

    def may_send(self, party: Counterparty, now: float) -> bool:
        """Whether pacing lets something out to this peer now, and nothing else waits for that."""
        if not self.is_paced:
            return True
        if party.waiting or party.turns:
            return False
        buckets = (self._node_pace, party.pace)
        return all(bucket is None or bucket.ready_at(now) <= now for bucket in buckets)

    def borrow(self, party: Counterparty | None, size: int) -> None:
        """A broadcast of this node goes out; the next one is to wait until `free_at`."""
        for bucket in (self._node_pace, party.pace if party is not None else None):
            if bucket is not None:
                bucket.borrow(size)

    def spend(self, party: Counterparty, size: int) -> None:
        """Something was sent that `may_send` let out."""
        for bucket in (self._node_pace, party.pace):
            if bucket is not None:
                bucket.spend(size)

    def free_at(self, now: float) -> float:
        """When the node's rate allows more."""
        return now if self._node_pace is None else self._node_pace.ready_at(now)

    def must_wait(self, party: Counterparty) -> bool:
        """Whether so much waits for the peer, one way, that a writer should add nothing."""
        return party.waiting_bytes + party.long_bytes > self._pacing.waiting_bytes_max

    def long_gone(self, party: Counterparty, size: int) -> None:
        """So much of a long message that goes one way has gone out, or will not go."""
        was_full = self.must_wait(party)
        party.long_bytes -= size
        if was_full and not self.must_wait(party):
            self._out.append(PeerRoom(party.peer))

    def bucket_of_a_peer(self) -> ByteBucket | None:
        """The rate for one more peer."""
        return self._bucket(self._pacing.peer_bytes_per_s)

    def forget(self, peer: PeerId) -> None:
        """Nothing more goes to this peer."""
        self._paced.pop(peer, None)

    # Steps.

    def _bucket(self, per_s: float) -> ByteBucket | None:
        return ByteBucket(per_s, self._pacing.burst_bytes) if per_s > 0 else None

    def _send_one(self, party: Counterparty, now: float) -> int:
        """Send one message or part: how much it was; 0 for none."""
        link = party.link
        if link is None:
            return 0
        if party.waiting is None or party.is_turn_of_conversations:
            party.is_turn_of_conversations = False
            if (size := self._send_in_turn(party, link, now)) > 0:
                return size
        if party.waiting is None:
            return 0
        party.is_turn_of_conversations = True
        return self._send_waiting(party, link, now)

    def _send_in_turn(self, party: Counterparty, link: Link, now: float) -> int:
        while party.turns or self._feed_starved(party):
            if link.room <= 0:
                self.want_room(link)
                return 0
            assert party.turns is not None
            _, conversation = party.turns.popitem(last=False)
            if (size := self._send_part(conversation, link, now)) > 0:
                return size
        party.turns = None
        return 0

    def _feed_starved(self, party: Counterparty) -> bool:
        """Give turns to some of those that wait for shared credit, if there is some: it lasts for
        one part at the least. Not to all: there may be ten thousand, and credit for a few."""
        shared = party.shared_out
        if shared.limit - shared.used < PART_BYTES_LEAST + PART_COST_BYTES:
            return False
        while party.starved and not party.turns:  # some have been served since, by their floor
            for key in list(islice(party.starved, FED_AT_ONCE)):
                self.list(party.starved.pop(key))
        return bool(party.turns)

    def send_replies(self, conversation: Conversation, now: float) -> None:
        """What answers a message is not held back by pacing, but by credit and by the link."""
        link = conversation.party.link
        if not self.is_paced or link is None:
            return
        while conversation.outgoing.is_reply_next and link.room > 0:
            if not self._send_part(conversation, link, now):
                return

    def _send_waiting(self, party: Counterparty, link: Link, now: float) -> int:
        assert party.waiting is not None
        message = party.waiting.popleft()
        size = len(message.body) + PART_COST_BYTES
        was_full = self.must_wait(party)
        party.waiting_bytes -= size
        if not party.waiting:
            party.waiting = None
        self.now(link, message, now)
        if was_full and not self.must_wait(party):
            self._out.append(PeerRoom(party.peer))
        return size

    def _send_part(self, conversation: Conversation, link: Link, now: float) -> int:
        """Send the next part of a conversation, and give it one more turn if that is not the last:
        how much it was; 0 for none."""
        outgoing, party = conversation.outgoing, conversation.party
        if not outgoing.is_waiting:
            return 0
        need = outgoing.cost_of_next()
        allowance = outgoing.allowance
        before = allowance.outstanding
        room = min(allowance.room, party.shared_out.room(before))
        if need > room:
            if need <= allowance.room:
                if party.starved is None:
                    party.starved = {}
                party.starved[conversation.key] = conversation
            self._exhausted(conversation, now)
            return 0
        message, cost = outgoing.take_next(
            room, self.part_max, conversation.regards, conversation.marks, now
        )
        if cost:
            party.shared_out.change(before, before + cost)
        size = len(message.body) + PART_COST_BYTES
        link.room -= size
        self.now(link, message, now)
        if cost and conversation.kind is Kind.ONE_WAY:
            self.long_gone(party, len(message.body))
        self.list(conversation)
        if conversation.is_told_full and outgoing.backlog_bytes <= self._backlog_low:
            conversation.is_told_full = False
            self._out.append(ConversationRoom(conversation.number))
        return size

    def _exhausted(self, conversation: Conversation, now: float) -> None:
        self.counts["credit exhausted"] += 1
        party = conversation.party
        told_at = party.told_exhausted_at
        if told_at is None or now >= told_at + EXHAUSTED_EVERY_S:
            party.told_exhausted_at = now
            self._out.append(Happened(CreditExhausted(party.peer, conversation.type)))
