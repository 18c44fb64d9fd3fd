"""Python values as bodies and back."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshwalk.errors import InvalidArgument, MalformedFrame
from meshwalk.wire.content import decode_body, encode_body
from meshwalk.wire.frames import ContentType

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


class Point(msgspec.Struct):
    x: int
    y: int


@given(plain)
def test_what_is_sent_arrives(value: Any) -> None:
    content, body = encode_body(value)
    assert decode_body(content, body) == value


@pytest.mark.parametrize(
    ("value", "content", "arrives"),
    [
        (b"x", ContentType.BYTES, b"x"),
        (bytearray(b"x"), ContentType.BYTES, b"x"),
        (memoryview(b"x"), ContentType.BYTES, b"x"),
        ("é", ContentType.TEXT, "é"),
        (Point(1, 2), ContentType.MESSAGEPACK, {"x": 1, "y": 2}),
        (1.5, ContentType.MESSAGEPACK, 1.5),
    ],
)
def test_content_types(value: Any, content: ContentType, arrives: Any) -> None:
    assert encode_body(value)[0] is content
    assert decode_body(*encode_body(value)) == arrives


@pytest.mark.parametrize("value", ["\ud800", 2**64, object(), {1, (2, object())}, lambda: None])
def test_what_cannot_travel_is_an_error_at_the_call(value: Any) -> None:
    with pytest.raises(InvalidArgument, match="cannot be sent"):
        encode_body(value)


def test_json_of_other_languages_is_read() -> None:
    assert decode_body(ContentType.JSON, b'{"a": [1, null]}') == {"a": [1, None]}


@given(st.sampled_from(ContentType), st.binary(max_size=200))
def test_any_bytes_give_a_value_or_malformed(content: ContentType, body: bytes) -> None:
    try:
        decode_body(content, body)
    except MalformedFrame:
        assert content is not ContentType.BYTES


@pytest.mark.parametrize("content", [ContentType.JSON, ContentType.MESSAGEPACK])
def test_deep_nesting_is_malformed(content: ContentType) -> None:
    deep = b"[" * 100_000 if content is ContentType.JSON else b"\x91" * 100_000
    with pytest.raises(MalformedFrame):
        decode_body(content, deep)
