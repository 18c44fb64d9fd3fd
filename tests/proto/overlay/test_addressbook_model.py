"""What holds of an address book whatever happens to it."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from meshwalk.config import BookConfig, Config, ExchangeConfig
from meshwalk.proto.effects import SavePeer
from meshwalk.proto.overlay.addressbook import AddressBook, Changes, Table
from meshwalk.proto.overlay.groups import address_group
from meshwalk.proto.overlay.restoring import restored
from meshwalk.wire.address import Address
from meshwalk.wire.peerid import PeerId
from meshwalk.wire.records import PeerRecord

UNIX_START_S = 1_700_000_000.0
CONFIG = Config(
    book=BookConfig(
        heard_buckets=4,
        heard_bucket_max=2,
        source_buckets=2,
        verified_buckets=3,
        verified_bucket_max=2,
        group_buckets=1,
        lost_max=2,
        purge_s=100.0,
        lost_s=1000.0,
        record_age_max_s=500.0,
        renew_s=100.0,
        retest_s=30.0,
        saves_per_s=0.02,
        saves_burst=3,
    ),
    exchange=ExchangeConfig(log_max=4),
)
BOOK = CONFIG.book
PEERS = [PeerId(bytes([number]) * 32) for number in range(24)]
# Three groups, and so few addresses that two peers often claim the same.
PLACES = [Address(f"{net}.1.0.{host}", 1) for net in (8, 9, 11) for host in range(6)]

peers = st.sampled_from(PEERS)
places = st.sampled_from(PLACES)


class AddressBookMachine(RuleBasedStateMachine):
    """One book, its store, and somebody who keeps up with its log."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.unix_offset_s = UNIX_START_S
        self.sequence = 0
        self.neighbours: set[PeerId] = set()
        self.stored: dict[PeerId, SavePeer] = {}
        self.cursor = 0
        """How far the reader of the log is."""
        self.owed: dict[PeerId, int] = {}
        """What the reader has not been told yet: the positions given since it was last told."""
        self.book = self.new_book(0)

    def new_book(self, seed: int) -> AddressBook:
        book = AddressBook(PEERS[0], CONFIG, Random(seed), self.unix_offset_s)
        book.is_neighbour = self.neighbours.__contains__
        return book

    def keep(self, changes: Changes) -> None:
        for change in changes:
            if isinstance(change, SavePeer):
                self.stored[change.peer] = change
            else:
                self.stored.pop(change.peer, None)

    # What happens.

    @rule(seconds=st.sampled_from([0.0, 1.0, 40.0, 110.0, 600.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(peer=peers, source=places, listed=st.lists(places, max_size=3), age_s=st.integers(0, 600))
    def is_heard(self, peer: PeerId, source: Address, listed: list[Address], age_s: int) -> None:
        self.sequence += 1  # no two records of one sequence number
        signed_at = int((self.now + self.unix_offset_s - age_s) * 1e6) + self.sequence
        record = PeerRecord(bytes(peer), signed_at, [])
        blob = b"%d" % signed_at
        self.keep(self.book.heard(record, blob, tuple(listed), "walk", source, self.now))

    @rule(peer=peers, at=st.none() | places, is_tested=st.booleans())
    def works(self, peer: PeerId, at: Address | None, is_tested: bool) -> None:
        self.keep(self.book.worked(peer, at, None, self.now))
        if is_tested:
            self.keep(self.book.measured(peer, 0.1, None, self.now))

    @rule(peer=peers, source=places, at=places)
    def joins(self, peer: PeerId, source: Address, at: Address) -> None:
        """What a walk leads to: often, or the log and the tables would seldom be full."""
        self.is_heard(peer, source, [at], 0)
        self.works(peer, at, is_tested=False)
        self.is_connected(peer)

    @rule(peer=peers, at=places)
    def is_out_of_reach(self, peer: PeerId, at: Address) -> None:
        self.works(peer, at, is_tested=True)
        self.fails(peer, 1)
        self.time_passes(BOOK.purge_s)
        self.fails(peer, 1)

    @rule(peer=peers, times=st.integers(1, 6))
    def fails(self, peer: PeerId, times: int) -> None:
        for _ in range(times):
            self.keep(self.book.failed(peer, self.now))

    @rule(peer=peers, at=places)
    def greets(self, peer: PeerId, at: Address) -> None:
        self.keep(self.book.met_at(peer, at, self.now))

    @rule()
    def expires(self) -> None:
        self.keep(self.book.expire(self.now))

    @rule(without=st.sets(peers))
    def is_tested(self, without: set[PeerId]) -> None:
        entry = self.book.to_test(self.now, without)
        if entry is not None:
            assert entry.peer in self.book.entries
            assert entry.peer not in without
            assert entry.next_try_at <= self.now
            assert entry.tested_at + BOOK.retest_s <= self.now

    @rule(peer=peers)
    def is_connected(self, peer: PeerId) -> None:
        newest, entry = self.book.newest_position, self.book.entries.get(peer)
        before = entry.position if entry is not None else 0
        changes = self.book.connected(peer, self.now)
        self.keep(changes)
        if changes:
            assert entry is not None
            assert entry.position == self.book.newest_position > newest
            self.owed[peer] = entry.position
        else:
            assert self.book.newest_position == newest
            assert entry is None or entry.position == before

    @rule(limit=st.integers(1, 3))
    def reads_on(self, limit: int) -> None:
        """Nothing that is still in the log is passed over, page by page."""
        news = self.book.news(self.cursor, limit)
        positions = [entry.position for entry in news]
        assert positions == sorted(set(positions))
        assert all(position > self.cursor for position in positions)
        in_log = {p: at for p, at in self.owed.items() if self._position(p) == at}
        next_owed = sorted(at for at in in_log.values() if at > self.cursor)
        assert positions == next_owed[:limit]
        if positions:
            self.cursor = positions[-1]

    def _position(self, peer: PeerId) -> int | None:
        entry = self.book.entries.get(peer)
        return entry.position if entry is not None else None

    @rule(peer=peers, upto=st.integers(0, 2**64 - 1))
    def hears_a_log(self, peer: PeerId, upto: int) -> None:
        """The store hears of it later."""
        self.book.set_cursor(peer, upto)

    @rule(chosen=st.lists(peers, max_size=4))
    def notes_anchors(self, chosen: list[PeerId]) -> None:
        self.keep(self.book.note_anchors(chosen))
        assert len(self.book.anchors()) <= BOOK.anchors

    @rule(peer=peers)
    def is_linked_or_not(self, peer: PeerId) -> None:
        self.neighbours ^= {peer}
        self.book.is_neighbour = self.neighbours.__contains__

    @precondition(lambda self: self.stored)
    @rule(seed=st.integers(0, 3), pause_s=st.sampled_from([0.0, 50.0, 2000.0]))
    def restarts(self, seed: int, pause_s: float) -> None:
        """As the store keeps it, but with records that need no reading."""
        newest = self.book.newest_position
        blobs = {peer: entry.blob for peer, entry in self.book.entries.items()}
        listed = {peer: entry.addresses for peer, entry in self.book.entries.items()}
        self.unix_offset_s += self.now + pause_s
        self.now = 0.0
        self.book = self.new_book(seed)
        ordered = sorted(self.stored.values(), key=lambda s: (not s.is_anchor, not s.verified))
        for saved in ordered:
            plain = SavePeer(**{**_fields(saved), "record": b"", "address": str(PLACES[0])})
            entry = restored(plain, self.unix_offset_s)
            assert entry is not None
            entry.address = Address.parse(saved.address) if saved.address else None
            entry.blob, entry.addresses = blobs[saved.peer], listed[saved.peer]
            self.book.load(entry)
        assert self.book.newest_position <= newest
        self.keep(self.book.expire(self.now))
        # Whoever has been forgotten meanwhile leaves the log.
        self.cursor = min(self.cursor, self.book.newest_position)

    # What holds.

    @invariant()
    def every_entry_is_in_one_place(self) -> None:
        book = self.book
        found = Counter(
            [
                *((peer, Table.HEARD, n) for n in range(4) for peer in book._heard.members(n)),
                *(
                    (peer, Table.VERIFIED, n)
                    for n in range(3)
                    for peer in book._verified.members(n)
                ),
                *((peer, Table.LOST, -1) for peer in book._lost),
            ]
        )
        assert found == Counter((e.peer, e.table, e.bucket) for e in book.entries.values())
        assert PEERS[0] not in book.entries
        assert all(entry.to_try(9) for entry in book.entries.values())

    @invariant()
    def every_bound_holds(self) -> None:
        book = self.book
        assert max(map(len, map(book._heard.members, range(4)))) <= BOOK.heard_bucket_max
        assert max(map(len, map(book._verified.members, range(3)))) <= BOOK.verified_bucket_max
        assert len(book._lost) <= BOOK.lost_max
        assert len(book) <= BOOK.total_max
        sources: Counter[str] = Counter()
        groups: Counter[str] = Counter()
        for entry in book.entries.values():
            if entry.table is Table.HEARD:
                sources[entry.source] += 1
            elif entry.table is Table.VERIFIED:
                assert entry.address is not None
                groups[address_group(entry.address, BOOK)] += 1
        assert max(sources.values(), default=0) <= BOOK.source_buckets * BOOK.heard_bucket_max
        assert max(groups.values(), default=0) <= BOOK.group_buckets * BOOK.verified_bucket_max

    @invariant()
    def the_log_is_in_order(self) -> None:
        logged = self.book.news(0, 100)
        positions = [entry.position for entry in logged]
        assert positions == sorted(set(positions))
        assert len(logged) <= CONFIG.exchange.log_max
        with_position = {e.peer for e in self.book.entries.values() if e.position}
        assert with_position == {e.peer for e in logged}

    @invariant()
    def the_store_has_what_the_book_has(self) -> None:
        """But for cursors, and for what others say when there is too much of it."""
        entries = self.book.entries
        assert set(self.stored) == {peer for peer, entry in entries.items() if entry.is_stored}
        for peer, saved in self.stored.items():
            entry = entries[peer]
            assert saved.verified is (entry.table is Table.VERIFIED)
            assert saved.lost is (entry.table is Table.LOST)
            assert saved.address == (str(entry.address) if entry.address is not None else "")
            assert saved.position == entry.position
            assert (saved.is_anchor, saved.failures) == (entry.is_anchor, entry.failures)

    @invariant()
    def everybody_is_a_candidate_in_time(self) -> None:
        assert {e.peer for e in self.book.candidates(self.now + 60.0)} == set(self.book.entries)


def _fields(saved: SavePeer) -> dict[str, Any]:
    return {name: getattr(saved, name) for name in saved.__struct_fields__}


TestAddressBook = AddressBookMachine.TestCase
TestAddressBook.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
