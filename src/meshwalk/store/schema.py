"""The tables of the store and the numbered migrations that make them, as SQL text.

A migration is never changed once it has been released: a change of the tables is one more at the
end. Number N is the N-th entry (counted from 1), and the file's `user_version` says how many have
been run. A migration is a tuple of statements, not a script: sqlite3.executescript commits first,
and all migrations of one opening must stand or fall together.

Times are Unix seconds as REAL, or milliseconds as INTEGER where the name ends in `_ms`. Truth
values are 0 and 1. Only `database.py` runs this.
"""

from __future__ import annotations

from typing import Final

# SQLite's own place for "whose file is this" (sqlite.org/pragma.html, application_id): 32 bits,
# signed. The first four bytes of SHA-256("meshwalk store"), without the sign bit; a test says so.
APPLICATION_ID: Final = 0x036B40DC

_IDENTITY = """
CREATE TABLE identity (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    seed BLOB NOT NULL CHECK (typeof(seed) = 'blob' AND length(seed) = 32),
    made_at REAL NOT NULL
)
"""

# `record` is the signed peer record as it came, or empty when there is none yet; `address` the
# one that worked last, or ''; `met` is how we came to know the peer.
_PEERS = """
CREATE TABLE peers (
    peer BLOB PRIMARY KEY NOT NULL CHECK (typeof(peer) = 'blob' AND length(peer) = 32),
    record BLOB NOT NULL CHECK (typeof(record) = 'blob'),
    address TEXT NOT NULL,
    verified INTEGER NOT NULL CHECK (verified IN (0, 1)),
    first_seen REAL NOT NULL,
    last_seen REAL NOT NULL,
    failures INTEGER NOT NULL,
    rtt_s REAL,
    met TEXT NOT NULL
) WITHOUT ROWID
"""

# `epoch` and `sequence` are unsigned 64-bit on the wire and chosen by strangers; SQLite's integers
# are signed, so the upper half is kept as negative numbers (history.py). Nothing sorts by them.
# `recipient` is whom an own direct message went to: nothing else tells its conversation.
_MESSAGES = """
CREATE TABLE messages (
    id INTEGER PRIMARY KEY,
    origin BLOB NOT NULL CHECK (typeof(origin) = 'blob' AND length(origin) = 32),
    recipient BLOB CHECK (typeof(recipient) = 'null' OR length(recipient) = 32),
    epoch INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    at REAL NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('broadcast', 'direct')),
    topic TEXT NOT NULL,
    type TEXT NOT NULL,
    content INTEGER NOT NULL,
    is_own INTEGER NOT NULL CHECK (is_own IN (0, 1)),
    body BLOB NOT NULL CHECK (typeof(body) = 'blob')
)
"""

# An index of SQLite ends in the row's id, so this also gives a topic's messages in their order.
_MESSAGES_BY_TOPIC = "CREATE INDEX messages_by_topic ON messages (topic)"

_SETTINGS = """
CREATE TABLE settings (
    key TEXT PRIMARY KEY NOT NULL,
    value TEXT NOT NULL
) WITHOUT ROWID
"""

# What an address book of three tables and the exchange of peers need. `source` is the address group
# of who told of the peer, or '' from before that was kept; `lost` excludes `verified`. `position`
# is in microseconds of Unix time, 0 for none. `cursor` is chosen by strangers: see peerbook.py.
# A neighbour's acquaintances are what the exchange tells of by now.
_PEERS_OF_THREE_TABLES = (
    "ALTER TABLE peers ADD COLUMN source TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE peers ADD COLUMN heard_at REAL NOT NULL DEFAULT 0",
    "ALTER TABLE peers ADD COLUMN failing_since REAL",
    "ALTER TABLE peers ADD COLUMN tested_at REAL",
    "ALTER TABLE peers ADD COLUMN jitter_s REAL",
    "ALTER TABLE peers ADD COLUMN position INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE peers ADD COLUMN cursor INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE peers ADD COLUMN is_anchor INTEGER NOT NULL DEFAULT 0 CHECK (is_anchor IN (0, 1))",
    "ALTER TABLE peers ADD COLUMN lost INTEGER NOT NULL DEFAULT 0 CHECK (lost IN (0, 1))",
    "UPDATE peers SET heard_at = last_seen",
    "UPDATE peers SET met = 'exchange' WHERE met = 'acquaintance'",
)

# Broadcasts as they travel. `epoch`, `sequence` and `work` are chosen by strangers: see _MESSAGES.
# `id` is the order in which they came. A table without rowids would hold the payloads in the tree
# of its key: measured, with payloads of 2 KiB, writing and removing took three times as long.
# `size` is the payload's, and stands before it, so that a sum reads none.
_BROADCASTS = (
    """
CREATE TABLE broadcasts (
    id INTEGER PRIMARY KEY,
    origin BLOB NOT NULL CHECK (typeof(origin) = 'blob' AND length(origin) = 32),
    epoch INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    sent_at_ms INTEGER NOT NULL,
    work INTEGER NOT NULL,
    size INTEGER NOT NULL,
    signature BLOB NOT NULL CHECK (typeof(signature) = 'blob' AND length(signature) = 64),
    payload BLOB NOT NULL CHECK (typeof(payload) = 'blob'),
    UNIQUE (origin, epoch, sequence)
)
""",
    "CREATE INDEX broadcasts_by_age ON broadcasts (sent_at_ms, size)",
)

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (_IDENTITY, _PEERS, _MESSAGES, _MESSAGES_BY_TOPIC, _SETTINGS),
    _PEERS_OF_THREE_TABLES,
    _BROADCASTS,
)
