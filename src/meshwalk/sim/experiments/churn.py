"""churn: a network whose nodes come and go all the time, for an hour.

In each minute a share of the nodes leave, drawn by chance, and as many new ones join; both at
moments drawn by chance. A node that leaves never comes back, and a newcomer knows one address, so
address books fill with peers that are gone. Every minute somebody sends to everyone: a broadcast
counts for the nodes that had a link when it was sent and are still up when it is over.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING, Final

from meshwalk.sim.collecting import collecting_seldom
from meshwalk.sim.experiment import Case, Experiment, Row, Size
from meshwalk.sim.experiments.churn_report import ANY, ONE, plots, tables
from meshwalk.sim.graphs import Adjacency, components, mean_flood_reliability
from meshwalk.sim.newcomers import Newcomers, times_of

if TYPE_CHECKING:
    from meshwalk.events import Delivery
    from meshwalk.sim.node import SimNode
    from meshwalk.sim.world import World

SPACING_S: Final = 0.012  # an entry's link carries 50 walks a second; faster joiners must retry
SETTLE_S: Final = 10.0  # guess: twice the time that a walk may take
ROUND_S: Final = 5.0  # iroh-gossip's simulator: a round ends after so long, whoever has it
LOOKS: Final = 6  # guess: how often links are looked at in a minute
NEW_S: Final = 30.0  # guess: as long as the longest pause between walks; then it is no newcomer


class Leaving(enum.StrEnum):
    """How nodes leave."""

    MIXED = "half crash"
    """By turns of a coin: the program crashes and its system breaks the pipes, or it says goodbye.
    """
    SILENT = "all vanish"
    """The machine is gone without a word: only silence tells."""


SHARES_PER_MINUTE: Final = (0.01, 0.1)  # guess: half are gone after 69 minutes; and a storm
VARIANTS: Final = ((Leaving.MIXED, ANY), (Leaving.SILENT, ANY), (Leaving.MIXED, ONE))
LARGE: Final = 1_000  # nodes
# Nodes, minutes and seeds.
SIZES: Final[dict[Size, tuple[tuple[int, int, int], ...]]] = {
    Size.QUICK: ((100, 10, 1),),
    Size.FULL: ((200, 60, 1), (1_000, 60, 1)),
    Size.HUGE: ((1_000, 60, 3),),
}


def cases(size: Size, seed: int) -> list[Case]:
    """Each way of leaving and joining, with each share that leaves in a minute."""
    return [
        _case(nodes, minutes, share, leaving, entry, seed + number)
        for nodes, minutes, seeds in SIZES[size]
        for share in SHARES_PER_MINUTE
        for leaving, entry in VARIANTS
        for number in range(seeds)
        # A case of a thousand nodes takes minutes, and the way in matters little there.
        if size is not Size.FULL or nodes < LARGE or entry == ANY
    ]


def _case(nodes: int, minutes: int, share: float, leaving: Leaving, entry: str, seed: int) -> Case:
    settings = {
        "nodes": nodes,
        "minutes": minutes,
        "share": share,
        "leaving": str(leaving),
        "entry": entry,
    }
    name = f"n={nodes} {share:.0%} a minute {leaving} {entry} seed={seed}"
    return Case(name, settings, seed, weight=nodes * minutes * (1 + 2 * share))


def run(case: Case) -> Row:
    """Grow a network, let it churn, and return what was seen each minute."""
    from meshwalk.sim.world import World  # it brings all machines along; drawing needs none

    settings = case.settings
    with collecting_seldom():
        world = World(seed=case.seed, encodes=False)
        world.grow(settings["nodes"], spacing_s=SPACING_S)
        world.run(SETTLE_S)
        churn = Churn(world, Leaving(settings["leaving"]), settings["entry"])
        churn.draw(settings["share"], settings["minutes"])
        for _ in range(settings["minutes"]):
            churn.minute()
        return {**settings, **churn.row()}


class Watch(Newcomers):
    """Also notes which nodes have the present broadcast."""

    def __init__(self) -> None:
        super().__init__()
        self.body = b""
        self.reached: dict[SimNode, None] = {}

    def delivered(self, node: SimNode, delivery: Delivery) -> None:
        if delivery.body == self.body:
            self.reached[node] = None


class Churn:
    """Has nodes of a settled world leave and join, and looks at those that are there."""

    def __init__(self, world: World, leaving: Leaving, entry: str) -> None:
        self.members = list(world.nodes)
        """Who is there and not about to go."""
        self.left: Counter[str] = Counter()
        """Nodes that have left, by how."""
        self.broadcasts: list[Row] = []
        """One a minute."""
        self.looks: list[Row] = []
        """One every ten seconds."""
        self._world = world
        self._watch = Watch()
        world.observer = self._watch
        self._leaving = leaving
        self._entry = world.nodes[0] if entry == ONE else None
        self._rng = Random(f"{world.seed} churn")
        self._began_at = world.now

    def draw(self, share: float, minutes: int) -> None:
        """Decide when nodes will leave and join: so large a share of those of now each minute."""
        world = self._world
        count = round(share * len(self.members) * minutes)
        for action in (self._leaves, self._joins):
            for _ in range(count):
                at_s = self._rng.uniform(0, 60 * minutes)
                world.timeline.add(self._began_at + at_s, action, None)

    def minute(self) -> None:
        """Let a minute pass, with a broadcast at its beginning."""
        world, began_at = self._world, self._world.now
        for number in range(LOOKS):
            world.run(max(0.0, began_at + number * 60 / LOOKS - world.now))
            self._look()
            if number == 0:
                self._broadcast()
        world.run(began_at + 60 - world.now)

    def row(self) -> Row:
        """What was seen, and what became of the newcomers, but for those who came just now."""
        world = self._world
        since = world.now - NEW_S
        asked = {
            node: newcomer
            for node, newcomer in self._watch.found.items()
            if newcomer.joined_at <= since
        }
        staying = [newcomer for node, newcomer in asked.items() if node in self._places()]
        times = times_of(asked.values())
        return {
            "left": dict(sorted(self.left.items())),
            **times,
            # Many of those that never had a link left too soon, or their entry did.
            "staying_never_linked": sum(one.first_s is None for one in staying),
            "staying_never_enough": sum(one.enough_s is None for one in staying),
            "broadcasts": self.broadcasts,
            "looks": self.looks,
            "dials": dict(sorted(world.dials.items())),
            "events": world.events,
        }

    # Coming and going.

    def _leaves(self, _: None) -> None:
        world, rng = self._world, self._rng
        going = [node for node in self.members if node is not self._entry]
        if len(going) < 2:
            return
        node = rng.choice(going)
        self.members.remove(node)
        if self._leaving is Leaving.SILENT:
            world.crash(node, silently=True)
            self.left["vanished"] += 1
        elif rng.random() < 0.5:
            world.crash(node)
            self.left["crashed"] += 1
        else:
            world.leave(node)
            self.left["said goodbye"] += 1

    def _joins(self, _: None) -> None:
        # Somebody who is not yet in gives nobody's address away.
        inside = [node for node in self.members if node.neighbours]
        entry = self._entry or self._rng.choice(inside or self.members)
        node = self._world.add()
        self.members.append(node)
        self._watch.joins(node)
        node.join(entry)

    # Looking.

    def _places(self) -> dict[SimNode, int]:
        return {node: place for place, node in enumerate(self.members)}

    def _look(self) -> None:
        world, members = self._world, self.members
        adjacency = links_among(members)
        parts = components(adjacency)
        least = members[0].config.overlay.links_min
        old = [
            place
            for place, node in enumerate(members)
            if (new := self._watch.found.get(node)) is None or new.joined_at <= world.now - NEW_S
        ]
        believed = sum(len(node.neighbours) for node in members)
        real = sum(map(len, adjacency))
        known, stale = book_entries(members)
        self.looks.append(
            {
                "at_s": round(world.now - self._began_at, 3),
                "members": len(members),
                "links": real / len(members),
                "links_least": min(map(len, adjacency)),
                "links_most": max(map(len, adjacency)),
                "dead_links": 1 - real / believed if believed else 0.0,
                "below_minimum": sum(len(mine) < least for mine in adjacency) / len(members),
                "old_below_minimum": sum(len(adjacency[p]) < least for p in old) / max(1, len(old)),
                "without_link": sum(not mine for mine in adjacency),
                "old_without_link": sum(not adjacency[place] for place in old),
                "parts": len(parts),
                # Somebody without a link is a newcomer more often than a fragment.
                "linked_parts": sum(len(part) > 1 for part in parts),
                "in_reach": mean_flood_reliability(adjacency),
                "book": known / len(members),
                "stale": stale / known if known else 0.0,
            }
        )

    def _broadcast(self) -> None:
        world, watch = self._world, self._watch
        inside = [node for node in self.members if node.neighbours]
        sender = self._rng.choice(inside or self.members)
        watch.body = b"minute %d" % len(self.broadcasts)
        watch.reached = {sender: None}
        sender.broadcast(watch.body)
        world.run(ROUND_S)
        staying = self._places()
        # Whoever sends and goes at once may have told nobody; that is counted as well.
        counted = [node for node in inside if node in staying]
        missed = [node for node in counted if node not in watch.reached]
        self.broadcasts.append(
            {
                "counted": len(counted),
                "reliability": 1 - len(missed) / max(1, len(counted)),
                "missed": len(missed),
                "missed_new": sum(self._is_new(node) for node in missed),
            }
        )

    def _is_new(self, node: SimNode) -> bool:
        newcomer = self._watch.found.get(node)
        return newcomer is not None and newcomer.joined_at > self._world.now - NEW_S


def links_among(nodes: Sequence[SimNode]) -> Adjacency:
    """Links between these nodes that both ends know, by their place in the list."""
    places = {node.id: place for place, node in enumerate(nodes)}
    known = [{places[peer] for peer in node.neighbours if peer in places} for node in nodes]
    return [sorted(peer for peer in mine if i in known[peer]) for i, mine in enumerate(known)]


def book_entries(nodes: Sequence[SimNode]) -> tuple[int, int]:
    """How many entries the address books of these nodes have, and how many are of others."""
    ids = {node.id for node in nodes}
    books = [node.core.overlay.book.entries for node in nodes]
    return sum(map(len, books)), sum(peer not in ids for book in books for peer in book)


EXPERIMENT = Experiment(
    name="churn",
    summary="links and broadcasts while nodes leave and join all the time, for an hour",
    cases=cases,
    run=run,
    tables=tables,
    plots=plots,
)
