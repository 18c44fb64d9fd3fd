"""One node's overlay with made-up links, for tests that call an input and compare the effects."""

from __future__ import annotations

from itertools import count
from random import Random

import msgspec

from meshwalk.config import Config, LinkConfig, OverlayConfig
from meshwalk.identity.keys import sign_record
from meshwalk.proto.link import Ended, Link, LinkState
from meshwalk.proto.overlay.effects import Connect, Disconnect, OverlayEffect, Say, Tell
from meshwalk.proto.overlay.overlay import Overlay
from meshwalk.proto.timers import Timers
from meshwalk.sim.node import UNIX_START_S
from meshwalk.sim.signatures import CheapSignatures
from meshwalk.wire.address import Address
from meshwalk.wire.frames import (
    PROTOCOL_VERSION,
    Channel,
    CloseReason,
    Hello,
    Message,
    Purpose,
)
from meshwalk.wire.messages import JoinRequest, OverlayMessage, encode
from meshwalk.wire.peerid import PeerId
from meshwalk.wire.records import PeerRecord

NETWORK_ID = bytes(32)
SEQUENCE = int(UNIX_START_S * 1e6)  # of a record that is signed when the bench's clock shows 0


def peer_of(number: int) -> PeerId:
    return PeerId(number.to_bytes(32, "big"))


def host_of(number: int) -> str:
    return f"10.0.{number >> 8}.{number & 255}"


def record_of(
    number: int,
    *texts: str,
    sequence: int = SEQUENCE,
    network_id: bytes = NETWORK_ID,
    signer: int | None = None,
) -> bytes:
    """The signed record of a peer, at its own host unless told otherwise."""
    signatures = CheapSignatures(peer_of(number if signer is None else signer), network_id)
    listed = list(texts) or [f"tcp://{host_of(number)}:1"]
    return sign_record(PeerRecord(bytes(peer_of(number)), sequence, listed), signatures)


class Bench:
    """The overlay of peer 0."""

    def __init__(
        self,
        links_min: int = 2,
        links_max: int = 4,
        *,
        announces: bool = True,
        seed: int = 0,
        others: Config | None = None,
    ) -> None:
        self.config = OverlayConfig(links_min=links_min, links_max=links_max)
        self.settings = msgspec.structs.replace(others or Config(), overlay=self.config)
        self.timers = Timers()
        self.last_id = 1000
        self.numbers = count(1)
        self.overlay = Overlay(
            CheapSignatures(peer_of(0)),
            self.settings,
            lambda remote: record_of(0),
            lambda: announces,
            self.next_id,
            Random(seed),
            self.timers,
            0.0,
            UNIX_START_S,
        )

    def link(
        self,
        peer: int,
        purpose: Purpose = Purpose.JOIN_ACCEPT,
        *,
        outbound: bool = False,
        token: bytes = b"",
        record: bytes | None = None,
    ) -> Link:
        """An open link that the overlay has not heard of yet."""
        link = Link(
            next(self.numbers),
            LinkConfig(),
            [],
            self.next_id,
            outbound=outbound,
            remote=Address(host_of(peer), 1 if outbound else 40000),
            now=0.0,
            purpose=purpose,
            token=token,
        )
        link.peer = peer_of(peer)
        link.state = LinkState.OPEN
        link.record = record_of(peer) if record is None else record
        return link

    def next_id(self) -> int:
        self.last_id += 1
        return self.last_id

    def hello(self, link: Link) -> Hello:
        return Hello(PROTOCOL_VERSION, link.purpose, 0, "", link.record, link.token)

    def open(self, link: Link, now: float = 0.0) -> list[OverlayEffect]:
        return self.overlay.opened(link, self.hello(link), now)

    def neighbour(self, peer: int, now: float = 0.0) -> Link:
        """A standing link of no particular walk."""
        link = self.link(peer)
        self.open(link, now)
        return link

    def end(
        self,
        link: Link,
        reason: CloseReason | None = None,
        now: float = 0.0,
        *,
        by_us: bool = False,
    ) -> list[OverlayEffect]:
        link.state = LinkState.CLOSED
        return self.overlay.ended(link, Ended(reason, "", by_us, was_open=True), now)

    def fail(
        self, connect: Connect, now: float, reason: CloseReason | None = None
    ) -> list[OverlayEffect]:
        """A dial has failed, or was refused."""
        link = self.link(9999, connect.purpose, outbound=True, token=connect.token)
        link.peer = None
        link.attempt = connect.attempt
        return self.overlay.ended(link, Ended(reason, "", by_us=False, was_open=False), now)

    def succeed(self, connect: Connect, peer: int, now: float) -> tuple[Link, list[OverlayEffect]]:
        """A dial has succeeded."""
        link = self.link(peer, connect.purpose, outbound=True, token=connect.token)
        link.attempt = connect.attempt
        return link, self.open(link, now)

    def hear(
        self, link: Link, body: OverlayMessage, now: float = 0.0, id: int = 7, to: int = 0
    ) -> list[OverlayEffect]:
        message = Message(id, 0, Channel.OVERLAY, encode(body), to)
        return self.overlay.heard(link, message, now)

    def tick_until(self, now: float) -> list[OverlayEffect]:
        """Let every deadline up to `now` come."""
        effects: list[OverlayEffect] = []
        for _ in range(10_000):
            at = self.timers.next()
            if at is None or at > now:
                return effects
            for _, what in self.timers.due(at):
                effects += self.overlay.tick(what, at)
        raise AssertionError("the timers do not come to rest")


def request(
    origin: int,
    *,
    token: bytes = b"t",
    reach: str | None = None,
    forced: int = 0,
    hops: int = 0,
    record: bytes | None = None,
) -> JoinRequest:
    """A join request as a neighbour would bring it."""
    blob = record_of(origin) if record is None else record
    return JoinRequest(blob, token, host_of(origin) if reach is None else reach, forced, hops)


def says(effects: list[OverlayEffect]) -> list[Say]:
    return [e for e in effects if isinstance(e, Say)]


def connects(effects: list[OverlayEffect]) -> list[Connect]:
    return [e for e in effects if isinstance(e, Connect)]


def disconnects(effects: list[OverlayEffect]) -> list[Disconnect]:
    return [e for e in effects if isinstance(e, Disconnect)]


def tells(effects: list[OverlayEffect]) -> list[Tell]:
    return [e for e in effects if isinstance(e, Tell)]
