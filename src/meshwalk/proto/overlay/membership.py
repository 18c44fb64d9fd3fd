"""Which standing links a node has, and which places it has promised. Tables and rules; no messages.

`links_max` is never exceeded by what this node agrees to: a link counts from its opening, a place
that was promised counts until it is taken or times out, and so does an own walk under way. Only
links that join two fragments may go beyond it, by `healing_places`; and a link for which another
one is given up in the same step has that one's place, wherever it was.
"""

from __future__ import annotations

import enum
from random import Random

import msgspec

from meshwalk.config import Config
from meshwalk.proto.link import Link
from meshwalk.proto.overlay.groups import link_group
from meshwalk.wire.address import Address
from meshwalk.wire.frames import RANDOM_PURPOSES, Purpose
from meshwalk.wire.peerid import PeerId


class Neighbour(msgspec.Struct):
    """A peer with a standing link."""

    peer: PeerId
    link: Link
    is_random: bool
    """Whether chance chose it, by a walk: neither closeness nor another fragment."""
    group: str | None
    """Its address group; None where groups do not count."""
    told_of: frozenset[PeerId] = frozenset()
    """Those of our neighbours that it has told us it has connected to."""


class Place(msgspec.Struct, frozen=True):
    """Room kept for the origin of a walk."""

    origin: PeerId
    expires_at: float
    replaces: bool = False
    """The node is full: when the origin comes, another link makes room for it."""
    is_random: bool = True
    """Whether the link that takes it counts as a random one."""


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

    def __init__(self, me: PeerId, config: Config, rng: Random) -> None:
        self.me = me
        self.config = config.overlay
        self._book_config = config.book
        self.neighbours: dict[PeerId, Neighbour] = {}
        self.places: dict[bytes, Place] = {}
        """By walk token."""
        self.walks_under_way = 0
        """Own walks that may yet bring a link; kept up to date by the walks machine."""
        self.groups_count = True
        """Whether links to one address group are bounded now; the walks machine sets it aside when
        nobody of other groups is to be had."""
        self._rng = rng

    def __len__(self) -> int:
        return len(self.neighbours)

    @property
    def missing(self) -> int:
        """Links short of the minimum, or of the random ones among them; 0 when there are enough.

        Random ones are missed by a full node as well: it has others to give up for them.
        """
        count, config = len(self.neighbours), self.config
        random = config.random_min - self.randoms if count >= config.links_min else 0
        return max(0, config.links_min - count, random)

    @property
    def randoms(self) -> int:
        """Links that chance chose."""
        return sum(neighbour.is_random for neighbour in self.neighbours.values())

    @property
    def lacks_randoms(self) -> bool:
        """Whether chance chose too few of the links."""
        return self.randoms < self.config.random_min

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

    @property
    def has_healing_place(self) -> bool:
        """Whether a link to another fragment may be made; places promised to others stay free."""
        promised = len(self.neighbours) + len(self.places)
        is_free = promised < self.config.links_max + self.config.healing_places
        return is_free and not self._has_enough_bridges

    @property
    def _has_enough_bridges(self) -> bool:
        """Whether as many links as may be were made to join fragments: anybody can claim to be of
        another one, so they must not take all places."""
        bridges = sum(n.link.purpose is Purpose.HEALING for n in self.neighbours.values())
        return bridges > self.config.healing_places

    def has_enough_of(self, address: Address) -> bool:
        """Whether as many links as may be go to this address's group. An attacker's addresses are
        many, and their groups few (Heilman et al., USENIX Security 2015)."""
        if not self.groups_count:
            return False
        group = link_group(address, self._book_config)
        if group is None:
            return False
        there = sum(neighbour.group == group for neighbour in self.neighbours.values())
        return there >= self.config.links_per_group_max

    def not_of_group(self, address: Address) -> tuple[PeerId, ...]:
        """The neighbours of other groups than this address's."""
        group = link_group(address, self._book_config)
        return tuple(n.peer for n in self.neighbours.values() if n.group != group)

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

    def add(
        self, link: Link, *, is_random: bool | None = None, is_instead: bool = False
    ) -> tuple[Added, Link | None]:
        """A standing link has opened: what it is, and the other link to drop because of it.

        `is_random` says whether chance chose the peer; None: by the purpose of the link.
        `is_instead`: another one was removed for it just now.

        When both ends dialled, both keep the link that the smaller PeerId dialled: they agree
        without a word, whichever link opens first at which end.
        """
        peer = link.peer
        assert peer is not None
        present = self.neighbours.get(peer)
        if is_random is None:
            is_random = link.purpose in RANDOM_PURPOSES
        if present is None:
            if not is_instead and not self._has_place_for(link):
                return Added.FULL, link
            group = link_group(link.remote, self._book_config)
            self.neighbours[peer] = Neighbour(peer, link, is_random, group)
            return Added.NEW, None
        if self.keeps_present(present.link, link):
            return Added.SURPLUS, link
        dropped, present.link = present.link, link
        return Added.REPLACED, dropped

    def _has_place_for(self, link: Link) -> bool:
        if link.purpose is not Purpose.HEALING:
            return not self.is_full
        most = self.config.links_max + self.config.healing_places
        return len(self.neighbours) < most and not self._has_enough_bridges

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
        for other in self.neighbours.values():
            other.told_of -= {link.peer}
        return True

    def least_wanted(self) -> Neighbour | None:
        """Who makes room when a random link comes to a full node that has too few: of those that
        chance did not choose the newest, since whoever crowds in is new. A bridge between fragments
        only if there is nobody else, and then the oldest: a new one may be the only one."""
        if not self.lacks_randoms:
            return None

        def rank(neighbour: Neighbour) -> tuple[bool, float]:
            since = neighbour.link.since
            is_bridge = neighbour.link.purpose is Purpose.HEALING
            return not is_bridge, -since if is_bridge else since

        chosen = [n for n in self.neighbours.values() if not n.is_random]
        return max(chosen, key=rank, default=None)

    def random_neighbour(self, *without: PeerId | None) -> Neighbour | None:
        """Any neighbour but those named; None when there is no other."""
        choice = [n for n in self.neighbours.values() if n.peer not in without]
        return self._rng.choice(choice) if choice else None
