"""Eight machines on a real cable: one moves, two get a second interface, one stands still, and the
cable of one is out for a while. Nobody tells the nodes; they are to notice, and to mend it.

Each machine is a network namespace: see namespaces.py. Times are printed; run with `-s` to see
them. The bounds are wide, for a crowded machine: what is asserted is that it comes about.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import pytest
from cut import CutNode, components
from namespaces import Machine, machines, why_not

from meshwalk.config import Config, DetectionConfig, ExchangeConfig, LinkConfig

_WHY_NOT = why_not() if sys.platform == "linux" else "needs Linux"
pytestmark = [pytest.mark.processes, pytest.mark.skipif(bool(_WHY_NOT), reason=_WHY_NOT)]

NODES = 8
PORT = 7000
LINKS_MIN = Config().overlay.links_min
MENDED_S = 50.0  # guess: a few seconds on a quiet machine; tests run beside others
PAUSE_S = 0.1  # between two looks at eight processes
AWAY_S = 6.0  # longer than a silent link is kept

# The default, but that a silent link is given up after 4 s rather than 15, and that news goes on
# every second rather than every ten. How often a node looks at its addresses is no setting: 10 s.
HASTY = Config(
    link=LinkConfig(ping_interval_s=1.0, idle_timeout_s=4.0),
    detection=DetectionConfig(least_s=0.5),
    exchange=ExchangeConfig(pause_s=1.0, told_per_s=2.0),
)

Report: TypeAlias = dict[str, Any]


class Lan:
    """Machines with a node on each."""

    def __init__(self, machines: list[Machine], nodes: list[CutNode]) -> None:
        self.machines = machines
        self.nodes = nodes
        self.paused: set[int] = set()
        """Those that stand still, and answer nobody."""
        self.reports: dict[int, Report] = {}

    async def look(self) -> None:
        """Ask all that can answer."""
        awake = [index for index in range(len(self.nodes)) if index not in self.paused]
        answers = await asyncio.gather(*(self.nodes[index].say("book") for index in awake))
        self.reports = dict(zip(awake, answers, strict=True))

    async def until(self, condition: Callable[[], bool]) -> float:
        """Look until the condition holds; how long that took."""
        began_at = time.monotonic()
        async with asyncio.timeout(MENDED_S):
            while True:
                await self.look()
                if condition():
                    return time.monotonic() - began_at
                await asyncio.sleep(PAUSE_S)

    def is_whole(self) -> bool:
        """Everybody is at the minimum, and all are one network."""
        enough = all(len(r["neighbours"]) >= LINKS_MIN for r in self.reports.values())
        return enough and len(components(self.reports.values())) == 1

    def is_at_minimum(self, index: int) -> bool:
        """This node has enough neighbours, who say so as well."""
        theirs = self.seen_by(index)
        mine = set(self.reports[index]["neighbours"])
        return len(mine & theirs) >= LINKS_MIN

    def seen_by(self, index: int) -> set[str]:
        """Whose neighbour a node is, by their own word."""
        peer = self.nodes[index].peer
        return {r["peer"] for r in self.reports.values() if peer in r["neighbours"]}

    def addresses(self, index: int) -> set[str]:
        """What a node tells others of itself."""
        return set(self.reports[index]["addresses"])

    def known_at(self, index: int) -> list[set[str]]:
        """Where the others would dial a node, by each one's book."""
        peer = self.nodes[index].peer
        return [set(r["book"].get(peer, ())) for r in self.reports.values() if r["peer"] != peer]

    def count(self, index: int, machine: str, what: str) -> int:
        """One of a node's counts of its overlay."""
        counts = self.reports[index]["statistics"]["node"]["overlay"][machine]
        return int(counts.get(what, 0))


@asynccontextmanager
async def lan(config: Config) -> AsyncIterator[Lan]:
    """Eight nodes that have joined through the first."""
    with machines(NODES) as found:
        listen = f"0.0.0.0:{PORT}"
        nodes = [CutNode(config, listen=listen, within=m.within) for m in found]
        try:
            await asyncio.gather(*(node.start() for node in nodes))
            entry = f"{found[0].host}:{PORT}"
            await asyncio.gather(*(node.say(f"join {entry}") for node in nodes[1:]))
            made = Lan(found, nodes)
            print(f"\n{NODES} joined: {await made.until(made.is_whole):.1f} s")
            yield made
        finally:
            await asyncio.gather(*(node.kill() for node in nodes))


async def test_new_addresses_are_noticed_and_told() -> None:
    async with lan(HASTY) as net:
        moved, two = 5, (6, 7)
        was, to = f"{net.machines[moved].host}:{PORT}", f"10.77.0.105:{PORT}"
        await net.until(lambda: all(known == {was} for known in net.known_at(moved)))
        net.machines[moved].move("10.77.0.105")
        both = {}
        for index in two:
            host = f"10.88.0.{index + 1}"
            both[index] = {f"{net.machines[index].host}:{PORT}", f"{host}:{PORT}"}
            net.machines[index].plug(1, host, net.machines[0])

        async def after(condition: Callable[[], bool], what: str) -> None:
            took_s = await net.until(condition)
            print(f"{what}: {took_s:.1f} s")

        def told(index: int, addresses: set[str]) -> bool:
            here = net.addresses(index) == addresses
            return here and all(known == addresses for known in net.known_at(index))

        await after(
            lambda: told(moved, {to}) and net.is_at_minimum(moved),
            "moved, known to all there and only there, and at the minimum",
        )
        await after(
            lambda: all(told(index, both[index]) for index in two),
            "both addresses of two known to all, after that",
        )
        assert net.count(two[0], "exchange", "announced") >= 1
        await after(net.is_whole, "all at the minimum, after that")


async def test_whoever_was_away_comes_back_by_itself() -> None:
    async with lan(HASTY) as net:
        stopped, out = 4, 3
        net.nodes[stopped].signal(signal.SIGSTOP)
        net.paused.add(stopped)
        dropped_s = await net.until(lambda: not net.seen_by(stopped))
        await asyncio.sleep(AWAY_S - min(AWAY_S, dropped_s))
        net.nodes[stopped].signal(signal.SIGCONT)
        net.paused.clear()
        back_s = await net.until(lambda: net.is_at_minimum(stopped))
        print(f"stood still: dropped by all after {dropped_s:.1f} s, back {back_s:.1f} s after it")

        started = net.count(out, "own_walks", "started")
        net.machines[out].unplug()
        dropped_s = await net.until(
            lambda: not net.seen_by(out) and not net.reports[out]["neighbours"]
        )
        await asyncio.sleep(AWAY_S - min(AWAY_S, dropped_s))
        net.machines[out].plug_again()
        back_s = await net.until(lambda: net.is_at_minimum(out))
        walks = net.count(out, "own_walks", "started") - started
        print(f"cable out: dropped by all after {dropped_s:.1f} s, back {back_s:.1f} s after it")
        print(f"walks {walks}, back to anchors {net.count(out, 'anchors', 'returned')}")
        assert walks > 0
        print(f"all at the minimum: {await net.until(net.is_whole):.1f} s after that")
