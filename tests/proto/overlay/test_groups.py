"""Which addresses belong together, and who may be told of which."""

from __future__ import annotations

import pytest

from meshwalk.config import BookConfig
from meshwalk.proto.overlay.groups import Scope, address_group, link_group, may_be_told, scope_of
from meshwalk.wire.address import Address

CONFIG = BookConfig()
PRIVATE_TOO = BookConfig(groups_private=True)


@pytest.mark.parametrize(
    ("host", "scope"),
    [
        ("127.0.0.1", Scope.LOOPBACK),
        ("127.255.0.9", Scope.LOOPBACK),
        ("::1", Scope.LOOPBACK),
        ("169.254.3.4", Scope.LINK),
        ("fe80::1", Scope.LINK),
        ("fe80::1%eth0", Scope.LINK),
        ("10.255.255.255", Scope.PRIVATE),
        ("172.16.0.1", Scope.PRIVATE),
        ("172.32.0.1", Scope.PUBLIC),
        ("192.168.1.1", Scope.PRIVATE),
        ("100.64.0.1", Scope.PRIVATE),
        ("100.128.0.1", Scope.PUBLIC),
        ("fd12:3456::1", Scope.PRIVATE),
        ("2001:db8::1", Scope.PUBLIC),
        ("8.8.8.8", Scope.PUBLIC),
        ("198.51.100.7", Scope.PUBLIC),
        ("node.example.org", Scope.PUBLIC),
        ("localhost", Scope.PUBLIC),
        ("", Scope.PUBLIC),
    ],
)
def test_scopes(host: str, scope: Scope) -> None:
    assert scope_of(host) is scope


HOST_OF = {
    Scope.LOOPBACK: "127.0.0.1",
    Scope.LINK: "fe80::1",
    Scope.PRIVATE: "192.168.1.1",
    Scope.PUBLIC: "8.8.8.8",
}


@pytest.mark.parametrize("to", Scope)
@pytest.mark.parametrize("scope", Scope)
def test_an_address_is_told_where_it_means_the_same(scope: Scope, to: Scope) -> None:
    told = may_be_told(Address(HOST_OF[scope], 1), HOST_OF[to])
    assert told is (to <= scope)


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        (Address("8.8.1.1", 1), Address("8.8.200.2", 99), True),
        (Address("8.8.1.1", 1), Address("8.9.1.1", 1), False),
        (Address("2001:db8:1::1", 1), Address("2001:db8:ffff::2", 2), True),
        (Address("2001:db8::1", 1), Address("2001:db9::1", 1), False),
        (Address("a.example", 1), Address("a.example", 2), True),
        (Address("a.example", 1), Address("b.example", 1), False),
        (Address("192.168.1.1", 1), Address("192.168.1.1", 2), True),
        (Address("192.168.1.1", 1), Address("192.168.1.2", 1), False),
        (Address("fe80::1", 1), Address("fe80::2", 1), False),
        (Address("127.0.0.1", 1), Address("127.0.0.1", 2), False),
        (Address("::1", 1), Address("::1", 1), True),
    ],
)
def test_groups(one: Address, other: Address, is_same: bool) -> None:
    assert (address_group(one, CONFIG) == address_group(other, CONFIG)) is is_same


def test_groups_are_as_wide_as_configured() -> None:
    near, far = Address("8.8.1.1", 1), Address("8.8.1.200", 1)
    narrow = BookConfig(group_bits_v4=32, group_bits_v6=128)
    assert address_group(near, narrow) != address_group(far, narrow)
    wide = BookConfig(group_bits_v4=1, group_bits_v6=1)
    assert address_group(near, wide) == address_group(Address("100.128.0.1", 1), wide)
    # Not the same group, though the first 16 bits are.
    assert address_group(Address("32.1.1.1", 1), CONFIG) != address_group(
        Address("2001::1", 1), CONFIG
    )


def test_private_addresses_form_groups_only_if_told_to() -> None:
    one, other = Address("192.168.1.1", 1), Address("192.168.1.2", 1)
    assert address_group(one, PRIVATE_TOO) == address_group(other, PRIVATE_TOO)
    assert link_group(one, PRIVATE_TOO) == address_group(one, PRIVATE_TOO)
    assert link_group(one, CONFIG) is None
    assert link_group(Address("fe80::1", 1), CONFIG) is None
    assert link_group(Address("127.0.0.1", 1), PRIVATE_TOO) is None
    for host in ("8.8.8.8", "2001:db8::1", "a.example"):
        assert link_group(Address(host, 1), CONFIG) == address_group(Address(host, 1), CONFIG)
