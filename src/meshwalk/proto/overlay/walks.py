"""Own walks: find links when there are fewer than the minimum, whoever can be asked.

A walk is a transaction. It starts over a neighbour's link, or over a temporary link to an entry
or a peer from the address book, and ends by a link that quotes its token, by an answer, or by
time. As long as links are missing, the next round follows: at once when the last one brought a
link, else after a pause that doubles, with jitter. Rounds that fail alternate between neighbours
and the address book, so that a small fragment whose members all know each other finds out of it.
"""

from __future__ import annotations

from collections import Counter

import msgspec

from meshwalk.errors import InvalidRecord
from meshwalk.events import EntryFailed
from meshwalk.proto.link import Ended, Link
from meshwalk.proto.overlay.effects import Tell
from meshwalk.proto.overlay.shared import Shared
from meshwalk.wire.address import Address
from meshwalk.wire.frames import CloseReason, Purpose
from meshwalk.wire.messages import JoinOutcome, JoinReply, JoinRequest
from meshwalk.wire.peerid import PeerId

ENTRIES_MAX = 32  # guess: addresses given by a person or a program
IN_VAIN_MAX = 4  # guess: pauses of some 4 s; a hostile peer could have us wait for no longer
LATE_MAX = 64  # guess: some seconds' worth of walks that failed

REFILL = ("overlay", "refill")
EXPIRY = ("overlay", "walks")


class Entry(msgspec.Struct):
    """An address that the node was told to enter through."""

    address: Address
    expected: PeerId | None
    failures: int = 0
    next_try_at: float = float("-inf")
    peer: PeerId | None = None
    """Who answered there last."""
    is_served: bool = False
    """A walk from there has brought a link. Until then the entry is owed one, links or no links:
    whoever named it wants to be where it is, and others may have filled this node meanwhile."""
    tries: int = 0
    """How often somebody answered there: the pauses between tries grow with it."""


class Walk(msgspec.Struct):
    """One join request on its way."""

    token: bytes
    id: int
    link: Link
    expires_at: float
    split_taken: bool = False
    is_promised: bool = False
    """An acceptor keeps a place, and we have dialled it: once, whatever else is answered."""
    is_extra: bool = False
    """It is to bring a link although none is missing."""


class Source(msgspec.Struct):
    """A dial to somebody who is to start walks for us."""

    entry: Entry | None
    peer: PeerId | None
    addresses: list[Address]
    dialled: Address


class Promised(msgspec.Struct):
    """A dial to an acceptor that keeps a place for us (DIAL_ME)."""

    walk: Walk
    peer: PeerId
    addresses: list[Address]


class Walks:
    """The walks of one node on its own behalf."""

    def __init__(self, shared: Shared) -> None:
        self.entries: list[Entry] = []
        self.walks: dict[bytes, Walk] = {}
        """Under way, by token."""
        self.late: dict[bytes, Walk] = {}
        """Answered in the negative or lost on the way; may bring a link yet, until they expire."""
        self.attempts: dict[int, Source | Promised] = {}
        self.failures = 0
        """Rounds in a row that brought nothing."""
        self.counts: Counter[str] = Counter()
        self._shared = shared
        self._membership = shared.membership
        self._book = shared.book
        self._config = shared.config.overlay
        self._book_total_max = shared.config.book.total_max
        self._rng = shared.rng
        self._timers = shared.timers
        self._out = shared.out
        self._not_before = float("-inf")
        self._in_vain = 0
        """Links in a row that did not hold, for want of a common language."""
        self._in_vain_until = float("-inf")
        self._is_stopped = False

    # Inputs.

    def enter(self, address: Address, expected: PeerId | None, now: float) -> None:
        """Try this entry soon, and again whenever nobody better is known."""
        self.entries = [e for e in self.entries if e.address != address][-ENTRIES_MAX + 1 :]
        self.entries.append(Entry(address, expected))
        self._not_before = float("-inf")
        self.refill(now)

    def refill(self, now: float) -> None:
        """Start as many walks as are wanted and allowed now, or set the timer for later."""
        if not self._membership.missing:
            self._membership.groups_count = True  # whoever brought the links, walks or others
        if self._is_stopped:
            return
        if any(isinstance(what, Source) for what in self.attempts.values()):
            return  # the end of what is under way calls this again
        missing = self._membership.missing
        # Half of what is missing at a time: meanwhile others' walks end here and fill the rest,
        # and the mean number of links is 8 instead of the maximum (docs/experiments.md).
        wanted = (missing + 1) // 2 - len(self.walks)
        if wanted <= 0:
            # A fragment that lacks nothing is joined to another by naming one of that as an entry.
            if not self._membership.is_full:
                self._dial_owed(now)
            return
        if now < self._not_before:
            self._timers.set(REFILL, self._not_before)
            return
        if self._membership.neighbours and self.failures % 2 == 0:
            self._ask_neighbours(wanted, now)
        elif not self._dial_somebody(now):
            if self._membership.neighbours:
                self._ask_neighbours(wanted, now)
            else:
                self._wait_for_somebody(now)

    def walk_from(self, link: Link, count: int, now: float) -> None:
        """Walk over this link for more links than are needed, as far as there is room."""
        for _ in range(count):
            if self._is_stopped or not self._membership.has_room:
                return
            self._start(link, now, is_extra=True)

    def woke(self, now: float) -> None:
        """Time has passed unseen: all that was put off may be tried now."""
        self._not_before = float("-inf")
        self.failures = 0
        for entry in self.entries:
            entry.next_try_at = float("-inf")
        self.refill(now)

    def was_in_vain(self, now: float) -> None:
        """A link has ended as soon as it opened, since its ends do not understand each other. The
        next such is not sought at once, or the two would go on as fast as they can dial."""
        self._in_vain = min(self._in_vain + 1, IN_VAIN_MAX)
        self._in_vain_until = now + self._pause(self._in_vain)
        self._not_before = max(self._not_before, self._in_vain_until)

    def stop(self) -> None:
        """The node is stopping: look for no more links."""
        self._is_stopped = True
        self.walks.clear()
        self.late.clear()
        self.attempts.clear()
        self._membership.walks_under_way = 0
        self._timers.cancel(REFILL)
        self._timers.cancel(EXPIRY)

    def invites(self, token: bytes, purpose: Purpose, now: float) -> bool:
        """Whether a peer that quotes this token may become a neighbour."""
        walk = self.walks.get(token) or self.late.get(token)
        if walk is None or walk.expires_at <= now:
            return False
        return purpose is Purpose.JOIN_ACCEPT or not walk.split_taken

    def awaited(self, token: bytes, now: float) -> int:
        """Links that other walks than this one are to bring: the second halves of splits. Without a
        place for it, a split would take a link from the network instead of adding one."""
        return sum(
            walk.split_taken and walk.token != token and walk.expires_at > now
            for walk in (*self.walks.values(), *self.late.values())
        )

    def linked(self, token: bytes, purpose: Purpose, now: float) -> None:
        """A link that quotes this token has opened."""
        walk = self.walks.get(token) or self.late.get(token)
        if walk is None:
            return
        for entry in self.entries:
            if entry.peer == walk.link.peer:
                entry.is_served = True
        if purpose is Purpose.JOIN_SPLIT:
            walk.split_taken = True
        else:
            self._end(walk)
            self.late.pop(token, None)
        self._succeeded(now)

    def answered(self, id: int, reply: JoinReply, link: Link, now: float) -> bool:
        """An answer to one of our requests; false when `id` is none of them."""
        under_way = [*self.walks.values(), *self.late.values()]
        walk = next((w for w in under_way if w.id == id and w.link is link), None)
        if walk is None:
            return False
        if reply.outcome is JoinOutcome.DIAL_ME:
            self.counts["dial me"] += 1
            is_wanted = self._membership.missing or walk.is_extra or self._is_owed(walk)
            if is_wanted and not walk.is_promised:
                self._dial_acceptor(walk, reply, now)
        elif walk.token in self.walks:
            self.counts[reply.outcome.name.lower().replace("_", " ")] += 1
            self._end(walk)
            # A link would have ended the walk before: LINKED is no better than the other outcomes.
            # Whoever carried the walk may have lost sight of it while it went on: not least when
            # the link that was split is the one that the answer would have come over.
            self._keep_late(walk)
            if not walk.split_taken:
                self._failed(now)
        self.refill(now)
        return True

    def opened(self, attempt: int, link: Link, now: float) -> None:
        """A dial of ours has succeeded."""
        what = self.attempts.pop(attempt)
        if isinstance(what, Promised):
            return  # a standing link: `linked` has been told
        is_owed = what.entry is not None and not what.entry.is_served
        if what.entry is not None:
            what.entry.failures, what.entry.peer = 0, link.peer
            what.entry.tries += 1
            what.entry.next_try_at = now + self._pause(what.entry.tries)
        if link.peer is not None:
            self._book.tried(link.peer, now)
        if self._membership.missing or (is_owed and not self._membership.is_full):
            wanted = max(1, (self._membership.missing + 1) // 2 - len(self.walks))
            for _ in range(wanted):
                self._start(link, now)
        else:
            self._shared.disconnect(link, CloseReason.DONE)

    def failed(self, attempt: int, ended: Ended, now: float) -> None:
        """A dial of ours has failed, or the other end has refused."""
        what = self.attempts.pop(attempt)
        is_myself = ended.reason is CloseReason.SELF
        was_dialled = ended.reason is not None or not ended.by_us
        was_refused = ended.reason is not None and not ended.by_us
        # Also when another peer answered: private addresses mean somebody else elsewhere.
        if what.addresses and was_dialled and not was_refused:
            self._dial(what, now)
            return
        if isinstance(what, Promised):
            self._end(what.walk)
            self._failed(now)
        elif not was_dialled:
            # No fault of theirs: too many dials are under way, and those must end first.
            self._not_before = max(self._not_before, now + self._pause(1))
        elif what.entry is not None:
            self._entry_failed(what.entry, ended, is_myself=is_myself, now=now)
        elif what.peer is not None:
            self._out += self._book.failed(what.peer, now)
        if not self.attempts and not self.walks:
            self._failed(now)  # a round of dials that reached nobody
        self.refill(now)

    def link_gone(self, link: Link, now: float) -> None:
        """A link has ended: walks whose answer would have come over it are lost."""
        lost = [w for w in self.walks.values() if w.link is link]
        for walk in lost:
            self._end(walk)
            self._keep_late(walk)
        if lost:
            self.counts["link lost"] += len(lost)
            if not link.is_standing:
                self._failed(now)
            # A neighbour that went says nothing about the others: they are asked without a pause.
            # That cannot go on for long, since each time costs a neighbour.

    def tick(self, now: float) -> None:
        """A timer of this machine has come due."""
        self.late = {t: w for t, w in self.late.items() if w.expires_at > now}
        expired = [w for w in self.walks.values() if w.expires_at <= now]
        for walk in expired:
            self.counts["timed out"] += 1
            self._end(walk)
            # Whoever accepts it just now has kept a place, and should not have done so in vain.
            walk.expires_at = now + self._config.walk_timeout_s
            self._keep_late(walk)
        if expired:
            self._failed(now)
        self._set_expiry()
        self.refill(now)

    # Steps.

    def _ask_neighbours(self, wanted: int, now: float) -> None:
        for _ in range(wanted):
            neighbour = self._membership.random_neighbour()
            if neighbour is not None:
                self._start(neighbour.link, now)

    def _start(self, link: Link, now: float, *, is_extra: bool = False) -> None:
        token = self._shared.new_token()
        record = self._shared.own_record(link.remote)
        request = JoinRequest(record, token, "", self._config.forced_hops, self._config.walk_hops)
        id = self._shared.say(link, request)
        walk = Walk(token, id, link, now + self._config.walk_timeout_s, is_extra=is_extra)
        self.walks[token] = walk
        self._membership.walks_under_way = len(self.walks)
        self.counts["started"] += 1
        self._set_expiry()

    def _dial_somebody(self, now: float) -> bool:
        """Dial those who may start walks for us; false when there is nobody to try now."""
        neighbours = self._membership.neighbours
        entries = [e for e in self.entries if e.next_try_at <= now and (e.peer not in neighbours)]
        entry_peers = {e.peer or e.expected for e in entries}
        known = [
            e
            for e in self._book.candidates(now)
            if e.peer not in neighbours and e.peer not in entry_peers
        ]
        dials, limit = self._config.book_dials, self._config.addresses_per_peer_max
        # An entry that was just given is what the user waits for; later it is the last resort, but
        # it gets a turn however many dead peers the book has.
        fresh = self._fresh()
        stale = [e for e in entries if e.failures > 0 or e.peer is not None]
        stale.sort(key=lambda e: e.next_try_at)
        sources = [
            *(Source(e, None, [e.address], e.address) for e in fresh),
            *(Source(None, e.peer, e.to_try(limit), e.to_try(1)[0]) for e in known),
        ]
        last_resorts = [Source(e, None, [e.address], e.address) for e in stale]
        chosen = sources[: dials - min(len(last_resorts), dials // 2)]
        chosen += last_resorts[: dials - len(chosen)]
        self._dial_all(chosen, now)
        return bool(chosen)

    def _is_owed(self, walk: Walk) -> bool:
        """Whether it came from an entry that has brought no link yet, and there is room for one."""
        return not self._membership.is_full and any(
            e.peer == walk.link.peer and not e.is_served for e in self.entries
        )

    def _dial_owed(self, now: float) -> None:
        """Dial the entries that no link has come from yet, those that may be tried now."""
        neighbours = self._membership.neighbours
        owed = [e for e in self.entries if not e.is_served and e.peer not in neighbours]
        if not owed:
            return
        next_try_at = max(self._not_before, min(e.next_try_at for e in owed))
        if now < next_try_at:
            self._timers.set(REFILL, next_try_at)
            return
        ready = [e for e in owed if e.next_try_at <= now]
        self._dial_all([Source(e, None, [e.address], e.address) for e in ready], now)

    def _fresh(self) -> list[Entry]:
        """Entries that have been given and not been tried yet."""
        return [e for e in self.entries if e.failures == 0 and e.peer is None]

    def _dial_all(self, sources: list[Source], now: float) -> None:
        for source in sources[: self._config.book_dials]:
            peer = source.entry.peer if source.entry is not None else source.peer
            if peer is not None:
                self._book.tried(peer, now)
            self._dial(source, now)

    def _dial(self, what: Source | Promised, now: float) -> None:
        address = what.addresses.pop(0)
        if isinstance(what, Source):
            what.dialled = address
            expected = what.entry.expected if what.entry is not None else what.peer
            attempt = self._shared.dial(address, expected, Purpose.JOIN_REQUEST)
        else:
            token = what.walk.token
            attempt = self._shared.dial(address, what.peer, Purpose.STANDING, token)
        self.attempts[attempt] = what

    def _dial_acceptor(self, walk: Walk, reply: JoinReply, now: float) -> None:
        try:
            record = self._book.open(reply.record, self._shared.signatures)
        except InvalidRecord:
            record = None
        addresses = list(self._shared.believed(record, walk.link)) if record is not None else []
        walk.is_promised = True
        is_enough = any(map(self._membership.has_enough_of, addresses[:1]))
        if record is None or is_enough or not addresses or self._membership.knows(record.peer_id):
            self._end(walk)
            self._failed(now)
            return
        heard = self._book.heard(
            record, reply.record, tuple(addresses), "walk", walk.link.remote, now
        )
        self._out += heard
        self._dial(Promised(walk, record.peer_id, addresses), now)

    def _entry_failed(self, entry: Entry, ended: Ended, *, is_myself: bool, now: float) -> None:
        if is_myself:  # an entry that is this node leads nowhere
            self.entries = [e for e in self.entries if e.address != entry.address]
        is_news = entry.failures == 0 or self._membership.missing > 0
        entry.failures += 1
        entry.next_try_at = now + self._pause(entry.failures)
        why = "this is the node itself" if is_myself else ended.text
        if is_news:
            self._out.append(Tell(EntryFailed(entry.address, why, ended.not_admitted)))

    def _wait_for_somebody(self, now: float) -> None:
        times = [e.next_try_at for e in self.entries]
        book = self._book.next_try_at()
        if book is not None:
            times.append(book)
        if times:
            self._timers.set(REFILL, max(min(times), now + self._config.retry_min_s))

    # What the above share.

    def _end(self, walk: Walk) -> None:
        self.walks.pop(walk.token, None)
        self._membership.walks_under_way = len(self.walks)
        link = walk.link
        is_used = any(w.link is link for w in self.walks.values())
        if link.purpose is Purpose.JOIN_REQUEST and link.is_open and not is_used:
            self._shared.disconnect(link, CloseReason.DONE)

    def _keep_late(self, walk: Walk) -> None:
        if len(self.late) >= LATE_MAX:
            del self.late[next(iter(self.late))]
        self.late[walk.token] = walk
        self._set_expiry()

    def _succeeded(self, now: float) -> None:
        self.failures = 0
        if now > self._in_vain_until + self._config.retry_max_s:
            self._in_vain = 0
        self._not_before = max(now, self._in_vain_until)

    def _failed(self, now: float) -> None:
        if now < self._not_before:
            return  # another walk of a round that has failed already
        self.failures += 1
        if self.failures >= self._config.group_patience and self._membership.missing:
            self._membership.groups_count = False
        # Longer and longer, but not before everybody in the book has had a turn: after most of a
        # network has failed at once, what the book has is dead for the most part. Once only, or
        # whoever keeps telling of new peers could keep this node dialling.
        turns = self._book_total_max // self._config.book_dials
        is_first_pass = self.failures <= turns and self._book.has_untried(
            now, self._membership.neighbours
        )
        self._not_before = now + self._pause(1 if is_first_pass else self.failures)

    def _pause(self, failures: int) -> float:
        config = self._config
        pause = min(config.retry_max_s, config.retry_min_s * 2.0 ** min(failures - 1, 16))
        return pause * self._rng.uniform(0.5, 1.5)

    def _set_expiry(self) -> None:
        under_way = [*self.walks.values(), *self.late.values()]
        if under_way:
            self._timers.set(EXPIRY, min(w.expires_at for w in under_way))
        else:
            self._timers.cancel(EXPIRY)
