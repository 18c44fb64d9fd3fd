"""Broadcasts on disk: bounds, order, strangers' numbers, and what a sudden death leaves of them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

import msgspec
import pytest

from meshwalk.errors import StoreError
from meshwalk.store.broadcasts import StoredBroadcast, keep, kept, prune
from meshwalk.store.database import Database

ALICE, BOB = b"a" * 32, b"b" * 32
EVERYTHING = 1 << 62


@pytest.fixture
def database() -> Iterator[Database]:
    database = Database.open(None)
    yield database
    database.close()


def broadcast(
    sequence: int, size: int = 10, *, origin: bytes = ALICE, sent_at_ms: int | None = None
) -> StoredBroadcast:
    at = sequence * 1000 if sent_at_ms is None else sent_at_ms
    return StoredBroadcast(origin, 7, sequence, at, bytes(size), bytes(64), 0)


def numbers(found: list[StoredBroadcast]) -> list[int]:
    return [one.sequence for one in found]


def all_of(database: Database) -> list[StoredBroadcast]:
    return kept(database, 0, EVERYTHING, EVERYTHING)


def test_broadcasts_come_back_as_they_were_in_the_order_in_which_they_came(
    database: Database,
) -> None:
    late = StoredBroadcast(BOB, 2**64 - 1, 2**63, 5, b"payload", b"s" * 64, 2**64 - 1)
    keep(database, [broadcast(3), late])
    keep(database, [broadcast(1)])
    assert all_of(database) == [broadcast(3), late, broadcast(1)]


def test_a_time_beyond_all_calendars_is_kept_as_the_latest(database: Database) -> None:
    keep(database, [broadcast(1, sent_at_ms=2**64 - 1)])
    assert all_of(database) == [broadcast(1, sent_at_ms=2**63 - 1)]
    assert kept(database, 2**64 - 1, EVERYTHING, EVERYTHING) == all_of(database)


def test_one_is_kept_once_and_stays_as_it_was(database: Database) -> None:
    keep(database, [broadcast(1), broadcast(2)])
    other = msgspec.structs.replace(broadcast(1), payload=b"another")
    keep(database, [other, broadcast(3), other])
    assert all_of(database) == [broadcast(1), broadcast(2), broadcast(3)]
    epoch = msgspec.structs.replace(broadcast(1), epoch=8)
    keep(database, [broadcast(1, origin=BOB), epoch])
    assert len(all_of(database)) == 5


@pytest.mark.parametrize(
    "wrong",
    [
        msgspec.structs.replace(broadcast(2), origin=b"short"),
        msgspec.structs.replace(broadcast(2), signature=b"short"),
        msgspec.structs.replace(broadcast(2), sequence=2**64),
    ],
)
def test_keeping_is_all_or_nothing(database: Database, wrong: StoredBroadcast) -> None:
    with pytest.raises(StoreError):
        keep(database, [broadcast(1), wrong])
    assert all_of(database) == []


def test_what_is_given_is_the_newest_within_all_bounds(database: Database) -> None:
    keep(database, (broadcast(number, size=10 * number) for number in range(1, 7)))
    assert numbers(kept(database, 0, 2, EVERYTHING)) == [5, 6]
    assert numbers(kept(database, 0, EVERYTHING, 60)) == [6]
    assert numbers(kept(database, 0, EVERYTHING, 149)) == [5, 6]
    assert numbers(kept(database, 0, EVERYTHING, 150)) == [4, 5, 6]
    assert numbers(kept(database, 5000, EVERYTHING, 150)) == [5, 6]
    assert kept(database, 0, EVERYTHING, 59) == kept(database, 0, 0, EVERYTHING) == []


def test_newest_is_by_arrival_and_not_by_what_an_origin_says(database: Database) -> None:
    keep(database, [broadcast(1, sent_at_ms=10**15), broadcast(2), broadcast(3)])
    assert numbers(kept(database, 0, 2, EVERYTHING)) == [2, 3]
    assert prune(database, 0, 2, EVERYTHING) == 1
    assert numbers(all_of(database)) == [2, 3]


def test_prune_by_age_by_count_and_by_bytes(database: Database) -> None:
    assert prune(database, EVERYTHING, 0, 0) == 0
    keep(database, (broadcast(number) for number in range(1, 11)))
    assert prune(database, 0, 10, 100) == 0
    assert prune(database, 3000, 10, 100) == 2
    assert numbers(all_of(database)) == [3, 4, 5, 6, 7, 8, 9, 10]
    assert prune(database, 0, 5, 100) == 3
    assert prune(database, 0, 5, 39) == 2
    assert numbers(all_of(database)) == [8, 9, 10]
    assert prune(database, 9500, 0, 0) == 3
    keep(database, [broadcast(11), broadcast(12)])
    assert numbers(all_of(database)) == [11, 12]
    assert prune(database, 0, -1, -1) == 2


def test_prune_and_kept_agree_whatever_came(database: Database) -> None:
    rng = Random(3)
    model: list[StoredBroadcast] = []
    for number in range(1, 300):
        one = broadcast(number, rng.randrange(50), sent_at_ms=rng.randrange(1000))
        keep(database, [one])
        model.append(one)
        if rng.random() < 0.1:
            since, count, size = rng.randrange(600), rng.randrange(40), rng.randrange(800)
            expected = kept(database, since, count, size)
            assert len(expected) <= count
            assert sum(len(each.payload) for each in expected) <= size
            assert {each.sequence for each in expected} <= {each.sequence for each in model}
            prune(database, since, count, size)
            model = all_of(database)
            assert set(numbers(expected)) <= set(numbers(model))
            assert len(model) <= count
            assert sum(len(each.payload) for each in model) <= size
            assert all(each.sent_at_ms >= since for each in model)


def test_age_and_sizes_are_found_in_an_index(database: Database) -> None:
    for statement in (
        "SELECT id FROM broadcasts WHERE sent_at_ms < 5",
        "SELECT count(*), total(size) FROM broadcasts",
    ):
        plan = database.query(f"EXPLAIN QUERY PLAN {statement}")
        assert len(plan) == 1
        assert "COVERING INDEX broadcasts_by_age" in plan[0][3]


DEATH = """
import os, random, signal, sys
from pathlib import Path
from meshwalk.store import broadcasts
from meshwalk.store.broadcasts import StoredBroadcast
from meshwalk.store.database import Database

folder, rng = Path(sys.argv[1]), random.Random(5)
COUNT_MAX = 50

def write(pipe, size):
    database = Database.open(folder)
    number = database.query("SELECT coalesce(max(sequence), 0) FROM broadcasts")[0][0]
    while True:
        number += 1
        one = StoredBroadcast(bytes(32), 1, number, number, bytes(size), bytes(64), 0)
        broadcasts.keep(database, [one])
        os.write(pipe, b"%9d" % number)
        if number % 10 == 0:
            broadcasts.prune(database, 0, COUNT_MAX, 1 << 40)

acknowledged = 0
for turn in range(12):
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
    os.kill(child, signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL, "the writer ended by itself"
    while ack := os.read(acks, 9):
        acknowledged = int(ack)
    os.close(acks)
    database = Database.open(folder)
    assert database.query("PRAGMA integrity_check") == [("ok",)]
    found = broadcasts.kept(database, 0, COUNT_MAX, 1 << 40)
    last = max(acknowledged, found[-1].sequence if found else 0)
    first = max(1, last - COUNT_MAX + 1)
    assert [one.sequence for one in found] == list(range(first, last + 1))
    assert all(len(one.payload) in (10, 5_000, 60_000) for one in found)
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
