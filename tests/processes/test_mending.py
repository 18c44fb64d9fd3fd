"""Thirty real processes: all are restarted one by one, and their network is cut in halves.

Times are printed; run with `-s` to see them. The cut is made in the transport: see cut.py.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cut import CutNode, components, cut_apart

from meshwalk.config import Config, DetectionConfig, HealingConfig, LinkConfig, ProbingConfig

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(sys.platform == "win32", reason="its loop reads no pipe of another program"),
]

NODES = 30
LINKS_MIN = Config().overlay.links_min
JOIN_S = 60.0  # guess: some seconds on a quiet machine; tests run beside others
APART_S = 5.0  # how long those alive may be in two parts while one of them is restarted
PAUSE_S = 0.05  # between two looks at thirty processes

# Everything that takes its time, ten times as quick, so that minutes are seconds.
HASTY = Config(
    link=LinkConfig(ping_interval_s=1.0, idle_timeout_s=4.0),
    probing=ProbingConfig(interval_s=3.0),
    detection=DetectionConfig(least_s=0.5),
    healing=HealingConfig(beacon_interval_s=1.5, beacon_timeout_s=5.0, pause_s=6.0),
)


class Crowd:
    """Processes that are looked at again and again."""

    def __init__(self, nodes: list[CutNode]) -> None:
        self.nodes = nodes
        self.alive = set(range(len(nodes)))
        self.reports: list[dict[str, Any]] = []
        self.apart_since: float | None = None
        self.longest_apart_s = 0.0

    async def look(self) -> None:
        """Ask all that are alive, and note how long they have been in more than one part."""
        alive = [self.nodes[i] for i in sorted(self.alive)]
        self.reports = list(await asyncio.gather(*(node.say("report") for node in alive)))
        now = time.monotonic()
        if len(self.fragments) <= 1:
            self.apart_since = None
        elif self.apart_since is None:
            self.apart_since = now
        else:
            self.longest_apart_s = max(self.longest_apart_s, now - self.apart_since)

    async def until(self, condition: Callable[[], bool], timeout_s: float) -> float:
        """Look until the condition holds; how long that took."""
        began_at = time.monotonic()
        async with asyncio.timeout(timeout_s):
            while True:
                await self.look()
                if condition():
                    return time.monotonic() - began_at
                await asyncio.sleep(PAUSE_S)

    @property
    def fragments(self) -> list[set[str]]:
        return components(self.reports)

    def is_whole(self) -> bool:
        """One part, and everybody at the minimum."""
        enough = all(len(report["neighbours"]) >= LINKS_MIN for report in self.reports)
        return enough and len(self.fragments) == 1

    def is_linked(self, index: int) -> bool:
        """Whether one node says that it has neighbours."""
        peer = self.nodes[index].peer
        return any(report["neighbours"] for report in self.reports if report["peer"] == peer)

    def count(self, machine: str, what: str) -> int:
        """One of the overlay's counts, of all nodes together."""
        overlays = (report["statistics"]["node"]["overlay"] for report in self.reports)
        return sum(overlay[machine].get(what, 0) for overlay in overlays)

    @property
    def links(self) -> set[frozenset[str]]:
        """Pairs of which one end at least says that it has a link to the other."""
        return {
            frozenset((report["peer"], other))
            for report in self.reports
            for other in report["neighbours"]
        }

    @property
    def given_up(self) -> dict[str, int]:
        """By peer: how many neighbours it has closed the link to because nothing came over it."""
        return {
            report["peer"]: report["statistics"]["node"]["silences"].get("idle", 0)
            for report in self.reports
        }

    @property
    def ended(self) -> Counter[str]:
        """Connections of all nodes that ended, by reason."""
        return sum((Counter(report["ended"]) for report in self.reports), Counter())


@asynccontextmanager
async def crowd(config: Config, data: Path | None = None) -> AsyncIterator[Crowd]:
    """Thirty processes that have joined through the first."""
    folders = [str(data / str(index)) if data is not None else "" for index in range(NODES)]
    found = Crowd([CutNode(config, data=folder) for folder in folders])
    try:
        await asyncio.gather(*(node.start() for node in found.nodes))
        entry = found.nodes[0].address
        await asyncio.gather(*(node.say(f"join {entry}") for node in found.nodes[1:]))
        joined_s = await found.until(found.is_whole, JOIN_S)
        print(f"\n{NODES} joined: {joined_s:.1f} s")
        yield found
    finally:
        await asyncio.gather(*(node.kill() for node in found.nodes))


async def test_all_are_restarted_one_at_a_time(tmp_path: Path) -> None:
    async with crowd(Config(), tmp_path) as found:
        peers = [node.peer for node in found.nodes]
        began_at = time.monotonic()
        for index, node in enumerate(found.nodes):  # the entry first
            found.alive.discard(index)
            await (node.stop() if index % 2 else node.kill())
            await found.look()
            await node.start_again()
            found.alive.add(index)
            await found.until(partial(found.is_linked, index), JOIN_S)
        took_s = time.monotonic() - began_at
        whole_s = await found.until(found.is_whole, JOIN_S)
        print(f"restarted: {took_s:.1f} s; all at the minimum {whole_s:.1f} s after the last")
        print(f"longest in more than one part: {found.longest_apart_s:.2f} s")
        print(f"went back to anchors: {found.count('anchors', 'returned')}")
        assert [node.peer for node in found.nodes] == peers
        assert found.longest_apart_s <= APART_S


async def test_halves_find_each_other_when_the_cable_is_mended() -> None:
    async with crowd(HASTY) as found:
        halves = found.nodes[: NODES // 2], found.nodes[NODES // 2 :]
        sides = [{node.peer for node in half} for half in halves]
        await cut_apart(*halves)

        def is_cut() -> bool:
            enough = all(len(report["neighbours"]) >= LINKS_MIN for report in found.reports)
            return enough and sorted(map(sorted, found.fragments)) == sorted(map(sorted, sides))

        def know_that_they_are_two() -> bool:
            leaders = {
                report["peer"]: report["statistics"]["node"]["overlay"]["leader"]
                for report in found.reports
            }
            return all(leaders[peer] in side for side in sides for peer in side)

        cut_s = await found.until(is_cut, JOIN_S)
        known_s = await found.until(know_that_they_are_two, JOIN_S)
        links, given_up, ended = found.links, found.given_up, found.ended
        began_at = time.monotonic()
        await asyncio.gather(*(node.say("mend") for node in found.nodes))
        await found.until(found.is_whole, JOIN_S)
        whole_s = time.monotonic() - began_at
        bridges = [link for link in found.links if len(link & sides[0]) == 1]
        print(
            f"each half whole after {cut_s:.1f} s, with its own beacon after {known_s:.1f} s more"
        )
        print(f"one network again {whole_s:.1f} s after mending, by {len(bridges)} links")
        # Where more runs than there are cores, somebody is given up though it lives. That is told
        # from a link that was dropped to heal by what its ends have counted.
        silent = {peer for peer, count in found.given_up.items() if count > given_up[peer]}
        dropped = {link for link in links - found.links if not link & silent}
        assert not dropped, f"dropped to heal; ended since: {found.ended - ended}"
        assert found.count("healing", "joined") > 0
