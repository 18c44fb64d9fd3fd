"""PeerId: an Ed25519 public key used as a name. It is bytes, with a text form for people."""

from __future__ import annotations

import base64
import binascii
from typing import Self

from meshwalk.errors import InvalidPeerId

PEER_ID_BYTES = 32  # RFC 8032 section 5.1.5: an Ed25519 public key
PEER_ID_CHARACTERS = 52  # 32 bytes in base32 (RFC 4648 section 6) without padding
SHORT_CHARACTERS = 8  # 40 bits: enough to tell apart the peers on one screen, never to trust


class PeerId(bytes):
    """A peer's Ed25519 public key: 32 bytes, written as 52 lower-case base32 characters.

    Raises `InvalidPeerId` when built from anything but 32 bytes.
    """

    __slots__ = ()

    def __new__(cls, key: bytes) -> Self:
        if len(key) != PEER_ID_BYTES:
            raise InvalidPeerId(f"a PeerId has {PEER_ID_BYTES} bytes, not {len(key)}")
        return super().__new__(cls, key)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the 52-character form; upper case is accepted. Raises `InvalidPeerId`."""
        stripped = text.strip(" \t\r\n")
        if len(stripped) != PEER_ID_CHARACTERS:
            raise InvalidPeerId(
                f"a PeerId has {PEER_ID_CHARACTERS} characters, not {len(stripped)}"
            )
        try:
            key = base64.b32decode(stripped.upper() + "====")
        except (binascii.Error, ValueError) as error:
            raise InvalidPeerId("a PeerId has only the letters a-z and the digits 2-7") from error
        peer = cls(key)
        if peer.text != stripped.lower():
            # 52 characters hold 260 bits; the last four must be zero, or one key had many names.
            raise InvalidPeerId("this PeerId ends in a character that no key gives")
        return peer

    @property
    def text(self) -> str:
        """The whole PeerId in 52 lower-case base32 characters."""
        return base64.b32encode(self).decode().rstrip("=").lower()

    @property
    def short(self) -> str:
        """The first 8 characters: for screens only, since anyone can make a key that begins so."""
        return self.text[:SHORT_CHARACTERS]

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"PeerId({self.short}…)"
