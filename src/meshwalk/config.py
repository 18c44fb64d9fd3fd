"""Every limit and every interval, in one frozen Struct per layer, each with its source.

"guess" marks a number that nothing has tested yet: the first to tune. Relations between numbers
are checked when a Struct is built, so that a configuration which cannot work does not start.
Seconds end in `_s`, bytes in `_bytes`, bounds in `_max`.
"""

from __future__ import annotations

import msgspec

from meshwalk.errors import InvalidArgument
from meshwalk.wire.frames import FRAME_BYTES_MAX

ENVELOPE_BYTES = 1024  # more than any Message adds to its body: tag, ids, times, type, signature


def _require(condition: bool, text: str) -> None:
    if not condition:
        raise InvalidArgument(text)


class LinkConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One connection: how long its steps may take and how much may wait for it."""

    frame_bytes_max: int = FRAME_BYTES_MAX
    """Longest frame body sent or accepted."""
    handshake_timeout_s: float = 5.0
    """From the TCP connection to the end of TLS. guess: 10 round trips of a slow path."""
    connect_timeout_s: float = 5.0
    """For the TCP connection itself. guess: one lost SYN (RFC 6298: 1 s) and a slow path."""
    hello_timeout_s: float = 5.0
    """From the end of TLS to the peer's hello. guess, as the handshake."""
    ping_interval_s: float = 5.0
    """Between pings on a standing link. hyperswarm: 5 s keep-alive."""
    idle_timeout_s: float = 15.0
    """Silence after which a link is given up. iroh: a path is dropped after 15 s idle."""
    temporary_timeout_s: float = 30.0
    """Longest life of a link that is not standing, without messages. guess: three walks in turn."""
    close_timeout_s: float = 2.0
    """How long an end that closes waits for the other's last frames. guess."""
    rtt_window: int = 20
    """Round-trip times kept. seed 001: max_ping_count."""
    send_buffer_bytes_max: int = 8 << 20
    """Waiting to be sent to one peer; more closes the link as SLOW. guess: 8 frames of 1 MiB."""
    send_buffer_high_bytes: int = 256 << 10
    """Above this a writer that can wait is made to. guess: 2 ms of a gigabit path."""
    writer_patience_s: float = 1.0
    """How long a broadcast waits for one peer that takes nothing before it goes on. guess."""
    stall_timeout_s: float = 10.0
    """A peer that takes nothing for so long, with that much waiting, is SLOW. guess: two pings."""

    def __post_init__(self) -> None:
        _require(self.frame_bytes_max > 4 * ENVELOPE_BYTES, "frames must hold more than 4 KiB")
        _require(self.frame_bytes_max <= FRAME_BYTES_MAX, "frames are at most 1 MiB")
        _require(
            self.writer_patience_s < self.stall_timeout_s, "a writer gives up before the link does"
        )
        _require(self.ping_interval_s * 2 <= self.idle_timeout_s, "two pings must fit in idle")
        _require(
            self.send_buffer_high_bytes + self.frame_bytes_max <= self.send_buffer_bytes_max,
            "the send buffer must hold its high mark and one frame",
        )


class ConnectionConfig(msgspec.Struct, frozen=True, kw_only=True):
    """All connections of a node together: how many, from where, how fast."""

    total_max: int = 256
    """Connections in any state. Bitcoin Core: 125; doubled for temporary links."""
    half_open_max: int = 64
    """Accepted and not yet past TLS and hello. libp2p rcmgr: 64 transient."""
    per_host_max: int = 32
    """From one remote host; loopback is exempt, since there one host is everyone. guess."""
    dialling_max: int = 32
    """Own dials under way. guess: half of half_open_max, so that two nodes cannot fill a third."""
    accepts_per_s: float = 100.0
    """Accept rate that is sustained. guess: 17 % of a core in handshakes at 1.7 ms each."""
    accepts_burst: int = 200
    """Accepts at once. guess: a network of 200 nodes restarting into one entry."""

    def __post_init__(self) -> None:
        _require(self.half_open_max < self.total_max, "half-open links must leave room for others")


class OverlayConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Which links a node keeps and how it finds them."""

    links_min: int = 5
    """Fewer, and the node walks for more. HyParView: active view 5."""
    links_max: int = 10
    """More are refused. guess: twice the minimum, so that walks seldom find everyone full."""
    forced_hops: int = 3
    """Hops before a node at its minimum may accept. guess: enough to leave the entry."""
    walk_hops: int = 10
    """Hops of a walk in all. guess: above ln(10,000), so that a walk mixes at that size."""
    walk_timeout_s: float = 5.0
    """From sending a join request to its answer. guess: ten hops of 200 ms and a dial of 3 s."""
    place_timeout_s: float = 5.0
    """How long an acceptor keeps a place for an origin that is to dial. As walk_timeout_s."""
    retry_min_s: float = 0.5
    """First pause after a round of walks that found nobody; doubles, with jitter. guess."""
    retry_max_s: float = 30.0
    """Longest pause. Serf: reconnects every 30 s."""
    walks_carried_max: int = 1024
    """Walks of others that a node remembers the way back for. guess: 1 MiB at 1 KiB each."""
    walks_per_link_per_s: float = 50.0
    """Join requests that one link may bring. guess: 50 newcomers a second through one entry."""
    walks_per_link_burst: int = 300
    """Join requests that one link may bring at once. guess: 60 newcomers with 5 walks each."""
    dial_backs_per_s: float = 10.0
    """Origins that a node dials for walks it accepts. guess: a node needs 10 links in all."""
    dial_backs_burst: int = 20
    """Dial-backs at once. guess: twice links_max."""
    dial_back_pause_s: float = 30.0
    """After a failed dial-back no other to that address for so long. guess."""
    split_tries: int = 3
    """Neighbours that a full node asks to split before it gives a walk up. guess."""
    book_max: int = 1024
    """Peers known by address. Bitcoin Core: 1024 buckets; one entry each will do here."""
    book_failures_max: int = 5
    """Failed dials after which a peer only heard of is forgotten. seed 001: max_test_failures."""
    book_dials: int = 3
    """Addresses tried at once when alone. hyperswarm: 3 parallel dials."""
    acquaintances_max: int = 8
    """Neighbours told to a new neighbour. HyParView: 8 ids in a shuffle."""
    addresses_per_peer_max: int = 4
    """Addresses of one peer that are tried. guess."""

    def __post_init__(self) -> None:
        _require(self.links_min >= 1, "a node keeps at least one link")
        _require(self.links_min + 2 <= self.links_max, "links_max must be links_min + 2 or more")
        _require(self.forced_hops < self.walk_hops, "a walk must be longer than its forced hops")
        _require(self.walk_hops < 64, "a walk has fewer than 64 hops")
        _require(self.retry_min_s <= self.retry_max_s, "retry_min_s must not exceed retry_max_s")


class BroadcastConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Messages for everyone."""

    body_bytes_max: int = 256 << 10
    """Largest body. guess: a quarter of a frame; bigger things are for conversations."""
    remembered_s: float = 300.0
    """How long an origin's numbers are remembered. seed 001: message_duplicate_expire, 5 min."""
    origins_max: int = 4096
    """Origins remembered; the one silent for longest makes place. guess: 1 KiB each is 4 MiB."""
    window: int = 16_384
    """Numbers of one origin that may arrive out of order; older ones count as seen. guess: what
    one way through the network can be ahead of another in a burst, times four."""
    window_least: int = 1024
    """The same for an origin that speaks when `numbers_max` is reached. guess."""
    numbers_max: int = 262_144
    """Numbers noted above gaps, of all origins together. guess: 16 MiB."""
    order_wait_s: float = 1.0
    """How long what came early waits for what is missing, since the last of it came. guess."""
    order_held_max: int = 65_536
    """Broadcasts that may wait so. guess: as many as a reader may leave unread."""
    order_held_bytes_max: int = 16 << 20
    """Bytes of their bodies. guess."""
    age_max_s: float = 300.0
    """Older broadcasts are refused as replays. As remembered_s: what is forgotten is also stale."""
    clock_skew_max_s: float = 600.0
    """How far ahead of ours an origin's clock may be. Bitmessage: refuses above 3 h; guess."""

    def __post_init__(self) -> None:
        _require(self.body_bytes_max + ENVELOPE_BYTES <= FRAME_BYTES_MAX, "a body must fit a frame")
        _require(self.window_least <= self.window, "window_least must not exceed window")
        _require(self.age_max_s <= self.remembered_s, "what is not stale must be remembered")


class RequestConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Messages to one peer."""

    pending_max: int = 65536
    """Own requests that wait for a reply; more are `Refused`. guess: about 30 MiB of state."""
    served_per_peer_max: int = 1024
    """Requests of one peer that are being answered; more are refused as BUSY. guess."""
    timeout_s: float = 10.0
    """Deadline of a request unless the caller gives one. guess."""


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
    broadcast: BroadcastConfig = BroadcastConfig()
    requests: RequestConfig = RequestConfig()
    store: StoreConfig = StoreConfig()

    def __post_init__(self) -> None:
        _require(
            self.connections.total_max >= self.overlay.links_max + self.connections.half_open_max,
            "total_max must leave room for links_max beside half-open connections",
        )
        _require(
            self.broadcast.body_bytes_max + ENVELOPE_BYTES <= self.link.frame_bytes_max,
            "a broadcast must fit a frame",
        )
