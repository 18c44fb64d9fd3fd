"""Joins the overlay's machines, and routes to them: links, messages, timers, the ends of dials.

The only file of this folder that the node talks to. Each input returns what is to be done.

    membership, address book           the tables, in shared.py
    walks, carrier, anchors, standing  how links come to be: own walks, others', and who stays
    exchange, probing                  whom the node knows, and what it has tested of that
    vouching, trading, parting         how links end: silence, closer ones, leave
    beacons, healing                   of which fragment this is, and how two become one
    finding                            where a peer is that is no neighbour
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Final, Protocol

from meshwalk.config import Config
from meshwalk.errors import InvalidRecord, MalformedFrame
from meshwalk.identity.keys import Signatures
from meshwalk.proto.link import Ended, Link
from meshwalk.proto.overlay.addressbook import BookEntry
from meshwalk.proto.overlay.anchors import Anchors
from meshwalk.proto.overlay.beacons import Beacons
from meshwalk.proto.overlay.carrier import Carrier
from meshwalk.proto.overlay.effects import OverlayEffect
from meshwalk.proto.overlay.exchange import Exchange
from meshwalk.proto.overlay.finding import Finding
from meshwalk.proto.overlay.healing import Healing
from meshwalk.proto.overlay.parting import Parting
from meshwalk.proto.overlay.probing import Probing
from meshwalk.proto.overlay.shared import Shared
from meshwalk.proto.overlay.standing import Standing
from meshwalk.proto.overlay.trading import Trading
from meshwalk.proto.overlay.vouching import Vouching
from meshwalk.proto.overlay.walks import Walks
from meshwalk.proto.timers import Timers
from meshwalk.wire.address import Address
from meshwalk.wire.frames import RANDOM_PURPOSES, CloseReason, Hello, Message, Purpose
from meshwalk.wire.messages import (
    Beacon,
    FindPeer,
    FragmentAsked,
    FragmentTold,
    Handover,
    JoinReply,
    JoinRequest,
    OverlayMessage,
    PartReply,
    PartRequest,
    PeerFound,
    PeersTold,
    PeersWanted,
    RecordChanged,
    SplitReply,
    SplitRequest,
    VouchAsked,
    VouchTold,
    decode_overlay,
)
from meshwalk.wire.peerid import PeerId
from meshwalk.wire.records import PeerRecord

TIMER = "overlay"
VAIN_DIAL_BACKS = 2  # guess: one may be chance
STEADY_S = 10.0  # guess: two nodes that do not understand each other find out with the first words

# Not for neighbours alone: to whom a walk is begun, and who is tested, may be strangers.
_FOR_STRANGERS: Final = frozenset({JoinRequest, JoinReply, FragmentAsked, FragmentTold})

# One end says that the other breaks the protocol: so it will again, however often they are linked.
_BREACHES: Final = frozenset(
    {CloseReason.MALFORMED, CloseReason.PROTOCOL, CloseReason.RATE, CloseReason.DISTRUSTED}
)


class Dialler(Protocol):
    """A machine that has had links dialled."""

    attempts: dict[int, Any]
    """Under way, by the number of the attempt."""

    def opened(self, attempt: int, link: Link, now: float) -> None:
        """The link is open; if it is a standing one, its peer may be a neighbour by now."""

    def failed(self, attempt: int, ended: Ended, now: float) -> None:
        """The dial has failed, or the link has ended while it was waited for."""


class Overlay:
    """A node's part of the overlay."""

    def __init__(
        self,
        signatures: Signatures,
        config: Config,
        own_record: Callable[[Address], bytes],
        announces: Callable[[], bool],
        new_id: Callable[[], int],
        rng: Random,
        timers: Timers,
        now: float,
        unix_offset_s: float,
    ) -> None:
        shared = Shared(signatures, config, own_record, new_id, rng, timers, unix_offset_s)
        self._shared = shared
        self._out = shared.out
        self.membership = shared.membership
        self.book = shared.book
        self.walks = Walks(shared)
        self.carrier = Carrier(shared, self._can_be_dialled)
        self.standing = Standing(shared, self.walks, self.carrier)
        self.finding = Finding(shared)
        self.exchange = Exchange(shared)
        self.beacons = Beacons(shared, now)
        self.healing = Healing(shared, self.beacons, self.walks)
        self.probing = Probing(shared, self.walks, self.exchange, self.beacons, self.healing)
        self.vouching = Vouching(shared)
        self.trading = Trading(shared, self.standing)
        self.parting = Parting(shared, self.carrier)
        self.anchors = Anchors(shared)
        self._diallers: Sequence[Dialler] = (
            self.walks,
            self.probing,
            self.healing,
            self.vouching,
            self.trading,
            self.parting,
            self.anchors,
        )
        self._config = config.overlay
        self._is_leaving = False
        self._announces = announces
        self._was_dialled = False

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

        Whatever it signed counts, as in records that neighbours tell of: we dial for its key.
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
        self.beacons.start(now)
        self.probing.start(now)
        self.trading.start(now)
        self.anchors.start(now)
        self.walks.refill(now)
        return self._flush()

    def asked(self, link: Link, hello: Hello, now: float) -> CloseReason | None:
        """A dialler wants in: None to consent, else the reason to refuse."""
        if self._is_leaving:
            return CloseReason.LEAVING
        peer = link.peer
        assert peer is not None
        if hello.purpose is not Purpose.PROBE:  # neighbours are tested, and vouched for, by such
            self.vouching.dialled_by(peer, now)
        if not link.is_standing:
            return None
        place = None
        if hello.purpose in (Purpose.STANDING, Purpose.HANDOVER):
            place = self.membership.places.get(hello.token)
            invited = place is not None and place.origin == peer and place.expires_at > now
        elif hello.purpose is Purpose.HEALING:
            invited = self.healing.invites(hello.token, peer, now)
        elif hello.purpose is Purpose.CLOSER:
            invited = self.trading.may_accept()
        elif hello.purpose is Purpose.RETURNING:
            invited = self.anchors.may_return(peer)
        else:
            invited = self.walks.invites(hello.token, hello.purpose, now)
        if not invited:
            return CloseReason.UNINVITED
        present = self.membership.neighbours.get(peer)
        if present is not None:
            keeps = self.membership.keeps_present(present.link, link)
            return CloseReason.DUPLICATE if keeps else None
        if hello.purpose is not Purpose.HEALING and self.membership.has_enough_of(link.remote):
            return CloseReason.FULL
        if hello.purpose is Purpose.HEALING:
            return None if self.membership.has_healing_place else CloseReason.FULL
        comes_with = 2 if hello.purpose is Purpose.JOIN_SPLIT else 1
        # Below the minimum every link is welcome: a liar could have us keep places for nobody.
        places = max(
            self._config.links_min,
            self._config.links_max - self.walks.awaited(hello.token, now),
        )
        makes_room = (place is not None and place.replaces) or (
            hello.purpose in RANDOM_PURPOSES and self.membership.least_wanted() is not None
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
            heir = self.parting.attempts.get(attempt)
            is_random = heir.is_random if heir is not None else None
            if attempt in self.anchors.attempts:
                is_random = True  # an own choice of an earlier run, which nobody else made
            self.trading.make_room(attempt, now)
            if self.standing.stand(link, now, is_random=is_random):
                self.exchange.neighbour_up(link, now)
                self.beacons.neighbour_up(link, now)
                self.healing.neighbour_up(link, now)
                is_heir = link.purpose is Purpose.HANDOVER and not link.outbound
                leaver = self.parting.came(link) if is_heir else None
                if leaver is not None:
                    self.standing.give_up(leaver, CloseReason.SPLIT)
        if attempt:
            owner = self._owner_of(attempt)
            if owner is not None:
                owner.opened(attempt, link, now)
            elif link.purpose in (Purpose.PROBE, Purpose.JOIN_REQUEST):
                self._shared.disconnect(link, CloseReason.DONE)  # nobody waits for it any more
        self.walks.refill(now)
        return self._flush()

    def ended(self, link: Link, ended: Ended, now: float) -> list[OverlayEffect]:
        """A link has ended, or a dial has failed."""
        if self.standing.gone(link, ended.reason, ended.text, by_us=ended.by_us):
            self._note_parted(link, ended.reason, now)
        if self._is_leaving:
            return self._flush()
        self.exchange.link_gone(link)
        self.beacons.link_gone(link)
        self.healing.link_gone(link)
        self.vouching.link_gone(link)
        self.trading.link_gone(link)
        self.carrier.link_gone(link, ended.reason, now)
        self.walks.link_gone(link, now)
        self.finding.link_gone(link, now)
        self.parting.link_gone(link, ended.reason, now)
        self.anchors.link_gone(now)
        if link.attempt:
            self._attempt_ended(link.attempt, ended, now)
        self.walks.refill(now)
        return self._flush()

    def not_dialled(self, attempt: int, now: float) -> list[OverlayEffect]:
        """A `Connect` was not begun: too many dials are under way."""
        if attempt in self.carrier.acceptances:
            self.carrier.failed(attempt, was_refused=False, was_dialled=False, now=now)
        elif (owner := self._owner_of(attempt)) is not None:
            text = "too many connections are being made"
            owner.failed(attempt, Ended(None, text, by_us=True, was_open=False), now)
        return self._flush()

    def heard(self, link: Link, message: Message, now: float) -> list[OverlayEffect]:
        """A message for the overlay."""
        if self._is_leaving:
            return []
        try:
            body = decode_overlay(message.body)
        except MalformedFrame as error:
            self._shared.disconnect(link, CloseReason.MALFORMED, str(error))
            return self._flush()
        if link.is_standing or type(body) in _FOR_STRANGERS:
            _HANDLERS[type(body)](self, link, message, body, now)
        else:
            text = f"{type(body).__name__} is for neighbours"
            self._shared.disconnect(link, CloseReason.PROTOCOL, text)
        return self._flush()

    def suspected(self, link: Link, now: float) -> list[OverlayEffect]:
        """A standing link is silent for longer than its round trips give reason to."""
        self.vouching.suspected(link, now)
        return self._flush()

    def measured(self, link: Link, now: float) -> list[OverlayEffect]:
        """A ping over a link that is tested has been answered."""
        self.probing.measured(link, now)
        return self._flush()

    def record_changed(self, now: float) -> list[OverlayEffect]:
        """This node's own record has been made anew."""
        if not self._is_leaving:
            self.exchange.own_record_changed(now)
        return self._flush()

    def woke(self, now: float) -> list[OverlayEffect]:
        """The machine slept, or the process stood still: what was put off is due, what is believed
        may be old."""
        if not self._is_leaving:
            self.book.woke()
            self.vouching.woke()
            self.beacons.woke(now)
            self.probing.woke(now)
            self.anchors.woke(now)
            self.walks.woke(now)
        return self._flush()

    def tick(self, what: object, now: float) -> list[OverlayEffect]:
        """A timer of the overlay has come due: that of the machine named `what`."""
        if what == "exchange":
            self.exchange.tick(now)
        elif what == "beacons":
            self.beacons.tick(now)
        elif what == "probing":
            self.probing.tick(now)
        elif what == "vouching":
            self.vouching.tick(now)
        elif what == "trading":
            self.trading.tick(now)
        elif what == "anchors":
            self.anchors.tick(now)
        else:
            self.carrier.expire(now)
            self.finding.expire(now)
            self.walks.tick(now)
        return self._flush()

    def leave(self, now: float) -> list[OverlayEffect]:
        """The node is stopping: look for no more links, hand the neighbours to each other, and note
        when they were seen last."""
        self._is_leaving = self.standing.is_leaving = True
        self.parting.leave()
        for machine in (
            self.walks,
            self.carrier,
            self.finding,
            self.exchange,
            self.beacons,
            self.healing,
            self.probing,
            self.vouching,
            self.trading,
            self.parting,
            self.anchors,
        ):
            machine.stop()
        for neighbour in self.membership.neighbours.values():
            rtt_s = neighbour.link.round_trips.mean_s
            self._out += self.book.worked(neighbour.peer, None, rtt_s, now)
        return self._flush()

    # Steps.

    def _on_join_reply(self, link: Link, message: Message, body: JoinReply, now: float) -> None:
        if not self.carrier.answered(link, message.in_reply_to, body):
            self.walks.answered(message.in_reply_to, body, link, now)

    def _on_fragment_told(
        self, link: Link, message: Message, body: FragmentTold, now: float
    ) -> None:
        if self.healing.told(link, message.in_reply_to, body, now):
            self.probing.fragment_told(link, now)

    def _can_be_dialled(self) -> bool:
        """Whether an origin that is kept a place could come here. Not if nobody ever came, and
        acceptors that dialled us at what we announce had to have us dial instead."""
        vain = self.walks.counts["dial me"]
        return self._announces() and (self._was_dialled or vain < VAIN_DIAL_BACKS)

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
            self._out += self.book.heard(record, link.record, believed, "link", link.remote, now)
            if not link.outbound:
                for address in believed:
                    self._out += self.book.met_at(peer, address, now)
        if link.purpose is Purpose.PROBE and link.outbound:
            return  # verified, or seen, only when the test is over
        dialled = link.remote if link.outbound else None
        self._out += self.book.worked(peer, dialled, None, now)

    def _note_parted(self, link: Link, reason: CloseReason | None, now: float) -> None:
        """A neighbour is gone: note what is known of it, and beware of links that do not hold."""
        assert link.peer is not None
        trips = link.round_trips
        self._out += self.book.parted(link.peer, link.heard_at, trips.mean_s, trips.jitter_s)
        if reason in _BREACHES and now < link.since + STEADY_S and not self._is_leaving:
            self.walks.was_in_vain(now)

    def _genuine(self, blob: bytes, peer: PeerId) -> PeerRecord | None:
        """The record in a blob if `peer` signed it for this network."""
        try:
            record = self.book.open(blob, self._shared.signatures)
        except InvalidRecord:
            return None
        return record if record.peer == peer else None

    def _owner_of(self, attempt: int) -> Dialler | None:
        """Whose dial that was; None also for the carrier's, which has more to be told."""
        return next((d for d in self._diallers if attempt in d.attempts), None)

    def _attempt_ended(self, attempt: int, ended: Ended, now: float) -> None:
        if attempt in self.carrier.acceptances:
            was_refused = ended.reason is not None and not ended.by_us
            self.carrier.failed(attempt, was_refused=was_refused, now=now)
        elif (owner := self._owner_of(attempt)) is not None:
            owner.failed(attempt, ended, now)

    def _flush(self) -> list[OverlayEffect]:
        # The list is shared with the machines of this folder, so it is emptied, not replaced.
        out = list(self._out)
        self._out.clear()
        return out


_Handler = Callable[[Overlay, Link, Message, Any, float], None]

# What each message is for. `in_reply_to` and `id` go to those that ask and answer.
_HANDLERS: Final[dict[type[OverlayMessage], _Handler]] = {
    JoinRequest: lambda o, link, m, body, now: o.carrier.requested(link, m.id, body, now),
    JoinReply: Overlay._on_join_reply,
    SplitRequest: lambda o, link, m, body, now: o.carrier.split_requested(link, m.id, body, now),
    SplitReply: lambda o, link, m, _, now: o.carrier.split_refused(link, m.in_reply_to, now),
    PeersWanted: lambda o, link, _, body, now: o.exchange.wanted(link, body, now),
    PeersTold: lambda o, link, _, body, now: o.exchange.told(link, body, now),
    RecordChanged: lambda o, link, _, body, now: o.exchange.record_changed(link, body, now),
    FindPeer: lambda o, link, m, body, now: o.finding.asked(link, m.id, body, now),
    PeerFound: lambda o, link, m, body, now: o.finding.answered(link, m.in_reply_to, body, now),
    Beacon: lambda o, link, _, body, now: o.beacons.heard(link, body, now),
    FragmentAsked: lambda o, link, m, body, now: o.healing.asked(link, m.id, body, now),
    FragmentTold: Overlay._on_fragment_told,
    VouchAsked: lambda o, link, m, body, now: o.vouching.asked(link, m.id, body, now),
    VouchTold: lambda o, link, m, body, now: o.vouching.told(link, m.in_reply_to, body, now),
    PartRequest: lambda o, link, m, _, now: o.trading.asked(link, m.id, now),
    PartReply: lambda o, link, m, body, now: o.trading.replied(link, m.in_reply_to, body, now),
    Handover: lambda o, link, _, body, now: o.parting.handed(link, body, now),
}
