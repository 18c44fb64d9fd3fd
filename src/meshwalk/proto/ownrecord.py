"""Where this node can be reached, as it tells others: its own signed record.

A node that listens on a named address announces that address. One that listens on every interface
announces its port at this machine's hosts, and at hosts that at least two peers say they see it at
(one peer's word would let it send the network anywhere).

A peer is told only addresses that mean the same to it (`may_be_told`), so the record has up to four
*forms*, each with some of the addresses of the next wider one. The widest is signed when something
changes, another when first wanted. The sequence of a form is the record's plus the number of its
addresses: whoever gets two forms, by whatever ways, ends with the wider one, and any form of a
newer record replaces both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

import msgspec

from meshwalk.config import BookConfig
from meshwalk.errors import InvalidAddress
from meshwalk.identity.keys import Signatures, sign_record
from meshwalk.proto.overlay.groups import may_be_told
from meshwalk.wire.address import Address
from meshwalk.wire.peerid import PeerId
from meshwalk.wire.records import PeerRecord

TIMER = "own record"
RENEWAL: Final = (TIMER, "renew")

ADDRESSES_MAX = 4  # guess: IPv4 and IPv6, inside and outside; as many as others try
SEEN_MAX = 2  # guess: of these, hosts that only others see us at: IPv4 and IPv6
HOSTS_MAX = 4  # guess: hosts of this machine that are kept; no more could be told
WITNESSES_MAX = 64  # guess: peers whose word on our address is remembered
WITNESSES_NEEDED = 2  # one peer alone could lie; two neighbours from random walks rarely collude


class _Word(msgspec.Struct, gc=False):
    """At which host a peer says it sees us."""

    host: str
    link: int | None
    """The link over which it said so; None when that has ended."""
    was_before_moving: bool = False
    """It was said before this machine's hosts changed: true only as long as the link lasts."""


class OwnRecord:
    """Keeps the blobs that hellos and join requests carry."""

    def __init__(self, signatures: Signatures, config: BookConfig, unix_offset_s: float) -> None:
        self._signatures = signatures
        self._config = config
        self.unix_offset_s = unix_offset_s
        self.version = 0
        """Grows when what is told changes or is signed anew: then neighbours want to hear it."""
        self._listening: tuple[Address, ...] = ()
        self._hosts: dict[str, None] = {}
        self._has_looked = False
        self._words: dict[PeerId, _Word] = {}
        self._sequence = 0
        self._addresses: tuple[Address, ...] | None = None
        self._forms: dict[tuple[Address, ...], bytes] = {}

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Where others are told to dial, at most; empty when nobody can."""
        return self._addresses or ()

    @property
    def hosts(self) -> tuple[str, ...]:
        """This machine's hosts, as far as they are known."""
        return tuple(self._hosts)

    @property
    def blob(self) -> bytes:
        """The widest form, with all addresses. For whoever is not yet known: use `blob_for`."""
        return self._form(self.addresses)

    def blob_for(self, remote: Address) -> bytes:
        """The form for a peer that is seen at `remote`."""
        host = remote.host
        return self._form(tuple(a for a in self.addresses if may_be_told(a, host)))

    def chosen(self, hosts: Iterable[str]) -> list[str]:
        """Of all hosts of this machine, the `HOSTS_MAX` to be kept: those that others could dial
        and be heard at come first, in the order given; what could never be told is left out."""
        found = [host for host in dict.fromkeys(hosts) if _means_the_same_to_others(host)]
        found.sort(key=lambda host: not self._is_heard_at(host))  # stable
        return found[:HOSTS_MAX]

    # Inputs.

    def listening(self, addresses: tuple[Address, ...], now: float) -> None:
        """The node accepts connections at these addresses (host may be unspecified)."""
        self._listening = addresses
        self._update(now)

    def hosts_are(self, hosts: Iterable[str], now: float) -> bool:
        """These are all hosts that this machine has now; others that were known have gone.

        Those that `chosen` gives are kept, known ones in their old order. Returns whether they are
        others than when this was called before.
        """
        found = dict.fromkeys(self.chosen(hosts))
        gone = self._hosts.keys() - found.keys()
        if not gone and len(found) == len(self._hosts):
            self._has_looked = True
            return False
        self._hosts = dict.fromkeys([*(host for host in self._hosts if host in found), *found])
        if gone:
            self._have_moved()
        self._update(now)
        is_first, self._has_looked = not self._has_looked, True
        return not is_first

    def connected_from(self, host: str, now: float) -> None:
        """A link uses this host of the machine."""
        if host not in self._hosts and host in (kept := self.chosen([*self._hosts, host])):
            self._hosts = dict.fromkeys([*(h for h in self._hosts if h in kept), host])
            self._update(now)

    def seen_at(self, peer: PeerId, link: int, remote: Address, text: str, now: float) -> None:
        """A peer at `remote` says at which address it sees us; what cannot be is ignored."""
        try:
            seen = Address.parse(text, default_port=None)
        except InvalidAddress:
            return
        # Nobody sees a peer at a name, and nobody far away sees it at a private address.
        if not _means_the_same_to_others(seen.host) or not may_be_told(seen, remote.host):
            return
        self._words.pop(peer, None)
        if len(self._words) >= WITNESSES_MAX:
            del self._words[self._least_word()]
        self._words[peer] = _Word(seen.host, link)
        self._update(now)

    def link_ended(self, peer: PeerId, link: int, now: float) -> None:
        """A link is gone; what its peer said over it counts for less from here on."""
        word = self._words.get(peer)
        if word is None or word.link != link:
            return
        word.link = None
        if word.was_before_moving:
            del self._words[peer]
            self._update(now)

    def renew(self, now: float) -> bool:
        """Sign the record anew if it has become old; whether it was.

        By the calendar, as its receivers judge it: machine time stands still in sleep.
        """
        if self._age_s(now) < self._config.renew_s:
            return False
        self._make_anew(now)
        return True

    def renewal_at(self, now: float) -> float:
        """When `renew` is due by machine time, if the machine does not sleep until then."""
        renew_s = self._config.renew_s
        return now + min(max(renew_s - self._age_s(now), 0.0), renew_s)

    # Steps.

    def _is_heard_at(self, host: str) -> bool:
        """Whether a listener on every interface hears there: one for IPv4 hears no IPv6, one for
        IPv6 hears both."""
        return any(
            address.is_unspecified and (":" in address.host or ":" not in host)
            for address in self._listening
        )

    def _age_s(self, now: float) -> float:
        return now + self.unix_offset_s - self._sequence / 1e6

    def _have_moved(self) -> None:
        """Words of the past are about another place."""
        self._words = {p: word for p, word in self._words.items() if word.link is not None}
        for word in self._words.values():
            word.was_before_moving = True

    def _least_word(self) -> PeerId:
        """The oldest of those whose links have ended; if there is none, the oldest."""
        past = (peer for peer, word in self._words.items() if word.link is None)
        return next(past, next(iter(self._words)))

    def _update(self, now: float) -> None:
        self._forget_contradicted()
        addresses = self._reachable_at()
        if addresses != self._addresses:
            self._addresses = addresses
            self._make_anew(now)

    def _make_anew(self, now: float) -> None:
        # Larger than any earlier run's, as long as the clock is not set back between runs; and
        # larger than any form of the record before.
        least = self._sequence + ADDRESSES_MAX + 1
        self._sequence = max(least, int((now + self.unix_offset_s) * 1e6))
        self.version += 1
        self._forms.clear()
        self._form(self.addresses)

    def _form(self, addresses: tuple[Address, ...]) -> bytes:
        blob = self._forms.get(addresses)
        if blob is None:
            sequence = self._sequence + len(addresses)
            texts = [str(address) for address in addresses]
            record = PeerRecord(bytes(self._signatures.peer_id), sequence, texts)
            blob = self._forms[addresses] = sign_record(record, self._signatures)
        return blob

    def _forget_contradicted(self) -> None:
        """Where enough linked peers see us elsewhere, words of those that have gone are too old.

        Until then they count: else a node whose dialled links have ended, while those that others
        dialled last, would tell the network that it has no address any more.
        """
        linked = Counter(word.host for word in self._words.values() if word.link is not None)
        certain = [host for host, count in linked.items() if count >= WITNESSES_NEEDED]
        self._words = {
            peer: word
            for peer, word in self._words.items()
            if word.link is not None
            or word.host in certain
            or not any(_are_of_one_kind(word.host, host) for host in certain)
        }

    def _reachable_at(self) -> tuple[Address, ...]:
        words = Counter(word.host for word in self._words.values())
        # Sorted: a witness more or less does not change the order, and so the record.
        seen = sorted(host for host, count in words.items() if count >= WITNESSES_NEEDED)
        seen = [h for h in seen if h not in self._hosts and self._is_heard_at(h)][:SEEN_MAX]
        # Filtered before they are cut: what cannot be told takes nobody's place.
        own = [host for host in self._hosts if self._is_heard_at(host)]
        hosts = [*own[: ADDRESSES_MAX - len(seen)], *seen]
        found: dict[Address, None] = {}
        for address in self._listening:
            if not address.is_unspecified:
                found[address] = None
                continue
            for host in hosts:
                if ":" in address.host or ":" not in host:
                    found[Address(host, address.port)] = None
        return tuple(found)[:ADDRESSES_MAX]


def _means_the_same_to_others(host: str) -> bool:
    """Whether it is an IP address that can be told at all."""
    ip = Address(host, 0).ip
    if ip is None or ip.is_unspecified or ip.is_multicast:
        return False
    # Such a one is dialled with the name of an interface of whoever dials (RFC 4007 section 6).
    return not (ip.version == 6 and ip.is_link_local)


def _are_of_one_kind(one: str, other: str) -> bool:
    """Whether a machine that was seen at one host may be at the other one instead, not as well."""
    if (":" in one) != (":" in other):
        return False
    return may_be_told(Address(one, 0), other) and may_be_told(Address(other, 0), one)
