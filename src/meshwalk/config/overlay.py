"""Settings of the overlay: which links a node keeps, whom it knows, and how the network heals."""

from __future__ import annotations

import msgspec

from meshwalk.config.checks import require, require_possible


class OverlayConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Which links a node keeps and how it finds them."""

    links_min: int = 5
    """Fewer, and the node walks for more. HyParView: active view 5."""
    links_max: int = 10
    """More are refused. guess: twice the minimum, so that walks seldom find everyone full."""
    links_random_min: int = 3
    """Links that walks have brought, kept beside those chosen for their closeness or made to heal;
    links_min if that is less. The design's "at least 3"; episub keeps log N random ones."""
    links_per_group_max: int = 2
    """Links to one address group; more only when nobody else is to be had. Bitcoin Core: one
    outbound connection for each group; two here, since a network may have few groups."""
    group_patience: int = 3
    """Rounds of walks that fail below the minimum before a group's limit is set aside. guess."""
    healing_places: int = 2
    """Links beyond links_max that only the joining of two fragments may take; a node has at most
    one more such link in all. guess: a network cut in three is whole again when every node is
    full."""
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
    book_dials: int = 3
    """Addresses tried at once when alone. hyperswarm: 3 parallel dials."""
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
        require_possible(self)
        require(0 < self.find_hops <= 64, "a search has 1 to 64 hops")
        require(self.links_min >= 1, "a node keeps at least one link")
        require(self.links_per_group_max >= 1, "an address group may have at least one link")
        require(self.links_min + 2 <= self.links_max, "links_max must be links_min + 2 or more")
        require(self.forced_hops < self.walk_hops, "a walk must be longer than its forced hops")
        require(self.walk_hops < 64, "a walk has fewer than 64 hops")
        require(self.retry_min_s <= self.retry_max_s, "retry_min_s must not exceed retry_max_s")

    @property
    def random_min(self) -> int:
        """The links of a node that chance is to have chosen."""
        return min(self.links_random_min, self.links_min)


class BookConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The address book: how many peers it holds, from where, and for how long.

    Bucketed as Bitcoin Core's address manager is, after Heilman et al. (USENIX Security 2015), at a
    sixtieth of its size.
    """

    heard_buckets: int = 64
    """Of peers that others told of. Bitcoin Core: 1,024 of 64 peers each."""
    heard_bucket_max: int = 16
    """Peers in each."""
    source_buckets: int = 8
    """Of these, how many one source (the address group of who tells) can reach. Bitcoin Core: 64 of
    1,024; twice the share here, since a small network has few sources."""
    verified_buckets: int = 32
    """Of peers that answered our own dial. Bitcoin Core: 256 of 64 peers each."""
    verified_bucket_max: int = 8
    """Peers in each."""
    group_buckets: int = 4
    """Of these, how many one address group can reach. Bitcoin Core: 8 of 256; as above."""
    lost_max: int = 32
    """Peers that were verified once and have been out of reach for `purge_s`: kept as the way back
    to a part of the network that is cut off for long. guess: some will be there again."""
    lost_s: float = 604_800.0
    """And for so long. Bitcoin Core: seven days (ADDRMAN_MIN_FAIL); also a cut over a weekend."""
    failures_max: int = 5
    """Failed dials in a row after which a peer only heard of is forgotten. seed 001:
    max_test_failures."""
    purge_s: float = 3600.0
    """A verified peer out of reach for so long counts as lost. seed 001: purge_node_wait."""
    retest_s: float = 600.0
    """A verified peer is tested again after so long. seed 001: retest_wait_period."""
    retest_failing_s: float = 60.0
    """The same for one that did not answer the last time. guess: a network that was cut is to be
    whole within two minutes of being mended, and half of its peers will be looked for in vain."""
    record_age_max_s: float = 86_400.0
    """Records signed longer ago are no news, and what was heard that long ago is forgotten. seed
    001: 24 hours."""
    clock_skew_max_s: float = 86_400.0
    """Records signed so far in the future are no news: they would never grow old, and no later one
    could replace them. As record_age_max_s: a clock may be a day slow or fast."""
    renew_s: float = 28_800.0
    """After so long a node signs its own record anew. A third of the above: two may be missed."""
    saves_per_s: float = 1.0
    """What was only heard of is given to the store at this rate; more is given later, or never if
    it is forgotten before. guess: so few that no stranger keeps the disk busy."""
    saves_burst: int = 256
    """And so much at once. guess: what ten new neighbours tell in their first messages, 160."""
    anchors: int = 2
    """Neighbours noted to be dialled first after a restart. Bitcoin Core: 2."""
    group_bits_v4: int = 16
    """Leading bits of a public IPv4 address that name its group. Bitcoin Core: 16."""
    group_bits_v6: int = 32
    """The same for IPv6. Bitcoin Core: 32."""
    groups_private: bool = False
    """Whether private addresses form groups as public ones do. Off: whoever has one address of a
    LAN can have many, and a network within one LAN would be all of one group."""

    def __post_init__(self) -> None:
        require_possible(self)
        require(1 <= self.source_buckets <= self.heard_buckets, "a source reaches 1 to all buckets")
        require(
            1 <= self.group_buckets <= self.verified_buckets, "a group reaches 1 to all buckets"
        )
        require(self.anchors <= 8, "at most eight anchors")  # guess: they are dialled all at once
        require(0 < self.group_bits_v4 <= 32, "an IPv4 address has 32 bits")
        require(0 < self.group_bits_v6 <= 128, "an IPv6 address has 128 bits")
        require(self.renew_s < self.record_age_max_s, "an own record is renewed before it is stale")
        require(
            self.purge_s < self.lost_s, "a lost peer is kept for longer than it takes to be lost"
        )

    @property
    def total_max(self) -> int:
        """Peers in the book in all."""
        heard = self.heard_buckets * self.heard_bucket_max
        return heard + self.verified_buckets * self.verified_bucket_max + self.lost_max


class ExchangeConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Telling neighbours whom this node has connected to."""

    log_max: int = 128
    """Peers that are told of: those connected to last. guess: twenty neighbourhoods."""
    pause_s: float = 10.0
    """Between two messages over one link, after the first. guess: 16 records in 10 s, 0.3 KB/s."""
    wanted_pause_s: float = 60.0
    """A neighbour may ask for everything again after so long; sooner is ignored. guess."""
    told_per_s: float = 0.2
    """Messages that one link may bring; more are ignored. guess: twice what `pause_s` allows."""
    told_burst: int = 8
    """Messages that one link may bring at once. guess."""
    moved_per_s: float = 0.2
    """New own records that a neighbour may announce; more are ignored. As fast as nodes do."""
    moved_burst: int = 4
    """New own records at once. guess: a machine that changes networks finds its hosts one by
    one."""

    def __post_init__(self) -> None:
        require_possible(self)
        require(self.pause_s > 0, "there is a pause between two messages")


class ProbingConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Testing peers: who is where the book says, how far, and in which fragment."""

    interval_s: float = 30.0
    """Between two tests. Bitcoin Core: a feeler every two minutes; four times as often here, since
    a test is also how fragments find each other."""
    pings: int = 20
    """In each, one after the other. seed 001: max_ping_count."""
    timeout_s: float = 20.0
    """For the pings of one test. guess: 20 round trips of a second."""
    probes_max: int = 2
    """Under way at once; more wait. guess: one that hangs holds up no other."""

    def __post_init__(self) -> None:
        require_possible(self)
        require(self.interval_s > 0, "there is a pause between two tests")
        require(self.pings >= 1, "a test has at least one ping")


class DetectionConfig(msgspec.Struct, frozen=True, kw_only=True):
    """When a silent neighbour is given up: RFC 6298's time-out, and SWIM's question to others."""

    least_s: float = 1.0
    """A ping that is not answered for so long, and as long again as its link's round trips give
    reason to, makes its peer suspect. RFC 6298 section 2.4: a second at the least."""
    deviations: float = 4.0
    """How many mean deviations above the mean of the round trips a ping may take. RFC 6298: 4."""
    vouchers: int = 2
    """Peers asked about a suspect, common neighbours first. memberlist: 3, two must agree."""
    voucher_timeout_s: float = 2.0
    """How long they may take, beside the round trips to them and of a dial to the suspect.
    measured, experiment detection, one node in five slow: with 1 s live ones are given up although
    no frame is lost; with 3 s it takes a second longer, and saves none."""
    vouching_max: int = 64
    """Questions of others that are being answered; more are not. guess."""
    vouching_per_link_per_s: float = 0.5
    """Questions that one link may bring. guess: a neighbour with 10 links loses all in 20 s."""
    vouching_per_link_burst: int = 10
    """Questions that one link may bring at once. guess: as above."""
    vouching_dials_max: int = 4
    """Dials to suspects of others at once. guess: an eighth of what a node may dial at once, so
    that whoever asks for many keeps it from none of its own."""
    vouching_dials_per_s: float = 0.5
    """Such dials, for all who ask together. guess: as many as one link may ask for."""
    vouching_dials_burst: int = 8
    """Such dials one right after the other. guess: a neighbour of each of eight neighbours is gone
    at once; of more the idle time-out tells."""

    def __post_init__(self) -> None:
        require_possible(self)
        require(self.least_s > 0, "a time-out is longer than nothing")


class TradingConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Trading links for closer ones."""

    interval_s: float = 60.0
    """Between two looks, with jitter. guess: a tenth of what a link stays at the least."""
    ratio: float = 0.7
    """A link is traded for one whose mean round trip is under this share of its own. seed 001:
    better_primary_latency_multiplier."""
    stay_s: float = 1200.0
    """A link stays for so long before it is traded. seed 001: better_primary_wait."""
    again_s: float = 600.0
    """Whoever refused to part, or to come, is not asked again for so long. guess: ten looks, so
    that each other choice has its turn."""
    promise_s: float = 15.0
    """How long a promise to part holds. guess: a dial of 5 s and its handshake, and room."""

    def __post_init__(self) -> None:
        require_possible(self)
        require(0.0 < self.ratio < 1.0, "a better link is closer by some share")
        require(self.interval_s > 0, "there is a pause between two looks")


class HealingConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Beacons, by which fragments know that they are two, and the joining of fragments."""

    beacon_interval_s: float = 15.0
    """Between two beacons of a fragment. guess: a message on each link for six pings."""
    beacon_timeout_s: float = 50.0
    """A beacon that was heard longer ago is stale, and somebody else begins. guess: three missed
    and the time they travel."""
    epoch_beacons: int = 8
    """Beacons in which the members are counted anew. guess: the diameter of 10,000 nodes."""
    sketch: int = 32
    """Hashes kept to estimate how many members there are: exact below, then with an error of
    1/sqrt(sketch - 2), 18 % (Bar-Yossef et al., RANDOM 2002: k minimum values)."""
    beacons_per_link_per_s: float = 1.0
    """Beacons that one link may bring. guess: fifteen times what is usual."""
    beacons_per_link_burst: int = 30
    """Beacons that one link may bring at once. guess: two fragments that choose a leader."""
    pause_s: float = 60.0
    """Between two healings that one node takes part in. seed 001 pauses 10 minutes; but a network
    in four parts would take half an hour."""
    walks: int = 2
    """Walks into the other fragment over the new link, by the end that joins, as far as it has
    room. guess: so that the fragments hang by more than one link."""
    promise_s: float = 15.0
    """How long a peer that was found to be of another fragment may take to come. As for trades."""

    def __post_init__(self) -> None:
        require_possible(self)
        require(self.beacon_interval_s > 0, "there is a pause between two beacons")
        require(self.beacon_interval_s * 2 < self.beacon_timeout_s, "a beacon may be missed twice")
        require(2 < self.sketch <= 32, "a sketch has 3 to 32 hashes")
        require(self.epoch_beacons >= 1, "an epoch has at least one beacon")
