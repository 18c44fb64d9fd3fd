"""From what a store kept of a peer to an entry of the address book."""

from __future__ import annotations

from meshwalk.errors import InvalidAddress, InvalidRecord
from meshwalk.proto.effects import SavePeer
from meshwalk.proto.overlay.addressbook import BookEntry
from meshwalk.wire import records
from meshwalk.wire.address import Address


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
    return BookEntry(
        peer=saved.peer,
        blob=saved.record,
        sequence=sequence,
        addresses=addresses,
        met=saved.met,
        last_seen=saved.last_seen - unix_offset_s,
        verified=saved.verified,
        address=address,
        failures=saved.failures,
        rtt_s=saved.rtt_s,
    )
