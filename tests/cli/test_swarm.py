"""A swarm's pure parts by values; its processes: they come, report, and none is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from meshwalk.cli.swarm import Swarm
from meshwalk.cli.swarm_node import ARRIVALS_MAX, REPORT_PAUSE_S, Deliveries, Reporter
from meshwalk.cli.swarm_views import components, degrees, mutual_links, one_sided_links
from meshwalk.cli.swarm_words import Born, Ended, Frames, Heard, Report, frame
from meshwalk.errors import NotRunning, TimedOut
from meshwalk.events import Delivery
from meshwalk.wire.frames import ContentType
from meshwalk.wire.peerid import PeerId

ORIGIN = PeerId(b"\x01" * 32)
REPORTED = {0: {1, 2}, 1: {0}, 2: {3}, 3: {2}, 4: set[int]()}

PARENT = """
import asyncio
from meshwalk.cli.swarm import Swarm

async def main() -> None:
    async with Swarm() as swarm:
        await swarm.start(4)
        await swarm.stop_reading(2)
        print(*(member.pid for member in swarm.members), flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


# Views.


def test_a_link_counts_when_both_ends_report_it() -> None:
    assert mutual_links(REPORTED, range(5)) == {(0, 1), (2, 3)}
    assert one_sided_links(REPORTED, range(5)) == {(0, 2)}


def test_links_to_nodes_that_are_not_looked_at_do_not_count() -> None:
    assert mutual_links(REPORTED, [1, 2, 3]) == {(2, 3)}
    assert one_sided_links(REPORTED, [0, 1]) == set()


def test_degrees_and_components() -> None:
    links = {(0, 1), (1, 2), (3, 4)}
    assert degrees(links, range(6)) == {0: 1, 1: 2, 2: 1, 3: 1, 4: 1, 5: 0}
    assert components(links, range(6)) == [[0, 1, 2], [3, 4], [5]]
    assert components(set(), []) == []


# Words.


def test_frames_by_the_byte_and_at_once() -> None:
    data = frame(Born(1, 0, 7)) + frame(Ended(1, 0, -9))
    whole = Frames().feed(data)
    frames = Frames()
    assert [body for byte in data for body in frames.feed(bytes([byte]))] == whole
    assert len(whole) == 2


# Counting in the node's process.


class Listener(Reporter):
    """Keeps what would be sent."""

    def __init__(self) -> None:
        self.told: list[Report] = []

    def tell(self, report: Report) -> None:
        self.told.append(report)


def delivery(sequence: int) -> Delivery:
    return Delivery(ORIGIN, "", ContentType.TEXT, is_broadcast=True, topic="0", sequence=sequence)


async def heard(*sequences: int) -> Heard:
    listener = Listener()
    deliveries = Deliveries(listener)
    for sequence in sequences:
        deliveries.add(delivery(sequence))
    await asyncio.sleep(REPORT_PAUSE_S * 2)
    (report,) = listener.told
    assert isinstance(report, Heard)
    return report


async def test_tallies_count_repeats_and_disorder() -> None:
    (tally,) = (await heard(2, 3, 3, 1, 5)).tallies
    assert (tally.first, tally.highest, tally.count) == (2, 5, 4)
    assert (tally.repeated, tally.disordered) == (1, 1)


async def test_a_burst_is_told_as_counts_alone() -> None:
    few = await heard(*range(1, ARRIVALS_MAX + 1))
    assert [arrival.sequence for arrival in few.arrivals] == list(range(1, ARRIVALS_MAX + 1))
    many = await heard(*range(1, 1001))
    assert many.arrivals == []
    assert many.tallies[0].count == 1000


# Processes.


def exists(pid: int) -> bool:
    """Whether there is such a process, or its remains that nobody has reaped."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.processes
@pytest.mark.parametrize("fork", [True, False])
async def test_life_of_a_swarm(fork: bool) -> None:
    before = open_files()
    async with Swarm(fork=fork) as swarm:
        await swarm.start(4)
        assert await swarm.until(swarm.is_settled, 20), swarm.degrees()
        assert swarm.degrees() == dict.fromkeys(range(4), 3)
        pids = [member.pid for member in swarm.members]
        assert all(map(exists, pids))
        sent = await swarm.broadcast(1, "hello")
        wave = swarm.wave(1, sent.first)
        assert await swarm.until(lambda: set(wave.reached) == {0, 2, 3}, 5)
        assert 0 < wave.slowest_s < 5
        told = await swarm.statistics(2)
        assert told.statistics["node"]
        assert 0 <= told.loop_late_s < 5
        await swarm.kill([0, 3])
        assert not exists(pids[0])
        assert swarm.running == [1, 2]
        assert await swarm.until(swarm.is_settled, 5)
        with pytest.raises(NotRunning):
            await swarm.broadcast(0)
        assert list(swarm.complaints) == []
    assert not any(map(exists, pids))
    if sys.platform == "linux":
        assert open_files() <= before


@pytest.mark.processes
async def test_a_node_that_cannot_start_says_why(tmp_path: Path) -> None:
    (tmp_path / "node-0").write_text("a file where a folder should be")
    async with Swarm(data=tmp_path) as swarm:
        with pytest.raises(TimedOut, match="StoreError"):
            await swarm.start(1)


@pytest.mark.processes
@pytest.mark.skipif(sys.platform != "linux", reason="a stopped process cannot see its parent go")
async def test_all_processes_die_with_the_parent() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    try:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert len(pids) == 4
        assert all(map(exists, pids))
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.communicate(timeout=10)
    async with asyncio.timeout(10):
        while any(map(exists, pids)):
            await asyncio.sleep(0.01)
