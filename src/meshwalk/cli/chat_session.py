"""One chat: carries lines from a screen to the network and messages and news back."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections import deque
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from typing import Protocol

from meshwalk.cli.chat_commands import HELP, Connect, Enter, Leave, Plain, Say, Unknown, parse
from meshwalk.cli.chat_news import News
from meshwalk.cli.chat_rooms import JOINED_MAX, MAIN, Rooms, is_possible, name_of
from meshwalk.cli.proving import SHOWN_AFTER_S, bar_text
from meshwalk.cli.render import (
    TABLE_COLUMNS,
    PeersTable,
    as_text,
    counted,
    duration,
    error_line,
    printable,
)
from meshwalk.errors import InvalidArgument, MeshwalkError, TooBig, Unreachable
from meshwalk.events import Delivery, EntryFailed, Event, NeighbourUp
from meshwalk.net.node import JOIN_TIMEOUT_S, Node
from meshwalk.net.solving import Progress
from meshwalk.wire.address import DEFAULT_PORT, Address
from meshwalk.wire.peerid import PeerId

# Seed 000 joins through its own machine's port 55555. IPv6 second: `localhost` may be only that.
DEFAULT_ENTRIES = (Address("127.0.0.1", DEFAULT_PORT), Address("::1", DEFAULT_PORT))
PROBE_TIMEOUT_S = 2.0  # guess: a handshake on this machine takes 5 ms; then it is somebody else
COMPANY_TIMEOUT_S = 5.0  # guess: how long a piped line waits for a first neighbour
RECEIPT_TIMEOUT_S = 5.0  # guess: how long the end of the input waits for a neighbour's receipt
RECEIPT_PAUSE_S = 0.1  # guess: no busy loop while there is no neighbour
BATCH_MAX = 100  # guess: messages drawn at once; a screen holds fewer
SPEAKERS_MAX = 200  # guess: who has spoken, the latest; more than anyone looks through
PAST_S = 3600.0  # as config/broadcast.py, HistoryConfig.age_s: nobody keeps more
PAST_SHOWN_MAX = 100  # guess: of a room's past, the latest; some screens
LATE_S = 30.0  # guess: what comes later is shown with its time; a repair takes seconds
PROVING_MAX = 16  # guess: lines that wait for their proof of work; more are refused


def failure_status(error: MeshwalkError) -> int:
    """The exit status for an error, as main.py lists them: 2 for what can never work, else 1."""
    return 2 if isinstance(error, InvalidArgument) else 1


class Screen(Protocol):
    """Where a chat is shown: a terminal or pipes. All texts but messages are safe already."""

    is_terminal: bool

    def room(self, name: str) -> None:
        """What is typed from now on goes to this room; the name is safe, and empty for the main."""

    def busy(self, text: str | None) -> None:
        """Something takes long: how far it is. None: no more."""

    def lines(self) -> AsyncGenerator[str | TooBig, None]:
        """What the user types, to the end of the input."""

    async def messages(self, batch: list[Delivery], *, past: bool = False) -> None:
        """Show what others wrote, the past with its times; makes it safe."""

    async def own(self, text: str, room: str) -> None:
        """Show a line that was sent to a room; makes both safe."""

    async def tell(self, text: str) -> None:
        """Show what a command asked for."""

    async def news(self, text: str) -> None:
        """Show a quiet line."""

    async def problem(self, text: str) -> None:
        """Show that something did not work."""


class Session:
    """A chat over a started node."""

    def __init__(self, node: Node, screen: Screen, has_secret: bool, room: str = MAIN) -> None:
        """`room`: where to begin. Raises `InvalidArgument` if no room can have this name."""
        if not is_possible(room):
            raise InvalidArgument("no room can have this name")
        self._node = node
        self._screen = screen
        self._has_secret = has_secret
        self._news = News()
        self._events = node.events()
        self._rooms = Rooms(room)
        # People see what was said before they came; a script hears what is new.
        since = time.time() - PAST_S if screen.is_terminal else None
        self._messages = node.messages(since=since)
        self._past_shown: set[tuple[PeerId, int, float]] = set()
        """Of a room's past, what `_messages` may hold too."""
        self._linked = asyncio.Event()
        self._spoke: dict[PeerId, float] = {}
        self._tasks: set[asyncio.Task[object]] = set()
        """Joins and proofs of work that are under way while the user types on."""
        self._proving = 0
        self._joining = 0
        self._sent_at = float("-inf")
        self._unsent = 0
        self._waited_in_vain = False
        self._is_confirmed = True

    async def talk(self, entry: str | None) -> int:
        """Join, then send what is typed until the input ends or a command says so: exit status."""
        self._show_room()
        if self._screen.is_terminal:  # while somebody watches, say first what is going on
            await self._introduce()
        if entry is not None and (error := await self._join(entry)) is not None:
            return failure_status(error)
        if not self._screen.is_terminal:
            await self._introduce()
        try:
            async with aclosing(self._screen.lines()) as lines:
                async for line in lines:
                    if not await self._obey(line):
                        break
        finally:
            for task in self._tasks:
                task.cancel()
        if self._proving:
            what = counted(self._proving, "line")
            await self._screen.problem(f"not sent: {what} without proof of work yet")
        if self._screen.is_terminal:
            return 0
        await self._wait_for_receipt()
        if self._unsent:
            await self._screen.problem(f"{counted(self._unsent, 'line')} not sent")
        return 0 if self._is_confirmed and not self._unsent else 1

    async def show_messages(self) -> None:
        """Show what others write, for as long as the node runs."""
        async for message in self._messages:
            past: deque[Delivery] = deque(maxlen=PAST_SHOWN_MAX)
            batch: list[Delivery] = []
            next_one: Delivery | None = message
            while next_one is not None:
                if self._is_wanted(next_one):
                    (past if self._is_past(next_one) else batch).append(next_one)
                next_one = self._messages.get_nowait() if len(batch) < BATCH_MAX else None
            while len(self._spoke) > SPEAKERS_MAX:
                del self._spoke[next(iter(self._spoke))]
            if past:
                await self._screen.messages(list(past), past=True)
            if batch:
                await self._screen.messages(batch)

    async def show_news(self) -> None:
        """Tell what happens in the network, for as long as the node runs."""
        while True:
            try:
                async with asyncio.timeout_at(self._news.deadline()):
                    event = await anext(self._events)
            except TimeoutError:
                lines = self._news.tick(self._now())
            except StopAsyncIteration:
                return
            else:
                if isinstance(event, NeighbourUp):
                    self._linked.set()
                lines = [] if self._is_told_by_join(event) else self._news.feed(event, self._now())
            for line in lines:
                await self._screen.news(line)

    # Lines.

    async def _obey(self, line: str | TooBig) -> bool:
        """Do what a line says; false: leave."""
        if isinstance(line, TooBig):
            self._unsent += 1
            await self._screen.problem(error_line(line))
            return True
        command = parse(line)
        match command:
            case Say():
                await self._say(command.text)
            case Connect():
                await self._connect(command.entry)
            case Enter():
                await self._enter(command.room)
            case Leave():
                left = self._rooms.here if command.room is None else command.room
                await self._screen.news(self._rooms.leave(left))
                self._show_room()
            case Plain.HISTORY:
                await self._show_past(self._rooms.here)
            case Unknown():
                self._unsent += 1
                await self._screen.problem(printable(command.why))
            case Plain.QUIT:
                return False
            case Plain.VERBOSE:
                self._news.verbose = not self._news.verbose
                what = "all news from now on" if self._news.verbose else "only what matters"
                await self._screen.news(f"{what}; /verbose again changes it back")
            case Plain.NOTHING:
                pass
            case _:
                await self._screen.tell(self._answer(command))
        return True

    async def _say(self, text: str) -> None:
        if not self._screen.is_terminal and not await self._company():
            self._unsent += 1
            return
        room = self._rooms.here
        if not self._screen.is_terminal or not self._node.config.broadcast.difficulty:
            await self._send(text, room)
        elif self._proving >= PROVING_MAX:
            self._unsent += 1
            await self._screen.problem(f"not sent: {PROVING_MAX} lines are waiting for their proof")
        else:
            self._start(self._prove_and_send(text, room))

    async def _prove_and_send(self, text: str, room: str) -> None:
        """Send with proof of work; the prompt stays usable meanwhile."""
        started_at = self._now()

        def progress(tried: int, expected: int) -> None:
            if self._now() - started_at >= SHOWN_AFTER_S:
                waiting = f"; {self._proving - 1} more" * (self._proving > 1)
                self._screen.busy(bar_text(tried, expected) + waiting)

        self._proving += 1
        try:
            await self._send(text, room, progress)
        finally:
            self._proving -= 1
            self._screen.busy(None)

    async def _send(self, text: str, room: str, progress: Progress | None = None) -> None:
        try:
            await self._node.broadcast(text, room, progress=progress)
        except MeshwalkError as error:
            self._unsent += 1
            await self._screen.problem(f"not sent: {error_line(error)}")
            return
        self._sent_at = self._now()
        await self._screen.own(text, room)
        if not self._node.neighbours:
            await self._screen.news("nobody is linked yet, so nobody got that")

    async def _company(self) -> bool:
        """Wait a little for a first neighbour; a script's line should reach somebody."""
        if self._node.neighbours:
            return True
        if self._waited_in_vain:  # the next line must not wait as long again
            return False
        self._linked.clear()
        try:
            async with asyncio.timeout(COMPANY_TIMEOUT_S):
                await self._linked.wait()
        except TimeoutError:
            self._waited_in_vain = True
            await self._screen.problem(
                "nobody is linked, so lines reach nobody; give an address or invite to join"
            )
        return bool(self._node.neighbours)

    async def _wait_for_receipt(self) -> None:
        """Return when the neighbours have handled all that was sent: a link answers in order."""
        if self._now() - self._sent_at > RECEIPT_TIMEOUT_S:
            return  # nothing was sent, or long enough ago to have arrived
        # The last lines may be gathered still, to go out together.
        await asyncio.sleep(2 * self._node.config.broadcast.bundle_wait_s)
        try:
            async with asyncio.timeout(RECEIPT_TIMEOUT_S):
                # Again, because a link may be replaced while it is asked, and then never answers.
                while True:
                    if await self._is_received():
                        return
                    await asyncio.sleep(RECEIPT_PAUSE_S)
        except TimeoutError:
            self._is_confirmed = False
            await self._screen.problem("no neighbour has confirmed the last lines")

    async def _is_received(self) -> bool:
        # All of them, since some are only told that there is something, and ask for it later.
        pings = [self._node.ping(peer, RECEIPT_TIMEOUT_S / 5) for peer in self._node.neighbours]
        answers = await asyncio.gather(*pings, return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException) and not isinstance(answer, MeshwalkError):
                raise answer
        return any(isinstance(answer, float) for answer in answers)

    # Rooms.

    async def _enter(self, room: str) -> None:
        was_joined = room in self._rooms.joined
        if not self._rooms.join(room):
            await self._screen.problem(f"you are in {JOINED_MAX} rooms; /leave one of them first")
            return
        self._show_room()
        await self._screen.news(f"you are in {name_of(room)}")
        if self._screen.is_terminal and not was_joined:
            await self._show_past(room)

    async def _show_past(self, room: str) -> None:
        """Show what the node holds of a room; what neighbours have besides comes as it comes."""
        held: deque[Delivery] = deque(maxlen=PAST_SHOWN_MAX)
        async with self._node.messages(topic=room, since=time.time() - PAST_S) as past:
            while (message := past.get_nowait()) is not None:
                held.append(message)
        self._past_shown = set(map(_key, held))
        what = counted(len(held), "line") if held else "nothing is kept"
        await self._screen.news(f"{what} of the last hour in {name_of(room)}")
        if held:
            await self._screen.messages(list(held), past=True)

    def _is_wanted(self, message: Delivery) -> bool:
        """Whether to show a message; notes it and who wrote it."""
        now = self._now()
        if message.is_broadcast:  # it may be of the past
            now -= max(0.0, time.time() - message.sent_at)
        if not self._rooms.heard(message, now) or _key(message) in self._past_shown:
            return False
        self._spoke.pop(message.origin, None)  # the latest stand last
        self._spoke[message.origin] = now
        return True

    def _is_past(self, message: Delivery) -> bool:
        return message.is_broadcast and time.time() - message.sent_at > LATE_S

    def _show_room(self) -> None:
        room = self._rooms.here
        self._screen.room(name_of(room) if room else "")

    # Joining.

    async def _connect(self, entry: str | None) -> None:
        if not self._screen.is_terminal:
            self._unsent += await self._join(entry) is not None
            return
        # The prompt stays usable meanwhile.
        self._start(self._join(entry))

    async def _join(self, entry: str | None) -> MeshwalkError | None:
        shown = printable(entry) if entry is not None else "this machine's first node"
        self._joining += 1
        try:
            if entry is None and self._node.address.port == DEFAULT_PORT:
                raise Unreachable("this is the first node here: others come to it by connect")
            if self._node.neighbours:
                await self._screen.news(f"linked already; trying {shown} as one more way in")
            elif self._screen.is_terminal:
                await self._screen.news(f"joining through {shown} …")
            where = entry if entry is not None else await self._default_entry()
            await self._node.join(where, JOIN_TIMEOUT_S)
        except MeshwalkError as error:
            await self._screen.problem(error_line(error))
            return error
        finally:
            self._joining -= 1
        return None

    def _is_told_by_join(self, event: Event) -> bool:
        """Whether a join that is under way tells this in its own error."""
        if not self._joining or not isinstance(event, EntryFailed):
            return False
        return event.not_admitted or not self._screen.is_terminal

    async def _default_entry(self) -> Address:
        """The default address that answers. Raises `Unreachable` or `NotAdmitted`."""
        for address in DEFAULT_ENTRIES:
            try:
                await self._node.ping(address, PROBE_TIMEOUT_S)
            except Unreachable:
                continue
            return address
        raise Unreachable(
            f"nobody answers at {DEFAULT_ENTRIES[0].host_and_port}; start a first node there,"
            " or type connect ADDRESS"
        )

    # Answers.

    async def _introduce(self) -> None:
        node = self._node
        address = node.address
        where = f"port {address.port}" if address.is_unspecified else address.host_and_port
        await self._screen.news(f"you are {node.id.short}, listening on {where}")
        await self._screen.news(self._invite())
        if self._screen.is_terminal:
            await self._screen.news("/help lists the commands")

    def _invite(self) -> str:
        # A person copies this by hand or mouse, so nothing stands behind it on the line.
        secret = " and have the network's secret" if self._has_secret else ""
        return f"to join you, others{secret} type: connect {self._node.invite}"

    def _answer(self, command: Plain) -> str:
        match command:
            case Plain.ROOMS:
                return self._rooms.listing(self._now())
            case Plain.PEERS:
                return self._peers()
            case Plain.WHO:
                return self._who()
            case Plain.INVITE:
                return self._node.invite
            case _:
                return HELP

    def _peers(self) -> str:
        known = self._node.peers()
        linked = [peer for peer in known if peer.state == "neighbour"]
        others = f"{len(known) - len(linked)} more known"
        if not linked:
            return f"no neighbours; {others}"
        columns = min(TABLE_COLUMNS, shutil.get_terminal_size().columns)
        return (
            f"{as_text(PeersTable(linked), columns)}\n{counted(len(linked), 'neighbour')}, {others}"
        )

    def _who(self) -> str:
        neighbours = self._node.neighbours
        now = self._now()
        lines = [f"you         {self._node.id.short}"]
        lines += [f"neighbour   {peer.short}{self._ago(peer, now)}" for peer in neighbours]
        others = [peer for peer in reversed(self._spoke) if peer not in set(neighbours)]
        lines += [f"further on  {peer.short}{self._ago(peer, now)}" for peer in others]
        if not neighbours:
            lines.append("no neighbours: nobody hears you")
        return "\n".join(lines)

    def _ago(self, peer: PeerId, now: float) -> str:
        at = self._spoke.get(peer)
        if at is None:
            return ""
        return "  spoke just now" if now - at < 1 else f"  spoke {duration(now - at)} ago"

    # What the above share.

    def _start(self, work: Coroutine[object, object, object]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


def _key(message: Delivery) -> tuple[PeerId, int, float]:
    return message.origin, message.sequence, message.sent_at
