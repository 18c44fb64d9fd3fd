"""Whole nodes in virtual time: what a test of an application can have happen to them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from meshwalk import InvalidArgument, Node, NotRunning, PeerId, StoreError, TimedOut, Unreachable
from meshwalk.testing import World, simulate, simulated


async def pair(world: World) -> tuple[Node, Node]:
    anna = await world.start("anna")
    bert = await world.start("bert", join=anna)
    await world.until(lambda: anna.neighbours == [bert.id])  # she hears of it a little later
    return anna, bert


@simulated(latency=0.02)
async def test_latency_shows_in_a_ping(world: World) -> None:
    anna, bert = await pair(world)
    assert await anna.ping(bert.id) == pytest.approx(0.04)
    world.latency = "constant:100ms"
    assert await anna.ping(bert.id) == pytest.approx(0.2)
    assert await anna.ping(bert.address) == pytest.approx(0.2)
    world.heal()
    assert await anna.ping(bert.id) == pytest.approx(0.04)


@simulated(latency=0.02)
async def test_what_is_lost_comes_later(world: World) -> None:
    anna, bert = await pair(world)
    world.set_loss(0.3, sender=anna)
    round_trips = [await anna.ping(bert.id) for _ in range(40)]
    assert min(round_trips) == pytest.approx(0.04)
    # Sent again after a round trip and 0.2 s, so about 0.28 s in all.
    assert 5 <= sum(round_trip > 0.25 for round_trip in round_trips) <= 25


@simulated(latency=0.01)
async def test_bandwidth_delays_what_is_big(world: World) -> None:
    anna, bert = await pair(world)
    heard = bert.messages()
    world.limit_bandwidth(100_000, sender=anna)
    began = world.now
    await anna.send(bert.id, bytes(200_000))
    await anext(heard)
    assert 2.0 < world.now - began < 2.2


@simulated(seed=3)
async def test_a_partition_parts_and_heals(world: World) -> None:
    anna, bert = await pair(world)
    heard = bert.messages()
    world.partition([anna], ["bert"])
    await anna.broadcast("one")
    await world.sleep(5)
    assert len(heard) == 0
    with pytest.raises(TimedOut):
        await bert.ping(anna.address)
    world.heal()
    assert (await anext(heard)).body == "one"  # waited for, as TCP would have it
    world.partition([anna])
    await world.sleep(60)
    assert anna.neighbours == bert.neighbours == []
    world.heal()
    await world.until(lambda: anna.neighbours == [bert.id] and bert.neighbours == [anna.id])


@simulated(seed=4)
async def test_a_cut_goes_both_ways(world: World) -> None:
    anna, bert = await pair(world)
    carl = await world.start("carl", join=anna)
    await world.until(lambda: len(carl.neighbours) == 2)
    world.cut(anna, bert)
    await world.sleep(30)
    assert anna.neighbours == bert.neighbours == [carl.id]
    world.mend(anna, bert)
    await anna.join(bert.invite)
    await world.until(lambda: bert.id in anna.neighbours)


@simulated()
async def test_a_crash_is_heard_of_and_survived(world: World) -> None:
    anna, bert = await pair(world)
    was = bert.id
    world.crash(bert)
    with pytest.raises(NotRunning):
        world.crash("bert")
    await world.sleep(1)
    assert anna.neighbours == []
    with pytest.raises(NotRunning):
        await bert.broadcast("from beyond")
    with pytest.raises(Unreachable, match="nobody listens"):
        await anna.ping("10.0.0.2:55555")
    bert = await world.restart(bert)
    assert bert.id == was
    await world.until(lambda: anna.neighbours == [bert.id])  # it knew her


@simulated()
async def test_a_machine_that_vanishes_is_missed_late(world: World) -> None:
    anna, bert = await pair(world)
    world.crash(bert, silently=True)
    await world.sleep(5)
    assert anna.neighbours == [bert.id]
    with pytest.raises(TimedOut):
        await anna.ping("10.0.0.2:55555")
    await world.sleep(20)
    assert anna.neighbours == []


@simulated()
async def test_without_its_store_a_node_is_somebody_else(world: World) -> None:
    anna, bert = await pair(world)
    was = bert.id
    await world.sleep(10)
    await bert.stop()
    bert = await world.restart(bert, lose_store=True)
    assert bert.id != was
    assert bert.peers() == []
    assert bert.address.host == "10.0.0.2"
    await bert.join(anna.invite)
    await world.until(lambda: anna.neighbours == [bert.id])


@simulated()
async def test_the_store_is_as_it_was_at_the_crash(world: World) -> None:
    anna, bert = await pair(world)
    await world.sleep(5)
    kept = {peer.peer for peer in bert.peers()}
    world.crash(bert)
    world.partition([bert])
    bert = await world.restart(bert)
    assert {peer.peer for peer in bert.peers()} == kept == {anna.id}


def test_a_crash_leaves_nothing_that_a_later_run_finds(tmp_path: Path) -> None:
    folder = tmp_path / "data"

    async def crashes(world: World) -> None:
        anna = await world.start("anna", data=folder)
        (folder / "note").write_text("first")
        world.crash(anna)
        await world.sleep(1)

    async def stops(world: World) -> str:
        anna = await world.start("anna", data=folder)
        (folder / "note").write_text("second")
        await anna.stop()
        await world.restart("anna")
        return (folder / "note").read_text()

    simulate(crashes)
    assert list(tmp_path.iterdir()) == [folder]
    assert simulate(stops) == "second"
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize("restarts", [True, False])
def test_what_is_written_after_a_crash_is_undone(tmp_path: Path, restarts: bool) -> None:
    folder, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    elsewhere.mkdir()
    folder.symlink_to(elsewhere)

    async def steps(world: World) -> None:
        for count in range(2):
            node = await (world.restart("anna") if count else world.start("anna", data=folder))

            async def program(count: int) -> None:
                try:
                    (folder / "before").write_text(f"{count}")
                    await asyncio.sleep(1000)
                finally:
                    (folder / "after").write_text("too late")
                    (folder / "before").write_text("too late")

            world.spawn(node, program(count))
            await world.sleep(1)
            world.crash(node)
            await world.sleep(1)
            assert (folder / "after").exists()
        if restarts:
            await world.restart("anna")
            assert (folder / "before").read_text() == "1"

    simulate(steps)
    assert folder.is_symlink()
    assert not (folder / "after").exists()
    assert (folder / "before").read_text() == "1"


@simulated()
async def test_a_start_that_failed_leaves_the_name_free(world: World, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    anna = await world.start("anna")
    with pytest.raises(StoreError):
        await world.start("bert", data=tmp_path / "file")
    with pytest.raises(InvalidArgument):
        await world.start("bert", network="")
    assert list(world.nodes) == ["anna"]
    with pytest.raises(InvalidArgument, match=r"it has: anna$"):
        world.machine("bert")
    carl = await world.start("carl")
    bert = await world.start("bert", join=anna)
    assert len({node.address for node in (anna, bert, carl)}) == 3
    with pytest.raises(Unreachable):
        await world.start("dora", join="10.9.9.9:1")
    assert list(world.nodes) == ["anna", "carl", "bert", "dora"]


@pytest.mark.parametrize("ends", ["not at all", "by itself", "in a crash"])
@simulated()
async def test_a_paused_machine_that_is_restarted_lives(world: World, ends: str) -> None:
    anna, bert = await pair(world)
    if ends == "by itself":
        await bert.stop()
    elif ends == "in a crash":
        world.crash(bert)
    world.pause(bert)
    await world.sleep(3)
    bert = await world.restart(bert)
    ticks: list[float] = []

    async def program() -> None:
        await asyncio.sleep(1)
        ticks.append(world.now)

    world.spawn(bert, program())
    await world.until(lambda: anna.neighbours == [bert.id])
    assert await anna.ping(bert.id) < 1
    await world.sleep(2)
    assert len(ticks) == 1


@simulated(latency=0.01)
async def test_a_sleeping_machine_stands_still(world: World) -> None:
    anna, bert = await pair(world)
    ticks: list[float] = []

    async def program() -> None:
        while True:
            await asyncio.sleep(1)
            ticks.append(world.now)

    world.spawn(bert, program())
    await world.sleep(3.5)
    uptime_s = bert.statistics().uptime_s
    world.pause(bert)
    await anna.send(bert.id, "good night")
    heard = bert.messages()
    await world.sleep(8)
    assert len(ticks) == 3
    assert bert.statistics().uptime_s == uptime_s
    assert len(heard) == 0
    world.resume(bert)
    await world.sleep(1)
    assert len(ticks) == 4
    assert (await anext(heard)).body == "good night"
    assert anna.neighbours == [bert.id]
    world.pause(bert)
    await bert.broadcast("talking in my sleep")
    heard = anna.messages()
    await world.sleep(60)
    assert anna.neighbours == []
    assert len(heard) == 0


@simulated()
async def test_a_crash_ends_what_runs_there(world: World) -> None:
    anna, bert = await pair(world)
    ended: list[str] = []

    async def program(node: Node, peer: PeerId) -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            ended.append("finally")
            await node.send(peer, "nobody hears this")

    heard = anna.messages()
    task = world.spawn(bert, program(bert, anna.id))
    await world.sleep(1)
    world.pause(bert)
    world.crash(bert)
    with pytest.raises((asyncio.CancelledError, NotRunning, Unreachable)):
        await task
    await world.sleep(5)
    assert ended == ["finally"]
    assert len(heard) == 0


@pytest.mark.parametrize("is_paused", [True, False])
@simulated()
async def test_a_crash_ends_the_timers_that_were_set_there(world: World, is_paused: bool) -> None:
    _, bert = await pair(world)
    fired: list[str] = []

    async def program(name: str) -> None:
        loop = asyncio.get_running_loop()

        def again() -> None:
            fired.append(f"{name} {world.now:.1f}")
            loop.call_later(2, again)

        again()
        try:
            await asyncio.sleep(1000)
        finally:
            await asyncio.sleep(1)  # what tidies up may wait
            fired.append(f"{name} ends {world.now - at:g} s later")

    at = world.now
    task = world.spawn(bert, program("bert"))
    world.spawn("anna", program("anna"))
    await world.sleep(3)
    if is_paused:
        world.pause(bert)
    world.crash(bert)
    at = world.now
    await asyncio.wait([task])
    await world.sleep(7)
    ticks = [line.split()[0] for line in fired if "ends" not in line]
    assert (ticks.count("bert"), ticks.count("anna")) == (2, 6)
    assert [line for line in fired if "ends" in line] == ["bert ends 1 s later"]


@simulated()
async def test_names_and_places(world: World) -> None:
    anna, bert = await pair(world)
    assert world.nodes == {"anna": anna, "bert": bert}
    assert (str(anna.address), str(bert.address)) == (
        "tcp://10.0.0.1:55555",
        "tcp://10.0.0.2:55555",
    )
    with pytest.raises(InvalidArgument, match="is in use"):
        await world.start("anna")
    with pytest.raises(InvalidArgument, match="it has: anna, bert"):
        world.crash("carl")
    with pytest.raises(InvalidArgument, match="one machine"):
        world.cut(anna, "anna")
    with pytest.raises(TimedOut, match="within 3 s"):
        await world.until(lambda: False, timeout_s=3)
    await anna.stop()
    assert world.nodes == {"bert": bert}
