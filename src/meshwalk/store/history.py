"""Messages that were sent and received. Plain functions on an open `Database`.

All of them raise `StoreError`. Messages have numbers (`id`) in the order in which they were
appended; nothing but `prune` removes any, and it removes the lowest, so the numbers have no gaps.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal, TypeAlias

import msgspec

from meshwalk.errors import StoreError
from meshwalk.store.database import Database, Row, Value, as_signed, as_unsigned
from meshwalk.wire.frames import ContentType
from meshwalk.wire.peerid import PeerId

Kind: TypeAlias = Literal["broadcast", "direct"]


class StoredMessage(msgspec.Struct, frozen=True, kw_only=True):
    """One message as it is kept."""

    origin: PeerId
    at: float
    """When it was delivered here, or sent if it is our own: Unix time in seconds."""
    kind: Kind
    body: bytes
    content: ContentType = ContentType.BYTES
    topic: str = ""
    """The label of a broadcast."""
    type: str = ""
    """The application's own name for a direct message."""
    epoch: int = 0
    """The origin's epoch and count of a broadcast, 64 bits unsigned; 0 for direct messages."""
    sequence: int = 0
    is_own: bool = False
    recipient: PeerId | None = None
    """Whom an own direct message went to."""
    id: int = 0
    """The number that `append` gives it; what stands here before that is ignored."""


_APPEND: Final = """
INSERT INTO messages
    (origin, recipient, epoch, sequence, at, kind, topic, type, content, is_own, body)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""

_COLUMNS: Final = (
    "id, origin, recipient, epoch, sequence, at, kind, topic, type, content, is_own, body"
)


def append(database: Database, messages: Iterable[StoredMessage]) -> None:
    """Keep these messages, numbered in their order: all of them or, when it raises, none."""
    with database.transaction():
        database.execute_many(_APPEND, map(_to_row, messages))


def recent(
    database: Database, limit: int, topic: str | None = None, before: int | None = None
) -> list[StoredMessage]:
    """At most `limit` messages, newest first, perhaps of one topic only.

    To go further back, pass the `id` of the last one as `before`.
    """
    conditions: list[str] = []
    values: list[Value] = []
    if topic is not None:
        conditions.append("topic = ?")
        values.append(topic)
    if before is not None:
        conditions.append("id < ?")
        values.append(before)
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    rows = database.query(
        f"SELECT {_COLUMNS} FROM messages {where} ORDER BY id DESC LIMIT ?",  # noqa: S608
        [*values, max(limit, 0)],
    )
    return [_from_row(row) for row in rows]


def prune(database: Database, history_max: int) -> int:
    """Remove the oldest messages so that at most `history_max` are left; how many that were.

    Cheap enough after every `append`: it looks at nothing that it does not remove.
    """
    return database.execute(
        "DELETE FROM messages WHERE id <= (SELECT max(id) FROM messages) - ?",
        (max(history_max, 0),),
    )


def _to_row(message: StoredMessage) -> Row:
    return (
        message.origin,
        message.recipient,
        as_signed(message.epoch),
        as_signed(message.sequence),
        message.at,
        message.kind,
        message.topic,
        message.type,
        int(message.content),
        message.is_own,
        message.body,
    )


def _from_row(row: Row) -> StoredMessage:
    number, origin, recipient, epoch, sequence, at, kind, topic, type_name, content, own, body = row
    try:
        known_content = ContentType(content)
    except ValueError:
        raise StoreError(f"message {number} in the store has an unknown content type") from None
    return StoredMessage(
        id=number,
        origin=PeerId(origin),
        recipient=None if recipient is None else PeerId(recipient),
        epoch=as_unsigned(epoch),
        sequence=as_unsigned(sequence),
        at=at,
        kind=kind,
        topic=topic,
        type=type_name,
        content=known_content,
        is_own=bool(own),
        body=body,
    )
