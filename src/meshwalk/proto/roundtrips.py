"""The last round-trip times of a link, and what they say of the peer's clock. Arithmetic only."""

from __future__ import annotations

import itertools
from array import array


class RoundTrips:
    """The last round-trip times of a link, in seconds. Seed 001 keeps 20."""

    __slots__ = ("_length", "_pairs")

    def __init__(self, window: int) -> None:
        # One array of round trips and clock offsets in turn: a deque takes 0.7 KiB from the start,
        # and every float in it 24 bytes more.
        self._pairs = array("d")
        self._length = 2 * window

    def add(self, rtt_s: float, offset_s: float) -> None:
        pairs = self._pairs
        pairs.append(rtt_s)
        pairs.append(offset_s)
        if len(pairs) > self._length:
            del pairs[:2]

    @property
    def samples(self) -> array[float]:
        """The round trips, oldest first."""
        return self._pairs[::2]

    @property
    def clock_offset_s(self) -> float | None:
        """The peer's clock minus ours, by the quickest of the samples (RFC 5905 section 10)."""
        pairs = self._pairs
        return min(zip(pairs[::2], pairs[1::2], strict=True))[1] if pairs else None

    @property
    def mean_s(self) -> float | None:
        """Mean of the samples; None before the first."""
        samples = self.samples
        return sum(samples) / len(samples) if samples else None

    @property
    def mean_deviation_s(self) -> float | None:
        """Mean distance of the samples from their mean; None before the first."""
        samples = self.samples
        if not samples:
            return None
        mean_s = sum(samples) / len(samples)
        return sum([abs(sample - mean_s) for sample in samples]) / len(samples)

    @property
    def jitter_s(self) -> float | None:
        """Mean difference between one sample and the next; None before the second."""
        samples = self.samples
        if len(samples) < 2:
            return None
        steps = [abs(b - a) for a, b in itertools.pairwise(samples)]
        return sum(steps) / len(steps)
