"""Settings of one connection, and of all connections of a node together."""

from __future__ import annotations

import msgspec

from meshwalk.config.checks import ENVELOPE_BYTES, require
from meshwalk.wire.frames import FRAME_BYTES_MAX


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
        require(self.frame_bytes_max > 4 * ENVELOPE_BYTES, "frames must hold more than 4 KiB")
        require(self.frame_bytes_max <= FRAME_BYTES_MAX, "frames are at most 1 MiB")
        require(
            self.writer_patience_s < self.stall_timeout_s, "a writer gives up before the link does"
        )
        require(self.ping_interval_s * 2 <= self.idle_timeout_s, "two pings must fit in idle")
        require(
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
        require(self.half_open_max < self.total_max, "half-open links must leave room for others")
