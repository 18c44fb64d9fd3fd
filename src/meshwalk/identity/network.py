"""A network's name and optional secret, and the key that both give.

From them HKDF (RFC 5869) derives an Ed25519 seed. Its key signs every member's leaf certificate
and is the only authority that members load, so that whoever does not know the secret fails in the
TLS handshake. With no secret the key is public knowledge: that is what an open network means.
"""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from meshwalk.errors import InvalidArgument
from meshwalk.wire.address import encode_network_name

DEFAULT_NETWORK = "meshwalk"
SECRET_BYTES_MAX = 4096  # guess: a passphrase or a key file, not a mistaken path to something big
_SALT = b"meshwalk/1 network key"


class Network:
    """A network that nodes can be members of: its name, and the key derived from name and secret.

    The derivation does not slow down guessing: a secret should have 80 bits or more of chance,
    for instance from `openssl rand -hex 16`. Raises `InvalidArgument` for a name that cannot be
    one, or a secret that is too long.
    """

    def __init__(self, name: str = DEFAULT_NETWORK, secret: bytes = b"") -> None:
        encoded = encode_network_name(name)
        if len(secret) > SECRET_BYTES_MAX:
            raise InvalidArgument(f"a network secret has at most {SECRET_BYTES_MAX} bytes")
        self.name = name
        self.is_open = not secret
        # The length before the name keeps (name, secret) pairs from running into each other.
        info = len(encoded).to_bytes(2, "big") + encoded
        seed = HKDF(algorithm=SHA256(), length=32, salt=_SALT, info=info).derive(secret)
        self.key = Ed25519PrivateKey.from_private_bytes(seed)
        self.network_id = self.key.public_key().public_bytes_raw()
        """32 bytes: the public half of the network key. Covered by every signature."""
