"""How long a node that joins is without links, and how long it has fewer than it wants."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from meshwalk.events import NeighbourUp
from meshwalk.proto.effects import Effect, Happened
from meshwalk.sim.node import Observer, SimNode
from meshwalk.sim.percentiles import percentile

SHOWN: Final = (50, 99, 100)  # median, all but a few, and the longest


class Newcomer(msgspec.Struct):
    """A node that was told to join, and when it got what."""

    joined_at: float
    first_s: float | None = None
    """From then to its first link."""
    enough_s: float | None = None
    """From then until it had its minimum of links for the first time."""


class Newcomers(Observer):
    """The observer of a world that notes when those that were announced to it get links."""

    def __init__(self) -> None:
        self.found: dict[SimNode, Newcomer] = {}
        """In the order of joining."""

    def joins(self, node: SimNode) -> None:
        """The node is about to join."""
        self.found[node] = Newcomer(node.world.now)

    def told(self, node: SimNode, effect: Effect) -> None:
        if type(effect) is not Happened or type(effect.event) is not NeighbourUp:
            return
        newcomer = self.found.get(node)
        if newcomer is None:
            return
        after_s = node.world.now - newcomer.joined_at
        if newcomer.first_s is None:
            newcomer.first_s = after_s
        if newcomer.enough_s is None and effect.event.neighbours >= node.config.overlay.links_min:
            newcomer.enough_s = after_s


def times_of(newcomers: Iterable[Newcomer]) -> dict[str, Any]:
    """The times of many as a part of a row: median, 99th percentile and longest, in seconds, and
    how many never came so far."""
    joined = list(newcomers)
    firsts = sorted(one.first_s for one in joined if one.first_s is not None)
    enough = sorted(one.enough_s for one in joined if one.enough_s is not None)
    return {
        "newcomers": len(joined),
        "never_linked": len(joined) - len(firsts),
        "never_enough": len(joined) - len(enough),
        "first_link_s": [percentile(firsts, percent) for percent in SHOWN],
        "enough_links_s": [percentile(enough, percent) for percent in SHOWN],
    }
