"""Real nodes whose cables can be cut: a transport, a program with one node, and its parent.

    async with CutNode() as one, CutNode() as two:
        await two.say(f"join {one.address}")
        await one.say(f"cut {two.port}"), await two.say(f"cut {one.port}")
        await one.say("mend"), await two.say("mend")
        print((await one.say("report"))["neighbours"])

Over a cut cable nothing arrives and nothing is refused, as when a switch has lost its power: what
is written waits, and what has come waits to be delivered, as TCP would send it again; dials end
when their time is over. After mending all of it flows on.

Who is beyond the cut is said by the ports that nodes listen at. A connection is held by its
dialler, who alone knows that port, in both directions: so all nodes of both sides must be told.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Self

import msgspec

from meshwalk import Node
from meshwalk.config import Config, LinkConfig
from meshwalk.errors import MeshwalkError, TimedOut
from meshwalk.identity.keys import KeyPair
from meshwalk.identity.network import Network
from meshwalk.net.loop import run
from meshwalk.net.tcp import TcpTransport
from meshwalk.net.transport import Acceptor, Listener, Pipe, PipeReader, Transport
from meshwalk.wire.address import Address
from meshwalk.wire.peerid import PeerId

LOOK_AGAIN_S = 0.01  # guess: nobody notices
START_TIMEOUT_S = 60.0  # guess: 30 interpreters that start at once on two cores, and room
ANSWER_TIMEOUT_S = 30.0  # guess: a join, which may take half of it, on a crowded machine


# The transport.


class CuttableTransport:
    """Implements `transport.Transport` round another one."""

    def __init__(self, inner: Transport, config: LinkConfig) -> None:
        self._inner = inner
        self.config = config
        self.pipes: set[CuttablePipe] = set()
        """Those that this end dialled."""
        self._cut: frozenset[int] = frozenset()
        self._changed = asyncio.Event()

    def cut(self, ports: Iterable[int]) -> None:
        """From now on nothing goes to or comes from who listens at these ports, but at others."""
        self._cut = frozenset(ports)
        self._changed.set()
        self._changed = asyncio.Event()
        for pipe in list(self.pipes):
            pipe.flow_on()

    def is_cut(self, port: int) -> bool:
        return port in self._cut

    async def listen(self, address: Address, acceptor: Acceptor) -> Listener:
        """As `Transport.listen`. What comes in is held by who dialled."""
        return await self._inner.listen(address, acceptor)

    async def dial(self, address: Address, expected: PeerId | None) -> Pipe:
        """As `Transport.dial`."""
        try:
            async with asyncio.timeout(self.config.connect_timeout_s):
                while self.is_cut(address.port):
                    await self._changed.wait()
        except TimeoutError:
            raise TimedOut(f"{address} did not answer in time") from None
        pipe = CuttablePipe(await self._inner.dial(address, expected), self, address.port)
        self.pipes.add(pipe)
        return pipe


class CuttablePipe:
    """Implements `transport.Pipe`, and is the reader of the pipe within."""

    def __init__(self, inner: Pipe, transport: CuttableTransport, port: int) -> None:
        self._inner = inner
        self._transport = transport
        self._port = port
        self._loop = asyncio.get_running_loop()
        self._reader: PipeReader | None = None
        self._written: list[bytes | bytearray] = []
        self._news: list[Callable[[], None]] = []
        """What the reader has yet to hear."""
        self._is_full = False
        self._is_ended = False
        """Closed or aborted by its owner."""
        self._is_over = False
        """The reader has heard that it is lost."""
        self._giving_up: asyncio.TimerHandle | None = None

    @property
    def peer(self) -> PeerId:
        return self._inner.peer

    @property
    def remote(self) -> Address:
        return self._inner.remote

    @property
    def local(self) -> Address:
        return self._inner.local

    @property
    def unsent_bytes(self) -> int:
        return self._inner.unsent_bytes + sum(map(len, self._written))

    @property
    def is_held(self) -> bool:
        """Whether the cable is cut."""
        return self._transport.is_cut(self._port)

    def start(self, reader: PipeReader) -> None:
        self._reader = reader
        self._inner.start(self)

    def write(self, data: bytes | bytearray) -> None:
        if self._is_ended:
            return
        if not self.is_held:
            self._inner.write(data)
            return
        self._written.append(data)
        if self.unsent_bytes > self._transport.config.send_buffer_high_bytes:
            self._loop.call_soon(self._flow_changed, True)

    def close(self) -> None:
        if self._is_ended:
            return
        self._is_ended = True
        if not self.is_held:
            self._inner.close()
            return
        # The goodbye cannot be heard: given up like one that is heard, but not read.
        why = "the peer did not read the last bytes in time"
        patience_s = self._transport.config.close_timeout_s
        self._giving_up = self._loop.call_later(patience_s, self._over, why)

    def abort(self) -> None:
        self._is_ended = True
        if self.is_held:
            self._loop.call_soon(self._over, "this node ended it at once")
        else:
            self._inner.abort()

    def flow_on(self) -> None:
        """The cable may be whole again: let go of what waited for it."""
        if self.is_held:
            return
        if self._is_over:
            self._transport.pipes.discard(self)
            self._inner.abort()
            return
        written, self._written = self._written, []
        for data in written:
            self._inner.write(data)
        if self._giving_up is not None:
            self._giving_up.cancel()
            self._inner.close()
        news, self._news = self._news, []
        for tell in news:
            tell()
        if self._is_full:
            self._loop.call_soon(self._look_for_room)

    # As PipeReader, of the pipe within.

    def received(self, data: memoryview) -> None:
        if self.is_held:
            kept = bytes(data)
            self._news.append(lambda: self._received(memoryview(kept)))
        else:
            self._received(data)

    def stalled(self) -> None:
        self._flow_changed(True)

    def resumed(self) -> None:
        if not self._written:
            self._flow_changed(False)

    def lost(self, why: str) -> None:
        if self.is_held:
            self._news.append(lambda: self._over(why))
        else:
            self._over(why)

    # Steps.

    def _received(self, data: memoryview) -> None:
        if not self._is_ended:
            assert self._reader is not None
            self._reader.received(data)

    def _flow_changed(self, is_full: bool) -> None:
        if self._reader is None or self._is_ended or self._is_full == is_full:
            return
        self._is_full = is_full
        if is_full:
            self._reader.stalled()
        else:
            self._reader.resumed()

    def _look_for_room(self) -> None:
        """The pipe within tells nobody when it fills and drains within one turn of the loop."""
        if self.is_held or not self._is_full or self._is_over:
            return
        if self.unsent_bytes <= self._transport.config.send_buffer_high_bytes // 2:
            self._flow_changed(False)
        else:
            self._loop.call_later(LOOK_AGAIN_S, self._look_for_room)

    def _over(self, why: str) -> None:
        if self._is_over:
            return
        self._is_over = self._is_ended = True
        if self._giving_up is not None:
            self._giving_up.cancel()
        self._written.clear()
        if not self.is_held:  # else the peer may not hear of it before the cable is mended
            self._transport.pipes.discard(self)
            self._inner.abort()
        assert self._reader is not None
        self._reader.lost(why)


# The program: one node, orders on stdin, answers on stdout, one line each.


async def _serve(options: argparse.Namespace) -> int:
    transports: list[CuttableTransport] = []

    def transport(keys: KeyPair, network: Network, config: Config) -> Transport:
        inner = TcpTransport(keys, network, config.link)
        transports.append(CuttableTransport(inner, config.link))
        return transports[0]

    orders = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    config = msgspec.json.decode(options.config, type=Config)
    node = Node(
        network="cut",
        secret=options.secret,
        listen=options.listen,
        data=options.data or None,
        config=config,
        transport=transport,
    )
    async with node:
        _answer(_report(node, transports[0]))
        while order := (await orders.readline()).decode().split():
            try:
                await _obey(node, transports[0], *order)
            except (MeshwalkError, ValueError) as error:
                _answer({"error": f"{type(error).__name__}: {error}"})
            else:
                book = _book(node) if order[0] == "book" else {}
                _answer({**_report(node, transports[0]), **book})
    return 0


async def _obey(node: Node, transport: CuttableTransport, order: str, *words: str) -> None:
    if order == "join":
        (address,) = words
        await node.join(address)
    elif order == "cut":
        transport.cut(map(int, words))
    elif order == "mend":
        transport.cut(())
    elif order not in ("report", "book"):
        raise ValueError(f"no such order: {order}")


def _report(node: Node, transport: CuttableTransport) -> dict[str, Any]:
    statistics = node.statistics()
    return {
        "peer": node.id.text,
        "address": node.address.host_and_port,
        "neighbours": [peer.text for peer in node.neighbours],
        "links": statistics.node.links,
        "ended": statistics.node.ended,
        "held": sum(pipe.is_held for pipe in transport.pipes),
        "statistics": msgspec.to_builtins(statistics, str_keys=True),
    }


def _book(node: Node) -> dict[str, Any]:
    return {
        "addresses": [address.host_and_port for address in node.addresses],
        "book": {
            entry.peer.text: [address.host_and_port for address in entry.addresses]
            for entry in node._running.core.overlay.book.entries.values()
        },
        "anchors": [peer.peer.text for peer in node.peers() if peer.is_anchor],
    }


def _answer(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


# The parent.


class CutNode:
    """The process of one node; leave the `async with` to stop it, or `kill` it."""

    def __init__(
        self,
        config: Config | None = None,
        *,
        secret: str = "",
        listen: str = "127.0.0.1:0",
        data: str = "",
        within: Sequence[str] = (),
    ) -> None:
        """`within`: the words of a command that runs another one, in its namespace say."""
        self._within = within
        self._options = {
            "config": msgspec.json.encode(config or Config()).decode(),
            "secret": secret,
            "listen": listen,
            "data": data,
        }
        self._process: asyncio.subprocess.Process | None = None
        self.peer = ""
        self.address = ""

    @property
    def port(self) -> int:
        """Where the node listens: for whom to cut off."""
        return Address.parse(self.address).port

    async def start(self) -> Self:
        """Returns when it listens. Raises `TimeoutError`, `EOFError` (it failed; see stderr)."""
        words = [f"--{name}={value}" for name, value in self._options.items()]
        self._process = await asyncio.create_subprocess_exec(
            *self._within,
            sys.executable,
            __file__,
            *words,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=1 << 20,
        )
        async with asyncio.timeout(START_TIMEOUT_S):
            answer = await self._answer()
        self.peer, self.address = answer["peer"], answer["address"]
        return self

    async def start_again(self) -> Self:
        """After `stop` or `kill`: with the same store, at the same address, knowing no entry."""
        self._options["listen"] = self.address
        return await self.start()

    async def say(self, order: str) -> dict[str, Any]:
        """Give an order; the report after it. One at a time. Raises `RuntimeError` if it failed."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(f"{order}\n".encode())
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            answer = await self._answer()
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    def signal(self, number: int) -> None:
        """Send its process a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    async def stop(self) -> None:
        """Have it leave in good order, and wait for its end; killed when that takes long."""
        process = self._process
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                await process.wait()
        except TimeoutError:
            await self.kill()

    async def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()

    async def __aenter__(self) -> Self:
        try:
            return await self.start()
        except BaseException:
            await self.kill()
            raise

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _answer(self) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise EOFError("the node's process has ended")
        answer: dict[str, Any] = json.loads(line)
        return answer


async def cut_apart(*sides: list[CutNode]) -> None:
    """Cut every cable between nodes of two sides; cables within a side are mended."""
    for side in sides:
        beyond = " ".join(str(n.port) for other in sides if other is not side for n in other)
        await asyncio.gather(*(node.say(f"cut {beyond}") for node in side))


def components(reports: Iterable[dict[str, Any]]) -> list[set[str]]:
    """The PeerIds of the nodes that reported, by fragment; a link counts when both ends say so."""
    links = {report["peer"]: set(report["neighbours"]) for report in reports}
    found: list[set[str]] = []
    unseen = set(links)
    while unseen:
        fragment, edge = set(), {unseen.pop()}
        while edge:
            fragment |= edge
            edge = {q for p in edge for q in links[p] if p in links.get(q, ())} - fragment
        found.append(fragment)
        unseen -= fragment
    return found


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    for name in ("config", "secret", "listen", "data"):
        parser.add_argument(f"--{name}", required=True)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(run(_serve(_options())))
