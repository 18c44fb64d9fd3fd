"""Signatures for simulated nodes: forty times cheaper than Ed25519, and anybody could forge them.

What the machines do with a signature is the same; nobody in a simulation forges one unless it is
told to, and then it makes one that fails. The real ones are tested with real nodes.
"""

from __future__ import annotations

import hashlib

from meshwalk.wire.peerid import PeerId
from meshwalk.wire.records import Domain


class CheapSignatures:
    """Implements `identity.keys.Signatures` with a hash of the claimed signer and the payload."""

    def __init__(self, peer_id: PeerId, network_id: bytes = bytes(32)) -> None:
        self.peer_id = peer_id
        self.network_id = network_id

    def sign(self, domain: Domain, payload: bytes) -> bytes:
        """A signature of 64 bytes."""
        return self._digest(domain, self.peer_id, payload)

    def verify(self, domain: Domain, peer: bytes, signature: bytes, payload: bytes) -> bool:
        """Whether `sign` of that peer would give this."""
        return signature == self._digest(domain, peer, payload)

    def _digest(self, domain: Domain, peer: bytes, payload: bytes) -> bytes:
        return hashlib.blake2b(domain.value + self.network_id + peer + payload).digest()
