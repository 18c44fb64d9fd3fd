"""The node's own identity: one seed, made once and kept for good."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from meshwalk.errors import InvalidArgument
from meshwalk.store.database import Database

SEED_BYTES: Final = 32  # RFC 8032 section 5.1.5: an Ed25519 private key


def load_or_make(database: Database, seed_source: Callable[[], bytes]) -> bytes:
    """The 32-byte seed of this store's node; `seed_source` makes it the first time.

    When this returns a new seed, it survives a power cut: others will know the node by it. Call
    it outside a transaction. Raises `InvalidArgument`, and keeps nothing, when the source gives
    anything but 32 bytes; and `StoreError`.
    """
    with database.transaction():
        rows = database.query("SELECT seed FROM identity")
        if not rows:
            seed = seed_source()
            if len(seed) != SEED_BYTES:
                raise InvalidArgument(f"a seed has {SEED_BYTES} bytes, not {len(seed)}")
            database.execute(
                "INSERT INTO identity (id, seed, made_at) VALUES (1, ?, ?)", (seed, time.time())
            )
    if not rows:
        database.sync()
        return seed
    kept: bytes = rows[0][0]
    return kept
