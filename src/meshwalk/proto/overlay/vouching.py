"""A neighbour is silent: ask others before it is given up. And: answer others who ask.

SWIM's ping-req (Das, Gupta and Motivala, DSN 2002), asked of neighbours. A standing link says that
its peer is suspect when a ping stays unanswered for longer than its round trips give reason to; the
time-out grows with them, so a peer that is always slow is not suspect. Then `vouchers` neighbours
are asked, those first that have told us of the suspect. Whoever is asked looks at its own link to
the suspect, or dials it: a TLS handshake proves that it lives.

Dialling is not for the asking, or a neighbour could have anybody dialled: only peers that this node
has reached by a dial of its own before, where its own book says, one dial to each at a time, and
few in all. Nor is a dial in vain to any other peer a sign: behind a firewall none is ever answered.

    suspected --VouchAsked--> vouchers --ALIVE from any----> wait, until the link's idle time-out
                                       --SILENT, no ALIVE--> the link is closed
                                       --no answer in time-> as SILENT, if others answer pings
                                       --nobody can tell---> likewise, if it does not answer a dial

Anything heard over the link itself ends the suspicion. The rule for no answer at all: two who do
not answer in time are more than chance only if this node itself is heard, and if the suspect would
answer a dial. So all other neighbours are pinged with the question: the link is closed when any of
them has been heard since. It is kept when nobody was: then it is this node that is cut off, and the
idle time-out decides (Lifeguard's local health, arXiv 1707.00788); which does so, too, about a peer
that this node has never reached by a dial. In a large network hardly anybody else may have reached
it either: when nobody can tell, this node dials the suspect itself, if it has done so before.

How long that is, only who asks can tell: `voucher_timeout_s` and what a dial to the suspect takes
by its round trips. A voucher tries for as long as a dial may take. It says SILENT when that has
failed, and no sooner: a fixed time for all had it call those dead that live far away. If it has a
link to the suspect and cannot dial it, that link is silent for `voucher_timeout_s` first.

A peer that lives may have lost its end of the link: its machine has moved or slept. It dials
anew then, as nobody does who has a link, and is proven by its handshake; so a link that was there
before it is pinged at once, and closed when it turns out silent, whatever vouchers say.
"""

from __future__ import annotations

from collections import Counter

import msgspec

from meshwalk.errors import InvalidRecord
from meshwalk.proto.link import Ended, Link
from meshwalk.proto.overlay.effects import Measure
from meshwalk.proto.overlay.membership import Neighbour
from meshwalk.proto.overlay.shared import Shared
from meshwalk.proto.rate import BucketPerLink, TokenBucket
from meshwalk.wire.address import Address
from meshwalk.wire.frames import CloseReason, Purpose
from meshwalk.wire.messages import VouchAsked, VouchOutcome, VouchTold
from meshwalk.wire.peerid import PeerId

TIMER = ("overlay", "vouching")
LOOK_S = 0.5  # guess: how often a voucher looks whether its own link has brought something
DIAL_TRIPS = 3  # round trips of a dial: TCP, TLS 1.3, and the greeting, with which it is open


class Suspicion(msgspec.Struct):
    """A silent neighbour, and what is known of it so far."""

    link: Link
    since: float
    decides_at: float
    asked: dict[int, int]
    """Links of vouchers by the id of the question that went over each, while it has no answer."""
    is_silent: bool = False
    """A voucher has tried in vain, or this node itself."""
    attempt: int = 0
    """This node's own dial, when nobody else can tell."""


class Inquiry(msgspec.Struct):
    """A question of a neighbour that is being answered."""

    link: Link
    id: int
    suspect: PeerId
    asked_at: float
    own: Link | None
    """This node's own link to the suspect, on which it may be heard until the end."""
    look_at: float


class Dial(msgspec.Struct):
    """A suspect of others that is being dialled, for all who ask about it."""

    suspect: PeerId
    addresses: list[Address]
    """Still to be tried."""


class Vouching:
    """Suspicions of one node, and its answers to those of others."""

    def __init__(self, shared: Shared) -> None:
        self.attempts: dict[int, Dial | Suspicion] = {}
        """Dials to others' suspects, and own ones, by the number of the attempt. The former stay
        until they have ended, even if whoever asked has gone: so long they take a place."""
        self.counts: Counter[str] = Counter()
        """How suspicions ended, and what was answered."""
        self._shared = shared
        self._membership = shared.membership
        self._config = shared.config.detection
        self._suspicions: dict[int, Suspicion] = {}
        """By the number of the suspect's link. One has no more than one dial of its own."""
        self._inquiries: list[Inquiry] = []
        config = self._config
        self._rates = BucketPerLink(config.vouching_per_link_per_s, config.vouching_per_link_burst)
        self._dials = TokenBucket(config.vouching_dials_per_s, config.vouching_dials_burst)
        self._outdone: dict[int, float] = {}
        """Links whose peers have dialled us anew, by number: when."""

    # Own suspicions.

    def dialled_by(self, peer: PeerId, now: float) -> None:
        """A peer has dialled this node; if it is a neighbour already, is that link still good?"""
        present = self._membership.neighbours.get(peer)
        if present is None:
            return
        link = present.link
        self._outdone[link.number] = now
        if link.suspected_at is not None:
            self._give_up_outdone(link)
        else:
            self._shared.out.append(Measure(link.number))

    def suspected(self, link: Link, now: float) -> None:
        """A neighbour's link is silent for longer than it should be."""
        assert link.peer is not None
        present = self._membership.neighbours.get(link.peer)
        if present is None or present.link is not link or link.number in self._suspicions:
            return
        self.counts["suspected"] += 1
        if link.heard_at <= self._outdone.get(link.number, float("-inf")):
            self._give_up_outdone(link)
            return
        record = self._shared.record_of(link.peer, link)
        vouchers = self._vouchers(link.peer, record)
        suspicion = Suspicion(link, now, now + self._wait_s(link, vouchers), {})
        self._suspicions[link.number] = suspicion
        for voucher in vouchers:
            id = self._shared.say(voucher.link, VouchAsked(record))
            suspicion.asked[id] = voucher.link.number
        # Is it this node that is cut off? And who went together with others is noticed with them.
        for other in self._membership.neighbours.values():
            if other.link.number not in self._suspicions:
                self._shared.out.append(Measure(other.link.number))
        self._arm()

    def told(self, link: Link, in_reply_to: int, body: VouchTold, now: float) -> None:
        """A voucher has answered; answers that nobody waits for are ignored."""
        for suspicion in self._suspicions.values():
            if suspicion.asked.get(in_reply_to) == link.number:
                break
        else:
            return
        del suspicion.asked[in_reply_to]
        if body.outcome is VouchOutcome.ALIVE:
            # Our link may be broken even so, or its peer be busy: the idle time-out will tell.
            self._end(suspicion, "vouched for")
        elif body.outcome is VouchOutcome.SILENT:
            suspicion.is_silent = True
            if not suspicion.asked:
                self._decide(suspicion, now)
        elif not suspicion.asked and not suspicion.is_silent:
            self._dial_myself(suspicion)
        self._arm()

    # Others' suspicions.

    def asked(self, link: Link, id: int, body: VouchAsked, now: float) -> None:
        """A neighbour asks about a peer that is silent to it."""
        is_too_much = len(self._inquiries) >= self._config.vouching_max
        if not self._rates.take(link.number, now) or is_too_much:
            self.counts["asked too much"] += 1
            self._answer(link, id, VouchOutcome.UNKNOWN)  # before a signature has to be checked
            return
        try:
            record = self._shared.book.open(body.record, self._shared.signatures)
        except InvalidRecord as error:
            self._shared.disconnect(link, CloseReason.PROTOCOL, str(error))
            return
        suspect = record.peer_id
        if suspect == self._shared.me:
            self._answer(link, id, VouchOutcome.UNKNOWN)
            return
        neighbour = self._membership.neighbours.get(suspect)
        own = neighbour.link if neighbour is not None and neighbour.link is not link else None
        inquiry = Inquiry(link, id, suspect, now, own, now + LOOK_S)
        self._inquiries.append(inquiry)
        if own is not None:
            self._shared.out.append(Measure(own.number))
        elif not self._is_dialled(suspect, now):
            self._conclude(inquiry, VouchOutcome.UNKNOWN)
        self._arm()

    # Both.

    def opened(self, attempt: int, link: Link, now: float) -> None:
        """A suspect has answered our dial: it lives."""
        self._dialled(self.attempts.pop(attempt), VouchOutcome.ALIVE, now)
        self._shared.disconnect(link, CloseReason.DONE)

    def failed(self, attempt: int, ended: Ended, now: float) -> None:
        """A dial to a suspect has failed, or was refused; whoever refuses lives."""
        dial = self.attempts.pop(attempt)
        if ended.reason is not None and not ended.by_us:
            outcome = VouchOutcome.ALIVE
        elif ended.by_us:
            outcome = VouchOutcome.UNKNOWN  # too many dials of ours are under way
        elif isinstance(dial, Suspicion) or not dial.addresses:
            outcome = VouchOutcome.SILENT
        elif self._may_dial(now):
            self._dial(dial)
            return
        else:
            outcome = VouchOutcome.UNKNOWN
        self._dialled(dial, outcome, now)

    def link_gone(self, link: Link) -> None:
        """A link has ended: a suspect's, a voucher's, or that of somebody who asked."""
        self._rates.forget(link.number)
        self._outdone.pop(link.number, None)
        suspicion = self._suspicions.pop(link.number, None)
        if suspicion is not None:
            self.attempts.pop(suspicion.attempt, None)
            self.counts["link ended"] += 1
        for other in self._suspicions.values():
            for id in [i for i, number in other.asked.items() if number == link.number]:
                del other.asked[id]
        self._inquiries = [i for i in self._inquiries if i.link is not link]

    def tick(self, now: float) -> None:
        """The timer of this machine has come due."""
        for suspicion in [s for s in self._suspicions.values() if s.decides_at <= now]:
            self._decide(suspicion, now)
        for inquiry in [i for i in self._inquiries if i.look_at <= now]:
            inquiry.look_at = now + LOOK_S
            if inquiry.own is not None and inquiry.own.heard_at > inquiry.asked_at:
                self._conclude(inquiry, VouchOutcome.ALIVE)
            elif now >= inquiry.asked_at + self._shared.config.link.idle_timeout_s:
                self._conclude(inquiry, VouchOutcome.SILENT)  # whoever asked has long decided
            elif not self._is_late(inquiry, now) or self._is_dialled(inquiry.suspect, now):
                pass  # silent here as well; but a handshake would show it alive
            elif now >= inquiry.asked_at + self._config.voucher_timeout_s:
                self._conclude(inquiry, VouchOutcome.SILENT)
        self._arm()

    def woke(self) -> None:
        """Time has passed unseen: it was this node that was silent."""
        for suspicion in self._suspicions.values():
            self.attempts.pop(suspicion.attempt, None)
        self._suspicions.clear()
        for inquiry in list(self._inquiries):
            self._conclude(inquiry, VouchOutcome.UNKNOWN)

    def stop(self) -> None:
        """The node is stopping."""
        self.attempts.clear()
        self._suspicions.clear()
        self._inquiries.clear()
        self._rates.clear()
        self._outdone.clear()
        self._shared.timers.cancel(TIMER)

    # Steps.

    def _decide(self, suspicion: Suspicion, now: float) -> None:
        """All have answered that will."""
        link = suspicion.link
        if link.heard_at > suspicion.since:
            self._end(suspicion, "heard again")
        elif suspicion.is_silent or self._tells_no_answer(suspicion):
            self._end(suspicion, "given up")
            self._shared.disconnect(link, CloseReason.IDLE, "silent, and nobody can reach it")
        else:
            self._end(suspicion, "undecided")

    def _give_up_outdone(self, link: Link) -> None:
        self.counts["outdone"] += 1
        suspicion = self._suspicions.pop(link.number, None)
        if suspicion is not None:
            self.attempts.pop(suspicion.attempt, None)
        self._shared.disconnect(link, CloseReason.IDLE, "silent, and its peer has dialled anew")

    def _tells_no_answer(self, suspicion: Suspicion) -> bool:
        """Whether it means something that nobody answers who was asked, or dialled: not if no dial
        to this peer is ever answered, and not if this node does not hear anybody."""
        is_awaited = bool(suspicion.asked) or suspicion.attempt in self.attempts
        if not is_awaited or self._way_to(suspicion.link) is None:
            return False
        return any(
            neighbour.link.heard_at > suspicion.since
            for neighbour in self._membership.neighbours.values()
        )

    def _way_to(self, link: Link) -> Address | None:
        """Where this node has dialled a neighbour before, and was answered."""
        if link.outbound:
            return link.remote
        assert link.peer is not None
        entry = self._shared.book.entries.get(link.peer)
        return entry.address if entry is not None and entry.verified else None

    def _dial_myself(self, suspicion: Suspicion) -> None:
        """Nobody else can tell whether a suspect lives."""
        address = self._way_to(suspicion.link)
        if address is None:
            self._end(suspicion, "nobody knows")
            return
        suspicion.attempt = self._shared.dial(address, suspicion.link.peer, Purpose.PROBE)
        self.attempts[suspicion.attempt] = suspicion
        # Nobody else has tried. Only a whole dial in vain tells a dead peer from a stalled path.
        dial_s = self._shared.config.link.connect_timeout_s
        suspicion.decides_at = max(suspicion.decides_at, suspicion.since + dial_s)

    def _dialled(self, dial: Dial | Suspicion, outcome: VouchOutcome, now: float) -> None:
        """What a dial has shown."""
        if isinstance(dial, Dial):
            self._conclude_all(dial, outcome, now)
        elif outcome is VouchOutcome.ALIVE:
            self._end(dial, "vouched for")
        elif outcome is VouchOutcome.SILENT:
            dial.is_silent = True
            self._decide(dial, now)
        else:
            self._end(dial, "nobody knows")
        self._arm()

    def _end(self, suspicion: Suspicion, how: str) -> None:
        self.counts[how] += 1
        self.attempts.pop(suspicion.attempt, None)
        self._suspicions.pop(suspicion.link.number, None)

    def _vouchers(self, suspect: PeerId, record: bytes) -> list[Neighbour]:
        """Whom to ask: common neighbours as far as they are known, and then anybody."""
        if not record:
            return []
        others = [
            n
            for n in self._membership.neighbours.values()
            if n.peer != suspect
            and n.link.number not in self._suspicions
            and self._shared.may_tell(record, n.link)
        ]
        self._shared.rng.shuffle(others)
        others.sort(key=lambda n: suspect not in n.told_of)
        return others[: self._config.vouchers]

    def _wait_s(self, link: Link, vouchers: list[Neighbour]) -> float:
        """How long vouchers may take. They are to have the time for a dial to the suspect, and only
        who asks knows how far that is: so it is who asks that decides when to wait no longer."""
        trips_s = DIAL_TRIPS * (link.round_trips.mean_s or 0.0)
        trips_s += max((v.link.round_trips.mean_s or 0.0 for v in vouchers), default=0.0)
        limit_s = self._shared.config.link.idle_timeout_s
        return min(self._config.voucher_timeout_s + trips_s, limit_s)

    def _is_dialled(self, suspect: PeerId, now: float) -> bool:
        """Whether a dial to a suspect is under way, by now at the latest."""
        if any(dial.suspect == suspect for dial in self._dials_for_others()):
            return True
        entry = self._shared.book.entries.get(suspect)
        if entry is None or not entry.verified:
            return False
        # Not where the asker says, nor where the suspect says that nobody knows to be there.
        addresses = entry.to_try(self._shared.config.overlay.addresses_per_peer_max)
        if not addresses or not self._may_dial(now):
            return False
        self._dial(Dial(suspect, addresses))
        return True

    def _dials_for_others(self) -> list[Dial]:
        return [dial for dial in self.attempts.values() if isinstance(dial, Dial)]

    def _may_dial(self, now: float) -> bool:
        is_free = len(self._dials_for_others()) < self._config.vouching_dials_max
        if is_free and self._dials.take(now):
            return True
        self.counts["too many dials"] += 1
        return False

    def _dial(self, dial: Dial) -> None:
        address = dial.addresses.pop(0)
        self.attempts[self._shared.dial(address, dial.suspect, Purpose.PROBE)] = dial

    def _is_late(self, inquiry: Inquiry, now: float) -> bool:
        """Whether the own link should have brought an answer by now, by its own round trips."""
        return inquiry.own is None or now >= inquiry.asked_at + inquiry.own.patience_s

    def _conclude_all(self, dial: Dial, outcome: VouchOutcome, now: float) -> None:
        """What has become of a dial answers all who wait for it. One in vain is no answer as long
        as the own link may yet bring one."""
        is_alive = outcome is VouchOutcome.ALIVE
        for inquiry in [i for i in self._inquiries if i.suspect == dial.suspect]:
            if is_alive or self._is_late(inquiry, now):
                self._conclude(inquiry, outcome)

    def _conclude(self, inquiry: Inquiry, outcome: VouchOutcome) -> None:
        self._inquiries = [i for i in self._inquiries if i is not inquiry]
        self._answer(inquiry.link, inquiry.id, outcome)

    def _answer(self, link: Link, id: int, outcome: VouchOutcome) -> None:
        self.counts[f"answered: {outcome.name.lower()}"] += 1
        self._shared.say(link, VouchTold(outcome), id)

    def _arm(self) -> None:
        times = [s.decides_at for s in self._suspicions.values()]
        times += [i.look_at for i in self._inquiries]
        if times:
            self._shared.timers.set(TIMER, min(times))
        else:
            self._shared.timers.cancel(TIMER)
