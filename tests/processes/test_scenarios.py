"""What a network of real processes must survive: kills, a lost entry, a node that holds still,
a restart, a burst. Times are printed; run with `-s` to see them."""

from __future__ import annotations

import statistics
import sys
import time
from functools import partial
from pathlib import Path
from random import Random

import pytest

from meshwalk.cli.swarm import Swarm
from meshwalk.cli.swarm_views import State
from meshwalk.config import Config, LinkConfig

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(sys.platform == "win32", reason="needs fork and its signals"),
]

JOIN_S = 30.0  # design: 50 nodes within 10 s on a quiet machine; tests run beside others
DELIVERY_S = 10.0
LATE_S = 4.0  # less than a ping interval; on a quiet machine it is a few tenths of a second


async def joined(swarm: Swarm, count: int, gap_s: float = 0.0) -> None:
    """Start so many nodes and have them join through the first; print the time without starting."""
    await swarm.launch(count)
    began_at = time.monotonic()
    await swarm.enter(range(1, count), gap_s)
    await settled(swarm, JOIN_S, f"{count} joined, {gap_s:g} s apart", began_at)


async def settled(swarm: Swarm, timeout_s: float, what: str, began_at: float | None = None) -> None:
    """Wait until the running nodes are one network, and print how long it took."""
    began_at = time.monotonic() if began_at is None else began_at
    held = await swarm.until(swarm.is_settled, timeout_s)
    print(f"\n{what}: {time.monotonic() - began_at:.2f} s, degrees {swarm.degrees()}")
    assert held, (swarm.degrees(), swarm.components(), list(swarm.complaints))


async def delays(swarm: Swarm, rng: Random, count: int) -> list[float]:
    """Broadcast from running nodes drawn by lot; all running ones hear it; the slowest of each."""
    found: list[float] = []
    for _ in range(count):
        origin = rng.choice(swarm.running)
        sent = await swarm.broadcast(origin, "a message")
        wave, others = swarm.wave(origin, sent.first), set(swarm.running) - {origin}
        await swarm.until(partial(others.issubset, wave.reached), DELIVERY_S)
        assert others <= set(wave.reached), f"{origin} not heard by {others - set(wave.reached)}"
        found.append(max(wave.reached[index] for index in others) - sent.began_at)
    return found


def assert_nothing_twice(swarm: Swarm) -> None:
    tallies = [tally for member in swarm.members for tally in member.tallies.values()]
    assert tallies
    assert all(tally.repeated == 0 for tally in tallies)
    assert list(swarm.complaints) == []


async def test_fifty_lose_forty_percent_at_once() -> None:
    rng = Random(1)
    async with Swarm() as swarm:
        await joined(swarm, 50, gap_s=0.05)
        assert max(swarm.degrees().values()) <= swarm.config.overlay.links_max
        await swarm.kill(rng.sample(range(50), 20))
        await settled(swarm, 15, "20 of 50 killed, mended")
        found = await delays(swarm, rng, 20)
        print(f"slowest of 20 broadcasts: {max(found) * 1000:.0f} ms")
        for member in swarm.members:
            if member.state is State.RUNNING:
                heard = sum(tally.count for tally in member.tallies.values())
                own = sum(wave.origin == member.index for wave in swarm.waves.values())
                assert heard + own == 20
        assert_nothing_twice(swarm)


async def test_the_entry_is_killed() -> None:
    async with Swarm() as swarm:
        await joined(swarm, 20)
        await swarm.kill([0])
        assert len(swarm.components()) == 1
        await settled(swarm, 15, "entry killed, mended")
        await delays(swarm, Random(2), 5)
        assert_nothing_twice(swarm)


async def test_one_node_holds_still() -> None:
    """Nobody waits for it; it is dropped; and when it goes on, it comes back by itself."""
    rng = Random(3)
    config = Config(link=LinkConfig(ping_interval_s=1.0, idle_timeout_s=3.0))
    async with Swarm(config=config) as swarm:
        await joined(swarm, 12)
        before = statistics.median(await delays(swarm, rng, 30))
        await swarm.stop_reading(5)
        during = statistics.median(await delays(swarm, rng, 30))
        print(
            f"median of the slowest delivery: {before * 1000:.1f} ms, then {during * 1000:.1f} ms"
        )
        assert during < 2
        began_at = time.monotonic()

        def is_dropped() -> bool:
            return not any(5 in swarm.members[index].neighbours for index in swarm.running)

        assert await swarm.until(is_dropped, 15)
        print(f"dropped after {time.monotonic() - began_at:.2f} s")
        await settled(swarm, 15, "the others mended")
        await swarm.resume(5)
        await settled(swarm, 30, "it goes on, and is back")
        await delays(swarm, rng, 10)
        assert_nothing_twice(swarm)


async def test_a_killed_node_comes_back_from_its_store_without_the_entry(tmp_path: Path) -> None:
    async with Swarm(data=tmp_path) as swarm:
        await joined(swarm, 10)
        peer = swarm.members[4].peer
        await swarm.kill([0, 4])
        await settled(swarm, 15, "entry and another killed, mended")
        await swarm.restart(4)
        assert swarm.members[4].peer == peer
        await settled(swarm, 15, "the other restarted, and is back")
        await delays(swarm, Random(4), 10)
        sent = await swarm.broadcast(4, "heard by all, though its count begins again")
        wave = swarm.wave(4, sent.first)
        assert await swarm.until(lambda: len(wave.reached) == 8, DELIVERY_S)
        assert_nothing_twice(swarm)


async def test_ten_thousand_broadcasts_back_to_back() -> None:
    count = 10_000
    async with Swarm() as swarm:
        await joined(swarm, 10)
        began_at = time.monotonic()
        sent = await swarm.broadcast(3, "one of many", count)

        def have_all() -> bool:
            others = (swarm.members[index] for index in range(10) if index != 3)
            return all((3, 0) in m.tallies and m.tallies[3, 0].count == count for m in others)

        held = await swarm.until(have_all, 60)
        took_s = time.monotonic() - began_at
        written_s = sent.ended_at - sent.began_at
        tallies = [m.tallies.get((3, 0)) for m in swarm.members if m.index != 3]
        print(f"\n10,000 written in {written_s:.2f} s, everywhere after {took_s:.2f} s")
        late_s = [(await swarm.statistics(index)).loop_late_s for index in range(10)]
        print(f"longest that a loop kept its timers waiting: {max(late_s):.2f} s")
        assert held, tallies
        for tally in tallies:
            assert tally is not None
            assert (tally.first, tally.highest, tally.disordered) == (1, count, 0)
        # Who is kept from its timers sends no pings, and its peers give it up after 15 s.
        assert max(late_s) < LATE_S
        assert_nothing_twice(swarm)
