"""From an entry of the address book to what a store keeps of a peer, and back."""

from __future__ import annotations

from meshwalk.errors import InvalidAddress, InvalidRecord
from meshwalk.proto.effects import SavePeer
from meshwalk.proto.overlay.bookentry import NEVER, BookEntry, Table
from meshwalk.wire import records
from meshwalk.wire.address import Address


def saved(entry: BookEntry, unix_offset_s: float) -> SavePeer:
    """What to keep of an entry; its times become Unix time."""
    since, tested_at = entry.failing_since, entry.tested_at
    return SavePeer(
        peer=entry.peer,
        record=entry.blob,
        address=str(entry.address) if entry.address is not None else "",
        verified=entry.table is Table.VERIFIED,
        last_seen=entry.last_seen + unix_offset_s,
        failures=entry.failures,
        rtt_s=entry.rtt_s,
        met=entry.met,
        source=entry.source,
        heard_at=entry.heard_at + unix_offset_s,
        failing_since=since + unix_offset_s if since is not None else None,
        tested_at=tested_at + unix_offset_s if tested_at != NEVER else None,
        jitter_s=entry.jitter_s,
        position=entry.position,
        cursor=entry.cursor,
        is_anchor=entry.is_anchor,
        lost=entry.table is Table.LOST,
    )


def restored(saved: SavePeer, unix_offset_s: float) -> BookEntry | None:
    """The entry of a peer as `SavePeer` had it kept; None when it says no address any more.

    Signatures are not checked here: `Overlay.start` does.
    """
    addresses: tuple[Address, ...] = ()
    sequence = 0
    if saved.record:
        try:
            record = records.decode_peer_record(records.decode_signed(saved.record).payload)
            addresses, sequence = record.parsed_addresses(), record.sequence
        except InvalidRecord:
            return None
    try:
        address = Address.parse(saved.address, default_port=None) if saved.address else None
    except InvalidAddress:
        address = None
    if address is None and not addresses:
        return None
    table = Table.LOST if saved.lost else Table.VERIFIED if saved.verified else Table.HEARD
    since, tested_at = saved.failing_since, saved.tested_at
    return BookEntry(
        peer=saved.peer,
        blob=saved.record,
        sequence=sequence,
        addresses=addresses,
        met=saved.met,
        last_seen=saved.last_seen - unix_offset_s,
        source=saved.source,
        heard_at=saved.heard_at - unix_offset_s,
        table=table,
        address=address,
        failures=saved.failures,
        failing_since=since - unix_offset_s if since is not None else None,
        tested_at=tested_at - unix_offset_s if tested_at is not None else NEVER,
        rtt_s=saved.rtt_s,
        jitter_s=saved.jitter_s,
        position=saved.position,
        cursor=saved.cursor,
        is_anchor=saved.is_anchor,
    )
