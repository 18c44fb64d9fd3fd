"""Other peers' walks: accept them, carry them on, or split a link for them.

Seed 000's handleJoinRequest, with what it lacks: a bound on hops, an answer for every walk, an
origin that is proven, and a way in when everyone is full.

A join request that comes in is decided here and at once:

1. The record must be signed by the origin. On its first hop the origin must be the peer on the
   link; that hop also notes the host it sees the origin at, and only addresses with that host are
   ever dialled. So nobody outside can have the network dial a third party, and what a member can
   do that way is bounded by `dial_backs_per_s` at each node and a pause per address that failed.
2. A node that is not the origin, not its neighbour, and has room, accepts: always below its
   minimum; else, once the forced hops are over, with chance 1/(n+1); else at the walk's end.
3. Who does not accept passes the request to a random neighbour under a fresh message id, and
   remembers the way back for the answer.
4. At the end of the walk a full node asks a neighbour to take the origin instead of their common
   link, and then takes the origin too: drop x-y, add y-origin and x-origin. Degrees stay.

Only the acceptor's dial tells whether the origin can be reached; if not, the answer DIAL_ME goes
back along the walk and the place is kept for the origin to come.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import msgspec

from meshwalk.config import OverlayConfig
from meshwalk.errors import InvalidRecord
from meshwalk.identity.keys import Signatures, open_record
from meshwalk.proto.link import Link
from meshwalk.proto.overlay.addressbook import AddressBook
from meshwalk.proto.overlay.effects import Connect, Disconnect, OverlayEffect, Say
from meshwalk.proto.overlay.membership import Membership, Place
from meshwalk.proto.rate import TokenBucket
from meshwalk.wire.address import Address
from meshwalk.wire.frames import CloseReason, Purpose
from meshwalk.wire.messages import (
    HOPS_MAX,
    JoinOutcome,
    JoinReply,
    JoinRequest,
    SplitReply,
    SplitRequest,
)
from meshwalk.wire.peerid import PeerId
from meshwalk.wire.records import PeerRecord

PAUSED_ADDRESSES_MAX = 1024  # guess: addresses that are remembered as not answering


class WayBack(msgspec.Struct, frozen=True):
    """Where the answer to a request goes."""

    link: Link
    id: int
    onward: int
    """Number of the link that the request went on over."""
    expires_at: float


class Acceptance(msgspec.Struct):
    """A dial to the origin of a walk that this node accepts."""

    origin: PeerId
    token: bytes
    purpose: Purpose
    addresses: list[Address]
    """Still to be tried."""
    back: Link
    back_id: int
    gives_up: Link | None = None
    """The link that is dropped when this one opens (JOIN_SPLIT)."""
    dialled: Address | None = None


class Split(msgspec.Struct):
    """A full node's attempt to have a neighbour take an origin."""

    request: SplitRequest
    origin: PeerId
    addresses: list[Address]
    back: Link
    back_id: int
    asked: list[PeerId]
    """Neighbours asked so far, the present one last."""
    expires_at: float


class Carrier:
    """Handles the walks of others at one node."""

    def __init__(
        self,
        membership: Membership,
        book: AddressBook,
        config: OverlayConfig,
        signatures: Signatures,
        own_record: Callable[[], bytes],
        new_id: Callable[[], int],
        out: list[OverlayEffect],
    ) -> None:
        self.acceptances: dict[int, Acceptance] = {}
        """By attempt number."""
        self.carried: dict[int, WayBack] = {}
        """By the id under which the request went on."""
        self.splits: dict[int, Split] = {}
        """By the id of the split request."""
        self.counts: Counter[str] = Counter()
        self._membership = membership
        self._book = book
        self._config = config
        self._signatures = signatures
        self._own_record = own_record
        self._new_id = new_id
        self._out = out
        self._rates: dict[int, TokenBucket] = {}
        self._dial_backs = TokenBucket(config.dial_backs_per_s, config.dial_backs_burst)
        self._paused: dict[Address, float] = {}

    # Inputs.

    def requested(self, link: Link, id: int, request: JoinRequest, now: float) -> None:
        """A join request came over a link."""
        self._expire(now)
        if not self._rate(link).take(now) or len(self.carried) >= self._config.walks_carried_max:
            self.counts["busy"] += 1
            self._answer(link, id, JoinOutcome.BUSY)
            return
        try:
            record = open_record(request.record, self._signatures)
        except InvalidRecord as error:
            self._out.append(Disconnect(link.number, CloseReason.PROTOCOL, str(error)))
            return
        is_first_hop = record.peer == link.peer
        if not (is_first_hop or link.is_standing):
            text = "a join request must be the sender's own"
            self._out.append(Disconnect(link.number, CloseReason.PROTOCOL, text))
            return
        if is_first_hop:
            request = self._begun(link, request, record)
        believed = _believed(record, request.reach)
        self._out += self._book.heard(record, request.record, believed, "walk", now)
        self._decide(link, id, request, record.peer_id, believed, now)

    def answered(self, link: Link, id: int, reply: JoinReply) -> bool:
        """An answer to the request that went on as `id`; false when this node carried no such."""
        way = self.carried.get(id)
        if way is None or way.onward != link.number:
            return False
        del self.carried[id]
        hops = min(reply.hops + 1, HOPS_MAX)
        answer = JoinReply(reply.outcome, hops, reply.record)
        self._out.append(Say(way.link.number, self._new_id(), answer, way.id))
        return True

    def split_requested(self, link: Link, id: int, request: SplitRequest, now: float) -> None:
        """A full neighbour asks to take an origin instead of the common link."""
        try:
            record = open_record(request.record, self._signatures)
        except InvalidRecord as error:
            self._out.append(Disconnect(link.number, CloseReason.PROTOCOL, str(error)))
            return
        addresses = self._to_dial(_believed(record, request.reach), now)
        is_splitting = any(a.gives_up is link for a in self.acceptances.values())
        if is_splitting or not addresses or self._membership.knows(record.peer_id):
            self._out.append(Say(link.number, self._new_id(), SplitReply(), id))
            return
        self._dial(
            Acceptance(record.peer_id, request.token, Purpose.JOIN_SPLIT, addresses, link, id, link)
        )

    def split_refused(self, link: Link, id: int, now: float) -> None:
        """The neighbour that was asked to split does not."""
        split = self.splits.get(id)
        if split is not None and split.asked[-1] == link.peer:
            del self.splits[id]
            self._ask_to_split(split)

    def opened(self, attempt: int, link: Link) -> Acceptance:
        """A dial to an origin has succeeded; whether it became a neighbour is known by now."""
        acceptance = self.acceptances.pop(attempt)
        self._membership.places.pop(acceptance.token, None)
        if acceptance.purpose is Purpose.JOIN_ACCEPT:
            is_linked = acceptance.origin in self._membership.neighbours
            self.counts["accepted" if is_linked else "full"] += 1
            outcome = JoinOutcome.LINKED if is_linked else JoinOutcome.NO_PLACE
            self._answer(acceptance.back, acceptance.back_id, outcome)
        return acceptance

    def failed(self, attempt: int, *, was_refused: bool, now: float) -> None:
        """A dial to an origin has failed, or the origin has refused the link."""
        acceptance = self.acceptances.pop(attempt)
        if acceptance.addresses and not was_refused:
            self._pause(acceptance.dialled, now)
            self._dial(acceptance)
            return
        back, back_id = acceptance.back, acceptance.back_id
        if acceptance.purpose is Purpose.JOIN_SPLIT:
            self.split_is_off(acceptance)
        elif was_refused:
            # It came some other way in the meantime, or has enough links now.
            self._membership.places.pop(acceptance.token, None)
            is_linked = acceptance.origin in self._membership.neighbours
            outcome = JoinOutcome.LINKED if is_linked else JoinOutcome.NO_PLACE
            self._answer(back, back_id, outcome)
        else:
            self._pause(acceptance.dialled, now)
            self.counts["dial me"] += 1
            self._answer(back, back_id, JoinOutcome.DIAL_ME)

    def split_is_off(self, acceptance: Acceptance) -> None:
        """The origin could not be taken, or is a neighbour already: the common link stays."""
        back = acceptance.back
        self._out.append(Say(back.number, self._new_id(), SplitReply(), acceptance.back_id))

    def link_gone(self, link: Link, reason: CloseReason | None, now: float) -> None:
        """A link has ended: answer for what went on over it, finish a split it was given for."""
        self._rates.pop(link.number, None)
        for id in [i for i, way in self.carried.items() if way.onward == link.number]:
            way = self.carried.pop(id)
            self._answer(way.link, way.id, JoinOutcome.BUSY)
        for id in [i for i, s in self.splits.items() if s.asked[-1] == link.peer]:
            split = self.splits.pop(id)
            if reason is CloseReason.SPLIT and not self._membership.is_full:
                self.counts["split"] += 1
                self._accept_by_dial(
                    split.origin,
                    split.request.token,
                    split.addresses,
                    split.back,
                    split.back_id,
                    now,
                )
            else:
                self._ask_to_split(split)

    # Decisions.

    def _begun(self, link: Link, request: JoinRequest, record: PeerRecord) -> JoinRequest:
        """The request as its first hop passes it on: bounded, and with what this hop can see."""
        host = link.remote.host
        reach = host if any(a.host == host for a in record.parsed_addresses()) else ""
        hops = min(request.hops_left, self._config.walk_hops)
        forced = min(request.forced_hops, self._config.forced_hops, max(hops - 1, 0))
        return JoinRequest(request.record, request.token, reach, forced, hops)

    def _decide(
        self,
        link: Link,
        id: int,
        request: JoinRequest,
        origin: PeerId,
        believed: tuple[Address, ...],
        now: float,
    ) -> None:
        membership = self._membership
        is_eligible = not membership.knows(origin) and request.token not in membership.places
        if is_eligible and membership.has_room:
            is_free = request.forced_hops == 0 and membership.accepts_by_chance()
            if membership.missing or is_free:
                self._accept(link, id, request, origin, believed, now)
                return
        if request.hops_left > 0:
            onward = membership.random_neighbour(link.peer, origin)
            if onward is None:  # a dead end: back where it came from, unless that is the origin
                onward = membership.random_neighbour(origin)
            if onward is not None:
                self._carry(link, id, request, onward.link, now)
                return
        if not is_eligible:
            self.counts["no place"] += 1
            self._answer(link, id, JoinOutcome.NO_PLACE)
        elif membership.has_place_unpromised:
            self._accept(link, id, request, origin, believed, now)
        else:
            self._make_room(link, id, request, origin, believed, now)

    def _accept(
        self,
        link: Link,
        id: int,
        request: JoinRequest,
        origin: PeerId,
        believed: tuple[Address, ...],
        now: float,
    ) -> None:
        self._promise(origin, request.token, now)
        addresses = self._to_dial(believed, now)
        if addresses:
            self._dial(Acceptance(origin, request.token, Purpose.JOIN_ACCEPT, addresses, link, id))
        else:
            self.counts["dial me"] += 1
            self._answer(link, id, JoinOutcome.DIAL_ME)

    def _carry(self, link: Link, id: int, request: JoinRequest, onward: Link, now: float) -> None:
        self.counts["carried"] += 1
        forced = max(0, request.forced_hops - 1)
        step = JoinRequest(
            request.record, request.token, request.reach, forced, request.hops_left - 1
        )
        new_id = self._new_id()
        expires_at = now + 2 * self._config.walk_timeout_s
        self.carried[new_id] = WayBack(link, id, onward.number, expires_at)
        self._out.append(Say(onward.number, new_id, step))

    def _make_room(
        self,
        link: Link,
        id: int,
        request: JoinRequest,
        origin: PeerId,
        believed: tuple[Address, ...],
        now: float,
    ) -> None:
        addresses = self._to_dial(believed, now)
        if not addresses:
            # Nobody can dial the origin, so no neighbour could take it: when it comes here, another
            # link gives way.
            self._promise(origin, request.token, now, replaces=True)
            self._answer(link, id, JoinOutcome.DIAL_ME)
            return
        split = SplitRequest(request.record, request.token, request.reach)
        expires_at = now + self._config.walk_timeout_s
        self._ask_to_split(Split(split, origin, addresses, link, id, [], expires_at))

    def _ask_to_split(self, split: Split) -> None:
        neighbour = None
        if len(split.asked) < self._config.split_tries:
            neighbour = self._membership.random_neighbour(split.origin, *split.asked)
        if neighbour is None:
            self.counts["no place"] += 1
            self._answer(split.back, split.back_id, JoinOutcome.NO_PLACE)
            return
        split.asked.append(neighbour.peer)
        id = self._new_id()
        self.splits[id] = split
        self._out.append(Say(neighbour.link.number, id, split.request))

    def _accept_by_dial(
        self,
        origin: PeerId,
        token: bytes,
        addresses: list[Address],
        back: Link,
        back_id: int,
        now: float,
    ) -> None:
        self._promise(origin, token, now)
        self._dial(Acceptance(origin, token, Purpose.JOIN_ACCEPT, addresses, back, back_id))

    # What the above share.

    def _promise(self, origin: PeerId, token: bytes, now: float, *, replaces: bool = False) -> None:
        place = Place(origin, now + self._config.place_timeout_s, replaces)
        self._membership.promise(token, place)

    def _dial(self, acceptance: Acceptance) -> None:
        acceptance.dialled = acceptance.addresses.pop(0)
        attempt = self._new_id()
        self.acceptances[attempt] = acceptance
        self._out.append(
            Connect(
                attempt, acceptance.dialled, acceptance.origin, acceptance.purpose, acceptance.token
            )
        )

    def _answer(self, link: Link, id: int, outcome: JoinOutcome) -> None:
        record = self._own_record() if outcome in (JoinOutcome.LINKED, JoinOutcome.DIAL_ME) else b""
        reply = JoinReply(outcome, 1, record)
        self._out.append(Say(link.number, self._new_id(), reply, id))

    def _to_dial(self, believed: tuple[Address, ...], now: float) -> list[Address]:
        """Which addresses of an origin may be dialled now; takes one dial-back from the budget."""
        addresses = [a for a in believed if self._paused.get(a, now) <= now]
        if not addresses or not self._dial_backs.take(now):
            return []
        return addresses[: self._config.addresses_per_peer_max]

    def _pause(self, address: Address | None, now: float) -> None:
        if address is None:
            return
        if len(self._paused) >= PAUSED_ADDRESSES_MAX:
            del self._paused[next(iter(self._paused))]
        self._paused[address] = now + self._config.dial_back_pause_s

    def _rate(self, link: Link) -> TokenBucket:
        bucket = self._rates.get(link.number)
        if bucket is None:
            config = self._config
            bucket = TokenBucket(config.walks_per_link_per_s, config.walks_per_link_burst)
            self._rates[link.number] = bucket
        return bucket

    def _expire(self, now: float) -> None:
        self._membership.expire_places(now)
        # Insertion order is the order of expiry, since all live equally long.
        while self.carried and (first := next(iter(self.carried))):
            if self.carried[first].expires_at > now:
                break
            del self.carried[first]
        for id in [i for i, split in self.splits.items() if split.expires_at <= now]:
            del self.splits[id]


def _believed(record: PeerRecord, reach: str) -> tuple[Address, ...]:
    """Those addresses of a record that its origin was seen at."""
    return tuple(a for a in record.parsed_addresses() if a.host == reach)
