"""The address book on disk."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from meshwalk.errors import StoreError
from meshwalk.store import schema
from meshwalk.store.database import FILE_NAME, Database
from meshwalk.store.peerbook import StoredPeer, forget_peer, load_peers, prune_peers, save_peer
from meshwalk.wire.peerid import PeerId


@pytest.fixture
def database() -> Iterator[Database]:
    database = Database.open(None)
    yield database
    database.close()


def peer(number: int, *, verified: bool = False, last_seen: float = 100.0) -> StoredPeer:
    return StoredPeer(
        peer=PeerId(bytes([number]) * 32),
        record=b"record",
        address=f"tcp://10.0.0.{number}:55555",
        verified=verified,
        last_seen=last_seen,
        failures=0,
        rtt_s=0.025,
        met="walk",
        first_seen=50.0,
    )


FULL = StoredPeer(
    peer=PeerId(bytes([7]) * 32),
    record=b"record",
    address="tcp://10.0.0.7:55555",
    verified=False,
    last_seen=100.0,
    failures=9,
    rtt_s=0.025,
    met="exchange",
    first_seen=50.0,
    source="8.8.0.0/16",
    heard_at=150.0,
    failing_since=60.0,
    tested_at=90.0,
    jitter_s=0.002,
    position=1_700_000_000_000_000,
    cursor=2**63 - 1,
    is_anchor=True,
    lost=True,
)


def test_a_peer_comes_back_as_it_was(database: Database) -> None:
    known = [FULL, peer(1, verified=True), msgspec.structs.replace(peer(2), rtt_s=None, record=b"")]
    for one in known:
        save_peer(database, one)
    assert load_peers(database, 10) == known
    assert type(load_peers(database, 1)[0].peer) is PeerId
    found = load_peers(database, 2)
    assert found[0].lost is found[0].is_anchor is found[1].verified is True
    assert found[0].verified is found[1].lost is False


def test_saving_again_updates_what_is_known_now(database: Database) -> None:
    save_peer(database, peer(1))
    later = StoredPeer(
        peer=peer(1).peer,
        record=b"newer",
        address="tcp://a:1",
        verified=True,
        last_seen=200.0,
        failures=3,
        rtt_s=0.5,
        met="store",
        source="9.9.0.0/16",
        heard_at=300.0,
        failing_since=250.0,
        tested_at=240.0,
        jitter_s=0.001,
        position=5,
        cursor=6,
        is_anchor=True,
    )
    save_peer(database, later)
    assert load_peers(database, 10) == [msgspec.structs.replace(later, met="walk", first_seen=50.0)]


def test_saving_again_does_not_wipe_out_what_was_known(database: Database) -> None:
    save_peer(database, FULL)
    unknown = msgspec.structs.replace(
        FULL, record=b"", rtt_s=None, source="", tested_at=None, jitter_s=None, failures=1
    )
    save_peer(database, unknown)
    assert load_peers(database, 10) == [msgspec.structs.replace(FULL, failures=1)]


def test_what_is_so_no_more_is_not_kept(database: Database) -> None:
    save_peer(database, FULL)
    now = msgspec.structs.replace(
        FULL, address="", failing_since=None, position=0, cursor=0, is_anchor=False, lost=False
    )
    save_peer(database, now)
    assert load_peers(database, 10) == [now]


@pytest.mark.parametrize("told", [2**63 - 1, 2**63, 2**64 - 1])
def test_a_stranger_may_choose_any_cursor(database: Database, told: int) -> None:
    for _ in range(2):
        save_peer(database, msgspec.structs.replace(FULL, cursor=told))
    assert load_peers(database, 1)[0].cursor == 2**63 - 1


def test_first_seen_is_last_seen_unless_given(database: Database) -> None:
    save_peer(database, msgspec.structs.replace(peer(1), first_seen=0.0))
    assert load_peers(database, 1)[0].first_seen == 100.0


def test_anchors_come_first_then_verified_then_lost_then_heard(database: Database) -> None:
    for one in (
        peer(1, last_seen=900.0),
        msgspec.structs.replace(peer(2, last_seen=100.0), lost=True),
        msgspec.structs.replace(peer(3, last_seen=50.0), verified=True),
        msgspec.structs.replace(peer(4, last_seen=10.0), is_anchor=True),
        msgspec.structs.replace(peer(5, last_seen=20.0), is_anchor=True, verified=True),
    ):
        save_peer(database, one)
    assert [one.peer[0] for one in load_peers(database, 10)] == [5, 4, 3, 2, 1]
    assert prune_peers(database, 4) == 1
    assert [one.peer[0] for one in load_peers(database, 10)] == [5, 4, 3, 2]


def test_the_verified_come_first_and_then_the_newest(database: Database) -> None:
    for one in (
        peer(1, last_seen=400.0),
        peer(2, verified=True, last_seen=100.0),
        peer(3, last_seen=300.0),
        peer(4, verified=True, last_seen=200.0),
    ):
        save_peer(database, one)
    assert [one.peer[0] for one in load_peers(database, 10)] == [4, 2, 1, 3]
    assert [one.peer[0] for one in load_peers(database, 3)] == [4, 2, 1]
    assert load_peers(database, 0) == load_peers(database, -1) == []
    assert prune_peers(database, 3) == 1
    assert [one.peer[0] for one in load_peers(database, 10)] == [4, 2, 1]
    assert prune_peers(database, 3) == 0
    assert prune_peers(database, -1) == 3


def test_a_peer_can_be_forgotten_twice(database: Database) -> None:
    save_peer(database, peer(1))
    save_peer(database, peer(2))
    forget_peer(database, peer(1).peer)
    forget_peer(database, peer(1).peer)
    assert [one.peer[0] for one in load_peers(database, 10)] == [2]


def test_what_is_no_peer_is_refused(database: Database) -> None:
    for name in ("last_seen", "heard_at"):
        with pytest.raises(StoreError):
            save_peer(database, msgspec.structs.replace(peer(1), **{name: float("nan")}))
    for key in (b"short", "x" * 32, None):
        with pytest.raises(StoreError):
            database.execute(
                "INSERT INTO peers"
                " (peer, record, address, verified, first_seen, last_seen, failures, met)"
                " VALUES (?, x'', '', 0, 0.0, 0.0, 0, 'walk')",
                (key,),
            )
    assert load_peers(database, 10) == []


def test_a_store_from_before_the_exchange_of_peers_keeps_its_peers(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / FILE_NAME)
    for statement in schema.MIGRATIONS[0]:
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
    connection.execute("PRAGMA user_version = 1")
    for number, verified, met in ((1, 0, "walk"), (2, 1, "acquaintance")):
        connection.execute(
            "INSERT INTO peers VALUES (?, x'01', 'tcp://a:1', ?, 50.0, 100.0, 3, 0.5, ?)",
            (bytes([number]) * 32, verified, met),
        )
    connection.commit()
    connection.close()
    for _ in range(2):
        database = Database.open(tmp_path)
        found = load_peers(database, 10)
        database.close()
        assert [(one.peer[0], one.verified) for one in found] == [(2, True), (1, False)]
        assert [one.met for one in found] == ["exchange", "walk"]
        for one in found:
            assert (one.first_seen, one.last_seen, one.heard_at) == (50.0, 100.0, 100.0)
            assert (one.failures, one.rtt_s, one.address) == (3, 0.5, "tcp://a:1")
            assert (one.source, one.position, one.cursor) == ("", 0, 0)
            assert (one.failing_since, one.tested_at, one.jitter_s) == (None, None, None)
            assert one.is_anchor is one.lost is False
