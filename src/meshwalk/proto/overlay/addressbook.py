"""Peers that a node knows by address: heard of, or verified by an own link. No messages.

Bounded: at the limit the worst goes. That is, of the peers only heard of that have been here
longest, the one with the most failures and the longest silence; or else such a verified peer.
"""

from __future__ import annotations

from collections.abc import Container
from itertools import islice
from random import Random

import msgspec

from meshwalk.config import OverlayConfig
from meshwalk.identity.keys import Signatures, open_record
from meshwalk.proto.effects import ForgetPeer, SavePeer
from meshwalk.wire.address import Address
from meshwalk.wire.peerid import PeerId
from meshwalk.wire.records import PeerRecord, decode_peer_record, decode_signed, shared

WORST_OF = 32  # guess: enough to find one that has failed, few enough to cost nothing


class BookEntry(msgspec.Struct, gc=False):
    """What is known of one peer."""

    peer: PeerId
    blob: bytes
    """Its signed record as received; its signature holds."""
    sequence: int
    addresses: tuple[Address, ...]
    met: str
    """How we came to know it: "entry", "walk", "link", "acquaintance" or "store"."""
    last_seen: float
    """Machine time; for peers from the store this may lie before the start."""
    verified: bool = False
    """A link to it, dialled by us at `address`, has opened at some time."""
    address: Address | None = None
    """The address that worked last."""
    failures: int = 0
    """Failed dials since it last worked."""
    next_try_at: float = float("-inf")
    rtt_s: float | None = None
    tried_at: float = float("-inf")
    """When it was last dialled to join through it, in this run."""

    def to_try(self, limit: int) -> list[Address]:
        """Addresses to dial, the one that worked last first."""
        first = [self.address] if self.address is not None else []
        return list(dict.fromkeys([*first, *self.addresses]))[:limit]


class AddressBook:
    """The address book of one node."""

    def __init__(
        self, me: PeerId, config: OverlayConfig, rng: Random, unix_offset_s: float
    ) -> None:
        self.entries: dict[PeerId, BookEntry] = {}
        self._heard: dict[PeerId, None] = {}
        """Those that are not verified, in the order in which they were first heard of."""
        self.evicted = 0
        """Entries that made place for others."""
        self._me = me
        self._config = config
        self._rng = rng
        self.unix_offset_s = unix_offset_s

    def __len__(self) -> int:
        return len(self.entries)

    def load(self, entry: BookEntry) -> None:
        """Take over what the store kept."""
        if entry.peer != self._me and len(self.entries) < self._config.book_max:
            self._add(entry)

    def open(self, blob: bytes, signatures: Signatures) -> PeerRecord:
        """Read a signed record, as `open_record` does; raises `InvalidRecord`.

        A walk brings the same record again and again: one that the book has is not verified anew.
        """
        record = decode_peer_record(decode_signed(blob).payload)
        known = self.entries.get(record.peer_id)
        if known is not None and known.blob == blob:
            return record
        return open_record(blob, signatures)

    def heard(
        self,
        record: PeerRecord,
        blob: bytes,
        addresses: tuple[Address, ...],
        met: str,
        now: float,
    ) -> list[SavePeer | ForgetPeer]:
        """A record whose signature holds, and those of its addresses that we may believe."""
        peer = record.peer_id
        if peer == self._me:
            return []
        entry = self.entries.get(peer)
        if entry is None:
            if not addresses:
                return []
            made_room = self._make_room()
            entry = BookEntry(peer, shared(blob), record.sequence, addresses, met, now)
            self._add(entry)
            return [*made_room, self._saved(entry)]
        if record.sequence <= entry.sequence:
            return []
        entry.blob, entry.sequence = shared(blob), record.sequence
        if addresses:
            entry.addresses = addresses
        return [self._saved(entry)]

    def worked(
        self, peer: PeerId, address: Address | None, rtt_s: float | None, now: float
    ) -> list[SavePeer | ForgetPeer]:
        """A link to it opened, or closes in good order. `address`: what we dialled, if we did."""
        entry = self.entries.get(peer)
        if entry is None:
            if address is None or peer == self._me:
                return []
            made_room = self._make_room()
            entry = BookEntry(peer, b"", 0, (address,), "link", now)
            self._add(entry)
        else:
            made_room = []
        entry.last_seen = now
        if address is not None:
            entry.verified, entry.address = True, address
            self._heard.pop(peer, None)
        entry.failures = 0
        entry.next_try_at = float("-inf")
        if rtt_s is not None:
            entry.rtt_s = rtt_s
        return [*made_room, self._saved(entry)]

    def failed(self, peer: PeerId, now: float) -> list[SavePeer | ForgetPeer]:
        """None of its addresses answered: wait longer each time; forget who was only heard of."""
        entry = self.entries.get(peer)
        if entry is None:
            return []
        entry.failures += 1
        pause = min(
            self._config.retry_max_s, self._config.retry_min_s * 2.0 ** min(entry.failures, 16)
        )
        entry.next_try_at = now + pause * self._rng.uniform(0.5, 1.5)
        if not entry.verified and entry.failures >= self._config.book_failures_max:
            self._remove(peer)
            return [ForgetPeer(peer)]
        return [self._saved(entry)]

    def candidates(self, now: float) -> list[BookEntry]:
        """Whom to try now, best first: fewest failures, then longest not tried, then verified
        newest first, then heard. So everybody's turn comes, whoever answers to no avail."""
        ready = [e for e in self.entries.values() if e.next_try_at <= now and e.to_try(1)]
        ready.sort(key=lambda e: (e.failures, e.tried_at, not e.verified, -e.last_seen))
        return ready

    def tried(self, peer: PeerId, now: float) -> None:
        """It is dialled, or has been reached by an address that was not from here."""
        entry = self.entries.get(peer)
        if entry is not None:
            entry.tried_at = now

    def has_untried(self, now: float, without: Container[PeerId]) -> bool:
        """Whether somebody may be tried now who has not been, in this run, but for those named."""
        untried = float("-inf")
        return any(
            e.tried_at == untried and e.next_try_at <= now and e.peer not in without and e.to_try(1)
            for e in self.entries.values()
        )

    def next_try_at(self) -> float | None:
        """When the next entry that waits may be tried again."""
        return min((e.next_try_at for e in self.entries.values() if e.to_try(1)), default=None)

    def _make_room(self) -> list[SavePeer | ForgetPeer]:
        if len(self.entries) < self._config.book_max:
            return []
        # An entry node makes room for every newcomer, so it does not look at the whole book.
        heard = [self.entries[peer] for peer in islice(self._heard, WORST_OF)]
        worst = min(heard or self.entries.values(), key=lambda e: (-e.failures, e.last_seen))
        self._remove(worst.peer)
        self.evicted += 1
        return [ForgetPeer(worst.peer)]

    def _add(self, entry: BookEntry) -> None:
        self.entries[entry.peer] = entry
        if not entry.verified:
            self._heard[entry.peer] = None

    def _remove(self, peer: PeerId) -> None:
        del self.entries[peer]
        self._heard.pop(peer, None)

    def _saved(self, entry: BookEntry) -> SavePeer:
        return SavePeer(
            entry.peer,
            entry.blob,
            str(entry.address) if entry.address is not None else "",
            entry.verified,
            entry.last_seen + self.unix_offset_s,
            entry.failures,
            entry.rtt_s,
            entry.met,
        )
