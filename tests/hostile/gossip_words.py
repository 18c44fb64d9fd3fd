"""Messages about broadcasts that are well formed, and hostile in what they say."""

from __future__ import annotations

from random import Random

from meshwalk.wire.frames import ContentType
from meshwalk.wire.gossip import (
    Broadcast,
    Gone,
    GossipMessage,
    Graft,
    Have,
    Held,
    HistoryWanted,
    HopSeen,
    Prune,
    Receipt,
    Stem,
    Want,
)
from meshwalk.wire.records import BroadcastMessage, BroadcastPayload, encode

MOST = 2**64 - 1


def gossip_body(rng: Random) -> GossipMessage:
    """One of each kind, with numbers that are small, huge, or out of order."""
    key = rng.choice([bytes(32), rng.randbytes(32)])
    number = rng.choice([0, 1, rng.getrandbits(20), 2**63, MOST])
    hops = rng.randrange(65)
    ranges = rng.choice(
        [[1, 1], [0, MOST], [5, 2], [1, 2, 2, 3], [1, 2, 3], sorted(rng.sample(range(9_999), 128))]
    )
    choices: list[GossipMessage] = [
        Broadcast(payload(rng), rng.randbytes(64), hops, number, number, number),
        Broadcast(rng.randbytes(rng.randrange(300)), rng.randbytes(64), hops),
        Have([Held(key, number, ranges, hops, number)] * rng.randrange(1, 9)),
        Want(key, number, ranges),
        Gone(key, number, ranges),
        Graft(rng.choice([b"", key])),
        Prune(rng.choice([b"", key])),
        HistoryWanted(number),
        Receipt(key, number, number, number, [HopSeen(key, key, hops, number, number, False)]),
        Stem(payload(rng), rng.randbytes(64), number, rng.choice([None, 0, 10])),
    ]
    return rng.choice(choices)


def payload(rng: Random) -> bytes:
    """Of a broadcast that nobody has signed."""
    number = rng.choice([0, 1, MOST])
    messages = [BroadcastMessage(b"x" * rng.randrange(99), ContentType.BYTES, "t")]
    return encode(BroadcastPayload(rng.randbytes(32), number, number, number, number, messages))
