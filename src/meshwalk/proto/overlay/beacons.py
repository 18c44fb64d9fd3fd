"""Beacons: which fragment of the network this node is in, and about how large it is.

A fragment cannot see that it is one. So each has a leader, the smallest PeerId that anyone in it
has heard of lately, whose signed beacon goes from neighbour to neighbour every `beacon_interval_s`
with a number that grows. Two nodes that go by different leaders, and hear from both afresh, are in
two fragments. A leader that falls silent is forgotten, and the next smallest takes its place.

A beacon that is older than the leader's by `AGE_MS` counts for less, whoever signed it: it is said
again by somebody who kept it. Only beacons are compared with each other, never with the own clock,
so that a node whose clock is wrong by days can follow, or lead, as any other.

The election is the extrema-finding of spanning-tree bridges (Perlman, SIGCOMM 1985): everyone whose
PeerId is smaller than the leader's says so, and the smallest is heard by all. Whoever finds that no
leader is left waits the longer the larger its own PeerId is, so that few speak at once.

With the beacon travels a sketch of the members (sketch.py), to which every node adds itself and
what its neighbours have added; it is begun anew in each epoch, so that those who left are not
counted for ever. What a beacon says is proven by its leader's signature, and the number of members
by nothing: who lies about it can make the wrong side of two join the other, and no more.
"""

from __future__ import annotations

from collections import Counter

from meshwalk.errors import InvalidRecord
from meshwalk.identity.keys import open_beacon, sign_beacon
from meshwalk.proto.link import Link
from meshwalk.proto.overlay.shared import Shared
from meshwalk.proto.overlay.sketch import estimate, member_hash, merged
from meshwalk.proto.rate import BucketPerLink
from meshwalk.wire.frames import CloseReason
from meshwalk.wire.messages import Beacon
from meshwalk.wire.peerid import PeerId
from meshwalk.wire.records import BeaconPayload, decode_beacon_payload, decode_signed

TIMER = ("overlay", "beacons")
LEADERS_MAX = 64  # guess: leaders whose last number is remembered, so that old beacons are no news
ELECTION_S = 5.0  # guess: over which those who could lead spread their claims, at the most
SPREAD_S_PER_MEMBER = 0.1  # guess: pause between two claims, about one crossing of a link
# guess: 28 hours, more than clocks differ as a rule. Not a whole number of hours, by which wrong
# ones often differ: at the edge two nodes would lead in turn.
AGE_MS = 100_000_000
_STALE = float("-inf")


class Beacons:
    """The beacon of the fragment that one node is in."""

    def __init__(self, shared: Shared, now: float) -> None:
        self.counts: Counter[str] = Counter()
        """What was done with beacons."""
        self._shared = shared
        config = self._config = shared.config.healing
        self._rates = BucketPerLink(config.beacons_per_link_per_s, config.beacons_per_link_burst)
        self._me = bytes(shared.me)
        self._payload: BeaconPayload | None = None
        """The leader's last; None when there is none."""
        self._blob = b""
        self._heard_at = _STALE
        self._sketch: list[int] = []
        self._counted = 0
        """Members by the sketch of the last epoch, or by what was known under an earlier leader."""
        self._leaders: dict[bytes, tuple[int, float, bytes]] = {}
        """By leader: the last number, when that was heard from a neighbour, and the beacon."""
        self._own_counter = 0
        self._beacons_in_epoch = 0
        self._speaks_at = now
        self._is_stopped = False

    # What the node knows.

    @property
    def leader(self) -> PeerId | None:
        """Whose beacon this fragment goes by; None before there was any."""
        return PeerId(self._payload.leader) if self._payload is not None else None

    @property
    def blob(self) -> bytes:
        """The leader's signed beacon; b"" when there is none."""
        return self._blob

    @property
    def size(self) -> int:
        """About how many members this fragment has, this node included."""
        return max(self._counted, estimate(self._sketch, self._config.sketch), 1)

    @property
    def heard_at(self) -> float | None:
        """Unix time in seconds when the last beacon was heard; None when none was."""
        if self._payload is None:
            return None
        return self._heard_at + self._shared.book.unix_offset_s

    def is_fresh(self, now: float) -> bool:
        """Whether the beacon says anything about now."""
        return self._payload is not None and now < self._heard_at + self._config.beacon_timeout_s

    def is_of_ours(self, leader: bytes, now: float) -> bool:
        """Whether this fragment has heard from that leader lately, or goes by it."""
        if self._payload is not None and self._payload.leader == leader and self.is_fresh(now):
            return True
        known = self._leaders.get(leader)
        return known is not None and now < known[1] + self._config.beacon_timeout_s

    # Inputs.

    def start(self, now: float) -> None:
        """The node has started: alone, it is a fragment of one."""
        self._speaks_at = now + self._config.beacon_interval_s * self._shared.rng.uniform(0.0, 1.0)
        self._arm()

    def neighbour_up(self, link: Link, now: float) -> None:
        """A peer has become a neighbour: tell it whose fragment this is."""
        if self.is_fresh(now):
            self._shared.say(link, self._beacon())

    def link_gone(self, link: Link) -> None:
        """A link has ended."""
        self._rates.forget(link.number)

    def heard(self, link: Link, body: Beacon, now: float) -> None:
        """A neighbour's beacon."""
        if not self._rates.take(link.number, now):
            self.counts["too fast"] += 1
            return
        try:
            payload = decode_beacon_payload(decode_signed(body.beacon).payload)
            known = self._leaders.get(payload.leader)
            is_news = known is None or payload.counter > known[0]
            if is_news:  # else it need not be proven: nothing is done because of it
                open_beacon(body.beacon, self._shared.signatures)
        except InvalidRecord as error:
            self._shared.disconnect(link, CloseReason.PROTOCOL, str(error))
            return
        current = self._payload
        if payload.leader == self._me:
            # An own echo; or, after a restart with a clock set back, from an earlier run. Then no
            # epoch of that run may come again either.
            if payload.counter > self._own_counter:
                self._own_counter = payload.counter
                self._beacons_in_epoch = self._config.epoch_beacons
        elif is_news:
            self._note_leader(payload, body.beacon, now)
        if current is not None and self._is_same_epoch(payload, current):
            self._merge(body)
        if not is_news or payload.leader == self._me:
            if known is not None and payload.counter < known[0] and payload.leader == link.peer:
                # It has restarted with its clock set back, and would lead alone for as long as
                # that: let it go on from its own last number.
                self.counts["leader set back"] += 1
                self._shared.say(link, Beacon(known[2], [], self.size))
            return
        if current is None or not self.is_fresh(now) or _precedes(payload, current):
            self._adopt(payload, body, link, now)
        else:
            self.counts["larger leader"] += 1
            self._shared.say(link, self._beacon())  # it should know better: ours is smaller

    def tick(self, now: float) -> None:
        """The timer of this machine has come due."""
        if now >= self._speaks_at and not self._is_stopped:
            self._speak(now)
        self._arm()

    def woke(self, now: float) -> None:
        """Time has passed unseen: what is stale may be so here alone. Listen before speaking."""
        if not self.is_fresh(now):
            pause_s = self._config.beacon_interval_s + self._hesitation_s()
            self._speaks_at = max(self._speaks_at, now + pause_s)
            self._arm()

    def stop(self) -> None:
        """The node is stopping."""
        self._is_stopped = True
        self._rates.clear()
        self._shared.timers.cancel(TIMER)

    # Steps.

    def _adopt(self, payload: BeaconPayload, body: Beacon, link: Link, now: float) -> None:
        """Go by this beacon, and pass it on to the other neighbours."""
        current = self._payload
        if current is None or current.leader != payload.leader:
            self.counts["leader changed"] += 1
            self._counted = self.size
            self._sketch = []
        elif current.epoch != payload.epoch:
            self._counted = estimate(self._sketch, self._config.sketch)
            self._sketch = []
        self._payload, self._blob, self._heard_at = payload, body.beacon, now
        self._sketch = merged(self._sketch, [self._own_hash(payload)], self._config.sketch)
        self._merge(body)
        if _precedes(BeaconPayload(self._me, self._next_counter(now), 0), payload):
            # We should lead. At once: the larger leader has been heard, so the way is free.
            self._speaks_at = now
            self.counts["took over"] += 1
            self._speak(now)
            return
        self.counts["passed on"] += 1
        # Not back to where it came from, unless that has not counted all that are counted here: a
        # part of the network that hangs by one link would be unknown to the rest.
        self._flood(link if self._sketch == body.sketch else None)
        self._speaks_at = now + self._config.beacon_timeout_s + self._hesitation_s()
        self._arm()

    def _speak(self, now: float) -> None:
        """Lead: make the next beacon of this node, and tell all neighbours."""
        self._own_counter = self._next_counter(now)
        last = self._payload
        if last is None or last.leader != self._me:
            epoch = self._own_counter  # larger than any earlier run's
            self._counted, self._sketch, self._beacons_in_epoch = self.size, [], 0
        elif self._beacons_in_epoch >= self._config.epoch_beacons:
            epoch = self._own_counter
            self._counted = estimate(self._sketch, self._config.sketch)
            self._sketch, self._beacons_in_epoch = [], 0
        else:
            epoch = last.epoch
        payload = BeaconPayload(self._me, self._own_counter, epoch)
        self._beacons_in_epoch += 1
        self._payload, self._heard_at = payload, now
        self._blob = sign_beacon(payload, self._shared.signatures)
        self._leaders[self._me] = (payload.counter, now, self._blob)
        self._sketch = merged(self._sketch, [self._own_hash(payload)], self._config.sketch)
        self.counts["led"] += 1
        self._flood(None)
        self._speaks_at = now + self._config.beacon_interval_s
        self._arm()

    def _flood(self, without: Link | None) -> None:
        body = self._beacon()
        for neighbour in self._shared.membership.neighbours.values():
            if neighbour.link is not without:
                self._shared.say(neighbour.link, body)

    def _merge(self, body: Beacon) -> None:
        self._sketch = merged(self._sketch, body.sketch, self._config.sketch)

    def _next_counter(self, now: float) -> int:
        unix_ms = int((now + self._shared.book.unix_offset_s) * 1e3)
        return max(self._own_counter + 1, unix_ms)

    def _note_leader(self, payload: BeaconPayload, blob: bytes, now: float) -> None:
        self._leaders.pop(payload.leader, None)
        while len(self._leaders) >= LEADERS_MAX:
            del self._leaders[next(iter(self._leaders))]
        self._leaders[payload.leader] = (payload.counter, now, blob)

    def _beacon(self) -> Beacon:
        return Beacon(self._blob, self._sketch, self.size)

    def _own_hash(self, payload: BeaconPayload) -> int:
        return member_hash(self._me, payload.leader + payload.epoch.to_bytes(8, "big"))

    def _is_same_epoch(self, one: BeaconPayload, other: BeaconPayload) -> bool:
        return one.leader == other.leader and one.epoch == other.epoch

    def _hesitation_s(self) -> float:
        """How long to wait before claiming to lead: the rank that this PeerId has among so many."""
        rank = int.from_bytes(self._me[:8], "big") / 2.0**64 * self.size
        return min(ELECTION_S, rank * SPREAD_S_PER_MEMBER)

    def _arm(self) -> None:
        if not self._is_stopped:
            self._shared.timers.set(TIMER, self._speaks_at)


def _precedes(one: BeaconPayload, other: BeaconPayload) -> bool:
    """Which of two beacons that are both news a fragment goes by: the smaller leader's, or the next
    of the same; but one that is much older than the other is none."""
    if abs(one.counter - other.counter) > AGE_MS:
        return one.counter > other.counter
    return one.leader <= other.leader
