"""Peers that a node knows by address, in three tables; and the log of whom it connected to.

                    own dial works, or a test is passed
    HEARD  ------------------------------------------------>  VERIFIED
      ^ |  <------------------------------------------------    |
      | |      its bucket is full, or its address is another's  | fails for `purge_s`
      | |                                                       v
      | `-- fails `failures_max` times, or is not told of     LOST --- for `lost_s` ---> forgotten
      |     for `record_age_max_s` ---> forgotten               |
      `---------------------------------------------------------'
              comes by itself, or has signed a newer record

HEARD and VERIFIED are made of buckets (see `buckets`): one source of what is heard, and one group
of addresses of what is verified, reach only a few of them. The key of the buckets is drawn anew at
each start. That is enough: entries keep their source in the store, so whatever the key is, no
source has more buckets than its share after a restart either, and nobody learns the key in a run.

At a limit the worst goes, neighbours last. No messages here; what has changed is returned.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from random import Random

from meshwalk.config import Config
from meshwalk.identity.keys import Signatures, open_record
from meshwalk.proto.effects import ForgetPeer
from meshwalk.proto.overlay.bookentry import NEVER, BookEntry, Table
from meshwalk.proto.overlay.booktables import BookTables, Changes
from meshwalk.proto.overlay.buckets import KEY_BYTES
from meshwalk.proto.overlay.choosing import Turns, candidates
from meshwalk.proto.overlay.groups import address_group
from meshwalk.wire.address import Address
from meshwalk.wire.peerid import PeerId
from meshwalk.wire.records import PeerRecord, decode_peer_record, decode_signed, shared

__all__ = ["AddressBook", "BookEntry", "Changes", "Table"]


class AddressBook(BookTables):
    """The address book of one node. Every entry has an address, and is in one table."""

    def __init__(self, me: PeerId, config: Config, rng: Random, unix_offset_s: float) -> None:
        super().__init__(config, rng.randbytes(KEY_BYTES), unix_offset_s)
        self.is_linked: Callable[[], bool] = lambda: True
        """Whether the node has a standing link: else it is itself out of reach, and nobody is
        forgotten for not answering. To be set by the owner."""
        self._me = me
        self._rng = rng
        self._turns = Turns(config.book)
        self._misplaced: list[PeerId] = []
        """Loaded, and not where the store has them: no room. It is told by the first `expire`."""

    # What others tell, and what own links show.

    def load(self, entry: BookEntry) -> None:
        """Take over what the store kept, the best first: nobody makes room for those after it."""
        if entry.peer == self._me or entry.peer in self.entries or entry.best_address is None:
            return
        entry.source = entry.source or self._group(entry)
        entry.heard_at = max(entry.heard_at, entry.last_seen)
        if entry.table is not Table.LOST:
            entry.failing_since = None  # while this node was down nobody tried
        elif entry.failing_since is None:
            entry.failing_since = entry.last_seen
        table = entry.table
        has_room = self._find_room(entry)
        if not has_room or entry.table is not table:
            self._misplaced.append(entry.peer)
        if not has_room:
            self.counts["evicted"] += 1
            return
        self.entries[entry.peer] = entry
        entry.is_stored = True
        self._log.load(entry)

    def open(self, blob: bytes, signatures: Signatures) -> PeerRecord:
        """Read a signed record, as `open_record` does; raises `InvalidRecord`.

        A walk brings the same record again and again: one that the book has is not verified anew.
        """
        record = decode_peer_record(decode_signed(blob).payload)
        known = self.entries.get(record.peer_id)
        if known is not None and known.blob == blob:
            return record
        return open_record(blob, signatures)

    def heard(
        self,
        record: PeerRecord,
        blob: bytes,
        addresses: tuple[Address, ...],
        met: str,
        source: Address,
        now: float,
    ) -> Changes:
        """A record whose signature holds, and those of its addresses that we may believe.

        `source` is where we see who brought it.
        """
        peer = record.peer_id
        if peer == self._me:
            return []
        book, unix_s = self._config.book, now + self.unix_offset_s
        if record.sequence < (unix_s - book.record_age_max_s) * 1e6:
            self.counts["stale"] += 1
            return []
        if record.sequence > (unix_s + book.clock_skew_max_s) * 1e6:
            self.counts["from the future"] += 1
            return []
        entry = self.entries.get(peer)
        if entry is None:
            if not addresses:
                return []
            group = address_group(source, book)
            entry = BookEntry(
                peer, shared(blob), record.sequence, addresses, met, now, group, heard_at=now
            )
            self.entries[peer] = entry
            return [*self._put_heard(entry), *self._saved_soon(entry, now)]
        if record.sequence < entry.sequence:
            return []
        # The store is not told: its times grow old, but no faster than peers sign new records.
        entry.heard_at = now
        if record.sequence == entry.sequence:
            # The same record by another way, by which more of its addresses can be believed.
            signed = record.parsed_addresses()
            found = [a for a in (*addresses, *entry.addresses) if a in signed]
            if blob != entry.blob or set(found) <= set(entry.addresses):
                return []
            entry.addresses = tuple(dict.fromkeys(found))
            entry.is_news = True
            return self._saved_soon(entry, now)
        entry.blob, entry.sequence, entry.is_news = shared(blob), record.sequence, True
        if addresses:
            entry.addresses = addresses
        if entry.table is Table.LOST:
            return [*self._found_again(entry), self._saved(entry)]
        return self._saved_soon(entry, now)

    def worked(
        self, peer: PeerId, address: Address | None, rtt_s: float | None, now: float
    ) -> Changes:
        """A link to it opened, or closes in good order. `address`: what we dialled, if we did.

        A dialled one is verified, unless its bucket is full of peers that were seen within
        `retest_s` or are neighbours: then it stays among the heard, with the address that worked.
        Nobody else has that address any more.
        """
        entry = self.entries.get(peer)
        if entry is None:
            if address is None or peer == self._me:
                return []
            group = address_group(address, self._config.book)
            entry = self.entries[peer] = BookEntry(peer, b"", 0, (address,), "link", now, group)
        self._seen(entry, now)
        if rtt_s is not None:
            entry.rtt_s = rtt_s
        changes: Changes = []
        if address is not None:
            entry.address = address
            self._take_out(entry)  # and put back last, or what follows might evict it
            changes += self._vacate(address, peer, heard_only=False)
            changes += self._put_verified(entry, now)
        elif entry.table is Table.LOST:
            changes += self._found_again(entry)
        return [*changes, self._saved(entry)]

    def parted(
        self,
        peer: PeerId,
        heard_at: float,
        rtt_s: float | None,
        jitter_s: float | None,
    ) -> Changes:
        """A standing link to it has ended: until when it was heard, and how far it was."""
        entry = self.entries.get(peer)
        if entry is None:
            return []
        entry.last_seen = max(entry.last_seen, heard_at)
        entry.heard_at = max(entry.heard_at, heard_at)
        if rtt_s is not None:
            entry.rtt_s, entry.jitter_s = rtt_s, jitter_s
        return [self._saved(entry)]

    def met_at(self, peer: PeerId, address: Address, now: float) -> Changes:
        """A peer greets us from this host and says it listens at this port: nobody that we have
        only heard of does. So a peer that restarts under a new key takes its own place."""
        entry = self.entries.get(peer)
        if entry is not None:
            entry.heard_at = now
        return self._vacate(address, peer, heard_only=True)

    def measured(self, peer: PeerId, rtt_s: float, jitter_s: float | None, now: float) -> Changes:
        """It has passed a test, at the address that worked last."""
        entry = self.entries.get(peer)
        if entry is None:
            return []
        self._seen(entry, now)
        entry.rtt_s, entry.jitter_s, entry.tested_at = rtt_s, jitter_s, now
        changes: Changes = []
        if entry.table is not Table.VERIFIED and entry.address is not None:
            self._take_out(entry)
            changes = self._put_verified(entry, now)
        return [*changes, self._saved(entry)]

    def failed(self, peer: PeerId, now: float) -> Changes:
        """None of its addresses answered: wait longer each time. Who was only heard of is forgotten
        after some failures, who was verified is lost after some time."""
        entry = self.entries.get(peer)
        if entry is None:
            return []
        entry.failures += 1
        entry.is_news = True
        if entry.failing_since is None:
            entry.failing_since = now
        overlay = self._config.overlay
        pause = min(overlay.retry_max_s, overlay.retry_min_s * 2.0 ** min(entry.failures, 16))
        entry.next_try_at = now + pause * self._rng.uniform(0.5, 1.5)
        if entry.table is Table.HEARD and entry.failures >= self._config.book.failures_max:
            if self.is_linked() and not self.is_neighbour(peer):
                return self._forget(entry, "failed")
        elif self._is_to_be_lost(entry, now):
            return [*self._lose(entry), self._saved(entry)]
        return [self._saved(entry)]

    def expire(self, now: float) -> Changes:
        """Call now and then: what has been out of reach or unheard of for too long goes.

        While no peer of the book is a neighbour nothing is forgotten: it may be the way back.
        """
        changes: Changes = []
        for peer in self._misplaced:
            misplaced = self.entries.get(peer)
            changes.append(self._saved(misplaced) if misplaced is not None else ForgetPeer(peer))
        self._misplaced.clear()
        book = self._config.book
        may_forget = any(map(self.is_neighbour, self.entries))
        for entry in list(self.entries.values()):
            if entry.peer not in self.entries:
                continue  # made room for another that is lost
            if self._is_to_be_lost(entry, now):
                changes += [*self._lose(entry), self._saved(entry)]
            elif not may_forget or self.is_neighbour(entry.peer):
                continue
            elif entry.table is Table.LOST:
                assert entry.failing_since is not None
                if now - entry.failing_since >= book.lost_s:
                    changes += self._forget(entry, "expired")
            elif entry.table is Table.HEARD and now - entry.heard_at >= book.record_age_max_s:
                changes += self._forget(entry, "expired")
        return [*changes, *self._unsaved(now)]

    def woke(self) -> None:
        """Time has passed unseen, or the network is another: nobody has to wait any longer."""
        for entry in self.entries.values():
            entry.next_try_at = NEVER

    # Whom to dial.

    def candidates(self, now: float) -> list[BookEntry]:
        """Whom to try now, best first.

        Anchors that have not been tried; then fewest failures, longest not tried, verified before
        heard, so that everybody's turn comes, whoever answers to no avail; the lost at the end.
        Among equals an address group has one turn before any has two, then the newest come first.
        """
        return candidates(self.entries.values(), self._config.book, now)

    def tried(self, peer: PeerId, now: float) -> None:
        """It is dialled, or has been reached by an address that was not from here."""
        entry = self.entries.get(peer)
        if entry is not None:
            entry.tried_at = now

    def has_untried(self, now: float, without: Container[PeerId]) -> bool:
        """Whether somebody may be tried now who has not been, in this run, but for those named."""
        return any(
            e.tried_at == NEVER and e.next_try_at <= now and e.peer not in without
            for e in self.entries.values()
        )

    def next_try_at(self) -> float | None:
        """When the next entry that waits may be tried again."""
        return min((e.next_try_at for e in self.entries.values()), default=None)

    def to_test(self, now: float, without: Container[PeerId]) -> BookEntry | None:
        """Whom to test next, but for those named; None when nobody is due.

        In turn one that was heard of, at random by bucket, and the verified one that was tested
        longest ago; a lost one at times; whoever is there when a table has nobody. Each at most
        once per `retest_s`.
        """
        heard = (self.entries[peer] for peer in self._heard.shuffled(self._rng))
        return self._turns.next(heard, self.entries.values(), now, without)

    # The log of whom we connected to.

    def connected(self, peer: PeerId, now: float) -> Changes:
        """There is a link to it. It goes to the end of the log if that is news; see `is_news`.

        A peer without a record does not: nobody could be told of it.
        """
        entry = self.entries.get(peer)
        if entry is None or not entry.blob or (entry.position and not entry.is_news):
            return []
        oldest = self._log.add(entry, int((now + self.unix_offset_s) * 1e6))
        changes: Changes = [self._saved(oldest)] if oldest is not None else []
        entry.is_news = False
        return [*changes, self._saved(entry)]

    def news(self, since: int, limit: int) -> list[BookEntry]:
        """At most `limit` entries of the log beyond a position, the oldest of them first; of the
        whole log when the position is none that it has reached."""
        return self._log.after(since)[:limit]

    @property
    def newest_position(self) -> int:
        """The last that the log has given; 0 before the first."""
        return self._log.newest_position

    def set_cursor(self, peer: PeerId, upto: int) -> None:
        """That peer has told its own log up to here. The store hears of it with whatever changes
        next; if that is nothing, some news comes twice after a restart."""
        entry = self.entries.get(peer)
        if entry is not None:
            entry.cursor = upto

    # Anchors.

    def note_anchors(self, peers: Iterable[PeerId]) -> Changes:
        """These are to be dialled first after a restart, as many as there may be; nobody else."""
        chosen = [p for p in peers if p in self.entries][: self._config.book.anchors]
        changes: Changes = []
        for entry in self.entries.values():
            is_anchor = entry.peer in chosen
            if is_anchor is not entry.is_anchor:
                entry.is_anchor = is_anchor
                changes.append(self._saved(entry))
        return changes

    def anchors(self) -> list[BookEntry]:
        """Those noted before the restart, or since."""
        return [e for e in self.entries.values() if e.is_anchor]

    # Steps.

    def _is_to_be_lost(self, entry: BookEntry, now: float) -> bool:
        return (
            entry.table is Table.VERIFIED
            and entry.failing_since is not None
            and now - entry.failing_since >= self._config.book.purge_s
            and not self.is_neighbour(entry.peer)
            and self.is_linked()
        )

    def _vacate(self, address: Address, peer: PeerId, *, heard_only: bool) -> Changes:
        """Whoever else is said to be at this address is not; neighbours are left alone."""
        changes: Changes = []
        others = [
            e
            for e in self.entries.values()
            if (address in e.addresses or e.address == address) and e.peer != peer
        ]
        for other in others:
            has_worked = other.table is not Table.HEARD or other.address is not None
            if (heard_only and has_worked) or self.is_neighbour(other.peer):
                continue
            if other.peer not in self.entries:
                continue  # made room for another of these
            other.addresses = tuple(a for a in other.addresses if a != address)
            if other.address == address:
                other.address = None
            if other.best_address is None:
                changes += self._forget(other, "replaced")
                continue
            if other.table is Table.VERIFIED and other.address is None:
                self._take_out(other)
                changes += self._put_heard(other)
            changes.append(self._saved(other))
        return changes

    def _found_again(self, entry: BookEntry) -> Changes:
        entry.failures, entry.failing_since, entry.next_try_at = 0, None, NEVER
        self._take_out(entry)
        return self._put_heard(entry)

    def _seen(self, entry: BookEntry, now: float) -> None:
        entry.last_seen = entry.heard_at = now
        entry.failures, entry.failing_since, entry.next_try_at = 0, None, NEVER
