"""Python values as bodies, and back to declared types."""

from __future__ import annotations

import datetime
import enum
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypedDict, TypeVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshwalk.errors import InvalidArgument, MalformedFrame
from meshwalk.wire.content import (
    DECODERS_MAX,
    Json,
    _kept_decoder,
    decode_body,
    decoder_of,
    encode_body,
)
from meshwalk.wire.frames import ContentType

T = TypeVar("T")

BYTES, TEXT = ContentType.BYTES, ContentType.TEXT
JSON, MESSAGEPACK = ContentType.JSON, ContentType.MESSAGEPACK

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


class Point(msgspec.Struct):
    x: int
    y: int


class Tree(msgspec.Struct):
    name: str
    children: list[Tree] = []


class Box(msgspec.Struct, Generic[T], tag=1, array_like=True):
    item: T


class Square(msgspec.Struct, tag=2, array_like=True):
    side: int


class Strict(msgspec.Struct, forbid_unknown_fields=True):
    x: Annotated[int, msgspec.Meta(ge=0)] = 0


@dataclass
class Size:
    width: int

    def __post_init__(self) -> None:
        if self.width < 0:
            raise ValueError("a width is not negative\n\x1b[2J")


class Row(TypedDict):
    id: int


class Pair(NamedTuple):
    left: int
    right: str = ""


class Colour(enum.StrEnum):
    RED = "red"


class Level(enum.Enum):
    LOW = 1
    HIGH = 9


class Mixed(enum.Enum):
    """Neither text nor numbers, and then msgspec builds none."""

    LOW = "low"
    HIGH = 9


class Nobody:
    """A class that nothing says how to build."""


class HoldsNobody(msgspec.Struct):
    somebody: dict[str, list[Nobody | None]]


class Unfinished(msgspec.Struct):
    later: NeverWritten  # type: ignore[name-defined]  # noqa: F821


integers = st.integers(-(2**63), 2**64 - 1)
trees: st.SearchStrategy[Tree] = st.recursive(
    st.builds(Tree, st.text()),
    lambda inner: st.builds(Tree, st.text(), st.lists(inner, max_size=2)),
    max_leaves=5,
)
days = st.datetimes(timezones=st.just(datetime.UTC))
# Declared types, and values that a peer in Python sends for them.
TYPED: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (Any, plain),
    (object, plain),
    (bytes, st.binary()),
    (bytearray, st.binary().map(bytearray)),
    (str, st.text()),
    (str | None, st.none() | st.text()),
    (Annotated[bytes, msgspec.Meta(max_length=8)], st.binary(max_size=8)),
    (Literal["up", "down"], st.sampled_from(["up", "down"])),
    (Colour, st.sampled_from(Colour)),
    (Level, st.sampled_from(Level)),
    (int, integers),
    (bool, st.booleans()),
    (float, st.floats(allow_nan=False)),
    (None, st.none()),
    (int | str, integers | st.text()),
    (list[int], st.lists(integers)),
    (tuple[int, ...], st.lists(integers).map(tuple)),
    (set[str], st.sets(st.text())),
    (dict[str, bytes], st.dictionaries(st.text(), st.binary())),
    (dict[tuple[int, int], int], st.dictionaries(st.tuples(integers, integers), integers)),
    (Point, st.builds(Point, integers, integers)),
    (Tree, trees),
    (Box[int] | Square, st.builds(Box, integers) | st.builds(Square, integers)),
    (Strict, st.builds(Strict, st.integers(0, 2**64 - 1))),
    (Size, st.builds(Size, st.integers(0, 2**64 - 1))),
    (Row, st.fixed_dictionaries({"id": integers})),
    (Pair, st.builds(Pair, integers, st.text())),
    (datetime.datetime, days),
    (datetime.date, st.dates()),
    (uuid.UUID, st.uuids()),
    (Decimal, st.decimals(allow_nan=False)),
    (Annotated[list[int], ["cannot be hashed"]], st.lists(integers)),
]
# As these, but nothing in Python sends them for good.
HARSH: list[Any] = [
    set[Any],
    set[list[int]],
    dict[Any, Any],
    dict[frozenset[int], int],
    memoryview,
    msgspec.Raw,
    msgspec.msgpack.Ext,
    Annotated[str, msgspec.Meta(pattern="^a+$")],
    datetime.timedelta,
]
declared = st.sampled_from([*(kind for kind, _ in TYPED), *HARSH])
MUTATIONS = [b"\x00", b"\xff", b"[", b"{", b"\x91", b"\x80", b'"', b"\xc1", b"\xdd\xff\xff\xff\xff"]


@st.composite
def near_misses(draw: st.DrawFn) -> bytes:
    """Bytes of a value of some declared type, with a place or two made otherwise."""
    value = draw(draw(st.sampled_from([values for _, values in TYPED])))
    encode: Callable[[Any], bytes] = draw(
        st.sampled_from([msgspec.msgpack.encode, lambda v: encode_body(v)[1]])
    )
    try:
        body = draw(st.just(encode(value)) | st.just(msgspec.json.encode(value)))
    except TypeError:  # JSON has no keys that are pairs
        body = encode(value)
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(body)))
        body = body[:at] + draw(st.sampled_from(MUTATIONS)) + body[at + draw(st.integers(0, 2)) :]
    return body


# Without a declared type.


@given(plain)
def test_what_is_sent_arrives(value: Any) -> None:
    content, body = encode_body(value)
    assert decode_body(content, body) == value


@pytest.mark.parametrize(
    ("value", "content", "arrives"),
    [
        (b"x", BYTES, b"x"),
        (bytearray(b"x"), BYTES, b"x"),
        (memoryview(b"x"), BYTES, b"x"),
        ("é", TEXT, "é"),
        (Point(1, 2), MESSAGEPACK, {"x": 1, "y": 2}),
        (1.5, MESSAGEPACK, 1.5),
        (Json({"a": [1, None]}), JSON, {"a": [1, None]}),
        (Json("é"), JSON, "é"),
        (Json(Point(1, 2)), JSON, {"x": 1, "y": 2}),
        (Json(b"abc"), JSON, "YWJj"),
    ],
)
def test_content_types(value: Any, content: ContentType, arrives: Any) -> None:
    assert encode_body(value)[0] is content
    assert decode_body(*encode_body(value)) == arrives


@pytest.mark.parametrize(
    "value",
    [
        "\ud800",
        2**64,
        object(),
        {1, (2, object())},
        lambda: None,
        Json(object()),
        Json("\ud800"),
        Json({(1, 2): 3}),
        Json(Json(1)),
        [Json(1)],
    ],
)
def test_what_cannot_travel_is_an_error_at_the_call(value: Any) -> None:
    with pytest.raises(InvalidArgument, match="cannot be sent"):
        encode_body(value)


def test_json_is_for_people_too() -> None:
    assert encode_body(Json({"a": 1})) == (JSON, b'{"a":1}')
    assert repr(Json([1])) == "Json([1])"


@given(st.sampled_from(ContentType), st.binary(max_size=200))
def test_any_bytes_give_a_value_or_malformed(content: ContentType, body: bytes) -> None:
    try:
        decode_body(content, body)
    except MalformedFrame:
        assert content is not BYTES


# To a declared type.


@given(st.data())
def test_what_is_sent_arrives_as_declared(data: st.DataObject) -> None:
    kind, values = data.draw(st.sampled_from(TYPED))
    value = data.draw(values)
    arrived = decode_body(*encode_body(value), kind)
    assert arrived == value
    if kind is not Any and kind is not object:
        assert type(arrived) is type(value)


@given(st.data())
def test_what_is_sent_as_json_arrives_as_declared(data: st.DataObject) -> None:
    exact = [pair for pair in TYPED if pair[0] not in (Any, object, dict[tuple[int, int], int])]
    kind, values = data.draw(st.sampled_from(exact))
    value = data.draw(values)
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        value = 0.0  # JSON has no infinity
    arrived = decode_body(*encode_body(Json(value)), kind)
    assert arrived == value
    assert type(arrived) is type(value)


@given(st.sampled_from(ContentType), declared, st.binary(max_size=100) | near_misses())
def test_any_bytes_give_the_declared_type_or_malformed(
    content: ContentType, kind: Any, body: bytes
) -> None:
    try:
        decode_body(content, body, kind)
    except MalformedFrame as error:
        said = str(error)
        assert said.startswith("the body ")
        assert said.isprintable()
        assert len(said) < 200


@pytest.mark.parametrize("kind", [Any, list[Any], Tree, dict[str, Any], set[Any]])
@pytest.mark.parametrize("unit", [b"[", b"\x91", b'{"children":[', b"\x81\xa8children\x91"])
@pytest.mark.parametrize("content", [JSON, MESSAGEPACK])
def test_deep_nesting_is_malformed(content: ContentType, unit: bytes, kind: Any) -> None:
    with pytest.raises(MalformedFrame):
        decode_body(content, unit * 50_000, kind)


@pytest.mark.parametrize(
    ("value", "kind", "said"),
    [
        ({"x": 1, "y": "2"}, Point, "does not fit: Expected `int`, got `str` - at `$.y`"),
        ({"x": 1}, Point, "does not fit: Object missing required field `y`"),
        ([1, None], list[int], "does not fit: Expected `int`, got `None` - at `$[1]`"),
        ({"x": -1}, Strict, "does not fit: Expected `int` >= 0 - at `$.x`"),
        ({"width": -1}, Size, r"does not fit: a width is not negative \?\[2J"),
        ([{}], set[Any], "does not fit: unhashable type: 'dict'"),
        (b"x", str, "does not fit: Expected `str`, got `bytes`"),
        (b"x", Point, "does not fit: Expected `object`, got `bytes`"),
        (b"0123456789abcdef", uuid.UUID, "does not fit: Expected `UUID`, got `bytes`"),
        ("x", bytes, "does not fit: "),
        ("YWJj", bytes, "does not fit: Expected `bytes`, got `str`"),
        ("1", int, "does not fit: Expected `int`, got `str`"),
        ("2026-01-01", datetime.date, "does not fit: Expected `date`, got `str`"),
        ("sideways", Literal["up", "down"], "does not fit: Invalid enum value 'sideways'"),
        (b"123456789", Annotated[bytes, msgspec.Meta(max_length=8)], "does not fit: Expected"),
    ],
)
def test_what_does_not_fit_is_said_with_its_place(value: Any, kind: Any, said: str) -> None:
    with pytest.raises(MalformedFrame, match=said.replace("$", r"\$").replace("[1]", r"\[1\]")):
        decode_body(*encode_body(value), kind)


def test_what_a_stranger_wrote_is_quoted_in_part_and_with_its_place() -> None:
    body = msgspec.msgpack.encode([["x" * 1_000_000]])
    with pytest.raises(MalformedFrame, match=r"Invalid enum value 'xx.*x…x.*' - at `\$\[0\]\[0\]`"):
        decode_body(MESSAGEPACK, body, list[list[Colour]])


def test_bytes_of_another_content_type_are_said() -> None:
    for content, said in ((JSON, "no json"), (MESSAGEPACK, "no messagepack"), (TEXT, "no text")):
        for kind in (Any, str):
            with pytest.raises(MalformedFrame, match=said):
                decode_body(content, b"\xc1", kind)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Nobody, "make Nobody a dataclass"),
        (list[Nobody], "make Nobody a dataclass"),
        (HoldsNobody, "make Nobody a dataclass"),
        (Box[Nobody], "make Nobody a dataclass"),
        (Unfinished, "NeverWritten"),
        (Point | Strict, "tagged"),
        (Mixed, "all str or all int"),
        (5, "not supported"),
        ("Point", "not supported"),
        (Annotated[Nobody, ["cannot be hashed"]], "make Nobody a dataclass"),
    ],
)
def test_types_that_nothing_can_build_are_refused_when_declared(kind: Any, said: str) -> None:
    with pytest.raises(InvalidArgument, match=said) as refused:
        decoder_of(kind)
    assert "\n" not in str(refused.value)
    with pytest.raises(InvalidArgument, match=said):
        decode_body(BYTES, b"", kind)


def test_types_that_hold_themselves_are_fine() -> None:
    decoder_of(Tree)
    decoder_of(list[Any | None])


def test_decoders_are_kept_within_bounds() -> None:
    assert decoder_of(list[int]) == decoder_of(list[int])
    for number in range(DECODERS_MAX + 10):
        decoder_of(Literal[number])
    assert _kept_decoder.cache_info().currsize == DECODERS_MAX
    assert decode_body(MESSAGEPACK, b"\x91\x01", list[int]) == [1]
