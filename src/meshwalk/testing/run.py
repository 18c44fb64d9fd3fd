"""Runs a scenario in a world of its own, and tells what went wrong in it."""

from __future__ import annotations

import asyncio
import gc
import inspect
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Concatenate, Final, ParamSpec, Protocol, TypeVar, overload

from meshwalk.errors import InvalidArgument
from meshwalk.sim.latency import Latency
from meshwalk.testing.loop import Deadlock, LimitReached, NumberedTask, VirtualTimeLoop
from meshwalk.testing.world import World

LIMIT_S: Final = 6 * 3600.0  # guess: more than a test waits for, less than a minute of computing
END_S: Final = 60.0  # guess: virtual seconds in which nodes and tasks stop; links take 2

_Result = TypeVar("_Result")
_Owner = TypeVar("_Owner")
_P = ParamSpec("_P")


def simulate(
    scenario: Callable[[World], Coroutine[Any, Any, _Result]],
    *,
    seed: int = 0,
    latency: Latency | str | float | None = None,
    limit_s: float = LIMIT_S,
) -> _Result:
    """Run `scenario(world)` in virtual time to its end, and return what it returns.

    The same seed gives the same run, in every process, but for what no seed decides: the modules
    `time` and `random`, and the order of sets of texts or plain objects. `latency` is how long
    bytes are on their way: a model of `meshwalk.sim.latency`, its name ("uniform:5ms-50ms"), or
    seconds. By default each pair of machines has its own, from 5 to 50 ms.

    Tasks that still run at the end are cancelled, nodes that still run are stopped. Raises what the
    scenario raises, with a note of the seed; `LimitReached` after `limit_s` of virtual time, or
    when time stands still; `Deadlock` when nothing can happen any more; and an `ExceptionGroup` of
    the errors of tasks and callbacks that nobody awaited.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        raise InvalidArgument(
            "an event loop runs here already; call simulate from a plain function"
        )
    loop = VirtualTimeLoop(limit_s)
    with TemporaryDirectory(prefix="meshwalk-world-") as folder:
        world = World(loop, seed, latency, Path(folder))
        try:
            try:
                result = loop.run_until_complete(
                    loop.create_task(scenario(world), name="the scenario")
                )
            finally:
                at = loop.time()
                _end(loop, world)
        except BaseException as error:
            error.add_note(f"in the world of seed {seed}, at {at:.3f} s of virtual time")
            for failure in loop.failures:
                if failure is not error:
                    error.add_note(f"in the background: {failure!r}")
            raise
    if loop.failures:
        group = BaseExceptionGroup("nobody awaited what raised these", loop.failures)
        group.add_note(f"in the world of seed {seed}")
        raise group
    return result


def simulated(
    *, seed: int = 0, latency: Latency | str | float | None = None, limit_s: float = LIMIT_S
) -> _Decorator:
    """Make a plain function of `async def test(world, ...)`, for pytest or any other runner.

    The world is the first parameter, after a method's `self`; what follows it stays, for fixtures
    and parameters of tests, and so do pytest's marks. See `simulate`. Raises `InvalidArgument` for
    a function that has no parameter for the world.
    """

    def decorate(scenario: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Any]:
        before = _parameters_before_world(scenario)

        def run(*args: Any, **kwargs: Any) -> Any:
            return simulate(
                lambda world: scenario(*args[:before], world, *args[before:], **kwargs),
                seed=seed,
                latency=latency,
                limit_s=limit_s,
            )

        # What functools.wraps does, but for __wrapped__: by it pytest would take `world` for a
        # fixture. The dictionary has the marks of pytest.
        run.__name__, run.__qualname__ = scenario.__name__, scenario.__qualname__
        run.__doc__, run.__module__ = scenario.__doc__, scenario.__module__
        run.__dict__.update(scenario.__dict__)
        run.__dict__.pop("__wrapped__", None)
        signature = inspect.signature(scenario)
        left = list(signature.parameters.values())
        del left[before]
        run.__signature__ = signature.replace(parameters=left)  # type: ignore[attr-defined]
        return run

    return decorate


class _Decorator(Protocol):
    @overload
    def __call__(
        self, scenario: Callable[Concatenate[World, _P], Coroutine[Any, Any, _Result]], /
    ) -> Callable[_P, _Result]: ...

    @overload
    def __call__(
        self, scenario: Callable[Concatenate[_Owner, World, _P], Coroutine[Any, Any, _Result]], /
    ) -> Callable[Concatenate[_Owner, _P], _Result]: ...


def _parameters_before_world(scenario: Callable[..., object]) -> int:
    names = list(inspect.signature(scenario).parameters)
    before = 1 if names[:1] in (["self"], ["cls"]) else 0
    if isinstance(scenario, staticmethod | classmethod) or len(names) <= before:
        raise InvalidArgument(
            f"{scenario.__qualname__} is no test of a world; write `async def test(world, ...)`,"
            " with self before world in a class, and @staticmethod or @classmethod above @simulated"
        )
    return before


def _end(loop: VirtualTimeLoop, world: World) -> None:
    """Cancel what still runs, stop the nodes, close the loop, and collect what failed."""
    world.wake()
    try:
        # First the program's tasks: to them a node that stops would look like a fault. Then the
        # nodes, which end the tasks of their own. Then whatever is left.
        _cancel(loop, [task for task in loop.tasks() if not _is_of_a_node(task)])
        _finish(loop, world.end())
        _cancel(loop, loop.tasks())
        _finish(loop, loop.shutdown_asyncgens())
    finally:
        loop.report_unretrieved()
        # A dropped task tells of its error when it is freed, which may need the collector.
        gc.collect()
        loop.close()


def _is_of_a_node(task: asyncio.Task[Any]) -> bool:
    frame = getattr(task.get_coro(), "cr_frame", None)
    return frame is not None and frame.f_globals.get("__name__", "").startswith("meshwalk.net.")


def _cancel(loop: VirtualTimeLoop, tasks: list[NumberedTask]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        _finish(loop, _wait(tasks))
    for task in tasks:
        if task.done() and not task.cancelled() and (error := task.exception()) is not None:
            _fail(loop, error, "a task failed when it was cancelled at the end of the run")


async def _wait(tasks: Sequence[asyncio.Task[Any]]) -> None:
    await asyncio.wait(tasks)


def _finish(loop: VirtualTimeLoop, steps: Coroutine[Any, Any, None]) -> None:
    loop.limit_s = loop.time() + END_S
    task = loop.create_task(steps, name="the end of the run")
    try:
        loop.run_until_complete(_wait([task]))
    except (Deadlock, LimitReached) as error:
        _fail(loop, error, "a task or a node does not end when the run does")
        return
    if (failure := task.exception()) is not None:
        _fail(loop, failure, "a node could not be stopped at the end of the run")


def _fail(loop: VirtualTimeLoop, error: BaseException, message: str) -> None:
    loop.call_exception_handler({"message": message, "exception": error})
