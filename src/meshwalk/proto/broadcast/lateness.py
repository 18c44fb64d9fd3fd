"""How large a share of broadcasts came late, lately: a sign that a branch is missing."""

from __future__ import annotations

from typing import Final

WINDOW_S: Final = 0.5  # guess: what one lost segment holds up, it holds up for less
SMOOTHING: Final = 0.25  # guess: the last four windows count for most


class Lateness:
    """The smoothed share, by stretches of time in which something came.

    What one stall of a link holds up is late together, and counts as once.
    """

    __slots__ = ("_came", "_late", "_share", "_since")

    def __init__(self) -> None:
        self._share = 0.0
        self._came = 0
        self._late = 0
        self._since = 0.0

    def note(self, now: float, *, was_late: bool) -> None:
        """One more has come; `was_late`: it had to be asked for."""
        self._close(now)
        if not self._came:
            self._since = now
        self._came += 1
        self._late += was_late

    def share(self, now: float) -> float:
        """The share, without the stretch that is not over."""
        self._close(now)
        return self._share

    def _close(self, now: float) -> None:
        if self._came and now >= self._since + WINDOW_S:
            self._share += (self._late / self._came - self._share) * SMOOTHING
            self._came = self._late = 0
