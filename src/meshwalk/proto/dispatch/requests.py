"""Messages between the applications of two peers: one way, or a request and its reply.

A request is answered by the message whose `in_reply_to` is its id, from the same peer, within its
deadline. A reply that comes late, twice, or unasked is counted and dropped. A request that nobody
here answers is refused with a code, never with silence.

When both ends have dialled, requests that went over the link which is dropped are answered over
the one that stays, so that whoever asks as soon as a neighbour is up gets a reply.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TypeAlias, final

import msgspec

from meshwalk.config import RequestConfig
from meshwalk.errors import MalformedFrame
from meshwalk.events import Delivery
from meshwalk.proto.effects import Answered, Ask, AskGone, Deliver, Unanswered, Why
from meshwalk.proto.link import Link, printable
from meshwalk.proto.timers import Timers
from meshwalk.wire.frames import Channel, CloseReason, ContentType, Message, Purpose
from meshwalk.wire.messages import Refusal, RefusalCode, decode_refusal, encode
from meshwalk.wire.peerid import PeerId

TIMER = "request"


@final
class Transmit(msgspec.Struct, frozen=True, gc=False):
    """Send a message over a link."""

    link: Link
    message: Message


@final
class Fault(msgspec.Struct, frozen=True, gc=False):
    """The peer broke the protocol: close its link."""

    reason: CloseReason
    text: str


DispatchEffect: TypeAlias = Transmit | Deliver | Fault | Ask | AskGone | Answered | Unanswered

_MAY_CONVERSE = frozenset(
    {Purpose.STANDING, Purpose.JOIN_ACCEPT, Purpose.JOIN_SPLIT, Purpose.CONVERSATION}
)


class Dispatch:
    """Application messages at one node."""

    def __init__(self, config: RequestConfig, new_id: Callable[[], int], timers: Timers) -> None:
        self.counts: Counter[str] = Counter()
        self._config = config
        self._new_id = new_id
        self._timers = timers
        self._asked: dict[int, Link] = {}
        """Own requests that wait, by id: the link whose end ends them."""
        self._serving: dict[tuple[int, int], Link] = {}
        """Requests of others that are being answered, by the number of the link they came over
        and id: the link to answer over."""
        self._served: Counter[PeerId] = Counter()

    @property
    def waiting(self) -> int:
        """Own requests that wait for a reply."""
        return len(self._asked)

    @property
    def serving(self) -> int:
        """Requests of others that are being answered."""
        return len(self._serving)

    # Commands.

    def send(self, type: str, content: ContentType, body: bytes, now: float) -> Message:
        """A message that goes one way."""
        return Message(
            self._new_id(), int(now * 1e6), Channel.APPLICATION, body, 0, 0, content, type
        )

    def request(
        self,
        link: Link,
        type: str,
        content: ContentType,
        body: bytes,
        timeout_s: float,
        now: float,
    ) -> tuple[int, list[DispatchEffect]] | None:
        """Ask; `Answered` or `Unanswered` with the returned id follows. None: too many wait."""
        if len(self._asked) >= self._config.pending_max:
            return None
        message = self._message(content, body, now, type=type, wants_reply=True)
        self._asked[message.id] = link
        self._timers.set((TIMER, message.id), now + timeout_s)
        return message.id, [Transmit(link, message)]

    def abandon(self, request: int) -> None:
        """Nobody waits for this reply any more."""
        if self._asked.pop(request, None) is not None:
            self._timers.cancel((TIMER, request))

    def reply(
        self, link: int, request: int, content: ContentType, body: bytes, now: float
    ) -> list[DispatchEffect]:
        """Answer a request; nothing happens when its link has gone."""
        asker = self._done(link, request)
        if asker is None:
            return []
        return [Transmit(asker, self._message(content, body, now, in_reply_to=request))]

    def refuse(
        self, link: int, request: int, code: RefusalCode, text: str, now: float
    ) -> list[DispatchEffect]:
        """Say that a request will not be answered."""
        asker = self._done(link, request)
        return [] if asker is None else [self._refusal(asker, request, code, text, now)]

    # Inputs.

    def receive(
        self, link: Link, message: Message, now: float, heir: Link | None = None
    ) -> list[DispatchEffect]:
        """A message for the application, or a refusal. `heir`: the link that has replaced `link`,
        when that one is closing."""
        if message.in_reply_to:
            return self._on_reply(link, message)
        peer = link.peer
        assert peer is not None
        if message.channel is Channel.REFUSAL:
            return [Fault(CloseReason.PROTOCOL, "a refusal of nothing")]
        if not message.wants_reply:
            delivered = self.one_way(link, message)
            return [] if delivered is None else [delivered]
        if link.purpose not in _MAY_CONVERSE:
            self.counts["not allowed"] += 1
            text = "links of this purpose carry no application messages"
            return [self._refusal(link, message.id, RefusalCode.NOT_ALLOWED, text, now)]
        over = link if link.is_open else heir
        if over is None:
            self.counts["too late"] += 1  # its answer would find no way back
            return []
        if self._served[peer] >= self._config.served_per_peer_max:
            self.counts["busy"] += 1
            text = "too many requests are being answered"
            return [self._refusal(over, message.id, RefusalCode.BUSY, text, now)]
        if (link.number, message.id) in self._serving:
            return [Fault(CloseReason.PROTOCOL, "a request's id is used twice")]
        self.counts["asked"] += 1
        self._serving[link.number, message.id] = over
        self._served[peer] += 1
        return [Ask(link.number, message.id, peer, message.type, message.content, message.body)]

    def one_way(self, link: Link, message: Message) -> Deliver | None:
        """A message that neither is a reply nor wants one; None when the link may not carry it."""
        assert link.peer is not None
        if link.purpose not in _MAY_CONVERSE:
            self.counts["not allowed"] += 1
            return None
        self.counts["received"] += 1
        return Deliver(Delivery(link.peer, message.body, message.content, False, message.type))

    def link_gone(self, link: Link, heir: Link | None = None) -> list[DispatchEffect]:
        """A link has ended. Without an heir to the same peer nobody answers over it any more, and
        nobody waits for our answers."""
        gone: list[DispatchEffect] = []
        for id in [i for i, asked in self._asked.items() if asked is link]:
            if heir is not None:
                self._asked[id] = heir
                continue
            self.abandon(id)
            gone.append(Unanswered(id, Why.LINK_LOST))
        for key in [k for k, over in self._serving.items() if over is link]:
            if heir is not None:
                self._serving[key] = heir
            else:
                self._done(*key)
                gone.append(AskGone(*key))
        return gone

    def tick(self, request: int) -> list[DispatchEffect]:
        """A request's deadline has come."""
        if self._asked.pop(request, None) is None:
            return []
        self.counts["timed out"] += 1
        return [Unanswered(request, Why.TIMED_OUT)]

    # What the above share.

    def _on_reply(self, link: Link, message: Message) -> list[DispatchEffect]:
        asked = self._asked.get(message.in_reply_to)
        if asked is None or asked.peer != link.peer:
            self.counts["unasked replies"] += 1
            return []
        self.abandon(message.in_reply_to)
        if message.channel is not Channel.REFUSAL:
            self.counts["answered"] += 1
            return [Answered(message.in_reply_to, message.content, message.body)]
        self.counts["refused"] += 1
        try:
            refusal = decode_refusal(message.body)
        except MalformedFrame as error:
            why = Unanswered(message.in_reply_to, Why.LINK_LOST)
            return [why, Fault(CloseReason.MALFORMED, str(error))]
        return [Unanswered(message.in_reply_to, Why.REFUSED, refusal.code, printable(refusal.text))]

    def _done(self, link: int, request: int) -> Link | None:
        asker = self._serving.pop((link, request), None)
        if asker is not None and asker.peer is not None:
            self._served[asker.peer] -= 1
            if not self._served[asker.peer]:
                del self._served[asker.peer]
        return asker

    def _refusal(
        self, link: Link, request: int, code: RefusalCode, text: str, now: float
    ) -> Transmit:
        body = encode(Refusal(int(code), text))
        message = Message(
            self._new_id(), int(now * 1e6), Channel.REFUSAL, body, in_reply_to=request
        )
        return Transmit(link, message)

    def _message(
        self,
        content: ContentType,
        body: bytes,
        now: float,
        *,
        type: str = "",
        in_reply_to: int = 0,
        wants_reply: bool = False,
    ) -> Message:
        return Message(
            self._new_id(),
            int(now * 1e6),
            Channel.APPLICATION,
            body,
            in_reply_to,
            0,
            content,
            type,
            wants_reply,
        )
