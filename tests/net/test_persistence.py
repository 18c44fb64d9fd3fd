"""The store off the event loop: order, batches, bounds, failures and endings."""

from __future__ import annotations

import asyncio
import gc
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from meshwalk.config import StoreConfig
from meshwalk.errors import Closed, StoreError, StoreFull, StoreInUse
from meshwalk.net.persistence import (
    OPEN_PAUSE_MAX_S,
    OPEN_TRIES,
    Persistence,
    PersistenceStatistics,
)
from meshwalk.store.database import FILE_NAME, Database

SMALL = StoreConfig(queue_max=10)


def put(database: Database, key: str, value: str = "") -> None:
    database.execute("INSERT INTO settings VALUES (?, ?)", (key, value))


def keys(database: Database) -> list[str]:
    return [key for (key,) in database.query("SELECT key FROM settings ORDER BY key")]


class Gate:
    """Holds the worker until it is opened, so that what is posted meanwhile must wait."""

    def __init__(self) -> None:
        self._reached = threading.Event()
        self._open = threading.Event()

    def hold(self, database: Database) -> None:
        self._reached.set()
        self._open.wait()

    async def reached(self) -> None:
        await asyncio.to_thread(self._reached.wait)

    def open(self) -> None:
        self._open.set()


@pytest.fixture
def errors() -> list[StoreError]:
    return []


@pytest.fixture
async def store(errors: list[StoreError]) -> AsyncIterator[Persistence]:
    store = await Persistence.open(None, SMALL, errors.append)
    yield store
    await store.close()


async def held(store: Persistence) -> tuple[Gate, asyncio.Task[None]]:
    gate = Gate()
    task = asyncio.create_task(store.call(gate.hold))
    await gate.reached()
    return gate, task


# Order and batches.


async def test_a_call_sees_what_was_posted_before_it(store: Persistence) -> None:
    for key in "cab":
        assert store.post(put, key)
    seen = asyncio.create_task(store.call(keys))
    await asyncio.sleep(0)  # the call is made now
    store.post(put, "d", value="late")
    assert await seen == ["a", "b", "c"]
    await store.flush()
    assert await store.call(keys) == ["a", "b", "c", "d"]
    assert store.statistics() == PersistenceStatistics(queued=0, written=4, dropped=0, failed=0)
    assert store.last_error is None


async def test_everything_waiting_is_one_transaction(store: Persistence) -> None:
    statements: list[str] = []

    def trace(database: Database) -> None:
        assert database._connection is not None
        database._connection.set_trace_callback(statements.append)

    await store.call(trace)
    gate, task = await held(store)
    for number in range(10):
        store.post(put, str(number))
    gate.open()
    await task
    await store.flush()
    assert len(statements) == 12
    assert [statements[0], statements[-1]] == ["BEGIN IMMEDIATE", "COMMIT"]


async def test_everything_runs_on_one_thread_that_is_not_ours(store: Persistence) -> None:
    threads: set[int] = set()

    def note(database: Database) -> None:
        threads.add(threading.get_ident())

    store.post(note)
    await store.call(note)
    await store.flush()
    assert len(threads) == 1
    assert threading.get_ident() not in threads


# Bounds.


async def test_more_than_the_bound_is_dropped_and_told_once(
    store: Persistence, errors: list[StoreError]
) -> None:
    for turn in range(2):
        gate, task = await held(store)
        taken = [store.post(put, f"{turn}-{number}") for number in range(13)]
        assert taken == [True] * 10 + [False] * 3
        assert store.statistics().queued == 10
        gate.open()
        await task
        await store.flush()
        assert store.statistics() == PersistenceStatistics(
            queued=0, written=10 * (turn + 1), dropped=3 * (turn + 1), failed=0
        )
        assert len(errors) == turn + 1
        assert "too slow: 10 writes" in str(errors[turn])
    assert len(await store.call(keys)) == 20


# Failures.


async def test_only_the_bad_writes_of_a_batch_are_lost(
    store: Persistence, errors: list[StoreError]
) -> None:
    def fail(database: Database) -> None:
        put(database, "never")
        raise ZeroDivisionError

    gate, task = await held(store)
    store.post(put, "a")
    store.post(fail)
    store.post(put, "b")
    store.post(put, "a")
    store.post(put, "c")
    gate.open()
    await task
    await store.flush()
    assert await store.call(keys) == ["a", "b", "c"]
    assert store.statistics() == PersistenceStatistics(queued=0, written=3, dropped=0, failed=2)
    assert len(errors) == 1
    assert "ZeroDivisionError" in str(errors[0])
    assert isinstance(errors[0].__cause__, ZeroDivisionError)
    assert "UNIQUE" in str(store.last_error)


async def test_a_failure_is_told_again_once_it_had_passed(
    store: Persistence, errors: list[StoreError]
) -> None:
    for expected, good in enumerate(("a", "b"), start=1):
        store.post(put, good)
        await store.flush()
        for _ in range(3):
            store.post(put, "a")
            await store.flush()
        assert len(errors) == expected
    assert store.statistics().failed == 6


async def test_a_full_disk_costs_what_does_not_fit_and_no_more(
    tmp_path: Path, errors: list[StoreError]
) -> None:
    def pages(database: Database, more: int) -> None:
        now = database.query("PRAGMA page_count")[0][0]
        database.query(f"PRAGMA max_page_count = {now + more}")

    store = await Persistence.open(tmp_path, SMALL, errors.append)
    await store.call(pages, 4)
    gate, task = await held(store)
    store.post(put, "before")
    store.post(put, "large", "x" * 100_000)
    store.post(put, "after")
    gate.open()
    await task
    await store.flush()
    assert [type(error) for error in errors] == [StoreFull]
    assert type(store.last_error) is StoreFull
    assert await store.call(keys) == ["after", "before"]
    await store.call(pages, 1000)
    store.post(put, "large", "x" * 100_000)
    await store.flush()
    assert await store.call(keys) == ["after", "before", "large"]
    assert store.statistics() == PersistenceStatistics(queued=0, written=3, dropped=0, failed=1)
    await store.close()


async def test_a_call_gives_back_every_exception(store: Persistence) -> None:
    def stop(database: Database) -> None:
        raise StopIteration

    def leave(database: Database) -> None:
        raise GeneratorExit

    await store.call(put, "a")
    with pytest.raises(StoreError, match="UNIQUE"):
        await store.call(put, "a")
    with pytest.raises(RuntimeError, match="StopIteration"):
        await store.call(stop)
    with pytest.raises(GeneratorExit):
        await store.call(leave)
    assert await store.call(keys) == ["a"]
    assert store.statistics() == PersistenceStatistics(queued=0, written=0, dropped=0, failed=0)


async def test_failures_without_anyone_to_tell() -> None:
    store = await Persistence.open(None, StoreConfig(queue_max=1))
    gate, task = await held(store)
    assert store.post(put, "\ud800")
    assert not store.post(put, "a")
    gate.open()
    await task
    await store.flush()
    assert "value" in str(store.last_error)
    await store.close()


# Opening and ending.


async def test_open_raises_what_the_store_raises(tmp_path: Path) -> None:
    store = await Persistence.open(tmp_path / "node", SMALL)
    with pytest.raises(StoreInUse):
        await Persistence.open(tmp_path / "node", SMALL)
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="is a file"):
        await Persistence.open(tmp_path / "file", SMALL)
    await store.close()


async def test_open_tries_again_for_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder = Database.open(tmp_path)
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def pause(delay_s: float) -> None:
        pauses.append(delay_s)
        await sleep(0)

    monkeypatch.setattr("asyncio.sleep", pause)
    with pytest.raises(StoreInUse):
        await Persistence.open(tmp_path, SMALL)
    assert len(pauses) == OPEN_TRIES - 1
    assert 0 <= min(pauses) < max(pauses) <= OPEN_PAUSE_MAX_S

    async def let_go(delay_s: float) -> None:
        holder.close()

    monkeypatch.setattr("asyncio.sleep", let_go)
    store = await Persistence.open(tmp_path, SMALL)
    await store.close()


async def test_an_open_that_is_cancelled_leaves_nothing_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started, go_on, closed = threading.Event(), threading.Event(), threading.Event()

    class Slow(Database):
        @classmethod
        def open(cls, folder: Path | None) -> Database:
            started.set()
            go_on.wait()
            return super().open(folder)

        def close(self) -> None:
            super().close()
            closed.set()

    monkeypatch.setattr("meshwalk.net.persistence.Database", Slow)
    task = asyncio.create_task(Persistence.open(tmp_path, SMALL))
    await asyncio.to_thread(started.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go_on.set()
    assert await asyncio.to_thread(closed.wait, 10)
    Database.open(tmp_path).close()


async def test_close_writes_what_was_posted_and_ends_the_thread(tmp_path: Path) -> None:
    store = await Persistence.open(tmp_path, SMALL)
    gate, task = await held(store)
    for number in range(5):
        store.post(put, str(number))
    ends = [asyncio.create_task(store.close()) for _ in range(2)]
    await asyncio.sleep(0)  # both have begun
    assert not store.post(put, "late")
    with pytest.raises(Closed):
        await store.call(keys)
    with pytest.raises(Closed):
        await store.flush()
    gate.open()
    await asyncio.gather(task, *ends)
    await store.close()
    assert not [one for one in threading.enumerate() if one.name.startswith("meshwalk-store")]
    assert store.statistics() == PersistenceStatistics(queued=0, written=5, dropped=1, failed=0)
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]
    database = Database.open(tmp_path)
    assert keys(database) == ["0", "1", "2", "3", "4"]
    database.close()


async def test_cancelling_calls_and_close_loses_nothing(tmp_path: Path) -> None:
    store = await Persistence.open(tmp_path, SMALL)
    gate, task = await held(store)
    store.post(put, "posted")
    called = asyncio.create_task(store.call(put, "called"))
    await asyncio.sleep(0)  # the call is made now
    refused = asyncio.create_task(store.call(put, "called"))
    await asyncio.sleep(0)
    closing = asyncio.create_task(store.close())
    await asyncio.sleep(0)
    for one in (called, refused, closing):
        one.cancel()
        with pytest.raises(asyncio.CancelledError):
            await one
    gate.open()
    await task
    await store.close()
    database = Database.open(tmp_path)
    assert keys(database) == ["called", "posted"]
    database.close()


def test_a_loop_that_ended_first_loses_nothing(tmp_path: Path) -> None:
    gate = Gate()

    async def main() -> Persistence:
        store = await Persistence.open(tmp_path, SMALL, errors.append)
        asyncio.create_task(store.call(gate.hold)).add_done_callback(tasks.append)
        await gate.reached()
        store.post(put, "a")
        store.post(put, "a")
        closing = asyncio.create_task(store.close())
        await asyncio.sleep(0)
        closing.cancel()
        return store

    errors: list[StoreError] = []
    tasks: list[asyncio.Task[None]] = []
    store = asyncio.run(main())
    gate.open()
    store._executor.shutdown(wait=True)
    assert (store.statistics().written, store.statistics().failed, errors) == (1, 1, [])
    assert tasks[0].cancelled()
    database = Database.open(tmp_path)
    assert keys(database) == ["a"]
    database.close()
    gc.collect()  # an unclosed database would warn, and warnings are errors


FORGETFUL = """
import asyncio, sys
from pathlib import Path
from meshwalk.config import StoreConfig
from meshwalk.net.persistence import Persistence

def put(database, key):
    database.execute("INSERT INTO settings VALUES (?, '')", (key,))

async def main():
    store = await Persistence.open(Path(sys.argv[1]), StoreConfig())
    for number in range(1000):
        store.post(put, f"{number:03}")
    if sys.argv[2] == "flush":
        await store.flush()
        print("flushed", flush=True)
        sys.stdin.read()

asyncio.run(main())
"""


@pytest.mark.parametrize("ending", ["flush", "exit"])
async def test_a_program_that_is_killed_or_forgets_to_close(tmp_path: Path, ending: str) -> None:
    command = [sys.executable, "-c", FORGETFUL, str(tmp_path), ending]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
        assert program.stdout is not None
        if ending == "flush":
            assert program.stdout.readline() == b"flushed\n"
            program.kill()
        assert program.wait(30) == (-signal.SIGKILL if ending == "flush" else 0)
    database = Database.open(tmp_path)
    assert keys(database) == [f"{number:03}" for number in range(1000)]
    database.close()
