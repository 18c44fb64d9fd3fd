"""Any body is a message that encodes to what decodes to it again, or MalformedFrame.

Run: python fuzz/messages.py --seconds 10 --seed 1
"""

from __future__ import annotations

import mutate

from meshwalk.errors import MalformedFrame
from meshwalk.wire import gossip, messages
from meshwalk.wire.content import decode_body
from meshwalk.wire.frames import ContentType

KINDS = ("overlay", "broadcast", "refusal")
CODECS = (
    (messages.decode_overlay, messages.encode),
    (gossip.decode_gossip, gossip.encode_gossip),
    (messages.decode_refusal, messages.encode),
)

SAMPLES = [sample for kind in KINDS for sample in mutate.inputs("messages.json", kind)]
SAMPLES += [sample for kind in KINDS for sample in mutate.inputs("malformed.json", kind)]
SAMPLES += [b'{"a":[1,2.5,true,null,"\\u00e9"]}', b"\x82\xa1a\x01\xa1b\x92\xc0\xcb" + bytes(8)]


def check(data: bytes) -> None:
    """The invariant."""
    for decode, encode in CODECS:
        try:
            found = decode(data)
        except MalformedFrame:
            continue
        assert decode(encode(found)) == found
        check_ranges(found)
    for content in ContentType:
        try:
            decode_body(content, data)
        except MalformedFrame:
            continue


def check_ranges(found: object) -> None:
    if isinstance(found, gossip.Have):
        every = [held.ranges for held in found.held]
    else:
        every = [found.ranges] if isinstance(found, gossip.Want | gossip.Gone) else []
    for ranges in every:
        try:
            pairs = gossip.pairs_of(ranges)
        except MalformedFrame:
            continue
        flat = [end for pair in pairs for end in pair]
        assert flat == ranges == sorted(ranges)
        assert flat[0] > 0


if __name__ == "__main__":
    mutate.main(check, SAMPLES)
