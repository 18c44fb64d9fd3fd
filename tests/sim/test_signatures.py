"""Cheap signatures hold for what was signed, and for nothing else."""

from __future__ import annotations

import pytest

from meshwalk.identity.keys import Signatures
from meshwalk.sim.signatures import CheapSignatures
from meshwalk.wire.peerid import PeerId
from meshwalk.wire.records import Domain

ME, OTHER = PeerId(bytes(32)), PeerId(bytes([1]) * 32)


def test_whoever_has_the_same_network_can_check() -> None:
    mine: Signatures = CheapSignatures(ME)
    signature = mine.sign(Domain.BROADCAST, b"text")
    assert len(signature) == 64  # as Ed25519's, so that frames are as long as real ones
    assert mine.sign(Domain.BROADCAST, b"text") == signature
    assert CheapSignatures(OTHER).verify(Domain.BROADCAST, ME, signature, b"text")


@pytest.mark.parametrize(
    ("domain", "peer", "payload", "network"),
    [
        (Domain.PEER_RECORD, ME, b"text", bytes(32)),
        (Domain.BROADCAST, OTHER, b"text", bytes(32)),
        (Domain.BROADCAST, ME, b"texT", bytes(32)),
        (Domain.BROADCAST, ME, b"", bytes(32)),
        (Domain.BROADCAST, ME, b"text", bytes([1]) * 32),
    ],
    ids=["domain", "signer", "payload", "empty", "network"],
)
def test_nothing_else_is_covered(
    domain: Domain, peer: PeerId, payload: bytes, network: bytes
) -> None:
    signature = CheapSignatures(ME).sign(Domain.BROADCAST, b"text")
    assert not CheapSignatures(OTHER, network).verify(domain, peer, signature, payload)


def test_a_spoilt_signature_fails() -> None:
    signatures = CheapSignatures(ME)
    signature = bytearray(signatures.sign(Domain.BROADCAST, b"text"))
    signature[63] ^= 1
    assert not signatures.verify(Domain.BROADCAST, ME, bytes(signature), b"text")
    assert not signatures.verify(Domain.BROADCAST, ME, b"", b"text")
