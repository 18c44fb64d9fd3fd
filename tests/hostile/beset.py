"""One overlay with a hostile neighbour and a good one, and how to count what it does."""

from __future__ import annotations

from collections.abc import Sized

from meshwalk.config import Config
from meshwalk.identity.keys import sign_beacon
from meshwalk.sim.signatures import CheapSignatures
from meshwalk.wire.messages import FindPeer, PeerFound
from meshwalk.wire.records import BeaconPayload, Domain
from proto.overlay.bench import Bench, peer_of, says

LARGEST = 2**64 - 1
HOSTILE, GOOD = 1, 2  # neighbours
SOMEBODY = 5_000  # from here on, peers that nobody has met


class Counting(CheapSignatures):
    """Counts what it is asked to check: with real keys each costs some 60 µs."""

    checked = 0

    def verify(self, domain: Domain, peer: bytes, signature: bytes, payload: bytes) -> bool:
        self.checked += 1
        return super().verify(domain, peer, signature, payload)


class Victim(Bench):
    """Peer 0, with a hostile neighbour and a good one."""

    def __init__(self, links_max: int = 4, others: Config | None = None) -> None:
        super().__init__(links_min=1, links_max=links_max, others=others)
        self.overlay._shared.signatures = self.signatures = Counting(peer_of(0))
        self.overlay.start([], 0.0)
        self.hostile = self.neighbour(HOSTILE)
        self.good = self.neighbour(GOOD)
        self.signatures.checked = 0

    def serves_the_others(self, now: float) -> bool:
        """The good neighbour gets what it asks for."""
        effects = self.hear(self.good, FindPeer(bytes(peer_of(HOSTILE)), 3), now, id=77)
        effects += self.hear(self.good, FindPeer(bytes(peer_of(0)), 3), now, id=78)
        found = {s.in_reply_to: s.body for s in says(effects)}
        return all(isinstance(body := found[id], PeerFound) and body.record for id in (77, 78))

    def remembered(self) -> int:
        """How many things are kept because somebody said something, the address book apart."""
        overlay = self.overlay
        kept: list[Sized] = [
            overlay.membership.places,
            overlay.carrier.acceptances,
            overlay.carrier.splits,
            overlay.finding.carried,
            overlay.beacons._leaders,
            overlay.beacons._sketch,
            overlay.healing._promises,
            overlay.healing._answered,
            overlay.vouching._inquiries,
            overlay.vouching.attempts,
            overlay.trading._promised,
            overlay.parting._heirs,
            overlay.parting.attempts,
            overlay.walks.walks,
        ]
        return sum(map(len, kept))


def beacon_of(
    leader: int, counter: int, epoch: int = 1, *, signer: int | None = None, network: bytes = b""
) -> bytes:
    signatures = CheapSignatures(
        peer_of(leader if signer is None else signer), network or bytes(32)
    )
    return sign_beacon(BeaconPayload(bytes(peer_of(leader)), counter, epoch), signatures)
