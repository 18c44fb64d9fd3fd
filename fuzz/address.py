"""Any text is an address, an invite or a PeerId that is written and read back alike, or invalid.

Run: python fuzz/address.py --seconds 10 --seed 1
"""

from __future__ import annotations

import mutate

from meshwalk.errors import InvalidAddress, InvalidInvite, InvalidPeerId
from meshwalk.identity.network import Network
from meshwalk.wire.address import ADDRESS_CHARACTERS_MAX, Address, Invite
from meshwalk.wire.peerid import PeerId

VECTORS = mutate.vectors("text.json")
TEXTS = [
    *(vector["text"] for kind in ("peer_ids", "addresses", "invites") for vector in VECTORS[kind]),
    *(text for kind, texts in VECTORS.items() if kind.startswith("refused") for text in texts),
]
SAMPLES = [text.encode() for text in TEXTS]


def check(data: bytes) -> None:
    """The invariant, for text with and without surrogates."""
    for errors in ("surrogateescape", "replace"):
        text = data.decode("utf-8", errors)
        check_address(text)
        check_invite(text)
        check_peer_id(text)


def check_address(text: str) -> None:
    try:
        address = Address.parse(text)
    except InvalidAddress as error:
        str(error).encode()
        return
    assert Address.parse(str(address), default_port=None) == address
    assert len(str(address)) <= ADDRESS_CHARACTERS_MAX
    assert address.host.isascii()
    assert address.host.isprintable()


def check_invite(text: str) -> None:
    try:
        invite = Invite.parse(text)
    except InvalidInvite as error:
        str(error).encode()
        return
    assert Invite.parse(str(invite)) == invite
    Network(invite.network)


def check_peer_id(text: str) -> None:
    try:
        peer = PeerId.parse(text)
    except InvalidPeerId as error:
        str(error).encode()
        return
    assert PeerId.parse(peer.text) == peer


if __name__ == "__main__":
    mutate.main(check, SAMPLES)
