"""Peers known by address."""

from __future__ import annotations

from random import Random

import pytest

from meshwalk.config import OverlayConfig
from meshwalk.errors import InvalidRecord
from meshwalk.proto.effects import ForgetPeer, SavePeer
from meshwalk.proto.overlay.addressbook import AddressBook, BookEntry
from meshwalk.sim.node import UNIX_START_S
from meshwalk.sim.signatures import CheapSignatures
from meshwalk.wire.address import Address
from meshwalk.wire.records import Domain, PeerRecord

from .bench import peer_of, record_of

HERE = Address("10.0.0.1", 1)


def book(book_max: int = 4) -> AddressBook:
    config = OverlayConfig(book_max=book_max)
    return AddressBook(peer_of(0), config, Random(0), UNIX_START_S)


def heard(
    table: AddressBook, peer: int, now: float = 0.0, sequence: int = 1, port: int = 1
) -> list[SavePeer | ForgetPeer]:
    record = PeerRecord(bytes(peer_of(peer)), sequence, [])
    address = Address("10.0.0.1", port)
    return table.heard(record, b"%d" % sequence, (address,), "walk", now)


def test_old_records_change_nothing() -> None:
    table = book()
    heard(table, 1, sequence=5, port=5)
    for sequence in (5, 4, 0):
        assert heard(table, 1, sequence=sequence, port=9) == []
    assert table.entries[peer_of(1)].addresses == (Address("10.0.0.1", 5),)
    heard(table, 1, sequence=6, port=6)
    assert table.entries[peer_of(1)].addresses == (Address("10.0.0.1", 6),)


class CountingSignatures(CheapSignatures):
    """Notes how often a signature was checked."""

    checked = 0

    def verify(self, domain: Domain, peer: bytes, signature: bytes, payload: bytes) -> bool:
        self.checked += 1
        return super().verify(domain, peer, signature, payload)


def test_only_a_record_that_is_known_is_not_verified() -> None:
    table, signatures = book(), CountingSignatures(peer_of(0))
    blob, newer = record_of(1), record_of(1, sequence=2)
    for _ in range(2):
        record = table.open(blob, signatures)
    assert signatures.checked == 2, "reading a record makes it no more trusted"
    table.heard(record, blob, (HERE,), "walk", 0.0)
    assert table.open(bytes(bytearray(blob)), signatures) == record
    assert signatures.checked == 2
    assert table.open(newer, signatures).sequence == 2
    assert signatures.checked == 3
    for forged in (record_of(1, sequence=3, signer=2), record_of(1, signer=2)):
        with pytest.raises(InvalidRecord):
            table.open(forged, signatures)


def test_never_oneself_and_never_nowhere() -> None:
    table = book()
    heard(table, 0)
    table.worked(peer_of(0), HERE, None, 0.0)
    table.load(BookEntry(peer_of(0), b"", 0, (HERE,), "store", 0.0))
    table.heard(PeerRecord(bytes(peer_of(1)), 1, []), b"", (), "walk", 0.0)
    assert len(table) == 0


def test_heard_of_peers_do_not_push_out_verified_ones() -> None:
    table = book(4)
    for peer in (1, 2, 3):
        table.worked(peer_of(peer), HERE, None, float(peer))
    for peer in range(10, 200):
        effects = heard(table, peer, 10.0 + peer)
        assert len(table) <= 4
    assert {peer_of(n) for n in (1, 2, 3)} <= set(table.entries)
    assert table.evicted == 189
    assert effects[0] == ForgetPeer(peer_of(198))


def test_full_of_verified_the_longest_silent_goes() -> None:
    table = book(2)
    for peer in (1, 2, 3):
        table.worked(peer_of(peer), HERE, None, float(peer))
    assert set(table.entries) == {peer_of(2), peer_of(3)}


def test_failures_wait_longer_and_end_for_those_only_heard_of() -> None:
    table = book()
    heard(table, 1)
    pauses = []
    for _ in range(5):
        entry = table.entries[peer_of(1)]
        last = table.failed(peer_of(1), 100.0)
        pauses.append(entry.next_try_at - 100.0)
    assert last == [ForgetPeer(peer_of(1))]
    assert pauses[-1] > pauses[0] >= 0.5
    assert table.failed(peer_of(1), 100.0) == []


def test_verified_ones_stay_and_wait_a_bounded_time() -> None:
    table = book()
    table.worked(peer_of(1), HERE, 0.1, 0.0)
    for _ in range(50):
        table.failed(peer_of(1), 0.0)
    at = table.next_try_at()
    assert at is not None
    assert at <= 45
    assert table.candidates(at - 0.01) == []
    assert [e.peer for e in table.candidates(at)] == [peer_of(1)]


def test_everybody_has_a_turn() -> None:
    """A defect: the newest verified ones came first for ever, however often they failed."""
    table = book(100)
    for peer in range(1, 51):
        table.worked(peer_of(peer), HERE, None, float(peer))
    tried = []
    now = 1000.0
    for _ in range(50):
        entry = table.candidates(now)[0]
        tried.append(entry.peer)
        entry.tried_at = now
        if len(tried) % 2:
            table.failed(entry.peer, now)
        now += 60
    assert len(set(tried)) == 50


def test_entries_without_an_address_set_no_timer() -> None:
    """A defect: such an entry was due at once, for ever, and could not be tried."""
    table = book()
    table.load(BookEntry(peer_of(1), b"", 0, (), "store", 0.0))
    assert table.next_try_at() is None
    assert table.candidates(0.0) == []


def test_the_address_that_worked_comes_first() -> None:
    table = book()
    heard(table, 1, port=1)
    table.worked(peer_of(1), Address("10.0.0.1", 7), None, 0.0)
    entry = table.entries[peer_of(1)]
    assert [a.port for a in entry.to_try(4)] == [7, 1]
    assert len(entry.to_try(1)) == 1
    assert entry.verified
