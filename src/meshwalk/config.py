"""Every limit and every interval, in one frozen Struct per layer, each with its source.

"guess" marks a number that nothing has tested yet: the first to tune. Relations between numbers
are checked when a Struct is built, so that a configuration which cannot work does not start.
Seconds end in `_s`, bytes in `_bytes`, bounds in `_max`.
"""

from __future__ import annotations

import msgspec

from meshwalk.errors import InvalidArgument
from meshwalk.wire.frames import FIRST_WINDOW_BYTES, FRAME_BYTES_MAX, SHARED_WINDOW_BYTES

ENVELOPE_BYTES = 1024  # more than any Message adds to its body: tag, ids, times, type, signature


def _require(condition: bool, text: str) -> None:
    if not condition:
        raise InvalidArgument(text)


def _require_possible(config: msgspec.Struct) -> None:
    """No time, size, rate or count is negative or no number, and a bound lets something through."""
    for name in config.__struct_fields__:
        least = 1 if name.endswith("_max") else 0
        _require(getattr(config, name) >= least, f"{name} is at least {least}")


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
    find_walks: int = 3
    """Ways that a search for a peer goes at once. hyperswarm: 3 in parallel."""
    find_hops: int = 32
    """Hops of each. measured, 1,000 simulated nodes: each knows 67 peers (median), so that all of
    3 * 16 asked miss with chance (1 - 0.067)^48 = 4 %. In fact 16 hops found 92 %, 32 found 99 %
    with 43 questions on the mean."""
    find_timeout_s: float = 6.5
    """From asking to the last answer. guess: 32 hops of 200 ms, there and back."""
    finds_max: int = 64
    """Own searches under way; more have found nobody. guess: as ReachConfig.peers_max."""
    finds_carried_max: int = 1024
    """Searches of others that a node remembers the way back for. As walks_carried_max."""
    finds_per_link_per_s: float = 20.0
    """Searches that one link may bring. guess: a search asks up to 96 nodes, so with 8 links this
    is enough when every node of a network begins one or two a second."""
    finds_per_link_burst: int = 100
    """Searches that one link may bring at once. guess: a neighbour's 64 own, and some carried."""

    def __post_init__(self) -> None:
        _require(0 < self.find_hops <= 64, "a search has 1 to 64 hops")
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


class ReachConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Making a link to a peer that is no neighbour."""

    peers_max: int = 64
    """Peers that are wanted at once; more cannot be reached now. guess: twice dialling_max."""
    timeout_s: float = 20.0
    """From wanting a peer to giving it up. guess: two dials of 5 s, a search, and some room."""
    next_dial_s: float = 1.0
    """A dial that has brought nothing for so long gets company: the next address, or the search.
    RFC 8305: 250 ms; more here, since TLS and a greeting are in it."""
    dials_max: int = 2
    """Dials to one peer under way. guess: one address that never answers holds up no other."""
    searches: int = 2
    """A search is a matter of chance, and a record that it brings may be old: as many as are made
    before the peer is given up. measured: one search in a hundred misses at 1,000 nodes."""
    pause_s: float = 5.0
    """After a failure nothing is tried for so long; whoever asks gets the same answer. guess."""
    failures_max: int = 1024
    """Failures remembered for that; the oldest makes place. guess: 1 MiB at 1 KiB each."""

    def __post_init__(self) -> None:
        _require_possible(self)
        _require(self.next_dial_s < self.timeout_s, "there must be time for a second dial")


class ConversationConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Conversations: how many, how much may lie unread, how long messages may be.

    At the worst a peer makes this node hold, in bodies, `shared_window_bytes`, the floor of each
    conversation (`wire.frames.FLOOR_BYTES`), and twice `assembling_bytes_max`: what is being put
    together, and what is whole and unread. Of what this node says to it, it keeps as much as lies
    within the windows: `shared_window_bytes` and the floors.
    """

    per_peer_max: int = 65_536
    """With one peer, opened by either; more are refused as BUSY. guess: tens of thousands."""
    total_max: int = 262_144
    """With all peers; those that peers have opened are half of it at the most. guess: a quarter of
    a GiB at 1 KiB each."""
    window_bytes_max: int = 4 << 20
    """The most that one conversation's window grows to. guess: 40 MB/s at a round trip of 100
    ms."""
    shared_window_bytes: int = SHARED_WINDOW_BYTES
    """What may lie unread in all conversations with one peer, beyond the floors."""
    part_bytes_max: int = 64 << 10
    """Longer messages go in parts, so that others get in between. guess: four TLS records, and half
    a millisecond of a gigabit path."""
    message_bytes_max: int = 16 << 20
    """The longest message that is put together, of any kind. guess: what a program holds at ease;
    for more, say it in several."""
    assembling_bytes_max: int = 64 << 20
    """Beyond the windows, for one peer: in long messages that are being put together, of which as
    many as there may be of the longest grow at a time, and the others wait; and as much again in
    whole ones that lie unread, where a conversation that needs more is refused as BUSY. guess: four
    of the longest."""
    backlog_bytes: int = 64 << 10
    """Waiting to be said in one conversation before its writer is made to wait. guess: a part."""
    tell_after_s: float = 1.0
    """How long what has been read may stay untold when the window has no need of it. guess."""
    opening_timeout_s: float = 30.0
    """How long nothing more of a conversation's first message may come before it is refused as
    TOO_LATE. guess: a peer that is there says something sooner, or its link is lost."""
    linger_s: float = 30.0
    """How long a conversation that was closed here waits for the peer to end it, too. guess."""
    finished_max: int = 1024
    """Conversations with one peer whose end is remembered, so that what comes late is known.
    guess."""
    answered_max: int = 4096
    """Own requests whose reply is remembered, so that a second one is known. guess."""
    packet_bytes_max: int = 1200
    """Longer unreliable messages are sent reliably. RFC 9000 section 14: 1,200 bytes fit any
    path."""

    def __post_init__(self) -> None:
        _require_possible(self)
        _require(self.part_bytes_max >= ENVELOPE_BYTES, "parts have at least 1,024 bytes")
        _require(
            self.packet_bytes_max + ENVELOPE_BYTES <= FRAME_BYTES_MAX, "a packet must fit a frame"
        )
        _require(self.message_bytes_max >= self.part_bytes_max, "a message holds at least a part")
        _require(
            self.assembling_bytes_max >= self.message_bytes_max, "the longest message must fit"
        )
        _require(
            self.shared_window_bytes >= FIRST_WINDOW_BYTES, "one window must fit in the shared"
        )


class PacingConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How fast all that is no reply is sent. Off unless a rate is given."""

    bytes_per_s: float = 0.0
    """For the whole node; 0: as fast as it goes. Seed 003: "spread out to a constant rate"."""
    peer_bytes_per_s: float = 0.0
    """To one peer; 0: as fast as the node's rate allows."""
    burst_bytes: int = 64 << 10
    """What may go out at once after a pause. guess: one part."""
    waiting_bytes_max: int = 256 << 10
    """Waiting for their turn for one peer before the writer is made to wait. guess: four parts."""

    def __post_init__(self) -> None:
        _require_possible(self)
        _require(self.burst_bytes > 0, "a burst has at least a byte")

    @property
    def is_on(self) -> bool:
        """Whether anything is held back."""
        return self.bytes_per_s > 0 or self.peer_bytes_per_s > 0


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
    conversations: ConversationConfig = ConversationConfig()
    pacing: PacingConfig = PacingConfig()
    reach: ReachConfig = ReachConfig()
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
        _require(
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
