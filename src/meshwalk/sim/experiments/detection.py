"""detection: how soon silent neighbours are given up, and how many live ones are with them.

A settled network in which one node in five answers late, each in one of three ways. First nobody
fails, and every link that is closed as idle is a mistake. Then nodes vanish one by one, others
are suspended, and in the end many vanish at one moment; for each of their neighbours it is noted
when it drops its link. The same seed gives the same network and the same failures to each rule.
"""

from __future__ import annotations

import enum
from collections import Counter
from random import Random
from typing import TYPE_CHECKING, Any, Final

from meshwalk.config import Config, DetectionConfig
from meshwalk.events import NeighbourDown
from meshwalk.proto.effects import Effect, Happened
from meshwalk.sim.collecting import collecting_seldom
from meshwalk.sim.experiment import Case, Experiment, Row, Size
from meshwalk.sim.experiments.detection_report import (
    AT_ONCE,
    CALM,
    IDLE_ONLY,
    LOSSY,
    MAIN,
    NOBODY_ASKED,
    SHIPPED,
    SLOW,
    SUSPENDED,
    VANISHED,
    plots,
    tables,
)
from meshwalk.sim.latency import Plane
from meshwalk.sim.node import Observer, SimNode
from meshwalk.wire.frames import Ping, Pong
from meshwalk.wire.peerid import PeerId

if TYPE_CHECKING:
    from meshwalk.sim.world import World

CLUSTERS: Final = 6  # guess: some regions of the world; round trips of 4 to 300 ms
SETTLE_S: Final = 120.0  # every link has its 20 round trips, one each five seconds
SLOW_SHARE: Final = 0.2  # guess: one machine in five is overloaded or far out on a bad line
FIXED_S: Final = 0.5  # guess: each way, so a second more there and back: a poor mobile line
CHANGING_S: Final = 1.0  # guess: the most that it is each way, drawn anew each second
STOPS_EVERY_S: Final = 20.0  # guess: in the mean; a machine that swaps
STOPS_FOR_S: Final = (1.0, 3.0)  # guess: how long it then stands still
LOSS: Final = 0.05  # guess: a poor wireless line; TCP is slow above that
JITTER_S: Final = 0.1  # guess: as much as the longest way takes
APART_S: Final = (3.0, 7.0)  # guess: from one failure to the next: the first is noticed by then
UNTIL_S: Final = 40.0  # idle time-outs of 15 s, of a suspect that spoke last at the latest moment
SHARE_GONE: Final = 0.1  # of the nodes, for each way to go

RULES: Final[dict[str, dict[str, Any]]] = {
    SHIPPED: {},
    NOBODY_ASKED: {"vouchers": 0},
    IDLE_ONLY: {"least_s": 1e9},  # longer than any run
    "one voucher": {"vouchers": 1},
    "three vouchers": {"vouchers": 3},
    "suspect after 0.3 s more": {"least_s": 0.3},
    "suspect after 3 s more": {"least_s": 3.0},
    "vouchers take 1 s": {"voucher_timeout_s": 1.0},
    "vouchers take 3 s": {"voucher_timeout_s": 3.0},
}


class Slowness(enum.Enum):
    """In which way a node answers late."""

    FAR = enum.auto()
    """Each frame takes half a second longer, there and back."""
    CHANGING = enum.auto()
    """Up to a second longer, and another time each second."""
    STOPPING = enum.auto()
    """The process stands still for one to three seconds, now and then."""


# Nodes, seconds without a failure, and rules under each condition.
SIZES: Final[dict[Size, tuple[int, float, dict[str, tuple[str, ...]]]]] = {
    Size.QUICK: (40, 120.0, {SLOW: MAIN}),
    Size.FULL: (150, 600.0, {CALM: MAIN, SLOW: MAIN, LOSSY: tuple(RULES)}),
    Size.HUGE: (300, 3600.0, {CALM: MAIN, SLOW: tuple(RULES), LOSSY: tuple(RULES)}),
}


def cases(size: Size, seed: int) -> list[Case]:
    """Each rule under each condition."""
    nodes, watch_s, conditions = SIZES[size]
    return [
        Case(
            f"{condition}, {rule} n={nodes} seed={seed}",
            {"nodes": nodes, "watch_s": watch_s, "condition": condition, "rule": rule},
            seed,
            weight=nodes * (SETTLE_S + watch_s),
        )
        for condition, rules in conditions.items()
        for rule in rules
    ]


def run(case: Case) -> Row:
    """Settle a network, watch it while all live, then have nodes go; what came of it."""
    from meshwalk.sim.world import World  # it brings all machines along; drawing needs none

    settings = case.settings
    config = Config(detection=DetectionConfig(**RULES[settings["rule"]]))
    with collecting_seldom():
        world = World(case.seed, Plane(CLUSTERS, case.seed), encodes=False)
        watch = world.observer = Watch()
        world.grow(settings["nodes"], config)
        if settings["condition"] != CALM:
            Slow(world, share=SLOW_SHARE)
        if settings["condition"] == LOSSY:
            world.conditions.set_loss(LOSS)
            world.conditions.set_jitter(JITTER_S)
        world.run(SETTLE_S)
        peace = in_peace(world, watch, settings["watch_s"])
        fail(world, watch)
        return {**settings, **peace, "dropped": watch.dropped(), "missed": watch.missed()}


class Slow:
    """Makes a share of the nodes slow, by turns in each way, until the end of the world."""

    def __init__(self, world: World, share: float) -> None:
        self.nodes: dict[SimNode, Slowness] = {}
        self._world = world
        self._rng = Random(f"{world.seed} slow")
        ways = list(Slowness)
        drawn = self._rng.sample(world.nodes, round(share * len(world.nodes)))
        for number, node in enumerate(drawn):
            way = self.nodes[node] = ways[number % len(ways)]
            if way is Slowness.FAR:
                self._delay(node, FIXED_S)
            elif way is Slowness.CHANGING:
                self._changes(node)
            else:
                self._goes_on(node)

    def _changes(self, node: SimNode) -> None:
        self._delay(node, self._rng.uniform(0.0, CHANGING_S))
        self._world.timeline.add(self._world.now + 1.0, self._changes, node)

    def _delay(self, node: SimNode, seconds: float) -> None:
        self._world.conditions.set_delay(seconds, from_host=node.host)
        self._world.conditions.set_delay(seconds, to_host=node.host)

    def _stops(self, node: SimNode) -> None:
        if node.is_up and not node.is_asleep:  # else it is gone for good
            self._world.sleep(node, clock_stops=False)
            for_s = self._rng.uniform(*STOPS_FOR_S)
            self._world.timeline.add(self._world.now + for_s, self._goes_on, node)

    def _goes_on(self, node: SimNode) -> None:
        if node.is_up:
            node.wake()
            at = self._world.now + self._rng.expovariate(1 / STOPS_EVERY_S)
            self._world.timeline.add(at, self._stops, node)


class Watch(Observer):
    """Notes each link that is given up, and when those with nodes that are gone are dropped."""

    def __init__(self) -> None:
        self.given_up = 0
        """Links that one end has closed as idle, though the other lives."""
        self._gone: dict[PeerId, None] = {}
        self._awaited: dict[tuple[PeerId, PeerId], tuple[str, float]] = {}
        """How and when a node went, by its neighbour that has not dropped it yet, and itself."""
        self._dropped: dict[str, list[float]] = {}

    def goes(self, node: SimNode, how: str) -> None:
        """The node is about to go; what it believes of others does not matter any more."""
        world = node.world
        self._gone[node.id] = None
        self._awaited = {pair: at for pair, at in self._awaited.items() if pair[0] != node.id}
        for other in world.nodes:
            if other.id not in self._gone and node.id in other.neighbours:
                self._awaited[other.id, node.id] = (how, world.now)

    def dropped(self) -> dict[str, list[float]]:
        """For each way to go, how long it took each neighbour to drop its link, in order."""
        return {how: sorted(times) for how, times in self._dropped.items()}

    def missed(self) -> dict[str, int]:
        """Links with nodes that are gone and that nobody has dropped yet."""
        return dict(Counter(how for how, _ in self._awaited.values()))

    def told(self, node: SimNode, effect: Effect) -> None:
        if type(effect) is not Happened or type(effect.event) is not NeighbourDown:
            return
        down = effect.event
        awaited = self._awaited.pop((node.id, down.peer), None)
        if awaited is not None:
            how, since = awaited
            self._dropped.setdefault(how, []).append(round(node.world.now - since, 3))
        elif node.id not in self._gone and down.peer not in self._gone:
            self.given_up += down.by_us and down.reason.startswith("idle")


def in_peace(world: World, watch: Watch, seconds: float) -> Row:
    """Let time pass in which nobody fails: what is suspected and given up in vain, and its cost."""
    before, suspicions = Counter(world.frames), suspicions_of(world)
    watch.given_up = 0
    links = []
    for _ in range(10):
        links.append(sum(len(node.neighbours) for node in world.nodes) / 2)
        world.run(seconds / 10)
    hours = sum(links) / len(links) * seconds / 3600
    frames = Counter(world.frames)
    frames.subtract(before)
    found = suspicions_of(world)
    found.subtract(suspicions)
    return {
        "links": 2 * sum(links) / len(links) / len(world.nodes),
        "link_hours": hours,
        "given_up": watch.given_up,
        "suspicions": dict(sorted((what, count) for what, count in found.items() if count)),
        "pings": (frames[Ping] + frames[Pong]) / hours / 3600,
        "frames": sum(frames.values()) / hours / 3600,
    }


def suspicions_of(world: World) -> Counter[str]:
    """What all nodes together have suspected, answered and decided so far."""
    total: Counter[str] = Counter()
    for node in world.nodes:
        total.update(node.core.overlay.vouching.counts)
    return total


def fail(world: World, watch: Watch) -> None:
    """Have nodes vanish and be suspended by turns, one by one, then many vanish at one moment."""
    rng = Random(f"{world.seed} going")
    each = max(2, round(SHARE_GONE * len(world.nodes)))
    going = rng.sample(world.nodes, 3 * each)
    for number, node in enumerate(going[: 2 * each]):
        if number % 2:
            watch.goes(node, SUSPENDED)
            node.wake()  # or it would stay as it is, its clock running
            world.sleep(node)
        else:
            watch.goes(node, VANISHED)
            world.crash(node, silently=True)
        world.run(rng.uniform(*APART_S))
    world.run(UNTIL_S)
    for node in going[2 * each :]:
        watch.goes(node, AT_ONCE)
    for node in going[2 * each :]:
        world.crash(node, silently=True)
    world.run(UNTIL_S)


EXPERIMENT = Experiment(
    name="detection",
    summary="how soon silent neighbours are given up, and how often wrongly",
    cases=cases,
    run=run,
    tables=tables,
    plots=plots,
)
