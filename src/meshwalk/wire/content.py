"""Application bodies: Python values to (content type, bytes), and back to a type one declares.

bytes travel as they are, str as UTF-8 text, everything else that msgspec can encode (numbers,
lists, dicts, dataclasses, Structs, None) as MessagePack, or as JSON where `Json` asks for it.
A reader names a type and gets a value of that type or `MalformedFrame`, whatever was sent.
"""

from __future__ import annotations

import enum
from base64 import b64decode
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, TypeAlias, TypeVar, overload

import msgspec

from meshwalk.errors import InvalidArgument, MalformedFrame
from meshwalk.wire.frames import ContentType
from meshwalk.wire.peerid import PeerId

Decode: TypeAlias = Callable[[ContentType, bytes], Any]
"""Reads bodies of one declared type; raises `MalformedFrame`."""

DECODERS_MAX: Final = 256  # guess: more types than one program declares; the oldest are made anew
_REASON_CHARACTERS_MAX: Final = 160  # below the 200 that proto/link.py sends, with words of ours

_T = TypeVar("_T")

# Names of this module, since looking into the enum costs as much as the rest of the fast paths.
_BYTES: Final = ContentType.BYTES
_TEXT: Final = ContentType.TEXT
_JSON: Final = ContentType.JSON
_MESSAGEPACK: Final = ContentType.MESSAGEPACK


def _encode_other(value: Any) -> Any:
    """A PeerId within a body travels as its bytes: msgspec encodes no subclasses of bytes."""
    if isinstance(value, PeerId):
        return bytes(value)
    raise TypeError(f"nothing writes a {type(value).__name__}")


def _decode_other(kind: type, value: Any) -> Any:
    if kind is PeerId and isinstance(value, (bytes, str)):
        # Base64, where it came as JSON, which knows no bytes.
        return PeerId(value if isinstance(value, bytes) else b64decode(value, validate=True))
    raise TypeError(f"nothing reads a {kind.__name__}")


_write_msgpack: Final = msgspec.msgpack.Encoder(enc_hook=_encode_other).encode
_write_json: Final = msgspec.json.Encoder(enc_hook=_encode_other).encode
_read_msgpack: Final = msgspec.msgpack.Decoder().decode
_read_json: Final = msgspec.json.Decoder().decode

_UNSENDABLE: Final = (TypeError, ValueError, OverflowError, RecursionError)
# All that hostile bytes can cause. RecursionError: deep nesting. TypeError: a list within a set.
_UNREADABLE: Final = (msgspec.MsgspecError, TypeError, ValueError, RecursionError)
# What msgspec and the evaluation of a class's annotations raise for a type.
_UNDECLARABLE: Final = (
    TypeError,
    ValueError,
    NameError,
    AttributeError,
    SyntaxError,
    RecursionError,
)


class Json:
    """Has its value travel as JSON, which peers in other languages like to read.

        await node.send(peer, Json({"x": 1}))

    It is for a whole body, not for a part of one. JSON says less than MessagePack: bytes become
    base64 text, which only a reader that declares bytes turns back; NaN and infinity become null;
    keys become text.
    """

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __repr__(self) -> str:
        return f"Json({self.value!r})"


def encode_body(value: Any) -> tuple[ContentType, bytes]:
    """The content type and bytes of a value. Raises `InvalidArgument` for what cannot travel."""
    if type(value) is bytes:  # the usual case first: the checks below cost more than the encoding
        return _BYTES, value
    if isinstance(value, (bytes, bytearray, memoryview)):
        return _BYTES, bytes(value)
    try:
        if isinstance(value, str):
            return _TEXT, value.encode()
        if type(value) is Json:
            return _JSON, _write_json(value.value)
        return _MESSAGEPACK, _write_msgpack(value)
    except _UNSENDABLE as error:
        # UnicodeEncodeError, for a str with lone surrogates, is a ValueError.
        raise InvalidArgument(
            f"a {type(value).__name__} cannot be sent: {error}; send bytes, str or plain data"
        ) from error


@overload
def decode_body(content: ContentType, body: bytes) -> Any: ...
@overload
def decode_body(content: ContentType, body: bytes, type: type[_T]) -> _T: ...
@overload
def decode_body(content: ContentType, body: bytes, type: Any) -> Any: ...
def decode_body(content: ContentType, body: bytes, type: Any = Any) -> Any:
    """The value that was sent, as a value of `type`.

    `type` is anything that msgspec builds: Structs, dataclasses, TypedDicts, list[int], unions;
    a body of bytes fits bytes only, text fits str and enums only, and Any takes all as it comes.
    Raises `MalformedFrame` with one line that says where and what was expected, and
    `InvalidArgument` for a type that bodies cannot be decoded to.
    """
    if type is not Any:
        return decoder_of(type)(content, body)
    try:
        if content is _BYTES:
            return body
        if content is _MESSAGEPACK:
            return _read_msgpack(body)
        if content is _TEXT:
            return body.decode()
        return _read_json(body)
    except _UNREADABLE as error:
        raise _malformed(content, error) from None


def decoder_of(type: Any) -> Decode:
    """What decodes bodies to this type. Raises `InvalidArgument` when nothing can."""
    try:
        hash(type)
    except TypeError:  # Annotated with a list, say
        return _make_decoder(type)
    return _kept_decoder(type)


class _Typed:
    """Decodes bodies to one declared type."""

    __slots__ = ("_kind", "_read_json", "_read_msgpack")

    def __init__(self, kind: Any) -> None:
        self._kind = kind
        self._read_msgpack = msgspec.msgpack.Decoder(kind, dec_hook=_decode_other).decode
        self._read_json = msgspec.json.Decoder(kind, dec_hook=_decode_other).decode

    def decode(self, content: ContentType, body: bytes) -> Any:
        try:
            if content is _MESSAGEPACK:
                return self._read_msgpack(body)
            if content is _JSON:
                return self._read_json(body)
            if content is _BYTES:
                return body if self._kind is bytes else self._fit(body)
            text = body.decode()
            return text if self._kind is str else self._fit(text)
        except _UNREADABLE as error:
            raise _malformed(content, error) from None

    def _fit(self, value: bytes | str) -> Any:
        """The value if the type allows it, as in `str | None`, or the enum's member it names."""
        built = msgspec.convert(value, self._kind)
        kinds = (str, enum.Enum) if isinstance(value, str) else (bytes, bytearray, memoryview)
        if not isinstance(built, kinds):  # a date written as text, say: we do not guess
            got = type(value).__name__
            raise msgspec.ValidationError(f"Expected `{_name(self._kind)}`, got `{got}`")
        return built


def _make_decoder(kind: Any) -> Decode:
    if kind is Any or kind is object:
        return decode_body
    try:
        _check_parts(msgspec.inspect.type_info(kind))
        return _Typed(kind).decode
    except _UNDECLARABLE as error:
        raise InvalidArgument(
            f"bodies cannot be decoded to {_name(kind)}: {_line(str(error))}"
        ) from error


_kept_decoder: Final = lru_cache(DECODERS_MAX)(_make_decoder)


def _check_parts(info: msgspec.inspect.Type) -> None:
    """Raises `TypeError` for a part that msgspec would refuse only when a message comes."""
    rest: list[Any] = [info]
    seen: set[int] = set()  # a type may hold itself
    while rest:
        part = rest.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, msgspec.inspect.CustomType) and part.cls not in _OURS:
            raise TypeError(f"make {_name(part.cls)} a dataclass, a Struct or a TypedDict")
        if isinstance(part, tuple):
            rest.extend(part)
        elif isinstance(part, (msgspec.inspect.Type, msgspec.inspect.Field)):
            rest.extend(getattr(part, name) for name in part.__struct_fields__)


_OURS: Final = (object, PeerId)


def _malformed(content: ContentType, error: Exception) -> MalformedFrame:
    if isinstance(error, RecursionError):
        return MalformedFrame("the body is nested too deeply")
    if isinstance(error, (msgspec.ValidationError, TypeError)):
        return MalformedFrame(f"the body does not fit: {_line(str(error))}")
    return MalformedFrame(f"the body is no {content.name.lower()}: {_line(str(error))}")


def _line(text: str) -> str:
    """One line of bounded length; it may quote a stranger. The end is kept: it says where."""
    if len(text) > _REASON_CHARACTERS_MAX:
        half = _REASON_CHARACTERS_MAX // 2
        text = f"{text[: half - 1]}…{text[-half:]}"
    return "".join(c if c.isprintable() else " " if c.isspace() else "?" for c in text)


def _name(kind: Any) -> str:
    return _line(kind.__name__ if isinstance(kind, type) else str(kind))
