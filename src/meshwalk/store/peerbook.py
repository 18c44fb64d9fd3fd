"""Peers that were known when the node last ran. Plain functions on an open `Database`.

All of them raise `StoreError`; each is one statement, and so happens whole or not at all.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from meshwalk.store.database import INTEGER_MAX, Database
from meshwalk.wire.peerid import PeerId


class StoredPeer(msgspec.Struct, frozen=True):
    """What is kept of one peer."""

    peer: PeerId
    record: bytes
    """Its signed peer record as received, unchecked; b"" if it had none."""
    address: str
    """The address that worked last, `tcp://host:port`; "" if none did."""
    verified: bool
    """Whether a link to it, dialled by us, has opened, and it is not lost."""
    last_seen: float
    """Unix time in seconds."""
    failures: int
    """Failed dials since it last worked."""
    rtt_s: float | None
    """Mean round-trip time; None if it was never measured."""
    met: str
    """How we first came to know it: "link", "walk", "exchange" or "query"."""
    first_seen: float = 0.0
    """Unix time in seconds; 0.0 in a peer to be saved stands for its `last_seen`."""
    source: str = ""
    """The address group of who told of it; "" when that was not kept."""
    heard_at: float = 0.0
    """When it was last told of or met; Unix time in seconds."""
    failing_since: float | None = None
    """Unix time in seconds; None when it has not failed since it last worked."""
    tested_at: float | None = None
    """When it last passed a test, Unix time in seconds; None if it never did."""
    jitter_s: float | None = None
    """Mean difference between one round trip and the next; None if it was never measured."""
    position: int = 0
    """In the node's own log of connections; 0 when not in it."""
    cursor: int = 0
    """The position in the peer's log that the node has reached."""
    is_anchor: bool = False
    """Whether it is to be dialled first."""
    lost: bool = False
    """Whether it was verified once and has been out of reach for long."""


# The columns are named as the fields, and so come in any order.
_FIELDS: Final = ", ".join(StoredPeer.__struct_fields__)
_VALUES: Final = ", ".join("?" for _ in StoredPeer.__struct_fields__)

# What is not known now does not wipe out what was known once, but for an address: one that is
# another's by now is to be forgotten. How and when we met stays as it was.
_SAVE: Final = f"""
INSERT INTO peers ({_FIELDS}) VALUES ({_VALUES})
ON CONFLICT (peer) DO UPDATE SET
    record = CASE WHEN length(excluded.record) THEN excluded.record ELSE record END,
    address = excluded.address,
    verified = excluded.verified,
    last_seen = excluded.last_seen,
    failures = excluded.failures,
    rtt_s = coalesce(excluded.rtt_s, rtt_s),
    source = CASE WHEN length(excluded.source) THEN excluded.source ELSE source END,
    heard_at = excluded.heard_at,
    failing_since = excluded.failing_since,
    tested_at = coalesce(excluded.tested_at, tested_at),
    jitter_s = coalesce(excluded.jitter_s, jitter_s),
    position = excluded.position,
    cursor = excluded.cursor,
    is_anchor = excluded.is_anchor,
    lost = excluded.lost
"""  # noqa: S608 - from constants of this file

_BEST_FIRST: Final = (
    "ORDER BY is_anchor DESC, verified DESC, lost DESC, last_seen DESC, peer LIMIT ?"
)

_LOAD: Final = f"SELECT {_FIELDS} FROM peers {_BEST_FIRST}"  # noqa: S608 - as above

_PRUNE: Final = f"""
DELETE FROM peers WHERE peer NOT IN (SELECT peer FROM peers {_BEST_FIRST})
"""  # noqa: S608 - as above


def save_peer(database: Database, peer: StoredPeer) -> None:
    """Keep a peer, or what is new about one that is kept.

    An empty record or source, and unknown times of tests and of round trips, leave the kept ones
    as they are; `first_seen` and `met` count the first time only.
    """
    kept = msgspec.structs.replace(
        peer,
        first_seen=peer.first_seen or peer.last_seen,
        # Unsigned 64-bit on the wire; SQLite's integers are signed. Microseconds of Unix time come
        # this far in 292,000 years, so what is more is a lie, and is kept as the most there is.
        cursor=min(peer.cursor, INTEGER_MAX),
    )
    database.execute(_SAVE, msgspec.structs.astuple(kept))


def forget_peer(database: Database, peer: PeerId) -> None:
    """Keep nothing more of a peer; fine when it is not known."""
    database.execute("DELETE FROM peers WHERE peer = ?", (peer,))


def load_peers(database: Database, limit: int) -> list[StoredPeer]:
    """At most `limit` peers: anchors, those verified, those lost, and then the others, each the
    last seen first."""
    return [_peer(row) for row in database.query(_LOAD, (max(limit, 0),))]


def prune_peers(database: Database, peers_max: int) -> int:
    """Forget all but the `peers_max` that `load_peers` would give first; how many that were."""
    return database.execute(_PRUNE, (max(peers_max, 0),))


def _peer(row: tuple[Any, ...]) -> StoredPeer:
    values = dict(zip(StoredPeer.__struct_fields__, row, strict=True))
    values["peer"] = PeerId(values["peer"])
    for name in ("verified", "is_anchor", "lost"):  # 0 or 1
        values[name] = bool(values[name])
    return StoredPeer(**values)
