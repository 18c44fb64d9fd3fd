"""Every limit and every interval, in one frozen Struct per layer, each with its source.

"guess" marks a number that nothing has tested yet: the first to tune. Relations between numbers
are checked when a Struct is built, so that a configuration which cannot work does not start.
Seconds end in `_s`, bytes in `_bytes`, bounds in `_max`.
"""

from __future__ import annotations

import msgspec

from meshwalk.config.broadcast import (
    PAYLOAD_BYTES,
    BroadcastConfig,
    HistoryConfig,
    IntakeConfig,
    Spreading,
    StemConfig,
    TreeConfig,
    TrustConfig,
)
from meshwalk.config.checks import ENVELOPE_BYTES, require
from meshwalk.config.links import ConnectionConfig, LinkConfig
from meshwalk.config.messages import (
    ConversationConfig,
    PacingConfig,
    ReachConfig,
    RequestConfig,
)
from meshwalk.config.overlay import (
    BookConfig,
    DetectionConfig,
    ExchangeConfig,
    HealingConfig,
    OverlayConfig,
    ProbingConfig,
    TradingConfig,
)

__all__ = [
    "ENVELOPE_BYTES",
    "INTERNET_PACING",
    "BookConfig",
    "BroadcastConfig",
    "Config",
    "ConnectionConfig",
    "ConversationConfig",
    "DetectionConfig",
    "ExchangeConfig",
    "HealingConfig",
    "HistoryConfig",
    "IntakeConfig",
    "LinkConfig",
    "OverlayConfig",
    "PacingConfig",
    "ReachConfig",
    "RequestConfig",
    "Spreading",
    "StemConfig",
    "StoreConfig",
    "ProbingConfig",
    "TradingConfig",
    "TreeConfig",
    "TrustConfig",
]


class StoreConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept on disk."""

    history_max: int = 100_000
    """Messages kept; older ones go first. guess: some 30 MiB of chat, 1.6 GB at the worst."""
    history_body_bytes_max: int = 16 << 10
    """Longer bodies are noted without their bytes: history is for people. guess."""
    queue_max: int = 10_000
    """Writes that wait for the disk; more are dropped and counted. guess: 2 s of a slow disk."""


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """All settings of a node."""

    link: LinkConfig = LinkConfig()
    connections: ConnectionConfig = ConnectionConfig()
    overlay: OverlayConfig = OverlayConfig()
    book: BookConfig = BookConfig()
    exchange: ExchangeConfig = ExchangeConfig()
    probing: ProbingConfig = ProbingConfig()
    detection: DetectionConfig = DetectionConfig()
    trading: TradingConfig = TradingConfig()
    healing: HealingConfig = HealingConfig()
    broadcast: BroadcastConfig = BroadcastConfig()
    tree: TreeConfig = TreeConfig()
    history: HistoryConfig = HistoryConfig()
    intake: IntakeConfig = IntakeConfig()
    trust: TrustConfig = TrustConfig()
    stem: StemConfig = StemConfig()
    requests: RequestConfig = RequestConfig()
    conversations: ConversationConfig = ConversationConfig()
    pacing: PacingConfig = PacingConfig()
    reach: ReachConfig = ReachConfig()
    store: StoreConfig = StoreConfig()

    def __post_init__(self) -> None:
        require(
            self.connections.total_max
            >= self.overlay.links_max
            + self.overlay.healing_places
            + self.connections.half_open_max,
            "total_max must leave room for links_max beside half-open connections",
        )
        require(
            self.broadcast.body_bytes_max + PAYLOAD_BYTES + ENVELOPE_BYTES
            <= self.link.frame_bytes_max,
            "a broadcast must fit a frame",
        )
        require(
            self.history.age_s <= self.broadcast.age_max_s,
            "what is kept for others must not be too old for them",
        )
        require(
            self.conversations.part_bytes_max + ENVELOPE_BYTES <= self.link.frame_bytes_max,
            "a part must fit a frame",
        )

    @classmethod
    def local(cls) -> Config:
        """For programs on one machine: nothing is held back. As `Config()`."""
        return cls()

    @classmethod
    def lan(cls) -> Config:
        """For one building: as `local`, since a gigabit path needs no pacing."""
        return cls()

    @classmethod
    def internet(cls) -> Config:
        """For a node behind somebody's line, which carries other things as well: what is no reply
        goes out evenly, at the rates of `INTERNET_PACING`."""
        return cls(pacing=INTERNET_PACING)


INTERNET_PACING = PacingConfig(bytes_per_s=2.5e6, peer_bytes_per_s=1.25e6)
"""guess: an uplink of 20 Mbit/s, and half of it for one peer."""
