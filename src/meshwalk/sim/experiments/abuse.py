"""abuse: what becomes of broadcasts, and of the abusers, when some nodes do what they should not.

A network has come to rest, and its tree has grown; then a share of its nodes begins, each with the
same kind of abuse (`ABUSES` in attackers.py), and goes on to the end. They are full members: known,
linked, in the tree. Honest nodes broadcast all the while, two a second, another one each time. A
broadcast counts as delivered to an honest node if it came within `IN_TIME_S`.

Abusers act at each of their pings, which they send ten times as often as others do. The rates that
a flood is held against are a thousandth of the defaults, so that it can be computed: what is above
a rate is treated alike, however high that is.
"""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import TYPE_CHECKING, Final

import msgspec

from meshwalk.config import Config, IntakeConfig, LinkConfig
from meshwalk.events import NeighbourDown
from meshwalk.proto.effects import Effect, Happened
from meshwalk.sim.collecting import collecting_seldom
from meshwalk.sim.experiment import Case, Experiment, Row, Size
from meshwalk.sim.experiments.abuse_report import NOBODY, plots, tables
from meshwalk.sim.experiments.mass_failure import links_among
from meshwalk.sim.graphs import components
from meshwalk.sim.node import Observer, SimNode
from meshwalk.sim.percentiles import percentile

if TYPE_CHECKING:
    from meshwalk.events import Delivery
    from meshwalk.sim.world import World

SPACING_S: Final = 0.012  # an entry's link carries 50 walks a second; faster joiners must retry
SETTLE_S: Final = 20.0  # guess: all have their links
WARMING: Final = 10  # guess: broadcasts before the abuse
EVERY_S: Final = 0.5  # between two honest broadcasts
IN_TIME_S: Final = 10.0  # guess: what somebody waits for an answer
LATER_S: Final = 30.0  # guess: for the last broadcast, until whoever will get it has it
LOOK_S: Final = 1.0  # guess: how often abusers' links are counted
PING_S: Final = 0.5  # a tenth of the default
SCALE: Final = 0.001  # of the rates: see above
BURST_SCALE: Final = 1_000  # what the burst is divided by

INTAKE: Final = IntakeConfig(
    link_bytes_per_s=IntakeConfig().link_bytes_per_s * SCALE,
    link_burst_bytes=IntakeConfig().link_burst_bytes // BURST_SCALE,
    origin_bytes_per_s=IntakeConfig().origin_bytes_per_s * SCALE,
    origin_burst_bytes=IntakeConfig().origin_burst_bytes // BURST_SCALE,
    # Else a few announcements a second would be as much as the scaled rate of a link.
    cost_bytes=IntakeConfig().cost_bytes // 4,
)


class Plan(msgspec.Struct, frozen=True):
    """One case, but for its seed."""

    abuse: str
    """A name in `ABUSES`, or `NOBODY`."""
    nodes: int
    share: float
    """Of abusers."""
    seconds: float
    """For how long they do it."""


# Nodes, shares, seconds, networks.
SIZES: Final[dict[Size, tuple[int, tuple[float, ...], float, int]]] = {
    Size.QUICK: (40, (0.2,), 20.0, 1),
    Size.FULL: (60, (0.1, 0.2), 60.0, 1),
    Size.HUGE: (300, (0.1, 0.2, 0.3), 300.0, 5),
}


def cases(size: Size, seed: int) -> list[Case]:
    """Each abuse by each share, and none, in several networks."""
    from meshwalk.sim.attackers import ABUSES

    nodes, shares, seconds, networks = SIZES[size]
    plans = [Plan(NOBODY, nodes, 0.0, seconds)]
    plans += [Plan(abuse, nodes, share, seconds) for abuse in ABUSES for share in shares]
    return [case_of(plan, seed + number) for plan in plans for number in range(networks)]


def case_of(plan: Plan, seed: int) -> Case:
    """The case of a plan."""
    name = f"n={plan.nodes} {plan.abuse} {plan.share:.0%} seed={seed}"
    weight = plan.nodes * plan.seconds * (5 if plan.abuse == "flooder" else 1 + plan.share)
    return Case(name, msgspec.to_builtins(plan), seed, weight)


def run(case: Case) -> Row:
    """Grow, abuse, and see who hears what."""
    from meshwalk.sim.world import World  # it brings all machines along; drawing needs none

    plan = msgspec.convert(case.settings, Plan)
    with collecting_seldom():
        scene = Scene(World(case.seed, encodes=False), plan)
        scene.warm_up()
        scene.abuse()
        return {**case.settings, **scene.row()}


class Notes(Observer):
    """What honest nodes hear, and why they lose links while the abuse goes on."""

    def __init__(self, hostile: set[SimNode]) -> None:
        self.delays_s: dict[bytes, list[float]] = {}
        """To honest nodes, of each broadcast of theirs, by its body."""
        self.of_abusers = 0
        """Messages of abusers that honest nodes were given."""
        self.lost_abusers: Counter[str] = Counter()
        """Links of honest nodes with abusers that have ended, by the reason."""
        self.lost_honest: Counter[str] = Counter()
        """And those with one another, each counted at both ends."""
        self.is_counting = False
        self._hostile = hostile
        self._hostile_ids = {node.id for node in hostile}
        self._sent_at: dict[bytes, float] = {}
        self._got: set[tuple[SimNode, bytes, int]] = set()

    def begin(self) -> None:
        """From here on all counts; what was before does not."""
        self.delays_s.clear()
        self._sent_at.clear()
        self.is_counting = True

    def sends(self, sender: SimNode, body: bytes) -> None:
        """An honest node broadcasts."""
        self.delays_s[body] = []
        self._sent_at[body] = sender.world.now
        sender.broadcast(body)

    def delivered(self, node: SimNode, delivery: Delivery) -> None:
        got = node, bytes(delivery.origin), delivery.sequence
        if node in self._hostile or got in self._got:
            return  # what came early is delivered a second time, in order
        self._got.add(got)
        sent_at = self._sent_at.get(delivery.body)
        if sent_at is None:
            self.of_abusers += delivery.origin in self._hostile_ids
        else:
            self.delays_s[delivery.body].append(node.world.now - sent_at)

    def told(self, node: SimNode, effect: Effect) -> None:
        if not self.is_counting or node in self._hostile or type(effect) is not Happened:
            return
        event = effect.event
        if type(event) is NeighbourDown:
            lost = self.lost_abusers if event.peer in self._hostile_ids else self.lost_honest
            lost[event.reason.split(":")[0]] += 1


class Scene:
    """One network."""

    def __init__(self, world: World, plan: Plan) -> None:
        self.world = world
        self.plan = plan
        self._rng = rng = Random(f"{world.seed} abuse")
        hostile = set(rng.sample(range(1, plan.nodes), round(plan.share * plan.nodes)))
        honest_config = Config(intake=INTAKE)
        hostile_config = Config(link=LinkConfig(ping_interval_s=PING_S))
        for number in range(plan.nodes):
            node = world.add(hostile_config if number in hostile else honest_config)
            if number:
                node.join(world.nodes[0])
            world.run(SPACING_S)
        self.abusers = [world.nodes[number] for number in sorted(hostile)]
        self.honest = [node for node in world.nodes if node not in set(self.abusers)]
        self.notes = world.observer = Notes(set(self.abusers))
        self.links: list[float] = []
        """What share of the honest nodes' links is with abusers, once a second."""
        world.run(SETTLE_S)

    def warm_up(self) -> None:
        """The tree grows."""
        for number in range(WARMING):
            self.notes.sends(self._rng.choice(self.honest), b"before %d" % number)
            self.world.run(EVERY_S)
        self.world.run(LOOK_S)
        self.links.append(self._share_of_links())

    def abuse(self) -> None:
        """It begins, and honest nodes broadcast."""
        from meshwalk.sim.attackers import ABUSES

        self.notes.begin()
        for node in self.abusers:
            node.behaviour = ABUSES[self.plan.abuse](Random(self._rng.getrandbits(64)))
        number, began_at = 0, self.world.now
        while self.world.now < began_at + self.plan.seconds:
            self.notes.sends(self._rng.choice(self.honest), b"during %d" % number)
            number += 1
            self.world.run(EVERY_S)
            if number % round(LOOK_S / EVERY_S) == 0:
                self.links.append(self._share_of_links())
        self.world.run(LATER_S)

    def row(self) -> Row:
        """What came of it."""
        delays = sorted(delay for some in self.notes.delays_s.values() for delay in some)
        expected = len(self.notes.delays_s) * (len(self.honest) - 1)
        in_time = [sum(delay <= IN_TIME_S for delay in d) for d in self.notes.delays_s.values()]
        counts: Counter[str] = Counter()
        for node in self.honest:
            counts.update(node.core.gossip.counts)
        return {
            "broadcasts": len(self.notes.delays_s),
            "in_time": sum(in_time) / expected,
            "worst": min(in_time) / (len(self.honest) - 1),
            "at_all": len(delays) / expected,
            "delay_ms": {str(p): 1000 * (percentile(delays, p) or 0.0) for p in (50, 95, 99, 100)},
            "of_abusers": self.notes.of_abusers / len(self.honest),
            "lost_abusers": dict(sorted(self.notes.lost_abusers.items())),
            "lost_honest": dict(sorted(self.notes.lost_honest.items())),
            "links": self.links,
            "honest_parts": len(components(links_among(self.honest))),
            **self._scores(),
            "offences": dict(sorted(self._offences().items())),
            "counts": dict(sorted(counts.items())),
            "events": self.world.events,
        }

    def _share_of_links(self) -> float:
        """Of the honest nodes' links, those with abusers."""
        ids = {node.id for node in self.abusers}
        peers = [peer for node in self.honest for peer in node.neighbours]
        return sum(peer in ids for peer in peers) / len(peers)

    def _scores(self) -> Row:
        """What honest nodes hold against abusers and each other: the most against each, their mean,
        and how many some honest node refuses."""
        now = self.world.now
        refusing: Counter[SimNode] = Counter()
        by_id = {node.id: node for node in self.world.nodes}
        against: dict[SimNode, float] = dict.fromkeys(self.world.nodes, 0.0)
        for node in self.honest:
            for peer, amount in node.core.gossip.trust.listed(now):
                against[by_id[peer]] = max(against[by_id[peer]], amount)
                refusing[by_id[peer]] += node.core.gossip.trust.is_refused(peer, now)
        found: Row = {}
        for name, nodes in (("abusers", self.abusers), ("honest", self.honest)):
            held = [against[node] for node in nodes] or [0.0]
            found[f"score_{name}"] = sum(held) / len(held)
            found[f"score_{name}_most"] = max(held)
            found[f"refused_{name}"] = sum(refusing[node] > 0 for node in nodes)
        return found

    def _offences(self) -> Counter[str]:
        found: Counter[str] = Counter()
        for node in self.honest:
            found.update(node.core.gossip.trust.counts)
        return found


EXPERIMENT = Experiment(
    name="abuse",
    summary="broadcasts among nodes of which some flood, forge, replay, lie, hoard or waver",
    cases=cases,
    run=run,
    tables=tables,
    plots=plots,
)
