"""What a node remembers of others' walks while they are under way. Records only; no rules."""

from __future__ import annotations

import msgspec

from meshwalk.proto.link import Link
from meshwalk.wire.address import Address
from meshwalk.wire.frames import Purpose
from meshwalk.wire.messages import SplitRequest
from meshwalk.wire.peerid import PeerId


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
