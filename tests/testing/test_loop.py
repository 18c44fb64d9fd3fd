"""Virtual time: the clock jumps, order is kept, and the real world is refused."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

from meshwalk.testing import Deadlock, LimitReached, NotSimulated
from meshwalk.testing.loop import TIMERS_KEPT, VirtualTimeLoop
from meshwalk.testing.process import InlineExecutor, Process

T = TypeVar("T")


def run(steps: Coroutine[Any, Any, T], limit_s: float = 1e6) -> T:
    with asyncio.Runner(loop_factory=lambda: VirtualTimeLoop(limit_s)) as runner:
        return runner.run(steps)


def now() -> float:
    return asyncio.get_running_loop().time()


def test_sleep_jumps() -> None:
    async def steps() -> list[float]:
        times = [now()]
        for pause_s in (3600.0, 0.0, 0.25):
            await asyncio.sleep(pause_s)
            times.append(now())
        return times

    assert run(steps()) == [0.0, 3600.0, 3600.0, 3600.25]


def test_equal_times_keep_their_order() -> None:
    async def steps() -> list[int]:
        seen: list[int] = []
        loop = asyncio.get_running_loop()
        for number in range(100):
            loop.call_at(5.0 if number % 3 else 4.0, seen.append, number)
        await asyncio.sleep(5)
        return seen

    numbers = range(100)
    assert run(steps()) == [n for n in numbers if n % 3 == 0] + [n for n in numbers if n % 3]


def test_timeouts_groups_and_queues_work_unchanged() -> None:
    async def steps() -> tuple[list[str], float]:
        heard: list[str] = []
        queue: asyncio.Queue[str] = asyncio.Queue()

        async def speak(word: str, pause_s: float) -> None:
            await asyncio.sleep(pause_s)
            await queue.put(word)

        async with asyncio.TaskGroup() as group:
            for word, pause_s in (("late", 30), ("early", 10)):
                group.create_task(speak(word, pause_s))
            while len(heard) < 2:
                try:
                    async with asyncio.timeout(15):
                        heard.append(await queue.get())
                except TimeoutError:
                    heard.append(f"nothing by {now():g}")
        return heard, now()

    assert run(steps()) == (["early", "nothing by 25"], 30)


def test_sets_of_tasks_keep_the_order_of_their_making() -> None:
    async def steps() -> list[str]:
        seen: list[str] = []

        async def wait(name: str) -> None:
            try:
                await asyncio.sleep(99)
            finally:
                seen.append(name)

        with pytest.raises(ZeroDivisionError):
            await _fail_among([wait(f"{number}") for number in range(50)])
        return seen

    assert run(steps()) == [f"{number}" for number in range(50)]


async def _fail_among(others: list[Coroutine[Any, Any, None]]) -> None:
    try:
        async with asyncio.TaskGroup() as group:
            for each in others:
                group.create_task(each)
            await asyncio.sleep(1)
            raise ZeroDivisionError
    except* ZeroDivisionError as errors:
        raise errors.exceptions[0] from None


def test_cancelled_timers_do_not_pile_up() -> None:
    async def steps() -> int:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        for _ in range(10_000):
            loop.call_later(1000, print).cancel()
        return len(loop._timers)

    assert run(steps()) <= TIMERS_KEPT + 1


def test_the_least_delay_moves_the_clock() -> None:
    async def steps() -> float:
        await asyncio.sleep(1e9)
        before = now()
        await asyncio.sleep(1e-12)
        return now() - before

    assert 0 < run(steps(), limit_s=2e9) < 2e-6


def test_deadlock_names_who_waits_and_where() -> None:
    async def hold_out() -> None:
        await asyncio.Event().wait()

    async def steps() -> None:
        asyncio.current_task().set_name("main")  # type: ignore[union-attr]
        await asyncio.sleep(2)
        await asyncio.create_task(hold_out(), name="stubborn")

    with pytest.raises(Deadlock) as caught:
        run(steps())
    text = str(caught.value)
    assert "at 2.000 s" in text
    assert "main: test_deadlock_names_who_waits_and_where.<locals>.steps (" in text
    assert "stubborn: " in text
    assert "Event.wait (" in text
    assert "test_loop.py:" in text


def test_the_limit_of_time() -> None:
    async def steps() -> None:
        while True:
            await asyncio.sleep(1)

    with pytest.raises(LimitReached, match=r"(?s)limit of 90 s.*steps \(.*test_loop\.py"):
        run(steps(), limit_s=90)


def test_time_that_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meshwalk.testing.loop.TURNS_MAX", 1000)

    async def steps() -> None:
        while True:
            await asyncio.sleep(0)

    with pytest.raises(LimitReached, match="no time has passed"):
        run(steps())


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: asyncio.open_connection("192.0.2.1", 9), "create_connection"),
        (lambda: asyncio.start_server(lambda _, __: None, "127.0.0.1", 0), "create_server"),
        (lambda: asyncio.create_subprocess_exec("true"), "subprocess_exec"),
        (lambda: asyncio.to_thread(len, ""), "threads"),
        (lambda: asyncio.get_running_loop().getaddrinfo("localhost", 1), "getaddrinfo"),
    ],
)
def test_the_real_world_is_refused(call: Any, word: str) -> None:
    async def steps() -> None:
        with pytest.raises(NotSimulated, match=word):
            await call()

    run(steps())


def test_other_threads_are_refused() -> None:
    async def steps() -> list[str]:
        loop = asyncio.get_running_loop()
        heard: list[str] = []

        def call() -> None:
            try:
                loop.call_soon_threadsafe(print)
            except NotSimulated as error:
                heard.append(str(error))

        thread = threading.Thread(target=call)
        thread.start()
        thread.join()
        return heard

    assert "another thread" in run(steps())[0]


def test_an_inline_executor_is_done_at_once() -> None:
    async def steps() -> float:
        loop = asyncio.get_running_loop()
        executor = InlineExecutor()
        with pytest.raises(ZeroDivisionError):
            await loop.run_in_executor(executor, divmod, 1, 0)
        assert await loop.run_in_executor(executor, divmod, 7, 2) == (3, 1)
        executor.shutdown()
        with pytest.raises(RuntimeError, match="after shutdown"):
            executor.submit(print)
        return now()

    assert run(steps()) == 0.0


def test_a_paused_process_stands_still() -> None:
    async def steps() -> list[tuple[str, float]]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        process, seen = Process("it"), list[tuple[str, float]]()

        async def tick(name: str) -> None:
            while True:
                await asyncio.sleep(10)
                seen.append((name, now()))

        tasks = [
            loop.create_task(tick("paused"), context=process.context.copy()),
            loop.create_task(tick("free")),
        ]
        await asyncio.sleep(15)
        loop.pause(process)
        await asyncio.sleep(12)  # to 27; of its pause, 5 s were left
        loop.resume(process)
        await asyncio.sleep(8)
        for task in tasks:
            task.cancel()
        return seen

    assert run(steps()) == [
        ("paused", 10),
        ("free", 10),
        ("free", 20),
        ("free", 30),
        ("paused", 32),
    ]
