"""Nodes that hold little, so that a few KiB fill what they allow."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from meshwalk.config import Config, ConversationConfig, PacingConfig, RequestConfig

FIRST_WINDOW = 4096  # a few parts of 1 KiB
FLOOR = 1024  # more than the least part, with what it costs


@contextmanager
def small_windows() -> Iterator[None]:
    """Windows of some KiB, as if `wire/frames.py` said so: its readers take them as they are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("meshwalk.config.messages.FIRST_WINDOW_BYTES", FIRST_WINDOW)
        patch.setattr("meshwalk.proto.dispatch.credit.FIRST_WINDOW_BYTES", FIRST_WINDOW)
        patch.setattr("meshwalk.proto.dispatch.sharedcredit.FLOOR_BYTES", FLOOR)
        patch.setattr("meshwalk.proto.dispatch.table.FLOOR_BYTES", FLOOR)
        yield


def small(**settings: int) -> Config:
    """A node that holds little. For use while there are `small_windows`."""
    return paced(PacingConfig(), **settings)


def paced(pacing: PacingConfig, **settings: int) -> Config:
    """The same, with rates."""
    least = {
        "per_peer_max": 64,
        "window_bytes_max": 16384,
        "shared_window_bytes": 16384,
        "part_bytes_max": 1024,
        "packet_bytes_max": 1024,
        "message_bytes_max": 1 << 20,
        "assembling_bytes_max": 4 << 20,
        "backlog_bytes": 2048,
    }
    return Config(
        conversations=ConversationConfig(**{**least, **settings}),
        requests=RequestConfig(pending_max=64, served_per_peer_max=16),
        pacing=pacing,
    )
