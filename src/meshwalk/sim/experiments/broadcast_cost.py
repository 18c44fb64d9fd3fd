"""broadcast-cost: what a message to everyone costs, and how soon and how surely it is there.

The measures are those of the Plumtree paper (Leitao, Pereira, Rodrigues, SRDS 2007, section 2.3):
relative message redundancy (RMR), m / (n - 1) - 1 of m payload copies for n nodes that have it, and
last delivery hop (LDH), the most links that a copy had crossed when a node first got it. The
patterns are those of iroh-gossip's simulator: one sender, another by chance in each round, all at
once; so are the delays: each pair of nodes has drawn one of 10 to 50 ms and keeps it. One network
does all rounds, so that what its machines learn by them shows in later ones.

Nothing here knows how broadcasts travel. Copies are frames that carry a broadcast, whoever they
come to; what else is sent on the broadcasts' channel counts as control. All frames from the start
of a round to its end are told apart by the machine that they are for. A node misses a broadcast
that it has not got when its round ends, if it was linked when the round began and is still there.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING, Final

import msgspec

from meshwalk.config import BroadcastConfig, Config, Spreading
from meshwalk.errors import MalformedFrame
from meshwalk.sim.collecting import collecting_seldom
from meshwalk.sim.experiment import Case, Experiment, Row, Size
from meshwalk.sim.experiments.broadcast_cost_report import (
    ABOUT,
    COPIES,
    LINKS,
    PERCENTILES,
    PINGS,
    SETTLED_AFTER,
    Pattern,
    plots,
    tables,
)
from meshwalk.sim.latency import Pairwise
from meshwalk.sim.node import Behaviour, Observer, SimNode
from meshwalk.sim.percentiles import percentile
from meshwalk.wire.codec import encode_frame
from meshwalk.wire.frames import Channel, Close, Credit, Frame, Hello, Ping, Pong
from meshwalk.wire.gossip import Broadcast, decode_gossip

if TYPE_CHECKING:
    from meshwalk.events import Delivery
    from meshwalk.sim.world import World

DELAYS_S: Final = (0.01, 0.05)  # iroh-gossip's simulator: LatencyConfig's default
SPACING_S: Final = 0.012  # an entry's link carries 50 walks a second; faster joiners must retry
SETTLE_S: Final = 10.0  # guess: twice the time that a walk may take
ROUND_S: Final = 5.0  # iroh-gossip's simulator: a round ends after so long, whoever has it
LOOK_S: Final = 0.05  # guess: how often it is looked whether everybody has it
REST_S: Final = 1.0  # guess: after it, for the last copies, and for what nodes do about them
CHURN_ROUND_S: Final = 10.0  # guess: with churn, so that some nodes come and go in thirty rounds
LATER_S: Final = 30.0  # guess: after the last round, for what came too late
BODY_BYTES: Final = 100  # guess: a line of chat
# As many rounds as the tests of iroh-gossip 0.101 have; fewer where one takes half a minute.
ROUNDS: Final = {Pattern.ONE: 30, Pattern.MANY: 30, Pattern.ALL: 5}
ROUNDS_LARGE: Final = {Pattern.ONE: 10, Pattern.MANY: 10, Pattern.ALL: 1}
LARGE: Final = 1_000  # guess: nodes from which it takes so long
TREE: Final = str(Spreading.TREE.value)
FLOOD: Final = str(Spreading.FLOOD.value)


class Plan(msgspec.Struct, frozen=True):
    """One case, but for its seed."""

    pattern: str
    nodes: int
    rounds: int
    spreading: str = TREE
    loss: float = 0.0
    """Share of the frames that are lost, and sent again by TCP."""
    churn: float = 0.0
    """Share of the nodes that leave each minute, and join."""


def planned(
    pattern: Pattern, nodes: int, spreading: str = TREE, loss: float = 0.0, churn: float = 0.0
) -> Plan:
    """A plan with as many rounds as its size allows."""
    # A tree must have grown before its cost can be told; a flood is the same in every round.
    is_slow = nodes > LARGE or (nodes >= LARGE and (pattern is Pattern.ALL or spreading == FLOOD))
    rounds = (ROUNDS_LARGE if is_slow else ROUNDS)[pattern]
    return Plan(str(pattern), nodes, rounds, spreading, loss, churn)


SPEAKERS: Final = (Pattern.ONE, Pattern.MANY)
SIZES: Final[dict[Size, tuple[Plan, ...]]] = {
    Size.QUICK: (
        *(planned(pattern, nodes) for pattern in Pattern for nodes in (20, 100)),
        planned(Pattern.ONE, 100, FLOOD),
        planned(Pattern.MANY, 100, loss=0.01),
        planned(Pattern.MANY, 100, churn=0.01),
    ),
    Size.FULL: (
        *(planned(p, n, way) for p in Pattern for n in (20, 100) for way in (TREE, FLOOD)),
        *(planned(pattern, 1_000) for pattern in SPEAKERS),
        planned(Pattern.ONE, 1_000, FLOOD),
        *(planned(pattern, 100, loss=loss) for pattern in Pattern for loss in (0.01, 0.05)),
        planned(Pattern.MANY, 100, FLOOD, loss=0.01),
        planned(Pattern.ONE, 100, churn=0.01),
        *(planned(Pattern.MANY, 100, way, churn=0.01) for way in (TREE, FLOOD)),
        planned(Pattern.ALL, 1_000),
        *(planned(pattern, 1_000, loss=0.05) for pattern in SPEAKERS),
        planned(Pattern.MANY, 1_000, loss=0.01),
        planned(Pattern.MANY, 1_000, churn=0.01),
    ),
    Size.HUGE: (
        *(planned(p, n, way) for p in Pattern for n in (100, 1_000) for way in (TREE, FLOOD)),
        *(planned(pattern, 1_000, loss=loss) for pattern in Pattern for loss in (0.01, 0.05)),
        *(planned(pattern, 1_000, churn=share) for pattern in SPEAKERS for share in (0.01, 0.05)),
        *(planned(pattern, 10_000, way) for pattern in SPEAKERS for way in (TREE, FLOOD)),
    ),
}
SEEDS: Final = {Size.QUICK: 1, Size.FULL: 1, Size.HUGE: 3}


def cases(size: Size, seed: int) -> list[Case]:
    """Each plan, with several seeds where networks are small."""
    return [case_of(plan, seed + number) for plan in SIZES[size] for number in range(SEEDS[size])]


def case_of(plan: Plan, seed: int) -> Case:
    """The case of a plan."""
    name = (
        f"{plan.pattern} n={plan.nodes} {plan.spreading} loss={plan.loss:.0%}"
        f" churn={plan.churn:.0%} seed={seed}"
    )
    broadcasts = plan.rounds * (plan.nodes if plan.pattern == Pattern.ALL else 1)
    copies = broadcasts * (7 if plan.spreading == FLOOD else 3)  # as frames: guess
    return Case(name, msgspec.to_builtins(plan), seed, plan.nodes * (100 + copies))


def run(case: Case) -> Row:
    """Grow a network and have it broadcast, round after round."""
    from meshwalk.sim.world import World  # it brings all machines along; drawing needs none

    plan = msgspec.convert(case.settings, Plan)
    with collecting_seldom():
        latency = Pairwise(*DELAYS_S, case.seed, jitter=0.0)
        world = World(seed=case.seed, latency=latency, encodes=False)
        config = Config(broadcast=BroadcastConfig(spreading=Spreading(plan.spreading)))
        world.grow(plan.nodes, config, spacing_s=SPACING_S)
        world.run(SETTLE_S)
        links = sum(len(node.neighbours) for node in world.nodes)
        course = Course(world, Random(f"{case.seed} broadcast-cost"))
        course.run(plan)
        branches = sum(node.core.gossip.tree.eager for node in course.members)
        return {
            **case.settings,
            "links": links / plan.nodes,
            "branches": branches / len(course.members),
            "left": course.left,
            **summed(course.rounds),
        }


# One round.


class Round:
    """What was sent and delivered of one round."""

    def __init__(self, senders: Sequence[SimNode], members: Sequence[SimNode], at: float) -> None:
        self.began_at = at
        self.is_over = False
        self.senders = list(senders)
        self.members = list(members)
        """Who had a link when it began."""
        self.sent: Counter[str] = Counter()
        """Frames by what they are: `COPIES`, `PINGS`, `LINKS`, `ABOUT`, or their channel."""
        self.sent_bytes: Counter[str] = Counter()
        """Of those, `COPIES` and `ABOUT`."""
        self.delays_s = array("d")
        """Of each delivery before the round was over, from the call that sent the broadcast."""
        self.last_hops: dict[bytes, int] = {bytes(node.id): 0 for node in senders}
        """Of each broadcast, by its origin."""
        self.missed = 0
        """Broadcasts that nodes which stayed had not got when it was over."""
        self.missed_for_good = 0
        """Those that never came, and not only late."""
        self._got: dict[SimNode, set[bytes]] = {}
        """Whose broadcasts each node has. What came early is delivered a second time, in order."""

    @property
    def expected(self) -> int:
        """Deliveries, if nobody leaves."""
        return len(self.senders) * len(self.members) - len(set(self.senders) & set(self.members))

    def delivered(self, node: SimNode, delivery: Delivery) -> None:
        """A broadcast of this round has come to a node."""
        origin, got = bytes(delivery.origin), self._got.setdefault(node, set())
        if origin in got:
            return
        got.add(origin)
        if self.is_over:
            return
        self.delays_s.append(node.world.now - self.began_at)
        if delivery.hops > self.last_hops[origin]:
            self.last_hops[origin] = delivery.hops

    def still_missing(self, stayed: Sequence[SimNode]) -> int:
        """Broadcasts that these, if they were there when it began, have not got by now."""
        senders, were_there = set(self.senders), set(self.members)
        return sum(
            len(self.senders) - (node in senders) - len(self._got.get(node, ()))
            for node in stayed
            if node in were_there
        )


class Counting(Observer, Behaviour):
    """Hears what is delivered, by round, and counts what is sent while a round goes on."""

    def __init__(self) -> None:
        self.rounds: dict[bytes, Round] = {}
        """By the body of its broadcasts."""
        self.current: Round | None = None
        self._last: tuple[object, str, int] = (None, "", 0)

    def delivered(self, node: SimNode, delivery: Delivery) -> None:
        found = self.rounds.get(delivery.body)
        if found is not None:
            found.delivered(node, delivery)

    def sends(self, node: SimNode, link: int, frame: Frame) -> list[Frame | bytes]:
        if self.current is None:
            return [frame]
        # One frame goes out over many links: it is looked at once.
        last, kind, size = self._last
        if last is not frame:
            kind = kind_of(frame)
            size = len(encode_frame(frame)) if kind in (COPIES, ABOUT) else 0
            self._last = (frame, kind, size)
        self.current.sent[kind] += 1
        if size:
            self.current.sent_bytes[kind] += size
        return [frame]


def kind_of(frame: Frame) -> str:
    """What a frame is sent for."""
    if isinstance(frame, Ping | Pong):
        return PINGS
    if isinstance(frame, Hello | Close):
        return LINKS
    if isinstance(frame, Credit):
        return str(Channel.APPLICATION.name.lower())
    if frame.channel is not Channel.BROADCAST:
        return str(frame.channel.name.lower())
    try:
        is_copy = isinstance(decode_gossip(frame.body), Broadcast)
    except MalformedFrame:  # on the broadcasts' channel, and not one of them
        return ABOUT
    return COPIES if is_copy else ABOUT


class Course:
    """The rounds of one network."""

    def __init__(self, world: World, rng: Random) -> None:
        self.world = world
        self.members = list(world.nodes)
        """Who is there and not about to go."""
        self.rounds: list[Round] = []
        self.left = 0
        """How many have gone."""
        self._rng = rng
        self._counting = world.observer = Counting()
        self._one = rng.choice(world.nodes)
        for node in world.nodes:
            node.behaviour = self._counting

    def run(self, plan: Plan) -> None:
        """All rounds."""
        if plan.loss:
            self.world.conditions.set_loss(plan.loss)
        for number in range(plan.rounds):
            if plan.pattern == Pattern.ALL:
                senders = list(self.members)
            else:
                senders = [self._one if plan.pattern == Pattern.ONE else self._any_member()]
            began_at = self.world.now
            if plan.churn:
                self._draw_churn(plan.churn)
            self.one_round(senders, b"round %d" % number)
            if plan.churn:
                self.world.run(max(0.0, began_at + CHURN_ROUND_S - self.world.now))
        self.world.run(LATER_S)
        for found in self.rounds:
            found.missed_for_good = found.still_missing(self.members)

    def one_round(self, senders: Sequence[SimNode], text: bytes) -> Round:
        """Each sender broadcasts once, all at the same moment; until everybody has everything, or
        `ROUND_S` have passed, and `REST_S` more."""
        world = self.world
        body = text.ljust(BODY_BYTES)
        members = [node for node in self.members if node.neighbours]
        counted = Round(senders, members, world.now)
        self._counting.current = self._counting.rounds[body] = counted
        self.rounds.append(counted)
        for sender in senders:
            sender.broadcast(body)
        world.run_until(lambda: len(counted.delays_s) >= counted.expected, ROUND_S, LOOK_S)
        counted.missed = counted.still_missing(self.members)
        world.run(REST_S)
        counted.is_over = True
        self._counting.current = None
        return counted

    # Who comes and goes.

    def _any_member(self) -> SimNode:
        return self._rng.choice([node for node in self.members if node.neighbours])

    def _draw_churn(self, share: float) -> None:
        """Some leave and some join at times of this round."""
        wanted = share * len(self.members) * CHURN_ROUND_S / 60
        for action in (self._leaves, self._joins):
            count = int(wanted) + (self._rng.random() < wanted % 1)
            for _ in range(count):
                at = self.world.now + self._rng.uniform(0, CHURN_ROUND_S)
                self.world.timeline.add(at, action, None)

    def _leaves(self, _: None) -> None:
        node = self._rng.choice([node for node in self.members if node is not self._one])
        self.members.remove(node)
        self.left += 1
        if self._rng.random() < 0.5:
            self.world.crash(node)
        else:
            self.world.leave(node)

    def _joins(self, _: None) -> None:
        node = self.world.add(self._one.config, behaviour=self._counting)
        node.join(self._any_member())
        self.members.append(node)


# All of them.


def summed(rounds: Sequence[Round]) -> Row:
    """The rounds of a network together, and what may change from one to the next."""
    delays = sorted(delay for one in rounds for delay in one.delays_s)
    broadcasts = sum(len(one.last_hops) for one in rounds)
    sent: Counter[str] = Counter()
    sent_bytes: Counter[str] = Counter()
    for one in rounds:
        sent.update(one.sent)
        sent_bytes.update(one.sent_bytes)
    hops = [hop for one in rounds for hop in one.last_hops.values()]
    lasts = [1000 * max(one.delays_s) for one in rounds if one.delays_s]
    by_round = [redundancy(one.sent[COPIES], len(one.delays_s)) for one in rounds]
    return {
        "broadcasts": broadcasts,
        "deliveries": len(delays),
        "expected": sum(one.expected for one in rounds),
        "missed": sum(one.missed for one in rounds),
        "missed_for_good": sum(one.missed_for_good for one in rounds),
        "copies_per_broadcast": sent[COPIES] / broadcasts,
        "copy_bytes_per_broadcast": sent_bytes[COPIES] / broadcasts,
        "control_per_broadcast": sent[ABOUT] / broadcasts,
        "control_bytes_per_broadcast": sent_bytes[ABOUT] / broadcasts,
        "pings_per_round": sent[PINGS] / len(rounds),
        "sent": dict(sorted(sent.items())),
        "rmr": mean(by_round),
        "rmr_settled": mean(by_round[SETTLED_AFTER:]),
        "rmr_by_round": by_round,
        "ldh_mean": sum(hops) / len(hops),
        "ldh_max": max(hops),
        "ldh_by_round": [max(one.last_hops.values()) for one in rounds],
        "last_ms": mean(lasts),
        "delay_ms": [
            [percent, 1000 * (percentile(delays, percent) or 0.0)] for percent in PERCENTILES
        ],
    }


def mean(values: Sequence[float | None]) -> float | None:
    """Of those that are known; None of nothing."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def redundancy(copies: int, deliveries: int) -> float | None:
    """RMR of one broadcast or of many: deliveries are the n - 1 nodes of each that got it from
    another. None when nobody did."""
    return copies / deliveries - 1 if deliveries else None


EXPERIMENT = Experiment(
    name="broadcast-cost",
    summary="copies, control messages, hops and delays of messages to everyone",
    cases=cases,
    run=run,
    tables=tables,
    plots=plots,
)
