"""What a marked broadcast tells of its way: who has it, from whom, and how long each link took.

All of it is what others say. Names are not proved, so a peer can invent others below itself, but
only there: what comes by another neighbour's receipts it cannot change.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final

import msgspec

from meshwalk.errors import InvalidPeerId
from meshwalk.wire.gossip import HopSeen
from meshwalk.wire.peerid import PeerId
from meshwalk.wire.records import peer_id_of

HOPS_KEPT_MAX: Final = 16_384  # guess: more peers than anyone looks at; 4 MiB


class TraceHop(msgspec.Struct, frozen=True):
    """One link that the broadcast crossed, as its receiver tells."""

    peer: PeerId
    parent: PeerId
    """From whom it came to `peer`."""
    hops: int
    """Links from the origin, as `peer` counted them."""
    took_s: float
    """How long it was on this link, by two clocks as far as pings have compared them."""
    rtt_s: float | None
    """The link's mean round trip; None: `peer` has not measured it."""
    was_repaired: bool
    """It was asked for, not pushed: it came by a detour, and says nothing of the tree."""


class Trace(msgspec.Struct, frozen=True):
    """How one broadcast spread. See `Node.trace_broadcast`."""

    origin: PeerId
    number: int
    """Which of the origin's broadcasts it was."""
    peers: int
    """So many have it, by their receipts."""
    hops: tuple[TraceHop, ...]
    """What they told of their ways; each peer once, parents before children."""
    silent: tuple[PeerId, ...]
    """Neighbours of the origin, and peers that passed it on, that told nothing of themselves. More
    may be missing: nobody knows all peers."""
    is_complete: bool
    """Whether the last receipt came in time."""

    def path(self, peer: PeerId) -> list[tuple[TraceHop, float]]:
        """The links from the origin to `peer`, each with the time from the origin to its end.

        Empty: nothing is known of it, or of somebody on the way.
        """
        by_peer = {hop.peer: hop for hop in self.hops}
        back: list[TraceHop] = []
        at = peer
        # A way that comes back to itself has been invented: it is longer than there are peers.
        while at != self.origin and (hop := by_peer.pop(at, None)) is not None:
            back.append(hop)
            at = hop.parent
        if at != self.origin:
            return []
        total_s = 0.0
        steps: list[tuple[TraceHop, float]] = []
        for hop in reversed(back):
            total_s += hop.took_s
            steps.append((hop, total_s))
        return steps


def hops_of(told: Iterable[HopSeen], origin: PeerId) -> list[TraceHop]:
    """Reports as users see them, parents before children, each peer once. A name that is none is
    left out, and so is what the origin is said to tell."""
    found: dict[PeerId, TraceHop] = {}
    for seen in told:
        try:
            peer, parent = peer_id_of(seen.peer), peer_id_of(seen.parent)
        except InvalidPeerId:
            continue
        if peer == origin or peer in found or len(found) >= HOPS_KEPT_MAX:
            continue
        rtt_s = seen.rtt_us / 1e6 if seen.rtt_us else None
        found[peer] = TraceHop(
            peer, parent, seen.hops, seen.took_us / 1e6, rtt_s, seen.was_repaired
        )
    return _parents_first(found, origin)


def silent_of(
    hops: Iterable[TraceHop], origin: PeerId, neighbours: Iterable[PeerId]
) -> tuple[PeerId, ...]:
    """Who has, or should have, said something of itself and has not."""
    told = {hop.peer for hop in hops}
    wanted = dict.fromkeys([*neighbours, *(hop.parent for hop in hops)])
    return tuple(peer for peer in wanted if peer not in told and peer != origin)


def _parents_first(found: dict[PeerId, TraceHop], origin: PeerId) -> list[TraceHop]:
    children: dict[PeerId, list[TraceHop]] = {}
    for hop in found.values():
        children.setdefault(hop.parent, []).append(hop)
    # From the origin; then from those whose parent told nothing; what is left goes in a circle.
    roots = [origin, *(parent for parent in children if parent not in found)]
    out: dict[PeerId, TraceHop] = {}
    for root in dict.fromkeys([*roots, *children]):
        waiting = deque(children.pop(root, ()))
        while waiting:
            hop = waiting.popleft()
            out[hop.peer] = hop
            waiting += children.pop(hop.peer, ())
    return list(out.values())
