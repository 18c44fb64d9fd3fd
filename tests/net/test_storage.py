"""What a node keeps of peers and broadcasts comes back as it was, by way of a real file."""

from __future__ import annotations

import asyncio
import threading
from contextlib import AbstractContextManager
from pathlib import Path
from random import Random

import msgspec
import pytest

from meshwalk.config import Config, HistoryConfig
from meshwalk.errors import StoreError
from meshwalk.identity.keys import sign_record
from meshwalk.net.storage import PRUNE_EVERY, NodeStorage
from meshwalk.net.surroundings import Surroundings
from meshwalk.proto.effects import ForgetPeer, KeepBroadcast
from meshwalk.proto.overlay.addressbook import AddressBook, BookEntry, Changes, Table
from meshwalk.sim.signatures import CheapSignatures
from meshwalk.store.database import Database
from meshwalk.wire.address import Address
from meshwalk.wire.peerid import PeerId
from meshwalk.wire.records import PeerRecord

ME = PeerId(bytes(32))
OFFSET_S = 1_700_000_000.0
LATER_S = 1_700_005_000.0


def peer_of(number: int) -> PeerId:
    return PeerId(bytes([number]) * 32)


def fail(error: str) -> None:
    raise AssertionError(error)


async def kept(folder: Path, changes: Changes, unix_offset_s: float) -> list[BookEntry]:
    """What the next run is given."""
    storage = await NodeStorage.open(folder, Config(), fail, Surroundings())
    for change in changes:
        storage.peer_changed(change)
    await storage.close()
    storage = await NodeStorage.open(folder, Config(), fail, Surroundings())
    await storage.close()
    return storage.known_peers(unix_offset_s)


def record_of(number: int) -> tuple[PeerRecord, bytes]:
    at = f"tcp://10.0.0.1:{number}"
    record = PeerRecord(bytes(peer_of(number)), int(OFFSET_S * 1e6), [at])
    return record, sign_record(record, CheapSignatures(peer_of(number)))


async def test_three_tables_outlive_a_restart(tmp_path: Path) -> None:
    book = AddressBook(ME, Config(), Random(0), OFFSET_S)
    changes: Changes = []
    for number in (1, 2, 3, 4, 5):
        at = Address("10.0.0.1", number)
        source = Address("10.0.0.99", 1)
        changes += book.heard(*record_of(number), (at,), "exchange", source, 50.0)
        if number != 5:
            changes += book.worked(peer_of(number), at, 0.5, 100.0)
    changes += book.connected(peer_of(1), 150.0)
    changes += book.measured(peer_of(1), 0.25, 0.01, 200.0)
    book.set_cursor(peer_of(1), 2**64 - 1)
    changes += book.note_anchors([peer_of(1)])
    for at_s in (300.0, 3900.0):
        changes += book.failed(peer_of(2), at_s)
    changes.append(ForgetPeer(peer_of(4)))

    found = await kept(tmp_path, changes, LATER_S)
    assert [(entry.peer[0], entry.table) for entry in found] == [
        (1, Table.VERIFIED),
        (3, Table.VERIFIED),
        (2, Table.LOST),
        (5, Table.HEARD),
    ]
    tested, _, lost, heard = found
    assert (tested.address, tested.is_anchor) == (Address("10.0.0.1", 1), True)
    assert (tested.rtt_s, tested.jitter_s) == (0.25, 0.01)
    assert (tested.tested_at, tested.last_seen) == (200.0 - 5000.0, 200.0 - 5000.0)
    assert (tested.position, tested.cursor) == (int((OFFSET_S + 150.0) * 1e6), 2**63 - 1)
    assert (lost.failures, lost.failing_since) == (2, 300.0 - 5000.0)
    assert (heard.heard_at, heard.source, heard.met) == (50.0 - 5000.0, "10.0.0.99", "exchange")
    assert (heard.address, heard.tested_at) == (None, float("-inf"))
    assert heard.blob == record_of(5)[1]


# Broadcasts.

NOW_S = 1_700_000_000.0
KEEPING = HistoryConfig()


class Calendar(Surroundings):
    """A real machine whose calendar a test can turn."""

    def __init__(self, unix_s: float = NOW_S) -> None:
        self.unix_s = unix_s

    def unix_clock(self) -> float:
        return self.unix_s


def broadcast(
    number: int, size: int = 10, *, sent_at_s: float = NOW_S, origin: int = 1
) -> KeepBroadcast:
    key, payload = bytes([origin]) * 32, number.to_bytes(8) + bytes(size - 8)
    return KeepBroadcast(key, 5, number, int(sent_at_s * 1000), payload, bytes(64), number)


async def opened(folder: Path | None, at: Surroundings, history: HistoryConfig) -> NodeStorage:
    return await NodeStorage.open(folder, Config(history=history), fail, at)


async def found_after(
    folder: Path | None,
    changes: list[KeepBroadcast],
    later_s: float = 0.0,
    history: HistoryConfig = KEEPING,
) -> list[KeepBroadcast]:
    """What a second run is given."""
    storage = await opened(folder, Calendar(), history)
    for change in changes:
        storage.broadcast_kept(change)
    await storage.close()
    assert storage.statistics().dropped == storage.statistics().failed == 0
    storage = await opened(folder, Calendar(NOW_S + later_s), history)
    try:
        return storage.kept_broadcasts()
    finally:
        assert storage.kept_broadcasts() == [], "given once"
        await storage.close()


async def test_broadcasts_outlive_a_restart(tmp_path: Path) -> None:
    changes = [broadcast(2), broadcast(1), broadcast(2**64 - 1, origin=2)]
    assert await found_after(tmp_path, [*changes, changes[0]]) == changes


async def test_too_old_ones_are_not_given_and_not_left_on_the_disk(tmp_path: Path) -> None:
    old, new = broadcast(1, sent_at_s=NOW_S - 3000), broadcast(2, sent_at_s=NOW_S - 1000)
    assert await found_after(tmp_path, [old, new], later_s=1000.0) == [new]
    database = Database.open(tmp_path)
    assert database.query("SELECT sequence FROM broadcasts") == [(2,)]
    database.close()


async def test_no_more_are_given_than_the_machines_keep(tmp_path: Path) -> None:
    changes = [broadcast(number, 100) for number in range(1, 11)]
    by_count = HistoryConfig(count_max=4)
    assert await found_after(tmp_path / "count", changes, history=by_count) == changes[-4:]
    by_bytes = HistoryConfig(bytes_max=1050)
    assert await found_after(tmp_path / "bytes", changes, history=by_bytes) == changes
    by_fewer = HistoryConfig(bytes_max=399)
    assert await found_after(tmp_path / "bytes", [], history=by_fewer) == changes[-3:]


async def test_the_disk_is_pruned_while_the_node_runs(tmp_path: Path) -> None:
    around = Calendar()
    storage = await opened(tmp_path, around, HistoryConfig(count_max=5, bytes_max=1 << 20))
    for number in range(1, PRUNE_EVERY + 1):
        storage.broadcast_kept(broadcast(number))
    await storage.close()
    database = Database.open(tmp_path)
    assert database.query("SELECT min(sequence), max(sequence) FROM broadcasts") == [(996, 1000)]
    database.close()


async def test_the_disk_is_pruned_by_bytes_and_by_time(tmp_path: Path) -> None:
    around = Calendar()
    storage = await opened(tmp_path, around, HistoryConfig(bytes_max=10_000))

    async def on_disk() -> list[int]:
        rows = await storage._persistence.call(Database.query, "SELECT sequence FROM broadcasts")
        return [row[0] for row in rows]

    for number in range(1, 41):
        storage.broadcast_kept(broadcast(number, 500))
        await storage._persistence.flush()
    assert len(await on_disk()) <= 25  # a quarter more than there is room for
    around.unix_s += 3500.0
    storage.broadcast_kept(broadcast(50, sent_at_s=around.unix_s))
    assert max(await on_disk()) == 50
    around.unix_s += 300.0
    storage.broadcast_kept(broadcast(51, sent_at_s=around.unix_s))
    assert await on_disk() == [50, 51]
    await storage.close()


async def test_more_bytes_than_are_kept_never_wait_for_the_disk(tmp_path: Path) -> None:
    storage = await opened(tmp_path, Calendar(), HistoryConfig(bytes_max=1000))
    is_free = threading.Event()
    busy = asyncio.create_task(storage._persistence.call(lambda _: is_free.wait(20)))
    await asyncio.sleep(0)
    for number in range(1, 8):
        storage.broadcast_kept(broadcast(number, 250))
    assert storage.statistics().dropped == 3
    is_free.set()
    await busy
    await storage._persistence.flush()
    storage.peer_changed(ForgetPeer(peer_of(1)))  # something waits, but no broadcast
    storage.broadcast_kept(broadcast(8, 250))
    assert storage.statistics().dropped == 3
    await storage.close()
    storage = await opened(tmp_path, Calendar(), KEEPING)
    found = [change.sequence for change in storage.kept_broadcasts()]
    assert found[-1] == 8
    assert not {5, 6, 7}.intersection(found)
    await storage.close()


async def test_writes_that_fail_leave_room_for_others(tmp_path: Path) -> None:
    errors: list[str] = []
    config = Config(history=HistoryConfig(bytes_max=1000))
    storage = await NodeStorage.open(tmp_path, config, errors.append, Calendar())
    bad = msgspec.structs.replace(broadcast(1, 400), signature=b"")
    for _ in range(10):
        storage.broadcast_kept(bad)
        storage.broadcast_kept(broadcast(2, 400))
        await storage._persistence.flush()
    assert storage.statistics().failed == 10
    assert storage.statistics().dropped == 0
    assert errors
    await storage.close()


async def test_writes_that_were_never_tried_leave_room_for_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = Config(history=HistoryConfig(bytes_max=1000))
    storage = await NodeStorage.open(tmp_path, config, lambda _: None, Calendar())

    def broken(_: Database) -> AbstractContextManager[None]:
        raise StoreError("the disk is gone")

    await storage._persistence.flush()
    with monkeypatch.context() as patch:
        patch.setattr(Database, "transaction", broken)
        storage.broadcast_kept(broadcast(1, 600))
        await storage._persistence.flush()
    assert storage.statistics().failed == 2, "the broadcast, and the pruning"
    is_free = threading.Event()
    busy = asyncio.create_task(storage._persistence.call(lambda _: is_free.wait(20)))
    await asyncio.sleep(0)
    storage.broadcast_kept(broadcast(2, 600))
    storage.broadcast_kept(broadcast(3, 300))
    assert storage.statistics().dropped == 0
    is_free.set()
    await busy
    await storage.close()


async def test_without_a_folder_no_broadcasts_are_kept() -> None:
    storage = await opened(None, Calendar(), KEEPING)
    storage.broadcast_kept(broadcast(1))
    await storage._persistence.flush()
    rows = await storage._persistence.call(Database.query, "SELECT * FROM broadcasts")
    assert rows == []
    assert storage.kept_broadcasts() == []
    await storage.close()
