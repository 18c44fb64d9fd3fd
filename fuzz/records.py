"""Any blob is a record or InvalidRecord, and only what was signed opens as a record or beacon.

Run: python fuzz/records.py --seconds 10 --seed 1
"""

from __future__ import annotations

import mutate

from meshwalk.errors import InvalidRecord
from meshwalk.identity.keys import KeyPair, NodeSignatures, open_beacon, open_record
from meshwalk.wire import records

VECTORS = mutate.vectors("records.json")
SIGNED = {
    bytes.fromhex(VECTORS[name]["payload"])
    for name in ("peer_record", "peer_record_of_a_later_version")
}
SIGNED_BEACON = bytes.fromhex(VECTORS["beacon"]["payload"])
SAMPLES = [
    *(
        bytes.fromhex(VECTORS[name]["payload"])
        for name in ("peer_record", "broadcast", "broadcast_bundle", "beacon")
    ),
    bytes.fromhex(VECTORS["peer_record"]["blob"]),
    bytes.fromhex(VECTORS["peer_record_of_a_later_version"]["blob"]),
    bytes.fromhex(VECTORS["beacon"]["blob"]),
    *mutate.inputs("malformed.json", "peer_record"),
    *mutate.inputs("malformed.json", "beacon"),
    *mutate.inputs("malformed.json", "broadcast_payload"),
]
SIGNATURES = NodeSignatures(
    KeyPair(bytes.fromhex(VECTORS["seed"])), bytes.fromhex(VECTORS["network_id"])
)
DECODERS = (
    records.decode_signed,
    records.decode_peer_record,
    records.decode_broadcast_payload,
    records.decode_broadcast_head,
    records.decode_beacon_payload,
)


def check(data: bytes) -> None:
    """The invariant."""
    for decode in DECODERS:
        try:
            found = decode(data)
        except InvalidRecord:
            continue
        assert decode(records.encode(found)) == found
        if isinstance(found, records.BroadcastPayload):
            head = records.decode_broadcast_head(data)
            named = (found.origin, found.epoch, found.sequence, found.sent_at_ms)
            assert (head.origin, head.epoch, head.sequence, head.sent_at_ms) == named
    try:
        open_beacon(data, SIGNATURES)
    except InvalidRecord:
        pass
    else:
        assert records.decode_signed(data).payload == SIGNED_BEACON
    try:
        record = open_record(data, SIGNATURES)
    except InvalidRecord:
        return
    assert records.decode_signed(data).payload in SIGNED
    assert len(record.parsed_addresses()) <= len(record.addresses)


if __name__ == "__main__":
    mutate.main(check, SAMPLES)
