"""The clock, the wire and the nodes of a simulation: everything that is not the protocol itself.

    Timeline --(time, sequence)--> PipeEnd, SimNode --inputs--> NodeCore, as shipped
        ^                                                          |
        `----- World: dial, cross, end <---- SimNode.do <--effects-'

One seed decides everything. A pipe is a reliable stream with both ends' PeerIds proven: frames
keep their order, each takes the delay that `Conditions` gives it, and what cannot cross waits.
Dials take the round trips of TCP and TLS 1.3, and fail as real ones do: see dialling.py.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Final, Protocol, TypeAlias

from meshwalk.config import Config
from meshwalk.errors import LocalError
from meshwalk.proto.effects import Dial
from meshwalk.proto.node import NodeCore
from meshwalk.sim.conditions import Conditions
from meshwalk.sim.dialling import Dialling
from meshwalk.sim.latency import Latency, Uniform
from meshwalk.sim.node import Behaviour, Observer, SimNode
from meshwalk.sim.pipe import LOST, Item, PipeEnd, size_of
from meshwalk.sim.signatures import CheapSignatures
from meshwalk.sim.timeline import SLOTS_PER_S, Timeline
from meshwalk.wire.address import DEFAULT_PORT, Address
from meshwalk.wire.codec import encode_frame
from meshwalk.wire.peerid import PeerId

LOOK_S: Final = 0.05  # guess: how often `run_until` looks, below what a person would notice
# guess: 2.6 to 5 hours of computing at the speeds measured; more is a run without an end.
EVENTS_MAX: Final = 1_000_000_000


class Endless(LocalError):
    """A run passed its limit of events: something goes round in circles. Look at its trace."""


class Admits(Protocol):
    """What stands before a host and decides about incoming connections: a NAT."""

    external_host: str

    def outbound(
        self,
        internal_host: str,
        internal_port: int,
        remote_host: str,
        remote_port: int,
        now: float,
    ) -> tuple[str, int] | None:
        """Where others see a connection that goes out; None when none can."""

    def inbound(
        self, remote_host: str, remote_port: int, external_port: int, now: float
    ) -> tuple[str, int] | None:
        """Which host and port within a connection comes in to; None when it is dropped."""


MakeCore: TypeAlias = Callable[[SimNode, int, float, float], NodeCore]
"""Makes the machines of a node: (node, the seed of its chance, its time, Unix time minus that)."""


class World:
    """Nodes on a virtual clock.

    `latency` is how long a frame takes between two hosts; `conditions` is what else stands between
    them, to be changed while it runs. `encodes` has every frame encoded and decoded on its way, as
    on a real wire; without it large runs take a third less time. `make_core` may put another
    `NodeCore` in the nodes' place, such as one that writes a trace.
    """

    def __init__(
        self,
        seed: int = 0,
        latency: Latency | None = None,
        *,
        encodes: bool = True,
        observer: Observer | None = None,
        make_core: MakeCore | None = None,
        events_max: int = EVENTS_MAX,
    ) -> None:
        self.seed = seed
        self.now = 0.0
        self.events = 0
        """Events that have happened: frames that arrived, timers, steps of dials."""
        self.rng = Random(seed)
        self.timeline = Timeline()
        self.conditions = Conditions(latency or Uniform(0.005, 0.05), self.rng)
        self.observer = observer or Observer()
        self.nodes: list[SimNode] = []
        self.frames: Counter[type] = Counter()
        """Frames sent, by class."""
        self.dials: Counter[str] = Counter()
        """Dials by what became of them."""
        self._encodes = encodes
        self._make_core = make_core
        self._events_max = events_max
        self._listeners: dict[Address, SimNode] = {}
        self._nats: dict[str, Admits] = {}
        self.behind_nat: dict[str, Admits] = {}
        """The NAT in front of a host, if there is one."""
        self._ports = 40_000
        self._hosts = 0
        """How many there have been."""
        self._last: tuple[object, bytes] = (None, b"")

    # Nodes.

    def add(
        self,
        config: Config | None = None,
        *,
        group: int = 0,
        nat: Admits | None = None,
        listens: bool = True,
        is_firewalled: bool = False,
        behaviour: Behaviour | None = None,
        key_seed: int | None = None,
    ) -> SimNode:
        """Start a node on a host of its own, in an address group (the second byte of its host).

        `key_seed` chooses its PeerId; else the world's seed and the number of the node do.
        """
        number = len(self.nodes) + 1
        host = self._new_host(group)
        of = f"{self.seed}/{number}" if key_seed is None else f"key {key_seed}"
        peer_id = PeerId(hashlib.blake2b(of.encode(), digest_size=32).digest())
        node = SimNode(self, host, DEFAULT_PORT, CheapSignatures(peer_id), config or Config())
        node.listens, node.is_firewalled, node.behaviour = listens, is_firewalled, behaviour
        if nat is not None:
            self.behind_nat[host] = nat
            self._nats[nat.external_host] = nat
        self.nodes.append(node)
        self._listeners[node.address] = node
        node.start(self.rng.getrandbits(64))
        return node

    def grow(self, count: int, config: Config | None = None, spacing_s: float = 0.05) -> None:
        """Add so many nodes, each joining through the first, one after the other."""
        for _ in range(count):
            node = self.add(config)
            if node is not self.nodes[0]:
                node.join(self.nodes[0])
            if spacing_s:
                self.run(spacing_s)

    def make_core(self, node: SimNode, seed: int, now: float, unix_offset_s: float) -> NodeCore:
        """The machines of a node that starts."""
        if self._make_core is not None:
            return self._make_core(node, seed, now, unix_offset_s)
        return NodeCore(node.signatures, node.config, Random(seed), now, unix_offset_s)

    @property
    def up(self) -> list[SimNode]:
        """Nodes that run, asleep or not."""
        return [node for node in self.nodes if node.is_up]

    def crash(self, node: SimNode, *, silently: bool = False) -> None:
        """The node stops at once. Its peers see their pipes break, unless its machine goes too."""
        node.is_up, node.has_vanished = False, silently
        for end in list(node.ends.values()):
            if not silently:
                end.is_open = False
                self.transmit(end.other, LOST)
        node.ends.clear()
        node.dialling.clear()
        self.observer.stopped(node)

    def leave(self, node: SimNode) -> None:
        """The node says goodbye and stops, once its peers could answer."""
        node.is_leaving = True
        node.do(node.core.leave(node.time()))
        self.timeline.add(
            self.now + node.config.link.close_timeout_s, self._gone, (node, node.life)
        )

    def restart(self, node: SimNode, *, loses_store: bool = False) -> None:
        """Start a node that stopped: the same identity, and the peers that its store kept."""
        assert not node.is_up, "crash it first"
        if loses_store:
            node.stored.clear()
            node.kept.clear()
        node.start(self.rng.getrandbits(64))

    def sleep(self, node: SimNode, *, clock_stops: bool = True) -> None:
        """The machine is suspended; or, with its clock going on, only the process is stopped."""
        node.sleep(clock_stops=clock_stops)

    def move(self, node: SimNode, group: int | None = None) -> None:
        """Give the node another host, in the same address group or in the one named.

        Nobody is told. What is on its way to it is lost, and its pipes carry nothing any more, as
        with a machine whose IP address has changed; its dials find no way back. A node that runs
        sees that it is elsewhere, as one that looks after its machine's addresses does.
        """
        for end in node.ends.values():
            end.cut()
            end.other.cut()
        node.dialling.clear()
        old, nat = node.host, self.behind_nat.pop(node.host, None)
        if self._listeners.get(node.address) is node:
            del self._listeners[node.address]
        node.host = self._new_host(int(old.split(".")[1]) if group is None else group)
        node.address = Address(node.host, node.address.port)
        self._listeners[node.address] = node
        if nat is not None:
            self.behind_nat[node.host] = nat
        if node.is_up:
            node.moved()

    def _new_host(self, group: int) -> str:
        self._hosts += 1
        number = self._hosts
        return f"10.{group + (number >> 16)}.{(number >> 8) & 255}.{number & 255}"

    def changed(self) -> None:
        """Call after a change of `conditions`: what waited goes on where the way is free again."""
        for node in self.nodes:
            if node.is_up:
                node.release()

    # Time.

    def run(self, seconds: float) -> None:
        """Let virtual time pass. Raises `Endless`."""
        until = self.now + seconds
        count = 0
        for at, action, argument in self.timeline.due(until):
            self.now = at
            action(argument)
            count += 1
            if count >= 65_536:  # now and then is enough: it is a guard
                self._count(count)
                count = 0
        self._count(count)
        self.now = until

    def run_until(
        self, condition: Callable[[], bool], seconds: float, look_s: float = LOOK_S
    ) -> bool:
        """Let time pass until the condition holds; false when it does not within `seconds`."""
        until = self.now + seconds
        while not condition():
            if self.now >= until:
                return False
            self.run(min(look_s, until - self.now))
        return True

    def _count(self, count: int) -> None:
        self.events += count
        if self.events > self._events_max:
            raise Endless(
                f"{self.events:,} events and no end after {self.now:,.1f} virtual seconds"
            )

    # The wire, for nodes.

    def cross(self, end: PipeEnd, item: Item) -> None:
        """Send from one end of a pipe to the other."""
        self.frames[type(item)] += 1
        if self._encodes and type(item) is not bytes:
            # A flood sends one frame over many links: it is encoded once.
            last, data = self._last
            if last is not item:
                data = encode_frame(item)  # type: ignore[arg-type]
                self._last = (item, data)
            item = data
        to = end.other
        conditions = self.conditions
        if not conditions.is_plain:
            self.transmit(to, item)
            return
        # The hot path: what `transmit` and `Timeline.add` would do.
        at = self.now + conditions.draw_delay_s(end.host, to.host, self.rng)
        if at < to.arrives_at:
            at = to.arrives_at
        else:
            to.arrives_at = at
        events = self.timeline.ahead.get(int(at * SLOTS_PER_S))
        if events is not None:
            events.append((at, to.arrive, item))
        else:
            self.timeline.add(at, to.arrive, item)

    def shut(self, node: SimNode, link: int) -> None:
        """A node ends a pipe, a dial, or a handshake that it had accepted."""
        end = node.ends.pop(link, None)
        dialling = node.dialling.pop(link, None)
        if dialling is not None:
            end = dialling.accepted_end(node, link)
        if end is not None:
            end.is_open = False
            self.transmit(end.other, LOST)

    def ended(self, end: PipeEnd, why: str = "") -> None:
        """The end of a pipe has come to this end, be it before the last of the handshake."""
        end.is_open = False
        node, link = end.node, end.link
        if node.life != end.life or not node.is_up:
            return
        dialling = node.dialling.get(link)
        if dialling is not None and dialling.accepted_end(node, link) is end:
            del node.dialling[link]
        elif node.ends.pop(link, None) is None:
            return
        node.do(node.core.lost(link, why, node.time()))

    def transmit(self, to: PipeEnd, item: Item) -> None:
        """Have an item arrive at the end of a pipe, after all that was sent there before.

        One that is lost too often leaves a gap there, and breaks the sender's end later. As in RFC
        9293 section 3.8.3 the other end is not told: what it sends from then on is answered with
        a reset, and else there are its own time-outs.
        """
        sender = to.other
        outcome = self.conditions.frame_outcome(self.now, sender.host, to.host, size_of(item))
        if outcome.arrives_at is not None:
            to.arrives_at = max(outcome.arrives_at, to.arrives_at)
            self.timeline.add(to.arrives_at, to.arrive, item)
        elif not to.has_gap and outcome.given_up_at is not None:
            to.has_gap = True
            to.arrives_at = max(self.now, to.arrives_at)
            self.timeline.add(to.arrives_at, to.leave_gap, None)
            self.timeline.add(outcome.given_up_at, sender.give_up, None)

    def _gone(self, which: tuple[SimNode, int]) -> None:
        node, life = which
        if node.is_up and node.life == life:
            self.crash(node)

    # Dials.

    def dial(self, node: SimNode, dial: Dial) -> None:
        """A node makes a connection."""
        Dialling(self, node, dial).begin()

    def finished(self, end: PipeEnd) -> None:
        """The last of a handshake has reached the acceptor."""
        dialling = end.node.dialling.pop(end.link, None)
        if dialling is None:  # it gave up meanwhile
            end.is_open = False
            self.transmit(end.other, LOST)
        else:
            dialling.finished(end)

    def leaves(self, node: SimNode, to: Address) -> Address | None:
        """Where a connection that a node makes is seen to come from; None when its NAT is full."""
        self._ports = 40_000 + (self._ports + 1) % 20_000
        nat = self.behind_nat.get(node.host)
        if nat is None or nat is self.behind_nat.get(to.host):  # neighbours need not go through it
            return Address(node.host, self._ports)
        seen = nat.outbound(node.host, self._ports, to.host, to.port, self.now)
        return None if seen is None else Address(*seen)

    def find(self, node: SimNode, address: Address, seen: Address | None) -> SimNode | None:
        """Whose machine a node's connection to an address comes to; None when it is dropped."""
        within = self.behind_nat.get(address.host)
        if within is not None and within is not self.behind_nat.get(node.host):
            return None  # an address that means something behind that NAT only
        nat = self._nats.get(address.host)
        if nat is not None and seen is not None:
            inside = nat.inbound(seen.host, seen.port, address.port, self.now)
            if inside is None:
                return None
            address = Address(*inside)
        return self._listeners.get(address)

    def delay_s(self, sender: SimNode, receiver: SimNode) -> float:
        """How long one crossing takes."""
        return self.conditions.delay_s(sender.host, receiver.host)
