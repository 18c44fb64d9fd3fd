"""Lies to one overlay: positions, numbers, beacons, fragments, suspects, leavers that stay.

What any member of the network can make up: keys, records of them, leaders, fragments, heirs. What
it gains by them is bounded.
"""

from __future__ import annotations

import pytest
from beset import GOOD, HOSTILE, LARGEST, SOMEBODY, Victim, beacon_of

from meshwalk.config import BookConfig, Config
from meshwalk.proto.link import Link
from meshwalk.proto.overlay.effects import Connect, OverlayEffect, Say
from meshwalk.proto.overlay.parting import HANDED_MAX
from meshwalk.proto.overlay.statistics import statistics_of
from meshwalk.wire.address import Address
from meshwalk.wire.frames import CloseReason, Purpose
from meshwalk.wire.messages import (
    SKETCH_MAX,
    Beacon,
    FragmentAsked,
    FragmentOutcome,
    FragmentTold,
    Handover,
    PartReply,
    PartRequest,
    PeersTold,
    PeersWanted,
    VouchAsked,
    VouchOutcome,
    VouchTold,
    encode,
)
from meshwalk.wire.records import decode_peer_record, decode_signed
from proto.overlay.bench import (
    SEQUENCE,
    Bench,
    connects,
    disconnects,
    host_of,
    peer_of,
    record_of,
    says,
)

# Exchange.


def test_positions_at_the_end_of_the_numbers() -> None:
    bench = Victim(links_max=8)
    (told,) = says(bench.hear(bench.hostile, PeersWanted(LARGEST)))
    assert isinstance(told.body, PeersTold)
    assert told.body.records == [record_of(GOOD)], "whoever says that has everything to hear"
    bench.hear(bench.hostile, PeersTold(LARGEST, []))
    bench.end(bench.hostile)
    again = bench.link(HOSTILE)
    wanted = [s.body for s in says(bench.open(again)) if isinstance(s.body, PeersWanted)]
    assert len(wanted) == 1
    assert encode(wanted[0])
    # Its own positions do not follow: others are told as before.
    assert bench.overlay.book.newest_position < 2 * SEQUENCE
    news = bench.open(bench.link(9)) + bench.hear(bench.good, PeersWanted(0), 1.0)
    news += bench.tick_until(30.0)
    told_to_good = [s for s in says(news) if s.link == bench.good.number]
    assert any(isinstance(s.body, PeersTold) for s in told_to_good)


def test_one_source_fills_its_share_of_the_book_only() -> None:
    """However long a neighbour goes on: Bitcoin Core's rule against filling the table."""
    bench = Victim()
    book = bench.settings.book
    number = SOMEBODY
    for step in range(500):
        blobs = [record_of(number + n, f"tcp://198.{51 + n}.{step % 256}.{n}:1") for n in range(16)]
        number += 16
        bench.hear(bench.hostile, PeersTold(step + 1, blobs), 60.0 + 5.0 * step)
    assert len(bench.overlay.book) <= book.source_buckets * book.heard_bucket_max + 2


def test_what_a_public_peer_tells_of_private_places_is_not_believed() -> None:
    bench = Victim(links_max=8)
    link = bench.link(9)
    link.remote = Address("198.51.100.7", 40_000)
    bench.open(link)
    private = record_of(SOMEBODY, "tcp://192.168.0.1:80", "tcp://127.0.0.1:22", "tcp://[fe80::1]:1")
    mixed = record_of(SOMEBODY + 1, "tcp://10.0.0.9:80", "tcp://198.51.100.9:1")
    effects = bench.hear(link, PeersTold(1, [private, mixed]))
    assert disconnects(effects) == [], "its addresses may be its own affair"
    assert peer_of(SOMEBODY) not in bench.overlay.book.entries
    known = bench.overlay.book.entries[peer_of(SOMEBODY + 1)]
    assert known.addresses == (Address("198.51.100.9", 1),)
    effects = bench.hear(link, Handover(private, b"t", dials=True))
    effects += bench.hear(link, VouchAsked(private))
    effects += bench.end(link, CloseReason.LEAVING)
    assert connects(effects) == []


def test_nobody_tells_a_node_of_itself_nor_of_long_ago() -> None:
    bench = Victim()
    day_us = 86_400_000_000
    old = record_of(SOMEBODY, sequence=SEQUENCE - 2 * day_us)
    before = len(bench.overlay.book)
    bench.hear(bench.hostile, PeersTold(1, [record_of(0, "tcp://203.0.113.1:1"), old]))
    assert len(bench.overlay.book) == before
    assert bench.overlay.book.counts["stale"] == 1


# Beacons.

SKETCHES: dict[str, list[int]] = {
    "descending": list(range(SKETCH_MAX, 0, -1)),
    "all the same": [5] * SKETCH_MAX,
    "all zero": [0] * SKETCH_MAX,
    "the smallest": list(range(SKETCH_MAX)),
    "the largest": [LARGEST - n for n in range(SKETCH_MAX)],
    "none": [],
}


@pytest.mark.parametrize("sketch", SKETCHES.values(), ids=SKETCHES.keys())
def test_lies_about_the_number_of_members(sketch: list[int]) -> None:
    """A defect: 32 small hashes stood for 2^64 members, which is more than a message can say; the
    node failed, and so did all whom the sketch reached."""
    bench = Victim()
    said: list[Say] = []
    for counter in range(1, 40):
        now = 2.0 * counter
        epoch = 1 + counter // 8
        body = Beacon(beacon_of(HOSTILE, counter, epoch), sketch, LARGEST)
        said += says(bench.hear(bench.hostile, body, now) + bench.tick_until(now))
        assert 1 <= statistics_of(bench.overlay).fragment_size <= LARGEST
    told = [s.body for s in said if isinstance(s.body, Beacon)]
    assert told
    for passed_on in told:
        assert passed_on.sketch == sorted(set(passed_on.sketch))
        assert len(passed_on.sketch) <= SKETCH_MAX
    for say in said:
        encode(say.body)
    probe = bench.link(SOMEBODY, Purpose.PROBE)
    bench.open(probe)
    (answer,) = says(bench.hear(probe, FragmentAsked(b"", LARGEST, b"t"), 80.0))
    assert isinstance(answer.body, FragmentTold)
    encode(answer.body)


@pytest.mark.parametrize(
    "blob",
    [
        b"",
        b"junk",
        beacon_of(1, 5, signer=2),
        beacon_of(1, 5, network=bytes(31) + b"x"),
        record_of(HOSTILE),
    ],
    ids=["none", "junk", "forged", "other network", "a record"],
)
def test_forged_beacons_end_the_link_and_go_no_further(blob: bytes) -> None:
    bench = Victim()
    leader = bench.overlay.beacons.leader
    effects = bench.hear(bench.hostile, Beacon(blob, [1], 7))
    assert [(d.link, d.reason) for d in disconnects(effects)] == [
        (bench.hostile.number, CloseReason.PROTOCOL)
    ]
    assert says(effects) == []
    assert bench.overlay.beacons.leader == leader


def test_old_beacons_are_no_sign_of_life() -> None:
    """Who plays back what a leader that has gone once said keeps its fragment from electing."""
    bench = Victim()
    bench.hear(bench.hostile, Beacon(beacon_of(255, 9), [], 1), 1.0)
    effects: list[OverlayEffect] = []
    for step in range(100):
        now = 2.0 + step
        effects += bench.hear(bench.hostile, Beacon(beacon_of(255, 9), [], 1), now)
        effects += bench.tick_until(now)
    assert bench.overlay.beacons.leader == peer_of(0)


def test_a_leader_cannot_flood_the_network() -> None:
    """Nor can whoever makes keys until one is the smallest: as many beacons go on as one link may
    bring."""
    config = Config().healing
    for leader in (lambda n: HOSTILE, lambda n: 1_000 - n):
        bench = Victim()
        bench.overlay.beacons._me = bytes(peer_of(9_000))  # so that it never leads itself
        effects: list[OverlayEffect] = []
        for n in range(1_000):
            body = Beacon(beacon_of(leader(n), n + 1), [], 1)
            effects += bench.hear(bench.hostile, body, n / 100.0)
        passed_on = [s for s in says(effects) if s.link == bench.good.number]
        assert len(passed_on) <= config.beacons_per_link_burst + 10 * config.beacons_per_link_per_s
        assert len(bench.overlay.beacons._leaders) <= 64


# Fragments.


def ask(bench: Victim, number: int, now: float) -> tuple[Link, FragmentTold | None]:
    """A stranger of another fragment tests the victim."""
    link = bench.link(SOMEBODY + number, Purpose.PROBE)
    bench.open(link, now)
    body = FragmentAsked(beacon_of(SOMEBODY + number, 1), LARGEST, b"%d" % number)
    said = says(bench.hear(link, body, now))
    told = said[0].body if said else None
    assert told is None or isinstance(told, FragmentTold)
    return link, told


def led() -> Victim:
    """It goes by a beacon of its own."""
    bench = Victim()
    bench.tick_until(20.0)
    assert bench.overlay.beacons.is_fresh(20.0)
    return bench


def test_a_probe_asks_once() -> None:
    bench = led()
    link, told = ask(bench, 0, 20.0)
    assert told is not None
    assert told.outcome is FragmentOutcome.JOINING
    checked = bench.signatures.checked
    effects = bench.hear(link, FragmentAsked(beacon_of(SOMEBODY, 2), 1, b"u"), 20.0)
    assert [d.reason for d in disconnects(effects)] == [CloseReason.PROTOCOL]
    assert says(effects) == []
    assert bench.signatures.checked == checked


def test_made_up_fragments_get_the_places_for_healing_and_no_more() -> None:
    """Anybody can make a key and be the leader of a fragment of one."""
    bench = led()
    for number in (3, 4):
        bench.neighbour(number, 20.0)
    assert bench.overlay.membership.is_full
    for number in range(200):
        now = 20.0 + number
        ask(bench, number, now)
        link = bench.link(SOMEBODY + number, Purpose.HEALING, token=b"%d" % number)
        if bench.overlay.asked(link, bench.hello(link), now) is None:
            bench.open(link, now)
        assert len(bench.overlay.healing._promises) <= 16
        bench.tick_until(now)
    most = bench.config.links_max + bench.config.healing_places
    assert len(bench.overlay.membership) <= most
    assert {peer_of(HOSTILE), peer_of(GOOD)} <= set(bench.overlay.membership.neighbours)
    healed = bench.overlay.healing.counts["joined"]
    assert healed <= 1 + 200 / bench.settings.healing.pause_s


def test_the_token_of_a_probe_is_for_its_asker_alone() -> None:
    bench = led()
    ask(bench, 0, 20.0)
    for peer, token, now in (
        (SOMEBODY + 1, b"0", 20.1),
        (SOMEBODY, b"1", 20.1),
        (SOMEBODY, b"0", 99),
    ):
        link = bench.link(peer, Purpose.HEALING, token=token)
        assert bench.overlay.asked(link, bench.hello(link), now) is CloseReason.UNINVITED


@pytest.mark.parametrize("beacon", [b"junk", beacon_of(1, 5, signer=2)])
def test_a_false_beacon_brings_no_link(beacon: bytes) -> None:
    bench = led()
    probe = bench.link(SOMEBODY, Purpose.PROBE)
    bench.open(probe, 20.0)
    effects = bench.hear(probe, FragmentAsked(beacon, 1, b"t"), 20.0)
    assert [d.reason for d in disconnects(effects)] == [CloseReason.PROTOCOL]
    link = bench.link(SOMEBODY, Purpose.HEALING, token=b"t")
    assert bench.overlay.asked(link, bench.hello(link), 20.0) is CloseReason.UNINVITED


# Vouching.


def reached_once(bench: Victim, number: int) -> bytes:
    """The record of a peer that the victim has dialled before. It names others' addresses, too."""
    own = Address(host_of(number), 1)
    blob: bytes = record_of(number, f"tcp://{own}", *(f"tcp://203.0.113.{n}:80" for n in range(3)))
    record = decode_peer_record(decode_signed(blob).payload)
    book = bench.overlay.book
    book.heard(record, blob, record.parsed_addresses(), "walk", own, 60.0)
    book.worked(peer_of(number), own, None, 60.0)
    return blob


def test_nobody_is_dialled_for_neighbours_that_ask_about_made_up_peers() -> None:
    bench = Victim()
    victims = [f"tcp://203.0.113.{host}:80" for host in range(8)]
    for n in range(100):
        body = VouchAsked(record_of(SOMEBODY + n, *victims))
        assert connects(bench.hear(bench.hostile, body, 60.0 + n, id=n + 1)) == []


def test_vouching_dials_are_bounded_however_many_ask() -> None:
    """About peers that the victim has dialled before, and that do not answer any more: some dials
    for all who ask, few at once."""
    bench = Victim(links_max=12)
    askers = [bench.hostile, *(bench.neighbour(n) for n in range(3, 12))]
    detection = bench.settings.detection
    records = [reached_once(bench, SOMEBODY + n) for n in range(20)]
    answered, dials = 0, 0
    under_way: list[Connect] = []
    for second in range(60):
        now = 60.0 + second
        effects: list[OverlayEffect] = []
        if second % 5 == 4:  # all that were begun have failed
            effects = [e for connect in under_way for e in bench.fail(connect, now)]
            under_way = []
        for n, record in enumerate(records):
            id = 20 * second + n + 1
            effects += bench.hear(askers[n % 10], VouchAsked(record), now, id=id)
        under_way += connects(effects)
        dials += len(connects(effects))
        answered += sum(isinstance(s.body, VouchTold) for s in says(effects))
        assert len(under_way) <= detection.vouching_dials_max
    most = detection.vouching_dials_burst + 60 * detection.vouching_dials_per_s
    assert detection.vouching_dials_burst < dials <= most
    for connect in under_way:
        answered += len(says(bench.fail(connect, 120.0)))
    assert answered + len(bench.overlay.vouching._inquiries) == 1200, "each has its answer"


def test_silent_dials_of_vouchers_end_in_time() -> None:
    bench = Victim()
    record = reached_once(bench, SOMEBODY)
    (dial,) = connects(bench.hear(bench.hostile, VouchAsked(record), 60.0))
    effects = bench.tick_until(61.0 + bench.settings.link.idle_timeout_s)
    assert [s.body for s in says(effects) if isinstance(s.body, VouchTold)] == [
        VouchTold(VouchOutcome.SILENT)
    ]
    assert not bench.overlay.vouching._inquiries
    effects = bench.fail(dial, 80.0)
    for other in connects(effects):
        effects += bench.fail(other, 80.0)
    assert [s.body for s in says(effects) if isinstance(s.body, VouchTold)] == []


def test_a_neighbour_cannot_have_another_one_given_up() -> None:
    """Nobody is believed who was not asked, and nobody is closed who has been heard."""
    bench = Victim(links_max=8)
    third = bench.neighbour(3)
    for to in range(bench.last_id + 50):
        assert (
            disconnects(bench.hear(bench.hostile, VouchTold(VouchOutcome.SILENT), 1.0, to=to)) == []
        )
    bench.overlay.suspected(third, 2.0)
    third.heard_at = 2.5
    asked = bench.overlay.vouching._suspicions[third.number].asked
    effects: list[OverlayEffect] = []
    for id, number in list(asked.items()):
        link = next(
            n.link for n in bench.overlay.membership.neighbours.values() if n.link.number == number
        )
        effects += bench.hear(link, VouchTold(VouchOutcome.SILENT), 3.0, to=id)
    assert disconnects(effects) == []


# Leavers.


def test_who_stays_has_nobody_dialled() -> None:
    bench = Victim(links_max=8)
    for reason in (None, CloseReason.IDLE, CloseReason.PROTOCOL):
        link = bench.neighbour(7)
        effects = bench.hear(link, Handover(record_of(SOMEBODY), b"t", dials=True))
        assert connects(effects) == []
        effects = bench.end(link, reason)
        assert [c for c in connects(effects) if c.purpose is Purpose.HANDOVER] == []


def test_a_leaver_has_few_dialled() -> None:
    bench = Victim(links_max=8)
    for n in range(200):
        body = Handover(record_of(SOMEBODY + n), b"%d" % n, dials=True)
        assert connects(bench.hear(bench.hostile, body, 1.0)) == []
    effects = bench.end(bench.hostile, CloseReason.LEAVING, 62.0)
    heirs = [c for c in connects(effects) if c.purpose is Purpose.HANDOVER]
    assert len({c.expected for c in heirs}) == len(heirs) <= HANDED_MAX


def test_an_accomplice_takes_the_place_of_who_named_it() -> None:
    """A defect: a neighbour that said it would leave, and stayed, could bring in two others, and
    these two more each, until all places were theirs."""
    bench = Victim(links_max=8)
    before = len(bench.overlay.membership)
    link = bench.hostile
    for number in range(50, 60):
        token = b"%d" % number
        bench.hear(link, Handover(record_of(number), token, dials=False), float(number))
        heir = bench.link(number, Purpose.HANDOVER, token=token)
        assert bench.overlay.asked(heir, bench.hello(heir), float(number)) is None
        effects = bench.open(heir, float(number))
        assert [(d.link, d.reason) for d in disconnects(effects)] == [
            (link.number, CloseReason.SPLIT)
        ]
        bench.end(link, CloseReason.SPLIT, float(number), by_us=True)
        assert len(bench.overlay.membership) == before
        link = heir
    thief = bench.link(61, Purpose.HANDOVER, token=b"59")
    assert bench.overlay.asked(thief, bench.hello(thief), 60.0) is CloseReason.UNINVITED


def test_leavers_in_a_row_have_no_places_kept_but_those_there_are() -> None:
    bench = Victim()
    for number in range(50, 150):
        link = bench.link(number, Purpose.CLOSER)
        if bench.overlay.asked(link, bench.hello(link), 1.0) is not None:
            continue
        bench.open(link, 1.0)
        for heir in (2 * number, 2 * number + 1):
            bench.hear(link, Handover(record_of(heir), b"%d" % heir, dials=False), 1.0)
        bench.end(link, CloseReason.LEAVING, 1.0)
        assert len(bench.overlay.membership.places) <= bench.config.links_max
    assert bench.overlay.parting.counts["place kept"] <= bench.config.links_max


# Links that need no walk.


def test_whoever_says_it_is_close_gets_no_random_place() -> None:
    bench = Victim(links_max=10)
    for number in range(100, 130):
        link = bench.link(number, Purpose.CLOSER)
        if bench.overlay.asked(link, bench.hello(link), 1.0) is None:
            bench.open(link, 1.0)
    membership = bench.overlay.membership
    chosen = len(membership.neighbours) - membership.randoms
    assert chosen <= bench.config.links_max - bench.config.random_min
    assert {peer_of(HOSTILE), peer_of(GOOD)} <= set(membership.neighbours)


def test_neighbours_cannot_all_part_at_once() -> None:
    """Promises add up: those who have one and have not gone yet count as gone."""
    bench = Bench(links_min=3, links_max=10)
    links = [bench.neighbour(number) for number in range(1, 9)]
    granted = [
        s.body.is_granted
        for link in links
        for s in says(bench.hear(link, PartRequest(), 1.0))
        if isinstance(s.body, PartReply)
    ]
    assert len(granted) == 8
    assert sum(granted) == 8 - bench.config.links_min


def test_strangers_of_one_address_group_get_few_links() -> None:
    bench = Victim(links_max=10, others=Config(book=BookConfig(groups_private=True)))
    for number in range(100, 120):
        link = bench.link(number, Purpose.CLOSER)
        link.remote = Address(f"198.51.{number}.1", 40_000)
        if bench.overlay.asked(link, bench.hello(link), 1.0) is None:
            bench.open(link, 1.0)
    from_there = [
        n
        for n in bench.overlay.membership.neighbours.values()
        if n.link.remote.host.startswith("198.51.")
    ]
    assert len(from_there) == bench.config.links_per_group_max
