"""One seed decides a run; what goes wrong in one is told; a quiet hour takes seconds."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from meshwalk import InvalidArgument, Node
from meshwalk.testing import LimitReached, World, simulate, simulated
from testing.story import story


def test_the_same_seed_is_the_same_run_in_every_process() -> None:
    tellers = [
        subprocess.Popen(
            [sys.executable, Path(__file__).with_name("story.py"), "7"],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
        )
        for hash_seed in ("1", "2")
    ]
    told = [teller.communicate(timeout=60)[0] for teller in tellers]
    assert told[0].count("\n") > 100
    assert told[0] == told[1]
    assert told[0].splitlines() == simulate(story, seed=7)


def test_another_seed_is_another_run() -> None:
    async def ids(world: World) -> tuple[str, float]:
        anna = await world.start("anna")
        await world.start("bert", join=anna)
        return str(anna.id), world.now

    assert simulate(ids, seed=1) == simulate(ids, seed=1)
    one, other = simulate(ids, seed=1), simulate(ids, seed=2)
    assert one[0] != other[0]
    assert one[1] != other[1]


def test_twenty_quiet_nodes_for_an_hour(capsys: pytest.CaptureFixture[str]) -> None:
    async def quiet(world: World) -> list[Node]:
        for number in range(20):
            await world.start(f"{number}", join="0" if number else None)
        await world.sleep(3600)
        assert all(len(node.neighbours) >= 5 for node in world.nodes.values())
        return list(world.nodes.values())

    began = time.process_time()
    assert len(simulate(quiet)) == 20
    with capsys.disabled():
        print(f"\nan hour of 20 quiet nodes: {time.process_time() - began:.1f} s of computing")


def test_an_error_comes_with_the_seed_and_the_time() -> None:
    async def fail(world: World) -> None:
        await world.start("anna")
        await world.sleep(12)
        raise KeyError("what")

    with pytest.raises(KeyError, match="what") as caught:
        simulate(fail, seed=5)
    assert caught.value.__notes__ == ["in the world of seed 5, at 12.000 s of virtual time"]


def test_an_error_that_nobody_awaits_fails_the_run() -> None:
    async def steps(world: World) -> None:
        async def fail() -> None:
            await asyncio.sleep(1)
            raise ValueError("in the background")

        task = world.spawn(await world.start("anna"), fail())
        await world.sleep(5)
        assert task.done()
        asyncio.get_running_loop().call_soon([].pop)
        await world.sleep(5)

    with pytest.raises(ExceptionGroup) as caught:
        simulate(steps, seed=5)
    errors = [repr(error) for error in caught.value.exceptions]
    assert errors == ["IndexError('pop from empty list')", "ValueError('in the background')"]


def test_an_error_of_a_task_that_is_still_held_fails_the_run() -> None:
    held: list[asyncio.Task[None]] = []

    async def steps(world: World) -> None:
        async def fail(error: Exception) -> None:
            raise error

        anna = await world.start("anna")
        held.extend(world.spawn(anna, fail(ValueError(number))) for number in range(4))
        held[3].cancel()
        await world.sleep(1)
        assert str(held[1].exception()) == "1"

    with pytest.raises(ExceptionGroup) as caught:
        simulate(steps)
    assert [repr(error) for error in caught.value.exceptions] == ["ValueError(0)", "ValueError(2)"]


def test_what_still_runs_is_ended_quietly() -> None:
    ended: list[str] = []

    async def steps(world: World) -> str:
        async def program(node: Node) -> None:
            try:
                while True:
                    await node.broadcast("still here")
                    await asyncio.sleep(0.1)
            finally:
                ended.append(f"{node.address.host}")

        for name in ("anna", "bert"):
            node = await world.start(name)
            world.spawn(node, program(node))
        await world.sleep(1)
        world.pause("bert")
        return "done"

    assert simulate(steps) == "done"
    assert ended == ["10.0.0.1", "10.0.0.2"]


def test_a_task_that_does_not_end_is_told_of() -> None:
    async def steps(world: World) -> None:
        async def stay() -> None:
            while True:
                try:
                    await asyncio.sleep(1)
                except asyncio.CancelledError:
                    continue

        task = asyncio.create_task(stay())
        await world.sleep(1)
        assert not task.done()

    with pytest.raises(ExceptionGroup) as caught:
        simulate(steps)
    assert any(isinstance(error, LimitReached) for error in caught.value.exceptions)


def test_the_limit_is_the_callers() -> None:
    async def wait(world: World) -> None:
        anna = await world.start("anna")
        await world.start("bert", join=anna)
        await anext(anna.messages())

    with pytest.raises(LimitReached, match=r"limit of 100 s(?s:.*)Subscription.__anext__"):
        simulate(wait, limit_s=100)


async def test_not_from_within_a_running_loop() -> None:
    async def nothing(world: World) -> None:
        pass

    with pytest.raises(InvalidArgument, match="plain function"):
        simulate(nothing)


@pytest.mark.parametrize("count", [2, 3])
@simulated(seed=9)
async def test_the_decorator_leaves_parameters_and_fixtures(
    world: World, count: int, tmp_path: Path
) -> None:
    """Its own docstring."""
    assert world.seed == 9
    for number in range(count):
        await world.start(f"{number}", data=tmp_path / f"{number}")
    assert len(list(tmp_path.iterdir())) == count


@simulated()
@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.usefixtures("tmp_path")
async def test_the_decorator_keeps_marks_below_it(world: World, count: int) -> None:
    assert count in (2, 3)


def test_a_skip_counts_above_and_below() -> None:
    async def scenario(world: World) -> None:
        pass

    below = simulated()(pytest.mark.skip(scenario))
    both = pytest.mark.skip(reason="above")(below)
    assert [mark.name for mark in vars(both)["pytestmark"]] == ["skip", "skip"]
    assert [mark.name for mark in vars(scenario)["pytestmark"]] == ["skip"]


class TestMethods:
    @pytest.mark.parametrize("count", [2, 3])
    @simulated(seed=9)
    async def test_self_comes_before_the_world(
        self, world: World, count: int, tmp_path: Path
    ) -> None:
        assert isinstance(self, TestMethods)
        assert (world.seed, count in (2, 3), tmp_path.is_dir()) == (9, True, True)

    @staticmethod
    @simulated(seed=9)
    async def test_a_static_method_has_only_the_world(world: World) -> None:
        assert world.seed == 9


def test_the_world_has_to_be_a_parameter() -> None:
    async def nothing() -> None:
        pass

    async def method(self: object) -> None:
        pass

    async def static(world: World) -> None:
        pass

    scenarios: list[Any] = [nothing, method, staticmethod(static)]
    for scenario in scenarios:
        with pytest.raises(InvalidArgument, match="is no test of a world"):
            simulated()(scenario)
