"""What is held against neighbours, and how it is forgiven. Knows no links and no messages.

Each offence has a weight. What is held against a peer is the sum of its offences, of which half is
forgiven in each `half_life_s`; at `limit` the caller closes the link, and links from that peer are
refused until less is left. So a peer that errs now and then stays, and one that does nothing else
goes. GossipSub v1.1 (Vyzovitis et al., "GossipSub: Attack-Resilient Message Propagation in the
Filecoin and ETH2.0 Networks", 2020) lets its counters decay alike; here is nothing but blame, since
merit could be gathered first and spent on an attack.

Since all is forgiven at the same pace, who has least against it stays so until somebody is blamed:
the order of `log2(amount) + at / half_life_s` does not change with time. So a heap finds who is to
be forgotten, and every blame costs O(log n) at most, spread over many.

Who has least is forgotten first: to have itself forgotten, a refused peer needs `peers_max` others,
each with a link and with more held against it.
"""

from __future__ import annotations

import enum
import heapq
import math
from collections import Counter
from typing import Final

import msgspec

from meshwalk.config import TrustConfig
from meshwalk.wire.peerid import PeerId

FORGIVEN_BELOW: Final = 0.01  # guess: a fifth of the lightest offence; ten half-lives of the limit
HALF_LIFE_LEAST_S: Final = 1e-3  # guess: a setting of 0 shall mean at once, and not divide by zero


class Offence(enum.Enum):
    """What a neighbour did."""

    FORGED = enum.auto()
    """Sent something with a signature that is none."""
    UNWORKED = enum.auto()
    """Sent something without the proof of work that is demanded here."""
    PROMISE_BROKEN = enum.auto()
    """Said that it has something, and did not send it when it was asked."""
    FLOODED = enum.auto()
    """Sent more than its rate."""
    UNWANTED = enum.auto()
    """Sent a copy on a link that has long been no branch."""
    STALE = enum.auto()
    """Sent what is far too old, or too new."""


class Held(msgspec.Struct):
    """What is held against one peer."""

    amount: float
    """As it was at `at`."""
    at: float
    rank: float
    """Who has less of this has less against it, at whatever time both are looked at."""
    was_at_limit: bool = False
    """Since half of the limit was last left."""


class Trust:
    """What one node holds against peers."""

    def __init__(self, config: TrustConfig) -> None:
        self.counts: Counter[str] = Counter()
        """How often which offence was blamed, and how often one peer was forgotten for another."""
        self._config = config
        self._half_life_s = max(config.half_life_s, HALF_LIFE_LEAST_S)
        self._weights = {
            Offence.FORGED: config.forged,
            Offence.UNWORKED: config.unworked,
            Offence.PROMISE_BROKEN: config.promise_broken,
            Offence.FLOODED: config.flooded,
            Offence.UNWANTED: config.unwanted,
            Offence.STALE: config.stale,
        }
        self._words = {offence: offence.name.lower().replace("_", " ") for offence in Offence}
        self._held: dict[PeerId, Held] = {}
        self._least: list[tuple[float, PeerId]] = []
        """A heap with one entry for each of `_held`: a rank that it had. Ranks only grow, so that
        an entry is put right when it comes to the top."""

    def __len__(self) -> int:
        return len(self._held)

    def blame(self, peer: PeerId, offence: Offence, now: float) -> bool:
        """Hold an offence against a peer; whether it stands at the limit now: close its link."""
        self.counts[self._words[offence]] += 1
        self._forgive(now)
        weight = self._weights[offence]
        held = self._held.get(peer)
        if held is None:
            if weight > 0:
                self._begin(peer, weight, now)
            return weight >= self._config.limit
        held.amount = self._left(held, now) + weight
        held.at = max(held.at, now)
        held.rank = self._rank(held.amount, held.at)
        if held.amount < self._config.limit / 2:
            held.was_at_limit = False
        elif held.amount >= self._config.limit:
            held.was_at_limit = True
        return held.amount >= self._config.limit

    def against(self, peer: PeerId, now: float) -> float:
        """What is held against a peer; 0.0 for nearly all."""
        held = self._held.get(peer)
        left = self._left(held, now) if held is not None else 0.0
        return left if left >= FORGIVEN_BELOW else 0.0

    def is_refused(self, peer: PeerId, now: float) -> bool:
        """Whether there is to be no link with this peer for now: from when it reaches the limit
        until half of that is forgiven, or it would be back at once."""
        against = self.against(peer, now)
        if against >= self._config.limit:
            return True
        held = self._held.get(peer)
        return held is not None and held.was_at_limit and against >= self._config.limit / 2

    def listed(self, now: float) -> list[tuple[PeerId, float]]:
        """All that anything is held against, who has most first."""
        found = [(peer, self.against(peer, now)) for peer in self._held]
        found = [(peer, left) for peer, left in found if left]
        return sorted(found, key=lambda one: (-one[1], one[0]))

    # The table.

    def _left(self, held: Held, now: float) -> float:
        return held.amount * math.exp2(-max(0.0, now - held.at) / self._half_life_s)

    def _rank(self, amount: float, at: float) -> float:
        return math.log2(amount) + at / self._half_life_s

    def _begin(self, peer: PeerId, weight: float, now: float) -> None:
        is_at_limit = weight >= self._config.limit
        held = Held(weight, now, self._rank(weight, now), is_at_limit)
        self._held[peer] = held
        heapq.heappush(self._least, (held.rank, peer))
        if len(self._held) > self._config.peers_max:
            self.counts["forgotten"] += 1
            self._forget_least()

    def _forgive(self, now: float) -> None:
        """Forget those against whom hardly anything is left, and put the top right; nearly always
        one look."""
        while self._least:
            rank, peer = self._least[0]
            held = self._held[peer]
            if rank != held.rank:
                heapq.heapreplace(self._least, (held.rank, peer))
            elif self._left(held, now) < FORGIVEN_BELOW:
                self._forget_least()
            else:
                return

    def _forget_least(self) -> None:
        """`_forgive` has put the top right; a newcomer above it has the rank that it came with."""
        _, peer = heapq.heappop(self._least)
        del self._held[peer]
