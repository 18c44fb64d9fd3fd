"""Application bodies: Python values to (content type, bytes) and back.

bytes travel as they are, str as UTF-8 text, everything else that msgspec can encode (numbers,
lists, dicts, dataclasses, Structs, None) as MessagePack. JSON is read, for other languages' peers.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from meshwalk.errors import InvalidArgument, MalformedFrame
from meshwalk.wire.frames import ContentType

_encoder: Final = msgspec.msgpack.Encoder()


def encode_body(value: Any) -> tuple[ContentType, bytes]:
    """The content type and bytes of a value. Raises `InvalidArgument` for what cannot travel."""
    if type(value) is bytes:  # the usual case first: the checks below cost more than the encoding
        return ContentType.BYTES, value
    if isinstance(value, (bytes, bytearray, memoryview)):
        return ContentType.BYTES, bytes(value)
    try:
        if isinstance(value, str):
            return ContentType.TEXT, value.encode()
        return ContentType.MESSAGEPACK, _encoder.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        # UnicodeEncodeError, for a str with lone surrogates, is a ValueError.
        raise InvalidArgument(
            f"a {type(value).__name__} cannot be sent: {error}; send bytes, str or plain data"
        ) from error


def decode_body(content: ContentType, body: bytes) -> Any:
    """The value that was sent. Raises `MalformedFrame` when the bytes are not of that type."""
    try:
        if content is ContentType.BYTES:
            return body
        if content is ContentType.TEXT:
            return body.decode()
        if content is ContentType.JSON:
            return msgspec.json.decode(body)
        return msgspec.msgpack.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise MalformedFrame(f"the body is no {content.name.lower()}: {error}") from None
