"""One node: routes what comes in to the machines, and what they want back out. Decides nothing.

    frames ---> connections --> dispatch --> application
                     |    `---> gossip ----> application and other links
                     `--------> overlay ---> connections

Inputs take `now`, machine time in seconds that never goes back, and return effects for the driver
to perform in order. After each input the driver asks `deadline()` and calls `tick` then.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from random import Random
from typing import Final, assert_never

import msgspec

from meshwalk.config import ENVELOPE_BYTES, Config
from meshwalk.errors import InvalidArgument, NotANeighbour, TooBig
from meshwalk.identity.keys import Signatures
from meshwalk.proto import connections as connections_machine
from meshwalk.proto import dispatch as dispatch_machine
from meshwalk.proto import ordering as ordering_machine
from meshwalk.proto.connections import Connections, LinkNews
from meshwalk.proto.dispatch import Dispatch, DispatchEffect, Fault, Transmit
from meshwalk.proto.effects import (
    Deliver,
    Effect,
    ForgetPeer,
    Happened,
    ProbeEnded,
    ProbeOpened,
    SavePeer,
    Send,
)
from meshwalk.proto.gossip import Blame, Flood, Gossip, GossipEffect
from meshwalk.proto.link import OPEN, Arrived, Asked, Ended, Link, Opened, printable
from meshwalk.proto.overlay.addressbook import BookEntry
from meshwalk.proto.overlay.effects import Connect, Disconnect, OverlayEffect, Say, Tell
from meshwalk.proto.overlay.overlay import Overlay, OverlayStatistics
from meshwalk.proto.ownrecord import OwnRecord
from meshwalk.proto.timers import Timers
from meshwalk.wire.address import Address
from meshwalk.wire.frames import (
    Channel,
    CloseReason,
    ContentType,
    Frame,
    Message,
    Ping,
    Pong,
    Purpose,
)
from meshwalk.wire.messages import RefusalCode, encode
from meshwalk.wire.peerid import PeerId

# A global is found faster than a class's attribute.
_APPLICATION: Final = Channel.APPLICATION
_OVERLAY: Final = Channel.OVERLAY
_BROADCAST: Final = Channel.BROADCAST

TYPE_CHARACTERS_MAX = 255  # below ShortText's bound in wire/frames.py
TIMEOUT_S_MAX = 31_536_000  # a year: guess, longer than any link lives
ID_START_BITS = 31  # ids of another run rarely meet ours, and still encode in five bytes


class NodeStatistics(msgspec.Struct, frozen=True):
    """Counts of one node since it started."""

    overlay: OverlayStatistics
    links: int
    """Connections in any state."""
    half_open: int
    refused: dict[str, int]
    """Incoming connections closed unread, by the limit that refused them."""
    ended: dict[str, int]
    """Links that ended, by reason."""
    broadcast: dict[str, int]
    """Broadcasts by what was done with each copy."""
    messages: dict[str, int]
    """Messages and requests between two peers, by what was done with each."""
    origins: int
    """Origins of broadcasts that are remembered."""
    broadcasts_held: int
    """Broadcasts that came early and wait for others of their origin."""
    requests_waiting: int
    requests_served: int
    timers: int


class NodeCore:
    """All machines of one node."""

    def __init__(
        self,
        signatures: Signatures,
        config: Config,
        rng: Random,
        now: float,
        unix_offset_s: float,
        agent: str = "",
    ) -> None:
        """`unix_offset_s` plus machine time is Unix time."""
        self.me = signatures.peer_id
        self.unix_offset_s = unix_offset_s
        self.config = config
        self._out: list[Effect] = []
        ids = count(rng.getrandbits(ID_START_BITS) + 1)
        self._new_id = ids.__next__
        self.timers = Timers()
        self.own_record = OwnRecord(signatures, unix_offset_s)
        self.own_record.listening((), now)  # nowhere yet; but whoever never listens is somebody too
        self.connections = Connections(
            self.me,
            config,
            self.timers,
            self._out,
            self._new_id,
            lambda: self.own_record.blob,
            agent,
        )
        self._links = self.connections.links
        self.overlay = Overlay(
            signatures,
            config.overlay,
            lambda: self.own_record.blob,
            lambda: bool(self.own_record.addresses),
            self._new_id,
            rng,
            self.timers,
            unix_offset_s,
        )
        self.gossip = Gossip(signatures, config.broadcast, self.timers, unix_offset_s, now)
        self.dispatch = Dispatch(config.requests, self._new_id, self.timers)
        self.body_bytes_max = config.link.frame_bytes_max - ENVELOPE_BYTES

    # Inputs from the driver.

    def listening(self, addresses: tuple[Address, ...], now: float) -> None:
        """The node accepts connections there."""
        self.own_record.listening(addresses, now)

    def local_host(self, host: str, now: float) -> None:
        """An address of this machine: a node that listens on every interface listens there."""
        self.own_record.connected_from(host, now)

    def start(self, known: list[BookEntry], now: float) -> list[Effect]:
        """Begin, with the peers that the store kept."""
        self._on_overlay(self.overlay.start(known, now), now)
        return self._flush()

    def admit(self, remote: Address, now: float) -> int | None:
        """A connection before it is read: its link's number, or None to close it."""
        return self.connections.admit(remote, now)

    def secured(
        self, link: int, peer: PeerId, remote: Address, local_host: str, now: float
    ) -> list[Effect]:
        """The pipe of a link is there and its peer proven."""
        self.own_record.connected_from(local_host, now)
        self._on_link(self.connections.secured(link, peer, remote, now), now)
        return self._flush()

    def lost(self, link: int, why: str, now: float, *, not_admitted: bool = False) -> list[Effect]:
        """The pipe of a link has ended, or its dial or handshake has failed."""
        self._on_link(self.connections.lost(link, why, not_admitted=not_admitted), now)
        return self._flush()

    def receive(self, link: int, frames: Sequence[Frame], now: float) -> list[Effect]:
        """Frames from a peer, in order."""
        for frame in frames:
            found = self._links.get(link)
            if found is None:
                break
            if found.state is not OPEN:
                self._on_link(self.connections.receive(link, frame, now), now)
            elif type(frame) is Message:
                # The hot path: what `Connections.receive` would do, without its detours.
                found.heard_at = now
                found.messages_in += 1
                if frame.channel is _APPLICATION and not (frame.wants_reply or frame.in_reply_to):
                    if (delivered := self.dispatch.one_way(found, frame)) is not None:
                        self._out.append(delivered)
                else:
                    self._on_message(found, frame, now)
            elif type(frame) is Ping:  # no news, nor from a pong; and no deadline comes earlier
                found.pinged(frame, now)
            elif type(frame) is Pong:
                found.ponged(frame, now)
            else:
                self._on_link(self.connections.receive(link, frame, now), now)
        return self._flush()

    def malformed(self, link: int, why: str, now: float) -> list[Effect]:
        """The peer sent bytes that are no frame."""
        self._on_link(self.connections.malformed(link, why, now), now)
        return self._flush()

    def stalled(self, link: int, now: float) -> None:
        """Much waits to be sent to a peer that does not read."""
        self.connections.stalled(link, now)

    def resumed(self, link: int) -> None:
        """It reads again."""
        self.connections.resumed(link)

    def progressed(self, link: int, now: float) -> None:
        """It still has much to read, and has read some."""
        self.connections.progressed(link, now)

    def calendar_set(self, unix_offset_s: float) -> None:
        """Unix time is `now` plus this from here on: the machine slept, or its clock was set."""
        self.unix_offset_s = unix_offset_s
        self.gossip.unix_offset_s = unix_offset_s
        self.own_record.unix_offset_s = unix_offset_s
        self.overlay.book.unix_offset_s = unix_offset_s

    def overflowed(self, link: int, now: float) -> list[Effect]:
        """More waits to be sent than is allowed."""
        self._on_link(self.connections.overflowed(link, now), now)
        return self._flush()

    def tick(self, now: float) -> list[Effect]:
        """The deadline has come."""
        for machine, what in self.timers.due(now):
            if machine == connections_machine.TIMER:
                assert isinstance(what, int)
                if (news := self.connections.tick(what, now)) is not None:
                    self._on_link(news, now)
            elif machine == ordering_machine.TIMER:
                assert isinstance(what, bytes)
                self._on_gossip(self.gossip.tick(what, now), None, now)
            elif machine == dispatch_machine.TIMER:
                assert isinstance(what, int)
                self._on_dispatch(self.dispatch.tick(what), None, now)
            else:
                self._on_overlay(self.overlay.tick(now), now)
        return self._flush()

    def deadline(self) -> float | None:
        """When `tick` is due, by machine time."""
        return self.timers.next()

    # Commands of the application.

    def join(self, address: Address, expected: PeerId | None, now: float) -> list[Effect]:
        """Enter a network through this address."""
        self._on_overlay(self.overlay.enter(address, expected, now), now)
        return self._flush()

    def broadcast(
        self, topic: str, content: ContentType, body: bytes, now: float
    ) -> tuple[int, list[Effect]]:
        """Send to everyone; the number is this node's count. Raises `TooBig`, `InvalidArgument`."""
        self._check(body, topic, self.config.broadcast.body_bytes_max)
        sequence, effects = self.gossip.publish(topic, content, body, now)
        self._on_gossip(effects, None, now)
        return sequence, self._flush()

    def send(
        self, peer: PeerId, type: str, content: ContentType, body: bytes, now: float
    ) -> list[Effect]:
        """Send to one neighbour. Raises `NotANeighbour`, `TooBig`, `InvalidArgument`."""
        self._check(body, type, self.body_bytes_max)
        link = self._link_to(peer)
        link.messages_out += 1
        return [Send(link.number, self.dispatch.send(type, content, body, now))]

    def request(
        self,
        peer: PeerId,
        type: str,
        content: ContentType,
        body: bytes,
        timeout_s: float,
        now: float,
    ) -> tuple[int, list[Effect]] | None:
        """Ask one neighbour; None when too many requests wait already. Raises as `send`."""
        self._check(body, type, self.body_bytes_max)
        if not (0 <= timeout_s <= TIMEOUT_S_MAX):  # NaN, too, would put the timers out of order
            raise InvalidArgument(f"a deadline lies 0 to {TIMEOUT_S_MAX:,} seconds ahead")
        link = self._link_to(peer)
        asked = self.dispatch.request(link, type, content, body, timeout_s, now)
        if asked is None:
            return None
        id, effects = asked
        self._on_dispatch(effects, link, now)
        return id, self._flush()

    def abandon(self, request: int) -> None:
        """Nobody waits for this reply any more."""
        self.dispatch.abandon(request)

    def reply(
        self, link: int, request: int, content: ContentType, body: bytes, now: float
    ) -> list[Effect]:
        """Answer a peer's request. Raises `TooBig`."""
        self._check(body, "", self.body_bytes_max)
        self._on_dispatch(self.dispatch.reply(link, request, content, body, now), None, now)
        return self._flush()

    def refuse(
        self, link: int, request: int, code: RefusalCode, text: str, now: float
    ) -> list[Effect]:
        """Tell a peer that its request will not be answered."""
        effects = self.dispatch.refuse(link, request, code, printable(text), now)
        self._on_dispatch(effects, None, now)
        return self._flush()

    def ping(self, link: int, now: float) -> tuple[int, list[Effect]] | None:
        """Measure a link; `Measured` with the returned id follows. None: the link is not open."""
        found = self.connections.links.get(link)
        if found is None or not found.is_open:
            return None
        return found.ping(now), self._flush()

    def probe(self, address: Address, expected: PeerId | None, now: float) -> list[Effect]:
        """Dial to exchange pings; the effects begin with the `Dial`. Empty: too many dials."""
        self.connections.dial(address, expected, Purpose.PROBE, b"", now)
        return self._flush()

    def close_link(self, link: int, now: float) -> list[Effect]:
        """End a temporary link that has served its purpose."""
        found = self.connections.links.get(link)
        if found is not None:
            self._on_link(self.connections.close(found, CloseReason.DONE, "", now), now)
        return self._flush()

    def leave(self, now: float) -> list[Effect]:
        """Close every link, telling the peers."""
        self._on_overlay(self.overlay.leave(now), now)
        for link in list(self.connections.links.values()):
            self._on_link(self.connections.close(link, CloseReason.LEAVING, "", now), now)
        return self._flush()

    def link_of(self, peer: PeerId) -> Link | None:
        """The standing link to a neighbour."""
        neighbour = self.overlay.membership.neighbours.get(peer)
        return neighbour.link if neighbour is not None else None

    def statistics(self) -> NodeStatistics:
        """A snapshot."""
        return NodeStatistics(
            overlay=self.overlay.statistics(),
            links=len(self.connections.links),
            half_open=self.connections.half_open,
            refused=dict(self.connections.refused),
            ended=dict(self.connections.ended),
            broadcast=dict(self.gossip.counts),
            messages=dict(self.dispatch.counts),
            origins=self.gossip.origins,
            broadcasts_held=self.gossip.held,
            requests_waiting=self.dispatch.waiting,
            requests_served=self.dispatch.serving,
            timers=len(self.timers),
        )

    # Routing.

    def _on_link(self, news: LinkNews, now: float) -> None:
        if news is None:
            return
        link, what = news
        if type(what) is Arrived:
            self._on_message(link, what.message, now)
        elif isinstance(what, Asked):
            reason = self.overlay.asked(link, what.hello, now)
            if reason is not None:
                self._on_link(self.connections.close(link, reason, "", now), now)
                return
            self.connections.consent(link, now)
            self._on_overlay(self.overlay.opened(link, what.hello, now), now)
        elif isinstance(what, Opened):
            assert link.peer is not None
            self.own_record.seen_at(link.peer, what.hello.seen_at, now)
            if link.purpose is Purpose.PROBE:
                self._out.append(ProbeOpened(link.number, link.peer))
            self._on_overlay(self.overlay.opened(link, what.hello, now), now)
        elif isinstance(what, Ended):
            if link.outbound and link.purpose is Purpose.PROBE:
                self._out.append(ProbeEnded(link.number, what.text, what.not_admitted))
            self._on_dispatch(self.dispatch.link_gone(link, self._heir_of(link)), link, now)
            self._on_overlay(self.overlay.ended(link, what, now), now)

    def _on_message(self, link: Link, message: Message, now: float) -> None:
        channel = message.channel
        if channel is _BROADCAST:
            assert link.peer is not None
            if link.is_standing:
                self._on_gossip(self.gossip.receive(link.peer, message.body, now), link, now)
            else:
                self._close(link, CloseReason.PROTOCOL, "broadcasts are for neighbours", now)
        elif channel is _OVERLAY:
            if link.is_open:
                self._on_overlay(self.overlay.heard(link, message, now), now)
        else:
            heir = None if link.is_open else self._heir_of(link)
            self._on_dispatch(self.dispatch.receive(link, message, now, heir), link, now)

    def _on_gossip(self, effects: list[GossipEffect], link: Link | None, now: float) -> None:
        for effect in effects:
            if type(effect) is Deliver:
                self._out.append(effect)
            elif type(effect) is Flood:
                self._flood(effect, now)
            elif type(effect) is Blame:
                assert link is not None
                self._close(link, effect.reason, effect.text, now)
            else:
                assert_never(effect)

    def _flood(self, flood: Flood, now: float) -> None:
        # One frame for all links: the driver encodes it once.
        message = Message(self._new_id(), int(now * 1e6), _BROADCAST, flood.body)
        for neighbour in self.overlay.membership.neighbours.values():
            if neighbour.peer != flood.without:
                self.connections.send(neighbour.link, message)

    def _on_dispatch(self, effects: list[DispatchEffect], link: Link | None, now: float) -> None:
        for effect in effects:
            if type(effect) is Transmit:
                if effect.link.is_open:
                    self.connections.send(effect.link, effect.message)
            elif type(effect) is Fault:
                assert link is not None
                self._close(link, effect.reason, effect.text, now)
            else:
                self._out.append(effect)

    def _on_overlay(self, effects: list[OverlayEffect], now: float) -> None:
        for effect in effects:
            if type(effect) is Say:
                self._say(effect, now)
            elif type(effect) is Connect:
                self._connect(effect, now)
            elif type(effect) is Disconnect:
                link = self.connections.links.get(effect.link)
                if link is not None:
                    self._close(link, effect.reason, effect.text, now)
            elif type(effect) is Tell:
                self._out.append(Happened(effect.event))
            elif type(effect) is SavePeer or type(effect) is ForgetPeer:
                self._out.append(effect)
            else:
                assert_never(effect)

    def _say(self, say: Say, now: float) -> None:
        link = self.connections.links.get(say.link)
        if link is not None and link.is_open:
            body = encode(say.body)
            message = Message(say.id, int(now * 1e6), _OVERLAY, body, say.in_reply_to)
            self.connections.send(link, message)

    def _connect(self, connect: Connect, now: float) -> None:
        link = self.connections.dial(
            connect.address, connect.expected, connect.purpose, connect.token, now
        )
        if link is None:
            self._on_overlay(self.overlay.not_dialled(connect.attempt, now), now)
        else:
            link.attempt = connect.attempt

    def _close(self, link: Link, reason: CloseReason, text: str, now: float) -> None:
        self._on_link(self.connections.close(link, reason, text, now), now)

    # What the above share.

    def _heir_of(self, link: Link) -> Link | None:
        """The standing link to the same peer that has replaced `link`, if there is one."""
        if link.peer is None:
            return None
        heir = self.link_of(link.peer)
        return heir if heir is not link and link.is_standing else None

    def _link_to(self, peer: PeerId) -> Link:
        link = self.link_of(peer)
        if link is None:
            raise NotANeighbour(f"there is no link to {peer.short}; it is not a neighbour")
        return link

    def _check(self, body: bytes, label: str, limit: int) -> None:
        if len(body) > limit:
            raise TooBig(len(body), limit)
        if len(label) > TYPE_CHARACTERS_MAX:
            raise InvalidArgument(f"a type or topic has at most {TYPE_CHARACTERS_MAX} characters")
        if not label.isascii():
            try:
                label.encode()
            except UnicodeEncodeError:
                raise InvalidArgument("a type or topic is text that UTF-8 can write") from None

    def _flush(self) -> list[Effect]:
        # The list is shared with the connections, so it is emptied, not replaced.
        out = self._out[:]
        self._out.clear()
        return out
