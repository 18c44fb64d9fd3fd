"""What the simulator manages in one process: events, joining, memory, and where the time goes.

    python benchmarks/simulator.py [NODES ...]      default: 1000 10000

Each size runs in a fresh process. Nodes join one by one through the first, 83 a second, and settle;
then they ping one another, and in each round that is timed somebody sends to everyone once. An
event is what `World.events` counts: a frame that arrives, a timer, a step of a dial; sending is
part of the event that caused it. Times are the process's own: other programs matter less.

The anchor is what Python can do at best: a heap of events whose handler adds the next one and does
nothing else. It is measured in turns with the simulator; compare the ratios, since absolute figures
drift between machines and hours.
"""

from __future__ import annotations

import cProfile
import heapq
import multiprocessing
import pstats
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from statistics import median

from meshwalk.sim.collecting import collecting_seldom
from meshwalk.sim.experiments.scale import links_of, resident_bytes
from meshwalk.sim.graphs import components
from meshwalk.sim.world import World

SIZES = (1_000, 10_000)
SPACING_S = 0.012  # an entry's link carries 50 walks a second; faster joiners must retry
SETTLE_S = 10.0
ROUNDS = 7
ROUND_EVENTS = 200_000
EVENTS_PER_NODE_S = 4.9  # settled: each of 8.1 link ends has a timer, a ping and a pong every 5 s
PROFILED_EVENTS = 200_000
SHOWN = 12  # files in the table of shares


def anchor_per_s(events: int = ROUND_EVENTS, pending: int = 10_000) -> float:
    """Events a second of a heap whose handler only adds the next event."""
    draw = Random(1).random
    heap: list[tuple[float, int, Callable[[float, int], None]]] = []

    def handler(now: float, sequence: int) -> None:
        heapq.heappush(heap, (now + draw(), sequence, handler))

    for sequence in range(pending):
        handler(0.0, sequence)
    began_at = time.process_time()
    for sequence in range(events):
        at, _, action = heapq.heappop(heap)
        action(at, pending + sequence)
    return events / (time.process_time() - began_at)


def settled_per_s(world: World, seconds: float, rng: Random) -> float:
    """Events a second while the world's nodes ping, and one of them broadcasts once."""
    began_at, before = time.process_time(), world.events
    rng.choice(world.nodes).broadcast(bytes(100))
    world.run(seconds)
    return (world.events - before) / (time.process_time() - began_at)


def measure(nodes: int) -> None:
    bytes_before = resident_bytes() or 0
    with collecting_seldom():
        world = World(seed=1, encodes=False)
        began_at = time.process_time()
        world.grow(nodes, spacing_s=SPACING_S)
        join_s = time.process_time() - began_at
        joining_events = world.events
        world.run(SETTLE_S)
        began_at = time.process_time()
        adjacency = links_of(world.nodes)
        parts, degrees = components(adjacency), [len(links) for links in adjacency]
        looked_s = time.process_time() - began_at
        print(
            f"\n{nodes:,} nodes\n"
            f"  joined in {join_s:.1f} s: {joining_events:,} events,"
            f" {joining_events / join_s:,.0f} a second\n"
            f"  looked at in {looked_s:.2f} s: {len(parts)} part, {min(degrees)} to {max(degrees)}"
            f" links, {sum(degrees) / nodes:.2f} in the mean\n"
            f"  memory {((resident_bytes() or 0) - bytes_before) / nodes / 1024:.1f} KiB a node"
        )
        seconds = ROUND_EVENTS / EVENTS_PER_NODE_S / nodes
        rng, rates, anchors = Random(2), [], []
        for _ in range(ROUNDS):
            anchors.append(anchor_per_s())
            rates.append(settled_per_s(world, seconds, rng))
        ratios = [rate / anchor for rate, anchor in zip(rates, anchors, strict=True)]
        print(
            f"  settled: median {median(rates):,.0f} events/s, most {max(rates):,.0f};"
            f" anchor {median(anchors):,.0f}; ratio {median(ratios):.3f}"
        )
        profile = cProfile.Profile()
        profile.enable()
        world.run(PROFILED_EVENTS / EVENTS_PER_NODE_S / nodes)
        profile.disable()
        show_shares(profile)


def show_shares(profile: cProfile.Profile) -> None:
    """Own time by file. A profile makes small functions look larger than they are."""
    shares: Counter[str] = Counter()
    stats = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    for (path, _, _), (_, _, own_s, _, _) in stats.items():
        parts = Path(path).parts
        name = "/".join(parts[parts.index("meshwalk") + 1 :]) if "meshwalk" in parts else path
        shares["built-in functions" if name == "~" else name] += own_s
    total = sum(shares.values())
    for name, own_s in shares.most_common(SHOWN):
        print(f"  {own_s / total:6.1%} {name}")


def main() -> None:
    """Measure each size in a process of its own."""
    for nodes in [int(argument) for argument in sys.argv[1:]] or SIZES:
        process = multiprocessing.get_context("spawn").Process(target=measure, args=(nodes,))
        process.start()
        process.join()


if __name__ == "__main__":
    main()
