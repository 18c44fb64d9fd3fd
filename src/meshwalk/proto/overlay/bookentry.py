"""What a node knows of one peer. Data only."""

from __future__ import annotations

import enum

import msgspec

from meshwalk.wire.address import Address
from meshwalk.wire.peerid import PeerId

NEVER = float("-inf")


class Table(enum.Enum):
    """What we know of a peer by our own experience."""

    HEARD = "heard"
    """Others told of it, or it came to us."""
    VERIFIED = "verified"
    """A link that we dialled to its `address` has opened."""
    LOST = "lost"
    """It was verified once and has been out of reach for long."""


class BookEntry(msgspec.Struct, gc=False):
    """What is known of one peer. Times are machine time; those of another run may be negative."""

    peer: PeerId
    blob: bytes
    """Its signed record as received; its signature holds. b"" when it has none."""
    sequence: int
    addresses: tuple[Address, ...]
    met: str
    """How we first came to know it: "link", "walk", "exchange" or "query"."""
    last_seen: float
    """When it last was on a link; or when we first heard of it."""
    source: str = ""
    """The address group of who told of it; of the peer itself when it did."""
    heard_at: float = NEVER
    """When it was last told of or met."""
    table: Table = Table.HEARD
    bucket: int = -1
    """Of its table, in this run; -1 when it is in none."""
    address: Address | None = None
    """The address that worked last."""
    failures: int = 0
    """Failed dials since it last worked."""
    failing_since: float | None = None
    """When the first of these was."""
    next_try_at: float = NEVER
    tried_at: float = NEVER
    """When it was last dialled to join through it, in this run."""
    tested_at: float = NEVER
    """When it last passed a test."""
    test_begun_at: float = NEVER
    """When it was last chosen for one, in this run."""
    rtt_s: float | None = None
    jitter_s: float | None = None
    position: int = 0
    """In the own log: when we connected to it, Unix time in microseconds; 0 when not in the log."""
    cursor: int = 0
    """How far we are with that peer's own log: the position it told last."""
    is_anchor: bool = False
    """A neighbour of the last run, to be dialled first."""
    is_stored: bool = False
    """Whether the store has it, if perhaps an older state."""
    is_news: bool = True
    """Connecting to it is news: we could not reach it, or it has signed a new record, or this node
    has restarted since it got its position."""

    @property
    def verified(self) -> bool:
        """Whether a link that we dialled has opened, not too long ago."""
        return self.table is Table.VERIFIED

    @property
    def best_address(self) -> Address | None:
        """The address that worked last, or else the first that is known."""
        if self.address is not None:
            return self.address
        return self.addresses[0] if self.addresses else None

    def to_try(self, limit: int) -> list[Address]:
        """Addresses to dial, the one that worked last first."""
        first = [self.address] if self.address is not None else []
        return list(dict.fromkeys([*first, *self.addresses]))[:limit]
