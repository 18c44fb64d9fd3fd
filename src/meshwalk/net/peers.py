"""What a node knows of its peers, as records for people and programs. Reads only."""

from __future__ import annotations

import contextlib
from typing import Final

import msgspec

from meshwalk.errors import InvalidArgument, InvalidPeerId
from meshwalk.proto.node import NodeCore
from meshwalk.proto.overlay.bookentry import NEVER, BookEntry, Table
from meshwalk.wire.address import Address
from meshwalk.wire.peerid import PeerId

_ORDER: Final = (Table.VERIFIED, Table.LOST, Table.HEARD)


class PeerInfo(msgspec.Struct, frozen=True):
    """One peer."""

    peer: PeerId
    state: str
    """"neighbour", "verified" (we have dialled it with success), "lost" (verified once, and out of
    reach for long) or "heard" (others told of it)."""
    address: str
    """Where it is linked from or to, or the best address known."""
    rtt_s: float | None
    """Mean of the last round trips; None when never measured."""
    jitter_s: float | None
    """Mean difference between one round trip and the next."""
    failures: int
    """Failed dials since it last answered."""
    seen_s_ago: float | None
    """Since something came from it over a link; of a peer that is no neighbour, since its last link
    or test ended. None when it is known by hearsay alone."""
    met: str
    """How it first became known: by a "link" to it, from a "walk", in the "exchange" with a
    neighbour, or by a "query" for it."""
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
    tested_s_ago: float | None = None
    """Since it last passed a test; None when it never did."""
    is_anchor: bool = False
    """Whether it is to be dialled first after a restart."""


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
    """Neighbours first, oldest first; then those verified, lost and heard of, newest first."""
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
                tested_s_ago=_tested_s_ago(entry, now),
                is_anchor=entry is not None and entry.is_anchor,
            )
        )
    others = [e for e in book.values() if e.peer not in core.overlay.membership.neighbours]
    others.sort(key=lambda e: (_ORDER.index(e.table), -e.last_seen))
    found += [
        PeerInfo(
            peer=entry.peer,
            state=entry.table.value,
            address=str(entry.best_address or ""),
            rtt_s=entry.rtt_s,
            jitter_s=entry.jitter_s,
            failures=entry.failures,
            seen_s_ago=_seen_s_ago(entry, now),
            met=entry.met,
            linked_s=None,
            tested_s_ago=_tested_s_ago(entry, now),
            is_anchor=entry.is_anchor,
        )
        for entry in others
    ]
    return found


def _seen_s_ago(entry: BookEntry, now: float) -> float | None:
    # An entry's `last_seen` begins as the time when it was first heard of; only traces of a link
    # say that it means more.
    was_linked = (
        entry.table is not Table.HEARD
        or entry.met == "link"
        or entry.address is not None
        or entry.rtt_s is not None
        or entry.tested_at != NEVER
        or entry.position > 0
    )
    return max(0.0, now - entry.last_seen) if was_linked else None


def _tested_s_ago(entry: BookEntry | None, now: float) -> float | None:
    if entry is None or entry.tested_at == NEVER:
        return None
    return max(0.0, now - entry.tested_at)
