"""What runs on one machine of a simulated world: its callbacks, held together, and its store.

Which machine a callback belongs to travels with the context of asyncio's tasks and timers
(`contextvars`): whatever a task of a machine starts belongs to that machine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextvars import Context, ContextVar, copy_context
from typing import Any, ParamSpec, TypeVar

_Result = TypeVar("_Result")
_P = ParamSpec("_P")


class Process:
    """All callbacks of one machine since it was started. The loop pauses and resumes it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.context = copy_context()
        self.context.run(_process.set, self)
        self.held: list[asyncio.Handle] = []
        """What became ready while it was paused."""
        self.frozen: list[tuple[float, asyncio.TimerHandle]] = []
        """Its timers while it is paused: seconds left, and what then."""

    def run(self, function: Callable[_P, _Result], *args: _P.args, **kwargs: _P.kwargs) -> _Result:
        """Call a function as this process: what it starts belongs here."""
        # A copy, since a context cannot be entered twice.
        return self.context.copy().run(function, *args, **kwargs)


_process: ContextVar[Process | None] = ContextVar("process", default=None)


def process_of(context: Context) -> Process | None:
    """The process that a context belongs to, if any."""
    return context.get(_process)


class InlineExecutor(Executor):
    """Runs each call at once, in the thread that submits it, so that nothing waits for a thread."""

    def __init__(self) -> None:
        self._is_shut_down = False

    def submit(
        self, fn: Callable[_P, _Result], /, *args: _P.args, **kwargs: _P.kwargs
    ) -> Future[_Result]:
        """The finished future of `fn(*args, **kwargs)`."""
        if self._is_shut_down:
            raise RuntimeError("cannot schedule new futures after shutdown")
        future: Future[_Result] = Future()
        with _Into(future):
            future.set_result(fn(*args, **kwargs))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take nothing more."""
        self._is_shut_down = True


class _Into:
    """Puts an exception into the future of a call, as an executor's thread does."""

    def __init__(self, future: Future[Any]) -> None:
        self._future = future

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if error is None:
            return False
        self._future.set_exception(error)
        return isinstance(error, Exception)
