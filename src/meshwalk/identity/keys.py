"""Key pairs, signing and verifying: the only file that touches Ed25519 signatures (RFC 8032)."""

from __future__ import annotations

import os
from typing import Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from meshwalk.errors import InvalidArgument, InvalidRecord
from meshwalk.wire import records
from meshwalk.wire.peerid import PeerId
from meshwalk.wire.records import BeaconPayload, Domain, PeerRecord, Signed

SEED_BYTES = 32  # RFC 8032 section 5.1.5: the private key

# The points of small order, with the sign bit cleared; libsodium's ge25519_has_small_order has the
# same list. Under such a key anybody can make a signature that verifies.
_WEAK_KEYS = frozenset(
    bytes.fromhex(key)
    for key in (
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    )
)


class KeyPair:
    """A node's identity: an Ed25519 key pair whose public half is its PeerId.

    Raises `InvalidArgument` when the seed has not 32 bytes.
    """

    def __init__(self, seed: bytes) -> None:
        if len(seed) != SEED_BYTES:
            raise InvalidArgument(f"a private key has {SEED_BYTES} bytes, not {len(seed)}")
        self.private_key = Ed25519PrivateKey.from_private_bytes(seed)
        self.seed = seed
        self.peer_id = PeerId(self.private_key.public_key().public_bytes_raw())

    @classmethod
    def generate(cls) -> KeyPair:
        """A new key pair from the system's randomness."""
        return cls(os.urandom(SEED_BYTES))

    def sign(self, data: bytes) -> bytes:
        """The signature of `data`, 64 bytes. About 19 µs."""
        return self.private_key.sign(data)


def is_weak(peer: bytes) -> bool:
    """Whether `peer` is a key that proves nothing: anybody can sign as it. Refuse such a peer."""
    return not peer or peer[:-1] + bytes([peer[-1] & 0x7F]) in _WEAK_KEYS


def verify(peer: bytes, signature: bytes, data: bytes) -> bool:
    """Whether `signature` of `data` is by `peer`. About 58 µs; never raises on bad input."""
    if is_weak(peer):
        return False
    try:
        Ed25519PublicKey.from_public_bytes(peer).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True


class Signatures(Protocol):
    """What a protocol machine needs of keys, so that a simulation may use something cheaper."""

    peer_id: PeerId
    network_id: bytes

    def sign(self, domain: Domain, payload: bytes) -> bytes:
        """Sign as this node, in this network."""
        ...

    def verify(self, domain: Domain, peer: bytes, signature: bytes, payload: bytes) -> bool:
        """Whether `peer` signed this payload for this purpose in this network."""
        ...


class NodeSignatures:
    """The real `Signatures`: a key pair in a network."""

    def __init__(self, keys: KeyPair, network_id: bytes) -> None:
        self._keys = keys
        self.peer_id = keys.peer_id
        self.network_id = network_id

    def sign(self, domain: Domain, payload: bytes) -> bytes:
        """Sign as this node, in this network."""
        return self._keys.sign(records.bytes_to_sign(domain, self.network_id, payload))

    def verify(self, domain: Domain, peer: bytes, signature: bytes, payload: bytes) -> bool:
        """Whether `peer` signed this payload for this purpose in this network."""
        return verify(peer, signature, records.bytes_to_sign(domain, self.network_id, payload))


def sign_record(record: PeerRecord, signatures: Signatures) -> bytes:
    """A peer record as the blob that travels: payload and signature."""
    payload = records.encode(record)
    return records.encode(Signed(payload, signatures.sign(Domain.PEER_RECORD, payload)))


def open_record(blob: bytes, signatures: Signatures) -> PeerRecord:
    """Read a blob and check that the peer it speaks of signed it. Raises `InvalidRecord`."""
    signed = records.decode_signed(blob)
    record = records.decode_peer_record(signed.payload)
    if not signatures.verify(Domain.PEER_RECORD, record.peer, signed.signature, signed.payload):
        raise InvalidRecord("the record's signature is not by the peer it speaks of")
    return record


def sign_beacon(payload: BeaconPayload, signatures: Signatures) -> bytes:
    """A beacon as the blob that travels."""
    encoded = records.encode(payload)
    return records.encode(Signed(encoded, signatures.sign(Domain.BEACON, encoded)))


def open_beacon(blob: bytes, signatures: Signatures) -> BeaconPayload:
    """Read a blob and check that the leader it names signed it. Raises `InvalidRecord`."""
    signed = records.decode_signed(blob)
    payload = records.decode_beacon_payload(signed.payload)
    if not signatures.verify(Domain.BEACON, payload.leader, signed.signature, signed.payload):
        raise InvalidRecord("the beacon's signature is not by the leader it names")
    return payload
