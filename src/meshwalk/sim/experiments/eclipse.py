"""eclipse: attackers who fill a node's address book, and whom it is linked to once it restarts.

After Heilman et al., "Eclipse Attacks on Bitcoin's Peer-to-Peer Network" (USENIX Security 2015).
Honest nodes each have an address group of their own; four times as many attackers share four
groups. They come to the victim again and again, so that it knows them and has met them last; they
answer when it tests them, tell it of each other only, take every walk that they should carry on,
and come back to it as former neighbours would when it has restarted. A few of them are linked in
the honest network, too. Then the victim's program crashes and starts again, with what its store
kept.

Each defence is taken away in turn, and all of them.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any, Final

import msgspec

from meshwalk.config import (
    BookConfig,
    Config,
    HealingConfig,
    LinkConfig,
    OverlayConfig,
    ProbingConfig,
    TradingConfig,
)
from meshwalk.sim.collecting import collecting_seldom
from meshwalk.sim.experiment import Case, Experiment, Row, Size
from meshwalk.sim.experiments.eclipse_report import (
    ALL,
    NO_ANCHORS,
    NO_BUCKETS,
    NO_GROUPS,
    NO_RANDOM,
    NONE,
    ONE_LINK,
    UNBOUND,
    plots,
    tables,
)
from meshwalk.wire.frames import Purpose

if TYPE_CHECKING:
    from meshwalk.sim.node import SimNode
    from meshwalk.sim.world import World

GROUPS: Final = 4  # of the attackers: addresses are cheap, groups of them are not
FIRST_GROUP: Final = 250  # of theirs; the honest ones are below
TIMES: Final = 4  # as many attackers as honest nodes
AGENTS: Final = 8  # guess: attackers linked in the honest network, two of each group
SETTLE_S: Final = 60.0  # guess: all have their links, and books have filled a little
# The victim tests one peer every 1.5 s instead of every 30 s: so five minutes stand for more than
# an hour and a half, as far as its book is concerned.
TESTS_EVERY_S: Final = 1.5
WAVE_S: Final = 5.0  # guess: how often some attackers come
WAVES: Final = 12  # of them until each has come once: a minute
DOWN_S: Final = 10.0  # guess: a restart
MINIMUM_WITHIN_S: Final = 60.0  # guess: ten times what a restart usually takes to find links
LATER_S: Final = 120.0  # guess: "some minutes later"


def variants() -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Settings of the overlay and of the book that differ from the defaults, by what is missing;
    and one with more than the defaults have."""
    missing: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        UNBOUND: ({"links_per_group_max": 10}, {}),
        NO_GROUPS: ({}, {"groups_private": False}),
        NO_BUCKETS: ({}, {"source_buckets": 64, "group_buckets": 32}),
        NO_ANCHORS: ({}, {"anchors": 0}),
        NO_RANDOM: ({"links_random_min": 0}, {}),
    }
    none: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    for overlay, book in missing.values():
        none[0].update(overlay)
        none[1].update(book)
    return {ALL: ({}, {}), ONE_LINK: ({"links_per_group_max": 1}, {}), **missing, NONE: none}


class Plan(msgspec.Struct, frozen=True):
    """One case, but for its seed."""

    missing: str
    """Which defence is missing."""
    honest: int
    attack_s: float
    restarts: int
    """Of the victim, each from the store as it was after the attack."""


# Honest nodes, seconds of attack, restarts, seeds.
SIZES: Final[dict[Size, tuple[int, float, int, int]]] = {
    Size.QUICK: (20, 120.0, 2, 1),
    Size.FULL: (50, 300.0, 2, 16),
    Size.HUGE: (100, 600.0, 2, 100),
}


def cases(size: Size, seed: int) -> list[Case]:
    """Each defence taken away, with several networks."""
    honest, attack_s, restarts, seeds = SIZES[size]
    return [
        case_of(Plan(missing, honest, attack_s, restarts), seed + number)
        for missing in variants()
        for number in range(seeds)
    ]


def case_of(plan: Plan, seed: int) -> Case:
    """The case of a plan."""
    name = f"n={plan.honest} {plan.missing} seed={seed}"
    return Case(name, msgspec.to_builtins(plan), seed, weight=plan.honest * plan.attack_s)


def run(case: Case) -> Row:
    """Attack a victim, restart it some times, and return whom it was linked to."""
    from meshwalk.sim.world import World  # it brings all machines along; drawing needs none

    plan = msgspec.convert(case.settings, Plan)
    with collecting_seldom():
        siege = Siege(World(case.seed, encodes=False), plan)
        siege.attack()
        restarts = siege.restarts()
        return {**case.settings, **siege.book(), "captured": siege.captured, "restarts": restarts}


class Siege:
    """One victim, and those around it."""

    def __init__(self, world: World, plan: Plan) -> None:
        from meshwalk.sim.attackers import Ring

        self.world = world
        self.plan = plan
        self._rng = Random(f"{world.seed} eclipse")
        self._ring = Ring(self._rng)
        self.attackers = self._ring.members
        overlay, book = variants()[plan.missing]
        config = _honest_config(overlay, book)
        for number in range(plan.honest - 1):
            node = world.add(config, group=number % (FIRST_GROUP - 1) + 1)
            if number:
                node.join(world.nodes[0])
        eager = msgspec.structs.replace(
            config, probing=ProbingConfig(interval_s=TESTS_EVERY_S, pings=3)
        )
        self.victim = world.add(eager, group=0)
        self.victim.join(world.nodes[0])
        world.run(SETTLE_S)
        for number in range(TIMES * plan.honest):
            node = world.add(_hostile_config(), group=FIRST_GROUP + number % GROUPS)
            self._ring.add(node)
            node.join(self.victim if number < AGENTS else self._rng.choice(self.attackers))
        self._hostile = self._ring.ids

    @property
    def captured(self) -> int:
        """Walks that attackers have taken."""
        return self._ring.captured

    def attack(self) -> None:
        """Fill the victim's book."""
        until = self.world.now + self.plan.attack_s
        number = 0
        while self.world.now < until:
            self._come(self.attackers[number % WAVES :: WAVES])
            number += 1
            self.world.run(WAVE_S)

    def book(self) -> dict[str, Any]:
        """Whom the victim knows: how many, and the share of attackers, among those it has verified
        and those it has only heard of."""
        found: dict[str, Any] = {}
        for name, is_verified in (("verified", True), ("heard", False)):
            entries = self.victim.core.overlay.book.entries.values()
            peers = [entry.peer for entry in entries if entry.verified is is_verified]
            hostile = sum(peer in self._hostile for peer in peers)
            found[name] = len(peers)
            found[f"{name}_hostile"] = hostile / len(peers) if peers else 0.0
        return found

    def restarts(self) -> list[dict[str, Any]]:
        """Crash and restart the victim, each time with the same store."""
        world, victim = self.world, self.victim
        kept = dict(victim.stored)
        found = []
        for _ in range(self.plan.restarts):
            world.crash(victim)
            world.run(DOWN_S)
            victim.stored.clear()
            victim.stored.update(kept)
            world.restart(victim)
            began_at = world.now
            # They know that it is back as soon as it dials one of them, or answers one.
            self._come_back()
            has_links = world.run_until(
                lambda: len(victim.neighbours) >= victim.config.overlay.links_min,
                MINIMUM_WITHIN_S,
                look_s=0.1,
            )
            after_s = world.now - began_at
            links, hostile = self._links()
            world.run(LATER_S / 2)
            self._come_back()
            world.run(LATER_S / 2)
            later_links, later_hostile = self._links()
            found.append(
                {
                    "after_s": round(after_s, 3) if has_links else None,
                    "links": links,
                    "hostile": hostile,
                    "later_links": later_links,
                    "later_hostile": later_hostile,
                }
            )
        return found

    def _links(self) -> tuple[int, int]:
        neighbours = self.victim.neighbours
        return len(neighbours), sum(peer in self._hostile for peer in neighbours)

    def _come(self, attackers: list[SimNode]) -> None:
        """Be known to the victim: make a connection, and end the last one."""
        address, peer = self.victim.address, self.victim.id
        for node in attackers:
            for link in list(node.core.connections.links.values()):
                if link.purpose is Purpose.PROBE and link.outbound:
                    node.do(node.core.close_link(link.number, node.time()))
            node.do(node.core.probe(address, peer, node.time()))

    def _come_back(self) -> None:
        """Say to have been neighbours before."""
        from meshwalk.sim.attackers import dial

        for node in self._rng.sample(self.attackers, 2 * AGENTS):
            dial(node, self.victim.address, self.victim.id, Purpose.RETURNING, b"")


def _honest_config(overlay: dict[str, Any], book: dict[str, Any]) -> Config:
    """The defaults but for what is missing, and for what would only take time to compute."""
    return Config(
        overlay=OverlayConfig(**overlay),
        book=BookConfig(**{"groups_private": True, **book}),
        link=LinkConfig(ping_interval_s=20.0, idle_timeout_s=60.0),
        probing=ProbingConfig(interval_s=120.0, pings=3),
        healing=HealingConfig(beacon_interval_s=30.0, beacon_timeout_s=90.0),
    )


def _hostile_config() -> Config:
    """Takes any link, and has nothing to do but that."""
    return Config(
        overlay=OverlayConfig(
            links_min=1, links_max=60, links_random_min=0, links_per_group_max=60
        ),
        link=LinkConfig(ping_interval_s=20.0, idle_timeout_s=60.0),
        probing=ProbingConfig(interval_s=86_400.0),
        trading=TradingConfig(interval_s=86_400.0),
        healing=HealingConfig(beacon_interval_s=30.0, beacon_timeout_s=90.0, pause_s=1.0),
    )


EXPERIMENT = Experiment(
    name="eclipse",
    summary="a node whose address book attackers have filled restarts: whom is it linked to?",
    cases=cases,
    run=run,
    tables=tables,
    plots=plots,
)
