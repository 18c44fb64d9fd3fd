"""Broadcasts that the node keeps for those who missed them. Plain functions on an open `Database`.

All of them raise `StoreError`. A broadcast is kept as it travels, so that it can be served after a
restart; it is named by origin, epoch and sequence, and kept once. They have numbers (`id`) in the
order in which they came: the oldest are those that came first, whatever their origins' clocks say.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from meshwalk.store.database import INTEGER_MAX, Database, Row, as_signed, as_unsigned


class StoredBroadcast(msgspec.Struct, frozen=True, gc=False):
    """One broadcast as it is kept."""

    origin: bytes
    """Its key; of a private one, a key that was made for it alone."""
    epoch: int
    sequence: int
    sent_at_ms: int
    """By its origin's clock; beyond 63 bits it is a lie, and kept as the most there is."""
    payload: bytes
    signature: bytes
    work: int


_FIELDS: Final = "origin, epoch, sequence, sent_at_ms, payload, signature, work"

_KEEP: Final = f"""
INSERT INTO broadcasts ({_FIELDS}, size) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (origin, epoch, sequence) DO NOTHING
"""  # noqa: S608 - from constants of this file

# The newest that there is no room for; it and all before it are too many. Reads no payload.
_CUT: Final = """
SELECT max(id) FROM (
    SELECT id, row_number() OVER newest AS place, sum(size) OVER newest AS bytes
    FROM broadcasts
    WINDOW newest AS (ORDER BY id DESC ROWS UNBOUNDED PRECEDING)
) WHERE place > ? OR bytes > ?
"""

_KEPT: Final = f"""
SELECT {_FIELDS} FROM broadcasts WHERE id > ? AND sent_at_ms >= ? ORDER BY id
"""  # noqa: S608 - as above


def keep(database: Database, broadcasts: Iterable[StoredBroadcast]) -> None:
    """Keep these, in their order; those that are kept already stay as they are. All or none."""
    with database.transaction():
        database.execute_many(_KEEP, map(_to_row, broadcasts))


def kept(
    database: Database, since_ms: int, count_max: int, bytes_max: int
) -> list[StoredBroadcast]:
    """The newest, oldest of them first, but for those sent before `since_ms`.

    At most `count_max`, whose payloads have at most `bytes_max` bytes together.
    """
    cut = _cut(database, count_max, bytes_max)
    rows = database.query(_KEPT, (cut, min(since_ms, INTEGER_MAX)))
    return [_from_row(row) for row in rows]


def prune(database: Database, older_than_ms: int, count_max: int, bytes_max: int) -> int:
    """Remove what was sent before that, and the oldest of the rest until it is within both bounds;
    how many that were."""
    with database.transaction():
        removed = database.execute(
            "DELETE FROM broadcasts WHERE sent_at_ms < ?", (min(older_than_ms, INTEGER_MAX),)
        )
        # From the index alone, and mostly it says that there is nothing to do.
        count, size = database.query("SELECT count(*), total(size) FROM broadcasts")[0]
        if count > count_max or size > bytes_max:
            cut = _cut(database, count_max, bytes_max)
            removed += database.execute("DELETE FROM broadcasts WHERE id <= ?", (cut,))
    return removed


def _cut(database: Database, count_max: int, bytes_max: int) -> int:
    found: int | None = database.query(_CUT, (max(count_max, 0), max(bytes_max, 0)))[0][0]
    return found if found is not None else -1


def _to_row(broadcast: StoredBroadcast) -> Row:
    return (
        broadcast.origin,
        as_signed(broadcast.epoch),
        as_signed(broadcast.sequence),
        min(broadcast.sent_at_ms, INTEGER_MAX),
        broadcast.payload,
        broadcast.signature,
        as_signed(broadcast.work),
        len(broadcast.payload),
    )


def _from_row(row: Row) -> StoredBroadcast:
    origin, epoch, sequence, sent_at_ms, payload, signature, work = row
    return StoredBroadcast(
        origin,
        as_unsigned(epoch),
        as_unsigned(sequence),
        sent_at_ms,
        payload,
        signature,
        as_unsigned(work),
    )
