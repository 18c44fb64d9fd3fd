"""What the overlay of one node has done and knows, as one record. Reads only."""

from __future__ import annotations

from collections import Counter

import msgspec

from meshwalk.proto.overlay.overlay import Overlay


class OverlayStatistics(msgspec.Struct, frozen=True):
    """What the overlay has done since the node started."""

    neighbours: int
    places_promised: int
    own_walks_under_way: int
    walks_carried: int
    """Of others, waiting for their answer."""
    failed_rounds: int
    book: int
    randoms: int
    """Neighbours that chance chose, not closeness or another fragment."""
    book_counts: dict[str, int]
    """What became of peers in the address book."""
    fragment_size: int
    """About how many members this node's fragment of the network has, itself included."""
    leader: str | None
    """The PeerId whose beacon the fragment goes by; None before there was one."""
    beacon_heard_at: float | None
    """Unix time in seconds when that was heard last."""
    own_walks: dict[str, int]
    """How own walks ended, by outcome."""
    others_walks: dict[str, int]
    """What was done with others' requests."""
    finds_under_way: int
    """Own searches for a peer."""
    finds_carried: int
    """Of others, waiting for their answer."""
    own_finds: dict[str, int]
    """How own searches ended, by outcome."""
    others_finds: dict[str, int]
    """What was done with others' questions."""
    exchange: dict[str, int]
    """Records of peers told and heard."""
    probes: dict[str, int]
    """Tests of peers, by how they ended."""
    suspicions: dict[str, int]
    """Silent neighbours by what became of them, and answers about others'."""
    trades: dict[str, int]
    """Links traded for closer ones, and what else came of looking for such."""
    handovers: dict[str, int]
    """Neighbours that leavers have named."""
    anchors: dict[str, int]
    """Neighbours of an earlier run, by what came of going back to them."""
    beacons: dict[str, int]
    """What was done with beacons."""
    healing: dict[str, int]
    """Questions about fragments, asked and answered, and links that joined two."""


def statistics_of(overlay: Overlay) -> OverlayStatistics:
    """A snapshot."""
    leader = overlay.beacons.leader
    return OverlayStatistics(
        neighbours=len(overlay.membership),
        places_promised=len(overlay.membership.places),
        own_walks_under_way=len(overlay.walks.walks),
        walks_carried=len(overlay.carrier.carried),
        failed_rounds=overlay.walks.failures,
        book=len(overlay.book),
        randoms=overlay.membership.randoms,
        book_counts=_plain(overlay.book.counts),
        fragment_size=overlay.beacons.size,
        leader=leader.text if leader is not None else None,
        beacon_heard_at=overlay.beacons.heard_at,
        own_walks=_plain(overlay.walks.counts),
        others_walks=_plain(overlay.carrier.counts),
        finds_under_way=len(overlay.finding.searches),
        finds_carried=len(overlay.finding.carried),
        own_finds=_plain(overlay.finding.own),
        others_finds=_plain(overlay.finding.others),
        exchange=_plain(overlay.exchange.counts),
        probes=_plain(overlay.probing.counts),
        suspicions=_plain(overlay.vouching.counts),
        trades=_plain(overlay.trading.counts),
        handovers=_plain(overlay.parting.counts),
        anchors=_plain(overlay.anchors.counts),
        beacons=_plain(overlay.beacons.counts),
        healing=_plain(overlay.healing.counts),
    )


def _plain(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items()))
