"""Tests of peers: twenty pings over a link of their own, and what the book makes of it."""

from __future__ import annotations

import itertools
from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshwalk.config import BookConfig, ProbingConfig
from meshwalk.proto.overlay.addressbook import BookEntry, Table
from meshwalk.proto.overlay.effects import Connect
from meshwalk.proto.overlay.probing import ENTRY_EVERY, ENTRY_MEMBERS
from meshwalk.wire.address import Address
from meshwalk.wire.frames import CloseReason, Purpose
from meshwalk.wire.messages import FragmentAsked

from .knowing import Net, Node, config

PROBING = ProbingConfig(interval_s=10.0)
CONFIG = config(probing=PROBING, book=BookConfig(retest_s=100.0))
FIRST_S = 1.5 * PROBING.interval_s  # by when a first test has begun


def prober(net: Net) -> Node:
    """A node that does nothing but tests."""
    node = net.add(CONFIG)
    node.overlay.probing.start(net.now)
    return node


def pair() -> tuple[Net, Node, Node]:
    net = Net()
    one, two = prober(net), net.add(CONFIG)
    net.hears_of(one, two)
    return net, one, two


def entry(node: Node, other: Node) -> BookEntry:
    return node.overlay.book.entries[other.id]


def probes(net: Net) -> list[Connect]:
    return [c for _, _, c in net.dials if c.purpose is Purpose.PROBE]


def test_who_answers_twenty_pings_is_verified_with_its_distance() -> None:
    net, one, two = pair()
    net.rtts_s[frozenset({0, 1})] = 0.25
    assert entry(one, two).table is Table.HEARD
    net.run(FIRST_S + 20 * 0.25 + 1)
    known = entry(one, two)
    assert known.table is Table.VERIFIED
    assert known.address == Address(two.host, 1)
    assert known.rtt_s == pytest.approx(0.25)
    assert known.jitter_s == pytest.approx(0.0)
    assert one.overlay.probing.counts == {"begun": 1, "passed": 1}
    assert [c.expected for c in probes(net)] == [two.id]
    assert [reason for *_, reason in net.closed] == [CloseReason.DONE]
    assert not one.ends
    assert not two.ends
    assert [e.peer for e in one.overlay.book.news(0, 9)] == [two.id]  # to be told to neighbours


def test_a_neighbour_that_has_dialled_is_tested_once_whether_it_can_be_dialled() -> None:
    net = Net()
    one, two, three = prober(net), net.add(CONFIG), net.add(CONFIG)
    net.link(two, one)
    net.link(one, three)
    assert not entry(one, two).verified
    net.run(3 * FIRST_S + 20)
    assert [c.expected for c in probes(net)] == [two.id]
    assert entry(one, two).verified
    assert one.neighbours == {two.number, three.number}


def test_a_neighbour_that_cannot_be_dialled_stays_one_and_takes_half_of_the_tests() -> None:
    net, one, two = pair()
    walled = [net.add(CONFIG) for _ in range(4)]
    for other in walled:
        net.link(other, one)
        other.host = "10.9.9.9"  # nobody answers where it was
    net.run(8 * FIRST_S)
    tested = [c.expected for c in probes(net)]
    assert two.id in tested[:2]
    assert max(map(tested.count, (other.id for other in walled))) == 1
    assert one.neighbours == {other.number for other in walled}


def test_pings_go_one_after_the_other() -> None:
    net, one, two = pair()
    net.rtts_s[frozenset({0, 1})] = 0.5
    net.run(FIRST_S + 20 * 0.5 + 1)
    times = [at for at, by, to in net.pings if (by, to) == (one, two)]
    pauses = [b - a for a, b in itertools.pairwise(times)]
    assert pauses == [pytest.approx(0.5)] * 19


def test_it_asks_for_the_fragment_and_waits_for_the_answer() -> None:
    net, one, two = pair()
    net.run(FIRST_S + 3)
    assert [(said.by, said.to) for said in net.of(FragmentAsked)] == [(one, two)]
    assert not one.overlay.healing._questions


def test_being_tested_leads_to_no_test() -> None:
    net, one, two = pair()
    two.overlay.probing.start(net.now)
    for _ in range(10):
        net.run(CONFIG.book.retest_s)
        for node in (one, two):  # each at its own pace
            assert len([d for d in net.dials if d[1] is node]) <= 1 + net.now / CONFIG.book.retest_s


def test_who_does_not_answer_has_failed_once_and_waits() -> None:
    net, one, two = pair()
    net.crash(two)
    net.run(FIRST_S + 1)
    known = entry(one, two)
    assert (known.table, known.failures) == (Table.HEARD, 1)
    assert known.next_try_at > net.now - 30
    assert one.overlay.probing.counts == {"begun": 1, "failed": 1}


def test_every_address_is_tried_before_it_has_failed() -> None:
    net = Net()
    one, two = prober(net), net.add(CONFIG)
    net.hears_of(one, two, "10.99.0.1", "10.99.0.2", two.host)
    net.run(FIRST_S + 4)
    assert [c.address.host for c in probes(net)] == ["10.99.0.1", "10.99.0.2", two.host]
    assert entry(one, two).address == Address(two.host, 1)
    assert entry(one, two).failures == 0


def test_another_peer_at_its_address_is_no_success() -> None:
    net = Net()
    one, two, three = prober(net), net.add(CONFIG), net.add(CONFIG)
    net.hears_of(one, two, three.host)
    net.run(FIRST_S + 1)
    assert entry(one, two).failures == 1
    assert not entry(one, two).verified


def test_an_address_at_which_this_node_answers_is_nobody_elses() -> None:
    net = Net()
    one, two = prober(net), net.add(CONFIG)
    net.hears_of(one, two, one.host)
    net.run(FIRST_S + 1)
    assert one.overlay.probing.counts["is self"] == 1
    assert entry(one, two).failures == 1


def test_pings_that_take_too_long_are_a_failure() -> None:
    net, one, two = pair()
    net.rtts_s[frozenset({0, 1})] = 2.0
    net.run(FIRST_S + PROBING.timeout_s + 1)
    assert one.overlay.probing.counts["too slow"] == 1
    assert entry(one, two).failures == 1
    assert not entry(one, two).verified
    assert not one.ends


def test_a_link_that_breaks_during_the_test_is_a_failure() -> None:
    net, one, two = pair()
    net.rtts_s[frozenset({0, 1})] = 0.5
    while not one.overlay.probing.attempts or not one.ends:
        net.run(0.1)
    net.lose(one, two)
    net.run(1)
    assert one.overlay.probing.counts["failed"] == 1
    assert entry(one, two).failures == 1


def test_too_many_dials_of_ours_are_no_fault_of_the_peer() -> None:
    net, one, two = pair()
    two.is_silent = True
    while not net.dials:
        net.run(0.1)
    attempt = net.dials[0][2].attempt
    net.do(one, one.overlay.not_dialled(attempt, net.now))
    assert entry(one, two).failures == 0
    assert one.overlay.probing.counts["too many dials"] == 1
    assert not one.overlay.probing.attempts


def test_a_neighbour_is_not_tested() -> None:
    net, one, two = pair()
    net.link(one, two)
    net.run(10 * FIRST_S)
    assert probes(net) == []


def test_now_and_then_an_entry_that_a_person_named_is_tested() -> None:
    """A network cut apart for so long that the book has forgotten the rest is found by it."""
    net = Net()
    one, two, other = prober(net), net.add(CONFIG), net.add(CONFIG)
    net.link(one, other)
    net.do(one, one.overlay.enter(Address(two.host, 1), None, net.now))
    for number in range(20):
        net.hears_of(one, net.add(CONFIG), f"10.9.0.{number}")  # nobody is there
    net.run(1.5 * PROBING.interval_s * ENTRY_EVERY)
    assert two.id in [p.id for p in net.nodes if p.number in one.knows]
    assert entry(one, two).verified


def test_with_nobody_else_to_test_the_entry_is() -> None:
    net = Net()
    one, two, other = prober(net), net.add(CONFIG), net.add(CONFIG)
    net.link(one, other)
    net.do(one, one.overlay.enter(Address(two.host, 1), None, net.now))
    net.run(FIRST_S + 3)
    assert entry(one, two).verified


def test_the_entries_of_a_large_network_are_not_tested_by_everybody() -> None:
    """A defect: ten thousand nodes with one entry had it answer 42 handshakes a second."""
    tested = {}
    for size in (1, 20 * ENTRY_MEMBERS):
        net = Net()
        one, two, other = prober(net), net.add(CONFIG), net.add(CONFIG)
        one.overlay.beacons._counted = size
        net.link(one, other)
        two.is_silent = True  # the entry stays one that is not known
        net.do(one, one.overlay.enter(Address(two.host, 1), None, net.now))
        net.run(30 * ENTRY_EVERY * PROBING.interval_s)
        assert one.overlay.beacons.size == size
        tested[size] = len(probes(net))
    assert tested[1] > 100
    assert tested[20 * ENTRY_MEMBERS] in (1, 2)


def test_after_waking_a_test_comes_soon() -> None:
    net, one, _ = pair()
    net.do(one, one.overlay.woke(net.now))
    net.run(FIRST_S / 4 + 0.2)
    assert len(probes(net)) == 1


def test_nothing_is_tested_by_a_node_that_stops() -> None:
    net, one, _ = pair()
    net.leave(one)
    one.is_up = True
    net.run(10 * FIRST_S)
    assert probes(net) == []


@settings(max_examples=20)
@given(
    st.lists(st.sampled_from(["alive", "dead", "silent", "slow", "elsewhere"]), max_size=8),
    st.integers(0, 2**16),
)
def test_in_the_end_the_verified_are_those_that_answer(kinds: list[str], seed: int) -> None:
    net = Net(seed)
    one = prober(net)
    others = [net.add(CONFIG) for _ in kinds]
    for other, kind in zip(others, kinds, strict=True):
        net.hears_of(one, other, "10.77.0.1") if kind == "elsewhere" else net.hears_of(one, other)
        other.is_up = kind != "dead"
        other.is_silent = kind == "silent"
        if kind == "slow":
            net.rtts_s[frozenset({0, other.number})] = 1.5

    def watch() -> None:
        assert len(one.overlay.probing.attempts) <= PROBING.probes_max

    net.watch = watch
    net.run(400)
    verified = {
        net.number_of[e.peer]
        for e in one.overlay.book.entries.values()
        if e.table is Table.VERIFIED
    }
    assert verified == {o.number for o, kind in zip(others, kinds, strict=True) if kind == "alive"}
    begun: defaultdict[object, list[float]] = defaultdict(list)
    for at, _, connect in net.dials:
        begun[connect.expected].append(at)
    for peer, times in begun.items():
        pauses = [b - a for a, b in itertools.pairwise(times)]
        answers = kinds[next(o.number for o in others if o.id == peer) - 1] == "alive"
        least_s = CONFIG.book.retest_s if answers else CONFIG.book.retest_failing_s
        assert min(pauses, default=1e9) >= least_s
    counts = one.overlay.probing.counts
    ended = sum(counts[how] for how in ("passed", "failed", "too slow"))
    assert ended == counts["begun"] - len(one.overlay.probing.attempts)
    net.leave(one)
    net.run(PROBING.timeout_s)
    assert not any(node.ends for node in net.nodes if not node.is_silent)
