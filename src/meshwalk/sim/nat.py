"""Network address translators (NATs) in front of simulated hosts, by the words of their RFCs.

A NAT gives each connection from within an external port (mapping: RFC 4787 section 4) and decides
which strangers may use that port to come in (filtering: section 5). Timeouts and hairpinning are
as RFC 5382 has them for TCP. Packets themselves are the caller's; this file keeps the table only.

The caller asks `outbound` for what leaves and `inbound` for what arrives, once for each frame or as
often as it likes: both refresh an entry. A connection whose `outbound` gives another port than it
gave at the dial has been forgotten by the NAT, and its peer would answer with a reset.
"""

from __future__ import annotations

from enum import Enum
from random import Random
from typing import Self

from meshwalk.errors import InvalidArgument

ESTABLISHED_TIMEOUT_S = 7440.0  # RFC 5382 REQ-5: not less than 2 hours 4 minutes
TRANSITORY_TIMEOUT_S = 240.0  # RFC 5382 REQ-5: not less than 4 minutes
ENTRIES_MAX = 4096  # guess: the connection table of a small home router
PORTS = range(1024, 65536)
"""External ports to give out: RFC 6335 section 6 keeps those below 1024 for the system."""


class Dependence(Enum):
    """What a mapping or a filter looks at: RFC 4787 sections 4.1 and 5."""

    ENDPOINT_INDEPENDENT = "endpoint-independent"
    ADDRESS_DEPENDENT = "address-dependent"
    ADDRESS_AND_PORT_DEPENDENT = "address-and-port-dependent"


class Nat:
    """One NAT with one external address and any number of internal hosts.

    The four classic kinds of RFC 3489 section 5 have constructors of their own. Every refusal is
    silent, as RFC 5382 REQ-4 wants it for the first six seconds: the dialler hears nothing.
    """

    def __init__(
        self,
        mapping: Dependence,
        filtering: Dependence,
        external_host: str,
        rng: Random,
        *,
        hairpins: bool = True,
        entries_max: int = ENTRIES_MAX,
        ports: range = PORTS,
        established_timeout_s: float = ESTABLISHED_TIMEOUT_S,
        transitory_timeout_s: float = TRANSITORY_TIMEOUT_S,
    ) -> None:
        """`hairpins`: whether internal hosts reach one another by the external address (RFC 4787
        REQ-9 and RFC 5382 REQ-8 demand it; many NATs fail). `entries_max` bounds the connections
        in the table; each needs at most one of `ports`, so there must be as many.
        Raises `InvalidArgument`.
        """
        if not 1 <= entries_max <= len(ports):
            raise InvalidArgument(f"a NAT with {len(ports)} ports has 1 to as many entries")
        if not (0 < ports[0] <= 65535 and 0 < ports[-1] <= 65535):
            raise InvalidArgument("the ports of a NAT are from 1 to 65535")
        if not (established_timeout_s > 0 and transitory_timeout_s > 0):
            raise InvalidArgument("the timeouts of a NAT must be above 0 seconds")
        self.mapping = mapping
        self.filtering = filtering
        self.external_host = external_host
        self.hairpins = hairpins
        self.entries_max = entries_max
        self.displaced = 0
        """Live connections forgotten because the table was full."""
        self.filtered = 0
        """Frames from outside that were dropped."""
        self._rng = rng
        self._ports = ports
        self._established_timeout_s = established_timeout_s
        self._transitory_timeout_s = transitory_timeout_s
        # By internal host and port, then remote host and port; the longest idle stands first.
        self._entries: dict[_EntryKey, _Entry] = {}
        self._mappings: dict[_MappingKey, _Mapping] = {}
        self._mappings_by_port: dict[int, _Mapping] = {}
        self._expires_first_at = float("inf")  # nothing in the table expires before

    @classmethod
    def full_cone(cls, external_host: str, rng: Random, *, hairpins: bool = True) -> Self:
        """One external port for each internal one, open to everybody once it is in use."""
        free = Dependence.ENDPOINT_INDEPENDENT
        return cls(free, free, external_host, rng, hairpins=hairpins)

    @classmethod
    def restricted_cone(cls, external_host: str, rng: Random, *, hairpins: bool = True) -> Self:
        """As a full cone, but open only to hosts that the internal port has dialled."""
        free, by_address = Dependence.ENDPOINT_INDEPENDENT, Dependence.ADDRESS_DEPENDENT
        return cls(free, by_address, external_host, rng, hairpins=hairpins)

    @classmethod
    def port_restricted_cone(
        cls, external_host: str, rng: Random, *, hairpins: bool = True
    ) -> Self:
        """As a full cone, but open only to the very ports that the internal port has dialled."""
        free, by_port = Dependence.ENDPOINT_INDEPENDENT, Dependence.ADDRESS_AND_PORT_DEPENDENT
        return cls(free, by_port, external_host, rng, hairpins=hairpins)

    @classmethod
    def symmetric(cls, external_host: str, rng: Random, *, hairpins: bool = True) -> Self:
        """Another external port for each remote host and port, open to that one alone."""
        by_port = Dependence.ADDRESS_AND_PORT_DEPENDENT
        return cls(by_port, by_port, external_host, rng, hairpins=hairpins)

    def outbound(
        self,
        internal_host: str,
        internal_port: int,
        remote_host: str,
        remote_port: int,
        now: float,
    ) -> tuple[str, int]:
        """Something leaves: the external host and port from which the remote sees it come.

        Makes the entry or refreshes it. In a full table the entry that was idle longest makes
        place. To a remote that is `external_host` itself, hand what comes back to `inbound`.
        """
        key = (internal_host, internal_port, remote_host, remote_port)
        entry = self._live_entry(key, now)
        if entry is None:
            entry = self._add(key, self._mapping_for(key, now), now)
        entry.has_sent = True
        self._refresh(key, entry, now)
        return self.external_host, entry.mapping.port

    def inbound(
        self, remote_host: str, remote_port: int, external_port: int, now: float
    ) -> tuple[str, int] | None:
        """Something arrives at an external port: the internal host and port that gets it.

        None when no mapping is there, the filter refuses, or it would be a hairpin and this NAT
        knows none: the frame is gone and nobody is told.
        """
        mapping = self._mappings_by_port.get(external_port)
        if mapping is None or (remote_host == self.external_host and not self.hairpins):
            self.filtered += 1
            return None
        key = (mapping.internal_host, mapping.internal_port, remote_host, remote_port)
        entry = self._live_entry(key, now)
        if entry is None or entry.mapping is not mapping:
            # The internal host could not tell two connections with one remote port apart.
            if entry is not None or not self._lets_in(mapping, remote_host, now):
                self.filtered += 1
                return None
            entry = self._add(key, mapping, now)
        entry.has_received = True
        self._refresh(key, entry, now)
        return mapping.internal_host, mapping.internal_port

    def closed(
        self,
        internal_host: str,
        internal_port: int,
        remote_host: str,
        remote_port: int,
        now: float,
    ) -> None:
        """That connection has ended: its entry is transitory again and goes in four minutes."""
        key = (internal_host, internal_port, remote_host, remote_port)
        entry = self._live_entry(key, now)
        if entry is not None:
            entry.has_received = False
            self._refresh(key, entry, now)

    def reboot(self) -> None:
        """The table is empty again, and every connection through it is dead."""
        self._entries.clear()
        self._mappings.clear()
        self._mappings_by_port.clear()
        self._expires_first_at = float("inf")

    def entry_count(self, now: float) -> int:
        """Connections that the table knows at this time."""
        self._expire(now)
        return len(self._entries)

    def mapping_count(self, now: float) -> int:
        """External ports in use at this time."""
        self._expire(now)
        return len(self._mappings_by_port)

    # The table.

    def _live_entry(self, key: _EntryKey, now: float) -> _Entry | None:
        entry = self._entries.get(key)
        if entry is not None and now >= entry.expires_at:
            self._remove(key, entry)
            return None
        return entry

    def _refresh(self, key: _EntryKey, entry: _Entry, now: float) -> None:
        # RFC 5382 section 5: established once both ends have spoken, transitory before that.
        if entry.has_sent and entry.has_received:
            entry.expires_at = now + self._established_timeout_s
        else:
            entry.expires_at = now + self._transitory_timeout_s
        if entry.expires_at < self._expires_first_at:
            self._expires_first_at = entry.expires_at
        self._entries[key] = self._entries.pop(key)  # to the end: it is the least idle now

    def _mapping_for(self, key: _EntryKey, now: float) -> _Mapping:
        """The mapping that this entry shares with others, or a new one."""
        internal_host, internal_port, remote_host, _ = key
        mapping_key: _MappingKey
        if self.mapping is Dependence.ENDPOINT_INDEPENDENT:
            mapping_key = (internal_host, internal_port)
        elif self.mapping is Dependence.ADDRESS_DEPENDENT:
            mapping_key = (internal_host, internal_port, remote_host)
        else:
            mapping_key = key
        mapping = self._mappings.get(mapping_key)
        if mapping is not None:
            self._drop_expired(mapping, now)
            mapping = self._mappings.get(mapping_key)
        if mapping is None:
            self._make_place(now)
            mapping = _Mapping(mapping_key, internal_host, internal_port, self._free_port())
            self._mappings[mapping_key] = self._mappings_by_port[mapping.port] = mapping
        return mapping

    def _lets_in(self, mapping: _Mapping, remote_host: str, now: float) -> bool:
        """Whether a remote that has no entry may open a connection to this mapping."""
        self._drop_expired(mapping, now)
        if not mapping.entries:
            return False  # it expired just now
        if self.filtering is Dependence.ENDPOINT_INDEPENDENT:
            return True
        if self.filtering is Dependence.ADDRESS_AND_PORT_DEPENDENT:
            return False  # an entry would have been there
        return any(
            key[2] == remote_host and entry.has_sent for key, entry in mapping.entries.items()
        )

    def _add(self, key: _EntryKey, mapping: _Mapping, now: float) -> _Entry:
        entry = _Entry(mapping)
        # Before place is made: the mapping must not vanish with the last of its other entries.
        mapping.entries[key] = entry
        self._make_place(now)
        self._entries[key] = entry
        return entry

    def _make_place(self, now: float) -> None:
        if len(self._entries) < self.entries_max:
            return
        self._expire(now)
        if len(self._entries) >= self.entries_max:
            longest_idle = next(iter(self._entries))
            self._remove(longest_idle, self._entries[longest_idle])
            self.displaced += 1

    def _free_port(self) -> int:
        # There is one: a mapping has an entry, and entries are no more than ports.
        at = self._rng.randrange(len(self._ports))
        while self._ports[at] in self._mappings_by_port:
            at = (at + 1) % len(self._ports)
        return self._ports[at]

    def _expire(self, now: float) -> None:
        if now < self._expires_first_at:
            return  # so that a table full of live entries is not searched for each new one
        for key, entry in list(self._entries.items()):
            if now >= entry.expires_at:
                self._remove(key, entry)
        expiries = (entry.expires_at for entry in self._entries.values())
        self._expires_first_at = min(expiries, default=float("inf"))

    def _drop_expired(self, mapping: _Mapping, now: float) -> None:
        if now >= self._expires_first_at:
            for key, entry in list(mapping.entries.items()):
                if now >= entry.expires_at:
                    self._remove(key, entry)

    def _remove(self, key: _EntryKey, entry: _Entry) -> None:
        del self._entries[key]
        mapping = entry.mapping
        del mapping.entries[key]
        if not mapping.entries:
            del self._mappings[mapping.key]
            del self._mappings_by_port[mapping.port]


_EntryKey = tuple[str, int, str, int]
_MappingKey = tuple[str, int] | tuple[str, int, str] | tuple[str, int, str, int]


class _Mapping:
    """An external port and whose it is; it lives as long as one of its entries."""

    __slots__ = ("entries", "internal_host", "internal_port", "key", "port")

    def __init__(self, key: _MappingKey, internal_host: str, internal_port: int, port: int) -> None:
        self.key = key
        self.internal_host = internal_host
        self.internal_port = internal_port
        self.port = port
        self.entries: dict[_EntryKey, _Entry] = {}


class _Entry:
    """One connection, or an attempt at one."""

    __slots__ = ("expires_at", "has_received", "has_sent", "mapping")

    def __init__(self, mapping: _Mapping) -> None:
        self.mapping = mapping
        self.expires_at = float("inf")
        self.has_sent = False
        self.has_received = False
