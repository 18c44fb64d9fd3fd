"""Which standing links a node has, and which places it has promised. Tables and rules; no messages.

`links_max` is never exceeded by what this node agrees to: a link counts from its opening, a place
that was promised counts until it is taken or times out, and so does an own walk under way.
"""

from __future__ import annotations

import enum
from random import Random

import msgspec

from meshwalk.config import OverlayConfig
from meshwalk.proto.link import Link
from meshwalk.wire.peerid import PeerId


class Neighbour(msgspec.Struct):
    """A peer with a standing link."""

    peer: PeerId
    link: Link


class Place(msgspec.Struct, frozen=True):
    """Room kept for the origin of a walk."""

    origin: PeerId
    expires_at: float
    replaces: bool = False
    """The node is full: when the origin comes, another link makes room for it."""


class Added(enum.Enum):
    """What became of a standing link that opened."""

    NEW = enum.auto()
    REPLACED = enum.auto()
    """The peer was a neighbour already, and this link is the one that both ends keep."""
    SURPLUS = enum.auto()
    """The peer is a neighbour already, and both ends drop this link."""
    FULL = enum.auto()


class Membership:
    """The neighbours of one node."""

    def __init__(self, me: PeerId, config: OverlayConfig, rng: Random) -> None:
        self.me = me
        self.config = config
        self.neighbours: dict[PeerId, Neighbour] = {}
        self.places: dict[bytes, Place] = {}
        """By walk token."""
        self.walks_under_way = 0
        """Own walks that may yet bring a link; kept up to date by the walks machine."""
        self._rng = rng

    def __len__(self) -> int:
        return len(self.neighbours)

    @property
    def missing(self) -> int:
        """Links short of the minimum; 0 when there are enough."""
        return max(0, self.config.links_min - len(self.neighbours))

    @property
    def has_room(self) -> bool:
        """Whether one more place may be promised."""
        promised = len(self.places) + self.walks_under_way
        return len(self.neighbours) + promised < self.config.links_max

    @property
    def has_place_unpromised(self) -> bool:
        """As `has_room`, but own walks do not count: they may end elsewhere."""
        return len(self.neighbours) + len(self.places) < self.config.links_max

    @property
    def is_full(self) -> bool:
        """Whether one more link would exceed the maximum."""
        return len(self.neighbours) >= self.config.links_max

    def knows(self, peer: PeerId) -> bool:
        """Whether `peer` is this node, a neighbour, or has a place promised."""
        return (
            peer == self.me
            or peer in self.neighbours
            or any(place.origin == peer for place in self.places.values())
        )

    def accepts_by_chance(self) -> bool:
        """Seed 000: with n links, accept a walk with chance 1/(n+1)."""
        return self._rng.randrange(len(self.neighbours) + 1) == 0

    @property
    def is_to_replace(self) -> bool:
        """Whether somebody is to come already for whom another link will make room."""
        return any(place.replaces for place in self.places.values())

    def drop_places(self, peer: PeerId) -> None:
        """The peer has come: it needs no place any more."""
        for token in [t for t, place in self.places.items() if place.origin == peer]:
            del self.places[token]

    def promise(self, token: bytes, place: Place) -> None:
        """Keep a place."""
        self.places[token] = place

    def expire_places(self, now: float) -> None:
        """Give up places whose origin did not come."""
        for token in [t for t, place in self.places.items() if place.expires_at <= now]:
            del self.places[token]

    def add(self, link: Link) -> tuple[Added, Link | None]:
        """A standing link has opened: what it is, and the other link to drop because of it.

        When both ends dialled, both keep the link that the smaller PeerId dialled: they agree
        without a word, whichever link opens first at which end.
        """
        peer = link.peer
        assert peer is not None
        present = self.neighbours.get(peer)
        if present is None:
            if self.is_full:
                return Added.FULL, link
            self.neighbours[peer] = Neighbour(peer, link)
            return Added.NEW, None
        if self.keeps_present(present.link, link):
            return Added.SURPLUS, link
        dropped, present.link = present.link, link
        return Added.REPLACED, dropped

    def keeps_present(self, present: Link, other: Link) -> bool:
        """Which of two links to one peer survives: true for the one that is there already."""
        assert other.peer is not None
        if present.outbound == other.outbound:
            return True
        return present.outbound == (self.me < other.peer)

    def remove(self, link: Link) -> bool:
        """A standing link has ended; true when its peer is no neighbour any more."""
        if link.peer is None:
            return False
        present = self.neighbours.get(link.peer)
        if present is None or present.link is not link:
            return False
        del self.neighbours[link.peer]
        return True

    def random_neighbour(self, *without: PeerId | None) -> Neighbour | None:
        """Any neighbour but those named; None when there is no other."""
        choice = [n for n in self.neighbours.values() if n.peer not in without]
        return self._rng.choice(choice) if choice else None
