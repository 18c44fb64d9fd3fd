"""The store off the event loop: one thread owns the `Database` and does everything in order.

Everything happens in the order of `post` and `call`, so a call sees all that was posted before
it. What waits when the thread is free goes into one transaction, up to the next call: the busier
the node, the larger the batches.

All methods are for the thread of the event loop. The counters that `statistics` reads have one
writer each, the loop or the worker, and need no lock.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from random import Random
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

import msgspec

from meshwalk.config import StoreConfig
from meshwalk.errors import Closed, StoreError, StoreInUse
from meshwalk.net.surroundings import Surroundings
from meshwalk.store.database import Database

# Measured: of two processes that opened one store in the same instant, both were refused in 288
# of 300 rounds with one try each, and in none of 2,000 with five.
OPEN_TRIES: Final = 5
OPEN_PAUSE_MAX_S: Final = 0.02  # guess: 20 times what an open takes

P = ParamSpec("P")
Result = TypeVar("Result")


class PersistenceStatistics(msgspec.Struct, frozen=True):
    """What has become of the writes posted so far."""

    queued: int
    """Waiting, or being written now."""
    written: int
    """Committed."""
    dropped: int
    """Not taken, because too many were waiting or the store was closed."""
    failed: int
    """Taken and lost: the store refused them."""


class _Step(msgspec.Struct):
    """A function to be run by the worker; a call has a future, a posted write has none."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    answer: asyncio.Future[Any] | None = None


class Persistence:
    """A store for use from asyncio. Made by `open`; its thread ends with `close`."""

    def __init__(
        self,
        config: StoreConfig,
        on_error: Callable[[StoreError], None] | None,
        executor: Executor,
    ) -> None:
        self.last_error: StoreError | None = None
        """The last reason why a posted write was lost; stays when later writes succeed."""
        self._config = config
        self._on_error = on_error
        self._loop = asyncio.get_running_loop()
        self._executor = executor
        self._database: Database | None = None
        self._steps: deque[_Step] = deque()
        self._drain_due = False
        self._closed: asyncio.Future[None] | None = None
        # Written by the loop only.
        self._posted = 0
        self._dropped = 0
        self._drop_told = False
        # Written by the worker only.
        self._written = 0
        self._failed = 0
        self._failure_told = False

    @classmethod
    async def open(
        cls,
        folder: Path | None,
        config: StoreConfig,
        on_error: Callable[[StoreError], None] | None = None,
        executor: Executor | None = None,
    ) -> Persistence:
        """Open the store in `folder` (None: in memory). Raises what `Database.open` raises.

        `executor` runs the store's calls, one thread and in order, and is shut down at the end.
        `on_error` is called on the loop when a posted write is lost or dropped: once, and again
        only after the trouble had passed, that is after a batch was written without a loss, or
        the queue was half empty. Safe to cancel: nothing stays open.
        """
        self = cls(config, on_error, executor or Surroundings().store_executor())
        try:
            await self._open_patiently(folder)
        except BaseException:
            # When this was cancelled the thread goes on, and what it opens must be closed.
            self._executor.submit(self._close)
            self._executor.shutdown(wait=False)
            raise
        return self

    async def call(
        self,
        function: Callable[Concatenate[Database, P], Result],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Result:
        """What `function(database, ...)` returns, or raises, after all that was posted before.

        It has no transaction around it; a function that makes several writes opens its own.
        Raises `Closed` after `close`. When cancelled, the function may run all the same.
        """
        if self._closed is not None:
            raise Closed("the store has been closed")
        answer: asyncio.Future[Result] = self._loop.create_future()
        self._append(_Step(function, args, kwargs, answer))
        return await answer

    def post(
        self,
        function: Callable[Concatenate[Database, P], object],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> bool:
        """Have `function(database, ...)` write soon, within a transaction; never waits or raises.

        False when it was dropped, because `queue_max` writes wait or the store is closed. The
        function should do nothing but write: it is undone and run again when another of its batch
        fails. A write that fails is lost, counted, and told to `on_error`; later ones go on.
        """
        waiting = self._posted - self._written - self._failed
        if self._closed is not None or waiting >= self._config.queue_max:
            self._drop()
            return False
        if waiting <= self._config.queue_max // 2:
            self._drop_told = False
        self._posted += 1
        self._append(_Step(function, args, kwargs))
        return True

    async def flush(self) -> None:
        """Wait until everything posted before is committed, or counted as failed.

        Raises `Closed` after `close`.
        """
        await self.call(_nothing)

    async def close(self) -> None:
        """Write what was posted, close the store and end the thread. May be called again.

        When cancelled, the thread still does all of that, and the interpreter waits for it.
        """
        if self._closed is None:
            self._closed = self._loop.create_future()
            self._append(_Step(Database.close, (), {}, self._closed))
            self._executor.shutdown(wait=False)
        await asyncio.shield(self._closed)
        # The thread has nothing left to do but end.
        self._executor.shutdown(wait=True)

    def statistics(self) -> PersistenceStatistics:
        """Counts since `open`."""
        done = self._written + self._failed
        return PersistenceStatistics(
            queued=self._posted - done,
            written=self._written,
            dropped=self._dropped,
            failed=self._failed,
        )

    # On the loop.

    async def _open_patiently(self, folder: Path | None) -> None:
        for _ in range(OPEN_TRIES - 1):
            with contextlib.suppress(StoreInUse):
                return await self._loop.run_in_executor(self._executor, self._open, folder)
            # Two that open in the same instant can refuse each other, and then nobody has it.
            await asyncio.sleep(Random().uniform(0, OPEN_PAUSE_MAX_S))
        return await self._loop.run_in_executor(self._executor, self._open, folder)

    def _append(self, step: _Step) -> None:
        # First the step, then the question: a drain that takes the flag down looks at the steps
        # after that, so either it sees this one or we see the flag down.
        self._steps.append(step)
        if not self._drain_due:
            self._drain_due = True
            self._executor.submit(self._drain)

    def _drop(self) -> None:
        self._dropped += 1
        if self._closed is None and not self._drop_told and self._on_error is not None:
            self._drop_told = True
            error = StoreError(
                f"the disk is too slow: {self._config.queue_max:,} writes wait for it, "
                "and more are dropped"
            )
            self._loop.call_soon(self._on_error, error)

    # On the worker.

    def _open(self, folder: Path | None) -> None:
        self._database = Database.open(folder)

    def _close(self) -> None:
        if self._database is not None:
            self._database.close()

    def _drain(self) -> None:
        self._drain_due = False
        writes: list[_Step] = []
        for _ in range(len(self._steps)):
            step = self._steps.popleft()
            if step.answer is None:
                writes.append(step)
                continue
            self._write(writes)
            writes = []
            self._run(step, step.answer)
        self._write(writes)

    def _write(self, writes: list[_Step]) -> None:
        """Run them in one transaction, or else each in its own, so that only bad ones are lost."""
        if not writes:
            return
        error = self._commit(writes)
        if error is None:
            self._failure_told = False
        elif len(writes) == 1:
            self._fail(error)
        else:
            for step in writes:
                error = self._commit([step])
                if error is not None:
                    self._fail(error)

    def _commit(self, writes: list[_Step]) -> BaseException | None:
        database = self._database
        assert database is not None

        def write_all() -> None:
            with database.transaction():
                for step in writes:
                    step.function(database, *step.args, **step.kwargs)

        _, error = _attempt(write_all)
        if error is None:
            self._written += len(writes)
        return error

    def _fail(self, error: BaseException) -> None:
        self._failed += 1
        if not isinstance(error, StoreError):
            cause, error = error, StoreError(f"a write to the store could not be made: {error!r}")
            error.__cause__ = cause
        self.last_error = error
        if not self._failure_told and self._on_error is not None:
            self._failure_told = True
            self._tell(self._on_error, error)

    def _run(self, step: _Step, answer: asyncio.Future[Any]) -> None:
        result, error = _attempt(lambda: step.function(self._database, *step.args, **step.kwargs))
        if isinstance(error, StopIteration):
            # A future refuses this one, and its caller would wait for ever.
            error, cause = RuntimeError("a call to the store raised StopIteration"), error
            error.__cause__ = cause
        self._tell(_settle, answer, result, error)

    def _tell(self, callback: Callable[..., object], *args: Any) -> None:
        # RuntimeError: the loop is closed, and nobody is left to be told.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(callback, *args)


def _nothing(database: Database) -> None:
    """For its place in the order alone."""


def _attempt(work: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    try:
        return work(), None
    except BaseException as error:  # noqa: BLE001 # door: a caller's function; its caller is told
        return None, error


def _settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():  # cancelled
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
