"""Of which part of the world an address is: its scope, and its group. Pure functions of text.

Addresses of one group belong together, and so perhaps to one owner: what an attacker has many of
is addresses, not groups (Heilman et al., USENIX Security 2015). Hence the address book gives a
group only a few of its buckets, and a node gives it only a few of its links.
"""

from __future__ import annotations

import enum
import ipaddress
from functools import lru_cache
from typing import Final

from meshwalk.config import BookConfig
from meshwalk.wire.address import Address

HOSTS_REMEMBERED_MAX: Final = 8192  # guess: six full address books; 2 MB

_PRIVATE: Final = tuple(
    map(
        ipaddress.ip_network,
        (
            "10.0.0.0/8",  # RFC 1918
            "172.16.0.0/12",
            "192.168.0.0/16",
            "100.64.0.0/10",  # RFC 6598: behind a provider's NAT, and so the same within it only
            "fc00::/7",  # RFC 4193
        ),
    )
)


class Scope(enum.IntEnum):
    """How far an address means the same."""

    LOOPBACK = 0
    """Within one machine."""
    LINK = 1
    """Within one network segment."""
    PRIVATE = 2
    """Within one site, or one provider's NAT."""
    PUBLIC = 3
    """Everywhere. Names count as well: nobody announces a name that only its own site knows, but
    where one does, no harm comes of it but a failed dial."""


@lru_cache(HOSTS_REMEMBERED_MAX)
def scope_of(host: str) -> Scope:
    """How far an address with this host means the same."""
    ip = _ip_of(host)
    if ip is None:
        return Scope.PUBLIC
    if ip.is_loopback:
        return Scope.LOOPBACK
    if ip.is_link_local:
        return Scope.LINK
    # Not `is_private`, which counts documentation and benchmark addresses in, and differs between
    # versions of Python.
    return Scope.PRIVATE if any(ip in network for network in _PRIVATE) else Scope.PUBLIC


def may_be_told(address: Address, to_host: str) -> bool:
    """Whether an address means the same to a peer that we see at `to_host`, so that it may be told.

    An address goes to peers seen at its own scope or a narrower one: a public one to all, a private
    one to none that is public. The same rule, with the host of who tells, says what to believe.
    """
    return scope_of(address.host) >= scope_of(to_host)


def address_group(address: Address, config: BookConfig) -> str:
    """The name of the group of an address, for the buckets of the address book.

    Public addresses: the network of `group_bits_v4` or `group_bits_v6`. Private ones are each a
    group of its own unless `groups_private`. On loopback one host is everyone, so its ports count.
    A name is a group, whatever it resolves to.
    """
    host = address.host
    if scope_of(host) is Scope.LOOPBACK:
        return address.host_and_port
    return _group_of(host, config.group_bits_v4, config.group_bits_v6, config.groups_private)


def link_group(address: Address, config: BookConfig) -> str | None:
    """The group whose links are bounded; None for an address whose links need no such bound:
    loopback always, and private addresses unless `groups_private`."""
    scope = scope_of(address.host)
    if scope is Scope.LOOPBACK or (scope is not Scope.PUBLIC and not config.groups_private):
        return None
    return address_group(address, config)


@lru_cache(HOSTS_REMEMBERED_MAX)
def _group_of(host: str, bits_v4: int, bits_v6: int, groups_private: bool) -> str:
    ip = _ip_of(host)
    if ip is None or (scope_of(host) is not Scope.PUBLIC and not groups_private):
        return host
    bits = bits_v4 if ip.version == 4 else bits_v6
    return str(ipaddress.ip_network((ip.packed, bits), strict=False))


def _ip_of(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)  # takes 4 µs
    except ValueError:
        return None
