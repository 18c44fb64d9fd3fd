"""The log of whom a node connected to, as the address book keeps it; and anchors."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from meshwalk.config import Config, ExchangeConfig
from meshwalk.proto.effects import SavePeer
from meshwalk.proto.overlay.addressbook import AddressBook, BookEntry, Changes
from meshwalk.proto.overlay.restoring import restored
from meshwalk.wire.address import Address
from meshwalk.wire.peerid import PeerId
from meshwalk.wire.records import PeerRecord

UNIX_START_S = 1_700_000_000.0
START_US = 1_700_000_000_000_000


def peer_of(number: int) -> PeerId:
    return PeerId(number.to_bytes(32, "big"))


def book(log_max: int = 4) -> AddressBook:
    config = Config(exchange=ExchangeConfig(log_max=log_max))
    return AddressBook(peer_of(0), config, Random(0), UNIX_START_S)


def hear(table: AddressBook, number: int, now: float = 0.0) -> Changes:
    at = Address(f"10.0.0.{number}", 1)
    record = PeerRecord(bytes(peer_of(number)), int((now + UNIX_START_S) * 1e6), [])
    return table.heard(record, b"record %f" % now, (at,), "walk", at, now)


def connected(table: AddressBook, *numbers: int, now: float = 0.0) -> None:
    for number in numbers:
        hear(table, number)
        table.connected(peer_of(number), now)


def told(table: AddressBook, since: int = 0, limit: int = 100) -> list[int]:
    return [int.from_bytes(entry.peer, "big") for entry in table.news(since, limit)]


def test_positions_are_times_and_grow_whatever_the_clock_does() -> None:
    table = book()
    positions = []
    for number, now in ((1, 0.0), (2, 2.5), (3, 2.5), (4, -1000.0)):
        connected(table, number, now=now)
        positions.append(table.entries[peer_of(number)].position)
    assert positions == [START_US, START_US + 2_500_000, START_US + 2_500_001, START_US + 2_500_002]
    assert table.newest_position == positions[-1]


def test_news_is_what_came_after_the_oldest_first() -> None:
    table = book()
    connected(table, 1, 2, 3)
    position = table.entries[peer_of(1)].position
    assert told(table) == [1, 2, 3]
    assert told(table, position) == [2, 3]
    assert told(table, position, limit=1) == [2]
    assert told(table, table.newest_position) == []
    assert told(table, table.newest_position + 1) == [1, 2, 3], "we have lost our memory since"
    assert told(table, 2**64 - 1) == [1, 2, 3]


def test_connecting_again_is_news_only_after_a_change() -> None:
    table = book()
    connected(table, 1, 2)
    assert table.connected(peer_of(1), 5.0) == []
    assert told(table) == [1, 2]
    hear(table, 1, 6.0)
    assert told(table) == [1, 2], "a record alone is no connection"
    (saved,) = table.connected(peer_of(1), 7.0)
    assert isinstance(saved, SavePeer)
    assert saved.position == START_US + 7_000_000
    assert told(table) == [2, 1]
    table.failed(peer_of(2), 8.0)
    table.worked(peer_of(2), None, None, 9.0)
    table.connected(peer_of(2), 9.0)
    assert told(table) == [1, 2]


def test_who_has_no_record_is_not_told_of() -> None:
    table = book()
    table.worked(peer_of(1), Address("10.0.0.1", 1), None, 0.0)
    assert table.connected(peer_of(1), 0.0) == []
    assert table.newest_position == 0
    hear(table, 1)
    assert table.connected(peer_of(1), 1.0) != []


def test_the_log_is_bounded() -> None:
    table = book(log_max=2)
    connected(table, 1, 2)
    hear(table, 3)
    changes = table.connected(peer_of(3), 0.0)
    assert [(c.peer, c.position > 0) for c in changes if isinstance(c, SavePeer)] == [
        (peer_of(1), False),
        (peer_of(3), True),
    ]
    assert told(table) == [2, 3]
    assert table.connected(peer_of(1), 1.0) != [], "it has no position, so this is news"
    assert told(table) == [3, 1]


def test_who_is_forgotten_is_not_told_of() -> None:
    table = book()
    connected(table, 1, 2)
    for _ in range(5):
        table.failed(peer_of(1), 0.0)
    assert told(table) == [2]
    table.worked(peer_of(3), Address("10.0.0.2", 1), None, 0.0)
    assert told(table) == []


def test_a_restart_keeps_the_log_and_the_cursors() -> None:
    table = book()
    connected(table, 3, 1, 2)
    stored: dict[PeerId, SavePeer] = {}
    table.set_cursor(peer_of(1), 77)
    changes = table.note_anchors([peer_of(2)])
    for entry in table.entries.values():
        changes += table.worked(entry.peer, entry.addresses[0], 0.5, 9.0)
    for change in changes:
        assert isinstance(change, SavePeer)
        stored[change.peer] = change
    again = book(log_max=2)
    offset = UNIX_START_S + 1000.0
    again.unix_offset_s = offset
    for saved in stored.values():
        assert restored(saved, offset) is None, "these records are no records"
        found = restored(SavePeer(**{**_fields(saved), "record": b""}), offset)
        assert found is not None
        again.load(found)
    assert told(again) == [1, 2], "the oldest does not fit"
    assert again.newest_position == table.newest_position
    assert again.entries[peer_of(1)].cursor == 77
    assert [e.peer for e in again.anchors()] == [peer_of(2)]
    again.entries[peer_of(1)].blob = b"record"
    assert again.connected(peer_of(1), 0.0), "reconnecting after a restart is news"
    assert told(again) == [2, 1]


def _fields(saved: SavePeer) -> dict[str, Any]:
    return {name: getattr(saved, name) for name in saved.__struct_fields__}


def test_a_cursor_is_saved_with_what_changes_next() -> None:
    table = book()
    hear(table, 1)
    table.set_cursor(peer_of(1), 2**64 - 1)
    (saved,) = table.failed(peer_of(1), 0.0)
    assert isinstance(saved, SavePeer)
    assert saved.cursor == 2**64 - 1


@pytest.mark.parametrize("chosen", [(1, 2), (2, 3, 1), (9, 3), ()])
def test_anchors_are_the_first_two_that_are_known(chosen: tuple[int, ...]) -> None:
    table = book()
    for number in (1, 2, 3, 4):
        hear(table, number)
    table.note_anchors([peer_of(4), peer_of(3)])
    changes = table.note_anchors(map(peer_of, chosen))
    expected = {peer_of(n) for n in chosen if n != 9}
    if len(chosen) == 3:
        expected = {peer_of(2), peer_of(3)}
    assert {e.peer for e in table.anchors()} == expected
    assert {c.peer for c in changes} == expected ^ {peer_of(3), peer_of(4)}


def test_entries_of_an_earlier_run_default_to_news() -> None:
    assert BookEntry(peer_of(1), b"", 1, (), "store", 0.0).is_news
