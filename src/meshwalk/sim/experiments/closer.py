"""closer: what trading links for closer ones does to round trips, and to what holds nodes together.

Nodes live in six regions, 5 ms there and back within one and 40 to 150 ms between two. A network
that trades is compared with one of the same seed that does not: round trips of links, degrees and
random links at every look; and at the end, what stays in one part when many nodes fail at once,
right then and after a minute of repair. Links that are close are links among few, and so the fear
is that a network which trades falls into its regions.
"""

from __future__ import annotations

import multiprocessing
from collections import Counter
from random import Random
from typing import TYPE_CHECKING, Any, Final

from meshwalk.config import Config, LinkConfig, OverlayConfig, ProbingConfig, TradingConfig
from meshwalk.sim.collecting import collecting_seldom
from meshwalk.sim.experiment import Case, Experiment, Row, Size
from meshwalk.sim.experiments.closer_report import plots, tables
from meshwalk.sim.experiments.mass_failure import Detector, fail_in_a_copy, links_among
from meshwalk.sim.graphs import (
    clustering_coefficient,
    components,
    fail_at_random,
    largest_component_share,
    mean_shortest_path,
)
from meshwalk.sim.latency import Table
from meshwalk.sim.percentiles import percentile

if TYPE_CHECKING:
    from meshwalk.sim.world import World

REGIONS: Final = 6  # guess: as many as people name when they speak of the Internet's
WITHIN_S: Final = 0.005  # guess: round trips within a country or two
BETWEEN_S: Final = (0.040, 0.150)  # guess: from two ends of a continent to across an ocean
SETTLE_S: Final = 30.0  # guess: the last to join has its links, and their first round trips
SHARES: Final = (0.3, 0.5, 0.6, 0.7, 0.8)  # that fail at once, when nobody repairs anything
REPAIRED_SHARES: Final = (0.3, 0.5, 0.7)  # that fail when the survivors go on
REPAIR_S: Final = 60.0  # guess: twice the longest pause between walks
DRAWS: Final = 50  # guess: sets of failed nodes; they cost milliseconds
NEVER_S: Final = 1e9  # longer than any run

QUICK: Final = Config(  # the same in a tenth of the time: all that is waited for is shorter
    link=LinkConfig(rtt_window=5),
    probing=ProbingConfig(interval_s=4.0, pings=5),
    trading=TradingConfig(interval_s=6.0, stay_s=40.0, again_s=60.0),
)
# Nodes, seconds, looks, and the random links that nodes keep, for each network.
SIZES: Final[dict[Size, tuple[int, float, int, tuple[int, ...], int]]] = {
    Size.QUICK: (48, 240.0, 8, (3,), 1),
    Size.FULL: (200, 5400.0, 45, (3,), 1),
    Size.HUGE: (500, 10_800.0, 90, (2, 3, 4, 5), 3),
}


def cases(size: Size, seed: int) -> list[Case]:
    """A network that trades and one that does not, for each least number of random links."""
    nodes, seconds, looks, randoms, seeds = SIZES[size]
    found = []
    for number in range(seeds):
        for trades, least in [(False, 3), *((True, least) for least in randoms)]:
            settings = {
                "nodes": nodes,
                "seconds": seconds,
                "looks": looks,
                "trades": trades,
                "randoms_least": least,
                "is_quick": size is Size.QUICK,
            }
            what = f"trading, {least} random" if trades else "no trading"
            name = f"{what} n={nodes} seed={seed + number}"
            found.append(Case(name, settings, seed + number, weight=nodes * seconds))
    return found


class Regions:
    """Where hosts live, and how far it is from one to another."""

    def __init__(self, seed: int) -> None:
        rng = Random(f"{seed} regions")
        means = [[WITHIN_S / 2] * REGIONS for _ in range(REGIONS)]
        for one in range(REGIONS):
            for other in range(one):
                means[one][other] = means[other][one] = rng.uniform(*BETWEEN_S) / 2
        self.latency = Table([str(number) for number in range(REGIONS)], means)
        self._means_s = means

    def of(self, host: str) -> int:
        """The number of the region of a host."""
        return int(self.latency.region_of(host))

    def round_trip_s(self, one: str, other: str) -> float:
        """The mean round trip between two hosts."""
        return 2 * self._means_s[self.of(one)][self.of(other)]


def config_of(settings: dict[str, Any]) -> Config:
    """What the nodes of a case are set to."""
    config = QUICK if settings["is_quick"] else Config()
    trading = config.trading
    if not settings["trades"]:
        trading = TradingConfig(interval_s=NEVER_S)
    return Config(
        link=config.link,
        probing=config.probing,
        trading=trading,
        overlay=OverlayConfig(links_random_min=settings["randoms_least"]),
    )


def run(case: Case) -> Row:
    """Grow a network, let it trade or not, look at it meanwhile, and have nodes fail at the end."""
    from meshwalk.sim.world import World  # it brings all machines along; drawing needs none

    settings = case.settings
    regions = Regions(case.seed)
    with collecting_seldom():
        world = World(case.seed, regions.latency, encodes=False)
        world.grow(settings["nodes"], config_of(settings))
        world.run(SETTLE_S)
        began_at = world.now
        looks = [look_at(world, regions, 0.0)]
        for _ in range(settings["looks"]):
            world.run(settings["seconds"] / settings["looks"])
            looks.append(look_at(world, regions, world.now - began_at))
        adjacency = links_among(world.nodes)
        rng = Random(f"{case.seed} closer")
        return {
            **settings,
            "looks": looks,
            "trades": settings["trades"],
            "outcomes": outcomes_of(world),
            "clustering": clustering_coefficient(adjacency),
            "mean_path": mean_shortest_path(adjacency, rng),
            "unrepaired": unrepaired(world, rng),
            "repaired": repaired(world),
        }


def look_at(world: World, regions: Regions, at_s: float) -> Row:
    """Round trips of all links, and how many links of each kind nodes have."""
    nodes = world.nodes
    adjacency = links_among(nodes)
    trips = sorted(
        regions.round_trip_s(nodes[one].host, nodes[other].host)
        for one, mine in enumerate(adjacency)
        for other in mine
    )
    config = nodes[0].config.overlay
    randoms = [node.core.overlay.membership.randoms for node in nodes]
    return {
        "at_s": round(at_s, 3),
        "mean_ms": 1000 * sum(trips) / max(1, len(trips)),
        "p50_ms": 1000 * (percentile(trips, 50) or 0.0),
        "p95_ms": 1000 * (percentile(trips, 95) or 0.0),
        "within": sum(trip <= WITHIN_S for trip in trips) / max(1, len(trips)),
        "links": len(trips) / len(nodes),
        "links_least": min(map(len, adjacency)),
        "links_most": max(map(len, adjacency)),
        "below_minimum": sum(len(mine) < config.links_min for mine in adjacency),
        "randoms": sum(randoms) / len(nodes),
        "randoms_least": min(randoms),
        "below_randoms": sum(count < config.random_min for count in randoms),
        "parts": len(components(adjacency)),
        "traded": outcomes_of(world).get("traded", 0),
    }


def outcomes_of(world: World) -> dict[str, int]:
    """What came of looking for closer peers, in all nodes together."""
    total: Counter[str] = Counter()
    for node in world.nodes:
        total.update(node.core.overlay.trading.counts)
    return dict(sorted(total.items()))


def unrepaired(world: World, rng: Random) -> list[list[float]]:
    """The share of the survivors in the largest part, when nobody reacts to the failure:
    [[failed, mean, least, most], ...] over `DRAWS` draws."""
    adjacency = links_among(world.nodes)
    found = []
    for share in SHARES:
        draws = [
            largest_component_share(adjacency, fail_at_random(adjacency, share, rng))
            for _ in range(DRAWS)
        ]
        found.append([share, sum(draws) / DRAWS, min(draws), max(draws)])
    return found


def repaired(world: World) -> list[Row]:
    """What the survivors make of it who see the pipes of so many break at once.

    Nothing, where the system cannot copy a process: to grow as many networks would take too long.
    """
    if "fork" not in multiprocessing.get_all_start_methods():
        return []
    found = []
    for share in REPAIRED_SHARES:
        row = fail_in_a_copy(world, Detector.PIPES_BREAK, share)
        # The last state before the minute is over: what is whole is not looked at any longer.
        state = [state for state in row["states"] if state["at_s"] <= REPAIR_S][-1]
        found.append({"failed": share, "at_once": row["states"][0], "later": state})
    return found


EXPERIMENT = Experiment(
    name="closer",
    summary="how much closer neighbours get by trading links, and what holds then",
    cases=cases,
    run=run,
    tables=tables,
    plots=plots,
)
