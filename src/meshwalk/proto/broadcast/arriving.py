"""Copies as they come: checked, and told apart from those that came before.

A message is decoded and checked against what was seen before its signature is verified, and it is
verified before it is passed on. The middle part of `Gossip`.
"""

from __future__ import annotations

from typing import Final

from meshwalk.errors import InvalidRecord, MalformedFrame
from meshwalk.proto.broadcast.accepting import Accepting
from meshwalk.proto.broadcast.effects import Blame, Pass
from meshwalk.proto.broadcast.history import HeldBroadcast, Id
from meshwalk.proto.broadcast.intake import Turn
from meshwalk.proto.broadcast.tree import Branch
from meshwalk.proto.broadcast.trust import Offence
from meshwalk.proto.broadcast.work import is_worked
from meshwalk.wire.frames import CloseReason
from meshwalk.wire.gossip import MARK_REPAIRED, Broadcast, Held, HopSeen, Prune, Stem
from meshwalk.wire.records import (
    ASKS_RECEIPT,
    ASKS_TRACE,
    NUMBER_MAX,
    BroadcastHead,
    BroadcastPayload,
    Domain,
    decode_broadcast_head,
    decode_broadcast_payload,
)

FRESH_S: Final = 60.0  # guess: a network in which something is said has said something by then
PRUNED_GRACE_S: Final = 5.0  # guess: what was on its way when a link was pruned has come by then
TUNE_EVERY_S: Final = 1.0  # guess: a new branch shows what it is worth before the next is made


class Arriving(Accepting):
    """What comes of copies at one node."""

    # Copies.

    def copy_came(self, branch: Branch, copy: Broadcast, sent_at_us: int, now: float) -> None:
        """A copy from a neighbour. Raises `MalformedFrame`."""
        self.counts["copies"] += 1
        self.fetching.pushed(branch.peer, now)
        head = self._head_of(copy.payload)
        if self._is_news(branch, copy, head, now):
            self._offer(branch, copy, head, sent_at_us, now)

    def stem_came(self, branch: Branch, stem: Stem, now: float) -> None:
        """A broadcast that does not spread yet. Raises `MalformedFrame`."""
        self.counts["stems"] += 1
        head = self._head_of(stem.payload)
        if self.origins.why_not(head, now) is None and head.origin != self.me:
            self._offer(branch, stem, head, 0, now)

    def next_turn(self, now: float) -> None:
        """Check some of what waits."""
        for peer, (copy, head, sent_at_us) in self.intake.tick(now):
            branch = self.tree.branches[peer]
            try:
                if isinstance(copy, Stem):
                    if self.origins.why_not(head, now) is None:
                        self._check(branch, copy, head, 0, now)
                elif self._is_news(branch, copy, head, now):
                    self._check(branch, copy, head, sent_at_us, now)
            except MalformedFrame as error:
                self.malformed(peer, str(error), now)

    def embargo_over(self, id: Id, now: float) -> None:
        """One that this node passed on along a stem has not been seen to spread."""
        stem = self.stems.tick(id, now)
        if stem is not None:
            head = decode_broadcast_head(stem.payload)
            self.counts["stems that ended nowhere"] += 1
            if self.origins.why_not(head, now) is None:
                self.begin(stem, head, now)

    def marks_for(self, branch: Branch, origin: bytes, held: HeldBroadcast) -> int:
        """How one is marked that a neighbour has asked for."""
        is_branch = self.tree.is_eager(branch, origin)
        return MARK_REPAIRED if held.was_repaired or not is_branch else 0

    # Checks.

    def _head_of(self, payload: bytes) -> BroadcastHead:
        try:
            return decode_broadcast_head(payload)
        except InvalidRecord as error:
            raise MalformedFrame(str(error)) from None

    def _is_news(self, branch: Branch, copy: Broadcast, head: BroadcastHead, now: float) -> bool:
        if head.origin == self.me:
            self.counts["own"] += 1
            self._repeated(branch, copy, head, now)
            return False
        why = self.origins.why_not(head, now)
        if why is None:
            return True
        self.counts[why] += 1
        if why == "repeated":
            self._repeated(branch, copy, head, now)
            return False
        if why == "stale" and self._is_blameworthy(head, now):
            self.blame(branch.peer, Offence.STALE, now)
        self.fetching.refused((head.origin, head.epoch, head.sequence))
        return False

    def _is_blameworthy(self, head: BroadcastHead, now: float) -> bool:
        """Whether one that is stale is the fault of who sent it: far out, while others are not, so
        that it is not this node's clock that is wrong; and not asked for."""
        is_fresh = now < self.accepted_at + FRESH_S
        is_asked = self.fetching.is_asked((head.origin, head.epoch, head.sequence))
        return is_fresh and not is_asked and self.origins.is_far_out(head.sent_at_ms, now)

    def _repeated(self, branch: Branch, copy: Broadcast, head: BroadcastHead, now: float) -> None:
        """It has come before: the link that brought it is no branch of the tree."""
        id = head.origin, head.epoch, head.sequence
        if id in self.receipts:
            self.out += self.receipts.repeated(id, branch.peer)
        if self.tree.is_flood:
            return
        if copy.marks & MARK_REPAIRED:
            if not self.tree.is_pushed_by(branch, head.origin):
                self._mind_unwanted(branch, id, now)
            return
        self.fetching.came_by_tree(id, now)
        held = self.history.get(id)
        if held is not None and held.payload != copy.payload:
            # Its origin says different things to different peers: no sign of a circle.
            self.counts["two of one number"] += 1
        elif not self.tree.is_pushed_by(branch, head.origin):
            self._mind_unwanted(branch, id, now)
        elif held is not None and not held.was_repaired and held.source != branch.peer:
            self.prune(branch, self.tree.scope_to_prune(branch, head.origin, held.source), now)

    def _mind_unwanted(self, branch: Branch, id: Id, now: float) -> None:
        """A copy that nobody wanted: tell the neighbour again, which may not know, and from then on
        hold it against it."""
        if self.fetching.was_asked_for(id) or now <= branch.pruned_at + PRUNED_GRACE_S:
            return
        if branch.reminded_at > branch.pruned_at and now > branch.reminded_at + PRUNED_GRACE_S:
            self.blame(branch.peer, Offence.UNWANTED, now)
        elif branch.reminded_at <= branch.pruned_at:
            branch.reminded_at = now
            scopes = (b"", id[0]) if self.tree.has_own(id[0]) else (b"",)
            self.out += [Pass((branch.peer,), Prune(scope)) for scope in scopes]

    def _is_genuine(
        self, branch: Branch, copy: Broadcast | Stem, head: BroadcastHead, now: float
    ) -> BroadcastPayload | None:
        """Check work and signature, and read the rest. Raises `MalformedFrame`."""
        if not is_worked(copy.payload, copy.work, self._config.broadcast.difficulty):
            self.counts["without work"] += 1
            self.blame(branch.peer, Offence.UNWORKED, now)
            return None
        if not self._signatures.verify(Domain.BROADCAST, head.origin, copy.signature, copy.payload):
            self.counts["forged"] += 1
            self.trust.blame(branch.peer, Offence.FORGED, now)
            text = "a broadcast with a false signature"
            self.out.append(Blame(branch.peer, CloseReason.PROTOCOL, text))
            return None
        known = self.origins.get(head.origin, head.epoch)
        id = head.origin, head.epoch, head.sequence
        if known is None:
            if head.origin not in self.origins and not self.intake.allows_newcomer(
                branch.peer, now
            ):
                self._put_off(branch, copy, id, now)
                return None
        elif not self.intake.allows_origin(known, len(copy.payload), now):
            if branch.peer == head.origin:
                self.blame(branch.peer, Offence.FLOODED, now)
            self._put_off(branch, copy, id, now)
            return None
        try:
            payload = decode_broadcast_payload(copy.payload)
        except InvalidRecord as error:
            raise MalformedFrame(str(error)) from None
        if max(len(m.body) for m in payload.messages) > self._config.broadcast.body_bytes_max:
            self.counts["too big"] += 1
            self.fetching.refused(id)
            return None
        return payload

    def _offer(
        self,
        branch: Branch,
        copy: Broadcast | Stem,
        head: BroadcastHead,
        sent_at_us: int,
        now: float,
    ) -> None:
        item = copy, head, sent_at_us
        turn = self.intake.offer(branch.peer, item, len(copy.payload), now)
        if turn is Turn.NOW:
            self._check(branch, copy, head, sent_at_us, now)
        elif turn is Turn.NEVER:
            self._put_off(branch, copy, (head.origin, head.epoch, head.sequence), now)

    def _put_off(self, branch: Branch, copy: Broadcast | Stem, id: Id, now: float) -> None:
        """There is no room for it now. Nobody can be asked for what does not spread yet."""
        if isinstance(copy, Broadcast):
            self.fetching.delayed(id, branch.peer, now)

    def _check(
        self,
        branch: Branch,
        copy: Broadcast | Stem,
        head: BroadcastHead,
        sent_at_us: int,
        now: float,
    ) -> None:
        payload = self._is_genuine(branch, copy, head, now)
        if payload is None:
            return
        self.accepted_at = now
        if isinstance(copy, Stem):
            self._stem_goes_on(branch, copy, head, now)
            return
        link = branch.neighbour.link
        hop = None
        if payload.asks & ASKS_TRACE and self._config.broadcast.answers_traces:
            took_s = now - link.peer_epoch_s - sent_at_us / 1e6
            hop = HopSeen(
                self.me,
                bytes(branch.peer),
                copy.hops,
                min(max(0, int(took_s * 1e6)), NUMBER_MAX),
                int((link.round_trips.mean_s or 0.0) * 1e6),
                bool(copy.marks & MARK_REPAIRED),
            )
        children = self.accept(head, payload, copy, branch, now)
        if payload.asks & (ASKS_RECEIPT | ASKS_TRACE):
            id = head.origin, head.epoch, head.sequence
            is_traced = bool(payload.asks & ASKS_TRACE)
            self.out += self.receipts.came(
                id, branch.peer, children, hop, copy.hops, now, is_traced=is_traced
            )

    def _stem_goes_on(self, branch: Branch, stem: Stem, head: BroadcastHead, now: float) -> None:
        id = head.origin, head.epoch, head.sequence
        step = self.stems.heard(id, stem, branch.peer, list(self.tree.branches), now)
        if step is None:
            self.begin(stem, head, now)
        else:
            self.out.append(Pass((step[0],), step[1]))

    def compare_ways(self, branch: Branch, held: Held, now: float) -> None:
        """A neighbour has told of what this node has, too: would it have come sooner that way?"""
        if self.tree.is_flood or self.tree.is_pushed_by(branch, held.origin):
            return
        mine = self.history.get((held.origin, held.epoch, held.ranges[-1]))
        known = self.origins.get(held.origin, held.epoch)
        if mine is None or mine.was_repaired or known is None:
            return
        hops, way_us = held.hops + 1, branch.way_us(held.way_us)
        if known.came < self._own_tree_after:
            # The shared tree is moved only where repairs have left a long way round.
            if hops + self._shorter_by <= mine.hops and now >= self.tree.tuned_at + TUNE_EVERY_S:
                self.tree.tuned_at = now
                self.counts["shared branches moved"] += 1
                self.graft(branch, b"")
            return
        is_better = self.tree.is_better(way_us, hops, mine.way_us, mine.hops)
        if is_better and now >= known.tuned_at + TUNE_EVERY_S:
            known.tuned_at = now
            self.counts["branches moved"] += 1
            self.graft(branch, held.origin)
