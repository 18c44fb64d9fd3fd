"""Where this node can be reached, as it tells others: its own signed record.

A node that listens on a named address announces that address. One that listens on every interface
announces its port at the local addresses its links are seen to use, and at hosts that at least two
peers say they see it at (one peer's word would let it send the network anywhere).
"""

from __future__ import annotations

from meshwalk.errors import InvalidAddress
from meshwalk.identity.keys import Signatures, sign_record
from meshwalk.wire.address import Address
from meshwalk.wire.peerid import PeerId
from meshwalk.wire.records import PeerRecord

HOSTS_MAX = 4  # guess: IPv4 and IPv6, inside and outside
WITNESSES_MAX = 64  # guess: peers whose word on our address is remembered
WITNESSES_NEEDED = 2  # one peer alone could lie; two neighbours from random walks rarely collude


class OwnRecord:
    """Keeps the blob that hellos and join requests carry."""

    def __init__(self, signatures: Signatures, unix_offset_s: float) -> None:
        self._signatures = signatures
        self.unix_offset_s = unix_offset_s
        self._listening: tuple[Address, ...] = ()
        self._local_hosts: dict[str, None] = {}
        self._witnesses: dict[PeerId, str] = {}
        self._sequence = 0
        self._addresses: tuple[Address, ...] | None = None
        self.blob = b""
        """The signed record; made anew when what it says changes."""

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Where others are told to dial; empty when nobody can."""
        return self._addresses or ()

    def listening(self, addresses: tuple[Address, ...], now: float) -> None:
        """The node accepts connections at these addresses (host may be unspecified)."""
        self._listening = addresses
        self._update(now)

    def connected_from(self, host: str, now: float) -> None:
        """A link uses this local host."""
        if host and host not in self._local_hosts and len(self._local_hosts) < HOSTS_MAX:
            self._local_hosts[host] = None
            self._update(now)

    def seen_at(self, peer: PeerId, text: str, now: float) -> None:
        """A peer says at which address it sees us; unreadable text is ignored."""
        try:
            seen = Address.parse(text, default_port=None)
        except InvalidAddress:
            return
        if seen.is_unspecified or seen.ip is None:
            return  # nobody sees a peer at a name
        host = seen.host
        if peer not in self._witnesses and len(self._witnesses) >= WITNESSES_MAX:
            del self._witnesses[next(iter(self._witnesses))]
        if self._witnesses.get(peer) != host:
            self._witnesses[peer] = host
            self._update(now)

    def _update(self, now: float) -> None:
        addresses = self._reachable_at()
        if addresses == self._addresses:
            return
        self._addresses = addresses
        # Larger than any earlier run's, as long as the clock is not set back between runs.
        self._sequence = max(self._sequence + 1, int((now + self.unix_offset_s) * 1e6))
        record = PeerRecord(
            bytes(self._signatures.peer_id), self._sequence, [str(a) for a in addresses]
        )
        self.blob = sign_record(record, self._signatures)

    def _reachable_at(self) -> tuple[Address, ...]:
        found: dict[Address, None] = {}
        words = list(self._witnesses.values())
        seen = [h for h in dict.fromkeys(words) if words.count(h) >= WITNESSES_NEEDED]
        for address in self._listening:
            if not address.is_unspecified:
                found[address] = None
                continue
            for host in [*self._local_hosts, *seen]:
                # An IPv4 wildcard does not hear IPv6; an IPv6 wildcard hears both.
                if ":" in host and ":" not in address.host:
                    continue
                found[Address(host, address.port)] = None
        return tuple(found)[:HOSTS_MAX]
