"""Joins the overlay's machines: membership, own walks, others' walks, the address book.

The only file of this folder that the node talks to. Each input returns what is to be done.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random

import msgspec

from meshwalk.config import OverlayConfig
from meshwalk.errors import InvalidRecord, MalformedFrame
from meshwalk.events import Alone, Joined, NeighbourDown, NeighbourUp
from meshwalk.identity.keys import Signatures
from meshwalk.proto.link import Ended, Link
from meshwalk.proto.overlay.addressbook import AddressBook, BookEntry
from meshwalk.proto.overlay.carrier import Carrier
from meshwalk.proto.overlay.effects import Disconnect, OverlayEffect, Say, Tell
from meshwalk.proto.overlay.finding import Finding
from meshwalk.proto.overlay.membership import Added, Membership
from meshwalk.proto.overlay.walks import Walks
from meshwalk.proto.timers import Timers
from meshwalk.wire.address import Address
from meshwalk.wire.frames import CloseReason, Hello, Message, Purpose
from meshwalk.wire.messages import (
    Acquaintances,
    FindPeer,
    JoinReply,
    JoinRequest,
    PeerFound,
    SplitReply,
    SplitRequest,
    decode_overlay,
)
from meshwalk.wire.peerid import PeerId
from meshwalk.wire.records import PeerRecord

TIMER = "overlay"
VAIN_DIAL_BACKS = 2  # guess: one may be chance


class OverlayStatistics(msgspec.Struct, frozen=True):
    """What the overlay has done since the node started."""

    neighbours: int
    places_promised: int
    own_walks_under_way: int
    walks_carried: int
    """Of others, waiting for their answer."""
    failed_rounds: int
    book: int
    book_evicted: int
    """Peers that made place in the address book for others."""
    own_walks: dict[str, int]
    """How own walks ended, by outcome."""
    others_walks: dict[str, int]
    """What was done with others' requests."""
    finds_under_way: int
    """Own searches for a peer."""
    finds_carried: int
    """Of others, waiting for their answer."""
    own_finds: dict[str, int]
    """How own searches ended, by outcome."""
    others_finds: dict[str, int]
    """What was done with others' questions."""


class Overlay:
    """A node's part of the overlay."""

    def __init__(
        self,
        signatures: Signatures,
        config: OverlayConfig,
        own_record: Callable[[], bytes],
        announces: Callable[[], bool],
        new_id: Callable[[], int],
        rng: Random,
        timers: Timers,
        unix_offset_s: float,
    ) -> None:
        me = signatures.peer_id
        self._out: list[OverlayEffect] = []
        self.membership = Membership(me, config, rng)
        self.book = AddressBook(me, config, rng, unix_offset_s)
        self.walks = Walks(
            self.membership,
            self.book,
            config,
            signatures,
            own_record,
            new_id,
            rng,
            timers,
            self._out,
        )
        self.carrier = Carrier(
            self.membership,
            self.book,
            config,
            signatures,
            own_record,
            self._can_be_dialled,
            new_id,
            timers,
            self._out,
        )
        self.finding = Finding(
            self.membership,
            self.book,
            config,
            signatures,
            own_record,
            new_id,
            rng,
            timers,
            self._out,
        )
        self._signatures = signatures
        self._config = config
        self._new_id = new_id
        self._rng = rng
        self._is_leaving = False
        self._announces = announces
        self._was_dialled = False
        self._acquainted: set[int] = set()
        """Links that have told their acquaintances: once each."""

    # Inputs.

    def enter(self, address: Address, expected: PeerId | None, now: float) -> list[OverlayEffect]:
        """Join the network through this entry."""
        self.walks.enter(address, expected, now)
        return self._flush()

    def find(self, peer: PeerId, now: float) -> list[OverlayEffect]:
        """Ask the network for a peer's record; `Found` or `NotFound` follows, now or later."""
        self.finding.find(peer, now)
        return self._flush()

    def addresses_of(self, peer: PeerId) -> list[Address]:
        """Where to dial a peer that the application names, the address that worked last first.

        Whatever it signed counts, as in records that acquaintances tell of: we dial for its key.
        """
        entry = self.book.entries.get(peer)
        if entry is None:
            return []
        limit = self._config.addresses_per_peer_max
        record = self._genuine(entry.blob, peer) if entry.blob else None
        signed = record.parsed_addresses() if record is not None else ()
        return list(dict.fromkeys([*entry.to_try(limit), *signed]))[:limit]

    def start(self, known: list[BookEntry], now: float) -> list[OverlayEffect]:
        """Take over what the store kept, and try to join by it."""
        for entry in known:
            if self._genuine(entry.blob, entry.peer) or not entry.blob:
                self.book.load(entry)
        self.walks.refill(now)
        return self._flush()

    def asked(self, link: Link, hello: Hello, now: float) -> CloseReason | None:
        """A dialler wants in: None to consent, else the reason to refuse."""
        if self._is_leaving:
            return CloseReason.LEAVING
        if not link.is_standing:
            return None
        peer = link.peer
        assert peer is not None
        makes_room = False
        if hello.purpose is Purpose.STANDING:
            place = self.membership.places.get(hello.token)
            invited = place is not None and place.origin == peer and place.expires_at > now
            makes_room = place is not None and place.replaces
        else:
            invited = self.walks.invites(hello.token, hello.purpose, now)
        if not invited:
            return CloseReason.UNINVITED
        present = self.membership.neighbours.get(peer)
        if present is not None:
            keeps = self.membership.keeps_present(present.link, link)
            return CloseReason.DUPLICATE if keeps else None
        comes_with = 2 if hello.purpose is Purpose.JOIN_SPLIT else 1
        # Below the minimum every link is welcome: a liar could have us keep places for nobody.
        places = max(
            self._config.links_min,
            self._config.links_max - self.walks.awaited(hello.token, now),
        )
        if len(self.membership) + comes_with > places and not makes_room:
            return CloseReason.FULL
        return None

    def opened(self, link: Link, hello: Hello, now: float) -> list[OverlayEffect]:
        """A link is open at this end."""
        self._was_dialled = self._was_dialled or not link.outbound
        self._learn(link, now)
        attempt = link.attempt
        if link.is_standing:
            self._stand(link, now)
        if attempt in self.walks.attempts:
            self.walks.opened(attempt, link, now)
        self.walks.refill(now)
        return self._flush()

    def ended(self, link: Link, ended: Ended, now: float) -> list[OverlayEffect]:
        """A link has ended, or a dial has failed."""
        self._acquainted.discard(link.number)
        if self.membership.remove(link):
            self._say_down(link, ended.reason, ended.text, by_us=ended.by_us)
        if not self._is_leaving:
            self.carrier.link_gone(link, ended.reason, now)
            self.walks.link_gone(link, now)
            self.finding.link_gone(link, now)
            self._attempt_ended(link.attempt, ended, now)
            self.walks.refill(now)
        return self._flush()

    def not_dialled(self, attempt: int, now: float) -> list[OverlayEffect]:
        """A `Connect` was not begun: too many dials are under way."""
        text = "too many connections are being made"
        if attempt in self.carrier.acceptances:
            self.carrier.failed(attempt, was_refused=False, was_dialled=False, now=now)
        elif attempt in self.walks.attempts:
            self.walks.failed(attempt, Ended(None, text, by_us=True, was_open=False), now)
        return self._flush()

    def heard(self, link: Link, message: Message, now: float) -> list[OverlayEffect]:
        """A message for the overlay."""
        if self._is_leaving:
            return []
        try:
            body = decode_overlay(message.body)
        except MalformedFrame as error:
            self._out.append(Disconnect(link.number, CloseReason.MALFORMED, str(error)))
            return self._flush()
        if type(body) is JoinRequest:
            self.carrier.requested(link, message.id, body, now)
        elif type(body) is JoinReply:
            if not self.carrier.answered(link, message.in_reply_to, body):
                self.walks.answered(message.in_reply_to, body, link, now)
        elif not link.is_standing:
            text = f"{type(body).__name__} is for neighbours"
            self._out.append(Disconnect(link.number, CloseReason.PROTOCOL, text))
        elif type(body) is SplitRequest:
            self.carrier.split_requested(link, message.id, body, now)
        elif type(body) is SplitReply:
            self.carrier.split_refused(link, message.in_reply_to, now)
        elif type(body) is Acquaintances:
            self._on_acquaintances(link, body, now)
        elif type(body) is FindPeer:
            self.finding.asked(link, message.id, body, now)
        elif type(body) is PeerFound:
            self.finding.answered(link, message.in_reply_to, body, now)
        return self._flush()

    def tick(self, now: float) -> list[OverlayEffect]:
        """A timer of the overlay has come due."""
        self.carrier.expire(now)
        self.finding.expire(now)
        self.walks.tick(now)
        return self._flush()

    def leave(self, now: float) -> list[OverlayEffect]:
        """The node is stopping: look for no more links, and note when neighbours were seen last."""
        self._is_leaving = True
        self.walks.stop()
        self.carrier.stop()
        self.finding.stop()
        for neighbour in self.membership.neighbours.values():
            rtt_s = neighbour.link.round_trips.mean_s
            self._out += self.book.worked(neighbour.peer, None, rtt_s, now)
        return self._flush()

    def statistics(self) -> OverlayStatistics:
        """A snapshot."""
        return OverlayStatistics(
            neighbours=len(self.membership),
            places_promised=len(self.membership.places),
            own_walks_under_way=len(self.walks.walks),
            walks_carried=len(self.carrier.carried),
            failed_rounds=self.walks.failures,
            book=len(self.book),
            book_evicted=self.book.evicted,
            own_walks=_plain(self.walks.counts),
            others_walks=_plain(self.carrier.counts),
            finds_under_way=len(self.finding.searches),
            finds_carried=len(self.finding.carried),
            own_finds=_plain(self.finding.own),
            others_finds=_plain(self.finding.others),
        )

    # Steps.

    def _stand(self, link: Link, now: float) -> None:
        """A standing link has opened: make its peer a neighbour if it still can be one."""
        peer = link.peer
        assert peer is not None
        acceptance = self.carrier.acceptances.get(link.attempt)
        gives_up = acceptance.gives_up if acceptance is not None else None
        comes_for_its_place = not link.outbound and link.purpose is Purpose.STANDING
        place = self.membership.places.pop(link.token, None) if comes_for_its_place else None
        victim = None
        if peer in self.membership.neighbours:
            if acceptance is not None and gives_up is not None:
                self.carrier.split_is_off(acceptance)
        elif gives_up is not None:
            victim = gives_up
        elif place is not None and place.replaces and self.membership.is_full:
            other = self.membership.random_neighbour(peer)
            victim = other.link if other is not None else None
        if victim is not None and self.membership.is_full:
            self._give_up(victim)
            victim = None
        added, dropped = self.membership.add(link)
        if link.attempt in self.carrier.acceptances:
            self.carrier.opened(link.attempt, link)
        if added is Added.FULL:
            self._out.append(Disconnect(link.number, CloseReason.FULL, "all places are taken"))
            return
        if dropped is not None:
            self._drop_twin(dropped, self.membership.neighbours[peer].link, now)
        if added is Added.NEW:
            self.membership.drop_places(peer)
            self._say_up(link)
            if victim is not None:  # with room for both, nobody is alone in between
                self._give_up(victim)
        # A token of ours comes back over a link that its finder dialled, or goes out on one that
        # we dialled to take a place; on other links the token is of the other end's walk.
        if link.outbound == (link.purpose is Purpose.STANDING):
            self.walks.linked(link.token, link.purpose, now)

    def _drop_twin(self, loser: Link, winner: Link, now: float) -> None:
        """Close the link that lost, at the right end. The winner opens last where it was dialled:
        were the other end to close the loser, its word might come before the winner is open."""
        if winner.outbound:
            self._out.append(Disconnect(loser.number, CloseReason.DUPLICATE))
        else:
            loser.retire(now)

    def _can_be_dialled(self) -> bool:
        """Whether an origin that is kept a place could come here. Not if nobody ever came, and
        acceptors that dialled us at what we announce had to have us dial instead."""
        vain = self.walks.counts["dial me"]
        return self._announces() and (self._was_dialled or vain < VAIN_DIAL_BACKS)

    def _give_up(self, link: Link) -> None:
        """Drop a link for a newcomer, in the same step in which the newcomer takes its place."""
        if self.membership.remove(link):
            self._out.append(Disconnect(link.number, CloseReason.SPLIT))
            self._say_down(link, CloseReason.SPLIT, "", by_us=True)

    def _say_up(self, link: Link) -> None:
        peer = link.peer
        assert peer is not None
        count = len(self.membership)
        self._out.append(Tell(NeighbourUp(peer, link.remote, count)))
        if count == 1:
            self._out.append(Tell(Joined(peer)))
        others = [n for n in self.membership.neighbours.values() if n.peer != peer]
        limit = self._config.acquaintances_max
        chosen = self._rng.sample(others, limit) if len(others) > limit else others
        records = [record for n in chosen if (record := self._record_of(n.peer, n.link))]
        if records:
            self._out.append(Say(link.number, self._new_id(), Acquaintances(records)))

    def _say_down(self, link: Link, reason: CloseReason | None, text: str, *, by_us: bool) -> None:
        assert link.peer is not None
        name = reason.name.lower() if reason is not None else "lost"
        told = f"{name}: {text}" if text else name
        count = len(self.membership)
        self._out.append(Tell(NeighbourDown(link.peer, told, by_us, count)))
        if count == 0 and not self._is_leaving:
            self._out.append(Tell(Alone()))

    def _record_of(self, peer: PeerId, link: Link) -> bytes:
        entry = self.book.entries.get(peer)
        return entry.blob if entry is not None and entry.blob else link.record

    def _learn(self, link: Link, now: float) -> None:
        """Note what the greeting tells of the peer's addresses, and that it lives."""
        peer = link.peer
        assert peer is not None
        record = self._genuine(link.record, peer)
        if record is None:
            link.record = b""  # or we would pass it on, and be blamed for it
        else:
            # Behind the host we see it at, a peer may name any port, but no other host.
            believed = record.addresses_at(link.remote.host)
            self._out += self.book.heard(record, link.record, believed, "link", now)
        dialled = link.remote if link.outbound else None
        self._out += self.book.worked(peer, dialled, None, now)

    def _genuine(self, blob: bytes, peer: PeerId) -> PeerRecord | None:
        """The record in a blob if `peer` signed it for this network."""
        try:
            record = self.book.open(blob, self._signatures)
        except InvalidRecord:
            return None
        return record if record.peer == peer else None

    def _on_acquaintances(self, link: Link, body: Acquaintances, now: float) -> None:
        if link.number in self._acquainted:
            return
        self._acquainted.add(link.number)
        for blob in body.records[: self._config.acquaintances_max]:
            try:
                record = self.book.open(blob, self._signatures)
            except InvalidRecord as error:
                self._out.append(Disconnect(link.number, CloseReason.PROTOCOL, str(error)))
                return
            limit = self._config.addresses_per_peer_max
            addresses = record.parsed_addresses()[:limit]
            self._out += self.book.heard(record, blob, addresses, "acquaintance", now)

    def _attempt_ended(self, attempt: int, ended: Ended, now: float) -> None:
        if attempt in self.carrier.acceptances:
            was_refused = ended.reason is not None and not ended.by_us
            self.carrier.failed(attempt, was_refused=was_refused, now=now)
        elif attempt in self.walks.attempts:
            self.walks.failed(attempt, ended, now)

    def _flush(self) -> list[OverlayEffect]:
        # The list is shared with the machines of this folder, so it is emptied, not replaced.
        out = list(self._out)
        self._out.clear()
        return out


def _plain(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items()))
