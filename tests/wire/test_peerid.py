"""PeerIds as text."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshwalk.errors import InvalidPeerId
from meshwalk.wire.peerid import PeerId

from .strategies import key

ZERO = "a" * 52


@given(key)
def test_round_trip(raw: bytes) -> None:
    peer = PeerId(raw)
    assert len(peer.text) == 52
    assert PeerId.parse(peer.text) == raw
    assert PeerId.parse(f"  {peer.text.upper()}\r\n") == raw


@given(st.text(max_size=60) | st.text("aA27=\u0131\u017f\u212aß\u0130 ", min_size=50, max_size=54))
def test_any_text_is_a_peer_id_or_invalid(text: str) -> None:
    try:
        peer = PeerId.parse(text)
    except InvalidPeerId:
        return
    assert peer.text == text.strip().lower()


@pytest.mark.parametrize(
    "text",
    [
        "",
        ZERO[:-1],
        ZERO + "a",
        ZERO[:-1] + "b",  # the last four of 260 bits are not zero
        ZERO[:-1] + "1",
        ZERO[:-1] + "=",
        ZERO[:-4] + "====",
        "\u017f" + ZERO[1:],  # upper case S
        "\u0131" + ZERO[1:],  # upper case I
        "\u212a" + ZERO[1:],  # lower case k
        "٢" + ZERO[1:],
        "\ud800" + ZERO[1:],
        "\x00" + ZERO[1:],
        "\x1f" + ZERO,
        ZERO[:26] + " " + ZERO[27:],
    ],
)
def test_what_is_no_peer_id(text: str) -> None:
    with pytest.raises(InvalidPeerId):
        PeerId.parse(text)


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_peer_id_has_32_bytes(length: int) -> None:
    with pytest.raises(InvalidPeerId):
        PeerId(bytes(length))


def test_it_is_bytes() -> None:
    peer = PeerId(bytes(range(32)))
    assert peer == bytes(range(32))
    assert {peer: 1}[PeerId(bytes(range(32)))] == 1
    assert pickle.loads(pickle.dumps(peer)) == peer
    assert str(peer) == peer.text == "aaaqeayeaudaocajbifqydiob4ibceqtcqkrmfyydenbwha5dypq"
    assert peer.short == "aaaqeaye"
    assert repr(peer) == "PeerId(aaaqeaye…)"
