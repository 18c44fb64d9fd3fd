"""Carries out a `Plan`: growth, work and faults, then a time without faults, then the checks.

nodes join --> work and faults, all by the plan --> faults end --> a long cut --> see aftermath.py
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any, Final, TypeAlias

import msgspec

from meshwalk.sim.aftermath import Aftermath, can_be_dialled, honest
from meshwalk.sim.attackers import BEHAVIOURS
from meshwalk.sim.checks import Checks, Finding
from meshwalk.sim.latency import parse_latency
from meshwalk.sim.nat import Dependence, Nat
from meshwalk.sim.node import SimNode
from meshwalk.sim.plan import Fault, Kind, NodePlan, Plan, Step
from meshwalk.sim.work import Work
from meshwalk.sim.world import Admits, MakeCore, World

EVENTS_MAX: Final = 5_000_000  # guess: the longest drawn run has a tenth of that
# In an address group that no node is in. Private as all hosts of a world are: a peer with a public
# address would be told of none of them.
EXTERNAL_HOST: Final = "10.255.0"

Path: TypeAlias = tuple[str | None, str | None]
"""From and to a host, as `Conditions` has it; None stands for all."""


class Verdict(msgspec.Struct, frozen=True):
    """How a run went."""

    findings: list[Finding]
    nodes: int
    up: int
    fragments: int
    """Into how many components the network had come apart when everyone had their links."""
    pieces: int
    """How many are left after they had the time to heal; and then, if that did not do, after one
    node of each was told of the largest."""
    deliveries: int
    events: int
    seconds: float
    """Of virtual time."""
    mended_s: float | None
    """After the end of the faults, until everyone had their links; None: never."""
    healed_s: float | None = None
    """From then until the fragments had found each other; None: there was one only, or they did
    not find each other for as long as was waited."""
    excused: list[str] = []
    """Demands that were dropped, since nobody promises them where attackers are, where many nodes
    cannot be dialled, or where more senders are than may be remembered: "links" when some lacked
    links, "healing" when fragments had to be told of each other, "joining" when pieces stayed apart
    even so, "last words" when those were not judged, "rest" when nobody looked for what is left."""

    @property
    def is_good(self) -> bool:
        """Whether nothing was found."""
        return not self.findings


class Storm:
    """One run of a plan."""

    def __init__(self, plan: Plan, make_core: MakeCore | None = None) -> None:
        self.plan = plan
        self.checks = Checks()
        self.rng = Random(plan.seed)
        self.world = World(
            plan.seed,
            parse_latency(plan.latency, plan.seed),
            observer=self.checks,
            make_core=make_core,
            events_max=EVENTS_MAX,
        )
        self.checks.world = self.world
        self.checks.expects_order = plan.keeps_order
        self.checks.counts_late = not plan.forgets_senders
        if not any(step.fault is Fault.STOP for step in plan.steps):
            self.checks.requests_end_within_s = plan.config.requests.timeout_s
        else:
            self.checks.conversed.deadlines_hold = False
        self.work = Work(self.world, self.checks, plan, self.rng)
        self._faults_end = False
        self._partitions = 0
        """How many there were: the end of an earlier one does not end the present one."""
        self._clogs: Counter[Path] = Counter()
        """How many clogs lie on a path: the end of the last one frees it."""
        self._stays_down: set[SimNode] = set()

    def run(self) -> Verdict:
        """From the first node to the verdict. Raises what a defect of the machines raises."""
        plan, world = self.plan, self.world
        for number, node in enumerate(plan.nodes):
            world.timeline.add(node.joins_at, self._join, number)
        for step in plan.steps:
            world.timeline.add(step.at, self._begin, step)
        self.work.begin()
        world.run(plan.duration_s)
        self._end_faults()
        if plan.cut_s:
            self._cut()
        after = Aftermath(plan, world, self.checks, self.work, self.rng)
        after.run()
        return Verdict(
            findings=self.checks.findings,
            nodes=len(world.nodes),
            up=len(world.up),
            fragments=after.fragments,
            pieces=after.pieces,
            deliveries=self.checks.delivered_count,
            events=world.events,
            seconds=world.now,
            mended_s=after.mended_s,
            healed_s=after.healed_s,
            excused=list(dict.fromkeys(after.excused)),
        )

    @property
    def honest(self) -> list[SimNode]:
        """Nodes that run and keep to the protocol."""
        return honest(self.world)

    # The plan.

    def _join(self, number: int) -> None:
        self._add(self.plan.nodes[number])

    def _add(self, plan: NodePlan) -> None:
        world, rng = self.world, self.rng
        nat: Admits | None = None
        if plan.kind is Kind.NAT:
            mapping, filtering = rng.choice(list(Dependence)), rng.choice(list(Dependence))
            nat = Nat(mapping, filtering, f"{EXTERNAL_HOST}.{len(world.nodes)}", rng)
        node = world.add(
            self.plan.config,
            group=plan.group,
            nat=nat,
            listens=plan.kind is not Kind.DEAF_PORT,
            is_firewalled=plan.kind is Kind.FIREWALLED,
        )
        if plan.behaviour:
            node.behaviour = BEHAVIOURS[plan.behaviour](Random(rng.getrandbits(64)))
            self.checks.hostile.add(node.id)
        # Nodes come in any order: one that is not there yet stands for another that is.
        through = world.nodes[plan.through % max(1, len(world.nodes) - 1)]
        if not can_be_dialled(through):
            through = world.nodes[0]  # nobody would give another address to a newcomer
        if through is not node:
            node.join(through)

    def _begin(self, step: Step) -> None:
        nodes = self.world.nodes
        if self._faults_end or not nodes:
            return
        node, other = nodes[step.node % len(nodes)], nodes[step.other % len(nodes)]
        if step.is_delaying:
            self.checks.expects_order = False
        if step.fault in _ON_NODES:
            self._begin_on_node(step, node, other)
        else:
            self._begin_on_paths(step, node, other)
            self.world.changed()

    def _begin_on_node(self, step: Step, node: SimNode, other: SimNode) -> None:
        world = self.world
        if step.fault is Fault.JOIN:
            number = world.nodes.index(node)
            self._add(NodePlan(world.now, number))
        elif step.fault is Fault.MASS_CRASH:
            up = world.up
            for victim in self.rng.sample(up, int(len(up) * step.value)):
                self._stays_down.add(victim)
                self._crash(victim)
        elif not node.is_up or node.is_asleep or node.is_leaving:
            pass  # it has trouble enough
        elif step.fault in (Fault.CRASH, Fault.VANISH, Fault.FORGET, Fault.LEAVE):
            self._stop(step, node)
        elif step.fault in (Fault.SLEEP, Fault.STOP):
            world.sleep(node, clock_stops=step.fault is Fault.SLEEP)
            self._later(step.value, self._wake, node)
        elif step.fault is Fault.BURST:
            self.work.broadcast(node, int(step.value))
        elif step.fault is Fault.REJOIN and other is not node:
            node.join(other)
        elif step.fault is Fault.MOVE:
            world.move(node)

    def _stop(self, step: Step, node: SimNode) -> None:
        if step.fault is Fault.LEAVE:
            self.world.leave(node)
        else:
            self._crash(node, silently=step.fault is Fault.VANISH)
        if step.fault is Fault.FORGET:
            node.stored.clear()
            node.kept.clear()
        if step.value:
            pause_s = step.value + node.config.link.close_timeout_s
            self._later(pause_s, self._restart, node)

    def _begin_on_paths(self, step: Step, node: SimNode, other: SimNode) -> None:
        conditions, world = self.world.conditions, self.world
        fault, value, here, there = step.fault, step.value, node.host, other.host
        if fault is Fault.PARTITION:
            conditions.partition_halves([each.host for each in world.nodes])
            self._parted(value)
        elif fault is Fault.ISOLATE:
            conditions.partition([here])
            self._parted(value)
        elif fault is Fault.GROUPS:
            conditions.partition_address_groups()
            self._parted(value)
        elif fault is Fault.CLOG:
            self._clog((here, there), value)
        elif fault is Fault.DEAF:
            self._clog((None, here), value)
        elif fault is Fault.LOSS:
            conditions.set_loss(value)
        elif fault is Fault.JITTER:
            conditions.set_jitter(value)
        elif fault is Fault.BANDWIDTH:
            conditions.limit_bandwidth(value, here)
        elif fault is Fault.SLOW_PATH:
            conditions.set_delay(value, here, there)

    def _later(self, seconds: float, action: Callable[[Any], None], argument: Any) -> None:
        self.world.timeline.add(self.world.now + seconds, action, argument)

    def _crash(self, node: SimNode, *, silently: bool = False) -> None:
        self.world.crash(node, silently=silently)

    def _restart(self, node: SimNode) -> None:
        if not node.is_up and not self._faults_end and node not in self._stays_down:
            self.world.restart(node)
            if not node.neighbours and not node.stored:  # as a person would, who starts it again
                self._enter_again(node)

    def _enter_again(self, node: SimNode) -> None:
        others = [n for n in self.world.up if n is not node and can_be_dialled(n)]
        if others:
            node.join(self.rng.choice(others))

    def _wake(self, node: SimNode) -> None:
        if node.is_up and node.is_asleep:
            node.wake()

    def _parted(self, seconds: float) -> None:
        self._partitions += 1
        self._later(seconds, self._rejoin, self._partitions)

    def _rejoin(self, partition: int) -> None:
        if partition == self._partitions:  # else another has taken its place
            self.world.conditions.rejoin()
            self.world.changed()

    def _clog(self, path: Path, seconds: float) -> None:
        self._clogs[path] += 1
        self.world.conditions.clog(*path)
        self._later(seconds, self._unclog, path)

    def _unclog(self, path: Path) -> None:
        self._clogs[path] -= 1
        if not self._clogs[path]:
            self.world.conditions.unclog(*path)
            self.world.changed()

    # Afterwards.

    def _cut(self) -> None:
        """Two halves for long, in which nothing happens."""
        conditions, world = self.world.conditions, self.world
        conditions.partition_halves([each.host for each in world.nodes])
        world.changed()
        world.run(self.plan.cut_s)
        conditions.rejoin()
        world.changed()

    def _end_faults(self) -> None:
        """Everything works again. Who is down stays down."""
        self._faults_end = True
        self.work.end()
        self.world.conditions.heal()
        self.world.changed()
        for node in self.world.up:
            self._wake(node)


_ON_NODES: Final = {
    Fault.CRASH,
    Fault.VANISH,
    Fault.FORGET,
    Fault.LEAVE,
    Fault.MASS_CRASH,
    Fault.SLEEP,
    Fault.STOP,
    Fault.BURST,
    Fault.JOIN,
    Fault.REJOIN,
    Fault.MOVE,
}
