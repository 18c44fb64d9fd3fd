"""A simulated world that remembers, and the truths that a network of its nodes should come to."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from random import Random
from typing import Any, NamedTuple

from meshwalk.events import Delivery, Event, NeighbourDown, NeighbourUp
from meshwalk.proto.effects import Dial, Effect, Happened
from meshwalk.proto.node import NodeCore
from meshwalk.proto.recording import INPUTS
from meshwalk.sim.latency import Latency
from meshwalk.sim.node import Observer, SimNode
from meshwalk.sim.pipe import Item, PipeEnd
from meshwalk.sim.world import MakeCore, World
from meshwalk.wire.peerid import PeerId


class Recorder(Observer):
    """What each node had for its application, in order, over all its lives."""

    def __init__(self) -> None:
        self.deliveries: defaultdict[SimNode, list[Delivery]] = defaultdict(list)
        self.events: defaultdict[SimNode, list[Event]] = defaultdict(list)
        self.effects: defaultdict[SimNode, list[Effect]] = defaultdict(list)
        """Those that are neither deliveries nor events."""
        self.most_links: Counter[SimNode] = Counter()
        """The most neighbours that each has had at once."""
        self._life_begins: Counter[SimNode] = Counter()
        """Which of its events is the first in the present life."""

    def delivered(self, node: SimNode, delivery: Delivery) -> None:
        self.deliveries[node].append(delivery)

    def told(self, node: SimNode, effect: Effect) -> None:
        if not isinstance(effect, Happened):
            self.effects[node].append(effect)
            return
        self.events[node].append(effect.event)
        self.most_links[node] = max(self.most_links[node], len(node.neighbours))

    def stopped(self, node: SimNode) -> None:
        self._life_begins[node] = len(self.events[node])

    def bodies(self, node: SimNode) -> list[bytes]:
        """What was delivered at a node."""
        return [delivery.body for delivery in self.deliveries[node]]

    def net_changes(self, node: SimNode) -> Counter[PeerId]:
        """NeighbourUp less NeighbourDown by peer, in a node's present life.

        1 for present neighbours, 0 for past ones.
        """
        balance: Counter[PeerId] = Counter()
        for event in self.events[node][self._life_begins[node] :]:
            if isinstance(event, NeighbourUp):
                balance[event.peer] += 1
            elif isinstance(event, NeighbourDown):
                balance[event.peer] -= 1
        return balance


class Call(NamedTuple):
    """An input of a node's machines."""

    at: float
    """Virtual time."""
    node: SimNode
    what: str
    given: tuple[Any, ...]


class Spied:
    """Makes cores that note each input before they take it. Give it to a world as `make_core`."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    def __call__(self, node: SimNode, seed: int, now: float, unix_offset_s: float) -> NodeCore:
        core = NodeCore(node.signatures, node.config, Random(seed), now, unix_offset_s)
        for name in INPUTS:
            setattr(core, name, self._noted(node, name, getattr(core, name)))
        return core

    def _noted(self, node: SimNode, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*given: Any, **named: Any) -> Any:
            self.calls.append(Call(node.world.now, node, name, (*given, *named.values())))
            return call(*given, **named)

        return noted

    def of(self, node: SimNode, *names: str) -> list[Call]:
        """The calls of these inputs at a node."""
        return [call for call in self.calls if call.node is node and call.what in names]


class RecordedWorld(World):
    """A world with a `Recorder`, which counts what each node does on the wire as well."""

    def __init__(
        self,
        seed: int = 0,
        latency: Latency | None = None,
        *,
        encodes: bool = True,
        make_core: MakeCore | None = None,
    ) -> None:
        self.recorder = Recorder()
        self.frames_by_node: Counter[SimNode] = Counter()
        self.dialled: list[tuple[float, SimNode, Dial]] = []
        """Every dial: when, who, what."""
        super().__init__(
            seed, latency, encodes=encodes, observer=self.recorder, make_core=make_core
        )

    def cross(self, end: PipeEnd, item: Item) -> None:
        self.frames_by_node[end.node] += 1
        super().cross(end, item)

    def dial(self, node: SimNode, dial: Dial) -> None:
        self.dialled.append((self.now, node, dial))
        super().dial(node, dial)

    # Faults, in words of nodes.

    def stall(self, node: SimNode) -> None:
        """Nothing reaches the node any more: it takes nothing, and goes on by itself."""
        self.conditions.clog(None, node.host)

    def resume(self, node: SimNode) -> None:
        """It reads again, and what waited arrives."""
        self.conditions.unclog(None, node.host)
        self.changed()

    def partition(self, *parts: Iterable[SimNode]) -> None:
        """Nothing crosses between these parts; without any, everything does again."""
        if parts:
            self.conditions.partition(*([node.host for node in part] for part in parts))
        else:
            self.conditions.rejoin()
        self.changed()

    # Global truths.

    def components(self) -> list[set[PeerId]]:
        """Connected parts of the nodes that are up, by links that both ends know."""
        by_id = {node.id: node for node in self.up}
        left = dict.fromkeys(by_id)
        parts = []
        while left:
            part: set[PeerId] = set()
            front = [next(iter(left))]
            while front:
                peer = front.pop()
                if peer in part or peer not in by_id:
                    continue
                part.add(peer)
                left.pop(peer, None)
                front += [
                    other
                    for other in by_id[peer].neighbours
                    if other in by_id and peer in by_id[other].neighbours
                ]
            parts.append(part)
        return sorted(parts, key=len, reverse=True)

    def are_mutual(self) -> bool:
        """Whether whoever lists a neighbour is listed by it."""
        by_id = {node.id: node for node in self.up}
        return all(
            other in by_id and me in by_id[other].neighbours
            for me, node in by_id.items()
            for other in node.neighbours
        )

    def is_settled(self) -> bool:
        """One component, everyone at the minimum and within the maximum, links mutual."""
        others = len(self.up) - 1
        return (
            all(
                min(node.config.overlay.links_min, others)
                <= len(node.neighbours)
                <= node.config.overlay.links_max
                for node in self.up
            )
            and len(self.components()) == 1
            and self.are_mutual()
        )


def still(*nodes: SimNode) -> None:
    """Have their overlays begin nothing by themselves: no walks, tests, beacons or trades."""
    for node in nodes:
        overlay = node.core.overlay
        for machine in (
            overlay.walks,
            overlay.probing,
            overlay.beacons,
            overlay.trading,
            overlay.anchors,
            overlay.exchange,
        ):
            machine.stop()
        node._disarm()  # or it would be asked early for what is put off for ever
        node.arm()
