"""Other peers' walks: accept them, carry them on, or split a link for them.

Seed 000's handleJoinRequest, with what it lacks: a bound on hops, an answer for every walk, an
origin that is proven, and a way in when everyone is full.

A join request that comes in is decided here and at once:

1. The record must be signed by the origin. On its first hop the origin must be the peer on the
   link; that hop sets how far the walk goes, so that nobody chooses where it ends, and notes the
   host it sees the origin at: only addresses with that host are ever dialled. So nobody outside can
   have the network dial a third party, and what a member can do that way is bounded by
   `dial_backs_per_s` at each node and a pause per address that failed.
2. A node that is not the origin, not its neighbour, and has room, accepts: always below its
   minimum; else, once the forced hops are over, with chance 1/(n+1); else at the walk's end.
3. Who does not accept passes the request to a random neighbour under a fresh message id, and
   remembers the way back for the answer.
4. At the end of the walk a full node asks a neighbour to take the origin instead of their common
   link, and then takes the origin too: drop x-y, add y-origin and x-origin. Degrees stay.

Only the acceptor's dial tells whether the origin can be reached; if it fails, or has not succeeded
after a while (a firewall that drops says nothing), the answer DIAL_ME goes back along the walk and
the place is kept for the origin to come. Should both dials succeed after all, one link survives.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable

from meshwalk.config import OverlayConfig
from meshwalk.errors import InvalidRecord
from meshwalk.identity.keys import Signatures
from meshwalk.proto.link import Link
from meshwalk.proto.overlay.addressbook import AddressBook
from meshwalk.proto.overlay.effects import Connect, Disconnect, OverlayEffect, Say
from meshwalk.proto.overlay.membership import Membership, Place
from meshwalk.proto.overlay.transit import Acceptance, Split, WayBack
from meshwalk.proto.rate import TokenBucket
from meshwalk.proto.timers import Timers
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

PATIENCE = 0.4  # guess: share of a walk's time after which a dial-back counts as failed
EXPIRY = ("overlay", "carrier")
PAUSED_ADDRESSES_MAX = 1024  # guess: addresses that are remembered as not answering


class Carrier:
    """Handles the walks of others at one node."""

    def __init__(
        self,
        membership: Membership,
        book: AddressBook,
        config: OverlayConfig,
        signatures: Signatures,
        own_record: Callable[[], bytes],
        can_be_dialled: Callable[[], bool],
        new_id: Callable[[], int],
        timers: Timers,
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
        self._can_be_dialled = can_be_dialled
        self._new_id = new_id
        self._timers = timers
        self._out = out
        self._rates: dict[int, TokenBucket] = {}
        self._dial_backs = TokenBucket(config.dial_backs_per_s, config.dial_backs_burst)
        self._paused: dict[Address, float] = {}
        self._nothing_before = float("inf")
        """Until then nothing of what waits here expires; `expire` is due at that time."""

    # Inputs.

    def requested(self, link: Link, id: int, request: JoinRequest, now: float) -> None:
        """A join request came over a link."""
        self.expire(now)
        if not self._rate(link).take(now) or len(self.carried) >= self._config.walks_carried_max:
            self.counts["busy"] += 1
            self._answer(link, id, JoinOutcome.BUSY)
            return
        try:
            record = self._book.open(request.record, self._signatures)
        except InvalidRecord as error:
            self._out.append(Disconnect(link.number, CloseReason.PROTOCOL, str(error)))
            return
        is_first_hop = record.peer == link.peer
        is_for_joining = link.purpose is Purpose.JOIN_REQUEST and not link.outbound
        if not (link.is_standing or (is_first_hop and is_for_joining)):
            text = "a join request must be the sender's own, or a neighbour's"
            self._out.append(Disconnect(link.number, CloseReason.PROTOCOL, text))
            return
        request = self._bounded(link, request, record if is_first_hop else None)
        believed = record.addresses_at(request.reach)
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
        self.expire(now)
        if not self._rate(link).take(now):
            self.counts["busy"] += 1
            self._out.append(Say(link.number, self._new_id(), SplitReply(), id))
            return
        try:
            record = self._book.open(request.record, self._signatures)
        except InvalidRecord as error:
            self._out.append(Disconnect(link.number, CloseReason.PROTOCOL, str(error)))
            return
        addresses = self._to_dial(record.addresses_at(request.reach), now)
        is_splitting = any(a.gives_up is link for a in self.acceptances.values())
        if is_splitting or not addresses or self._membership.knows(record.peer_id):
            self._out.append(Say(link.number, self._new_id(), SplitReply(), id))
            return
        self._dial(
            Acceptance(
                record.peer_id, request.token, Purpose.JOIN_SPLIT, addresses, link, id, link
            ),
            now,
        )

    def split_refused(self, link: Link, id: int, now: float) -> None:
        """The neighbour that was asked to split does not."""
        split = self.splits.get(id)
        if split is None or split.link != link.number:
            return
        del self.splits[id]
        if now >= split.asked_at + self._patience_s:
            # It has tried to dial the origin for so long in vain: others would, too.
            self._keep_place_or_not(split, now)
        else:
            self._ask_to_split(split, now)

    def opened(self, attempt: int, link: Link) -> Acceptance:
        """A dial to an origin has succeeded; whether it became a neighbour is known by now."""
        acceptance = self.acceptances.pop(attempt)
        self._membership.places.pop(acceptance.token, None)
        is_linked = acceptance.origin in self._membership.neighbours
        if acceptance.purpose is Purpose.JOIN_ACCEPT:
            self.counts["accepted" if is_linked else "full"] += 1
        if acceptance.purpose is Purpose.JOIN_ACCEPT and acceptance.impatient_at is not None:
            outcome = JoinOutcome.LINKED if is_linked else JoinOutcome.NO_PLACE
            self._answer(acceptance.back, acceptance.back_id, outcome)
        return acceptance

    def failed(
        self, attempt: int, *, was_refused: bool, now: float, was_dialled: bool = True
    ) -> None:
        """A dial to an origin has failed or was never made, or the origin has refused the link."""
        acceptance = self.acceptances.pop(attempt)
        if was_dialled and not was_refused:
            self._pause(acceptance.dialled, now)
            if acceptance.addresses and acceptance.impatient_at is not None:
                self._dial(acceptance, now)
                return
        back, back_id = acceptance.back, acceptance.back_id
        if acceptance.impatient_at is None:
            pass  # who waited has been told; a place may still be kept
        elif acceptance.purpose is Purpose.JOIN_SPLIT:
            self.split_is_off(acceptance)
        elif was_refused:
            # It came some other way in the meantime, or has enough links now.
            self._membership.places.pop(acceptance.token, None)
            is_linked = acceptance.origin in self._membership.neighbours
            outcome = JoinOutcome.LINKED if is_linked else JoinOutcome.NO_PLACE
            self._answer(back, back_id, outcome)
        else:
            self._have_it_dial(acceptance, now)

    def split_is_off(self, acceptance: Acceptance) -> None:
        """The origin could not be taken, or is a neighbour already: the common link stays."""
        back = acceptance.back
        self._out.append(Say(back.number, self._new_id(), SplitReply(), acceptance.back_id))

    def link_gone(self, link: Link, reason: CloseReason | None, now: float) -> None:
        """A link has ended: answer for what went on over it, finish a split it was given for."""
        self.expire(now)
        self._rates.pop(link.number, None)
        for id in [i for i, way in self.carried.items() if way.onward == link.number]:
            way = self.carried.pop(id)
            self._answer(way.link, way.id, JoinOutcome.BUSY)
        is_split = reason is CloseReason.SPLIT
        for id in [i for i, s in self.splits.items() if s.link == link.number]:
            split = self.splits.pop(id)
            # A neighbour splits one link for one origin: the first that it has not refused.
            if is_split and self._membership.has_place_unpromised:
                is_split = False
                self.counts["split"] += 1
                self._promise(split.origin, split.request.token, now)
                self._dial(
                    Acceptance(
                        split.origin,
                        split.request.token,
                        Purpose.JOIN_ACCEPT,
                        split.addresses,
                        split.back,
                        split.back_id,
                    ),
                    now,
                )
            else:
                self._ask_to_split(split, now)

    def expire(self, now: float) -> None:
        """Forget what nobody waits for any more, and tell whoever waits too long."""
        if now < self._nothing_before:
            return
        self._membership.expire_places(now)
        # Insertion order is the order of expiry, since all live equally long.
        while self.carried and (first := next(iter(self.carried))):
            if self.carried[first].expires_at > now:
                break
            del self.carried[first]
        for id in [i for i, split in self.splits.items() if split.expires_at <= now]:
            split = self.splits.pop(id)
            self.counts["no place"] += 1
            self._answer(split.back, split.back_id, JoinOutcome.NO_PLACE)
        for acceptance in self.acceptances.values():
            if acceptance.impatient_at is None or acceptance.impatient_at > now:
                continue
            if acceptance.purpose is Purpose.JOIN_SPLIT:
                self.split_is_off(acceptance)
                acceptance.gives_up = None
            else:
                self._have_it_dial(acceptance, now)
            acceptance.impatient_at = None
        self._arm_anew()

    def stop(self) -> None:
        """The node is stopping: nobody is taken any more."""
        self.acceptances.clear()
        self.carried.clear()
        self.splits.clear()
        self._rates.clear()
        self._membership.places.clear()
        self._nothing_before = float("inf")
        self._timers.cancel(EXPIRY)

    # Decisions.

    def _bounded(self, link: Link, request: JoinRequest, own: PeerRecord | None) -> JoinRequest:
        """The request with no more hops than here are usual; with `own`, the origin's record, as
        its first hop passes it on: all its hops, and the host that this hop sees it at."""
        config = self._config
        if own is None:
            hops = min(request.hops_left, config.walk_hops)
            forced = min(request.forced_hops, config.forced_hops)
            return JoinRequest(request.record, request.token, request.reach, forced, hops)
        host = link.remote.host
        reach = host if own.addresses_at(host) else ""
        return JoinRequest(
            request.record, request.token, reach, config.forced_hops, config.walk_hops
        )

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
        # If neither end can be dialled, a place kept would be in vain.
        is_eligible = is_eligible and (bool(believed) or self._can_be_dialled())
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
            acceptance = Acceptance(origin, request.token, Purpose.JOIN_ACCEPT, addresses, link, id)
            self._dial(acceptance, now)
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
        self._arm(expires_at)
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
        if len(self._membership) <= self._config.links_min:
            # Its places are promised, not taken: it can spare no link.
            self.counts["busy"] += 1
            self._answer(link, id, JoinOutcome.BUSY)
            return
        addresses = self._to_dial(believed, now)
        request_to_split = SplitRequest(request.record, request.token, request.reach)
        expires_at = now + self._config.walk_timeout_s
        split = Split(request_to_split, origin, addresses, link, id, [], expires_at)
        if addresses:
            self._ask_to_split(split, now)
        else:
            self._keep_place_or_not(split, now)

    def _keep_place_or_not(self, split: Split, now: float) -> None:
        """Nobody can dial the origin, so no neighbour could take it: when it comes here, another
        link gives way. One at a time, or strangers could push out all neighbours at once."""
        if self._membership.is_to_replace:
            self.counts["no place"] += 1
            self._answer(split.back, split.back_id, JoinOutcome.NO_PLACE)
            return
        self._promise(split.origin, split.request.token, now, replaces=True)
        self.counts["dial me"] += 1
        self._answer(split.back, split.back_id, JoinOutcome.DIAL_ME)

    def _ask_to_split(self, split: Split, now: float) -> None:
        neighbour = None
        if len(split.asked) < self._config.split_tries:
            neighbour = self._membership.random_neighbour(split.origin, *split.asked)
        if neighbour is None:
            self.counts["no place"] += 1
            self._answer(split.back, split.back_id, JoinOutcome.NO_PLACE)
            return
        split.asked.append(neighbour.peer)
        split.link, split.asked_at = neighbour.link.number, now
        id = self._new_id()
        self.splits[id] = split
        self._arm(split.expires_at)
        self._out.append(Say(neighbour.link.number, id, split.request))

    def _have_it_dial(self, acceptance: Acceptance, now: float) -> None:
        """The origin does not answer our dial: keep the place until it comes itself."""
        if acceptance.origin in self._membership.neighbours:
            self._answer(acceptance.back, acceptance.back_id, JoinOutcome.LINKED)
            return
        self._promise(acceptance.origin, acceptance.token, now)
        self.counts["dial me"] += 1
        self._answer(acceptance.back, acceptance.back_id, JoinOutcome.DIAL_ME)

    # What the above share.

    @property
    def _patience_s(self) -> float:
        return PATIENCE * self._config.walk_timeout_s

    def _arm(self, at: float) -> None:
        """Have `expire` called at that time at the latest. What it is for may be gone by then."""
        if at < self._nothing_before:
            self._nothing_before = at
            self._timers.set(EXPIRY, at)

    def _arm_anew(self) -> None:
        """Have `expire` called when the first of all that waits here expires."""
        times = [way.expires_at for way in itertools.islice(self.carried.values(), 1)]
        times += [split.expires_at for split in self.splits.values()]
        times += [place.expires_at for place in self._membership.places.values()]
        times += [
            acceptance.impatient_at
            for acceptance in self.acceptances.values()
            if acceptance.impatient_at is not None
        ]
        self._nothing_before = float("inf")
        if times:
            self._arm(min(times))

    def _promise(self, origin: PeerId, token: bytes, now: float, *, replaces: bool = False) -> None:
        place = Place(origin, now + self._config.place_timeout_s, replaces)
        self._membership.promise(token, place)
        self._arm(place.expires_at)

    def _dial(self, acceptance: Acceptance, now: float) -> None:
        acceptance.dialled = acceptance.addresses.pop(0)
        if acceptance.impatient_at is None:
            acceptance.impatient_at = now + self._patience_s
        attempt = self._new_id()
        self.acceptances[attempt] = acceptance
        self._arm(acceptance.impatient_at)
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
