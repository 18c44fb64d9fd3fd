"""What a node has missed: from when on it wants to know, and when it asks. Tables and rules.

Whenever a link opens, both ends ask each other what they keep, with a digest of what they have for
each minute, so that only what differs is told: nothing, most of the time. So who was away, who is
new and wants what was before, and two fragments that become one by whatever link all get what they
missed. What comes of it is announced and fetched like anything else, and passed on.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from meshwalk.config import Config
from meshwalk.proto.broadcast.history import MINUTE_MS, History
from meshwalk.proto.rate import TokenBucket
from meshwalk.wire.gossip import HistoryWanted
from meshwalk.wire.peerid import PeerId

OVERLAP_MS: Final = 60_000  # guess: what was under way when a node stopped, and clocks that differ
MARGIN_S: Final = 60.0  # guess: what is nearly too old would be too old when it comes
ANSWER_S: Final = 30.0  # guess: how long what a peer announces may be an answer


class CatchingUp:
    """One node's questions for history, and those of others."""

    def __init__(self, config: Config, history: History, counts: Counter[str], now_ms: int) -> None:
        self._age_ms = int((config.broadcast.age_max_s - MARGIN_S) * 1000)
        self._asks_max = config.tree.history_asks
        self._config = config.history
        self._history = history
        self._counts = counts
        self._since_ms = now_ms
        """From when on this node wants to have everything."""
        self._asked: dict[PeerId, float] = {}
        self._buckets: dict[PeerId, TokenBucket] = {}

    def restored(self) -> int:
        """The node starts with what the store kept: it has missed what came after. From when on,
        Unix time in milliseconds."""
        newest_ms = max((held.sent_at_ms for _, held in self._history.since(0)), default=None)
        if newest_ms is not None:
            self._since_ms = min(self._since_ms, newest_ms - OVERLAP_MS)
        return self._since_ms

    def want(self, since_ms: int, neighbours: list[PeerId]) -> list[PeerId]:
        """The application wants what was sent since then: whom to ask now."""
        if since_ms >= self._since_ms:
            return []
        self._since_ms = since_ms
        return neighbours[: self._asks_max]

    def oldest_ms(self, unix_ms: int) -> int:
        """What was sent before is too old to be told of."""
        return max(0, unix_ms - self._age_ms)

    def question(self, peer: PeerId, unix_ms: int, now: float) -> HistoryWanted:
        """What to ask a neighbour."""
        self._asked[peer] = now
        self._counts["history asked"] += 1
        # From a whole minute on, or the first digest would not be of the same.
        since_ms = max(self._since_ms, self.oldest_ms(unix_ms)) // MINUTE_MS * MINUTE_MS
        return HistoryWanted(since_ms, self._history.digests(since_ms, unix_ms))

    def neighbour_down(self, peer: PeerId) -> None:
        """It has ended."""
        self._asked.pop(peer, None)
        self._buckets.pop(peer, None)

    def was_asked(self, peer: PeerId, now: float) -> bool:
        """Whether what this peer announces may be an answer."""
        asked_at = self._asked.get(peer)
        return asked_at is not None and now < asked_at + ANSWER_S

    def may_ask(self, peer: PeerId, now: float) -> bool:
        """Whether a neighbour gets an answer."""
        bucket = self._buckets.get(peer)
        if bucket is None:
            config = self._config
            bucket = self._buckets[peer] = TokenBucket(config.asks_per_s, config.asks_burst)
        if bucket.take(now):
            return True
        self._counts["history refused"] += 1
        return False
