"""Joins fragments: finds by a test that a peer is in another one, and links the two.

Seed 001's defragment and its rule for which side acts: if the asker's fragment is as large as the
asked one's or larger, the other side joins, else the asker does. To join is to walk for links in
the other fragment over the first link between the two. Unlike the seed nobody drops a link for it,
and that first link may take one of `healing_places` beyond the maximum, so that it works when every
node is full. It is always the asker that dials: it has just shown that it can.

    asker, over a probe               asked
      FragmentAsked(beacon, size) ----> compares: two fresh leaders, neither known to the other
      <---- FragmentTold(outcome)       keeps a place for the token
      dials HEALING, with the token --> a neighbour; each end sends its beacon, and the larger
                                        leader's fragment goes by the smaller from then on

Many nodes may find the same two fragments before the beacon of one has gone through the other. That
is welcome, since one link alone would be thin; a node takes part once in `pause_s`: of those that
it has promised a place, the first that comes has it. A key for "another fragment" costs nothing, so
a node has at most one such link more than it has places for them beyond its maximum.
"""

from __future__ import annotations

from collections import Counter

import msgspec

from meshwalk.errors import InvalidRecord
from meshwalk.events import FragmentFound
from meshwalk.identity.keys import open_beacon
from meshwalk.proto.link import Ended, Link
from meshwalk.proto.overlay.beacons import Beacons
from meshwalk.proto.overlay.effects import Tell
from meshwalk.proto.overlay.shared import Shared
from meshwalk.proto.overlay.walks import Walks
from meshwalk.wire.frames import CloseReason, Purpose
from meshwalk.wire.messages import FragmentAsked, FragmentOutcome, FragmentTold
from meshwalk.wire.peerid import PeerId

PROMISES_MAX = 16  # guess: eight times as many as there are places for


class Promise(msgspec.Struct, frozen=True):
    """A peer of another fragment that is to come."""

    peer: PeerId
    expires_at: float
    joins: bool
    """Whether it is this node's fragment that joins the other."""


class Question(msgspec.Struct, frozen=True):
    """What was asked over a probe and has no answer yet."""

    id: int
    token: bytes


class Healing:
    """One node's part in joining fragments."""

    def __init__(self, shared: Shared, beacons: Beacons, walks: Walks) -> None:
        self.attempts: dict[int, bool] = {}
        """Dials into other fragments under way, by the number of the attempt: whether it is this
        node's fragment that joins the other."""
        self.counts: Counter[str] = Counter()
        """What came of questions, asked and answered."""
        self._shared = shared
        self._membership = shared.membership
        self._config = shared.config.healing
        self._beacons = beacons
        self._walks = walks
        self._questions: dict[int, Question] = {}
        """By the number of the probe's link."""
        self._answered: set[int] = set()
        """Links of probes by which this node was asked."""
        self._promises: dict[bytes, Promise] = {}
        """By token."""
        self._not_before = float("-inf")

    # Inputs.

    def ask(self, link: Link, now: float) -> None:
        """Ask the peer of a test which fragment it is in."""
        token = self._shared.new_token()
        blob = self._beacons.blob if self._beacons.is_fresh(now) else b""
        id = self._shared.say(link, FragmentAsked(blob, self._beacons.size, token))
        self._questions[link.number] = Question(id, token)

    def waits_for(self, link: Link) -> bool:
        """Whether the peer of this test has not answered yet."""
        return link.number in self._questions

    def asked(self, link: Link, id: int, body: FragmentAsked, now: float) -> None:
        """A peer that tests this node asks."""
        if link.outbound or link.purpose is not Purpose.PROBE:
            self._shared.disconnect(link, CloseReason.PROTOCOL, "only a probe may ask for that")
            return
        if link.number in self._answered:  # each question may cost a signature to be checked
            self._shared.disconnect(link, CloseReason.PROTOCOL, "a probe asks for that once")
            return
        self._answered.add(link.number)
        outcome = self._compare(link, body.beacon, now)
        if outcome is FragmentOutcome.JOIN_US and body.size >= self._beacons.size:
            outcome = FragmentOutcome.JOINING  # seed 001: equal or larger asks, the other joins
        if outcome in (FragmentOutcome.JOINING, FragmentOutcome.JOIN_US):
            self._promises = {t: p for t, p in self._promises.items() if p.expires_at > now}
            if len(self._promises) >= PROMISES_MAX:  # whoever was promised is on the way
                outcome = FragmentOutcome.BUSY
        if outcome in (FragmentOutcome.JOINING, FragmentOutcome.JOIN_US):
            assert link.peer is not None
            joins = outcome is FragmentOutcome.JOINING
            self._promises[body.token] = Promise(link.peer, now + self._config.promise_s, joins)
        if outcome is not None:
            self.counts[f"asked: {outcome.name.lower().replace('_', ' ')}"] += 1
            blob = self._beacons.blob if self._beacons.is_fresh(now) else b""
            self._shared.say(link, FragmentTold(blob, self._beacons.size, outcome), id)

    def told(self, link: Link, in_reply_to: int, body: FragmentTold, now: float) -> bool:
        """The peer of a test has answered; false when it was not asked."""
        question = self._questions.get(link.number)
        if question is None or question.id != in_reply_to:
            return False
        del self._questions[link.number]
        self.counts[f"told: {body.outcome.name.lower().replace('_', ' ')}"] += 1
        if body.outcome not in (FragmentOutcome.JOINING, FragmentOutcome.JOIN_US):
            return True
        if self._compare(link, body.beacon, now) is not FragmentOutcome.JOIN_US:
            return True  # meanwhile one fragment; or a beacon that proves nothing
        assert link.peer is not None
        self._shared.out.append(Tell(FragmentFound(link.peer, body.size, self._beacons.size)))
        attempt = self._shared.dial(link.remote, link.peer, Purpose.HEALING, question.token)
        self.attempts[attempt] = body.outcome is FragmentOutcome.JOIN_US
        return True

    def invites(self, token: bytes, peer: PeerId, now: float) -> bool:
        """Whether a peer that quotes this token comes from another fragment, as was agreed, and is
        the first."""
        promise = self._promises.get(token)
        is_agreed = promise is not None and promise.peer == peer and promise.expires_at > now
        return is_agreed and now >= self._not_before

    def neighbour_up(self, link: Link, now: float) -> None:
        """A link between two fragments stands: walk into the other one, if it is us who join."""
        if link.purpose is not Purpose.HEALING:
            return
        self._not_before = now + self._config.pause_s
        self.counts["joined"] += 1
        promise = self._promises.pop(link.token, None) if not link.outbound else None
        joins = promise.joins if promise is not None else self.attempts.get(link.attempt, False)
        if joins:
            self._walks.walk_from(link, self._config.walks, now)

    def opened(self, attempt: int, link: Link, now: float) -> None:
        """A dial into another fragment has succeeded; what became of it is known by now."""
        del self.attempts[attempt]

    def failed(self, attempt: int, ended: Ended, now: float) -> None:
        """A dial into another fragment has failed, or was refused: another node will find it."""
        del self.attempts[attempt]
        self.counts["dial failed"] += 1

    def link_gone(self, link: Link) -> None:
        """A link has ended."""
        self._questions.pop(link.number, None)
        self._answered.discard(link.number)

    def stop(self) -> None:
        """The node is stopping."""
        self.attempts.clear()
        self._questions.clear()
        self._answered.clear()
        self._promises.clear()

    # Steps.

    def _compare(self, link: Link, beacon: bytes, now: float) -> FragmentOutcome | None:
        """What another peer's beacon beside ours says: `SAME`, `BUSY`, or else `JOIN_US`. None: the
        beacon is a lie, and the link is closed for it."""
        if not beacon or not self._beacons.is_fresh(now):
            return FragmentOutcome.SAME
        try:
            theirs = open_beacon(beacon, self._shared.signatures)
        except InvalidRecord as error:
            self._shared.disconnect(link, CloseReason.PROTOCOL, str(error))
            return None
        if self._beacons.is_of_ours(theirs.leader, now):
            return FragmentOutcome.SAME
        is_busy = now < self._not_before or bool(self.attempts)
        if is_busy or not self._membership.has_healing_place:
            return FragmentOutcome.BUSY
        # A key for a beacon costs nothing, so anybody can be of another fragment: hence so few
        # places. Address groups do not count, or two fragments within one would never be joined.
        return FragmentOutcome.JOIN_US
