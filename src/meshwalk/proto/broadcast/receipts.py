"""How many peers have a broadcast whose origin asked: counts that add up on the way back.

    origin                  "7 have it, and that is all"
     |-- a   1 + 2 + 0      itself, and what those say that it passed the broadcast on to
     |    |-- c   1 + 1
     |    |    `-- d   1    a leaf answers at once
     |    `-- e   0         had it already, by way of f, and counts there
     `-- b   1 + 3
          `-- f   1 + 2
               |-- e   1
               `-- g   1

A node waits for those that it passed the broadcast on to, adds what they say, and tells the one
from whom the broadcast first came. First deliveries make a tree, so nobody is counted twice; who
gets it a second time says so at once (`repeated`), and is not waited for. What comes after a node
has told, since a neighbour was slow or had to ask for the broadcast (`adopted`), is told as so many
more. So for an origin that reads on, a count grows until it is right. What is lost with a link, or
forgotten, makes it too low. With a `HopSeen` in it, a receipt also tells how a traced one came.

A child must have answered before its parent gives up, so the wait is the shorter the further from
the origin: `confirm_timeout_s` there, a sixteenth of it less at each hop, and a sixteenth from hop
15 on. With 5 s that leaves each link 0.3 s there and back, and the wait of an origin covers 15 such
hops. Deeper trees, or slower links, are late and not lost.

A neighbour can claim any count, and make up hops of peers that never were: nothing in a receipt is
signed. What is certain is this: only neighbours that were sent the broadcast are heard; a node
tells of at most `PEERS_MAX` peers and `HOPS_MAX` hops for one broadcast; hops are taken only of one
that is traced. So a count says what a network of honest peers knows of itself, and proves nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final, TypeAlias

import msgspec

from meshwalk.config import BroadcastConfig
from meshwalk.proto.broadcast.effects import GossipEffect, Pass
from meshwalk.proto.effects import ReceiptCame
from meshwalk.proto.timers import Timers
from meshwalk.wire.gossip import HOPS_SEEN_MAX, HopSeen, Receipt
from meshwalk.wire.peerid import PeerId

TIMER: Final = "receipts"
HOPS_WAITED: Final = 16  # guess: trees of 100,000 nodes with six links each are half as deep
GATHER_S: Final = 0.1  # guess: what comes late is told ten times a second; nobody waits for it
KEPT_TIMEOUTS: Final = 2  # guess: as long again as the origin waits, for what comes late
PEERS_MAX: Final = 1_000_000  # guess: ten times the largest network; what a liar can add
HOPS_MAX: Final = 1024  # guess: 80 KiB, for one broadcast at one node
OWN_SHARE: Final = 8  # guess: one in so many places of the table is for own broadcasts only

Id: TypeAlias = tuple[bytes, int, int]
"""A broadcast: its origin's key, epoch and sequence."""


class Asked(msgspec.Struct):
    """One broadcast that receipts are gathered for."""

    id: Id
    number: int
    """Of an own one: what `ReceiptCame` says."""
    parent: PeerId | None
    """From whom it came. None: an own one, or the link has ended."""
    sent_to: set[PeerId]
    """Whoever may say something of it. All of them are neighbours, so they are not many."""
    waiting: set[PeerId]
    """Those of them that still have to."""
    told_by: float
    """When the wait ends."""
    forget_at: float
    is_own: bool
    is_traced: bool
    peers: int = 0
    """Not yet told of."""
    hops: list[HopSeen] = []
    """Not yet told of."""
    peers_all: int = 0
    hops_all: int = 0
    gathered_until: float | None = None
    """When that is told which came late."""
    is_told: bool = False
    """Whether it was said that none are waited for."""


class Receipts:
    """The broadcasts of one node that receipts are gathered for."""

    def __init__(self, config: BroadcastConfig, me: PeerId, timers: Timers) -> None:
        self.counts: Counter[str] = Counter()
        """Receipts that were taken, and what was not."""
        self._config = config
        self._me = me
        self._timers = timers
        self._asked: dict[Id, Asked] = {}
        self._told: dict[Id, None] = {}
        """Those of `_asked` that wait for nobody, first told first: the first to make place."""
        self._out: list[GossipEffect] = []

    def __len__(self) -> int:
        return len(self._asked)

    def __contains__(self, id: Id) -> bool:
        """Whether receipts are gathered for this one."""
        return id in self._asked

    # Inputs.

    def own(
        self, id: Id, number: int, children: Sequence[PeerId], now: float, *, is_traced: bool
    ) -> list[GossipEffect]:
        """An own broadcast goes out to `children`; `number` is what the application knows it by."""
        if not self._has_place(is_own=True):
            return [ReceiptCame(number, 0, [], is_last=True)]
        asked = self._begin(id, None, children, 0, now, is_traced=is_traced)
        asked.number = number
        self._settle(asked)
        return self._taken()

    def came(
        self,
        id: Id,
        parent: PeerId,
        children: Sequence[PeerId],
        hop: HopSeen | None,
        hops: int,
        now: float,
        *,
        is_traced: bool,
    ) -> list[GossipEffect]:
        """A broadcast that asks for receipts came for the first time, and goes on to `children`.

        `hops`: links crossed so far. `hop`: what this node tells of the last one, if it does.
        """
        if id in self._asked:  # it cannot come for the first time again
            return self.repeated(id, parent)
        seen = [hop] if hop is not None and is_traced else []
        if not self._has_place(is_own=False):
            self._tell(parent, id, 1, seen, is_last=True)
            return self._taken()
        asked = self._begin(id, parent, children, hops, now, is_traced=is_traced)
        self._add(asked, 1, seen)
        self._settle(asked)
        return self._taken()

    def repeated(self, id: Id, peer: PeerId) -> list[GossipEffect]:
        """The same came again, from `peer`: it is told not to wait for this node."""
        asked = self._asked.get(id)
        if asked is not None:
            if peer == asked.parent:
                return []  # it is told of this node already, or will be
            # It was sent a copy too, and has had one: it counts elsewhere.
            self._wait_no_more(asked, peer)
        self._tell(peer, id, 0, [], is_last=True)
        return self._taken()

    def adopted(self, id: Id, peer: PeerId, now: float) -> None:
        """A peer was sent the broadcast later, since it asked for it: it may answer, too."""
        asked = self._asked.get(id)
        if asked is None or peer in (asked.parent, self._me):
            return
        asked.sent_to.add(peer)
        if not asked.is_told and now < asked.told_by:
            asked.waiting.add(peer)

    def heard(self, peer: PeerId, receipt: Receipt, now: float) -> list[GossipEffect]:
        """A neighbour says how many more have a broadcast."""
        asked = self._asked.get((receipt.origin, receipt.epoch, receipt.sequence))
        if asked is None or peer not in asked.sent_to:
            self.counts["unasked"] += 1
            return []
        self.counts["taken"] += 1
        self._add(asked, receipt.peers, receipt.hops)
        if receipt.is_last:
            self._wait_no_more(asked, peer)
        has_news = asked.peers > 0 or asked.hops
        if has_news and asked.gathered_until is None and (asked.is_told or asked.is_own):
            asked.gathered_until = now + GATHER_S
            self._arm(asked)
        return self._taken()

    def neighbour_gone(self, peer: PeerId, now: float) -> list[GossipEffect]:
        """A link has ended: nothing more comes from there, and nothing can be told there."""
        for asked in list(self._asked.values()):
            if asked.parent == peer:
                self.counts["parent gone"] += 1
                asked.parent = None
            asked.sent_to.discard(peer)
            self._wait_no_more(asked, peer)
        return self._taken()

    def tick(self, id: Id, now: float) -> list[GossipEffect]:
        """Some deadline of this broadcast has come."""
        asked = self._asked.get(id)
        if asked is None:
            return []
        if not asked.is_told and now >= asked.told_by:
            self.counts["not answered"] += len(asked.waiting)
            asked.waiting.clear()
            self._settle(asked)
        if now >= asked.forget_at:
            self._forget(asked)
            return self._taken()
        if asked.gathered_until is not None and now >= asked.gathered_until:
            self._report(asked)
        self._arm(asked)
        return self._taken()

    # One broadcast.

    def _begin(
        self,
        id: Id,
        parent: PeerId | None,
        children: Sequence[PeerId],
        hops: int,
        now: float,
        *,
        is_traced: bool,
    ) -> Asked:
        waiting = {peer for peer in children if peer not in (parent, self._me)}
        timeout_s = self._config.confirm_timeout_s
        asked = self._asked[id] = Asked(
            id,
            number=0,
            parent=parent,
            sent_to=set(waiting),
            waiting=waiting,
            told_by=now + timeout_s * max(1, HOPS_WAITED - hops) / HOPS_WAITED,
            forget_at=now + timeout_s * KEPT_TIMEOUTS,
            is_own=parent is None,
            is_traced=is_traced,
        )
        self._arm(asked)
        return asked

    def _add(self, asked: Asked, peers: int, hops: Sequence[HopSeen]) -> None:
        """What somebody says, or this node itself, as far as there is room for it."""
        taken = min(peers, PEERS_MAX - asked.peers_all)
        asked.peers += taken
        asked.peers_all += taken
        kept = hops[: HOPS_MAX - asked.hops_all] if asked.is_traced else []
        asked.hops += kept
        asked.hops_all += len(kept)
        if taken < peers:
            self.counts["too many peers"] += 1
        if len(kept) < len(hops):
            self.counts["hops dropped"] += len(hops) - len(kept)

    def _wait_no_more(self, asked: Asked, peer: PeerId) -> None:
        if peer in asked.waiting:
            asked.waiting.discard(peer)
            self._settle(asked)

    def _settle(self, asked: Asked) -> None:
        """Tell all, once nobody is waited for any more."""
        if asked.waiting or asked.is_told:
            return
        asked.is_told = True
        self._told[asked.id] = None
        self._report(asked)
        self._arm(asked)

    def _report(self, asked: Asked) -> None:
        """Tell what was not yet told."""
        peers, hops = asked.peers, asked.hops
        asked.peers, asked.hops, asked.gathered_until = 0, [], None
        if asked.is_own:
            self._out.append(ReceiptCame(asked.number, peers, hops, asked.is_told))
        elif asked.parent is not None:
            self._tell(asked.parent, asked.id, peers, hops, is_last=asked.is_told)

    def _tell(
        self, peer: PeerId, id: Id, peers: int, hops: list[HopSeen], *, is_last: bool
    ) -> None:
        while len(hops) > HOPS_SEEN_MAX:
            part, hops = hops[:HOPS_SEEN_MAX], hops[HOPS_SEEN_MAX:]
            self._out.append(Pass((peer,), Receipt(*id, 0, part, is_last=False)))
        self._out.append(Pass((peer,), Receipt(*id, peers, hops, is_last)))

    # The table.

    def _has_place(self, *, is_own: bool) -> bool:
        """Whether there is one, or one that waits for nobody can be forgotten for it."""
        most = self._config.receipts_max
        if not is_own:
            most -= most // OWN_SHARE
        if len(self._asked) < most:
            return True
        first = next(iter(self._told), None)
        if first is None:
            self.counts["no place"] += 1
            return False
        self.counts["forgotten early"] += 1
        self._forget(self._asked[first])
        return True

    def _forget(self, asked: Asked) -> None:
        if asked.peers or asked.hops:
            self._report(asked)
        del self._asked[asked.id]
        self._told.pop(asked.id, None)
        self._timers.cancel((TIMER, asked.id))

    def _arm(self, asked: Asked) -> None:
        at = asked.forget_at if asked.is_told else min(asked.forget_at, asked.told_by)
        if asked.gathered_until is not None:
            at = min(at, asked.gathered_until)
        self._timers.set((TIMER, asked.id), at)

    def _taken(self) -> list[GossipEffect]:
        out, self._out = self._out, []
        return out
