"""What a node keeps of its peers comes back as it was, by way of a real file."""

from __future__ import annotations

from pathlib import Path
from random import Random

from meshwalk.config import Config
from meshwalk.identity.keys import sign_record
from meshwalk.net.storage import NodeStorage
from meshwalk.net.surroundings import Surroundings
from meshwalk.proto.effects import ForgetPeer
from meshwalk.proto.overlay.addressbook import AddressBook, BookEntry, Changes, Table
from meshwalk.sim.signatures import CheapSignatures
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
