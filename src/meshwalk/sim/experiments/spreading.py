"""spreading: what the tree of broadcasts is worth right after many nodes have failed at one moment.

A network speaks for a while, so that its tree has grown; then a share of its nodes fails at once,
the one through which all had joined among them, and survivors broadcast once a second, another one
each time. Links and tree are repaired meanwhile, as the shipped machines do it. A broadcast reaches
a survivor in time if it is delivered within `IN_TIME_S`; whether it comes at all is told
`LATER_S` after the last.

`mass_failure` asks what the links that are left could reach, and floods. How survivors learn that a
neighbour is gone is varied as there (`Detector`).
"""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import TYPE_CHECKING, Any, Final

import msgspec

from meshwalk.config import BroadcastConfig, Config, Spreading
from meshwalk.sim.collecting import collecting_seldom
from meshwalk.sim.experiment import Case, Experiment, Row, Size
from meshwalk.sim.experiments.mass_failure import (
    Detector,
    failing_nodes,
    links_among,
    stop,
)
from meshwalk.sim.experiments.spreading_report import plots, tables
from meshwalk.sim.graphs import components
from meshwalk.sim.node import Observer, SimNode
from meshwalk.sim.percentiles import percentile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meshwalk.events import Delivery
    from meshwalk.sim.world import World

SPACING_S: Final = 0.012  # an entry's link carries 50 walks a second; faster joiners must retry
SETTLE_S: Final = 10.0  # guess: twice the time that a walk may take
WARMING: Final = 5  # guess: broadcasts before the failure; the first of them makes the tree
EVERY_S: Final = 1.0  # how often survivors broadcast
BROADCASTS: Final = 20  # twice as many as the ten within which all are to be reached again
IN_TIME_S: Final = 10.0  # guess: what somebody waits for an answer
LATER_S: Final = 60.0  # guess: for the last, until whoever will get it has it
TREE: Final = str(Spreading.TREE.value)
FLOOD: Final = str(Spreading.FLOOD.value)


class Plan(msgspec.Struct, frozen=True):
    """One case, but for its seed."""

    nodes: int
    failing: float
    """Share of the nodes."""
    detector: str
    spreading: str = TREE


SIZES: Final[dict[Size, tuple[Plan, ...]]] = {
    Size.QUICK: (
        *(Plan(300, 0.5, str(detector)) for detector in Detector),
        Plan(300, 0.5, str(Detector.PIPES_BREAK), FLOOD),
    ),
    Size.FULL: (
        *(Plan(1_000, 0.5, str(detector)) for detector in Detector),
        *(Plan(1_000, share, str(Detector.PIPES_BREAK)) for share in (0.3, 0.7)),
        Plan(1_000, 0.5, str(Detector.PIPES_BREAK), FLOOD),
        Plan(10_000, 0.5, str(Detector.PIPES_BREAK)),
    ),
    Size.HUGE: (
        *(Plan(1_000, share, str(d)) for d in Detector for share in (0.3, 0.5, 0.7)),
        *(Plan(10_000, share, str(d)) for d in Detector for share in (0.3, 0.5, 0.7, 0.8)),
        *(Plan(10_000, 0.5, str(detector), FLOOD) for detector in Detector),
    ),
}
SEEDS: Final = {Size.QUICK: 1, Size.FULL: 1, Size.HUGE: 3}


def cases(size: Size, seed: int) -> list[Case]:
    """Each plan, with several seeds where networks are small."""
    return [case_of(plan, seed + number) for plan in SIZES[size] for number in range(SEEDS[size])]


def case_of(plan: Plan, seed: int) -> Case:
    """The case of a plan."""
    name = f"n={plan.nodes} {plan.failing:.0%} {plan.detector} {plan.spreading} seed={seed}"
    return Case(name, msgspec.to_builtins(plan), seed, weight=plan.nodes)


def run(case: Case) -> Row:
    """Grow, warm up, fail, broadcast."""
    from meshwalk.sim.world import World  # it brings all machines along; drawing needs none

    plan = msgspec.convert(case.settings, Plan)
    with collecting_seldom():
        world = World(seed=case.seed, encodes=False)
        config = Config(broadcast=BroadcastConfig(spreading=Spreading(plan.spreading)))
        world.grow(plan.nodes, config, spacing_s=SPACING_S)
        world.run(SETTLE_S)
        return {**case.settings, **fail_and_speak(world, plan)}


class Reached(Observer):
    """When who got which broadcast."""

    def __init__(self) -> None:
        self.delays_s: dict[bytes, list[float]] = {}
        """Of each broadcast, by its body; without its sender."""
        self._got: set[tuple[bytes, SimNode]] = set()
        self._sent_at: dict[bytes, float] = {}

    def sends(self, sender: SimNode, body: bytes) -> None:
        """A node broadcasts."""
        self.delays_s[body] = []
        self._sent_at[body] = sender.world.now
        sender.broadcast(body)

    def delivered(self, node: SimNode, delivery: Delivery) -> None:
        got = delivery.body, node
        if got not in self._got:  # what came early is delivered a second time, in order
            self._got.add(got)
            self.delays_s[delivery.body].append(node.world.now - self._sent_at[delivery.body])


def fail_and_speak(world: World, plan: Plan) -> Row:
    """Have the tree grow, nodes fail, and survivors broadcast; what came of it."""
    rng = Random(f"{world.seed} spreading")
    reached = world.observer = Reached()
    for number in range(WARMING):
        reached.sends(rng.choice(world.nodes), b"before %d" % number)
        world.run(EVERY_S)
    before = [len(delays) / (len(world.nodes) - 1) for delays in reached.delays_s.values()]
    failing = failing_nodes(len(world.nodes), plan.failing, rng)
    survivors = [node for number, node in enumerate(world.nodes) if number not in failing]
    counted = _counts(survivors)
    for number in failing:
        stop(world, world.nodes[number], Detector(plan.detector))
    bodies, parts = [], []
    for number in range(BROADCASTS):
        world.run(EVERY_S)
        parts.append(largest(survivors))
        bodies.append(b"after %d" % (number + 1))
        reached.sends(rng.choice(survivors), bodies[-1])
    world.run(LATER_S)
    return {
        "survivors": len(survivors),
        "before": min(before),
        "parts": len(components(links_among(survivors))),
        "largest": parts,
        **shares(reached, bodies, len(survivors)),
        "counts": {name: (_counts(survivors)[name] - counted[name]) for name in COUNTED},
    }


COUNTED: Final = ("copies", "repeated", "asked for", "grafts", "prunes", "missed", "unanswered")
"""What survivors count about broadcasts that is shown."""


def _counts(nodes: Sequence[SimNode]) -> Counter[str]:
    found: Counter[str] = Counter()
    for node in nodes:
        found.update(node.core.gossip.counts)
    return found


def largest(survivors: list[SimNode]) -> float:
    """The share of the survivors that is in the largest part: no broadcast could reach more."""
    return max(map(len, components(links_among(survivors)))) / len(survivors)


def shares(reached: Reached, bodies: Sequence[bytes], survivors: int) -> dict[str, Any]:
    """Of each broadcast, the share of the others that it reached in time and at all, and when."""
    others = survivors - 1
    in_time, at_all, half_s, last_s = [], [], [], []
    for body in bodies:
        delays = sorted(reached.delays_s[body])
        in_time.append(sum(delay <= IN_TIME_S for delay in delays) / others)
        at_all.append(len(delays) / others)
        half_s.append(percentile(delays, 50))
        last_s.append(percentile(delays, 100))
    return {"in_time": in_time, "at_all": at_all, "half_s": half_s, "last_s": last_s}


EXPERIMENT = Experiment(
    name="spreading",
    summary="which survivors broadcasts reach right after half of all nodes failed at once",
    cases=cases,
    run=run,
    tables=tables,
    plots=plots,
)
