"""`meshwalk up`: a node without a prompt, until a signal or `meshwalk stop` ends it.

On stdout: who the node is, then a line that begins with "ready", which scripts can wait for, then
a line per event. With `quiet` only "ready". Stopping politely, however asked, is success.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from meshwalk.cli.options import NodeOptions, make_node
from meshwalk.cli.render import printable
from meshwalk.cli.up_news import UpNews
from meshwalk.errors import InvalidArgument, MeshwalkError, NotAdmitted, Unreachable
from meshwalk.events import Event
from meshwalk.net.control import Control, is_supported
from meshwalk.net.node import Node
from meshwalk.net.subscription import Subscription
from meshwalk.proto.recording import Write
from meshwalk.trace import TraceWriter
from meshwalk.wire.address import INVITE_CHARACTERS_MAX, Address, Invite, encode_network_name

LINE_CHARACTERS_MAX = INVITE_CHARACTERS_MAX + 100  # the longest thing shown, and its name
SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")  # Ctrl-C, a supervisor, a terminal that closes


async def up(
    options: NodeOptions, entries: Sequence[str], *, quiet: bool, trace: Path | None = None
) -> int:
    """Run a node until it is stopped, recorded to the file `trace` if one is given; the exit code.

    Entries are tried in the background, again and again. Raises what trying again cannot mend:
    `InvalidArgument`, `NotAdmitted` when no entry lets the node in, `AddressInUse`, `StoreError`.
    When the node does not get as far as "ready", no trace stays behind: the next try may have its
    name. A defect's trace stays.
    """
    for entry in entries:
        _check(entry, options.network)
    say = _say_nothing if quiet else _say
    stopping = asyncio.Event()
    with _signals(stopping.set), _recorded(trace) as recording:
        node = make_node(options)
        node.trace = recording.write
        await node.start()
        control = Control(node, options.data, stopping.set)
        try:
            events = node.events()  # from before the first join, so that none goes by unheard
            path = str(await control.start()) if is_supported() else "none on this system yet"
            recording.is_wanted = True
            if quiet:
                _print("ready")
            else:
                _introduce(node, path)
            await _run(node, entries, events, stopping, say)
        finally:
            await node.stop()
            await control.close()
    say("stopped")
    return 0


class _Recording:
    """What a node writes its trace with, if it does, and whether there is anything to keep."""

    def __init__(self, write: Write | None) -> None:
        self.write = write
        self.is_wanted = False


@contextmanager
def _recorded(path: Path | None) -> Iterator[_Recording]:
    if path is None:
        yield _Recording(None)
        return
    with TraceWriter(path) as writer:
        recording = _Recording(writer.write)
        try:
            yield recording
        except (MeshwalkError, OSError, asyncio.CancelledError):
            if not recording.is_wanted:
                writer.discard()
            raise


async def _run(
    node: Node,
    entries: Sequence[str],
    events: Subscription[Event],
    stopping: asyncio.Event,
    say: Callable[[str], None],
) -> None:
    """Return when told to stop; raise when joining is vain."""
    tasks = {
        asyncio.create_task(_tell(events, say)),
        asyncio.create_task(_enter(node, entries, say)),
        asyncio.create_task(_until(stopping)),
    }
    waiting = tasks
    try:
        while not stopping.is_set():
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _until(stopping: asyncio.Event) -> None:
    await stopping.wait()


# Joining.


async def _enter(node: Node, entries: Sequence[str], say: Callable[[str], None]) -> None:
    """Join through every entry; raise when each has refused for good and nobody is linked."""
    results = await asyncio.gather(*(_join(node, entry) for entry in entries))
    refusals = [error for error in results if error is not None]
    if refusals and len(refusals) == len(entries) and not node.neighbours:
        raise refusals[0]
    for entry, error in zip(entries, results, strict=True):
        if error is not None:
            say(f"cannot join through {entry}: {error}")


async def _join(node: Node, entry: str) -> NotAdmitted | InvalidArgument | None:
    """Try until it works, or until trying again is vain: then the reason."""
    while True:
        try:
            await node.join(entry)
        except Unreachable:
            continue  # `join` itself has paused between its tries
        except (NotAdmitted, InvalidArgument) as error:
            return error
        return None


def _check(entry: str, network: str) -> None:
    """Raise before anything is started what `Node.join` would raise at once."""
    if not entry.strip().startswith("meshwalk:"):
        Address.parse(entry)
        return
    wanted = Invite.parse(entry).network
    if encode_network_name(wanted) != encode_network_name(network):
        raise InvalidArgument(
            f"an invite is for the network {wanted!r}, and this node is for {network!r};"
            f" run another node for it, with --network"
        )


# Telling.


def _introduce(node: Node, control: str) -> None:
    network = node.network
    access = "open: no secret" if network.is_open else "with a secret"
    for name, value in (
        ("node", node.id.text),
        ("network", f"{network.name} ({access})"),
        ("listening", str(node.address)),
        ("control", control),
        ("invite", node.invite),
    ):
        _print(f"{name:<9}  {value}")
    _print("ready; stop with Ctrl-C or `meshwalk stop`")


async def _tell(events: Subscription[Event], say: Callable[[str], None]) -> None:
    """A line for each event of interest."""
    loop, news = asyncio.get_running_loop(), UpNews()
    timer: asyncio.TimerHandle | None = None

    def tell_what_is_due() -> None:
        for line in news.tick(loop.time()):
            say(line)

    try:
        async for event in events:
            for line in news.feed(event, loop.time()):
                say(line)
            if timer is not None:
                timer.cancel()
            at = news.deadline()
            timer = loop.call_at(at, tell_what_is_due) if at is not None else None
    finally:
        if timer is not None:
            timer.cancel()


def _say(line: str) -> None:
    _print(f"{time.strftime('%H:%M:%S')}  {line}")


def _say_nothing(_: str) -> None:
    pass


def _print(line: str) -> None:
    # Flushed, since whoever waits for "ready" may read from a pipe. An invite is shown whole.
    print(printable(line, LINE_CHARACTERS_MAX), flush=True)


@contextmanager
def _signals(stop: Callable[[], object]) -> Iterator[None]:
    """Have the first signal call `stop`; a second one ends the program at once."""
    loop = asyncio.get_running_loop()
    numbers = [getattr(signal, name) for name in SIGNALS if hasattr(signal, name)]

    def first() -> None:
        restore()
        stop()

    def restore() -> None:
        for number in numbers:
            loop.remove_signal_handler(number)

    try:
        for number in numbers:
            loop.add_signal_handler(number, first)
    except NotImplementedError:  # Windows: Ctrl-C arrives as KeyboardInterrupt
        numbers.clear()
    try:
        yield
    finally:
        restore()
