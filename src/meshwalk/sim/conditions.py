"""What stands between two hosts at present: latency, loss, queues, and what nothing can cross.

A fault injector changes the conditions, the world asks them about each frame. They keep no frames
and no clock. Pipes are reliable and ordered streams, so a lost frame is one that arrives later, and
in the worst case the sender gives its end of the pipe up. These duties stay with the world:

- It keeps the order of each pipe: a frame arrives no sooner than the one before it, and none
  arrives behind one that never does.
- When a frame is due it asks `can_cross`. If that is false, the frame and all that follow it in
  this direction wait, until the world is told that the conditions have changed.

Most changes take `from_host` and `to_host`. Neither means every path, the first alone all that this
host sends, the second alone all that this host receives, both the path from one to the other. What
is set for several such scopes adds up: delays are added, losses are independent.
"""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Callable, Iterable
from random import Random

import msgspec

from meshwalk.errors import InvalidArgument
from meshwalk.sim.latency import Latency

# RFC 6298 section 2.4 asks for 1 s; Linux takes the round trip and at least 200 ms more
# (TCP_RTO_MIN), so that is what a lost frame costs most nodes.
RETRANSMIT_LEAST_S = 0.2
FRAME_TRIES_MAX = 6  # guess: given up after 13 s and more; Linux takes 15 minutes (tcp_retries2)
DIAL_RETRY_S = 1.0  # RFC 6298 section 2.1: before there is a round trip; doubled each time
# Sent at 0, 1, 3 and 7 s. guess: Linux goes on for two minutes, but a dial has timed out by then.
DIAL_TRIES_MAX = 4

Scope = tuple[str | None, str | None]
"""From and to; None stands for every host."""


class FrameOutcome(msgspec.Struct, frozen=True):
    """What becomes of a frame: one of the two is set."""

    arrives_at: float | None = None
    """When it arrives, if nothing blocks it then."""
    given_up_at: float | None = None
    """It never arrives: when the sender's system stops waiting for an acknowledgement."""


class DialOutcome(msgspec.Struct, frozen=True):
    """What becomes of one try at a dial. With neither time set, the dial is never answered."""

    arrives_at: float | None = None
    """When the listening host hears of it, which may then answer at once."""
    try_again_at: float | None = None
    """It was lost: when to ask `dial_outcome` for the next try."""


class Conditions:
    """The network between hosts as it is now. All draws come from the `Random` given here.

    Untouched, it costs one draw of the latency for each frame.
    """

    def __init__(self, latency: Latency, rng: Random) -> None:
        self.blocks_anything = False
        """Whether there is a pair of hosts for which `can_cross` might be false."""
        self.is_plain = True
        """Whether a frame takes the latency alone, which a caller may then draw by itself."""
        self._rng = rng
        self._latency_at_rest = latency
        self._set_latency(latency)
        self._jitter_s = 0.0
        self._dial_loss = 0.0
        self._losses: dict[Scope, float] = {}
        self._delays_s: dict[Scope, float] = {}
        self._bytes_per_s: dict[Scope, float] = {}
        self._free_at: dict[Scope, float] = {}  # when the queue of a limited path is empty again
        self._clogged: dict[Scope, None] = {}
        self._side_of: Callable[[str], object] | None = None

    # What the world asks.

    def can_cross(self, from_host: str, to_host: str) -> bool:
        """Whether frames arrive in this direction now. A host always reaches itself."""
        if not self.blocks_anything or from_host == to_host:
            return True
        side_of = self._side_of
        if side_of is not None and side_of(from_host) != side_of(to_host):
            return False
        clogged = self._clogged
        return not clogged or not any(scope in clogged for scope in _scopes_of(from_host, to_host))

    def frame_outcome(self, now: float, from_host: str, to_host: str, size: int) -> FrameOutcome:
        """What becomes of a frame of `size` bytes that is sent now.

        One that is lost six times is given up, as long after the last time as one more try would
        have waited: 63 times a round trip and 0.2 s in all (RFC 9293 section 3.8.3). Bandwidth is
        taken up by the call, so ask once for each frame, in the order of sending.
        """
        delay_s = self.draw_delay_s(from_host, to_host, self._rng)
        if self.is_plain:
            return FrameOutcome(now + delay_s)
        delay_s += self._extra_s(from_host, to_host)
        sent_at = self._leave_queues(now, from_host, to_host, size)
        waited_s, is_lost = self._wait_for_losses_s(from_host, to_host, 2 * delay_s)
        if is_lost:
            return FrameOutcome(given_up_at=sent_at + waited_s)
        return FrameOutcome(sent_at + waited_s + delay_s)

    def dial_outcome(self, now: float, from_host: str, to_host: str, tries: int = 1) -> DialOutcome:
        """What becomes of the try number `tries`, from 1, at a dial between these hosts.

        A try fails when its SYN or the answer to that is lost, or one of them cannot cross now.
        The next is due 1, 3 and 7 seconds after the first (RFC 6298 sections 2.1 and 5.5); after
        the fourth nothing more comes. A dial competes for no bandwidth.
        """
        if (
            self.can_cross(from_host, to_host)
            and self.can_cross(to_host, from_host)
            and (self.is_plain or not self._loses_dial(from_host, to_host))
        ):
            return DialOutcome(arrives_at=now + self.delay_s(from_host, to_host))
        return DialOutcome(try_again_at=dial_retry_at(now, tries))

    def delay_s(self, from_host: str, to_host: str) -> float:
        """How long one crossing takes that is neither lost nor queued, as those of a handshake."""
        delay_s = self.draw_delay_s(from_host, to_host, self._rng)
        return delay_s if self.is_plain else delay_s + self._extra_s(from_host, to_host)

    def queued(self, now: float, from_host: str, to_host: str) -> tuple[float, float]:
        """Bytes that wait in the queue of a path that takes longest, and its rate in bytes/s."""
        longest_s = bytes_queued = 0.0
        bytes_per_s = math.inf
        for queue, rate in self._queues_of(from_host, to_host):
            waits_s = self._free_at.get(queue, 0.0) - now
            if waits_s > longest_s:
                longest_s, bytes_queued, bytes_per_s = waits_s, waits_s * rate, rate
        return bytes_queued, bytes_per_s

    # What a fault injector changes.

    @property
    def latency(self) -> Latency:
        """The model that each frame draws its delay from. Setting it holds for frames to come."""
        return self._latency

    @latency.setter
    def latency(self, latency: Latency) -> None:
        self._set_latency(latency)
        self._changed()

    def set_jitter(self, seconds: float) -> None:
        """Every frame takes up to so much longer, drawn for each. 0 ends it."""
        self._jitter_s = _checked_seconds(seconds, "jitter")
        self._changed()

    def set_delay(
        self, seconds: float, from_host: str | None = None, to_host: str | None = None
    ) -> None:
        """Frames of this scope take so much longer, in this direction only. 0 ends it."""
        _set(self._delays_s, (from_host, to_host), _checked_seconds(seconds, "a delay"))
        self._changed()

    def set_loss(
        self, share: float, from_host: str | None = None, to_host: str | None = None
    ) -> None:
        """This share of the frames of this scope, and of the dials, is lost each time. 0 ends it.

        A lost frame is sent again after a round trip and 0.2 s, then after twice as long each time,
        and given up when it was lost six times.
        """
        _set(self._losses, (from_host, to_host), _checked_share(share))
        self._changed()

    def set_dial_loss(self, share: float) -> None:
        """This share of the tries at dials is lost, besides what `set_loss` takes. 0 ends it."""
        self._dial_loss = _checked_share(share)
        self._changed()

    def limit_bandwidth(
        self,
        bytes_per_s: float | None,
        from_host: str | None = None,
        to_host: str | None = None,
    ) -> None:
        """What is sent waits in a queue that empties at this rate; None ends the limit.

        With `from_host`, the uplink of that host; without, the uplink of each host that has no
        limit of its own; with both, the path between these two, behind the uplink.
        Raises `InvalidArgument` for a rate of 0 or less, and for `to_host` alone.
        """
        if bytes_per_s is not None and not 0.0 < bytes_per_s < math.inf:
            raise InvalidArgument(f"a bandwidth is above 0 bytes/s, not {bytes_per_s}; or clog it")
        if from_host is None and to_host is not None:
            raise InvalidArgument("a bandwidth limits what is sent; name a from_host as well")
        rates = self._bytes_per_s
        _set(rates, (from_host, to_host), bytes_per_s or 0.0)
        if bytes_per_s is None:  # a later limit must not find the queue of this one
            is_general = (None, None) in rates
            self._free_at = {
                queue: at
                for queue, at in self._free_at.items()
                if queue in rates or (is_general and queue[1] is None)
            }
        self._changed()

    def clog(self, from_host: str | None = None, to_host: str | None = None) -> None:
        """Nothing of this scope arrives until `unclog`; then it does, in order.

        Both hosts named: a one-way block. Clogging twice is as clogging once.
        """
        self._clogged[from_host, to_host] = None
        self._changed()

    def unclog(self, from_host: str | None = None, to_host: str | None = None) -> None:
        """End the `clog` of exactly this scope, if there is one."""
        self._clogged.pop((from_host, to_host), None)
        self._changed()

    def clog_host(self, host: str) -> None:
        """Nothing arrives from or at this host until `unclog_host`."""
        self._clogged[host, None] = self._clogged[None, host] = None
        self._changed()

    def unclog_host(self, host: str) -> None:
        """End `clog_host`; clogged pairs that this host is in stay clogged."""
        self._clogged.pop((host, None), None)
        self._clogged.pop((None, host), None)
        self._changed()

    def partition(self, *groups: Iterable[str]) -> None:
        """Nothing crosses between these groups of hosts, in place of an earlier partition.

        Hosts that no group names, those to come included, form one more group: so `partition([h])`
        sets one host against the rest. Raises `InvalidArgument` when two groups share a host, or a
        group is a text.
        """
        sides: dict[str, int] = {}
        for side, group in enumerate(groups):
            if isinstance(group, str):
                raise InvalidArgument(f"{group!r} is one host; write a list of hosts: [{group!r}]")
            for host in group:
                if sides.setdefault(host, side) != side:
                    raise InvalidArgument(f"{host} is in two groups of one partition; choose one")
        self._side_of = sides.get
        self._changed()

    def partition_halves(self, hosts: Iterable[str]) -> tuple[list[str], list[str]]:
        """Part the hosts into two groups drawn at random, and return them.

        They differ by one at most; hosts that are not named stay with the second.
        """
        drawn = list(dict.fromkeys(hosts))
        self._rng.shuffle(drawn)
        half = len(drawn) // 2
        self.partition(drawn[:half])
        return drawn[:half], drawn[half:]

    def partition_address_groups(self) -> None:
        """Each address group, the /16 of an IPv4 address, is an island, hosts to come included."""
        groups: dict[str, str] = {}

        def side_of(host: str) -> str:
            group = groups.get(host)
            if group is None:
                group = groups[host] = address_group(host)
            return group

        self._side_of = side_of
        self._changed()

    def rejoin(self) -> None:
        """End the partition. What is clogged stays so."""
        self._side_of = None
        self._changed()

    def heal(self) -> None:
        """End everything: as at the start, with the latency of the start.

        Frames that were told their time of arrival keep it.
        """
        self._set_latency(self._latency_at_rest)
        self._jitter_s = self._dial_loss = 0.0
        self._losses.clear()
        self._delays_s.clear()
        self._bytes_per_s.clear()
        self._free_at.clear()
        self._clogged.clear()
        self._side_of = None
        self._changed()

    # Arithmetic.

    def _set_latency(self, latency: Latency) -> None:
        self._latency = latency
        self.draw_delay_s = latency.delay_s  # bound once: it is called for each frame

    def _changed(self) -> None:
        self.blocks_anything = bool(self._clogged) or self._side_of is not None
        self.is_plain = not (
            self._jitter_s or self._dial_loss or self._losses or self._delays_s or self._bytes_per_s
        )

    def _extra_s(self, from_host: str, to_host: str) -> float:
        extra_s = self._jitter_s * self._rng.random() if self._jitter_s else 0.0
        if self._delays_s:
            for scope in _scopes_of(from_host, to_host):
                extra_s += self._delays_s.get(scope, 0.0)
        return extra_s

    def _queues_of(self, from_host: str, to_host: str) -> list[tuple[Scope, float]]:
        """The queues that a frame passes, with their rates: the uplink, then the path."""
        uplink, path = (from_host, None), (from_host, to_host)
        rates = self._bytes_per_s
        passed: list[tuple[Scope, float]] = []
        if rate := rates.get(uplink) or rates.get((None, None)):
            passed.append((uplink, rate))
        if rate := rates.get(path):
            passed.append((path, rate))
        return passed

    def _leave_queues(self, now: float, from_host: str, to_host: str, size: int) -> float:
        """When the last byte has left the last queue."""
        at = now
        if self._bytes_per_s:
            for queue, rate in self._queues_of(from_host, to_host):
                at = max(at, self._free_at.get(queue, 0.0)) + size / rate
                self._free_at[queue] = at
        return at

    def _wait_for_losses_s(
        self, from_host: str, to_host: str, round_trip_s: float
    ) -> tuple[float, bool]:
        """How much later than at once the try that arrives is sent, or all are given up: true."""
        if not self._losses:
            return 0.0, False
        loss = self._loss(from_host, to_host)
        waited_s, timeout_s = 0.0, round_trip_s + RETRANSMIT_LEAST_S
        for _ in range(FRAME_TRIES_MAX):
            if self._rng.random() >= loss:
                return waited_s, False
            waited_s += timeout_s
            timeout_s *= 2  # RFC 6298 section 5.5
        return waited_s, True

    def _loss(self, from_host: str, to_host: str) -> float:
        kept = 1.0
        for scope in _scopes_of(from_host, to_host):
            kept *= 1.0 - self._losses.get(scope, 0.0)
        return 1.0 - kept

    def _loses_dial(self, from_host: str, to_host: str) -> bool:
        kept = 1.0 - self._dial_loss
        if self._losses:
            kept *= (1.0 - self._loss(from_host, to_host)) * (1.0 - self._loss(to_host, from_host))
        return self._rng.random() >= kept


def dial_retry_at(sent_at: float, tries: int) -> float | None:
    """When the SYN after number `tries` is sent, if nothing answers that one; None: never."""
    if tries >= DIAL_TRIES_MAX:
        return None
    return sent_at + DIAL_RETRY_S * 2.0 ** (tries - 1)


def address_group(host: str) -> str:
    """Hosts that one organisation may hold: the /16 of an IPv4 address, the /32 of an IPv6 one.

    Another name is a group of its own. Bitcoin Core spreads its links over the same groups.
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    bits = 16 if address.version == 4 else 32
    return str(ipaddress.ip_network((address, bits), strict=False))


def _scopes_of(from_host: str, to_host: str) -> tuple[Scope, Scope, Scope, Scope]:
    """Every scope that a frame between these two belongs to."""
    return (from_host, to_host), (from_host, None), (None, to_host), (None, None)


def _set(values: dict[Scope, float], scope: Scope, value: float) -> None:
    """Keep what has an effect only, so that an empty table means that there is none."""
    if value:
        values[scope] = value
    else:
        values.pop(scope, None)


def _checked_seconds(seconds: float, what: str) -> float:
    if not 0.0 <= seconds < math.inf:
        raise InvalidArgument(f"{what} is 0 seconds or more, not {seconds}")
    return float(seconds)


def _checked_share(share: float) -> float:
    if not 0.0 <= share <= 1.0:
        raise InvalidArgument(f"a loss is a share from 0 to 1, not {share}")
    return float(share)
