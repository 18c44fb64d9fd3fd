"""Find a peer's signed record by asking: own searches, and the part in those of others.

A search is a few random walks. Each node on the way answers when it has what is sought, or passes
the question to one neighbour and remembers the way back. It cannot grow or go round for ever: one
message goes on for each that came, with one hop less, and whoever is asked too much says that it
knows nothing.

Every hop checks the answer that it passes on. So a record that does not verify, or is of somebody
else, is the fault of whoever sent it, and that link is closed. What cannot be told from the truth
is an old record, and silence: a search ends at once only by a record that is newer than ours.
"""

from __future__ import annotations

import itertools
from collections import Counter

import msgspec

from meshwalk.errors import InvalidRecord
from meshwalk.proto.link import Link
from meshwalk.proto.overlay.effects import Found, NotFound
from meshwalk.proto.overlay.shared import Shared
from meshwalk.proto.rate import BucketPerLink
from meshwalk.wire.frames import CloseReason
from meshwalk.wire.messages import HOPS_MAX, FindPeer, PeerFound
from meshwalk.wire.peerid import PeerId
from meshwalk.wire.records import PeerRecord, decode_peer_record, decode_signed

EXPIRY = ("overlay", "finding")


class Carried(msgspec.Struct, frozen=True):
    """A question of somebody else that has been passed on."""

    target: PeerId
    link: Link
    """Where it came from, under `id`."""
    id: int
    onward: int
    """Number of the link that it went on over."""
    expires_at: float


class Search(msgspec.Struct):
    """An own search under way."""

    peer: PeerId
    newer_than: int
    expires_at: float
    asked: dict[int, int]
    """Links by number, under the id of the question that went over each and has no answer yet."""
    is_answered: bool = False
    second_best: Found | None = None
    """A record no newer than ours: it counts if nothing better comes."""


class Finding:
    """The searches at one node."""

    def __init__(self, shared: Shared) -> None:
        self.searches: dict[PeerId, Search] = {}
        self.carried: dict[int, Carried] = {}
        """By the id under which the question went on."""
        self.own: Counter[str] = Counter()
        """How own searches ended, and "lie" for each answer that was one."""
        self.others: Counter[str] = Counter()
        """What was done with others' questions."""
        self._search_of: dict[int, Search] = {}
        """By the id of each question without an answer."""
        self._shared = shared
        self._membership = shared.membership
        self._book = shared.book
        config = self._config = shared.config.overlay
        self._rng = shared.rng
        self._timers = shared.timers
        self._out = shared.out
        self._rates = BucketPerLink(config.finds_per_link_per_s, config.finds_per_link_burst)
        self._nothing_before = float("inf")
        """Until then nothing of what waits here expires; `expire` is due at that time."""
        self._is_stopped = False

    # Inputs.

    def find(self, peer: PeerId, now: float) -> None:
        """Ask for a peer's record; `Found` or `NotFound` follows, now or within `find_timeout_s`.

        A search for the same peer that is under way serves for both.
        """
        self.expire(now)
        if peer in self.searches:
            return
        neighbours = [n for n in self._membership.neighbours.values() if n.peer != peer]
        if self._is_stopped:
            self._not_begun(peer, "stopping", "the node is stopping")
        elif peer == self._membership.me:
            self._not_begun(peer, "self", "it is this node itself")
        elif not neighbours:
            self._not_begun(peer, "nobody to ask", "there is no neighbour to ask")
        elif len(self.searches) >= self._config.finds_max:
            self._not_begun(peer, "too many", "too many searches are under way")
        else:
            walks = min(self._config.find_walks, len(neighbours))
            expires_at = now + self._config.find_timeout_s
            search = Search(peer, self._known(peer)[1], expires_at, {})
            self.searches[peer] = search
            self._arm(expires_at)
            for neighbour in self._rng.sample(neighbours, walks):
                self._ask(search, neighbour.link)

    def asked(self, link: Link, id: int, question: FindPeer, now: float) -> None:
        """A neighbour asks for somebody's record."""
        self.expire(now)
        target = PeerId(question.target)
        if not self._rates.take(link.number, now):
            self._answer(link, id, b"", "busy")
            return
        if target == self._membership.me:
            self._answer(link, id, self._shared.own_record(link.remote), "told own")
            return
        blob, sequence = self._known(target)
        if blob and sequence > question.newer_than and self._shared.may_tell(blob, link):
            self._answer(link, id, blob, "told")
            return
        # Whoever is sought is asked itself, if only because its record may be no newer.
        onward = self._membership.neighbours.get(target) if target != link.peer else None
        if onward is None and question.hops_left > 0:
            # At a dead end it turns round: a network that has lost much has many of them.
            onward = self._membership.random_neighbour(link.peer)
            onward = onward or self._membership.random_neighbour()
        if onward is None:
            self._answer(link, id, b"", "not known")
        elif len(self.carried) >= self._config.finds_carried_max:
            self._answer(link, id, b"", "busy")
        else:
            self._carry(link, id, question, onward.link, now)

    def answered(self, link: Link, id: int, answer: PeerFound, now: float) -> None:
        """An answer has come to what was asked as `id`; one that nobody waits for is ignored."""
        self.expire(now)
        carried, search = self.carried.get(id), self._search_of.get(id)
        if carried is not None and carried.onward == link.number:
            del self.carried[id]
            record = self._checked(link, answer, carried.target)
            hops = min(answer.hops + 1, HOPS_MAX)
            blob = answer.record if record is not None else b""
            if blob and not self._shared.may_tell(blob, carried.link):
                self.others["not passed on"] += 1
                blob = b""
            self._say(carried.link, carried.id, PeerFound(blob, hops))
        elif search is not None and search.asked[id] == link.number:
            self._forget_question(id)
            search.is_answered = True
            record = self._checked(link, answer, search.peer)
            if record is not None:
                self._good_answer(search, answer, record, link, now)
            elif not search.asked:
                self._end(search)

    def link_gone(self, link: Link, now: float) -> None:
        """A link has ended: nobody waits for answers over it, and none will come over it."""
        self.expire(now)
        self._rates.forget(link.number)
        gone = [(i, c) for i, c in self.carried.items() if link.number in (c.onward, c.link.number)]
        for id, carried in gone:
            del self.carried[id]
            if carried.link is not link:
                self._answer(carried.link, carried.id, b"", "link lost")
        for search in list(self.searches.values()):
            for id in [i for i, number in search.asked.items() if number == link.number]:
                self._forget_question(id)
            if not search.asked:
                self._end(search)

    def expire(self, now: float) -> None:
        """End own searches that take too long, and forget those of others."""
        if now < self._nothing_before:
            return
        # Insertion order is the order of expiry, since all live equally long.
        while self.carried and self.carried[first := next(iter(self.carried))].expires_at <= now:
            del self.carried[first]
            self.others["timed out"] += 1
        while self.searches and (search := next(iter(self.searches.values()))).expires_at <= now:
            self._end(search)
        times = [c.expires_at for c in itertools.islice(self.carried.values(), 1)]
        times += [s.expires_at for s in itertools.islice(self.searches.values(), 1)]
        self._nothing_before = float("inf")
        if times:
            self._arm(min(times))

    def stop(self) -> None:
        """The node is stopping: own searches end, and no others are carried."""
        self._is_stopped = True
        for peer in self.searches:
            self._not_begun(peer, "stopping", "the node is stopping")
        self.searches.clear()
        self._search_of.clear()
        self.carried.clear()
        self._rates.clear()
        self._nothing_before = float("inf")
        self._timers.cancel(EXPIRY)

    # Steps.

    def _ask(self, search: Search, link: Link) -> None:
        hops_left = self._config.find_hops - 1
        question = FindPeer(bytes(search.peer), hops_left, search.newer_than)
        id = self._shared.say(link, question)
        search.asked[id] = link.number
        self._search_of[id] = search

    def _good_answer(
        self, search: Search, answer: PeerFound, record: PeerRecord, link: Link, now: float
    ) -> None:
        addresses = self._shared.believed(record, link)
        heard = self._book.heard(record, answer.record, addresses, "query", link.remote, now)
        self._out += heard
        found = Found(search.peer, answer.record, addresses, answer.hops)
        if record.sequence > search.newer_than:
            self._end(search, found)
            return
        search.second_best = found
        if not search.asked:
            self._end(search)

    def _end(self, search: Search, found: Found | None = None) -> None:
        del self.searches[search.peer]
        for id in list(search.asked):
            self._forget_question(id)
        found = found or search.second_best
        if found is not None:
            self.own["found"] += 1
            self._out.append(found)
        elif search.is_answered:
            self.own["not found"] += 1
            self._out.append(NotFound(search.peer, "nobody asked knows one"))
        else:
            self.own["no answer"] += 1
            self._out.append(NotFound(search.peer, "no answer came"))

    def _not_begun(self, peer: PeerId, count: str, why: str) -> None:
        self.own[count] += 1
        self._out.append(NotFound(peer, why))

    def _forget_question(self, id: int) -> None:
        del self._search_of.pop(id).asked[id]

    def _carry(self, link: Link, id: int, question: FindPeer, onward: Link, now: float) -> None:
        self.others["carried"] += 1
        hops_left = max(0, min(question.hops_left, self._config.find_hops) - 1)
        step = FindPeer(question.target, hops_left, question.newer_than)
        new_id = self._shared.say(onward, step)
        expires_at = now + self._config.find_timeout_s
        target = PeerId(question.target)
        self.carried[new_id] = Carried(target, link, id, onward.number, expires_at)
        self._arm(expires_at)

    def _answer(self, link: Link, id: int, blob: bytes, count: str) -> None:
        self.others[count] += 1
        self._say(link, id, PeerFound(blob, 1))

    def _say(self, link: Link, id: int, answer: PeerFound) -> None:
        self._shared.say(link, answer, id)

    # What the above share.

    def _known(self, peer: PeerId) -> tuple[bytes, int]:
        """A peer's genuine record and its sequence number; b"" and 0 when there is none."""
        entry = self._book.entries.get(peer)
        if entry is not None and entry.blob:
            return entry.blob, entry.sequence
        # A neighbour that cannot be dialled is in no address book.
        neighbour = self._membership.neighbours.get(peer)
        if neighbour is None or not (blob := neighbour.link.record):
            return b"", 0
        return blob, decode_peer_record(decode_signed(blob).payload).sequence

    def _checked(self, link: Link, answer: PeerFound, target: PeerId) -> PeerRecord | None:
        """The record of an answer; None when it has none, or one that is a lie."""
        if not answer.record:
            return None
        try:
            record = self._book.open(answer.record, self._shared.signatures)
        except InvalidRecord as error:
            why = str(error)
        else:
            if record.peer == target:
                return record
            why = "a record of another peer than the one asked for"
        self.own["lie"] += 1
        self._shared.disconnect(link, CloseReason.PROTOCOL, why)
        return None

    def _arm(self, at: float) -> None:
        """Have `expire` called at that time at the latest. What it is for may be gone by then."""
        if at < self._nothing_before:
            self._nothing_before = at
            self._timers.set(EXPIRY, at)
