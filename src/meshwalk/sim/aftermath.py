"""What must hold once the faults of a `Storm` are over, and the waiting until it does.

Everyone has its links again --> fragments have found each other, or are told --> last words: a few
from each, heard by all --> calm: one leader, and nothing left over
"""

from __future__ import annotations

from random import Random
from typing import Final

from meshwalk.config import OverlayConfig
from meshwalk.sim.checks import ONE_SIDED_S, Checks, components, unrest
from meshwalk.sim.node import SimNode
from meshwalk.sim.plan import Plan
from meshwalk.sim.work import Work
from meshwalk.sim.world import World

MENDS_IN_ROUNDS: Final = 12  # guess: retries at the longest pause that mending may take
HEALS_IN_TESTS: Final = 20  # guess: tests of one node until one has met the other fragment
HEALS_LOOK_S: Final = 1.0  # guess: how exactly it is to be known when they are one
LAST_WORDS: Final = 3  # from each node: two may be exchanged, the third shows what got lost
LAST_TALKS: Final = 3  # guess: few enough for the smallest limits that are drawn
LAST_WORDS_PACE_S: Final = 0.05  # guess: less than most paths take, so that several are under way
APART_S: Final = 0.1  # guess: broadcasts so far apart are not bundled
LAST_WORDS_S: Final = 30.0  # guess: what the slowest path needs for the last broadcasts
LEADERS_IN_TIMEOUTS: Final = 4  # guess: of beacons, until all go by one leader
FIREWALL_SHARE_MAX: Final = 0.34  # guess: with more, dialable nodes may be too few for the others


class Aftermath:
    """The time after the faults of one run."""

    def __init__(self, plan: Plan, world: World, checks: Checks, work: Work, rng: Random) -> None:
        self.plan = plan
        self.world = world
        self.checks = checks
        self.work = work
        self.rng = rng
        self.fragments = 1
        """Into how many components the network had come apart."""
        self.pieces = 1
        """How many are left at the end."""
        self.mended_s: float | None = None
        """Until everyone had their links; None: never."""
        self.healed_s: float | None = None
        """From then until fragments had found each other; None: there was one, or they did not."""
        self.excused: list[str] = []
        """See `Verdict`."""
        self._is_told = False
        """Whether each piece has been told of the largest one."""

    def run(self) -> None:
        """Wait, look, and have the checks note what is wrong."""
        self.mended_s = self._mend()
        pieces = components(honest(self.world))
        self.fragments = len(pieces)
        if len(pieces) > 1:
            self._heal()
            pieces = components(honest(self.world))
        if len(pieces) > 1:
            self._bring_together()
            self.excused[:] = ["healing"]  # who is told has no other excuse yet
            self.mended_s = self._mend()
            pieces = components(honest(self.world))
            self._expect_one(pieces)
        self.pieces = len(pieces)
        self._last_words(pieces, is_mended=self.mended_s is not None)
        if self.mended_s is not None:
            self._calm()
        else:
            self.excused.append("rest")

    def _heal(self) -> None:
        """Give fragments the time to find each other by themselves, if any of them can."""
        world, config = self.world, self.plan.config
        patience_s = (
            config.book.retest_s
            + HEALS_IN_TESTS * config.probing.interval_s
            + config.healing.beacon_timeout_s
            + config.healing.pause_s
        )
        began = world.now
        world.run_until(
            lambda: self._is_one() or not self._knows_another(), patience_s, look_s=HEALS_LOOK_S
        )
        if self._is_one():
            self.healed_s = world.now - began
            world.run(ONE_SIDED_S)
        elif self._knows_another() and all(node.behaviour is None for node in world.up):
            self.checks.found(None, "in pieces, though some know who is in the others")

    def _knows_another(self) -> bool:
        """Whether a node knows where to dial somebody of another piece."""
        up = {node.id: node for node in self.world.up if can_be_dialled(node)}
        limit = self.plan.config.overlay.addresses_per_peer_max
        for piece in components(honest(self.world)):
            inside = {node.id for node in piece}
            for node in piece:
                for entry in node.core.overlay.book.entries.values():
                    other = up.get(entry.peer) if entry.peer not in inside else None
                    if other is not None and other.address in entry.to_try(limit):
                        return True
        return False

    def _is_one(self) -> bool:
        return len(components(honest(self.world))) == 1 and self._is_mended()

    def _mend(self) -> float | None:
        """Wait until everyone has the links it wants; None when that does not come about."""
        world, overlay = self.world, self.plan.config.overlay
        link = self.plan.config.link
        patience_s = link.idle_timeout_s + MENDS_IN_ROUNDS * (
            overlay.retry_max_s + overlay.walk_timeout_s + overlay.place_timeout_s
        )
        began = world.now
        # Links to who has vanished must have had the time to be noticed.
        world.run(link.idle_timeout_s + link.ping_interval_s)
        if world.run_until(self._is_whole, patience_s, look_s=0.5):
            mended_s = world.now - began
            world.run(ONE_SIDED_S)  # the last links may stand at one end only, as yet
            return mended_s
        self._starved(f"after {patience_s:.0f} s without faults")
        return None

    def _starved(self, when: str) -> None:
        """Those who lack links are a finding, or excused."""
        wanted, is_possible = self._wanted(self.plan.config.overlay), self._is_possible()
        for node in honest(self.world):
            links = len(node.neighbours)
            if links >= wanted:
                continue
            if is_possible and (self._is_told or not self._is_helpless(node)):
                self.checks.found(node, f"{links} links {when}")
            else:
                self.excused.append("links")

    def _wanted(self, overlay: OverlayConfig) -> int:
        return min(overlay.links_min, len(self.world.up) - 1)

    def _is_mended(self) -> bool:
        wanted = self._wanted(self.plan.config.overlay)
        return all(len(node.neighbours) >= wanted for node in honest(self.world))

    def _is_whole(self) -> bool:
        """Whether everyone has its links, and no piece that was told of another is on its own."""
        return self._is_mended() and not (self._is_told and len(components(honest(self.world))) > 1)

    def _is_possible(self) -> bool:
        """Whether everyone can have its links: not in small networks where most cannot be dialled,
        nor among attackers, nor in a fragment that is too small by itself."""
        up, overlay = self.world.up, self.plan.config.overlay
        dialable = [node for node in up if can_be_dialled(node)]
        return (
            (
                len(dialable) == len(up)
                or (
                    len(up) - len(dialable) <= FIREWALL_SHARE_MAX * len(up)
                    and len(dialable) > 2 * overlay.links_max
                    # A full node drops a link for who must dial it; with two, that may part them.
                    and overlay.links_min > 2
                )
            )
            and all(node.behaviour is None for node in up)
            and (
                self._is_told
                or not self.plan.parts_the_network
                or len(components(honest(self.world))) == 1
            )
        )

    def _last_words(self, pieces: list[list[SimNode]], *, is_mended: bool) -> None:
        """Everyone broadcasts a few times more; all in the same piece must hear it, in order."""
        world, checks, plan = self.world, self.checks, self.plan
        is_judged = (
            is_mended
            and not plan.forgets_senders
            and all(node.behaviour is None for node in world.up)
        )
        # Over links that stay, order needs no more than what is asked for meanwhile.
        checks.expects_order = is_judged
        checks.order_ends_with_links = not plan.waits_for_order
        if is_judged and plan.conversations_per_s and plan.config.overlay.links_min > 1:
            for piece in pieces:
                self._last_talks(piece)
        words: dict[bytes, list[SimNode]] = {}
        for _ in range(LAST_WORDS if is_judged else 1):
            for piece in pieces:
                for node in piece:
                    words[self.work.broadcast(node, 1)] = piece
            world.run(LAST_WORDS_PACE_S)
        world.run(LAST_WORDS_S)
        checks.expects_order = False
        if not is_judged:
            self.excused.append("last words")
            return
        for body, piece in words.items():
            for node in piece:
                if not checks.has_heard(node, body):
                    checks.found(node, f"has not heard the last broadcast {body[:40]!r}")

    def _last_talks(self, piece: list[SimNode]) -> None:
        """A few converse with nodes of their piece that can be dialled, neighbours or not."""
        dialable = [node for node in piece if can_be_dialled(node)]
        for _ in range(LAST_TALKS if dialable else 0):
            self.work.converse(self.rng.choice(piece), self.rng.choice(dialable).id)

    def _expect_one(self, pieces: list[list[SimNode]]) -> None:
        if len(pieces) > 1 and self._is_told and self._is_possible():
            self.checks.found(None, f"in {len(pieces)} pieces, though told of each other")
        elif len(pieces) > 1:
            self.excused.append("joining")

    def _is_helpless(self, node: SimNode) -> bool:
        """Whether its piece is too small for it, and knows nobody alive elsewhere: everyone that a
        newcomer was told of may have died before it could learn of others."""
        up = {other.id: other for other in self.world.up}
        piece = next(piece for piece in components(up.values()) if node in piece)
        if len(piece) > self._wanted(self.plan.config.overlay):
            return False
        others = {peer: other.address for peer, other in up.items() if other not in piece}
        limit = self.plan.config.overlay.addresses_per_peer_max
        return not any(
            any(
                others.get(entry.peer) in entry.to_try(limit)  # it may have moved meanwhile
                for entry in member.core.overlay.book.entries.values()
            )
            or {entry.address for entry in member.core.overlay.walks.entries} & {*others.values()}
            for member in piece
        )

    def _bring_together(self) -> None:
        """Name a node of the largest piece as an entry to one of each other, as a person would."""
        self._is_told = True
        largest, *others = components(honest(self.world))
        for piece in others:
            for here, there in ((piece, largest), (largest, piece)):
                joining = [node for node in here if not node.core.overlay.membership.is_full]
                entries = [node for node in there if can_be_dialled(node)]
                if joining and entries:
                    self.rng.choice(joining).join(self.rng.choice(entries))
                    break
            else:
                self._is_told = False  # none of them has place, or none can be dialled

    def _calm(self) -> None:
        config = self.plan.config
        self.world.run(
            config.link.temporary_timeout_s
            + config.link.idle_timeout_s
            + 3 * config.overlay.walk_timeout_s
            + config.overlay.place_timeout_s
            + config.requests.timeout_s
        )
        is_small = len(self.world.up) <= config.overlay.links_min  # they go on looking for others
        if is_small or any(node.behaviour is not None for node in self.world.up):
            self.excused.append("rest")
            return
        # An entry that never let a node in is tried again and again: each node rests in between.
        restless = honest(self.world)

        def has_rested() -> bool:
            restless[:] = [node for node in restless if unrest(node)]
            return not restless

        self.world.run_until(has_rested, 10 * config.overlay.retry_max_s, look_s=0.5)
        if self._is_mended():
            self.checks.calm(honest(self.world), restless)
            self._expect_one_leader()
            self._forget()
        else:
            self._starved("after there were enough, without faults")

    def _expect_one_leader(self) -> None:
        """Each piece goes by one beacon, and nobody counts itself to another."""
        pieces = components(honest(self.world))

        def leaders() -> list[int]:
            return [len({n.core.overlay.beacons.leader for n in piece}) for piece in pieces]

        patience_s = LEADERS_IN_TIMEOUTS * self.plan.config.healing.beacon_timeout_s
        if not self.world.run_until(lambda: max(leaders()) == 1, patience_s, look_s=0.5):
            self.checks.found(None, f"{leaders()} leaders in its pieces")

    def _forget(self) -> None:
        """Who has long been silent is forgotten, as soon as others are heard: one for each."""
        world = self.world
        world.run(self.plan.config.broadcast.remembered_s)
        for speaker, *others in components(honest(self.world)):
            remembered = max((len(node.core.gossip.origins) for node in others), default=0)
            for _ in range(remembered):
                self.work.broadcast(speaker, 1)
                world.run(APART_S)
            world.run(LAST_WORDS_S)
            for node in others:
                if (origins := len(node.core.gossip.origins)) > 1:
                    self.checks.found(node, f"remembers {origins} senders, and one has spoken")


def honest(world: World) -> list[SimNode]:
    """Nodes that run and keep to the protocol."""
    return [node for node in world.up if node.behaviour is None]


def can_be_dialled(node: SimNode) -> bool:
    """Whether connections to it are let in."""
    is_open = node.listens and not node.is_firewalled
    return is_open and node.host not in node.world.behind_nat
