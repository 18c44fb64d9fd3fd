"""What the machines of one node's overlay have in common. Holds it; decides nothing."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from meshwalk.config import Config
from meshwalk.identity.keys import Signatures
from meshwalk.proto.link import Link
from meshwalk.proto.overlay.addressbook import AddressBook
from meshwalk.proto.overlay.effects import Connect, Disconnect, OverlayEffect, Say
from meshwalk.proto.overlay.groups import may_be_told
from meshwalk.proto.overlay.membership import Membership
from meshwalk.proto.timers import Timers
from meshwalk.wire.address import Address
from meshwalk.wire.frames import CloseReason, Purpose
from meshwalk.wire.messages import OverlayMessage
from meshwalk.wire.peerid import PeerId
from meshwalk.wire.records import PeerRecord, decode_peer_record, decode_signed

TOKEN_BITS = 96  # enough that nobody guesses a token in the seconds that it holds


class Shared:
    """One node's identity, settings, chance, tables, and the list that effects gather in."""

    __slots__ = (
        "_new_id",
        "book",
        "config",
        "me",
        "membership",
        "out",
        "own_record",
        "rng",
        "signatures",
        "timers",
    )

    def __init__(
        self,
        signatures: Signatures,
        config: Config,
        own_record: Callable[[Address], bytes],
        new_id: Callable[[], int],
        rng: Random,
        timers: Timers,
        unix_offset_s: float,
    ) -> None:
        self.me = signatures.peer_id
        self.config = config
        self.signatures = signatures
        self.own_record = own_record
        """This node's signed record, in the form that a peer at the given address is told."""
        self.rng = rng
        self.timers = timers
        self.out: list[OverlayEffect] = []
        self.membership = Membership(self.me, config, rng)
        self.book = AddressBook(self.me, config, rng, unix_offset_s)
        self.book.is_neighbour = self.membership.neighbours.__contains__
        self.book.is_linked = lambda: bool(self.membership.neighbours)
        self._new_id = new_id

    def say(self, link: Link, body: OverlayMessage, in_reply_to: int = 0) -> int:
        """Send a message over a link; the id that its answer will name."""
        id = self._new_id()
        self.out.append(Say(link.number, id, body, in_reply_to))
        return id

    def dial(
        self, address: Address, expected: PeerId | None, purpose: Purpose, token: bytes = b""
    ) -> int:
        """Have a link made; the number of the attempt, which its end or its opening will name."""
        attempt = self._new_id()
        self.out.append(Connect(attempt, address, expected, purpose, token))
        return attempt

    def disconnect(self, link: Link, reason: CloseReason, text: str = "") -> None:
        """Close a link for a reason that the peer is told."""
        self.out.append(Disconnect(link.number, reason, text))

    def believed(self, record: PeerRecord, link: Link) -> tuple[Address, ...]:
        """Those addresses of a record that count when the peer of this link tells of it: no private
        ones from a public peer, where they mean somebody else. By the word of whoever signed it:
        dial with `expected`."""
        host, limit = link.remote.host, self.config.overlay.addresses_per_peer_max
        return tuple(a for a in record.parsed_addresses() if may_be_told(a, host))[:limit]

    def may_tell(self, blob: bytes, link: Link) -> bool:
        """Whether the peer of this link may be told a record, whose signature has been checked: not
        one with private addresses if it is a public peer."""
        record = decode_peer_record(decode_signed(blob).payload)
        return all(may_be_told(address, link.remote.host) for address in record.parsed_addresses())

    def record_of(self, peer: PeerId, link: Link) -> bytes:
        """The newest record of the peer at the other end of a link; b"" when there is none."""
        entry = self.book.entries.get(peer)
        return entry.blob if entry is not None and entry.blob else link.record

    def new_token(self) -> bytes:
        """A token that nobody can guess."""
        return self.rng.getrandbits(TOKEN_BITS).to_bytes(TOKEN_BITS // 8, "big")
