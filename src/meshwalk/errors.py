"""Every exception that meshwalk raises on purpose, sorted by who is to blame.

    MeshwalkError
    |-- LocalError              you called us wrongly, or this machine refuses
    |   |-- InvalidArgument     a value that can never work
    |   |   |-- InvalidAddress      not tcp://host:port
    |   |   |-- InvalidPeerId       not 52 base32 characters
    |   |   `-- InvalidInvite       not a meshwalk:// invite
    |   |-- TooBig              the body exceeds a stated limit; nothing was sent
    |   |-- AddressInUse        the listening port is taken
    |   |-- NotRunning          the node has not been started, or has been stopped
    |   `-- StoreError          the data folder cannot be used
    |       |-- StoreInUse          another process has it open
    |       |-- NotOurStore         the file is not a meshwalk store, or a newer one
    |       `-- StoreFull           the disk is full
    |-- RemoteError             the peer broke the protocol or refused
    |   |-- MalformedFrame      bytes that are no frame of ours; carries the reason
    |   |-- NotAdmitted         the handshake failed: wrong network, secret or identity
    |   |-- Refused             the peer understood and said no; carries its code
    |   `-- InvalidRecord       a signed record that does not verify
    |-- Unreachable             nobody answered at any address that is known
    |   `-- NotANeighbour       there is no link to that peer
    |-- TimedOut                the deadline passed first
    `-- Closed                  the link or the node closed in the meantime

Messages are one line, in plain words, and say what to do next where there is something to do.
This file imports nothing of ours.
"""

from __future__ import annotations


class MeshwalkError(Exception):
    """The root: catch this to catch everything that meshwalk raises on purpose."""


class LocalError(MeshwalkError):
    """You called us wrongly, or this machine refuses."""


class InvalidArgument(LocalError, ValueError):
    """A value that can never work; the message says what would."""


class InvalidAddress(InvalidArgument):
    """Text that is no address of the form `tcp://host:port`."""


class InvalidPeerId(InvalidArgument):
    """Text that is no PeerId: 52 lower-case base32 characters."""


class InvalidInvite(InvalidArgument):
    """Text that is no invite of the form `meshwalk://PEER@host:port/NETWORK`."""


class TooBig(LocalError, ValueError):
    """The body exceeds a stated limit, in bytes; nothing was sent."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(
            f"the body has {size:,} bytes and the limit is {limit:,}; send less, or in parts"
        )
        self.size = size
        self.limit = limit


class AddressInUse(LocalError, OSError):
    """The listening port is taken by another program."""


class NotRunning(LocalError):
    """The node has not been started, or has been stopped."""


class StoreError(LocalError):
    """The data folder cannot be used; the message says which and why."""


class StoreInUse(StoreError):
    """Another process has this store open."""


class NotOurStore(StoreError):
    """The file is not a meshwalk store, or a newer meshwalk wrote it."""


class StoreFull(StoreError):
    """The disk is full."""


class RemoteError(MeshwalkError):
    """The peer broke the protocol or refused."""


class MalformedFrame(RemoteError):
    """Bytes that are no frame of ours. The link they came over is closed with this reason."""


class InvalidRecord(RemoteError):
    """A signed record that is too long, cannot be decoded, or does not verify."""


class NotAdmitted(RemoteError):
    """The handshake failed: another network, another secret, or not the peer that was wanted."""


class Refused(RemoteError):
    """The peer understood and said no. `code` is one of `meshwalk.wire.messages.RefusalCode`."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class Unreachable(MeshwalkError):
    """Nobody answered at any address that is known."""


class NotANeighbour(Unreachable):
    """There is no link to that peer."""


class TimedOut(MeshwalkError, TimeoutError):
    """The deadline passed first."""


class Closed(MeshwalkError):
    """The link or the node closed in the meantime."""
