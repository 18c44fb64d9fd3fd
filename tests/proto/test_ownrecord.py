"""Which addresses a node tells others."""

from __future__ import annotations

from meshwalk.identity.keys import open_record
from meshwalk.proto.ownrecord import HOSTS_MAX, WITNESSES_MAX, OwnRecord
from meshwalk.sim.node import UNIX_START_S
from meshwalk.sim.signatures import CheapSignatures
from meshwalk.wire.address import Address
from meshwalk.wire.peerid import PeerId

SIGNATURES = CheapSignatures(PeerId(bytes(32)))


def peer(number: int) -> PeerId:
    return PeerId(number.to_bytes(32, "big"))


def everywhere() -> OwnRecord:
    own = OwnRecord(SIGNATURES, UNIX_START_S)
    own.listening((Address("0.0.0.0", 7),), 0.0)
    return own


def test_named_address_is_announced_as_it_is() -> None:
    own = OwnRecord(SIGNATURES, UNIX_START_S)
    own.listening((Address("10.0.0.1", 7),), 0.0)
    record = open_record(own.blob, SIGNATURES)
    assert record.addresses == ["tcp://10.0.0.1:7"]
    assert record.peer_id == SIGNATURES.peer_id


def test_changes_only_raise_the_sequence() -> None:
    own = everywhere()
    blobs, sequences = [own.blob], [open_record(own.blob, SIGNATURES).sequence]
    own.connected_from("10.0.0.1", 0.0)
    own.connected_from("10.0.0.1", 1.0)
    blobs.append(own.blob)
    sequences.append(open_record(own.blob, SIGNATURES).sequence)
    own.connected_from("10.0.0.1", 2.0)
    assert own.blob == blobs[-1]
    assert sequences[0] < sequences[1]


def addresses(own: OwnRecord) -> list[Address]:
    return list(own.addresses)


def test_two_witnesses_are_needed() -> None:
    own = everywhere()
    own.seen_at(peer(1), "tcp://192.0.2.1:999", 0.0)
    own.seen_at(peer(1), "tcp://192.0.2.1:998", 0.0)
    assert addresses(own) == []
    own.seen_at(peer(2), "tcp://192.0.2.1:5", 0.0)
    assert addresses(own) == [Address("192.0.2.1", 7)]


def test_names_nonsense_and_nowhere_are_not_believed() -> None:
    own = everywhere()
    for text in ("tcp://victim.example:80", "", "x" * 500, "tcp://0.0.0.0:1"):
        own.seen_at(peer(1), text, 0.0)
        own.seen_at(peer(2), text, 0.0)
    assert addresses(own) == []


def test_ipv4_wildcard_does_not_claim_ipv6() -> None:
    own = everywhere()
    own.connected_from("fd00::1", 0.0)
    assert addresses(own) == []


def test_tables_are_bounded() -> None:
    own = everywhere()
    for n in range(1000):
        own.seen_at(peer(n), f"tcp://10.1.{n // 250}.{n % 250}:1", 0.0)
        own.connected_from(f"10.2.{n // 250}.{n % 250}", 0.0)
    assert len(own._witnesses) == WITNESSES_MAX
    assert len(own.addresses) == HOSTS_MAX
