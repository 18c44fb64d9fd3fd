"""What a node says of its peers."""

from __future__ import annotations

from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from meshwalk.config import Config
from meshwalk.net.peers import peers_of
from meshwalk.proto.overlay.addressbook import AddressBook, BookEntry, Table
from meshwalk.wire.address import Address
from meshwalk.wire.peerid import PeerId


def peer_of(number: int) -> PeerId:
    return PeerId(bytes([number]) * 32)


def test_the_peers_of_each_table() -> None:
    book = AddressBook(peer_of(0), Config(), Random(0), 0.0)
    for number, table in enumerate((Table.HEARD, Table.LOST, Table.VERIFIED, Table.VERIFIED), 1):
        at = Address("10.0.0.1", number)
        entry = BookEntry(peer_of(number), b"", 0, (at,), "exchange", -1.0 * number, table=table)
        entry.address = at if table is not Table.HEARD else None
        book.load(entry)
    book.measured(peer_of(4), 0.25, 0.01, 10.0)
    book.note_anchors([peer_of(4)])
    core: Any = SimpleNamespace(
        overlay=SimpleNamespace(book=book, membership=SimpleNamespace(neighbours={}))
    )
    found = peers_of(core, 15.0)
    assert [(one.peer[0], one.state) for one in found] == [
        (4, "verified"),
        (3, "verified"),
        (2, "lost"),
        (1, "heard"),
    ]
    tested, other = found[:2]
    assert (tested.rtt_s, tested.jitter_s, tested.tested_s_ago) == (0.25, 0.01, 5.0)
    assert (other.rtt_s, other.jitter_s, other.tested_s_ago) == (None, None, None)
    assert (tested.seen_s_ago, other.seen_s_ago) == (5.0, 18.0)
    assert [one.is_anchor for one in found] == [True, False, False, False]
    assert found[3].address == "tcp://10.0.0.1:1"
    assert found[3].met == "exchange"
    assert found[3].seen_s_ago is None, "others told of it, and that is all"


@pytest.mark.parametrize(
    "trace",
    [
        {"met": "link"},
        {"rtt_s": 0.1},
        {"tested_at": -30.0},
        {"position": 1},
        {"address": Address("10.0.0.1", 1)},
        {"table": Table.LOST},
    ],
)
def test_who_was_ever_on_a_link_has_been_seen(trace: dict[str, Any]) -> None:
    book = AddressBook(peer_of(0), Config(), Random(0), 0.0)
    known = {"met": "walk", "last_seen": -5.0, **trace}
    book.load(BookEntry(peer_of(1), b"", 0, (Address("10.0.0.1", 1),), **known))
    core: Any = SimpleNamespace(
        overlay=SimpleNamespace(book=book, membership=SimpleNamespace(neighbours={}))
    )
    assert peers_of(core, 15.0)[0].seen_s_ago == 20.0
