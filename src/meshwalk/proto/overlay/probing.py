"""Tests peers of the address book: who is there, how far away, and in which fragment.

Seed 001's test_node: a temporary link, the question whether it is ourselves, and 20 pings of which
each is answered before the next. Whoever passes is verified. The same link carries the question of
which fragment the peer is in, since a test reaches where no link of ours does.

One test begins every `interval_s` with jitter, whatever happens meanwhile: being tested leads to no
test, so two nodes that test each other do not go round in circles.

    pause --dial--> SECURING --opened--> PINGING --last pong, fragment told--> verified
                        `---- failed --------`---- deadline -----------------> one failure more
"""

from __future__ import annotations

from collections import Counter

import msgspec

from meshwalk.proto.link import Ended, Link
from meshwalk.proto.overlay.beacons import Beacons
from meshwalk.proto.overlay.bookentry import BookEntry
from meshwalk.proto.overlay.effects import Measure
from meshwalk.proto.overlay.exchange import Exchange
from meshwalk.proto.overlay.healing import Healing
from meshwalk.proto.overlay.shared import Shared
from meshwalk.proto.overlay.walks import Walks
from meshwalk.wire.address import Address
from meshwalk.wire.frames import CloseReason, Purpose
from meshwalk.wire.peerid import PeerId

TIMER = ("overlay", "probing")
ENTRY_EVERY = 8  # guess: of so many tests one goes to an entry that a person named, if there is one
# guess: in a larger fragment each member tests entries so much less often. An entry that all of
# them name sees a test in 5 s on the mean, however many they are.
ENTRY_MEMBERS = 50


class Probe(msgspec.Struct):
    """One test under way."""

    peer: PeerId | None
    """Who is expected; None at an entry."""
    addresses: list[Address]
    """Still to be tried."""
    link: Link | None = None
    pongs: int = 0
    deadline: float = float("inf")


class Probing:
    """The tests that one node makes."""

    def __init__(
        self,
        shared: Shared,
        walks: Walks,
        exchange: Exchange,
        beacons: Beacons,
        healing: Healing,
    ) -> None:
        self.attempts: dict[int, Probe] = {}
        """Under way, by the number of the attempt."""
        self.counts: Counter[str] = Counter()
        """How tests ended."""
        self._shared = shared
        self._book = shared.book
        self._config = shared.config.probing
        self._walks = walks
        self._exchange = exchange
        self._beacons = beacons
        self._healing = healing
        self._next_at = 0.0
        self._number = 0

    # Inputs.

    def start(self, now: float) -> None:
        """The node has started."""
        self._next_at = now + self._pause_s()
        self._arm()

    def woke(self, now: float) -> None:
        """Time has passed unseen: look soon, since the fragment may be another."""
        self._next_at = min(self._next_at, now + self._pause_s() / 4)
        self._arm()

    def opened(self, attempt: int, link: Link, now: float) -> None:
        """The link of a test is open."""
        probe = self.attempts[attempt]
        probe.link, probe.deadline = link, now + self._config.timeout_s
        link.is_tested = True
        self._healing.ask(link, now)
        self._shared.out.append(Measure(link.number))
        self._arm()

    def measured(self, link: Link, now: float) -> None:
        """A ping of a test has been answered."""
        probe = self.attempts.get(link.attempt)
        if probe is None:
            return
        probe.pongs += 1
        if probe.pongs < self._config.pings:
            self._shared.out.append(Measure(link.number))
        elif not self._healing.waits_for(link):
            self._passed(link, now)

    def fragment_told(self, link: Link, now: float) -> None:
        """The peer of a test has said in which fragment it is."""
        probe = self.attempts.get(link.attempt)
        if probe is not None and probe.pongs >= self._config.pings:
            self._passed(link, now)

    def failed(self, attempt: int, ended: Ended, now: float) -> None:
        """The link of a test has ended, or was never made."""
        probe = self.attempts.pop(attempt)
        if ended.reason is CloseReason.SELF:
            # At an address of the book this node itself answers: whoever was there is gone.
            self.counts["is self"] += 1
        elif ended.by_us and not ended.was_open:
            self.counts["too many dials"] += 1
            self._arm()
            return
        elif probe.link is None and probe.addresses:
            self._dial(probe)
            return
        else:
            self.counts["failed"] += 1
        if probe.peer is not None:
            self._shared.out += self._book.failed(probe.peer, now)
        self._arm()

    def tick(self, now: float) -> None:
        """The timer of this machine has come due."""
        for attempt, probe in list(self.attempts.items()):
            if probe.deadline <= now and probe.link is not None:
                self.counts["too slow"] += 1
                del self.attempts[attempt]
                self._finish(probe.link)
                if probe.peer is not None:
                    self._shared.out += self._book.failed(probe.peer, now)
        if now >= self._next_at:
            self._next_at = now + self._pause_s()
            self._shared.out += self._book.expire(now)
            if len(self.attempts) < self._config.probes_max:
                self._begin(now)
            else:
                self.counts["too many"] += 1
        self._arm()

    def stop(self) -> None:
        """The node is stopping."""
        self.attempts.clear()
        self._next_at = float("inf")
        self._shared.timers.cancel(TIMER)

    # Steps.

    def _begin(self, now: float) -> None:
        self._number += 1
        probe = None
        share = max(1.0, self._beacons.size / ENTRY_MEMBERS)
        if self._number % round(ENTRY_EVERY * share) == 0:
            probe = self._probe_of_entry()
        if probe is None:
            neighbours = self._shared.membership.neighbours
            tested = (p.peer for p in self.attempts.values() if p.peer is not None)
            without = {*neighbours, *tested}
            entry = self._unverified_neighbour(now) or self._book.to_test(now, without)
            if entry is not None:
                limit = self._shared.config.overlay.addresses_per_peer_max
                probe = Probe(entry.peer, entry.to_try(limit))
            elif share == 1.0:
                probe = self._probe_of_entry()
        if probe is not None and probe.addresses:
            self.counts["begun"] += 1
            self._dial(probe)

    def _unverified_neighbour(self, now: float) -> BookEntry | None:
        """Every second test is of a neighbour that has dialled this node, as long as nobody knows
        whether it can be dialled itself: when it is silent, that says what a dial in vain means."""
        if self._number % 2 == 0:
            return None
        due = now - self._shared.config.book.retest_s
        for peer, neighbour in self._shared.membership.neighbours.items():
            entry = self._book.entries.get(peer)
            if entry is None or entry.verified or neighbour.link.outbound:
                continue
            if entry.addresses and entry.test_begun_at <= due:
                entry.test_begun_at = now
                return entry
        return None

    def _probe_of_entry(self) -> Probe | None:
        """A test of an entry: a network cut apart for so long that the book has forgotten the other
        part is found again by the address that a person gave."""
        neighbours = self._shared.membership.neighbours
        entries = [e for e in self._walks.entries if e.peer not in neighbours]
        if not entries:
            return None
        entry = self._shared.rng.choice(entries)
        return Probe(entry.expected, [entry.address])

    def _dial(self, probe: Probe) -> None:
        address = probe.addresses.pop(0)
        attempt = self._shared.dial(address, probe.peer, Purpose.PROBE)
        self.attempts[attempt] = probe

    def _passed(self, link: Link, now: float) -> None:
        del self.attempts[link.attempt]
        assert link.peer is not None
        self.counts["passed"] += 1
        mean_s, jitter_s = link.round_trips.mean_s, link.round_trips.jitter_s
        assert mean_s is not None  # `pings` is at least one
        self._shared.out += self._book.worked(link.peer, link.remote, None, now)
        self._shared.out += self._book.measured(link.peer, mean_s, jitter_s, now)
        self._shared.out += self._book.connected(link.peer, now)
        self._exchange.tell(now)
        self._finish(link)
        self._arm()

    def _finish(self, link: Link) -> None:
        link.is_tested = False
        self._shared.disconnect(link, CloseReason.DONE)

    def _pause_s(self) -> float:
        return self._config.interval_s * self._shared.rng.uniform(0.5, 1.5)

    def _arm(self) -> None:
        times = [self._next_at, *(probe.deadline for probe in self.attempts.values())]
        self._shared.timers.set(TIMER, min(times))
