"""Keys: Ed25519 as RFC 8032 has it, signatures bound to a purpose and a network, records."""

from __future__ import annotations

import pytest

from meshwalk.errors import InvalidArgument, InvalidRecord
from meshwalk.identity.keys import (
    KeyPair,
    NodeSignatures,
    is_weak,
    open_record,
    sign_record,
    verify,
)
from meshwalk.wire import records
from meshwalk.wire.records import Domain, Signed

# RFC 8032 section 7.1, TEST 3.
SEED = bytes.fromhex("c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7")
PUBLIC = bytes.fromhex("fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025")
SIGNATURE = bytes.fromhex(
    "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
    "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"
)


def signatures(seed: int, network_id: bytes = bytes(32)) -> NodeSignatures:
    return NodeSignatures(KeyPair(bytes([seed]) * 32), network_id)


def test_the_vector_of_the_standard() -> None:
    keys = KeyPair(SEED)
    assert keys.peer_id == PUBLIC
    assert keys.sign(b"\xaf\x82") == SIGNATURE
    assert verify(PUBLIC, SIGNATURE, b"\xaf\x82")


def test_each_new_key_is_another() -> None:
    assert len({KeyPair.generate().peer_id for _ in range(10)}) == 10


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_a_seed_has_32_bytes(size: int) -> None:
    with pytest.raises(InvalidArgument):
        KeyPair(bytes(size))


def test_what_was_not_signed_does_not_verify() -> None:
    keys = KeyPair(SEED)
    signature = keys.sign(b"data")
    assert not verify(keys.peer_id, signature, b"date")
    assert not verify(KeyPair(bytes(32)).peer_id, signature, b"data")
    for index in range(64):
        changed = bytearray(signature)
        changed[index] ^= 1
        assert not verify(keys.peer_id, bytes(changed), b"data")


@pytest.mark.parametrize("size", [0, 1, 31, 33, 63, 65])
def test_verify_never_raises_on_sizes(size: int) -> None:
    assert not verify(bytes(size), bytes(64), b"data")
    assert not verify(PUBLIC, bytes(size), b"data")


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("sign_bit", [0, 0x80])
def test_a_weak_key_signs_nothing(first: int, sign_bit: int) -> None:
    weak = bytes([first]) + bytes(30) + bytes([sign_bit])
    assert is_weak(weak)
    forged = bytes([1]) + bytes(63)  # R is the neutral point and S is 0
    assert not verify(weak, forged, b"anything")
    assert not is_weak(PUBLIC)


def test_a_signature_is_for_one_purpose_and_one_network() -> None:
    alice = signatures(1)
    domains = list(Domain)
    signature = alice.sign(domains[0], b"payload")
    assert alice.verify(domains[0], alice.peer_id, signature, b"payload")
    for other in domains[1:]:
        assert not alice.verify(other, alice.peer_id, signature, b"payload")
    elsewhere = signatures(1, b"\x01" * 32)
    assert not elsewhere.verify(domains[0], alice.peer_id, signature, b"payload")


def test_a_record_is_opened_by_whoever_gets_it() -> None:
    alice, bob = signatures(1), signatures(2)
    record = records.PeerRecord(
        peer=bytes(alice.peer_id), sequence=1, addresses=["tcp://192.0.2.1:5"]
    )
    assert open_record(sign_record(record, alice), bob) == record


def test_a_record_speaks_for_its_signer_only() -> None:
    alice, bob = signatures(1), signatures(2)
    record = records.PeerRecord(peer=bytes(alice.peer_id), sequence=1)
    with pytest.raises(InvalidRecord, match="signature"):
        open_record(sign_record(record, bob), bob)


def test_a_changed_record_is_refused() -> None:
    alice = signatures(1)
    blob = sign_record(records.PeerRecord(peer=bytes(alice.peer_id), sequence=1), alice)
    signed = records.decode_signed(blob)
    later = records.encode(records.PeerRecord(peer=bytes(alice.peer_id), sequence=2))
    with pytest.raises(InvalidRecord):
        open_record(records.encode(Signed(later, signed.signature)), alice)
    for size in range(len(blob)):
        with pytest.raises(InvalidRecord):
            open_record(blob[:size], alice)
