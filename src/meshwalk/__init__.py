"""meshwalk: peer-to-peer networks that build and mend themselves.

Start a `Node`, `join` any one member, and be part of an encrypted network: broadcast to everyone,
send to, ask and converse with any peer. `meshwalk demo` shows thirty nodes doing it; docs/ says
how.
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
    CreditExhausted,
    Delivery,
    EntryFailed,
    Event,
    FragmentFound,
    Joined,
    LinkClosed,
    LinkOpened,
    LinkResumed,
    LinkStalled,
    MessagesDropped,
    MessagesMissed,
    NeighbourDown,
    NeighbourUp,
    StoreFailed,
)
from meshwalk.net.conversation import Conversation, ConversationName, Said
from meshwalk.net.handlers import Request
from meshwalk.net.loop import run
from meshwalk.net.node import Node
from meshwalk.net.peers import PeerInfo
from meshwalk.net.statistics import Statistics
from meshwalk.net.subscription import Subscription
from meshwalk.net.tracing import Trace, TraceHop
from meshwalk.version import __version__
from meshwalk.wire.address import Address, Invite
from meshwalk.wire.content import Json
from meshwalk.wire.messages import RefusalCode
from meshwalk.wire.peerid import PeerId

__all__ = [
    # the node and its surroundings
    "Node",
    "run",
    "Config",
    "Subscription",
    "Conversation",
    "ConversationName",
    "Said",
    "Request",
    "Json",
    "RefusalCode",
    "PeerInfo",
    "Statistics",
    # names
    "PeerId",
    "Address",
    "Invite",
    # what arrives
    "Alone",
    "CreditExhausted",
    "Delivery",
    "EntryFailed",
    "FragmentFound",
    "Event",
    "Joined",
    "LinkClosed",
    "LinkOpened",
    "LinkResumed",
    "LinkStalled",
    "MessagesDropped",
    "MessagesMissed",
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
    "Trace",
    "TraceHop",
    "Unreachable",
    "__version__",
]
