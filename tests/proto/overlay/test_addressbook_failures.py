"""The address book: who does not answer, who is lost, and what expires."""

from __future__ import annotations

import pytest

from meshwalk.proto.effects import SavePeer
from meshwalk.proto.overlay.addressbook import BookEntry, Table

from .books import (
    DAY_S,
    UNIX_START_S,
    book,
    entry_of,
    forgotten,
    heard,
    home_of,
    known,
    lost,
    peer_of,
    worked,
)


def test_failures_wait_longer_and_end_for_those_only_heard_of() -> None:
    table = book()
    heard(table, 1)
    pauses = []
    for _ in range(5):
        entry = entry_of(table, 1)
        last = table.failed(peer_of(1), 100.0)
        pauses.append(entry.next_try_at - 100.0)
    assert forgotten(last) == [1]
    assert pauses[-1] > pauses[0] >= 0.5
    assert table.failed(peer_of(1), 100.0) == []
    assert table.counts["failed"] == 1


def test_nobody_is_forgotten_for_not_answering_a_node_without_links() -> None:
    table = book()
    table.is_linked = lambda: False
    heard(table, 1)
    worked(table, 2)
    for at in range(0, 10_000, 1000):
        assert forgotten([*table.failed(peer_of(1), at), *table.failed(peer_of(2), at)]) == []
    assert [entry_of(table, peer).table for peer in (1, 2)] == [Table.HEARD, Table.VERIFIED]
    table.is_linked = lambda: True
    assert forgotten(table.failed(peer_of(1), 10_000.0)) == [1]
    table.failed(peer_of(2), 10_000.0)
    assert entry_of(table, 2).table is Table.LOST


def test_verified_ones_stay_and_wait_a_bounded_time() -> None:
    table = book()
    worked(table, 1)
    for _ in range(50):
        table.failed(peer_of(1), 0.0)
    at = table.next_try_at()
    assert at is not None
    assert at <= 45
    assert table.candidates(at - 0.01) == []
    assert [e.peer for e in table.candidates(at)] == [peer_of(1)]
    table.woke()
    assert [e.peer for e in table.candidates(0.0)] == [peer_of(1)]


def test_out_of_reach_for_an_hour_is_lost_and_a_neighbour_never() -> None:
    table = book()
    for peer in (1, 2):
        worked(table, peer)
    table.is_neighbour = peer_of(2).__eq__
    for peer in (1, 2):
        table.failed(peer_of(peer), 10.0)
        table.failed(peer_of(peer), 3609.0)
        assert entry_of(table, peer).verified
        (saved,) = table.failed(peer_of(peer), 3610.0)
        assert isinstance(saved, SavePeer)
        assert (saved.lost, saved.verified) == (peer == 1, peer == 2)
        assert saved.failing_since == UNIX_START_S + 10.0
    assert entry_of(table, 1).table is Table.LOST
    assert table.counts["lost"] == 1


def test_time_alone_loses_who_fails_and_nobody_else() -> None:
    table = book()
    for peer in (1, 2):
        worked(table, peer)
    table.failed(peer_of(1), 10.0)
    assert table.expire(3609.0) == []
    assert len(table.expire(3610.0)) == 1
    assert [entry_of(table, peer).table for peer in (1, 2)] == [Table.LOST, Table.VERIFIED]


def test_the_lost_are_few_and_the_one_lost_longest_goes() -> None:
    table = book(lost_max=2)
    for peer in (1, 2, 3):
        changes = lost(table, peer, 10_000.0 + peer)
    assert forgotten(changes) == [1]
    assert known(table) == {2, 3}


@pytest.mark.parametrize("how", ["dialled", "came", "new record"])
def test_who_was_lost_and_is_there_again(how: str) -> None:
    table = book()
    lost(table, 1, 10_000.0)
    if how == "dialled":
        worked(table, 1, 10_001.0)
    elif how == "came":
        table.worked(peer_of(1), None, None, 10_001.0)
    else:
        heard(table, 1, 10_001.0)
    entry = entry_of(table, 1)
    assert entry.table is (Table.VERIFIED if how == "dialled" else Table.HEARD)
    assert (entry.failures, entry.failing_since) == (0, None)
    assert entry.next_try_at <= 10_001.0
    table.is_neighbour = peer_of(1).__eq__
    assert lost(table, 2, 20_000.0)
    assert table.expire(20_000.0 + 8 * DAY_S)
    assert known(table) == {1}


def test_what_nobody_tells_of_any_more_expires() -> None:
    table = book()
    for peer in (1, 2, 3, 4):
        heard(table, peer)
    worked(table, 4)
    heard(table, 2, 1000.0, age_s=1000.0)
    table.is_neighbour = peer_of(3).__eq__
    assert forgotten(table.expire(DAY_S - 1)) == []
    assert forgotten(table.expire(DAY_S)) == [1]
    assert forgotten(table.expire(DAY_S + 1000.0)) == [2]
    assert known(table) == {3, 4}, "neighbours and verified ones stay"


def test_the_lost_are_kept_for_a_week() -> None:
    table = book()
    heard(table, 2)
    table.is_neighbour = peer_of(2).__eq__
    lost(table, 1, 3600.0)
    assert table.expire(7 * DAY_S - 1) == []
    assert forgotten(table.expire(7 * DAY_S)) == [1]


def test_alone_nothing_expires() -> None:
    table = book()
    heard(table, 1)
    lost(table, 2, 3600.0)
    assert forgotten(table.expire(30 * DAY_S)) == []
    table.is_neighbour = lambda _: True
    assert forgotten(table.expire(30 * DAY_S)) == []


def test_a_restart_does_not_count_as_failing() -> None:
    table = book()
    for peer, kind in ((1, Table.VERIFIED), (2, Table.LOST)):
        entry = BookEntry(peer_of(peer), b"", 0, (), "store", -9000.0, table=kind)
        entry.address, entry.failures, entry.failing_since = home_of(peer), 3, -8000.0
        table.load(entry)
    table.expire(0.0)
    assert entry_of(table, 1).verified
    assert [entry_of(table, peer).failing_since for peer in (1, 2)] == [None, -8000.0]
