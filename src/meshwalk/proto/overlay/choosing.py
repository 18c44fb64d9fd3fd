"""Whom of the address book to dial next: to join through, or to test. Order only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Container, Iterable

from meshwalk.config import BookConfig
from meshwalk.proto.overlay.bookentry import NEVER, BookEntry, Table
from meshwalk.proto.overlay.groups import address_group
from meshwalk.wire.peerid import PeerId

LOST_EVERY = 8  # guess: of so many tests one is of a lost peer, so that 32 have a turn in 2 hours


def candidates(entries: Collection[BookEntry], config: BookConfig, now: float) -> list[BookEntry]:
    """Whom to join through; `AddressBook.candidates` says in which order."""
    ready = [entry for entry in entries if entry.next_try_at <= now]
    ready.sort(key=lambda entry: -entry.last_seen)
    ranked: list[tuple[tuple[float, ...], int, BookEntry]] = []
    turns: Counter[tuple[tuple[float, ...], str]] = Counter()
    for entry in ready:
        rank = _rank(entry)
        address = entry.best_address
        group = address_group(address, config) if address is not None else ""
        ranked.append((rank, turns[rank, group], entry))
        turns[rank, group] += 1
    ranked.sort(key=lambda item: item[:2])
    return [entry for _, _, entry in ranked]


def _rank(entry: BookEntry) -> tuple[float, ...]:
    """Less is better."""
    return (
        not (entry.is_anchor and entry.tried_at == NEVER),
        entry.table is Table.LOST,
        entry.failures,
        entry.tried_at,
        entry.table is not Table.VERIFIED,
    )


class Turns:
    """Whose turn it is to be tested."""

    __slots__ = ("_config", "_number")

    def __init__(self, config: BookConfig) -> None:
        self._config = config
        self._number = 0

    def next(
        self,
        heard: Iterable[BookEntry],
        entries: Collection[BookEntry],
        now: float,
        without: Container[PeerId],
    ) -> BookEntry | None:
        """Whom to test; `AddressBook.to_test` says by which rule. `heard`: in random order."""
        self._number += 1
        tables = [Table.HEARD, Table.VERIFIED, Table.LOST]
        if self._number % LOST_EVERY == 0:
            tables = [Table.LOST, Table.HEARD, Table.VERIFIED]
        elif self._number % 2 == 0:
            tables = [Table.VERIFIED, Table.HEARD, Table.LOST]
        for table in tables:
            if table is Table.HEARD:
                entry = self._first(heard, now, without)
            else:
                members = [e for e in entries if e.table is table and self._is_due(e, now, without)]
                entry = min(members, key=_tested_at, default=None)
            if entry is not None:
                entry.test_begun_at = now
                return entry
        return None

    def _first(
        self, heard: Iterable[BookEntry], now: float, without: Container[PeerId]
    ) -> BookEntry | None:
        """The first that is due and does not fail, or else the first that does."""
        failing = None
        for entry in heard:
            if self._is_due(entry, now, without):
                if entry.failures == 0:
                    return entry
                failing = failing or entry
        return failing

    def _is_due(self, entry: BookEntry, now: float, without: Container[PeerId]) -> bool:
        config = self._config
        # Who fails is looked for more often: it may be in a part of the network that is cut off.
        pause_s = config.retest_failing_s if entry.failures else config.retest_s
        retest_at = _tested_at(entry) + pause_s
        return retest_at <= now and entry.next_try_at <= now and entry.peer not in without


def _tested_at(entry: BookEntry) -> float:
    return max(entry.tested_at, entry.test_begun_at)
