"""What the machines of broadcasts want done, beside what goes to the driver."""

from __future__ import annotations

from typing import TypeAlias, final

import msgspec

from meshwalk.proto.effects import BroadcastsMissed, Deliver, KeepBroadcast, ReceiptCame
from meshwalk.wire.frames import CloseReason
from meshwalk.wire.gossip import GossipMessage
from meshwalk.wire.peerid import PeerId


@final
class Pass(msgspec.Struct, frozen=True, gc=False):
    """Send the same message to some neighbours."""

    peers: tuple[PeerId, ...]
    message: GossipMessage


@final
class Blame(msgspec.Struct, frozen=True, gc=False):
    """The neighbour did what it must not, or once too often: close its link."""

    peer: PeerId
    reason: CloseReason
    text: str


GossipEffect: TypeAlias = Pass | Blame | Deliver | KeepBroadcast | ReceiptCame | BroadcastsMissed
