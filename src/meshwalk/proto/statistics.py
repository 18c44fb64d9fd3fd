"""What a node has done, as one record. Reads only."""

from __future__ import annotations

import msgspec

from meshwalk.proto.machines import Machines
from meshwalk.proto.overlay.statistics import OverlayStatistics
from meshwalk.proto.overlay.statistics import statistics_of as overlay_statistics_of
from meshwalk.proto.reaching import ReachingStatistics


class NodeStatistics(msgspec.Struct, frozen=True):
    """Counts of one node since it started."""

    overlay: OverlayStatistics
    links: int
    """Connections in any state."""
    half_open: int
    refused: dict[str, int]
    """Incoming connections closed unread, by the limit that refused them."""
    ended: dict[str, int]
    """Links that ended, by reason."""
    silences: dict[str, int]
    """Silences of neighbours: `suspected`, and then `recovered` or `idle` when the link ended."""
    broadcast: dict[str, int]
    """Broadcasts by what was done with each copy."""
    messages: dict[str, int]
    """Messages and requests between two peers, by what was done with each."""
    origins: int
    """Origins of broadcasts that are remembered."""
    broadcasts_held: int
    """Broadcasts that came early and wait for others of their origin."""
    broadcasts_kept: int
    """Broadcasts that are kept for those who missed them."""
    broadcasts_missing: int
    """Broadcasts that are known of and have not come."""
    broadcasts_waiting: int
    """Copies that wait to be checked."""
    branches: int
    """Neighbours that broadcasts are pushed to; the others are told of them."""
    own_trees: int
    """Origins that have branches of their own here."""
    trust: dict[str, int]
    """What was held against peers, by offence."""
    requests_waiting: int
    requests_served: int
    conversations: dict[str, int]
    """Conversations by what became of them."""
    conversations_open: int
    parties: int
    """Peers that something is kept for: neighbours, and whoever is talked to."""
    queueing_s: float
    """The longest that messages over any of the links wait in some queue on their way here, by
    their times of sending and receiving; each link's own stands with its peer."""
    reaching: ReachingStatistics
    timers: int


def statistics_of(node: Machines) -> NodeStatistics:
    """A snapshot."""
    return NodeStatistics(
        overlay=overlay_statistics_of(node.overlay),
        links=len(node.connections.links),
        half_open=node.connections.half_open,
        refused=dict(node.connections.refused),
        ended=dict(node.connections.ended),
        silences=dict(node.connections.silences),
        broadcast=dict(node.gossip.counts),
        messages=dict(node.dispatch.counts + node.dispatch.requests.counts),
        origins=len(node.gossip.origins),
        broadcasts_held=node.gossip.ordering.held,
        broadcasts_kept=len(node.gossip.history),
        broadcasts_missing=len(node.gossip.fetching),
        broadcasts_waiting=node.gossip.intake.waiting,
        branches=node.gossip.tree.eager,
        own_trees=node.gossip.tree.own_trees,
        trust=dict(node.gossip.trust.counts),
        requests_waiting=len(node.dispatch.requests.waiting),
        requests_served=len(node.dispatch.requests.serving),
        conversations=dict(node.dispatch.conversations.counts + node.dispatch.sending.counts),
        conversations_open=len(node.dispatch.conversations.open_now),
        parties=len(node.dispatch.parties),
        queueing_s=max(
            (link.queueing_s or 0.0 for link in node.connections.links.values()), default=0.0
        ),
        reaching=node.reaching.statistics(),
        timers=len(node.timers),
    )
