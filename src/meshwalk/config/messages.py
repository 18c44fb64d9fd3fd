"""Settings of what applications send to single peers: requests, conversations, and their pace."""

from __future__ import annotations

import msgspec

from meshwalk.config.checks import ENVELOPE_BYTES, require, require_possible
from meshwalk.wire.frames import FIRST_WINDOW_BYTES, FRAME_BYTES_MAX, SHARED_WINDOW_BYTES


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
        require_possible(self)
        require(self.next_dial_s < self.timeout_s, "there must be time for a second dial")


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
        require_possible(self)
        require(self.part_bytes_max >= ENVELOPE_BYTES, "parts have at least 1,024 bytes")
        require(
            self.packet_bytes_max + ENVELOPE_BYTES <= FRAME_BYTES_MAX, "a packet must fit a frame"
        )
        require(self.message_bytes_max >= self.part_bytes_max, "a message holds at least a part")
        require(self.assembling_bytes_max >= self.message_bytes_max, "the longest message must fit")
        require(self.shared_window_bytes >= FIRST_WINDOW_BYTES, "one window must fit in the shared")


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
        require_possible(self)
        require(self.burst_bytes > 0, "a burst has at least a byte")

    @property
    def is_on(self) -> bool:
        """Whether anything is held back."""
        return self.bytes_per_s > 0 or self.peer_bytes_per_s > 0
