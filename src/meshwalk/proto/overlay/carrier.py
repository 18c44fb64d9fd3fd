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

from meshwalk.errors import InvalidRecord
from meshwalk.proto.link import Link
from meshwalk.proto.overlay.membership import Neighbour, Place
from meshwalk.proto.overlay.shared import Shared
from meshwalk.proto.overlay.transit import Acceptance, Split, WayBack, bounded
from meshwalk.proto.rate import BucketPerLink, TokenBucket
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

PATIENCE = 0.4  # guess: share of a walk's time after which a dial-back counts as failed
EXPIRY = ("overlay", "carrier")
PAUSED_ADDRESSES_MAX = 1024  # guess: addresses that are remembered as not answering


class Carrier:
    """Handles the walks of others at one node."""

    def __init__(self, shared: Shared, can_be_dialled: Callable[[], bool]) -> None:
        self.acceptances: dict[int, Acceptance] = {}
        """By attempt number."""
        self.carried: dict[int, WayBack] = {}
        """By the id under which the request went on."""
        self.splits: dict[int, Split] = {}
        """By the id of the split request."""
        self.counts: Counter[str] = Counter()
        self._shared = shared
        self._membership = shared.membership
        self._book = shared.book
        config = self._config = shared.config.overlay
        self._can_be_dialled = can_be_dialled
        self._timers = shared.timers
        self._out = shared.out
        self._rates = BucketPerLink(config.walks_per_link_per_s, config.walks_per_link_burst)
        self._dial_backs = TokenBucket(config.dial_backs_per_s, config.dial_backs_burst)
        self._paused: dict[Address, float] = {}
        self._nothing_before = float("inf")
        """Until then nothing of what waits here expires; `expire` is due at that time."""

    # Inputs.

    def requested(self, link: Link, id: int, request: JoinRequest, now: float) -> None:
        """A join request came over a link."""
        self.expire(now)
        is_too_much = len(self.carried) >= self._config.walks_carried_max
        if not self._rates.take(link.number, now) or is_too_much:
            self.counts["busy"] += 1
            self._answer(link, id, JoinOutcome.BUSY)
            return
        try:
            record = self._book.open(request.record, self._shared.signatures)
        except InvalidRecord as error:
            self._shared.disconnect(link, CloseReason.PROTOCOL, str(error))
            return
        is_first_hop = record.peer == link.peer
        is_for_joining = link.purpose is Purpose.JOIN_REQUEST and not link.outbound
        if not (link.is_standing or (is_first_hop and is_for_joining)):
            text = "a join request must be the sender's own, or a neighbour's"
            self._shared.disconnect(link, CloseReason.PROTOCOL, text)
            return
        request = bounded(request, link, record if is_first_hop else None, self._config)
        believed = record.addresses_at(request.reach)
        heard = self._book.heard(record, request.record, believed, "walk", link.remote, now)
        self._out += heard
        self._decide(link, id, request, record.peer_id, believed, now)

    def answered(self, link: Link, id: int, reply: JoinReply) -> bool:
        """An answer to the request that went on as `id`; false when this node carried no such."""
        way = self.carried.get(id)
        if way is None or way.onward != link.number:
            return False
        del self.carried[id]
        hops = min(reply.hops + 1, HOPS_MAX)
        outcome, record = reply.outcome, reply.record
        if record and not self._may_pass_on(record, way.link):
            # Private addresses are none of a public peer's business, and lead it nowhere. A link
            # that stands needs no record; a place that nobody can come to is none.
            self.counts["not passed on"] += 1
            record = b""
            if outcome is JoinOutcome.DIAL_ME:
                outcome = JoinOutcome.NO_PLACE
        self._shared.say(way.link, JoinReply(outcome, hops, record), way.id)
        return True

    def split_requested(self, link: Link, id: int, request: SplitRequest, now: float) -> None:
        """A full neighbour asks to take an origin instead of the common link."""
        self.expire(now)
        if not self._rates.take(link.number, now):
            self.counts["busy"] += 1
            self._shared.say(link, SplitReply(), id)
            return
        try:
            record = self._book.open(request.record, self._shared.signatures)
        except InvalidRecord as error:
            self._shared.disconnect(link, CloseReason.PROTOCOL, str(error))
            return
        addresses = self._to_dial(record.addresses_at(request.reach), now)
        is_splitting = any(a.gives_up is link for a in self.acceptances.values())
        if is_splitting or not addresses or self._membership.knows(record.peer_id):
            self._shared.say(link, SplitReply(), id)
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
        self._shared.say(back, SplitReply(), acceptance.back_id)

    def link_gone(self, link: Link, reason: CloseReason | None, now: float) -> None:
        """A link has ended: answer for what went on over it, finish a split it was given for."""
        self.expire(now)
        self._rates.forget(link.number)
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
                self.keep_place(split.origin, split.request.token, now)
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
        is_welcome = is_eligible and not any(map(membership.has_enough_of, believed[:1]))
        if is_welcome and membership.has_room:
            is_free = request.forced_hops == 0 and membership.accepts_by_chance()
            if membership.missing or is_free:
                self._accept(link, id, request, origin, believed, now)
                return
        if request.hops_left > 0:
            onward = self._onward(request.record, link.peer, origin)
            if onward is None:  # a dead end: back where it came from, unless that is the origin
                onward = self._onward(request.record, origin)
            if onward is not None:
                self._carry(link, id, request, onward.link, now)
                return
        if not is_eligible:
            self.counts["no place"] += 1
            self._answer(link, id, JoinOutcome.NO_PLACE)
        elif is_welcome and membership.has_place_unpromised:
            self._accept(link, id, request, origin, believed, now)
        else:
            self._make_room(link, id, request, origin, believed, now, is_welcome)

    def _accept(
        self,
        link: Link,
        id: int,
        request: JoinRequest,
        origin: PeerId,
        believed: tuple[Address, ...],
        now: float,
    ) -> None:
        self.keep_place(origin, request.token, now)
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
        expires_at = now + 2 * self._config.walk_timeout_s
        new_id = self._shared.say(onward, step)
        self.carried[new_id] = WayBack(link, id, onward.number, expires_at)
        self._arm(expires_at)

    def _make_room(
        self,
        link: Link,
        id: int,
        request: JoinRequest,
        origin: PeerId,
        believed: tuple[Address, ...],
        now: float,
        is_welcome: bool,
    ) -> None:
        """Split a link for the origin. If its address group has all its links here (it is not
        welcome), one of those: so a network within one group grows, and no group has more here."""
        if is_welcome and len(self._membership) <= self._config.links_min:
            # Its places are promised, not taken: it can spare no link.
            self.counts["busy"] += 1
            self._answer(link, id, JoinOutcome.BUSY)
            return
        addresses = self._to_dial(believed, now)
        request_to_split = SplitRequest(request.record, request.token, request.reach)
        expires_at = now + self._config.walk_timeout_s
        split = Split(request_to_split, origin, addresses, link, id, [], expires_at)
        if not is_welcome:
            split.spared = self._membership.not_of_group(believed[0])
        if addresses:
            self._ask_to_split(split, now)
        else:
            self._keep_place_or_not(split, now)

    def _keep_place_or_not(self, split: Split, now: float) -> None:
        """Nobody can dial the origin, so no neighbour could take it: when it comes here, another
        link gives way. One at a time, or strangers could push out all neighbours at once."""
        if split.spared is not None or self._membership.is_to_replace:
            self.counts["no place"] += 1
            self._answer(split.back, split.back_id, JoinOutcome.NO_PLACE)
            return
        self.keep_place(split.origin, split.request.token, now, replaces=True)
        self.counts["dial me"] += 1
        self._answer(split.back, split.back_id, JoinOutcome.DIAL_ME)

    def _ask_to_split(self, split: Split, now: float) -> None:
        neighbour = None
        if len(split.asked) < self._config.split_tries:
            spared = split.spared or ()
            neighbour = self._onward(split.request.record, split.origin, *split.asked, *spared)
        if neighbour is None and not split.asked:
            # Nobody here may be told of it: private addresses, and public neighbours.
            self._keep_place_or_not(split, now)
            return
        if neighbour is None:
            self.counts["no place"] += 1
            self._answer(split.back, split.back_id, JoinOutcome.NO_PLACE)
            return
        split.asked.append(neighbour.peer)
        split.link, split.asked_at = neighbour.link.number, now
        id = self._shared.say(neighbour.link, split.request)
        self.splits[id] = split
        self._arm(split.expires_at)

    def _have_it_dial(self, acceptance: Acceptance, now: float) -> None:
        """The origin does not answer our dial: keep the place until it comes itself."""
        if acceptance.origin in self._membership.neighbours:
            self._answer(acceptance.back, acceptance.back_id, JoinOutcome.LINKED)
            return
        self.keep_place(acceptance.origin, acceptance.token, now)
        self.counts["dial me"] += 1
        self._answer(acceptance.back, acceptance.back_id, JoinOutcome.DIAL_ME)

    # What the above share.

    def _onward(self, record: bytes, *without: PeerId | None) -> Neighbour | None:
        """Any neighbour but those named that may be told the record; None when there is none."""
        found = self._membership.random_neighbour(*without)
        if found is None or self._shared.may_tell(record, found.link):
            return found
        others = [
            n.peer
            for n in self._membership.neighbours.values()
            if not self._shared.may_tell(record, n.link)
        ]
        return self._membership.random_neighbour(*without, *others)

    def _may_pass_on(self, record: bytes, link: Link) -> bool:
        """Whether the peer of a link may be told a record that nobody has checked yet."""
        try:
            return self._shared.may_tell(record, link)
        except InvalidRecord:
            return False

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

    def keep_place(
        self,
        origin: PeerId,
        token: bytes,
        now: float,
        *,
        replaces: bool = False,
        is_random: bool = True,
    ) -> None:
        """Promise a peer that quotes this token a place, for `place_timeout_s`."""
        place = Place(origin, now + self._config.place_timeout_s, replaces, is_random)
        self._membership.promise(token, place)
        self._arm(place.expires_at)

    def _dial(self, acceptance: Acceptance, now: float) -> None:
        acceptance.dialled = acceptance.addresses.pop(0)
        if acceptance.impatient_at is None:
            acceptance.impatient_at = now + self._patience_s
        attempt = self._shared.dial(
            acceptance.dialled, acceptance.origin, acceptance.purpose, acceptance.token
        )
        self.acceptances[attempt] = acceptance
        self._arm(acceptance.impatient_at)

    def _answer(self, link: Link, id: int, outcome: JoinOutcome) -> None:
        is_told = outcome in (JoinOutcome.LINKED, JoinOutcome.DIAL_ME)
        record = self._shared.own_record(link.remote) if is_told else b""
        reply = JoinReply(outcome, 1, record)
        self._shared.say(link, reply, id)

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
