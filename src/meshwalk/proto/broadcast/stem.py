"""Private broadcasts: a stem of hops, one neighbour at a time, before a broadcast begins to spread.

    origin --> hop --> hop --> begins: from here on as any other broadcast

Bojja Venkatakrishnan et al., "Dandelion++: Lightweight Cryptocurrency Networking with Formal
Anonymity Guarantees" (2018), and BIP 156. In each epoch a node has two relays, drawn from its
neighbours, and each neighbour's stems all go to the same one of them; so do its own, as if it were
one more neighbour. Were the next hop drawn for each broadcast, whoever sees many of one origin
would soon find where their ways cross.

Whether a stem ends is drawn anew for each broadcast at each hop, as BIP 156 has it. With `hops`
above 0 it is seed 003's instead: the origin draws how many links the stem crosses, and each hop
says how many are left.

Every hop, the origin too, holds what it passed on until it sees it spread, or until its embargo
ends; then it begins itself. So nobody can keep a broadcast back, and as each adds a random time to
the embargo, who begins is no more likely to be the origin than a hop.

What an observer learns:

-   A neighbour that gets a stem cannot tell whether it comes from the origin or from a hop. Handing
    it back tells no more: origin and hop both begin then.
-   One that has several nodes of the network sees more often which neighbour comes first. The
    paper's figure is for a whole network: when a share p of the nodes watch, they name an origin
    rightly with a chance of about p squared, and of about p when broadcasts spread from where they
    are made. In a small network of few neighbours it is worse.
-   Whoever watches all links of a node sees that more comes out than went in. Frames are encrypted,
    but size and time of a stem are not hidden.
-   With `hops`, each hop also learns how far it is at least from the end, and so about how far from
    the origin: one that gets the most of `hops_left` knows that it stands next to the origin.
-   Two broadcasts are held to be of one origin when they name the same key; see where they are made
    for the key that is used once.
-   A node that has no neighbour to pass to, or holds as many as it may, begins at once: then it can
    be seen to be the origin. An eighth of the table is kept for own ones, so that others cannot
    bring that about by filling it.
-   Who links to a node very often is its relay more often. It is best to draw relays from the
    neighbours that the node has dialled; the caller says which ones there are to draw from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import Final, TypeAlias

import msgspec

from meshwalk.config import StemConfig
from meshwalk.proto.timers import Timers
from meshwalk.wire.gossip import Stem
from meshwalk.wire.peerid import PeerId

TIMER: Final = "stem"
RELAYS: Final = 2  # BIP 156: two destinations in each epoch
HELD_BYTES_MAX: Final = 16 << 20  # guess: 64 of the largest; what waits for its order has as much
OWN_SHARE: Final = 8  # guess: one in so many places of the table is for own ones only

Id: TypeAlias = tuple[bytes, int, int]
"""A broadcast: its origin's key, epoch and sequence."""


class Stems:
    """The broadcasts in the stem that one node holds, and where it passes them on to."""

    def __init__(self, config: StemConfig, rng: Random, timers: Timers) -> None:
        self.counts: Counter[str] = Counter()
        """How often a stem went on from here, and why it ended here."""
        self._config = config
        self._rng = rng
        self._timers = timers
        self._held: dict[Id, Stem] = {}
        self._bytes = 0
        self._relays: list[PeerId] = []
        self._relays_until = float("-inf")
        self._next_hops: dict[PeerId | None, PeerId] = {}
        """By source; None: this node itself. Of this epoch."""

    @property
    def held(self) -> int:
        """Broadcasts that were passed on and not yet seen to spread."""
        return len(self._held)

    def begin(
        self, id: Id, stem: Stem, neighbours: Sequence[PeerId], now: float
    ) -> tuple[PeerId, Stem] | None:
        """An own one: the next hop, and what to send to it; None: spread it from here at once."""
        left: int | None = None
        if self._config.hops > 0:
            left = self._rng.randint(0, self._config.hops) - 1
            if left < 0:
                self.counts["no hops drawn"] += 1
                return None
        return self._pass_on(id, stem, left, None, neighbours, now)

    def heard(
        self, id: Id, stem: Stem, source: PeerId, neighbours: Sequence[PeerId], now: float
    ) -> tuple[PeerId, Stem] | None:
        """One of a neighbour's, checked and not seen to spread: the next hop, and what to send to
        it; None: it begins to spread here."""
        is_held = id in self._held
        left = stem.hops_left
        if left is None:
            is_over = self._rng.random() < self._config.leave_chance
        else:  # a liar may say that more are left; the wire bounds how many, and the embargo when
            is_over = left <= 0
            left -= 1
        if is_over:
            self.counts["ended"] += 1
            return None
        if is_held:  # it went round in a circle, or is tried on: as if for the first time
            self.counts["heard twice"] += 1
            next_hop = self._next_hop(source, neighbours, now)
            return None if next_hop is None else (next_hop, _with(stem, left))
        return self._pass_on(id, stem, left, source, neighbours, now)

    def spreads(self, id: Id) -> None:
        """A broadcast is seen to spread: it need not be held any more, if it was."""
        stem = self._held.pop(id, None)
        if stem is not None:
            self._bytes -= len(stem.payload)
            self._timers.cancel((TIMER, id))

    def tick(self, id: Id, now: float) -> Stem | None:
        """The embargo of this one has ended: spread it from here now. None: it was forgotten."""
        stem = self._held.get(id)
        if stem is not None:
            self.counts["embargo ended"] += 1
            self.spreads(id)
        return stem

    def neighbour_gone(self, peer: PeerId) -> None:
        """A link has ended. Others take its place; for what it was passed there is the embargo."""
        if peer in self._relays:
            self._relays.remove(peer)
        self._next_hops.pop(peer, None)
        for source in [s for s, hop in self._next_hops.items() if hop == peer]:
            del self._next_hops[source]

    # Where to.

    def _pass_on(
        self,
        id: Id,
        stem: Stem,
        left: int | None,
        source: PeerId | None,
        neighbours: Sequence[PeerId],
        now: float,
    ) -> tuple[PeerId, Stem] | None:
        if not self._has_room(len(stem.payload), is_own=source is None):
            self.counts["no place"] += 1
            return None
        next_hop = self._next_hop(source, neighbours, now)
        if next_hop is None:
            self.counts["nobody to pass to"] += 1
            return None
        stem = _with(stem, left)
        self.spreads(id)  # should an own one begin twice
        self._held[id] = stem
        self._bytes += len(stem.payload)
        embargo_s = self._config.embargo_s
        if self._config.embargo_mean_s > 0:
            embargo_s += self._rng.expovariate(1 / self._config.embargo_mean_s)
        self._timers.set((TIMER, id), now + embargo_s)
        self.counts["passed on"] += 1
        return next_hop, stem

    def _has_room(self, size: int, *, is_own: bool) -> bool:
        count_max, bytes_max = self._config.held_max, HELD_BYTES_MAX
        if not is_own:
            count_max -= count_max // OWN_SHARE
            bytes_max -= bytes_max // OWN_SHARE
        return len(self._held) < count_max and self._bytes + size <= bytes_max

    def _next_hop(
        self, source: PeerId | None, neighbours: Sequence[PeerId], now: float
    ) -> PeerId | None:
        """The same one for each source in each epoch, as long as it is a neighbour."""
        if now >= self._relays_until:
            self._relays_until = now + self._config.epoch_s
            self._relays.clear()
            self._next_hops.clear()
        there = set(neighbours)
        pinned = self._next_hops.get(source)
        if pinned in there:
            return pinned
        self._relays = [peer for peer in self._relays if peer in there]
        others = [peer for peer in neighbours if peer not in self._relays]
        wanted = min(RELAYS - len(self._relays), len(others))
        self._relays += self._rng.sample(others, wanted)
        # Never back to where it came from. With two relays one is left; else there is no other
        # neighbour at all.
        to = [peer for peer in self._relays if peer != source]
        if not to:
            return None
        self._next_hops = {
            known: hop for known, hop in self._next_hops.items() if known is None or known in there
        }
        self._next_hops[source] = chosen = self._rng.choice(to)
        return chosen


def _with(stem: Stem, left: int | None) -> Stem:
    return stem if left == stem.hops_left else msgspec.structs.replace(stem, hops_left=left)
