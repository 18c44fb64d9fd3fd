"""broadcast-cost: what a message to everyone costs, and how soon and how surely it is there.

The measures are those of the Plumtree paper (Leitao, Pereira, Rodrigues, SRDS 2007, section 2.3):
relative message redundancy (RMR), m / (n - 1) - 1 of m payload copies for n nodes that have it, and
last delivery hop (LDH), the most links that a copy had crossed when a node first got it. The
patterns are those of iroh-gossip's simulator: one sender, another by chance in each round, all at
once. One network does all rounds, so that what its machines learn by them shows in later ones.

Nothing here knows how broadcasts travel. Copies are frames that carry a broadcast; what else is
sent on the broadcasts' channel counts as control. All frames from the start of a round to its end
are told apart by the machine that they are for.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING, Final

from meshwalk.errors import MalformedFrame
from meshwalk.sim.experiment import Case, Experiment, Row, Size
from meshwalk.sim.experiments.broadcast_cost_report import (
    ABOUT,
    COPIES,
    LINKS,
    PERCENTILES,
    PINGS,
    Pattern,
    plots,
    tables,
)
from meshwalk.sim.node import Behaviour, Observer, SimNode
from meshwalk.sim.percentiles import percentile
from meshwalk.wire.frames import Channel, Close, Credit, Frame, Hello, Ping, Pong
from meshwalk.wire.messages import decode_broadcast

if TYPE_CHECKING:
    from meshwalk.events import Delivery
    from meshwalk.sim.world import World

SPACING_S: Final = 0.012  # an entry's link carries 50 walks a second; faster joiners must retry
SETTLE_S: Final = 10.0  # guess: twice the time that a walk may take
ROUND_S: Final = 5.0  # iroh-gossip's simulator: a round ends after so long, whoever has it
LOOK_S: Final = 0.05  # guess: how often it is looked whether everybody has it
REST_S: Final = 1.0  # guess: after it, for the last copies, and for what nodes do about them
BODY_BYTES: Final = 100  # guess: a line of chat
# As many rounds as the tests of iroh-gossip 0.101 have; fewer where one takes half a minute.
ROUNDS: Final = {Pattern.ONE: 30, Pattern.MANY: 30, Pattern.ALL: 5}
ROUNDS_LARGE: Final = {Pattern.ONE: 10, Pattern.MANY: 10, Pattern.ALL: 1}
LARGE: Final = 1_000  # guess: nodes from which it takes so long

SIZES: Final[dict[Size, tuple[tuple[Pattern, int], ...]]] = {
    Size.QUICK: (
        (Pattern.ONE, 100),
        (Pattern.MANY, 100),
        (Pattern.ALL, 100),
        (Pattern.ONE, 1_000),
    ),
    Size.FULL: (
        *((pattern, 100) for pattern in Pattern),
        *((pattern, 1_000) for pattern in Pattern),
        (Pattern.ONE, 10_000),
    ),
    Size.HUGE: (
        *((pattern, 1_000) for pattern in Pattern),
        (Pattern.ONE, 10_000),
        (Pattern.MANY, 10_000),
    ),
}
SEEDS: Final = {Size.QUICK: 1, Size.FULL: 3, Size.HUGE: 3}  # at 100 nodes; else 1, 1 and 3


def cases(size: Size, seed: int) -> list[Case]:
    """Each pattern at each size, with several seeds where networks are small."""
    return [
        _case(pattern, nodes, seed + number)
        for pattern, nodes in SIZES[size]
        for number in range(SEEDS[size] if nodes < LARGE or size is Size.HUGE else 1)
    ]


def _case(pattern: Pattern, nodes: int, seed: int) -> Case:
    rounds = (ROUNDS_LARGE if nodes >= LARGE else ROUNDS)[pattern]
    settings = {"pattern": str(pattern), "nodes": nodes, "rounds": rounds}
    broadcasts = rounds * (nodes if pattern is Pattern.ALL else 1)
    return Case(f"{pattern} n={nodes} seed={seed}", settings, seed, nodes * (100 + broadcasts))


def run(case: Case) -> Row:
    """Grow a network and have it broadcast, round after round."""
    from meshwalk.sim.world import World  # it brings all machines along; drawing needs none

    pattern, nodes = Pattern(case.settings["pattern"]), case.settings["nodes"]
    world = World(seed=case.seed, encodes=False)
    world.grow(nodes, spacing_s=SPACING_S)
    world.run(SETTLE_S)
    links = sum(len(node.neighbours) for node in world.nodes)
    rng = Random(case.seed)
    one = rng.choice(world.nodes)
    found = []
    for number in range(case.settings["rounds"]):
        if pattern is Pattern.ALL:
            senders = world.nodes
        else:
            senders = [one if pattern is Pattern.ONE else rng.choice(world.nodes)]
        found.append(one_round(world, senders, b"round %d" % number))
    return {**case.settings, "links": links / nodes, **summed(found)}


# One round.


class Round(Observer, Behaviour):
    """Hears what is delivered, and counts what is sent, of one round."""

    def __init__(self, senders: Sequence[SimNode], body: bytes, began_at: float) -> None:
        self.body = body
        self.began_at = began_at
        self.sent: Counter[str] = Counter()
        """Frames by what they are: `COPIES`, `PINGS`, `LINKS`, `ABOUT`, or their channel."""
        self.delays_s = array("d")
        """Of each delivery, from the call that sent the broadcast."""
        self.last_hops: dict[bytes, int] = {bytes(node.id): 0 for node in senders}
        """Of each broadcast, by its origin."""
        self._last: tuple[object, str] = (None, "")

    def delivered(self, node: SimNode, delivery: Delivery) -> None:
        if delivery.body != self.body:
            return  # late, of an earlier round, which has counted it as missed
        self.delays_s.append(node.world.now - self.began_at)
        origin = bytes(delivery.origin)
        if delivery.hops > self.last_hops[origin]:
            self.last_hops[origin] = delivery.hops

    def sends(self, node: SimNode, link: int, frame: Frame) -> list[Frame | bytes]:
        # One frame goes out over many links: it is looked at once.
        last, kind = self._last
        if last is not frame:
            kind = kind_of(frame)
            self._last = (frame, kind)
        self.sent[kind] += 1
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
        decode_broadcast(frame.body)
    except MalformedFrame:  # on the broadcasts' channel, and not one of them
        return ABOUT
    return COPIES


def one_round(world: World, senders: Sequence[SimNode], text: bytes) -> Round:
    """Each sender broadcasts once, all at the same moment; until everybody has everything, or
    `ROUND_S` have passed, and `REST_S` more."""
    expected = len(senders) * (len(world.nodes) - 1)
    body = text.ljust(BODY_BYTES)
    counted = world.observer = Round(senders, body, world.now)
    for node in world.nodes:
        node.behaviour = counted
    for sender in senders:
        sender.broadcast(body)
    world.run_until(lambda: len(counted.delays_s) >= expected, ROUND_S, LOOK_S)
    world.run(REST_S)
    return counted


def summed(rounds: Sequence[Round]) -> Row:
    """The rounds of a network together, and what may change from one to the next."""
    delays = sorted(delay for one in rounds for delay in one.delays_s)
    broadcasts = sum(len(one.last_hops) for one in rounds)
    sent: Counter[str] = Counter()
    for one in rounds:
        sent.update(one.sent)
    hops = [hop for one in rounds for hop in one.last_hops.values()]
    return {
        "broadcasts": broadcasts,
        "deliveries": len(delays),
        "copies_per_broadcast": sent[COPIES] / broadcasts,
        "control_per_broadcast": sent[ABOUT] / broadcasts,
        "pings_per_round": sent[PINGS] / len(rounds),
        "sent": dict(sorted(sent.items())),
        "rmr": redundancy(sent[COPIES], len(delays)),
        "rmr_by_round": [redundancy(one.sent[COPIES], len(one.delays_s)) for one in rounds],
        "ldh_mean": sum(hops) / len(hops),
        "ldh_max": max(hops),
        "ldh_by_round": [max(one.last_hops.values()) for one in rounds],
        "delay_ms": [
            [percent, 1000 * (percentile(delays, percent) or 0.0)] for percent in PERCENTILES
        ],
    }


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
