"""Settings that cannot work are errors when they are made."""

from __future__ import annotations

from typing import Any

import pytest

from meshwalk import Config, InvalidArgument
from meshwalk.config import (
    BookConfig,
    BroadcastConfig,
    ConnectionConfig,
    ConversationConfig,
    DetectionConfig,
    ExchangeConfig,
    HealingConfig,
    HistoryConfig,
    IntakeConfig,
    OverlayConfig,
    PacingConfig,
    ProbingConfig,
    ReachConfig,
    StemConfig,
    TradingConfig,
    TreeConfig,
    TrustConfig,
)
from meshwalk.wire.frames import STEM_HOPS_MAX

OVERLAY = [
    OverlayConfig,
    BookConfig,
    ExchangeConfig,
    ProbingConfig,
    DetectionConfig,
    TradingConfig,
    HealingConfig,
]

SPREADING = [TreeConfig, HistoryConfig, IntakeConfig, TrustConfig, StemConfig]


@pytest.mark.parametrize(
    "kind", [ConversationConfig, PacingConfig, ReachConfig, *OVERLAY, *SPREADING]
)
def test_nothing_is_negative_and_bounds_let_something_through(kind: Any) -> None:
    kind()
    for name in kind.__struct_fields__:
        if isinstance(getattr(kind(), name), bool):
            continue
        for value in (-1, float("nan"), *([0] if name.endswith("_max") else [])):
            with pytest.raises(InvalidArgument):
                kind(**{name: value})


@pytest.mark.parametrize(
    "wrong",
    [
        {"packet_bytes_max": 1 << 20},
        {"part_bytes_max": 1000},
        {"message_bytes_max": 60_000},
        {"assembling_bytes_max": 1 << 20},
        {"shared_window_bytes": 1 << 10},
    ],
)
def test_relations_between_settings_are_checked(wrong: dict[str, int]) -> None:
    with pytest.raises(InvalidArgument):
        ConversationConfig(**wrong)


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (OverlayConfig, {"links_min": 0}),
        (OverlayConfig, {"links_min": 9}),
        (OverlayConfig, {"links_per_group_max": 0}),
        (OverlayConfig, {"forced_hops": 10}),
        (OverlayConfig, {"find_hops": 65}),
        (BookConfig, {"source_buckets": 0}),
        (BookConfig, {"source_buckets": 65}),
        (BookConfig, {"group_buckets": 0}),
        (BookConfig, {"group_buckets": 33}),
        (BookConfig, {"anchors": 9}),
        (BookConfig, {"group_bits_v4": 0}),
        (BookConfig, {"group_bits_v4": 33}),
        (BookConfig, {"group_bits_v6": 129}),
        (BookConfig, {"renew_s": 86_400.0}),
        (BookConfig, {"purge_s": 604_800.0}),
        (ExchangeConfig, {"pause_s": 0.0}),
        (ProbingConfig, {"interval_s": 0.0}),
        (ProbingConfig, {"pings": 0}),
        (DetectionConfig, {"least_s": 0.0}),
        (TradingConfig, {"ratio": 1.0}),
        (TradingConfig, {"ratio": 0.0}),
        (TradingConfig, {"interval_s": 0.0}),
        (HealingConfig, {"beacon_timeout_s": 1.0}),
        (HealingConfig, {"beacon_interval_s": 0.0}),
        (HealingConfig, {"sketch": 2}),
        (HealingConfig, {"sketch": 33}),
        (HealingConfig, {"epoch_beacons": 0}),
    ],
)
def test_relations_between_settings_of_the_overlay(kind: Any, wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidArgument):
        kind(**wrong)


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (BroadcastConfig, {"body_bytes_max": 1 << 20}),
        (BroadcastConfig, {"bundle_bytes_max": 1 << 20}),
        (BroadcastConfig, {"remembered_s": 60.0}),
        (TreeConfig, {"better_ratio": 0.0}),
        (TreeConfig, {"better_ratio": 1.0}),
        (TreeConfig, {"fetch_wait_least_s": 2.0}),
        (TrustConfig, {"limit": 0.0}),
        (StemConfig, {"leave_chance": 0.0}),
        (StemConfig, {"leave_chance": 1.1}),
        (StemConfig, {"hops": STEM_HOPS_MAX + 1}),
    ],
)
def test_relations_between_settings_of_broadcasts(kind: Any, wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidArgument):
        kind(**wrong)


def test_what_is_kept_for_others_is_not_too_old_for_them() -> None:
    young = BroadcastConfig(age_max_s=60.0)
    with pytest.raises(InvalidArgument):
        Config(broadcast=young)
    Config(broadcast=young, history=HistoryConfig(age_s=60.0))


def test_places_for_healing_are_counted_among_the_connections() -> None:
    few = ConnectionConfig(half_open_max=10, total_max=20)
    with pytest.raises(InvalidArgument):
        Config(connections=few)
    Config(connections=few, overlay=OverlayConfig(healing_places=0))


def test_a_random_share_above_the_minimum_is_the_minimum() -> None:
    assert OverlayConfig(links_min=2).random_min == 2
    assert OverlayConfig().random_min == 3


def test_how_many_peers_a_book_holds() -> None:
    book = BookConfig(heard_buckets=8, heard_bucket_max=2, verified_bucket_max=1, lost_max=5)
    assert book.total_max == 8 * 2 + 32 * 1 + 5


def test_presets() -> None:
    assert not Config.local().pacing.is_on
    assert not Config.lan().pacing.is_on
    assert Config.internet().pacing.is_on
