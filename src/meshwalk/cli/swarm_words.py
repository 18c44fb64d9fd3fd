"""What a swarm's processes say to each other: Structs, and their framing on a byte stream.

    parent  --Start, Signal-->  nursery         parent  --Order-->           node process
            <--Born, Ended----                          <--Report------------

A frame is four bytes of length and a MessagePack array. The parent trusts its own processes, so
there is no more checking than decoding does.
"""

from __future__ import annotations

import asyncio
from typing import Any, TypeAlias, TypeVar

import msgspec

from meshwalk.config import Config

_LENGTH_BYTES = 4  # as on the network's own wire
FRAME_BYTES_MAX = 16 << 20  # guess: a thousand times the longest report


class Birth(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a node process must know to run."""

    index: int
    run: int
    """How many times this node was started before; labels its broadcasts."""
    port: int
    """Where the parent waits for its report."""
    token: bytes
    """Proves to the parent that the process is its own."""
    network: str
    secret: bytes
    config: Config
    data: str | None
    listen: str = "127.0.0.1:0"


# To and from the nursery, which makes the processes and ends them.


class Start(msgspec.Struct, frozen=True, tag=True):
    """Make a process."""

    birth: Birth


class Signal(msgspec.Struct, frozen=True, tag=True):
    """Send a signal to these nodes' processes, as nearly at once as a loop can."""

    indices: list[int]
    number: int


class Born(msgspec.Struct, frozen=True, tag=True):
    """A process was made."""

    index: int
    run: int
    pid: int


class Ended(msgspec.Struct, frozen=True, tag=True):
    """A process has ended and was reaped."""

    index: int
    run: int
    status: int
    """Exit code, or the signal's number made negative."""


NurseryOrder: TypeAlias = Start | Signal
NurseryReport: TypeAlias = Born | Ended


# To a node process.


class Join(msgspec.Struct, frozen=True, tag=True):
    """Join through this address."""

    address: str


class Broadcast(msgspec.Struct, frozen=True, tag=True):
    """Send a body to everyone, `count` times back to back."""

    question: int
    body: str
    count: int


class AskStatistics(msgspec.Struct, frozen=True, tag=True):
    """Report the node's statistics."""

    question: int


Order: TypeAlias = Join | Broadcast | AskStatistics


# From a node process. Times are CLOCK_MONOTONIC, which all processes of a machine share.


class Hello(msgspec.Struct, frozen=True, tag=True):
    """The first frame."""

    index: int
    run: int
    token: bytes


class Listening(msgspec.Struct, frozen=True, tag=True):
    """The node is up."""

    peer: bytes
    address: str


class Neighbours(msgspec.Struct, frozen=True, tag=True):
    """Whom the node is linked with now."""

    peers: list[bytes]
    parting: str = ""
    """Why a link has ended, when one has."""


class Tally(msgspec.Struct, tag=True):
    """What has come of one origin's broadcasts in one of its runs."""

    origin: bytes
    run: int
    first: int = 0
    """The number that came first."""
    highest: int = 0
    count: int = 0
    """Different numbers."""
    repeated: int = 0
    """Numbers that came again."""
    disordered: int = 0
    """Numbers that came after a higher one."""


class Arrival(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One broadcast that came."""

    origin: bytes
    run: int
    sequence: int
    at: float
    hops: int


class Heard(msgspec.Struct, frozen=True, tag=True):
    """News of deliveries: the tallies that changed, and single arrivals unless there are many."""

    tallies: list[Tally]
    arrivals: list[Arrival]


class Sent(msgspec.Struct, frozen=True, tag=True):
    """An ordered broadcast was written: these numbers, within this time."""

    question: int
    first: int
    last: int
    began_at: float
    ended_at: float


class Told(msgspec.Struct, frozen=True, tag=True):
    """The node's statistics, as asked."""

    question: int
    statistics: dict[str, Any]
    loop_late_s: float
    """The longest that the process's event loop has kept a timer waiting."""


class Complaint(msgspec.Struct, frozen=True, tag=True):
    """Something that ought not to happen: an exception nobody handled, or an error in the log."""

    text: str


Report: TypeAlias = Hello | Listening | Neighbours | Heard | Sent | Told | Complaint

Word = TypeVar("Word")


def frame(word: Birth | NurseryOrder | NurseryReport | Order | Report) -> bytes:
    """A word as it is sent."""
    body = msgspec.msgpack.encode(word)
    return len(body).to_bytes(_LENGTH_BYTES, "big") + body


class Frames:
    """Collects bytes and gives the bodies of whole frames."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The bodies that are complete with `data`."""
        self._data += data
        bodies: list[bytes] = []
        while len(self._data) >= _LENGTH_BYTES:
            end = _LENGTH_BYTES + int.from_bytes(self._data[:_LENGTH_BYTES], "big")
            if len(self._data) < end:
                break
            bodies.append(bytes(self._data[_LENGTH_BYTES:end]))
            del self._data[:end]
        return bodies


async def read(reader: asyncio.StreamReader, decoder: msgspec.msgpack.Decoder[Word]) -> Word | None:
    """The next word; None when the other end is gone."""
    try:
        length = int.from_bytes(await reader.readexactly(_LENGTH_BYTES), "big")
        if length > FRAME_BYTES_MAX:
            return None
        return decoder.decode(await reader.readexactly(length))
    except (asyncio.IncompleteReadError, OSError):
        return None
