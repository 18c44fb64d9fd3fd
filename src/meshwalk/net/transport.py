"""What the driver needs of a transport. No implementation; tcp.py and memory.py are two.

A *pipe* is an authenticated byte stream: both ends know the other's PeerId before the first byte.

    accept:  socket arrives -> Acceptor.admit(remote) -> handshake -> Acceptor.accepted(link, pipe)
                                    | None: closed unread            | or handshake_failed(link)
    dial:    Transport.dial(address, expected) -> Pipe, or an exception of errors.py

A new pipe delivers nothing until `start(reader)`. Then, always on the event loop and never from
within a call on the pipe itself: `received` any number of times, `stalled` and `resumed` in turn,
and `lost` exactly once, last.
"""

from __future__ import annotations

from typing import Protocol

from meshwalk.wire.address import Address
from meshwalk.wire.peerid import PeerId


class PipeReader(Protocol):
    """The owner of a pipe."""

    def received(self, data: memoryview) -> None:
        """Bytes arrived. `data` is valid during the call only: all pipes share its buffer."""

    def stalled(self) -> None:
        """More than the high mark waits to be sent, because the peer does not read."""

    def resumed(self) -> None:
        """Less than half the high mark waits again."""

    def lost(self, why: str) -> None:
        """The pipe is gone: by us, by the peer (`why` is "" for a clean end) or by the world."""


class Pipe(Protocol):
    """An authenticated byte stream between this node and `peer`."""

    @property
    def peer(self) -> PeerId:
        """Proven by the handshake."""

    @property
    def remote(self) -> Address:
        """Where the other end is seen at."""

    @property
    def local(self) -> Address:
        """Which of our addresses the pipe is on."""

    @property
    def unsent_bytes(self) -> int:
        """Bytes written and not yet taken by the system."""

    def start(self, reader: PipeReader) -> None:
        """Begin to deliver to `reader`. Call once."""

    def write(self, data: bytes | bytearray) -> None:
        """Queue bytes to be sent; never waits, never raises; ignored after the pipe is gone.

        The pipe may keep `data`: the caller must not change it afterwards.
        """

    def close(self) -> None:
        """Send what is queued, then end. `lost` follows."""

    def abort(self) -> None:
        """End now; what is queued is discarded. `lost` follows."""


class Acceptor(Protocol):
    """Who decides about incoming connections: first by host alone, then as authenticated pipes."""

    def admit(self, remote: Address) -> int | None:
        """Take a connection into the handshake as the link so numbered; None: close it unread."""

    def handshake_failed(self, link: int, why: str) -> None:
        """The admitted connection did not become a pipe; its place is free again."""

    def accepted(self, link: int, pipe: Pipe) -> None:
        """The admitted connection is a pipe now. Call `pipe.start` within this call."""


class Listener(Protocol):
    """A place where a transport accepts connections."""

    @property
    def address(self) -> Address:
        """Where it listens, with the real port; the host may be unspecified (0.0.0.0 or ::)."""

    async def close(self) -> None:
        """Stop accepting, end the handshakes under way, and wait for both. Pipes stay."""


class Transport(Protocol):
    """A way to make pipes as one node in one network."""

    async def listen(self, address: Address, acceptor: Acceptor) -> Listener:
        """Accept connections there; port 0 takes any free port.

        Raises `AddressInUse` when the port is taken, `InvalidArgument` when the host is not ours.
        """

    async def dial(self, address: Address, expected: PeerId | None) -> Pipe:
        """Make a pipe to whoever listens there, or only to `expected` when given.

        Raises `Unreachable` (nobody there), `TimedOut`, or `NotAdmitted` (another network, wrong
        secret, not our protocol, or another peer than expected). Safe to cancel.
        """
