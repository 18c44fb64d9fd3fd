"""meshwalk: peer-to-peer networks that build and mend themselves.

Start a `Node`, `join` any one member, and be part of an encrypted network: broadcast to everyone,
send to and ask any neighbour. `meshwalk demo` shows thirty nodes doing it; docs/ says how.
"""

from meshwalk.config import Config
from meshwalk.errors import (
    AddressInUse,
    Closed,
    InvalidAddress,
    InvalidArgument,
    InvalidInvite,
    InvalidPeerId,
    InvalidRecord,
    LocalError,
    MalformedFrame,
    MeshwalkError,
    NotAdmitted,
    NotANeighbour,
    NotOurStore,
    NotRunning,
    Refused,
    RemoteError,
    StoreError,
    StoreFull,
    StoreInUse,
    TimedOut,
    TooBig,
    Unreachable,
)
from meshwalk.events import (
    Alone,
    Delivery,
    EntryFailed,
    Event,
    Joined,
    MessagesDropped,
    NeighbourDown,
    NeighbourUp,
    StoreFailed,
)
from meshwalk.net.loop import run
from meshwalk.net.node import Node, Statistics
from meshwalk.net.peers import PeerInfo
from meshwalk.net.serving import Request
from meshwalk.net.subscription import Subscription
from meshwalk.version import __version__
from meshwalk.wire.address import Address, Invite
from meshwalk.wire.peerid import PeerId

__all__ = [
    # the node and its surroundings
    "Node",
    "run",
    "Config",
    "Subscription",
    "Request",
    "PeerInfo",
    "Statistics",
    # names
    "PeerId",
    "Address",
    "Invite",
    # what arrives
    "Alone",
    "Delivery",
    "EntryFailed",
    "Event",
    "Joined",
    "MessagesDropped",
    "NeighbourDown",
    "NeighbourUp",
    "StoreFailed",
    # errors
    "AddressInUse",
    "Closed",
    "InvalidAddress",
    "InvalidArgument",
    "InvalidInvite",
    "InvalidPeerId",
    "InvalidRecord",
    "LocalError",
    "MalformedFrame",
    "MeshwalkError",
    "NotAdmitted",
    "NotANeighbour",
    "NotOurStore",
    "NotRunning",
    "Refused",
    "RemoteError",
    "StoreError",
    "StoreFull",
    "StoreInUse",
    "TimedOut",
    "TooBig",
    "Unreachable",
    "__version__",
]
