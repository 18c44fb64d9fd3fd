"""join-rules: what becomes of a network that everyone joins through one entry, by rule of joining.

The founding text of the join protocol (seed 000, see docs/origins.md) argues in prose for one rule
among four; here each is measured, and beside them the shipped machines, as grown by
`sim/world.py`. The rules and the choices made where the text is silent are in `sim/joinrules.py`,
the measures in `sim/graphs.py`; what becomes of rows, in `join_rules_report.py`.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Sequence
from random import Random
from statistics import median_low
from typing import TYPE_CHECKING

from meshwalk.config import OverlayConfig
from meshwalk.sim.experiment import Case, Experiment, Row, Size
from meshwalk.sim.experiments.join_rules_report import OURS, plots, tables
from meshwalk.sim.graphs import (
    UNREACHED,
    Adjacency,
    clustering_coefficient,
    degree_histogram,
    distance_histogram,
    distances_from,
    everyone_up,
    fail_at_random,
    fail_highest_degrees,
    largest_component_share,
    mean_shortest_path,
)
from meshwalk.sim.joinrules import ENTRY, JOIN_RULES, Growth, Join, grow
from meshwalk.wire.peerid import PeerId

if TYPE_CHECKING:
    from meshwalk.sim.node import SimNode

# Of all nodes, at once; HyParView's section 5 fails as many, and the highest degrees hurt sooner.
RANDOM_SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
TARGETED_SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
DRAWS = 20  # guess: random failures of each share; a star lives or dies with its centre
WATCHED_MAX = 100  # guess: joins watched; 500 links or more, for one search per join
SPACING_S = 0.012  # an entry link carries 50 walks a second; faster joiners must retry
SETTLE_S = 10.0  # guess: twice the time that a walk may take
LINKED_AFTER_S = 2.0  # guess: ten hops and two dials take less than one second here

# Words of `Walks.counts` for walks that brought nothing.
MACHINES_LOST = ("busy", "no place", "timed out", "link lost")

# The text's own program sends one request when somebody types `connect`; its prose, several.
LINKS_WANTED = (OverlayConfig().links_min, 1)
SIZES = {Size.QUICK: (100, 1_000), Size.FULL: (100, 1_000, 10_000), Size.HUGE: (1_000, 100_000)}
SEEDS = {Size.QUICK: 1, Size.FULL: 3, Size.HUGE: 3}
# The machines cost some hundred times what a model does: about 6 ms a node, and more as they wait.
MACHINES_MAX = {Size.QUICK: 1_000, Size.FULL: 10_000, Size.HUGE: 10_000}


# Cases.


def cases(size: Size, seed: int) -> list[Case]:
    """Every rule at every size, with several seeds; the text's rules with one request, too."""
    wanted = []
    for nodes in SIZES[size]:
        for links in LINKS_WANTED:
            rules = [name for name in JOIN_RULES if links > 1 or not name.startswith(OURS)]
            if links > 1 and nodes <= MACHINES_MAX[size]:
                rules.append(OURS)
            # One network of machines is enough where it takes minutes: nodes vary less than rules.
            wanted += [
                _case(rule, nodes, links, seed + i)
                for rule in rules
                for i in range(1 if rule == OURS and nodes > 1_000 else SEEDS[size])
            ]
    return wanted


def _case(rule: str, nodes: int, links: int, seed: int) -> Case:
    settings = {"rule": rule, "nodes": nodes, "links": links}
    name = f"{rule} n={nodes} links={links} seed={seed}"
    return Case(name, settings, seed, weight=nodes * (150 if rule == OURS else 1))


def run(case: Case) -> Row:
    """Grow a network by the case's rule and measure it."""
    rule, count = case.settings["rule"], case.settings["nodes"]
    rng = Random(case.seed)
    if rule == OURS:
        growth = grow_machines(count, case.seed, watched(count))
    else:
        growth = grow(JOIN_RULES[rule].walk, count, case.settings["links"], rng, watched(count))
    return {
        **case.settings,
        "seed": case.seed,
        **shape(growth.adjacency, rng),
        **joining(growth),
        **failing(growth.adjacency, rng),
    }


def watched(count: int) -> frozenset[int]:
    """The joins of a network of `count` nodes for which distances are noted: evenly spread."""
    step = max(1, count // WATCHED_MAX)
    return frozenset(range(1, count, step))


# The machines.


def grow_machines(
    count: int, seed: int, watched: Collection[int] = frozenset(), spacing_s: float = SPACING_S
) -> Growth:
    """The network of `count` nodes as shipped, after joining one by one and settling.

    Of a watched join, those neighbours that joined before are noted `LINKED_AFTER_S` later, with
    their distances from the entry on ways that do not lead through the joiner.
    """
    from meshwalk.sim.world import World  # it brings all machines along; the models need none

    world = World(seed=seed, encodes=False)
    indices: dict[PeerId, int] = {}
    noted: dict[int, list[int]] = {}
    waiting: deque[tuple[float, int]] = deque()

    def note() -> None:
        _, joiner = waiting.popleft()
        adjacency = _adjacency(world.nodes, indices)
        others = everyone_up(adjacency)
        others[joiner] = 0
        distances = distances_from(adjacency, ENTRY, others)
        noted[joiner] = [distances[peer] for peer in adjacency[joiner] if peer < joiner]

    for index in range(count):
        world.grow(1, spacing_s=spacing_s)
        indices[world.nodes[index].id] = index
        if index in watched:
            waiting.append((world.now + LINKED_AFTER_S, index))
        while waiting and waiting[0][0] <= world.now:
            note()
    world.run(LINKED_AFTER_S)
    while waiting:
        note()
    world.run(SETTLE_S)
    joins, hops = [], 0
    for index, node in enumerate(world.nodes):
        overlay = node.core.overlay
        hops += overlay.carrier.counts["carried"]
        if index != ENTRY:
            counts = overlay.walks.counts
            lost = Counter({why: n for why, n in sorted(counts.items()) if why in MACHINES_LOST})
            joins.append(Join(index, counts["started"], lost, None, noted.get(index)))
    return Growth(_adjacency(world.nodes, indices), joins, hops)


def _adjacency(nodes: Sequence[SimNode], indices: dict[PeerId, int]) -> Adjacency:
    """Links that both ends know, by index of the nodes."""
    known = [{indices[peer] for peer in node.neighbours} for node in nodes]
    return [sorted(peer for peer in mine if i in known[peer]) for i, mine in enumerate(known)]


# Measures; of any network and its record of joins, however it came to be.


def shape(adjacency: Adjacency, rng: Random) -> Row:
    """Degrees, distances and clusters of a network."""
    degrees = [len(neighbours) for neighbours in adjacency]
    others = degrees[:ENTRY] + degrees[ENTRY + 1 :]
    distances = distances_from(adjacency, ENTRY)
    reached = [distance for distance in distances if distance > 0]
    return {
        "entry_links": degrees[ENTRY],
        "most_links_of_others": max(others, default=0),
        "median_links": median_low(degrees),
        "mean_links": sum(degrees) / len(degrees),
        "without_link": degrees.count(0),
        "degrees": degree_histogram(adjacency),
        "from_entry": distance_histogram(distances),
        "mean_from_entry": sum(reached) / len(reached) if reached else 0.0,
        "not_reached_from_entry": distances.count(UNREACHED),
        "mean_path": mean_shortest_path(adjacency, rng),
        "clustering": clustering_coefficient(adjacency),
        "largest_part": largest_component_share(adjacency),
    }


def joining(growth: Growth) -> Row:
    """Requests, where they were accepted, and how they were lost."""
    joins = growth.joins
    requests = sum(join.requests for join in joins)
    lost: Counter[str] = Counter()
    for join in joins:
        lost.update(join.lost)
    firsts = [join.first_acceptor for join in joins if join.first_acceptor is not None]
    distances = Counter(d for join in joins for d in join.distances or () if d != UNREACHED)
    linked = sum(distances.values())
    return {
        "requests": requests,
        "hops_per_request": growth.hops / requests if requests else 0.0,
        "returns": growth.returns,
        "lost": dict(sorted(lost.items())),
        "lost_share": sum(lost.values()) / requests if requests else 0.0,
        "first_at_entry": firsts.count(ENTRY) / len(firsts) if firsts else None,
        "accepted_at": sorted(distances.items()),
        "mean_accepted_at": sum(d * n for d, n in distances.items()) / linked if linked else None,
    }


def failing(adjacency: Adjacency, rng: Random) -> Row:
    """Which share of the survivors stays in one part, after failures of every share of the nodes:
    [[failed, share in the largest part], ...]."""
    at_random = []
    for share in RANDOM_SHARES:
        draws = [
            largest_component_share(adjacency, fail_at_random(adjacency, share, rng))
            for _ in range(DRAWS)
        ]
        at_random.append([share, sum(draws) / DRAWS])
    without_entry = everyone_up(adjacency)
    without_entry[ENTRY] = 0
    return {
        "after_random": at_random,
        "after_targeted": [
            [share, largest_component_share(adjacency, fail_highest_degrees(adjacency, share))]
            for share in TARGETED_SHARES
        ],
        "after_entry": largest_component_share(adjacency, without_entry),
    }


EXPERIMENT = Experiment(
    name="join-rules",
    summary="who gets the links, and what failures leave, by the rule that accepts newcomers",
    cases=cases,
    run=run,
    tables=tables,
    plots=plots,
)
