"""`Swarm`: many real node processes on this machine, each with its own listener, and one parent.

    async with Swarm() as swarm:
        await swarm.start(50)                            # 50 processes; 49 join through the first
        assert await swarm.until(swarm.is_settled, 30)
        await swarm.kill([3, 14, 15])
        await swarm.broadcast(0, "still there?")

The members' state is what their processes have reported: a few milliseconds old, never asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Self, cast

import msgspec

from meshwalk.cli import swarm_views as views
from meshwalk.cli.swarm_nursery import Nursery, open_nursery
from meshwalk.cli.swarm_views import Member, State
from meshwalk.cli.swarm_words import (
    AskStatistics,
    Birth,
    Born,
    Broadcast,
    Complaint,
    Ended,
    Heard,
    Hello,
    Join,
    Listening,
    Neighbours,
    NurseryReport,
    Order,
    Report,
    Sent,
    Told,
    frame,
    read,
)
from meshwalk.config import Config
from meshwalk.errors import Closed, NotRunning, TimedOut

START_TIMEOUT_S = 60.0  # guess: 100 forks take 3 s; a crowded machine may need many times that
ANSWER_TIMEOUT_S = 10.0  # as a node's own requests
COMPLAINTS_MAX = 200  # guess: the first ones tell the story
TOKEN_BYTES = 16  # nobody guesses 128 bits
BACKLOG = 1024  # more than processes that connect at once
WAVES_MAX = 1000  # broadcasts whose arrivals are remembered one by one; guess, 1 MB for 50 nodes


class Wave(msgspec.Struct):
    """One broadcast as seen from above."""

    origin: int
    run: int
    sequence: int
    sent_at: float | None = None
    """None until its origin has reported, which arrivals may overtake."""
    reached: dict[int, float] = {}
    """When it came to each node, by index."""
    hops: int = 0
    """Most links crossed."""

    @property
    def slowest_s(self) -> float:
        """From the call of `broadcast` to the last arrival so far."""
        if self.sent_at is None or not self.reached:
            return 0.0
        return max(self.reached.values()) - self.sent_at


class Swarm:
    """Node processes and what is known of them; an async context manager that leaves none behind.

    `data`: a folder where each node keeps its own store; None: in memory, and a node that is
    restarted is somebody else. `fork`: see `open_nursery`.
    """

    def __init__(
        self,
        *,
        config: Config | None = None,
        network: str = "swarm",
        secret: bytes | None = None,
        data: Path | None = None,
        fork: bool = hasattr(os, "fork"),
    ) -> None:
        self.config = config or Config()
        self.members: list[Member] = []
        self.complaints: deque[str] = deque(maxlen=COMPLAINTS_MAX)
        """What ought not to happen: unhandled exceptions, errors in logs, joins that failed."""
        self.waves: dict[tuple[int, int, int], Wave] = {}
        """The last broadcasts by origin, run and number."""
        self._network = network
        # Of its own, so that two swarms on one machine never meet.
        self._secret = os.urandom(TOKEN_BYTES) if secret is None else secret
        self._data = data
        self._fork = fork
        self._token = os.urandom(TOKEN_BYTES)
        self._by_peer: dict[bytes, int] = {}
        self._writers: dict[int, asyncio.StreamWriter] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._questions: dict[int, tuple[int, asyncio.Future[Any]]] = {}
        """Orders that wait for their report: the node, and who waits."""
        self._question = 0
        self._server: asyncio.Server | None = None
        self._nursery: Nursery | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0, backlog=BACKLOG)
        try:
            self._nursery = await open_nursery(self._nursery_says, self._complain, self._fork)
        except BaseException:
            self._server.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        # Not to be cut short: a second Ctrl-C must not leave processes behind.
        if self._nursery is not None:
            await asyncio.shield(self._nursery.close())
        for writer in self._writers.values():
            writer.close()
        if self._tasks:  # they end by themselves, now that nobody is at the other end
            done_and_late = await asyncio.wait(self._tasks, timeout=ANSWER_TIMEOUT_S)
            for task in done_and_late[1]:
                task.cancel()
        for member in self.members:
            if member.is_running:
                member.state = State.ENDED

    # Deeds.

    async def start(self, count: int, *, through_entry: bool = True, gap_s: float = 0.0) -> None:
        """Make `count` more nodes; when all listen, all but the swarm's first join through it.

        `gap_s` lies between two joins. Returns when the joins are ordered, not when they are done.
        Raises `TimedOut` when the processes do not come up.
        """
        fresh = await self.launch(count)
        if through_entry:
            await self.enter([index for index in fresh if index != 0], gap_s)

    async def launch(self, count: int) -> list[int]:
        """Make `count` more nodes and wait until they listen; they join nobody yet."""
        fresh = list(range(len(self.members), len(self.members) + count))
        for index in fresh:
            self.members.append(Member(index))
            await self._bear(self.members[index])
        await self._until_up(fresh)
        return fresh

    async def enter(self, indices: Iterable[int], gap_s: float = 0.0, through: int = 0) -> None:
        """Have nodes join through node `through`, in this order."""
        order = Join(self.members[through].address)
        began_at = time.monotonic()
        for number, index in enumerate(indices):
            pause_s = began_at + number * gap_s - time.monotonic()
            if pause_s > 0:
                await asyncio.sleep(pause_s)
            self._say(index, order)

    async def kill(self, indices: Iterable[int]) -> None:
        """SIGKILL these at once; returns when the processes have ended and were reaped."""
        number = signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM
        await self._signal(indices, number, State.ENDED)

    async def stop_reading(self, index: int) -> None:
        """SIGSTOP: the process holds still, and its sockets stay open."""
        await self._signal([index], signal.SIGSTOP, State.STOPPED)

    async def resume(self, index: int) -> None:
        """SIGCONT, after `stop_reading`."""
        await self._signal([index], signal.SIGCONT, State.RUNNING)

    async def restart(self, index: int) -> None:
        """Start an ended node again from its own store, with nobody to join through but its past.

        Returns when it listens.
        """
        member = self.members[index]
        if member.is_running:
            raise NotRunning(f"node {index} runs; kill it before it is restarted")
        member.born_again()
        await self._bear(member)
        await self._until_up([index])

    async def broadcast(self, index: int, body: str = "", count: int = 1) -> Sent:
        """Have a node broadcast `count` times back to back; returns when all are written.

        Waits as long as the node does. Raises `Closed` when its process ends first.
        """
        return cast("Sent", await self._ask(index, lambda q: Broadcast(q, body, count)))

    async def statistics(self, index: int, timeout_s: float = ANSWER_TIMEOUT_S) -> Told:
        """A node's `Node.statistics()` as plain values. Raises `TimedOut` or `Closed`."""
        try:
            async with asyncio.timeout(timeout_s):
                return cast("Told", await self._ask(index, AskStatistics))
        except TimeoutError:
            raise TimedOut(f"node {index} did not answer within {timeout_s:g} s") from None

    async def until(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until `condition` holds, looking again after every report; false when time is up."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
                return True
        return condition()

    # Views.

    @property
    def running(self) -> list[int]:
        """Nodes that run and read."""
        return [m.index for m in self.members if m.state is State.RUNNING]

    def links(self, among: Iterable[int] | None = None) -> set[tuple[int, int]]:
        """Links that both ends report, smaller index first; among the running nodes by default."""
        return views.mutual_links(self._reported(), self.running if among is None else among)

    def one_sided(self) -> set[tuple[int, int]]:
        """Links that only the first of the two reports."""
        return views.one_sided_links(self._reported(), self.running)

    def degrees(self) -> dict[int, int]:
        """How many links each running node has to other running ones."""
        return views.degrees(self.links(), self.running)

    def components(self) -> list[list[int]]:
        """The running nodes' fragments, largest first."""
        return views.components(self.links(), self.running)

    @property
    def links_wanted(self) -> int:
        """The least number of links a node should have, now that so many run."""
        return max(0, min(self.config.overlay.links_min, len(self.running) - 1))

    def is_settled(self) -> bool:
        """Whether the running nodes are in one piece and every one has links enough."""
        degrees = self.degrees()
        wanted = self.links_wanted
        if any(degree < wanted for degree in degrees.values()):
            return False
        return len(self.components()) <= 1

    def wave(self, index: int, sequence: int) -> Wave:
        """A broadcast by its origin's present run and its number."""
        member = self.members[index]
        key = (index, member.run, sequence)
        wave = self.waves.get(key)
        if wave is None:
            wave = self.waves[key] = Wave(index, member.run, sequence, None, {})
            while len(self.waves) > WAVES_MAX:
                del self.waves[next(iter(self.waves))]
        return wave

    # Steps.

    async def _bear(self, member: Member) -> None:
        assert self._server is not None
        assert self._nursery is not None
        folder = self._data / f"node-{member.index}" if self._data is not None else None
        await self._nursery.start(
            Birth(
                index=member.index,
                run=member.run,
                port=self._server.sockets[0].getsockname()[1],
                token=self._token,
                network=self._network,
                secret=self._secret,
                config=self.config,
                data=str(folder) if folder is not None else None,
            )
        )

    async def _until_up(self, indices: list[int]) -> None:
        def all_up_or_one_ended() -> bool:
            states = {self.members[index].state for index in indices}
            return State.STARTING not in states or State.ENDED in states

        await self.until(all_up_or_one_ended, START_TIMEOUT_S)
        missing = [i for i in indices if self.members[i].state is not State.RUNNING]
        if missing:
            why = "\n".join(self.complaints) or f"nothing heard within {START_TIMEOUT_S:g} s"
            raise TimedOut(f"{len(missing)} node processes did not come up: {why}")

    async def _signal(self, indices: Iterable[int], number: int, then: State) -> None:
        assert self._nursery is not None
        chosen = [index for index in indices if self.members[index].is_running]
        await self._nursery.signal(chosen, number)
        if then is State.ENDED:
            ended = await self.until(
                lambda: not any(self.members[index].is_running for index in chosen),
                ANSWER_TIMEOUT_S,
            )
            if not ended:
                raise TimedOut("killed processes have not ended")
        for index in chosen:
            self.members[index].state = then
        self._changed.set()

    async def _ask(self, index: int, order: Callable[[int], Order]) -> Report:
        """Give an order that is answered, and wait for the answer."""
        self._question += 1
        question = self._question
        waiter: asyncio.Future[Report] = asyncio.get_running_loop().create_future()
        self._questions[question] = index, waiter
        try:
            self._say(index, order(question))
            return await waiter
        finally:
            del self._questions[question]

    def _answered(self, question: int, report: Report) -> None:
        asked = self._questions.get(question)
        if asked is not None and not asked[1].done():
            asked[1].set_result(report)

    def _say(self, index: int, order: Order) -> None:
        writer = self._writers.get(index)
        if writer is None or writer.is_closing():
            raise NotRunning(f"node {index} does not run")
        writer.write(frame(order))

    def _complain(self, text: str) -> None:
        self.complaints.append(text)
        self._changed.set()

    def _nursery_says(self, report: NurseryReport) -> None:
        member = self.members[report.index]
        if report.run != member.run:
            return
        if isinstance(report, Born):
            member.pid = report.pid
        elif isinstance(report, Ended):
            if report.status not in (0, -signal.SIGKILL):
                self._complain(f"node {report.index} ended with status {report.status}")
            member.state = State.ENDED
            member.neighbours = set()
            for index, waiter in self._questions.values():
                if index == report.index and not waiter.done():
                    waiter.set_exception(Closed(f"node {report.index} has ended"))
        self._changed.set()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A node process has connected: read its reports until it ends."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        decoder: msgspec.msgpack.Decoder[Report] = msgspec.msgpack.Decoder(Report)
        try:
            hello = await read(reader, decoder)
            if not isinstance(hello, Hello) or hello.token != self._token:
                return  # some other program of this machine
            member = self.members[hello.index]
            self._writers[member.index] = writer
            while (report := await read(reader, decoder)) is not None:
                if hello.run == member.run and member.is_running:
                    self._node_says(member, report)
                    self._changed.set()
        finally:
            writer.close()
            self._tasks.discard(task)

    def _node_says(self, member: Member, report: Report) -> None:
        if isinstance(report, Neighbours):
            if report.parting:
                member.note_parting(report.parting)
            known = (self._by_peer.get(peer) for peer in report.peers)
            member.neighbours = {index for index in known if index is not None}
        elif isinstance(report, Heard):
            self._note_arrivals(member, report)
        elif isinstance(report, Sent):
            if report.first == report.last:
                self.wave(member.index, report.first).sent_at = report.began_at
            self._answered(report.question, report)
        elif isinstance(report, Listening):
            member.peer, member.address = report.peer, report.address
            self._by_peer[report.peer] = member.index
            member.state = State.RUNNING
        elif isinstance(report, Told):
            self._answered(report.question, report)
        elif isinstance(report, Complaint):
            self._complain(f"node {member.index}: {report.text}")

    def _note_arrivals(self, member: Member, report: Heard) -> None:
        for tally in report.tallies:
            origin = self._by_peer.get(tally.origin)
            if origin is not None:
                member.tallies[origin, tally.run] = tally
        for arrival in report.arrivals:
            origin = self._by_peer.get(arrival.origin)
            if origin is not None and arrival.run == self.members[origin].run:
                wave = self.wave(origin, arrival.sequence)
                wave.reached.setdefault(member.index, arrival.at)
                wave.hops = max(wave.hops, arrival.hops)

    def _reported(self) -> dict[int, set[int]]:
        return {member.index: member.neighbours for member in self.members}
