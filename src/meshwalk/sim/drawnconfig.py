"""Draws the configuration of a plan: from all its ranges, so that every limit is met sometimes."""

from __future__ import annotations

from random import Random

from meshwalk.config import (
    BookConfig,
    BroadcastConfig,
    Config,
    ConnectionConfig,
    DetectionConfig,
    ExchangeConfig,
    HealingConfig,
    HistoryConfig,
    IntakeConfig,
    LinkConfig,
    OverlayConfig,
    ProbingConfig,
    RequestConfig,
    Spreading,
    TradingConfig,
    TreeConfig,
)


def draw_config(rng: Random) -> Config:
    """Any configuration that `config.py` accepts, near enough to what people may choose."""
    ping_s = rng.choice([1.0, 5.0, 5.0, 20.0])
    links_min = rng.choice([1, 2, 3, 5, 5, 5, 8])
    walk_hops = rng.choice([3, 6, 10, 10, 20])
    retry_min_s = rng.choice([0.1, 0.5, 0.5, 2.0])
    tree = _tree(rng)
    # Two may be asked for what is missing, in turn; then its order is kept.
    order_wait_s = tree.fetch_wait_most_s + 2 * tree.fetch_timeout_s + rng.choice([0.5, 2.0])
    remembered_s = rng.choice([60.0, 300.0, 300.0])
    return Config(
        link=LinkConfig(
            ping_interval_s=ping_s,
            idle_timeout_s=ping_s * rng.choice([2, 3, 3, 5]),
            hello_timeout_s=rng.choice([2.0, 5.0]),
            connect_timeout_s=rng.choice([2.0, 5.0]),
            temporary_timeout_s=rng.choice([10.0, 30.0]),
            close_timeout_s=rng.choice([0.5, 2.0]),
            stall_timeout_s=rng.choice([2.0, 10.0]),
            send_buffer_high_bytes=rng.choice([16 << 10, 256 << 10]),
        ),
        connections=ConnectionConfig(
            per_host_max=rng.choice([2, 8, 32]),
            dialling_max=rng.choice([2, 8, 32]),
            accepts_per_s=rng.choice([10.0, 100.0]),
            accepts_burst=rng.choice([20, 200]),
        ),
        overlay=_overlay(rng, links_min, walk_hops, retry_min_s),
        book=_book(rng),
        exchange=ExchangeConfig(
            log_max=rng.choice([4, 128]), pause_s=rng.choice([1.0, 10.0]), told_per_s=1.0
        ),
        probing=ProbingConfig(
            interval_s=rng.choice([2.0, 10.0, 30.0]),
            pings=rng.choice([1, 20]),
            probes_max=rng.choice([1, 2]),
        ),
        detection=DetectionConfig(
            least_s=rng.choice([0.5, 1.0, 1.0]),
            deviations=rng.choice([2.0, 4.0, 4.0]),
            vouchers=rng.choice([1, 2, 2, 4]),
            voucher_timeout_s=rng.choice([1.0, 3.0]),
        ),
        trading=TradingConfig(
            interval_s=rng.choice([5.0, 60.0]), stay_s=rng.choice([10.0, 120.0, 1200.0])
        ),
        healing=HealingConfig(
            beacon_interval_s=(beacon_s := rng.choice([2.0, 5.0, 15.0])),
            beacon_timeout_s=beacon_s * rng.choice([2.5, 3.5]),
            epoch_beacons=rng.choice([2, 8]),
            sketch=rng.choice([4, 32]),
            pause_s=rng.choice([5.0, 60.0]),
            walks=rng.choice([0, 2]),
        ),
        broadcast=_broadcast(rng, remembered_s, order_wait_s),
        tree=tree,
        history=HistoryConfig(
            # Of what nobody keeps some is missed: bursts are shorter.
            count_max=rng.choice([1024, 16_384]),
            age_s=remembered_s,
            asks_burst=rng.choice([3, 10]),
        ),
        intake=IntakeConfig(
            checks_per_turn=rng.choice([4, 64, 64]), turn_s=rng.choice([0.005, 0.01, 0.05])
        ),
        requests=RequestConfig(timeout_s=rng.choice([1.0, 10.0])),
    )


def _broadcast(rng: Random, remembered_s: float, order_wait_s: float) -> BroadcastConfig:
    return BroadcastConfig(
        remembered_s=remembered_s,
        age_max_s=remembered_s,
        order_wait_s=order_wait_s,
        # With 4, senders are forgotten and little can be demanded: one run of ten.
        origins_max=rng.choice([4, *[128] * 4, *[4096] * 5]),
        window=rng.choice([1024, 16_384]),
        gaps_max=rng.choice([1024, 65_536]),
        # The rest of them compare with it.
        spreading=rng.choice([Spreading.FLOOD, *[Spreading.TREE] * 7]),
        bundle_wait_s=rng.choice([0.0, 0.005, 0.005, 0.1]),
        bundle_bytes_max=rng.choice([200, 64 << 10, 64 << 10]),
    )


def _tree(rng: Random) -> TreeConfig:
    return TreeConfig(
        announce_every_s=rng.choice([0.02, 0.1, 0.1, 0.5]),
        fetch_wait_least_s=rng.choice([0.02, 0.1, 0.1]),
        fetch_wait_most_s=rng.choice([0.3, 1.0, 1.0]),
        fetch_timeout_s=rng.choice([0.5, 1.0, 1.0, 3.0]),
        fetch_numbers_max=rng.choice([16, 128, 128]),
        announcers_max=rng.choice([1, 4, 4, 8]),
        own_trees_max=rng.choice([1, 4, 256]),
        own_tree_after=rng.choice([1, 3, 3]),
        graft_above=rng.choice([0.2, 0.4, 0.4, 0.8]),
        history_asks=rng.choice([1, 2, 2, 4]),
    )


def _overlay(rng: Random, links_min: int, walk_hops: int, retry_min_s: float) -> OverlayConfig:
    return OverlayConfig(
        links_min=links_min,
        links_max=links_min + rng.choice([2, 3, 5, 5, 10]),
        walk_hops=walk_hops,
        forced_hops=rng.randrange(min(walk_hops, 5)),
        walk_timeout_s=rng.choice([1.0, 5.0, 5.0, 15.0]),
        place_timeout_s=rng.choice([1.0, 5.0, 5.0, 15.0]),
        retry_min_s=retry_min_s,
        retry_max_s=rng.choice([10.0, 30.0]),
        walks_carried_max=rng.choice([8, 1024]),
        walks_per_link_per_s=rng.choice([5.0, 50.0]),
        walks_per_link_burst=rng.choice([10, 300]),
        dial_backs_per_s=rng.choice([1.0, 10.0]),
        dial_back_pause_s=rng.choice([5.0, 30.0]),
        split_tries=rng.choice([1, 3]),
        links_random_min=rng.choice([0, 1, 3, 3]),
        healing_places=rng.choice([1, 2]),
    )


def _book(rng: Random) -> BookConfig:
    return BookConfig(
        heard_buckets=rng.choice([4, 16, 64]),
        heard_bucket_max=rng.choice([2, 16]),
        source_buckets=rng.choice([1, 4]),
        verified_buckets=rng.choice([4, 32]),
        verified_bucket_max=rng.choice([2, 8]),
        group_buckets=rng.choice([1, 4]),
        lost_max=rng.choice([1, 32]),
        failures_max=rng.choice([1, 5]),
        purge_s=rng.choice([60.0, 3600.0]),
        retest_s=rng.choice([30.0, 600.0]),
        anchors=rng.choice([0, 2]),
    )
