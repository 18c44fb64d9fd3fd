"""healing: a network that is cut into parts under churn, and what happens once they are connected.

Each part lies in an address group of its own; while the network is cut nothing crosses between two
groups. Nodes leave and join all the time, in every part, as in `churn`. Nobody is told when the cut
ends: the nodes find out by their tests of peers (see proto/overlay/healing.py). The same network is
also run without a cut, with the same churn, to see what healing costs beyond that.
"""

from __future__ import annotations

import enum
from collections import Counter
from random import Random
from typing import TYPE_CHECKING, Any, Final

import msgspec

from meshwalk.config import Config, OverlayConfig
from meshwalk.events import NeighbourDown
from meshwalk.proto.effects import Effect, Happened
from meshwalk.sim.collecting import collecting_seldom
from meshwalk.sim.experiment import Case, Experiment, Row, Size
from meshwalk.sim.experiments.churn import links_among
from meshwalk.sim.experiments.healing_report import plots, tables
from meshwalk.sim.graphs import components
from meshwalk.sim.node import Observer, SimNode
from meshwalk.sim.percentiles import percentile
from meshwalk.sim.pipe import Item, PipeEnd
from meshwalk.sim.world import World
from meshwalk.wire.frames import Channel, Message
from meshwalk.wire.messages import Beacon, FragmentAsked, FragmentTold, JoinReply, JoinRequest

if TYPE_CHECKING:
    from meshwalk.wire.peerid import PeerId

SPACING_S: Final = 0.012  # as in churn: an entry's link carries 50 walks a second
SETTLE_S: Final = 300.0  # guess: two counts of all members by beacons, and books that have filled
NEW_S: Final = 30.0  # as in churn: who came later than that may still be without a link
LOOK_S: Final = 1.0  # guess: how exactly the time of healing is to be known, after the first looks
FIRST_LOOKS: Final = 50  # guess: so many are made ten times as often
HEALED_WITHIN_S: Final = 120.0  # what is asked of healing; also how long it is watched
AFTER_S: Final = 300.0  # guess: until the members of the whole network have been counted twice
MOVES_AFTER_S: Final = 60.0  # guess: when the part is used to being on its own
DOWN_S: Final = 5.0  # guess: of a restart
FILLING_S: Final = 10.0  # guess: twice the time of a walk
FILLINGS_MAX: Final = 12  # guess: after that who still has room finds nobody else who has
BYTE_OF_TAG: Final = 1  # a body is a MessagePack array of less than 16: its second byte is its tag

COUNTED: Final = {
    1: JoinRequest,
    2: JoinReply,
    10: Beacon,
    11: FragmentAsked,
    12: FragmentTold,
}
"""Messages that healing may need, by the tags of wire/messages.py."""


class What(enum.StrEnum):
    """What is special about a case."""

    PLAIN = "plain"
    FULL = "every node full"
    """When the cut ends, everyone who can has as many links as are allowed."""
    MOVED = "one part restarts elsewhere"
    """While the network is cut, all nodes of one part stop, and start at new addresses."""


class Plan(msgspec.Struct, frozen=True):
    """One case, but for its seed."""

    nodes: int
    parts: int
    cut_s: float = 600.0
    share: float = 0.0
    """Of the nodes that leave each minute, and join."""
    what: What = What.PLAIN


# The last two: longer than `purge_s`, so that nobody of the other part is among the verified any
# more; once with all who were there before, once when most of them have left meanwhile.
SIZES: Final[dict[Size, tuple[Plan, ...]]] = {
    Size.QUICK: (
        Plan(60, 1, 120.0, 0.01),
        Plan(60, 2, 120.0, 0.01),
        Plan(60, 3, 120.0),
        Plan(30, 2, 120.0, what=What.FULL),
        Plan(30, 2, 120.0, what=What.MOVED),
    ),
    Size.FULL: (
        Plan(1_000, 1, share=0.01),
        Plan(1_000, 2, share=0.01),
        Plan(200, 3),
        Plan(200, 4),
        Plan(200, 2, what=What.FULL),
        Plan(200, 2, what=What.MOVED),
        Plan(60, 2, 10_800.0),
        Plan(60, 2, 10_800.0, 0.005),
    ),
    Size.HUGE: (
        Plan(1_000, 1, share=0.01),
        *(Plan(1_000, parts, share=0.01) for parts in (2, 3, 4)),
        *(Plan(1_000, 2, what=what) for what in (What.FULL, What.MOVED)),
        Plan(300, 2, 10_800.0),
        Plan(300, 2, 10_800.0, 0.005),
        Plan(300, 2, 10_800.0, 0.01),
    ),
}


def cases(size: Size, seed: int) -> list[Case]:
    """Parts, churn, full nodes, moved nodes, long cuts."""
    return [case_of(plan, seed) for plan in SIZES[size]]


def case_of(plan: Plan, seed: int) -> Case:
    """The case of a plan."""
    name = (
        f"n={plan.nodes} parts={plan.parts} cut={plan.cut_s:.0f}s {plan.share:.1%} a minute"
        f" {plan.what} seed={seed}"
    )
    settings = msgspec.to_builtins(plan)
    return Case(name, settings, seed, weight=plan.nodes * (plan.cut_s + SETTLE_S + AFTER_S))


def run(case: Case) -> Row:
    """Grow, cut, connect again, and return what was seen."""
    plan = msgspec.convert(case.settings, Plan)
    with collecting_seldom():
        cut = Cut(plan, case.seed)
        cut.settle()
        cut.apart()
        cut.together()
        return {**case.settings, **cut.row()}


class CountingWorld(World):
    """Counts messages of the overlay, those of `COUNTED` by name."""

    counted: Counter[int] | None = None
    """By tag; None: not now."""

    def cross(self, end: PipeEnd, item: Item) -> None:
        if self.counted is not None and type(item) is Message and item.channel is Channel.OVERLAY:
            self.counted[item.body[BYTE_OF_TAG]] += 1
        super().cross(end, item)


class Losses(Observer):
    """Notes why neighbours were lost, while it is asked to."""

    def __init__(self) -> None:
        self.is_counting = False
        self.reasons: list[tuple[SimNode, PeerId, str]] = []

    def told(self, node: SimNode, effect: Effect) -> None:
        if self.is_counting and type(effect) is Happened and type(effect.event) is NeighbourDown:
            reason = effect.event.reason.split(":")[0]
            self.reasons.append((node, effect.event.peer, reason))


class Cut:
    """One network, its cut, and its healing."""

    def __init__(self, plan: Plan, seed: int) -> None:
        self.plan = plan
        self.world = CountingWorld(seed, encodes=False)
        self.members: list[SimNode] = []
        """Who is there and not about to go."""
        self.looks: list[dict[str, Any]] = []
        """From the end of the cut: ten a second at first, then one."""
        self._joined_at: dict[SimNode, float] = {}
        self._first: frozenset[SimNode] = frozenset()
        self._rng = Random(f"{seed} healing")
        self._losses = Losses()
        self.world.observer = self._losses
        self._sizes: dict[str, list[float]] = {}
        self._healed_s: float | None = None
        self._agreed_s: float | None = None
        self._is_cut = False
        self._parts_when_cut = 0
        self._full = 0.0
        self._frames: Counter[int] = Counter()

    # The three acts.

    def settle(self) -> None:
        """Grow the network and let it come to rest."""
        overlay = OverlayConfig(links_min=8, links_max=10)
        config = Config(overlay=overlay) if self.plan.what is What.FULL else Config()
        for number in range(self.plan.nodes):
            node = self.world.add(config, group=number % self.plan.parts)
            self.members.append(node)
            self._joined_at[node] = self.world.now
            if number:
                node.join(self.members[0])
            self.world.run(SPACING_S)
        self._first = frozenset(self.members)
        self.world.run(SETTLE_S)
        self._note_sizes("before")

    def apart(self) -> None:
        """Cut it for as long as planned."""
        plan, world = self.plan, self.world
        self._draw_churn(plan.cut_s + HEALED_WITHIN_S)
        self._is_cut = plan.parts > 1
        if self._is_cut:
            world.conditions.partition_address_groups()
            world.changed()
        left_s = plan.cut_s
        if plan.what is What.MOVED:
            world.run(MOVES_AFTER_S)
            self._move()
            left_s -= MOVES_AFTER_S + DOWN_S
        elif plan.what is What.FULL:
            left_s -= self._fill()
        world.run(left_s)
        self._note_sizes("apart")
        self._parts_when_cut = len(components(links_among(self._settled())))
        full = [node.core.overlay.membership.is_full for node in self.members]
        self._full = sum(full) / len(full)

    def together(self) -> None:
        """Connect the parts again, and watch."""
        world = self.world
        world.counted, self._losses.is_counting = Counter(), True
        self._is_cut = False
        world.conditions.rejoin()
        world.changed()
        began_at = world.now
        while world.now < began_at + HEALED_WITHIN_S:
            world.run(LOOK_S / 10 if len(self.looks) < FIRST_LOOKS else LOOK_S)
            self._look(world.now - began_at)
        self._frames, world.counted = world.counted, None
        self._losses.is_counting = False
        while self._agreed_s is None and world.now < began_at + AFTER_S:
            world.run(LOOK_S)
            self._look(world.now - began_at)
        world.run(began_at + AFTER_S - world.now)
        self._note_sizes("after")

    def row(self) -> Row:
        """What was seen."""
        minutes = len(self.members) * HEALED_WITHIN_S / 60
        places = {node: node.host.split(".")[1] for node in self.members}
        by_id = {node.id: node for node in self.members}
        here = sum(
            places[node] != places[other]
            for node in self.members
            for peer in node.neighbours
            if (other := by_id.get(peer)) is not None
        )
        return {
            "parts_when_cut": self._parts_when_cut,
            "full": self._full,
            "healed_s": self._healed_s,
            "agreed_s": self._agreed_s,
            "bridges": here // 2,
            "staying": sum(node in self._first for node in self.members),
            "members": len(self.members),
            "dropped": dict(sorted(self._dropped().items())),
            "healings": sum(n.core.overlay.healing.counts["joined"] for n in self.members),
            "frames": {kind.__name__: self._frames[tag] / minutes for tag, kind in COUNTED.items()},
            "overlay_frames": sum(self._frames.values()) / minutes,
            "sizes": self._sizes,
            "looks": self.looks,
            "events": self.world.events,
        }

    # What happens while it is cut.

    def _draw_churn(self, seconds: float) -> None:
        count = round(self.plan.share * self.plan.nodes * seconds / 60)
        for action in (self._leaves, self._joins):
            for _ in range(count):
                at = self.world.now + self._rng.uniform(0, seconds)
                self.world.timeline.add(at, action, None)

    def _leaves(self, _: None) -> None:
        if len(self.members) < 2:
            return
        node = self._rng.choice(self.members)
        self.members.remove(node)
        if self._rng.random() < 0.5:
            self.world.crash(node)
        else:
            self.world.leave(node)

    def _joins(self, _: None) -> None:
        inside = [node for node in self.members if node.neighbours]
        entry = self._rng.choice(inside or self.members)
        node = self.world.add(group=int(entry.host.split(".")[1]))
        self.members.append(node)
        self._joined_at[node] = self.world.now
        node.join(entry)

    def _move(self) -> None:
        """All of one part stop at once, and start again at new addresses."""
        moving = [node for node in self.members if node.host.startswith("10.1.")]
        for node in moving:
            self.world.crash(node)
            self.world.move(node)
        self.world.run(DOWN_S)
        for node in moving:
            self.world.restart(node)

    def _fill(self) -> float:
        """Have all who have room join somebody else who has, until that leads nowhere; how long it
        took."""
        began_at = self.world.now
        self.world.run(MOVES_AFTER_S)
        for _ in range(FILLINGS_MAX):
            roomy = [node for node in self.members if not node.core.overlay.membership.is_full]
            for node in roomy:
                known = {node.id, *node.neighbours}
                others = [
                    other
                    for other in roomy
                    if other.id not in known and other.host[:5] == node.host[:5]
                ]
                if others:
                    node.join(self._rng.choice(others))
            self.world.run(FILLING_S)
        return self.world.now - began_at

    # Looking.

    def _settled(self) -> list[SimNode]:
        since = self.world.now - NEW_S
        return [node for node in self.members if self._joined_at[node] <= since]

    def _look(self, at_s: float) -> None:
        nodes = self._settled()
        parts = components(links_among(nodes))
        leaders = {node.core.overlay.beacons.leader for node in nodes}
        if self._healed_s is None and len(parts) == 1:
            self._healed_s = round(at_s, 3)
        if self._agreed_s is None and len(leaders) == 1:
            self._agreed_s = round(at_s, 3)
        self.looks.append(
            {
                "at_s": round(at_s, 3),
                "parts": len(parts),
                "leaders": len(leaders),
                "largest": max(map(len, parts)) / len(nodes),
            }
        )

    def _note_sizes(self, when: str) -> None:
        """What the nodes take the size of their part for, as shares of the truth."""
        nodes = self._settled()
        shares: list[float] = []
        for part in components(links_among(nodes)):
            shares += [nodes[place].core.overlay.beacons.size / len(part) for place in part]
        shares.sort()
        found = [percentile(shares, percent) for percent in (5, 50, 95)]
        self._sizes[when] = [share for share in found if share is not None]

    def _dropped(self) -> Counter[str]:
        """Why links between two who stayed have ended, both ends counted once."""
        staying = {node.id for node in self.members}
        pairs: set[tuple[frozenset[PeerId], str]] = {
            (frozenset((node.id, peer)), reason)
            for node, peer, reason in self._losses.reasons
            if node.id in staying and peer in staying
        }
        return Counter(reason for _, reason in pairs)


EXPERIMENT = Experiment(
    name="healing",
    summary="a network cut into parts for a while, and how they find each other again",
    cases=cases,
    run=run,
    tables=tables,
    plots=plots,
)
