"""Whose broadcasts have come, and which: so that nothing is delivered twice.

Each origin counts its broadcasts; (origin, epoch, sequence) names one. What has come of an origin
is kept as ranges of numbers, so it costs one entry per origin and gap instead of one per message;
what is below the window counts as seen. An origin is remembered until everything it has sent is
stale; if the table overflows first, unknown origins must be newer than whom it pushed out. So
nothing is ever delivered twice, however long it circulates.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from typing import Final

from meshwalk.config import BroadcastConfig
from meshwalk.proto.broadcast.lateness import Lateness
from meshwalk.wire.peerid import PeerId
from meshwalk.wire.records import BroadcastHead

KNOWN_AFTER: Final = 3  # guess: broadcasts after which an origin is more than a key
GAPS_PER_ORIGIN_MAX: Final = 1024  # guess: a lost packet in each of the last thousand bursts


class SeenNumbers:
    """Which numbers have come, as ranges."""

    __slots__ = ("_spans", "floor")

    def __init__(self, floor: int) -> None:
        self.floor = floor
        """Smaller ones, and this one, count as seen."""
        self._spans: list[int] = []  # first and last of each range in turn, ascending, apart

    @property
    def highest(self) -> int:
        """The largest that has come; the floor before the first."""
        return self._spans[-1] if self._spans else self.floor

    @property
    def gaps(self) -> int:
        """Ranges beyond the first."""
        return max(0, len(self._spans) // 2 - 1)

    def __contains__(self, number: int) -> bool:
        spans = self._spans
        if number <= self.floor:
            return True
        if not spans or number > spans[-1]:
            return False
        at = bisect_left(spans, number)
        # Between two pairs the index is even, unless it is the first of a range itself.
        return at % 2 == 1 or spans[at] == number

    def add(self, number: int) -> None:
        """Note a number that has not come."""
        spans = self._spans
        if spans and number == spans[-1] + 1:
            spans[-1] = number
            return
        if not spans or number > spans[-1]:
            spans += (number, number)
            return
        at = bisect_left(spans, number)
        joins_before = at > 0 and spans[at - 1] == number - 1
        joins_after = spans[at] == number + 1
        if joins_before and joins_after:
            del spans[at - 1 : at + 1]
        elif joins_before:
            spans[at - 1] = number
        elif joins_after:
            spans[at] = number
        else:
            spans[at:at] = (number, number)

    def raise_floor(self, floor: int) -> int:
        """What is missing up to there counts as seen; how many numbers those are."""
        if floor <= self.floor:
            return 0
        skipped = sum(last - first + 1 for first, last in self.missing_in(self.floor + 1, floor))
        self.floor = floor
        spans = self._spans
        while len(spans) > 2 and spans[1] <= floor:
            del spans[:2]
        return skipped

    def fill(self) -> int:
        """All that is missing counts as seen; how many numbers those are."""
        return self.raise_floor(self.highest)

    def missing_in(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        """What has not come, in ranges. Its cost is by gaps, however many numbers there are."""
        spans = self._spans
        at = max(first, self.floor + 1)
        index = bisect_left(spans, at) & ~1  # of the pair that `at` lies in, or of the next
        while at <= last and index < len(spans):
            if at < spans[index]:
                yield at, min(last, spans[index] - 1)
            at = max(at, spans[index + 1] + 1)
            index += 2
        if at <= last:
            yield at, last


class Origin:
    """What is remembered of one origin."""

    __slots__ = (
        "came",
        "earlier",
        "epoch",
        "keep_until",
        "late",
        "newest_ms",
        "parent",
        "seen",
        "spent",
        "spent_at",
        "tuned_at",
        "unknown_until_ms",
    )

    def __init__(self, epoch: int, floor: int) -> None:
        self.epoch = epoch
        self.seen = SeenNumbers(floor)
        self.earlier: Origin | None = None
        """Its epoch before this one, of which some may still be on the way; that has none."""
        self.came = 0
        """Broadcasts of this epoch."""
        self.late = Lateness()
        """Of those that had to be asked for."""
        self.parent: PeerId | None = None
        """Who brought its last broadcast that came by the tree."""
        self.keep_until = 0.0
        self.newest_ms = 0
        self.unknown_until_ms = 0
        """What it sent until then may have come before it was forgotten, and known again."""
        self.spent = 0.0
        """Of what it may send in a stretch of time; see intake.py."""
        self.spent_at = 0.0
        self.tuned_at = 0.0
        """When a branch was last made for it alone."""


class Origins:
    """All origins that are remembered at one node.

    Who has been heard a few times only has places of its own: keys cost nothing, and who makes many
    is to push out others like it and not those that speak.
    """

    def __init__(self, config: BroadcastConfig, counts: Counter[str], unix_offset_s: float) -> None:
        self.unix_offset_s = unix_offset_s
        self._config = config
        self._counts = counts
        # Each ordered by when an origin was last heard: the first is the one to forget.
        self._new: dict[bytes, Origin] = {}
        self._known: dict[bytes, Origin] = {}
        self._gaps = 0
        # The newest that was sent by an origin that had to make place.
        self._pushed_out_ms = 0

    def __len__(self) -> int:
        return len(self._new) + len(self._known)

    def __contains__(self, origin: bytes) -> bool:
        return origin in self._known or origin in self._new

    def get(self, origin: bytes, epoch: int) -> Origin | None:
        """What is remembered of an origin's epoch: the latest, or the one before."""
        found = self._find(origin)
        if found is not None and found.epoch > epoch:
            found = found.earlier
        return found if found is not None and found.epoch == epoch else None

    def why_not(self, head: BroadcastHead, now: float) -> str | None:
        """Why a broadcast is not to be looked at any further."""
        age_s = now + self.unix_offset_s - head.sent_at_ms / 1000
        if age_s > self._config.age_max_s or age_s < -self._config.clock_skew_max_s:
            return "stale"
        known = self._find(head.origin)
        if known is None:
            return "unknown and old" if head.sent_at_ms <= self._pushed_out_ms else None
        if head.sent_at_ms <= known.unknown_until_ms:
            return "unknown and old"
        if head.epoch > known.epoch or known.keep_until < now:
            return None
        if head.epoch < known.epoch:
            if known.earlier is None or known.earlier.epoch != head.epoch:
                return "earlier run"
            known = known.earlier
        return "repeated" if head.sequence in known.seen else None

    def is_far_out(self, sent_at_ms: int, now: float) -> bool:
        """Whether a time is so far from ours that no delay on the way explains it."""
        config = self._config
        age_s = now + self.unix_offset_s - sent_at_ms / 1000
        return not -2 * config.clock_skew_max_s < age_s < config.age_max_s + config.clock_skew_max_s

    def missing_in(
        self, origin: bytes, epoch: int, first: int, last: int
    ) -> Iterator[tuple[int, int]]:
        """Of these numbers those that have not come and may, in ranges."""
        found = self._find(origin)
        if found is not None and found.epoch > epoch:
            found = found.earlier
            if found is None or found.epoch != epoch:
                return iter(())
        if found is None or found.epoch < epoch:
            return iter(((first, last),))
        return found.seen.missing_in(first, last)

    def count_older_as_seen(self, origin: bytes, epoch: int, sequence: int) -> None:
        """What comes before this number is not to come any more."""
        found = self.get(origin, epoch)
        if found is not None:
            found.seen.raise_floor(sequence - 1)

    def forget_before(self, sent_at_ms: int) -> None:
        """Unknown origins must be newer than that."""
        self._pushed_out_ms = max(self._pushed_out_ms, sent_at_ms)

    def note(self, head: BroadcastHead, now: float) -> tuple[Origin, int, bytes | None]:
        """Remember a broadcast: its origin, how many numbers count as seen though they never came,
        and the key of an origin that is forgotten for it."""
        config = self._config
        latest = self._known.pop(head.origin, None) or self._new.pop(head.origin, None)
        if latest is None or latest.keep_until < now or head.epoch > latest.epoch:
            latest = self._epoch_begins(head, latest, now)
        known = latest
        if head.epoch < latest.epoch and latest.earlier is not None:
            known = latest.earlier
        self._gaps -= known.seen.gaps
        known.seen.add(head.sequence)
        skipped = known.seen.raise_floor(known.seen.highest - config.window)
        if known.seen.gaps > GAPS_PER_ORIGIN_MAX or self._gaps + known.seen.gaps > config.gaps_max:
            skipped += known.seen.fill()
        self._gaps += known.seen.gaps
        known.came += 1
        # An origin whose clock is ahead of ours could be replayed for that much longer.
        ahead_s = max(0.0, head.sent_at_ms / 1000 - self.unix_offset_s - now)
        latest.keep_until = max(latest.keep_until, now + ahead_s + config.remembered_s)
        latest.newest_ms = max(latest.newest_ms, head.sent_at_ms)
        table = self._new if latest.came < KNOWN_AFTER and latest.earlier is None else self._known
        table[head.origin] = latest
        return known, skipped, self._forget_one(now)

    def _find(self, origin: bytes) -> Origin | None:
        return self._known.get(origin) or self._new.get(origin)

    def _epoch_begins(self, head: BroadcastHead, before: Origin | None, now: float) -> Origin:
        if before is None or before.keep_until < now:
            # Smaller numbers may still be on their way when an origin is first heard of.
            fresh = Origin(head.epoch, max(0, head.sequence - 1 - self._config.window))
            fresh.unknown_until_ms = self._pushed_out_ms
            self._gaps -= _gaps_of(before) if before is not None else 0
        else:  # it has restarted, and begins with 1
            fresh = Origin(head.epoch, max(0, head.sequence - 1 - self._config.window))
            fresh.earlier = before
            fresh.unknown_until_ms = before.unknown_until_ms
            fresh.spent, fresh.spent_at = before.spent, before.spent_at
            if before.earlier is not None:
                self._gaps -= before.earlier.seen.gaps
                before.earlier = None
        if before is not None:
            # The earlier run's messages may not be stale yet.
            fresh.keep_until, fresh.newest_ms = before.keep_until, before.newest_ms
        return fresh

    def _forget_one(self, now: float) -> bytes | None:
        if len(self) > self._config.origins_max:
            half = self._config.origins_max // 2
            table = self._new if len(self._new) > half or not self._known else self._known
            oldest = next(iter(table))
            self._counts["origins evicted"] += 1
            # Not beyond our own clock: else one that says it is ahead would mute all others.
            unix_ms = int((now + self.unix_offset_s) * 1000)
            self._pushed_out_ms = max(self._pushed_out_ms, min(table[oldest].newest_ms, unix_ms))
        else:
            for table in (self._new, self._known):
                oldest = next(iter(table), b"")
                if oldest and table[oldest].keep_until < now:
                    break
            else:
                return None
        gone = table.pop(oldest)
        self._gaps -= _gaps_of(gone)
        return oldest


def _gaps_of(origin: Origin) -> int:
    earlier = origin.earlier
    return origin.seen.gaps + (earlier.seen.gaps if earlier is not None else 0)
