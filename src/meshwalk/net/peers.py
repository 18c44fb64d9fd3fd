"""What a node knows of its peers, as records for people and programs. Reads only."""

from __future__ import annotations

import contextlib

import msgspec

from meshwalk.errors import InvalidArgument, InvalidPeerId
from meshwalk.proto.node import NodeCore
from meshwalk.wire.address import Address
from meshwalk.wire.peerid import PeerId


class PeerInfo(msgspec.Struct, frozen=True):
    """One peer."""

    peer: PeerId
    state: str
    """"neighbour", "verified" (we have dialled it with success) or "heard"."""
    address: str
    """Where it is linked from or to, or the best address known."""
    rtt_s: float | None
    """Mean of the last round trips; None when never measured."""
    jitter_s: float | None
    failures: int
    """Failed dials since it last answered."""
    seen_s_ago: float
    met: str
    """How it became known: "entry", "link", "walk", "acquaintance", "query" or
    "store"."""
    linked_s: float | None
    """For how long it has been a neighbour."""
    messages_in: int = 0
    messages_out: int = 0
    one_way_s: float | None = None
    """How long its messages are on their way to us, lately: by the clocks, whose difference is
    known from the pings as well as the path is even."""
    queueing_s: float | None = None
    """Of that, how long they wait in some queue: what is above the least that was ever seen."""
    clock_offset_s: float | None = None
    """Its machine time minus ours."""


def check_peer(peer: object) -> None:
    """Whether a caller has named a peer as peers are named. Raises `InvalidArgument`."""
    if not isinstance(peer, PeerId):
        shown = type(peer).__name__
        raise InvalidArgument(
            f"a peer is named by its PeerId, not a {shown}; PeerId.parse(text) makes one of text"
        )


def parse_target(target: PeerId | str | Address) -> PeerId | Address:
    """Whom a ping is for; text is an address. Raises `InvalidArgument`."""
    if isinstance(target, str):
        with contextlib.suppress(InvalidPeerId):
            PeerId.parse(target)
            raise InvalidArgument("this text names a peer; PeerId.parse(text) makes its PeerId")
        return Address.parse(target)
    if not isinstance(target, Address):
        check_peer(target)
    return target


def peers_of(core: NodeCore, now: float) -> list[PeerInfo]:
    """Neighbours first, oldest first; then verified and heard-of peers, newest first."""
    book = core.overlay.book.entries
    found: list[PeerInfo] = []
    for neighbour in core.overlay.membership.neighbours.values():
        link, entry = neighbour.link, book.get(neighbour.peer)
        found.append(
            PeerInfo(
                peer=neighbour.peer,
                state="neighbour",
                address=str(link.remote),
                rtt_s=link.round_trips.mean_s,
                jitter_s=link.round_trips.jitter_s,
                failures=0,
                seen_s_ago=max(0.0, now - link.heard_at),
                met=entry.met if entry is not None else "link",
                linked_s=max(0.0, now - link.since),
                messages_in=link.messages_in,
                messages_out=link.messages_out,
                one_way_s=link.delay_s,
                queueing_s=link.queueing_s,
                clock_offset_s=link.round_trips.clock_offset_s,
            )
        )
    others = [e for e in book.values() if e.peer not in core.overlay.membership.neighbours]
    others.sort(key=lambda e: (not e.verified, -e.last_seen))
    found += [
        PeerInfo(
            peer=entry.peer,
            state="verified" if entry.verified else "heard",
            address=str(next(iter(entry.to_try(1)), "")),
            rtt_s=entry.rtt_s,
            jitter_s=None,
            failures=entry.failures,
            seen_s_ago=max(0.0, now - entry.last_seen),
            met=entry.met,
            linked_s=None,
        )
        for entry in others
    ]
    return found
