"""How a standing link makes its peer a neighbour, and how a neighbour ceases to be one.

Which of several links stays, and who gives way, is decided here and nowhere else. What neighbours
mean to the other machines, those are told by `Overlay`, from what `stand` and `gone` return.
"""

from __future__ import annotations

from meshwalk.events import Alone, Joined, NeighbourDown, NeighbourUp
from meshwalk.proto.link import Link
from meshwalk.proto.overlay.carrier import Carrier
from meshwalk.proto.overlay.effects import Tell
from meshwalk.proto.overlay.membership import Added
from meshwalk.proto.overlay.shared import Shared
from meshwalk.proto.overlay.walks import Walks
from meshwalk.wire.frames import RANDOM_PURPOSES, CloseReason, Purpose


class Standing:
    """Standing links of one node as they open and end."""

    def __init__(self, shared: Shared, walks: Walks, carrier: Carrier) -> None:
        self._shared = shared
        self._membership = shared.membership
        self._walks = walks
        self._carrier = carrier
        self.is_leaving = False

    def stand(self, link: Link, now: float, *, is_random: bool | None = None) -> bool:
        """A standing link has opened: make its peer a neighbour if it still can be one.

        True when it is a neighbour by this link from now on. `is_random`: see `Membership.add`.
        """
        peer = link.peer
        assert peer is not None
        membership = self._membership
        acceptance = self._carrier.acceptances.get(link.attempt)
        gives_up = acceptance.gives_up if acceptance is not None else None
        takes_place = link.purpose in (Purpose.STANDING, Purpose.HANDOVER) and not link.outbound
        place = membership.places.pop(link.token, None) if takes_place else None
        if place is not None and is_random is None:
            is_random = place.is_random
        victim: Link | None = None
        if peer in membership.neighbours:
            if acceptance is not None and gives_up is not None:
                self._carrier.split_is_off(acceptance)
        elif gives_up is not None:
            victim = gives_up
        elif place is not None and place.replaces and membership.is_full:
            other = membership.random_neighbour(peer)
            victim = other.link if other is not None else None
        elif link.purpose in RANDOM_PURPOSES and membership.is_full:
            other = membership.least_wanted()
            victim = other.link if other is not None else None
        # One for one, also beyond the maximum: to lose a link and refuse the other helps nobody.
        is_instead = membership.is_full and self._gives_up(victim)
        added, dropped = membership.add(link, is_random=is_random, is_instead=is_instead)
        if link.attempt in self._carrier.acceptances:
            self._carrier.opened(link.attempt, link)
        if added is Added.FULL:
            self._shared.disconnect(link, CloseReason.FULL, "all places are taken")
            return False
        if dropped is not None:
            self._drop_twin(dropped, membership.neighbours[peer].link, now)
        if added is Added.NEW:
            membership.drop_places(peer)
            self._say_up(link)
            self._gives_up(victim)  # with room for both, nobody is alone in between
        # A token of ours comes back over a link that its finder dialled, or goes out on one that
        # we dialled to take a place; on other links the token is of the other end's walk.
        is_of_a_walk = link.purpose in RANDOM_PURPOSES
        if is_of_a_walk and link.outbound == (link.purpose is Purpose.STANDING):
            self._walks.linked(link.token, link.purpose, now)
        return added in (Added.NEW, Added.REPLACED)

    def gone(self, link: Link, reason: CloseReason | None, text: str, *, by_us: bool) -> bool:
        """A link has ended; true when its peer was a neighbour by it and is none any more."""
        if not self._membership.remove(link):
            return False
        self._say_down(link, reason, text, by_us=by_us)
        return True

    def give_up(self, link: Link, reason: CloseReason) -> bool:
        """Drop a link for another one, in the same step in which that takes its place; false when
        its peer was no neighbour by it any more."""
        if not self._membership.remove(link):
            return False
        self._shared.disconnect(link, reason)
        self._say_down(link, reason, "", by_us=True)
        return True

    def _gives_up(self, victim: Link | None) -> bool:
        return victim is not None and self.give_up(victim, CloseReason.SPLIT)

    def _drop_twin(self, loser: Link, winner: Link, now: float) -> None:
        """Close the link that lost, at the right end. The winner opens last where it was dialled:
        were the other end to close the loser, its word might come before the winner is open."""
        if winner.outbound:
            self._shared.disconnect(loser, CloseReason.DUPLICATE)
        else:
            loser.retire(now)

    def _say_up(self, link: Link) -> None:
        assert link.peer is not None
        count = len(self._membership)
        self._shared.out.append(Tell(NeighbourUp(link.peer, link.remote, count)))
        if count == 1:
            self._shared.out.append(Tell(Joined(link.peer)))

    def _say_down(self, link: Link, reason: CloseReason | None, text: str, *, by_us: bool) -> None:
        assert link.peer is not None
        name = reason.name.lower() if reason is not None else "lost"
        told = f"{name}: {text}" if text else name
        count = len(self._membership)
        self._shared.out.append(Tell(NeighbourDown(link.peer, told, by_us, count)))
        if count == 0 and not self.is_leaving:
            self._shared.out.append(Tell(Alone()))
