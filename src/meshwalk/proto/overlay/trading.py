"""Trades links for closer ones, make before break: seed 001's "better primary".

A look every `interval_s`: is there a verified peer whose mean round trip is under `ratio` of that
of our farthest link which may go? A link may go when it has stayed for `stay_s`, and when both its
ends keep their minimum and their random share without it: hence the question to the other end.

    look --PartRequest--> the far neighbour: it can spare us, and promises to
    PartReply(granted) --dial CLOSER--> the close peer: it has room
    opened: the far link is closed as TRADED; failed: it stays, and the promise runs out

Whoever refuses is left alone for `again_s`, and the next farthest or next closest has its turn, the
latter at once: or one neighbour that needs its link would keep us from trading all others. A node
that is full lets the far link go in the step in which the close one has opened.

A node with more links than its maximum, since some have joined fragments, gets no closer peer for
the far link: it parts from it likewise, and so from one after the other until it has the maximum.

A question costs who answers it its own trades: what is promised counts as gone. So each link is
promised once in `again_s`, and who has been promised, or refused, asks no sooner.

The close peer gains a link and the far one loses one; ours stay as many. A close peer is measured
again before each trade, by the tests that go on anyway. X-BOT (Leitao et al., TPDS 2012) swaps four
ends at once and keeps all degrees; the room between minimum and maximum makes three enough.
"""

from __future__ import annotations

from collections import Counter

import msgspec

from meshwalk.proto.link import Ended, Link
from meshwalk.proto.overlay.addressbook import BookEntry
from meshwalk.proto.overlay.membership import Neighbour
from meshwalk.proto.overlay.shared import Shared
from meshwalk.proto.overlay.standing import Standing
from meshwalk.wire.frames import CloseReason, Purpose
from meshwalk.wire.messages import PartReply, PartRequest
from meshwalk.wire.peerid import PeerId

TIMER = ("overlay", "trading")


class Trade(msgspec.Struct):
    """One trade under way."""

    far: Link
    close: PeerId | None
    """None where there are links too many: the far one goes for nobody."""
    asked: int
    """The id of the question to the far neighbour."""
    expires_at: float
    attempt: int = 0
    has_ended: bool = False
    """Whether the far link has been given up already, since there was no room for both."""


class Trading:
    """The trades of one node, and its promises in those of others."""

    def __init__(self, shared: Shared, standing: Standing) -> None:
        self.attempts: dict[int, Trade] = {}
        """Dials to close peers under way, by the number of the attempt."""
        self.counts: Counter[str] = Counter()
        """What came of looks and questions."""
        self._shared = shared
        self._membership = shared.membership
        self._config = shared.config.trading
        self._standing = standing
        self._trade: Trade | None = None
        self._promised: dict[int, float] = {}
        """Until when a neighbour may close its link, by the number of the link."""
        self._granted: dict[int, float] = {}
        """When a neighbour was promised so last, by the number of the link."""
        self._refused: dict[PeerId, float] = {}
        """Until when whoever refused, or promised, is not asked again. One for each look in that
        time."""
        self._next_at = float("inf")

    # Inputs.

    def start(self, now: float) -> None:
        """The node has started."""
        self._next_at = now + self._pause_s()
        self._arm()

    def may_accept(self) -> bool:
        """Whether a peer that finds this node close may have a link: there is room for it, and for
        one random link that is missing or under way."""
        membership = self._membership
        others = len(membership.neighbours) - membership.randoms
        config = membership.config
        return membership.has_room and others < config.links_max - config.random_min

    def asked(self, link: Link, id: int, now: float) -> None:
        """A neighbour asks whether it may part from us for a closer peer."""
        again_at = self._granted.get(link.number, float("-inf")) + self._config.again_s
        is_granted = now >= again_at and self._can_spare(link, now)
        if is_granted:
            self._promised[link.number] = now + self._config.promise_s
            self._granted[link.number] = now
        self.counts["granted" if is_granted else "not granted"] += 1
        self._shared.say(link, PartReply(is_granted), id)

    def replied(self, link: Link, in_reply_to: int, body: PartReply, now: float) -> None:
        """The far neighbour of a trade has answered."""
        trade = self._trade
        if trade is None or trade.asked != in_reply_to or trade.far is not link or trade.attempt:
            return
        if link.peer is not None:
            self._refused[link.peer] = now + self._config.again_s
        if not body.is_granted:
            self.counts["refused"] += 1
            self._end(now)
        elif trade.close is None:
            is_to_go = self._has_too_many and self._may_end(trade, now)
            self.counts["parted" if is_to_go else "far link gone"] += 1
            if is_to_go:
                self._standing.give_up(link, CloseReason.TRADED)
            self._end(now)
        else:
            self._dial(trade, trade.close, now)

    def make_room(self, attempt: int, now: float) -> None:
        """The link to a close peer has opened, and is about to make it a neighbour."""
        trade = self.attempts.get(attempt)
        membership = self._membership
        if trade is None or len(membership) != membership.config.links_max:
            return  # with links that heal beyond the maximum, there would be no room even so
        if trade.close not in membership.neighbours and self._may_end(trade, now, to_come=1):
            trade.has_ended = True
            self._standing.give_up(trade.far, CloseReason.TRADED)

    def opened(self, attempt: int, link: Link, now: float) -> None:
        """The close peer is a neighbour: let the far one go, unless it had to go before."""
        trade = self.attempts.pop(attempt)
        is_neighbour = trade.close in self._membership.neighbours
        if is_neighbour and trade.has_ended:
            self.counts["traded"] += 1
        elif is_neighbour and self._may_end(trade, now):
            self.counts["traded"] += 1
            self._standing.give_up(trade.far, CloseReason.TRADED)
        else:
            self.counts["far link gone" if is_neighbour else "full"] += 1
        self._end(now)

    def failed(self, attempt: int, ended: Ended, now: float) -> None:
        """The close peer cannot be dialled, or has no room."""
        trade = self.attempts.pop(attempt)
        assert trade.close is not None
        if ended.reason is None and not ended.by_us:
            self._shared.out += self._shared.book.failed(trade.close, now)
        self.counts["close peer refused" if ended.reason is not None else "dial failed"] += 1
        if ended.reason is not None:
            self._refused[trade.close] = now + self._config.again_s
        # The promise is given but once in a while, and holds for some time yet.
        other = self._closer_than(trade.far, now) if not ended.by_us else None
        if other is None or trade is not self._trade or trade.expires_at <= now:
            self._end(now)
        else:
            trade.close = other.peer
            self._dial(trade, other.peer, now)

    def link_gone(self, link: Link) -> None:
        """A link has ended."""
        self._promised.pop(link.number, None)
        self._granted.pop(link.number, None)

    def tick(self, now: float) -> None:
        """The timer of this machine has come due."""
        trade = self._trade
        if trade is not None and trade.expires_at <= now:
            self.counts["timed out"] += 1
            self.attempts.pop(trade.attempt, None)
            self._trade = None
        if now >= self._next_at:
            self._next_at = now + self._pause_s()
            if self._trade is None:
                self._look(now)
        self._arm()

    def stop(self) -> None:
        """The node is stopping."""
        self.attempts.clear()
        self._promised.clear()
        self._granted.clear()
        self._refused.clear()
        self._trade = None
        self._shared.timers.cancel(TIMER)

    # Steps.

    def _look(self, now: float) -> None:
        """Begin a trade if there is one to be made."""
        self._refused = {peer: at for peer, at in self._refused.items() if at > now}
        may_go = [n for n in self._membership.neighbours.values() if self._may_go(n, now)]
        far = max(may_go, key=lambda n: n.link.round_trips.mean_s or 0.0, default=None)
        if far is None:
            return
        close = None
        if not self._has_too_many:
            entry = self._closer_than(far.link, now)
            if entry is None:
                return
            close = entry.peer
        self.counts["begun"] += 1
        asked = self._shared.say(far.link, PartRequest())
        self._trade = Trade(far.link, close, asked, now + self._config.promise_s)

    def _dial(self, trade: Trade, close: PeerId, now: float) -> None:
        """The far neighbour has promised: on to the close peer."""
        entry = self._shared.book.entries.get(close)
        addresses = entry.to_try(1) if entry is not None else []
        if not addresses or self._membership.knows(close):
            self.counts["close peer gone"] += 1
            self._end(now)
            return
        trade.attempt = self._shared.dial(addresses[0], close, Purpose.CLOSER)
        self.attempts[trade.attempt] = trade

    @property
    def _has_too_many(self) -> bool:
        return len(self._membership) > self._membership.config.links_max

    def _may_go(self, neighbour: Neighbour, now: float) -> bool:
        """Whether a neighbour has stayed and been measured for long, and this node can spare it for
        another one."""
        link = neighbour.link
        return (
            now >= link.since + self._config.stay_s
            and len(link.round_trips.samples) >= self._shared.config.link.rtt_window
            and link.number not in self._promised
            and neighbour.peer not in self._refused
            and self._keeps_enough(link, now, to_come=0 if self._has_too_many else 1)
        )

    def _may_end(self, trade: Trade, now: float, to_come: int = 0) -> bool:
        """Whether the far link is still there, and can be spared: others may have gone, or been
        promised, since it was looked."""
        peer = trade.far.peer
        far = self._membership.neighbours.get(peer) if peer is not None else None
        has_far = far is not None and far.link is trade.far
        return has_far and self._keeps_enough(trade.far, now, to_come)

    def _can_spare(self, link: Link, now: float) -> bool:
        """Whether a neighbour may part from this node, which gets nobody for it."""
        neighbour = self._membership.neighbours.get(link.peer) if link.peer is not None else None
        if neighbour is None or neighbour.link is not link or self._is_far_of_own_trade(link):
            return False
        return self._keeps_enough(link, now)

    def _keeps_enough(self, link: Link, now: float, to_come: int = 0) -> bool:
        """Whether this node keeps its minimum and its random share without this link, and without
        those that it has promised away or is about to trade."""
        self._promised = {n: at for n, at in self._promised.items() if at > now}
        left = [
            n
            for n in self._membership.neighbours.values()
            if n.link is not link
            and n.link.number not in self._promised
            and not self._is_far_of_own_trade(n.link)
        ]
        randoms = sum(n.is_random for n in left)
        config = self._membership.config
        return len(left) + to_come >= config.links_min and randoms >= config.random_min

    def _is_far_of_own_trade(self, link: Link) -> bool:
        return self._trade is not None and self._trade.far is link

    def _closer_than(self, far: Link, now: float) -> BookEntry | None:
        """The closest peer that was tested lately, is no neighbour, and much closer than that."""
        far_s = far.round_trips.mean_s
        if far_s is None:
            return None
        below_s = far_s * self._config.ratio
        fresh_s = 2 * self._shared.config.book.retest_s
        known = [
            entry
            for entry in self._shared.book.entries.values()
            if entry.rtt_s is not None
            and entry.rtt_s < below_s
            and entry.verified
            and entry.failures == 0
            and entry.next_try_at <= now
            and entry.tested_at + fresh_s > now
            and entry.peer not in self._refused
            and not self._membership.knows(entry.peer)
            and not any(map(self._membership.has_enough_of, entry.to_try(1)))
        ]
        return min(known, key=lambda e: e.rtt_s or 0.0, default=None)

    def _end(self, now: float) -> None:
        if self._trade is not None:
            self.attempts.pop(self._trade.attempt, None)
        self._trade = None
        self._arm()

    def _pause_s(self) -> float:
        return self._config.interval_s * self._shared.rng.uniform(0.5, 1.5)

    def _arm(self) -> None:
        at = self._next_at
        if self._trade is not None:
            at = min(at, self._trade.expires_at)
        self._shared.timers.set(TIMER, at)
