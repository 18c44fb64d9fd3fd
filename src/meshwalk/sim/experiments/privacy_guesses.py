"""How spies guess where a private broadcast began, from what each of them was sent."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from meshwalk.sim.world import World
    from meshwalk.wire.peerid import PeerId

SPARE_S: Final = 0.002  # guess: by how much a way may be measured too short
IMPOSSIBLE: Final = (
    1.0  # guess: what an impossible way counts, in squares of seconds: more than any
)


class Seen(msgspec.Struct, frozen=True, gc=False):
    """What one spy was sent of one broadcast."""

    at: float
    spy: int
    sender: PeerId
    is_stem: bool = False
    hops: int | None = None
    """Of a copy: links that it had crossed before the sender's."""
    way_s: float = 0.0
    """Of a copy: how long those links took, as it says."""


class Network:
    """The links and their delays, as the spies are taken to know them."""

    def __init__(self, world: World) -> None:
        conditions, rng = world.conditions, world.rng
        by_id = {node.id: node for node in world.nodes}
        self.nodes = list(by_id)
        self._links = {
            node.id: [
                (peer, conditions.latency.delay_s(node.host, by_id[peer].host, rng))
                for peer in node.neighbours
                if peer in by_id
            ]
            for node in world.nodes
        }
        self._ways: dict[PeerId, dict[PeerId, float]] = {}
        self._hops: dict[PeerId, dict[PeerId, int]] = {}

    def ways_s(self, start: PeerId) -> dict[PeerId, float]:
        """The shortest ways from a node to all others, in seconds (Dijkstra 1959)."""
        found = self._ways.get(start)
        if found is None:
            found = self._ways[start] = {}
            heap: list[tuple[float, PeerId]] = [(0.0, start)]
            while heap:
                way_s, node = heapq.heappop(heap)
                if node in found:
                    continue
                found[node] = way_s
                for peer, delay_s in self._links[node]:
                    if peer not in found:
                        heapq.heappush(heap, (way_s + delay_s, peer))
        return found

    def hops(self, start: PeerId) -> dict[PeerId, int]:
        """The fewest links from a node to all others."""
        found = self._hops.get(start)
        if found is None:
            found = self._hops[start] = {start: 0}
            reached = [start]
            for node in reached:
                for peer, _ in self._links[node]:
                    if peer not in found:
                        found[peer] = found[node] + 1
                        reached.append(peer)
        return found


def first_spy(seen: Sequence[Seen]) -> PeerId | None:
    """Whoever was first to send a spy anything. `seen` is in the order of time."""
    return seen[0].sender if seen else None


def all_ways(seen: Sequence[Seen], network: Network, spies: Collection[PeerId]) -> PeerId | None:
    """Whoever gave the first stem; else the node from which the ways fit best that the first copy
    for each spy tells of. Ties go to whoever was first to send something."""
    for one in seen:
        if one.is_stem:
            return one.sender
    first: dict[int, Seen] = {}
    for one in seen:
        if one.hops is not None:
            first.setdefault(one.spy, one)
    if not first:
        return first_spy(seen)
    for one in first.values():
        if one.hops == 0:
            return one.sender
    misfits: defaultdict[PeerId, float] = defaultdict(float)
    for one in first.values():
        ways_s, hops = network.ways_s(one.sender), network.hops(one.sender)
        for node in network.nodes:
            is_possible = (
                node not in spies
                and hops.get(node, len(network.nodes)) <= (one.hops or 0)
                and ways_s[node] <= one.way_s + SPARE_S
            )
            misfits[node] += (one.way_s - ways_s[node]) ** 2 if is_possible else IMPOSSIBLE
    return min(network.nodes, key=lambda node: (misfits[node], node != seen[0].sender, node))


def precision(pairs: Sequence[tuple[PeerId, PeerId | None]]) -> float:
    """The precision of Dandelion (Bojja Venkatakrishnan et al. 2017), of origins and guesses: of
    each origin, 1 / (broadcasts that it is taken to have sent) if its own is among them; their
    mean. Everybody's broadcasts must be mixed, so that being named often says little."""
    named = Counter(guess for _, guess in pairs)
    return sum(1 / named[guess] for origin, guess in pairs if guess == origin) / len(pairs)
