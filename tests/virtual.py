"""Whole nodes on a virtual clock: the shipped machines, a heap of events, a pretend network.

Every node has a host of its own, frames cross with a latency drawn from the seed, pipes keep
order, and every frame is encoded and decoded on its way. Nothing is real but the protocol.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Callable
from itertools import count
from random import Random

from meshwalk.config import Config
from meshwalk.events import Delivery, Event, NeighbourDown, NeighbourUp
from meshwalk.proto.effects import Deliver, Dial, Effect, Happened, Send, Shut
from meshwalk.proto.node import NodeCore
from meshwalk.proto.overlay.addressbook import BookEntry
from meshwalk.wire.address import Address
from meshwalk.wire.codec import FrameReader, encode_frame
from meshwalk.wire.frames import ContentType
from meshwalk.wire.peerid import PeerId
from meshwalk.wire.records import Domain

UNIX_OFFSET_S = 1_700_000_000.0
PORT = 55555


class CheapSignatures:
    """Stands in for Ed25519: anybody could forge these, and nobody here tries unless told to."""

    def __init__(self, peer_id: PeerId, network_id: bytes = bytes(32)) -> None:
        self.peer_id = peer_id
        self.network_id = network_id

    def sign(self, domain: Domain, payload: bytes) -> bytes:
        return self._digest(domain, self.peer_id, payload)

    def verify(self, domain: Domain, peer: bytes, signature: bytes, payload: bytes) -> bool:
        return signature == self._digest(domain, peer, payload)

    def _digest(self, domain: Domain, peer: bytes, payload: bytes) -> bytes:
        return hashlib.blake2b(domain.value + self.network_id + peer + payload).digest()


class VirtualNode:
    """A node and what its application has seen."""

    def __init__(self, network: VirtualNetwork, host: str, core: NodeCore) -> None:
        self.network = network
        self.address = Address(host, PORT)
        self.core = core
        self.is_up = True
        self.listens = True
        self.deliveries: list[Delivery] = []
        self.events: list[Event] = []
        self.effects: list[Effect] = []
        """Those that the network does not perform: for tests to look at."""
        self.armed: float | None = None
        self.most_links = 0
        self.ends: dict[int, PipeEnd] = {}

    @property
    def neighbours(self) -> set[PeerId]:
        return set(self.core.overlay.membership.neighbours)

    def do(self, effects: list[Effect]) -> None:
        """Perform effects and arm the timer, as a driver does."""
        for effect in effects:
            self.network.perform(self, effect)
        self.most_links = max(self.most_links, len(self.neighbours))
        at = self.core.deadline()
        if at is not None and (self.armed is None or at < self.armed):
            self.armed = at
            self.network.at(at, self._tick)

    def _tick(self) -> None:
        self.armed = None
        if self.is_up:
            self.do(self.core.tick(self.network.now))

    def join(self, other: VirtualNode, expected: PeerId | None = None) -> None:
        self.do(self.core.join(other.address, expected, self.network.now))

    def broadcast(self, body: bytes) -> int:
        sequence, effects = self.core.broadcast("", ContentType.BYTES, body, self.network.now)
        self.do(effects)
        return sequence


class PipeEnd:
    """One end of a pretend pipe."""

    def __init__(self, node: VirtualNode, link: int) -> None:
        self.node = node
        self.link = link
        self.other: PipeEnd | None = None
        self.is_open = True
        self.arrives_at = 0.0
        self.reader = FrameReader()


class VirtualNetwork:
    """The clock, the heap and the nodes."""

    def __init__(self, seed: int = 0, latency: tuple[float, float] = (0.005, 0.05)) -> None:
        self.now = 0.0
        self.rng = Random(seed)
        self.latency = latency
        self.nodes: dict[str, VirtualNode] = {}
        self.frames: Counter[str] = Counter()
        self.steps = 0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence = count()

    def add(
        self,
        config: Config | None = None,
        known: list[BookEntry] | None = None,
        *,
        listens: bool = True,
        seed: int | None = None,
    ) -> VirtualNode:
        """Start a node on a host of its own."""
        number = len(self.nodes) + 1
        host = f"10.{number >> 16}.{(number >> 8) & 255}.{number & 255}"
        key = self.rng.getrandbits(256) if seed is None else Random(seed).getrandbits(256)
        signatures = CheapSignatures(PeerId(key.to_bytes(32, "big")))
        core = NodeCore(
            signatures,
            config or Config(),
            Random(self.rng.getrandbits(64)),
            self.now,
            UNIX_OFFSET_S,
        )
        node = VirtualNode(self, host, core)
        node.listens = listens
        self.nodes[host] = node
        core.listening((node.address,) if listens else (), self.now)
        node.do(core.start(known or [], self.now))
        return node

    def at(self, when: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (max(when, self.now), next(self._sequence), what))

    def run(self, seconds: float) -> None:
        """Let virtual time pass."""
        self.run_until(lambda: False, seconds)

    def run_until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Until the condition holds; false when it does not within `seconds`."""
        end = self.now + seconds
        while not condition():
            if not self._heap or self._heap[0][0] > end:
                self.now = end
                return condition()
            self.now, _, what = heapq.heappop(self._heap)
            self.steps += 1
            assert self.steps < 20_000_000, "the run does not come to rest"
            what()
        return True

    def crash(self, node: VirtualNode) -> None:
        """The node stops at once; its peers see their pipes break."""
        node.is_up = False
        for end in list(node.ends.values()):
            self._break(end)

    def perform(self, node: VirtualNode, effect: Effect) -> None:
        kind = type(effect)
        if type(effect) is Send:
            self._send(node, effect)
        elif type(effect) is Dial:
            self._dial(node, effect)
        elif type(effect) is Shut:
            end = node.ends.get(effect.link)
            if end is not None:
                self._break(end)
        elif type(effect) is Deliver:
            node.deliveries.append(effect.delivery)
        elif type(effect) is Happened:
            node.events.append(effect.event)
        else:
            assert kind is not None
            node.effects.append(effect)

    # The pretend wire.

    def _delay(self) -> float:
        return self.rng.uniform(*self.latency)

    def _dial(self, node: VirtualNode, dial: Dial) -> None:
        def arrive() -> None:
            target = self.nodes.get(dial.address.host)
            remote = Address(node.address.host, 40000 + dial.link % 20000)
            number = None
            if target is not None and target.is_up and target.listens and node.is_up:
                number = target.core.admit(remote, self.now)
            if target is None or number is None:
                self.at(self.now + self._delay(), lambda: refuse("nobody listens there"))
                return
            if dial.expected is not None and dial.expected != target.core.me:
                target.do(target.core.lost(number, "handshake failed", self.now))
                self.at(self.now + self._delay(), lambda: refuse("another peer", True))
                return
            here, there = PipeEnd(node, dial.link), PipeEnd(target, number)
            here.other, there.other = there, here
            target.ends[number] = there
            host = target.address.host
            target.do(target.core.secured(number, node.core.me, remote, host, self.now))
            self.at(self.now + self._delay(), lambda: establish(here))

        def establish(here: PipeEnd) -> None:
            assert here.other is not None
            if not node.is_up:
                self._break(here)
                return
            node.ends[dial.link] = here
            peer = here.other.node.core.me
            host = node.address.host
            node.do(node.core.secured(dial.link, peer, dial.address, host, self.now))

        def refuse(why: str, not_admitted: bool = False) -> None:
            if node.is_up:
                node.do(node.core.lost(dial.link, why, self.now, not_admitted=not_admitted))

        self.at(self.now + self._delay(), arrive)

    def _send(self, node: VirtualNode, send: Send) -> None:
        end = node.ends.get(send.link)
        if end is None or end.other is None or not end.is_open:
            return
        self.frames[type(send.frame).__name__] += 1
        data = encode_frame(send.frame)
        other = end.other
        other.arrives_at = max(other.arrives_at, self.now + self._delay())

        def arrive() -> None:
            if other.is_open and other.node.is_up:
                frames = other.reader.feed(data)
                other.node.do(other.node.core.receive(other.link, frames, self.now))

        self.at(other.arrives_at, arrive)

    def _break(self, end: PipeEnd) -> None:
        end.is_open = False
        end.node.ends.pop(end.link, None)
        other = end.other
        if other is None:
            return
        other.arrives_at = max(other.arrives_at, self.now + self._delay())

        def arrive() -> None:
            if other.is_open and other.node.is_up:
                other.is_open = False
                other.node.ends.pop(other.link, None)
                other.node.do(other.node.core.lost(other.link, "", self.now))

        self.at(other.arrives_at, arrive)

    # Global truths.

    @property
    def up(self) -> list[VirtualNode]:
        return [node for node in self.nodes.values() if node.is_up]

    def components(self) -> list[set[PeerId]]:
        """Connected parts of the nodes that are up, by links that both ends know."""
        by_id = {node.core.me: node for node in self.up}
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
                    n for n in by_id[peer].neighbours if n in by_id and peer in by_id[n].neighbours
                ]
            parts.append(part)
        return sorted(parts, key=len, reverse=True)

    def are_mutual(self) -> bool:
        """Whether whoever lists a neighbour is listed by it."""
        by_id = {node.core.me: node for node in self.up}
        return all(
            n in by_id and me in by_id[n].neighbours
            for me, node in by_id.items()
            for n in node.neighbours
        )

    def is_settled(self) -> bool:
        """One component, everyone at the minimum and within the maximum, links mutual."""
        config = self.up[0].core.config.overlay
        wanted = min(config.links_min, len(self.up) - 1)
        return (
            all(wanted <= len(node.neighbours) <= config.links_max for node in self.up)
            and len(self.components()) == 1
            and self.are_mutual()
        )


def net_changes(node: VirtualNode) -> Counter[PeerId]:
    """NeighbourUp less NeighbourDown by peer: 1 for present neighbours, 0 for past ones."""
    balance: Counter[PeerId] = Counter()
    for event in node.events:
        if isinstance(event, NeighbourUp):
            balance[event.peer] += 1
        elif isinstance(event, NeighbourDown):
            balance[event.peer] -= 1
    return balance
