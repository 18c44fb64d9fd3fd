"""Settings of broadcasts: how they spread, what is kept of them, and what is held against peers."""

from __future__ import annotations

import enum

import msgspec

from meshwalk.config.checks import ENVELOPE_BYTES, require, require_possible
from meshwalk.wire.frames import FRAME_BYTES_MAX, STEM_HOPS_MAX

PAYLOAD_BYTES = 1536
"""Room for what a broadcast's payload has beside its body: a key, six numbers, and a topic of 255
characters. measured: 1,117 bytes at the most."""


class Spreading(enum.Enum):
    """How broadcasts spread."""

    TREE = "tree"
    """Along a tree, and announced on the other links."""
    FLOOD = "flood"
    """Over all links: to compare with. Costs as many copies as there are links."""


class BroadcastConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Messages for everyone."""

    spreading: Spreading = Spreading.TREE
    body_bytes_max: int = 256 << 10
    """Largest body. guess: a quarter of a frame; bigger things are for conversations."""
    bundle_wait_s: float = 0.005
    """What is broadcast sooner than this after the last goes out together with what follows. guess:
    200 signatures a second, 1 % of a core; and less than a person or a path notices."""
    bundle_bytes_max: int = 64 << 10
    """A bundle that has so many bytes of bodies goes out at once. guess: a part of a long
    message."""
    remembered_s: float = 3900.0
    """How long an origin's numbers are remembered. Seed 001 has 5 min; here it must outlive what a
    history may hold, and five minutes of doubt."""
    origins_max: int = 4096
    """Origins remembered; the one silent for longest makes place. guess: 1 KiB each is 4 MiB."""
    window: int = 16_384
    """Numbers of one origin that may arrive out of order; older ones count as seen. guess: what
    one way through the network can be ahead of another in a burst, times four."""
    gaps_max: int = 65_536
    """Gaps in the numbers that have come, of all origins together; whoever makes more has its own
    filled: what is missing there counts as seen. guess: 4 MiB."""
    order_wait_s: float = 5.0
    """How long what came early waits for what is missing, since the last of it came. guess: asking
    three peers for it, in turn."""
    order_held_max: int = 65_536
    """Broadcasts that may wait so. guess: as many as a reader may leave unread."""
    order_held_bytes_max: int = 16 << 20
    """Bytes of their bodies. guess."""
    age_max_s: float = 3600.0
    """Older broadcasts are refused as replays. As the history's: who was away for less is told all
    that it missed."""
    clock_skew_max_s: float = 600.0
    """How far ahead of ours an origin's clock may be. Bitmessage: refuses above 3 h; guess."""
    confirm_timeout_s: float = 5.0
    """How long an origin that asked waits for the count of those who have it. guess: a tree of ten
    hops, a repair on the way, and some room."""
    answers_traces: bool = True
    """Whether this node says how a broadcast came to it, when its origin asks."""
    receipts_max: int = 1024
    """Broadcasts that receipts are passed on for at a time; for more there are none. guess."""
    difficulty: int = 0
    """Proof of work that a broadcast needs here: so many hashes per byte, on the average; see
    `proto/broadcast/work.py`. All members of a network must agree on it. 0: none. Bitmessage:
    1,000, of a slower hash."""

    def __post_init__(self) -> None:
        require(
            self.body_bytes_max + PAYLOAD_BYTES + ENVELOPE_BYTES <= FRAME_BYTES_MAX,
            "a body must fit a frame",
        )
        require(self.bundle_bytes_max <= 256 << 10, "a bundle must fit a frame")
        require(self.difficulty >= 0, "difficulty must not be negative")
        require(self.age_max_s <= self.remembered_s, "what is not stale must be remembered")


class TreeConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Branches, announcements and repair. Plumtree's, with its guesses replaced by ours."""

    branches_first: int = 3
    """A new link begins as a branch of the tree if one of its ends has fewer. guess: with one, the
    tree is that of the joins, and deep; with all, the first broadcast is a flood."""
    announce_every_s: float = 0.1
    """How long what a neighbour is only told of is gathered. guess: GossipSub 1 s, iroh 5 ms."""
    announced_max: int = 16_384
    """Numbers gathered for one neighbour; beyond it the oldest are not told of, and counted: a gap,
    or a later number, shows them all the same. guess."""
    fetch_wait_least_s: float = 0.1
    """How long a broadcast that was announced, or is missing in a sequence, may take to come by the
    tree before it is asked for; longer where the tree took longer lately. iroh: 80 ms; guess."""
    fetch_wait_most_s: float = 1.0
    """And at the most. guess: what a person waits for an answer."""
    fetch_timeout_s: float = 1.0
    """How long a peer that was asked may send nothing of it. guess: a round trip of a very slow
    path."""
    fetch_numbers_max: int = 64
    """Numbers that are asked for of one peer at a time. guess: a window of 16 KiB to 4 MiB of full
    bundles, and 16 MiB at the worst."""
    fetch_tries_max: int = 4
    """Peers that are asked for one number, or times; then it counts as missed. guess."""
    missing_max: int = 65_536
    """Numbers that are known to be missing, of all origins; more are not noted. guess: 16 MiB."""
    missing_per_peer_max: int = 16_384
    """Of those, told of by one neighbour. guess: one that lies has a quarter."""
    announcers_max: int = 8
    """Neighbours remembered that have a missing number. guess."""
    serve_bytes: int = 256 << 10
    """What is sent at once of what was asked for; the rest follows as the link takes it. guess: as
    `send_buffer_high_bytes`."""
    serve_numbers_max: int = 1024
    """Numbers that one neighbour may have asked for and not been sent; more are not noted. guess:
    16 times what one of ours asks for."""
    better_ratio: float = 0.7
    """A neighbour whose way is shorter by this factor takes the place of the one that a broadcast
    came from. Seed 001: adopts a better link at 0.7 times."""
    better_least_s: float = 0.01
    """And by so much. guess: below it jitter decides."""
    hop_cost_s: float = 0.005
    """What a hop counts beside its measured time, in comparing ways. guess: what a busy node takes
    to pass something on."""
    own_trees_max: int = 256
    """Origins that have branches of their own, since they speak often; the one that was silent for
    longest loses them. guess: 100 KiB."""
    own_tree_after: int = 3
    """Broadcasts of an origin before it may have branches of its own. guess."""
    shorter_by_hops: int = 7
    """The shared tree is changed for a way that is shorter by so many hops. Plumtree: its threshold
    with several senders, 7."""
    graft_above: float = 0.4
    """The smoothed share of late broadcasts above which the tree is held to be broken here: then
    what is asked for also makes a branch. guess: two in a row; one in twenty is loss."""
    history_asks: int = 2
    """Neighbours that are asked what was missed. guess: one of them may have missed it, too."""

    def __post_init__(self) -> None:
        require_possible(self)
        require(0 < self.better_ratio < 1, "better_ratio lies between 0 and 1")
        require(
            self.fetch_wait_least_s <= self.fetch_wait_most_s,
            "fetch_wait_least_s must not exceed fetch_wait_most_s",
        )


class HistoryConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Broadcasts that are kept for those who missed them. The oldest go first."""

    count_max: int = 16_384
    """guess: what one busy origin sends in a minute."""
    bytes_max: int = 32 << 20
    """Of payloads. guess: 128 of the largest."""
    age_s: float = 3600.0
    """guess: what a person would scroll back; a longer cut is another day."""
    asks_per_s: float = 0.2
    """How often one neighbour may ask what there is. guess: as often as links are made in trouble;
    an answer may be 16,384 numbers."""
    asks_burst: int = 3
    """guess."""

    def __post_init__(self) -> None:
        require_possible(self)


class IntakeConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How fast broadcasts are taken: by neighbour, by origin, and all together."""

    cost_bytes: int = 4096
    """What a broadcast counts beyond its bytes. guess: a signature takes as long as 4 KiB of
    passing on."""
    link_bytes_per_s: float = 64e6
    """From one neighbour. guess: half a gigabit path; 15,000 small broadcasts."""
    link_burst_bytes: int = 64 << 20
    """guess: a second."""
    origin_bytes_per_s: float = 16e6
    """Of one origin, whoever passes them on; an origin holds itself to it. guess: 300 full bundles
    a second, 150,000 messages of 100 bytes."""
    origin_burst_bytes: int = 32 << 20
    """guess: two seconds. A receiver allows twice of both: hops between may have gathered some."""
    newcomers_per_s: float = 100.0
    """Origins never heard of that one neighbour may bring. guess: a key costs nothing, and whoever
    makes many would have all others forgotten."""
    newcomers_burst: int = 2048
    """At once. guess: half of `origins_max`."""
    checks_per_turn: int = 32
    """Signatures that are checked in one go. measured: 2 to 3 ms, so that the event loop never
    stands still for long."""
    turn_s: float = 0.004
    """How long a turn is. guess: 8,000 checks a second, half a core to all of one."""
    waiting_max: int = 1024
    """Broadcasts of one neighbour that may wait for their turn; more are dropped, counted, and
    asked for later. guess."""
    waiting_bytes_max: int = 8 << 20
    """Their bytes. guess."""

    def __post_init__(self) -> None:
        require_possible(self)


class TrustConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What is held against peers, and for how long. GossipSub v1.1 scores peers alike."""

    half_life_s: float = 600.0
    """After this half of it is forgiven. guess: an attacker waits ten minutes for one offence."""
    limit: float = 9.0
    """Here a peer loses its link, and is refused until half of it is left. guess: two forgeries
    within three minutes, or ten broken promises within a minute."""
    forged: float = 5.0
    """guess: nobody sends a false signature by mistake; but bits do fall over."""
    unworked: float = 5.0
    """Of sending what lacks the proof of work that is demanded here. guess: as a forgery."""
    promise_broken: float = 1.0
    """Of announcing what is not sent when it is asked for. guess: loss may do it once."""
    flooded: float = 0.05
    """For each message above a neighbour's rate, and each announcement that is withdrawn at once.
    guess: 180 of them."""
    unwanted: float = 0.1
    """For each copy on a link that is no branch, after a reminder. guess: 90 of them."""
    stale: float = 0.25
    """For each that is far too old, or too new. guess: 36; a clock may be set wrong."""
    peers_max: int = 1024
    """Peers that something is held against; the one with least makes place. guess."""

    def __post_init__(self) -> None:
        require_possible(self)
        require(self.limit > 0, "limit is above 0: else everybody is refused")


class StemConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Hiding where a broadcast begins."""

    leave_chance: float = 0.1
    """With which each hop ends the stem. BIP 156: 10 %. Used unless `hops` is above 0."""
    hops: int = 0
    """Above 0: a random number of hops from 0 to this, and each hop says how many are left, as seed
    003 has it ("0 to 10"). Each hop then knows about how far the origin is."""
    epoch_s: float = 600.0
    """How long one neighbour is the next hop for all that comes from one other. BIP 156: 10 min."""
    embargo_s: float = 5.0
    """The least time in which a stem must have come to its end; then whoever held it begins.
    guess: ten hops of half a second, busy ones."""
    embargo_mean_s: float = 10.0
    """What is added to that by chance, exponentially, so that it is not the origin who tends to be
    first. PyBitmessage: 10 s and a mean of 30 s."""
    held_max: int = 1024
    """Broadcasts in the stem at one node; more spread from here. guess."""

    def __post_init__(self) -> None:
        require_possible(self)
        require(0 < self.leave_chance <= 1, "leave_chance lies between 0 and 1")
        require(self.hops <= STEM_HOPS_MAX, f"a stem has at most {STEM_HOPS_MAX} hops")
