"""What a node remembers of others' walks while they are under way, and how far each may go."""

from __future__ import annotations

import msgspec

from meshwalk.config import OverlayConfig
from meshwalk.proto.link import Link
from meshwalk.wire.address import Address
from meshwalk.wire.frames import Purpose
from meshwalk.wire.messages import JoinRequest, SplitRequest
from meshwalk.wire.peerid import PeerId
from meshwalk.wire.records import PeerRecord


class WayBack(msgspec.Struct, frozen=True):
    """Where the answer to a request goes."""

    link: Link
    id: int
    onward: int
    """Number of the link that the request went on over."""
    expires_at: float


class Acceptance(msgspec.Struct):
    """A dial to the origin of a walk that this node accepts."""

    origin: PeerId
    token: bytes
    purpose: Purpose
    addresses: list[Address]
    """Still to be tried."""
    back: Link
    back_id: int
    gives_up: Link | None = None
    """The link that is dropped when this one opens (JOIN_SPLIT)."""
    dialled: Address | None = None
    impatient_at: float | None = None
    """When whoever waits for the outcome is told that the origin cannot be dialled."""


class Split(msgspec.Struct):
    """A full node's attempt to have a neighbour take an origin."""

    request: SplitRequest
    origin: PeerId
    addresses: list[Address]
    back: Link
    back_id: int
    asked: list[PeerId]
    """Neighbours asked so far, the present one last."""
    expires_at: float
    link: int = 0
    """Number of the link that the present one was asked over."""
    asked_at: float = 0.0
    spared: tuple[PeerId, ...] | None = None
    """Who is not asked, being of another address group than the origin; None when all may be."""


def bounded(
    request: JoinRequest, link: Link, own: PeerRecord | None, config: OverlayConfig
) -> JoinRequest:
    """The request with no more hops than here are usual; with `own`, the origin's record, as its
    first hop passes it on: all its hops, and the host that this hop sees it at."""
    if own is None:
        hops = min(request.hops_left, config.walk_hops)
        forced = min(request.forced_hops, config.forced_hops)
        return JoinRequest(request.record, request.token, request.reach, forced, hops)
    host = link.remote.host
    reach = host if own.addresses_at(host) else ""
    return JoinRequest(request.record, request.token, reach, config.forced_hops, config.walk_hops)
