"""What the overlay's machines ask of the node that composes them."""

from __future__ import annotations

from typing import TypeAlias, final

import msgspec

from meshwalk.events import Event
from meshwalk.proto.effects import ForgetPeer, SavePeer
from meshwalk.wire.address import Address
from meshwalk.wire.frames import CloseReason, Purpose
from meshwalk.wire.messages import OverlayMessage
from meshwalk.wire.peerid import PeerId


@final
class Say(msgspec.Struct, frozen=True, gc=False):
    """Send a body over a link. Nothing happens when the link has gone meanwhile."""

    link: int
    id: int
    body: OverlayMessage
    in_reply_to: int = 0


@final
class Connect(msgspec.Struct, frozen=True, gc=False):
    """Dial; `link_opened` or `link_ended` with the same `attempt` follows."""

    attempt: int
    address: Address
    expected: PeerId | None
    purpose: Purpose
    token: bytes = b""


@final
class Disconnect(msgspec.Struct, frozen=True, gc=False):
    """Close a link for a reason that the peer is told."""

    link: int
    reason: CloseReason
    text: str = ""


@final
class Tell(msgspec.Struct, frozen=True, gc=False):
    """News for the application."""

    event: Event


@final
class Found(msgspec.Struct, frozen=True, gc=False):
    """A search has brought a peer's signed record."""

    peer: PeerId
    record: bytes
    """As it travels; its signature holds."""
    addresses: tuple[Address, ...]
    """What it says that can be dialled, `addresses_per_peer_max` at most. By the peer's own word:
    dial with `expected`."""
    hops: int


@final
class NotFound(msgspec.Struct, frozen=True, gc=False):
    """A search has ended without."""

    peer: PeerId
    why: str
    """A clause for a person: "nobody asked knows it"."""


@final
class Measure(msgspec.Struct, frozen=True, gc=False):
    """Ping over a link that is being tested; `measured` follows when it is answered."""

    link: int


OverlayEffect: TypeAlias = (
    Say | Connect | Disconnect | Measure | Tell | SavePeer | ForgetPeer | Found | NotFound
)
