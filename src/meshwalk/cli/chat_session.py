"""One chat: carries lines from a screen to the network and messages and news back."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Protocol

from meshwalk.cli.chat_commands import HELP, Connect, Plain, Say, Unknown, parse
from meshwalk.cli.chat_news import News
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


def failure_status(error: MeshwalkError) -> int:
    """The exit status for an error, as main.py lists them: 2 for what can never work, else 1."""
    return 2 if isinstance(error, InvalidArgument) else 1


class Screen(Protocol):
    """Where a chat is shown: a terminal or pipes. All texts but messages are safe already."""

    is_terminal: bool

    def lines(self) -> AsyncGenerator[str | TooBig, None]:
        """What the user types, to the end of the input."""

    async def messages(self, batch: list[Delivery]) -> None:
        """Show what others wrote; makes it safe."""

    async def own(self, text: str) -> None:
        """Show a line that was sent; makes it safe."""

    async def tell(self, text: str) -> None:
        """Show what a command asked for."""

    async def news(self, text: str) -> None:
        """Show a quiet line."""

    async def problem(self, text: str) -> None:
        """Show that something did not work."""


class Session:
    """A chat over a started node."""

    def __init__(self, node: Node, screen: Screen, has_secret: bool) -> None:
        self._node = node
        self._screen = screen
        self._has_secret = has_secret
        self._news = News()
        self._events = node.events()
        self._messages = node.messages()
        self._linked = asyncio.Event()
        self._spoke: dict[PeerId, float] = {}
        self._joins: set[asyncio.Task[MeshwalkError | None]] = set()
        self._joining = 0
        self._sent_at = float("-inf")
        self._unsent = 0
        self._waited_in_vain = False
        self._is_confirmed = True

    async def talk(self, entry: str | None) -> int:
        """Join, then send what is typed until the input ends or a command says so: exit status."""
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
            for task in self._joins:
                task.cancel()
        if self._screen.is_terminal:
            return 0
        await self._wait_for_receipt()
        if self._unsent:
            await self._screen.problem(f"{counted(self._unsent, 'line')} not sent")
        return 0 if self._is_confirmed and not self._unsent else 1

    async def show_messages(self) -> None:
        """Show what others write, for as long as the node runs."""
        async for message in self._messages:
            batch = [message]
            while len(batch) < BATCH_MAX and (more := self._messages.get_nowait()) is not None:
                batch.append(more)
            for each in batch:
                self._spoke.pop(each.origin, None)  # the latest stand last
                self._spoke[each.origin] = self._now()
            while len(self._spoke) > SPEAKERS_MAX:
                del self._spoke[next(iter(self._spoke))]
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
        try:
            await self._node.broadcast(text)
        except MeshwalkError as error:
            self._unsent += 1
            await self._screen.problem(f"not sent: {error_line(error)}")
            return
        self._sent_at = self._now()
        await self._screen.own(text)
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
        """Return when a neighbour has handled all that was sent: a link answers in order."""
        if self._now() - self._sent_at > RECEIPT_TIMEOUT_S:
            return  # nothing was sent, or long enough ago to have arrived
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
        pings = [
            asyncio.create_task(self._node.ping(peer, RECEIPT_TIMEOUT_S / 5))
            for peer in self._node.neighbours
        ]
        try:
            for first in asyncio.as_completed(pings):
                with suppress(MeshwalkError):
                    await first
                    return True
            return False
        finally:
            for ping in pings:
                ping.cancel()
            await asyncio.gather(*pings, return_exceptions=True)

    # Joining.

    async def _connect(self, entry: str | None) -> None:
        if not self._screen.is_terminal:
            self._unsent += await self._join(entry) is not None
            return
        # The prompt stays usable meanwhile.
        task = asyncio.create_task(self._join(entry))
        self._joins.add(task)
        task.add_done_callback(self._joins.discard)

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

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
