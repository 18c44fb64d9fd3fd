"""Which events `meshwalk up` tells, and in what words: a log that no storm of news fills."""

from __future__ import annotations

from collections import deque

from meshwalk.cli.render import counted, event_line
from meshwalk.events import (
    Alone,
    EntryFailed,
    Event,
    FragmentFound,
    Joined,
    MessagesDropped,
    StoreFailed,
)

TURNS_MAX = 2  # one pair: joined and alone again, or the other way round
TURNS_WITHIN_S = 5.0  # guess: a pair in that time can still be read
FAILURES_MAX = 64  # guess: entries whose last failure is remembered, so as not to repeat it


class UpNews:
    """Turns events into lines. `now` is any clock in seconds."""

    def __init__(self) -> None:
        self._turns: deque[float] = deque(maxlen=TURNS_MAX)
        """When the last turns were told: between being alone and being joined."""
        self._held: Event | None = None
        """The newest turn that has not been told yet."""
        self._untold = 0
        """Turns since the last that was told, that one left out."""
        self._last: dict[object, str] = {}

    def feed(self, event: Event, now: float) -> list[str]:
        """The lines to show for an event, which may be none; see also `tick`."""
        if isinstance(event, Joined | Alone):
            if self._held is not None:
                self._untold += 1
            self._held = event
            return self.tick(now)
        if isinstance(event, FragmentFound):
            return [event_line(event)]
        if isinstance(event, EntryFailed):
            if event.not_admitted:
                return []  # told by whoever tries to join, who knows if that was the last hope
            key: object = event.address
            place = event.address.host_and_port
            where = "" if place in event.reason else f"{place}: "
            line = f"cannot join yet: {where}{event.reason}; trying again"
        elif isinstance(event, StoreFailed | MessagesDropped):
            key, line = type(event), event_line(event)
        else:
            return []
        if self._last.get(key) == line:
            return []  # one that repeats itself is told once
        if len(self._last) >= FAILURES_MAX:
            self._last.clear()
        self._last[key] = line
        return [line]

    def tick(self, now: float) -> list[str]:
        """The line on being joined or alone, when it is due."""
        at = self.deadline()
        if at is None or now < at:
            return []
        assert self._held is not None
        line = event_line(self._held)
        if self._untold:
            line += f" (and {counted(self._untold, 'turn')} before that, joined or alone)"
        self._held, self._untold = None, 0
        self._turns.append(now)
        self._last.clear()
        return [line]

    def deadline(self) -> float | None:
        """When to call `tick`; None: not before the next event."""
        if self._held is None:
            return None
        if len(self._turns) < TURNS_MAX:
            return float("-inf")
        return self._turns[0] + TURNS_WITHIN_S
