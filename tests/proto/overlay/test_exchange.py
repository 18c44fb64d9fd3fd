"""Peers tell each other whom they have connected to: only news, a page at a time, in scope."""

from __future__ import annotations

import itertools
from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshwalk.config import ExchangeConfig
from meshwalk.proto.overlay.exchange import ANNOUNCE_PAUSE_S
from meshwalk.sim.node import UNIX_START_S
from meshwalk.wire.frames import CloseReason
from meshwalk.wire.messages import (
    RECORDS_PER_MESSAGE_MAX,
    PeersTold,
    PeersWanted,
    RecordChanged,
)
from meshwalk.wire.records import decode_peer_record, decode_signed

from .knowing import Net, Node, config, peer_of, record_of

LOG_MAX = 24
CONFIG = config(links_max=100, exchange=ExchangeConfig(log_max=LOG_MAX, pause_s=10.0))
NEWER = int(UNIX_START_S * 1e6) + 1


def told(net: Net, by: Node, to: Node) -> list[list[int]]:
    """What one node has told another, message by message."""
    return [
        [
            net.number_of[decode_peer_record(decode_signed(blob).payload).peer_id]
            for blob in said.body.records
        ]
        for said in net.of(PeersTold)
        if said.by is by and said.to is to
    ]


def told_all(net: Net, by: Node, to: Node) -> list[int]:
    return [peer for page in told(net, by, to) for peer in page]


def log_of(node: Node) -> list[int]:
    """Whom a node has connected to, oldest first."""
    return [node.net.number_of[e.peer] for e in node.overlay.book.news(0, LOG_MAX)]


def star(leaves: int) -> tuple[Net, Node, list[Node]]:
    """A node with neighbours that came one second after the other."""
    net = Net()
    hub = net.add(CONFIG)
    others = [net.add(CONFIG) for _ in range(leaves)]
    for other in others:
        net.run(1)
        net.link(hub, other)
    return net, hub, others


# Each end of a link.


def test_each_end_asks_and_is_told_in_pages_with_pauses() -> None:
    net, hub, _ = star(20)
    net.run(300)
    late = net.add(CONFIG)
    begins = net.now
    net.link(late, hub)
    net.run(0.5)
    assert [len(page) for page in told(net, hub, late)] == [RECORDS_PER_MESSAGE_MAX]
    net.run(9.4)
    assert len(told(net, hub, late)) == 1
    net.run(0.5)
    # The newcomer itself stands at the end of the list, and is not told of itself.
    assert told_all(net, hub, late) == list(range(1, 21))
    times = [said.at for said in net.of(PeersTold) if said.to is late]
    assert times[1] - times[0] == 10.0
    assert times[0] - begins < 0.2


def test_a_newcomer_is_announced_to_those_who_asked() -> None:
    net, hub, (one, two) = star(2)
    net.run(60)
    assert told_all(net, hub, one) == [2]
    newcomer = net.add(CONFIG)
    net.link(newcomer, hub)
    net.run(11)
    assert told_all(net, hub, one) == [2, 3]
    assert told_all(net, hub, two) == [1, 3]
    assert one.overlay.book.entries[newcomer.id].met == "exchange"


def test_who_connects_again_is_told_only_what_came_meanwhile() -> None:
    net, hub, (one, _two) = star(2)
    net.run(60)
    net.lose(one, hub)
    third = net.add(CONFIG)
    net.link(third, hub)
    net.run(60)
    before = len(told(net, hub, one))
    net.link(one, hub)
    net.run(60)
    assert told(net, hub, one)[before:] == [[3]]
    wanted = [said.body.since for said in net.of(PeersWanted) if said.by is one]
    assert wanted[0] == 0
    assert wanted[-1] > 0


def test_who_has_lost_its_memory_is_told_everything() -> None:
    net, hub, (one, two) = star(2)
    net.run(60)
    net.lose(one, hub)
    net.nodes[1] = one = Node(net, 1, CONFIG, one.host, net.now)
    one.overlay.walks.stop()
    net.link(one, hub)
    net.run(60)
    assert two.number in one.knows


@pytest.mark.parametrize("since", [2**64 - 1, 2**63, int((UNIX_START_S + 1e6) * 1e6)])
def test_a_position_never_reached_gets_everything(since: int) -> None:
    """The teller has lost its memory, and begins a list anew."""
    net, hub, (one, _two) = star(2)
    net.run(60)
    before = len(told(net, hub, one))
    net.say(one, hub, PeersWanted(since))
    net.run(1)
    assert told(net, hub, one)[before:] == [[2]]


def test_the_newest_of_a_log_may_be_forgotten_before_it_is_told() -> None:
    """Else there would be something to tell for ever, and the timer would come due on the spot."""
    net, hub, _ = star(3)
    net.run(60)
    for _ in range(2):
        late = net.add(CONFIG)
        net.link(late, hub)
        net.run(1)  # less than the pause between two messages
    newest = hub.overlay.book.newest_position
    counterparties = hub.overlay.exchange._counterparties.values()
    assert min(who.since or 0 for who in counterparties) < newest
    hub.overlay.book._forget(hub.overlay.book.entries[late.id], "failed")
    net.run(60)
    assert all(who.since == newest for who in counterparties)


def test_asking_again_and_again_is_ignored_and_counted() -> None:
    net, hub, (one, _two) = star(2)
    net.run(60)
    before = len(told(net, hub, one))
    for _ in range(50):
        net.say(one, hub, PeersWanted(0))
    net.run(59)
    assert len(told(net, hub, one)) == before + 1
    assert hub.overlay.exchange.counts["wanted too soon"] == 49
    assert one.neighbours == {0}


def test_a_neighbour_that_tells_too_fast_is_not_heard() -> None:
    net, hub, (one, _) = star(2)
    net.run(60)
    for number in range(50):
        net.say(one, hub, PeersTold(number + 1, [record_of(100 + number)]))
        net.number_of[peer_of(100 + number)] = 100 + number
    net.run(1)
    assert len([n for n in hub.knows if n >= 100]) == 8
    assert hub.overlay.exchange.counts["told too fast"] == 42
    assert hub.overlay.book.entries[one.id].cursor == 8


def test_a_forged_record_ends_the_link() -> None:
    net, hub, (one, _) = star(2)
    forged = bytearray(record_of(50))
    forged[-1] ^= 1
    net.say(one, hub, PeersTold(1, [bytes(forged)]))
    net.run(1)
    assert [(n, reason) for _, n, _, reason in net.closed] == [(hub, CloseReason.PROTOCOL)]
    assert peer_of(50) not in hub.overlay.book.entries


def test_both_know_what_they_have_in_common() -> None:
    net, hub, (one, two) = star(2)
    net.link(one, two)
    net.run(60)
    mine = hub.overlay.membership.neighbours
    assert mine[one.id].told_of == {two.id}
    assert mine[two.id].told_of == {one.id}


# Scopes.


def test_no_private_address_goes_to_a_public_peer() -> None:
    net = Net()
    hub = net.add(CONFIG, host="198.51.100.1")
    private, public = net.add(CONFIG), net.add(CONFIG, host="203.0.113.5")
    other = net.add(CONFIG, host="192.0.2.8")
    for node in (private, public, other):
        net.link(node, hub)
    net.run(60)
    assert told_all(net, hub, public) == [other.number]
    assert told_all(net, hub, private) == [public.number, other.number]
    # What may not be told is passed over, and does not hold up what comes after it.
    late = net.add(CONFIG, host="192.0.2.77")
    net.link(late, hub)
    net.run(30)
    assert told_all(net, hub, public) == [other.number, late.number]


def test_no_private_address_is_believed_from_a_public_peer() -> None:
    net = Net()
    hub = net.add(CONFIG, host="198.51.100.1")
    public = net.add(CONFIG, host="203.0.113.5")
    net.link(public, hub)
    net.say(public, hub, PeersTold(1, [record_of(50, "10.1.2.3"), record_of(51, "192.0.2.9")]))
    net.run(1)
    assert peer_of(50) not in hub.overlay.book.entries
    assert peer_of(51) in hub.overlay.book.entries


# Own records made anew.


def changed(net: Net, node: Node, sequence: int = NEWER) -> None:
    node.record = record_of(node.number, node.host, sequence=sequence)
    net.do(node, node.overlay.record_changed(net.now))


def test_a_new_record_reaches_neighbours_and_their_neighbours() -> None:
    net, hub, (one, two) = star(2)
    net.run(60)
    changed(net, one)
    net.run(30)
    assert hub.overlay.book.entries[one.id].sequence == NEWER
    assert two.overlay.book.entries[one.id].sequence == NEWER


def test_own_records_are_announced_with_pauses() -> None:
    net, hub, (one, _) = star(2)
    net.run(60)
    for number in range(20):
        changed(net, one, NEWER + number)
        net.run(ANNOUNCE_PAUSE_S / 10)
    net.run(ANNOUNCE_PAUSE_S)
    said = [said.at for said in net.of(RecordChanged)]
    assert len(said) == 3
    assert min(b - a for a, b in itertools.pairwise(said)) >= ANNOUNCE_PAUSE_S
    assert hub.overlay.book.entries[one.id].sequence == NEWER + 19


def test_who_tells_much_may_still_say_that_it_has_moved() -> None:
    net, hub, (one,) = star(1)
    for number in range(20):
        net.say(one, hub, PeersTold(number, []))
    net.say(one, hub, RecordChanged(record_of(one.number, "10.9.9.9", sequence=NEWER)))
    net.run(1)
    assert hub.overlay.exchange.counts["told too fast"] > 0
    assert hub.overlay.book.entries[one.id].sequence == NEWER
    for number in range(1, 10):
        blob = record_of(one.number, "10.9.9.9", sequence=NEWER + number)
        net.say(one, hub, RecordChanged(blob))
    net.run(1)
    assert hub.overlay.exchange.counts["moved too fast"] == 9 - (CONFIG.exchange.moved_burst - 1)


def test_nobody_announces_another_peer_as_itself() -> None:
    net, hub, (one, two) = star(2)
    net.run(60)
    net.say(one, hub, RecordChanged(record_of(two.number, "10.9.9.9", sequence=NEWER)))
    net.run(1)
    assert hub.neighbours == {2}
    assert hub.overlay.book.entries[two.id].sequence == NEWER - 1


# Twins.


def test_when_both_ends_dialled_the_exchange_goes_on_over_the_link_that_stays() -> None:
    net = Net()
    one, two = net.add(CONFIG), net.add(CONFIG)
    net.link(two, one)
    net.link(one, two)  # the smaller PeerId's dial wins
    net.run(60)
    assert len(one.ends) == len(two.ends) == 1
    third = net.add(CONFIG)
    net.link(third, one)
    net.run(30)
    assert third.number in two.knows
    fourth = net.add(CONFIG)
    net.link(fourth, two)
    net.run(30)
    assert fourth.number in one.knows


# Whatever happens.

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("link"), st.integers(0, 5), st.integers(0, 5)),
        st.tuples(st.just("lose"), st.integers(0, 5), st.integers(0, 5)),
        st.tuples(st.just("ask"), st.integers(0, 5), st.integers(0, 5)),
        st.tuples(st.just("change"), st.integers(0, 5), st.just(0)),
        st.tuples(st.just("wait"), st.sampled_from([0, 1, 3, 20, 70]), st.just(0)),
        st.tuples(st.just("guest"), st.integers(0, 5), st.integers(1, 30)),
    ),
    max_size=40,
)


def guests(net: Net, node: Node, count: int) -> None:
    """So many peers connect to a node, and go."""
    for _ in range(count):
        guest = net.add(CONFIG)
        net.link(guest, node)
        net.crash(guest)


@settings(max_examples=60)
@given(steps=STEPS, seed=st.integers(0, 2**16))
def test_after_any_schedule_neighbours_know_each_others_logs(
    steps: list[tuple[str, int, int]], seed: int
) -> None:
    net = Net(seed)
    nodes = [net.add(CONFIG) for _ in range(6)]
    for sequence, (what, a, b) in enumerate(steps):
        if what == "link" and a != b and b not in nodes[a].neighbours:
            net.link(nodes[a], nodes[b])
        elif what == "lose":
            net.lose(nodes[a], nodes[b])
        elif what == "ask" and b in nodes[a].neighbours and a in nodes[b].neighbours:
            net.say(nodes[a], nodes[b], PeersWanted(0))
        elif what == "change":
            changed(net, nodes[a], NEWER + sequence)
        elif what == "guest":
            guests(net, nodes[a], b)
        elif what == "wait":
            net.run(a)
    net.run(10 * (LOG_MAX // RECORDS_PER_MESSAGE_MAX + 2))
    for teller in nodes:
        for number in teller.neighbours:
            receiver = net.nodes[number]
            assert set(log_of(teller)) - {number} <= receiver.knows | {number}
    by_link: defaultdict[int, list[float]] = defaultdict(list)
    for said in net.of(PeersTold):
        assert 0 < len(said.body.records) <= RECORDS_PER_MESSAGE_MAX
        by_link[said.link].append(said.at)
    for times in by_link.values():
        pauses = [b - a for a, b in itertools.pairwise(times)]
        assert min(pauses, default=10.0) >= 9.999999
    assert not any(n.overlay.exchange.counts["told too fast"] for n in nodes)
    assert all(len(log_of(n)) <= LOG_MAX for n in nodes)
