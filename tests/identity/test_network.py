"""The network key: one for a name and a secret, another for any other."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from meshwalk.errors import InvalidArgument
from meshwalk.identity.network import DEFAULT_NETWORK, SECRET_BYTES_MAX, Network


def by_hand(name: bytes, secret: bytes) -> bytes:
    """HKDF by RFC 5869 with HMAC alone: one block of output is enough for a seed."""
    pseudo_random_key = hmac.digest(b"meshwalk/1 network key", secret, hashlib.sha256)
    info = len(name).to_bytes(2, "big") + name
    seed = hmac.digest(pseudo_random_key, info + b"\x01", hashlib.sha256)
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


@pytest.mark.parametrize(
    ("name", "secret"),
    [(DEFAULT_NETWORK, b""), ("a", b"b"), ("наша сеть", b"\x00" * SECRET_BYTES_MAX)],
)
def test_the_key_is_derived_as_written_down(name: str, secret: bytes) -> None:
    assert Network(name, secret).network_id == by_hand(name.encode(), secret)


def test_names_and_secrets_do_not_run_into_each_other() -> None:
    networks = [
        Network("ab", b"c"),
        Network("a", b"bc"),
        Network("abc"),
        Network("ab", b"C"),
        Network("ab", b"c\x00"),
        Network("AB", b"c"),
    ]
    assert len({network.network_id for network in networks}) == len(networks)


def test_a_network_without_a_secret_is_open() -> None:
    assert Network().is_open
    assert Network().name == DEFAULT_NETWORK
    assert not Network("a", b"b").is_open


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 201, "\ud800", "é" * 101])
def test_what_cannot_be_a_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidArgument):
        Network(name)


def test_a_secret_has_a_limit() -> None:
    with pytest.raises(InvalidArgument, match="4096"):
        Network("a", bytes(SECRET_BYTES_MAX + 1))
