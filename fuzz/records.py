"""Any blob is a record or InvalidRecord, and only what was signed opens as a signed record.

Run: python fuzz/records.py --seconds 10 --seed 1
"""

from __future__ import annotations

import mutate

from meshwalk.errors import InvalidRecord
from meshwalk.identity.keys import KeyPair, NodeSignatures, open_record
from meshwalk.wire import records

VECTORS = mutate.vectors("records.json")
SIGNED = {
    bytes.fromhex(VECTORS[name]["payload"])
    for name in ("peer_record", "peer_record_of_a_later_version")
}
SAMPLES = [
    *(bytes.fromhex(VECTORS[name]["payload"]) for name in ("peer_record", "broadcast")),
    bytes.fromhex(VECTORS["peer_record"]["blob"]),
    bytes.fromhex(VECTORS["peer_record_of_a_later_version"]["blob"]),
    *mutate.inputs("malformed.json", "peer_record"),
]
SIGNATURES = NodeSignatures(
    KeyPair(bytes.fromhex(VECTORS["seed"])), bytes.fromhex(VECTORS["network_id"])
)
DECODERS = (
    records.decode_signed,
    records.decode_peer_record,
    records.decode_broadcast_payload,
)


def check(data: bytes) -> None:
    """The invariant."""
    for decode in DECODERS:
        try:
            found = decode(data)
        except InvalidRecord:
            continue
        assert decode(records.encode(found)) == found
    try:
        record = open_record(data, SIGNATURES)
    except InvalidRecord:
        return
    assert records.decode_signed(data).payload in SIGNED
    assert len(record.parsed_addresses()) <= len(record.addresses)


if __name__ == "__main__":
    mutate.main(check, SAMPLES)
