"""Which neighbours broadcasts are pushed to, and which are only told of them: tables and rules.

Leitao, Pereira, Rodrigues, "Epidemic Broadcast Trees" (SRDS 2007): links begin as branches, and
whoever gets a copy twice prunes the link that brought the second. What is left is a tree that all
origins share. Departures from the paper:

- A link begins as a branch only as long as an end has few: the first broadcast is no flood then.
- An origin that speaks often gets branches of its own where the shared tree is a detour for it, so
  that its tree is optimised without harm to those of others. The paper moves the shared tree.
- What is asked for repairs one broadcast and not the tree: a late copy is no sign of a broken
  branch. Only when several in a row were late, or a branch has just been lost, does asking graft.
- Ways are compared by time, half the round trips that each hop measured, and `hop_cost_s` for each
  hop. Seed 001's "primary" is the peer that serves best, by 0.7 times.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Set
from typing import Final

from meshwalk.config import IntakeConfig, Spreading, TreeConfig
from meshwalk.proto.broadcast.lateness import Lateness
from meshwalk.proto.overlay.membership import Neighbour
from meshwalk.proto.rate import ByteBucket
from meshwalk.wire.peerid import PeerId

SENT_SHARE: Final = 0.6  # guess: of a link's rate, for what is pushed
ANSWERED_SHARE: Final = 0.2  # guess: for what was asked for; the rest is for small messages
WAY_US_MAX: Final = 3_600_000_000  # guess: an hour; what others claim must not overflow


NOBODY: Final[frozenset[PeerId]] = frozenset()


class Branch:
    """One neighbour, as broadcasts see it."""

    __slots__ = ("_answers", "_bucket", "is_eager", "neighbour", "peer", "pruned_at", "reminded_at")

    def __init__(self, neighbour: Neighbour, intake: IntakeConfig) -> None:
        # Below what the peer allows: the rest is for answers.
        per_s, burst = intake.link_bytes_per_s * SENT_SHARE, intake.link_burst_bytes // 2
        self._bucket = ByteBucket(per_s, burst)
        per_s, burst = intake.link_bytes_per_s * ANSWERED_SHARE, intake.link_burst_bytes // 8
        self._answers = ByteBucket(per_s, burst)
        self.peer = neighbour.peer
        self.neighbour = neighbour
        self.is_eager = False
        self.reminded_at = 0.0
        """When it was told once more, since it went on pushing."""
        self.pruned_at = 0.0
        """When the peer was last told that it is no branch any more, or agreed to be none."""

    @property
    def takes_more(self) -> bool:
        """Whether it reads what it is sent; else it is only told, and asks when it can."""
        return self.neighbour.link.stalled_at is None

    def takes(self, size: int, now: float) -> bool:
        """Whether it takes one more that costs so much, and within the rate that it allows."""
        if not self.takes_more or self._bucket.ready_at(now) > now:
            return False
        self._bucket.spend(size)
        return True

    def takes_answer(self, now: float) -> bool:
        """Whether it takes one more of what it asked for."""
        return self.takes_more and self._answers.ready_at(now) <= now

    def answered(self, size: int) -> None:
        """What it asked for was sent, and costs so much."""
        self._answers.spend(size)

    def way_us(self, before_us: int) -> int:
        """The way of a broadcast to here that took so long before this link."""
        return min(before_us, WAY_US_MAX) + int(self.neighbour.link.rtt_s * 5e5)


class OwnBranches:
    """Where one origin's tree differs from the shared one, at one node."""

    __slots__ = ("grafted", "parents", "pruned")

    def __init__(self) -> None:
        self.grafted: set[PeerId] = set()
        """Who asked to be pushed to. What is pushed one way for one origin is not pushed back."""
        self.parents: set[PeerId] = set()
        """Who was asked to push to this node."""
        self.pruned: set[PeerId] = set()


class Tree:
    """The branches of one node."""

    def __init__(self, config: TreeConfig, spreading: Spreading) -> None:
        self._config = config
        self.is_flood = spreading is Spreading.FLOOD
        self.branches: dict[PeerId, Branch] = {}
        self._own: OrderedDict[bytes, OwnBranches] = OrderedDict()
        """By origin; the one used longest ago first."""
        self.late = Lateness()
        """Of broadcasts of all origins."""
        self.tuned_at = 0.0
        """When a branch of the shared tree was last made for a shorter way."""
        self.is_broken = False
        """Whether a branch was lost, and none grafted since."""

    @property
    def eager(self) -> int:
        """How many branches the shared tree has here."""
        return sum(branch.is_eager for branch in self.branches.values())

    @property
    def own_trees(self) -> int:
        """Origins that have branches of their own here."""
        return len(self._own)

    def add(self, neighbour: Neighbour, intake: IntakeConfig) -> Branch:
        """A neighbour has come. Its link is no branch until one of the ends makes it one."""
        branch = self.branches[neighbour.peer] = Branch(neighbour, intake)
        return branch

    def remove(self, peer: PeerId) -> None:
        """A neighbour has gone."""
        branch = self.branches.pop(peer)
        if branch.is_eager:
            self.is_broken = True
        for own in self._own.values():
            own.grafted.discard(peer)
            own.parents.discard(peer)
            own.pruned.discard(peer)

    def is_eager(self, branch: Branch, origin: bytes) -> bool:
        """Whether this origin's broadcasts are pushed to that neighbour."""
        own = self._own.get(origin)
        return self._is_branch(branch, own, own.grafted if own is not None else NOBODY)

    def graft(self, branch: Branch, scope: bytes, *, by_us: bool) -> None:
        """Make it a branch: of the shared tree, or of one origin's; `by_us`: as this node wants."""
        if scope:
            own = self._own_of(scope)
            own.pruned.discard(branch.peer)
            (own.parents if by_us else own.grafted).add(branch.peer)
        else:
            branch.is_eager = True
            self.is_broken = False

    def is_pushed_by(self, branch: Branch, origin: bytes) -> bool:
        """Whether that neighbour is to push this origin's broadcasts to this node."""
        own = self._own.get(origin)
        return self._is_branch(branch, own, own.parents if own is not None else NOBODY)

    def _is_branch(self, branch: Branch, own: OwnBranches | None, made: Set[PeerId]) -> bool:
        if self.is_flood:
            return True
        if own is not None and branch.peer in own.pruned:
            return False
        return branch.is_eager or branch.peer in made

    def prune(self, branch: Branch, scope: bytes, now: float) -> None:
        """Make it none."""
        if scope or branch.is_eager:
            branch.pruned_at = now
        if scope:
            own = self._own_of(scope)
            own.grafted.discard(branch.peer)
            own.parents.discard(branch.peer)
            own.pruned.add(branch.peer)
        else:
            branch.is_eager = False

    def scope_to_prune(self, branch: Branch, origin: bytes, first_from: PeerId | None) -> bytes:
        """Whose tree a second copy shows to have a circle: the origin's own, if the first copy came
        by one of its own branches or this one is none of the shared tree."""
        own = self._own.get(origin)
        if own is not None and (first_from in own.parents or branch.peer in own.parents):
            return origin
        return b"" if branch.is_eager else origin

    def is_moved(self, origin: bytes, source: PeerId | None) -> bool:
        """Whether a copy came by a branch that was made for its origin alone."""
        own = self._own.get(origin)
        return own is not None and source in own.parents

    def is_better(self, way_us: int, hops: int, than_way_us: int, than_hops: int) -> bool:
        """Whether a way is so much better than another that it is worth a change."""
        config = self._config
        cost_s = way_us / 1e6 + hops * config.hop_cost_s
        than_s = than_way_us / 1e6 + than_hops * config.hop_cost_s
        return cost_s < config.better_ratio * than_s and than_s - cost_s > config.better_least_s

    def scope_to_graft(self, origin: bytes, late: Lateness | None, now: float) -> bytes | None:
        """Whose tree needs a branch, now that a broadcast of this origin is late; None: nobody's,
        it is only late."""
        config = self._config
        if self.is_flood:
            return None
        if self.is_broken or not self.eager or self.late.share(now) > config.graft_above:
            return b""
        is_late = late is not None and late.share(now) > config.graft_above
        return origin if is_late else None

    def best_to_graft(self) -> Branch | None:
        """When no branch is left: the nearest neighbour."""
        if self.is_flood or not self.branches or self.eager:
            return None
        return min(self.branches.values(), key=lambda branch: branch.neighbour.link.rtt_s)

    def has_own(self, origin: bytes) -> bool:
        """Whether an origin has branches of its own here."""
        return origin in self._own

    def scopes_of(self, branch: Branch) -> list[bytes]:
        """Whose trees have this branch: b"" is the shared one."""
        scopes = [origin for origin, own in self._own.items() if branch.peer in own.parents]
        return [*scopes, b""] if branch.is_eager else scopes

    def _own_of(self, origin: bytes) -> OwnBranches:
        own = self._own.get(origin)
        if own is None:
            own = self._own[origin] = OwnBranches()
            if len(self._own) > self._config.own_trees_max:
                self._own.popitem(last=False)
        else:
            self._own.move_to_end(origin)
        return own
