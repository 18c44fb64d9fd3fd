"""Several overlays on one virtual clock, joined by made-up links: what their machines say and do.

It stands where `NodeCore` and the connections stand, without frames: messages keep their order on a
link, a dial asks the other overlay for consent, and a ping is a wait. Tests set links up by hand
(`link`), let time pass (`run`), and read what was said (`said`).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from random import Random
from typing import Generic, NamedTuple, TypeVar

from meshwalk.config import Config, LinkConfig, OverlayConfig
from meshwalk.events import Event
from meshwalk.identity.keys import sign_record
from meshwalk.proto.effects import ForgetPeer, SavePeer
from meshwalk.proto.link import Ended, Link, LinkState
from meshwalk.proto.overlay.effects import Connect, Disconnect, Measure, OverlayEffect, Say, Tell
from meshwalk.proto.overlay.overlay import Overlay
from meshwalk.proto.timers import Timers
from meshwalk.sim.node import UNIX_START_S
from meshwalk.sim.signatures import CheapSignatures
from meshwalk.wire.address import Address
from meshwalk.wire.frames import (
    PROTOCOL_VERSION,
    STANDING_PURPOSES,
    Channel,
    CloseReason,
    Hello,
    Message,
    Purpose,
)
from meshwalk.wire.messages import OverlayMessage, encode
from meshwalk.wire.peerid import PeerId
from meshwalk.wire.records import PeerRecord, decode_peer_record, decode_signed

DIAL_TIMEOUT_S = 4.0
EVENTS_MAX = 100_000

_Body = TypeVar("_Body", bound=OverlayMessage, covariant=True)


class Said(NamedTuple, Generic[_Body]):
    """One message."""

    at: float
    by: Node
    to: Node
    link: int
    """The number of its sender's end."""
    body: _Body


def peer_of(number: int) -> PeerId:
    return PeerId((number + 1).to_bytes(32, "big"))


def host_of(number: int) -> str:
    return f"10.{number >> 16}.{(number >> 8) & 255}.{number & 255}"


def record_of(number: int, *hosts: str, sequence: int | None = None) -> bytes:
    """The signed record of a node: at its own host, unless told otherwise."""
    if sequence is None:
        sequence = int(UNIX_START_S * 1e6)
    listed = [f"tcp://{host}:1" for host in hosts or (host_of(number),)]
    record = PeerRecord(bytes(peer_of(number)), sequence, listed)
    return sign_record(record, CheapSignatures(peer_of(number)))


def config(
    links_min: int = 1, links_max: int = 12, links_random_min: int = 1, **sections: object
) -> Config:
    """The defaults but for what is given."""
    overlay = OverlayConfig(
        links_min=links_min, links_max=links_max, links_random_min=links_random_min
    )
    return Config(overlay=overlay, **sections)  # type: ignore[arg-type]


class End:
    """One node's end of a link."""

    def __init__(self, node: Node, link: Link) -> None:
        self.node = node
        self.link = link
        self.other: End | None = None
        self.arrives_at = 0.0
        """Nothing arrives here before what was sent before it."""


class Node:
    """One overlay and its ends of links."""

    def __init__(self, net: Net, number: int, config: Config, host: str, now: float) -> None:
        self.net = net
        self.number = number
        self.id = peer_of(number)
        self.host = host
        self.config = config
        self.is_up = True
        self.is_silent = False
        """Nothing reaches it or comes from it, and nobody is told."""
        self.record = record_of(number, host)
        self.events: list[Event] = []
        self.saved: dict[PeerId, SavePeer] = {}
        self.ends: dict[int, End] = {}
        self.timers = Timers()
        self.ids = count(1_000_000 * (number + 1))
        self.overlay = Overlay(
            CheapSignatures(self.id),
            config,
            lambda remote: self.record,
            lambda: True,
            lambda: next(self.ids),
            Random(f"{net.seed}/{number}"),
            self.timers,
            now,
            UNIX_START_S,
        )

    @property
    def neighbours(self) -> set[int]:
        return {self.net.number_of[p] for p in self.overlay.membership.neighbours}

    @property
    def knows(self) -> set[int]:
        """Who is in its address book."""
        return {self.net.number_of[p] for p in self.overlay.book.entries}

    def link_to(self, other: Node) -> Link:
        return self.overlay.membership.neighbours[other.id].link

    def hello(self, link: Link) -> Hello:
        return Hello(PROTOCOL_VERSION, link.purpose, 0, "", self.record, link.token)


class Net:
    """Nodes, links and the clock."""

    def __init__(self, seed: int = 0, delay_s: tuple[float, float] = (0.01, 0.05)) -> None:
        self.seed = seed
        self.now = 0.0
        self.nodes: list[Node] = []
        self.number_of: dict[PeerId, int] = {}
        self.said: list[Said[OverlayMessage]] = []
        self.dials: list[tuple[float, Node, Connect]] = []
        self.pings: list[tuple[float, Node, Node]] = []
        self.closed: list[tuple[float, Node, Link, CloseReason]] = []
        """Links that an overlay had closed."""
        self.watch: Callable[[], None] = lambda: None
        """Called after every event."""
        self.rtts_s: dict[frozenset[int], float] = {}
        """Round trips of pings; else 0.1 s."""
        self.cut: set[frozenset[int]] = set()
        """Pairs between which nothing passes, and nobody is told."""
        self._rng = Random(seed)
        self._delay_s = delay_s
        self._numbers = count(1)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence = count()

    # Set up.

    def add(
        self,
        config: Config,
        *,
        host: str | None = None,
        starts: bool = False,
        walks: bool = False,
        number: int = -1,
    ) -> Node:
        """A node; with `starts` it tests, trades and beacons, with `walks` it looks for links."""
        number = len(self.nodes) if number < 0 else number
        node = Node(self, number, config, host or host_of(number), self.now)
        self.nodes.append(node)
        self.number_of[node.id] = number
        if starts:
            self.do(node, node.overlay.start([], self.now))
        if not walks:
            node.overlay.walks.stop()
        return node

    def link(
        self, one: Node, two: Node, purpose: Purpose = Purpose.JOIN_ACCEPT, since: float = 0.0
    ) -> None:
        """A standing link, dialled by the first, open at both ends at once."""
        ends = self._ends(one, two, purpose, b"", Address(two.host, 1))
        for end in ends:
            self._ready(end)
            end.link.since = since
        for end in reversed(ends):  # it opens first where it was accepted
            self._opened(end)

    def lose(self, one: Node, two: Node) -> None:
        """The link between two breaks at both ends."""
        for node, other in ((one, two), (two, one)):
            for end in list(node.ends.values()):
                if end.other is not None and end.other.node is other:
                    self._end(end, None, by_us=False)

    def crash(self, node: Node) -> None:
        """It stops without a word, and its links break."""
        node.is_up = False
        for end in list(node.ends.values()):
            del node.ends[end.link.number]
            if end.other is not None:
                self._end(end.other, None, by_us=False)

    def leave(self, node: Node) -> None:
        """It says goodbye and stops."""
        self.do(node, node.overlay.leave(self.now))
        for end in list(node.ends.values()):
            self._close(end, CloseReason.LEAVING)
        node.is_up = False

    def suspect(self, node: Node, other: Node) -> None:
        """A node's link to a neighbour says that it is silent."""
        self.do(node, node.overlay.suspected(node.link_to(other), self.now))

    def hears_of(self, node: Node, other: Node, *hosts: str) -> None:
        """A node hears of another one, at its own host or, by a newer record, at those given."""
        sequence = int((UNIX_START_S + self.now) * 1e6) + 1 if hosts else None
        blob = record_of(other.number, *(hosts or (other.host,)), sequence=sequence)
        record = decode_peer_record(decode_signed(blob).payload)
        source = Address(host_of(200), 1)
        heard = node.overlay.book.heard(
            record, blob, record.parsed_addresses(), "exchange", source, self.now
        )
        self.do(node, heard)

    def knows_well(self, node: Node, other: Node, rtt_s: float | None = None) -> None:
        """A node has tested another one just now."""
        self.hears_of(node, other)
        book, rtt_s = node.overlay.book, rtt_s or self.rtt_s(node, other)
        self.do(node, book.worked(other.id, Address(other.host, 1), None, self.now))
        self.do(node, book.measured(other.id, rtt_s, 0.0, self.now))

    # Time.

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        for _ in range(EVENTS_MAX):
            at = min(
                (t for n in self.nodes if n.is_up and (t := n.timers.next()) is not None),
                default=float("inf"),
            )
            if self._events and self._events[0][0] <= at:
                at = self._events[0][0]
                if at > until:
                    break
                self.now = max(self.now, at)
                heapq.heappop(self._events)[2]()
            elif at <= until:
                self.now = max(self.now, at)
                for node in self.nodes:
                    self._tick(node)
            else:
                break
            self.watch()
        else:
            raise AssertionError("the nodes do not come to rest")
        self.now = until

    def _tick(self, node: Node) -> None:
        if node.is_up:
            for _, what in node.timers.due(self.now):
                self.do(node, node.overlay.tick(what, self.now))

    def _after(self, delay_s: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + delay_s, next(self._sequence), what))

    # What was said.

    def of(self, kind: type[_Body]) -> Iterator[Said[_Body]]:
        """Messages of one kind."""
        return (s for s in self.said if isinstance(s.body, kind))  # type: ignore[misc]

    def say(self, by: Node, to: Node, body: OverlayMessage, in_reply_to: int = 0) -> int:
        """Have a node say to a neighbour what its machines did not; the id of the message."""
        id = next(by.ids)
        self.do(by, [Say(by.link_to(to).number, id, body, in_reply_to)])
        return id

    # What `NodeCore` does.

    def do(self, node: Node, effects: Sequence[OverlayEffect]) -> None:
        """Perform effects in order."""
        for effect in effects:
            if isinstance(effect, Say):
                self._say(node, effect)
            elif isinstance(effect, Connect):
                self._dial(node, effect)
            elif isinstance(effect, Disconnect):
                if (end := node.ends.get(effect.link)) is not None:
                    self.closed.append((self.now, node, end.link, effect.reason))
                    self._close(end, effect.reason)
            elif isinstance(effect, Measure):
                if (end := node.ends.get(effect.link)) is not None:
                    self._ping(end)
            elif isinstance(effect, Tell):
                node.events.append(effect.event)
            elif isinstance(effect, SavePeer):
                node.saved[effect.peer] = effect
            elif isinstance(effect, ForgetPeer):
                node.saved.pop(effect.peer, None)

    def _say(self, node: Node, say: Say) -> None:
        end = node.ends.get(say.link)
        if end is None or end.other is None:
            return
        self.said.append(Said(self.now, node, end.other.node, say.link, say.body))
        message = Message(say.id, 0, Channel.OVERLAY, encode(say.body), say.in_reply_to)
        to = end.other

        def arrive() -> None:
            if to.link.number in to.node.ends and to.link.is_open:
                to.link.heard_at = self.now
                self.do(to.node, to.node.overlay.heard(to.link, message, self.now))

        self._send(end, arrive)

    def _send(self, end: End, arrive: Callable[[], None]) -> None:
        """Have something happen at the other end, after all that was sent there before."""
        to = end.other
        assert to is not None
        if self._is_cut(end.node, to.node):
            return
        to.arrives_at = max(to.arrives_at, self.now + self._rng.uniform(*self._delay_s))
        self._after(to.arrives_at - self.now, arrive)

    def _is_cut(self, one: Node, two: Node) -> bool:
        if one.is_silent or two.is_silent:
            return True
        return frozenset({one.number, two.number}) in self.cut

    def _ping(self, end: End) -> None:
        to = end.other
        assert to is not None
        self.pings.append((self.now, end.node, to.node))
        if self._is_cut(end.node, to.node):
            return
        rtt_s = self.rtt_s(end.node, to.node)

        def answered() -> None:
            if end.link.number in end.node.ends and end.link.is_open:
                end.link.heard_at = self.now
                end.link.round_trips.add(rtt_s, 0.0)
                if end.link.is_tested:
                    self.do(end.node, end.node.overlay.measured(end.link, self.now))

        self._after(rtt_s, answered)

    def rtt_s(self, one: Node, two: Node) -> float:
        return self.rtts_s.get(frozenset({one.number, two.number}), 0.1)

    def _ends(
        self, one: Node, two: Node, purpose: Purpose, token: bytes, dialled: Address
    ) -> tuple[End, End]:
        made: list[End] = []
        for node, outbound in ((one, True), (two, False)):
            link = Link(
                next(self._numbers),
                LinkConfig(),
                [],
                lambda: 0,
                outbound=outbound,
                remote=dialled if outbound else Address(one.host, 40_000),
                now=self.now,
                purpose=purpose,
                token=token,
            )
            link.is_standing = purpose in STANDING_PURPOSES
            made.append(End(node, link))
        made[0].other, made[1].other = made[1], made[0]
        return made[0], made[1]

    def _ready(self, end: End) -> None:
        """Both ends have greeted."""
        assert end.other is not None
        other, link = end.other.node, end.link
        link.peer, link.record, link.state = other.id, other.record, LinkState.OPEN
        link.since = link.heard_at = self.now
        if link.is_standing:  # as if it had been pinged for long
            for _ in range(end.node.config.link.rtt_window):
                link.round_trips.add(self.rtt_s(end.node, other), 0.0)
        end.node.ends[link.number] = end

    def _opened(self, end: End) -> None:
        assert end.other is not None
        hello = end.other.node.hello(end.link)
        self.do(end.node, end.node.overlay.opened(end.link, hello, self.now))

    def _dial(self, node: Node, connect: Connect) -> None:
        self.dials.append((self.now, node, connect))
        there = (n for n in self.nodes if connect.address == Address(n.host, 1) and n.is_up)
        to = next(there, node)
        dialler, acceptor = self._ends(node, to, connect.purpose, connect.token, connect.address)
        dialler.link.attempt = connect.attempt
        rtt_s = 2 * self._rng.uniform(*self._delay_s)

        def fail(reason: CloseReason | None = None) -> None:
            if not node.is_up:
                return
            dialler.link.state = LinkState.CLOSED
            ended = Ended(reason, "", by_us=False, was_open=False)
            self.do(node, node.overlay.ended(dialler.link, ended, self.now))

        def accept() -> None:
            if not node.is_up:
                return
            if not to.is_up:
                self._after(rtt_s / 2, fail)
                return
            self._ready(dialler)
            self._ready(acceptor)
            del node.ends[dialler.link.number]
            dialler.link.state = LinkState.GREETING
            reason = to.overlay.asked(acceptor.link, node.hello(acceptor.link), self.now)
            if reason is not None:
                del to.ends[acceptor.link.number]
                self._after(rtt_s / 2, lambda: fail(reason))
                return
            self._opened(acceptor)
            dialler.arrives_at = self.now + rtt_s / 2
            self._events_at(dialler.arrives_at, greeted)

        def greeted() -> None:
            # Its first messages and its goodbye come behind this, in order.
            if node.is_up:
                node.ends[dialler.link.number] = dialler
                dialler.link.state = LinkState.OPEN
                self._opened(dialler)

        if connect.address == Address(node.host, 1):
            self._after(rtt_s, lambda: fail(CloseReason.SELF))
        elif to is node or (connect.expected is not None and connect.expected != to.id):
            self._after(rtt_s, fail)
        elif self._is_cut(node, to):
            self._after(DIAL_TIMEOUT_S, fail)
        else:
            self._after(rtt_s, accept)

    def _events_at(self, at: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._events, (at, next(self._sequence), what))

    def _close(self, end: End, reason: CloseReason) -> None:
        to = end.other
        assert to is not None
        self._end(end, reason, by_us=True)
        self._send(end, lambda: self._end(to, reason, by_us=False))

    def _end(self, end: End, reason: CloseReason | None, *, by_us: bool) -> None:
        if end.node.ends.pop(end.link.number, None) is None:
            return
        end.link.state = LinkState.CLOSED
        ended = Ended(reason, "", by_us, was_open=True)
        if end.node.is_up:
            self.do(end.node, end.node.overlay.ended(end.link, ended, self.now))
