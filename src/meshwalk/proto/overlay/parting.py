"""A polite leave: the neighbours of a node that stops are handed over to each other.

The leaver pairs its neighbours, and tells each of a pair the other's record and one token; then it
closes its links. One of a pair keeps a place, and the other dials when the leaver's link has ended.
So each loses one link and gains one. If there is an odd one out, it is paired with one
that has a partner already. A pair that is linked already, which the leaver cannot know, or whose
dial fails, has lost a link like any other, and walks for a new one if it must.

One heir takes a leaver's place, or one hostile neighbour would become two, and these four. A second
one is taken only below the minimum, and does not count as random.
"""

from __future__ import annotations

from collections import Counter

import msgspec

from meshwalk.errors import InvalidRecord
from meshwalk.proto.link import Ended, Link
from meshwalk.proto.overlay.carrier import Carrier
from meshwalk.proto.overlay.membership import Neighbour
from meshwalk.proto.overlay.shared import Shared
from meshwalk.wire.address import Address
from meshwalk.wire.frames import CloseReason, Purpose
from meshwalk.wire.messages import Handover
from meshwalk.wire.peerid import PeerId

HANDED_MAX = 2  # the odd one out is told to one that has a partner


class Heir(msgspec.Struct):
    """Who is to take a leaver's place."""

    peer: PeerId
    token: bytes
    addresses: list[Address]
    """To be dialled; none where the other is to come here."""
    is_random: bool
    """Whether the leaver's link was a random one: the heir's counts as the same."""


class Parting:
    """What one node makes of leavers, and what it tells when it leaves itself."""

    def __init__(self, shared: Shared, carrier: Carrier) -> None:
        self.attempts: dict[int, Heir] = {}
        """Dials to heirs under way, by the number of the attempt."""
        self.counts: Counter[str] = Counter()
        """What came of handovers."""
        self._shared = shared
        self._membership = shared.membership
        self._carrier = carrier
        self._heirs: dict[int, list[Heir]] = {}
        """By the number of the leaver's link, which still stands."""

    # Inputs.

    def leave(self) -> None:
        """This node stops: hand its neighbours to each other."""
        neighbours = list(self._membership.neighbours.values())
        self._shared.rng.shuffle(neighbours)
        # Whoever is known to take connections is dialled, as far as there are enough of them.
        neighbours.sort(key=lambda n: not n.link.outbound)
        half = len(neighbours) // 2
        pairs = list(zip(neighbours[:half], reversed(neighbours), strict=False))
        if len(neighbours) % 2 and half:
            pairs.append((neighbours[0], neighbours[half]))
        for dialled, dialler in pairs:
            self._pair(dialled, dialler)

    def handed(self, link: Link, body: Handover, now: float) -> None:
        """A neighbour that is about to leave names another one to take its place."""
        present = self._membership.neighbours.get(link.peer) if link.peer is not None else None
        heirs = self._heirs.setdefault(link.number, [])
        if present is None or present.link is not link or not self._takes_one_more(heirs):
            self.counts["too many"] += 1  # before a signature has to be checked
            return
        is_random = present.is_random and not heirs
        try:
            record = self._shared.book.open(body.record, self._shared.signatures)
        except InvalidRecord as error:
            self._shared.disconnect(link, CloseReason.PROTOCOL, str(error))
            return
        believed, peer = self._shared.believed(record, link), record.peer_id
        enough_of = any(map(self._membership.has_enough_of, believed[:1]))
        is_known = self._membership.knows(peer) or body.token in self._membership.places
        if enough_of or is_known:
            self.counts["known already"] += 1
            heirs.append(Heir(peer, body.token, [], is_random))  # it counts all the same
            return
        self._shared.out += self._shared.book.heard(
            record, body.record, believed, "exchange", link.remote, now
        )
        heir = Heir(peer, body.token, list(believed), is_random)
        if body.dials:
            heirs.append(heir)
            return
        # Now, and not when the leaver has gone: the other's dial may come before that is known.
        heirs.append(Heir(peer, body.token, [], is_random))
        promised = len(self._membership) + len(self._membership.places)
        if promised > self._membership.config.links_max:  # the leaver's own place is still counted
            self.counts["no place"] += 1
            return
        self.counts["place kept"] += 1
        self._carrier.keep_place(peer, body.token, now, is_random=is_random)

    def came(self, heir: Link) -> Link | None:
        """An heir has come: whose place it takes that is a neighbour still. That one is to go, and
        its other heirs are not let in: or it could bring in one accomplice after the other."""
        for neighbour in self._membership.neighbours.values():
            heirs = self._heirs.get(neighbour.link.number, [])
            if any(known.peer == heir.peer and known.token == heir.token for known in heirs):
                for other in heirs:
                    place = self._membership.places.get(other.token)
                    if place is not None and place.origin == other.peer:
                        del self._membership.places[other.token]
                heirs.clear()
                return neighbour.link
        return None

    def link_gone(self, link: Link, reason: CloseReason | None, now: float) -> None:
        """A link has ended. If it was a leaver's, its heir takes its place."""
        for heir in self._heirs.pop(link.number, ()):
            # Only a neighbour that really goes may choose another one in its stead.
            is_wanted = reason is CloseReason.LEAVING and self._membership.has_room
            if is_wanted and heir.addresses and not self._membership.knows(heir.peer):
                self._dial(heir)

    def opened(self, attempt: int, link: Link, now: float) -> None:
        """An heir is a neighbour, if it had a place."""
        del self.attempts[attempt]
        self.counts["linked"] += 1

    def failed(self, attempt: int, ended: Ended, now: float) -> None:
        """An heir cannot be dialled, or has no place."""
        heir = self.attempts.pop(attempt)
        if ended.reason is None and not ended.by_us and heir.addresses:
            self._dial(heir)
        else:
            self.counts["failed"] += 1

    def stop(self) -> None:
        """The node is stopping."""
        self.attempts.clear()
        self._heirs.clear()

    # Steps.

    def _dial(self, heir: Heir) -> None:
        address = heir.addresses.pop(0)
        attempt = self._shared.dial(address, heir.peer, Purpose.HANDOVER, heir.token)
        self.attempts[attempt] = heir

    def _takes_one_more(self, heirs: list[Heir]) -> bool:
        """Whether a leaver may name another heir than these."""
        is_below = len(self._membership) < self._membership.config.links_min
        return not heirs or (len(heirs) < HANDED_MAX and is_below)

    def _pair(self, dialled: Neighbour, dialler: Neighbour) -> None:
        shared = self._shared
        whom = shared.record_of(dialled.peer, dialled.link)
        who = shared.record_of(dialler.peer, dialler.link)
        if not (whom and who and shared.may_tell(whom, dialler.link)):
            return
        if not shared.may_tell(who, dialled.link):
            return
        token = shared.new_token()
        shared.say(dialled.link, Handover(who, token, dials=False))
        shared.say(dialler.link, Handover(whom, token, dials=True))
