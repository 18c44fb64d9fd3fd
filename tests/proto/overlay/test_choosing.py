"""Whom the address book has dialled next."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

from meshwalk.config import BookConfig, Config
from meshwalk.proto.overlay.addressbook import AddressBook, BookEntry, Table
from meshwalk.wire.address import Address
from meshwalk.wire.peerid import PeerId
from meshwalk.wire.records import PeerRecord

UNIX_START_S = 1_700_000_000.0


def peer_of(number: int) -> PeerId:
    return PeerId(number.to_bytes(32, "big"))


def number_of(entry: BookEntry | None) -> int | None:
    return int.from_bytes(entry.peer, "big") if entry is not None else None


def home_of(number: int) -> Address:
    return Address(f"10.1.{number >> 8}.{number & 255}", 1)


def book(**settings: Any) -> AddressBook:
    return AddressBook(peer_of(0), Config(book=BookConfig(**settings)), Random(0), UNIX_START_S)


def load(table: AddressBook, number: int, kind: Table = Table.HEARD, **values: Any) -> BookEntry:
    at = values.pop("at", home_of(number))
    last_seen = values.pop("last_seen", -1000.0)
    address = at if kind is not Table.HEARD else None
    entry = BookEntry(
        peer_of(number), b"record", 1, (at,), "store", last_seen, table=kind, address=address,
        **values,
    )  # fmt: skip
    table.load(entry)
    return entry


def order(table: AddressBook, now: float = 0.0) -> list[int | None]:
    return [number_of(entry) for entry in table.candidates(now)]


def test_everybody_has_a_turn() -> None:
    """A defect: the newest verified ones came first for ever, however often they failed."""
    table = book()
    for peer in range(1, 51):
        table.worked(peer_of(peer), home_of(peer), None, float(peer))
    tried = []
    now = 1000.0
    for _ in range(50):
        entry = table.candidates(now)[0]
        tried.append(entry.peer)
        table.tried(entry.peer, now)
        if len(tried) % 2:
            table.failed(entry.peer, now)
        now += 60
    assert len(set(tried)) == 50


def test_anchors_first_and_the_lost_last() -> None:
    table = book()
    load(table, 1, Table.LOST)
    load(table, 2)
    load(table, 3, Table.VERIFIED, failures=1)
    load(table, 4, Table.VERIFIED, last_seen=-2.0)
    load(table, 5, Table.VERIFIED, last_seen=-1.0)
    load(table, 6, is_anchor=True, failures=4)
    assert order(table) == [6, 5, 4, 2, 3, 1]
    table.tried(peer_of(6), 1.0)
    assert order(table) == [5, 4, 2, 3, 6, 1], "an anchor has been tried in vain"


def test_no_group_has_a_second_turn_before_every_group_had_one() -> None:
    table = book()
    for number in range(1, 21):
        load(table, number, Table.VERIFIED, at=Address(f"8.8.0.{number}", 1), last_seen=-1.0)
    for number in (50, 51):
        load(table, number, Table.VERIFIED, at=Address(f"9.{number}.0.1", 1), last_seen=-9.0)
    load(table, 60, Table.HEARD, at=Address("10.0.0.1", 1))
    found = order(table)
    assert set(found[1:3]) == {50, 51}
    assert found[-1] == 60, "who is less good comes later, whatever the group"
    for first in found[:4]:
        assert first is not None
        table.tried(peer_of(first), 1.0)
    assert not {50, 51} & set(order(table)[:10])


def test_who_has_not_been_tried() -> None:
    table = book()
    load(table, 1)
    load(table, 2)
    assert table.has_untried(0.0, ())
    table.tried(peer_of(1), 0.0)
    table.tried(peer_of(99), 0.0)
    assert table.has_untried(0.0, ())
    assert not table.has_untried(0.0, {peer_of(2)})
    table.failed(peer_of(2), 0.0)
    assert not table.has_untried(0.0, ())
    assert table.has_untried(100.0, ())


def test_tests_take_turns_between_the_tables() -> None:
    table = book(retest_s=0.0)
    load(table, 1)
    load(table, 2, Table.VERIFIED)
    load(table, 3, Table.LOST)
    chosen = [number_of(table.to_test(float(now), ())) for now in range(16)]
    assert chosen == [1, 2, 1, 2, 1, 2, 1, 3] * 2
    assert number_of(table.to_test(99.0, {peer_of(1)})) == 2
    assert number_of(table.to_test(99.0, {peer_of(1), peer_of(2)})) == 3
    assert table.to_test(99.0, {peer_of(1), peer_of(2), peer_of(3)}) is None


def test_the_verified_one_tested_longest_ago_is_next_and_not_before_its_time() -> None:
    table = book()
    load(table, 1, Table.VERIFIED, tested_at=-700.0)
    load(table, 2, Table.VERIFIED, tested_at=-800.0)
    load(table, 3, Table.VERIFIED, tested_at=-599.0)
    load(table, 4, Table.VERIFIED, next_try_at=50.0)
    times = (0.0, 0.5, 0.9, 1.0, 50.0, 599.0, 601.0)
    assert [number_of(table.to_test(now, ())) for now in times] == [2, 1, None, 3, 4, None, 2]


def test_one_that_fails_does_not_hold_up_the_others() -> None:
    """A test that fails leaves `tested_at` as it was: the same peer would always be the next."""
    table = book()
    for number in (1, 2, 3):
        load(table, number, Table.VERIFIED)
    chosen = []
    for now in (0.0, 60.0, 120.0):
        entry = table.to_test(now, ())
        assert entry is not None
        chosen.append(number_of(entry))
        table.failed(entry.peer, now)
    assert sorted(filter(None, chosen)) == [1, 2, 3]


def test_of_those_heard_of_the_failing_come_last() -> None:
    table = book()
    for number in range(1, 5):
        load(table, number, failures=number % 2)
    chosen = [number_of(table.to_test(0.0, ())) for _ in range(5)]
    assert [{2, 4} >= {n} for n in chosen[:2]] == [True, True]
    assert set(chosen[2:4]) == {1, 3}
    assert chosen[4] is None


def test_those_heard_of_are_chosen_by_bucket() -> None:
    """A source that has told of 100 peers is not tested 100 times as often as one that told of 1.
    Both have at most 8 buckets of 64."""
    counts: Counter[bool] = Counter()
    for seed in range(200):
        table = AddressBook(peer_of(0), Config(), Random(seed), UNIX_START_S)
        for number in range(1, 101):
            hear(table, number, Address("8.8.8.8", 1))
        for number in range(101, 109):
            hear(table, number, Address(f"9.{number}.9.9", 1))
        entry = table.to_test(0.0, ())
        assert entry is not None
        counts[entry.source.startswith("8.")] += 1
    assert 70 < counts[True] < 130


def hear(table: AddressBook, number: int, source: Address) -> None:
    record = PeerRecord(bytes(peer_of(number)), int(UNIX_START_S * 1e6), [])
    table.heard(record, b"record", (home_of(number),), "walk", source, 0.0)
