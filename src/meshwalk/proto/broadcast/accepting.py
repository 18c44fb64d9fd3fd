"""What is accepted: kept, handed over, passed on; and what repairs want. The base of `Gossip`.

Whatever is new and genuine comes to `accept`: own broadcasts, copies that arriving.py has checked,
and those that begin to spread here, at the end of a stem.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from random import Random
from typing import Final, TypeAlias

from meshwalk.config import Config
from meshwalk.events import Delivery
from meshwalk.identity.keys import Signatures
from meshwalk.proto.broadcast.announcing import Announcing
from meshwalk.proto.broadcast.effects import Blame, GossipEffect, Pass
from meshwalk.proto.broadcast.fetching import Ask, FetchEffect, Fetching, PromiseBroken
from meshwalk.proto.broadcast.history import HeldBroadcast, History, Id
from meshwalk.proto.broadcast.intake import Intake
from meshwalk.proto.broadcast.ordering import Ordering
from meshwalk.proto.broadcast.origins import Origins
from meshwalk.proto.broadcast.publishing import Publishing
from meshwalk.proto.broadcast.receipts import Receipts
from meshwalk.proto.broadcast.serving import Serving
from meshwalk.proto.broadcast.stem import Stems
from meshwalk.proto.broadcast.tree import Branch, Tree
from meshwalk.proto.broadcast.trust import Offence, Trust
from meshwalk.proto.effects import BroadcastsMissed, KeepBroadcast
from meshwalk.proto.timers import Timers
from meshwalk.wire.frames import CloseReason
from meshwalk.wire.gossip import (
    MARK_REPAIRED,
    RANGES_MAX,
    Broadcast,
    Graft,
    Prune,
    Stem,
    Want,
    ranges_of,
)
from meshwalk.wire.peerid import PeerId
from meshwalk.wire.records import (
    ASKS_TRACE,
    BroadcastHead,
    BroadcastPayload,
    Domain,
    decode_broadcast_head,
    decode_broadcast_payload,
    peer_id_of,
)

PSEUDONYMS_MAX: Final = 1024  # guess: own private broadcasts that others may still keep
GAP_NUMBERS_MAX: Final = 64  # guess: one question; what is missing beyond it is announced as well

Item: TypeAlias = tuple[Broadcast | Stem, BroadcastHead, int]
"""A copy that waits to be checked; and when it was sent, by the neighbour's clock."""


def deliveries_of(held: HeldBroadcast) -> list[Delivery]:
    """What an application gets of one that is kept."""
    return _deliveries(decode_broadcast_payload(held.payload), held.hops)


def _deliveries(payload: BroadcastPayload, hops: int, *, is_past: bool = False) -> list[Delivery]:
    origin = peer_id_of(payload.origin)
    sent_at = payload.sent_at_ms / 1000
    return [
        Delivery(
            origin,
            message.body,
            message.content,
            is_broadcast=True,
            topic=message.topic,
            hops=hops,
            sequence=number,
            sent_at=sent_at,
            is_past=is_past,
        )
        for number, message in enumerate(payload.messages, payload.first)
    ]


class Accepting:
    """All machines of broadcasts at one node, and what is accepted."""

    def __init__(
        self,
        signatures: Signatures,
        config: Config,
        rng: Random,
        timers: Timers,
        unix_offset_s: float,
        now: float,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self.out: list[GossipEffect] = []
        self.me = bytes(signatures.peer_id)
        self._signatures = signatures
        self._config = config
        self.window = config.broadcast.window
        self.serve_numbers_max = config.tree.serve_numbers_max
        self._own_tree_after = config.tree.own_tree_after
        self._shorter_by = config.tree.shorter_by_hops
        counts = self.counts
        self.publishing = Publishing(signatures, config, timers, unix_offset_s, now)
        self.origins = Origins(config.broadcast, counts, unix_offset_s)
        self.ordering = Ordering(config.broadcast, timers, counts)
        self.history = History(config.history)
        self.tree = Tree(config.tree, config.broadcast.spreading)
        self.announcing = Announcing(config.tree, self.history, timers, counts)
        self.fetching = Fetching(config.tree, timers, counts)
        self.serving = Serving(config.tree, self.history, timers, counts)
        self.intake: Intake[Item] = Intake(config.intake, timers, counts)
        self.trust = Trust(config.trust)
        self.stems = Stems(config.stem, rng, timers)
        self.there_since_ms = int((now + unix_offset_s) * 1000)
        """What was sent before is the past, for an application that does not ask for it."""
        self.accepted_at = float("-inf")
        """When a copy was last found to be good."""
        self.pseudonyms: dict[bytes, None] = {}
        """Keys of own private broadcasts, the oldest first."""
        self.receipts = Receipts(config.broadcast, signatures.peer_id, timers)

    def flush(self) -> list[GossipEffect]:
        """What is to be done, in order."""
        out = self.out
        self.out = []
        return out

    @property
    def unix_offset_s(self) -> float:
        """What makes machine time Unix time."""
        return self.origins.unix_offset_s

    def calendar_set(self, unix_offset_s: float) -> None:
        """Unix time is machine time plus this from here on."""
        self.publishing.unix_offset_s = self.origins.unix_offset_s = unix_offset_s

    def blame(self, peer: PeerId, offence: Offence, now: float) -> None:
        """Hold something against a neighbour; at the limit it loses its link."""
        if self.trust.blame(peer, offence, now):
            text = f"too much is held against it: {offence.name.lower().replace('_', ' ')}"
            if offence is Offence.UNWORKED:
                text = "its broadcasts lack the proof of work that is demanded here (difficulty)"
            self.out.append(Blame(peer, CloseReason.DISTRUSTED, text))

    def malformed(self, peer: PeerId, text: str, now: float) -> None:
        """A neighbour said what cannot be read: its link ends, and soon it is refused."""
        self.counts["malformed"] += 1
        self.trust.blame(peer, Offence.FORGED, now)
        self.out.append(Blame(peer, CloseReason.MALFORMED, text))

    # Own broadcasts.

    def publish_payload(
        self, payload: bytes, work: int, now: float, number: int | None = None
    ) -> None:
        """Sign a payload of this node and send it. `number`: of one that asks for receipts."""
        signature = self._signatures.sign(Domain.BROADCAST, payload)
        head = decode_broadcast_head(payload)
        id = head.origin, head.epoch, head.sequence
        self.counts["sent"] += 1
        held = HeldBroadcast(payload, signature, work, head.sent_at_ms, 0, 0, False, now, None)
        children = self._hold_and_spread(id, held, None, now)
        if number is not None:
            is_traced = bool(decode_broadcast_payload(payload).asks & ASKS_TRACE)
            self.out += self.receipts.own(id, number, children, now, is_traced=is_traced)

    def publish_privately(self, payload: bytes, signature: bytes, work: int, now: float) -> None:
        """Send what a one-time key has signed along a stem, or spread it from here."""
        stem = Stem(payload, signature, work)
        head = decode_broadcast_head(payload)
        id = head.origin, head.epoch, head.sequence
        self.counts["sent privately"] += 1
        self.pseudonyms[id[0]] = None
        if len(self.pseudonyms) > PSEUDONYMS_MAX:
            del self.pseudonyms[next(iter(self.pseudonyms))]
        step = self.stems.begin(id, stem, list(self.tree.branches), now)
        if step is None:
            self.begin(stem, head, now)
        else:
            self.out.append(Pass((step[0],), step[1]))

    def restored(self, kept: KeepBroadcast, now: float) -> None:
        """One that the store kept."""
        head = BroadcastHead(kept.origin, kept.epoch, kept.sequence, kept.sent_at_ms)
        id = kept.origin, kept.epoch, kept.sequence
        if kept.origin == self.me:
            # Also after its clock was set back, a new run is a new epoch.
            self.publishing.epoch = max(self.publishing.epoch, kept.epoch + 1)
        else:
            if self.origins.why_not(head, now) is not None:
                return
            is_first = self.origins.get(kept.origin, kept.epoch) is None
            self.origins.note(head, now)
            if is_first:  # what came before it is kept no more, and may have been handed over
                self.origins.count_older_as_seen(*id)
            self.ordering.begins_behind(*id)
        held = HeldBroadcast(
            kept.payload, kept.signature, kept.work, kept.sent_at_ms, 0, 0, True, now, None
        )
        self.history.hold(id, held)

    def is_own(self, id: Id) -> bool:
        """Whether it is this node's, under its own name or another."""
        return id[0] == self.me or id[0] in self.pseudonyms

    # Others' broadcasts.

    def accept(
        self,
        head: BroadcastHead,
        payload: BroadcastPayload,
        copy: Broadcast,
        source: Branch | None,
        now: float,
    ) -> tuple[PeerId, ...]:
        """A broadcast that is new and genuine: to whom it was passed on. `source` is None where it
        begins to spread."""
        id = head.origin, head.epoch, head.sequence
        missing = self.fetching.came(id, now)
        was_asked_for = missing is not None and missing.asked is not None
        is_known = head.origin in self.origins
        before = self.origins.get(head.origin, head.epoch)
        # Of a new epoch it is certain that it began with 1; of an origin unheard of nothing is.
        highest = head.sequence if not is_known else 0
        if before is not None:
            highest = before.seen.highest
        known, skipped, forgotten = self.origins.note(head, now)
        if skipped and is_known:
            self.counts["missed"] += skipped
            self.out.append(BroadcastsMissed(peer_id_of(head.origin), skipped))
        if forgotten is not None:
            self.out += self.ordering.forget(forgotten)
        if missing is None or not missing.from_history:
            known.late.note(now, was_late=was_asked_for)
            self.tree.late.note(now, was_late=was_asked_for)
        self.counts["delivered"] += 1
        self.counts["messages delivered"] += len(payload.messages)
        self.stems.spreads(id)
        if id[0] not in self.pseudonyms:  # else the application knows what it has said
            is_past = (
                missing is not None
                and missing.from_history
                and head.sent_at_ms < self.there_since_ms
            )
            deliveries = _deliveries(payload, copy.hops, is_past=is_past)
            first = id[2] if self.ordering.has_line(*id[:2]) else self._line_begins(id, highest)
            self.out += self.ordering.arrived(*id, deliveries, len(copy.payload), first, now)
        held = HeldBroadcast(
            copy.payload,
            copy.signature,
            copy.work,
            head.sent_at_ms,
            copy.hops,
            source.way_us(copy.way_us) if source is not None else 0,
            bool(copy.marks & MARK_REPAIRED),
            now,
            source.peer if source is not None else None,
        )
        is_detour = held.was_repaired or self.tree.is_moved(head.origin, held.source)
        # Who brought the last ones has pushed this one already, or soon will.
        parent = known.parent if is_detour else None
        if source is not None and not held.was_repaired:
            known.parent = source.peer
        had_by = missing.had_by if missing is not None else ()
        children = self._hold_and_spread(id, held, source, now, had_by=had_by, told_only=parent)
        if missing is not None and missing.asked is not None:
            self.on_fetching(self.fetching.more(missing.asked, now), now)
        if source is not None and head.sequence > highest + 1:
            self._mind_gap(source.peer, id, highest + 1, now)
        return children

    def begin(self, stem: Stem, head: BroadcastHead, now: float) -> None:
        """A private broadcast begins to spread here."""
        copy = Broadcast(stem.payload, stem.signature, 0, 0, 0, stem.work)
        self.accept(head, decode_broadcast_payload(stem.payload), copy, None, now)

    def _line_begins(self, id: Id, highest: int) -> int:
        """With which number an origin's line begins, if this is the first of it that is handed
        over: before it, if a neighbour has told of smaller ones that are yet to be fetched."""
        lowest = self.fetching.lowest_of(id[:2])
        first = highest + 1 if highest < id[2] else id[2]
        return min(first, lowest) if lowest is not None else first

    def _mind_gap(self, peer: PeerId, id: Id, first: int, now: float) -> None:
        """Numbers before this one have not come: the peer that brought it has them, too, unless
        their origin never sent them. So few are asked for at a time, the newest; others tell of
        the rest if there are any."""
        room = GAP_NUMBERS_MAX - self.fetching.missing_of(id[:2])
        room = min(room, self.fetching.room_for(peer))
        first = max(first, id[2] - max(0, room))
        for number in range(first, id[2]):
            self.fetching.told((id[0], id[1], number), peer, now, is_gap=True)

    def _hold_and_spread(
        self,
        id: Id,
        held: HeldBroadcast,
        source: Branch | None,
        now: float,
        *,
        had_by: Collection[PeerId] = (),
        told_only: PeerId | None = None,
    ) -> tuple[PeerId, ...]:
        """Keep it, and pass it on: to whom it was pushed. `had_by` need not be told."""
        self.history.hold(id, held)
        self.out.append(
            KeepBroadcast(*id, held.sent_at_ms, held.payload, held.signature, held.work)
        )
        origin, tree, announcing = id[0], self.tree, self.announcing
        size = len(held.payload) + self._config.intake.cost_bytes
        pushed: list[PeerId] = []
        for branch in tree.branches.values():
            if branch is source or branch.peer in had_by:
                continue
            is_branch = branch.peer != told_only and tree.is_eager(branch, origin)
            if tree.is_flood or (is_branch and branch.takes(size, now)):
                pushed.append(branch.peer)
            else:
                announcing.add(branch.peer, id, now)
        children = tuple(pushed)
        if children:
            self.out.append(Pass(children, held.copy(MARK_REPAIRED if held.was_repaired else 0)))
        return children

    # What repairs want.

    def on_fetching(self, effects: list[FetchEffect], now: float) -> None:
        """Ask, blame, or tell what nobody has."""
        for effect in effects:
            if type(effect) is Ask:
                self._ask(effect, now)
            elif type(effect) is PromiseBroken:
                is_lie = not effect.is_withdrawn
                offence = Offence.PROMISE_BROKEN if is_lie else Offence.FLOODED
                self.blame(effect.peer, offence, now)
            else:
                missed: Counter[bytes] = Counter()
                for origin, epoch, number in effect.ids:
                    # Of one that nobody has ever heard of it may be a lie.
                    if self.origins.get(origin, epoch) is not None:
                        missed[origin] += 1
                        self.out += self.ordering.gone(origin, epoch, number, now)
                for origin, count in missed.items():
                    self.out.append(BroadcastsMissed(peer_id_of(origin), count))

    def _ask(self, ask: Ask, now: float) -> None:
        wanted: dict[tuple[bytes, int], list[int]] = {}
        grafts: set[bytes] = set()
        for id in ask.ids:
            wanted.setdefault(id[:2], []).append(id[2])
            if not ask.from_history:
                known = self.origins.get(id[0], id[1])
                late = known.late if known is not None else None
                scope = self.tree.scope_to_graft(id[0], late, now)
                if scope is not None:
                    grafts.add(scope)
        branch = self.tree.branches[ask.peer]
        for scope in grafts:
            if not self.tree.is_pushed_by(branch, scope):
                self.graft(branch, scope)
        for (origin, epoch), numbers in wanted.items():
            ranges = ranges_of(numbers)
            for start in range(0, len(ranges), 2 * RANGES_MAX):
                part = ranges[start : start + 2 * RANGES_MAX]
                self.out.append(Pass((ask.peer,), Want(origin, epoch, part)))

    def graft(self, branch: Branch, scope: bytes) -> None:
        """Make a neighbour push to this node, and push to it."""
        self.tree.graft(branch, scope, by_us=True)
        self.counts["grafts"] += 1
        self.out.append(Pass((branch.peer,), Graft(scope)))

    def prune(self, branch: Branch, scope: bytes, now: float) -> None:
        """Have a neighbour only tell of what it has, and do the same."""
        self.tree.prune(branch, scope, now)
        self.counts["prunes"] += 1
        self.out.append(Pass((branch.peer,), Prune(scope)))
