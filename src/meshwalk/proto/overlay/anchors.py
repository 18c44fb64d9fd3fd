"""Anchors: neighbours that a node goes back to when it has lost its place.

Bitcoin Core keeps two connections across a restart, so that whoever has filled the address book
meanwhile does not choose all the links of a node that comes back (Heilman et al., USENIX Security
2015, countermeasure "anchor connections"). Here the neighbours that have stayed longest, of as many
address groups as there are, are noted every minute; after a start, and after waking with no links
left, they are dialled directly, without a walk. They let in whom they have been linked to before,
while there is room. Whoever wakes may learn only by pings that its links are dead: so what counts
is that the last one ends before a silent one would have been given up.
"""

from __future__ import annotations

from collections import Counter

from meshwalk.proto.link import Ended, Link
from meshwalk.proto.overlay.groups import address_group
from meshwalk.proto.overlay.shared import Shared
from meshwalk.wire.frames import Purpose
from meshwalk.wire.peerid import PeerId

TIMER = ("overlay", "anchors")
NOTED_EVERY_S = 60.0  # guess: a crash then loses a minute of what changes over hours


class Anchors:
    """The anchors of one node."""

    def __init__(self, shared: Shared) -> None:
        self.attempts: dict[int, PeerId] = {}
        """Dials to anchors under way, by the number of the attempt."""
        self.counts: Counter[str] = Counter()
        """What came of dialling anchors."""
        self._shared = shared
        self._waking_until = float("-inf")
        """When it is known which links have outlasted the time that passed unseen."""

    def start(self, now: float) -> None:
        """The node has started: go back to whom it was linked to."""
        self._dial_all()
        self._shared.timers.set(TIMER, now + NOTED_EVERY_S)

    def woke(self, now: float) -> None:
        """Time has passed unseen: if that costs all links, go back."""
        self._waking_until = now + self._shared.config.link.idle_timeout_s
        self.link_gone(now)

    def link_gone(self, now: float) -> None:
        """A link has ended: if that was the last, and what was slept through is why, go back."""
        if now <= self._waking_until and not self._shared.membership.neighbours:
            self._waking_until = float("-inf")
            self._dial_all()

    def may_return(self, peer: PeerId) -> bool:
        """Whether a peer that was linked to this node before may be so again.

        No more than a node has anchors: whoever was only tested counts as linked before, and many
        attackers could take all places of a node that has just started (docs/experiments.md).
        """
        entry = self._shared.book.entries.get(peer)
        membership = self._shared.membership
        returned = sum(
            neighbour.link.purpose is Purpose.RETURNING and not neighbour.link.outbound
            for neighbour in membership.neighbours.values()
        )
        is_known = entry is not None and entry.position > 0
        return is_known and returned < self._shared.config.book.anchors and membership.has_room

    def opened(self, attempt: int, link: Link, now: float) -> None:
        """An anchor has let us in."""
        del self.attempts[attempt]
        self.counts["returned"] += 1

    def failed(self, attempt: int, ended: Ended, now: float) -> None:
        """An anchor is not there, or does not let us in."""
        peer = self.attempts.pop(attempt)
        self.counts["failed" if ended.reason is None else "refused"] += 1
        if ended.reason is None and not ended.by_us:
            self._shared.out += self._shared.book.failed(peer, now)

    def tick(self, now: float) -> None:
        """The timer of this machine has come due."""
        self.note()
        self._shared.timers.set(TIMER, now + NOTED_EVERY_S)

    def note(self) -> None:
        """Note whom to go back to: those linked longest that can be dialled, of different groups
        first. With no link left, what was noted before stays."""
        neighbours = list(self._shared.membership.neighbours.values())
        if not neighbours:
            return
        book, config = self._shared.book, self._shared.config.book
        # Those that chance chose come first: whoever came by another way may have meant to.
        neighbours.sort(key=lambda n: (not n.is_random, n.link.since))
        first: list[PeerId] = []
        others: list[PeerId] = []
        groups: set[str] = set()
        for neighbour in neighbours:
            entry = book.entries.get(neighbour.peer)
            if entry is None or not entry.verified:
                continue
            group = address_group(neighbour.link.remote, config)
            (others if group in groups else first).append(neighbour.peer)
            groups.add(group)
        self._shared.out += book.note_anchors([*first, *others][: config.anchors])

    def stop(self) -> None:
        """The node is stopping: the last word on whom to go back to."""
        self.note()
        self.attempts.clear()
        self._shared.timers.cancel(TIMER)

    def _dial_all(self) -> None:
        for entry in self._shared.book.anchors():
            addresses = entry.to_try(1)
            if addresses and not self._shared.membership.knows(entry.peer):
                self.counts["dialled"] += 1
                attempt = self._shared.dial(addresses[0], entry.peer, Purpose.RETURNING)
                self.attempts[attempt] = entry.peer
