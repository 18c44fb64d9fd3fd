"""What `meshwalk demo` does: a run with real processes, its claims, and the scene at any moment."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from copy import copy
from functools import partial
from random import Random

import msgspec

from meshwalk.cli.demo_view import Claim, NodeState, Phase, PhaseState, Scene, duration
from meshwalk.cli.swarm import Swarm, Wave
from meshwalk.cli.swarm_node import REPORT_PAUSE_S
from meshwalk.cli.swarm_views import State

JOIN_GAP_S = 0.05  # as seed 000 was measured: one newcomer every 50 ms
BROADCASTS = 10  # enough to see a miss
JOIN_TIMEOUT_S = 30.0  # guess: ten times what 100 nodes need
MEND_TIMEOUT_S = 30.0  # guess: one pause of the longest kind between tries
DELIVERY_TIMEOUT_S = 5.0  # guess: a thousand times what it takes
LOOK_S = 0.25  # between two steps, so that people see them; no pause when nobody watches
LOOK_LONG_S = 1.0  # before and after the nodes are killed
NEWS_MAX = 100  # more than any screen shows


class Summary(msgspec.Struct, frozen=True):
    """What `--json` prints."""

    ok: bool
    nodes: int
    killed: int
    seed: int
    seconds: float
    claims: list[Claim]
    complaints: list[str]


class Performance:
    """One run of the demonstration: its steps, its claims, and the scene at any moment."""

    def __init__(self, nodes: int, kill_percent: int, seed: int) -> None:
        self.nodes = nodes
        self.kill_count = min(nodes - 1, round(nodes * kill_percent / 100))
        self.seed = seed
        self.pace = 0.0
        """Factor of the pauses for the eye; 0 when nobody watches."""
        self.on_news: Callable[[str], None] = lambda line: None
        self.claims: list[Claim] = []
        self.swarm = Swarm()
        self._phases: list[Phase] = []
        self._news: deque[str] = deque(maxlen=NEWS_MAX)
        self._rng = Random(seed)
        self._began_at = time.monotonic()
        self._paused_s = 0.0
        """In this phase, for the eye: not counted as its time."""
        self._wave: Wave | None = None
        self._up_since: dict[tuple[int, int], float] = {}
        self._lost_at: dict[tuple[int, int], float] = {}
        self._final: Scene | None = None

    async def run(self) -> Summary:
        """All phases in turn. Raises `TimedOut` when the processes do not start."""
        self._began_at = time.monotonic()
        steps: list[tuple[str, Callable[[], Awaitable[bool]]]] = [
            (f"start {self.nodes} processes", self._start),
            ("join through one", self._join),
            (f"{BROADCASTS} broadcasts", self._talk),
            (f"kill {self.kill_count} at once", self._kill),
            ("mend", self._mend),
            (f"{BROADCASTS} more broadcasts", self._talk),
        ]
        self._phases = [Phase(title) for title, _ in steps]
        async with self.swarm:
            for phase, (_, step) in zip(self._phases, steps, strict=True):
                phase.state = PhaseState.RUNNING
                began_at, self._paused_s = time.monotonic(), 0.0
                held = await step()
                phase.seconds = max(0.0, time.monotonic() - began_at - self._paused_s)
                phase.state = PhaseState.OK if held else PhaseState.FAILED
            complaints = list(self.swarm.complaints)
            self._claim(
                "no node complains", "0 errors", f"{len(complaints)} errors", not complaints
            )
            self._final = self.scene()
        return Summary(
            ok=all(claim.ok for claim in self.claims),
            nodes=self.nodes,
            killed=self.kill_count,
            seed=self.seed,
            seconds=round(self._final.seconds, 2),
            claims=self.claims,
            complaints=complaints,
        )

    def scene(self) -> Scene:
        """How things stand now; after the end, how they stood last."""
        if self._final is not None:
            return self._final
        now, swarm = time.monotonic(), self.swarm
        links = swarm.links()
        self._note_links(links, now)
        degrees = swarm.degrees()
        nodes = [NodeState.WAITING] * self.nodes
        for member in swarm.members:
            if member.state is State.ENDED:
                nodes[member.index] = NodeState.KILLED
            elif member.state is State.RUNNING:
                enough = degrees[member.index] >= max(1, swarm.links_wanted)
                nodes[member.index] = NodeState.ENOUGH if enough else NodeState.SHORT
        wave, overlay = self._wave, swarm.config.overlay
        return Scene(
            nodes=nodes,
            links={link: now - self._up_since[link] for link in links},
            lost={link: now - at for link, at in self._lost_at.items()},
            flashes={i: now - at for i, at in wave.reached.items()} if wave is not None else {},
            source=wave.origin if wave is not None else None,
            phases=list(map(copy, self._phases)),
            components=[len(part) for part in swarm.components()],
            links_min=overlay.links_min,
            links_max=overlay.links_max,
            broadcast=self._broadcast_line(),
            news=list(self._news),
            seconds=now - self._began_at,
        )

    # Phases. Each tells whether its claims held.

    async def _start(self) -> bool:
        began_at = time.monotonic()
        await self.swarm.launch(self.nodes)
        took_s = time.monotonic() - began_at
        self._tell(f"{self.nodes} processes listen on ports of their own after {took_s:.2f} s")
        return True

    async def _join(self) -> bool:
        began_at = time.monotonic()
        await self.swarm.enter(range(1, self.nodes), JOIN_GAP_S)
        held = await self._settle(f"{self.nodes} nodes join by one", JOIN_TIMEOUT_S, began_at)
        degrees = self.swarm.degrees()
        most, limit = max(degrees.values()), self.swarm.config.overlay.links_max
        seen = f"{most}; the entry {degrees[0]}"
        within = self._claim("nobody is overloaded", f"{limit} links at most", seen, most <= limit)
        await self._pause(LOOK_LONG_S)
        return held and within

    async def _talk(self) -> bool:
        """Broadcast from nodes drawn by lot: everyone else hears everything once."""
        swarm, hearers = self.swarm, self.swarm.running
        repeated_before = self._repeated()
        wanted, reached, slowest_s = BROADCASTS * (len(hearers) - 1), 0, 0.0
        for number in range(BROADCASTS):
            origin = self._rng.choice(hearers)
            sent = await swarm.broadcast(origin, f"broadcast {number + 1}")
            wave = self._wave = swarm.wave(origin, sent.first)
            others = set(hearers) - {origin}
            await swarm.until(partial(others.issubset, wave.reached), DELIVERY_TIMEOUT_S)
            reached += len(wave.reached)
            slowest_s = max(slowest_s, wave.slowest_s)
            await self._pause(LOOK_S)
        # A copy that came too often would have come by now, and its report with it.
        await asyncio.sleep(REPORT_PAUSE_S * 2)
        repeated = self._repeated() - repeated_before
        return self._claim(
            f"{BROADCASTS} {'more' if self._killed else 'broadcasts'} reach all",
            f"{wanted}, none twice",
            f"{reached}, {repeated} twice",
            reached == wanted and repeated == 0,
            slowest_s,
        )

    async def _kill(self) -> bool:
        await self._pause(LOOK_LONG_S)
        victims = sorted(self._rng.sample(range(self.nodes), self.kill_count))
        self._wave = None
        await self.swarm.kill(victims)
        entry = ", the entry among them" if 0 in victims else ""
        self._tell(f"{len(victims)} processes killed with SIGKILL{entry}")
        return True

    async def _mend(self) -> bool:
        left = len(self.swarm.running)
        claim = f"the {left} nodes left mend" if left > 1 else "one node is left"
        if not self.kill_count:
            claim = "nobody was killed"
        held = await self._settle(claim, MEND_TIMEOUT_S, time.monotonic())
        await self._pause(LOOK_LONG_S)
        return held

    # Steps.

    async def _settle(self, claim: str, timeout_s: float, began_at: float) -> bool:
        swarm = self.swarm
        held = await swarm.until(swarm.is_settled, timeout_s)
        took_s = time.monotonic() - began_at
        pieces, least = len(swarm.components()), min(swarm.degrees().values())
        wanted = f"1 piece, {swarm.links_wanted}+ links"
        seen = f"{pieces} piece{'s' * (pieces != 1)}, {least}+ links"
        return self._claim(claim, wanted, seen, held, took_s)

    def _claim(
        self, claim: str, wanted: str, seen: str, ok: bool, seconds: float | None = None
    ) -> bool:
        took = f" in {duration(seconds)}" if seconds is not None else ""
        self.claims.append(Claim(claim, wanted, seen, ok, seconds))
        self._tell(f"{'ok' if ok else 'FAILED'}: {claim}: {seen}{took}")
        return ok

    def _tell(self, text: str) -> None:
        line = f"{time.monotonic() - self._began_at:5.2f} s  {text}"
        self._news.append(line)
        self.on_news(line)

    async def _pause(self, seconds: float) -> None:
        if self.pace:
            await asyncio.sleep(seconds * self.pace)
            self._paused_s += seconds * self.pace

    @property
    def _killed(self) -> bool:
        return any(member.state is State.ENDED for member in self.swarm.members)

    def _repeated(self) -> int:
        return sum(tally.repeated for m in self.swarm.members for tally in m.tallies.values())

    def _broadcast_line(self) -> str:
        wave = self._wave
        if wave is None:
            return ""
        others = len(self.swarm.running) - 1
        return f"{len(wave.reached)} of {others} in {duration(wave.slowest_s)}"

    def _note_links(self, links: set[tuple[int, int]], now: float) -> None:
        for link in links - self._up_since.keys():
            self._up_since[link] = now
            self._lost_at.pop(link, None)
        for link in self._up_since.keys() - links:
            del self._up_since[link]
            self._lost_at[link] = now
