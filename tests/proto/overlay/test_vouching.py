"""A silent neighbour: whom a node asks, and when it gives the neighbour up."""

from __future__ import annotations

from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshwalk.config import DetectionConfig
from meshwalk.proto.link import Link
from meshwalk.wire.frames import CloseReason, Purpose
from meshwalk.wire.messages import PartRequest, VouchAsked, VouchOutcome, VouchTold

from .knowing import Net, Node, config

DETECTION = DetectionConfig(vouching_max=16)
CONFIG = config(links_max=20, detection=DETECTION)
TIMEOUT_S = DETECTION.voucher_timeout_s + 1.0  # and round trips to them and of a dial, at the most
DECIDED_S = CONFIG.link.connect_timeout_s + 0.1  # also when nobody can tell, and it dials itself
ENDS = ("given up", "vouched for", "heard again", "nobody knows", "undecided", "link ended")


def scene(
    *vouchers: Literal["linked", "knows", "apart"], dialled: bool = True
) -> tuple[Net, Node, Node, list[Node]]:
    """A node, a neighbour from which it hears nothing, and neighbours that it may ask.

    Those are linked with it as well, or have reached it by a dial, or neither. `dialled`: whether
    the link to the suspect is one that the node has dialled itself.
    """
    net = Net()
    one, suspect = net.add(CONFIG), net.add(CONFIG)
    net.link(*((one, suspect) if dialled else (suspect, one)))
    others = []
    for kind in vouchers:
        others.append(net.add(CONFIG))
        net.link(others[-1], one)
        if kind == "linked":
            net.link(others[-1], suspect)
        elif kind == "knows":
            net.knows_well(others[-1], suspect)
    net.run(30)
    net.cut.add(frozenset({one.number, suspect.number}))
    net.said.clear()
    net.dials.clear()
    return net, one, suspect, others


def given_up(net: Net, one: Node) -> list[Link]:
    return [link for _, n, link, why in net.closed if n is one and why is CloseReason.IDLE]


def ended_as(one: Node) -> dict[str, int]:
    counts = one.overlay.vouching.counts
    return {how: counts[how] for how in ENDS if counts[how]}


def answers(net: Net) -> list[VouchOutcome]:
    return [said.body.outcome for said in net.of(VouchTold)]


def speak(net: Net, one: Node, suspect: Node) -> None:
    """The suspect is heard over its own link."""
    one.link_to(suspect).heard_at = net.now


# Who asks.


def test_a_peer_that_a_common_neighbour_hears_is_kept() -> None:
    net, one, suspect, _ = scene("linked")
    net.suspect(one, suspect)
    net.run(TIMEOUT_S)
    assert answers(net) == [VouchOutcome.ALIVE]
    assert net.dials == []  # its own link told it
    assert one.overlay.vouching.counts == {"suspected": 1, "vouched for": 1}
    assert suspect.number in one.neighbours


def test_a_peer_that_nobody_can_reach_is_given_up_in_time() -> None:
    net, one, suspect, _ = scene("linked", "apart")
    suspect.is_silent = True
    begins = net.now
    net.suspect(one, suspect)
    net.run(TIMEOUT_S)
    assert [link.peer for link in given_up(net, one)] == [suspect.id]
    closed_at = next(at for at, n, _, why in net.closed if why is CloseReason.IDLE)
    assert DETECTION.voucher_timeout_s < closed_at - begins < TIMEOUT_S
    assert one.overlay.vouching.counts["given up"] == 1


def test_one_that_reaches_it_outweighs_one_that_does_not() -> None:
    net, one, suspect, others = scene("linked", "linked")
    net.cut.add(frozenset({others[0].number, suspect.number}))
    net.suspect(one, suspect)
    net.run(TIMEOUT_S)
    assert suspect.number in one.neighbours


def test_whoever_is_heard_meanwhile_is_kept() -> None:
    net, one, suspect, _ = scene("linked", "apart")
    suspect.is_silent = True
    net.suspect(one, suspect)
    net.run(1)
    speak(net, one, suspect)
    net.run(TIMEOUT_S)
    assert VouchOutcome.ALIVE not in answers(net)
    assert one.overlay.vouching.counts["heard again"] == 1
    assert given_up(net, one) == []


def test_when_no_voucher_answers_and_others_are_heard_it_is_given_up() -> None:
    net, one, suspect, others = scene("linked", "linked")
    lively = net.add(CONFIG)
    net.link(lively, one)
    for silent in (suspect, *others):
        silent.is_silent = True
    one.overlay.membership.neighbours[others[0].id].told_of |= {suspect.id}
    one.overlay.membership.neighbours[others[1].id].told_of |= {suspect.id}
    net.suspect(one, suspect)
    net.run(1)
    net.say(lively, one, PartRequest())
    net.run(TIMEOUT_S)
    assert {said.to for said in net.of(VouchAsked)} == set(others)
    assert [link.peer for link in given_up(net, one)] == [suspect.id]


def test_a_link_whose_peer_has_dialled_anew_is_given_up_whatever_others_say() -> None:
    net, one, suspect, _ = scene("linked")
    pings = len(net.pings)
    one.overlay.vouching.dialled_by(suspect.id, net.now)
    net.do(one, one.overlay.record_changed(net.now))  # any input: it flushes
    net.run(1)
    assert (one, suspect) in [(n, other) for _, n, other in net.pings[pings:]]
    assert given_up(net, one) == [], "before the ping has had its time"
    net.suspect(one, suspect)
    assert [link.peer for link in given_up(net, one)] == [suspect.id]
    assert list(net.of(VouchAsked)) == []
    assert one.overlay.vouching.counts["outdone"] == 1


def test_a_link_that_answers_outlasts_its_peer_s_dialling_anew() -> None:
    net, one, suspect, _ = scene("linked")
    one.overlay.vouching.dialled_by(suspect.id, net.now)
    net.run(1)
    speak(net, one, suspect)
    net.run(60)
    net.suspect(one, suspect)
    net.run(TIMEOUT_S)
    assert answers(net) == [VouchOutcome.ALIVE]
    assert suspect.number in one.neighbours


def test_a_suspect_that_dials_anew_is_let_go_of_at_once() -> None:
    net, one, suspect, _ = scene("linked")
    link = one.link_to(suspect)
    link._suspected_at = net.now
    link.heard_at = net.now - 1.0
    net.suspect(one, suspect)
    one.overlay.vouching.dialled_by(suspect.id, net.now)
    net.do(one, one.overlay.record_changed(net.now))
    assert given_up(net, one) == [link]
    net.run(TIMEOUT_S)
    assert one.overlay.vouching.counts["outdone"] == 1
    assert one.overlay.vouching.counts["vouched for"] == 0


def test_when_nobody_is_heard_it_is_this_node_that_is_cut_off() -> None:
    net, one, suspect, _ = scene("linked", "linked")
    one.is_silent = True
    net.suspect(one, suspect)
    net.run(TIMEOUT_S)
    assert given_up(net, one) == []
    assert one.overlay.vouching.counts["undecided"] == 1


def test_without_vouchers_the_idle_time_out_decides() -> None:
    net, one, suspect, _ = scene()
    net.suspect(one, suspect)
    net.run(TIMEOUT_S)
    assert given_up(net, one) == []
    assert one.overlay.vouching.counts == {"suspected": 1, "undecided": 1}


def test_a_far_suspect_is_given_the_time_that_a_dial_to_it_takes() -> None:
    net, one, suspect, _ = scene("knows")
    link = one.link_to(suspect)
    for _ in range(CONFIG.link.rtt_window):
        link.round_trips.add(0.5, 0.0)
    suspect.is_silent = True
    begins = net.now
    net.suspect(one, suspect)
    net.run(DETECTION.voucher_timeout_s + 3 * 0.5)
    assert given_up(net, one) == []
    net.run(CONFIG.link.idle_timeout_s)
    closed_at = next(at for at, _, _, why in net.closed if why is CloseReason.IDLE)
    assert closed_at - begins == pytest.approx(DETECTION.voucher_timeout_s + 3 * 0.5 + 0.1, abs=0.1)


def test_all_others_are_pinged_since_they_may_have_gone_as_well() -> None:
    net, one, suspect, others = scene("linked", "apart", "apart")
    for other in others:
        one.link_to(other).heard_at = 0.0
    net.suspect(one, suspect)
    net.run(0.5)
    assert all(one.link_to(other).heard_at > 0 for other in others)


def test_common_neighbours_are_asked_first_and_no_more_than_are_needed() -> None:
    net, one, suspect, others = scene("apart", "linked", "apart", "linked", "apart")
    net.suspect(one, suspect)
    net.run(TIMEOUT_S)
    assert {said.to for said in net.of(VouchAsked)} == {others[1], others[3]}


def test_a_silence_is_looked_into_once() -> None:
    net, one, suspect, _ = scene("linked")
    for _ in range(5):
        net.suspect(one, suspect)
    net.run(TIMEOUT_S)
    assert one.overlay.vouching.counts["suspected"] == 1


def test_other_suspects_are_not_asked() -> None:
    net, one, suspect, others = scene("linked", "linked", "linked")
    net.suspect(one, others[0])
    net.said.clear()
    net.suspect(one, suspect)
    assert others[0] not in {said.to for said in net.of(VouchAsked)}


def test_no_public_peer_is_told_of_a_private_one() -> None:
    net = Net()
    one = net.add(CONFIG)
    suspect, public = net.add(CONFIG), net.add(CONFIG, host="203.0.113.5")
    net.link(one, suspect)
    net.link(public, one)
    net.suspect(one, suspect)
    net.run(TIMEOUT_S)
    assert not list(net.of(VouchAsked))


def test_a_suspicion_ends_with_its_link() -> None:
    net, one, suspect, _ = scene("linked")
    net.suspect(one, suspect)
    net.lose(one, suspect)
    net.run(TIMEOUT_S)
    assert one.overlay.vouching.counts == {"suspected": 1, "link ended": 1}


def test_after_waking_nobody_is_suspect() -> None:
    net, one, suspect, _ = scene("linked")
    suspect.is_silent = True
    net.suspect(one, suspect)
    net.now += 1000
    net.do(one, one.overlay.woke(net.now))
    net.run(TIMEOUT_S)
    assert given_up(net, one) == []


def test_answers_to_no_question_are_ignored() -> None:
    net, one, suspect, (voucher,) = scene("linked")
    net.suspect(one, suspect)
    other = net.add(CONFIG)
    net.link(other, one)
    asked = one.overlay.vouching._suspicions[one.link_to(suspect).number].asked
    for id in (0, 1, *asked):  # even if it guessed the id of what another one was asked
        net.say(other, one, VouchTold(VouchOutcome.ALIVE), in_reply_to=id)
    net.run(0.2)
    assert one.overlay.vouching.counts["vouched for"] == 0
    assert voucher.number in one.neighbours


# Peers that cannot be dialled, and peers that nobody else can tell of.


def test_that_nobody_answers_means_nothing_about_whom_nobody_can_dial() -> None:
    """The vouchers wait for dials, and no dial to such a peer is ever answered."""
    net, one, suspect, others = scene("linked", "linked", dialled=False)
    assert not one.overlay.book.entries[suspect.id].verified
    net.link(net.add(CONFIG), one)
    for other in others:
        other.is_silent = True
    net.suspect(one, suspect)
    net.run(TIMEOUT_S)
    assert {said.to for said in net.of(VouchAsked)} <= {*others, net.nodes[-1]}
    assert given_up(net, one) == []


def test_a_live_peer_that_cannot_be_dialled_is_kept_when_nobody_else_has_a_link_to_it() -> None:
    net, one, suspect, others = scene("apart", "apart", dialled=False)
    for other in others:
        net.hears_of(other, suspect)
    suspect.is_up = True
    for other in (one, *others):
        net.cut.add(frozenset({suspect.number, other.number}))  # behind a firewall
    net.suspect(one, suspect)
    net.run(TIMEOUT_S)
    assert answers(net) == [VouchOutcome.UNKNOWN] * 2
    assert ended_as(one) == {"nobody knows": 1}
    assert net.dials == []
    assert suspect.number in one.neighbours


def test_when_nobody_can_tell_a_node_dials_whom_it_has_dialled_before() -> None:
    net, one, suspect, _ = scene("apart", "apart")
    suspect.is_silent = True
    begins = net.now
    net.suspect(one, suspect)
    net.run(CONFIG.link.connect_timeout_s)
    assert [(n, c.purpose, c.expected) for _, n, c in net.dials] == [
        (one, Purpose.PROBE, suspect.id)
    ]
    assert [link.peer for link in given_up(net, one)] == [suspect.id]
    assert net.closed[-1][0] - begins > DETECTION.voucher_timeout_s
    assert not one.overlay.vouching.attempts


@pytest.mark.parametrize("refuses", [False, True])
def test_whoever_answers_that_dial_lives(refuses: bool) -> None:
    net, one, suspect, _ = scene("apart", "apart")
    net.cut.clear()  # the old link is broken, and a new one is not
    if refuses:
        net.do(suspect, suspect.overlay.leave(net.now))
    net.suspect(one, suspect)
    net.run(TIMEOUT_S)
    assert len(net.dials) == 1
    assert ended_as(one) == {"vouched for": 1}
    assert given_up(net, one) == []
    assert len(one.ends) == len(one.neighbours), "the dial is closed"


def test_a_dial_that_is_to_prove_a_peer_alive_does_not_end_its_link() -> None:
    """Whoever has a link does not dial, but for that; the suspect finds us silent as well."""
    net, one, suspect, _ = scene("apart", "apart")
    net.cut.clear()
    for node, other in ((suspect, one), (one, suspect)):
        link = node.link_to(other)
        link.heard_at, link._suspected_at = net.now - 1, net.now
        net.suspect(node, other)
    net.run(TIMEOUT_S)
    assert {by for _, by, c in net.dials if c.purpose is Purpose.PROBE} >= {one}
    assert given_up(net, suspect) == given_up(net, one) == []
    assert suspect.overlay.vouching.counts["outdone"] == 0


def test_that_dial_failing_at_once_is_silence() -> None:
    net, one, suspect, _ = scene("apart", "apart")
    net.cut.clear()
    suspect.is_up = False  # and its end of the link has not said so
    begins = net.now
    net.suspect(one, suspect)
    net.run(1)
    assert ended_as(one) == {"given up": 1}
    assert net.closed[-1][0] - begins < DETECTION.voucher_timeout_s


def test_that_dial_not_begun_proves_nothing() -> None:
    net, one, suspect, _ = scene("apart", "apart")
    net.suspect(one, suspect)
    net.run(0.2)
    net.do(one, one.overlay.not_dialled(net.dials[0][2].attempt, net.now))
    net.run(TIMEOUT_S)
    assert ended_as(one) == {"nobody knows": 1}
    assert suspect.number in one.neighbours


# Whatever happens.


@settings(max_examples=80)
@given(
    vouchers=st.lists(st.sampled_from(["linked", "apart", "silent", "gone"]), max_size=5),
    suspect_is=st.sampled_from(["alive", "silent", "crashed"]),
    heard_after_s=st.none() | st.floats(0.01, 2 * DECIDED_S),
    slowest_s=st.sampled_from([0.05, 0.5, 2.0]),
    seed=st.integers(0, 2**16),
)
def test_a_suspicion_is_decided_in_time_and_never_against_what_was_heard(
    vouchers: list[str],
    suspect_is: str,
    heard_after_s: float | None,
    slowest_s: float,
    seed: int,
) -> None:
    net = Net(seed, (0.01, slowest_s))
    one, suspect = net.add(CONFIG), net.add(CONFIG)
    net.link(one, suspect)
    others = [net.add(CONFIG) for _ in vouchers]
    for other, kind in zip(others, vouchers, strict=True):
        net.link(other, one)
        if kind == "linked":
            net.link(other, suspect)
    net.run(30)
    net.cut.add(frozenset({one.number, suspect.number}))
    suspect.is_silent = suspect_is == "silent"
    suspect.is_up = suspect_is != "crashed"
    for other, kind in zip(others, vouchers, strict=True):
        other.is_silent = kind == "silent"
    begins = net.now
    link = one.link_to(suspect)
    net.suspect(one, suspect)
    for other, kind in zip(others, vouchers, strict=True):
        if kind == "gone":
            net.lose(one, other)
    if heard_after_s is not None and heard_after_s < DECIDED_S:
        net.run(heard_after_s)
        if suspect.id in one.overlay.membership.neighbours:
            link.heard_at = net.now
    net.run(begins + DECIDED_S - net.now)
    counts = one.overlay.vouching.counts
    assert counts["suspected"] == sum(counts[how] for how in ENDS) == 1
    for at, node, closed, reason in net.closed:
        if node is one and reason is CloseReason.IDLE:
            assert closed is link
            assert link.heard_at <= begins
            assert at <= begins + DECIDED_S
    if suspect_is == "alive" and slowest_s == 0.05 and "linked" in vouchers:
        assert counts["given up"] == 0 or "silent" in vouchers


@pytest.mark.parametrize("outcomes", [[o, p] for o in VouchOutcome for p in VouchOutcome])
def test_every_pair_of_answers_in_every_order(outcomes: list[VouchOutcome]) -> None:
    net, one, suspect, others = scene("linked", "linked")
    suspect.is_silent = True
    for other in others:
        other.is_silent = True  # the test answers in their place
    net.suspect(one, suspect)
    (suspicion,) = one.overlay.vouching._suspicions.values()
    asked = dict(suspicion.asked)
    for other in others:
        other.is_silent = False
    for (id, number), outcome in zip(asked.items(), outcomes, strict=True):
        other = next(o for o in others if one.link_to(o).number == number)
        net.say(other, one, VouchTold(outcome), in_reply_to=id)
        net.run(0.1)
    net.run(DECIDED_S)
    # If nobody knows, it does not answer our own dial.
    assert (suspect.number in one.neighbours) is (VouchOutcome.ALIVE in outcomes)
