"""scale: what a network looks like, and what it costs to simulate, from a hundred nodes upwards.

The shipped machines join one by one and settle; then the links are measured as a graph, and one
broadcast is sent: a flood, which shows what the links are worth whatever is sent over them. What
broadcasts cost as they ship: `broadcast_cost`. Nodes join in one of two ways:

- through one entry, as in the other experiments: 83 a second, which is what it can carry;
- through a member by chance, as many a second as a twentieth of the network: an entry that takes
  100 connections a second would need 1,000 virtual seconds for 100,000 nodes, with 80 times as many
  pings as messages that matter. For the same reason such networks ping every minute only.

Time and memory are those of the machine that runs it; all else is the same everywhere.
"""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Final

from meshwalk.config import BroadcastConfig, Config, LinkConfig, Spreading
from meshwalk.sim.collecting import collecting_seldom
from meshwalk.sim.experiment import Case, Experiment, Row, Size
from meshwalk.sim.experiments.scale_report import ANY, ONE, plots, tables
from meshwalk.sim.graphs import (
    Adjacency,
    clustering_coefficient,
    components,
    degree_histogram,
    mean_shortest_path,
)
from meshwalk.sim.newcomers import Newcomers, times_of

if TYPE_CHECKING:
    from meshwalk.events import Delivery
    from meshwalk.sim.node import SimNode
    from meshwalk.sim.world import World

SPACING_S: Final = 0.012  # an entry's link carries 50 walks a second; faster joiners must retry
JOINING_LEAST_PER_S: Final = 50.0  # guess: below what one node accepts, while all know one another
JOINING_SHARE_PER_S: Final = 0.05  # guess: five newcomers a second for a hundred members
JOINING_MOST_PER_S: Final = 1_000.0  # guess: a rush, where a member meets a newcomer in 100 s
QUIET: Final = LinkConfig(ping_interval_s=60.0, idle_timeout_s=180.0)  # as proxies time out
FLOOD: Final = BroadcastConfig(spreading=Spreading.FLOOD)
FLOODING: Final = Config(broadcast=FLOOD)
SETTLE_S: Final = 10.0  # guess: twice the time that a walk may take
ROUND_S: Final = 5.0  # iroh-gossip's simulator: a round ends after so long, whoever has it
BODY_BYTES: Final = 100  # guess: a line of chat
PATH_SOURCES: Final = {True: 20, False: 5}  # guess: fewer for those that need a second each
LARGE: Final = 10_000  # nodes: above, a search from one of them takes more than 20 ms

SIZES: Final[dict[Size, tuple[tuple[str, int, int], ...]]] = {
    # How nodes join, how many, and with how many seeds.
    Size.QUICK: ((ONE, 100, 1), (ONE, 316, 1), (ONE, 1_000, 1)),
    Size.FULL: (
        (ONE, 100, 3),
        (ONE, 316, 3),
        (ONE, 1_000, 3),
        (ONE, 3_162, 1),
        (ONE, 10_000, 1),
        (ANY, 1_000, 1),
    ),
    Size.HUGE: ((ONE, 10_000, 1), (ANY, 10_000, 1), (ANY, 100_000, 1)),
}


def cases(size: Size, seed: int) -> list[Case]:
    """Every size, each with its seeds."""
    return [
        Case(
            f"{entry} n={nodes} seed={seed + number}",
            {"entry": entry, "nodes": nodes},
            seed + number,
            weight=float(nodes),
        )
        for entry, nodes, seeds in SIZES[size]
        for number in range(seeds)
    ]


def run(case: Case) -> Row:
    """Grow a network and measure it."""
    from meshwalk.sim.world import World  # it brings all machines along; drawing needs none

    entry, nodes = case.settings["entry"], case.settings["nodes"]
    bytes_before = resident_bytes()
    with collecting_seldom():
        joining = Newcomers()
        world = World(seed=case.seed, encodes=False, observer=joining)
        grow(world, nodes, entry, joining)
        joined_s, joining_events = world.now, world.events
        world.run(SETTLE_S)
        settling_events = world.events - joining_events
        rng = Random(case.seed)
        adjacency = links_of(world.nodes)
        row = {
            **case.settings,
            "ping_interval_s": world.nodes[0].config.link.ping_interval_s,
            "joined_s": joined_s,
            **times_of(joining.found.values()),
            **shape(adjacency, world.nodes[0].config.overlay.links_min, rng),
            **broadcast(world, rng.choice(world.nodes), sum(map(len, adjacency))),
            "joining_events": joining_events,
            "settled_events_per_s": settling_events / SETTLE_S,
            "events": world.events,
            "established": world.dials["established"],
        }
    peak_bytes = resident_bytes(peak=True)
    if bytes_before is not None and peak_bytes is not None:
        row["peak_mib"] = peak_bytes / 2**20
        row["kib_per_node"] = (peak_bytes - bytes_before) / nodes / 2**10
    return row


# Growing.


def grow(world: World, count: int, entry: str, joining: Newcomers) -> None:
    """Have so many nodes join, through the first or through a member drawn for each."""
    config = FLOODING if entry == ONE else Config(broadcast=FLOOD, link=QUIET)
    rng = Random(world.seed)
    for number in range(count):
        node = world.add(config)
        if number:
            other = world.nodes[0 if entry == ONE else rng.randrange(number)]
            joining.joins(node)
            node.join(other)
        world.run(SPACING_S if entry == ONE else 1 / joining_per_s(number + 1))


def joining_per_s(members: int) -> float:
    """How many nodes join in a second through members by chance."""
    return min(max(JOINING_LEAST_PER_S, JOINING_SHARE_PER_S * members), JOINING_MOST_PER_S)


# Measuring.


def links_of(nodes: list[SimNode]) -> Adjacency:
    """Links that both ends know, by their place in the list."""
    places = {node.id: place for place, node in enumerate(nodes)}
    known = [{places[peer] for peer in node.neighbours} for node in nodes]
    return [sorted(peer for peer in mine if i in known[peer]) for i, mine in enumerate(known)]


def shape(adjacency: Adjacency, links_min: int, rng: Random) -> Row:
    """Degrees, parts, distances and clusters of a network."""
    degrees = [len(neighbours) for neighbours in adjacency]
    parts = components(adjacency)
    sources = PATH_SOURCES[len(adjacency) <= LARGE]
    return {
        "links": sum(degrees) / len(degrees),
        "links_least": min(degrees),
        "links_most": max(degrees),
        "entry_links": degrees[0],
        "without_minimum": sum(degree < links_min for degree in degrees),
        "degrees": [list(pair) for pair in degree_histogram(adjacency)],
        "parts": len(parts),
        "apart": len(adjacency) - len(parts[0]),
        "mean_path": mean_shortest_path(adjacency, rng, sources),
        "clustering": clustering_coefficient(adjacency),
    }


class Heard(Newcomers):
    """How many deliveries there were, the hops of the farthest, and when it was."""

    def __init__(self) -> None:
        super().__init__()
        self.deliveries = 0
        self.last_hop = 0
        self.last_at = 0.0

    def delivered(self, node: SimNode, delivery: Delivery) -> None:
        self.deliveries += 1
        self.last_hop = max(self.last_hop, delivery.hops)
        self.last_at = node.world.now


def broadcast(world: World, sender: SimNode, link_ends: int) -> Row:
    """One message to everyone: whom it reaches, how far and how fast, and its redundancy."""
    heard = world.observer = Heard()
    others = len(world.nodes) - 1
    began_at, copies_before = world.now, _copies_received(world)
    sender.broadcast(bytes(BODY_BYTES))
    world.run_until(lambda: heard.deliveries >= others, ROUND_S)
    world.run(1.0)
    copies = _copies_received(world) - copies_before
    return {
        "reached": heard.deliveries / others,
        "last_hop": heard.last_hop,
        "last_s": heard.last_at - began_at,
        "copies": copies,
        "redundancy": copies / heard.deliveries - 1 if heard.deliveries else None,
        "flood_redundancy": (link_ends - others) / others - 1,
    }


def _copies_received(world: World) -> int:
    """Of broadcasts, by all nodes since they started. All that are sent arrive here."""
    counts = (node.core.gossip.counts for node in world.nodes)
    return sum(count[what] for count in counts for what in ("delivered", "repeated", "own"))


# Memory.


def resident_bytes(*, peak: bool = False) -> int | None:
    """What this process holds in memory, now or at its most; None where the system cannot say.

    Linux tells both (proc(5)); `getrusage` would also count the process that started this one.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    wanted = "VmHWM:" if peak else "VmRSS:"
    for line in status.read_text(encoding="ascii").splitlines():
        if line.startswith(wanted):
            return int(line.split()[1]) * 1024
    return None


EXPERIMENT = Experiment(
    name="scale",
    summary="links, distances, a broadcast, time and memory, from 100 to 100,000 nodes",
    cases=cases,
    run=run,
    tables=tables,
    plots=plots,
    fresh_process=True,
)
