"""An asyncio event loop on virtual time: whoever sleeps for an hour waits for nothing.

When every task waits, the clock jumps to the next timer. Timers of the same time run in the order
in which they were set, and sets of tasks keep the order in which the tasks were made, so a run
depends on nothing but the program. There are no sockets, threads or signals to wait for: asking for
one raises `NotSimulated`.

It takes the bookkeeping of callbacks, tasks and asynchronous generators from asyncio's
`BaseEventLoop` and replaces what waits: `_run_once`, and the heap of timers.
"""

from __future__ import annotations

import asyncio
import heapq
import threading
import weakref
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import Executor
from contextvars import Context, copy_context
from typing import Any, Final, TypeVar, TypeVarTuple

from meshwalk.errors import LocalError
from meshwalk.testing.process import InlineExecutor, Process, process_of

TURNS_MAX: Final = 1_000_000  # guess: some seconds of computing, in which no time has passed
RESOLUTION_S: Final = 1e-6  # guess: above the rounding of times up to centuries, below any delay
TIMERS_KEPT: Final = 64  # guess: fewer cancelled timers than that are not worth a look

_Result = TypeVar("_Result")
_Arguments = TypeVarTuple("_Arguments")


class Deadlock(LocalError):
    """Every task waits, and no timer is set that could wake one."""


class LimitReached(LocalError):
    """The run passed its limit of virtual time, or went on without any time passing."""


class NotSimulated(LocalError):
    """Something of the real world was asked for: a socket, a thread, a process, a signal."""


class NumberedTask(asyncio.Task[Any]):
    """A task that knows its number. Hashed by it, so that sets of tasks have a known order."""

    def __init__(self, number: int, coro: Coroutine[Any, Any, Any], **kwargs: Any) -> None:
        self.number = number
        super().__init__(coro, **kwargs)
        self.process = process_of(kwargs.get("context") or copy_context())
        """Where it runs, if on a machine."""

    def __hash__(self) -> int:
        return self.number


class VirtualTimeLoop(asyncio.BaseEventLoop):
    """An event loop whose `time()` is virtual: seconds from 0.

    `limit_s` is the virtual time at which it raises `LimitReached`.
    """

    _ready: deque[asyncio.Handle]
    _stopping: bool

    def __init__(self, limit_s: float = float("inf")) -> None:
        super().__init__()
        self.limit_s = limit_s
        self.failures: list[BaseException] = []
        """Errors that nobody awaits: of callbacks, and of tasks that were dropped."""
        self._now = 0.0
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._cancelled_timers = 0
        self._sequence = 0
        self._turns = 0
        self._tasks = 0
        self._alive: weakref.WeakSet[NumberedTask] = weakref.WeakSet()
        self._thread = threading.get_ident()
        self._paused: dict[Process, None] = {}
        self._owners: dict[int, tuple[object, Process]] = {}
        self.set_task_factory(_number_task)
        self.set_exception_handler(_note_failure)

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._now

    # Timers.

    def call_later(
        self,
        delay: float,
        callback: Callable[[*_Arguments], object],
        *args: *_Arguments,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """As asyncio's; a delay above 0 is at least a microsecond."""
        # Else whoever rounds times differently, and waits again for the rest of a wait that was too
        # short, would wait for ever: adding next to nothing to a float does not change it.
        if delay > 0:
            delay = max(delay, RESOLUTION_S)
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[*_Arguments], object],
        *args: *_Arguments,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """As asyncio's; of two callbacks for the same time, that which was set first runs first."""
        if self.is_closed():
            raise RuntimeError("Event loop is closed")
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        # So that it tells us when it is cancelled; the stubs leave it out, as those below.
        timer._scheduled = True  # type: ignore[attr-defined]
        self._add_timer(when, timer)
        return timer

    def _add_timer(self, when: float, timer: asyncio.TimerHandle) -> None:
        self._sequence += 1
        heapq.heappush(self._timers, (when, self._sequence, timer))

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        # A cancelled timer stays until it surfaces. Rebuilt when most are, so that programs that
        # set a timeout for every step, and never reach it, keep the heap as small as it can be.
        if not handle._scheduled:  # type: ignore[attr-defined] # it has surfaced
            return
        self._cancelled_timers += 1
        count = self._cancelled_timers
        if count > TIMERS_KEPT and 2 * count > len(self._timers):
            self._timers = [entry for entry in self._timers if not entry[2].cancelled()]
            heapq.heapify(self._timers)
            self._cancelled_timers = 0

    # Running.

    def _run_once(self) -> None:
        """One turn, as asyncio's: what is ready runs, and what that makes ready runs next turn."""
        ready, timers = self._ready, self._timers
        while timers and timers[0][2]._cancelled:
            heapq.heappop(timers)
            self._cancelled_timers -= 1
        if not ready and not self._stopping:
            self._advance()
        while timers and timers[0][0] <= self._now:
            timer = heapq.heappop(timers)[2]
            timer._scheduled = False  # type: ignore[attr-defined]
            if timer._cancelled:
                self._cancelled_timers -= 1
            else:
                ready.append(timer)
        self._turns += 1
        if self._turns > TURNS_MAX:
            self._turns = 0
            raise LimitReached(
                f"{TURNS_MAX:,} turns of the loop and no time has passed: something goes round"
                f" without waiting at {self._now:.3f} s.\n{self.who_waits()}"
            )
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle._cancelled:
                continue
            if self._paused and (process := self._process_of(handle)) in self._paused:
                assert process is not None
                process.held.append(handle)
                continue
            handle._run()

    def _advance(self) -> None:
        """Nothing is ready: go to the time of the next timer."""
        if not self._timers:
            raise Deadlock(
                f"at {self._now:.3f} s every task waits and no timer is set, so nothing will ever"
                f" happen again.\n{self.who_waits()}"
            )
        when = self._timers[0][0]
        if when > self.limit_s:
            self._now = max(self._now, self.limit_s)
            limit_s, self.limit_s = self.limit_s, float("inf")  # what stops the run may go on
            raise LimitReached(
                f"the run has reached its limit of {limit_s:g} s of virtual time; give a greater"
                f" limit_s if it is to go on.\n{self.who_waits()}"
            )
        if when > self._now:
            self._now = when
            self._turns = 0

    def tasks(self) -> list[NumberedTask]:
        """Tasks that are not done, oldest first."""
        tasks = [task for task in asyncio.all_tasks(self) if isinstance(task, NumberedTask)]
        return sorted(tasks, key=lambda task: task.number)

    def report_unretrieved(self) -> None:
        """Report the errors of tasks that are done, which nobody has asked for.

        A task tells of its error by itself only when it is freed; here, of those that still exist.
        """
        # By number: a weak set has the order of its hash table.
        for task in sorted(self._alive, key=lambda task: task.number):
            if task._log_traceback and (error := task.exception()) is not None:
                message = f"nobody has asked for the error of {task.get_name()}"
                self.call_exception_handler({"message": message, "exception": error})

    def who_waits(self) -> str:
        """The tasks that are not done and where they wait, a line for each."""
        lines = [f"  {task.get_name()}: {where(task)}" for task in self.tasks()]
        return "\n".join(["Tasks that wait:", *lines]) if lines else "No task is left."

    # Processes: what is paused together, and ends together.

    def adopt(self, owner: object, process: Process) -> None:
        """Let the methods of `owner` belong to a process, whoever has them called."""
        self._owners[id(owner)] = owner, process

    def pause(self, process: Process) -> None:
        """Run nothing of a process until `resume`; its timers stand still."""
        if process in self._paused:
            return
        self._paused[process] = None
        kept: list[tuple[float, int, asyncio.TimerHandle]] = []
        for entry in sorted(self._timers):
            if self._process_of(entry[2]) is process:
                process.frozen.append((entry[0] - self._now, entry[2]))
            else:
                kept.append(entry)
        self._timers[:] = kept  # sorted, so it is a heap

    def resume(self, process: Process) -> None:
        """Go on where `pause` stopped."""
        if process not in self._paused:
            return
        del self._paused[process]
        frozen, process.frozen = process.frozen, []
        for left_s, timer in frozen:
            self._add_timer(self._now + left_s, timer)
        held, process.held = process.held, []
        self._ready.extend(held)

    def cancel_timers(
        self, process: Process, is_meant: Callable[[Callable[..., object]], bool]
    ) -> None:
        """Cancel those timers of a process that runs whose callbacks are meant."""
        due = [handle for handle in self._ready if isinstance(handle, asyncio.TimerHandle)]
        for timer in [*due, *(entry[2] for entry in self._timers)]:
            if timer._cancelled or self._process_of(timer) is not process:
                continue
            if is_meant(timer._callback):  # type: ignore[attr-defined]
                timer.cancel()

    def _process_of(self, handle: asyncio.Handle) -> Process | None:
        # A bound method of an adopted object may have been scheduled by anybody.
        callback = handle._callback  # type: ignore[attr-defined]
        owner = self._owners.get(id(getattr(callback, "__self__", None)))
        if owner is not None:
            return owner[1]
        return process_of(handle._context)  # type: ignore[attr-defined]

    # What the real world would have to answer.

    def call_soon_threadsafe(
        self,
        callback: Callable[[*_Arguments], object],
        *args: *_Arguments,
        context: Context | None = None,
    ) -> asyncio.Handle:
        """As `call_soon`. Raises `NotSimulated` from another thread."""
        if threading.get_ident() != self._thread:
            raise NotSimulated("another thread cannot call into virtual time; use a task")
        return self.call_soon(callback, *args, context=context)

    def run_in_executor(
        self,
        executor: Executor | None,
        func: Callable[[*_Arguments], _Result],
        *args: *_Arguments,
    ) -> asyncio.Future[_Result]:
        """At once, for an `InlineExecutor`. Raises `NotSimulated` for threads and processes."""
        if not isinstance(executor, InlineExecutor):
            raise NotSimulated(
                "virtual time has no threads (asyncio.to_thread, run_in_executor); call the"
                " function itself, or hand it to an InlineExecutor"
            )
        return asyncio.wrap_future(executor.submit(func, *args), loop=self)

    def _process_events(self, event_list: list[Any]) -> None:
        """Never called: there is nothing to select from."""

    def _write_to_self(self) -> None:
        """Nobody waits in a system call who would have to be woken."""


_REFUSED: Final = {
    "nodes of the world talk through Node": (
        "create_connection create_server create_datagram_endpoint create_unix_connection"
        " create_unix_server connect_accepted_socket start_tls sendfile sock_recv sock_recv_into"
        " sock_recvfrom sock_recvfrom_into sock_sendall sock_sendto sock_connect sock_accept"
        " sock_sendfile add_reader remove_reader add_writer remove_writer getaddrinfo getnameinfo"
    ),
    "replace by a function what a process does": (
        "subprocess_shell subprocess_exec connect_read_pipe connect_write_pipe"
    ),
    "call what the signal would call": "add_signal_handler remove_signal_handler",
}
"""Methods of an event loop that ask the real world, by what to do instead."""


def _refused(name: str, instead: str) -> Any:
    def refuse(self: VirtualTimeLoop, *_: Any, **__: Any) -> None:
        raise NotSimulated(f"there is no {name} in virtual time; {instead}")

    return refuse


for _instead, _names in _REFUSED.items():
    for _name in _names.split():
        setattr(VirtualTimeLoop, _name, _refused(_name, _instead))


def _number_task(
    loop: asyncio.AbstractEventLoop,
    coro: Coroutine[Any, Any, Any] | Generator[Any, None, Any],
    **kwargs: Any,
) -> NumberedTask:
    assert isinstance(loop, VirtualTimeLoop)
    loop._tasks += 1
    # Names, too, start anew in each loop: asyncio's own numbers count a whole process.
    if kwargs.get("name") is None:
        kwargs["name"] = f"task {loop._tasks}"
    task = NumberedTask(loop._tasks, coro, loop=loop, **kwargs)  # type: ignore[arg-type]
    loop._alive.add(task)
    return task


def _note_failure(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    assert isinstance(loop, VirtualTimeLoop)
    error = context.get("exception")
    if error is None:
        error = RuntimeError(context["message"])
    else:
        error.add_note(f"at {loop.time():.3f} s of virtual time: {context['message']}")
    if not any(error is known for known in loop.failures):
        loop.failures.append(error)


def where(task: asyncio.Task[Any]) -> str:
    """Where a task waits: its own line, and the innermost function that it waits in."""
    chain: list[str] = []
    waits: Any = task.get_coro()
    while (frame := getattr(waits, "cr_frame", None)) is not None:
        code = frame.f_code
        chain.append(f"{code.co_qualname} ({code.co_filename}:{frame.f_lineno})")
        waits = waits.cr_await
    if not chain:
        return "about to end"
    return chain[0] if len(chain) == 1 else f"{chain[0]}, in {chain[-1]}"
