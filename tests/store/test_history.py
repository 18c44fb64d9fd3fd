"""The message history on disk, and what a sudden death leaves of it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from meshwalk.errors import StoreError
from meshwalk.store.database import Database
from meshwalk.store.history import StoredMessage, append, prune, recent
from meshwalk.wire.frames import ContentType
from meshwalk.wire.peerid import PeerId

ALICE = PeerId(b"a" * 32)
BOB = PeerId(b"b" * 32)


@pytest.fixture
def database() -> Iterator[Database]:
    database = Database.open(None)
    yield database
    database.close()


def message(number: int, topic: str = "") -> StoredMessage:
    return StoredMessage(
        origin=ALICE, at=float(number), kind="broadcast", body=b"%d" % number, topic=topic
    )


def numbers(messages: list[StoredMessage]) -> list[int]:
    return [int(one.body) for one in messages]


def test_messages_come_back_as_they_were(database: Database) -> None:
    kept = [
        StoredMessage(
            origin=ALICE,
            at=1.25,
            kind="broadcast",
            body="grüße\0".encode(),
            content=ContentType.TEXT,
            topic="news",
            epoch=2**64 - 1,  # a stranger may choose these
            sequence=2**63,
        ),
        StoredMessage(
            origin=BOB, at=2.0, kind="direct", body=b"", type="offer", is_own=True, recipient=ALICE
        ),
        msgspec.structs.replace(message(3), epoch=2**63 - 1, sequence=1),
    ]
    append(database, kept)
    found = recent(database, 10)
    assert [msgspec.structs.replace(one, id=0) for one in reversed(found)] == kept
    assert [one.id for one in found] == [3, 2, 1]
    assert type(found[0].origin) is PeerId
    assert type(found[1].recipient) is PeerId
    assert type(found[2].content) is ContentType


def test_recent_goes_back_page_by_page(database: Database) -> None:
    append(database, (message(number) for number in range(10)))
    first = recent(database, 4)
    assert numbers(first) == [9, 8, 7, 6]
    second = recent(database, 4, before=first[-1].id)
    assert numbers(second) == [5, 4, 3, 2]
    assert numbers(recent(database, 4, before=second[-1].id)) == [1, 0]
    assert recent(database, 0) == recent(database, -1) == []


def test_recent_of_one_topic(database: Database) -> None:
    append(database, [message(number, "even" if number % 2 == 0 else "") for number in range(10)])
    assert numbers(recent(database, 3, topic="even")) == [8, 6, 4]
    assert numbers(recent(database, 3, topic="even", before=5)) == [2, 0]
    assert numbers(recent(database, 2, topic="")) == [9, 7]
    assert recent(database, 3, topic="' OR 1 --") == []


def test_a_topic_is_found_by_index(database: Database) -> None:
    plan = database.query(
        "EXPLAIN QUERY PLAN SELECT id FROM messages WHERE topic = 'a' AND id < 9 ORDER BY id DESC"
    )
    assert len(plan) == 1, "no sorting"
    assert "messages_by_topic" in plan[0][3]


def test_prune_leaves_the_newest(database: Database) -> None:
    assert prune(database, 5) == 0
    append(database, map(message, range(10)))
    assert prune(database, 10) == 0
    assert prune(database, 4) == 6
    assert numbers(recent(database, 100)) == [9, 8, 7, 6]
    append(database, [message(10)])
    assert prune(database, 4) == 1
    assert numbers(recent(database, 100)) == [10, 9, 8, 7]
    assert prune(database, -1) == 4
    append(database, [message(11)])
    assert numbers(recent(database, 100)) == [11]


def test_append_is_all_or_nothing(database: Database) -> None:
    with pytest.raises(StoreError):
        append(database, [message(1), message(2, "\ud800")])
    with pytest.raises(StoreError):
        append(database, [message(1), msgspec.structs.replace(message(2), sequence=2**64)])
    append(database, [])
    assert recent(database, 10) == []


def test_a_row_from_nowhere_is_a_store_error(database: Database) -> None:
    append(database, [message(1)])
    database.execute("UPDATE messages SET content = 77")
    with pytest.raises(StoreError, match="content type"):
        recent(database, 10)


DEATH = """
import os, random, signal, sys
from pathlib import Path
from meshwalk.store.database import Database
from meshwalk.store.history import StoredMessage, append
from meshwalk.wire.peerid import PeerId

folder, rng = Path(sys.argv[1]), random.Random(7)

def write(pipe, size):
    database = Database.open(folder)
    number = database.query("SELECT count(*) FROM messages")[0][0]
    while True:
        message = StoredMessage(
            origin=PeerId(bytes(32)), at=0.0, kind="broadcast", body=bytes(size), sequence=number
        )
        append(database, [message])
        os.write(pipe, b"%9d" % number)
        number += 1

acknowledged = -1
for turn in range(20):
    acks, pipe = os.pipe()
    size = rng.choice([10, 5_000, 60_000])  # the larger ones make the log move into the file
    child = os.fork()
    if not child:
        try:
            write(pipe, size)
        finally:
            os._exit(1)
    os.close(pipe)
    for _ in range(rng.choice([0, 1, rng.randrange(200)])):
        acknowledged = int(os.read(acks, 9))
    for _ in range(rng.randrange(100_000)):
        pass
    os.kill(child, signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL, "the writer ended by itself"
    while ack := os.read(acks, 9):
        acknowledged = int(ack)
    os.close(acks)
    database = Database.open(folder)
    assert database.query("PRAGMA integrity_check") == [("ok",)]
    numbers = [row[0] for row in database.query("SELECT sequence FROM messages ORDER BY id")]
    assert numbers == list(range(len(numbers))), numbers
    assert len(numbers) > acknowledged, (len(numbers), acknowledged)
    database.execute("UPDATE messages SET body = x''")  # keeps the checks fast
    database.close()
assert acknowledged > 100
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the writer is a fork")
def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", DEATH, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
