"""Address books for tests, filled in few words. Peers are named by numbers."""

from __future__ import annotations

from random import Random
from typing import Any

from meshwalk.config import BookConfig, Config
from meshwalk.proto.effects import ForgetPeer
from meshwalk.proto.overlay.addressbook import AddressBook, BookEntry, Changes
from meshwalk.wire.address import Address
from meshwalk.wire.peerid import PeerId
from meshwalk.wire.records import PeerRecord

UNIX_START_S = 1_700_000_000.0
HERE = Address("10.0.0.1", 1)
DAY_S = 86_400.0


def peer_of(number: int) -> PeerId:
    return PeerId(number.to_bytes(32, "big"))


def home_of(number: int) -> Address:
    return Address(f"10.1.{number >> 8}.{number & 255}", 1)


def book(seed: int = 0, **settings: Any) -> AddressBook:
    config = Config(book=BookConfig(**settings))
    return AddressBook(peer_of(0), config, Random(seed), UNIX_START_S)


def heard(
    table: AddressBook,
    peer: int,
    now: float = 0.0,
    *,
    age_s: float = 0.0,
    at: Address | None = None,
    source: Address = HERE,
) -> Changes:
    """A record of the peer that was signed so long before now."""
    sequence = int((now - age_s + UNIX_START_S) * 1e6)
    address = at or home_of(peer)
    record = PeerRecord(bytes(peer_of(peer)), sequence, [str(address)])
    blob = f"{sequence} {address}".encode()
    return table.heard(record, blob, (address,), "walk", source, now)


def worked(table: AddressBook, peer: int, now: float = 0.0, at: Address | None = None) -> Changes:
    return table.worked(peer_of(peer), at or home_of(peer), None, now)


def entry_of(table: AddressBook, peer: int) -> BookEntry:
    return table.entries[peer_of(peer)]


def known(table: AddressBook) -> set[int]:
    return {int.from_bytes(peer, "big") for peer in table.entries}


def forgotten(changes: Changes) -> list[int]:
    return [int.from_bytes(c.peer, "big") for c in changes if isinstance(c, ForgetPeer)]


def lost(table: AddressBook, peer: int, now: float) -> Changes:
    """A peer that was verified fails for long enough, until now."""
    worked(table, peer, now - 7200.0)
    table.failed(peer_of(peer), now - 3600.0)
    return table.failed(peer_of(peer), now)
