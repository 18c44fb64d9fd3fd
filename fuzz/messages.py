"""Any body is a message that encodes to what decodes to it again, or MalformedFrame.

Run: python fuzz/messages.py --seconds 10 --seed 1
"""

from __future__ import annotations

import mutate

from meshwalk.errors import MalformedFrame
from meshwalk.wire import messages
from meshwalk.wire.content import decode_body
from meshwalk.wire.frames import ContentType

KINDS = ("overlay", "broadcast", "refusal")
DECODERS = (messages.decode_overlay, messages.decode_broadcast, messages.decode_refusal)

SAMPLES = [sample for kind in KINDS for sample in mutate.inputs("messages.json", kind)]
SAMPLES += [sample for kind in KINDS for sample in mutate.inputs("malformed.json", kind)]
SAMPLES += [b'{"a":[1,2.5,true,null,"\\u00e9"]}', b"\x82\xa1a\x01\xa1b\x92\xc0\xcb" + bytes(8)]


def check(data: bytes) -> None:
    """The invariant."""
    for decode in DECODERS:
        try:
            found = decode(data)
        except MalformedFrame:
            continue
        assert decode(messages.encode(found)) == found
    for content in ContentType:
        try:
            decode_body(content, data)
        except MalformedFrame:
            continue


if __name__ == "__main__":
    mutate.main(check, SAMPLES)
