"""The three tables of an address book: who is in which, which bucket, and who goes when it is full.

Where a peer stands is decided here; why it comes or goes, by `AddressBook`, which is built on this.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from typing import TypeAlias

from meshwalk.config import Config
from meshwalk.proto.effects import ForgetPeer, SavePeer
from meshwalk.proto.overlay.bookentry import NEVER, BookEntry, Table
from meshwalk.proto.overlay.buckets import Buckets
from meshwalk.proto.overlay.connectionlog import ConnectionLog
from meshwalk.proto.overlay.groups import address_group
from meshwalk.proto.overlay.restoring import saved
from meshwalk.proto.rate import TokenBucket
from meshwalk.wire.peerid import PeerId

Changes: TypeAlias = list[SavePeer | ForgetPeer]


class BookTables:
    """Entries of peers, each in one table. At a limit the worst goes, neighbours last."""

    def __init__(self, config: Config, key: bytes, unix_offset_s: float) -> None:
        """`key` decides which bucket an entry falls into."""
        self.entries: dict[PeerId, BookEntry] = {}
        self.counts: Counter[str] = Counter()
        """What was turned away ("stale", "from the future", "no place"), what the store was not
        told for now ("not saved"), and what left: "demoted", "lost", "evicted",
        "failed", "expired", "replaced"."""
        self.is_neighbour: Callable[[PeerId], bool] = lambda _: False
        """Whom the node has a standing link with; they are spared. To be set by the owner."""
        self.unix_offset_s = unix_offset_s
        self._config = config
        book = config.book
        self._heard = Buckets(
            b"heard", key, book.heard_buckets, book.heard_bucket_max, book.source_buckets
        )
        self._verified = Buckets(
            b"verified", key, book.verified_buckets, book.verified_bucket_max, book.group_buckets
        )
        self._lost: dict[PeerId, None] = {}
        self._log = ConnectionLog(config.exchange.log_max)
        self._saves = TokenBucket(book.saves_per_s, book.saves_burst)

    def __len__(self) -> int:
        return len(self.entries)

    def _lose(self, entry: BookEntry) -> Changes:
        self._take_out(entry)
        changes: Changes = []
        if len(self._lost) >= self._config.book.lost_max:
            longest = min(map(self.entries.__getitem__, self._lost), key=_failing_since)
            changes = self._forget(longest, "evicted")
        self._lost[entry.peer] = None
        entry.table = Table.LOST
        self.counts["lost"] += 1
        return changes

    def _put_heard(self, entry: BookEntry) -> Changes:
        """Put an entry that is in no table among the heard; the worst of a full bucket goes."""
        bucket = self._heard_bucket(entry)
        changes: Changes = []
        if self._heard.is_full(bucket):
            members = map(self.entries.__getitem__, self._heard.members(bucket))
            key = self.is_neighbour
            worst = min(members, key=lambda e: (key(e.peer), -e.failures, e.heard_at))
            changes = self._forget(worst, "evicted")
        self._put(entry, Table.HEARD, bucket)
        return changes

    def _put_verified(self, entry: BookEntry, now: float) -> Changes:
        """The same among the verified; the worst of a full bucket is only heard of from then on."""
        bucket = self._verified_bucket(entry)
        changes: Changes = []
        if self._verified.is_full(bucket):
            members = map(self.entries.__getitem__, self._verified.members(bucket))
            fresh = now - self._config.book.retest_s
            worst = min(
                (e for e in members if not self.is_neighbour(e.peer)),
                key=lambda e: (-e.failures, e.last_seen),
                default=None,
            )
            if worst is None or (worst.failures == 0 and worst.last_seen > fresh):
                self.counts["no place"] += 1
                return self._put_heard(entry)
            self.counts["demoted"] += 1
            self._take_out(worst)
            changes = [*self._put_heard(worst), self._saved(worst)]
        self._put(entry, Table.VERIFIED, bucket)
        return changes

    def _find_room(self, entry: BookEntry) -> bool:
        """Put an entry from the store into its table if that has room, or else among the heard."""
        if entry.table is Table.LOST:
            if len(self._lost) >= self._config.book.lost_max:
                return False
            self._lost[entry.peer] = None
            return True
        if entry.table is Table.VERIFIED and entry.address is not None:
            bucket = self._verified_bucket(entry)
            if not self._verified.is_full(bucket):
                self._put(entry, Table.VERIFIED, bucket)
                return True
        bucket = self._heard_bucket(entry)
        if self._heard.is_full(bucket):
            return False
        self._put(entry, Table.HEARD, bucket)
        return True

    def _put(self, entry: BookEntry, table: Table, bucket: int) -> None:
        (self._heard if table is Table.HEARD else self._verified).add(entry.peer, bucket)
        entry.table, entry.bucket = table, bucket

    def _take_out(self, entry: BookEntry) -> None:
        if entry.table is Table.LOST:
            del self._lost[entry.peer]
        elif entry.bucket >= 0:
            table = self._heard if entry.table is Table.HEARD else self._verified
            table.remove(entry.peer, entry.bucket)
        entry.table, entry.bucket = Table.HEARD, -1

    def _forget(self, entry: BookEntry, why: str) -> Changes:
        self._take_out(entry)
        del self.entries[entry.peer]
        self._log.remove(entry)
        self.counts[why] += 1
        return [ForgetPeer(entry.peer)] if entry.is_stored else []

    def _heard_bucket(self, entry: BookEntry) -> int:
        """Decided when it comes in: an address that it names later does not move it."""
        return self._heard.bucket_of(entry.source, self._group(entry).encode())

    def _verified_bucket(self, entry: BookEntry) -> int:
        return self._verified.bucket_of(self._group(entry), entry.peer)

    def _group(self, entry: BookEntry) -> str:
        address = entry.best_address
        assert address is not None
        return address_group(address, self._config.book)

    def _saved(self, entry: BookEntry) -> SavePeer:
        entry.is_stored = True
        return saved(entry, self.unix_offset_s)

    def _saved_soon(self, entry: BookEntry, now: float) -> Changes:
        """What others say of a peer, as long as there are saves for it: else strangers could keep
        the disk busy. Whatever changes next saves it, or `_unsaved` if the store lacks it."""
        if self._saves.take(now):
            return [self._saved(entry)]
        self.counts["not saved"] += 1
        return []

    def _unsaved(self, now: float) -> Changes:
        """Those that the store does not have yet, as many as there are saves for."""
        missing = (e for e in self.entries.values() if not e.is_stored)
        return [
            self._saved(e) for e in itertools.takewhile(lambda _: self._saves.take(now), missing)
        ]


def _failing_since(entry: BookEntry) -> float:
    return entry.failing_since if entry.failing_since is not None else NEVER
