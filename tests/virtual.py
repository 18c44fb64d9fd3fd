"""Whole nodes on a virtual clock: the shipped machines, a heap of events, a pretend network.

Every node has a host of its own, frames cross with a latency drawn from the seed, pipes keep
order, and every frame is encoded and decoded on its way. Nothing is real but the protocol.

What cannot cross (the receiver is stalled, or a partition lies between) waits and crosses later,
as TCP would have it, unless the pipe has ended by then. Dials across a partition, to a firewalled
node, or to one that vanished, are never answered; those to one that crashed are refused.
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
from meshwalk.proto.effects import (
    Deliver,
    Dial,
    Effect,
    ForgetPeer,
    Happened,
    SavePeer,
    Send,
    Shut,
)
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
        self.is_stalled = False
        self.is_firewalled = False
        self.has_vanished = False
        self.side = 0
        """Which part of a partitioned network it is in."""
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
        self.arm()

    def arm(self) -> None:
        """Have the machine called when it wants to be."""
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

    def saved(self) -> list[BookEntry]:
        """The address book as a store would have kept it, for a node that starts later."""
        kept: dict[PeerId, SavePeer] = {}
        for effect in self.effects:
            if isinstance(effect, SavePeer):
                kept[effect.peer] = effect
            elif isinstance(effect, ForgetPeer):
                kept.pop(effect.peer, None)
        entries = []
        for peer, saved in kept.items():
            entry = self.core.overlay.book.entries.get(peer)
            sequence, addresses = (
                (entry.sequence, entry.addresses) if entry is not None else (0, ())
            )
            entries.append(
                BookEntry(
                    peer,
                    saved.record,
                    sequence,
                    addresses,
                    "store",
                    saved.last_seen - UNIX_OFFSET_S,
                    saved.verified,
                    Address.parse(saved.address) if saved.address else None,
                    saved.failures,
                )
            )
        return entries

    def leave(self) -> None:
        """Stop in good order: its pipes end once the peers have heard."""
        self.do(self.core.leave(self.network.now))
        self.listens = False

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
        self.held: list[Callable[[], None]] = []
        """What could not cross yet."""

    @property
    def is_cut(self) -> bool:
        """Whether nothing can arrive here now."""
        assert self.other is not None
        return self.node.is_stalled or self.node.side != self.other.node.side


class VirtualNetwork:
    """The clock, the heap and the nodes."""

    def __init__(self, seed: int = 0, latency: tuple[float, float] = (0.005, 0.05)) -> None:
        self.now = 0.0
        self.rng = Random(seed)
        self.latency = latency
        self.nodes: dict[str, VirtualNode] = {}
        self.frames: Counter[str] = Counter()
        self.frames_by_node: Counter[str] = Counter()
        self.dials: list[tuple[float, VirtualNode, Dial]] = []
        """Every dial: when, who, what."""
        self.steps = 0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence = count()

    def add(
        self,
        config: Config | None = None,
        known: list[BookEntry] | None = None,
        *,
        listens: bool = True,
        is_firewalled: bool = False,
        seed: int | None = None,
    ) -> VirtualNode:
        """Start a node on a host of its own. A firewalled one announces an address in vain."""
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
        node.is_firewalled = is_firewalled
        self.nodes[host] = node
        core.listening((node.address,) if listens else (), self.now)
        node.do(core.start(known or [], self.now))
        return node

    def grow(self, count: int, config: Config | None = None, spacing_s: float = 0.05) -> None:
        """That many nodes, each joining through the first, one after the other."""
        for _ in range(count):
            node = self.add(config)
            first = next(iter(self.nodes.values()))
            if node is not first:
                node.join(first)
            if spacing_s:
                self.run(spacing_s)

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

    def crash(self, node: VirtualNode, *, silently: bool = False) -> None:
        """The node stops at once; its peers see their pipes break, unless it vanishes silently."""
        node.is_up = False
        node.has_vanished = silently
        for end in list(node.ends.values()):
            if silently:
                end.is_open = False
            else:
                self._break(end)

    def stall(self, node: VirtualNode) -> None:
        """The node reads nothing more; its peers' drivers notice at once."""
        node.is_stalled = True
        for end in list(node.ends.values()):
            if end.other is not None:
                end.other.node.core.stalled(end.other.link, self.now)
                end.other.node.arm()

    def resume(self, node: VirtualNode) -> None:
        """It reads again, and what waited arrives."""
        node.is_stalled = False
        for end in list(node.ends.values()):
            if end.other is not None:
                end.other.node.core.resumed(end.other.link)
        self._release()

    def partition(self, *parts: list[VirtualNode]) -> None:
        """Nothing crosses between these parts, until they are joined by naming one part or none."""
        for node in self.nodes.values():
            node.side = next((i for i, part in enumerate(parts) if node in part), 0)
        self._release()

    def _release(self) -> None:
        for node in self.up:
            for end in list(node.ends.values()):
                if not end.is_cut:
                    held, end.held = end.held, []
                    for arrive in held:
                        self.at(self.now, arrive)

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
        self.dials.append((self.now, node, dial))

        def arrive() -> None:
            target = self.nodes.get(dial.address.host)
            remote = Address(node.address.host, 40000 + dial.link % 20000)
            if target is not None and (
                target.has_vanished
                or target.is_stalled
                or target.side != node.side
                or (target.is_firewalled and target.is_up)
            ):
                return  # nobody says anything: the machines must give up by themselves
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
            # Nothing that the acceptor says arrives before the dialler's handshake has ended.
            here.arrives_at = self.now + self._delay()
            self.at(here.arrives_at, lambda: establish(here))
            host = target.address.host
            target.do(target.core.secured(number, node.core.me, remote, host, self.now))

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
        self.frames[type(send.frame).__name__] += 1
        self.frames_by_node[node.address.host] += 1
        end = node.ends.get(send.link)
        if end is None or end.other is None or not end.is_open:
            return
        data = encode_frame(send.frame)
        other = end.other

        def arrive() -> None:
            if other.is_open and other.node.is_up:
                frames = other.reader.feed(data)
                other.node.do(other.node.core.receive(other.link, frames, self.now))

        self._cross(other, arrive)

    def _break(self, end: PipeEnd) -> None:
        end.is_open = False
        end.node.ends.pop(end.link, None)
        other = end.other
        if other is None:
            return

        def arrive() -> None:
            if other.is_open and other.node.is_up:
                other.is_open = False
                other.node.ends.pop(other.link, None)
                other.node.do(other.node.core.lost(other.link, "", self.now))

        self._cross(other, arrive)

    def _cross(self, to: PipeEnd, arrive: Callable[[], None]) -> None:
        to.arrives_at = max(to.arrives_at, self.now + self._delay())

        def arrive_or_wait() -> None:
            if to.is_cut or to.held:
                to.held.append(arrive)
            else:
                arrive()

        self.at(to.arrives_at, arrive_or_wait)

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
        others = len(self.up) - 1
        return (
            all(
                min(node.core.config.overlay.links_min, others)
                <= len(node.neighbours)
                <= node.core.config.overlay.links_max
                for node in self.up
            )
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
