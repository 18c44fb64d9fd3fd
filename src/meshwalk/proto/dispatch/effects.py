"""What dispatch asks of the node that composes the machines; all else goes to the driver
directly."""

from __future__ import annotations

from typing import TypeAlias, final

import msgspec

from meshwalk.proto.link import Link
from meshwalk.wire.frames import CloseReason
from meshwalk.wire.peerid import PeerId


@final
class Fault(msgspec.Struct, frozen=True, gc=False):
    """The peer broke the protocol: close its link."""

    link: Link
    reason: CloseReason
    text: str


@final
class Reach(msgspec.Struct, frozen=True, gc=False):
    """Find a link to a peer: `link_opened` or `unreachable` is to follow."""

    peer: PeerId


DispatchEffect: TypeAlias = Fault | Reach
