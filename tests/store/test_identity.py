"""The node's seed: made once, kept for good."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshwalk.errors import InvalidArgument, StoreError
from meshwalk.identity.keys import SEED_BYTES as KEY_SEED_BYTES
from meshwalk.store.database import Database
from meshwalk.store.identity import SEED_BYTES, load_or_make

SEED = bytes(range(SEED_BYTES))


def never() -> bytes:
    raise AssertionError("the seed exists")


def test_a_seed_is_made_once(tmp_path: Path) -> None:
    database = Database.open(tmp_path)
    assert load_or_make(database, lambda: SEED) == SEED
    assert load_or_make(database, never) == SEED
    # In the file itself and not only in the log: a power cut finds it there.
    assert SEED in (tmp_path / "meshwalk.sqlite3").read_bytes()
    database.close()
    database = Database.open(tmp_path)
    assert load_or_make(database, never) == SEED
    assert database.query("SELECT made_at > 1.6e9 FROM identity") == [(1,)]
    database.close()


def test_a_bad_source_leaves_nothing() -> None:
    database = Database.open(None)
    with pytest.raises(InvalidArgument, match="32 bytes, not 31"):
        load_or_make(database, lambda: SEED[1:])
    with pytest.raises(ZeroDivisionError):
        load_or_make(database, lambda: bytes(1 // 0))
    assert load_or_make(database, lambda: SEED) == SEED
    database.close()


def test_there_is_one_identity() -> None:
    database = Database.open(None)
    load_or_make(database, lambda: SEED)
    for row in ((1, SEED), (2, SEED), (None, SEED), (1, "x" * SEED_BYTES)):
        with pytest.raises(StoreError):
            database.execute("INSERT INTO identity VALUES (?, ?, 0)", row)
    with pytest.raises(StoreError):
        database.execute("UPDATE identity SET seed = ?", (SEED[1:],))
    database.close()


def test_the_seed_is_as_long_as_a_key_wants_it() -> None:
    assert SEED_BYTES == KEY_SEED_BYTES
