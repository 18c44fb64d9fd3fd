"""The address book on disk."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from meshwalk.errors import StoreError
from meshwalk.store.database import Database
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


def test_a_peer_comes_back_as_it_was(database: Database) -> None:
    known = [peer(1, verified=True), msgspec.structs.replace(peer(2), rtt_s=None, record=b"")]
    for one in known:
        save_peer(database, one)
    assert load_peers(database, 10) == known
    assert type(load_peers(database, 1)[0].peer) is PeerId
    assert load_peers(database, 1)[0].verified is True


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
    )
    save_peer(database, later)
    assert load_peers(database, 10) == [msgspec.structs.replace(later, met="walk", first_seen=50.0)]


def test_saving_again_does_not_wipe_out_what_was_known(database: Database) -> None:
    save_peer(database, peer(1, verified=True))
    save_peer(
        database,
        msgspec.structs.replace(peer(1), record=b"", address="", rtt_s=None, failures=1),
    )
    assert load_peers(database, 10) == [msgspec.structs.replace(peer(1), failures=1)]


def test_first_seen_is_last_seen_unless_given(database: Database) -> None:
    save_peer(database, msgspec.structs.replace(peer(1), first_seen=0.0))
    assert load_peers(database, 1)[0].first_seen == 100.0


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
    with pytest.raises(StoreError):
        save_peer(database, msgspec.structs.replace(peer(1), last_seen=float("nan")))
    for key in (b"short", "x" * 32, None):
        with pytest.raises(StoreError):
            database.execute(
                "INSERT INTO peers VALUES (?, x'', '', 0, 0.0, 0.0, 0, NULL, 'walk')", (key,)
            )
    assert load_peers(database, 10) == []
