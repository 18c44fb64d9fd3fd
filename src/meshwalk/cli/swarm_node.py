"""The process of one node of a swarm: runs a real `Node`, obeys its parent, reports to it.

It ends when its parent's connection ends. Deliveries are counted here and told in summaries, so
that ten thousand of them cost the parent a few hundred frames.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import time
import traceback
from collections.abc import Coroutine
from typing import Any

import msgspec

from meshwalk.cli.swarm_words import (
    Arrival,
    AskStatistics,
    Birth,
    Broadcast,
    Complaint,
    Heard,
    Hello,
    Join,
    Listening,
    Neighbours,
    Order,
    Report,
    Sent,
    Tally,
    Told,
    frame,
    read,
)
from meshwalk.errors import MeshwalkError
from meshwalk.events import Delivery, MessagesDropped, NeighbourDown, NeighbourUp, StoreFailed
from meshwalk.net.loop import run
from meshwalk.net.node import Node

REPORT_PAUSE_S = 0.02  # guess: half a frame of a film; deliveries of a burst meanwhile are joined
ARRIVALS_MAX = 64  # guess: told one by one in a report; more are a burst, where only counts matter
CLOCK_TICK_S = 0.1  # guess: a fiftieth of a node's own ping interval

_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of linux/prctl.h


def die_with_parent() -> None:
    """Have the system kill this process when the one that made it ends, where it can (Linux).

    Elsewhere the end of the parent's connection does it, unless this process is stopped then.
    """
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(_PARENT_DEATH_SIGNAL, int(signal.SIGKILL))


def run_node(birth: Birth) -> int:
    """Run until the parent goes; returns the exit status."""
    # Ctrl-C in a terminal goes to every process of the group; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return run(_run(birth))


class Reporter(logging.Handler):
    """Sends words to the parent; as a log handler, errors of the log too."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        super().__init__(logging.ERROR)
        self._writer = writer

    def tell(self, report: Report) -> None:
        """Send without waiting: reports are few and the parent only reads."""
        if not self._writer.is_closing():
            self._writer.write(frame(report))

    def emit(self, record: logging.LogRecord) -> None:
        self.tell(Complaint(self.format(record)))


class Deliveries:
    """Counts what arrives and tells the parent now and then."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._tallies: dict[tuple[bytes, int], tuple[Tally, set[int]]] = {}
        self._changed: dict[tuple[bytes, int], None] = {}
        self._arrivals: list[Arrival] = []
        self._is_due = False

    def add(self, delivery: Delivery) -> None:
        """Count one; its topic is the origin's run."""
        number = int(delivery.topic)
        key = (bytes(delivery.origin), number)
        tally, seen = self._tallies.setdefault(key, (Tally(key[0], number), set()))
        sequence = delivery.sequence
        if sequence in seen:
            tally.repeated += 1
        else:
            seen.add(sequence)
            tally.count += 1
            tally.first = tally.first or sequence
            tally.disordered += sequence < tally.highest
            tally.highest = max(tally.highest, sequence)
        self._changed[key] = None
        if len(self._arrivals) <= ARRIVALS_MAX:
            arrival = Arrival(key[0], number, sequence, time.monotonic(), delivery.hops)
            self._arrivals.append(arrival)
        if not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_later(REPORT_PAUSE_S, self._tell)

    def _tell(self) -> None:
        tallies = [self._tallies[key][0] for key in self._changed]
        arrivals = self._arrivals if len(self._arrivals) <= ARRIVALS_MAX else []
        self._reporter.tell(Heard(tallies, arrivals))
        self._changed.clear()
        self._arrivals = []
        self._is_due = False


class LateClock:
    """How late the event loop is: its peers see a loop that is held up as a dead node."""

    def __init__(self) -> None:
        self.worst_s = 0.0

    async def watch(self) -> None:
        """Look for ever."""
        while True:
            due = time.monotonic() + CLOCK_TICK_S
            await asyncio.sleep(CLOCK_TICK_S)
            self.worst_s = max(self.worst_s, time.monotonic() - due)


async def _run(birth: Birth) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", birth.port)
    reporter = Reporter(writer)
    reporter.tell(Hello(birth.index, birth.run, birth.token))
    # The event loop logs there what no task or callback has handled.
    for name in ("asyncio", "meshwalk"):
        logging.getLogger(name).addHandler(reporter)
    try:
        return await _serve(birth, reader, reporter)
    except (MeshwalkError, OSError, ExceptionGroup):
        reporter.tell(Complaint(traceback.format_exc()))
        return 1
    finally:
        writer.close()


async def _serve(birth: Birth, reader: asyncio.StreamReader, reporter: Reporter) -> int:
    node = Node(
        network=birth.network,
        secret=birth.secret,
        listen=birth.listen,
        data=birth.data,
        config=birth.config,
    )
    messages, events = node.messages(), node.events()
    async with node:
        reporter.tell(Listening(bytes(node.id), str(node.address)))
        async with asyncio.TaskGroup() as group:
            clock = LateClock()
            watchers = [
                group.create_task(clock.watch()),
                group.create_task(_watch_messages(messages, Deliveries(reporter))),
                group.create_task(_watch_events(node, events, reporter)),
            ]
            await _obey(birth, node, clock, reader, reporter, group)
            for watcher in watchers:
                watcher.cancel()
    return 0


async def _obey(
    birth: Birth,
    node: Node,
    clock: LateClock,
    reader: asyncio.StreamReader,
    reporter: Reporter,
    group: asyncio.TaskGroup,
) -> None:
    """Carry out orders, each in a task, until the parent goes."""
    decoder: msgspec.msgpack.Decoder[Order] = msgspec.msgpack.Decoder(Order)
    while (order := await read(reader, decoder)) is not None:
        work: Coroutine[Any, Any, None]
        if isinstance(order, Join):
            work = _join(node, order, reporter)
        elif isinstance(order, Broadcast):
            work = _broadcast(birth.run, node, order, reporter)
        else:
            _answer(node, order, clock, reporter)
            continue
        group.create_task(work)


async def _join(node: Node, order: Join, reporter: Reporter) -> None:
    try:
        await node.join(order.address)
    except MeshwalkError as error:
        reporter.tell(Complaint(f"join: {error}"))


async def _broadcast(label: int, node: Node, order: Broadcast, reporter: Reporter) -> None:
    began_at, topic = time.monotonic(), str(label)
    first = last = 0
    for _ in range(order.count):
        last = await node.broadcast(order.body, topic)
        first = first or last
    reporter.tell(Sent(order.question, first, last, began_at, time.monotonic()))


def _answer(node: Node, order: AskStatistics, clock: LateClock, reporter: Reporter) -> None:
    statistics = msgspec.to_builtins(node.statistics(), str_keys=True)
    reporter.tell(Told(order.question, statistics, clock.worst_s))


async def _watch_messages(messages: Any, deliveries: Deliveries) -> None:
    async for delivery in messages:
        deliveries.add(delivery)


async def _watch_events(node: Node, events: Any, reporter: Reporter) -> None:
    async for event in events:
        if isinstance(event, NeighbourUp | NeighbourDown):
            parting = str(event) if isinstance(event, NeighbourDown) else ""
            reporter.tell(Neighbours([bytes(peer) for peer in node.neighbours], parting))
        elif isinstance(event, MessagesDropped | StoreFailed):
            reporter.tell(Complaint(str(event)))
