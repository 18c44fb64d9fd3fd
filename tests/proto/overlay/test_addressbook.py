"""Peers known by address: the three tables, and what moves a peer from one to another."""

from __future__ import annotations

import pytest

from meshwalk.errors import InvalidRecord
from meshwalk.identity.keys import sign_record
from meshwalk.proto.effects import ForgetPeer, SavePeer
from meshwalk.proto.overlay.addressbook import BookEntry, Table
from meshwalk.sim.signatures import CheapSignatures
from meshwalk.wire.address import Address
from meshwalk.wire.records import Domain, PeerRecord

from .books import (
    DAY_S,
    HERE,
    UNIX_START_S,
    book,
    entry_of,
    forgotten,
    heard,
    home_of,
    known,
    peer_of,
    worked,
)

# Records.


def test_old_records_change_nothing() -> None:
    table = book()
    heard(table, 1, age_s=10.0, at=Address("10.0.0.1", 5))
    assert heard(table, 1, age_s=10.0, at=Address("10.0.0.1", 5)) == []
    for age_s in (11.0, 1000.0):
        assert heard(table, 1, age_s=age_s, at=Address("10.0.0.1", 9)) == []
    assert entry_of(table, 1).addresses == (Address("10.0.0.1", 5),)
    (saved,) = heard(table, 1, age_s=9.0, at=Address("10.0.0.1", 6))
    assert isinstance(saved, SavePeer)
    assert entry_of(table, 1).addresses == (Address("10.0.0.1", 6),)


def test_the_same_record_may_bring_more_of_its_addresses_and_no_others() -> None:
    """A greeting is believed at one host only; a neighbour that tells of it later, at all."""
    table = book()
    inside, outside = Address("10.0.0.1", 1), Address("8.8.8.8", 1)
    now_us = int(UNIX_START_S * 1e6)
    record = PeerRecord(bytes(peer_of(1)), now_us, [str(outside), str(inside)])
    for believed, expected, is_new in (
        ((inside,), (inside,), True),
        ((), (inside,), False),
        ((Address("9.9.9.9", 1),), (inside,), False),
        ((outside,), (outside, inside), True),
        ((inside,), (outside, inside), False),
    ):
        changes = table.heard(record, b"record", believed, "exchange", HERE, 0.0)
        assert bool(changes) is is_new
        assert entry_of(table, 1).addresses == expected


def test_a_record_of_yesterday_is_no_news() -> None:
    table = book()
    assert heard(table, 1, age_s=DAY_S + 1) == []
    assert heard(table, 2, age_s=DAY_S - 1)
    assert known(table) == {2}
    heard(table, 2, DAY_S, age_s=DAY_S + 60)
    assert table.counts["stale"] == 2
    assert entry_of(table, 2).heard_at == 0.0, "who tells of it again keeps it no longer"


class CountingSignatures(CheapSignatures):
    """Notes how often a signature was checked."""

    checked = 0

    def verify(self, domain: Domain, peer: bytes, signature: bytes, payload: bytes) -> bool:
        self.checked += 1
        return super().verify(domain, peer, signature, payload)


def signed(sequence: int, signer: int = 1) -> bytes:
    record = PeerRecord(bytes(peer_of(1)), sequence, ["tcp://10.0.0.1:1"])
    return sign_record(record, CheapSignatures(peer_of(signer)))


def test_only_a_record_that_is_known_is_not_verified() -> None:
    table, signatures = book(), CountingSignatures(peer_of(0))
    first = int(UNIX_START_S * 1e6)
    blob, newer = signed(first), signed(first + 1)
    for _ in range(2):
        record = table.open(blob, signatures)
    assert signatures.checked == 2, "reading a record makes it no more trusted"
    table.heard(record, blob, (HERE,), "walk", HERE, 0.0)
    assert table.open(bytes(bytearray(blob)), signatures) == record
    assert signatures.checked == 2
    assert table.open(newer, signatures).sequence == first + 1
    assert signatures.checked == 3
    for forged in (signed(first + 2, signer=2), signed(first, signer=2)):
        with pytest.raises(InvalidRecord):
            table.open(forged, signatures)


def test_never_oneself_and_never_nowhere() -> None:
    table = book()
    heard(table, 0)
    worked(table, 0)
    table.load(BookEntry(peer_of(0), b"", 0, (HERE,), "store", 0.0))
    table.load(BookEntry(peer_of(1), b"", 0, (), "store", 0.0))
    now_us = int(UNIX_START_S * 1e6)
    table.heard(PeerRecord(bytes(peer_of(1)), now_us, []), b"", (), "walk", HERE, 0.0)
    table.worked(peer_of(1), None, None, 0.0)
    table.set_cursor(peer_of(1), 5)
    assert len(table) == 0
    assert table.next_try_at() is None
    assert table.candidates(0.0) == []
    for changes in (
        table.failed(peer_of(1), 0.0),
        table.measured(peer_of(1), 0.1, None, 0.0),
        table.connected(peer_of(1), 0.0),
        table.note_anchors([peer_of(1)]),
        table.met_at(peer_of(1), HERE, 0.0),
        table.expire(0.0),
    ):
        assert changes == []


# Full tables.


def test_heard_of_peers_do_not_push_out_verified_ones() -> None:
    table = book(heard_buckets=2, source_buckets=2, heard_bucket_max=2)
    for peer in (1, 2, 3):
        worked(table, peer, float(peer))
    for peer in range(10, 200):
        changes = heard(table, peer, 10.0 + peer, source=home_of(peer))
        assert len(table) <= 3 + 4
    assert {1, 2, 3} <= known(table)
    assert table.counts["evicted"] == 190 - 4
    assert isinstance(changes[0], ForgetPeer)
    assert isinstance(changes[1], SavePeer)


def test_a_full_bucket_gives_up_who_failed_most_then_who_was_unheard_of_longest() -> None:
    table = book(heard_buckets=1, source_buckets=1, heard_bucket_max=3)
    for peer in (1, 2, 3):
        heard(table, peer, float(peer), age_s=float(peer))
    table.failed(peer_of(3), 4.0)
    assert forgotten(heard(table, 4, 5.0)) == [3]
    heard(table, 1, 6.0, age_s=6.0)  # told of again
    assert forgotten(heard(table, 5, 7.0)) == [2]
    table.is_neighbour = peer_of(1).__eq__
    table.failed(peer_of(1), 8.0)
    assert forgotten(heard(table, 6, 9.0)) == [4]


def test_one_source_reaches_its_share() -> None:
    table = book()
    for peer in range(1, 1001):
        heard(table, peer, source=home_of(peer))
    before = known(table)
    assert len(before) > 800
    for peer in range(1001, 4001):
        heard(table, peer, source=Address("10.0.0.1", peer))
    assert len(known(table) - before) <= 8 * 16
    assert len(known(table) & before) >= len(before) - 8 * 16


def test_a_full_verified_bucket_gives_up_the_worst_only_if_it_was_not_seen_lately() -> None:
    table = book(verified_buckets=1, group_buckets=1, verified_bucket_max=2)
    worked(table, 1, 0.0)
    worked(table, 2, 100.0)
    (saved,) = worked(table, 3, 200.0)
    assert isinstance(saved, SavePeer)
    assert not saved.verified
    assert entry_of(table, 3).table is Table.HEARD
    assert entry_of(table, 3).address == home_of(3), "it worked all the same"
    assert table.counts["no place"] == 1
    changes = worked(table, 3, 601.0)
    assert [(c.peer, c.verified) for c in changes if isinstance(c, SavePeer)] == [
        (peer_of(1), False),
        (peer_of(3), True),
    ]
    assert entry_of(table, 1).address == home_of(1)
    table.failed(peer_of(3), 602.0)
    worked(table, 4, 603.0)
    assert entry_of(table, 3).table is Table.HEARD, "it fails"
    assert table.counts["demoted"] == 2
    table.is_neighbour = {peer_of(2), peer_of(4)}.__contains__
    worked(table, 5, 9000.0)
    assert entry_of(table, 5).table is Table.HEARD, "neighbours are spared"


def test_what_finds_no_room_after_a_restart_is_forgotten() -> None:
    table = book(
        heard_buckets=1, source_buckets=1, heard_bucket_max=2,
        verified_buckets=1, group_buckets=1, verified_bucket_max=1, lost_max=1,
    )  # fmt: skip
    tables = [Table.VERIFIED, Table.VERIFIED, Table.LOST, Table.LOST, Table.HEARD, Table.HEARD]
    for peer, kind in enumerate(tables, 1):
        entry = BookEntry(peer_of(peer), b"", 0, (home_of(peer),), "store", -5.0, table=kind)
        entry.address = home_of(peer) if kind is Table.VERIFIED else None
        table.load(entry)
    table.load(entry_of(table, 1))  # once is enough
    found = {int.from_bytes(p, "big"): e.table for p, e in table.entries.items()}
    assert found == {1: Table.VERIFIED, 2: Table.HEARD, 3: Table.LOST, 5: Table.HEARD}
    table.worked(peer_of(4), home_of(4), None, 0.0)  # in the place of 2, which is forgotten
    changes = table.expire(0.0)
    assert forgotten(changes) == [2, 6]
    assert [c.peer for c in changes if isinstance(c, SavePeer)] == [peer_of(4)]
    assert table.expire(0.0) == []


# One address, two peers.


def test_who_answers_at_an_address_takes_it_from_all_others() -> None:
    table = book()
    elsewhere = Address("10.9.9.9", 9)
    worked(table, 1, at=HERE)
    heard(table, 2, at=HERE)
    heard(table, 3, at=elsewhere)
    worked(table, 3, at=HERE)  # verified here, signed elsewhere
    worked(table, 4, at=HERE)
    assert known(table) == {3, 4}
    assert table.counts["replaced"] == 2
    worked(table, 5, at=HERE)
    assert entry_of(table, 3).to_try(4) == [elsewhere]
    assert entry_of(table, 3).table is Table.HEARD, "it is verified nowhere now"
    assert known(table) == {3, 5}
    table.is_neighbour = peer_of(5).__eq__
    worked(table, 6, at=HERE)
    assert known(table) == {3, 5, 6}, "a neighbour is left alone"


def test_who_loses_an_address_may_push_out_another_who_loses_it() -> None:
    table = book(heard_buckets=1, source_buckets=1, heard_bucket_max=1)
    heard(table, 1, at=Address("10.9.9.9", 9))
    worked(table, 1, at=HERE)
    heard(table, 2, at=HERE)
    assert forgotten(worked(table, 3, at=HERE)) == [2]
    assert known(table) == {1, 3}
    assert table.counts["evicted"] == 1


def test_who_comes_and_says_it_listens_there_replaces_who_was_only_heard_of() -> None:
    table = book()
    worked(table, 1, at=Address("10.0.0.1", 1))
    heard(table, 2, at=Address("10.0.0.1", 2))
    heard(table, 3, at=Address("10.0.0.1", 3))
    for port in (1, 2):
        changes = table.met_at(peer_of(9), Address("10.0.0.1", port), 5.0)
    assert forgotten(changes) == [2]
    assert known(table) == {1, 3}
    assert table.met_at(peer_of(3), Address("10.0.0.1", 3), 5.0) == []
    assert entry_of(table, 3).heard_at == 5.0


def test_a_peer_that_moves_is_found_in_the_bucket_of_where_it_is() -> None:
    table = book()
    for number in range(20):
        at = Address(f"8.{number}.0.1", 1)
        worked(table, 1, float(number), at)
        assert entry_of(table, 1).to_try(1) == [at]
    assert len(table) == 1


# Measuring.


def test_a_test_verifies_and_measures() -> None:
    table = book()
    heard(table, 1)
    table.failed(peer_of(1), 1.0)
    (first,) = table.measured(peer_of(1), 0.1, None, 2.0)
    assert isinstance(first, SavePeer)
    assert not first.verified, "it passed over a link that it dialled"
    worked(table, 1, 3.0)
    (saved,) = table.measured(peer_of(1), 0.25, 0.01, 4.0)
    assert isinstance(saved, SavePeer)
    assert saved.verified
    assert (saved.rtt_s, saved.jitter_s, saved.tested_at) == (0.25, 0.01, UNIX_START_S + 4.0)
    entry = entry_of(table, 1)
    assert (entry.failures, entry.failing_since, entry.tested_at) == (0, None, 4.0)


def test_a_test_verifies_who_had_no_place_before() -> None:
    table = book(verified_buckets=1, group_buckets=1, verified_bucket_max=1)
    worked(table, 1, 0.0)
    worked(table, 2, 1.0)
    assert not entry_of(table, 2).verified
    table.measured(peer_of(2), 0.1, None, 601.0)
    assert entry_of(table, 2).verified


def test_the_address_that_worked_comes_first() -> None:
    table = book()
    heard(table, 1, at=Address("10.0.0.1", 1))
    worked(table, 1, at=Address("10.0.0.1", 7))
    entry = entry_of(table, 1)
    assert [a.port for a in entry.to_try(4)] == [7, 1]
    assert len(entry.to_try(1)) == 1
    assert entry.verified


# Chance.


def test_a_seed_decides_everything() -> None:
    def story(seed: int) -> list[object]:
        table = book(seed, heard_buckets=4, heard_bucket_max=4, source_buckets=2)
        seen: list[object] = []
        for number in range(1, 300):
            seen.append(heard(table, number, float(number), source=home_of(number % 7)))
            if number % 5 == 0:
                seen.append(worked(table, number - 3, float(number)))
                seen.append(table.failed(peer_of(number), float(number)))
            chosen = table.to_test(float(number), ())
            seen.append(chosen.peer if chosen is not None else None)
        return [*seen, [e.peer for e in table.candidates(1000.0)]]

    assert story(1) == story(1)
    assert story(1) != story(2)


# What the store is told.


def test_a_record_from_the_future_is_no_news() -> None:
    """It would never grow old, and no later one would count."""
    table = book(clock_skew_max_s=600.0)
    assert heard(table, 1, age_s=-601.0) == []
    assert known(table) == set()
    assert table.counts["from the future"] == 1
    heard(table, 1, age_s=-599.0)
    assert heard(table, 1, age_s=-DAY_S) == []
    assert entry_of(table, 1).sequence == int((599.0 + UNIX_START_S) * 1e6)


def test_strangers_records_are_saved_at_a_bounded_rate() -> None:
    """A defect: one neighbour's walks under fresh keys made two writes each, as fast as it sent."""
    table = book(saves_per_s=1.0, saves_burst=10)
    changes = [c for n in range(1, 1000) for c in heard(table, n, n / 100)]
    saved, forgot = [c for c in changes if isinstance(c, SavePeer)], forgotten(changes)
    assert len(saved) <= 10 + 10
    assert len(forgot) < len(saved)
    assert set(forgot) <= {int.from_bytes(c.peer, "big") for c in saved}
    assert table.counts["not saved"] == 999 - len(saved)


def test_a_stranger_that_was_not_saved_is_saved_later() -> None:
    table = book(saves_per_s=0.1, saves_burst=1)
    assert [len(heard(table, n)) for n in (1, 2, 3, 4)] == [1, 0, 0, 0]
    assert [c.peer for c in worked(table, 3)] == [peer_of(3)]
    assert [c.peer for c in table.expire(10.0)] == [peer_of(2)]
    assert [c.peer for c in table.expire(100.0)] == [peer_of(4)]
    assert table.expire(1000.0) == []
