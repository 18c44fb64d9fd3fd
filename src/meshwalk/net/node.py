"""`Node`: what users hold. Start it, join a network, talk, stop. Delegates to driver and store."""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any, Self, overload

import msgspec

from meshwalk.config import Config
from meshwalk.errors import InvalidArgument, NotRunning
from meshwalk.events import Delivery, Event, StoreFailed
from meshwalk.identity.keys import KeyPair, NodeSignatures
from meshwalk.identity.network import DEFAULT_NETWORK, Network
from meshwalk.net.conversation import Conversation, ConversationName, DeclaredT
from meshwalk.net.conversing import Conversing
from meshwalk.net.driver import Driver
from meshwalk.net.entering import joined, open_listener, parse_entry
from meshwalk.net.handlers import AnyHandler, Handlers
from meshwalk.net.inbox import Inbox
from meshwalk.net.peers import PeerInfo, check_peer, parse_target, peers_of
from meshwalk.net.reading import WhenFull
from meshwalk.net.serving import Serving
from meshwalk.net.solving import Progress
from meshwalk.net.statistics import Statistics, statistics_of
from meshwalk.net.storage import NodeStorage
from meshwalk.net.subscription import ITEMS_MAX, Subscription
from meshwalk.net.surroundings import Surroundings
from meshwalk.net.tasks import Tasks
from meshwalk.net.tcp import TcpTransport
from meshwalk.net.tracing import Trace
from meshwalk.net.transport import Listener, Transport
from meshwalk.proto.recording import Write, make_core
from meshwalk.version import AGENT
from meshwalk.wire.address import Address, Invite
from meshwalk.wire.content import encode_body
from meshwalk.wire.peerid import PeerId

JOIN_TIMEOUT_S = 15.0  # guess: a connection, a walk of ten hops and one retry


class Node:
    """One participant of a network: an async context manager.

        async with Node() as node:
            await node.join("192.0.2.7:55555")
            await node.broadcast("hello")
            async for message in node.messages():
                print(message.origin.short, message.body)

    `network` and `secret` say which network: nodes with another pair do not see each other at all.
    `listen` is "HOST:PORT"; "HOST" alone, or None for every interface, takes port 55555 or the next
    free one; "HOST:0" any free one. `data` is a folder for identity, known peers and history, made
    if missing; None keeps everything in memory, and the node is somebody else at its next start.
    `transport` and `surroundings` put it on another wire and another clock: see `meshwalk.testing`.
    `trace` gets a line for all that goes into its machines and comes out, to be replayed:
    `meshwalk.trace.TraceWriter(path).write`. It may be set until the node is started.

    Entering raises `AddressInUse`, `InvalidArgument` or `StoreError`.
    """

    def __init__(
        self,
        *,
        network: str = DEFAULT_NETWORK,
        secret: bytes | str = b"",
        listen: str | None = None,
        data: Path | str | None = None,
        config: Config | None = None,
        transport: Callable[[KeyPair, Network, Config], Transport] | None = None,
        surroundings: Surroundings | None = None,
        trace: Write | None = None,
    ) -> None:
        self.network = Network(network, secret.encode() if isinstance(secret, str) else secret)
        self.config = config or Config()
        self.trace = trace
        self._listen = listen
        self._data = Path(data) if data is not None else None
        self._make_transport = transport or _tcp
        self._surroundings = surroundings or Surroundings()
        self._handlers = Handlers(Conversation)
        self._tasks = Tasks()
        self._conversing = Conversing(self._handlers, self._tasks.own)
        self._inbox = Inbox(
            Serving(self._tasks.own, self._handlers), self.config, self._surroundings.unix_clock
        )
        self._listener: Listener | None = None
        self._driver: Driver | None = None
        self._storage: NodeStorage | None = None
        self._keys: KeyPair | None = None
        self._started_at = 0.0
        self._stopping: asyncio.Task[None] | None = None

    # Life.

    async def start(self) -> Self:
        """Open the store, listen, and rejoin through peers known from an earlier run."""
        if self._driver is not None:
            raise NotRunning("this node runs already; make another one")
        around = self._surroundings
        storage = await NodeStorage.open(self._data, self.config, self._store_failed, around)
        try:
            self._keys = KeyPair(storage.seed)
            transport = self._make_transport(self._keys, self.network, self.config)
            now, unix = around.clock(), around.unix_clock()
            core = make_core(
                NodeSignatures(self._keys, self.network.network_id),
                self.config,
                around.random(),
                now,
                unix - now,
                AGENT,
                write=self.trace,
            )
            driver = Driver(
                core,
                transport,
                self._inbox,
                self._conversing,
                self._tasks.own,
                around.clock,
                around.unix_clock,
            )
            self._listener = await open_listener(self._listen, transport, driver)
        except BaseException:
            await storage.close()
            raise
        now = around.clock()  # listening took time, and connections may have come since
        self._storage, self._driver, self._started_at = storage, driver, now
        self._stopping = None
        self._inbox.open(driver, storage)
        core.listening((self._listener.address,), now)
        if self._listener.address.is_unspecified:
            driver.survey(around.hosts)
        known = storage.known_peers(core.unix_offset_s)
        driver.perform(core.start(known, now, storage.kept_broadcasts()))
        return self

    async def stop(self) -> None:
        """Tell the neighbours, close every link, write what waits, and release port and store.

        May be called again, at the same time too: every call returns when all is done. Handlers of
        requests are cancelled; those that do not end in `close_timeout_s` are left behind.
        """
        if self._stopping is None:
            if self._driver is None:
                return
            self._stopping = asyncio.get_running_loop().create_task(self._stop())
        # Shielded: a caller that is cancelled, a handler say, must not leave it half done.
        await asyncio.shield(self._stopping)

    async def _stop(self) -> None:
        assert self._driver is not None
        assert self._listener is not None
        assert self._storage is not None
        driver, self._driver = self._driver, None
        timeout_s = self.config.link.close_timeout_s
        try:
            try:
                await self._listener.close()
            finally:
                await driver.leave(timeout_s)
        finally:
            driver.abort()
            await self._tasks.end(timeout_s)
            await self._storage.close()
            self._inbox.close()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    # Who and where.

    @property
    def id(self) -> PeerId:
        """This node's PeerId."""
        if self._keys is None:
            raise NotRunning("the node has no identity before it is started")
        return self._keys.peer_id

    @property
    def address(self) -> Address:
        """Where the node listens; the host may stand for every interface."""
        if self._listener is None:
            raise NotRunning("the node does not listen; start it first")
        return self._listener.address

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Where others can dial this node, as far as it knows."""
        known = self._running.core.own_record.addresses
        if known:
            return known
        address = self.address
        if not address.is_unspecified:
            return (address,)
        # Nobody has connected yet, so only this machine's own name for itself is certain.
        return (Address("127.0.0.1", address.port),)

    @property
    def invite(self) -> str:
        """What to give to others: the network's name, this PeerId, its addresses. No secret."""
        return str(Invite(self.network.name, self.id, self.addresses))

    @property
    def neighbours(self) -> list[PeerId]:
        """Peers with a standing link, oldest first."""
        return list(self._running.core.overlay.membership.neighbours)

    def peers(self) -> list[PeerInfo]:
        """Everyone known: neighbours first, then verified and heard-of peers, newest first."""
        return peers_of(self._running.core, self._running.clock())

    def statistics(self) -> Statistics:
        """Counts since the start."""
        dropped = self._inbox.dropped
        return statistics_of(self._running, self._storage, self._started_at, dropped)

    # Joining.

    async def join(self, entry: str | Address | Invite, timeout_s: float = JOIN_TIMEOUT_S) -> None:
        """Enter the network through an address ("HOST:PORT") or an invite; returns when linked.

        Tries again, with pauses, until `timeout_s`. Returns at once when the node has neighbours
        already, and goes on looking for more in the background until it has enough.
        Raises `InvalidAddress`, `InvalidInvite`, `InvalidArgument` (an invite for another network),
        `NotAdmitted` (another network, a wrong secret, or not the peer that the invite names),
        `Unreachable`, `NotRunning`. The entry stays known: the node goes on
        trying it after an error.
        """
        driver = self._running
        addresses, expected = self.check_entry(entry)
        async with self.events() as events:
            for address in addresses:
                driver.perform(driver.core.join(address, expected, driver.clock()))
            driver.flush()
            if self.neighbours:
                return
            await joined(events, addresses, timeout_s)

    def check_entry(self, entry: str | Address | Invite) -> tuple[list[Address], PeerId | None]:
        """The addresses of an entry, and who is expected there if it says so. Dials nobody.

        Raises `InvalidAddress`, `InvalidInvite`, `InvalidArgument` (for another network).
        """
        return parse_entry(entry, self.network.name)

    # Talking.

    def broadcast(
        self,
        body: Any,
        topic: str = "",
        *,
        confirm: bool = False,
        private: bool = False,
        timeout_s: float | None = None,
        progress: Progress | None = None,
    ) -> Coroutine[Any, Any, int]:
        """Send to everyone in the network; returns this node's count of its broadcasts.

        `body` is bytes, str, or anything that MessagePack can hold. Waits while a neighbour reads
        more slowly than the caller writes, a second for one that does not read at all, and for its
        turn under pacing. `confirm`: waits for receipts, for at most `timeout_s`, and returns how
        many peers have it. `private` (without `confirm`): signed by a key used once, and passed on
        by a few before it spreads; returns 0. `progress`: told of proof of work: trials, expected.
        Raises `TooBig`, `InvalidArgument`, `NotRunning`, `Closed` (the node stopped), `LocalError`,
        `TimedOut` (the proof took longer than a broadcast is good for).
        """
        return self._running.broadcasting.broadcast(
            body, topic, self._storage, confirm, private, timeout_s, progress
        )

    def trace_broadcast(
        self,
        body: Any = b"",
        topic: str = "",
        timeout_s: float | None = None,
        progress: Progress | None = None,
    ) -> Coroutine[Any, Any, Trace]:
        """Broadcast, and learn which way it took. Waits and raises as `broadcast(confirm=True)`."""
        return self._running.broadcasting.trace(body, topic, self._storage, timeout_s, progress)

    async def send(
        self, peer: PeerId, body: Any, type: str = "", *, unreliable: bool = False
    ) -> bool:
        """Send to any peer, in one go; waits while it is slower than the caller.

        A neighbour gets it over the link to it. Any other peer is dialled, at an address that is
        known or that others are asked for, and the connection is kept for as long as it is used.
        Arrives once and in order as long as that lasts; nothing is said of a lost one but the
        event. `unreliable`: sent only if the link has room now, else dropped: then false is
        returned. Longer than `packet_bytes_max` it is sent reliably. Bodies of up to
        `message_bytes_max` go in parts, so that they hold up nobody: short ones may overtake
        them, and the next long one waits while much of them has not gone out.
        Raises `Unreachable` (at no address, or nobody knows one), `NotAdmitted`, `TooBig`,
        `InvalidArgument`, `NotRunning`, `Refused` (too many long messages are under way).
        """
        check_peer(peer)
        content, data = encode_body(body)
        driver, size = self._running, len(data)
        if unreliable and size <= self.config.conversations.packet_bytes_max:
            await driver.waiters.reach(peer)
            driver = self._running
            was_sent, effects = driver.core.send_unreliably(
                peer, type, content, data, driver.clock()
            )
            driver.command(effects)
            if driver.must_yield(size) or not was_sent:
                await asyncio.sleep(0)  # or a writer in a loop would let nothing become of it
            return was_sent
        if not driver.waiters.is_ready_for(peer, size):
            await driver.waiters.ready_for(peer, size)
            driver = self._running
        driver.command(driver.core.send(peer, type, content, data, driver.clock()))
        if self._storage is not None and self._storage.keeps_history:
            self._storage.sent(self.id, 0, type, content, data, peer)
        if driver.must_yield(size):
            await asyncio.sleep(0)
        return True

    @overload
    async def request(
        self,
        peer: PeerId,
        body: Any = b"",
        type: str = "",
        timeout_s: float | None = None,
        *,
        reply: builtins.type[DeclaredT],
    ) -> DeclaredT: ...
    @overload
    async def request(
        self,
        peer: PeerId,
        body: Any = b"",
        type: str = "",
        timeout_s: float | None = None,
        *,
        reply: Any = Any,
    ) -> Any: ...
    async def request(
        self,
        peer: PeerId,
        body: Any = b"",
        type: str = "",
        timeout_s: float | None = None,
        *,
        reply: Any = Any,
    ) -> Any:
        """Ask any peer, as `send` reaches it, and return its reply; waits while it is slow to read.

        `reply` declares what the reply is decoded to. `timeout_s`, by default the configuration's,
        counts from the call, what pacing then holds back included; but if the peer must first be
        reached, or reads slowly, from when that is done. Raises `Unreachable`, `NotAdmitted`,
        `TimedOut`, `Refused` (no handler, it failed, it could not read the body, or too many
        requests wait), `Closed` (the link ended, or this node stopped), `MalformedFrame` (the reply
        is not of its type), `TooBig`, `InvalidArgument`, `NotRunning`.
        """
        check_peer(peer)
        driver = self._running
        if not driver.waiters.is_ready_for(peer):
            await driver.waiters.ready_for(peer)
            driver = self._running
        return await driver.waiters.request(peer, body, type, timeout_s, reply=reply)

    @overload
    def open(
        self,
        peer: PeerId,
        type: str,
        body: Any = b"",
        *,
        says: builtins.type[DeclaredT],
        timeout_s: float | None = None,
    ) -> Conversation[DeclaredT]: ...
    @overload
    def open(
        self,
        peer: PeerId,
        type: str,
        body: Any = b"",
        *,
        says: Any = Any,
        timeout_s: float | None = None,
    ) -> Conversation[Any]: ...
    def open(
        self,
        peer: PeerId,
        type: str,
        body: Any = b"",
        *,
        says: Any = Any,
        timeout_s: float | None = None,
    ) -> Conversation[Any]:
        """Open a conversation with any peer; its handler of this type gets the other end.

        Returns at once: a peer that is no neighbour is reached meanwhile, and if that fails, using
        the conversation raises `Unreachable`. `body` is what it is opened with. `says` declares
        what the peer's messages are decoded to; one that is not is refused, and skipped here.
        `timeout_s` ends it with `TimedOut` if it is not over by then. It stays open until both ends
        have ended it, or one has closed or cancelled it, also when the handle is let go of: use
        `async with`. Tens of thousands may be open. Raises `Refused` (too many are), `TooBig`,
        `InvalidArgument`, `NotRunning`.
        """
        check_peer(peer)
        return self._conversing.open(self._running, peer, type, body, says, timeout_s)

    def conversation(self, name: ConversationName) -> Conversation[Any] | None:
        """This node's end of a conversation, by the name that both ends call it.

        None: it is over, or was never known here. Of a conversation of this node with itself, the
        opener's end. Raises `InvalidArgument` when it is between others.
        """
        return self._conversing.find(name, self._running)

    def on(
        self, type: str = "", *, body: Any = msgspec.UNSET
    ) -> Callable[[AnyHandler], AnyHandler]:
        """Decorate the function that answers requests of this type, or takes part in conversations.

        The annotation of its parameter says which: `Request`, or none, for requests;
        `Conversation` for conversations. `Request[T]` and `Conversation[T]` have bodies decoded to
        T, and those that are not of it refused; `body=T` says so where an annotation cannot.

        The answer to a request is what the function returns; it may be a coroutine function. If it
        raises `Refused(code, text)` with a code from 100 on, the asker gets that; if it raises
        anything else, the asker gets `Refused` without the details, and the log has them. A
        conversation is closed when its handler returns, and refused alike when it raises.
        Raises `InvalidArgument` for a handler that cannot work.
        """
        return self._handlers.register(type, body=body)

    def messages(
        self,
        limit: int = ITEMS_MAX,
        *,
        topic: str | Iterable[str] | None = None,
        since: float | None = None,
        ordered: bool = True,
        when_full: WhenFull = "drop",
    ) -> Subscription[Delivery]:
        """Broadcasts and direct messages from now on; iterate with `async for`.

        When `limit` messages, or bodies of 64 MiB, wait to be read, new ones are dropped, counted
        and told by the event `MessagesDropped`. Ends when the node stops. To end it earlier, use it
        in an `async with`, close it, or let go of it.

        `topic`: only broadcasts with this one, or one of these. `since`, Unix time in seconds: also
        broadcasts that were sent since then, first those that this node holds, and what neighbours
        hold as it comes. `ordered`: each origin's broadcasts in their order, and what comes early
        waits a while; else as they come. `when_full="wait"`: from half of `limit` on, neighbours
        hold broadcasts back until this reader has gone on, as far as they keep them.
        Raises `InvalidArgument`, `NotRunning` (`since` of a node that does not run).
        """
        return self._inbox.read(limit, topic, since, ordered, when_full)

    def events(self, limit: int = ITEMS_MAX, *, peer: PeerId | None = None) -> Subscription[Event]:
        """News from now on: neighbours that come and go, joined, alone, links that open, close and
        stall; see `meshwalk.events`. `peer`: only what concerns that one.

        Bounded and ended as `messages`.
        """
        wanted = None if peer is None else (lambda event: getattr(event, "peer", None) == peer)
        return self._inbox.events.subscribe(limit, wanted)

    async def ping(self, target: PeerId | str | Address, timeout_s: float = 5.0) -> float:
        """The round-trip time to any peer, or to whoever answers at an address, in seconds.

        Text is an address. Raises `Unreachable`, `NotAdmitted`, `TimedOut`, `Closed` (the link or
        the node), `InvalidArgument` (this node itself, or nothing that names a peer), `NotRunning`.
        """
        target = parse_target(target)
        if target == self.id:
            raise InvalidArgument("a node has no way to itself that can be measured")
        return await self._running.waiters.measure(target, timeout_s)

    # What the above share.

    @property
    def _running(self) -> Driver:
        if self._driver is None:
            raise NotRunning("the node is not running; use it inside `async with Node(...)`")
        return self._driver

    def _store_failed(self, reason: str) -> None:
        self._inbox.happened(StoreFailed(reason))


def _tcp(keys: KeyPair, network: Network, config: Config) -> Transport:
    return TcpTransport(keys, network, config.link)
