"""privacy: who can tell where a private broadcast began.

Some of the nodes are spies. They do all that others do, and tell one another what they are sent of
each broadcast: by whom, when, and what it says of its way. Each private broadcast is signed by a
key of its own, so that only its way can give its origin away. Honest nodes broadcast, one after the
other; then the spies name somebody for each:

-   first spy: whoever was first to send any of them anything of it (Fanti, Viswanath, "Deanonymiza-
    tion in the Bitcoin P2P Network", NIPS 2017, and Dandelion++);
-   all ways: the same if one of them was given a stem. Else they compare what all copies say of
    their ways, hops and time, with the shortest ways in the network, whose links and delays they
    are taken to know, and name the node that fits best.

With stems there are the two kinds of them that can be chosen; without, broadcasts spread from where
they are made. The spies of a small share are among those of a larger one, and origins are honest
for all of them, so that shares differ by nothing else.
"""

from __future__ import annotations

import enum
import hashlib
from random import Random
from typing import TYPE_CHECKING, Final

import msgspec

from meshwalk.config import Config, StemConfig
from meshwalk.proto.broadcast.stem import Stems
from meshwalk.sim.collecting import collecting_seldom
from meshwalk.sim.experiment import Case, Experiment, Row, Size
from meshwalk.sim.experiments.privacy_guesses import Network, Seen, all_ways, first_spy, precision
from meshwalk.sim.experiments.privacy_report import Guess, plots, tables
from meshwalk.sim.latency import Pairwise
from meshwalk.sim.node import Observer, SimNode
from meshwalk.sim.percentiles import percentile
from meshwalk.sim.pipe import Item, PipeEnd
from meshwalk.sim.signatures import CheapSignatures
from meshwalk.sim.world import World
from meshwalk.wire.frames import STEM_HOPS_MAX, Channel, ContentType, Message
from meshwalk.wire.gossip import Broadcast, Have, Stem, decode_gossip
from meshwalk.wire.peerid import PeerId
from meshwalk.wire.records import Domain, decode_broadcast_head

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meshwalk.events import Delivery

SPIES: Final = (0.05, 0.1, 0.2, 0.3)  # shares of the nodes
DELAYS_S: Final = (0.005, 0.05)  # as elsewhere in the experiments; each pair keeps its own
SPACING_S: Final = 0.012  # an entry's link carries 50 walks a second; faster joiners must retry
SETTLE_S: Final = 30.0  # guess: round trips have been measured some times on each link
EVERY_S: Final = 2.0  # guess: one broadcast is nearly always over when the next begins
LATER_S: Final = 60.0  # guess: longer than an embargo, but for one in fifty
WARMING: Final = 3  # guess: open broadcasts at first, for the tree


class Mode(enum.StrEnum):
    """How private broadcasts travel."""

    NONE = "no stem"
    """They spread from where they are made."""
    CHANCE = "stem ended by chance"
    """The default: each hop ends it with a chance of 10 %."""
    HOPS = "stem of 0 to 10 hops"
    """Seed 003's: the origin draws how many."""


CONFIGS: Final = {
    Mode.NONE: Config(),
    Mode.CHANCE: Config(),
    Mode.HOPS: Config(stem=StemConfig(hops=STEM_HOPS_MAX)),
}


class Plan(msgspec.Struct, frozen=True):
    """One case, but for its seed."""

    mode: str
    nodes: int
    origins: int
    """Honest nodes that broadcast, once each."""


# Nodes, origins, networks.
SIZES: Final[dict[Size, tuple[tuple[int, int, int], ...]]] = {
    Size.QUICK: ((60, 40, 2),),
    Size.FULL: ((100, 70, 10),),
    Size.HUGE: ((100, 70, 100), (1_000, 600, 20)),
}


def cases(size: Size, seed: int) -> list[Case]:
    """Each kind of stem, in several networks."""
    return [
        case_of(Plan(str(mode), nodes, origins), seed + number)
        for nodes, origins, networks in SIZES[size]
        for mode in Mode
        for number in range(networks)
    ]


def case_of(plan: Plan, seed: int) -> Case:
    """The case of a plan."""
    name = f"n={plan.nodes} {plan.mode} seed={seed}"
    return Case(name, msgspec.to_builtins(plan), seed, weight=plan.nodes * (100 + plan.origins))


def run(case: Case) -> Row:
    """Grow a network, have honest nodes broadcast, and let the spies guess."""
    plan = msgspec.convert(case.settings, Plan)
    with collecting_seldom():
        watch = Watch(plan, case.seed)
        for origin in watch.origins:
            watch.broadcast(origin)
        watch.world.run(LATER_S)
        return {**case.settings, **watch.row()}


# What is watched.


class AtOnce(Stems):
    """No stems: an origin's broadcast spreads from where it is."""

    def begin(
        self, id: tuple[bytes, int, int], stem: Stem, neighbours: Sequence[PeerId], now: float
    ) -> tuple[PeerId, Stem] | None:
        return None


class SpyingWorld(World):
    """Writes down what is sent to nodes that may be spies, of broadcasts signed by `keys`."""

    def __init__(self, seed: int) -> None:
        latency = Pairwise(*DELAYS_S, seed, jitter=0.0)
        super().__init__(seed, latency, encodes=False)
        self.keys: dict[bytes, list[Seen]] = {}
        self.stem_hops: dict[bytes, int] = {}
        """Of each, how many links its stem has crossed, whoever sees it."""
        self.spies: dict[SimNode, int] = {}
        """Their numbers."""

    def cross(self, end: PipeEnd, item: Item) -> None:
        super().cross(end, item)
        if type(item) is not Message or item.channel is not Channel.BROADCAST:
            return
        spy = self.spies.get(end.other.node)
        message = decode_gossip(item.body)
        sender, at = end.node.id, end.other.arrives_at
        if isinstance(message, Stem | Broadcast):
            key = decode_broadcast_head(message.payload).origin
            if isinstance(message, Stem) and key in self.keys:
                self.stem_hops[key] += 1
            if spy is None or key not in self.keys:
                return
            if isinstance(message, Stem):
                self.keys[key].append(Seen(at, spy, sender, is_stem=True))
            else:
                way_s, hops = message.way_us / 1e6, message.hops - 1
                self.keys[key].append(Seen(at, spy, sender, hops=hops, way_s=way_s))
        elif isinstance(message, Have) and spy is not None:
            for held in message.held:
                if held.origin in self.keys:
                    self.keys[held.origin].append(Seen(at, spy, sender))


class Heard(Observer):
    """How long deliveries took, of broadcasts by their bodies."""

    def __init__(self) -> None:
        self.sent_at: dict[bytes, float] = {}
        self.delays_s: dict[bytes, list[float]] = {}

    def delivered(self, node: SimNode, delivery: Delivery) -> None:
        if delivery.body in self.sent_at:
            delay_s = node.world.now - self.sent_at[delivery.body]
            self.delays_s[delivery.body].append(delay_s)


class Watch:
    """One network, its spies and its origins."""

    def __init__(self, plan: Plan, seed: int) -> None:
        self.plan = plan
        self.world = world = SpyingWorld(seed)
        self._heard = world.observer = Heard()
        self._rng = rng = Random(f"{seed} privacy")
        config = CONFIGS[Mode(plan.mode)]
        world.grow(plan.nodes, config, spacing_s=SPACING_S)
        world.run(SETTLE_S)
        for number in range(WARMING):
            rng.choice(world.nodes).broadcast(b"open %d" % number)
            world.run(EVERY_S)
        if plan.mode == Mode.NONE:
            for node in world.nodes:
                core = node.core
                core.gossip.stems = AtOnce(config.stem, Random(0), core.timers)
        drawn = rng.sample(world.nodes, plan.nodes)
        spies = drawn[: round(max(SPIES) * plan.nodes)]
        world.spies = {node: number for number, node in enumerate(spies)}
        self.origins = drawn[len(spies) :][: plan.origins]
        self._origin_of: dict[bytes, SimNode] = {}

    def broadcast(self, origin: SimNode) -> None:
        """A private one, and time for it."""
        number = len(self._origin_of)
        text = f"{self.world.seed} one-time key {number}"
        key = PeerId(hashlib.blake2b(text.encode(), digest_size=32).digest())
        body = b"private %d" % number
        self._origin_of[bytes(key)] = origin
        self.world.keys[bytes(key)] = []
        self.world.stem_hops[bytes(key)] = 0
        self._heard.sent_at[body] = self.world.now
        self._heard.delays_s[body] = []
        core, now = origin.core, origin.time()
        payload = core.draft("", ContentType.BYTES, body, now, origin=bytes(key))
        signature = CheapSignatures(key).sign(Domain.BROADCAST, payload)
        origin.do(core.broadcast_draft(payload, 0, now, signature=signature)[1])
        self.world.run(EVERY_S)

    def row(self) -> Row:
        """How often each share of spies was right, and how long broadcasts took."""
        world, nodes = self.world, self.plan.nodes
        network = Network(world)
        found = []
        for share in SPIES:
            spies = round(share * nodes)
            numbers = {node.id for node, number in world.spies.items() if number < spies}
            right: dict[str, list[tuple[PeerId, PeerId | None]]] = {str(g): [] for g in Guess}
            by_stem = 0
            for key, origin in self._origin_of.items():
                seen = [
                    one for one in world.keys[key] if one.spy < spies and one.sender not in numbers
                ]
                seen.sort(key=lambda one: one.at)
                by_stem += any(one.is_stem for one in seen)
                right[Guess.FIRST].append((origin.id, first_spy(seen)))
                right[Guess.WAYS].append((origin.id, all_ways(seen, network, numbers)))
            found.append(
                {
                    "share": share,
                    "spies": spies,
                    "saw_stem": by_stem,
                    "right": {
                        name: sum(guess == origin for origin, guess in pairs)
                        for name, pairs in right.items()
                    },
                    "precision": {name: precision(pairs) for name, pairs in right.items()},
                }
            )
        return {"broadcasts": len(self._origin_of), "guesses": found, **self._times()}

    def _times(self) -> Row:
        delays = sorted(delay for some in self._heard.delays_s.values() for delay in some)
        firsts = sorted(min(some) for some in self._heard.delays_s.values() if some)
        lasts = sorted(max(some) for some in self._heard.delays_s.values() if some)
        expected = len(self._origin_of) * (self.plan.nodes - 1)
        hops = sorted(self.world.stem_hops.values())
        counts = [node.core.gossip.counts["stems that ended nowhere"] for node in self.world.nodes]
        return {
            "missed": expected - sum(len(some) for some in self._heard.delays_s.values()),
            "stem_hops_mean": sum(hops) / len(hops),
            "stem_hops_max": hops[-1],
            "embargoes_ended": sum(counts),
            "first_ms": 1000 * (percentile(firsts, 50) or 0.0),
            "delay_ms": {str(p): 1000 * (percentile(delays, p) or 0.0) for p in (50, 95, 99)},
            "last_ms": {str(p): 1000 * (percentile(lasts, p) or 0.0) for p in (50, 95, 100)},
        }


EXPERIMENT = Experiment(
    name="privacy",
    summary="how often spies among the nodes can name the origin of a private broadcast",
    cases=cases,
    run=run,
    tables=tables,
    plots=plots,
)
