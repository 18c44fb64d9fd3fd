"""Broadcasts at one node: what comes from neighbours and from the application, and where it goes.
Routes between the machines of this folder, and decides only what concerns several of them.

    publishing --> accept: history, receipts --> tree: pushed to branches
                      ^                        `-> announcing: told to the other neighbours
    a copy --> intake --> origins, work, signature --> ordering --> application
    Have, or a gap --> fetching --> Want          Want --> serving --> copies from the history

A message is decoded and checked against what was seen before its signature is verified, and it is
verified before it is passed on: arriving.py. The machines know nothing of each other; `accept` in
accepting.py is where a broadcast that is new and genuine goes to all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any, ClassVar, Final

from meshwalk.config import Config
from meshwalk.errors import MalformedFrame
from meshwalk.events import Delivery
from meshwalk.identity.keys import Signatures
from meshwalk.proto.broadcast import announcing, fetching, intake, ordering, publishing
from meshwalk.proto.broadcast import receipts as receipts_machine
from meshwalk.proto.broadcast import serving as serving_machine
from meshwalk.proto.broadcast import stem as stem_machine
from meshwalk.proto.broadcast.accepting import deliveries_of
from meshwalk.proto.broadcast.arriving import Arriving
from meshwalk.proto.broadcast.catchingup import CatchingUp
from meshwalk.proto.broadcast.effects import GossipEffect, Pass
from meshwalk.proto.broadcast.history import HeldBroadcast, Id
from meshwalk.proto.broadcast.tree import Branch
from meshwalk.proto.broadcast.trust import Offence
from meshwalk.proto.effects import KeepBroadcast
from meshwalk.proto.overlay.membership import Neighbour
from meshwalk.proto.timers import Timers
from meshwalk.wire.frames import ContentType
from meshwalk.wire.gossip import (
    Broadcast,
    Gone,
    Graft,
    Have,
    Held,
    HistoryWanted,
    Prune,
    Receipt,
    Stem,
    Want,
    decode_gossip,
    pairs_of,
)
from meshwalk.wire.peerid import PeerId
from meshwalk.wire.records import decode_broadcast_payload

TIMERS = frozenset(
    {
        announcing.TIMER,
        fetching.TIMER,
        intake.TIMER,
        ordering.TIMER,
        publishing.TIMER,
        receipts_machine.TIMER,
        serving_machine.TIMER,
        stem_machine.TIMER,
    }
)


MESSAGES_READ_MAX: Final = 65_536  # guess: as many as wait for a reader


class Gossip(Arriving):
    """All machines of broadcasts at one node."""

    def __init__(
        self,
        signatures: Signatures,
        config: Config,
        rng: Random,
        timers: Timers,
        unix_offset_s: float,
        now: float,
    ) -> None:
        super().__init__(signatures, config, rng, timers, unix_offset_s, now)
        now_ms = int((now + unix_offset_s) * 1000)
        self._catching_up = CatchingUp(config, self.history, self.counts, now_ms)

    # The application.

    def publish(
        self, topic: str, content: ContentType, body: bytes, now: float, asks: int = 0
    ) -> tuple[int, list[GossipEffect]]:
        """Send to everyone; returns the message's number too. The caller has checked the size."""
        if asks:
            number, payloads = self.publishing.alone(topic, content, body, now, asks)
        else:
            number, payloads = self.publishing.add(topic, content, body, now)
        for payload in payloads:
            is_last = payload is payloads[-1]
            self.publish_payload(payload, 0, now, number if asks and is_last else None)
        self.counts["messages sent"] += 1
        return number, self.flush()

    def draft(
        self,
        topic: str,
        content: ContentType,
        body: bytes,
        now: float,
        asks: int,
        origin: bytes,
    ) -> bytes:
        """A payload that `publish_draft` will send."""
        if not origin:
            return self.publishing.draft(topic, content, body, now, asks)
        return self.publishing.draft_as(origin, topic, content, body, now)

    def publish_draft(
        self, payload: bytes, work: int, now: float, signature: bytes
    ) -> tuple[int, list[GossipEffect]] | None:
        """Send a payload that was drafted before; None when another went out since. With a
        `signature` it is a private one, signed by a key that is not this node's."""
        if signature:
            self.publish_privately(payload, signature, work, now)
            return 0, self.flush()
        number = self.publishing.take_draft(payload, now)
        if number is None:
            return None
        asks = decode_broadcast_payload(payload).asks
        self.publish_payload(payload, work, now, number if asks else None)
        self.counts["messages sent"] += 1
        return number, self.flush()

    def pause(self, now: float) -> list[GossipEffect]:
        """The application does not read: neighbours are to push nothing, and only to announce."""
        if not self.fetching.is_paused:
            self.fetching.pause()
            self.counts["pauses"] += 1
            for branch in self.tree.branches.values():
                self._prune_all(branch, now)
        return self.flush()

    def resume(self, now: float) -> list[GossipEffect]:
        """It reads again: fetch what was announced, and be in the tree again."""
        if self.fetching.is_paused:
            self.on_fetching(self.fetching.resume(now), now)
            self._graft_if_alone(now)
        return self.flush()

    def leave(self, now: float) -> list[GossipEffect]:
        """The node is stopping: what was gathered goes out."""
        for payload in self.publishing.tick(now):
            self.publish_payload(payload, 0, now)
        self._announce(now)
        self.out += self.ordering.leave()
        return self.flush()

    def catch_up(self, since_ms: int, now: float) -> list[GossipEffect]:
        """Ask neighbours for what was sent since then, those that there are and the next ones."""
        for peer in self._catching_up.want(since_ms, list(self.tree.branches)):
            self._ask_history(peer, now)
        return self.flush()

    def held_since(self, since_ms: int, topics: frozenset[str] | None = None) -> list[Delivery]:
        """What is kept of others' broadcasts, sent from then on, the oldest first and each origin's
        in their order: the newest of them, where there are very many messages."""
        kept = ((id, held) for id, held in self.history.since(since_ms) if not self.is_own(id))
        order: list[tuple[int, Id, HeldBroadcast]] = []
        before: tuple[bytes, int] | None = None
        at_ms = 0
        for id, held in sorted(kept, key=lambda each: each[0]):
            # A clock that was set back does not put an origin's broadcasts out of order.
            at_ms = held.sent_at_ms if id[:2] != before else max(at_ms, held.sent_at_ms)
            before = id[:2]
            order.append((at_ms, id, held))
        order.sort(key=lambda each: each[:2], reverse=True)
        parts: list[list[Delivery]] = []
        room = MESSAGES_READ_MAX
        for _, _, held in order:
            found = deliveries_of(held)
            if topics is not None:
                found = [delivery for delivery in found if delivery.topic in topics]
            parts.append(found)
            room -= len(found)
            if room <= 0:
                break
        return [delivery for part in reversed(parts) for delivery in part]

    def restore(self, kept: Sequence[KeepBroadcast], now: float) -> None:
        """What the store kept, oldest first: known, held for others, and not delivered again."""
        for each in kept:
            self.restored(each, now)
        if kept and self.history.is_full:  # so others have been pushed out, and may come again
            self.origins.forget_before(kept[0].sent_at_ms)
        self.there_since_ms = min(self.there_since_ms, self._catching_up.restored())

    # Neighbours.

    def neighbour_up(self, neighbour: Neighbour, now: float) -> list[GossipEffect]:
        """A link stands."""
        branch = self.tree.add(neighbour, self._config.intake)
        if self.fetching.is_paused:
            self.out.append(Pass((branch.peer,), Prune()))
        elif not self.tree.is_flood and self.tree.eager < self._config.tree.branches_first:
            self.graft(branch, b"")
        self._ask_history(neighbour.peer, now)
        return self.flush()

    def neighbour_down(self, peer: PeerId, now: float) -> list[GossipEffect]:
        """It has ended."""
        if peer not in self.tree.branches:
            return []
        self.tree.remove(peer)
        self.announcing.forget(peer)
        self.intake.forget(peer)
        self.serving.forget(peer)
        self.stems.neighbour_gone(peer)
        self.out += self.receipts.neighbour_gone(peer, now)
        self.on_fetching(self.fetching.neighbour_gone(peer, now), now)
        self._catching_up.neighbour_down(peer)
        self._graft_if_alone(now)
        return self.flush()

    def receive(self, peer: PeerId, body: bytes, sent_at_us: int, now: float) -> list[GossipEffect]:
        """A message about broadcasts from a neighbour. `sent_at_us`: when, by its clock."""
        branch = self.tree.branches.get(peer)
        if branch is None:
            return []
        if not self.intake.allows_link(peer, len(body), now):
            self.blame(peer, Offence.FLOODED, now)
            return self.flush()
        try:
            message = decode_gossip(body)
            if type(message) is Broadcast:
                self.copy_came(branch, message, sent_at_us, now)
            else:
                handler = self._HANDLERS[type(message)]
                handler(self, branch, message, now)
        except MalformedFrame as error:
            self.malformed(peer, str(error), now)
        return self.flush()

    def tick(self, machine: str, what: object, now: float) -> list[GossipEffect]:
        """A deadline of one of the machines has come."""
        if machine == ordering.TIMER:
            assert isinstance(what, bytes)
            self.out += self.ordering.tick(what, now)
        elif machine == announcing.TIMER:
            self._announce(now)
        elif machine == fetching.TIMER:
            assert what is None or isinstance(what, PeerId)
            self.on_fetching(self.fetching.tick(what, now), now)
        elif machine == publishing.TIMER:
            for payload in self.publishing.tick(now):
                self.publish_payload(payload, 0, now)
        elif machine == serving_machine.TIMER:
            assert isinstance(what, PeerId)
            takes = self.tree.branches[what].takes_answer
            self.out += self.serving.tick(what, self._serve, takes, now)
        elif machine == intake.TIMER:
            self.next_turn(now)
        elif machine == stem_machine.TIMER:
            assert isinstance(what, tuple)
            self.embargo_over(what, now)
        else:
            assert isinstance(what, tuple)
            self.out += self.receipts.tick(what, now)
        return self.flush()

    # Messages.

    def _on_have(self, branch: Branch, message: Have, now: float) -> None:
        from_history = message.is_history and self._catching_up.was_asked(branch.peer, now)
        budget = self.window  # numbers that are looked at for one message
        for held in message.held:
            if budget <= 0:
                self.counts["told of too much"] += 1
                break
            if held.origin == self.me:
                continue
            budget = self._note_missing(branch.peer, held, budget, now, from_history)
            if not message.is_history:
                self.compare_ways(branch, held, now)

    def _note_missing(
        self, peer: PeerId, held: Held, budget: int, now: float, from_history: bool
    ) -> int:
        """Note what a neighbour has and this node has not; what is left of the budget."""
        origin, epoch = held.origin, held.epoch
        pairs = pairs_of(held.ranges)
        budget -= self.announcing.knows(peer, (origin, epoch), held.ranges)
        for first, last in pairs:
            for begin, end in self.origins.missing_in(origin, epoch, first, last):
                budget -= 1
                room = min(self.fetching.room_for(peer), budget)
                for number in range(begin, min(end, begin + room - 1) + 1):
                    budget -= 1
                    id = origin, epoch, number
                    self.fetching.told(id, peer, now, from_history=from_history)
                if end - begin >= room:
                    self.counts["not noted"] += end - begin + 1 - max(0, room)
                    return 0
        return budget

    def _on_want(self, branch: Branch, message: Want, now: float) -> None:
        ids: list[Id] = []
        for first, last in pairs_of(message.ranges):
            end = min(last, first + self.serve_numbers_max - len(ids) - 1)
            ids += [(message.origin, message.epoch, n) for n in range(first, end + 1)]
        self.serving.asked(branch.peer, ids, now)

    def _serve(self, peer: PeerId, id: Id, held: HeldBroadcast, now: float) -> Pass:
        self.receipts.adopted(id, peer, now)
        branch = self.tree.branches[peer]
        branch.answered(len(held.payload) + self._config.intake.cost_bytes)
        return Pass((peer,), held.copy(self.marks_for(branch, id[0], held)))

    def _on_gone(self, branch: Branch, message: Gone, now: float) -> None:
        origin = message.origin, message.epoch
        for first, last in pairs_of(message.ranges):
            effects = self.fetching.gone(branch.peer, origin, first, last, now)
            self.on_fetching(effects, now)

    def _on_graft(self, branch: Branch, message: Graft, now: float) -> None:
        if self.fetching.is_paused:
            self.prune(branch, message.scope, now)
        elif self._is_scope(message.scope):
            self.tree.graft(branch, message.scope, by_us=False)

    def _on_prune(self, branch: Branch, message: Prune, now: float) -> None:
        if self._is_scope(message.scope):
            self.tree.prune(branch, message.scope, now)
            self.counts["pruned by others"] += 1

    def _on_history_wanted(self, branch: Branch, message: HistoryWanted, now: float) -> None:
        if not self._catching_up.may_ask(branch.peer, now):
            return
        oldest_ms = self._catching_up.oldest_ms(int((now + self.unix_offset_s) * 1000))
        told = self.history.told_since(message.since_ms, message.digests, oldest_ms)
        for have in self.announcing.in_messages(told):
            self.out.append(Pass((branch.peer,), Have(have.held, is_history=True)))

    def _on_receipt(self, branch: Branch, message: Receipt, now: float) -> None:
        self.out += self.receipts.heard(branch.peer, message, now)

    def _on_stem(self, branch: Branch, message: Stem, now: float) -> None:
        self.stem_came(branch, message, now)

    _HANDLERS: ClassVar[dict[type, Callable[[Gossip, Branch, Any, float], None]]] = {
        Have: _on_have,
        Want: _on_want,
        Gone: _on_gone,
        Graft: _on_graft,
        Prune: _on_prune,
        HistoryWanted: _on_history_wanted,
        Receipt: _on_receipt,
        Stem: _on_stem,
    }

    # What the above share.

    def _is_scope(self, scope: bytes) -> bool:
        """Whether it is about somebody heard of: else anybody could fill the table of trees."""
        return not scope or scope == self.me or scope in self.origins

    def _ask_history(self, peer: PeerId, now: float) -> None:
        unix_ms = int((now + self.unix_offset_s) * 1000)
        self.out.append(Pass((peer,), self._catching_up.question(peer, unix_ms, now)))

    def _announce(self, now: float) -> None:
        takes_more = {peer: branch.takes_more for peer, branch in self.tree.branches.items()}
        for peer, have in self.announcing.tick(takes_more, now):
            self.out.append(Pass((peer,), have))

    def _graft_if_alone(self, now: float) -> None:
        branch = self.tree.best_to_graft()
        if branch is not None and not self.fetching.is_paused:
            self.graft(branch, b"")

    def _prune_all(self, branch: Branch, now: float) -> None:
        for scope in self.tree.scopes_of(branch):
            self.prune(branch, scope, now)
