"""Counts of a running node, from all of its parts."""

from __future__ import annotations

import msgspec

from meshwalk.net.driver import Driver
from meshwalk.net.persistence import PersistenceStatistics
from meshwalk.net.storage import NodeStorage
from meshwalk.proto.statistics import NodeStatistics


class Statistics(msgspec.Struct, frozen=True):
    """Counts of a running node."""

    uptime_s: float
    node: NodeStatistics
    store: PersistenceStatistics
    messages_dropped: int
    """Messages and events that found a subscription full."""


def statistics_of(
    driver: Driver, storage: NodeStorage | None, started_at: float, messages_dropped: int
) -> Statistics:
    """Counts since the start of a node that runs."""
    assert storage is not None
    return Statistics(
        uptime_s=driver.clock() - started_at,
        node=driver.core.statistics(),
        store=storage.statistics(),
        messages_dropped=messages_dropped,
    )
