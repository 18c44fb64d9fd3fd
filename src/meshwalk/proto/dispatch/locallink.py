"""The way from a node's own machines to each other: a link without a wire."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from meshwalk.config import LinkConfig
from meshwalk.proto.effects import Effect
from meshwalk.proto.link import OPEN, Link
from meshwalk.wire.address import Address
from meshwalk.wire.frames import Purpose
from meshwalk.wire.peerid import PeerId

LOCAL_ROOM: Final = 1 << 62  # more than any node says to itself in its life


def local_link(
    me: PeerId, config: LinkConfig, out: list[Effect], new_id: Callable[[], int]
) -> Link:
    """The way from a node's machines to each other: open from the start, with no pipe, and always
    room. Its number is 0, which no connection has."""
    link = Link(
        0,
        config,
        out,
        new_id,
        outbound=False,
        remote=Address("127.0.0.1", 0),
        now=0.0,
        purpose=Purpose.CONVERSATION,
        expected=me,
    )
    link.state, link.peer, link.room = OPEN, me, LOCAL_ROOM
    return link
