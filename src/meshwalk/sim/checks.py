"""Truths that must hold whatever happens, and truths that must hold once the trouble is over.

They read only. During a run `Checks` hears what the nodes tell their applications; after it `calm`
looks at every node. What is wrong is a `Finding`; nothing is raised, so that one run tells all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from meshwalk.config import Config
from meshwalk.events import Delivery, NeighbourUp
from meshwalk.proto.dispatch import dispatch as dispatch_machine
from meshwalk.proto.effects import Answered, Ask, Effect, Happened, Unanswered
from meshwalk.sim.heard import Conversed
from meshwalk.sim.node import Observer, SimNode
from meshwalk.sim.world import World
from meshwalk.wire.frames import Purpose
from meshwalk.wire.peerid import PeerId

FINDINGS_MAX: Final = 100  # guess: more of the same tells nothing
ROUNDING_S: Final = 1e-6  # more than the sums of times are off by
ONE_SIDED_S: Final = 5.0  # guess: a few crossings of the slowest path, and no time-out
# Walks, carrier, a retry, exchange, beacons, tests, vouching, trades, anchors, handovers, the own
# record, and one spare.
TIMERS_BESIDE_LINKS: Final = 12


class Finding(msgspec.Struct, frozen=True):
    """Something that must not be."""

    at: float
    """Virtual time in seconds."""
    host: str
    text: str

    def __str__(self) -> str:
        return f"{self.at:10.3f} s  {self.host or 'network':<12} {self.text}"


class Checks(Observer):
    """Hears all that nodes tell their applications. Give it to the `World` as its observer.

    Applications tell it what they send: `broadcast`, `sent` and `asked`. Each body is used once.
    """

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self.delivered_count = 0
        self.world: World
        self.requests_end_within_s = float("inf")
        """Of their node's own time, answered or not."""
        self._expects_order = True
        self._stretch = 1
        self.order_ends_with_links = False
        """Whether order is expected no longer than links stay as they are."""
        self.counts_late = True
        """Whether nodes count all that they hand over late: not what they forgot the sender of."""
        self._late: dict[tuple[str, int], int] = {}
        self.hostile: set[PeerId] = set()
        """Nodes that may send what they please in their own name."""
        self._broadcasts: dict[bytes, tuple[PeerId, int]] = {}
        """The sender of each body, and the stretch of time that it was sent in."""
        self._directs: dict[bytes, tuple[PeerId, PeerId]] = {}
        self._requests: dict[tuple[str, int, int], bytes | None] = {}
        """Own requests that have not ended, by host, life and id: the reply that is expected, or
        None where an attacker asked or was asked."""
        self._asked_at: dict[tuple[str, int, int], float] = {}
        self._seen: dict[tuple[str, int], set[bytes]] = {}
        self._last: dict[tuple[str, int, PeerId], tuple[bytes, int, int, float]] = {}
        """Of each sender as a node, in one life, has heard it: its life, the first and the largest
        number, and when it was heard last."""
        self._when_asked: Callable[[SimNode, Ask], None] | None = None
        self._when_told: Callable[[SimNode, Effect], None] | None = None
        self._when_stopped: Callable[[SimNode], None] | None = None
        self.conversed = Conversed(self.found, self.hostile)
        """What is said and heard in conversations."""

    def when_asked(self, answer: Callable[[SimNode, Ask], None]) -> None:
        """Have this called with each request that reaches an application."""
        self._when_asked = answer

    def when_told(
        self, told: Callable[[SimNode, Effect], None], stopped: Callable[[SimNode], None]
    ) -> None:
        """Have these called with what applications hear of conversations, and with nodes' ends."""
        self._when_told, self._when_stopped = told, stopped

    def has_heard(self, node: SimNode, body: bytes) -> bool:
        """Whether the node, in its present life, has had this or sent it."""
        seen = self._seen.get((node.name, node.life), ())
        return body in seen or self._sender_of(body) == node.id

    @property
    def expects_order(self) -> bool:
        """Whether paths are good enough for each sender's broadcasts to come in their order.

        Judged are those that were sent and have come within one stretch of time in which it is so.
        """
        return self._expects_order

    @expects_order.setter
    def expects_order(self, expected: bool) -> None:
        if expected and not self._expects_order:
            self._stretch += 1
        self._expects_order = expected

    def found(self, node: SimNode | None, text: str) -> None:
        """Note something that is wrong."""
        if len(self.findings) < FINDINGS_MAX:
            host = node.name if node is not None else ""
            self.findings.append(Finding(self.world.now, host, text))

    # What applications do.

    def broadcast(self, node: SimNode, body: bytes) -> None:
        """A node is about to send this to everyone."""
        self._broadcasts[body] = (node.id, self._stretch if self._expects_order else 0)

    def sent(self, node: SimNode, to: PeerId, body: bytes) -> None:
        """A node is about to send this to a neighbour."""
        self._directs[body] = (node.id, to)

    def asked(self, node: SimNode, to: PeerId, request: int, reply: bytes) -> None:
        """A node has asked a neighbour, who answers with this if it does."""
        is_hostile = to in self.hostile or node.id in self.hostile
        key = (node.name, node.life, request)
        self._requests[key] = None if is_hostile else reply
        self._asked_at[key] = node.time()

    # As Observer.

    def delivered(self, node: SimNode, delivery: Delivery) -> None:
        self.delivered_count += 1
        body = delivery.body
        seen = self._seen.setdefault((node.name, node.life), set())
        is_hostile = not delivery.is_broadcast and delivery.origin in self.hostile
        if body in seen and not is_hostile:
            self.found(node, f"delivered twice: {_start(body)}")
        seen.add(body)
        if delivery.is_broadcast:
            self._check_broadcast(node, delivery)
        elif self._directs.get(body) != (delivery.origin, node.id) and not is_hostile:
            self.found(node, f"a message that nobody sent here so: {_start(body)}")

    def told(self, node: SimNode, effect: Effect) -> None:
        if type(effect) is Answered or type(effect) is Unanswered:
            self._ended(node, effect)
        elif type(effect) is Ask:
            if self._when_asked is not None:
                self._when_asked(node, effect)
        elif type(effect) is Happened and type(effect.event) is NeighbourUp:
            self._check_degree(node)
            if self.order_ends_with_links:
                self.expects_order = False
        else:
            self.conversed.told(node, effect)
            if self._when_told is not None:
                self._when_told(node, effect)

    def stopped(self, node: SimNode) -> None:
        self.conversed.stopped(node)
        if self._when_stopped is not None:
            self._when_stopped(node)
        for key in [key for key in self._requests if key[0] == node.name]:
            del self._requests[key], self._asked_at[key]

    # During a run.

    def _ended(self, node: SimNode, how: Answered | Unanswered) -> None:
        """An own request has ended."""
        key = (node.name, node.life, how.request)
        if key not in self._requests:
            text = "an answer to nothing, or the second" if type(how) is Answered else ""
            self.found(node, text or "a request has ended twice")
            return
        expected = self._requests.pop(key)
        if type(how) is Answered and expected not in (None, how.body):
            self.found(node, f"another answer than was given: {_start(how.body)}")
        took_s = node.time() - self._asked_at.pop(key)
        if took_s > self.requests_end_within_s + ROUNDING_S:
            self.found(node, f"a request has taken {took_s:.3f} s to end")

    def _check_broadcast(self, node: SimNode, delivery: Delivery) -> None:
        body = delivery.body
        if self._sender_of(body) != delivery.origin:
            self.found(node, f"a broadcast that nobody sent: {_start(body)}")
        # The first part of a body names its sender's life, within which the numbers grow.
        run = body.split(b" ", 1)[0]
        key = (node.name, node.life, delivery.origin)
        number = delivery.sequence
        last_run, first, last, heard_at = self._last.get(key, (b"", 0, 0, 0.0))
        now, broadcast = node.time(), node.config.broadcast
        # It may have been forgotten; and its line begins anew, with what is heard first.
        is_forgotten = now > heard_at + broadcast.remembered_s - broadcast.order_wait_s
        if last_run != run or is_forgotten:
            first, last = number, 0
        if number <= last:
            self._check_late(node, delivery, first, last)
        self._last[key] = (run, first, max(number, last), now)

    def _sender_of(self, body: bytes) -> PeerId | None:
        sender, _ = self._broadcasts.get(body, (None, 0))
        return sender

    def _check_late(self, node: SimNode, delivery: Delivery, first: int, last: int) -> None:
        """What comes after its gap was given up is handed over late, and counted by the node."""
        late = self._late[node.name, node.life] = self._late.get((node.name, node.life), 0) + 1
        counted = node.core.statistics().broadcast.get("late", 0)
        number = delivery.sequence
        _, sent_in = self._broadcasts.get(delivery.body, (None, 0))
        is_in_order_due = self._expects_order and sent_in == self._stretch
        # A sender's line begins with the first that is heard: what was under way may come later.
        if (is_in_order_due and number >= first) or (self.counts_late and late > counted):
            self.found(node, f"number {number} of a sender came after {last}")

    def _check_degree(self, node: SimNode) -> None:
        overlay = node.config.overlay
        links, limit = len(node.neighbours), overlay.links_max + overlay.healing_places
        if links > limit:
            self.found(node, f"{links} neighbours, and {limit} are allowed")
        total, limit = len(node.core.connections.links), node.config.connections.total_max
        if total > limit:
            self.found(node, f"{total} connections, and {limit} are allowed")

    # After a run.

    def calm(self, honest: Iterable[SimNode], restless: Iterable[SimNode]) -> None:
        """Everything must have come to rest: nothing waits or is held, and nobody is one-sided.

        `restless` are those that were busy whenever one looked at them.
        """
        for node in restless:
            for text in unrest(node):
                self.found(node, text)
        nodes = list(honest)
        before = _one_sided(nodes)
        self.world.run(ONE_SIDED_S)
        for node, other in _one_sided(nodes):
            if (node, other) in before:
                self.found(node, f"links with {other.name}, which does not know of it")
        for host, life, request in self._requests:
            self.found(None, f"request {request} of {host} in life {life} has never ended")
        self.conversed.rest()


def _one_sided(nodes: Iterable[SimNode]) -> list[tuple[SimNode, SimNode]]:
    """Nodes with a neighbour that does not have them for one: for a moment that may be."""
    by_id = {node.id: node for node in nodes}
    return [
        (node, other)
        for node in by_id.values()
        for peer in node.neighbours
        if (other := by_id.get(peer)) is not None
        and node.id not in other.core.overlay.membership.neighbours
    ]


def unrest(node: SimNode) -> list[str]:
    """What a node still has under way: nothing, most of the time, when all is well.

    But for tests of peers, which never end; none of them may last.
    """
    core = node.core
    statistics = core.statistics()
    overlay = statistics.overlay
    neighbours = len(node.neighbours)
    tests = [link for link in core.connections.links.values() if link.purpose is Purpose.PROBE]
    links = statistics.links - len(tests)
    numbers = {link.number for link in tests}
    rest = {
        "walks of its own": overlay.own_walks_under_way,
        "walks of others": overlay.walks_carried,
        "promised places": overlay.places_promised,
        "half-open links": statistics.half_open,
        "requests": statistics.requests_waiting,
        "requests of others": statistics.requests_served,
        "broadcasts held": statistics.broadcasts_held,
        "broadcasts missing": statistics.broadcasts_missing,
        "broadcasts that wait to be checked": statistics.broadcasts_waiting,
        "private broadcasts in the stem": core.gossip.stems.held,
        "splits": len(core.overlay.carrier.splits),
        "acceptances": len(core.overlay.carrier.acceptances),
        "dials": len(node.dialling.keys() - numbers),
        "tests that last too long": sum(
            node.time() > link.since + tests_last_s(node.config) for link in tests
        ),
        "peers to be reached": statistics.reaching.wanted,
        "searches": overlay.finds_under_way,
        "searches of others": overlay.finds_carried,
        **_kept_by_dispatch(node),
    }
    found = [f"{count} {what} are left over" for what, count in rest.items() if count]
    if links != neighbours:
        found.append(f"{links} links for {neighbours} neighbours")
    pipes = len(node.ends.keys() - numbers)
    if pipes != links:
        found.append(f"{pipes} pipes for {links} links")
    if statistics.timers > statistics.links + TIMERS_BESIDE_LINKS:
        found.append(f"{statistics.timers} timers for {statistics.links} links")
    return found


def tests_last_s(config: Config) -> float:
    """How long the link of a test may stay in one state: what its maker allows for the test, and
    then what its other end does for silence."""
    link = config.link
    return config.probing.timeout_s + link.temporary_timeout_s + link.close_timeout_s


def _kept_by_dispatch(node: SimNode) -> dict[str, int]:
    """What dispatch keeps of conversations and the like."""
    core = node.core
    dispatch = core.dispatch
    parties = dispatch.parties.values()
    timers = [key for key in core.timers._current if key[0] in dispatch_machine.TIMERS]
    return {
        "conversations": len(dispatch.conversations.open_now),
        "timers of dispatch": len(timers),
        "peers without a link that something is kept for": sum(not p.links for p in parties),
        "bytes of shared credit given": sum(party.shared_in.used for party in parties),
        "bytes of shared credit used": sum(party.shared_out.used for party in parties),
        "bytes of unread messages": sum(party.ahead for party in parties),
        "requests counted for a peer": sum(len(p.asked) + len(p.served) for p in parties),
        "messages that wait for their turn": sum(len(party.waiting or ()) for party in parties),
        "conversations that wait for their turn": sum(
            len(party.turns or ()) + len(party.starved or ()) + len(party.owing or ())
            for party in parties
        ),
    }


def components(nodes: Iterable[SimNode]) -> list[list[SimNode]]:
    """The pieces that links between these nodes hold together, the largest first."""
    by_id = {node.id: node for node in nodes}
    left = dict.fromkeys(by_id)
    pieces = []
    while left:
        first = next(iter(left))
        del left[first]
        piece, queue = [by_id[first]], deque([first])
        while queue:
            for peer in by_id[queue.popleft()].neighbours:
                if peer in left:
                    del left[peer]
                    queue.append(peer)
                    piece.append(by_id[peer])
        pieces.append(piece)
    return sorted(pieces, key=len, reverse=True)


def _start(body: bytes) -> str:
    return repr(body[:40])
