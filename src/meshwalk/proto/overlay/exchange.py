"""Peers tell each other whom they have connected to: only the news, in the order of recency.

Seed 003's first thing to implement. Each end of a new standing link says how far it is with the
other's list (`PeersWanted`); the other tells what has come since, and from then on whatever comes,
so that a newcomer is announced. A list is the log of `AddressBook`; a place in it is a time by its
owner's clock, so that a cursor outlives a restart of either end. Whoever has lost its own memory
asks from 0; a cursor beyond the teller's last position shows that the teller has lost its, and gets
everything as well.

What is told is bounded per message, and one message at a time per `pause_s` and link; what is heard
has its own bound, beyond which it is ignored and counted.
"""

from __future__ import annotations

from collections import Counter

import msgspec

from meshwalk.errors import InvalidRecord
from meshwalk.proto.link import Link
from meshwalk.proto.overlay.shared import Shared
from meshwalk.proto.rate import TokenBucket
from meshwalk.wire.frames import CloseReason
from meshwalk.wire.messages import (
    RECORDS_PER_MESSAGE_MAX,
    PeersTold,
    PeersWanted,
    RecordChanged,
)
from meshwalk.wire.peerid import PeerId
from meshwalk.wire.records import PeerRecord

TIMER = ("overlay", "exchange")
ANNOUNCE_PAUSE_S = 5.0  # guess: between two own records that neighbours are told, at the least


class Counterparty(msgspec.Struct):
    """How far a neighbour is with this node's list, and what it may tell."""

    link: Link
    may_tell: TokenBucket
    may_move: TokenBucket
    """For its own record: whatever else it tells does not use that up."""
    since: int | None = None
    """The last position it has been told; None before it asked."""
    wanted_at: float = float("-inf")
    """When it last asked."""
    next_at: float = float("-inf")
    """When it may be told more."""


class Exchange:
    """The exchange of peers at one node."""

    def __init__(self, shared: Shared) -> None:
        self.counts: Counter[str] = Counter()
        """What was told and heard."""
        self._shared = shared
        self._book = shared.book
        self._config = shared.config.exchange
        self._counterparties: dict[PeerId, Counterparty] = {}
        """By neighbour: when both ends have dialled, the link is another one from then on."""
        self._announced_at = float("-inf")
        self._is_to_announce = False

    # Inputs.

    def neighbour_up(self, link: Link, now: float) -> None:
        """A peer has become a neighbour, or has another link: what was said over the one that has
        lost may be lost. Ask it, and tell the others of it."""
        config = self._config
        may_tell = TokenBucket(config.told_per_s, config.told_burst)
        may_move = TokenBucket(config.moved_per_s, config.moved_burst)
        assert link.peer is not None
        self._counterparties[link.peer] = Counterparty(link, may_tell, may_move)
        entry = self._book.entries.get(link.peer)
        self._shared.say(link, PeersWanted(entry.cursor if entry is not None else 0))
        self._shared.out += self._book.connected(link.peer, now)
        self.tell(now)

    def link_gone(self, link: Link) -> None:
        """A link has ended."""
        who = self._of(link)
        if who is not None and who.link is link:
            assert link.peer is not None
            del self._counterparties[link.peer]

    def wanted(self, link: Link, body: PeersWanted, now: float) -> None:
        """A neighbour says how far it is."""
        who = self._of(link)
        if who is None:
            return  # no neighbour: it opened when all places were taken
        if now < who.wanted_at + self._config.wanted_pause_s:
            self.counts["wanted too soon"] += 1
            return
        who.wanted_at = now
        who.since = body.since if body.since <= self._book.newest_position else 0
        self.tell(now)

    def told(self, link: Link, body: PeersTold, now: float) -> None:
        """A neighbour tells whom it has connected to."""
        who = self._of(link)
        if who is None:
            return
        if not who.may_tell.take(now):
            self.counts["told too fast"] += 1
            return
        neighbours = self._shared.membership.neighbours
        told_of: set[PeerId] = set()
        for blob in body.records:
            record = self._opened(blob, link)
            if record is None:
                return
            self.counts["heard"] += 1
            self._hear(record, blob, "exchange", link, now)
            if record.peer_id in neighbours:
                told_of.add(record.peer_id)
        assert link.peer is not None
        neighbours[link.peer].told_of |= told_of
        self._book.set_cursor(link.peer, body.upto)

    def record_changed(self, link: Link, body: RecordChanged, now: float) -> None:
        """A neighbour can be reached elsewhere from now on."""
        who = self._of(link)
        if who is None:
            return
        if not who.may_move.take(now):
            self.counts["moved too fast"] += 1
            return
        record = self._opened(body.record, link)
        if record is None:
            return
        if record.peer != link.peer:
            self._shared.disconnect(link, CloseReason.PROTOCOL, "a record of another peer")
            return
        link.record = body.record
        self._hear(record, body.record, "link", link, now)
        self._shared.out += self._book.connected(record.peer_id, now)
        self.tell(now)

    def own_record_changed(self, now: float) -> None:
        """This node's record has been made anew: tell the neighbours, now or a little later."""
        self._is_to_announce = True
        self._announce(now)
        self._arm()

    def tell(self, now: float) -> None:
        """Tell all that there is news for, and may be told now."""
        for who in self._counterparties.values():
            if who.next_at <= now:
                self._tell(who, now)
        self._arm()

    def tick(self, now: float) -> None:
        """The timer of this machine has come due."""
        self._announce(now)
        self.tell(now)

    def stop(self) -> None:
        """The node is stopping."""
        self._counterparties.clear()
        self._is_to_announce = False
        self._shared.timers.cancel(TIMER)

    # Steps.

    def _of(self, link: Link) -> Counterparty | None:
        return self._counterparties.get(link.peer) if link.peer is not None else None

    def _tell(self, who: Counterparty, now: float) -> None:
        if who.since is None or who.since >= self._book.newest_position:
            return
        news: list[bytes] = []
        # One look at the log for each message; what may not be told is passed over.
        for entry in self._book.news(who.since, self._config.log_max):
            if len(news) == RECORDS_PER_MESSAGE_MAX:
                break
            who.since = entry.position
            is_news = entry.peer != who.link.peer and entry.addresses and entry.blob
            if is_news and self._shared.may_tell(entry.blob, who.link):
                news.append(entry.blob)
        else:
            # Also when the newest of the log has been forgotten since: else there would always be
            # something to tell, and the timer would come due again and again.
            who.since = self._book.newest_position
        if news:
            self.counts["told"] += len(news)
            self._shared.say(who.link, PeersTold(who.since, news))
            who.next_at = now + self._config.pause_s

    def _opened(self, blob: bytes, link: Link) -> PeerRecord | None:
        """A record that a neighbour tells of; None: it is a lie, and the link is closed for it."""
        try:
            return self._book.open(blob, self._shared.signatures)
        except InvalidRecord as error:
            self._shared.disconnect(link, CloseReason.PROTOCOL, str(error))
            return None

    def _hear(self, record: PeerRecord, blob: bytes, met: str, link: Link, now: float) -> None:
        believed = self._shared.believed(record, link)
        self._shared.out += self._book.heard(record, blob, believed, met, link.remote, now)

    def _announce(self, now: float) -> None:
        if not self._is_to_announce or now < self._announced_at + ANNOUNCE_PAUSE_S:
            return
        self._is_to_announce, self._announced_at = False, now
        self.counts["announced"] += 1
        for neighbour in self._shared.membership.neighbours.values():
            record = self._shared.own_record(neighbour.link.remote)
            self._shared.say(neighbour.link, RecordChanged(record))

    def _arm(self) -> None:
        newest = self._book.newest_position
        times = [
            who.next_at
            for who in self._counterparties.values()
            if who.since is not None and who.since < newest
        ]
        if self._is_to_announce:
            times.append(self._announced_at + ANNOUNCE_PAUSE_S)
        if times:
            self._shared.timers.set(TIMER, min(times))
        else:
            self._shared.timers.cancel(TIMER)
