"""`meshwalk chat`: talk to everyone in a network, at a terminal or through pipes."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Final

from meshwalk.cli.chat_pipes import Pipes
from meshwalk.cli.chat_rooms import is_possible, room_of
from meshwalk.cli.chat_session import Screen, Session, failure_status
from meshwalk.cli.options import NodeOptions, default_data_folder, make_node
from meshwalk.cli.render import error_line
from meshwalk.errors import MeshwalkError, StoreInUse
from meshwalk.net.node import Node

# The exit status after each signal, as main.py lists them: whoever sends the last two wants an end,
# and the end is a good one; 130 is what shells report for Ctrl-C. SIGHUP is missing on Windows.
_SIGNALS: Final = {"SIGINT": 130, "SIGTERM": 0, "SIGHUP": 0}


async def chat(options: NodeOptions, entry: str | None, room: str = "") -> int:
    """Run a node and chat until the input ends, a command, or a signal: the exit status.

    0: left as asked, and every line was handed on. 1: the node could not start or join, or some
    piped line was not sent; one line says why. 2: the entry or an option can never work. 130:
    interrupted from the keyboard. Links are closed in good order in every case.
    """
    ending = _Ending()
    room = room_of(room)
    async with _screen(ending) as screen:
        if not is_possible(room) or any(map(str.isspace, room)):
            await screen.problem("no room can have this name")
            return 2
        try:
            async with _node(options, screen) as node:
                session = Session(node, screen, bool(options.secret), room)
                return await _converse(session, entry, ending)
        except MeshwalkError as error:
            await screen.problem(error_line(error))
            return failure_status(error)


class _Ending:
    """Ends a task early, from a signal or because nobody reads; keeps the status for that."""

    def __init__(self) -> None:
        self.status: int | None = None
        self.task: asyncio.Task[int] | None = None

    def end(self, status: int) -> None:
        if self.status is None:
            self.status = status
        if self.task is not None:
            self.task.cancel()


async def _converse(session: Session, entry: str | None, ending: _Ending) -> int:
    async with asyncio.TaskGroup() as group:
        shown = [
            group.create_task(session.show_messages()),
            group.create_task(session.show_news()),
        ]
        ending.task = talk = group.create_task(session.talk(entry))
        if ending.status is not None:
            talk.cancel()
        await asyncio.wait([talk])
        for task in shown:
            task.cancel()
    if not talk.cancelled():
        return talk.result()
    return ending.status or 0


@contextlib.asynccontextmanager
async def _node(options: NodeOptions, screen: Screen) -> AsyncIterator[Node]:
    node = make_node(options)
    try:
        await node.start()
    except StoreInUse:
        if options.data != default_data_folder():
            raise
        # A second terminal is enough to see a network; it cannot be the same peer twice.
        node = make_node(options, is_passing=True)
        await node.start()
        await screen.news("another program is using your identity; this chat has a passing one")
    try:
        yield node
    finally:
        await node.stop()


@contextlib.asynccontextmanager
async def _screen(ending: _Ending) -> AsyncIterator[Screen]:
    with _signals(ending.end):
        if _is_terminal():
            # Imported here, because a script need not wait for it: 0.2 s.
            from meshwalk.cli.chat_terminal import Terminal

            with Terminal() as terminal:
                yield terminal
            return
        pipes = Pipes(on_broken=lambda: ending.end(0))
        try:
            yield pipes
        finally:
            pipes.close()


def _is_terminal() -> bool:
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout))


@contextlib.contextmanager
def _signals(end: Callable[[int], None]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    installed: list[int] = []
    # NotImplementedError: Windows; RuntimeError and ValueError: not in the main thread.
    with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
        for name, status in _SIGNALS.items():
            if (number := getattr(signal, name, None)) is not None:
                loop.add_signal_handler(number, end, status)
                installed.append(number)
    try:
        yield
    finally:
        for number in installed:
            loop.remove_signal_handler(number)
