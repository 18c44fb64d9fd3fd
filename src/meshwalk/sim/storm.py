"""Carries out a `Plan`: growth, work and faults, then a time without faults, then the checks.

nodes join --> work and faults, all by the plan --> faults end --> liveness: all must mend
                                                               --> last words: a few from each
                                                               --> calm: nothing left over
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any, Final, TypeAlias

import msgspec

from meshwalk.config import OverlayConfig
from meshwalk.sim.attackers import BEHAVIOURS
from meshwalk.sim.checks import ONE_SIDED_S, Checks, Finding, components, unrest
from meshwalk.sim.latency import parse_latency
from meshwalk.sim.nat import Dependence, Nat
from meshwalk.sim.node import SimNode
from meshwalk.sim.plan import Fault, Kind, NodePlan, Plan, Step
from meshwalk.sim.work import Work
from meshwalk.sim.world import Admits, MakeCore, World

EVENTS_MAX: Final = 5_000_000  # guess: the longest drawn run has a tenth of that
MENDS_IN_ROUNDS: Final = 12  # guess: retries at the longest pause that mending may take
LAST_WORDS: Final = 3  # from each node: two may be exchanged, the third shows what got lost
LAST_TALKS: Final = 3  # guess: few enough for the smallest limits that are drawn
LAST_WORDS_PACE_S: Final = 0.05  # guess: less than most paths take, so that several are under way
LAST_WORDS_S: Final = 30.0  # guess: what the slowest path needs for the last broadcasts
EXTERNAL_HOST: Final = "203.0.113"  # RFC 5737: addresses for documentation
FIREWALL_SHARE_MAX: Final = 0.34  # guess: with more, dialable nodes may be too few for the others

Path: TypeAlias = tuple[str | None, str | None]
"""From and to a host, as `Conditions` has it; None stands for all."""


class Verdict(msgspec.Struct, frozen=True):
    """How a run went."""

    findings: list[Finding]
    nodes: int
    up: int
    fragments: int
    """Into how many components the network has come apart. Fragments that have all they want do not
    look for each other yet, so more than one is no finding."""
    pieces: int
    """How many are left after one node of each was told of the largest."""
    deliveries: int
    events: int
    seconds: float
    """Of virtual time."""
    mended_s: float | None
    """After the end of the faults, until everyone had their links; None: never."""
    excused: list[str] = []
    """Demands that were dropped, since nobody promises them where attackers are, where many nodes
    cannot be dialled, or where more senders are than may be remembered: "links" when some lacked
    links, "joining" when pieces stayed apart, "last words" when those were not judged, "rest" when
    nobody looked for what is left."""

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
        self._is_told = False
        """Whether each piece has been told of the largest one."""
        self._partitions = 0
        """How many there were: the end of an earlier one does not end the present one."""
        self._clogs: Counter[Path] = Counter()
        """How many clogs lie on a path: the end of the last one frees it."""
        self._stays_down: set[SimNode] = set()
        self._excused: list[str] = []

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
        mended_s = self._mend()
        pieces = components(self.honest)
        fragments = len(pieces)
        if fragments > 1:
            self._bring_together()
            self._excused.clear()  # who is told has no excuse yet
            mended_s = self._mend()
            pieces = components(self.honest)
            self._expect_one(pieces)
        self._last_words(pieces, is_mended=mended_s is not None)
        if mended_s is not None:
            self._calm()
        else:
            self._excused.append("rest")
        return Verdict(
            findings=self.checks.findings,
            nodes=len(world.nodes),
            up=len(world.up),
            fragments=fragments,
            pieces=len(pieces),
            deliveries=self.checks.delivered_count,
            events=world.events,
            seconds=world.now,
            mended_s=mended_s,
            excused=list(dict.fromkeys(self._excused)),
        )

    @property
    def honest(self) -> list[SimNode]:
        """Nodes that run and keep to the protocol."""
        return [node for node in self.world.up if node.behaviour is None]

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
        if not self._can_be_dialled(through):
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

    def _stop(self, step: Step, node: SimNode) -> None:
        if step.fault is Fault.LEAVE:
            self.world.leave(node)
        else:
            self._crash(node, silently=step.fault is Fault.VANISH)
        if step.fault is Fault.FORGET:
            node.stored.clear()
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
        others = [n for n in self.world.up if n is not node and self._can_be_dialled(n)]
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

    def _end_faults(self) -> None:
        """Everything works again. Who is down stays down."""
        self._faults_end = True
        self.work.end()
        self.world.conditions.heal()
        self.world.changed()
        for node in self.world.up:
            self._wake(node)

    def _mend(self) -> float | None:
        """Wait until everyone has the links it wants; None when that does not come about."""
        world, overlay = self.world, self.plan.config.overlay
        link = self.plan.config.link
        patience_s = link.idle_timeout_s + MENDS_IN_ROUNDS * (
            overlay.retry_max_s + overlay.walk_timeout_s + overlay.place_timeout_s
        )
        began = world.now
        # Links to who has vanished must have had the time to be noticed.
        world.run(link.idle_timeout_s + link.ping_interval_s)
        if world.run_until(self._is_whole, patience_s, look_s=0.5):
            mended_s = world.now - began
            world.run(ONE_SIDED_S)  # the last links may stand at one end only, as yet
            return mended_s
        self._starved(f"after {patience_s:.0f} s without faults")
        return None

    def _starved(self, when: str) -> None:
        """Those who lack links are a finding, or excused."""
        wanted, is_possible = self._wanted(self.plan.config.overlay), self._is_possible()
        for node in self.honest:
            links = len(node.neighbours)
            if links >= wanted:
                continue
            if is_possible and (self._is_told or not self._is_helpless(node)):
                self.checks.found(node, f"{links} links {when}")
            else:
                self._excused.append("links")

    def _wanted(self, overlay: OverlayConfig) -> int:
        return min(overlay.links_min, len(self.world.up) - 1)

    def _is_mended(self) -> bool:
        wanted = self._wanted(self.plan.config.overlay)
        return all(len(node.neighbours) >= wanted for node in self.honest)

    def _is_whole(self) -> bool:
        """Whether everyone has its links, and no piece that was told of another is on its own."""
        return self._is_mended() and not (self._is_told and len(components(self.honest)) > 1)

    def _is_possible(self) -> bool:
        """Whether everyone can have its links: not in small networks where most cannot be dialled,
        nor among attackers, nor in a fragment that is too small by itself."""
        up, overlay = self.world.up, self.plan.config.overlay
        dialable = [node for node in up if self._can_be_dialled(node)]
        return (
            (
                len(dialable) == len(up)
                or (
                    len(up) - len(dialable) <= FIREWALL_SHARE_MAX * len(up)
                    and len(dialable) > 2 * overlay.links_max
                    # A full node drops a link for who must dial it; with two, that may part them.
                    and overlay.links_min > 2
                )
            )
            and all(node.behaviour is None for node in up)
            and (
                self._is_told
                or not self.plan.parts_the_network
                or len(components(self.honest)) == 1
            )
        )

    def _can_be_dialled(self, node: SimNode) -> bool:
        is_open = node.listens and not node.is_firewalled
        return is_open and node.host not in self.world.behind_nat

    def _last_words(self, pieces: list[list[SimNode]], *, is_mended: bool) -> None:
        """Everyone broadcasts a few times more; all in the same piece must hear it, in order."""
        world, checks, plan = self.world, self.checks, self.plan
        is_judged = (
            is_mended
            and not plan.forgets_senders
            and all(node.behaviour is None for node in world.up)
        )
        # Over links that stay, a flood keeps the order without waiting for anything.
        checks.expects_order = is_judged
        checks.order_ends_with_links = not plan.waits_for_order
        if is_judged and plan.conversations_per_s and plan.config.overlay.links_min > 1:
            for piece in pieces:
                self._last_talks(piece)
        words: dict[bytes, list[SimNode]] = {}
        for _ in range(LAST_WORDS if is_judged else 1):
            for piece in pieces:
                for node in piece:
                    words[self.work.broadcast(node, 1)] = piece
            world.run(LAST_WORDS_PACE_S)
        world.run(LAST_WORDS_S)
        checks.expects_order = False
        if not is_judged:
            self._excused.append("last words")
            return
        for body, piece in words.items():
            for node in piece:
                if not checks.has_heard(node, body):
                    checks.found(node, f"has not heard the last broadcast {body[:40]!r}")

    def _last_talks(self, piece: list[SimNode]) -> None:
        """A few converse with nodes of their piece that can be dialled, neighbours or not."""
        dialable = [node for node in piece if self._can_be_dialled(node)]
        for _ in range(LAST_TALKS if dialable else 0):
            self.work.converse(self.rng.choice(piece), self.rng.choice(dialable).id)

    def _expect_one(self, pieces: list[list[SimNode]]) -> None:
        if len(pieces) > 1 and self._is_told and self._is_possible():
            self.checks.found(None, f"in {len(pieces)} pieces, though told of each other")
        elif len(pieces) > 1:
            self._excused.append("joining")

    def _is_helpless(self, node: SimNode) -> bool:
        """Whether its piece is too small for it, and knows nobody alive elsewhere: everyone that a
        newcomer was told of may have died before it could learn of others."""
        up = {other.id: other for other in self.world.up}
        piece = next(piece for piece in components(up.values()) if node in piece)
        if len(piece) > self._wanted(self.plan.config.overlay):
            return False
        addresses = {other.address for other in up.values() if other not in piece}
        peers = {peer for peer, other in up.items() if other not in piece}
        return not any(
            peers & set(member.core.overlay.book.entries)
            or addresses & {entry.address for entry in member.core.overlay.walks.entries}
            for member in piece
        )

    def _bring_together(self) -> None:
        """Name a node of the largest piece as an entry to one of each other, as a person would."""
        self._is_told = True
        largest, *others = components(self.honest)
        for piece in others:
            for here, there in ((piece, largest), (largest, piece)):
                joining = [node for node in here if not node.core.overlay.membership.is_full]
                entries = [node for node in there if self._can_be_dialled(node)]
                if joining and entries:
                    self.rng.choice(joining).join(self.rng.choice(entries))
                    break
            else:
                self._is_told = False  # none of them has place, or none can be dialled

    def _calm(self) -> None:
        config = self.plan.config
        self.world.run(
            config.link.temporary_timeout_s
            + config.link.idle_timeout_s
            + 3 * config.overlay.walk_timeout_s
            + config.overlay.place_timeout_s
            + config.requests.timeout_s
        )
        is_small = len(self.world.up) <= config.overlay.links_min  # they go on looking for others
        if is_small or any(node.behaviour is not None for node in self.world.up):
            self._excused.append("rest")
            return
        # An entry that never let a node in is tried again and again: each node rests in between.
        restless = self.honest

        def has_rested() -> bool:
            restless[:] = [node for node in restless if unrest(node)]
            return not restless

        self.world.run_until(has_rested, 10 * config.overlay.retry_max_s, look_s=0.5)
        if self._is_mended():
            self.checks.calm(self.honest, restless)
            self._forget()
        else:
            self._starved("after there were enough, without faults")

    def _forget(self) -> None:
        """Who has long been silent is forgotten, as soon as others are heard: one for each."""
        world = self.world
        world.run(self.plan.config.broadcast.remembered_s)
        for speaker, *others in components(self.honest):
            remembered = max((node.core.gossip.origins for node in others), default=0)
            self.work.broadcast(speaker, remembered)
            world.run(LAST_WORDS_S)
            for node in others:
                if (origins := node.core.gossip.origins) > 1:
                    self.checks.found(node, f"remembers {origins} senders, and one has spoken")


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
}
