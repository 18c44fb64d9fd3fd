"""Peers that were known when the node last ran. Plain functions on an open `Database`.

All of them raise `StoreError`; each is one statement, and so happens whole or not at all.
"""

from __future__ import annotations

from typing import Final

import msgspec

from meshwalk.store.database import Database
from meshwalk.wire.peerid import PeerId


class StoredPeer(msgspec.Struct, frozen=True):
    """What is kept of one peer."""

    peer: PeerId
    record: bytes
    """Its signed peer record as received, unchecked; b"" if it had none."""
    address: str
    """The address that worked last, `tcp://host:port`; "" if none did."""
    verified: bool
    """Whether a link to it, dialled by us, has ever opened."""
    last_seen: float
    """Unix time in seconds."""
    failures: int
    """Failed dials since it last worked."""
    rtt_s: float | None
    """Mean round-trip time; None if it was never measured."""
    met: str
    """How we first came to know it: "entry", "walk", "link", "acquaintance", "invite"."""
    first_seen: float = 0.0
    """Unix time in seconds; 0.0 in a peer to be saved stands for its `last_seen`."""


# What is not known now does not wipe out what was known once; how and when we met stays as it was.
_SAVE: Final = """
INSERT INTO peers
    (peer, record, address, verified, first_seen, last_seen, failures, rtt_s, met)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (peer) DO UPDATE SET
    record = CASE WHEN length(excluded.record) THEN excluded.record ELSE record END,
    address = CASE WHEN length(excluded.address) THEN excluded.address ELSE address END,
    verified = excluded.verified,
    last_seen = excluded.last_seen,
    failures = excluded.failures,
    rtt_s = coalesce(excluded.rtt_s, rtt_s)
"""

_BEST_FIRST: Final = "ORDER BY verified DESC, last_seen DESC, peer LIMIT ?"

_LOAD: Final = f"""
SELECT peer, record, address, verified, last_seen, failures, rtt_s, met, first_seen
FROM peers {_BEST_FIRST}
"""  # noqa: S608 - from constants of this file

_PRUNE: Final = f"""
DELETE FROM peers WHERE peer NOT IN (SELECT peer FROM peers {_BEST_FIRST})
"""  # noqa: S608 - as above


def save_peer(database: Database, peer: StoredPeer) -> None:
    """Keep a peer, or what is new about one that is kept.

    An empty record or address and an unknown round-trip time leave the kept ones as they are;
    `first_seen` and `met` count the first time only.
    """
    database.execute(
        _SAVE,
        (
            peer.peer,
            peer.record,
            peer.address,
            peer.verified,
            peer.first_seen or peer.last_seen,
            peer.last_seen,
            peer.failures,
            peer.rtt_s,
            peer.met,
        ),
    )


def forget_peer(database: Database, peer: PeerId) -> None:
    """Keep nothing more of a peer; fine when it is not known."""
    database.execute("DELETE FROM peers WHERE peer = ?", (peer,))


def load_peers(database: Database, limit: int) -> list[StoredPeer]:
    """At most `limit` peers: those verified and then the others, each the last seen first."""
    return [
        StoredPeer(PeerId(peer), record, address, bool(verified), *rest)
        for peer, record, address, verified, *rest in database.query(_LOAD, (max(limit, 0),))
    ]


def prune_peers(database: Database, peers_max: int) -> int:
    """Forget all but the `peers_max` that `load_peers` would give first; how many that were."""
    return database.execute(_PRUNE, (max(peers_max, 0),))
