"""Which events a chat tells, and in what words: one quiet line each, and few of them."""

from __future__ import annotations

from meshwalk.cli.render import counted, event_line, printable
from meshwalk.events import (
    Alone,
    EntryFailed,
    Event,
    FragmentFound,
    Joined,
    MessagesDropped,
    NeighbourDown,
    NeighbourUp,
    StoreFailed,
)
from meshwalk.wire.address import Address

PAUSE_S = 1.0  # guess: gathers the links of one joining; one line a second can still be read
FAILURES_MAX = 64  # guess: entries whose last failure is remembered, so as not to repeat it


class News:
    """Turns events into lines. `now` is any clock in seconds."""

    def __init__(self) -> None:
        self.verbose = False
        self._count = 0
        self._told_count = 0
        self._changed_at = 0.0
        self._failures: dict[Address, str] = {}

    def feed(self, event: Event, now: float) -> list[str]:
        """The lines to show for an event, which may be none; see also `tick`."""
        if isinstance(event, NeighbourUp | NeighbourDown):
            if self._count == self._told_count:
                self._changed_at = now
            self._count = event.neighbours
        if self.verbose:
            self._told_count = self._count
            return [event_line(event)]
        match event:
            case Joined():
                self._failures.clear()
                return self._told(f"joined: linked with {event.peer.short}")
            case Alone():
                text = "nobody is linked any more; looking for those known from before"
                return self._told(text)
            case FragmentFound():
                return self._told(printable(str(event)))
            case EntryFailed():
                return self._entry_failed(event)
            case MessagesDropped():
                return [f"{counted(event.count, 'message')} could not be shown: too many at once"]
            case StoreFailed():
                return [event_line(event)]
        return self.tick(now)

    def tick(self, now: float) -> list[str]:
        """The line on changed neighbours, when it is due."""
        at = self.deadline()
        if at is None or now < at:
            return []
        return self._told(f"{counted(self._count, 'neighbour')} now")

    def deadline(self) -> float | None:
        """When to call `tick`; None: not before the next event."""
        return None if self._count == self._told_count else self._changed_at + PAUSE_S

    def _told(self, line: str) -> list[str]:
        self._told_count = self._count
        return [line]

    def _entry_failed(self, event: EntryFailed) -> list[str]:
        # The node tries again by itself, and saying the same each time would not be quiet.
        if self._failures.get(event.address) == event.reason:
            return []
        if len(self._failures) >= FAILURES_MAX:
            self._failures.clear()
        self._failures[event.address] = event.reason
        place = event.address.host_and_port
        who = "" if place in event.reason else f"{place}: "
        again = "" if event.not_admitted else "; trying again"
        return [printable(f"{who}{event.reason}{again}")]
