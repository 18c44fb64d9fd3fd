"""What one end of a connection learns by pings: how far the other is, its clock, and its silence.

`Link` is built on it and adds the life cycle. It is a base class and no part of its own, since
`heard_at` is written for every frame and `peer_epoch_s` read for every message.

Silence is judged lazily, so that what is heard costs no more than noting when. A ping after which
nothing has been heard is awaited; `least_s` after it was sent `judge` looks whether that still
holds, and only then works out how long this peer may take.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias, final

import msgspec

from meshwalk.config import DetectionConfig, LinkConfig
from meshwalk.proto.effects import Effect, Measured, Send
from meshwalk.proto.roundtrips import RoundTrips
from meshwalk.wire.frames import Ping, Pong

BUSY_S: Final = 0.25  # guess: looks that come so late come from a process that has much to read
ROUNDING_S: Final = 1e-3  # guess: more than floats err in a century, less than anyone minds
_UNKNOWN_S: Final = float("inf")
_NEVER: Final = float("inf")
_NOT_YET: Final = float("-inf")


# News, as those in `link.py`.


@final
class Suspected(msgspec.Struct, frozen=True):
    """A neighbour is silent for longer than its round trips explain. Once in each silence."""


@final
class Recovered(msgspec.Struct, frozen=True):
    """A suspect has been heard again; said when this is next looked at, for those who count."""


Silence: TypeAlias = Suspected | Recovered


class Pinging:
    """Pings of one end of a connection, their answers, and since when nothing was heard."""

    __slots__ = (
        "_asked",
        "_awaited_since",
        "_config",
        "_detection",
        "_judge_at",
        "_new_id",
        "_out",
        "_phase_s",
        "_ping_at",
        "_pings",
        "_pongs_since_quickest",
        "_quickest_s",
        "_suspected_at",
        "heard_at",
        "is_tested",
        "number",
        "peer_epoch_s",
        "round_trips",
    )

    def __init__(
        self,
        number: int,
        config: LinkConfig,
        detection: DetectionConfig,
        out: list[Effect],
        new_id: Callable[[], int],
        now: float,
        phase_s: float | None = None,
    ) -> None:
        """`phase_s`: see `_next_ping_at`."""
        self.number = number
        self.heard_at = now
        self.round_trips = RoundTrips(config.rtt_window)
        self.peer_epoch_s = 0.0
        """Our machine time when the peer's was 0: what its stamps of sending count from."""
        self._config = config
        self._detection = detection
        self._out = out
        self._new_id = new_id
        self.is_tested = False
        """Whether the overlay wants to hear of each ping that is answered."""
        self._phase_s = phase_s
        self._ping_at = now
        self._pings: dict[int, float] = {}
        self._asked: set[int] | None = None
        """Those of `_pings` that somebody waits for."""
        self._quickest_s = _UNKNOWN_S
        self._pongs_since_quickest = 0
        self._awaited_since = _NOT_YET
        """When the first ping was sent after which nothing was heard, as far as was looked."""
        self._judge_at = _NEVER
        self._suspected_at: float | None = None
        """Stays until `judge` finds that something was heard; see `suspected_at`."""

    @property
    def rtt_s(self) -> float:
        """The quickest round trip lately, in seconds; 0.0 before the first."""
        return self._quickest_s if self._quickest_s < _UNKNOWN_S else 0.0

    @property
    def suspected_at(self) -> float | None:
        """Since when the peer is suspect; None when it is not, or has been heard since."""
        at = self._suspected_at
        return at if at is not None and self.heard_at < at else None

    @property
    def patience_s(self) -> float:
        """How long a ping may take until its peer is suspect, in seconds."""
        mean_s = self.round_trips.mean_s
        deviation_s = self.round_trips.mean_deviation_s
        if mean_s is None or deviation_s is None:
            return self._config.idle_timeout_s / 2  # nobody knows yet how far it is
        detection = self._detection
        patience_s = detection.least_s + mean_s + detection.deviations * deviation_s
        return min(patience_s, self._config.idle_timeout_s)

    # Inputs.

    def pinged(self, ping: Ping, now: float) -> None:
        """The peer measures an open link. A short way in, for the most frequent frames."""
        self.heard_at = now
        at = int(now * 1e6)
        self._out.append(Send(self.number, Pong(ping.id, ping.sent_at_us, at, at)))

    def ponged(self, pong: Pong, now: float) -> bool:
        """The peer of an open link answers; whether that is a measurement."""
        self.heard_at = now
        sent_at = self._pings.pop(pong.in_reply_to, None)
        if sent_at is None:
            return False  # late, repeated or invented
        if sent_at == self._awaited_since:
            self._awaited_since = _NOT_YET  # `heard_at` need not be later, by a coarse clock
        # Whole: were the time taken off for which the peer says that it held the ping, it could
        # seem to be as close as it likes, and links are chosen by closeness.
        rtt_s = now - sent_at
        offset_s = (pong.ping_received_at_us / 1e6 - sent_at + pong.sent_at_us / 1e6 - now) / 2
        self.round_trips.add(rtt_s, offset_s)
        # The quickest of a window is nearest to the truth; this keeps up with it at no cost.
        self._pongs_since_quickest += 1
        if rtt_s <= self._quickest_s or self._pongs_since_quickest >= self._config.rtt_window:
            self._quickest_s, self._pongs_since_quickest = rtt_s, 0
            self.peer_epoch_s = -offset_s
        if self._asked and pong.in_reply_to in self._asked:  # nobody waits for the others
            self._out.append(Measured(pong.in_reply_to, rtt_s))
        return True

    def ping(self, now: float) -> int:
        """Measure the round trip for somebody who waits for `Measured` with the returned id."""
        id = self.measure(now)
        self._asked = {*(self._asked or ()), id} & self._pings.keys()
        return id

    def measure(self, now: float) -> int:
        """Ping; `ponged` is true when it is answered. Its id."""
        self._ping_at = self._next_ping_at(now)
        if self.heard_at > self._awaited_since:  # then what was awaited has come
            self._awaited_since = now
            self._judge_at = now + self._detection.least_s
        id = self._new_id()
        self._pings[id] = now
        if len(self._pings) > self._config.rtt_window:
            del self._pings[next(iter(self._pings))]
        self._out.append(Send(self.number, Ping(id, int(now * 1e6))))
        return id

    def _next_ping_at(self, now: float) -> float:
        """One interval from now; with a phase, the next time that lies a whole number of intervals
        from the phase. So all links of a node ping in one step, and are looked at in one step: two
        timers in each interval instead of two for each link."""
        interval_s = self._config.ping_interval_s
        if self._phase_s is None:
            return now + interval_s
        wait_s = interval_s - (now - self._phase_s) % interval_s
        return now + (wait_s if wait_s > ROUNDING_S else wait_s + interval_s)

    def judge(self, now: float) -> Silence | None:
        """`_judge_at` has come: is the peer silent for too long, or no more?"""
        is_silent = self.heard_at <= self._awaited_since
        if not is_silent and self._suspected_at is None:  # nearly always
            self._judge_at = _NEVER  # until the next ping
            return None
        late_s = now - self._judge_at
        overdue_at = self._awaited_since + self.patience_s if is_silent else _NEVER
        if self._suspected_at is not None:
            if self.heard_at < self._suspected_at:
                self._judge_at = now + self._config.ping_interval_s
                return None
            self._suspected_at = None
            self._judge_at = max(now, overdue_at)
            return Recovered()
        if now < overdue_at:
            self._judge_at = overdue_at
            return None
        if late_s > BUSY_S:  # uvloop sees to timers first: the answer may lie unread
            self._judge_at = now + BUSY_S
            return None
        self._suspected_at = now
        self._ping_at = now  # it may be the ping that was lost
        self._judge_at = now + self._config.ping_interval_s
        return Suspected()

    def ping_anew(self, now: float) -> None:
        """Ping at once, and judge silence from here: what came before says nothing of the peer."""
        self._awaited_since = _NOT_YET
        self._suspected_at = None
        self.measure(now)
